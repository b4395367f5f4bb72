//! Notices that files have changed: directories are watched, since files are replaced more often than
//! they are written to.
//!
//! ```text
//! notify (inotify, or looking now and then) ──event──▶ is it ours? ──▶ settling ──▶ time to look
//!      ▲ armed anew whenever a directory comes or goes; where one is missing, what would hold it
//! ```
//!
//! Uses: `settling`, `clock`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Config, Event, EventKind, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tracing::warn;

use crate::clock::Clock;
use crate::config;
use crate::settling::{Settling, Touch, Unsettled};

/// Tells a directory from another one that has taken its place: device, inode, birth.
type Identity = (u64, u64, Option<SystemTime>);

/// What is watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// Everything in them counts.
    pub directories: BTreeSet<PathBuf>,
    pub files: BTreeSet<PathBuf>,
}

/// Waits for changes of files.
pub struct Watch {
    kind: config::Watch,
    interval: Duration,
    watcher: Option<Box<dyn Watcher + Send>>,
    events: mpsc::UnboundedReceiver<notify::Result<Event>>,
    paths: Paths,
    /// The same behind all links.
    real: Paths,
    /// What the watcher has been told to watch, and which directory that was.
    armed: BTreeMap<PathBuf, Identity>,
    settling: Settling,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("armed", &self.armed).finish_non_exhaustive()
    }
}

impl Watch {
    pub fn new(agent: &config::AgentConfig, clock: Arc<dyn Clock>) -> Self {
        let (watcher, events) = watcher(agent.watch, agent.watch_interval);
        Self {
            kind: agent.watch,
            interval: agent.watch_interval,
            watcher,
            events,
            paths: Paths::default(),
            real: Paths::default(),
            armed: BTreeMap::new(),
            settling: Settling::new(agent.debounce),
            clock,
        }
    }

    /// Watches otherwise from now on, and something else.
    pub fn set(&mut self, agent: &config::AgentConfig, paths: Paths) {
        self.settling.set_debounce(agent.debounce);
        if (agent.watch, agent.watch_interval) != (self.kind, self.interval) {
            (self.kind, self.interval) = (agent.watch, agent.watch_interval);
            (self.watcher, self.events) = watcher(agent.watch, agent.watch_interval);
            self.armed.clear();
        }
        self.paths = paths;
        self.arm();
    }

    /// Files that must not be read yet.
    pub fn unsettled(&self) -> Unsettled {
        self.settling.unsettled()
    }

    /// Until something has changed and settled. May be given up and begun again.
    pub async fn changed(&mut self) {
        loop {
            let now = self.clock.monotonic();
            if self.settling.take_due(now) {
                // A directory may have come or gone, a link may lead elsewhere.
                self.arm();
                return;
            }
            let due = self.settling.due();
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => match event {
                    Ok(event) => self.heard(&event),
                    Err(error) => {
                        warn!(%error, "watching files has failed; looking at all of them");
                        self.armed.clear();
                        self.settling.lost(self.clock.monotonic());
                    }
                },
                () = self.clock.sleep_until(due.unwrap_or(Duration::MAX)) => {}
            }
        }
    }

    fn heard(&mut self, event: &Event) {
        let now = self.clock.monotonic();
        if event.need_rescan() {
            warn!("more files have changed than the kernel could tell; looking at all of them");
            self.settling.lost(now);
        }
        let touch = match event.kind {
            // Reading is no change, and the agent reads.
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Touch::Whole,
            EventKind::Access(_) => return,
            EventKind::Modify(ModifyKind::Data(_)) if self.kind == config::Watch::Inotify => Touch::Written,
            _ => Touch::Whole,
        };
        for path in &event.paths {
            if matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))) {
                // Nobody watches what comes in its place.
                self.armed.remove(path);
            }
            if self.concerns(path) {
                self.settling.touched(path, touch, now);
            }
        }
    }

    fn concerns(&self, path: &Path) -> bool {
        // What Kubernetes swaps has such names: a whole directory changes with it.
        let is_swapped = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
        is_swapped || self.paths.concern(path) || self.real.concern(path)
    }

    /// Tells the watcher which directories there are now.
    fn arm(&mut self) {
        self.real = self.paths.real();
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: BTreeMap<PathBuf, Identity> =
            wanted(&self.paths).into_iter().filter_map(|dir| Some((dir.clone(), identity(&dir)?))).collect();
        // What is watched already stays so: whatever happened since it was read would be missed.
        let is_same =
            |dir: &PathBuf, which: &Identity, of: &BTreeMap<PathBuf, Identity>| of.get(dir) == Some(which);
        for (gone, _) in self.armed.iter().filter(|(dir, which)| !is_same(dir, which, &wanted)) {
            // It may have ended by itself, with its directory.
            drop(watcher.unwatch(gone));
        }
        self.armed.retain(|dir, which| is_same(dir, which, &wanted));
        for (dir, which) in wanted {
            if self.armed.contains_key(&dir) {
                continue;
            }
            match watcher.watch(&dir, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.armed.insert(dir, which)),
                Err(error) => warn!(dir = %dir.display(), %error, "directory cannot be watched"),
            }
        }
    }
}

