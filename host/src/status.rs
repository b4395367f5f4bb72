//! What the agent knows of itself and its plugins: the figures behind `list`, `/metrics` and the
//! `kimberlite.*` samples.
//!
//! ```text
//! supervisor, scheduler, router, delivery ──update──▶ AgentStatus ──snapshot──▶ admin server, `kimberlite.*`
//! ```
//!
//! One short lock for each update of one plugin. Counters outlive a plugin's instances and reloads.
//! Texts that plugins or networks had a hand in are scrubbed and cut when they come in.
//!
//! Uses: `sample`, `secrets`.

pub mod figures;
mod plugin;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::sample::Millis;
use crate::secrets::Secrets;

pub use plugin::{
    BUCKETS, Counts, Delivery, Failure, Histogram, Lateness, PluginKind, PluginStatus, Refused, Retrying,
};

/// No text that is kept is longer, in bytes.
const LONGEST_TEXT: usize = 1024;

/// One plugin's figures, to be updated from anywhere. Clones share them.
#[derive(Clone)]
pub struct PluginHandle {
    status: Arc<Mutex<PluginStatus>>,
    /// Figures that change without their owner's doing, brought up to date when they are read.
    live: Arc<Mutex<Option<Live>>>,
    secrets: Secrets,
}

type Live = Box<dyn Fn(&mut PluginStatus) + Send>;

impl PluginHandle {
    /// Reads and changes the figures under one short lock. Texts from outside go by
    /// [`Self::failed`], [`Self::set_halted`], [`Self::set_retrying`] and [`Self::set_waits_for`], which
    /// scrub them.
    pub fn update<T>(&self, change: impl FnOnce(&mut PluginStatus) -> T) -> T {
        change(&mut lock(&self.status))
    }

    /// From now on `refresh` is called before the figures are read: for those that change while
    /// their owner sleeps.
    pub fn set_live(&self, refresh: impl Fn(&mut PluginStatus) + Send + 'static) {
        *lock(&self.live) = Some(Box::new(refresh));
    }

    fn current(&self) -> PluginStatus {
        let live = lock(&self.live);
        let mut status = lock(&self.status);
        if let Some(refresh) = &*live {
            refresh(&mut status);
        }
        status.clone()
    }

    /// Something went wrong.
    pub fn failed(&self, reason: &str, text: &str, at: Millis) {
        let failure = Failure { reason: reason.to_owned(), text: self.clean(text), at };
        self.update(|status| {
            status.failures += 1;
            status.last_failure = Some(failure);
        });
    }

    /// Why a person must look; none: the handler goes on.
    pub fn set_halted(&self, why: Option<&str>) {
        let why = why.map(|text| self.clean(text));
        self.update(|status| status.delivery().halted = why);
    }

    /// What is on disk is not what runs; none: it is. True: that is news.
    pub fn set_refused(&self, refused: Option<Refused>) -> bool {
        let refused = refused.map(|refused| Refused { reason: self.clean(&refused.reason), ..refused });
        self.update(|status| {
            let is_news = status.refused != refused;
            status.refused = refused;
            is_news
        })
    }

    /// An attempt came to nothing.
    pub fn set_retrying(&self, attempts: u32, next: Millis, reason: &str) {
        let reason = self.clean(reason);
        self.update(|status| status.delivery().retrying = Some(Retrying { attempts, next, reason }));
    }

    /// The lines of config that it lacks; empty: nothing is missing. True: that is news.
    pub fn set_waits_for(&self, lines: &str) -> bool {
        let lines = self.clean(lines);
        self.update(|status| {
            let is_news = status.waits_for != lines;
            status.waits_for = lines;
            is_news
        })
    }

    fn clean(&self, text: &str) -> String {
        clean(&self.secrets, text)
    }
}

impl fmt::Debug for PluginHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PluginHandle").field(&lock(&self.status).name).finish()
    }
}

/// What is known of the agent as a whole.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentFigures {
    pub version: String,
    pub id: String,
    /// Of its own element.
    pub name: String,
    pub started: Millis,
    pub pid: u32,
    /// Whether all plugins of the config have been loaded, or could not be.
    pub loaded: bool,
    /// Why the last reload of the config changed nothing; none: it was good.
    pub config_error: Option<String>,
    pub config_last_reload_success: bool,
    /// Resident memory in bytes; 0: not known.
    pub rss: u64,
}

/// Everything at one instant: what `/api/v1/plugins` answers and `list` reads. What an older agent
/// does not say has its default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    pub agent: AgentFigures,
    /// In order of their names.
    pub plugins: Vec<PluginStatus>,
}

