//! Compiled code on disk: a restart compiles nothing. Loading it is trusting it, so only files
//! that we wrote ourselves, whose checksum fits, are loaded.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Bytes of all compiled code; beyond them what was not used for longest goes.
const LIMIT: u64 = 512 << 20;

/// The directory `cache/` below the data directory.
#[derive(Debug)]
pub(super) struct CodeCache {
    dir: PathBuf,
    /// Engine version, settings and CPU features: code of another engine has another name.
    engine: String,
}

impl CodeCache {
    pub(super) fn new(dir: PathBuf, engine: &Engine) -> Self {
        use std::hash::{Hash, Hasher};
        let mut hasher = std::hash::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self { dir, engine: format!("{:016x}", hasher.finish()) }
    }

    fn file(&self, sha256: &str) -> PathBuf {
        self.dir.join(format!("{sha256}-{}.cwasm", self.engine))
    }

    /// None: not there, or not to be trusted; then it is compiled anew and replaced.
    pub(super) fn load(&self, engine: &Engine, sha256: &str) -> Option<Component> {
        let file = self.file(sha256);
        match self.verified(&file) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(why) => {
                tracing::warn!(file = %file.display(), why, "compiled code is not used; compiling anew");
                return None;
            }
        }
        // SAFETY: the file lies in a directory that only our own user can write, was written by
        // `store` below (its checksum fits), and is never changed in place.
        match unsafe { Component::deserialize_file(engine, &file) } {
            Ok(component) => {
                // What is used stays. If that cannot be said, it is compiled again some day.
                drop(fs::File::open(&file).and_then(|file| file.set_modified(SystemTime::now())));
                Some(component)
            }
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "compiled code does not load; compiling anew");
                None
            }
        }
    }

    fn verified(&self, file: &Path) -> Result<bool, String> {
        let code = match fs::read(file) {
            Ok(code) => code,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.to_string()),
        };
        for path in [self.dir.as_path(), file] {
            let meta = fs::metadata(path).map_err(|error| error.to_string())?;
            if meta.uid() != rustix::process::geteuid().as_raw() {
                return Err(format!("{} belongs to another user", path.display()));
            }
            if meta.mode() & 0o022 != 0 {
                return Err(format!("others can write {}", path.display()));
            }
        }
        let sum = fs::read_to_string(sum_of(file)).map_err(|error| format!("checksum: {error}"))?;
        if sum == checksum(&code) { Ok(true) } else { Err("its checksum does not fit".to_owned()) }
    }

    /// Failing to store costs a compilation at the next start, nothing else.
    pub(super) fn store(&self, sha256: &str, component: &Component) {
        let file = self.file(sha256);
        let stored = component.serialize().map_err(|error| error.to_string()).and_then(|code| {
            let write = || {
                fs::create_dir_all(&self.dir)?;
                write_whole(&sum_of(&file), checksum(&code).as_bytes())?;
                write_whole(&file, &code)
            };
            write().map_err(|error| error.to_string())
        });
        if let Err(why) = stored {
            tracing::warn!(file = %file.display(), why, "cannot keep compiled code; the next start compiles again");
        }
        self.evict(LIMIT);
    }

    /// Every version of every plugin that was ever tried would stay. Code that runs is mapped, and needs
    /// no name.
    fn evict(&self, limit: u64) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| Some((entry.as_ref().ok()?.metadata().ok()?, entry.ok()?.path())))
            .filter(|(_, path)| path.extension().is_some_and(|extension| extension == "cwasm"))
            .filter_map(|(meta, path)| Some((meta.modified().ok()?, meta.len(), path)))
            .collect();
        files.sort_unstable();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        // The newest was just stored, however large it is.
        files.pop();
        for (_, bytes, path) in files {
            if total <= limit {
                return;
            }
            total -= bytes;
            // One that stays is tried again with the next.
            drop(fs::remove_file(sum_of(&path)).and_then(|()| fs::remove_file(&path)));
        }
    }
}

fn sum_of(file: &Path) -> PathBuf {
    file.with_extension("sha256")
}

fn checksum(code: &[u8]) -> String {
    hex(&Sha256::digest(code))
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Never half-done: written aside, then renamed.
fn write_whole(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let aside = file.with_extension(format!("{}.new", std::process::id()));
    let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    out.write_all(bytes)?;
    fs::rename(aside, file)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn code_that_was_not_used_for_longest_goes_first() {
        let dir = kimberlite_tests::TempDir::new();
        let cache = CodeCache { dir: dir.path().to_owned(), engine: "e".to_owned() };
        for (name, age) in [("old", 30), ("older", 40), ("new", 1), ("used", 20)] {
            let file = cache.file(name);
            write_whole(&file, &[0; 100]).unwrap();
            write_whole(&sum_of(&file), b"sum").unwrap();
            let time = SystemTime::now() - Duration::from_secs(age);
            fs::File::open(file).unwrap().set_modified(time).unwrap();
        }
        let there = |name: &str| (cache.file(name).exists(), sum_of(&cache.file(name)).exists());
        cache.evict(250);
        assert_eq!(
            ["old", "older", "new", "used"].map(there),
            [(false, false), (false, false), (true, true), (true, true)]
        );
        cache.evict(0);
        assert_eq!(["new", "used"].map(there), [(true, true), (false, false)]);
    }
}
