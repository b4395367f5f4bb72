//! `kimberlite inspect`: what a .wasm file is, asks for and calls.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::table::{size, table};
use super::{Ended, Session, cache_dir, print};
use crate::component_file::{self, FileRules};
use crate::config::settings::SettingValue;
use crate::plugin::{Engine, Plugin};
use crate::{paste, trust};

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// The component; a bundled plugin's name works, too.
    file: PathBuf,
}

impl Inspect {
    pub(super) fn run(self, session: &Session) -> Result<(), Ended> {
        let config = session.config()?;
        let bundled = self.file.to_str().and_then(crate::bundled::find).filter(|_| !self.file.exists());
        let (wasm, stem, origin, signer) = match bundled {
            Some(bundled) => {
                let signer = "part of this agent".to_owned();
                (bundled.wasm.into(), bundled.name.to_owned(), "bundled".to_owned(), signer)
            }
            None => {
                let origin = self.file.display().to_string();
                // Whoever looks at a file does not run it.
                let rules = FileRules { trusted_keys: Vec::new(), ..FileRules::new(&config.agent, false) };
                let found = component_file::read(&self.file, &rules)
                    .map_err(|why| Ended::Io(format!("plugin `{origin}` {why}")))?;
                let stem = self.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let signer = signer(&self.file, &found.bytes, &config.agent.trusted_keys);
                (Cow::Owned(found.bytes), stem, origin, signer)
            }
        };
        let engine = Engine::new(cache_dir(&config), config.agent.epoch_tick)
            .map_err(|error| Ended::Software(format!("{error:#}")))?;
        let plugin = engine
            .load(&wasm, &stem)
            .map_err(|why| Ended::Config(format!("{} {why}", self.file.display())))?;
        print(&if session.is_json() {
            as_json(&plugin, &origin, &signer)
        } else {
            as_text(&plugin, &origin, &signer)
        });
        Ok(())
    }
}

/// Who has signed it, in words.
fn signer(file: &Path, bytes: &[u8], keys: &[String]) -> String {
    match std::fs::read_to_string(trust::signature_of(file)) {
        Err(_) => "not signed".to_owned(),
        Ok(_) if keys.is_empty() => "signed; without `agent.trusted_keys` nobody is trusted".to_owned(),
        Ok(text) => match trust::signer(bytes, &text, keys) {
            Ok(signer) => format!("{} ({})", signer.key, signer.comment),
            Err(why) => why,
        },
    }
}

fn as_json(plugin: &Plugin, origin: &str, signer: &str) -> String {
    let manifest = &plugin.manifest;
    let settings: serde_json::Map<_, _> = manifest
        .settings
        .iter()
        .map(|(key, spec)| {
            let about = json!({
                "type": spec.kind.as_str(), "required": spec.required,
                "default": spec.default.as_ref().map(shown), "help": spec.help,
            });
            (key.clone(), about)
        })
        .collect();
    let capabilities: serde_json::Map<_, _> = manifest
        .capabilities
        .iter()
        .map(|ask| (ask.capability.to_string(), json!({ "ask": ask.ask, "reason": ask.reason })))
        .collect();
    let about = json!({
        "name": manifest.name, "kind": manifest.kind.as_str(), "version": manifest.version,
        "description": manifest.description, "origin": origin,
        "interface": format!("kimberlite:plugin@{}", plugin.exports.version),
        "diagnostics": plugin.exports.diagnostics, "manifest": !manifest.is_bare,
        "memory": manifest.memory, "capabilities": capabilities, "settings": settings,
        "imports": plugin.imports, "bytes": plugin.size, "sha256": plugin.sha256, "signer": signer,
        "config": paste::table(manifest, &manifest.name, None),
    });
    format!("{about}\n")
}

fn as_text(plugin: &Plugin, origin: &str, signer: &str) -> String {
    let manifest = &plugin.manifest;
    let mut out = format!("{} {} {}\n", manifest.kind, manifest.name, manifest.version);
    if !manifest.description.is_empty() {
        out += &format!("  {}\n", manifest.description);
    }
    let mut rows = vec![
        vec!["  origin".to_owned(), origin.to_owned()],
        vec![
            "  interface".to_owned(),
            format!("kimberlite:plugin/{}@{}", manifest.kind, plugin.exports.version),
        ],
        vec!["  size".to_owned(), size(plugin.size as u64)],
        vec!["  sha256".to_owned(), plugin.sha256.clone()],
        vec!["  signer".to_owned(), signer.to_owned()],
    ];
    if manifest.is_bare {
        rows.push(vec!["  manifest".to_owned(), "none: asks for nothing, default limits apply".to_owned()]);
    }
    if let Some(memory) = manifest.memory {
        rows.push(vec!["  memory".to_owned(), format!("at least {}", size(memory))]);
    }
    if !plugin.exports.diagnostics {
        rows.push(vec!["  diagnostics".to_owned(), "none: watched by its linear memory alone".to_owned()]);
    }
    out += table(&["", ""], &rows).trim_start_matches('\n');
    if !manifest.capabilities.is_empty() {
        out += "\nasks for\n";
        let rows: Vec<Vec<String>> = manifest
            .capabilities
            .iter()
            .map(|ask| vec![format!("  {}", ask.capability), ask.ask.join(", "), ask.reason.clone()])
            .collect();
        out += table(&["", "", ""], &rows).trim_start_matches('\n');
    }
    if !manifest.settings.is_empty() {
        out += "\nsettings\n";
        let rows: Vec<Vec<String>> = manifest
            .settings
            .iter()
            .map(|(key, spec)| {
                let default = match (&spec.default, spec.required) {
                    (Some(value), _) => shown(value),
                    (None, true) => "required".to_owned(),
                    (None, false) => "-".to_owned(),
                };
                vec![format!("  {key}"), spec.kind.as_str().to_owned(), default, spec.help.clone()]
            })
            .collect();
        out += table(&["", "", "", ""], &rows).trim_start_matches('\n');
    }
    out += "\nto run it\n";
    for line in paste::table(manifest, &manifest.name, None).lines() {
        out += &format!("  {line}\n");
    }
    out += "\ncalls\n";
    for import in &plugin.imports {
        out += &format!("  {import}\n");
    }
    out
}

fn shown(value: &SettingValue) -> String {
    match value {
        SettingValue::Text(text) => text.clone(),
        SettingValue::Whole(number) => number.to_string(),
        SettingValue::Number(number) => number.to_string(),
        SettingValue::Boolean(value) => value.to_string(),
        SettingValue::Texts(texts) => texts.join(", "),
    }
}
