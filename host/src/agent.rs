//! Wires the parts, runs until told to stop, drains.
//!
//! ```text
//! watch, SIGHUP, `kimberlite reload` ──▶ survey, on a thread ──news──▶ fleet
//! ```
//!
//! Knows everyone, decides nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::admin::{Admin, AdminCommand, AdminRequest, LastSamples, Listener};
use crate::clock::Clock;
use crate::config::{AgentConfig, Config, ConfigSource};
use crate::data_dir::DataDir;
use crate::fleet::{Fleet, Outcome, Parts, Sums, Tables};
use crate::loader::{self, Loader};
use crate::machine::{self, Machine};
use crate::orphans::Orphans;
use crate::plugin::{AgentInfo, Engine};
use crate::reload::{self, News, Survey};
use crate::router::Router;
use crate::sample::{Element, Facts};
use crate::scheduler::{self, Scheduler};
use crate::secrets::Secrets;
use crate::series::{SeriesConfig, SeriesTable};
use crate::settling::Unsettled;
use crate::status::AgentStatus;
use crate::telemetry;
use crate::upkeep::Upkeep;
use crate::watch::{Paths, Watch};
use crate::{collector, delivery};

/// A running agent.
pub struct Agent {
    config: Config,
    source: ConfigSource,
    machine: Arc<Machine>,
    router: Arc<Router>,
    status: AgentStatus,
    log: telemetry::Handle,
    tables: Tables,
    fleet: Fleet,
    data: Arc<DataDir>,
    orders: mpsc::UnboundedReceiver<scheduler::Order>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("status", &self.status).finish_non_exhaustive()
    }
}

/// A survey that goes on, and who waits for it.
#[derive(Default)]
struct Reload {
    news: Option<mpsc::UnboundedReceiver<News>>,
    replies: Vec<Reply>,
    sums: Sums,
    /// Why the config was not taken.
    fault: Option<String>,
    /// Asked for while this one went on.
    next: Vec<Asked>,
}

/// Why everything is looked at.
enum Asked {
    /// A file has changed.
    ByChange,
    /// Somebody said so, and may want to know what came of it.
    ByHand(Option<Reply>),
}

