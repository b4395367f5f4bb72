//! What the tables of collectors and handlers have in common.
//!
//! Uses: `reader`, `settings`, `limits`; `capability` for what is granted.

use std::path::PathBuf;
use std::time::Duration;

use super::agent::{AgentConfig, LogLevel};
use super::fault::{Fault, Faults, Place, nearest};
use super::limits::Limits;
use super::manifest::PluginKind;
use super::reader::{Reader, wrong};
use super::settings::{Settings, given};
use super::tree::{Node, Value};
use crate::capability::{Ask, Capability, GrantConfig, Grants, Missing, Target};
use crate::sample::Tag;

/// One plugin table, without what only collectors or only handlers have.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConfig {
    pub enabled: bool,
    pub source: PluginSource,
    /// Of the component, in lower-case hexadecimal; another one is not run.
    pub sha256: Option<String>,
    pub settings: Settings,
    /// None: the table has no `grant`, which for a collector means `agent.default_grants`.
    pub grant: Option<GrantConfig>,
    /// Which metrics pass; empty: all.
    pub metrics: Vec<String>,
    /// Which of them do not.
    pub except: Vec<String>,
    pub limits: Limits,
    pub tls: TlsConfig,
    /// None: the agent's.
    pub log_level: Option<LogLevel>,
    /// Where the table stands. Nothing of it counts for equality.
    pub place: Place,
}

/// Which program a table runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginSource {
    /// The one of this name: bundled, or dropped into a plugin directory.
    Named(String),
    File(PathBuf),
}

/// `tls = { … }`: PEM files. With none, the system's roots are trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsConfig {
    /// Trusted instead of the system's roots.
    pub ca: Option<PathBuf>,
    /// The client's certificate chain; goes with `key`.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl PluginConfig {
    /// A table that says nothing.
    pub fn new(source: PluginSource, limits: Limits, place: Place) -> Self {
        Self {
            enabled: true,
            source,
            sha256: None,
            settings: Settings::default(),
            grant: None,
            metrics: Vec::new(),
            except: Vec::new(),
            limits,
            tls: TlsConfig::default(),
            log_level: None,
            place,
        }
    }

    /// What the plugin holds of what its manifest asks. `kind` and `name` are for the faults, which
    /// name each missing grant and the line that gives it. Only collectors have default grants.
    pub fn grants(
        &self,
        kind: PluginKind,
        name: &str,
        asks: &[Ask],
        agent: &AgentConfig,
    ) -> Result<Grants, Faults> {
        let none = GrantConfig::default();
        let defaults = if kind == PluginKind::Collector { &agent.default_grants } else { &none };
        Grants::new(asks, self.grant.as_ref(), defaults).map_err(|missing| {
            let fault = |missing: &Missing| {
                Fault::new(format!("{kind} `{name}` {missing}")).at(&self.place).hint(missing.hint())
            };
            Faults::new(missing.iter().map(fault).collect())
        })
    }

    /// Reads the keys that both kinds have, over the defaults in `limits`. A call may take at most
    /// `interval`, if there is one.
    pub(super) fn read(
        name: &str,
        limits: Limits,
        interval: Option<Duration>,
        table: &mut Reader<'_>,
    ) -> Self {
        let mut plugin = Self::new(PluginSource::Named(name.to_owned()), limits, table.place().clone());
        table.set("enabled", &mut plugin.enabled);
        if let Some(source) = source(table) {
            plugin.source = source;
        }
        plugin.sha256 = sha256(table);
        plugin.settings = table.table("settings", given).unwrap_or_default();
        plugin.grant = table.table("grant", grant);
        table.table("match", |filter| {
            filter.set("metrics", &mut plugin.metrics);
            filter.set("except", &mut plugin.except);
        });
        table.table("limits", |limits| plugin.limits.read(limits, interval));
        plugin.tls = table.table("tls", tls).unwrap_or_default();
        plugin.log_level = LogLevel::read(table);
        plugin
    }
}

