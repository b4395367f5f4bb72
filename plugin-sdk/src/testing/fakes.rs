//! The agent as a test sees it: one world for each thread, behind the functions that the generated
//! imports have in a component.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::agent::Info;
use crate::bindings::imports::kimberlite::plugin as wit;
use crate::log::Severity;
use crate::net::NetError;

type HttpServer = Box<dyn FnMut(&crate::http::Request) -> Result<crate::http::Response, crate::http::Error>>;
type TcpServer = Box<dyn FnMut(TcpCall<'_>) -> Result<Vec<u8>, NetError>>;
type UdpServer = Box<dyn FnMut(UdpCall<'_>) -> Result<Vec<u8>, NetError>>;

pub(super) struct World {
    pub(super) agent: Info,
    pub(super) stats: BTreeMap<String, Family>,
    pub(super) state: BTreeMap<String, Vec<u8>>,
    pub(super) http: Option<HttpServer>,
    pub(super) tcp: Option<TcpServer>,
    pub(super) udp: Option<UdpServer>,
    pub(super) logs: VecDeque<(Severity, String)>,
    /// The due time of the run that is going on.
    pub(super) due: u64,
    connections: u32,
}

/// One family of `host_stats`.
#[derive(Default)]
pub(super) struct Family {
    pub(super) now: Option<wit::host_stats::Table>,
    /// What the plugin has seen in the run that is going on.
    seen: Option<wit::host_stats::Table>,
    /// What it saw at the last run that ended well, and when that was due.
    previous: Option<(u64, wit::host_stats::Table)>,
}

/// What a plugin does with a TCP connection. `connection` counts them, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpCall<'a> {
    /// It connects.
    Connect {
        /// Which connection this is going to be.
        connection: u32,
        /// To where.
        address: &'a str,
        /// The name that the certificate has to be valid for; none: plain.
        tls_name: Option<&'a str>,
    },
    /// It sends these bytes.
    Send {
        /// On which connection.
        connection: u32,
        /// All of them.
        bytes: &'a [u8],
    },
    /// It waits for at most so many bytes.
    Receive {
        /// On which connection.
        connection: u32,
        /// How many it takes; more than that are cut off.
        max: u32,
    },
    /// It wants to know whether the other side has ended the connection: an error means yes.
    IsClosed {
        /// Which connection.
        connection: u32,
    },
    /// It ends its half.
    Finish {
        /// Of which connection.
        connection: u32,
    },
}

/// What a plugin does with a UDP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpCall<'a> {
    /// It makes a socket for this address.
    Connect {
        /// For whom.
        address: &'a str,
    },
    /// It sends a datagram; each of many is a call of its own.
    Send {
        /// All of it.
        datagram: &'a [u8],
    },
    /// It waits for a datagram and takes at most so many bytes of it.
    Receive {
        /// How many; more than that are cut off.
        max: u32,
    },
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World {
        agent: Info {
            version: "0.1.0".to_owned(),
            id: "test".to_owned(),
            name: "test".to_owned(),
            remaining: Duration::from_secs(10),
        },
        stats: BTreeMap::new(),
        state: BTreeMap::new(),
        http: None,
        tcp: None,
        udp: None,
        logs: VecDeque::new(),
        due: 0,
        connections: 0,
    });
}

pub(super) fn with<R>(f: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with_borrow_mut(f)
}

/// Lends `server` out while it runs, so that it may use the fakes itself.
fn serve<S: ?Sized, R>(
    server: fn(&mut World) -> &mut Option<Box<S>>,
    call: impl FnOnce(&mut S) -> R,
) -> Option<R> {
    let mut lent = with(|world| server(world).take())?;
    let answer = call(&mut lent);
    with(|world| {
        server(world).get_or_insert(lent);
    });
    Some(answer)
}

/// A run that may fail begins.
pub(super) fn begin(due: u64) -> Before {
    with(|world| {
        world.due = due;
        Before { state: world.state.clone() }
    })
}

/// What a failed run must not have changed.
pub(super) struct Before {
    state: BTreeMap<String, Vec<u8>>,
}

/// The run has ended; what it did counts if it ended well.
pub(super) fn end(before: Before, well: bool) {
    with(|world| {
        let due = world.due;
        for family in world.stats.values_mut() {
            let seen = family.seen.take();
            if well && let Some(seen) = seen {
                family.previous = Some((due, seen));
            }
        }
        if !well {
            world.state = before.state;
        }
    });
}

pub(crate) mod log {
    use super::wit::log::Severity as Wire;
    use super::{Severity, with};

    const KEPT: usize = 1000;

    #[expect(clippy::print_stderr, reason = "natively there is no agent to log to")]
    pub(crate) fn log(severity: Wire, message: &str) {
        let severity = match severity {
            Wire::Error => Severity::Error,
            Wire::Warn => Severity::Warn,
            Wire::Info => Severity::Info,
            Wire::Debug => Severity::Debug,
            Wire::Trace => Severity::Trace,
        };
        eprintln!("{severity:?}: {message}");
        with(|world| {
            if world.logs.len() == KEPT {
                world.logs.pop_front();
            }
            world.logs.push_back((severity, message.to_owned()));
        });
    }

