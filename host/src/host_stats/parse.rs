//! The texts of /proc, read into [`Draft`]s: a pass over the bytes, no allocation, no error. A line
//! that is not as it should be is skipped, whatever is in it.
//!
//! Why not all by the `procfs` crate, which parses `loadavg` here: microseconds for one parse, best
//! of 300 rounds (2 CPUs of 2.45 GHz, Linux 6.18; the kernel's own share of each reading beside it):
//!
//! | file | procfs | here | kernel | and besides, procfs |
//! |---|---|---|---|---|
//! | stat | 1.1 | CPU_US | 7.5 | has no CPU numbers: wrong rows where a CPU is offline |
//! | meminfo | 12.9 | MEMORY_US | 6.7 | drops lines it does not know, their order, and `kB` |
//! | vmstat | 37.3 | VMSTAT_US | 20.9 | forgets the order |
//! | net/dev | 1.9 | NETWORK_US | 6.8 | forgets the order, refuses `eth0:123` |
//! | diskstats | 3.0 | DISK_US | 10.1 | refuses the file for one short line |
//! | loadavg | 0.15 | – | 1.5 | |

use procfs::{FromRead, LoadAverage};

use super::table::Draft;

/// The columns of /proc/stat.
pub(super) const CPU: [&str; 10] =
    ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];

/// `value` is as the file has it.
pub(super) const MEMORY: [&str; 2] = ["value", "kilobytes"];

pub(super) const LOAD: [&str; 6] = ["01", "05", "15", "running", "total", "cpus"];

pub(super) const DISK: [&str; 13] = [
    "major",
    "minor",
    "reads",
    "reads_merged",
    "reads_sectors",
    "reads_milliseconds",
    "writes",
    "writes_merged",
    "writes_sectors",
    "writes_milliseconds",
    "io_in_progress",
    "io_milliseconds",
    "io_milliseconds_weighted",
];

pub(super) const NETWORK: [&str; 16] = [
    "rx_bytes",
    "rx_packets",
    "rx_errors",
    "rx_drop",
    "rx_fifo",
    "rx_frame",
    "rx_compressed",
    "rx_multicast",
    "tx_bytes",
    "tx_packets",
    "tx_errors",
    "tx_drop",
    "tx_fifo",
    "tx_colls",
    "tx_carrier",
    "tx_compressed",
];

pub(super) const VMSTAT: [&str; 1] = ["value"];

/// /proc/stat: its `cpu` lines, which come first; the long lines behind them are not looked at.
/// Columns that an older kernel does not have are not-a-number.
pub(super) fn cpu(text: &[u8], draft: &mut Draft) {
    let mut seen = false;
    for mut line in Lines(text) {
        if !line.0.starts_with(b"cpu") {
            if seen {
                return;
            }
            continue;
        }
        seen = true;
        let Some(key) = line.word() else { continue };
        let number = &key[3..];
        if !number.iter().all(u8::is_ascii_digit) {
            continue;
        }
        let mut values = [f64::NAN; CPU.len()];
        if line.numbers_into(&mut values).is_some_and(|count| count > 0) {
            draft.push(if number.is_empty() { b"total" } else { key }, &values);
        }
    }
}

/// /proc/meminfo.
pub(super) fn memory(text: &[u8], draft: &mut Draft) {
    for mut line in Lines(text) {
        if let Some(key) = line.word().and_then(|word| word.strip_suffix(b":"))
            && let Some(value) = line.word().and_then(number)
        {
            let kilobytes = f64::from(u8::from(line.word() == Some(b"kB")));
            draft.push(key, &[value, kilobytes]);
        }
    }
}

/// /proc/loadavg, and the number of CPUs that are online.
pub(super) fn load(text: &[u8], cpus: f64, draft: &mut Draft) {
    // The file has two decimals, which a single-precision number cannot keep apart from noise.
    let hundredths = |average: f32| (f64::from(average) * 100.0).round() / 100.0;
    if let Ok(load) = LoadAverage::from_read(text) {
        let averages = [load.one, load.five, load.fifteen].map(hundredths);
        let [one, five, fifteen] = averages;
        draft.push(b"load", &[one, five, fifteen, f64::from(load.cur), f64::from(load.max), cpus]);
    }
}

/// How many CPUs a list such as `0-3,5` names; none: it is no such list.
pub(super) fn count_cpus(list: &[u8]) -> Option<f64> {
    let mut count = 0.0;
    for range in list.trim_ascii().split(|byte| *byte == b',') {
        let mut ends = range.splitn(2, |byte| *byte == b'-');
        let first = number(ends.next()?)?;
        let last = ends.next().map_or(Some(first), number)?;
        if last < first {
            return None;
        }
        count += last - first + 1.0;
    }
    Some(count)
}

/// How many CPUs /proc/stat has lines for; none: it has none.
pub(super) fn count_cpu_lines(text: &[u8]) -> Option<f64> {
    let is_cpu = |line: &Line<'_>| {
        line.0.strip_prefix(b"cpu").is_some_and(|n| n.first().is_some_and(u8::is_ascii_digit))
    };
    let count = Lines(text).filter(is_cpu).count();
    (count > 0).then_some(count as f64)
}

/// /proc/diskstats. Lines of fewer than 14 fields (partitions on old kernels) have no row.
pub(super) fn disk(text: &[u8], draft: &mut Draft) {
    for mut line in Lines(text) {
        let mut values = [f64::NAN; DISK.len()];
        let (device, counters) = values.split_at_mut(2);
        if line.numbers_into(device) == Some(2)
            && let Some(name) = line.word()
            && line.numbers_into(counters) == Some(11)
        {
            draft.push(name, &values);
        }
    }
}

/// /proc/net/dev. On old kernels no space follows the colon behind the name.
pub(super) fn network(text: &[u8], draft: &mut Draft) {
    for line in Lines(text) {
        let Some(colon) = line.0.iter().rposition(|byte| *byte == b':') else { continue };
        let (name, counters) = line.0.split_at(colon);
        let mut values = [f64::NAN; NETWORK.len()];
        if Line(&counters[1..]).numbers_into(&mut values) == Some(NETWORK.len()) {
            draft.push(name.trim_ascii(), &values);
        }
    }
}

/// /proc/vmstat.
pub(super) fn vmstat(text: &[u8], draft: &mut Draft) {
    for mut line in Lines(text) {
        if let Some(key) = line.word()
            && let Some(value) = line.word().and_then(number)
        {
            draft.push(key, &[value]);
        }
    }
}

/// What is left of a text, line by line.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().position(|byte| *byte == b'\n').unwrap_or(self.0.len());
        let (line, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        Some(Line(line))
    }
}

/// What is left of a line.
struct Line<'a>(&'a [u8]);

impl<'a> Line<'a> {
    /// The next word; none: the line is at its end.
    fn word(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|byte| !is_space(*byte))?;
        let rest = &self.0[start..];
        let end = rest.iter().position(|byte| is_space(*byte)).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.0 = rest;
        Some(word)
    }

    /// Fills `values` from the next words and says how many there were; none: one was no number.
    fn numbers_into(&mut self, values: &mut [f64]) -> Option<usize> {
        for (at, value) in values.iter_mut().enumerate() {
            match self.word() {
                Some(word) => *value = number(word)?,
                None => return Some(at),
            }
        }
        Some(values.len())
    }
}

fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// A whole number of 64 bits, with or without a sign.
fn number(word: &[u8]) -> Option<f64> {
    let (negative, digits) = match word {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value: u64 = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(if negative { -(value as f64) } else { value as f64 })
}

#[cfg(test)]
mod tests;
