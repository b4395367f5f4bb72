//! The machine's own figures: /proc and `statvfs`, read at most once per slot and shared by all
//! plugins that ask.
//!
//! ```text
//! source ──text──▶ parse ──rows──▶ table ──▶ reading of this slot ──▶ views ──▶ plugin
//!  (held open)    mounts + sizes             (one, shared)            (beside what it saw last)
//! ```
//!
//! A missing file is a table without rows: what a machine does not have is not an error. A reading
//! of all seven families takes 75 µs on a machine with 2 CPUs, the kernel's share being 60; one whose
//! rows are those of the one before allocates its numbers and nothing else.
//! Uses nothing of kimberlite. The time is an argument.

mod mounts;
mod parse;
mod sizes;
mod source;
mod table;
#[cfg(test)]
mod testing;
mod views;

use std::{fmt, io, path::PathBuf, str::FromStr, sync::Arc};

use self::{
    mounts::{Filesystems, RecordedFilesystems},
    source::Source,
    table::{Columns, Draft},
};

pub use self::{
    table::{MAX_ROWS, Packed, Table},
    views::{View, Views},
};

/// Names a slot: readings with the same one are the same reading.
pub type SlotId = u64;

/// What can be asked for: the functions of `host-stats` in `wit/host.wit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Cpu,
    Memory,
    Load,
    Disk,
    Filesystem,
    Network,
    Vmstat,
}

impl Family {
    pub const ALL: [Family; 7] = [
        Family::Cpu,
        Family::Memory,
        Family::Load,
        Family::Disk,
        Family::Filesystem,
        Family::Network,
        Family::Vmstat,
    ];

