//! Datagrams to granted addresses. Capability `udp = ["host:port", …]`.

use std::fmt;

#[cfg(target_arch = "wasm32")]
use crate::bindings::imports::kimberlite::plugin::udp as host;
pub use crate::net::NetError;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::fakes::udp as host;

/// A socket that talks to one address and nobody else; closed when dropped.
pub struct Socket(host::Socket);

impl Socket {
    /// A socket for `address`: `host:port`, or `[v6]:port`.
    pub fn connect(address: &str) -> Result<Self, NetError> {
        Ok(Self(host::connect(address)?))
    }

    /// Sends one datagram.
    pub fn send(&mut self, datagram: &[u8]) -> Result<(), NetError> {
        self.send_many(datagram, &[u32::try_from(datagram.len()).unwrap_or(u32::MAX)])?;
        Ok(())
    }

    /// Sends datagrams at once: the i-th is `bytes[ends[i-1]..ends[i]]`. Gives how many went out
    /// before the first that failed; an error if none did.
    pub fn send_many(&mut self, bytes: &[u8], ends: &[u32]) -> Result<u32, NetError> {
        Ok(self.0.send(bytes, ends)?)
    }

    /// Waits for one datagram and gives its first `max` bytes.
    pub fn receive(&mut self, max: u32) -> Result<Vec<u8>, NetError> {
        Ok(self.0.receive(max)?)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}