impl Agent {
    /// Starts every plugin that can be started; one that cannot shows in `list`, with the reason, and
    /// keeps nobody else from running. `source`: where `config` came from, for it may change.
    pub fn start(
        config: Config,
        source: ConfigSource,
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
            checks_owner: true,
        };
        let (router, data, tables) = (Arc::<Router>::default(), Arc::new(data), Tables::default());
        let (schedule, orders) = mpsc::unbounded_channel();
        let (told, outcomes) = mpsc::unbounded_channel();
        let parts = Parts {
            machine: machine.clone(),
            router: router.clone(),
            status: status.clone(),
            log: log.clone(),
            tables: tables.clone(),
            orphans: Orphans::new(data.spools()),
            data: data.clone(),
            schedule,
        };
        let fleet = Fleet::new(loader, parts, told);
        let mut agent =
            Self { config, source, machine, router, status, log, tables, fleet, data, orders, outcomes };
        let mut news = Vec::new();
        agent.survey(Unsettled::default(), false, true).run(|found| news.push(found));
        let mut first = Reload::default();
        for found in news {
            agent.take(found, &mut first);
        }
        agent.fleet.find_orphans();
        agent.status.set_loaded();
        crate::memory::give_back();
        Ok(agent)
    }

    /// Every plugin's state and figures, as they are whenever it is asked.
    pub fn status(&self) -> AgentStatus {
        self.status.clone()
    }

    fn survey(&self, unsettled: Unsettled, reads_config: bool, is_start: bool) -> Survey {
        Survey {
            loader: self.fleet.loader.clone(),
            source: self.source.clone(),
            config: self.config.clone(),
            known: self.fleet.known.clone(),
            refused: self.fleet.refused(),
            owners: self.fleet.owners.clone(),
            unsettled,
            reads_config,
            is_start,
        }
    }

    /// Runs until SIGTERM or SIGINT, then delivers what is queued within `agent.grace`.
    pub async fn run(mut self) -> anyhow::Result<()> {
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

        let loader = &self.fleet.loader;
        let scheduler = Scheduler::new(&loader.info.id, self.router.clone(), loader.clock.clone());
        let (_, none) = mpsc::unbounded_channel();
        let orders = std::mem::replace(&mut self.orders, none);
        let scheduling = AbortOnDrop(tokio::spawn(scheduler.run(orders)));
        let (collectors, handlers) = self.fleet.counts();
        info!(
            version = env!("CARGO_PKG_VERSION"),
            collectors,
            handlers,
            data_dir = %self.data.path().display(),
            "kimberlite runs"
        );

        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut upkeep = self.upkeep();
        let mut watch = Watch::new(&self.config.agent, self.fleet.loader.clock.clone());
        watch.set(&self.config.agent, self.watched());
        let mut reload = Reload::default();
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                Some(request) = requests.recv() => self.obey(request, &mut reload, &watch),
                Some(news) = next(&mut reload.news) => {
                    if self.take(news, &mut reload) {
                        watch.set(&self.config.agent, self.watched());
                        upkeep.set_interval(self.reports());
                        self.end_reload(&mut reload, &watch);
                    }
                }
                Some(outcome) = self.outcomes.recv() => self.fleet.settle(outcome),
                () = upkeep.wait() => {
                    upkeep.work();
                    self.fleet.bury_orphans();
                }
                _ = hangup.recv() => self.reload(&mut reload, &watch, Asked::ByHand(None)),
                () = watch.changed() => self.reload(&mut reload, &watch, Asked::ByChange),
            }
        }
        info!(grace = ?self.config.agent.grace, "stopping: delivering what is queued");
        let deadline = tokio::time::Instant::now() + self.config.agent.grace;
        drop(scheduling);
        self.fleet.drain(deadline).await;
        crate::plugin::drain_stdout(Duration::from_secs(1));
        Ok(())
    }

    /// Looks at everything anew, or once more when the present look is over.
    fn reload(&self, reload: &mut Reload, watch: &Watch, asked: Asked) {
        if reload.news.is_some() {
            reload.next.push(asked);
            return;
        }
        let is_by_hand = matches!(asked, Asked::ByHand(_));
        if let Asked::ByHand(reply) = asked {
            reload.replies.extend(reply);
        }
        let (tell, news) = mpsc::unbounded_channel();
        reload.news = Some(news);
        let unsettled = watch.unsettled();
        // Who asks for it has saved it.
        let reads_config = is_by_hand || !unsettled.iter().any(|path| self.source.has(path));
        let survey = self.survey(unsettled, reads_config, false);
        // One ordinary thread: what runs must not feel that something is compiled.
        tokio::task::spawn_blocking(move || {
            // Nobody listens any more when the agent ends.
            survey.run(|found| drop(tell.send(found)));
        });
    }

    /// True: that was all.
    fn take(&mut self, news: News, reload: &mut Reload) -> bool {
        match news {
            News::Config(config) => {
                self.status.set_reloaded(Ok(()));
                self.adopt(*config);
            }
            News::Fault(faults) => {
                let text = faults.to_string();
                self.status.set_reloaded(Err(&text));
                error!("the config has a fault and changes nothing: {text}");
                reload.fault = Some(text);
            }
            News::Change(name, change) => self.fleet.apply(&name, *change, &mut reload.sums),
            News::Files { owners, idle } => {
                self.fleet.owners = owners;
                self.fleet.set_idle(idle);
                return true;
            }
        }
        false
    }

    fn end_reload(&self, reload: &mut Reload, watch: &Watch) {
        let Reload { replies, sums, fault, next, .. } = std::mem::take(reload);
        let answer = match fault {
            None => Ok(format!("reloaded: {sums}")),
            Some(fault) => Err(format!("the config has a fault and changes nothing:\n{fault}")),
        };
        if sums != Sums::default() {
            info!(%sums, "config and plugins are reloaded");
        }
        for reply in replies {
            // Whoever asked may have gone.
            drop(reply.send(answer.clone()));
        }
        // One more look is enough for all who have asked meanwhile.
        let by_hand = next.iter().any(|asked| matches!(asked, Asked::ByHand(_)));
        let any = !next.is_empty();
        let replies = next.into_iter().filter_map(|asked| match asked {
            Asked::ByHand(reply) => reply,
            Asked::ByChange => None,
        });
        reload.replies = replies.collect();
        if any {
            self.reload(reload, watch, if by_hand { Asked::ByHand(None) } else { Asked::ByChange });
        }
    }

    /// What `[agent]` says holds from now on, as far as that can be.
    fn adopt(&mut self, config: Config) {
        let (old, new) = (&self.config.agent, &config.agent);
        let fixed = fixed_keys(old, new);
        if !fixed.is_empty() {
            warn!(keys = fixed.join(", "), "these keys of `[agent]` count from the next start on");
        }
        if old != new {
            self.machine.set_base((*own_element(&config).facts()).clone());
        }
        self.fleet.loader.agent = config.agent.clone();
        self.fleet.set_levels();
        self.config = config;
    }

    /// All that has to be watched.
    fn watched(&self) -> Paths {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let mut paths = Paths::default();
        paths.directories.extend(self.config.agent.plugin_dirs.iter().map(absolute));
        for path in self.source.paths().iter().map(absolute) {
            if path.extension().is_some_and(|extension| extension == "toml") {
                paths.files.insert(path);
            } else {
                paths.directories.insert(path);
            }
        }
        paths.files.extend(self.source.files().iter().map(absolute));
        paths.files.extend(reload::named_files(&self.config).iter().map(absolute));
        paths
    }

    fn reports(&self) -> Option<Duration> {
        self.config.agent.self_metrics.then_some(self.config.agent.interval)
    }

    fn upkeep(&self) -> Upkeep {
        let own = self.machine.element().clone();
        Upkeep::new(
            self.reports(),
            SeriesTable::new(own, SeriesConfig::default(), self.router.routes()),
            self.status.clone(),
            self.router.clone(),
            self.fleet.loader.clock.clone(),
            self.log.clone(),
        )
    }

    fn last_samples(&self) -> LastSamples {
        let tables = self.tables.clone();
        Arc::new(move |most| Fleet::last_samples(&tables, most))
    }

    /// Passes an order on. A plugin may be busy until its deadline, and the agent waits for nobody.
    fn obey(&mut self, request: AdminRequest, reload: &mut Reload, watch: &Watch) {
        let AdminRequest { command, reply } = request;
        match command {
            AdminCommand::Reload => self.reload(reload, watch, Asked::ByHand(Some(reply))),
            AdminCommand::Release(name) if self.fleet.approve(&name) => {
                self.reload(reload, watch, Asked::ByHand(Some(reply)));
            }
            AdminCommand::Release(name) => match (self.fleet.collector(&name), self.fleet.handler(&name)) {
                (Some(collector), _) => {
                    let done = format!("collector `{name}` may run at its next slot");
                    forward(collector, collector::Command::Release, reply, done);
                }
                (None, Some(handler)) => {
                    forward(handler, delivery::Command::Release, reply, format!("handler `{name}` may run"));
                }
                (None, None) => refuse(reply, self.unknown(&name)),
            },
            AdminCommand::Resume(name) => match self.fleet.handler(&name) {
                Some(handler) => {
                    let done = format!("handler `{name}` delivers again");
                    forward(handler, delivery::Command::Resume, reply, done);
                }
                None if self.fleet.collector(&name).is_some() => refuse(
                    reply,
                    format!(
                        "`{name}` is a collector, and only handlers are halted; \
                         `kimberlite release {name}` ends a quarantine"
                    ),
                ),
                None => refuse(reply, self.unknown(&name)),
            },
            AdminCommand::Retry(name, number) => match self.fleet.handler(&name) {
                Some(handler) => {
                    let done = format!("{name}/{number} goes back to its handler");
                    forward(handler, delivery::Command::Retry(number), reply, done);
                }
                None => refuse(reply, self.unknown(&name)),
            },
        }
    }

    fn unknown(&self, name: &str) -> String {
        format!("no plugin `{name}` runs; these do: {}", self.fleet.names().join(", "))
    }
}

