//! The floor under `canonical`: one thread, no sandbox, no queue. Every second it reads the same files,
//! held open, makes the same samples and sends them with one write.
//!
//! ```text
//! /proc/{stat,meminfo,loadavg,diskstats,net/dev,vmstat}, statvfs ──▶ Lines ──one write──▶ sink
//! ```

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const CPU: [&str; 10] =
    ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];
const MEMORY: [&str; 16] = [
    "MemTotal",
    "MemFree",
    "MemAvailable",
    "Buffers",
    "Cached",
    "Active",
    "Dirty",
    "Inactive",
    "Shmem",
    "SwapTotal",
    "SwapFree",
    "SwapCached",
    "VmallocTotal",
    "VmallocUsed",
    "VmallocChunk",
    "Committed_AS",
];
const VMSTAT: [&str; 6] = ["pgfault", "pgmajfault", "pgpgin", "pgpgout", "pswpin", "pswpout"];
const NETWORK: [&str; 16] = [
    "rx_byte",
    "rx_packets",
    "rx_errors",
    "rx_drop",
    "rx_fifo",
    "rx_frame",
    "rx_compressed",
    "rx_multicast",
    "tx_byte",
    "tx_packets",
    "tx_errors",
    "tx_drop",
    "tx_fifo",
    "tx_colls",
    "tx_carrier",
    "tx_compressed",
];
const DISK: [&str; 8] = [
    "reads",
    "reads_merged",
    "reads_byte",
    "reads_milliseconds",
    "writes",
    "writes_merged",
    "writes_byte",
    "writes_milliseconds",
];
const INTERFACES: [&str; 8] = ["eth", "bond", "em", "p1p", "eno", "enp", "ens", "enx"];
const DISKS: [&str; 6] = ["sd", "vd", "xvd", "nvme", "md", "dm-"];
const FILE_SYSTEMS: [&str; 5] = ["ext2", "ext3", "ext4", "xfs", "btrfs"];

/// `role` is `floor:PORT`.
pub(crate) fn run(role: &str) {
    let port: u16 = role.strip_prefix("floor:").and_then(|port| port.parse().ok()).unwrap();
    let mut sink = TcpStream::connect(("127.0.0.1", port)).unwrap();
    sink.set_nodelay(true).unwrap();
    let mut files = Files::open();
    let mut lines = Lines::default();
    let mut next = Instant::now();
    loop {
        files.read();
        lines.begin();
        cpu(&files.stat.text, &mut lines);
        memory(&files.meminfo.text, &mut lines);
        load(&files.loadavg.text, &mut lines);
        disks(&files.diskstats.text, &mut lines);
        space(&files.mounts.text, &mut lines);
        network(&files.net_dev.text, &mut lines);
        for (key, value) in VMSTAT.iter().zip(by_key(&files.vmstat.text, &VMSTAT, b' ')) {
            if let Some(rate) = lines.rate(value) {
                lines.line(&["vmstat.", key], rate);
            }
        }
        // Killed by whoever started it, and alone in the world if that one has gone.
        if sink.write_all(&lines.text).is_err() {
            return;
        }
        next += Duration::from_secs(1);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// A file of /proc that stays open, and what it said last.
struct Kept {
    file: File,
    text: Vec<u8>,
}

impl Kept {
    fn open(name: &str) -> Self {
        Self { file: File::open(format!("/proc/{name}")).unwrap(), text: Vec::new() }
    }

    fn read(&mut self) {
        let mut length = 0;
        loop {
            if self.text.len() < length + 4096 {
                self.text.resize(length + 16384, 0);
            }
            match self.file.read_at(&mut self.text[length..], length as u64).unwrap() {
                0 => break self.text.truncate(length),
                more => length += more,
            }
        }
    }
}

struct Files {
    stat: Kept,
    meminfo: Kept,
    loadavg: Kept,
    diskstats: Kept,
    mounts: Kept,
    net_dev: Kept,
    vmstat: Kept,
}

impl Files {
    fn open() -> Self {
        Self {
            stat: Kept::open("stat"),
            meminfo: Kept::open("meminfo"),
            loadavg: Kept::open("loadavg"),
            diskstats: Kept::open("diskstats"),
            mounts: Kept::open("mounts"),
            net_dev: Kept::open("net/dev"),
            vmstat: Kept::open("vmstat"),
        }
    }

    fn read(&mut self) {
        let Self { stat, meminfo, loadavg, diskstats, mounts, net_dev, vmstat } = self;
        [stat, meminfo, loadavg, diskstats, mounts, net_dev, vmstat].into_iter().for_each(Kept::read);
    }
}

/// The lines of one tick, and the readings of the tick before, which come in the same order.
#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    /// What ends every line.
    time: String,
    previous: Vec<f64>,
    place: usize,
    /// Seconds since the tick before; none: this is the first.
    elapsed: Option<f64>,
    last: Option<Instant>,
}

impl Lines {
    fn begin(&mut self) {
        let now = Instant::now();
        self.elapsed = self.last.replace(now).map(|last| (now - last).as_secs_f64());
        self.place = 0;
        self.text.clear();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        self.time = format!(" {}\n", since.as_secs());
    }

    /// How much more it is than at the tick before.
    fn difference(&mut self, now: f64) -> Option<f64> {
        if self.place == self.previous.len() {
            self.previous.push(now);
        }
        let before = std::mem::replace(&mut self.previous[self.place], now);
        self.place += 1;
        self.elapsed.filter(|_| now >= before).map(|_| now - before)
    }

    /// The same by the second.
    fn rate(&mut self, now: f64) -> Option<f64> {
        Some(self.difference(now)? / self.elapsed?)
    }

    fn line(&mut self, name: &[&str], value: f64) {
        self.text.extend_from_slice(b"servers.web-1.");
        name.iter().for_each(|part| self.text.extend_from_slice(part.as_bytes()));
        // Writing into memory cannot fail.
        let _ = write!(self.text, " {value}");
        self.text.extend_from_slice(self.time.as_bytes());
    }
}

fn lines_of(text: &[u8]) -> impl Iterator<Item = &str> {
    text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok())
}

