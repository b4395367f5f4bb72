//! How large file systems are, without waiting for one whose server is gone.
//!
//! `statvfs` on a network file system can hang for as long as its server does, and nothing can end
//! it. So these are asked on up to four threads of their own, and one that has not answered in time
//! is left out until it has:
//!
//! ```text
//! ask ──▶ waiting ──a thread takes it──▶ running ──in time──▶ answer
//!           │ too late: dropped             └─────too late──▶ stuck until it returns
//! ```

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

/// Most threads that wait for servers.
const MAX_THREADS: usize = 4;

/// What `stat` and `statvfs` say of a mounted file system; the fields of `statvfs.json`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(super) struct Sizes {
    dev: u64,
    frsize: u64,
    blocks: u64,
    bfree: u64,
    bavail: u64,
    files: u64,
    ffree: u64,
    favail: u64,
}

impl Sizes {
    pub(super) const COLUMNS: [&str; 8] =
        ["dev", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail"];

    /// Asks the kernel; none: it could not tell.
    pub(super) fn of(point: &Path) -> Option<Self> {
        Self::of_device(point, rustix::fs::stat(point).ok()?.st_dev)
    }

    /// Likewise, where the device number is known already.
    pub(super) fn of_device(point: &Path, dev: u64) -> Option<Self> {
        let sizes = rustix::fs::statvfs(point).ok()?;
        Some(Self {
            dev,
            frsize: sizes.f_frsize,
            blocks: sizes.f_blocks,
            bfree: sizes.f_bfree,
            bavail: sizes.f_bavail,
            files: sizes.f_files,
            ffree: sizes.f_ffree,
            favail: sizes.f_favail,
        })
    }

    pub(super) fn dev(&self) -> u64 {
        self.dev
    }

    /// In the order of [`Sizes::COLUMNS`].
    pub(super) fn values(&self) -> [f64; 8] {
        let Self { dev, frsize, blocks, bfree, bavail, files, ffree, favail } = *self;
        [dev, frsize, blocks, bfree, bavail, files, ffree, favail].map(|value| value as f64)
    }
}

type Answers = HashMap<Arc<Path>, Option<Sizes>>;

/// The threads that ask. They start when they are first needed and end with the pool, save those
/// that are stuck, which end when they can.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    ask: fn(&Path) -> Option<Sizes>,
    threads: usize,
}

#[derive(Debug, Default)]
struct Shared {
    desk: Mutex<Desk>,
    asked: Condvar,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct Desk {
    waiting: Vec<Arc<Path>>,
    running: Vec<Arc<Path>>,
    answers: Answers,
    closed: bool,
}

impl Pool {
    /// `ask` is [`Sizes::of`], save in tests.
    pub(super) fn new(ask: fn(&Path) -> Option<Sizes>) -> Self {
        Self { shared: Arc::default(), ask, threads: 0 }
    }

    /// The sizes of those of `points` that answer within `patience`. One that is still busy with an
    /// earlier question is not waited for.
    pub(super) fn ask(&mut self, points: impl Iterator<Item = Arc<Path>>, patience: Duration) -> Answers {
        let shared = self.shared.clone();
        let mut desk = shared.desk();
        desk.answers.clear();
        let fresh: HashSet<_> = points.filter(|point| !desk.running.contains(point)).collect();
        if fresh.is_empty() {
            return Answers::default();
        }
        desk.waiting = fresh.iter().cloned().collect();
        self.start_threads(desk.running.len() + fresh.len());
        shared.asked.notify_all();

        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || fresh.iter().all(|point| desk.answers.contains_key(point)) {
                desk.waiting.clear();
                return std::mem::take(&mut desk.answers);
            }
            desk = shared.answered.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many have been asked and have not answered.
    pub(super) fn stuck(&self) -> usize {
        self.shared.desk().running.len()
    }

    fn start_threads(&mut self, wanted: usize) {
        while self.threads < wanted.min(MAX_THREADS) {
            let (shared, ask) = (self.shared.clone(), self.ask);
            let started = thread::Builder::new().name("statvfs".to_owned()).spawn(move || shared.serve(ask));
            // No thread to be had: nobody answers, and all are left out.
            if started.is_err() {
                return;
            }
            self.threads += 1;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.desk().closed = true;
        self.shared.asked.notify_all();
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, ask: fn(&Path) -> Option<Sizes>) {
        let mut desk = self.desk();
        while !desk.closed {
            let Some(point) = desk.waiting.pop() else {
                desk = self.asked.wait(desk).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            desk.running.push(point.clone());
            drop(desk);
            let sizes = ask(&point);
            desk = self.desk();
            desk.running.retain(|other| *other != point);
            desk.answers.insert(point, sizes);
            self.answered.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn paths(names: &[&str]) -> impl Iterator<Item = Arc<Path>> {
        names.iter().map(|name| Arc::from(Path::new(name))).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn all_that_answer_are_told() {
        let mut pool = Pool::new(Sizes::of);
        let names = ["/", "/proc", "/sys", "/dev", "/tmp", "/no-such-directory"];
        let answers = pool.ask(paths(&names), LONG);
        assert_eq!(answers.len(), names.len());
        assert!(answers[Path::new("/")].is_some_and(|sizes| sizes.blocks > 0));
        assert_eq!(answers[Path::new("/no-such-directory")], None);
        assert_eq!(pool.stuck(), 0);
        assert_eq!(pool.threads, MAX_THREADS);
    }

    /// Paths that begin with `/hung` answer when this can be read.
    static SERVER: RwLock<()> = RwLock::new(());

    fn ask_server(point: &Path) -> Option<Sizes> {
        if point.starts_with("/hung") {
            drop(SERVER.read());
        }
        Sizes::of(Path::new("/"))
    }

    #[test]
    fn hung_one_is_left_out_until_it_returns() {
        let mut pool = Pool::new(ask_server);
        let server_is_down = SERVER.write().unwrap();

        let answers = pool.ask(paths(&["/fine"]), LONG);
        assert_eq!(answers.len(), 1);
        while pool.stuck() == 0 {
            assert!(pool.ask(paths(&["/hung/a"]), Duration::from_millis(1)).is_empty());
        }
        let answers = pool.ask(paths(&["/hung/a", "/fine"]), LONG);
        assert_eq!(
            answers.keys().map(|path| &**path).collect::<Vec<_>>(),
            [Path::new("/fine")],
            "not waited for"
        );

        let more = ["/hung/a", "/hung/b", "/hung/c", "/hung/d", "/hung/e", "/hung/f", "/fine"];
        let mut stuck = 0;
        while stuck < MAX_THREADS {
            pool.ask(paths(&more), Duration::from_millis(1));
            stuck = pool.stuck();
        }
        assert_eq!((stuck, pool.threads), (MAX_THREADS, MAX_THREADS));
        assert!(pool.shared.desk().waiting.is_empty(), "nothing piles up");

        drop(server_is_down);
        while pool.stuck() > 0 {
            thread::yield_now();
        }
        assert_eq!(pool.ask(paths(&more), LONG).len(), more.len());
    }
}
