//! What a handler will never deliver, kept for a person to look at: one file each, bounded in bytes.
//!
//! ```text
//! dead/HANDLER/00000017   {"at":…,"reason":"…","items":…}⏎ and a record as the spool's
//! ```
//!
//! The files are all there is to it, so letters can be looked at and dropped while no agent runs.
//! Uses: `spool`, `data_dir`. Blocks on the disk.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data_dir::replace_private;
use crate::sample::{Batch, Millis};
use crate::spool;

/// The letters of one handler.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    dir: PathBuf,
    /// Bytes; beyond them the oldest go.
    limit: u64,
}

/// What is said on a letter's first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cover {
    /// Its number; also its file's name.
    #[serde(default)]
    pub number: u64,
    /// By the wall clock.
    pub at: Millis,
    /// Why it was set aside.
    pub reason: String,
    pub items: u64,
}

impl DeadLetters {
    pub fn new(dir: PathBuf, limit: u64) -> Self {
        Self { dir, limit }
    }

    /// Adds one. `reason` must hold no secrets. Gives its number.
    pub fn keep(&self, batch: &Batch, reason: &str, at: Millis) -> io::Result<u64> {
        let numbers = self.numbers()?;
        let number = numbers.last().map_or(1, |last| last + 1);
        let cover = Cover { number, at, reason: reason.to_owned(), items: batch.len() as u64 };
        let mut bytes = serde_json::to_vec(&cover)?;
        bytes.push(b'\n');
        bytes.extend(spool::to_record(batch, at)?);
        if bytes.len() as u64 > self.limit {
            return Err(io::Error::other("it is larger than `queue.dead_letters`"));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        replace_private(&self.path(number), &bytes)?;
        self.evict(&numbers, bytes.len() as u64);
        Ok(number)
    }

    /// The covers, oldest first. What is no letter is not shown.
    pub fn list(&self) -> io::Result<Vec<Cover>> {
        let numbers = self.numbers()?;
        Ok(numbers.into_iter().filter_map(|number| self.read(number).ok().map(|(cover, _)| cover)).collect())
    }

    pub fn read(&self, number: u64) -> io::Result<(Cover, Batch)> {
        let bytes = fs::read(self.path(number))?;
        let damaged = || io::Error::new(ErrorKind::InvalidData, "this is no dead letter, or a damaged one");
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
        let cover: Cover = serde_json::from_slice(&bytes[..end])?;
        let batch = spool::from_record(&bytes[end + 1..]).ok_or_else(damaged)?;
        Ok((Cover { number, ..cover }, batch))
    }

    pub fn drop(&self, number: u64) -> io::Result<()> {
        fs::remove_file(self.path(number))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:08}"))
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut numbers: Vec<u64> = names.filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn evict(&self, older: &[u64], newest: u64) {
        let size = |number: u64| fs::metadata(self.path(number)).map_or(0, |meta| meta.len());
        let mut total = newest + older.iter().map(|number| size(*number)).sum::<u64>();
        for &number in older {
            if total <= self.limit {
                return;
            }
            total = total.saturating_sub(size(number));
            tracing::warn!(dir = %self.dir.display(), number, "dead letters take too much: the oldest goes");
            if let Err(error) = self.drop(number) {
                tracing::warn!(number, %error, "it could not be removed");
            }
        }
    }
}

/// The handlers that have letters.
pub fn handlers(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outgoing::tests::samples;

    struct Temp(PathBuf);

    impl Temp {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("kimberlite-dead-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_letter_is_kept_shown_and_dropped() {
        let temp = Temp::new("kept");
        let letters = DeadLetters::new(temp.0.join("metricly"), 1 << 20);
        assert_eq!(letters.list().unwrap(), []);
        letters.keep(&samples([1, 2]), "refused", 7).unwrap();
        letters.keep(&samples([3]), "two\nlines", 8).unwrap();
        let list = letters.list().unwrap();
        let shown: Vec<_> = list.iter().map(|cover| (cover.number, cover.items, cover.at)).collect();
        assert_eq!(shown, [(1, 2, 7), (2, 1, 8)]);
        let (cover, batch) = letters.read(2).unwrap();
        assert_eq!((cover.reason.as_str(), batch.samples[0].value), ("two\nlines", 3.0));
        letters.drop(1).unwrap();
        assert_eq!(letters.keep(&samples([4]), "again", 9).unwrap(), 3, "numbers are not used twice");
        assert_eq!(handlers(&temp.0).unwrap(), ["metricly"]);
        assert_eq!(letters.drop(1).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn beyond_the_limit_the_oldest_go() {
        let temp = Temp::new("limit");
        let letters = DeadLetters::new(temp.0.clone(), 600);
        for value in 0..10 {
            letters.keep(&samples([value]), "refused", 0).unwrap();
        }
        let list = letters.list().unwrap();
        assert!((2..6).contains(&list.len()) && list.last().unwrap().number == 10, "{list:?}");
        letters.keep(&samples(0..200), "refused", 0).unwrap_err();
    }

    #[test]
    fn a_damaged_letter_says_so() {
        let temp = Temp::new("damaged");
        let letters = DeadLetters::new(temp.0.clone(), 1 << 20);
        letters.keep(&samples([1]), "refused", 0).unwrap();
        let path = letters.path(1);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(letters.read(1).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
