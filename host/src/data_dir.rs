//! The directory in which the agent keeps what outlives it, and the lock that makes it the only one
//! that does.
//!
//! ```text
//! DATA_DIR/            0700
//!   lock               held while the agent runs; says its process id
//!   id                 made once, kept for ever
//!   admin.sock         where the running agent is asked
//!   cache/             compiled plugins, 512 MiB at most; may be deleted at any time
//!   state/             what plugins keep
//!   spool/HANDLER/     what waits for a handler
//!   halted/HANDLER     that it is halted, and why
//!   dead/HANDLER/      what it will never deliver
//! ```
//!
//! Uses: nothing of kimberlite.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Write permission of group and others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why the data directory cannot be used. Exit code 74, all of them.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error(
        "data directory `{}` is in use by another agent, process {pid}\n  \
         hint: stop that one, or give this one an `agent.data_dir` of its own", path.display()
    )]
    InUse {
        path: PathBuf,
        /// As the lock file says; `unknown` if it says nothing.
        pid: String,
    },
    #[error("data directory: cannot {action} `{}`: {source}\n  hint: {hint}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        hint: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "data directory `{}` {fault}\n  \
         hint: set `agent.data_dir` to a directory that only the agent's user can write", path.display()
    )]
    Unsafe { path: PathBuf, fault: String },
    #[error(
        "`{}` holds no id of an agent\n  \
         hint: put the old id back, or delete the file, and the agent makes a new one", path.display()
    )]
    Id { path: PathBuf },
}

/// An open data directory. Nobody else has it until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    id: String,
    /// Held, not read.
    _lock: File,
}

impl DataDir {
    /// Creates the directory and its parents where they are missing, and takes the lock.
    ///
    /// An existing directory must belong to this user or to root. One that others can write is closed
    /// to them if it is plainly the agent's own (empty, or holding an id), and refused otherwise.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        create_private_dir(path)
            .map_err(|source| fault("create", path, set_other(path), source))
            .and_then(|()| keep_private(path))?;
        let lock = take_lock(path)?;
        let id = read_or_make_id(path)?;
        let dir = Self { path: path.to_owned(), id, _lock: lock };
        for sub in [dir.cache(), dir.state()] {
            create_private_dir(&sub).map_err(|source| fault("create", &sub, set_other(path), source))?;
        }
        Ok(dir)
    }

    /// Of this installation: made once, never changed.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Compiled plugins.
    pub fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }

    /// What plugins keep.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// What waits for a handler. Made when something does.
    pub fn spools(&self) -> PathBuf {
        self.path.join("spool")
    }

    pub fn spool(&self, handler: &str) -> PathBuf {
        self.path.join("spool").join(handler)
    }

    /// Where it says that a handler is halted.
    pub fn halt(&self, handler: &str) -> PathBuf {
        self.path.join("halted").join(handler)
    }

    pub fn admin_socket(&self) -> PathBuf {
        admin_socket(&self.path)
    }
}

/// Where handlers' dead letters are, in a directory for each.
pub fn dead_letters_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("dead")
}

/// Where the agent that has this data directory is asked, if one runs.
pub fn admin_socket(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

/// Replaces a file, mode 0600, whole or not at all: also a crash leaves the old one or the new one.
pub fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or(OsStr::new("file")).to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let written = create_private(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&beside, path)).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}

/// An empty file of mode 0600, whatever was there before.
fn create_private(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn keep_private(path: &Path) -> Result<(), DataDirError> {
    let about = |source| fault("read", path, set_other(path), source);
    let meta = fs::metadata(path).map_err(about)?;
    let refuse = |fault: String| Err(DataDirError::Unsafe { path: path.to_owned(), fault });
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me && meta.uid() != 0 {
        return refuse(format!("belongs to user {}, who is neither root nor the agent's user", meta.uid()));
    }
    if meta.mode() & WRITABLE_BY_OTHERS == 0 {
        return Ok(());
    }
    let is_ours = meta.uid() == me && (path.join("id").is_file() || is_empty(path).map_err(about)?);
    if !is_ours || fs::set_permissions(path, fs::Permissions::from_mode(0o700)).is_err() {
        return refuse(format!("can be written by others (mode {:04o})", meta.mode() & 0o7777));
    }
    Ok(())
}

fn is_empty(path: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(path)?.next().is_none())
}

fn take_lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join("lock");
    let about = |source| fault("write", &path, set_other(dir), source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(about)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.take(32).read_to_string(&mut pid);
            let pid = Some(pid.trim()).filter(|pid| !pid.is_empty()).unwrap_or("unknown").to_owned();
            return Err(DataDirError::InUse { path: dir.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => {
            let hint = "use a file system that has locks, as local ones do".to_owned();
            return Err(fault("lock", &path, hint, source));
        }
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(about)?;
    Ok(file)
}

fn read_or_make_id(dir: &Path) -> Result<String, DataDirError> {
    let path = dir.join("id");
    match fs::read_to_string(&path) {
        Ok(text) if is_id(text.trim()) => return Ok(text.trim().to_owned()),
        Ok(text) if !text.trim().is_empty() => return Err(DataDirError::Id { path }),
        Err(error) if error.kind() == ErrorKind::InvalidData => return Err(DataDirError::Id { path }),
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(fault("read", &path, set_other(dir), error));
        }
        Ok(_) | Err(_) => {}
    }
    let id = random_id().map_err(|error| {
        fault("read", Path::new("/dev/urandom"), "the system lacks its random numbers".to_owned(), error)
    })?;
    replace_private(&path, format!("{id}\n").as_bytes())
        .map_err(|source| fault("write", &path, set_other(dir), source))?;
    Ok(id)
}

/// One that an operator wrote is as good, if it can stand in a URL, a path and a log line.
fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A random UUID (version 4).
fn random_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let bits = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    Ok(format!("{a}-{b}-{c}-{d}-{e}"))
}

