//! The machine's own figures, read by the agent at most once per slot and shared by all plugins.
//! Capability `host-stats = ["cpu", …]`, one name per function.
//!
//! Each family is a table; for families that the manifest lists under `previous` there is also the
//! table of the plugin's last run that ended well, so that differences need no state.
//!
//! ```
//! use kimberlite_plugin_sdk::{Context, Result, Run, host_stats};
//!
//! fn collect(run: &mut Run) -> Result<()> {
//!     let disks = host_stats::disk()?;
//!     let reads = disks.now.column("reads").context("no column `reads`")?;
//!     for disk in disks.now.rows() {
//!         if let Some(reads) = disk.get(reads) {
//!             run.counter(format!("iostat.{}.reads", disk.key()), reads);
//!         }
//!     }
//!     Ok(())
//! }
//! ```

use std::fmt;
use std::time::Duration;

#[cfg(target_arch = "wasm32")]
use crate::bindings::imports::kimberlite::plugin::host_stats as host;
use crate::bindings::imports::kimberlite::plugin::host_stats as wit;
use crate::strings;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::fakes::host_stats as host;

/// Why there is no view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatsError {
    /// The manifest or the operator's config does not name this family.
    NotGranted(String),
    /// It could not be read.
    Unreadable(String),
}

impl fmt::Display for StatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGranted(text) | Self::Unreadable(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for StatsError {}

impl From<wit::StatsError> for StatsError {
    fn from(error: wit::StatsError) -> Self {
        match error {
            wit::StatsError::NotGranted(text) => Self::NotGranted(text),
            wit::StatsError::Unreadable(text) => Self::Unreadable(text),
        }
    }
}

/// A family now, and as this plugin saw it before.
#[derive(Debug, Clone)]
pub struct View {
    /// As it is now.
    pub now: Table,
    /// As it was at this plugin's last run that ended well, with the same columns; none: at a first
    /// run, or if the manifest does not list the family under `previous`.
    pub previous: Option<Table>,
    /// The time between the two, to the microsecond.
    pub elapsed: Option<Duration>,
}

impl View {
    /// The row of `previous` with the key of `row`, a row of `now`.
    pub fn previous_row(&self, row: &Row<'_>) -> Option<Row<'_>> {
        let previous = self.previous.as_ref()?;
        // Rows seldom move, so the same place is tried first.
        let same_place = previous.row_at(row.index).filter(|candidate| candidate.key() == row.key());
        same_place.or_else(|| previous.row(row.key()))
    }

    fn from_wit(view: wit::View) -> Self {
        Self {
            now: Table { raw: view.now },
            previous: view.previous.map(|raw| Table { raw }),
            elapsed: view.elapsed.map(Duration::from_micros),
        }
    }
}

/// Rows with numbers and sometimes texts. A file that the kernel does not have is a table without
/// rows. Columns may be added in later versions, so they are looked up by name.
#[derive(Clone)]
pub struct Table {
    pub(crate) raw: wit::Table,
}

/// Where a column is in every row of a table; see [`Table::column`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column(usize);

impl Table {
    /// Where the column `name` is, to look it up once for all rows; none: this agent has no such
    /// column.
    pub fn column(&self, name: &str) -> Option<Column> {
        (0..self.width()).find(|i| strings::get(&self.raw.columns, *i) == name).map(Column)
    }

    /// The names of all columns with numbers, with their places.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = (&str, Column)> {
        (0..self.width()).map(|i| (strings::get(&self.raw.columns, i), Column(i)))
    }

    /// All rows, in the kernel's order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Row<'_>> + Clone {
        (0..self.len()).map(|index| Row { table: self, index })
    }

    /// The row `key`. Looks at one after the other.
    pub fn row(&self, key: &str) -> Option<Row<'_>> {
        self.rows().find(|row| row.key() == key)
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.raw.keys.ends.len()
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn width(&self) -> usize {
        self.raw.columns.ends.len()
    }

    fn row_at(&self, index: usize) -> Option<Row<'_>> {
        (index < self.len()).then_some(Row { table: self, index })
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.rows()).finish()
    }
}

/// One row of a table, for instance a disk.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    table: &'a Table,
    index: usize,
}

impl<'a> Row<'a> {
    /// What it is about, for instance `cpu0` or `/home`.
    pub fn key(&self) -> &'a str {
        strings::get(&self.table.raw.keys, self.index)
    }

    /// The number in `column`; none: it is not there.
    pub fn get(&self, column: Column) -> Option<f64> {
        let width = self.table.width();
        if column.0 >= width {
            return None;
        }
        self.table.raw.values.get(self.index * width + column.0).copied().filter(|number| !number.is_nan())
    }

    /// The number in the column `name`; [`get`](Self::get) with a [`Column`] is faster where there
    /// are many rows.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.get(self.table.column(name)?)
    }

    /// The text in the text column `name`; none: this agent has no such column.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        let raw = &self.table.raw;
        let width = raw.text_columns.ends.len();
        let column = (0..width).find(|i| strings::get(&raw.text_columns, *i) == name)?;
        Some(strings::get(&raw.texts, self.index * width + column))
    }
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.table.columns().filter_map(|(name, column)| Some((name, self.get(column)?)));
        write!(f, "{} ", self.key())?;
        f.debug_map().entries(numbers).finish()
    }
}

