//! `wasi:http` for guests: granted origins only, carried by the agent's own pooled client, every
//! body metered, every wait within the call's deadline.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::Scheme;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::Sleep;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::limits::{Charge, HostBytes, Meter};
use super::network::{Traffic, is_reachable};
use super::store::Context;
use crate::tls::{self, FileStates};

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Answer = Result<(http::Response<WasiBody>, Io), Error>;

/// The clients of one plugin, made when first used: most plugins never use one.
#[derive(Debug, Default)]
pub struct HttpAccess {
    /// By socket; none: over TCP.
    clients: Mutex<HashMap<Option<PathBuf>, Client>>,
    /// `agent.proxy`.
    proxy: Option<String>,
}

/// Its connections are never used for longer than it is.
#[derive(Debug)]
struct Client {
    client: reqwest::Client,
    made: Duration,
    files: FileStates,
    /// What those files say: reading the system's certificates takes time that others would feel.
    tls: rustls::ClientConfig,
}

/// Of all that it takes to connect: a name with several addresses has a share of it for each.
const CONNECT: Duration = Duration::from_secs(10);

impl HttpAccess {
    pub fn new(proxy: Option<String>) -> Self {
        Self { clients: Mutex::default(), proxy }
    }

    /// One that trusts and shows the certificates there are now, and has not grown too old: so names
    /// are resolved anew and load is balanced, however busy its connections are.
    fn client(&self, socket: Option<PathBuf>, context: &Context) -> Result<reqwest::Client, String> {
        let Ok(mut clients) = self.clients.lock() else { return Err("HTTP client is gone".to_owned()) };
        let (now, files) = (context.clock.monotonic(), FileStates::of(&context.tls));
        let is_fresh = |known: &Client| {
            known.files == files && now.saturating_sub(known.made) < context.limits.connection_age
        };
        if let Some(known) = clients.get(&socket).filter(|known| is_fresh(known)) {
            return Ok(known.client.clone());
        }
        let known = clients.get(&socket);
        let tls = match known.filter(|known| known.files == files) {
            Some(known) => known.tls.clone(),
            None => match (tls::client_config(&context.tls), known) {
                (Ok(tls), _) => tls,
                // Half a certificate is written: the old one is good until it is whole.
                (Err(error), Some(known)) => {
                    tracing::warn!(
                        plugin = context.name,
                        error,
                        "TLS files cannot be used; going on with the old ones"
                    );
                    known.tls.clone()
                }
                (Err(error), None) => return Err(error),
            },
        };
        let client = self.build(socket.as_ref(), tls.clone())?;
        clients.insert(socket, Client { client: client.clone(), made: now, files, tls });
        Ok(client)
    }

    fn build(&self, socket: Option<&PathBuf>, tls: rustls::ClientConfig) -> Result<reqwest::Client, String> {
        let mut builder = reqwest::Client::builder()
            .use_preconfigured_tls(tls)
            .redirect(reqwest::redirect::Policy::none())
            // The environment's proxy is nobody's explicit wish.
            .no_proxy()
            .dns_resolver(Reachable)
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(2)
            .pool_idle_timeout(Duration::from_secs(90));
        if let Some(path) = socket {
            builder = builder.unix_socket(path.clone());
        } else if let Some(proxy) = &self.proxy {
            let proxy = reqwest::Proxy::all(proxy).map_err(|error| format!("agent.proxy: {error}"))?;
            builder = builder.proxy(proxy);
        }
        builder.build().map_err(|error| format!("HTTP client: {error}"))
    }
}

/// Resolves names, but not to where a granted name may not lead.
struct Reachable;