    pub(crate) fn enabled(_severity: Wire) -> bool {
        true
    }
}

pub(crate) mod agent {
    use super::wit::agent::AgentInfo;
    use super::with;

    pub(crate) fn info() -> AgentInfo {
        let info = with(|world| world.agent.clone());
        let remaining = u64::try_from(info.remaining.as_millis()).unwrap_or(u64::MAX);
        AgentInfo { version: info.version, id: info.id, name: info.name, remaining }
    }
}

pub(crate) mod state {
    use super::wit::state::StateError;
    use super::with;

    /// The agent's own default.
    const LIMIT: usize = 64 * 1024;

    pub(crate) fn get(key: &str) -> Result<Option<Vec<u8>>, StateError> {
        Ok(with(|world| world.state.get(key).cloned()))
    }

    pub(crate) fn set(key: &str, value: &[u8]) -> Result<(), StateError> {
        with(|world| {
            let others = world.state.iter().filter(|(other, _)| *other != key);
            let bytes: usize = others.map(|(other, value)| other.len() + value.len()).sum();
            if bytes + key.len() + value.len() > LIMIT {
                return Err(StateError::Full(LIMIT as u64));
            }
            world.state.insert(key.to_owned(), value.to_vec());
            Ok(())
        })
    }

    pub(crate) fn remove(key: &str) -> Result<(), StateError> {
        with(|world| world.state.remove(key));
        Ok(())
    }

    pub(crate) fn keys() -> Result<Vec<String>, StateError> {
        Ok(with(|world| world.state.keys().cloned().collect()))
    }
}

pub(crate) mod host_stats {
    use super::wit::host_stats::{StatsError, View};
    use super::with;

    pub(crate) const FAMILIES: [&str; 7] =
        ["cpu", "memory", "load", "disk", "filesystem", "network", "vmstat"];

    fn view(name: &str) -> Result<View, StatsError> {
        with(|world| {
            let due = world.due;
            let family = world.stats.get_mut(name).and_then(|family| Some((family.now.clone()?, family)));
            let Some((now, family)) = family else {
                let hint = format!("the test has not said `testing::set_host_stats(\"{name}\", …)`");
                return Err(StatsError::NotGranted(hint));
            };
            family.seen = Some(now.clone());
            let previous = family.previous.clone();
            let elapsed = previous.as_ref().map(|(then, _)| due.saturating_sub(*then) * 1000);
            Ok(View { now, previous: previous.map(|(_, table)| table), elapsed })
        })
    }

    macro_rules! families {
        ($($family:ident)*) => {
            $(pub(crate) fn $family() -> Result<View, StatsError> {
                view(stringify!($family))
            })*
        };
    }

    families!(cpu memory load disk filesystem network vmstat);
}

pub(crate) mod tcp {
    use super::wit::net::NetError as Wire;
    use super::wit::tcp::Options;
    use super::{NetError, TcpCall, serve, with};

    pub(crate) struct Connection(u32);

    fn ask(call: TcpCall<'_>) -> Result<Vec<u8>, NetError> {
        let refusal = || NetError::NotGranted("the test has not said `testing::serve_tcp(…)`".to_owned());
        serve(|world| &mut world.tcp, |server| server(call)).unwrap_or_else(|| Err(refusal()))
    }

    pub(crate) fn connect(address: &str, options: &Options) -> Result<Connection, Wire> {
        let connection = with(|world| {
            world.connections += 1;
            world.connections - 1
        });
        ask(TcpCall::Connect { connection, address, tls_name: options.tls_name.as_deref() })?;
        Ok(Connection(connection))
    }

    impl Connection {
        pub(crate) fn send(&self, bytes: &[u8]) -> Result<(), Wire> {
            ask(TcpCall::Send { connection: self.0, bytes })?;
            Ok(())
        }

        pub(crate) fn receive(&self, max: u32) -> Result<Vec<u8>, Wire> {
            let mut bytes = ask(TcpCall::Receive { connection: self.0, max })?;
            bytes.truncate(max as usize);
            Ok(bytes)
        }

        pub(crate) fn is_closed(&self) -> bool {
            ask(TcpCall::IsClosed { connection: self.0 }).is_err()
        }

        pub(crate) fn finish(&self) -> Result<(), Wire> {
            ask(TcpCall::Finish { connection: self.0 })?;
            Ok(())
        }
    }
}

pub(crate) mod udp {
    use super::wit::net::NetError as Wire;
    use super::{NetError, UdpCall, serve};

    pub(crate) struct Socket;

    fn ask(call: UdpCall<'_>) -> Result<Vec<u8>, NetError> {
        let refusal = || NetError::NotGranted("the test has not said `testing::serve_udp(…)`".to_owned());
        serve(|world| &mut world.udp, |server| server(call)).unwrap_or_else(|| Err(refusal()))
    }

    pub(crate) fn connect(address: &str) -> Result<Socket, Wire> {
        ask(UdpCall::Connect { address })?;
        Ok(Socket)
    }

