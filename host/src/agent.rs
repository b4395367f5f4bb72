//! Wires the parts, runs until told to stop, drains.
//!
//! Knows everyone, decides nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::admin::{Admin, AdminCommand, AdminRequest, LastSamples, Listener};
use crate::backlog::Backlog;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::collected::Publish;
use crate::collector::{self, Collector};
use crate::config::manifest::{BatchBy, Manifest, PluginKind};
use crate::config::{CollectorConfig, Config, Counters, Faults, HandlerConfig, PluginConfig};
use crate::data_dir::{DataDir, dead_letters_dir};
use crate::dead_letters::DeadLetters;
use crate::delivery::{self, Delivery, Parked};
use crate::delivery_policy::{DeliveryPolicy, RetryConfig};
use crate::halt::HaltFile;
use crate::keeper::Keeper;
use crate::loader::{self, Loader, Prepared};
use crate::machine::{self, Machine};
use crate::outgoing::BatchForm;
use crate::plugin::{AgentInfo, Engine};
use crate::queue::Queue;
use crate::router::Router;
use crate::routes::{Filter, Routes};
use crate::sample::{Element, Facts, Sample};
use crate::scheduler::{Scheduled, Scheduler};
use crate::secrets::Secrets;
use crate::series::{SeriesConfig, SeriesLimits, SeriesTable};
use crate::status::{AgentStatus, PluginHandle};
use crate::supervisor::{Rules, Supervisor};
use crate::telemetry;
use crate::upkeep::Upkeep;

/// The series tables of all collectors, by name, for whoever wants the last values.
type Tables = Arc<Mutex<BTreeMap<String, Arc<Mutex<SeriesTable>>>>>;

/// A running agent.
pub struct Agent {
    config: Config,
    loader: Loader,
    machine: Arc<Machine>,
    router: Arc<Router>,
    status: AgentStatus,
    log: telemetry::Handle,
    tables: Tables,
    handlers: BTreeMap<String, Running<delivery::Command>>,
    collectors: BTreeMap<String, Running<collector::Command>>,
    /// Handlers that cannot run; nothing can be said to them.
    parked: Vec<Running<()>>,
    data: DataDir,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("status", &self.status).finish_non_exhaustive()
    }
}

/// A plugin's task and how to talk to it.
struct Running<C> {
    commands: mpsc::Sender<C>,
    task: JoinHandle<()>,
}

