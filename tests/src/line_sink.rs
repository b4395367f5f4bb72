//! A receiver of lines over TCP, as Graphite is one.

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

/// How it treats its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Reads,
    /// Accepts them, and nothing more.
    Ignores,
    /// Reads byte by byte.
    Trickles,
    /// Ends them in the middle of a line.
    Cuts,
    /// Resets them once it has read something.
    Resets,
}

/// Listens on a loopback port and keeps every line. Closed when dropped.
#[derive(Debug)]
pub struct LineSink {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    manner: Mutex<Manner>,
    lines: Mutex<Vec<String>>,
    connections: Mutex<Vec<Weak<TcpStream>>>,
    open: AtomicUsize,
    is_closed: AtomicBool,
}

impl LineSink {
    pub fn start() -> Self {
        Self::start_on(TcpListener::bind(("127.0.0.1", 0)).unwrap(), Manner::Reads)
    }

    pub fn start_on(listener: TcpListener, manner: Manner) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            manner: Mutex::new(manner),
            lines: Mutex::default(),
            connections: Mutex::default(),
            open: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
        });
        let kept = shared.clone();
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if kept.is_closed.load(Ordering::SeqCst) {
                    break;
                }
                kept.open.fetch_add(1, Ordering::SeqCst);
                let (kept, stream) = (kept.clone(), Arc::new(stream));
                kept.connections.lock().unwrap().push(Arc::downgrade(&stream));
                thread::spawn(move || {
                    kept.serve(&stream);
                    kept.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// From now on, old connections too.
    pub fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn lines(&self) -> Vec<String> {
        self.shared.lines.lock().unwrap().clone()
    }

    /// Once every sender has ended its connections: all that ever comes.
    pub fn all_lines(&self) -> Vec<String> {
        let open = || self.shared.open.load(Ordering::SeqCst);
        crate::wait("all connections end", || format!("{} are open", open()), || (open() == 0).then_some(()));
        self.lines()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.connections.lock().unwrap().len()
    }
}

impl Shared {
    /// Until either side has had enough.
    fn serve(&self, stream: &TcpStream) {
        let mut line = Vec::new();
        let mut space = [0; 1 << 16];
        let mut reader = stream;
        loop {
            let manner = *self.manner.lock().unwrap();
            let most = match manner {
                Manner::Reads | Manner::Resets => space.len(),
                Manner::Trickles => 1,
                Manner::Cuts => 30,
                Manner::Ignores => {
                    thread::sleep(Duration::from_millis(5));
                    if self.is_closed.load(Ordering::SeqCst) {
                        return;
                    }
                    continue;
                }
            };
            let Ok(read @ 1..) = reader.read(&mut space[..most]) else { return };
            for &byte in &space[..read] {
                if byte == b'\n' {
                    let whole = String::from_utf8(std::mem::take(&mut line)).unwrap();
                    self.lines.lock().unwrap().push(whole);
                } else {
                    line.push(byte);
                }
            }
            match manner {
                Manner::Reads | Manner::Ignores => {}
                Manner::Trickles => thread::sleep(Duration::from_millis(1)),
                Manner::Cuts => return,
                Manner::Resets => return reset_when_dropped(stream),
            }
        }
    }
}

/// Whoever sends on it is told that nothing of what is under way will be read.
pub(crate) fn reset_when_dropped(stream: &TcpStream) {
    set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
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
        for connection in self.shared.connections.lock().unwrap().drain(..).filter_map(|weak| weak.upgrade())
        {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}