/// `plugin = "cpu"` or `plugin = { file = "cpu.wasm" }`.
fn source(table: &mut Reader<'_>) -> Option<PluginSource> {
    let node = table.node("plugin")?;
    match &node.value {
        Value::Table(_) => {
            let read = |table: &mut Reader<'_>| {
                if !table.has("file") {
                    table.fault(
                        "file",
                        "`plugin` names no file",
                        Some("`plugin = { file = \"name.wasm\" }`"),
                    );
                }
                table.path("file")
            };
            table.within("plugin", node, read).flatten().map(PluginSource::File)
        }
        Value::Text(name) => Some(PluginSource::Named(name.clone())),
        _ => {
            table.report(wrong("plugin", "a plugin's name or `{ file = \"name.wasm\" }`", &node));
            None
        }
    }
}

fn sha256(table: &mut Reader<'_>) -> Option<String> {
    let text: String = table.take("sha256")?;
    let text = text.to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(text);
    }
    table.fault(
        "sha256",
        "`sha256` must have 64 hexadecimal digits",
        Some("`kimberlite inspect FILE` prints it"),
    );
    None
}

/// `grant = { tcp = ["host:port"], state = true }`.
fn grant(table: &mut Reader<'_>) -> GrantConfig {
    let mut granted = GrantConfig::default();
    for (name, node) in table.rest() {
        match Capability::parse(&name) {
            Some(capability) => granted.add(capability, targets(capability, &node, table)),
            None => {
                let hint = nearest(&name, Capability::ALL.map(Capability::as_str));
                table.report(
                    Fault::new(format!("there is no capability `{name}`")).at(&node.place).hint(hint),
                );
            }
        }
    }
    if let Some((first, second)) = granted.clash() {
        let place = table.place().clone();
        let fault = Fault::new(format!("`{first}` and `{second}` would have the same name"));
        table.report(fault.at(&place).hint(format!("name one of them: `OTHER={second}`")));
    }
    granted
}

fn targets(capability: Capability, node: &Node, table: &mut Reader<'_>) -> Vec<Target> {
    match (&node.value, capability.whole()) {
        (Value::Boolean(true), Some(whole)) => whole,
        (Value::Boolean(false), _) => Vec::new(),
        (Value::List(items), _) => {
            let mut targets = Vec::new();
            for item in items {
                match &item.value {
                    Value::Text(text) => match Target::parse(capability, text) {
                        Ok(target) => targets.push(target),
                        Err(wanted) => {
                            table.report(
                                Fault::new(format!("`{text}` in `{capability}`: {wanted}")).at(&item.place),
                            );
                        }
                    },
                    value if value.is_faulty() => {}
                    _ => table.report(wrong(capability.as_str(), "a list of texts", item)),
                }
            }
            targets
        }
        (_, whole) => {
            let wanted = match capability {
                Capability::State | Capability::Stdout => "`true` or `false`",
                _ if whole.is_some() => "a list of texts or `true`",
                _ => "a list of texts",
            };
            table.report(wrong(capability.as_str(), wanted, node));
            Vec::new()
        }
    }
}

fn tls(table: &mut Reader<'_>) -> TlsConfig {
    let tls = TlsConfig { ca: table.path("ca"), cert: table.path("cert"), key: table.path("key") };
    if tls.cert.is_some() != tls.key.is_some() {
        table.fault("cert", "`tls.cert` and `tls.key` go together: one of them is missing", None);
    }
    tls
}

/// A table of names and texts.
pub(super) fn tags(table: &mut Reader<'_>, key: &'static str) -> Vec<Tag> {
    let read = |table: &mut Reader<'_>| {
        let mut tags = Vec::new();
        for (name, node) in table.rest() {
            if name.is_empty() {
                table.report(Fault::new("a tag without a name").at(&node.place));
            }
            if let Some(value) = table.convert(&name, &node) {
                tags.push(Tag { name, value });
            }
        }
        tags
    };
    table.table(key, read).unwrap_or_default()
}