macro_rules! families {
    ($($(#[$doc:meta])+ $family:ident)*) => {
        $($(#[$doc])+
        pub fn $family() -> Result<View, StatsError> {
            Ok(View::from_wit(host::$family()?))
        })*
    };
}

families! {
    /// /proc/stat. Rows `total`, `cpu0`, …; columns `user` `nice` `system` `idle` `iowait` `irq`
    /// `softirq` `steal` `guest` `guest_nice`, in clock ticks (100 a second).
    cpu
    /// /proc/meminfo. A row for each line; columns `value` (as the file has it) and `kilobytes` (1
    /// where the file says kB, else 0).
    memory
    /// /proc/loadavg. One row `load`; columns `01` `05` `15` (averages), `running` `total`
    /// (processes) and `cpus` (online).
    load
    /// /proc/diskstats. A row for each device; columns `major` `minor` `reads` `reads_merged`
    /// `reads_sectors` `reads_milliseconds` `writes` `writes_merged` `writes_sectors`
    /// `writes_milliseconds` `io_in_progress` `io_milliseconds` `io_milliseconds_weighted`.
    disk
    /// /proc/mounts and statvfs. A row for each line, keyed by mount point; columns `dev` (device
    /// number) `frsize` (bytes) `blocks` `bfree` `bavail` `files` `ffree` `favail`; texts `device`
    /// `type` `label` (of the device, where it has one).
    filesystem
    /// /proc/net/dev. A row for each interface; columns `rx_bytes` `rx_packets` `rx_errors`
    /// `rx_drop` `rx_fifo` `rx_frame` `rx_compressed` `rx_multicast` `tx_bytes` `tx_packets`
    /// `tx_errors` `tx_drop` `tx_fifo` `tx_colls` `tx_carrier` `tx_compressed`.
    network
    /// /proc/vmstat. A row for each line; column `value`.
    vmstat
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Collect};
    use crate::{Collector, Result, Run, Settings};

    struct Disks;

    impl Collector for Disks {
        fn new(_: &Settings) -> Result<Self> {
            Ok(Self)
        }

        fn collect(&mut self, run: &mut Run) -> Result<()> {
            let view = disk()?;
            for row in view.now.rows() {
                let before = view.previous_row(&row).and_then(|row| row.number("reads"));
                if let (Some(now), Some(before), Some(elapsed)) = (row.number("reads"), before, view.elapsed)
                {
                    run.gauge(format!("{}.reads", row.key()), (now - before) / elapsed.as_secs_f64());
                }
            }
            Ok(())
        }
    }

    #[test]
    fn previous_view_is_of_the_last_run_that_ended_well() {
        let table = || testing::table(["reads", "writes"]);
        let mut collect = Collect::new::<Disks>(&Settings::new()).unwrap();
        assert!(collect.run(0).is_err(), "the family was not granted");

        testing::set_host_stats("disk", table().row("sda", [10.0]).row("sdb", [5.0]));
        assert!(collect.run(1000).unwrap().is_empty());
        // A disk more moves the others.
        testing::set_host_stats("disk", table().row("new", [9.0]).row("sda", [30.0]).row("sdb", [f64::NAN]));
        let recorded = collect.run(3000).unwrap();
        assert_eq!(recorded.names(), ["sda.reads"]);
        assert_eq!(recorded.value("sda.reads"), Some(10.0));
    }

    #[test]
    fn cells_that_are_not_there_are_none() {
        let table: Table = testing::table(["a", "b"])
            .text_columns(["device", "type"])
            .row("/", [1.0])
            .texts(["/dev/sda1", "ext4"])
            .row("/home", [2.0, 3.0])
            .texts(["/dev/sdb1", ""])
            .into();
        let b = table.column("b").unwrap();
        assert_eq!(table.rows().map(|row| row.get(b)).collect::<Vec<_>>(), [None, Some(3.0)]);
        let home = table.row("/home").unwrap();
        assert_eq!((home.number("a"), home.number("c")), (Some(2.0), None));
        assert_eq!(
            (home.text("device"), home.text("type"), home.text("label")),
            (Some("/dev/sdb1"), Some(""), None)
        );
        assert!(table.column("c").is_none() && table.row("/tmp").is_none());
    }
}
