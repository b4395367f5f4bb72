//! The plugins of a running agent: starts, exchanges and ends them as a survey says.
//!
//! ```text
//! news ──▶ Fleet ──Insert, Remove──▶ scheduler
//!            │ ──Replace, End──────▶ tasks of collectors and handlers ──how it went──▶ Fleet
//!            └ ──which handlers───▶ router, series tables
//! ```
//!
//! Nothing here waits: what takes time is left to tasks, and a plugin that follows one of its own name
//! begins when that has ended. Uses: `reload` for what is to be done; all that a plugin consists of.

mod collectors;
mod handlers;
mod terms;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use self::terms::successor;
pub use self::terms::{batch_form, keeper, retry_config, series_config};
use crate::catalog::{Owners, UNSETTLED};
use crate::config::manifest::PluginKind;
use crate::config::{PluginSource, QueueConfig};
use crate::data_dir::DataDir;
use crate::loader::{Loader, Prepared, level_filter};
use crate::machine::Machine;
use crate::orphans::Orphans;
use crate::plugin::Failure;
use crate::queue::Queue;
use crate::reload::{Change, Idle, Known, Refusal, Table, Version};
use crate::router::Router;
use crate::routes::Filter;
use crate::sample::Sample;
use crate::scheduler::Order;
use crate::series::SeriesTable;
use crate::status::{AgentStatus, PluginHandle, Refused};
use crate::{collector, delivery, telemetry};

/// The series tables of all collectors, by name, for whoever wants the last values.
pub type Tables = Arc<Mutex<BTreeMap<String, Arc<Mutex<SeriesTable>>>>>;

/// All plugins of an agent.
pub struct Fleet {
    pub loader: Loader,
    pub known: BTreeMap<String, Known>,
    pub owners: Owners,
    parts: Parts,
    collectors: BTreeMap<String, CollectorTask>,
    handlers: BTreeMap<String, HandlerTask>,
    /// Tasks that end: whoever has their name begins when they have.
    leaving: BTreeMap<String, JoinHandle<()>>,
    /// Files that run nothing, as `list` has them.
    idle: BTreeSet<String>,
    outcomes: mpsc::UnboundedSender<Outcome>,
}

/// What the fleet works with.
#[derive(Debug)]
pub struct Parts {
    pub machine: Arc<Machine>,
    pub router: Arc<Router>,
    pub status: AgentStatus,
    pub log: telemetry::Handle,
    pub tables: Tables,
    pub data: Arc<DataDir>,
    pub orphans: Orphans,
    pub schedule: mpsc::UnboundedSender<Order>,
}

struct CollectorTask {
    commands: mpsc::Sender<collector::Command>,
    task: JoinHandle<()>,
}

struct HandlerTask {
    speaks: Speaks,
    task: JoinHandle<()>,
    queue: Arc<Queue>,
    filter: Filter,
}

/// A parked handler can only be ended.
enum Speaks {
    To(mpsc::Sender<delivery::Command>),
    Parked(#[expect(dead_code, reason = "the task ends when it is dropped")] mpsc::Sender<()>),
}

/// How the exchange of a plugin went.
#[derive(Debug)]
pub struct Outcome {
    name: String,
    /// What ran before, and runs on if it failed.
    before: Known,
    sha256: String,
    origin: String,
    version: String,
    result: Result<(), Failure>,
}

/// What a reload has done, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    pub started: usize,
    pub replaced: usize,
    pub changed: usize,
    pub removed: usize,
    pub refused: usize,
}

impl std::fmt::Display for Sums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { started, replaced, changed, removed, refused } = self;
        write!(
            f,
            "{started} started, {replaced} replaced, {changed} changed, {removed} removed, {refused} refused"
        )
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("known", &self.known.keys()).finish_non_exhaustive()
    }
}

