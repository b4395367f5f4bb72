//! What a block device did between two readings, and the figures that follow from it.

use kimberlite_plugin_sdk::host_stats::{Column, Row, Table};

/// Where the counters are in each row.
pub(crate) struct Columns {
    counters: [Column; COUNTERS.len()],
    in_progress: Column,
}

/// The columns that only rise, in the order of the fields of `Activity`.
const COUNTERS: [&str; 10] = [
    "reads",
    "reads_merged",
    "reads_sectors",
    "reads_milliseconds",
    "writes",
    "writes_merged",
    "writes_sectors",
    "writes_milliseconds",
    "io_milliseconds",
    "io_milliseconds_weighted",
];

impl Columns {
    /// None: the table lacks one.
    pub(crate) fn of(disks: &Table) -> Option<Self> {
        let mut counters = [disks.column(COUNTERS[0])?; COUNTERS.len()];
        for (column, name) in counters.iter_mut().zip(COUNTERS) {
            *column = disks.column(name)?;
        }
        Some(Self { counters, in_progress: disks.column("io_in_progress")? })
    }
}

/// What a device did between two readings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Activity {
    seconds: f64,
    reads: f64,
    reads_merged: f64,
    reads_sectors: f64,
    reads_ms: f64,
    writes: f64,
    writes_merged: f64,
    writes_sectors: f64,
    writes_ms: f64,
    io_ms: f64,
    weighted_ms: f64,
    /// Now, not between.
    in_progress: f64,
}

/// One of a device's metrics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
}

/// One of a device's metrics that is published in each unit of data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ByteFigure {
    /// What stands in the name before the unit and behind it.
    pub(crate) name: (&'static str, &'static str),
    /// What stands behind the unit in the unit.
    pub(crate) per: &'static str,
    pub(crate) bytes: f64,
}

impl Activity {
    /// None: no time has passed, or a counter fell, so that the device was reset meanwhile.
    pub(crate) fn between(
        previous: &Row<'_>,
        now: &Row<'_>,
        columns: &Columns,
        seconds: f64,
    ) -> Option<Self> {
        if seconds <= 0.0 {
            return None;
        }
        let mut risen = [0.0; COUNTERS.len()];
        for (risen, column) in risen.iter_mut().zip(columns.counters) {
            *risen = rise(previous.get(column)?, now.get(column)?, seconds)?;
        }
        let [
            reads,
            reads_merged,
            reads_sectors,
            reads_ms,
            writes,
            writes_merged,
            writes_sectors,
            writes_ms,
            io_ms,
            weighted_ms,
        ] = risen;
        let in_progress = now.get(columns.in_progress)?;
        Some(Self {
            seconds,
            reads,
            reads_merged,
            reads_sectors,
            reads_ms,
            writes,
            writes_merged,
            writes_sectors,
            writes_ms,
            io_ms,
            weighted_ms,
            in_progress,
        })
    }

    /// Reads and writes that were completed.
    pub(crate) fn io(&self) -> f64 {
        self.reads + self.writes
    }

    /// Always the same names, in the same order. What is per operation is 0 without one.
    pub(crate) fn figures(&self) -> [Figure; 22] {
        let figure = |name, unit, value| Figure { name, unit, value };
        let per_second = |count| count / self.seconds;
        let service_time = ratio(self.io_ms, self.io());
        [
            figure("reads", "operation", self.reads),
            figure("reads_merged", "operation", self.reads_merged),
            figure("reads_milliseconds", "millisecond", self.reads_ms),
            figure("writes", "operation", self.writes),
            figure("writes_merged", "operation", self.writes_merged),
            figure("writes_milliseconds", "millisecond", self.writes_ms),
            figure("io_milliseconds", "millisecond", self.io_ms),
            figure("io_milliseconds_weighted", "millisecond", self.weighted_ms),
            figure("io_in_progress", "operation", self.in_progress),
            figure("reads_per_second", "operation/s", per_second(self.reads)),
            figure("writes_per_second", "operation/s", per_second(self.writes)),
            figure("read_requests_merged_per_second", "operation/s", per_second(self.reads_merged)),
            figure("write_requests_merged_per_second", "operation/s", per_second(self.writes_merged)),
            figure("io", "operation", self.io()),
            figure("iops", "operation/s", per_second(self.io())),
            figure("average_queue_length", "operation", per_second(self.weighted_ms) / 1000.0),
            figure("util_percentage", "percent", per_second(self.io_ms) / 10.0),
            figure("read_await", "millisecond", ratio(self.reads_ms, self.reads)),
            figure("write_await", "millisecond", ratio(self.writes_ms, self.writes)),
            figure("await", "millisecond", ratio(self.reads_ms + self.writes_ms, self.io())),
            figure("service_time", "millisecond", service_time),
            figure("concurrent_io", "operation", per_second(self.io()) * service_time / 1000.0),
        ]
    }

    /// Always the same names, in the same order.
    pub(crate) fn byte_figures(&self, sector_size: f64) -> [ByteFigure; 5] {
        let figure = |name, per, bytes| ByteFigure { name, per, bytes };
        let read = self.reads_sectors * sector_size;
        let written = self.writes_sectors * sector_size;
        [
            figure(("reads_", ""), "", read),
            figure(("writes_", ""), "", written),
            figure(("read_", "_per_second"), "/s", read / self.seconds),
            figure(("write_", "_per_second"), "/s", written / self.seconds),
            figure(("average_request_size_", ""), "", ratio(read + written, self.io())),
        ]
    }
}

fn ratio(amount: f64, count: f64) -> f64 {
    if count > 0.0 { amount / count } else { 0.0 }
}

/// How far a counter has risen; none: it fell. Linux keeps the milliseconds in 32 bits, and 32-bit
/// kernels all counters; a fall is taken for their wrap only if what then rose is possible, which is
/// at most a million a second: 1,000 requests that wait, or a million that are served.
fn rise(previous: f64, now: f64, seconds: f64) -> Option<f64> {
    const WRAP: f64 = 4_294_967_296.0;
    if now >= previous {
        return Some(now - previous);
    }
    let wrapped = now + WRAP - previous;
    (previous < WRAP && wrapped <= seconds * 1e6).then_some(wrapped)
}
