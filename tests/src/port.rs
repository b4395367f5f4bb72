//! A port that is taken, but where nobody listens yet.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};

/// Connections to it are refused.
#[derive(Debug)]
pub struct ClosedPort {
    socket: OwnedFd,
    port: u16,
}

impl Default for ClosedPort {
    fn default() -> Self {
        Self::new()
    }
}

impl ClosedPort {
    pub fn new() -> Self {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap();
        Self { socket, port: address.port() }
    }

    pub fn number(&self) -> u16 {
        self.port
    }

    /// From now on somebody does.
    pub fn open(self) -> TcpListener {
        listen(&self.socket, 128).unwrap();
        TcpListener::from(self.socket)
    }
}
