//! `kimberlite.toml` as types: found, read, checked, defaults filled in.
//!
//! ```text
//! files ──tree──▶ lines and variables ──merge──▶ one tree ──reader──▶ Config, or every fault in it
//! ```
//!
//! A config file is wholly understood or not used. `[agent]`, `[collectors.NAME]` and
//! `[handlers.NAME]` may stand in any of the files; no key of `[agent]` and no plugin's table may
//! stand in two. A relative path starts at the directory of the file that names it.
//!
//! Uses: `capability`, `sample`.

mod agent;
mod collector;
mod expand;
mod fault;
mod handler;
mod limits;
pub mod manifest;
mod plugin;
mod reader;
pub mod settings;
mod source;
mod tree;

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

pub use agent::{AgentConfig, LogLevel, Watch};
pub use collector::{CollectorConfig, Counters};
pub use expand::Env;
pub use fault::{Fault, Faults, Place};
pub use handler::{BatchConfig, HandlerConfig, Order, QueueConfig, RetryConfig};
pub use limits::Limits;
pub use plugin::{PluginConfig, PluginSource, TlsConfig};
use reader::Reader;
pub use source::ConfigSource;
use tree::{Node, Value};

/// What runs where there is no config.
const EMBEDDED: &str = include_str!("../../config/minimal.toml");

/// Added to it where the environment has a key.
const EMBEDDED_METRICLY: &str = include_str!("../../config/metricly.toml");

/// All of the configuration. Two are equal if they mean the same, wherever it is written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    pub agent: AgentConfig,
    /// In the order of the files.
    pub collectors: IndexMap<String, CollectorConfig>,
    /// In the order of the files.
    pub handlers: IndexMap<String, HandlerConfig>,
}

impl Config {
    /// The files that make the configuration: `main`, then `*.toml` of `directory` in name order;
    /// without a `directory`, of `conf.d` beside each main file, where there is one.
    pub fn files(main: &[PathBuf], directory: Option<&Path>) -> Result<Vec<PathBuf>, Faults> {
        let mut files = main.to_vec();
        if let Some(directory) = directory {
            files.extend(fragments(directory).map_err(|error| unreadable(directory, &error))?);
            return Ok(files);
        }
        let mut seen = Vec::new();
        for file in main {
            let directory = reader::beside(file, "conf.d");
            if seen.contains(&directory) {
                continue;
            }
            match fragments(&directory) {
                Ok(found) => files.extend(found),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable(&directory, &error).into()),
            }
            seen.push(directory);
        }
        Ok(files)
    }

    /// Finds (see [`Config::files`]), reads and checks the configuration.
    pub fn load(main: &[PathBuf], directory: Option<&Path>, env: Env<'_>) -> Result<Self, Faults> {
        Self::read_files(Vec::new(), Self::files(main, directory)?, env)
    }

    /// `texts` stand before the files.
    fn read_files(
        mut texts: Vec<(PathBuf, String)>,
        files: Vec<PathBuf>,
        env: Env<'_>,
    ) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        for file in files {
            match std::fs::read_to_string(&file) {
                Ok(text) => texts.push((file, text)),
                Err(error) => faults.push(unreadable(&file, &error)),
            }
        }
        let parsed = Self::parse(&texts, env);
        faults.extend(parsed.as_ref().err().into_iter().flat_map(Faults::iter).cloned());
        if faults.is_empty() { parsed } else { Err(Faults::new(faults)) }
    }

    /// Checks the configuration in these files' texts. Reports everything that is wrong with it, in
    /// the order of files and lines.
    pub fn parse(files: &[(PathBuf, String)], env: Env<'_>) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let trees: Vec<Node> =
            files.iter().filter_map(|(file, text)| tree::parse(file, text, Some(env), &mut faults)).collect();
        let entries = tree::merge(trees, &mut faults);
        let main = files.first().map_or(Path::new(""), |(file, _)| file);
        let tree = Node { value: Value::Table(entries), place: Place::file(main) };
        let config = Reader::read(tree, &mut faults, Self::read).unwrap_or_default();
        faults.sort_by_key(|fault| {
            let place = fault.place.as_ref()?;
            Some((files.iter().position(|(file, _)| **file == *place.file), place.line))
        });
        Faults::none_or(faults, config)
    }

    /// What runs where there is no main file: the seven collectors of a machine, printed, and
    /// delivered to Metricly if `METRICLY_API_KEY` is set (to `METRICLY_URL`, if that is); besides,
    /// what these files say.
    pub fn embedded(files: Vec<PathBuf>, env: Env<'_>) -> Result<Self, Faults> {
        let mut texts = vec![(PathBuf::from("(built in)"), EMBEDDED.to_owned())];
        if env("METRICLY_API_KEY").is_some_and(|key| !key.is_empty()) {
            texts.push((PathBuf::from("(built in, metricly)"), EMBEDDED_METRICLY.to_owned()));
        }
        Self::read_files(texts, files, env)
    }

    fn read(table: &mut Reader<'_>) -> Self {
        let mut config = Self::default();
        if let Some(agent) = table.table("agent", AgentConfig::read) {
            config.agent = agent;
        }
        table.table("collectors", |collectors| {
            collectors.each(|name, table| {
                check_name(name, table);
                let collector = CollectorConfig::read(name, &config.agent, table);
                config.collectors.insert(name.to_owned(), collector);
            });
        });
        table.table("handlers", |handlers| {
            handlers.each(|name, table| {
                check_name(name, table);
                if let Some(first) = config.collectors.get(name) {
                    let place = &first.plugin.place;
                    let message = format!(
                        "`{name}` names a handler here and a collector in {}:{}",
                        place.file.display(),
                        place.line
                    );
                    let hint = format!("call one of them something else, with `plugin = \"{name}\"`");
                    table.fault_here(message, Some(&hint));
                }
                config.handlers.insert(name.to_owned(), HandlerConfig::read(name, table));
            });
        });
        config
    }
}

/// The config files of a directory, in name order. Hidden ones are an editor's.
fn fragments(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.extension().is_some_and(|extension| extension == "toml") && !is_hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn unreadable(file: &Path, error: &std::io::Error) -> Fault {
    Fault::new(format!("cannot read the config: {error}")).at(&Place::file(file))
}

/// What is wrong with a plugin's name, if anything. It becomes a part of file names and lines.
pub(crate) fn name_fault(name: &str) -> Option<String> {
    let wrong = if name.is_empty() {
        "is empty"
    } else if name.len() > 128 {
        "is longer than 128 bytes"
    } else if name.contains('/') || name == "." || name == ".." {
        "would not do as a file's name"
    } else if name.chars().any(char::is_control) {
        "holds a control character"
    } else {
        return None;
    };
    Some(format!("the name {name:?} {wrong}"))
}

fn check_name(name: &str, table: &mut Reader<'_>) {
    if let Some(fault) = name_fault(name) {
        table.fault_here(fault, Some("`plugin = \"…\"` says which program a table of another name runs"));
    }
}

#[cfg(test)]
mod tests;
