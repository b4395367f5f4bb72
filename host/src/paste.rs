//! The lines of config that let a plugin run, ready to paste.
//!
//! Uses: `config`, `capability`.

use std::path::{Path, PathBuf};

use crate::capability::GrantConfig;
use crate::config::Config;
use crate::config::manifest::Manifest;
use crate::config::settings::{SecretSource, resolve};

/// Secrets are not there yet when somebody reads what to do.
struct Nowhere;

impl SecretSource for Nowhere {
    fn file(&self, _: &Path) -> std::io::Result<String> {
        Ok("secret".to_owned())
    }

    fn env(&self, _: &str) -> Option<String> {
        Some("secret".to_owned())
    }
}

/// A table of this name that gives the plugin all it asks for. Required settings have the
/// manifest's examples. `file`: where the component lies, if its name alone does not lead there.
pub fn table(manifest: &Manifest, name: &str, file: Option<&Path>) -> String {
    let key = match name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        true => name.to_owned(),
        false => toml::Value::from(name).to_string(),
    };
    let mut text = format!("[{}s.{key}]\n", manifest.kind);
    if let Some(file) = file {
        text += &format!("plugin = {{ file = {} }}\n", toml::Value::from(file.display().to_string()));
    }
    let required = manifest.settings.iter().filter_map(|(key, spec)| {
        let example = spec.example.as_ref().filter(|_| spec.required)?;
        Some(format!("{key} = {example}"))
    });
    let required: Vec<String> = required.collect();
    if !required.is_empty() {
        text += &format!("settings = {{ {} }}\n", required.join(", "));
    }
    if let Some(grant) = grants(manifest, name, &text) {
        text += &format!("{grant}\n");
    }
    text
}

/// What it asks for with the settings of this table; none: nothing.
fn grants(manifest: &Manifest, name: &str, table: &str) -> Option<GrantConfig> {
    let config = Config::parse(&[(PathBuf::from("(example)"), table.to_owned())], &|_| None).ok()?;
    let collector = config.collectors.get(name).map(|table| &table.plugin);
    let table = collector.or(config.handlers.get(name).map(|table| &table.plugin))?;
    let settings = resolve(manifest, &table.settings, &table.place, &Nowhere).ok()?;
    let mut grants = GrantConfig::default();
    for ask in manifest.asks(&settings).ok()? {
        grants.add(ask.capability, ask.targets);
    }
    (grants != GrantConfig::default()).then_some(grants)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pasted(manifest: &str) -> String {
        table(&Manifest::parse(manifest).unwrap(), "x", None)
    }

    #[test]
    fn a_collector_gets_what_it_asks_for() {
        let manifest = "name = \"x\"\nkind = \"collector\"\nversion = \"1.0.0\"\n\
                        [capabilities.read]\nask = [\"/proc/uptime\"]\nreason = \"r\"\n";
        assert_eq!(pasted(manifest), "[collectors.x]\ngrant = { read = [\"/proc/uptime\"] }\n");
    }

    #[test]
    fn a_handler_gets_its_examples_and_what_follows_from_them() {
        let manifest = "name = \"x\"\nkind = \"handler\"\nversion = \"1.0.0\"\n\
                        [settings.url]\ntype = \"text\"\nrequired = true\nexample = \"https://h/in\"\nhelp = \"h\"\n\
                        [capabilities.http]\nask = [\"{url}\"]\nreason = \"r\"\n";
        assert_eq!(
            pasted(manifest),
            "[handlers.x]\nsettings = { url = \"https://h/in\" }\ngrant = { http = [\"https://h\"] }\n"
        );
    }

    #[test]
    fn one_that_asks_nothing_gets_its_name() {
        let manifest = Manifest::bare("odd name", crate::config::manifest::PluginKind::Collector);
        let file = Path::new("/p/odd name.wasm");
        assert_eq!(
            table(&manifest, "odd name", Some(file)),
            "[collectors.\"odd name\"]\nplugin = { file = \"/p/odd name.wasm\" }\n"
        );
    }
}
