//! What has changed since the agent looked last, and what is to be done about it: from files to a list of
//! changes, each of them ready to be applied. Runs on a thread of its own, since it reads and compiles.
//!
//! ```text
//! config files ─────┐
//! plugin_dirs ──────┼─▶ what is wanted ──compare──▶ Start · Replace · Reconfigure · Remove
//! files of secrets ─┘   what is known ──┘           Park (it cannot run) · Refuse (the old one runs on)
//! ```
//!
//! A config with a fault changes nothing: neither one that cannot be read, nor one with settings that a
//! plugin does not take. A file that is no good concerns nobody but its own plugin.
//!
//! Uses: `config`, `loader`, `catalog`, `upgrade`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::bundled;
use crate::catalog::{Candidate, Catalog, Owners, UNSETTLED, Verdict};
use crate::config::manifest::PluginKind;
use crate::config::settings::{GivenValue, Setting};
use crate::config::{
    CollectorConfig, Config, ConfigSource, Fault, Faults, HandlerConfig, PluginConfig, PluginSource,
};
use crate::loader::{Loader, Located, Prepared, Unfit, located};
use crate::plugin::{Context, Plugin};
use crate::settling::Unsettled;
use crate::{paste, trust, upgrade};

/// A plugin's table.
#[derive(Debug, Clone, PartialEq)]
pub enum Table {
    Collector(CollectorConfig),
    Handler(HandlerConfig),
}

impl Table {
    pub fn kind(&self) -> PluginKind {
        match self {
            Self::Collector(_) => PluginKind::Collector,
            Self::Handler(_) => PluginKind::Handler,
        }
    }

    pub fn plugin(&self) -> &PluginConfig {
        match self {
            Self::Collector(table) => &table.plugin,
            Self::Handler(table) => &table.plugin,
        }
    }
}

/// A plugin as the agent has it.
#[derive(Debug, Clone)]
pub struct Known {
    pub table: Table,
    /// None: it is parked.
    pub runs: Option<Version>,
    /// The code that did not start in this one's place; it is not tried again.
    pub failed: Option<String>,
    /// The code that a person has let in although it asks for more.
    pub approved: Option<String>,
}

/// The program that runs, and on which terms.
#[derive(Debug, Clone)]
pub struct Version {
    pub plugin: Plugin,
    pub origin: String,
    pub settings: Vec<Setting>,
    pub context: Arc<Context>,
}

/// What is to be done about one plugin.
#[derive(Debug)]
pub enum Change {
    /// It does not run, and now can.
    Start(Table, Box<Prepared>),
    /// Its code, settings, grants or limits are others.
    Replace(Table, Box<Prepared>),
    /// Something is other that no instance knows of.
    Reconfigure(Table),
    /// It is wanted and cannot run; if it runs, it is to end.
    Park(Table, String),
    /// What is there cannot take the place of what runs.
    Refuse(Refusal),
    /// What runs is what is wanted, after something else was refused.
    Agree,
    Remove,
}

/// Why what is on disk does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub origin: String,
    /// Empty where that is not known.
    pub sha256: String,
    pub version: String,
    pub why: String,
}

/// Files that run nothing, and why: sentences that begin behind a file's name.
pub type Idle = Vec<(PathBuf, String)>;

/// What a survey finds, as soon as it is found.
#[derive(Debug)]
pub enum News {
    /// The config is good, and in force from now on.
    Config(Box<Config>),
    /// It is not, and changes nothing.
    Fault(Faults),
    Change(String, Box<Change>),
    /// Who owns which name, and why which files run nothing.
    Files {
        owners: Owners,
        idle: Idle,
    },
}

/// What the agent has, to be compared with what there is.
#[derive(Debug)]
pub struct Survey {
    pub loader: Loader,
    pub source: ConfigSource,
    /// In force; at the start: to be.
    pub config: Config,
    pub known: BTreeMap<String, Known>,
    /// Plugins of which something was refused.
    pub refused: BTreeSet<String>,
    pub owners: Owners,
    /// Files that change still.
    pub unsettled: Unsettled,
    /// Whether the config is read, too, or the one in force goes on.
    pub reads_config: bool,
    /// Nothing runs yet, and what cannot run is parked, whatever the reason.
    pub is_start: bool,
}

/// One plugin that shall run.
struct Wanted {
    table: Table,
    located: Located,
    /// It has no table, it only lies there.
    is_dropped_in: bool,
}