/// The figures of the agent and all its plugins. Clones share them.
#[derive(Clone)]
pub struct AgentStatus {
    inner: Arc<Inner>,
}

struct Inner {
    secrets: Secrets,
    agent: Mutex<AgentFigures>,
    /// As many as the config and the plugin directories name.
    plugins: Mutex<BTreeMap<String, PluginHandle>>,
}

impl AgentStatus {
    /// `id` and `name` are those of the agent's own element.
    pub fn new(id: &str, name: &str, started: Millis, secrets: Secrets) -> Self {
        let agent = AgentFigures {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            id: id.to_owned(),
            name: name.to_owned(),
            started,
            pid: std::process::id(),
            config_last_reload_success: true,
            ..AgentFigures::default()
        };
        Self { inner: Arc::new(Inner { secrets, agent: Mutex::new(agent), plugins: Mutex::default() }) }
    }

    /// The figures of a plugin: new ones, or those it had before a reload. Names are unique among
    /// collectors and handlers together; one that changes its kind starts anew.
    pub fn plugin(&self, name: &str, kind: PluginKind) -> PluginHandle {
        let mut plugins = lock(&self.inner.plugins);
        if let Some(handle) = plugins.get(name).filter(|handle| handle.update(|status| status.kind) == kind) {
            return handle.clone();
        }
        let delivery = (kind == PluginKind::Handler).then(Delivery::default);
        let status = PluginStatus { name: name.to_owned(), kind, delivery, ..PluginStatus::default() };
        let handle = PluginHandle {
            status: Arc::new(Mutex::new(status)),
            live: Arc::default(),
            secrets: self.inner.secrets.clone(),
        };
        plugins.insert(name.to_owned(), handle.clone());
        handle
    }

    /// What a plugin of this name is; none: there is none.
    pub fn kind(&self, name: &str) -> Option<PluginKind> {
        lock(&self.inner.plugins).get(name).map(|handle| handle.update(|status| status.kind))
    }

    /// It is no longer in the config, nor in a plugin directory.
    pub fn remove(&self, name: &str) {
        lock(&self.inner.plugins).remove(name);
    }

    /// All plugins of the config have been loaded, or could not be. Before that the agent is not ready.
    pub fn set_loaded(&self) {
        lock(&self.inner.agent).loaded = true;
    }

    /// How the last reload of the config went.
    pub fn set_reloaded(&self, result: Result<(), &str>) {
        let error = result.err().map(|text| clean(&self.inner.secrets, text));
        let mut agent = lock(&self.inner.agent);
        agent.config_last_reload_success = error.is_none();
        agent.config_error = error;
    }

    /// A copy of all figures as they are now.
    pub fn snapshot(&self) -> Snapshot {
        let agent = AgentFigures { rss: resident_bytes(), ..lock(&self.inner.agent).clone() };
        let handles: Vec<_> = lock(&self.inner.plugins).values().cloned().collect();
        Snapshot { agent, plugins: handles.iter().map(PluginHandle::current).collect() }
    }
}

impl fmt::Debug for AgentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plugins: Vec<_> = lock(&self.inner.plugins).keys().cloned().collect();
        f.debug_struct("AgentStatus").field("plugins", &plugins).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// What the agent is not yet ready for: `/-/ready` answers 503 while there is any. A collector that
    /// is parked, quarantined or stopped is not waited for, since it will not run.
    pub fn awaited(&self) -> Vec<String> {
        if !self.agent.loaded {
            return vec!["plugins are being loaded".to_owned()];
        }
        let waits = |plugin: &&PluginStatus| {
            plugin.kind == PluginKind::Collector
                && plugin.last_run.is_none()
                && !matches!(plugin.state.as_ref(), "parked" | "quarantined" | "stopped")
        };
        let reason = |plugin: &PluginStatus| format!("collector `{}` has not run yet", plugin.name);
        self.plugins.iter().filter(waits).map(reason).collect()
    }

    /// What a person must look at: `/-/healthy` answers 503 while there is any.
    pub fn ailments(&self) -> Vec<String> {
        let config = self.agent.config_error.iter();
        let mut ailments: Vec<_> = config.map(|why| format!("the config was not reloaded: {why}")).collect();
        for plugin in &self.plugins {
            let PluginStatus { kind, name, .. } = plugin;
            if let Some(why) = plugin.delivery.as_ref().and_then(|delivery| delivery.halted.as_ref()) {
                ailments.push(format!("{kind} `{name}` is halted: {why}"));
            }
            if plugin.state == "quarantined" {
                let why = plugin.last_failure.as_ref().map_or("no reason known", |failure| &failure.text);
                ailments.push(format!("{kind} `{name}` is quarantined: {why}"));
            }
        }
        ailments
    }
}

