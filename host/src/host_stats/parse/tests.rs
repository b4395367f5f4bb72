//! The parsers against the `procfs` crate, against old and odd kernels, and against garbage.

use procfs::{FromRead, prelude::*};

use super::{
    super::table::{Columns, Table},
    *,
};

const STAT: &str = "cpu  10132153 290696 3084719 46828483 16683 0 25195 0 175628 0
cpu0 1393280 32966 572056 13343292 6130 0 17875 0 23933 0
cpu2 1393280 32966 572056 13343292 6130 0 17875 0 23933 7
intr 199292 1 2 3
ctxt 1990473
btime 1062191376
processes 2915
procs_running 1
procs_blocked 0
";

const MEMINFO: &str = "MemTotal:       32883544 kB
MemFree:        10115892 kB
Active(anon):    2222222 kB
HugePages_Total:       3
Hugepagesize:       2048 kB
";

const VMSTAT: &str = "nr_free_pages 5631633\nnr_dirty -3\npgpgin 18446744073709551615\n";

const NETDEV: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    3193      29    0    0    0     0          0         0     3193      29    0    0    0     0       0          0
  eth0:324063167   19380    1    2    3     4          5         6  1267754   14558    7    8    9    10      11         12
eth0:1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
";

const DISKSTATS: &str = "   8       0 sda 1 2 3 4 5 6 7 8 9 10 11
   8       1 sda1 9 8 7 6
 259       0 nvme0n1 59588 24606 3513034 19835 9176 106474 7364632 36215 0 18460 65424 58405 73 3388664 9079 206 294
";

fn table(columns: &[&str], parse: impl FnOnce(&mut Draft)) -> Table {
    let mut draft = Draft::default();
    parse(&mut draft);
    draft.finish(&Columns::new(columns, &[]), None).0
}

fn rows(table: &Table) -> Vec<(&str, Vec<f64>)> {
    table.rows().map(|(key, values)| (key, values.to_vec())).collect()
}

fn live(name: &str) -> Vec<u8> {
    std::fs::read(format!("/proc/{name}")).unwrap()
}

#[test]
fn cpu_is_as_procfs_has_it() {
    for text in [STAT.as_bytes().to_vec(), live("stat")] {
        let ours = table(&CPU, |draft| cpu(&text, draft));
        let theirs = procfs::KernelStats::from_read(&text[..], procfs::current_system_info()).unwrap();
        let theirs = std::iter::once(&theirs.total).chain(&theirs.cpu_time);
        assert_eq!(ours.keys.len(), theirs.clone().count());
        for ((_, ours), cpu) in ours.rows().zip(theirs) {
            let rest = [cpu.iowait, cpu.irq, cpu.softirq, cpu.steal, cpu.guest, cpu.guest_nice];
            let theirs = [cpu.user, cpu.nice, cpu.system, cpu.idle].map(Some).into_iter().chain(rest);
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert!(theirs.map_or(ours.is_nan(), |theirs| *ours == theirs as f64));
            }
        }
    }
}

#[test]
fn cpu_that_is_offline_leaves_a_gap() {
    let table = table(&CPU, |draft| cpu(STAT.as_bytes(), draft));
    assert_eq!(table.keys.iter().collect::<Vec<_>>(), ["total", "cpu0", "cpu2"]);
    assert_eq!(table.values[29], 7.0);
}

#[test]
fn columns_that_an_old_kernel_lacks_are_not_a_number() {
    let table =
        table(&CPU, |draft| cpu(b"cpu 1 2 3 4\ncpu0 1 x 3 4\ncpu1\ncpu2 5 6 7 8 9 1 2 3 4 5 6", draft));
    let rows = rows(&table);
    assert_eq!((rows.len(), rows[0].0, rows[1].0), (2, "total", "cpu2"));
    assert_eq!(rows[0].1[..4], [1.0, 2.0, 3.0, 4.0]);
    assert!(rows[0].1[4..].iter().all(|value| value.is_nan()));
    assert_eq!(rows[1].1[9], 5.0);
}