impl Fleet {
    pub fn new(loader: Loader, parts: Parts, outcomes: mpsc::UnboundedSender<Outcome>) -> Self {
        Self {
            loader,
            known: BTreeMap::new(),
            owners: Owners::new(),
            parts,
            collectors: BTreeMap::new(),
            handlers: BTreeMap::new(),
            leaving: BTreeMap::new(),
            idle: BTreeSet::new(),
            outcomes,
        }
    }

    /// Does what is to be done about one plugin.
    pub fn apply(&mut self, name: &str, change: Change, sums: &mut Sums) {
        match change {
            Change::Start(table, prepared) => {
                sums.started += 1;
                self.start(name, table, *prepared);
            }
            Change::Replace(table, prepared) => {
                sums.replaced += 1;
                self.replace(name, table, *prepared);
            }
            Change::Reconfigure(table) => {
                sums.changed += 1;
                self.reconfigure(name, table);
            }
            Change::Park(table, why) => self.park(name, table, &why, sums),
            Change::Refuse(refusal) => {
                sums.refused += 1;
                self.refuse(name, refusal);
            }
            Change::Agree => {
                self.status(name).set_refused(None);
                // What failed may be put there again, and be told again.
                if let Some(known) = self.known.get_mut(name) {
                    known.failed = None;
                }
            }
            Change::Remove => {
                sums.removed += 1;
                self.remove(name);
                info!(plugin = name, "plugin is removed");
            }
        }
    }

    /// Which files run nothing, and why.
    pub fn set_idle(&mut self, idle: Idle) {
        let names: BTreeSet<String> = idle.iter().map(|(path, _)| path.display().to_string()).collect();
        for gone in self.idle.difference(&names) {
            self.parts.status.remove(gone);
        }
        for (path, why) in idle {
            let origin = path.display().to_string();
            let status = self.parts.status.plugin(&origin, PluginKind::Collector);
            status.update(|status| {
                status.state = "parked".into();
                status.origin.clone_from(&origin);
            });
            if status.set_waits_for(&format!("plugin `{origin}` {why}")) && why != UNSETTLED {
                warn!(file = origin, "file in a plugin directory {}", one_line(&why));
            }
        }
        self.idle = names;
        self.leaving.retain(|_, task| !task.is_finished());
    }

    /// An exchange is over. If it failed, what was there is there still.
    pub fn settle(&mut self, outcome: Outcome) {
        let Outcome { name, before, sha256, origin, version, result } = outcome;
        let Some(known) = self.known.get_mut(&name) else { return };
        match result {
            Ok(()) => info!(plugin = name, origin, version, "plugin is replaced"),
            Err(failure) => {
                let is_latest = known.runs.as_ref().is_some_and(|version| version.plugin.sha256 == sha256);
                if is_latest {
                    *known = Known { failed: Some(sha256.clone()), table: known.table.clone(), ..before };
                    self.show(&name);
                }
                let why = format!("{}: {}", failure.reason.as_str(), failure.text);
                self.refuse(&name, Refusal { origin, sha256, version, why });
            }
        }
    }

    /// A person lets in what was refused because it asks for more. False: there is nothing of the
    /// sort.
    pub fn approve(&mut self, name: &str) -> bool {
        let refused = self.status(name).update(|status| status.refused.clone());
        match (self.known.get_mut(name), refused) {
            (Some(known), Some(refused)) if !refused.sha256.is_empty() => {
                known.approved = Some(refused.sha256);
                known.failed = None;
                true
            }
            _ => false,
        }
    }

    /// Plugins of which something was refused.
    pub fn refused(&self) -> BTreeSet<String> {
        let is_refused = |name: &&String| self.status(name).update(|status| status.refused.is_some());
        self.known.keys().filter(is_refused).cloned().collect()
    }

    pub fn collector(&self, name: &str) -> Option<&mpsc::Sender<collector::Command>> {
        Some(&self.collectors.get(name)?.commands)
    }

    pub fn handler(&self, name: &str) -> Option<&mpsc::Sender<delivery::Command>> {
        match &self.handlers.get(name)?.speaks {
            Speaks::To(commands) => Some(commands),
            Speaks::Parked(_) => None,
        }
    }

