//! From a table of the configuration to a plugin that can be started: find the component, check
//! and compile it, resolve its settings, weigh its grants, and lay out what outlasts its instances.
//!
//! ```text
//! plugin = … ──find──▶ bytes ──engine──▶ Plugin ─┐
//! settings ──resolve──▶ Setting…                  ├─▶ Prepared
//! grant ∩ what its manifest asks ──▶ Grants ──────┘
//! ```
//!
//! Uses: `config`, `plugin`, `capability`, `bundled`. Every fault names the table it is about.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tracing::level_filters::LevelFilter;

use crate::bundled;
use crate::clock::Clock;
use crate::config::manifest::{Manifest, PluginKind};
use crate::config::settings::{Setting, SystemSecrets, resolve};
use crate::config::{AgentConfig, Fault, Faults, LogLevel, Place, PluginConfig, PluginSource};
use crate::halt::SettingsSource;
use crate::host_stats::{Family, HostStats, Sources, Views};
use crate::plugin::http::HttpAccess;
use crate::plugin::{AgentInfo, Context, Engine, GuestLog, Plugin, Roots};
use crate::secrets::Secrets;
use crate::state::StateStore;

/// A larger file is not read.
const LARGEST: u64 = 64 << 20;

/// What all plugins of one agent share.
pub struct Loader {
    pub engine: Engine,
    pub agent: AgentConfig,
    pub info: AgentInfo,
    pub clock: Arc<dyn Clock>,
    pub stats: Arc<Mutex<HostStats>>,
    pub secrets: Secrets,
    /// Where plugins' state is kept; none: in memory only.
    pub state_dir: Option<PathBuf>,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("info", &self.info).finish_non_exhaustive()
    }
}

/// A component and where it came from.
#[derive(Debug)]
pub struct Found {
    pub wasm: Cow<'static, [u8]>,
    /// The name of a component without a manifest.
    pub stem: String,
    /// `bundled`, or the file's path.
    pub origin: String,
}

/// A plugin with everything it needs.
#[derive(Debug)]
pub struct Prepared {
    pub plugin: Plugin,
    pub origin: String,
    pub settings: Vec<Setting>,
    pub context: Arc<Context>,
    /// Grants that nothing asks for, as TOML; worth a warning.
    pub unasked: Option<String>,
}

/// Figures of this machine, or of wherever the config says its files are.
pub fn machine_stats(agent: &AgentConfig) -> Arc<Mutex<HostStats>> {
    Arc::new(Mutex::new(HostStats::new(Sources {
        proc: agent.proc.clone(),
        sys: agent.sys.clone(),
        root: agent.root.clone(),
        recorded: false,
    })))
}

/// Looks for the component that a table names: among the bundled ones, then in the directories.
pub fn find(source: &PluginSource, plugin_dirs: &[PathBuf]) -> Result<Found, String> {
    let name = match source {
        PluginSource::File(path) => return read(path),
        PluginSource::Named(name) => name,
    };
    if let Some(bundled) = bundled::find(name) {
        return Ok(Found {
            wasm: Cow::Borrowed(bundled.wasm),
            stem: name.clone(),
            origin: "bundled".to_owned(),
        });
    }
    for dir in plugin_dirs {
        let path = dir.join(format!("{name}.wasm"));
        if path.exists() {
            return read(&path);
        }
    }
    let bundled: Vec<&str> = bundled::BUNDLED.iter().map(|bundled| bundled.name).collect();
    let dirs: Vec<String> = plugin_dirs.iter().map(|dir| format!("`{}`", dir.display())).collect();
    Err(format!(
        "there is no plugin `{name}`: bundled are {}; no `{name}.wasm` in {}",
        bundled.join(", "),
        if dirs.is_empty() { "any plugin directory".to_owned() } else { dirs.join(", ") }
    ))
}

/// Reads a component from a file. Errors name it.
pub fn read(path: &Path) -> Result<Found, String> {
    let named = |error: &dyn std::fmt::Display| format!("cannot read plugin `{}`: {error}", path.display());
    let meta = std::fs::metadata(path).map_err(|error| named(&error))?;
    if !meta.is_file() {
        return Err(named(&"it is not a file"));
    }
    if meta.len() > LARGEST {
        return Err(named(&format!("it has {} bytes, at most {LARGEST} are read", meta.len())));
    }
    let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let wasm = std::fs::read(path).map_err(|error| named(&error))?;
    Ok(Found { wasm: Cow::Owned(wasm), stem, origin: path.display().to_string() })
}