/// Scrubbed, then cut.
fn clean(secrets: &Secrets, text: &str) -> String {
    let text = secrets.scrub(text);
    match text.len() <= LONGEST_TEXT {
        true => text.into_owned(),
        false => format!("{}…", &text[..text.floor_char_boundary(LONGEST_TEXT)]),
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kilobytes.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;
    use std::time::Duration;

    fn status() -> AgentStatus {
        let secrets = Secrets::default();
        secrets.add("hunter22");
        AgentStatus::new("id-1", "web-1", 1_000, secrets)
    }

    #[test]
    fn figures_survive_a_reload() {
        let status = status();
        status.plugin("cpu", PluginKind::Collector).update(|cpu| cpu.killed("deadline"));
        let again = status.plugin("cpu", PluginKind::Collector);
        again.update(|cpu| cpu.killed("deadline"));
        assert_eq!(status.snapshot().plugins[0].kills["deadline"], 2);
        assert_eq!(status.plugin("cpu", PluginKind::Handler).update(|cpu| cpu.kills.len()), 0);
        status.remove("cpu");
        assert!(status.snapshot().plugins.is_empty());
    }

    #[test]
    fn texts_from_outside_are_scrubbed_and_cut() {
        let status = status();
        let handler = status.plugin("metricly", PluginKind::Handler);
        handler.failed("retry", &format!("{}hunter22", "x".repeat(2_000)), 5);
        handler.set_halted(Some("key hunter22 refused"));
        handler.set_retrying(3, 9, "key hunter22 is unknown today");
        handler.set_waits_for("grant = { http = [\"https://hunter22.org\"] }");
        status.set_reloaded(Err("line 3: hunter22"));
        let json = serde_json::to_string(&status.snapshot()).unwrap();
        assert!(!json.contains("hunter22") && json.len() < 4_000, "{json}");
        assert_eq!(handler.update(|handler| handler.failures), 1);
    }

    #[test]
    fn a_snapshot_survives_json_also_of_an_older_agent() {
        let status = status();
        status.plugin("cpu", PluginKind::Collector).update(|cpu| {
            cpu.state = Cow::Borrowed("running");
            cpu.dropped("flood", 3);
            cpu.hit("samples", 1);
            cpu.ran(2_000, Duration::from_millis(3), Duration::from_micros(40));
        });
        status.plugin("graphite", PluginKind::Handler).update(|graphite| graphite.delivery().delivered = 7);
        let snapshot = status.snapshot();
        let json = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), snapshot);
        let older: Snapshot = serde_json::from_str(r#"{"plugins":[{"name":"cpu"}],"new":1}"#).unwrap();
        assert_eq!(older.plugins[0].name, "cpu");
        assert!(snapshot.agent.rss > 0);
    }

    #[test]
    fn ready_once_every_collector_that_can_run_has_run() {
        let status = status();
        let cpu = status.plugin("cpu", PluginKind::Collector);
        status.plugin("graphite", PluginKind::Handler);
        status.plugin("parked", PluginKind::Collector).update(|parked| parked.state = "parked".into());
        assert_eq!(status.snapshot().awaited(), ["plugins are being loaded"]);
        status.set_loaded();
        assert_eq!(status.snapshot().awaited(), ["collector `cpu` has not run yet"]);
        cpu.update(|cpu| cpu.ran(1, Duration::ZERO, Duration::ZERO));
        assert!(status.snapshot().awaited().is_empty());
    }

    #[test]
    fn ailments_name_the_culprit_and_go_when_it_is_well() {
        let status = status();
        assert!(status.snapshot().ailments().is_empty());
        let (cpu, metricly) =
            (status.plugin("cpu", PluginKind::Collector), status.plugin("metricly", PluginKind::Handler));
        cpu.failed("trap", "unreachable", 5);
        cpu.update(|cpu| cpu.state = "quarantined".into());
        metricly.set_halted(Some("410 Gone"));
        status.set_reloaded(Err("kimberlite.toml:3: unknown key"));
        assert_eq!(
            status.snapshot().ailments(),
            [
                "the config was not reloaded: kimberlite.toml:3: unknown key",
                "collector `cpu` is quarantined: unreachable",
                "handler `metricly` is halted: 410 Gone",
            ]
        );
        cpu.update(|cpu| cpu.state = "running".into());
        metricly.set_halted(None);
        status.set_reloaded(Ok(()));
        assert!(status.snapshot().ailments().is_empty());
    }
}