type Reply = oneshot::Sender<Result<String, String>>;

/// Tells a plugin's task, and then whoever asked.
fn forward<C: Send + 'static>(commands: &mpsc::Sender<C>, command: C, reply: Reply, done: String) {
    let commands = commands.clone();
    tokio::spawn(async move {
        let sent = commands.send(command).await;
        // Whoever asked may have gone.
        drop(reply.send(sent.map(|()| done).map_err(|_| "the plugin has ended".to_owned())));
    });
}

fn refuse(reply: Reply, why: String) {
    drop(reply.send(Err(why)));
}

/// Of a survey that goes on; nothing ever, where none does.
async fn next(news: &mut Option<mpsc::UnboundedReceiver<News>>) -> Option<News> {
    match news {
        Some(news) => news.recv().await,
        None => std::future::pending().await,
    }
}

/// What was changed and cannot be changed while the agent runs.
fn fixed_keys(old: &AgentConfig, new: &AgentConfig) -> Vec<&'static str> {
    let keys = [
        ("name", old.name != new.name),
        ("data_dir", old.data_dir != new.data_dir),
        ("proc", old.proc != new.proc),
        ("sys", old.sys != new.sys),
        ("root", old.root != new.root),
        ("proxy", old.proxy != new.proxy),
        ("listen", old.listen != new.listen),
        ("epoch_tick", old.epoch_tick != new.epoch_tick),
    ];
    keys.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key).collect()
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

async fn never(work: impl Future<Output = std::convert::Infallible>) {
    match work.await {}
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
