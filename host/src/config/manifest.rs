//! A plugin's manifest: `plugin.toml`, embedded in its `.wasm`.
//!
//! Uses: `reader`, `settings`; `capability` for what is asked.

mod ask;
mod spec;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use indexmap::IndexMap;

use super::fault::{Fault, Faults};
use super::name_fault;
use super::reader::Reader;
use super::settings::Setting;
use super::tree;
use crate::capability::Ask;
pub use ask::AskTemplate;
use spec::specs;
pub use spec::{SettingSpec, SettingType};

/// What a plugin says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    pub name: String,
    pub kind: PluginKind,
    /// Empty if there is no manifest.
    pub version: String,
    pub description: String,
    /// The least linear memory it needs, in bytes.
    pub memory: Option<u64>,
    pub capabilities: Vec<AskTemplate>,
    /// By flat key, in the manifest's order.
    pub settings: IndexMap<String, SettingSpec>,
    /// Of handlers.
    pub batch: BatchRule,
    /// There is no manifest: nothing is asked, and settings are passed on as they are given.
    pub is_bare: bool,
}

/// What a plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PluginKind {
    /// It measures.
    Collector,
    /// It delivers.
    Handler,
}

impl PluginKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Collector => "collector",
            Self::Handler => "handler",
        }
    }
}

impl fmt::Display for PluginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How batches for a handler are formed.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRule {
    pub by: BatchBy,
    /// At most.
    pub samples: usize,
    /// At most.
    pub bytes: u64,
    /// How long a batch that is not full waits for more.
    pub wait: Duration,
}

/// What may share a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchBy {
    /// Everything.
    Any,
    /// Samples of one element.
    Element,
}

impl Default for BatchRule {
    fn default() -> Self {
        Self { by: BatchBy::Any, samples: 1000, bytes: 256 << 10, wait: Duration::ZERO }
    }
}

impl Manifest {
    /// Reads an embedded manifest. Faults stand in `plugin.toml`.
    pub fn parse(text: &str) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let manifest = tree::parse(Path::new("plugin.toml"), text, None, &mut faults)
            .and_then(|tree| Reader::read(tree, &mut faults, Self::read));
        faults.sort_by_key(|fault| fault.place.as_ref().map(|place| place.line));
        match manifest {
            Some(manifest) => Faults::none_or(faults, manifest),
            None => Err(Faults::new(faults)),
        }
    }

    /// Of a component that brings none: named for its file, asks nothing.
    pub fn bare(stem: &str, kind: PluginKind) -> Self {
        Self {
            name: stem.to_owned(),
            kind,
            version: String::new(),
            description: String::new(),
            memory: None,
            capabilities: Vec::new(),
            settings: IndexMap::new(),
            batch: BatchRule::default(),
            is_bare: true,
        }
    }

    /// What is asked under these resolved settings. An entry with a placeholder that has no value
    /// asks nothing; one that is a list asks for each item.
    pub fn asks(&self, settings: &[Setting]) -> Result<Vec<Ask>, Faults> {
        let value =
            |key: &str| settings.iter().find(|setting| setting.key == key).map(|setting| &setting.value);
        let mut faults = Vec::new();
        let mut asks = Vec::new();
        for template in &self.capabilities {
            match template.fill(&value) {
                Ok(ask) => asks.extend(ask),
                Err((pattern, wanted)) => faults.push(Fault::new(format!(
                    "{} `{}`: its settings make no `{}` address of `{pattern}`: {wanted}",
                    self.kind, self.name, template.capability
                ))),
            }
        }
        Faults::none_or(faults, asks)
    }

    fn read(table: &mut Reader<'_>) -> Self {
        let kinds = [("collector", PluginKind::Collector), ("handler", PluginKind::Handler)];
        for key in ["name", "kind", "version"] {
            if !table.has(key) {
                table.fault(key, format!("the manifest has no `{key}`"), None);
            }
        }
        let name: String = table.take("name").unwrap_or_default();
        if let Some(fault) = name_fault(&name).filter(|_| !name.is_empty()) {
            table.fault("name", fault, None);
        }
        let kind = table.choice("kind", &kinds).unwrap_or(PluginKind::Collector);
        let mut settings = IndexMap::new();
        table.table("settings", |table| specs("", table, &mut settings));
        let mut capabilities = Vec::new();
        table.table("capabilities", |table| {
            table.each(|name, table| capabilities.extend(AskTemplate::read(name, &settings, table)));
        });
        if kind == PluginKind::Collector && table.has("batch") {
            table.node("batch");
            table.fault("batch", "only handlers have a `[batch]`", None);
        }
        Self {
            name,
            kind,
            version: table.take("version").unwrap_or_default(),
            description: table.take("description").unwrap_or_default(),
            memory: table.some_size("memory"),
            capabilities,
            settings,
            batch: table.table("batch", BatchRule::read).unwrap_or_default(),
            is_bare: false,
        }
    }
}

impl BatchRule {
    fn read(table: &mut Reader<'_>) -> Self {
        let mut batch = Self::default();
        batch.by =
            table.choice("by", &[("any", BatchBy::Any), ("element", BatchBy::Element)]).unwrap_or(batch.by);
        table.count("samples", &mut batch.samples);
        table.size("bytes", &mut batch.bytes);
        table.set("wait", &mut batch.wait);
        batch
    }
}
