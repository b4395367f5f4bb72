//! `limits = { … }` of a plugin's table.
//!
//! Uses: `reader`.

use std::time::Duration;

use super::reader::Reader;

/// How much one plugin may use, and what happens when it fails.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Bytes of linear memory, over all memories of an instance.
    pub memory: usize,
    /// Wall time of one call. Of a collector never more than its interval.
    pub timeout: Duration,
    /// CPU time of one call.
    pub cpu: Duration,
    /// Samples of one run.
    pub samples: usize,
    /// Live series, and distinct ones of one run.
    pub series: usize,
    /// Live elements, and described ones of one run.
    pub elements: usize,
    /// Bytes of one text: a name, a tag, a message.
    pub string: usize,
    /// Lines that one call may write to the log.
    pub log_lines: u32,
    /// Elements over all WebAssembly tables of an instance.
    pub tables: usize,
    /// Core instances, memories and tables: how many of each.
    pub instances: usize,
    /// Live handles: requests, streams, connections.
    pub handles: usize,
    /// Bytes of one HTTP body, either way.
    pub http_body: u64,
    /// The age at which HTTP connections are replaced.
    pub connection_age: Duration,
    /// Bytes that one call may send and receive.
    pub net_bytes: u64,
    /// Bytes that the host holds for an instance.
    pub host_memory: usize,
    /// Bytes of the key-value store.
    pub state: usize,
    /// Failures in a row that lead to quarantine.
    pub failures: u32,
    /// How long a quarantine lasts before a probe.
    pub quarantine: Duration,
}

impl Default for Limits {
    /// A collector's. See [`Limits::of_handler`].
    fn default() -> Self {
        Self {
            memory: 16 << 20,
            timeout: Duration::from_secs(10),
            cpu: Duration::from_secs(5),
            samples: 10_000,
            series: 20_000,
            elements: 1_000,
            string: 1024,
            log_lines: 100,
            tables: 20_000,
            instances: 64,
            handles: 1024,
            http_body: 16 << 20,
            connection_age: Duration::from_secs(600),
            net_bytes: 64 << 20,
            host_memory: 16 << 20,
            state: 64 << 10,
            failures: 5,
            quarantine: Duration::from_secs(600),
        }
    }
}

impl Limits {
    /// A handler waits for somebody else's server.
    pub fn of_handler() -> Self {
        Self { timeout: Duration::from_secs(30), ..Self::default() }
    }

    /// A collector's: a run that is not over when the next one is due would only be late for ever.
    pub fn of_collector(interval: Duration) -> Self {
        let default = Self::default();
        Self { timeout: default.timeout.min(interval), ..default }
    }

    /// Reads the table over the defaults in `self`. A call may take at most `interval`, if there is one.
    pub(super) fn read(&mut self, table: &mut Reader<'_>, interval: Option<Duration>) {
        table.size("memory", &mut self.memory);
        table.positive_into("timeout", &mut self.timeout);
        if let Some(interval) = interval.filter(|interval| *interval < self.timeout) {
            let [timeout, interval] = [self.timeout, interval].map(humantime::format_duration);
            let message = format!("`timeout` ({timeout}) is longer than the interval ({interval})");
            table.fault("timeout", message, Some("a run has to be over when the next one is due"));
        }
        table.positive_into("cpu", &mut self.cpu);
        table.count("samples", &mut self.samples);
        table.count("series", &mut self.series);
        table.count("elements", &mut self.elements);
        table.size("string", &mut self.string);
        table.count("log_lines", &mut self.log_lines);
        table.count("tables", &mut self.tables);
        table.count("instances", &mut self.instances);
        table.count("handles", &mut self.handles);
        table.size("http_body", &mut self.http_body);
        table.positive_into("connection_age", &mut self.connection_age);
        table.size("net_bytes", &mut self.net_bytes);
        table.size("host_memory", &mut self.host_memory);
        table.size("state", &mut self.state);
        table.count("failures", &mut self.failures);
        table.positive_into("quarantine", &mut self.quarantine);
    }
}
