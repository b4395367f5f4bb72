//! From a table of the configuration to a plugin that can be started: find the component, check
//! and compile it, resolve its settings, weigh its grants, and lay out what outlasts its instances.
//!
//! ```text
//! plugin = … ──locate──▶ Located ──load──▶ Plugin ─┐
//! settings ──resolve──▶ Setting…                    ├─fit─▶ Prepared
//! grant ∩ what its manifest asks ──▶ Grants ────────┘
//! ```
//!
//! Uses: `config`, `plugin`, `capability`, `bundled`, `catalog`. Every fault names the table it is
//! about.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tracing::level_filters::LevelFilter;

use crate::bundled::{self, Bundled};
use crate::capability::Grants;
use crate::catalog::{Candidate, Catalog, Owners, UNSETTLED, Verdict};
use crate::clock::Clock;
use crate::component_file::{self, FileRules};
use crate::config::manifest::{Manifest, PluginKind};
use crate::config::settings::{Setting, SystemSecrets, resolve};
use crate::config::{AgentConfig, Fault, Faults, LogLevel, Place, PluginConfig, PluginSource};
use crate::halt::SettingsSource;
use crate::host_stats::{Family, HostStats, Sources, Views};
use crate::plugin::http::HttpAccess;
use crate::plugin::{AgentInfo, Context, Engine, GuestLog, Plugin, Roots};
use crate::secrets::Secrets;
use crate::settling::Unsettled;
use crate::state::StateStore;

