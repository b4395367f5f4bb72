//! An HTTP server that answers by script and keeps what it was sent.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// The status it was answered with; none: it was left to wait.
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
}

/// Serves until the test process ends.
#[derive(Debug)]
pub struct HttpSink {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    script: Arc<Mutex<Vec<Reply>>>,
}

impl HttpSink {
    /// The n-th request gets the n-th reply, all further ones the last.
    pub fn start(script: &[Reply]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(script.to_vec()));
        let (kept, played) = (requests.clone(), script.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, script) = (kept.clone(), played.clone());
                thread::spawn(move || serve(stream, &script, &kept));
            }
        });
        Self { address, requests, script }
    }

    /// From now on all requests get this.
    pub fn answer(&self, reply: Reply) {
        *self.script.lock().unwrap() = vec![reply];
    }

    /// Those that were answered with this status.
    pub fn answered(&self, status: u16) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.status == Some(status)).collect()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// One connection, request by request. None: it has ended.
fn serve(stream: TcpStream, script: &Mutex<Vec<Reply>>, kept: &Mutex<Vec<Request>>) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = read(&mut reader)?;
        let reply = {
            let mut kept = kept.lock().unwrap();
            let script = script.lock().unwrap();
            let reply = *script.get(kept.len()).or(script.last())?;
            request.status = match reply {
                Reply::Status(status) | Reply::After(status, _) => Some(status),
                Reply::Silence => None,
            };
            kept.push(request);
            reply
        };
        match reply {
            Reply::Status(status) => {
                write!(writer, "HTTP/1.1 {status} Scripted\r\ncontent-length: 0\r\n\r\n")
            }
            Reply::After(status, seconds) => write!(
                writer,
                "HTTP/1.1 {status} Scripted\r\nretry-after: {seconds}\r\ncontent-length: 0\r\n\r\n"
            ),
            Reply::Silence => Ok(()),
        }
        .ok()?;
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
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
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body: String::from_utf8(body).ok()?, status: None })
}