impl Loader {
    /// Loads the component of a table, and nothing more.
    pub fn load(&self, source: &PluginSource) -> Result<(Plugin, String), String> {
        let found = find(source, &self.agent.plugin_dirs)?;
        match self.engine.load(&found.wasm, &found.stem) {
            Ok(plugin) => Ok((plugin, found.origin)),
            Err(why) if found.origin == "bundled" => Err(format!("bundled plugin `{}` {why}", found.stem)),
            Err(why) => Err(format!("plugin `{}` {why}", found.origin)),
        }
    }

    /// Everything up to the first instance. `kind` and `name` are the table's.
    pub fn prepare(&self, kind: PluginKind, name: &str, table: &PluginConfig) -> Result<Prepared, Faults> {
        let fault = |text: String| Faults::from(Fault::new(text).at(&table.place));
        let (plugin, origin) = self.load(&table.source).map_err(fault)?;
        if plugin.exports.kind != kind {
            let message =
                format!("`{name}` is configured as a {kind}, but `{origin}` is a {}", plugin.exports.kind);
            let hint = format!("put it under `[{}s.{name}]`", plugin.exports.kind);
            return Err(Fault::new(message).at(&table.place).hint(hint).into());
        }
        self.check_memory(&plugin.manifest, kind, name, table)?;
        let settings = resolve(&plugin.manifest, &table.settings, &table.place, &SystemSecrets)?;
        settings.iter().filter_map(Setting::secret).for_each(|text| self.secrets.add(text));
        let asks = plugin.manifest.asks(&settings).map_err(|faults| faults.at(&table.place))?;
        let grants = table.grants(kind, name, &asks, &self.agent)?;
        let unasked = grants.unasked();
        let unasked = (table.grant.is_some() && !unasked.is_empty()).then(|| unasked.to_string());
        let context = self.context(name, table, grants).map_err(fault)?;
        Ok(Prepared { plugin, origin, settings, context: Arc::new(context), unasked })
    }

    /// Where a table's settings are asked for again.
    pub fn settings_source(&self, manifest: &Manifest, table: &PluginConfig) -> SettingsSource {
        SettingsSource::new(
            manifest.clone(),
            table.settings.clone(),
            table.place.clone(),
            self.secrets.clone(),
        )
    }

    fn check_memory(
        &self,
        manifest: &Manifest,
        kind: PluginKind,
        name: &str,
        table: &PluginConfig,
    ) -> Result<(), Faults> {
        let Some(least) = manifest.memory.filter(|least| *least > table.limits.memory as u64) else {
            return Ok(());
        };
        let show = |bytes: u64| bytesize::ByteSize(bytes).to_string();
        let message = format!(
            "{kind} `{name}` needs at least {}, its limit is {}",
            show(least),
            show(table.limits.memory as u64)
        );
        let hint = format!("add `limits = {{ memory = \"{}\" }}`", show(least));
        Err(Fault::new(message).at(&table.place).hint(hint).into())
    }

    fn context(
        &self,
        name: &str,
        table: &PluginConfig,
        grants: crate::capability::Grants,
    ) -> Result<Context, String> {
        let mut views = Views::default();
        views.keep(Family::ALL.into_iter().filter(|family| grants.previous(family.as_str())));
        let state = match &self.state_dir {
            Some(dir) if grants.state() => {
                StateStore::open(dir.join(format!("{name}.json")), table.limits.state)?
            }
            _ => StateStore::new(table.limits.state),
        };
        let level = tracing_level(table.log_level.unwrap_or(self.agent.log_level));
        Ok(Context {
            name: name.to_owned(),
            grants,
            limits: table.limits.clone(),
            agent: self.info.clone(),
            clock: self.clock.clone(),
            stats: self.stats.clone(),
            views: Mutex::new(views),
            state: Mutex::new(state),
            log: Arc::new(GuestLog::new(name, level, table.limits.log_lines)),
            tls: table.tls.clone(),
            http: HttpAccess::new(self.agent.proxy.clone()),
            roots: Roots {
                proc: self.agent.proc.clone(),
                sys: self.agent.sys.clone(),
                root: self.agent.root.clone(),
            },
        })
    }
}

/// A level of the config as the log's.
pub fn level_filter(level: LogLevel) -> LevelFilter {
    LevelFilter::from_level(tracing_level(level))
}

fn tracing_level(level: LogLevel) -> tracing::Level {
    match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    }
}

/// A fault about no file in particular: a flag, or what a person typed.
pub fn typed_place(text: &str) -> Place {
    Place { file: Path::new(text).into(), line: 0, table: String::new() }
}
