//! `[handlers.NAME]`.
//!
//! Uses: `plugin`, for what collectors have too; `manifest`, for what a table may override.

use std::path::PathBuf;
use std::time::Duration;

use super::fault::Place;
use super::limits::Limits;
use super::manifest::BatchRule;
use super::plugin::{PluginConfig, PluginSource};
use super::reader::Reader;

/// `[handlers.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct HandlerConfig {
    pub plugin: PluginConfig,
    pub queue: QueueConfig,
    pub retry: RetryConfig,
    pub batch: BatchConfig,
}

/// What waits for a handler, in memory and on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueConfig {
    /// Bytes.
    pub memory: u64,
    /// Bytes of the spool; beyond them the oldest go. 0: no spool.
    pub disk: u64,
    /// What is unacknowledged for longer goes to disk.
    pub sync: Duration,
    /// Whether what goes to disk is forced there before it counts as kept: without, a power cut
    /// may take it, the agent's end may not.
    pub fsync: bool,
    pub order: Order,
    /// How many times the live rate a backlog is drained at, at most.
    pub catch_up: f64,
    /// What is older is dropped.
    pub age: Duration,
    /// Bytes of what was set aside; beyond them the oldest go.
    pub dead_letters: u64,
}

/// What a backlog begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    OldestFirst,
    NewestFirst,
}

/// Waits between attempts: `first`, doubling up to `longest`.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryConfig {
    pub first: Duration,
    pub longest: Duration,
    /// Which part of a wait is chance, 0 to 0.5.
    pub jitter: f64,
}

/// How batches are formed, where it differs from the manifest.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BatchConfig {
    pub samples: Option<usize>,
    pub bytes: Option<u64>,
    pub wait: Option<Duration>,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            memory: 8 << 20,
            disk: 256 << 20,
            sync: Duration::from_secs(1),
            fsync: true,
            order: Order::OldestFirst,
            catch_up: 10.0,
            age: Duration::from_secs(7 * 24 * 3600),
            dead_letters: 16 << 20,
        }
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(60), jitter: 0.5 }
    }
}

impl BatchConfig {
    /// The manifest's rule with what the table overrides.
    pub fn over(&self, manifest: &BatchRule) -> BatchRule {
        BatchRule {
            by: manifest.by,
            samples: self.samples.unwrap_or(manifest.samples),
            bytes: self.bytes.unwrap_or(manifest.bytes),
            wait: self.wait.unwrap_or(manifest.wait),
        }
    }
}

impl HandlerConfig {
    /// A handler without a table, tried out.
    pub fn new(source: PluginSource) -> Self {
        let file = match &source {
            PluginSource::Named(name) => PathBuf::from(name),
            PluginSource::File(file) => file.clone(),
        };
        Self {
            plugin: PluginConfig::new(source, Limits::of_handler(), Place::file(&file)),
            queue: QueueConfig::default(),
            retry: RetryConfig::default(),
            batch: BatchConfig::default(),
        }
    }

    pub(super) fn read(name: &str, table: &mut Reader<'_>) -> Self {
        Self {
            plugin: PluginConfig::read(name, Limits::of_handler(), None, table),
            queue: table.table("queue", QueueConfig::read).unwrap_or_default(),
            retry: table.table("retry", RetryConfig::read).unwrap_or_default(),
            batch: table.table("batch", BatchConfig::read).unwrap_or_default(),
        }
    }
}

impl QueueConfig {
    fn read(table: &mut Reader<'_>) -> Self {
        let mut queue = Self::default();
        table.size("memory", &mut queue.memory);
        table.size_or_none("disk", &mut queue.disk);
        table.set("sync", &mut queue.sync);
        table.set("fsync", &mut queue.fsync);
        let orders = [("oldest-first", Order::OldestFirst), ("newest-first", Order::NewestFirst)];
        queue.order = table.choice("order", &orders).unwrap_or(queue.order);
        table.set("catch_up", &mut queue.catch_up);
        if queue.catch_up <= 0.0 {
            table.fault("catch_up", "`catch_up` must be more than 0", None);
        }
        table.positive_into("age", &mut queue.age);
        table.size_or_none("dead_letters", &mut queue.dead_letters);
        queue
    }
}

impl RetryConfig {
    fn read(table: &mut Reader<'_>) -> Self {
        let mut retry = Self::default();
        table.positive_into("first", &mut retry.first);
        table.positive_into("longest", &mut retry.longest);
        if retry.longest < retry.first {
            table.fault("longest", "`retry.longest` is shorter than `retry.first`", None);
        }
        table.set("jitter", &mut retry.jitter);
        if !(0.0..=0.5).contains(&retry.jitter) {
            table.fault(
                "jitter",
                format!("`jitter` must lie between 0 and 0.5, not at {}", retry.jitter),
                None,
            );
        }
        retry
    }
}

impl BatchConfig {
    fn read(table: &mut Reader<'_>) -> Self {
        Self {
            samples: table.some_count("samples"),
            bytes: table.some_size("bytes"),
            wait: table.take("wait"),
        }
    }
}
