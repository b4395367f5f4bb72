//! Connections to granted addresses. Capability `tcp = ["host:port", …]`.
//!
//! Timeouts are derived from what is left of the call, so a plugin sees an error and can answer.

use std::fmt;

use crate::bindings::imports::kimberlite::plugin::tcp as wit;
#[cfg(target_arch = "wasm32")]
use crate::bindings::imports::kimberlite::plugin::tcp as host;
pub use crate::net::NetError;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::fakes::tcp as host;

/// How to connect: plain, unless told otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Speak TLS, and verify the certificate against this name.
    pub tls_name: Option<String>,
}

impl Options {
    /// Without TLS.
    pub fn plain() -> Self {
        Self::default()
    }

    /// With TLS; the certificate has to be valid for `name`.
    pub fn tls(name: impl Into<String>) -> Self {
        Self { tls_name: Some(name.into()) }
    }
}

/// A connection; closed when dropped.
pub struct Connection(host::Connection);

impl Connection {
    /// Connects to `address`: `host:port`, or `[v6]:port`. A name is resolved anew each time.
    pub fn connect(address: &str, options: Options) -> Result<Self, NetError> {
        let options = wit::Options { tls_name: options.tls_name };
        Ok(Self(host::connect(address, &options)?))
    }

    /// Sends all of `bytes`, or fails; then an unknown part has been sent.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), NetError> {
        Ok(self.0.send(bytes)?)
    }

    /// Waits for at least one byte and gives at most `max`; empty: the other side has ended its
    /// half.
    pub fn receive(&mut self, max: u32) -> Result<Vec<u8>, NetError> {
        Ok(self.0.receive(max)?)
    }

    /// Whether the other side has ended the connection, as far as this side knows by now. Never
    /// waits.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Ends this half: the other side reads an end of file behind what was sent.
    pub fn finish(&mut self) -> Result<(), NetError> {
        Ok(self.0.finish()?)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}
