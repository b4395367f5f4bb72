//! A plugin's manifest: `plugin.toml`, embedded in its `.wasm`.
//!
//! Uses: `reader`, `settings`; `capability` for what is asked.

mod ask;
mod spec;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginKind {
    /// It measures.
    #[default]
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
        f.pad(self.as_str())
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
    /// asks nothing; one that is a list asks for each item. Faults have no place yet: they lie in the
    /// settings (see [`Faults::at`]).
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::{Capability, Target};
    use crate::config::settings::SettingValue;

    const UPTIME: &str = r#"
name = "uptime"
kind = "collector"
version = "0.1.0"
description = "How long the machine has been up"
memory = "2MiB"
[capabilities.read]
ask = ["/proc/uptime"]
reason = "the kernel's own figure"
[capabilities.host-stats]
ask = ["cpu", "disk"]
previous = ["cpu"]
reason = "rates"
[capabilities.state]
reason = "to count boots"
[settings.percore]
type = "boolean"
default = true
help = "Each core, too"
"#;

    const GRAPHITE: &str = r#"
name = "graphite"
kind = "handler"
version = "0.1.0"
[capabilities.tcp]
ask = ["{host}:{port}"]
reason = "to deliver"
when = { proto = "tcp" }
[capabilities.udp]
ask = ["{host}:{port}"]
reason = "to deliver"
when = { proto = "udp" }
[capabilities.http]
ask = ["{urls}", "https://fixed.example.com"]
reason = "to look things up"
[settings]
host = { type = "text", required = true, example = "10.0.0.7" }
port = { type = "whole", default = 2003 }
proto = { type = "text", default = "tcp", choices = ["tcp", "udp"] }
urls = { type = "texts" }
key = { type = "secret" }
[batch]
by = "element"
samples = 500
bytes = "64KiB"
"#;

    fn settings(values: &[(&str, SettingValue)]) -> Vec<Setting> {
        let setting = |(key, value): &(&str, SettingValue)| Setting {
            key: (*key).to_owned(),
            value: value.clone(),
            secret: false,
        };
        values.iter().map(setting).collect()
    }

    fn text(text: &str) -> SettingValue {
        SettingValue::Text(text.to_owned())
    }

    fn asked(values: &[(&str, SettingValue)]) -> Vec<String> {
        let asks = Manifest::parse(GRAPHITE).unwrap().asks(&settings(values)).unwrap();
        let line = |ask: &Ask| {
            let targets: Vec<String> = ask.targets.iter().map(Target::to_string).collect();
            format!("{} {}", ask.capability, targets.join(" "))
        };
        asks.iter().map(line).collect()
    }

    #[test]
    fn a_manifest_says_what_a_plugin_is_and_asks() {
        let manifest = Manifest::parse(UPTIME).unwrap();
        assert_eq!((manifest.name.as_str(), manifest.kind), ("uptime", PluginKind::Collector));
        assert_eq!(manifest.memory, Some(2 << 20));
        assert_eq!(manifest.settings["percore"].default, Some(SettingValue::Boolean(true)));
        let asks = manifest.asks(&[]).unwrap();
        assert_eq!(asks.len(), 3);
        assert_eq!(asks[1].previous, [Target::Family("cpu")]);
        assert_eq!(asks[2].capability, Capability::State);

        let handler = Manifest::parse(GRAPHITE).unwrap();
        assert_eq!(
            handler.batch,
            BatchRule { by: BatchBy::Element, samples: 500, bytes: 64 << 10, wait: Duration::ZERO }
        );
    }

    #[test]
    fn placeholders_are_filled_from_the_settings() {
        let base = [("host", text("h")), ("port", SettingValue::Whole(1)), ("proto", text("tcp"))];
        assert_eq!(asked(&base), ["tcp h:1", "http https://fixed.example.com"]);

        let urls = SettingValue::Texts(vec!["http://a/x".to_owned(), "http://b".to_owned()]);
        let other =
            [("host", text("::1")), ("port", SettingValue::Whole(1)), ("proto", text("udp")), ("urls", urls)];
        assert_eq!(
            asked(&other),
            ["udp [::1]:1", "http http://a:80 http://b https://fixed.example.com"]
                .map(|line| line.replace(":80", ""))
        );
    }

    #[test]
    fn folder_of_a_file_that_a_setting_names_is_asked() {
        let archive = r#"
name = "archive"
kind = "handler"
version = "1"
settings.log_file = { type = "text" }
capabilities.write = { ask = ["{log_file/..}"], reason = "to rotate" }
"#;
        let asks =
            Manifest::parse(archive).unwrap().asks(&settings(&[("log_file", text("/var/log/k/a.log"))]));
        assert_eq!(asks.unwrap()[0].targets[0].to_string(), "/var/log/k");
    }

