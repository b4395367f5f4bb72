//! What the tests of these modules share.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Family, Reading, table::Draft};

/// A directory that is removed at the end.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    /// `name` is the test's own.
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kimberlite-host-stats-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, and makes the directories above it.
    pub(super) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A reading with one row.
pub(super) fn reading(taken_micros: u64) -> Arc<Reading> {
    let mut draft = Draft::default();
    draft.push(b"total", &[1.0; 10]);
    let (table, cut) = draft.finish(&Family::Cpu.columns(), None);
    Arc::new(Reading { table, taken_micros, cut })
}
