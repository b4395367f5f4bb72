//! `[collectors.NAME]`.
//!
//! Uses: `plugin`, for what handlers have too.

use std::path::PathBuf;
use std::time::Duration;

use super::agent::AgentConfig;
use super::fault::Place;
use super::limits::Limits;
use super::plugin::{PluginConfig, PluginSource, tags};
use super::reader::Reader;
use crate::sample::Tag;

/// `[collectors.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectorConfig {
    pub plugin: PluginConfig,
    /// Its own, else the agent's.
    pub interval: Duration,
    /// Of every series.
    pub tags: Vec<Tag>,
    /// What becomes of all counters; none: what the collector says of each.
    pub counters: Option<Counters>,
}

/// What becomes of running totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counters {
    /// They leave as rates per second.
    Rate,
    /// They leave as they are.
    Total,
}

impl CollectorConfig {
    /// A collector without a table: bundled and tried out, or dropped into a plugin directory.
    pub fn new(source: PluginSource, agent: &AgentConfig) -> Self {
        let file = match &source {
            PluginSource::Named(name) => PathBuf::from(name),
            PluginSource::File(file) => file.clone(),
        };
        let limits = Limits::of_collector(agent.interval);
        let plugin = PluginConfig::new(source, limits, Place::file(&file));
        Self { plugin, interval: agent.interval, tags: Vec::new(), counters: None }
    }

    pub(super) fn read(name: &str, agent: &AgentConfig, table: &mut Reader<'_>) -> Self {
        let interval = table.positive("interval").unwrap_or(agent.interval);
        let plugin = PluginConfig::read(name, Limits::of_collector(interval), Some(interval), table);
        let counters = table.choice("counters", &[("rate", Counters::Rate), ("total", Counters::Total)]);
        Self { plugin, interval, tags: tags(table, "tags"), counters }
    }
}