#[test]
fn memory_has_a_row_for_each_line_in_its_order() {
    let table = table(&MEMORY, |draft| memory(MEMINFO.as_bytes(), draft));
    let expected = [
        ("MemTotal", vec![32883544.0, 1.0]),
        ("MemFree", vec![10115892.0, 1.0]),
        ("Active(anon)", vec![2222222.0, 1.0]),
        ("HugePages_Total", vec![3.0, 0.0]),
        ("Hugepagesize", vec![2048.0, 1.0]),
    ];
    assert_eq!(rows(&table), expected);
}

#[test]
fn live_memory_is_as_procfs_has_it() {
    let text = live("meminfo");
    let ours = table(&MEMORY, |draft| memory(&text, draft));
    let theirs = procfs::Meminfo::from_read(&text[..]).unwrap();
    let bytes = |name| {
        ours.rows()
            .find(|(key, _)| *key == name)
            .map(|(_, row)| row[0] * if row[1] == 1.0 { 1024.0 } else { 1.0 })
    };
    assert_eq!(bytes("MemTotal"), Some(theirs.mem_total as f64));
    assert_eq!(bytes("MemAvailable"), theirs.mem_available.map(|value| value as f64));
    assert_eq!(bytes("Committed_AS"), Some(theirs.committed_as as f64));
    assert_eq!(bytes("HugePages_Free"), theirs.hugepages_free.map(|value| value as f64));
    assert_eq!(ours.keys.len(), text.split(|byte| *byte == b'\n').count() - 1);
}

#[test]
fn vmstat_is_as_procfs_has_it() {
    for text in [VMSTAT.replace("pgpgin 18446744073709551615\n", "").into_bytes(), live("vmstat")] {
        let ours = table(&super::VMSTAT, |draft| vmstat(&text, draft));
        let theirs = procfs::VmStat::from_read(&text[..]).unwrap().0;
        assert_eq!(ours.keys.len(), theirs.len());
        assert!(ours.rows().all(|(key, row)| row[0] == theirs[key] as f64));
    }
    let largest = table(&super::VMSTAT, |draft| vmstat(VMSTAT.as_bytes(), draft));
    assert_eq!(largest.values[1..], [-3.0, 18446744073709551615.0]);
}

#[test]
fn network_is_as_procfs_has_it() {
    let text = live("net/dev");
    let ours = table(&NETWORK, |draft| network(&text, draft));
    let theirs = procfs::net::InterfaceDeviceStatus::from_read(&text[..]).unwrap().0;
    assert_eq!(ours.keys.len(), theirs.len());
    for (key, row) in ours.rows() {
        let it = &theirs[key];
        let expected = [
            it.recv_bytes,
            it.recv_packets,
            it.recv_errs,
            it.recv_drop,
            it.recv_fifo,
            it.recv_frame,
            it.recv_compressed,
            it.recv_multicast,
            it.sent_bytes,
            it.sent_packets,
            it.sent_errs,
            it.sent_drop,
            it.sent_fifo,
            it.sent_colls,
            it.sent_carrier,
            it.sent_compressed,
        ];
        assert_eq!(row, expected.map(|value| value as f64));
    }
}

#[test]
fn number_that_touches_the_colon_is_the_first_number() {
    let table = table(&NETWORK, |draft| network(NETDEV.as_bytes(), draft));
    let rows = rows(&table);
    assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), ["lo", "eth0", "eth0:1"]);
    assert_eq!(rows[1].1[..3], [324063167.0, 19380.0, 1.0]);
    assert_eq!(rows[1].1[15], 12.0);
}