fn number(text: Option<&str>) -> f64 {
    text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) as f64
}

/// The numbers behind some keys, in the order of the keys, which is the file's.
fn by_key<const N: usize>(text: &[u8], keys: &[&str; N], end: u8) -> [f64; N] {
    let mut values = [0.0; N];
    for line in text.split(|byte| *byte == b'\n') {
        let Some(length) = line.iter().position(|byte| *byte == end) else { continue };
        if let Some(place) = keys.iter().position(|key| key.as_bytes() == &line[..length]) {
            let digits = line[length + 1..].iter().filter(|byte| byte.is_ascii_digit());
            values[place] = digits.fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0')) as f64;
        }
    }
    values
}

fn cpu(text: &[u8], lines: &mut Lines) {
    let mut count = 0;
    for line in lines_of(text).take_while(|line| line.starts_with("cpu")) {
        let mut words = line.split_ascii_whitespace();
        let Some(label) = words.next() else { continue };
        let label = if label == "cpu" { "total" } else { label };
        count += i32::from(label != "total");
        for (field, word) in CPU.iter().zip(words) {
            if let Some(rate) = lines.rate(number(Some(word))) {
                lines.line(&["cpu.", label, ".", field], rate);
            }
        }
    }
    lines.line(&["cpu.cpu_count"], f64::from(count));
}

fn memory(text: &[u8], lines: &mut Lines) {
    let values = by_key(text, &MEMORY, b':').map(|value| value * 1024.0);
    for (name, value) in MEMORY.iter().zip(values) {
        lines.line(&["memory.", name], value);
    }
    lines.line(&["memory.MemUsedPercentage"], 100.0 * (values[0] - values[2]) / values[0]);
}

fn load(text: &[u8], lines: &mut Lines) {
    let Some(line) = lines_of(text).next() else { return };
    let cpus = thread::available_parallelism().unwrap().get() as f64;
    let mut words = line.split(' ');
    for (name, normalized) in [("01", "01_normalized"), ("05", "05_normalized"), ("15", "15_normalized")] {
        let load: f64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
        lines.line(&["loadavg.", name], load);
        lines.line(&["loadavg.", normalized], load / cpus);
    }
    let processes = words.next().and_then(|word| word.split_once('/'));
    if let Some((running, total)) = processes {
        lines.line(&["loadavg.processes_running"], number(Some(running)));
        lines.line(&["loadavg.processes_total"], number(Some(total)));
    }
}

