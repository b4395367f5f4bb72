//! The texts of /proc, read into [`Draft`]s: a pass over the bytes, no allocation, no error. A line
//! that is not as it should be is skipped, whatever is in it.
//!
//! Why not all by the `procfs` crate, which parses `loadavg` here: microseconds for one parse, best
//! of 500 rounds, the table made of it included on our side (2 CPUs of 2.45 GHz, Linux 6.18; the kernel's
//! own share of each reading beside it):
//!
//! | file | procfs | here | kernel | and besides, procfs |
//! |---|---|---|---|---|
//! | stat | 1.1 | 0.3 | 7.5 | has no CPU numbers: wrong rows where a CPU is offline |
//! | meminfo | 12.9 | 1.4 | 6.7 | drops lines it does not know, their order, and `kB` |
//! | vmstat | 37.3 | 3.4 | 20.9 | forgets the order |
//! | net/dev | 1.9 | 0.7 | 6.8 | forgets the order, refuses `eth0:123` |
//! | diskstats | 3.0 | 0.9 | 10.1 | refuses the file for one short line |
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

/// The row for all CPUs together.
pub(super) const ALL_CPUS: &str = "total";

/// The `cpu` lines of /proc/stat. Columns that an older kernel does not have are not-a-number.
pub(super) fn cpu(text: &[u8], draft: &mut Draft) {
    let mut rest = Cursor(text);
    loop {
        match rest.word() {
            // It follows the last CPU, is long, and nothing behind it is wanted.
            Some(b"intr") => return,
            Some(key @ [b'c', b'p', b'u', number @ ..]) if number.iter().all(u8::is_ascii_digit) => {
                let mut values = [f64::NAN; CPU.len()];
                if rest.numbers_into(&mut values).is_some_and(|count| count > 0) {
                    draft.push(if number.is_empty() { ALL_CPUS.as_bytes() } else { key }, &values);
                }
            }
            _ => {}
        }
        if !rest.next_line() {
            return;
        }
    }
}

/// /proc/meminfo.
pub(super) fn memory(text: &[u8], draft: &mut Draft) {
    for_each_line(text, |line| {
        if let Some(key) = line.word().and_then(|word| word.strip_suffix(b":"))
            && let Some(value) = line.number()
        {
            let kilobytes = f64::from(u8::from(line.word() == Some(b"kB")));
            draft.push(key, &[value, kilobytes]);
        }
    });
}

/// /proc/loadavg, and the number of CPUs that are online.
pub(super) fn load(text: &[u8], cpus: f64, draft: &mut Draft) {
    // The file has two decimals, which a single-precision number cannot keep apart from noise.
    let hundredths = |average: f32| (f64::from(average) * 100.0).round() / 100.0;
    if let Ok(load) = LoadAverage::from_read(text) {
        let [one, five, fifteen] = [load.one, load.five, load.fifteen].map(hundredths);
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

/// /proc/diskstats. Lines of fewer than 14 fields (partitions on old kernels) have no row.
pub(super) fn disk(text: &[u8], draft: &mut Draft) {
    for_each_line(text, |line| {
        let mut values = [f64::NAN; DISK.len()];
        let (device, counters) = values.split_at_mut(2);
        if line.numbers_into(device) == Some(2)
            && let Some(name) = line.word()
            && line.numbers_into(counters) == Some(11)
        {
            draft.push(name, &values);
        }
    });
}

/// /proc/net/dev. On old kernels the first number touches the colon behind the name.
pub(super) fn network(text: &[u8], draft: &mut Draft) {
    for_each_line(text, |line| {
        let Some(word) = line.word() else { return };
        // The last colon: an alias has one in its name.
        let Some(colon) = word.iter().rposition(|byte| *byte == b':') else { return };
        let mut values = [f64::NAN; NETWORK.len()];
        let known = match &word[colon + 1..] {
            [] => 0,
            first => match number(first) {
                Some(first) => {
                    values[0] = first;
                    1
                }
                None => return,
            },
        };
        if line.numbers_into(&mut values[known..]) == Some(NETWORK.len() - known) {
            draft.push(&word[..colon], &values);
        }
    });
}

/// /proc/vmstat.
pub(super) fn vmstat(text: &[u8], draft: &mut Draft) {
    for_each_line(text, |line| {
        if let Some(key) = line.word()
            && let Some(value) = line.number()
        {
            draft.push(key, &[value]);
        }
    });
}

fn for_each_line<'a>(text: &'a [u8], mut then: impl FnMut(&mut Cursor<'a>)) {
    let mut rest = Cursor(text);
    loop {
        then(&mut rest);
        if !rest.next_line() {
            return;
        }
    }
}

/// What is left of a text. Everything stays within the line it is in, and goes over it once.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// Leaves the line; false: it was the last.
    fn next_line(&mut self) -> bool {
        while let [byte, rest @ ..] = self.0 {
            self.0 = rest;
            if *byte == b'\n' {
                break;
            }
        }
        !self.0.is_empty()
    }

    /// The next word; none: the line is at its end. Whatever is no line's end and sorts before
    /// the printable characters counts as a blank.
    fn word(&mut self) -> Option<&'a [u8]> {
        while let [byte @ ..=b' ', rest @ ..] = self.0
            && *byte != b'\n'
        {
            self.0 = rest;
        }
        let (word, rest) = self.0.split_at(word_length(self.0));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    fn number(&mut self) -> Option<f64> {
        self.word().and_then(number)
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

/// How many bytes there are before the first blank or end of line. Eight at a time: names are long
/// and never of one length, so going byte by byte would mispredict its end each time.
fn word_length(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    let mut length = 0;
    let (chunks, _) = text.as_chunks::<8>();
    for chunk in chunks {
        let chunk = u64::from_le_bytes(*chunk);
        // The high bit of each byte that is less than `!`; above the first of them it may err.
        let blanks = chunk.wrapping_sub(ONES * u64::from(b'!')) & !chunk & (ONES << 7);
        if blanks != 0 {
            return length + blanks.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    let rest = &text[length..];
    length + rest.iter().position(|byte| *byte <= b' ').unwrap_or(rest.len())
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
