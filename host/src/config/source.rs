//! Where the configuration comes from, each time it is read.
//!
//! Uses: `config`.

use std::path::{Path, PathBuf};

use super::{Config, Fault, Faults, Place};
use crate::trust;

/// Read where nobody says otherwise.
const SYSTEM: &str = "/etc/kimberlite/kimberlite.toml";

/// What the command line and the environment say about the config's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigSource {
    /// Empty: the system's, if there is one, else the embedded default.
    pub main: Vec<PathBuf>,
    /// Of the fragments; none: `conf.d` beside each main file.
    pub directory: Option<PathBuf>,
}

impl ConfigSource {
    /// The configuration as it is now.
    pub fn load(&self) -> Result<Config, Faults> {
        let env = |name: &str| std::env::var(name).ok();
        match self.main_files() {
            main if main.is_empty() => Config::embedded(self.find()?, &env),
            main => Config::load(&main, self.directory.as_deref(), &env),
        }
    }

    /// The same, of files that nobody but root and this user can change.
    pub fn load_trusted(&self) -> Result<Config, Faults> {
        let mut faults = Vec::new();
        for file in self.files().iter().filter(|file| file.exists()) {
            if let Err(why) = trust::check_file(file) {
                faults.push(Fault::new(format!("the config {why}")).at(&Place::file(file)));
            }
        }
        if faults.is_empty() { self.load() } else { Err(Faults::new(faults)) }
    }

    /// The `data_dir` that the files name, whatever else is wrong with them.
    pub fn named_data_dir(&self) -> Option<PathBuf> {
        let texts = self.files().into_iter().filter_map(|file| std::fs::read_to_string(file).ok());
        let texts: Vec<String> = texts.collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        let mut named = lines.filter(|line| line.trim_start().starts_with("data_dir"));
        let table: toml::Table = named.find_map(|line| toml::from_str(line).ok())?;
        Some(PathBuf::from(table.get("data_dir")?.as_str()?))
    }

    fn main_files(&self) -> Vec<PathBuf> {
        let system = Path::new(SYSTEM);
        if self.main.is_empty() && system.exists() { vec![system.to_owned()] } else { self.main.clone() }
    }

    /// Every path at which a change is a change of the configuration, whether or not it is there.
    pub fn paths(&self) -> Vec<PathBuf> {
        let mut paths = if self.main.is_empty() { vec![PathBuf::from(SYSTEM)] } else { self.main.clone() };
        let beside = |file: &PathBuf| super::reader::beside(file, "conf.d");
        let directories: Vec<PathBuf> = match &self.directory {
            Some(directory) => vec![directory.clone()],
            None => paths.iter().map(beside).collect(),
        };
        paths.extend(directories);
        paths
    }

    /// Whether a path is one of these, or lies in one of them.
    pub fn has(&self, path: &Path) -> bool {
        let absolute = |ours: PathBuf| std::path::absolute(&ours).unwrap_or(ours);
        self.paths().into_iter().map(absolute).any(|ours| path == ours || path.parent() == Some(&*ours))
    }

    /// The files that make the configuration now.
    pub fn files(&self) -> Vec<PathBuf> {
        self.find().unwrap_or_default()
    }

    fn find(&self) -> Result<Vec<PathBuf>, Faults> {
        let main = self.main_files();
        match &self.directory {
            // What is built in has its fragments where the system's file would have them.
            None if main.is_empty() => {
                let directory = super::reader::beside(Path::new(SYSTEM), "conf.d");
                if directory.is_dir() { Config::files(&main, Some(&directory)) } else { Ok(main) }
            }
            directory => Config::files(&main, directory.as_deref()),
        }
    }
}