    /// Those that run.
    pub fn names(&self) -> Vec<&str> {
        let handlers = self.handlers.keys().filter(|name| self.handler(name).is_some());
        self.collectors.keys().chain(handlers).map(String::as_str).collect()
    }

    pub fn counts(&self) -> (usize, usize) {
        (self.collectors.len(), self.handlers.len())
    }

    /// Spools that earlier agents left behind.
    pub fn find_orphans(&self) {
        let handlers = self.known.iter().filter(|(_, known)| known.table.kind() == PluginKind::Handler);
        let names = handlers.map(|(name, _)| name.clone()).collect();
        let age = QueueConfig::default().age.as_millis() as u64;
        self.parts.orphans.find(&names, age, self.loader.clock.wall_ms(), &self.parts.status);
    }

    /// The orphaned spools that are too old go.
    pub fn bury_orphans(&mut self) {
        let now = self.loader.clock.wall_ms();
        self.parts.orphans.bury(now, &self.parts.status);
    }

    fn status(&self, name: &str) -> PluginHandle {
        let kind = self.known.get(name).map_or(PluginKind::Collector, |known| known.table.kind());
        self.parts.status.plugin(name, kind)
    }

    fn start(&mut self, name: &str, table: Table, prepared: Prepared) {
        // It may have been parked.
        self.end_task(name);
        self.introduce(name, &table, Some(&prepared));
        self.known.insert(name.to_owned(), known(table.clone(), &prepared));
        self.show(name);
        match table {
            Table::Collector(table) => self.start_collector(name, &table, prepared),
            Table::Handler(table) => self.start_handler(name, &table, prepared),
        }
    }

    /// What the log and `list` are to know of a plugin before it runs.
    fn introduce(&self, name: &str, table: &Table, prepared: Option<&Prepared>) {
        let config = table.plugin();
        self.parts.log.set_plugin_level(name, config.log_level.map(level_filter));
        let status = self.parts.status.plugin(name, table.kind());
        status.update(|status| status.memory_limit = config.limits.memory as u64);
        let Some(prepared) = prepared else { return };
        status.set_waits_for("");
        status.set_refused(None);
        status.update(|status| status.state = "loading".into());
        if let Some(unasked) = &prepared.unasked {
            warn!(plugin = name, unasked, "the plugin never asks for some of what is granted");
        }
    }

    /// What runs, or is about to.
    fn show(&self, name: &str) {
        let Some(Version { plugin, origin, .. }) = self.known.get(name).and_then(|known| known.runs.as_ref())
        else {
            return;
        };
        self.status(name).update(|status| {
            status.plugin.clone_from(&plugin.manifest.name);
            status.version.clone_from(&plugin.manifest.version);
            status.origin.clone_from(origin);
            status.sha256.clone_from(&plugin.sha256);
        });
    }

    fn replace(&mut self, name: &str, table: Table, mut prepared: Prepared) {
        let Some(before) = self.known.get(name).cloned() else { return };
        if let (Some(context), Some(former)) = (Arc::get_mut(&mut prepared.context), &before.runs) {
            context.follow(&former.context);
        }
        self.introduce_change(name, &table);
        let outcome = Outcome {
            name: name.to_owned(),
            before,
            sha256: prepared.plugin.sha256.clone(),
            origin: prepared.origin.clone(),
            version: prepared.plugin.manifest.version.clone(),
            result: Ok(()),
        };
        self.known.insert(name.to_owned(), known(table.clone(), &prepared));
        let (reply, answer) = oneshot::channel();
        let sent = match &table {
            Table::Collector(config) => {
                let successor = Box::new(successor(&config.plugin, prepared));
                self.tell_collector(name, collector::Command::Replace(successor, reply));
                self.reschedule(name, config);
                true
            }
            Table::Handler(config) => {
                let terms = Box::new(self.terms(name, config, &prepared));
                let successor = Box::new(successor(&config.plugin, prepared));
                self.refilter(name, config);
                self.tell_handler(name, delivery::Command::Replace(successor, terms, reply))
            }
        };
        self.show(name);
        self.status(name).set_refused(None);
        let outcomes = self.outcomes.clone();
        if sent {
            tokio::spawn(async move {
                // Without an answer the plugin has ended, and nobody is interested.
                if let Ok(result) = answer.await {
                    drop(outcomes.send(Outcome { result, ..outcome }));
                }
            });
        }
    }