impl Resolve for Reachable {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<_> =
                found.into_iter().filter(|address| is_reachable(name.as_str(), address)).collect();
            if allowed.is_empty() {
                return Err("no address that a granted name may lead to".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// What the guest's requests pass through. Does not see the store, so what it needs is set before
/// each call.
pub(super) struct Hooks {
    context: Arc<Context>,
    traffic: Arc<Traffic>,
    meter: Arc<Meter>,
    host_bytes: HostBytes,
}

/// What an exchange costs the host while its answer is open: headers and a chunk of the body.
const EXCHANGE: usize = 128 * 1024;

impl Hooks {
    pub(super) fn new(
        context: Arc<Context>,
        traffic: Arc<Traffic>,
        meter: Arc<Meter>,
        host_bytes: HostBytes,
    ) -> Self {
        Self { context, traffic, meter, host_bytes }
    }

    pub(super) fn begin_call(&mut self, meter: Arc<Meter>) {
        self.meter = meter;
    }

    /// Which socket carries the request, if it is granted. The host is judged as the URL parser
    /// reads it: `2130706433` is 127.0.0.1, and a resolver is never asked about an address.
    fn route(&self, request: &reqwest::Request) -> Result<Option<PathBuf>, String> {
        let url = request.url();
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(0);
        let grants = &self.context.grants;
        if let Some(alias) = host.strip_suffix(".unix") {
            return match grants.unix_socket(alias) {
                Some(path) => Ok(Some(path.to_owned())),
                None => Err(grants.http_refusal(&self.context.name, url.scheme(), host, port)),
            };
        }
        if !grants.allows_http(url.scheme(), host, port) {
            return Err(grants.http_refusal(&self.context.name, url.scheme(), host, port));
        }
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        match literal.parse::<std::net::IpAddr>() {
            Ok(ip) if !is_reachable(literal, &SocketAddr::new(ip, port)) => {
                Err(format!("{ip} cannot be reached by HTTP"))
            }
            _ => Ok(None),
        }
    }
}

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Io,
    ) -> Box<dyn Future<Output = Answer> + Send> {
        let limit = self.context.limits.http_body;
        let until = self.meter.io_deadline();
        let Some(charge) = self.host_bytes.charge(EXCHANGE) else {
            return Box::new(async { Err(Error::ConnectionLimitReached) });
        };
        let outgoing = request
            .map(|body| reqwest::Body::wrap(Metered::new(body, limit, until, self.traffic.clone(), None)));
        let prepared = reqwest::Request::try_from(outgoing)
            .map_err(|_| Error::HttpRequestUriInvalid)
            .and_then(|request| match self.route(&request) {
                Ok(socket) => Ok((request, socket)),
                Err(refusal) => {
                    tracing::warn!(plugin = self.context.name, "{refusal}");
                    Err(Error::HttpRequestDenied)
                }
            })
            .and_then(|(request, socket)| {
                let client = self.context.http.client(socket, &self.context);
                client.map(|client| (client, request)).map_err(|text| Error::InternalError(Some(text)))
            });
        let traffic = self.traffic.clone();
        let first_byte = options.and_then(|options| options.first_byte_timeout);
        Box::new(async move {
            let (client, request) = prepared?;
            let patience = first_byte.map_or(until, |wait| until.min(Instant::now() + wait));
            let response = tokio::time::timeout_at(patience.into(), client.execute(request))
                .await
                .map_err(|_| Error::HttpResponseTimeout)?
                .map_err(|error| wasi_error(&error))?;
            let response: http::Response<reqwest::Body> = response.into();
            let response =
                response.map(|body| Metered::new(body, limit, until, traffic, Some(charge)).boxed_unsync());
            Ok((response, Box::new(async { Ok(()) }) as Io))
        })
    }

    fn is_supported_scheme(&mut self, scheme: &Scheme) -> bool {
        *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS
    }

    /// A guest may hold as many unsent bodies as handles; each keeps up to two chunks.
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        16 * 1024
    }
}

fn wasi_error(error: &reqwest::Error) -> Error {
    // The URL may hold a key.
    let mut text = String::new();
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    if error.is_timeout() {
        Error::ConnectionTimeout
    } else if error.is_connect() && text.contains("refused") {
        Error::ConnectionRefused
    } else if error.is_connect() && (text.contains("certificate") || text.contains("invalid peer")) {
        Error::TlsCertificateError
    } else if error.is_connect() && (text.contains("lookup") || text.contains("no address")) {
        Error::DnsError { rcode: Some(text), info_code: None }
    } else if error.is_body() || text.contains("closed") || text.contains("reset") {
        Error::ConnectionTerminated
    } else {
        Error::InternalError(Some(text))
    }
}

/// A body that counts, refuses to grow beyond a limit, and gives up at a deadline.
struct Metered<B> {
    // A guest's body is not `Sync`, which reqwest wants; nobody ever shares it.
    body: Mutex<B>,
    left: u64,
    until: Pin<Box<Sleep>>,
    traffic: Arc<Traffic>,
    _charge: Option<Charge>,
}

impl<B> Metered<B> {
    fn new(body: B, limit: u64, until: Instant, traffic: Arc<Traffic>, charge: Option<Charge>) -> Self {
        Self {
            body: Mutex::new(body),
            left: limit,
            until: Box::pin(tokio::time::sleep_until(until.into())),
            traffic,
            _charge: charge,
        }
    }
}

impl<B> Body for Metered<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if this.until.as_mut().poll(task).is_ready() {
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
        }
        let Ok(body) = this.body.get_mut() else {
            return Poll::Ready(Some(Err(Error::ConnectionTerminated)));
        };
        let Some(frame) = ready!(Pin::new(body).poll_frame(task)) else { return Poll::Ready(None) };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                return Poll::Ready(Some(Err(Error::InternalError(Some(error.into().to_string())))));
            }
        };
        let size = frame.data_ref().map_or(0, Bytes::len);
        match this.left.checked_sub(size as u64) {
            Some(left) if this.traffic.take(size) => {
                this.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            _ => Poll::Ready(Some(Err(Error::HttpResponseBodySize(None)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.lock().is_ok_and(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.lock().map_or_else(|_| SizeHint::default(), |body| body.size_hint())
    }
}