impl Agent {
    /// Opens the data directory and starts every plugin that can be started; one that cannot shows
    /// in `list`, with the reason, and keeps nobody else from running.
    pub fn start(
        config: Config,
        data: DataDir,
        secrets: Secrets,
        log: telemetry::Handle,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let own = own_element(&config);
        let facts = own.facts();
        let machine = Arc::new(Machine::new(&own.id, (*facts).clone()));
        let status = AgentStatus::new(data.id(), &facts.name, clock.wall_ms(), secrets.clone());
        let info = AgentInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            id: data.id().to_owned(),
            name: facts.name.clone(),
        };
        let loader = Loader {
            engine: Engine::new(Some(data.cache()), config.agent.epoch_tick)?,
            stats: loader::machine_stats(&config.agent),
            agent: config.agent.clone(),
            info,
            clock,
            secrets,
            state_dir: Some(data.state()),
        };
        let mut agent = Self {
            config,
            loader,
            machine,
            router: Arc::default(),
            status,
            log,
            tables: Tables::default(),
            handlers: BTreeMap::new(),
            collectors: BTreeMap::new(),
            parked: Vec::new(),
            data,
        };
        let routes = agent.start_handlers()?;
        agent.start_collectors(&routes);
        agent.status.set_loaded();
        crate::memory::give_back();
        Ok(agent)
    }

    /// Every plugin's state and figures, as they are whenever it is asked.
    pub fn status(&self) -> AgentStatus {
        self.status.clone()
    }

    fn start_handlers(&mut self) -> anyhow::Result<Arc<Routes>> {
        let tables = std::mem::take(&mut self.config.handlers);
        let mut queues = Vec::new();
        let mut prepared = Vec::new();
        for (name, table) in tables.iter().filter(|(_, table)| table.plugin.enabled) {
            let status = self.status.plugin(name, PluginKind::Handler);
            // What cannot be started yet keeps its queue: samples wait for it within their bounds.
            let queue = Arc::new(Queue::new(usize::try_from(table.queue.memory)?));
            queues.push((queue.clone(), Filter::new(&table.plugin.metrics, &table.plugin.except)));
            match self.prepare(PluginKind::Handler, name, &table.plugin, &status) {
                Some(parts) => prepared.push((name.clone(), table, queue, status, parts)),
                None => self.park(name, table, queue, status),
            }
        }
        let routes = self.router.set_handlers(queues).context("too many handlers")?;
        for (name, table, queue, status, parts) in prepared {
            let form = batch_form(table, &parts.plugin.manifest);
            let policy = DeliveryPolicy::new(retry_config(table));
            let clock = self.loader.clock.clone();
            let wait = table.batch.over(&parts.plugin.manifest.batch).wait;
            let spool = Some(self.data.spool(&name));
            let backlog = Backlog::new(queue, table.queue.clone(), wait, spool, clock);
            let halt =
                HaltFile::new(self.data.halt(&name), self.data.id(), &parts.plugin.sha256, &parts.settings);
            let settings = self.loader.settings_source(&parts.plugin.manifest, &table.plugin);
            let delivery = Delivery::new(keeper(&table.plugin, parts, status), backlog, form, policy)
                .with_halt(halt, settings)
                .with_dead_letters(DeadLetters::new(
                    dead_letters_dir(self.data.path()).join(&name),
                    table.queue.dead_letters,
                ));
            let (commands, inbox) = mpsc::channel(8);
            let task = tokio::spawn(delivery.serve(inbox));
            self.handlers.insert(name, Running { commands, task });
        }
        self.config.handlers = tables;
        Ok(routes)
    }

    fn park(&mut self, name: &str, table: &HandlerConfig, queue: Arc<Queue>, status: PluginHandle) {
        let clock = self.loader.clock.clone();
        let spool = Some(self.data.spool(name));
        let backlog = Backlog::new(queue, table.queue.clone(), Duration::ZERO, spool, clock.clone());
        let (commands, inbox) = mpsc::channel(1);
        let task = tokio::spawn(Parked::new(backlog, status, clock).serve(inbox));
        self.parked.push(Running { commands, task });
    }

    fn start_collectors(&mut self, routes: &Arc<Routes>) {
        let tables = std::mem::take(&mut self.config.collectors);
        for (name, table) in tables.iter().filter(|(_, table)| table.plugin.enabled) {
            let status = self.status.plugin(name, PluginKind::Collector);
            if let Some(parts) = self.prepare(PluginKind::Collector, name, &table.plugin, &status) {
                let running = self.spawn_collector(name, table, status, parts, routes.clone());
                self.collectors.insert(name.clone(), running);
            }
        }
        self.config.collectors = tables;
    }

    fn spawn_collector(
        &self,
        name: &str,
        table: &CollectorConfig,
        status: PluginHandle,
        parts: Prepared,
        routes: Arc<Routes>,
    ) -> Running<collector::Command> {
        let series = SeriesTable::new(self.machine.element().clone(), series_config(table), routes);
        let series = Arc::new(Mutex::new(series));
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.insert(name.to_owned(), series.clone());
        let keeper = keeper(&table.plugin, parts, status);
        let collector =
            Collector::new(keeper, table.interval, series, self.router.clone(), self.machine.clone());
        // One run may wait behind the one that runs; a third is skipped and counted.
        let (commands, inbox) = mpsc::channel(1);
        Running { commands, task: tokio::spawn(collector.serve(inbox)) }
    }

    /// None: it cannot be started; the log and `list` say why and what to do.
    fn prepare(
        &self,
        kind: PluginKind,
        name: &str,
        table: &PluginConfig,
        status: &PluginHandle,
    ) -> Option<Prepared> {
        self.log.set_plugin_level(name, table.log_level.map(loader::level_filter));
        status.update(|status| status.memory_limit = table.limits.memory as u64);
        match self.loader.prepare(kind, name, table) {
            Ok(prepared) => {
                let plugin = &prepared.plugin;
                status.update(|status| {
                    status.plugin.clone_from(&plugin.manifest.name);
                    status.version.clone_from(&plugin.manifest.version);
                    status.origin.clone_from(&prepared.origin);
                    status.sha256.clone_from(&plugin.sha256);
                    status.state = "loading".into();
                });
                if let Some(unasked) = &prepared.unasked {
                    warn!(plugin = name, unasked, "the plugin never asks for some of what is granted");
                }
                Some(prepared)
            }
            Err(faults) => {
                status.update(|status| status.state = "parked".into());
                status.set_waits_for(&faults.to_string());
                error!(plugin = name, "plugin is not started: {}", one_line(&faults));
                None
            }
        }
    }

    /// Runs until SIGTERM or SIGINT, then delivers what is queued within `agent.grace`.
    pub async fn run(self) -> anyhow::Result<()> {
        let (commands, mut requests) = mpsc::channel(8);
        let admin = Admin::new(self.status.clone(), commands, self.last_samples());
        let unix = Listener::unix(&self.data.admin_socket())?;
        let _unix = AbortOnDrop(tokio::spawn(never(admin.clone().serve(unix))));
        let mut _loopback = None;
        if let Some(address) = self.config.agent.listen {
            let listener = Listener::loopback(address).await?;
            info!(address = ?listener.address(), "admin server listens");
            _loopback = Some(AbortOnDrop(tokio::spawn(never(admin.serve(listener)))));
        }

        let scheduler = self.scheduler();
        let scheduling = AbortOnDrop(tokio::spawn(scheduler.run()));
        info!(
            version = env!("CARGO_PKG_VERSION"),
            collectors = self.collectors.len(),
            handlers = self.handlers.len(),
            data_dir = %self.data.path().display(),
            "kimberlite runs"
        );

        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut upkeep = self.upkeep();
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                Some(request) = requests.recv() => self.obey(request),
                () = upkeep.wait() => upkeep.work(),
            }
        }
        info!(grace = ?self.config.agent.grace, "stopping: delivering what is queued");
        drop(scheduling);
        self.drain().await;
        Ok(())
    }

    fn scheduler(&self) -> Scheduler {
        let mut scheduler =
            Scheduler::new(&self.loader.info.id, self.router.clone(), self.loader.clock.clone());
        for (name, running) in &self.collectors {
            let Some(table) = self.config.collectors.get(name) else { continue };
            let scheduled = Scheduled {
                interval: table.interval,
                commands: running.commands.clone(),
                status: self.status.plugin(name, PluginKind::Collector),
            };
            scheduler.insert(name.clone(), scheduled);
        }
        scheduler
    }

    fn upkeep(&self) -> Upkeep {
        let own = self.machine.element().clone();
        let interval = self.config.agent.self_metrics.then_some(self.config.agent.interval);
        Upkeep::new(
            interval,
            SeriesTable::new(own, SeriesConfig::default(), self.router.routes()),
            self.status.clone(),
            self.router.clone(),
            self.loader.clock.clone(),
            self.log.clone(),
        )
    }

    fn last_samples(&self) -> LastSamples {
        let tables = self.tables.clone();
        Arc::new(move |most| {
            let tables: Vec<_> =
                tables.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
            let mut samples: Vec<Sample> = Vec::new();
            for table in tables {
                let table = table.lock().unwrap_or_else(PoisonError::into_inner);
                samples.extend(table.latest().take(most.saturating_sub(samples.len())));
            }
            samples
        })
    }

    /// Passes an order on. A plugin may be busy until its deadline, and the agent waits for nobody.
    fn obey(&self, AdminRequest { command, reply }: AdminRequest) {
        match command {
            AdminCommand::Release(name) => match (self.collectors.get(&name), self.handlers.get(&name)) {
                (Some(collector), _) => {
                    let done = format!("collector `{name}` may run at its next slot");
                    forward(collector, collector::Command::Release, reply, done);
                }
                (None, Some(handler)) => {
                    forward(handler, delivery::Command::Release, reply, format!("handler `{name}` may run"));
                }
                (None, None) => refuse(reply, self.unknown(&name)),
            },
            AdminCommand::Resume(name) => match self.handlers.get(&name) {
                Some(handler) => {
                    let done = format!("handler `{name}` delivers again");
                    forward(handler, delivery::Command::Resume, reply, done);
                }
                None if self.collectors.contains_key(&name) => refuse(
                    reply,
                    format!(
                        "`{name}` is a collector, and only handlers are halted; \
                         `kimberlite release {name}` ends a quarantine"
                    ),
                ),
                None => refuse(reply, self.unknown(&name)),
            },
            AdminCommand::Retry(name, number) => match self.handlers.get(&name) {
                Some(handler) => {
                    let done = format!("{name}/{number} goes back to its handler");
                    forward(handler, delivery::Command::Retry(number), reply, done);
                }
                None => refuse(reply, self.unknown(&name)),
            },
        }
    }

    fn unknown(&self, name: &str) -> String {
        let names: Vec<&str> =
            self.collectors.keys().chain(self.handlers.keys()).map(String::as_str).collect();
        format!("no plugin `{name}` runs; these do: {}", names.join(", "))
    }

    /// Collectors end their runs, then handlers empty their queues; whatever is left when the
    /// grace is over is counted.
    async fn drain(self) {
        let deadline = tokio::time::Instant::now() + self.config.agent.grace;
        let Self { collectors, handlers, parked, router, status, .. } = self;
        // Without their senders they end behind their present run.
        let tasks = collectors.into_values().map(|running| running.task).collect();
        wait(tasks, deadline).await;
        router.slot_end();
        let mut tasks: Vec<_> = parked.into_iter().map(|running| running.task).collect();
        for running in handlers.into_values() {
            // Its inbox is full only while it is busy; then it looks when it is done.
            drop(tokio::time::timeout_at(deadline, running.commands.send(delivery::Command::Drain)).await);
            tasks.push(running.task);
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
        crate::plugin::drain_stdout(Duration::from_secs(1));
    }
}

