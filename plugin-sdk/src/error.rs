//! Why a plugin could not do what it was asked.
//!
//! `Error` is what collectors and `new` return. It swallows every `std::error::Error`, so `?` works
//! on files, parsers and sockets alike.

use std::fmt;
use std::io;

/// What most functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a plugin could not do what it was asked: [absent](Error::absent), [failed](Error::failed) or
/// a [setting](Error::setting) that cannot be used.
///
/// Any `std::error::Error` becomes one by `?`. A missing file (`NotFound`; a path that was not
/// granted looks the same) becomes *absent*, everything else *failed*.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    pub(crate) cause: Cause,
    pub(crate) message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    Absent,
    Failed,
    Setting(String),
}

impl Error {
    /// There is nothing to measure here, for instance a file that this kernel does not have. Not a
    /// failure: the agent says it once in its log and tries again at the next run.
    pub fn absent(message: impl fmt::Display) -> Self {
        Self { cause: Cause::Absent, message: message.to_string() }
    }

    /// The run failed; `message` is for people. The agent counts it and backs off after several in
    /// a row.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self { cause: Cause::Failed, message: message.to_string() }
    }

    /// The setting `key` cannot be used; `message` says what is wrong with its value. For `new`.
    pub fn setting(key: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { cause: Cause::Setting(key.into()), message: message.to_string() }
    }

    /// Whether there was simply nothing to measure.
    pub fn is_absent(&self) -> bool {
        self.cause == Cause::Absent
    }

    /// The key of the setting at fault, if it is one.
    pub fn setting_key(&self) -> Option<&str> {
        match &self.cause {
            Cause::Setting(key) => Some(key),
            Cause::Absent | Cause::Failed => None,
        }
    }

    fn behind(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Setting(key) => write!(f, "setting `{key}`: {}", self.message),
            Cause::Absent | Cause::Failed => f.write_str(&self.message),
        }
    }
}

/// As `Display`, so that `unwrap` in a test prints the sentence.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// `Error` itself is no `std::error::Error`, which is what makes this one possible.
impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        let any: &(dyn std::error::Error + 'static) = &error;
        let missing = any.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::NotFound);
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(deeper) = source {
            message = format!("{message}: {deeper}");
            source = deeper.source();
        }
        Self { cause: if missing { Cause::Absent } else { Cause::Failed }, message }
    }
}

/// Says what was being done when something failed: `"reading /proc/uptime: permission denied"`.
pub trait Context<T> {
    /// Puts `context` in front of the error's message. An `Option` without a value fails with it.
    fn context(self, context: impl fmt::Display) -> Result<T>;

    /// The same with a text that is made only if it is needed.
    fn with_context<C: fmt::Display>(self, context: impl FnOnce() -> C) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, context: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.into().behind(context))
    }

    fn with_context<C: fmt::Display>(self, context: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|error| error.into().behind(context()))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, context: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| Error::failed(context))
    }

    fn with_context<C: fmt::Display>(self, context: impl FnOnce() -> C) -> Result<T> {
        self.ok_or_else(|| Error::failed(context()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_file_is_absent_and_unreadable_one_failed() {
        let missing = Error::from(io::Error::from(io::ErrorKind::NotFound));
        assert!(missing.is_absent());
        let denied = Error::from(io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(denied.to_string(), "permission denied");
        assert!(!denied.is_absent());
    }

    #[test]
    fn context_goes_in_front_and_keeps_the_cause() {
        let error: Result<()> = Err(Error::absent("no such file"));
        let error = error.context("reading /proc/uptime").unwrap_err();
        assert_eq!(error.to_string(), "reading /proc/uptime: no such file");
        assert!(error.is_absent());
        assert_eq!(
            None::<u8>.context("first field is missing").unwrap_err().to_string(),
            "first field is missing"
        );
    }

    #[test]
    fn setting_names_its_key() {
        let error = Error::setting("port", "must not be 0");
        assert_eq!(error.to_string(), "setting `port`: must not be 0");
        assert_eq!(error.setting_key(), Some("port"));
    }
}