/// What is to be done, as far as that is known before everything has been compiled.
struct Plan {
    removed: Vec<String>,
    /// By what the config says.
    changes: Vec<(String, Box<Change>)>,
    /// Only their files may have changed.
    others: Vec<(String, Wanted)>,
    owners: Owners,
    idle: Idle,
}

enum Judged {
    Nothing,
    Change(Box<Change>),
    /// The config is wrong.
    Invalid(Faults),
}

impl Survey {
    /// Looks at everything, and tells what it finds.
    pub fn run(mut self, mut tell: impl FnMut(News)) {
        let config = if self.reads_config { self.source.load_trusted() } else { Ok(self.config.clone()) };
        let planned = config.and_then(|config| {
            self.loader.agent = config.agent.clone();
            self.plan(&config, !self.is_start).map(|plan| (config, plan))
        });
        let plan = match planned {
            Ok((config, plan)) => {
                if self.reads_config {
                    tell(News::Config(Box::new(config)));
                }
                plan
            }
            Err(faults) => {
                tell(News::Fault(faults));
                // Files are followed still, by what is in force.
                self.loader.agent = self.config.agent.clone();
                let Ok(plan) = self.plan(&self.config, false) else { return };
                plan
            }
        };
        for name in plan.removed {
            tell(News::Change(name, Box::new(Change::Remove)));
        }
        for (name, change) in plan.changes {
            tell(News::Change(name, change));
        }
        for (name, wanted) in plan.others {
            if let Judged::Change(change) = self.judge(&name, &wanted, false) {
                tell(News::Change(name, change));
            }
        }
        tell(News::Files { owners: plan.owners, idle: plan.idle });
    }

