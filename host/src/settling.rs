//! Which files have changed and which of them still do: nothing half-written is read.
//!
//! ```text
//! touched ──▶ unsettled ──as it is for `debounce`──▶ due: look
//!                 │ ten times as long, if a writer has not closed it
//! ```
//!
//! Uses: nothing of kimberlite. Time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file that somebody has written to and not closed yet waits so many times as long.
const OPEN: u32 = 10;
/// More changing files are not told apart: all of them are looked at together.
const MOST: usize = 10_000;

/// Files that have changed lately.
#[derive(Debug)]
pub struct Settling {
    debounce: Duration,
    /// When each may be read.
    at: BTreeMap<PathBuf, Duration>,
    /// When everything is to be looked at, whatever has changed.
    all: Option<Duration>,
}

/// Files that must not be read yet, by their absolute paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unsettled(BTreeSet<PathBuf>);

impl Unsettled {
    /// `path` may be relative: a config that is named so names its files so.
    pub fn has(&self, path: &Path) -> bool {
        !self.0.is_empty() && std::path::absolute(path).is_ok_and(|path| self.0.contains(&path))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What has happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// It is another one, or gone, or its writer has closed it.
    Whole,
    /// Somebody writes to it.
    Written,
}

impl Settling {
    pub fn new(debounce: Duration) -> Self {
        Self { debounce, at: BTreeMap::new(), all: None }
    }

    pub fn set_debounce(&mut self, debounce: Duration) {
        self.debounce = debounce;
    }

    pub fn touched(&mut self, path: &Path, touch: Touch, now: Duration) {
        let wait = match touch {
            Touch::Whole => self.debounce,
            Touch::Written => self.debounce * OPEN,
        };
        if self.at.len() >= MOST && !self.at.contains_key(path) {
            return self.lost(now);
        }
        self.at.insert(path.to_owned(), now + wait);
    }

    /// Nobody knows what has changed.
    pub fn lost(&mut self, now: Duration) {
        self.all = Some(now + self.debounce);
    }

    /// When a look is due.
    pub fn due(&self) -> Option<Duration> {
        self.at.values().copied().chain(self.all).min()
    }

    /// Whether to look now. What has settled is not asked for again.
    pub fn take_due(&mut self, now: Duration) -> bool {
        let before = self.at.len();
        self.at.retain(|_, at| *at > now);
        let all = self.all.take_if(|at| *at <= now);
        all.is_some() || self.at.len() < before
    }

    /// Files that must not be read yet.
    pub fn unsettled(&self) -> Unsettled {
        Unsettled(self.at.keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn settling() -> Settling {
        Settling::new(ms(200))
    }

    #[test]
    fn a_file_is_read_when_it_has_stayed_as_it_is() {
        let mut files = settling();
        let path = Path::new("/p/x.wasm");
        files.touched(path, Touch::Whole, ms(0));
        files.touched(path, Touch::Whole, ms(100));
        assert_eq!((files.due(), files.take_due(ms(200))), (Some(ms(300)), false));
        assert!(files.unsettled().has(path) && !files.unsettled().has(Path::new("/p/y.wasm")));
        assert!(files.take_due(ms(300)));
        assert_eq!((files.due(), files.unsettled()), (None, Unsettled::default()));
    }

    #[test]
    fn a_relative_path_is_the_same_file() {
        let mut files = settling();
        files.touched(&std::env::current_dir().unwrap().join("plugins/x.wasm"), Touch::Whole, ms(0));
        assert!(files.unsettled().has(Path::new("plugins/x.wasm")));
    }

    #[test]
    fn one_that_is_open_waits_for_its_writer() {
        let mut files = settling();
        let path = Path::new("/p/x.wasm");
        files.touched(path, Touch::Written, ms(0));
        assert!(!files.take_due(ms(1999)));
        files.touched(path, Touch::Whole, ms(1999));
        assert_eq!(files.due(), Some(ms(2199)));
    }

    #[test]
    fn one_that_never_settles_holds_up_no_other() {
        let mut files = settling();
        let (busy, other) = (Path::new("/p/busy.wasm"), Path::new("/p/other.wasm"));
        files.touched(other, Touch::Whole, ms(50));
        let mut looks = Vec::new();
        for now in (0..1000).step_by(50) {
            if now % 100 == 0 {
                files.touched(busy, Touch::Whole, ms(now));
            }
            if files.take_due(ms(now)) {
                looks.push((now, files.unsettled().iter().count()));
            }
        }
        assert_eq!(looks, [(250, 1)]);
    }

    #[test]
    fn where_nobody_knows_what_changed_all_is_looked_at() {
        let mut files = settling();
        files.lost(ms(0));
        assert!(!files.take_due(ms(100)) && files.take_due(ms(200)) && !files.take_due(ms(400)));
    }

    #[test]
    fn too_many_files_are_looked_at_together() {
        let mut files = settling();
        for number in 0..=MOST {
            files.touched(Path::new(&format!("/p/{number}")), Touch::Whole, ms(0));
        }
        assert_eq!(files.unsettled().iter().count(), MOST);
        assert_eq!(files.due(), Some(ms(200)));
    }
}
