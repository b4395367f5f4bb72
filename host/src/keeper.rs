//! Keeps one plugin alive: starts its instances, judges their memory, buries them, and says so in
//! the log and the figures. What a collector and a handler have in common.
//!
//! Uses: `plugin`, `supervisor`, `status`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::settings::Setting;
use crate::plugin::{Context, Failure, Instance, Plugin};
use crate::reason::ReasonCode;
use crate::status::PluginHandle;
use crate::supervisor::{Recycle, Rules, Supervisor};

/// A plugin and, most of the time, an instance of it. Owned by one task.
#[derive(Debug)]
pub struct Keeper {
    pub context: Arc<Context>,
    pub status: PluginHandle,
    pub supervisor: Supervisor,
    plugin: Plugin,
    settings: Vec<Setting>,
    instance: Option<Instance>,
    /// CPU time of the instances before this one.
    past_cpu: Duration,
}

/// What a plugin goes on with.
#[derive(Debug)]
pub struct Successor {
    pub plugin: Plugin,
    pub context: Arc<Context>,
    pub settings: Vec<Setting>,
    pub rules: Rules,
}

impl Keeper {
    /// Starts nothing yet.
    pub fn new(
        plugin: Plugin,
        context: Arc<Context>,
        settings: Vec<Setting>,
        status: PluginHandle,
        supervisor: Supervisor,
    ) -> Self {
        Self { context, status, supervisor, plugin, settings, instance: None, past_cpu: Duration::ZERO }
    }

    /// Whether these are others than before; then the next instance gets them.
    pub fn set_settings(&mut self, settings: Vec<Setting>) -> bool {
        let changed = self.settings != settings;
        if changed {
            self.settings = settings;
            self.end_instance();
            self.supervisor.replace();
        }
        changed
    }

    /// Goes on with another program, or the same one on other terms: what outlasts instances stays,
    /// what held the old one back is over. If the new one does not start, the old one goes on as if
    /// nothing had been.
    pub async fn replace(&mut self, next: Successor) -> Result<(), Failure> {
        let started = next.plugin.start(next.context.clone(), &next.settings).await;
        let instance = started.map_err(|error| error.into_failure())?;
        self.end_instance();
        lock(&next.context.state).set_limit(next.context.limits.state);
        lock(&next.context.views).take_over(&mut lock(&self.context.views));
        let Successor { plugin, context, settings, rules } = next;
        self.status.update(|status| status.memory_limit = context.limits.memory as u64);
        (self.plugin, self.context, self.settings) = (plugin, context, settings);
        self.supervisor.replace();
        self.supervisor.set_rules(rules);
        self.supervisor.started();
        self.instance = Some(instance);
        Ok(())
    }

    /// The running instance; none: there is none, and [`Keeper::start`] may get one.
    pub fn instance(&mut self) -> Option<&mut Instance> {
        self.instance.as_mut()
    }

    /// Whether there is an instance, or one may be started now.
    pub fn is_ready(&self) -> bool {
        self.instance.is_some() || self.supervisor.may_start(self.context.clock.monotonic())
    }

    /// Starts an instance where there is none. A failure is judged and written down already.
    pub async fn start(&mut self) -> Result<(), Failure> {
        match self.plugin.start(self.context.clone(), &self.settings).await {
            Ok(instance) => {
                self.instance = Some(instance);
                self.supervisor.started();
                Ok(())
            }
            Err(error) => {
                let failure = error.into_failure();
                self.killed(&failure);
                Err(failure)
            }
        }
    }

    /// The instance has been ended, or has ended itself.
    pub fn killed(&mut self, failure: &Failure) {
        self.end_instance();
        self.status.update(|status| status.killed(failure.reason.as_str()));
        self.count(failure.reason, &failure.text);
    }

    /// A call gave an error of the plugin's own; the instance lives on.
    pub fn failed(&mut self, text: &str) {
        self.count(ReasonCode::Failed, text);
    }

    fn count(&mut self, reason: ReasonCode, text: &str) {
        let clock = &self.context.clock;
        let verdict = self.supervisor.failed(reason, text, clock.monotonic(), &mut rand::rng());
        self.status.failed(reason.as_str(), text, clock.wall_ms());
        crate::supervisor::log(&self.context.name, reason, text, verdict);
    }

    /// A call ended well. An instance that has grown past the soft limit is let go here, before
    /// it can fail inside a call.
    pub fn succeeded(&mut self) {
        self.supervisor.succeeded();
        let Some(instance) = &self.instance else { return };
        let memory = instance.memory();
        let limit = self.context.limits.memory;
        self.status.update(|status| {
            status.holds(memory.linear as u64, memory.host as u64, status.durable_bytes);
        });
        let plugin = self.context.name.as_str();
        match self.supervisor.after_call(memory.linear as u64, limit as u64) {
            Recycle::No => {}
            Recycle::TooTight => {
                self.status.update(|status| status.hit("limit-too-tight", 1));
                tracing::warn!(
                    plugin,
                    memory = memory.linear,
                    limit,
                    reason = "limit-too-tight",
                    "plugin is past 80 % of its memory limit from its start; raise limits.memory"
                );
            }
            Recycle::Recycle => {
                tracing::info!(
                    plugin,
                    memory = memory.linear,
                    limit,
                    reason = ReasonCode::Recycled.as_str(),
                    "plugin is past 80 % of its memory limit; recycled"
                );
                self.end_instance();
                self.supervisor.recycled();
            }
        }
    }

    /// No instance will follow.
    pub fn stop(&mut self) {
        self.end_instance();
        self.supervisor.stop();
    }

    fn end_instance(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.past_cpu += instance.cpu();
        }
    }

    /// Brings the figures up to date. `durable`: bytes that outlast the instance, besides what the
    /// context holds.
    pub fn report(&self, durable: usize) {
        let cpu = self.past_cpu + self.instance.as_ref().map_or(Duration::ZERO, Instance::cpu);
        self.status.update(|status| {
            status.state = self.supervisor.state().as_str().into();
            status.recycles = self.supervisor.count(ReasonCode::Recycled);
            status.cpu_seconds = cpu.as_secs_f64();
            status.log_lines_dropped = self.context.log.dropped();
            status.durable_bytes = (durable + self.context.durable_bytes()) as u64;
        });
    }
}

/// A panic elsewhere must not end this plugin, too; both tables are whole between calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