    fn reconfigure(&mut self, name: &str, table: Table) {
        self.introduce_change(name, &table);
        match &table {
            Table::Collector(config) => self.reschedule(name, config),
            Table::Handler(config) => {
                self.refilter(name, config);
                let runs = self.known.get(name).and_then(|known| known.runs.clone());
                if let Some(Version { plugin, origin, settings, context }) = runs {
                    let prepared = Prepared { plugin, origin, settings, context, unasked: None };
                    let terms = Box::new(self.terms(name, config, &prepared));
                    self.tell_handler(name, delivery::Command::Configure(terms));
                }
            }
        }
        if let Some(known) = self.known.get_mut(name) {
            known.table = table;
        }
        self.set_levels();
        self.status(name).set_refused(None);
        info!(plugin = name, "plugin goes on with a changed config");
    }

    /// How much of what plugins say is written.
    pub fn set_levels(&self) {
        for known in self.known.values() {
            if let Some(Version { context, .. }) = &known.runs {
                context.log.set_level(self.loader.level(known.table.plugin()));
            }
        }
    }

    fn introduce_change(&self, name: &str, table: &Table) {
        self.parts.log.set_plugin_level(name, table.plugin().log_level.map(level_filter));
    }

    /// It cannot run. A handler's queue is kept; what had been running ends.
    fn park(&mut self, name: &str, table: Table, why: &str, sums: &mut Sums) {
        let was_running = self.known.get(name).is_some_and(|known| known.runs.is_some());
        let was_parked =
            self.known.get(name).is_some_and(|known| known.runs.is_none() && known.table == table);
        self.introduce(name, &table, None);
        if !was_parked {
            if was_running {
                sums.removed += 1;
            }
            self.end_task(name);
            if let Table::Handler(config) = &table {
                self.park_handler(name, config);
            }
            self.known.insert(name.to_owned(), Known { table, runs: None, failed: None, approved: None });
        }
        let status = self.status(name);
        let origin = match self.known.get(name).map(|known| &known.table.plugin().source) {
            Some(PluginSource::File(path)) => path.display().to_string(),
            _ => String::new(),
        };
        status.update(|status| (status.state, status.origin) = ("parked".into(), origin));
        if status.set_waits_for(why) {
            sums.refused += 1;
            error!(plugin = name, "plugin is not started: {}", one_line(why));
        }
    }

    fn refuse(&mut self, name: &str, refusal: Refusal) {
        let Refusal { origin, sha256, version, why } = refusal;
        let refused = Refused { origin, version, sha256, reason: why };
        let is_news = self.status(name).set_refused(Some(refused.clone()));
        if is_news {
            let Refused { origin, version, reason, .. } = refused;
            warn!(
                plugin = name,
                origin,
                version,
                "the new version is not used, the old one runs on: {}",
                one_line(&reason)
            );
        }
    }

