//! Where the running agent is asked: an HTTP server on a unix socket in the data directory and, if the
//! config says so, on a loopback address.
//!
//! ```text
//! GET  /metrics[?samples=1]            Prometheus
//! GET  /-/ready  /-/healthy            200, or 503 with a reason on each line
//! GET  /api/v1/plugins                 JSON: a `status::Snapshot`
//! POST /api/v1/reload                  to the agent as an `AdminRequest`; unix socket only
//! POST /api/v1/plugins/NAME/release    the same
//! POST /api/v1/plugins/NAME/resume
//! POST /api/v1/plugins/NAME/deadletters/NUMBER/retry
//! ```
//!
//! Whoever may open the socket (mode 0600) may steer the agent; whoever may connect to the loopback
//! address may look. Uses: `status`, `sample`.

pub mod client;
mod exposition;
mod listener;

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::sample::Sample;
use crate::status::{AgentStatus, figures};

pub use client::{Client, ClientError};
pub use listener::{BindError, Listener};

/// So many connections at once and listener; others wait to be accepted.
const MOST_CONNECTIONS: usize = 16;

/// A request's head must have come by then.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection is closed then, whatever it does.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// What a person wants of the running agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminCommand {
    /// Config and plugin directories are to be looked at anew.
    Reload,
    /// A quarantined plugin may run again.
    Release(String),
    /// A halted handler may deliver again.
    Resume(String),
    /// A handler's dead letter of this number goes back into its queue.
    Retry(String, u64),
}

/// A command and the way back: what was done, or why it was not, in a sentence.
#[derive(Debug)]
pub struct AdminRequest {
    pub command: AdminCommand,
    pub reply: oneshot::Sender<Result<String, String>>,
}

/// Gives the last sample of every live series, as far as it is asked: of at most so many.
pub type LastSamples = Arc<dyn Fn(usize) -> Vec<Sample> + Send + Sync>;

/// Answers what the agent is asked.
pub struct Admin {
    status: AgentStatus,
    commands: mpsc::Sender<AdminRequest>,
    last_samples: LastSamples,
    /// One large answer is made at a time.
    rendering: Mutex<()>,
}

impl Admin {
    pub fn new(
        status: AgentStatus,
        commands: mpsc::Sender<AdminRequest>,
        last_samples: LastSamples,
    ) -> Arc<Self> {
        Arc::new(Self { status, commands, last_samples, rendering: Mutex::new(()) })
    }