    #[test]
    fn a_value_that_looks_like_a_placeholder_stays_a_value() {
        let settings =
            settings(&[("host", text("{host}")), ("port", SettingValue::Whole(1)), ("proto", text("tcp"))]);
        let faults = Manifest::parse(GRAPHITE).unwrap().asks(&settings).unwrap_err().to_string();
        assert_eq!(
            faults,
            "error: handler `graphite`: its settings make no `tcp` address of `{host}:{port}`: expected `host:port`"
        );
    }

    #[test]
    fn manifests_expand_no_variables() {
        let text = UPTIME.replace("Each core, too", "${HOME}");
        assert_eq!(Manifest::parse(&text).unwrap().settings["percore"].help, "${HOME}");
    }

    #[test]
    fn each_bad_manifest_says_why() {
        let head = "name = \"x\"\nkind = \"handler\"\nversion = \"1\"\n";
        for (text, fault) in [
            (
                "capability = {}",
                "unknown key `capability`\n  plugin.toml:4  [capability]\n  hint: did you mean `capabilities`?",
            ),
            (
                "[capabilities.raed]\nask = []",
                "there is no capability `raed`\n  plugin.toml:4  [capabilities.raed]\n  hint: did you mean `read`?",
            ),
            (
                "[capabilities.read]\nask = [\"etc\"]\nreason = \"r\"",
                "`etc` in `ask`: expected an absolute path",
            ),
            ("[capabilities.read]\nreason = \"r\"", "`[capabilities.read]` asks nothing"),
            ("[capabilities.state]", "`[capabilities.state]` gives no `reason`"),
            ("[capabilities.state]\nreason = \"r\"\nask = [\"x\"]", "`ask` must be `true` or `false`"),
            (
                "[capabilities.tcp]\nask = [\"{hots}:1\"]\nreason = \"r\"\n[settings.host]\ntype = \"text\"",
                "`{hots}` in `ask` is no setting\n  plugin.toml:5  [capabilities.tcp]\n  hint: did you mean `host`?",
            ),
            (
                "[capabilities.http]\nask = [\"https://h/{key}\"]\nreason = \"r\"\n[settings.key]\ntype = \"secret\"",
                "`{key}` in `ask` is a secret",
            ),
            (
                "[capabilities.host-stats]\nask = [\"cpu\"]\nprevious = [\"disk\"]\nreason = \"r\"",
                "`disk` in `previous` is not in `ask`",
            ),
            (
                "[capabilities.host-stats]\nask = [\"cpus\"]\nreason = \"r\"",
                "`cpus` in `ask`: expected one of cpu, ",
            ),
            ("[settings.a]\ntype = \"txt\"", "`type` must be one of `text`, "),
            ("[settings.a]\nhelp = \"h\"", "setting `a` has no `type`"),
            (
                "[settings.a]\ntype = \"text\"\nrequired = true",
                "setting `a` is required and has no `example`",
            ),
            (
                "[settings.a]\ntype = \"whole\"\ndefault = \"1\"",
                "`default` must be a whole number, not `\"1\"`\n  plugin.toml:6",
            ),
            (
                "[settings.a]\ntype = \"text\"\ndefault = \"x\"\nchoices = [\"y\"]",
                "`default` is none of its `choices`",
            ),
            ("[settings.a]\ntype = \"whole\"\nchoices = [\"y\"]", "only a text has `choices`"),
            ("[settings.a]\ntype = \"secret\"\ndefault = \"y\"", "a secret has no `default`"),
            ("[settings.a.env]\ntype = \"text\"", "no setting may be called `a.env`"),
            ("[batch]\nby = \"metric\"", "`by` must be one of `any`, `element`"),
            ("[batch]\nsamples = 0", "`samples` must be more than 0"),
            ("memory = \"lots\"", "`memory` must be a size"),
            ("name = ", "not valid TOML"),
        ] {
            let faults = Manifest::parse(&format!("{head}{text}")).unwrap_err().to_string();
            assert!(faults.contains(fault), "{text}: {faults}");
        }
        let faults = Manifest::parse("kind = \"collector\"\n[batch]").unwrap_err().to_string();
        assert!(faults.contains("no `name`") && faults.contains("no `version`"), "{faults}");
        assert!(faults.contains("only handlers have a `[batch]`"), "{faults}");
    }
}
