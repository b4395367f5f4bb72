//! An HTTP server that answers by script and keeps what it was sent.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};

use crate::Identity;
use crate::line_sink::reset_when_dropped;

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// The status it was answered with, even if the answer never arrived whole; none: it was left to
    /// wait, or not even read.
    pub status: Option<u16>,
}

/// What a request gets.
#[derive(Debug, Clone, Copy)]
pub enum Reply {
    Status(u16),
    /// A status, and the header `Retry-After` in seconds.
    After(u16, u32),
    /// Nothing, while the connection stays open.
    Silence,
    /// 202, byte by byte.
    Trickle,
    /// 202, and a body without an end.
    Endless,
    /// An end of the connection before the body has been read.
    Cut,
    /// A reset of the connection once all has been taken, which counts as 202.
    Reset,
}

impl Reply {
    fn status(self) -> Option<u16> {
        match self {
            Reply::Status(status) | Reply::After(status, _) => Some(status),
            Reply::Trickle | Reply::Endless | Reply::Reset => Some(202),
            Reply::Silence | Reply::Cut => None,
        }
    }
}

/// Serves until the test process ends.
#[derive(Debug)]
pub struct HttpSink {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requests: Mutex<Vec<Request>>,
    script: Mutex<Vec<Reply>>,
    /// None: plain text.
    identity: Mutex<Option<Identity>>,
}

impl HttpSink {
    /// The n-th request gets the n-th reply, all further ones the last.
    pub fn start(script: &[Reply]) -> Self {
        Self::start_on(TcpListener::bind(("127.0.0.1", 0)).unwrap(), script)
    }

    pub fn start_on(listener: TcpListener, script: &[Reply]) -> Self {
        let shared = Shared {
            requests: Mutex::default(),
            script: Mutex::new(script.to_vec()),
            identity: Mutex::default(),
        };
        let sink = Self { address: listener.local_addr().unwrap(), shared: Arc::new(shared) };
        let shared = sink.shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                thread::spawn(move || shared.connection(stream));
            }
        });
        sink
    }

    /// From now on all requests get this.
    pub fn answer(&self, reply: Reply) {
        *self.shared.script.lock().unwrap() = vec![reply];
    }

    /// From the next connection on it speaks TLS and shows this.
    pub fn show(&self, identity: Identity) {
        *self.shared.identity.lock().unwrap() = Some(identity);
    }

    /// Those that were answered with this status.
    pub fn answered(&self, status: u16) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.status == Some(status)).collect()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Shared {
    /// None: it has ended.
    fn connection(&self, stream: TcpStream) -> Option<()> {
        let identity = self.identity.lock().unwrap().clone();
        let Some(Identity(config)) = identity else { return self.serve(stream.try_clone().ok()?, stream) };
        let tls = ServerConnection::new(config).ok()?;
        self.serve(StreamOwned::new(tls, stream.try_clone().ok()?), stream)
    }

    /// One connection, request by request.
    fn serve(&self, stream: impl Read + Write, socket: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let (mut request, length) = head(&mut reader)?;
            let reply = {
                let script = self.script.lock().unwrap();
                *script.get(self.requests.lock().unwrap().len()).or(script.last())?
            };
            let is_cut = matches!(reply, Reply::Cut);
            if !is_cut {
                let mut body = vec![0; length];
                reader.read_exact(&mut body).ok()?;
                request.body = String::from_utf8(body).ok()?;
            }
            request.status = reply.status();
            self.requests.lock().unwrap().push(request);
            let to = reader.get_mut();
            match reply {
                Reply::Status(status) => send(to, &format!("HTTP/1.1 {status} Scripted\r\n{EMPTY}")),
                Reply::After(status, seconds) => {
                    send(to, &format!("HTTP/1.1 {status} Scripted\r\nretry-after: {seconds}\r\n{EMPTY}"))
                }
                Reply::Trickle => format!("HTTP/1.1 202 Scripted\r\n{EMPTY}").chars().try_for_each(|byte| {
                    thread::sleep(Duration::from_millis(5));
                    send(to, &byte.to_string())
                }),
                Reply::Endless => {
                    send(to, "HTTP/1.1 202 Scripted\r\ntransfer-encoding: chunked\r\n\r\n")?;
                    std::iter::repeat("4\r\nmore\r\n").try_for_each(|chunk| {
                        thread::sleep(Duration::from_millis(5));
                        send(to, chunk)
                    })
                }
                Reply::Silence => Some(()),
                Reply::Cut => None,
                Reply::Reset => {
                    reset_when_dropped(&socket);
                    None
                }
            }?;
        }
    }
}

const EMPTY: &str = "content-length: 0\r\n\r\n";

fn send(to: &mut impl Write, text: &str) -> Option<()> {
    to.write_all(text.as_bytes()).and_then(|()| to.flush()).ok()
}

/// A request but for its body, and how long that is.
fn head(reader: &mut impl BufRead) -> Option<(Request, usize)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    Some((Request { method, path, headers, body: String::new(), status: None }, length))
}
