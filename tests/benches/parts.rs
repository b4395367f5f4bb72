//! The agent's parts without its process: a config, the plugins it names, and a clock of one's choice.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kimberlite::backlog::Backlog;
use kimberlite::clock::Clock;
use kimberlite::config::Config;
use kimberlite::config::manifest::PluginKind;
use kimberlite::delivery::Delivery;
use kimberlite::delivery_policy::DeliveryPolicy;
use kimberlite::keeper::Keeper;
use kimberlite::loader::{Loader, Prepared, machine_stats};
use kimberlite::plugin::{AgentInfo, Engine};
use kimberlite::queue::Queue;
use kimberlite::sample::Element;
use kimberlite::secrets::Secrets;
use kimberlite::status::{AgentStatus, PluginHandle};
use kimberlite::{agent, fleet};
use kimberlite_tests::TempDir;
use tokio::runtime::{Builder, Runtime};

/// A config and what is needed to start its plugins.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) loader: Loader,
    pub(crate) status: AgentStatus,
    pub(crate) own: Arc<Element>,
}

impl Parts {
    /// `config` are the plugins' tables.
    pub(crate) fn new(config: &str, clock: Arc<dyn Clock>) -> Self {
        let dir = TempDir::new();
        let file =
            dir.write("kimberlite.toml", format!("[agent]\nname = \"web-1\"\nplugin_dirs = []\n\n{config}"));
        let config =
            Config::load(&[PathBuf::from(file)], None, &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
        let own = agent::own_element(&config);
        let secrets = Secrets::default();
        let info =
            AgentInfo { version: "0.0.0".to_owned(), id: "bench".to_owned(), name: "web-1".to_owned() };
        let status = AgentStatus::new("bench", "web-1", clock.wall_ms(), secrets.clone());
        let loader = Loader {
            engine: Engine::new(None, config.agent.epoch_tick).unwrap(),
            agent: config.agent.clone(),
            info,
            stats: machine_stats(&config.agent),
            secrets,
            clock,
            state_dir: None,
            checks_owner: false,
        };
        Self { config, loader, status, own }
    }

    /// Everything up to the first instance of a collector.
    pub(crate) fn collector(&self, name: &str) -> Prepared {
        let table = &self.config.collectors[name].plugin;
        self.loader.prepare(PluginKind::Collector, name, table).unwrap_or_else(|faults| panic!("{faults}"))
    }

    /// What empties a queue into a handler; it has no spool.
    pub(crate) fn delivery(&self, name: &str, queue: &Arc<Queue>) -> Delivery {
        let table = &self.config.handlers[name];
        let prepared = self
            .loader
            .prepare(PluginKind::Handler, name, &table.plugin)
            .unwrap_or_else(|faults| panic!("{faults}"));
        let form = fleet::batch_form(table, &prepared.plugin.manifest);
        let keeper = fleet::keeper(&table.plugin, prepared, self.handle(name, PluginKind::Handler));
        let policy = DeliveryPolicy::new(fleet::retry_config(table));
        let clock = self.loader.clock.clone();
        let backlog = Backlog::new(queue.clone(), table.queue.clone(), Duration::ZERO, None, clock);
        Delivery::new(keeper, backlog, form, policy)
    }

    pub(crate) fn handle(&self, name: &str, kind: PluginKind) -> PluginHandle {
        self.status.plugin(name, kind)
    }

    /// What keeps a collector alive; nothing is started yet.
    pub(crate) fn keeper(&self, name: &str) -> Keeper {
        let table = &self.config.collectors[name].plugin;
        fleet::keeper(table, self.collector(name), self.handle(name, PluginKind::Collector))
    }
}

/// As the agent's: one thread for everything.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}