/// What all plugins of one agent share.
#[derive(Clone)]
pub struct Loader {
    pub engine: Engine,
    pub agent: AgentConfig,
    pub info: AgentInfo,
    pub clock: Arc<dyn Clock>,
    pub stats: Arc<Mutex<HostStats>>,
    pub secrets: Secrets,
    /// Where plugins' state is kept; none: in memory only.
    pub state_dir: Option<PathBuf>,
    /// Whether files that others can change are refused.
    pub checks_owner: bool,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Where the component of a table is.
#[derive(Debug, Clone)]
pub enum Located {
    Bundled(&'static Bundled),
    /// As it was when it was looked at.
    File {
        path: PathBuf,
        sha256: String,
    },
    /// It changes still.
    Unsettled(PathBuf),
    /// A sentence that names the file.
    Refused {
        path: PathBuf,
        why: String,
    },
    /// A sentence.
    Missing(String),
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

/// Why a plugin cannot be run by a table.
#[derive(Debug)]
pub enum Unfit {
    /// What the table says is wrong.
    Table(Faults),
    /// It asks for more than is granted.
    Grants(Faults),
}

impl Unfit {
    pub fn faults(self) -> Faults {
        match self {
            Self::Table(faults) | Self::Grants(faults) => faults,
        }
    }
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

/// Where a file of a plugin directory is, and whether it is any good.
pub fn located(candidate: &Candidate) -> Located {
    let path = candidate.path.clone();
    match &candidate.found {
        Verdict::Whole { sha256, .. } => Located::File { path, sha256: sha256.clone() },
        Verdict::Unsettled => Located::Unsettled(path),
        Verdict::Refused(why) => Located::Refused { why: about(&path, why), path },
    }
}

/// `plugin `X` …`: a sentence about a file.
fn about(path: &Path, why: &str) -> String {
    format!("plugin `{}` {why}", path.display())
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

impl Loader {
    pub fn rules(&self) -> FileRules {
        FileRules::new(&self.agent, self.checks_owner)
    }

    /// What lies in the plugin directories.
    pub fn catalog(&self, before: &Owners, unsettled: &Unsettled) -> Catalog {
        Catalog::scan(&self.agent.plugin_dirs, &self.rules(), self.agent.follow_links, before, unsettled)
    }

    /// The component that a table names: among the bundled ones, then in the directories; or its file.
    pub fn locate(&self, source: &PluginSource, catalog: &Catalog, unsettled: &Unsettled) -> Located {
        match source {
            PluginSource::File(path) if unsettled.has(path) => Located::Unsettled(path.clone()),
            PluginSource::File(path) => match component_file::read(path, &self.rules()) {
                Ok(file) => Located::File { path: path.clone(), sha256: file.sha256 },
                Err(why) => Located::Refused { path: path.clone(), why: about(path, &why) },
            },
            PluginSource::Named(name) => {
                if let Some(bundled) = bundled::find(name) {
                    return Located::Bundled(bundled);
                }
                match catalog.owner(name) {
                    Some(candidate) => located(candidate),
                    None => self.missing(name, catalog),
                }
            }
        }
    }

    /// A file of that name may be there and be no good.
    fn missing(&self, name: &str, catalog: &Catalog) -> Located {
        if let Some(candidate) = catalog.candidates.iter().find(|candidate| stem(&candidate.path) == name) {
            return match &candidate.found {
                Verdict::Whole { name: other, .. } => Located::Missing(format!(
                    "there is no plugin `{name}`: `{}` is called `{other}` in its manifest",
                    candidate.path.display()
                )),
                _ => located(candidate),
            };
        }
        let bundled: Vec<&str> = bundled::BUNDLED.iter().map(|bundled| bundled.name).collect();
        let dirs: Vec<String> =
            self.agent.plugin_dirs.iter().map(|dir| format!("`{}`", dir.display())).collect();
        Located::Missing(format!(
            "there is no plugin `{name}`: bundled are {}; no `{name}.wasm` in {}",
            bundled.join(", "),
            if dirs.is_empty() { "any plugin directory".to_owned() } else { dirs.join(", ") }
        ))
    }

    /// Reads what was located. None: it has changed since.
    pub fn read(&self, located: &Located) -> Result<Option<Found>, String> {
        match located {
            Located::Bundled(bundled) => Ok(Some(Found {
                wasm: Cow::Borrowed(bundled.wasm),
                stem: bundled.name.to_owned(),
                origin: "bundled".to_owned(),
            })),
            Located::File { path, sha256 } => {
                let file = component_file::read(path, &self.rules()).map_err(|why| about(path, &why))?;
                let found = Found {
                    wasm: Cow::Owned(file.bytes),
                    stem: stem(path),
                    origin: path.display().to_string(),
                };
                Ok((file.sha256 == *sha256).then_some(found))
            }
            Located::Unsettled(path) => Err(about(path, UNSETTLED)),
            Located::Refused { why, .. } | Located::Missing(why) => Err(why.clone()),
        }
    }

    /// Checks and compiles what was located. None: it has changed since.
    pub fn load(&self, located: &Located) -> Result<Option<(Plugin, String)>, String> {
        self.read(located)?.map(|found| self.compile(found)).transpose()
    }

    fn compile(&self, found: Found) -> Result<(Plugin, String), String> {
        match self.engine.load(&found.wasm, &found.stem) {
            Ok(plugin) => Ok((plugin, found.origin)),
            Err(why) if found.origin == "bundled" => Err(format!("bundled plugin `{}` {why}", found.stem)),
            Err(why) => Err(format!("plugin `{}` {why}", found.origin)),
        }
    }

    /// Locates and reads the component that a table names.
    pub fn find(&self, source: &PluginSource) -> Result<Found, String> {
        let unsettled = Unsettled::default();
        let located = self.locate(source, &self.catalog(&Owners::new(), &unsettled), &unsettled);
        self.read(&located)?.ok_or_else(|| "the plugin's file changes while it is read: try again".to_owned())
    }

    /// Everything up to the first instance. `kind` and `name` are the table's.
    pub fn prepare(&self, kind: PluginKind, name: &str, table: &PluginConfig) -> Result<Prepared, Faults> {
        let fault = |text: String| Faults::from(Fault::new(text).at(&table.place));
        let found = self.find(&table.source).map_err(fault)?;
        let (plugin, origin) = self.compile(found).map_err(fault)?;
        self.fit(kind, name, table, plugin, origin).map_err(Unfit::faults)
    }

    /// The settings and grants of a plugin as a table has them now.
    pub fn terms(
        &self,
        kind: PluginKind,
        name: &str,
        table: &PluginConfig,
        manifest: &Manifest,
    ) -> Result<(Vec<Setting>, Grants), Unfit> {
        let settings =
            resolve(manifest, &table.settings, &table.place, &SystemSecrets).map_err(Unfit::Table)?;
        settings.iter().filter_map(Setting::secret).for_each(|text| self.secrets.add(text));
        let asks = manifest.asks(&settings).map_err(|faults| Unfit::Table(faults.at(&table.place)))?;
        let grants = table.grants(kind, name, &asks, &self.agent).map_err(Unfit::Grants)?;
        Ok((settings, grants))
    }

    /// What a table makes of a plugin.
    pub fn fit(
        &self,
        kind: PluginKind,
        name: &str,
        table: &PluginConfig,
        plugin: Plugin,
        origin: String,
    ) -> Result<Prepared, Unfit> {
        let fault = |text: String| Unfit::Table(Fault::new(text).at(&table.place).into());
        if plugin.exports.kind != kind {
            let message =
                format!("`{name}` is configured as a {kind}, but `{origin}` is a {}", plugin.exports.kind);
            let hint = format!("put it under `[{}s.{name}]`", plugin.exports.kind);
            return Err(Unfit::Table(Fault::new(message).at(&table.place).hint(hint).into()));
        }
        if let Some(pin) = table.sha256.as_ref().filter(|pin| **pin != plugin.sha256) {
            return Err(fault(format!(
                "`{origin}` has sha256 {}, but the table of `{name}` wants {pin}",
                plugin.sha256
            )));
        }
        self.check_memory(&plugin.manifest, kind, name, table).map_err(Unfit::Table)?;
        let (settings, grants) = self.terms(kind, name, table, &plugin.manifest)?;
        let unasked = grants.unasked();
        let unasked = (table.grant.is_some() && !unasked.is_empty()).then(|| unasked.to_string());
        let context = Arc::new(self.context(name, table, grants).map_err(fault)?);
        Ok(Prepared { plugin, origin, settings, context, unasked })
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

    /// Of what a plugin says.
    pub fn level(&self, table: &PluginConfig) -> tracing::Level {
        tracing_level(table.log_level.unwrap_or(self.agent.log_level))
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

    fn context(&self, name: &str, table: &PluginConfig, grants: Grants) -> Result<Context, String> {
        let mut views = Views::default();
        views.keep(Family::ALL.into_iter().filter(|family| grants.previous(family.as_str())));
        let state = match &self.state_dir {
            Some(dir) if grants.state() => {
                StateStore::open(dir.join(format!("{name}.json")), table.limits.state)?
            }
            _ => StateStore::new(table.limits.state),
        };
        Ok(Context {
            name: name.to_owned(),
            grants,
            limits: table.limits.clone(),
            agent: self.info.clone(),
            clock: self.clock.clone(),
            stats: self.stats.clone(),
            views: Mutex::new(views),
            state: Arc::new(Mutex::new(state)),
            log: Arc::new(GuestLog::new(name, self.level(table), table.limits.log_lines)),
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
