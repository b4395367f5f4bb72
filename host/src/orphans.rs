//! Spools whose handler is gone from the config: kept until all in them is too old, and taken up again
//! by a handler of that name.
//!
//! Uses: `status`, `data_dir`. Blocks on the disk, for a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};

use crate::data_dir::replace_private;
use crate::sample::Millis;
use crate::status::{AgentStatus, PluginKind};

/// In a spool's directory: until when it is kept, in milliseconds of the wall clock.
const MARK: &str = "orphaned";

/// All spools without a handler. Clones share them.
#[derive(Debug, Clone)]
pub struct Orphans {
    dir: PathBuf,
    until: Arc<Mutex<BTreeMap<String, Millis>>>,
}

impl Orphans {
    /// `dir` holds the spools of all handlers.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, until: Arc::default() }
    }

    /// Finds what earlier agents left. `handlers` have theirs; others are kept for `age` milliseconds,
    /// or as it was said before.
    pub fn find(&self, handlers: &BTreeSet<String>, age: Millis, now: Millis, status: &AgentStatus) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        for name in names.filter(|name| !handlers.contains(name)) {
            let said = fs::read_to_string(self.dir.join(&name).join(MARK)).ok();
            let until = said.and_then(|text| text.trim().parse().ok());
            self.leave(&name, until.unwrap_or(now.saturating_add(age)), status);
        }
    }

    /// A handler has gone; its spool is kept until then. Nothing is done if its name has been taken
    /// again meanwhile.
    pub fn leave(&self, name: &str, until: Millis, status: &AgentStatus) {
        let taken = status.kind(name);
        if taken == Some(PluginKind::Handler) {
            return;
        }
        let dir = self.dir.join(name);
        let bytes = bytes(&dir);
        if bytes == 0 {
            // One that never was is not there, and an empty one is of no use.
            drop(fs::remove_dir_all(&dir));
            return;
        }
        if let Err(error) = replace_private(&dir.join(MARK), until.to_string().as_bytes()) {
            warn!(dir = %dir.display(), %error, "cannot write down until when a spool is kept");
        }
        self.lock().insert(name.to_owned(), until);
        let kept = humantime::format_rfc3339_seconds(
            std::time::UNIX_EPOCH + std::time::Duration::from_millis(until),
        );
        if taken.is_none() {
            let shown = status.plugin(name, PluginKind::Handler);
            shown.update(|status| {
                status.state = "orphaned".into();
                status.spool_bytes = bytes;
            });
            shown.set_waits_for(&format!("a handler `{name}` in the config; kept until {kept}"));
        }
        info!(handler = name, bytes, until = %kept, "a spool without a handler is kept");
    }

    /// A handler of that name is there again.
    pub fn adopt(&self, name: &str) {
        if self.lock().remove(name).is_some() {
            // One that stays says nothing to a handler.
            drop(fs::remove_file(self.dir.join(name).join(MARK)));
        }
    }

    /// What is too old goes.
    pub fn bury(&self, now: Millis, status: &AgentStatus) {
        let old: Vec<String> = {
            let mut all = self.lock();
            let old = all.iter().filter(|(_, until)| **until <= now).map(|(name, _)| name.clone()).collect();
            all.retain(|_, until| *until > now);
            old
        };
        for name in old {
            let dir = self.dir.join(&name);
            warn!(handler = name, bytes = bytes(&dir), "a spool that no handler has taken up is deleted");
            if let Err(error) = fs::remove_dir_all(&dir) {
                warn!(dir = %dir.display(), %error, "it could not be deleted");
            }
            if status.kind(&name) == Some(PluginKind::Handler) {
                status.remove(&name);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Millis>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of its segments.
fn bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let segments = entries.filter_map(Result::ok).filter(|entry| entry.path().extension().is_some());
    segments.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Secrets;

    #[test]
    fn a_spool_without_a_handler_is_kept_for_a_while_and_taken_up_again() {
        let temp = kimberlite_tests::TempDir::new();
        let dir = temp.path().to_owned();
        for name in ["gone", "here", "again"] {
            fs::create_dir_all(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("1.log"), "samples").unwrap();
        }
        fs::create_dir_all(dir.join("empty")).unwrap();
        let status = || AgentStatus::new("id", "web-1", 0, Secrets::default());
        let orphans = || Orphans::new(dir.clone());
        let here = BTreeSet::from(["here".to_owned()]);
        let first = status();
        orphans().find(&here, 100, 1000, &first);
        let shown: Vec<_> = first.snapshot().plugins.into_iter().map(|plugin| plugin.name).collect();
        assert_eq!((shown, dir.join("empty").exists()), (vec!["again".to_owned(), "gone".to_owned()], false));
        // The next agent knows how long.
        let (next, second) = (orphans(), status());
        next.find(&here, 100, 1050, &second);
        next.adopt("again");
        next.bury(1099, &second);
        assert!(dir.join("gone").exists());
        next.bury(1100, &second);
        assert!(!dir.join("gone").exists() && dir.join("again").exists() && dir.join("here").exists());
    }
}