    fn remove(&mut self, name: &str) {
        let Some(known) = self.known.remove(name) else { return };
        self.end_task(name);
        self.parts.log.set_plugin_level(name, None);
        self.parts.status.remove(name);
        let (data, task) = (self.parts.data.clone(), self.leaving.remove(name));
        match known.table {
            Table::Collector(_) => {
                lock(&self.parts.tables).remove(name);
                self.parts.machine.forget(name);
                let state = data.state().join(format!("{name}.json"));
                let left = behind(task, async move {
                    // One that was never written is not there.
                    drop(std::fs::remove_file(state));
                });
                self.leaving.insert(name.to_owned(), left);
            }
            Table::Handler(table) => {
                self.handlers.remove(name);
                self.reroute();
                let until = self.loader.clock.wall_ms().saturating_add(table.queue.age.as_millis() as u64);
                let (orphans, status) = (self.parts.orphans.clone(), self.parts.status.clone());
                let named = name.to_owned();
                let left = behind(task, async move {
                    // One that is not halted has none.
                    drop(std::fs::remove_file(data.halt(&named)));
                    orphans.leave(&named, until, &status);
                });
                self.leaving.insert(name.to_owned(), left);
            }
        }
    }

    /// It ends behind its present call. A handler stays among the handlers, for its queue.
    fn end_task(&mut self, name: &str) {
        if let Some(collector) = self.collectors.remove(name) {
            // Without its senders it ends.
            drop(self.parts.schedule.send(Order::Remove(name.to_owned())));
            self.leaving.insert(name.to_owned(), collector.task);
        }
        let Some(handler) = self.handlers.get_mut(name) else { return };
        // What is left is a place for the queue.
        let (closed, _) = mpsc::channel(1);
        let speaks = std::mem::replace(&mut handler.speaks, Speaks::Parked(closed));
        let task = std::mem::replace(&mut handler.task, tokio::spawn(async {}));
        if let Speaks::To(commands) = speaks {
            tokio::spawn(async move { drop(commands.send(delivery::Command::End).await) });
        }
        self.leaving.insert(name.to_owned(), task);
    }

    /// Collectors end their runs, then handlers empty their queues; whatever is left when the time is
    /// over is counted.
    pub async fn drain(self, deadline: tokio::time::Instant) {
        let Self { collectors, handlers, leaving, parts, .. } = self;
        let Parts { router, status, .. } = parts;
        // Without their senders they end behind their present run.
        let collectors = collectors.into_values().map(|collector| collector.task).collect();
        wait(collectors, deadline).await;
        router.slot_end();
        let mut tasks: Vec<JoinHandle<()>> = leaving.into_values().collect();
        for handler in handlers.into_values() {
            if let Speaks::To(commands) = handler.speaks {
                // Its inbox is full only while it is busy; then it looks when it is done.
                drop(tokio::time::timeout_at(deadline, commands.send(delivery::Command::Drain)).await);
            }
            tasks.push(handler.task);
        }
        wait(tasks, deadline).await;
        for plugin in status.snapshot().plugins {
            if plugin.queue_bytes > 0 {
                warn!(
                    plugin = plugin.name,
                    bytes = plugin.queue_bytes,
                    "samples were not delivered and are lost"
                );
            }
        }
    }

    /// Gives the last values of all series, of at most so many.
    pub fn last_samples(tables: &Tables, most: usize) -> Vec<Sample> {
        let tables: Vec<_> = lock(tables).values().cloned().collect();
        let mut samples: Vec<Sample> = Vec::new();
        for table in tables {
            samples.extend(lock(&table).latest().take(most.saturating_sub(samples.len())));
        }
        samples
    }
}

fn known(table: Table, prepared: &Prepared) -> Known {
    let Prepared { plugin, origin, settings, context, .. } = prepared;
    let version = Version {
        plugin: plugin.clone(),
        origin: origin.clone(),
        settings: settings.clone(),
        context: context.clone(),
    };
    Known { table, runs: Some(version), failed: None, approved: None }
}

/// Begins when the task before it has ended.
fn behind(before: Option<JoinHandle<()>>, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Some(before) = before {
            // One that panicked has ended, too.
            drop(before.await);
        }
        work.await;
    })
}

/// Waits for tasks; those that are not over by then are ended.
async fn wait(tasks: Vec<JoinHandle<()>>, deadline: tokio::time::Instant) {
    for mut task in tasks {
        if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// The log has one line per event.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().filter(|word| *word != "error:").collect();
    words.join(" ")
}

/// A panic elsewhere must not end the agent.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