    /// Serves until it is dropped, and its connections with it.
    pub async fn serve(self: Arc<Self>, listener: Listener) -> Infallible {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            if connections.len() >= MOST_CONNECTIONS {
                connections.join_next().await;
            }
            match listener.accept().await {
                Ok(stream) => {
                    let (admin, may_steer) = (self.clone(), listener.is_private());
                    connections.spawn(admin.talk(stream, may_steer));
                }
                Err(error) => {
                    warn!(%error, "admin server cannot accept a connection; trying again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn talk(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin, may_steer: bool) {
        let service = service_fn(|request| {
            let admin = self.clone();
            async move { Ok::<_, Infallible>(admin.answer(request, may_steer).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .keep_alive(false)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service);
        match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "admin connection ended"),
            Err(_) => debug!("admin connection took too long"),
        }
    }

    async fn answer(&self, request: Request<Incoming>, may_steer: bool) -> Response<Full<Bytes>> {
        if !may_steer && !is_local_name(&request) {
            return sentence(StatusCode::FORBIDDEN, "ask by address or as `localhost`, not by another name");
        }
        let path = request.uri().path().to_owned();
        let words: Vec<&str> = path.split('/').skip(1).collect();
        match (request.method(), words.as_slice()) {
            (&Method::GET, ["metrics"]) => self.metrics(request.uri()).await,
            (&Method::GET, ["-", "ready"]) => verdict("ready", &self.status.snapshot().awaited()),
            (&Method::GET, ["-", "healthy"]) => verdict("healthy", &self.status.snapshot().ailments()),
            (&Method::GET, ["api", "v1", "plugins"]) => self.plugins(),
            (&Method::POST, ["api", "v1", "plugins", name, verb @ ("release" | "resume")]) => {
                let name = percent_decode_str(name).decode_utf8_lossy().into_owned();
                match *verb {
                    _ if !may_steer => sentence(
                        StatusCode::METHOD_NOT_ALLOWED,
                        "here one can only look: commands go to admin.sock in the data directory",
                    ),
                    "release" => self.command(AdminCommand::Release(name)).await,
                    _ => self.command(AdminCommand::Resume(name)).await,
                }
            }
            (&Method::POST, ["api", "v1", "reload"]) if may_steer => self.command(AdminCommand::Reload).await,
            (&Method::POST, ["api", "v1", "plugins", name, "deadletters", number, "retry"]) if may_steer => {
                let name = percent_decode_str(name).decode_utf8_lossy().into_owned();
                match number.parse() {
                    Ok(number) => self.command(AdminCommand::Retry(name, number)).await,
                    Err(_) => sentence(StatusCode::NOT_FOUND, "a dead letter has a number"),
                }
            }
            (_, ["metrics"] | ["-", "ready" | "healthy"] | ["api", "v1", "plugins"]) => {
                sentence(StatusCode::METHOD_NOT_ALLOWED, "use GET here")
            }
            (_, ["api", "v1", "plugins", _, "release" | "resume"]) => {
                sentence(StatusCode::METHOD_NOT_ALLOWED, "use POST here")
            }
            _ => sentence(
                StatusCode::NOT_FOUND,
                "nothing is here; try /metrics, /-/ready, /-/healthy or /api/v1/plugins",
            ),
        }
    }

    /// Made on a thread of its own: a collector must not start late because somebody looks.
    async fn metrics(&self, uri: &Uri) -> Response<Full<Bytes>> {
        let with_samples = uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "samples=1"));
        let _one_at_a_time = self.rendering.lock().await;
        let (status, last_samples) = (self.status.clone(), self.last_samples.clone());
        let rendered = tokio::task::spawn_blocking(move || {
            let snapshot = status.snapshot();
            let mut text = exposition::figures(&figures::families(&snapshot));
            if with_samples {
                let samples = last_samples(exposition::MOST_SAMPLES);
                text.push_str(&exposition::samples(&samples, &snapshot.agent.id));
            }
            text
        });
        match rendered.await {
            Ok(text) => response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
            Err(_) => sentence(StatusCode::INTERNAL_SERVER_ERROR, "the figures could not be written down"),
        }
    }

    fn plugins(&self) -> Response<Full<Bytes>> {
        match serde_json::to_string(&self.status.snapshot()) {
            Ok(json) => response(StatusCode::OK, "application/json", json),
            Err(error) => sentence(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    async fn command(&self, command: AdminCommand) -> Response<Full<Bytes>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(AdminRequest { command, reply }).await;
        match (sent, answer.await) {
            (Ok(()), Ok(Ok(done))) => sentence(StatusCode::OK, &done),
            (Ok(()), Ok(Err(why))) => sentence(StatusCode::CONFLICT, &why),
            _ => sentence(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping"),
        }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Whether the request names the host by an address or as `localhost`. A web page can make a browser
/// ask a loopback address, but then under a name of the page's own.
fn is_local_name(request: &Request<Incoming>) -> bool {
    let Some(host) = request.headers().get(header::HOST) else { return true };
    let Some(authority) = host.to_str().ok().and_then(|host| host.parse::<http::uri::Authority>().ok())
    else {
        return false;
    };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn verdict(good: &str, reasons: &[String]) -> Response<Full<Bytes>> {
    match reasons {
        [] => sentence(StatusCode::OK, good),
        reasons => sentence(StatusCode::SERVICE_UNAVAILABLE, &reasons.join("\n")),
    }
}

fn sentence(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Element, Facts, Kind, Series};
    use crate::secrets::Secrets;
    use crate::status::{PluginKind, Snapshot};
    use std::io::{Read, Write};
    use std::net::SocketAddr;
    use std::path::{Path, PathBuf};

    /// A fresh directory that goes with the test.
    pub(super) struct Temp(PathBuf);

    impl Temp {
        pub(super) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("kimberlite-admin-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub(super) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// An agent of which there is nothing but its admin server.
    struct Running {
        temp: Temp,
        address: SocketAddr,
        status: AgentStatus,
        _servers: JoinSet<Infallible>,
    }

    async fn running(name: &str) -> Running {
        let temp = Temp::new(name);
        let status = AgentStatus::new("id-1", "web-1", 1_000, Secrets::default());
        let (commands, mut requests) = mpsc::channel::<AdminRequest>(1);
        tokio::spawn(async move {
            while let Some(AdminRequest { command, reply }) = requests.recv().await {
                let _ = reply.send(match command {
                    AdminCommand::Reload => Ok("reloaded".to_owned()),
                    AdminCommand::Release(name) => Ok(format!("`{name}` runs again")),
                    AdminCommand::Resume(name) => Err(format!("`{name}` is not halted")),
                    AdminCommand::Retry(name, number) => Ok(format!("{name}/{number} goes back")),
                });
            }
        });
        let element = Arc::new(Element::new("id-1", Facts { name: "web-1".to_owned(), ..Facts::default() }));
        let series = Arc::new(Series {
            element,
            name: "loadavg.01".into(),
            unit: "".into(),
            kind: Kind::Gauge,
            sparse_data: "".into(),
            tags: [].into(),
            handlers: 0,
        });
        let last_samples: LastSamples =
            Arc::new(move |_| vec![Sample { series: series.clone(), timestamp: 1, value: 0.5 }]);
        let admin = Admin::new(status.clone(), commands, last_samples);
        let unix = Listener::unix(&temp.path().join("admin.sock")).unwrap();
        let loopback = Listener::loopback("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = loopback.address().unwrap();
        let mut servers = JoinSet::new();
        servers.spawn(admin.clone().serve(unix));
        servers.spawn(admin.serve(loopback));
        Running { temp, address, status, _servers: servers }
    }

    impl Running {
        async fn get(&self, path: &str) -> String {
            self.talk(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
        }

        /// Over the loopback address.
        async fn talk(&self, request: &str) -> String {
            let (address, request) = (self.address, request.to_owned());
            blocking(move || {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.write_all(request.as_bytes()).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer
            })
            .await
        }

        /// Over the unix socket.
        async fn with_client<T: Send + 'static>(&self, ask: impl FnOnce(Client) -> T + Send + 'static) -> T {
            let data_dir = self.temp.path().to_owned();
            blocking(move || ask(Client::connect(&data_dir).unwrap())).await
        }
    }

    async fn blocking<T: Send + 'static>(action: impl FnOnce() -> T + Send + 'static) -> T {
        tokio::task::spawn_blocking(action).await.unwrap()
    }

    #[tokio::test]
    async fn every_name_with_something_to_measure_is_in_the_metrics() {
        let agent = running("names").await;
        agent.status.plugin("cpu", PluginKind::Collector).update(|cpu| {
            cpu.state = "running".into();
            cpu.killed("deadline");
        });
        agent.status.plugin("graphite", PluginKind::Handler).update(|graphite| graphite.dropped("full", 9));
        let text = agent.get("/metrics").await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
        for line in [
            "kimberlite_plugin_memory_bytes{plugin=\"cpu\",space=\"linear\"} 0",
            "kimberlite_plugin_memory_bytes{plugin=\"cpu\",space=\"instance\"} 0",
            "kimberlite_plugin_memory_bytes{plugin=\"cpu\",space=\"durable\"} 0",
            "kimberlite_plugin_memory_limit_bytes{plugin=\"cpu\"} 0",
            "kimberlite_plugin_cpu_seconds_total{plugin=\"cpu\"} 0",
            "kimberlite_plugin_kills_total{plugin=\"cpu\",reason=\"deadline\"} 1",
            "kimberlite_plugin_recycles_total{plugin=\"cpu\"} 0",
            "kimberlite_plugin_state{plugin=\"cpu\",state=\"running\"} 1",
            "kimberlite_collect_duration_seconds_bucket{plugin=\"cpu\",le=\"+Inf\"} 0",
            "kimberlite_collect_duration_seconds_sum{plugin=\"cpu\"} 0",
            "kimberlite_collect_lateness_seconds_count{plugin=\"cpu\"} 0",
            "kimberlite_collect_skipped_total{plugin=\"cpu\"} 0",
            "kimberlite_samples_total{plugin=\"cpu\"} 0",
            "kimberlite_samples_dropped_total{handler=\"graphite\",reason=\"full\"} 9",
            "kimberlite_queue_bytes{handler=\"graphite\"} 0",
            "kimberlite_spool_bytes{handler=\"graphite\"} 0",
            "kimberlite_series{plugin=\"cpu\"} 0",
            "kimberlite_config_last_reload_success 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("loadavg"), "{text}");
    }

    #[tokio::test]
    async fn samples_are_shown_to_those_who_ask() {
        let agent = running("samples").await;
        let text = agent.get("/metrics?x&samples=1").await;
        assert!(text.contains("# TYPE loadavg_01 gauge\nloadavg_01{element=\"web-1\"} 0.5\n"), "{text}");
        assert!(text.contains("kimberlite_config_last_reload_success 1"), "{text}");
    }

    #[tokio::test]
    async fn ready_and_healthy_say_why_not() {
        let agent = running("verdicts").await;
        let text = agent.get("/-/ready").await;
        assert!(text.starts_with("HTTP/1.1 503") && text.ends_with("plugins are being loaded\n"), "{text}");
        agent.status.set_loaded();
        let text = agent.get("/-/ready").await;
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\nready\n"), "{text}");
        let text = agent.get("/-/healthy").await;
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\nhealthy\n"), "{text}");
        agent.status.plugin("metricly", PluginKind::Handler).set_halted(Some("410 Gone"));
        let text = agent.get("/-/healthy").await;
        assert!(text.starts_with("HTTP/1.1 503"), "{text}");
        assert!(text.ends_with("handler `metricly` is halted: 410 Gone\n"), "{text}");
    }

    #[tokio::test]
    async fn the_client_reads_what_the_agent_knows() {
        let agent = running("client").await;
        agent.status.plugin("cpu", PluginKind::Collector).update(|cpu| cpu.samples_total = 12);
        let Snapshot { agent: figures, plugins } =
            agent.with_client(|client| client.plugins().unwrap()).await;
        assert_eq!((figures.id.as_str(), figures.pid), ("id-1", std::process::id()));
        assert_eq!((plugins[0].name.as_str(), plugins[0].samples_total), ("cpu", 12));
    }

    #[tokio::test]
    async fn commands_come_back_with_the_agents_words() {
        let agent = running("commands").await;
        let name = "a/b c%ü";
        let done = agent.with_client(move |client| client.release(name).unwrap()).await;
        assert_eq!(done, "`a/b c%ü` runs again");
        let error = agent.with_client(|client| client.resume("cpu").unwrap_err()).await;
        assert_eq!(error.to_string(), "`cpu` is not halted");
        assert!(matches!(error, ClientError::Refused(_)));
    }

    #[tokio::test]
    async fn on_the_loopback_address_one_can_only_look() {
        let agent = running("look").await;
        let request =
            "POST /api/v1/plugins/cpu/release HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        let text = agent.talk(request).await;
        assert!(text.starts_with("HTTP/1.1 405") && text.contains("here one can only look"), "{text}");
    }

    #[tokio::test]
    async fn a_web_page_cannot_read_the_loopback_address_under_its_own_name() {
        let agent = running("rebinding").await;
        for (host, status) in [
            ("evil.example", 403),
            ("localhost.evil.example:80", 403),
            ("a b", 403),
            ("localhost:9100", 200),
            ("127.0.0.1:9100", 200),
            ("[::1]:9100", 200),
        ] {
            let text = agent.talk(&format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {text}");
        }
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_answered_with_a_sentence() {
        let agent = running("others").await;
        for (request, status, words) in [
            ("GET / ", 404, "nothing is here"),
            ("GET /api/v1/plugins/cpu ", 404, "nothing is here"),
            ("GET /metrics/ ", 404, "nothing is here"),
            ("DELETE /metrics ", 405, "use GET here"),
            ("GET /api/v1/plugins/cpu/release ", 405, "use POST here"),
        ] {
            let text = agent.talk(&format!("{request}HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            assert!(
                text.starts_with(&format!("HTTP/1.1 {status}")) && text.contains(words),
                "{request}: {text}"
            );
        }
    }

    #[tokio::test]
    async fn idle_connections_do_not_shut_out_others_for_ever() {
        let agent = running("idle").await;
        let address = agent.address;
        let idle = blocking(move || {
            (0..MOST_CONNECTIONS).map(|_| std::net::TcpStream::connect(address).unwrap()).collect::<Vec<_>>()
        })
        .await;
        let waiting = agent.get("/-/healthy");
        let release = blocking(move || drop(idle));
        let (text, ()) = tokio::join!(waiting, release);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
}