    impl Socket {
        pub(crate) fn send(&self, bytes: &[u8], ends: &[u32]) -> Result<u32, Wire> {
            let (mut start, mut sent) = (0, 0);
            for end in ends {
                match ask(UdpCall::Send { datagram: &bytes[start as usize..*end as usize] }) {
                    Ok(_) => sent += 1,
                    Err(error) if sent == 0 => return Err(error.into()),
                    Err(_) => break,
                }
                start = *end;
            }
            Ok(sent)
        }

        pub(crate) fn receive(&self, max: u32) -> Result<Vec<u8>, Wire> {
            let mut bytes = ask(UdpCall::Receive { max })?;
            bytes.truncate(max as usize);
            Ok(bytes)
        }
    }
}

pub(crate) mod http {
    use super::serve;
    use crate::http::{Error, Request, Response};

    #[derive(Default)]
    pub(crate) struct Body(pub(crate) Vec<u8>);

    impl Body {
        pub(crate) fn read(mut self, max: usize) -> Result<Vec<u8>, Error> {
            self.0.truncate(max);
            Ok(self.0)
        }
    }

    pub(crate) fn send(request: Request) -> Result<Response, Error> {
        let refusal = || Error::Denied("the test has not said `testing::serve_http(…)`".to_owned());
        serve(|world| &mut world.http, |server| server(&request)).unwrap_or_else(|| Err(refusal()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Collect, logs, serve_http, serve_tcp, serve_udp};
    use crate::{Collector, Error, Result, Run, Settings, http, state, tcp, udp};

    #[test]
    fn what_was_not_said_is_refused() {
        assert!(matches!(
            tcp::Connection::connect("a:1", tcp::Options::plain()),
            Err(NetError::NotGranted(_))
        ));
        assert!(matches!(udp::Socket::connect("a:1"), Err(NetError::NotGranted(_))));
        assert!(matches!(http::Request::get("http://a").send(), Err(http::Error::Denied(_))));
    }

    #[test]
    fn http_server_sees_the_request_and_answers() {
        serve_http(|request| {
            assert_eq!((request.sent_method(), request.sent_url()), ("POST", "http://a/b"));
            assert_eq!((request.sent_header("X-Key"), request.sent_body()), (Some("1"), b"{}".as_slice()));
            Ok(http::Response::new(202).with_body("thanks"))
        });
        let response = http::Request::post("http://a/b").header("x-key", "1").body("{}").send().unwrap();
        assert_eq!((response.status(), response.text(5).unwrap()), (202, "thank".to_owned()));
    }

    #[test]
    fn tcp_server_hears_each_connection_and_can_end_it() {
        serve_tcp(|call| match call {
            TcpCall::Receive { connection, .. } => Ok(vec![b'0' + u8::try_from(connection).unwrap(); 9]),
            TcpCall::IsClosed { connection: 0 } => Err(NetError::Closed("gone".into())),
            TcpCall::Send { bytes: b"no", .. } => Err(NetError::TimedOut("slow".into())),
            _ => Ok(Vec::new()),
        });
        let mut first = tcp::Connection::connect("a:1", tcp::Options::tls("a")).unwrap();
        let mut second = tcp::Connection::connect("a:1", tcp::Options::plain()).unwrap();
        assert_eq!((first.receive(2).unwrap(), second.receive(1).unwrap()), (b"00".to_vec(), b"1".to_vec()));
        assert_eq!((first.is_closed(), second.is_closed()), (true, false));
        assert_eq!(first.send(b"no"), Err(NetError::TimedOut("slow".into())));
        assert!(second.finish().is_ok());
    }

    #[test]
    fn datagrams_before_the_one_that_failed_are_counted() {
        serve_udp(|call| match call {
            UdpCall::Send { datagram: b"bad" } => Err(NetError::Other("no".into())),
            _ => Ok(Vec::new()),
        });
        let mut socket = udp::Socket::connect("a:1").unwrap();
        assert_eq!(socket.send_many(b"abadc", &[1, 4, 5]), Ok(1));
        assert_eq!(socket.send(b"bad"), Err(NetError::Other("no".into())));
    }

    #[test]
    fn state_of_a_failed_run_is_as_before() {
        struct Counts;
        impl Collector for Counts {
            fn new(_: &Settings) -> Result<Self> {
                Ok(Self)
            }
            fn collect(&mut self, run: &mut Run) -> Result<()> {
                let runs = state::get_text("runs")?.map_or(Ok(0), |text| text.parse::<u32>())? + 1;
                state::set("runs", runs.to_string())?;
                crate::log::warn!("run {runs}");
                if run.due() == 2 { Err(Error::failed("no")) } else { Ok(()) }
            }
        }
        let mut collect = Collect::new::<Counts>(&Settings::new()).unwrap();
        let ends: Vec<_> = (1..4).map(|due| collect.run(due).is_ok()).collect();
        assert_eq!(ends, [true, false, true]);
        assert_eq!(state::get_text("runs"), Ok(Some("2".to_owned())));
        assert_eq!(logs().len(), 3);
        assert_eq!(state::set("big", vec![0; 70_000]), Err(state::StateError::Full(65_536)));
    }
}
