//! A receiver of lines over TCP, as Graphite is one.

use std::io::{BufRead, BufReader};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// Listens on a loopback port and keeps every line. Closed when dropped.
#[derive(Debug)]
pub struct LineSink {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    connections: Mutex<Vec<TcpStream>>,
    is_closed: AtomicBool,
}

impl LineSink {
    pub fn start() -> Self {
        Self::listen(TcpListener::bind(("127.0.0.1", 0)).unwrap())
    }

    /// On a port that was seen before.
    pub fn start_on(port: u16) -> Self {
        Self::listen(TcpListener::bind(("127.0.0.1", port)).unwrap())
    }

    fn listen(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let kept = shared.clone();
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if kept.is_closed.load(Ordering::SeqCst) {
                    break;
                }
                kept.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let kept = kept.clone();
                thread::spawn(move || {
                    for line in BufReader::new(stream).lines().map_while(Result::ok) {
                        kept.lines.lock().unwrap().push(line);
                    }
                });
            }
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn lines(&self) -> Vec<String> {
        self.shared.lines.lock().unwrap().clone()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.connections.lock().unwrap().len()
    }
}

impl Drop for LineSink {
    /// Also every connection: the receiver is gone.
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}
