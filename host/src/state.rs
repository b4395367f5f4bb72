//! The key-value store of one plugin: outlives its instances and, on disk, the agent.
//!
//! Writes of a call are kept aside until it returns well. Uses: nothing.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// A write would take more than the plugin's share: how many bytes that is.
#[derive(Debug, PartialEq, Eq)]
pub struct Full(pub u64);

/// What one plugin stored. Keys and values count towards `limit`, in bytes.
#[derive(Debug, Default)]
pub struct StateStore {
    entries: BTreeMap<String, Vec<u8>>,
    /// What the current call wrote; none: removed.
    pending: BTreeMap<String, Option<Vec<u8>>>,
    limit: usize,
    file: Option<PathBuf>,
}

impl StateStore {
    /// In memory only.
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Kept in `file`, which need not exist. An unreadable one is an error and stays as it is.
    pub fn open(file: PathBuf, limit: usize) -> Result<Self, String> {
        let entries = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                format!("state file {} is damaged: {error}; move it aside", file.display())
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(format!("cannot read state file {}: {error}", file.display())),
        };
        Ok(Self { entries, limit, file: Some(file), ..Self::default() })
    }

    /// Whether both are kept in the same file.
    pub fn is_same(&self, other: &Self) -> bool {
        self.file.is_some() && self.file == other.file
    }

    /// Changes how much it may hold; what it holds already stays.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub fn get(&self, key: &str) -> Option<&[u8]> {
        match self.pending.get(key) {
            Some(written) => written.as_deref(),
            None => self.entries.get(key).map(Vec::as_slice),
        }
    }

    pub fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), Full> {
        let others: usize = self.merged().filter(|(k, _)| *k != key).map(|(k, v)| k.len() + v.len()).sum();
        if others + key.len() + value.len() > self.limit {
            return Err(Full(self.limit as u64));
        }
        self.pending.insert(key, Some(value));
        Ok(())
    }

    pub fn remove(&mut self, key: String) {
        self.pending.insert(key, None);
    }

    /// In order.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.merged().map(|(key, _)| key.to_owned()).collect();
        keys.sort_unstable();
        keys
    }

    fn merged(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let kept = self.entries.iter().filter(|(key, _)| !self.pending.contains_key(*key));
        let written = self.pending.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        kept.chain(written).map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    /// Bytes it holds, for the plugin's account.
    pub fn bytes(&self) -> usize {
        self.merged().map(|(key, value)| key.len() + value.len()).sum()
    }

    /// The call ended badly: as if it had not written.
    pub fn rollback(&mut self) {
        self.pending.clear();
    }

    /// The call ended well. An error is about the file only: in memory the writes count.
    pub fn commit(&mut self) -> Result<(), String> {
        if self.pending.is_empty() {
            return Ok(());
        }
        for (key, value) in std::mem::take(&mut self.pending) {
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
        match &self.file {
            Some(file) => self.write(file).map_err(|error| {
                format!("cannot write state file {}: {error}; it is kept in memory only", file.display())
            }),
            None => Ok(()),
        }
    }

    fn write(&self, file: &std::path::Path) -> std::io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let half_done = file.with_extension("new");
        let mut out = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&half_done)?;
        // Not synced: that would hold up every plugin for tens of milliseconds. A crash of the agent
        // loses nothing, one of the machine at most the newest state.
        out.write_all(&serde_json::to_vec(&self.entries)?)?;
        std::fs::rename(half_done, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_of_a_killed_call_are_gone() {
        let mut store = StateStore::new(100);
        store.set("a".into(), b"1".to_vec()).unwrap();
        store.commit().unwrap();
        store.set("a".into(), b"2".to_vec()).unwrap();
        store.remove("b".into());
        assert_eq!(store.get("a"), Some(&b"2"[..]));
        store.rollback();
        assert_eq!(store.get("a"), Some(&b"1"[..]));
    }

    #[test]
    fn a_write_beyond_the_limit_is_refused_and_changes_nothing() {
        let mut store = StateStore::new(10);
        store.set("key".into(), b"1234".to_vec()).unwrap();
        assert_eq!(store.set("other".into(), b"".to_vec()), Ok(()).and(Err(Full(10))));
        assert_eq!(store.keys(), ["key"]);
        // Replacing counts the new value instead of the old one.
        store.set("key".into(), b"1234567".to_vec()).unwrap();
        assert_eq!(store.bytes(), 10);
    }

    #[test]
    fn survives_a_restart() {
        let dir = std::env::temp_dir().join(format!("kimberlite-state-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("x.json");
        let mut store = StateStore::open(file.clone(), 100).unwrap();
        store.set("a".into(), vec![0, 255]).unwrap();
        store.commit().unwrap();
        let store = StateStore::open(file.clone(), 100).unwrap();
        assert_eq!(store.get("a"), Some(&[0u8, 255][..]));
        std::fs::write(&file, "{").unwrap();
        assert!(StateStore::open(file, 100).unwrap_err().contains("x.json is damaged"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