fn fault(action: &'static str, path: &Path, hint: String, source: io::Error) -> DataDirError {
    DataDirError::Io { action, path: path.to_owned(), hint, source }
}

fn set_other(dir: &Path) -> String {
    format!("make `{}` writable for this user, or set `agent.data_dir` to a directory that is", dir.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fresh directory that goes with the test.
    struct Temp(PathBuf);

    impl Temp {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("kimberlite-data-dir-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn all_that_it_makes_is_private() {
        let temp = Temp::new("private");
        let dir = DataDir::open(&temp.0.join("a/b")).unwrap();
        for path in [dir.path(), &dir.cache(), &dir.state()] {
            assert_eq!(mode(path), 0o700, "{}", path.display());
        }
        for name in ["id", "lock"] {
            assert_eq!(mode(&dir.path().join(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn a_second_agent_is_told_who_has_the_directory() {
        let temp = Temp::new("second");
        let first = DataDir::open(&temp.0).unwrap();
        let error = DataDir::open(&temp.0).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}\n", std::process::id())), "{error}");
        assert!(matches!(error, DataDirError::InUse { .. }));
        drop(first);
        DataDir::open(&temp.0).unwrap();
    }

    #[test]
    fn the_id_is_made_once_and_kept() {
        let temp = Temp::new("id");
        let id = DataDir::open(&temp.0).unwrap().id().to_owned();
        assert!(id.len() == 36 && is_id(&id), "{id}");
        assert_eq!(id.as_bytes()[14], b'4');
        assert_eq!(DataDir::open(&temp.0).unwrap().id(), id);
        let other = Temp::new("id-2");
        assert_ne!(DataDir::open(&other.0).unwrap().id(), id);
    }

    #[test]
    fn an_id_that_an_operator_wrote_is_kept_and_a_broken_one_is_refused() {
        let temp = Temp::new("operator-id");
        fs::write(temp.0.join("id"), "web-1.example.org\n").unwrap();
        assert_eq!(DataDir::open(&temp.0).unwrap().id(), "web-1.example.org");
        for broken in [b"a b".as_slice(), b"\xff\xff", b"a/../b"] {
            fs::write(temp.0.join("id"), broken).unwrap();
            let error = DataDir::open(&temp.0).unwrap_err();
            assert!(matches!(error, DataDirError::Id { .. }), "{error}");
        }
        fs::write(temp.0.join("id"), "").unwrap();
        assert_eq!(DataDir::open(&temp.0).unwrap().id().len(), 36, "an empty one says nothing");
    }

    #[test]
    fn its_own_directory_is_closed_to_others() {
        let temp = Temp::new("close");
        set_mode(&temp.0, 0o777);
        drop(DataDir::open(&temp.0).unwrap());
        assert_eq!(mode(&temp.0), 0o700);
        set_mode(&temp.0, 0o775);
        drop(DataDir::open(&temp.0).unwrap());
        assert_eq!(mode(&temp.0), 0o700);
    }

    #[test]
    fn a_shared_directory_is_refused_and_left_as_it_was() {
        let temp = Temp::new("shared");
        fs::write(temp.0.join("somebody's"), "").unwrap();
        set_mode(&temp.0, 0o1777);
        let error = DataDir::open(&temp.0).unwrap_err().to_string();
        assert!(
            error.contains("can be written by others (mode 1777)") && error.contains("agent.data_dir"),
            "{error}"
        );
        assert_eq!(mode(&temp.0), 0o1777);
        assert_eq!(fs::read_dir(&temp.0).unwrap().count(), 1);
    }

    #[test]
    fn a_parent_that_cannot_hold_it_is_named_with_the_next_step() {
        let temp = Temp::new("parent");
        let file = temp.0.join("file");
        fs::write(&file, "").unwrap();
        for path in [file.join("data"), PathBuf::from("/proc/kimberlite")] {
            let error = DataDir::open(&path).unwrap_err().to_string();
            assert!(error.contains(&*path.to_string_lossy()) && error.contains("hint: "), "{error}");
        }
    }

    #[test]
    fn a_replaced_file_is_whole_and_private_and_leaves_nothing_beside_it() {
        let temp = Temp::new("replace");
        let path = temp.0.join("x");
        fs::write(&path, "old").unwrap();
        fs::write(temp.0.join("x.new"), "left by a crash").unwrap();
        replace_private(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(&temp.0).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays_as_it_was() {
        let temp = Temp::new("stays");
        let path = temp.0.join("x");
        fs::create_dir_all(path.join("not empty")).unwrap();
        replace_private(&path, b"new").unwrap_err();
        assert!(path.join("not empty").is_dir());
        assert_eq!(fs::read_dir(&temp.0).unwrap().count(), 1);
    }
}