    /// As manifests and configs name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::Cpu => "cpu",
            Family::Memory => "memory",
            Family::Load => "load",
            Family::Disk => "disk",
            Family::Filesystem => "filesystem",
            Family::Network => "network",
            Family::Vmstat => "vmstat",
        }
    }

    fn columns(self) -> Columns {
        match self {
            Family::Cpu => Columns::new(&parse::CPU, &[]),
            Family::Memory => Columns::new(&parse::MEMORY, &[]),
            Family::Load => Columns::new(&parse::LOAD, &[]),
            Family::Disk => Columns::new(&parse::DISK, &[]),
            Family::Filesystem => Columns::new(&sizes::Sizes::COLUMNS, &mounts::TEXT_COLUMNS),
            Family::Network => Columns::new(&parse::NETWORK, &[]),
            Family::Vmstat => Columns::new(&parse::VMSTAT, &[]),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is none of [`Family::ALL`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host-stats has no `{0}`; it has {known}", known = Family::ALL.map(Family::as_str).join(", "))]
pub struct UnknownFamily(pub String);

impl FromStr for Family {
    type Err = UnknownFamily;

    fn from_str(name: &str) -> Result<Self, UnknownFamily> {
        let named = Family::ALL.into_iter().find(|family| family.as_str() == name);
        named.ok_or_else(|| UnknownFamily(name.to_owned()))
    }
}

/// Where the figures come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// `/proc`, or where the machine's is mounted in a container, or a recorded tree.
    pub proc: PathBuf,
    /// `/sys` likewise.
    pub sys: PathBuf,
    /// `/`, or where the machine's is mounted in a container.
    pub root: PathBuf,
    /// `proc` is a recorded tree: sizes of file systems come from its `statvfs.json`.
    pub recorded: bool,
}

/// A table and when it was read.
#[derive(Debug)]
pub struct Reading {
    pub table: Table,
    /// As [`HostStats::read`] was told.
    pub taken_micros: u64,
    /// How many rows there were beyond [`MAX_ROWS`].
    pub cut: usize,
}

impl Reading {
    /// How many CPUs a reading of [`Family::Cpu`] has rows for, besides their total.
    fn cpus(&self) -> usize {
        self.table.keys.iter().filter(|key| *key != parse::ALL_CPUS).count()
    }
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// The file exists, and could not be read or understood.
    #[error("cannot read `{}`: {source}", file.display())]
    Unreadable { file: PathBuf, source: io::Error },
}

/// Reads tables. One for the whole agent; another for each recorded tree.
#[derive(Debug)]
pub struct HostStats {
    families: [State; Family::ALL.len()],
    files: Files,
    recorded: bool,
    buffer: Vec<u8>,
    draft: Draft,
}

/// What is known of one family.
#[derive(Debug)]
struct State {
    columns: Columns,
    last: Option<(SlotId, Arc<Reading>)>,
}

impl State {
    fn of_slot(&self, at: SlotId) -> Option<&Arc<Reading>> {
        self.last.as_ref().filter(|(slot, _)| *slot == at).map(|(_, reading)| reading)
    }
}

#[derive(Debug)]
struct Files {
    stat: Source,
    meminfo: Source,
    loadavg: Source,
    online: Source,
    diskstats: Source,
    netdev: Source,
    vmstat: Source,
    mounts: Mounts,
}

#[derive(Debug)]
enum Mounts {
    Live(Filesystems),
    Recorded(RecordedFilesystems),
}

impl HostStats {
    /// Opens nothing yet.
    pub fn new(sources: Sources) -> Self {
        let Sources { proc, sys, root, recorded } = &sources;
        let file = |name: &str| Source::new(proc.join(name));
        Self {
            families: Family::ALL.map(|family| State { columns: family.columns(), last: None }),
            files: Files {
                stat: file("stat"),
                meminfo: file("meminfo"),
                loadavg: file("loadavg"),
                online: Source::new(sys.join("devices/system/cpu/online")),
                diskstats: file("diskstats"),
                netdev: file("net/dev"),
                vmstat: file("vmstat"),
                mounts: match recorded {
                    true => Mounts::Recorded(RecordedFilesystems::new(proc)),
                    false => Mounts::Live(Filesystems::new(proc, root)),
                },
            },
            recorded: *recorded,
            buffer: Vec::new(),
            draft: Draft::default(),
        }
    }

    /// The family as it is in the slot `at`, read at `now_micros` if it has not been read in it yet.
    /// Only the last slot's is kept. `filesystem` may wait up to 200 ms for servers.
    pub fn read(&mut self, family: Family, at: SlotId, now_micros: u64) -> Result<Arc<Reading>, StatsError> {
        if let Some(reading) = self.families[family as usize].of_slot(at) {
            return Ok(reading.clone());
        }
        let cpus = if family == Family::Load { self.online_cpus(at, now_micros) } else { f64::NAN };
        self.files.read(family, cpus, &mut self.buffer, &mut self.draft)?;
        let state = &mut self.families[family as usize];
        let last = state.last.as_ref().map(|(_, reading)| &reading.table);
        let (table, cut) = self.draft.finish(&state.columns, last);
        let reading = Arc::new(Reading { table, taken_micros: now_micros, cut });
        state.last = Some((at, reading.clone()));
        Ok(reading)
    }

    /// Not-a-number where nothing tells.
    fn online_cpus(&mut self, at: SlotId, now_micros: u64) -> f64 {
        // The running machine's `stat` costs eight times as much as /sys, unless the slot has it
        // already; a recorded tree's knows better than a /sys that may be this machine's.
        let stat_first = self.recorded || self.families[Family::Cpu as usize].of_slot(at).is_some();
        if !stat_first && let Some(cpus) = self.files.online_cpus(&mut self.buffer) {
            return cpus;
        }
        match self.read(Family::Cpu, at, now_micros).map(|cpu| cpu.cpus()) {
            Ok(cpus) if cpus > 0 => cpus as f64,
            _ => self.files.online_cpus(&mut self.buffer).unwrap_or(f64::NAN),
        }
    }

    /// How many file systems on the network have been asked for their sizes and do not answer.
    pub fn stuck_filesystems(&self) -> usize {
        match &self.files.mounts {
            Mounts::Live(live) => live.stuck(),
            Mounts::Recorded(_) => 0,
        }
    }
}

impl Files {
    /// Leaves the rows in `draft`, and nothing there after an error.
    fn read(
        &mut self,
        family: Family,
        cpus: f64,
        buffer: &mut Vec<u8>,
        draft: &mut Draft,
    ) -> Result<(), StatsError> {
        let (source, parse): (_, fn(&[u8], &mut Draft)) = match family {
            Family::Cpu => (&mut self.stat, parse::cpu),
            Family::Memory => (&mut self.meminfo, parse::memory),
            Family::Disk => (&mut self.diskstats, parse::disk),
            Family::Network => (&mut self.netdev, parse::network),
            Family::Vmstat => (&mut self.vmstat, parse::vmstat),
            Family::Load => {
                let text = self.loadavg.read(buffer)?;
                text.into_iter().for_each(|text| parse::load(text, cpus, draft));
                return Ok(());
            }
            Family::Filesystem => {
                return match &mut self.mounts {
                    Mounts::Live(live) => live.read(buffer, draft),
                    Mounts::Recorded(recorded) => recorded.read(buffer, draft),
                };
            }
        };
        let text = source.read(buffer)?;
        text.into_iter().for_each(|text| parse(text, draft));
        Ok(())
    }

    fn online_cpus(&mut self, buffer: &mut Vec<u8>) -> Option<f64> {
        self.online.read(buffer).ok().flatten().and_then(parse::count_cpus)
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::Directory, *};

    fn recorded(directory: &Directory) -> HostStats {
        HostStats::new(Sources {
            proc: directory.path().to_owned(),
            sys: directory.path().join("sys"),
            root: "/".into(),
            recorded: true,
        })
    }

    fn live() -> HostStats {
        HostStats::new(Sources {
            proc: "/proc".into(),
            sys: "/sys".into(),
            root: "/".into(),
            recorded: false,
        })
    }

    #[test]
    fn every_family_of_this_machine_has_as_many_values_as_rows_and_columns() {
        let mut stats = live();
        for family in Family::ALL {
            let reading = stats.read(family, 1, 7).unwrap();
            let table = &reading.table;
            assert_eq!(table.values.len(), table.keys.len() * table.columns.len(), "{family}");
            assert_eq!(table.texts.len(), table.keys.len() * table.text_columns.len(), "{family}");
            assert_eq!((reading.taken_micros, reading.cut), (7, 0));
        }
        let load = stats.read(Family::Load, 1, 7).unwrap();
        assert!(load.table.values[5] >= 1.0, "CPUs are online");
    }

    #[test]
    fn slot_reads_once_and_the_next_one_anew() {
        let directory = Directory::new("slots");
        directory.file("vmstat", "pgfault 1\n");
        let mut stats = recorded(&directory);
        let first = stats.read(Family::Vmstat, 1, 10).unwrap();
        directory.file("vmstat", "pgfault 2\n");
        let same = stats.read(Family::Vmstat, 1, 11).unwrap();
        assert!(Arc::ptr_eq(&first, &same));
        let next = stats.read(Family::Vmstat, 2, 20).unwrap();
        assert_eq!((first.table.values[0], next.table.values[0]), (1.0, 2.0));
        assert_eq!((first.taken_micros, next.taken_micros), (10, 20));
    }

    #[test]
    fn tree_that_holds_nothing_gives_tables_without_rows() {
        let directory = Directory::new("empty");
        let mut stats = recorded(&directory);
        for family in Family::ALL {
            let reading = stats.read(family, 1, 0).unwrap();
            assert!(reading.table.keys.is_empty() && reading.table.values.is_empty(), "{family}");
            assert!(!reading.table.columns.is_empty(), "{family}");
        }
    }

    #[test]
    fn file_that_cannot_be_read_is_named_and_leaves_nothing_behind() {
        let directory = Directory::new("unreadable");
        directory.file("stat/a-directory", "");
        directory.file("vmstat", "pgfault 1\n");
        let mut stats = recorded(&directory);
        let text = stats.read(Family::Cpu, 1, 0).unwrap_err().to_string();
        assert!(text.starts_with("cannot read `") && text.contains("/stat`: "), "{text}");
        assert_eq!(stats.read(Family::Vmstat, 1, 0).unwrap().table.keys.len(), 1);
    }

    #[test]
    fn cpus_of_a_recorded_load_are_those_of_its_tree() {
        let directory = Directory::new("cpus");
        directory.file("loadavg", "0.00 0.32 0.56 1/235 24672");
        let cpus = |stats: &mut HostStats, slot| stats.read(Family::Load, slot, 0).unwrap().table.values[5];
        let mut stats = recorded(&directory);
        assert!(cpus(&mut stats, 1).is_nan());
        directory.file("sys/devices/system/cpu/online", "0-1,4\n");
        assert_eq!(cpus(&mut stats, 2), 3.0);
        directory.file("stat", "cpu  1 2 3 4\ncpu0 1 2 3 4\nintr 5\n");
        assert_eq!(cpus(&mut stats, 3), 1.0);

        let mut live = live();
        let of_sys = cpus(&mut live, 1);
        live.read(Family::Cpu, 2, 0).unwrap();
        assert_eq!(cpus(&mut live, 2), of_sys);
    }

    #[test]
    fn families_are_named_as_the_contract_names_them() {
        for family in Family::ALL {
            assert_eq!(family.as_str().parse(), Ok(family));
        }
        let error = "cpus".parse::<Family>().unwrap_err().to_string();
        assert!(error.starts_with("host-stats has no `cpus`; it has cpu, memory,"), "{error}");
    }
}