fn disks(text: &[u8], lines: &mut Lines) {
    for line in lines_of(text) {
        let mut words = line.split_ascii_whitespace().skip(2);
        let Some(device) = words.next() else { continue };
        if !DISKS.iter().any(|prefix| device.starts_with(prefix)) {
            continue;
        }
        let mut column = || number(words.next());
        let mut now = [(); 11].map(|()| column());
        now[2] *= 512.0;
        now[6] *= 512.0;
        let in_progress = now[8];
        let differences = now.map(|value| lines.difference(value).unwrap_or(0.0));
        let Some(seconds) = lines.elapsed else { continue };
        let [
            reads,
            read_merged,
            read_bytes,
            read_ms,
            writes,
            write_merged,
            write_bytes,
            write_ms,
            _,
            busy,
            weighted,
        ] = differences;
        let io = reads + writes;
        if io == 0.0 {
            continue;
        }
        let mut line = |name: &str, value: f64| lines.line(&["iostat.", device, ".", name], value);
        for (name, value) in DISK.iter().zip(differences) {
            line(name, value);
        }
        let each = |sum: f64, count: f64| if count > 0.0 { sum / count } else { 0.0 };
        line("io_in_progress", in_progress);
        line("io_milliseconds", busy);
        line("io_milliseconds_weighted", weighted);
        line("reads_per_second", reads / seconds);
        line("writes_per_second", writes / seconds);
        line("read_requests_merged_per_second", read_merged / seconds);
        line("write_requests_merged_per_second", write_merged / seconds);
        line("read_byte_per_second", read_bytes / seconds);
        line("write_byte_per_second", write_bytes / seconds);
        line("io", io);
        line("iops", io / seconds);
        line("average_queue_length", weighted / seconds / 1000.0);
        line("util_percentage", busy / seconds / 10.0);
        line("read_await", each(read_ms, reads));
        line("write_await", each(write_ms, writes));
        line("await", (read_ms + write_ms) / io);
        line("service_time", busy / io);
        line("average_request_size_byte", (read_bytes + write_bytes) / io);
        line("concurrent_io", io / seconds * (busy / io) / 1000.0);
    }
}

fn space(text: &[u8], lines: &mut Lines) {
    let mut seen = Vec::new();
    for line in lines_of(text) {
        let mut words = line.split(' ').skip(1);
        let (Some(mount), Some(kind)) = (words.next(), words.next()) else { continue };
        if !FILE_SYSTEMS.contains(&kind) {
            continue;
        }
        let (Ok(meta), Ok(space)) = (std::fs::metadata(mount), rustix::fs::statvfs(mount)) else { continue };
        if seen.contains(&meta.dev()) {
            continue;
        }
        seen.push(meta.dev());
        let name = if mount == "/" { "root".to_owned() } else { mount.replace(['/', '.'], "_") };
        let [blocks, free, available] =
            [space.f_blocks, space.f_bfree, space.f_bavail].map(|count| count as f64);
        let [files, files_free, files_available] =
            [space.f_files, space.f_ffree, space.f_favail].map(|count| count as f64);
        let size = space.f_frsize as f64;
        let mut line = |field: &str, value: f64| lines.line(&["diskspace.", &name, ".", field], value);
        line("byte_percentfree", 100.0 * free / blocks.max(1.0));
        line("byte_used", size * (blocks - free));
        line("byte_free", size * free);
        line("byte_avail", size * available);
        line("inodes_percentfree", 100.0 * files_free / files.max(1.0));
        line("inodes_used", files - files_free);
        line("inodes_free", files_free);
        line("inodes_avail", files_available);
    }
}

fn network(text: &[u8], lines: &mut Lines) {
    for line in lines_of(text).skip(2) {
        let Some((name, columns)) = line.trim_start().split_once(':') else { continue };
        if !INTERFACES.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        for (field, word) in NETWORK.iter().zip(columns.split_ascii_whitespace()) {
            let Some(rate) = lines.rate(number(Some(word))) else { continue };
            lines.line(&["network.", name, ".", field], rate);
            if let Some(direction) = field.strip_suffix("_byte") {
                lines.line(&["network.", name, ".", direction, "_bit"], 8.0 * rate);
            }
        }
    }
}
