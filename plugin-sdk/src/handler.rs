//! What a handler's author writes.

use std::fmt;
use std::io;
use std::ops::Range;
use std::time::Duration;

use crate::batch::Batch;
#[cfg(any(target_arch = "wasm32", test))]
use crate::bindings::handler::exports::kimberlite::plugin::handler as wit;
use crate::error::{Error, Result};
use crate::settings::Settings;

/// A plugin that delivers.
///
/// ```no_run
/// use std::io::Write;
///
/// use kimberlite_plugin_sdk::{Batch, HandleError, Handler, Receipt, Result, Settings, export_handler};
///
/// struct Stdout {
///     prefix: String,
/// }
///
/// impl Handler for Stdout {
///     fn new(settings: &Settings) -> Result<Self> {
///         Ok(Self { prefix: settings.text("prefix").unwrap_or_default().to_owned() })
///     }
///
///     fn handle(&mut self, batch: &Batch) -> Result<Receipt, HandleError> {
///         let mut out = std::io::stdout().lock();
///         for sample in batch.samples() {
///             writeln!(out, "{}{sample}", self.prefix)?; // an I/O error becomes a retry
///         }
///         Ok(Receipt::delivered())
///     }
/// }
///
/// # #[cfg(any())]
/// export_handler!(Stdout);
/// # export_handler!(Stdout, manifest = "example/handler/plugin.toml");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "needs `impl Handler for {Self}` with `new` and `handle`",
    note = "a plugin that measures is exported by `export_collector!`"
)]
pub trait Handler: Sized {
    /// Called once, before anything else. An error stops this start of the plugin; the agent tries
    /// again later.
    fn new(settings: &Settings) -> Result<Self>;

    /// Called with one batch at a time. A handler that is killed in the middle gets the same batch
    /// again.
    fn handle(&mut self, batch: &Batch) -> Result<Receipt, HandleError>;
}

/// The whole batch has been taken: the agent forgets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Receipt {
    /// How many samples of *earlier* batches turned out to be lost or uncertain.
    pub unconfirmed: u64,
}

impl Receipt {
    /// All is well.
    pub fn delivered() -> Self {
        Self::default()
    }

    /// This batch has been taken, but `samples` of earlier ones turned out to be lost or uncertain;
    /// for protocols that tell so only afterwards.
    pub fn unconfirmed(samples: u64) -> Self {
        Self { unconfirmed: samples }
    }
}

/// Why a batch was not taken, which decides what the agent does with it. The reasons are for people.
///
/// I/O errors, errors of this crate's network modules and [`Error`] become `Retry` by `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandleError {
    /// Not now: the agent keeps the batch and comes back.
    Retry {
        /// How long the receiver wants to be left alone; without it the agent's own backoff decides.
        after: Option<Duration>,
        /// For people.
        reason: String,
        /// Items that were delivered all the same; they are not sent again.
        done: Vec<Range<u32>>,
    },
    /// Never: these items would be refused each time. They go to the dead letters.
    Reject {
        /// For people.
        reason: String,
        /// Which items; empty: the whole batch. The rest counts as delivered.
        which: Vec<Range<u32>>,
    },
    /// The same in smaller parts may work: the agent halves the batch. Said of one item it means
    /// `Reject`.
    TooLarge(String),
    /// No batch at all will be taken until a person has looked (a wrong key, say). The agent keeps
    /// everything and stops calling.
    Halt(String),
}

impl HandleError {
    /// Not now.
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self::Retry { after: None, reason: reason.to_string(), done: Vec::new() }
    }

    /// Never: the whole batch.
    pub fn reject(reason: impl fmt::Display) -> Self {
        Self::Reject { reason: reason.to_string(), which: Vec::new() }
    }

    /// Perhaps in smaller parts.
    pub fn too_large(reason: impl fmt::Display) -> Self {
        Self::TooLarge(reason.to_string())
    }

    /// Not until a person has looked.
    pub fn halt(reason: impl fmt::Display) -> Self {
        Self::Halt(reason.to_string())
    }

    /// The receiver's wish how long to wait; of a retry only.
    pub fn after(mut self, wait: Duration) -> Self {
        if let Self::Retry { after, .. } = &mut self {
            *after = Some(wait);
        }
        self
    }

    /// Items that were delivered all the same, by [`Sample::item`](crate::batch::Sample::item); of a
    /// retry only. May be said several times.
    pub fn done(mut self, items: Range<u32>) -> Self {
        if let Self::Retry { done, .. } = &mut self
            && !items.is_empty()
        {
            done.push(items);
        }
        self
    }

    /// Items that are refused; of a reject only. May be said several times.
    pub fn which(mut self, items: Range<u32>) -> Self {
        if let Self::Reject { which, .. } = &mut self
            && !items.is_empty()
        {
            which.push(items);
        }
        self
    }
}

impl fmt::Display for HandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry { reason, .. } => write!(f, "not now: {reason}"),
            Self::Reject { reason, .. } => write!(f, "never: {reason}"),
            Self::TooLarge(reason) => write!(f, "too large: {reason}"),
            Self::Halt(reason) => write!(f, "halt: {reason}"),
        }
    }
}

impl From<io::Error> for HandleError {
    fn from(error: io::Error) -> Self {
        Self::retry(error)
    }
}

impl From<Error> for HandleError {
    fn from(error: Error) -> Self {
        Self::retry(error)
    }
}

#[cfg(any(target_arch = "wasm32", test))]
pub(crate) fn answer(result: Result<Receipt, HandleError>) -> wit::Answer {
    let ranges = |ranges: Vec<Range<u32>>| {
        ranges.into_iter().map(|r| wit::Range { start: r.start, end: r.end }).collect()
    };
    match result {
        Ok(Receipt { unconfirmed }) => wit::Answer::Delivered(wit::Receipt { unconfirmed }),
        Err(HandleError::Retry { after, reason, done }) => wit::Answer::Retry(wit::Retry {
            after: after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            reason,
            done: ranges(done),
        }),
        Err(HandleError::Reject { reason, which }) => {
            wit::Answer::Reject(wit::Reject { reason, which: ranges(which) })
        }
        Err(HandleError::TooLarge(reason)) => wit::Answer::TooLarge(reason),
        Err(HandleError::Halt(reason)) => wit::Answer::Halt(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_error_is_a_retry() {
        let error = HandleError::from(io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!(error, HandleError::retry("connection reset"));
    }

    #[test]
    fn retry_carries_its_wait_and_what_was_done() {
        let error = HandleError::retry("busy").after(Duration::from_millis(1500)).done(0..3).done(3..3);
        let wit::Answer::Retry(retry) = answer(Err(error)) else { panic!("not a retry") };
        assert_eq!((retry.after, retry.done.len(), retry.done[0].end), (Some(1500), 1, 3));
    }
}
