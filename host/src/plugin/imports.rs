//! What a guest may call on the host, save for the network: log, agent, state, host-stats.

use std::time::Instant;

use tracing::Level;

use super::bindings::kimberlite::plugin::host_stats::{self, StatsError, Table, View};
use super::bindings::kimberlite::plugin::log::{self, Severity};
use super::bindings::kimberlite::plugin::state::{self, StateError};
use super::bindings::kimberlite::plugin::{agent, types};
use super::store::Guest;
use crate::capability::Capability;
use crate::host_stats::Family;
use crate::state::Full;

impl types::Host for Guest {}

impl log::Host for Guest {
    fn log(&mut self, severity: Severity, message: String) -> wasmtime::Result<()> {
        self.context.log.line(level(severity), &message);
        Ok(())
    }

    fn enabled(&mut self, severity: Severity) -> wasmtime::Result<bool> {
        Ok(self.context.log.enabled(level(severity)))
    }
}

fn level(severity: Severity) -> Level {
    match severity {
        Severity::Error => Level::ERROR,
        Severity::Warn => Level::WARN,
        Severity::Info => Level::INFO,
        Severity::Debug => Level::DEBUG,
        Severity::Trace => Level::TRACE,
    }
}

impl agent::Host for Guest {
    fn info(&mut self) -> wasmtime::Result<agent::AgentInfo> {
        let agent = &self.context.agent;
        let left = self.meter.deadline().saturating_duration_since(Instant::now());
        Ok(agent::AgentInfo {
            version: agent.version.clone(),
            id: agent.id.clone(),
            name: agent.name.clone(),
            remaining: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

impl Guest {
    /// The store, if it is granted.
    fn state<T>(
        &mut self,
        f: impl FnOnce(&mut crate::state::StateStore) -> Result<T, StateError>,
    ) -> wasmtime::Result<Result<T, StateError>> {
        if !self.context.grants.state() {
            return Ok(Err(StateError::NotGranted));
        }
        match self.context.state.lock() {
            Ok(mut store) => Ok(f(&mut store)),
            Err(_) => Err(wasmtime::Error::msg("the plugin's state is gone")),
        }
    }
}

impl state::Host for Guest {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, StateError>> {
        self.state(|store| Ok(store.get(&key).map(<[u8]>::to_vec)))
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), StateError>> {
        self.state(|store| store.set(key, value).map_err(|Full(limit)| StateError::Full(limit)))
    }

    fn remove(&mut self, key: String) -> wasmtime::Result<Result<(), StateError>> {
        self.state(|store| {
            store.remove(key);
            Ok(())
        })
    }

    fn keys(&mut self) -> wasmtime::Result<Result<Vec<String>, StateError>> {
        self.state(|store| Ok(store.keys()))
    }
}

impl Guest {
    /// The family as it is in this slot, beside what this plugin saw at its last good run.
    fn view(&mut self, family: Family) -> wasmtime::Result<Result<View, StatsError>> {
        let context = &*self.context;
        if !context.grants.host_stats(family.as_str()) {
            let refusal = context.grants.refusal(Capability::HostStats, &context.name, family.as_str());
            return Ok(Err(StatsError::NotGranted(refusal)));
        }
        let gone = || wasmtime::Error::msg("the agent's figures are gone");
        let now = u64::try_from(context.clock.monotonic().as_micros()).unwrap_or(u64::MAX);
        let read = context.stats.lock().map_err(|_| gone())?.read(family, self.slot, now);
        let reading = match read {
            Ok(reading) => reading,
            Err(error) => return Ok(Err(StatsError::Unreadable(error.to_string()))),
        };
        let view = context.views.lock().map_err(|_| gone())?.begin(family, reading);
        Ok(Ok(View {
            now: table(&view.now.table),
            previous: view.previous.as_ref().map(|reading| table(&reading.table)),
            elapsed: view.elapsed_micros,
        }))
    }
}

fn table(table: &crate::host_stats::Table) -> Table {
    Table {
        columns: strings(&table.columns),
        keys: strings(&table.keys),
        values: table.values.to_vec(),
        text_columns: strings(&table.text_columns),
        texts: strings(&table.texts),
    }
}

fn strings(packed: &crate::host_stats::Packed) -> types::Strings {
    types::Strings { text: packed.text.to_string(), ends: packed.ends.to_vec() }
}

impl host_stats::Host for Guest {
    fn cpu(&mut self) -> wasmtime::Result<Result<View, StatsError>> {
        self.view(Family::Cpu)
    }

    fn memory(&mut self) -> wasmtime::Result<Result<View, StatsError>> {
        self.view(Family::Memory)
    }

    fn load(&mut self) -> wasmtime::Result<Result<View, StatsError>> {
        self.view(Family::Load)
    }

    fn disk(&mut self) -> wasmtime::Result<Result<View, StatsError>> {
        self.view(Family::Disk)
    }

    fn filesystem(&mut self) -> wasmtime::Result<Result<View, StatsError>> {
        self.view(Family::Filesystem)
    }

    fn network(&mut self) -> wasmtime::Result<Result<View, StatsError>> {
        self.view(Family::Network)
    }

    fn vmstat(&mut self) -> wasmtime::Result<Result<View, StatsError>> {
        self.view(Family::Vmstat)
    }
}
