//! The imports `tcp` and `udp`: granted addresses only, metered, with the call's deadline.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wasmtime::component::Resource;

use super::bindings::kimberlite::plugin::net::{self, NetError};
use super::bindings::kimberlite::plugin::{tcp, udp};
use super::limits::{Charge, LimitHit};
use super::store::Guest;
use crate::config::{Limits, TlsConfig};
use crate::reason::ReasonCode;
use crate::tls;

/// Bytes on the network: of the current call against its limit, and in all.
#[derive(Debug)]
pub(super) struct Traffic {
    limit: u64,
    call: AtomicU64,
}

impl Traffic {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { limit: limits.net_bytes, call: AtomicU64::new(0) }
    }

    pub(super) fn begin_call(&self) {
        self.call.store(0, Ordering::Relaxed);
    }

    /// Whether `bytes` more are within the limit; counted either way.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let before = self.call.fetch_add(bytes as u64, Ordering::Relaxed);
        before + bytes as u64 <= self.limit
    }

    fn spend(&self, bytes: usize) -> Result<(), NetError> {
        if self.take(bytes) {
            return Ok(());
        }
        Err(NetError::Limit(format!("more than {} bytes in one call (limits.net_bytes)", self.limit)))
    }
}

/// A connection a guest holds. Closed with its store.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
pub struct Connection {
    stream: Stream,
    /// Bytes that arrived while looking whether the other side is still there.
    early: Vec<u8>,
    /// How the other side ended it, if that was seen while looking.
    ended: Option<Result<(), NetError>>,
    _charge: Charge,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A socket a guest holds, connected to one address.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
pub struct Datagrams(UdpSocket, #[expect(dead_code, reason = "counts while it lives")] Charge);

/// What a socket costs the host, buffers of the kernel and of TLS included.
const SOCKET: usize = 64 * 1024;

/// Addresses a granted name may not lead to: the operator named a service, not the machine's own
/// metadata or a group of machines.
pub(super) fn is_reachable(host: &str, address: &SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    if host.parse::<std::net::IpAddr>().is_ok() {
        // An address literal is granted as such.
        return !ip.is_multicast() && !ip.is_unspecified();
    }
    let link_local = match ip {
        std::net::IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let loopback = ip.is_loopback() && !host.eq_ignore_ascii_case("localhost");
    !(link_local || loopback || ip.is_multicast() || ip.is_unspecified())
}

async fn resolve(address: &str, until: Instant) -> Result<Vec<SocketAddr>, NetError> {
    let Some((host, _)) = address.rsplit_once(':') else {
        return Err(NetError::Unresolved(format!("`{address}` is not host:port")));
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let found: Vec<SocketAddr> = timed(until, address, tokio::net::lookup_host(address))
        .await
        .map_err(|error| match error {
            NetError::Other(text) => NetError::Unresolved(text),
            other => other,
        })?
        .collect();
    let allowed: Vec<_> = found.iter().filter(|found| is_reachable(&host, found)).copied().collect();
    if allowed.is_empty() {
        return Err(NetError::Unresolved(match found.first() {
            None => format!("{address} has no address"),
            Some(first) => format!(
                "{address} leads to {}, which a granted name may not (loopback, link-local, multicast)",
                first.ip()
            ),
        }));
    }
    Ok(allowed)
}

/// `work`, until the call's I/O deadline.
async fn timed<T>(
    until: Instant,
    address: &str,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, NetError> {
    match tokio::time::timeout_at(until.into(), work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(net_error(address, &error)),
        Err(_) => Err(NetError::TimedOut(format!("{address} did not answer in time"))),
    }
}

fn net_error(address: &str, error: &io::Error) -> NetError {
    let text = format!("{address}: {error}");
    match error.kind() {
        io::ErrorKind::ConnectionRefused => NetError::Refused(text),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::NotConnected => NetError::Closed(text),
        io::ErrorKind::TimedOut => NetError::TimedOut(text),
        _ => NetError::Other(text),
    }
}

impl net::Host for Guest {}

impl tcp::Host for Guest {
    async fn connect(
        &mut self,
        address: String,
        options: tcp::Options,
    ) -> wasmtime::Result<Result<Resource<Connection>, NetError>> {
        if !self.context.grants.allows_tcp(&address) {
            let hint = self.context.grants.tcp_refusal(&self.context.name, &address);
            return Ok(Err(NetError::NotGranted(hint)));
        }
        let charge = self.socket_charge()?;
        let until = self.meter.io_deadline();
        Ok(match open(&address, options, &self.context.tls.clone(), until).await {
            Ok(stream) => {
                let connection = Connection { stream, early: Vec::new(), ended: None, _charge: charge };
                Ok(self.table.push(connection)?)
            }
            Err(error) => Err(error),
        })
    }
}

impl Guest {
    fn socket_charge(&self) -> Result<Charge, LimitHit> {
        self.host_bytes.charge(SOCKET).ok_or_else(|| {
            LimitHit::new(
                ReasonCode::HostMemoryLimit,
                format!(
                    "keeps so many sockets open that the host would hold more than {} bytes for it (limits.host_memory)",
                    self.context.limits.host_memory
                ),
            )
        })
    }
}

async fn open(
    address: &str,
    options: tcp::Options,
    tls: &TlsConfig,
    until: Instant,
) -> Result<Stream, NetError> {
    let candidates = resolve(address, until).await?;
    let stream = connect(address, &candidates, until).await?;
    // Batches go out in one piece; waiting for more would only delay them.
    stream.set_nodelay(true).map_err(|error| net_error(address, &error))?;
    let Some(name) = options.tls_name else { return Ok(Stream::Plain(stream)) };
    let config = tls::client_config(tls).map_err(NetError::Tls)?;
    let server =
        rustls::pki_types::ServerName::try_from(name).map_err(|error| NetError::Tls(error.to_string()))?;
    let tls = timed(until, address, TlsConnector::from(Arc::new(config)).connect(server, stream));
    match tls.await {
        Ok(tls) => Ok(Stream::Tls(Box::new(tls))),
        Err(NetError::Other(text)) => Err(NetError::Tls(text)),
        Err(error) => Err(error),
    }
}

/// The first address that answers; each has its share of the time, so that a dead one does not take
/// all of it.
async fn connect(address: &str, candidates: &[SocketAddr], until: Instant) -> Result<TcpStream, NetError> {
    let mut tried = Err(NetError::Unresolved(format!("{address} has no address")));
    for (place, candidate) in candidates.iter().enumerate() {
        let now = Instant::now();
        let share = until.saturating_duration_since(now) / (candidates.len() - place) as u32;
        tried = timed(now + share, address, TcpStream::connect(candidate)).await;
        if tried.is_ok() {
            break;
        }
    }
    tried
}

impl tcp::HostConnection for Guest {
    async fn send(
        &mut self,
        connection: Resource<Connection>,
        bytes: Vec<u8>,
    ) -> wasmtime::Result<Result<(), NetError>> {
        if let Err(error) = self.traffic.spend(bytes.len()) {
            return Ok(Err(error));
        }
        let until = self.meter.io_deadline();
        let connection = self.table.get_mut(&connection)?;
        Ok(timed(until, "connection", async {
            connection.stream.write_all(&bytes).await?;
            connection.stream.flush().await
        })
        .await)
    }

    async fn receive(
        &mut self,
        connection: Resource<Connection>,
        max: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, NetError>> {
        // More than this at once would be the host's memory, not the guest's.
        let max = (max as usize).min(256 * 1024);
        let until = self.meter.io_deadline();
        let connection = self.table.get_mut(&connection)?;
        let received = if !connection.early.is_empty() {
            let count = max.min(connection.early.len());
            Ok(connection.early.drain(..count).collect())
        } else if let Some(ended) = &connection.ended {
            ended.clone().map(|()| Vec::new())
        } else {
            let mut bytes = vec![0; max];
            timed(until, "connection", connection.stream.read(&mut bytes)).await.map(|count| {
                bytes.truncate(count);
                bytes
            })
        };
        Ok(received.and_then(|bytes| self.traffic.spend(bytes.len()).map(|()| bytes)))
    }

    async fn is_closed(&mut self, connection: Resource<Connection>) -> wasmtime::Result<bool> {
        let connection = self.table.get_mut(&connection)?;
        Ok(connection.look())
    }

    async fn finish(&mut self, connection: Resource<Connection>) -> wasmtime::Result<Result<(), NetError>> {
        let until = self.meter.io_deadline();
        let connection = self.table.get_mut(&connection)?;
        Ok(timed(until, "connection", connection.stream.shutdown()).await)
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

impl Connection {
    /// Whether the other side has ended it, without waiting.
    fn look(&mut self) -> bool {
        let mut task = TaskContext::from_waker(Waker::noop());
        let mut space = [0; 1024];
        while self.ended.is_none() && self.early.len() < 64 * 1024 {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(&mut task, &mut buffer) {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.early.extend_from_slice(buffer.filled());
                }
                Poll::Ready(ended) => {
                    self.ended = Some(ended.map_err(|error| net_error("connection", &error)));
                }
            }
        }
        self.ended.is_some()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(task, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(task, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, task: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(task, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(task, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(task),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(task),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(task),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(task),
        }
    }
}

impl udp::Host for Guest {
    async fn connect(&mut self, address: String) -> wasmtime::Result<Result<Resource<Datagrams>, NetError>> {
        if !self.context.grants.allows_udp(&address) {
            let hint = self.context.grants.udp_refusal(&self.context.name, &address);
            return Ok(Err(NetError::NotGranted(hint)));
        }
        let charge = self.socket_charge()?;
        let until = self.meter.io_deadline();
        let socket = async {
            let candidates = resolve(&address, until).await?;
            let any = if candidates[0].is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            timed(until, &address, async {
                let socket = UdpSocket::bind(any).await?;
                socket.connect(candidates[0]).await?;
                Ok(socket)
            })
            .await
        };
        Ok(match socket.await {
            Ok(socket) => Ok(self.table.push(Datagrams(socket, charge))?),
            Err(error) => Err(error),
        })
    }
}

impl udp::HostSocket for Guest {
    async fn send(
        &mut self,
        socket: Resource<Datagrams>,
        bytes: Vec<u8>,
        ends: Vec<u32>,
    ) -> wasmtime::Result<Result<u32, NetError>> {
        if let Err(error) = self.traffic.spend(bytes.len()) {
            return Ok(Err(error));
        }
        let until = self.meter.io_deadline();
        let Datagrams(socket, _) = self.table.get_mut(&socket)?;
        let (mut start, mut sent) = (0, 0);
        for end in ends {
            let Some(datagram) = bytes.get(start..end as usize) else {
                return Ok(Err(NetError::Other("ends must rise and stay within the bytes".to_owned())));
            };
            start = end as usize;
            match timed(until, "socket", socket.send(datagram)).await {
                Ok(_) => sent += 1,
                Err(error) if sent == 0 => return Ok(Err(error)),
                Err(_) => break,
            }
        }
        Ok(Ok(sent))
    }

    async fn receive(
        &mut self,
        socket: Resource<Datagrams>,
        max: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, NetError>> {
        let until = self.meter.io_deadline();
        let Datagrams(socket, _) = self.table.get_mut(&socket)?;
        let mut bytes = vec![0; (max as usize).min(64 * 1024)];
        let received = timed(until, "socket", socket.recv(&mut bytes)).await;
        Ok(received.and_then(|count| {
            bytes.truncate(count);
            self.traffic.spend(count).map(|()| bytes)
        }))
    }

    async fn drop(&mut self, socket: Resource<Datagrams>) -> wasmtime::Result<()> {
        self.table.delete(socket)?;
        Ok(())
    }
}