#[test]
fn disk_is_as_procfs_has_it_and_short_lines_have_no_row() {
    let recorded: String =
        DISKSTATS.lines().filter(|line| !line.contains("sda1")).map(|line| format!("{line}\n")).collect();
    for text in [recorded.into_bytes(), live("diskstats")] {
        let ours = table(&DISK, |draft| disk(&text, draft));
        let theirs = procfs::DiskStats::from_read(&text[..]).unwrap().0;
        assert_eq!(ours.keys.len(), theirs.len());
        for ((key, row), it) in ours.rows().zip(&theirs) {
            assert_eq!((key, row[0], row[1]), (&*it.name, f64::from(it.major), f64::from(it.minor)));
            let counters = [
                it.reads,
                it.merged,
                it.sectors_read,
                it.time_reading,
                it.writes,
                it.writes_merged,
                it.sectors_written,
                it.time_writing,
                it.in_progress,
                it.time_in_progress,
                it.weighted_time_in_progress,
            ];
            assert_eq!(row[2..], counters.map(|value| value as f64));
        }
    }
    let all = table(&DISK, |draft| disk(DISKSTATS.as_bytes(), draft));
    assert_eq!(all.keys.iter().collect::<Vec<_>>(), ["sda", "nvme0n1"]);
}

#[test]
fn load_has_the_decimals_of_the_file() {
    let table = table(&LOAD, |draft| load(b"0.12 2.63 167.49 3/4280 2496732\n", 4.0, draft));
    assert_eq!(rows(&table), [("load", vec![0.12, 2.63, 167.49, 3.0, 4280.0, 4.0])]);
}

#[test]
fn lists_of_cpus_are_counted() {
    for (list, count) in
        [("0\n", Some(1.0)), ("0-3,5,8-9\n", Some(7.0)), ("", None), ("3-1", None), ("a", None), ("1,", None)]
    {
        assert_eq!(count_cpus(list.as_bytes()), count, "{list:?}");
    }
}

#[test]
fn numbers_are_whole_and_of_64_bits() {
    assert_eq!(number(b"007"), Some(7.0));
    assert_eq!(number(b"-12"), Some(-12.0));
    for word in ["", "-", "+1", "1.5", "18446744073709551616", "99999999999999999999999", "0x1", "1\u{0}"] {
        assert_eq!(number(word.as_bytes()), None, "{word:?}");
    }
}

/// Every parser on a text; what they make of it is for each test to say.
fn parse_all(text: &[u8]) {
    for (columns, parse) in [
        (&CPU[..], cpu as fn(&[u8], &mut Draft)),
        (&MEMORY, memory),
        (&DISK, disk),
        (&NETWORK, network),
        (&super::VMSTAT, vmstat),
        (&LOAD, |text, draft| load(text, 1.0, draft)),
    ] {
        let table = table(columns, |draft| parse(text, draft));
        assert_eq!(table.values.len(), table.keys.len() * table.columns.len());
    }
    count_cpus(text);
}

#[test]
fn garbage_is_survived() {
    // Real texts, damaged: cut anywhere, bytes replaced by the ones that mean something, or by any.
    const MEANING: &[u8] = b" \t\n:-0x\xff/,";
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for text in [STAT, MEMINFO, VMSTAT, NETDEV, DISKSTATS, "0.12 2.63 1.49 3/4280 2496732\n", "0-3,5"] {
        for _ in 0..2_000 {
            let mut text = text.as_bytes().to_vec();
            for _ in 0..=random(8) {
                let at = random(text.len());
                text[at] = if random(2) == 0 { MEANING[random(MEANING.len())] } else { random(256) as u8 };
            }
            text.truncate(random(text.len() + 1));
            parse_all(&text);
        }
    }
    for _ in 0..2_000 {
        let text: Vec<u8> = (0..random(200)).map(|_| MEANING[random(MEANING.len())]).collect();
        parse_all(&text);
    }
}

#[test]
fn bad_line_costs_no_other_line() {
    let text = VMSTAT.replace("nr_dirty -3", "nr_dirty \u{0}\n\n \n:\n\u{fffd} 5");
    let table = table(&super::VMSTAT, |draft| vmstat(text.as_bytes(), draft));
    assert_eq!(table.keys.iter().collect::<Vec<_>>(), ["nr_free_pages", "\u{fffd}", "pgpgin"]);
}
