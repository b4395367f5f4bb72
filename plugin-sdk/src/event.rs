//! What happened, and signs of life.

use std::time::Duration;

use crate::bindings::imports::kimberlite::plugin::types as wit;
use crate::element::{Element, tag};

/// How bad an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Good to know.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody has to look.
    Critical,
}

/// Something that happened; handed over with [`Run::event`](crate::Run::event).
#[derive(Debug, Clone)]
pub struct Event {
    pub(crate) element: Option<Element>,
    pub(crate) raw: wit::Event,
}

impl Event {
    /// `kind` is which sort of event, for instance `INFO`; `title` is one line. Level is `Info`, the
    /// element the agent's own and the time the run's due time until told otherwise.
    pub fn new(kind: impl Into<String>, title: impl Into<String>) -> Self {
        let raw = wit::Event {
            element: None,
            type_: kind.into(),
            title: title.into(),
            message: String::new(),
            level: wit::Level::Info,
            source: None,
            tags: Vec::new(),
            timestamp: None,
        };
        Self { element: None, raw }
    }

    /// The element it happened to.
    pub fn element(mut self, element: &Element) -> Self {
        self.element = Some(element.clone());
        self
    }

    /// The whole text.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.raw.message = message.into();
        self
    }

    /// How bad it is.
    pub fn level(mut self, level: Level) -> Self {
        self.raw.level = level.into();
        self
    }

    /// Who says so, for instance `ci`.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.raw.source = Some(source.into());
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.raw.tags.push(tag(name, value));
        self
    }

    /// When it happened, in milliseconds since 1970 (UTC).
    pub fn at(mut self, timestamp: u64) -> Self {
        self.raw.timestamp = Some(timestamp);
        self
    }
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All is well.
    Ok,
    /// Worth a look.
    Warning,
    /// Broken.
    Critical,
    /// Could not be told.
    Unknown,
}

/// A sign of life that the receiver misses when it stays away; handed over with
/// [`Run::check`](crate::Run::check).
#[derive(Debug, Clone)]
pub struct Check {
    pub(crate) element: Option<Element>,
    pub(crate) raw: wit::Check,
}

impl Check {
    /// `name` is for instance `heartbeat`; the receiver may wait `ttl` (whole seconds, rounded up)
    /// for the next one.
    pub fn new(name: impl Into<String>, status: Status, ttl: Duration) -> Self {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let raw = wit::Check {
            element: None,
            name: name.into(),
            status: status.into(),
            message: String::new(),
            ttl: u32::try_from(seconds).unwrap_or(u32::MAX),
            timestamp: None,
        };
        Self { element: None, raw }
    }

    /// The element it speaks of.
    pub fn element(mut self, element: &Element) -> Self {
        self.element = Some(element.clone());
        self
    }

    /// A word for people.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.raw.message = message.into();
        self
    }

    /// When it was checked, in milliseconds since 1970 (UTC).
    pub fn at(mut self, timestamp: u64) -> Self {
        self.raw.timestamp = Some(timestamp);
        self
    }
}

impl From<Level> for wit::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Info => Self::Info,
            Level::Warning => Self::Warning,
            Level::Critical => Self::Critical,
        }
    }
}

impl From<wit::Level> for Level {
    fn from(level: wit::Level) -> Self {
        match level {
            wit::Level::Info => Self::Info,
            wit::Level::Warning => Self::Warning,
            wit::Level::Critical => Self::Critical,
        }
    }
}

impl From<Status> for wit::Status {
    fn from(status: Status) -> Self {
        match status {
            Status::Ok => Self::Ok,
            Status::Warning => Self::Warning,
            Status::Critical => Self::Critical,
            Status::Unknown => Self::Unknown,
        }
    }
}

impl From<wit::Status> for Status {
    fn from(status: wit::Status) -> Self {
        match status {
            wit::Status::Ok => Self::Ok,
            wit::Status::Warning => Self::Warning,
            wit::Status::Critical => Self::Critical,
            wit::Status::Unknown => Self::Unknown,
        }
    }
}