impl Paths {
    /// Whether it is one of these, lies in one of the directories, or is on the way to what is not
    /// there yet.
    fn concern(&self, path: &Path) -> bool {
        let Self { directories, files } = self;
        files.contains(path)
            || path.parent().is_some_and(|holder| directories.contains(holder)) && !is_hidden(path)
            || directories.iter().chain(files).any(|ours| ours.starts_with(path))
    }

    fn real(&self) -> Self {
        let real =
            |paths: &BTreeSet<PathBuf>| paths.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
        Self { directories: real(&self.directories), files: real(&self.files) }
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name: &OsStr| name.as_encoded_bytes().starts_with(b"."))
}

fn watcher(
    kind: config::Watch,
    interval: Duration,
) -> (Option<Box<dyn Watcher + Send>>, mpsc::UnboundedReceiver<notify::Result<Event>>) {
    let (sender, events) = mpsc::unbounded_channel();
    // Nobody listens any more when the agent ends.
    let tell = move |event| drop(sender.send(event));
    let made: notify::Result<Box<dyn Watcher + Send>> = match kind {
        config::Watch::Off => return (None, events),
        config::Watch::Inotify => {
            let config = Config::default().with_follow_symlinks(false);
            RecommendedWatcher::new(tell, config).map(|watcher| Box::new(watcher) as _)
        }
        config::Watch::Poll => {
            let config = Config::default().with_poll_interval(interval);
            PollWatcher::new(tell, config).map(|watcher| Box::new(watcher) as _)
        }
    };
    match made {
        Ok(watcher) => (Some(watcher), events),
        Err(error) => {
            warn!(%error, "files are not watched: `kimberlite reload` reads them anew");
            (None, events)
        }
    }
}

/// The directories that tell of every change: those that hold what is watched, at both ends of a
/// link; where one is missing, the nearest that could get it.
fn wanted(paths: &Paths) -> BTreeSet<PathBuf> {
    let mut wanted = BTreeSet::new();
    for dir in &paths.directories {
        wanted.insert(nearest(dir));
        if fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_symlink()) {
            wanted.extend(dir.parent().map(nearest));
        }
    }
    for file in &paths.files {
        wanted.extend(file.parent().map(nearest));
        if let Ok(real) = fs::canonicalize(file) {
            wanted.extend(real.parent().map(Path::to_owned));
        }
    }
    wanted
}

fn identity(dir: &Path) -> Option<Identity> {
    let meta = fs::metadata(dir).ok()?;
    Some((meta.dev(), meta.ino(), meta.created().ok()))
}

fn nearest(dir: &Path) -> PathBuf {
    let here = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    here.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, Flag};

    use super::*;
    use crate::clock::VirtualClock;
    use crate::config::AgentConfig;

    fn watch(clock: &VirtualClock) -> Watch {
        let agent = AgentConfig { watch: config::Watch::Inotify, ..AgentConfig::default() };
        let mut watch = Watch::new(&agent, Arc::new(clock.clone()));
        // Nothing of it is there, and nothing has to be.
        watch.paths = Paths {
            directories: [PathBuf::from("/no/plugins")].into(),
            files: [PathBuf::from("/no/kimberlite.toml")].into(),
        };
        watch
    }

    fn event(kind: EventKind, path: &str) -> Event {
        Event::new(kind).add_path(path.into())
    }

    #[tokio::test]
    async fn only_what_is_ours_is_looked_at_and_reading_is_no_change() {
        let clock = VirtualClock::new(0);
        let mut watch = watch(&clock);
        let created = EventKind::Create(CreateKind::File);
        for (kind, path, is_ours) in [
            (created, "/no/plugins/x.wasm", true),
            (created, "/no/plugins/.x.wasm.tmp", false),
            (created, "/no/plugins/..data", true),
            (created, "/no/plugins", true),
            (created, "/no", true),
            (created, "/no/kimberlite.toml", true),
            (created, "/no/archive.log", false),
            (EventKind::Access(AccessKind::Open(AccessMode::Read)), "/no/plugins/x.wasm", false),
            (EventKind::Access(AccessKind::Close(AccessMode::Write)), "/no/plugins/x.wasm", true),
        ] {
            watch.heard(&event(kind, path));
            assert_eq!(watch.settling.due().is_some(), is_ours, "{kind:?} {path}");
            clock.step_to(clock.monotonic() + Duration::from_secs(10));
            watch.settling.take_due(clock.monotonic());
        }
    }

    #[tokio::test]
    async fn who_writes_is_waited_for() {
        let clock = VirtualClock::new(0);
        let mut watch = watch(&clock);
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        watch.heard(&event(written, "/no/plugins/x.wasm"));
        assert_eq!(watch.settling.due(), Some(Duration::from_secs(2)));
        watch.heard(&event(EventKind::Access(AccessKind::Close(AccessMode::Write)), "/no/plugins/x.wasm"));
        assert_eq!(watch.settling.due(), Some(Duration::from_millis(200)));
    }

    #[tokio::test]
    async fn after_an_overflow_all_is_looked_at() {
        let clock = VirtualClock::new(0);
        let mut watch = watch(&clock);
        watch.heard(&Event::new(EventKind::Other).set_flag(Flag::Rescan));
        clock.step_to(Duration::from_millis(200));
        assert!(watch.settling.take_due(clock.monotonic()) && watch.unsettled().is_empty());
    }
}