    /// `is_strict`: a table that is wrong is an error.
    fn plan(&self, config: &Config, is_strict: bool) -> Result<Plan, Faults> {
        let catalog = self.loader.catalog(&self.owners, &self.unsettled);
        let (wanted, idle) = self.wanted(config, &catalog);
        // A collector does not become a handler: one goes, another comes.
        let kinds: BTreeMap<&String, PluginKind> =
            wanted.iter().map(|(name, wanted)| (name, wanted.table.kind())).collect();
        let gone = self.known.iter().filter(|(name, known)| kinds.get(name) != Some(&known.table.kind()));
        let removed = gone.map(|(name, _)| name.clone()).collect();
        let (mut changes, mut others, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        for (name, wanted) in wanted {
            let is_known = self.known.get(&name).is_some_and(|known| known.table == wanted.table);
            if is_known || wanted.is_dropped_in {
                others.push((name, wanted));
                continue;
            }
            match self.judge(&name, &wanted, is_strict) {
                Judged::Nothing => {}
                Judged::Change(change) => changes.push((name, change)),
                Judged::Invalid(found) => faults.extend(found.iter().cloned()),
            }
        }
        let plan = Plan { removed, changes, others, owners: catalog.owners, idle };
        Faults::none_or(faults, plan)
    }

    /// Handlers first, so that nobody's first samples find nobody.
    fn wanted(&self, config: &Config, catalog: &Catalog) -> (Vec<(String, Wanted)>, Idle) {
        let handlers = config.handlers.iter().map(|(name, table)| (name, Table::Handler(table.clone())));
        let collectors =
            config.collectors.iter().map(|(name, table)| (name, Table::Collector(table.clone())));
        let mut wanted = Vec::new();
        let mut used = BTreeSet::new();
        // Many tables may run one file.
        let mut files: BTreeMap<PathBuf, Located> = BTreeMap::new();
        for (name, table) in handlers.chain(collectors) {
            let locate = || self.loader.locate(&table.plugin().source, catalog, &self.unsettled);
            let located = match &table.plugin().source {
                PluginSource::Named(plugin) => {
                    used.insert(plugin.clone());
                    locate()
                }
                PluginSource::File(path) => files.entry(path.clone()).or_insert_with(locate).clone(),
            };
            if table.plugin().enabled {
                wanted.push((name.clone(), Wanted { table, located, is_dropped_in: false }));
            }
        }
        let mut idle = Idle::new();
        for candidate in &catalog.candidates {
            let name = match claimed(candidate, catalog, config) {
                Ok(name) => name,
                Err(why) => {
                    idle.push((candidate.path.clone(), why));
                    continue;
                }
            };
            // Otherwise a table runs it, or switches it off.
            if !used.contains(name) {
                let source = PluginSource::File(candidate.path.clone());
                let table = Table::Collector(CollectorConfig::new(source, &config.agent));
                let located = located(candidate);
                wanted.push((name.clone(), Wanted { table, located, is_dropped_in: true }));
            }
        }
        (wanted, idle)
    }

    fn judge(&self, name: &str, wanted: &Wanted, is_strict: bool) -> Judged {
        let Wanted { table, located, is_dropped_in } = wanted;
        let known = self.known.get(name).filter(|known| known.table.kind() == table.kind());
        let is_unsettled = secrets(table.plugin()).any(|path| self.unsettled.has(path));
        if is_unsettled && known.is_some() {
            return Judged::Nothing;
        }
        let runs = known.and_then(|known| known.runs.as_ref());
        let is_same_table = known.is_some_and(|known| known.table == *table);
        let placed = |why: String| match is_dropped_in {
            true => why,
            false => Faults::from(Fault::new(why).at(&table.plugin().place)).to_string(),
        };
        let park = |why: String| changed(Change::Park(table.clone(), why));
        let pin = table.plugin().sha256.as_ref();
        let (sha256, origin) = match located {
            Located::Missing(why) => return park(placed(why.clone())),
            Located::Unsettled(path) if runs.is_none() => {
                return park(placed(format!("plugin `{}` {UNSETTLED}", path.display())));
            }
            Located::Unsettled(_) => return Judged::Nothing,
            Located::Refused { why, .. } if runs.is_none() => return park(placed(why.clone())),
            Located::Refused { path, why } => return refuse(path.display().to_string(), "", why.clone()),
            Located::Bundled(_) => (None, "bundled".to_owned()),
            Located::File { path, sha256 } => (Some(sha256.as_str()), path.display().to_string()),
        };
        if let (Some(pin), Some(sha256)) = (pin, sha256)
            && pin != sha256
        {
            let why = format!("`{origin}` has sha256 {sha256}, its table wants {pin}");
            return match runs {
                Some(version) if version.plugin.sha256 == *pin => refuse(origin, sha256, why),
                _ => park(placed(why)),
            };
        }
        let is_same_code = |version: &&Version| match sha256 {
            Some(sha256) => version.plugin.sha256 == sha256,
            None => version.origin == "bundled" && version.plugin.manifest.name == bundled_name(located),
        };
        if let Some(version) = runs.filter(is_same_code) {
            return self.on_new_terms(name, table, version, is_same_table, is_strict);
        }
        if is_same_table && known.is_some_and(|known| known.failed.as_deref() == sha256 && sha256.is_some()) {
            return Judged::Nothing;
        }
        let or_refuse = |version: &str, why: String| match runs {
            None => park(why),
            Some(_) => changed(Change::Refuse(Refusal {
                origin: origin.clone(),
                sha256: sha256.unwrap_or_default().to_owned(),
                version: version.to_owned(),
                why,
            })),
        };
        let (plugin, _) = match self.loader.load(located) {
            Ok(Some(loaded)) => loaded,
            // Whoever changes it is noticed.
            Ok(None) => return Judged::Nothing,
            Err(why) => return or_refuse("", placed(why)),
        };
        let (manifest, version) = (plugin.manifest.clone(), plugin.manifest.version.clone());
        let to_paste = || format!("add to the config:\n{}", paste::table(&manifest, name, None));
        if *is_dropped_in && manifest.kind == PluginKind::Handler {
            return or_refuse(&version, format!("a handler needs a table; {}", to_paste()));
        }
        let prepared = match self.loader.fit(table.kind(), name, table.plugin(), plugin, origin.clone()) {
            Ok(prepared) => prepared,
            Err(Unfit::Table(faults)) if is_strict && !is_same_table && !is_dropped_in => {
                return Judged::Invalid(faults);
            }
            Err(Unfit::Grants(faults)) if *is_dropped_in => {
                let asks: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
                return or_refuse(&version, format!("{}; {}", asks.join("; "), to_paste()));
            }
            Err(unfit) => return or_refuse(&version, unfit.faults().to_string()),
        };
        let Some(running) = runs else {
            return changed(Change::Start(table.clone(), Box::new(prepared)));
        };
        let more = upgrade::more(running.context.grants.asked(), prepared.context.grants.asked());
        let is_approved = known.is_some_and(|known| known.approved.as_ref() == Some(&prepared.plugin.sha256));
        if is_same_table && !more.is_empty() && !is_approved {
            return changed(Change::Refuse(Refusal {
                origin,
                sha256: prepared.plugin.sha256,
                version,
                why: format!(
                    "it asks to {}, which the running version does not; `kimberlite release {name}` lets it in",
                    upgrade::describe(&more)
                ),
            }));
        }
        changed(Change::Replace(table.clone(), Box::new(prepared)))
    }

    /// The same code, whose table or secrets may be others.
    fn on_new_terms(
        &self,
        name: &str,
        table: &Table,
        version: &Version,
        is_same_table: bool,
        is_strict: bool,
    ) -> Judged {
        let wrong = |unfit: Unfit| match unfit {
            // Its file may be gone for a moment; what it was told holds.
            Unfit::Table(faults) if is_same_table => refuse(version.origin.clone(), "", faults.to_string()),
            Unfit::Table(faults) if is_strict => Judged::Invalid(faults),
            // What is not granted any more must not go on.
            unfit => changed(Change::Park(table.clone(), unfit.faults().to_string())),
        };
        let (config, context) = (table.plugin(), &version.context);
        let terms = self.loader.terms(table.kind(), name, config, &version.plugin.manifest);
        let (settings, grants) = match terms {
            Ok(terms) => terms,
            Err(unfit) => return wrong(unfit),
        };
        let is_same = settings == version.settings
            && grants.allows_the_same(&context.grants)
            && config.limits == context.limits
            && config.tls == context.tls;
        if is_same {
            return match (is_same_table, self.refused.contains(name)) {
                (false, _) => changed(Change::Reconfigure(table.clone())),
                (true, true) => changed(Change::Agree),
                (true, false) => Judged::Nothing,
            };
        }
        match self.loader.fit(table.kind(), name, config, version.plugin.clone(), version.origin.clone()) {
            Ok(prepared) => changed(Change::Replace(table.clone(), Box::new(prepared))),
            Err(unfit) => wrong(unfit),
        }
    }
}

/// The name under which a file in a plugin directory runs; or why it runs nothing.
fn claimed<'a>(
    candidate: &'a Candidate,
    catalog: &'a Catalog,
    config: &Config,
) -> Result<&'a String, String> {
    let Candidate { path, found } = candidate;
    let owned = catalog.owners.iter().find(|(_, owner)| *owner == path).map(|(name, _)| name);
    let name = match (found, owned) {
        (Verdict::Whole { name, .. }, _) => name,
        (_, Some(name)) => name,
        (Verdict::Refused(why), None) => return Err(why.clone()),
        (Verdict::Unsettled, None) => return Err(UNSETTLED.to_owned()),
    };
    let but = |why: &str, table: &str| {
        Err(format!("{why}, add\n[collectors.{table}]\nplugin = {{ file = \"{}\" }}", path.display()))
    };
    let table = config.collectors.get(name).map(|table| &table.plugin);
    let table = table.or(config.handlers.get(name).map(|table| &table.plugin));
    if owned != Some(name) {
        let owner = catalog.owners.get(name).map_or_else(String::new, |path| path.display().to_string());
        Err(format!("is not run: `{owner}` has the name `{name}` already"))
    } else if bundled::find(name).is_some() {
        but(&format!("is not run: a bundled plugin has the name `{name}`; to run it all the same"), name)
    } else if table.is_some_and(|table| table.source != PluginSource::Named(name.clone())) {
        let why =
            format!("is not run: the config's table `{name}` runs another plugin; to run it beside that");
        but(&why, &format!("{name}-2"))
    } else {
        Ok(name)
    }
}

fn changed(change: Change) -> Judged {
    Judged::Change(Box::new(change))
}

fn refuse(origin: String, sha256: &str, why: String) -> Judged {
    let (sha256, version) = (sha256.to_owned(), String::new());
    changed(Change::Refuse(Refusal { origin, sha256, version, why }))
}

fn bundled_name(located: &Located) -> &str {
    match located {
        Located::Bundled(bundled) => bundled.name,
        _ => "",
    }
}

/// The files of its settings.
fn secrets(table: &PluginConfig) -> impl Iterator<Item = &PathBuf> {
    table.settings.values().filter_map(|given| match &given.value {
        GivenValue::File(path) => Some(path),
        _ => None,
    })
}

/// Every file whose change may change what runs, besides those of the config itself and those in the
/// plugin directories: components that tables name, secrets.
pub fn named_files(config: &Config) -> Vec<PathBuf> {
    let collectors = config.collectors.values().map(|table| &table.plugin);
    let tables = collectors.chain(config.handlers.values().map(|table| &table.plugin));
    let mut files = Vec::new();
    for table in tables {
        if let PluginSource::File(path) = &table.source {
            files.push(path.clone());
            files.push(trust::signature_of(path));
        }
        files.extend(secrets(table).cloned());
    }
    files
}
