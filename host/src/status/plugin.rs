//! The figures of one plugin: plain data, which travels as JSON to `kimberlite list`.
//!
//! Uses: `sample`, `config` for a plugin's kind.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::config::manifest::PluginKind;
use crate::sample::Millis;

/// Upper bounds of the buckets of [`Histogram`], in seconds; one more bucket has no bound.
pub const BUCKETS: [f64; 12] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

/// How often something was, by reason or by limit. The names are the host's own, so they are few.
pub type Counts = BTreeMap<Cow<'static, str>, u64>;

/// How long runs took, in seconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Histogram {
    pub last: f64,
    pub sum: f64,
    pub count: u64,
    /// How many took at most so long: one for each of [`BUCKETS`], not counting those of the one before.
    pub buckets: [u64; BUCKETS.len()],
}

impl Histogram {
    fn observe(&mut self, took: Duration) {
        self.last = took.as_secs_f64();
        self.sum += self.last;
        self.count += 1;
        if let Some(bucket) = self.buckets.get_mut(BUCKETS.partition_point(|bound| *bound < self.last)) {
            *bucket += 1;
        }
    }
}

/// How much later than due runs started, in seconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Lateness {
    pub last: f64,
    pub sum: f64,
    pub count: u64,
    pub max: f64,
}

impl Lateness {
    fn observe(&mut self, late: Duration) {
        self.last = late.as_secs_f64();
        self.sum += self.last;
        self.count += 1;
        self.max = self.max.max(self.last);
    }
}

/// The last thing that went wrong with a plugin.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// A reason code: `deadline`, `trap`, …
    pub reason: String,
    /// For people.
    pub text: String,
    pub at: Millis,
}

/// What a handler did with its samples.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Delivery {
    /// Samples that the receiver has acknowledged.
    pub delivered: u64,
    /// How often a batch was tried again.
    pub retried: u64,
    /// Samples that the handler will never take.
    pub rejected: u64,
    /// Samples that were set aside.
    pub dead_letters: u64,
    /// Samples that may or may not have arrived.
    pub unconfirmed: u64,
    /// Why a person must look; none: it is not halted.
    pub halted: Option<String>,
    /// None: the last attempt went well.
    pub retrying: Option<Retrying>,
}

/// A version of a plugin that was not let in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// The file's path.
    pub origin: String,
    /// Empty where that is not known.
    pub version: String,
    pub sha256: String,
    pub reason: String,
}

/// Attempts in a row that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Retrying {
    pub attempts: u32,
    /// When the next one is due, by the wall clock; it is under way if that has passed.
    pub next: Millis,
    /// What became of the last one.
    pub reason: String,
}

/// All that is known of one plugin table of the config, or of one dropped-in file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginStatus {
    /// The table's name.
    pub name: String,
    pub kind: PluginKind,
    /// The manifest's name.
    pub plugin: String,
    pub version: String,
    /// `bundled`, or the file's path.
    pub origin: String,
    pub sha256: String,
    /// In the supervisor's words: `running`, `backing-off`, `quarantined`, …
    pub state: Cow<'static, str>,
    /// Lines of config that are missing; empty: nothing is.
    pub waits_for: String,
    /// What is on disk and did not take this one's place; none: this is what is wanted.
    pub refused: Option<Refused>,

    /// Linear memory, in bytes. The peak is that of all instances so far.
    pub memory_now: u64,
    pub memory_peak: u64,
    pub memory_limit: u64,
    /// What the host holds for the instance and for the plugin, in bytes.
    pub instance_bytes: u64,
    pub durable_bytes: u64,
    pub cpu_seconds: f64,

    pub collect_duration: Histogram,
    pub lateness: Lateness,
    /// Runs that did not start because the one before them was late.
    pub skipped: u64,
    /// Good or bad; none: none yet.
    pub last_run: Option<Millis>,
    /// None: nothing is planned.
    pub next_run: Option<Millis>,
    /// A collector's: what it measured. A handler's: what was queued for it.
    pub samples_total: u64,
    /// Samples, by reason.
    pub dropped: Counts,
    /// Series that live.
    pub series: u64,

    /// By reason.
    pub kills: Counts,
    pub recycles: u64,
    pub failures: u64,
    pub last_failure: Option<Failure>,
    /// How often each limit was hit, whatever that led to.
    pub limit_hits: Counts,
    pub log_lines_dropped: u64,

    pub queue_bytes: u64,
    pub spool_bytes: u64,
    /// None: it is a collector.
    pub delivery: Option<Delivery>,
}

impl PluginStatus {
    /// A run ended, well or not. It was `late` at its start.
    pub fn ran(&mut self, at: Millis, took: Duration, late: Duration) {
        self.last_run = Some(at);
        self.collect_duration.observe(took);
        self.lateness.observe(late);
    }

    /// What a plugin holds now, in bytes.
    pub fn holds(&mut self, linear: u64, instance: u64, durable: u64) {
        self.memory_now = linear;
        self.memory_peak = self.memory_peak.max(linear);
        self.instance_bytes = instance;
        self.durable_bytes = durable;
    }

    /// So many samples were lost.
    pub fn dropped(&mut self, reason: &'static str, samples: u64) {
        *self.dropped.entry(Cow::Borrowed(reason)).or_default() += samples;
    }

    /// Its instance was ended by the host, or ended itself. Nothing of it is left in memory.
    pub fn killed(&mut self, reason: &'static str) {
        *self.kills.entry(Cow::Borrowed(reason)).or_default() += 1;
        self.memory_now = 0;
        self.instance_bytes = 0;
    }

    /// A limit was hit.
    pub fn hit(&mut self, limit: &'static str, times: u64) {
        *self.limit_hits.entry(Cow::Borrowed(limit)).or_default() += times;
    }

    /// What it did with its samples, if it is a handler.
    pub fn delivery(&mut self) -> &mut Delivery {
        self.delivery.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_frees_memory_and_leaves_the_peak() {
        let mut cpu = PluginStatus::default();
        cpu.holds(100, 10, 1);
        cpu.holds(50, 10, 1);
        cpu.killed("memory-limit");
        assert_eq!((cpu.memory_now, cpu.instance_bytes, cpu.durable_bytes, cpu.memory_peak), (0, 0, 1, 100));
    }

    #[test]
    fn a_run_on_a_bound_falls_into_the_lower_bucket() {
        let mut histogram = Histogram::default();
        for micros in [100, 101, 250, 20_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        assert_eq!(histogram.buckets[..3], [1, 2, 0]);
        assert_eq!((histogram.count, histogram.last), (4, 20.0));
        assert_eq!(histogram.buckets.iter().sum::<u64>(), 3, "the one beyond all bounds is only in `count`");
    }
}
