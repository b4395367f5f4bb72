use super::*;
use crate::outgoing::tests::samples;

const CONFIG: SpoolConfig = SpoolConfig { disk: 1 << 20, age: Duration::from_secs(3600), fsync: false };

/// A directory that goes with the test.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kimberlite-spool-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self) -> Spool {
        self.open_with(CONFIG)
    }

    fn open_with(&self, config: SpoolConfig) -> Spool {
        Spool::open(self.0.clone(), config).unwrap()
    }

    fn logs(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut logs: Vec<PathBuf> = paths.filter(|path| segment::number(path).is_some()).collect();
        logs.sort();
        logs
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn one(value: u32) -> Outgoing {
    Outgoing::new(samples([value]), 0)
}

fn value(outgoing: &Outgoing) -> u32 {
    outgoing.batch.samples[0].value as u32
}

/// Reads and acknowledges all there is.
fn drain(spool: &mut Spool) -> Vec<u32> {
    std::iter::from_fn(|| {
        let (outgoing, _) = spool.load(0).unwrap()?;
        spool.acknowledge();
        Some(value(&outgoing))
    })
    .collect()
}

fn filled(temp: &Temp, values: std::ops::Range<u32>) -> Spool {
    let mut spool = temp.open();
    for value in values {
        spool.append(&one(value), 0).unwrap();
    }
    spool
}

#[test]
fn what_came_first_goes_first_and_leaves_no_file() {
    let temp = Temp::new("order");
    let mut spool = filled(&temp, 0..5);
    assert_eq!((spool.items(), temp.logs().len()), (5, 1));
    assert_eq!(drain(&mut spool), [0, 1, 2, 3, 4]);
    assert_eq!((spool.items(), spool.bytes(), temp.logs().len()), (0, 0, 0));
    spool.append(&one(9), 0).unwrap();
    assert_eq!(drain(&mut spool), [9]);
}

#[test]
fn nothing_is_made_before_something_is_written() {
    let temp = Temp::new("nothing");
    let mut spool = temp.open();
    assert!(spool.load(0).unwrap().is_none() && spool.is_empty());
    assert!(!temp.0.exists());
}

#[test]
fn the_next_run_goes_on_behind_what_was_acknowledged() {
    let temp = Temp::new("restart");
    let mut spool = filled(&temp, 0..4);
    spool.load(0).unwrap().unwrap();
    spool.acknowledge();
    // Out, and never acknowledged.
    spool.load(0).unwrap().unwrap();
    drop(spool);
    let mut spool = temp.open();
    assert_eq!(spool.items(), 3);
    spool.append(&one(4), 0).unwrap();
    assert_eq!(drain(&mut spool), [1, 2, 3, 4]);
    drop(spool);
    assert_eq!(drain(&mut temp.open()), [0; 0]);
}

#[test]
fn what_comes_back_is_loaded_again() {
    let temp = Temp::new("unload");
    let mut spool = filled(&temp, 0..2);
    assert_eq!(value(&spool.load(0).unwrap().unwrap().0), 0);
    assert!(spool.load(0).unwrap().is_none(), "one is out already");
    spool.unload();
    assert_eq!(drain(&mut spool), [0, 1]);
}

#[test]
fn an_adopted_batch_is_acknowledged_like_a_loaded_one() {
    let temp = Temp::new("adopt");
    let mut spool = temp.open();
    let place = spool.append(&one(0), 0).unwrap().unwrap();
    spool.append(&one(1), 0).unwrap();
    spool.adopt(place);
    assert!(spool.load(0).unwrap().is_none());
    spool.acknowledge();
    assert_eq!(drain(&mut spool), [1]);
}

#[test]
fn a_batch_that_goes_before_older_ones_is_passed_over_later() {
    let temp = Temp::new("overtakes");
    let mut spool = filled(&temp, 0..2);
    for value in 2..4 {
        let place = spool.append(&one(value), 0).unwrap().unwrap();
        spool.adopt(place);
        spool.acknowledge();
    }
    spool.append(&one(4), 0).unwrap();
    assert_eq!(spool.items(), 3);
    assert_eq!(drain(&mut spool), [0, 1, 4]);
    assert_eq!((spool.bytes(), temp.logs().len()), (0, 0));
}

#[test]
fn a_spool_of_nothing_but_what_has_gone_takes_no_room() {
    let temp = Temp::new("overtaken");
    let mut spool = filled(&temp, 0..1);
    let place = spool.append(&one(1), 0).unwrap().unwrap();
    spool.adopt(place);
    spool.acknowledge();
    assert_eq!(drain(&mut spool), [0]);
    assert_eq!((spool.items(), spool.bytes()), (0, 0));
}

#[test]
fn a_spool_cut_anywhere_gives_all_whole_records() {
    let temp = Temp::new("cut");
    drop(filled(&temp, 0..4));
    let log = temp.logs().remove(0);
    let whole = fs::read(&log).unwrap();
    let each = whole.len() / 4;
    for length in 0..=whole.len() {
        fs::write(&log, &whole[..length]).unwrap();
        let mut spool = temp.open();
        // An agent writes on whatever it finds.
        spool.append(&one(9), 0).unwrap();
        let mut expected: Vec<u32> = (0..(length / each) as u32).collect();
        expected.push(9);
        assert_eq!(drain(&mut spool), expected, "cut at {length}");
        assert_eq!(spool.dropped().damaged_bytes, (length % each) as u64, "cut at {length}");
        drop(spool);
        fs::remove_dir_all(&temp.0).unwrap();
        fs::create_dir_all(&temp.0).unwrap();
    }
}

#[test]
fn a_bent_byte_costs_its_own_record_and_no_other() {
    let temp = Temp::new("bent");
    drop(filled(&temp, 0..3));
    let log = temp.logs().remove(0);
    let whole = fs::read(&log).unwrap();
    let each = whole.len() / 3;
    for at in each..2 * each {
        let mut bent = whole.clone();
        bent[at] ^= 0x20;
        fs::create_dir_all(&temp.0).unwrap();
        fs::write(&log, &bent).unwrap();
        let mut spool = temp.open();
        assert_eq!(spool.items(), 2, "byte {at}");
        assert_eq!(drain(&mut spool), [0, 2], "byte {at}");
        assert_eq!(spool.dropped().damaged_bytes, each as u64);
        let kept: Vec<_> = fs::read_dir(temp.0.join("damaged")).unwrap().collect();
        assert_eq!(fs::read(kept[0].as_ref().unwrap().path()).unwrap(), &bent[each..2 * each]);
        drop(spool);
        fs::remove_dir_all(&temp.0).unwrap();
    }
}

#[test]
fn a_torn_head_leads_to_the_one_before_it() {
    let temp = Temp::new("head");
    let mut spool = filled(&temp, 0..4);
    for _ in 0..2 {
        spool.load(0).unwrap().unwrap();
        spool.acknowledge();
    }
    drop(spool);
    let head = temp.0.join("head");
    let whole = fs::read(&head).unwrap();
    for at in 0..whole.len() {
        let mut bent = whole.clone();
        bent[at] ^= 1;
        fs::write(&head, &bent).unwrap();
        let items = temp.open().items();
        assert!((2..=3).contains(&items), "byte {at}: {items}");
    }
    fs::remove_file(&head).unwrap();
    assert_eq!(temp.open().items(), 4, "twice rather than never");
}

#[test]
fn beyond_its_bytes_the_oldest_go_and_are_counted() {
    let temp = Temp::new("full");
    let config = SpoolConfig { disk: 64 << 10, ..CONFIG };
    let mut spool = temp.open_with(config);
    let all = 20_000;
    for value in 0..all {
        spool.append(&one(value), 0).unwrap();
        assert!(spool.bytes() <= config.disk);
    }
    let full = spool.dropped().full;
    assert!(spool.bytes() > config.disk / 2 && full > u64::from(all) / 2);
    assert_eq!(spool.items() + full, u64::from(all));
    let rest = drain(&mut spool);
    assert_eq!(rest, (full as u32..all).collect::<Vec<_>>());
}

#[test]
fn a_batch_that_is_out_is_not_counted_as_evicted() {
    let temp = Temp::new("evicted");
    let mut spool = temp.open_with(SpoolConfig { disk: 64 << 10, ..CONFIG });
    spool.append(&one(0), 0).unwrap();
    spool.load(0).unwrap().unwrap();
    let mut count = 1;
    while spool.dropped().full == 0 {
        spool.append(&one(count), 0).unwrap();
        count += 1;
    }
    spool.acknowledge();
    assert_eq!(spool.items() + spool.dropped().full + 1, u64::from(count));
}

#[test]
fn a_batch_larger_than_the_spool_is_not_taken() {
    let temp = Temp::new("larger");
    let mut spool = temp.open_with(SpoolConfig { disk: 100, ..CONFIG });
    assert_eq!(spool.append(&Outgoing::new(samples(0..50), 0), 0).unwrap(), None);
    assert_eq!((spool.items(), spool.bytes()), (0, 0));
}

#[test]
fn what_is_too_old_goes_and_is_counted() {
    let temp = Temp::new("old");
    let mut spool = temp.open();
    for (value, since) in [(0, 1000), (1, 2000)] {
        spool.append(&one(value), since).unwrap();
    }
    let (outgoing, since) = spool.load(1500 + 3_600_000).unwrap().unwrap();
    assert_eq!((value(&outgoing), since, spool.dropped().old), (1, 2000, 1));
}

#[test]
fn a_deleted_directory_is_made_again_and_what_was_in_it_is_counted() {
    let temp = Temp::new("deleted");
    let mut spool = filled(&temp, 0..3);
    fs::remove_dir_all(&temp.0).unwrap();
    spool.append(&one(3), 0).unwrap();
    assert_eq!((spool.items(), spool.dropped().deleted), (1, 3));
    drop(spool);
    assert_eq!(drain(&mut temp.open()), [3]);
}

#[test]
fn a_batch_that_is_out_when_the_directory_goes_is_not_lost() {
    let temp = Temp::new("deleted-out");
    let mut spool = filled(&temp, 0..3);
    spool.load(0).unwrap().unwrap();
    fs::remove_dir_all(&temp.0).unwrap();
    spool.append(&one(3), 0).unwrap();
    spool.acknowledge();
    assert_eq!((spool.items(), spool.dropped().deleted), (1, 2));
}

#[test]
fn where_it_cannot_write_it_says_so_and_goes_on_when_it_can() {
    let temp = Temp::new("unwritable");
    fs::write(&temp.0, "in the way").unwrap();
    assert!(Spool::open(temp.0.clone(), CONFIG).is_err());
    fs::remove_file(&temp.0).unwrap();
    let mut spool = temp.open();
    fs::write(&temp.0, "in the way").unwrap();
    spool.append(&one(0), 0).unwrap_err();
    assert!(spool.is_empty());
    fs::remove_file(&temp.0).unwrap();
    spool.append(&one(1), 0).unwrap();
    assert_eq!(drain(&mut spool), [1]);
}
