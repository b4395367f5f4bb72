//! The agent's log, under the plugin's name.
//!
//! ```
//! use kimberlite_plugin_sdk::log;
//!
//! let (disk, age) = ("sda", 7);
//! log::warn!("the figures of {disk} are {age} s old");
//! ```
//!
//! A text is formatted only if its severity is written at all. Natively the lines go to stderr.

use std::fmt;

#[cfg(target_arch = "wasm32")]
use crate::bindings::imports::kimberlite::plugin::log as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::fakes::log as host;

use crate::bindings::imports::kimberlite::plugin::log as wit;

#[doc(inline)]
pub use crate::{debug, error, info, trace, warn};

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Data was lost, or a person is needed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// Good to know.
    Info,
    /// For whoever looks for a fault.
    Debug,
    /// Every step.
    Trace,
}

impl From<Severity> for wit::Severity {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Error => Self::Error,
            Severity::Warn => Self::Warn,
            Severity::Info => Self::Info,
            Severity::Debug => Self::Debug,
            Severity::Trace => Self::Trace,
        }
    }
}

/// Whether a line of this severity would be written.
pub fn enabled(severity: Severity) -> bool {
    host::enabled(severity.into())
}

/// Writes a line; the macros are the comfortable way.
pub fn write(severity: Severity, line: fmt::Arguments<'_>) {
    match line.as_str() {
        Some(line) => host::log(severity.into(), line),
        None => host::log(severity.into(), &line.to_string()),
    }
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($severity:ident, $($line:tt)+) => {
        if $crate::log::enabled($crate::log::Severity::$severity) {
            $crate::log::write($crate::log::Severity::$severity, ::core::format_args!($($line)+));
        }
    };
}

/// Logs that data was lost or a person is needed. Takes what `format!` takes.
#[macro_export]
macro_rules! error {
    ($($line:tt)+) => { $crate::__log!(Error, $($line)+) };
}

/// Logs that something is not as it should be. Takes what `format!` takes.
#[macro_export]
macro_rules! warn {
    ($($line:tt)+) => { $crate::__log!(Warn, $($line)+) };
}

/// Logs what is good to know. Takes what `format!` takes.
#[macro_export]
macro_rules! info {
    ($($line:tt)+) => { $crate::__log!(Info, $($line)+) };
}

/// Logs for whoever looks for a fault. Takes what `format!` takes.
#[macro_export]
macro_rules! debug {
    ($($line:tt)+) => { $crate::__log!(Debug, $($line)+) };
}

/// Logs every step. Takes what `format!` takes.
#[macro_export]
macro_rules! trace {
    ($($line:tt)+) => { $crate::__log!(Trace, $($line)+) };
}
