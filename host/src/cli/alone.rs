//! What `collect` and `send` share: one plugin, from the config's table of that name, a bundled
//! one or a file, with what the flags add.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use clap::Args;

use super::{Ended, Session, cache_dir};
use crate::clock::Clock;
use crate::config::manifest::Manifest;
use crate::config::settings::flag;
use crate::config::{Config, Fault, Faults, PluginConfig, PluginSource};
use crate::host_stats::HostStats;
use crate::loader::Loader;
use crate::machine;
use crate::plugin::{AgentInfo, Engine, section};

/// Which plugin, and how.
#[derive(Debug, Args)]
pub(super) struct Alone {
    /// A table of the config, a bundled plugin, or a .wasm file.
    plugin: String,
    /// A setting, as its type asks; lists with commas. Over those of the config.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// A capability, beside those that the config grants: `read=/proc/uptime`, `tcp=localhost:2003`.
    #[arg(long = "grant", value_name = "CAPABILITY=VALUE")]
    grants: Vec<String>,
}

impl Alone {
    /// The name it goes by.
    pub(super) fn name(&self) -> String {
        let path = Path::new(&self.plugin);
        if self.is_file() {
            path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
        } else {
            self.plugin.clone()
        }
    }

    fn is_file(&self) -> bool {
        self.plugin.ends_with(".wasm") || self.plugin.contains('/')
    }

    pub(super) fn source(&self) -> PluginSource {
        if self.is_file() {
            PluginSource::File(PathBuf::from(&self.plugin))
        } else {
            PluginSource::Named(self.plugin.clone())
        }
    }

    /// Adds what the flags say to a table.
    pub(super) fn adjust(
        &self,
        table: &mut PluginConfig,
        config: &Config,
        is_collector: bool,
        loader: &Loader,
    ) -> Result<(), Ended> {
        // Flags are read as the manifest's types ask; a broken component is reported when loaded.
        let found = loader.find(&table.source).map_err(Ended::Config)?;
        let manifest = section::read(&found.wasm).ok().flatten().and_then(|text| Manifest::parse(&text).ok());
        let manifest = manifest
            .unwrap_or_else(|| Manifest::bare(&found.stem, crate::config::manifest::PluginKind::Collector));
        for text in &self.settings {
            let (key, given) =
                flag(&manifest, text).map_err(|fault: Fault| Ended::Config(fault.to_string()))?;
            table.settings.insert(key, given);
        }
        if !self.grants.is_empty() {
            let default = if is_collector { config.agent.default_grants.clone() } else { Default::default() };
            let mut grant = table.grant.take().unwrap_or(default);
            for text in &self.grants {
                grant.add_flag(text).map_err(Ended::Config)?;
            }
            table.grant = Some(grant);
        }
        Ok(())
    }
}

/// A person at a terminal grants by a flag rather than in a file.
pub(super) fn refused(faults: Faults) -> Ended {
    let mut text = faults.to_string();
    if text.contains("does not grant") {
        text +=
            "\n  or, for this run: `--grant CAPABILITY=VALUE` for each, as in `--grant read=/proc/uptime`";
    }
    Ended::Config(text)
}

/// A loader without an agent: nothing is locked, state is kept in memory.
pub(super) fn loader(
    session: &Session,
    config: &Config,
    clock: Arc<dyn Clock>,
    stats: Arc<Mutex<HostStats>>,
) -> Result<Loader, Ended> {
    let engine = Engine::new(cache_dir(config), config.agent.epoch_tick)
        .map_err(|error| Ended::Software(format!("{error:#}")))?;
    let name = config.agent.name.clone().unwrap_or_else(machine::host_name);
    Ok(Loader {
        engine,
        agent: config.agent.clone(),
        info: AgentInfo { version: env!("CARGO_PKG_VERSION").to_owned(), id: "alone".to_owned(), name },
        clock,
        stats,
        secrets: session.secrets.clone(),
        state_dir: None,
        checks_owner: false,
    })
}
