//! Why something on the network failed. [`tcp`](crate::tcp) and [`udp`](crate::udp) share it.

use std::fmt;

use crate::bindings::imports::kimberlite::plugin::net as wit;
use crate::handler::HandleError;

/// Why something on the network failed; the texts are for people. For a handler each is a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetError {
    /// The manifest or the operator's config does not name this address. The text has the line of
    /// config that would grant it.
    NotGranted(String),
    /// The address is not `host:port`, or its name has no address that is allowed.
    Unresolved(String),
    /// Nobody listens there.
    Refused(String),
    /// It took too long.
    TimedOut(String),
    /// The other side ended the connection.
    Closed(String),
    /// The certificate is not valid for this name, or the handshake failed.
    Tls(String),
    /// The plugin's share of bytes or connections is used up.
    Limit(String),
    /// Anything else.
    Other(String),
}

impl NetError {
    fn text(&self) -> &str {
        match self {
            Self::NotGranted(text)
            | Self::Unresolved(text)
            | Self::Refused(text)
            | Self::TimedOut(text)
            | Self::Closed(text)
            | Self::Tls(text)
            | Self::Limit(text)
            | Self::Other(text) => text,
        }
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for NetError {}

impl From<NetError> for HandleError {
    fn from(error: NetError) -> Self {
        Self::retry(error)
    }
}

impl From<wit::NetError> for NetError {
    fn from(error: wit::NetError) -> Self {
        match error {
            wit::NetError::NotGranted(text) => Self::NotGranted(text),
            wit::NetError::Unresolved(text) => Self::Unresolved(text),
            wit::NetError::Refused(text) => Self::Refused(text),
            wit::NetError::TimedOut(text) => Self::TimedOut(text),
            wit::NetError::Closed(text) => Self::Closed(text),
            wit::NetError::Tls(text) => Self::Tls(text),
            wit::NetError::Limit(text) => Self::Limit(text),
            wit::NetError::Other(text) => Self::Other(text),
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl From<NetError> for wit::NetError {
    fn from(error: NetError) -> Self {
        match error {
            NetError::NotGranted(text) => Self::NotGranted(text),
            NetError::Unresolved(text) => Self::Unresolved(text),
            NetError::Refused(text) => Self::Refused(text),
            NetError::TimedOut(text) => Self::TimedOut(text),
            NetError::Closed(text) => Self::Closed(text),
            NetError::Tls(text) => Self::Tls(text),
            NetError::Limit(text) => Self::Limit(text),
            NetError::Other(text) => Self::Other(text),
        }
    }
}