type Reply = oneshot::Sender<Result<String, String>>;

/// Tells a plugin's task, and then whoever asked.
fn forward<C: Send + 'static>(running: &Running<C>, command: C, reply: Reply, done: String) {
    let commands = running.commands.clone();
    tokio::spawn(async move {
        let sent = commands.send(command).await;
        // Whoever asked may have gone.
        drop(reply.send(sent.map(|()| done).map_err(|_| "the plugin has ended".to_owned())));
    });
}

fn refuse(reply: Reply, why: String) {
    drop(reply.send(Err(why)));
}

/// Waits for tasks; those that are not over by then are ended.
async fn wait(tasks: Vec<JoinHandle<()>>, deadline: tokio::time::Instant) {
    for mut task in tasks {
        if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// The element of this machine: the operator's word, then what the system says.
pub fn own_element(config: &Config) -> Arc<Element> {
    let agent = &config.agent;
    let name = agent.name.clone().unwrap_or_else(machine::host_name);
    let mut attributes = agent.attributes.clone();
    for found in machine::system_attributes(&agent.proc, &agent.root, env!("CARGO_PKG_VERSION")) {
        if !attributes.iter().any(|given| given.name == found.name) {
            attributes.push(found);
        }
    }
    let facts = Facts {
        name: name.clone(),
        location: agent.location.clone(),
        tags: agent.tags.clone(),
        attributes,
        relations: agent.relations.clone(),
        ..Facts::default()
    };
    Arc::new(Element::new(name, facts))
}

/// What the operator says about a collector's series.
pub fn series_config(table: &CollectorConfig) -> SeriesConfig {
    let limits = &table.plugin.limits;
    SeriesConfig {
        limits: SeriesLimits {
            samples: limits.samples,
            series: limits.series,
            elements: limits.elements,
            text: limits.string,
            ..SeriesLimits::default()
        },
        counters: table.counters.map(|counters| match counters {
            Counters::Rate => Publish::Rate,
            Counters::Total => Publish::Total,
        }),
        tags: table.tags.clone(),
        filter: Filter::new(&table.plugin.metrics, &table.plugin.except),
    }
}

/// How batches for this handler are formed.
pub fn batch_form(table: &HandlerConfig, manifest: &Manifest) -> BatchForm {
    let rule = table.batch.over(&manifest.batch);
    BatchForm {
        by_element: rule.by == BatchBy::Element,
        samples: rule.samples,
        bytes: usize::try_from(rule.bytes).unwrap_or(usize::MAX),
    }
}

/// How long this handler is left alone after a failure.
pub fn retry_config(table: &HandlerConfig) -> RetryConfig {
    let crate::config::RetryConfig { first, longest, jitter } = table.retry;
    RetryConfig { backoff: Backoff { first, longest, jitter }, ..RetryConfig::default() }
}

/// A plugin and its supervisor, as its table says.
pub fn keeper(table: &PluginConfig, parts: Prepared, status: PluginHandle) -> Keeper {
    let rules =
        Rules { failures: table.limits.failures, quarantine: table.limits.quarantine, ..Rules::default() };
    Keeper::new(parts.plugin, parts.context, parts.settings, status, Supervisor::new(rules))
}

/// The log has one line per event.
fn one_line(faults: &Faults) -> String {
    let text = faults.to_string();
    let words: Vec<&str> = text.split_whitespace().filter(|word| *word != "error:").collect();
    words.join(" ")
}

async fn never(work: impl Future<Output = std::convert::Infallible>) {
    match work.await {}
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
