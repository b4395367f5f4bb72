//! Lines that repeat themselves: the first five of a minute are written, the rest counted.
//!
//! Minutes are the log's, not the line's: one begins with the first line after the last one's end, and
//! at its end everything is forgotten. Time is an argument. Uses: nothing of kimberlite.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use tracing::Level;
use tracing::callsite::Identifier;

use super::line::Line;

const WINDOW: Duration = Duration::from_secs(60);

/// So many of a kind are written in a window.
const WRITTEN: u64 = 5;

/// So many kinds are told apart; what comes later in a window is written as if it were new.
const MOST_KINDS: usize = 1000;

/// So many bytes of a message are kept for the sum.
const KEPT: usize = 200;

/// Counts the lines of one window.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    began: Option<SystemTime>,
    kinds: HashMap<u64, Kind>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Kind {
    seen: u64,
    /// Made when the first one is held back.
    sum: Option<Repeated>,
}

/// What became of lines that were held back.
#[derive(Debug, PartialEq)]
pub(super) struct Repeated {
    pub(super) level: Level,
    pub(super) plugin: Option<String>,
    pub(super) message: String,
    pub(super) times: u64,
}

impl Repeats {
    /// Counts a line and says whether it is to be written. Alike are lines of one callsite, plugin and
    /// message, whatever their other fields say.
    pub(super) fn admits(&mut self, callsite: Identifier, line: &Line, now: SystemTime) -> bool {
        self.began.get_or_insert(now);
        let key = self.hasher.hash_one((callsite, line.plugin(), &line.message));
        if self.kinds.len() >= MOST_KINDS && !self.kinds.contains_key(&key) {
            return true;
        }
        let kind = self.kinds.entry(key).or_default();
        kind.seen += 1;
        if kind.seen <= WRITTEN {
            return true;
        }
        let sum = kind.sum.get_or_insert_with(|| Repeated {
            level: line.level,
            plugin: line.plugin().map(str::to_owned),
            message: line.message[..line.message.floor_char_boundary(KEPT)].to_owned(),
            times: 0,
        });
        sum.times += 1;
        false
    }

    /// If the window has ended: what was held back in it. A clock that was set back ends it, too.
    pub(super) fn sum_up(&mut self, now: SystemTime) -> Vec<Repeated> {
        match self.began.map(|began| now.duration_since(began)) {
            None => Vec::new(),
            Some(Ok(age)) if age < WINDOW => Vec::new(),
            Some(_) => self.finish(),
        }
    }

    /// Ends the window.
    pub(super) fn finish(&mut self) -> Vec<Repeated> {
        self.began = None;
        std::mem::take(&mut self.kinds).into_values().filter_map(|kind| kind.sum).collect()
    }

    /// How many kinds it tells apart now.
    #[cfg(test)]
    pub(super) fn kinds(&self) -> usize {
        self.kinds.len()
    }
}
