//! Sends samples to Graphite as plaintext.
//!
//! ```text
//! batch ──▶ lines ─┬─ proto = "tcp" ──────────────▶ Stream    one connection, kept
//!                  ├─ proto = "tcp", ack = "close" ▶ closing   one connection for each batch
//!                  └─ proto = "udp" ──────────────▶ datagrams
//! ```

mod closing;
mod datagrams;
mod stream;
mod unconfirmed;

use std::time::{Duration, Instant};

use handler_text::{Lines, Plaintext};
use kimberlite_plugin_sdk::{Batch, Error, HandleError, Handler, Receipt, Result, Settings, export_handler};

use stream::Stream;

/// As the manifest has it.
const OLD: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Graphite {
    plaintext: Plaintext,
    lines: Lines,
    /// `host:port`
    address: String,
    route: Route,
}

#[derive(Debug)]
enum Route {
    Kept(Box<Stream>),
    Closing,
    Datagrams,
}

impl Handler for Graphite {
    fn new(settings: &Settings) -> Result<Self> {
        let host: &str = settings.get("host")?.unwrap_or("localhost");
        let port: u16 = settings.get("port")?.unwrap_or(2003);
        if host.is_empty() {
            return Err(Error::setting("host", "must not be empty"));
        }
        if port == 0 {
            return Err(Error::setting("port", "must not be 0"));
        }
        let old: Duration = settings.get("reconnect_interval")?.unwrap_or(OLD);
        let route = match (settings.text("proto").unwrap_or("tcp"), settings.text("ack").unwrap_or("none")) {
            ("udp", "none") => Route::Datagrams,
            ("udp", _) => return Err(Error::setting("ack", "udp tells nothing of what arrived: use tcp")),
            (_, "close") => Route::Closing,
            _ => Route::Kept(Box::new(Stream::new(Some(old).filter(|old| !old.is_zero())))),
        };
        let prefix = settings.text("prefix").unwrap_or("servers");
        Ok(Self {
            plaintext: Plaintext::new(prefix),
            lines: Lines::default(),
            address: address(host, port),
            route,
        })
    }

    fn handle(&mut self, batch: &Batch) -> Result<Receipt, HandleError> {
        self.plaintext.write(batch, &mut self.lines);
        // Events and checks only: Graphite has no place for them.
        if self.lines.text().is_empty() {
            return Ok(Receipt::delivered());
        }
        let unconfirmed = match &mut self.route {
            Route::Kept(stream) => stream.deliver(&self.address, &mut self.lines, Instant::now())?,
            Route::Closing => closing::deliver(&self.address, self.lines.text()).map(|()| 0)?,
            Route::Datagrams => datagrams::deliver(&self.address, self.lines.text()).map(|()| 0)?,
        };
        Ok(Receipt::unconfirmed(unconfirmed))
    }
}

/// An IPv6 address before a port is written in brackets.
fn address(host: &str, port: u16) -> String {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(v6) => format!("[{v6}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}

export_handler!(Graphite);

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_plugin_sdk::tcp::NetError;
    use kimberlite_plugin_sdk::testing::{self, TcpCall, UdpCall};
    use kimberlite_plugin_sdk::{Element, Event, Series, Status, Summary};
    use std::cell::RefCell;
    use std::rc::Rc;

    fn samples() -> Batch {
        testing::batch().at(1_503_300_000_000).gauge("cpu.total.user", 12.5).build()
    }

    #[test]
    fn samples_arrive_over_tcp() {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let shared = seen.clone();
        testing::serve_tcp(move |call| {
            match call {
                TcpCall::Connect { address, .. } => shared.borrow_mut().push(address.to_owned()),
                TcpCall::Send { bytes, .. } => {
                    shared.borrow_mut().push(String::from_utf8_lossy(bytes).into());
                }
                _ => {}
            }
            Ok(Vec::new())
        });
        let settings = Settings::new().with("host", "::1").with("port", 2004).with("prefix", "p");
        let receipt = Graphite::new(&settings).unwrap().handle(&samples());
        assert_eq!(receipt, Ok(Receipt::delivered()));
        assert_eq!(*seen.borrow(), ["[::1]:2004", "p.test.cpu.total.user 12.5 1503300000\n"]);
    }

    #[test]
    fn lines_are_those_of_the_protocol() {
        let sent = Rc::new(RefCell::new(Vec::new()));
        let shared = sent.clone();
        testing::serve_tcp(move |call| {
            if let TcpCall::Send { bytes, .. } = call {
                shared.borrow_mut().extend_from_slice(bytes);
            }
            Ok(Vec::new())
        });
        let web = Element::new("4f1c").name("web-7");
        let latency = Series::gauge("app.latency").element(&web);
        let summary = Summary { val: Some(2.5), max: Some(1e16), cnt: Some(3), ..Summary::default() };
        let batch = testing::batch()
            .at(1_503_300_060_000)
            .of(&Element::new("web.example.com"))
            .gauge("cpu.total.user", 12.5)
            .gauge("memory.MemFree", 2_048_000)
            .rate("iostat.sda.await", 100.0 / 3.0)
            .summary(&latency, summary)
            .build();
        Graphite::new(&Settings::new()).unwrap().handle(&batch).unwrap();
        assert_eq!(String::from_utf8_lossy(&sent.borrow()), include_str!("../fixtures/plaintext.txt"));
    }

    #[test]
    fn samples_leave_over_udp() {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let shared = seen.clone();
        testing::serve_udp(move |call| {
            if let UdpCall::Send { datagram } = call {
                shared.borrow_mut().push(String::from_utf8_lossy(datagram).into_owned());
            }
            Ok(Vec::new())
        });
        let mut graphite = Graphite::new(&Settings::new().with("proto", "udp")).unwrap();
        assert_eq!(graphite.handle(&samples()), Ok(Receipt::delivered()));
        assert_eq!(*seen.borrow(), ["servers.test.cpu.total.user 12.5 1503300000\n"]);
    }

    #[test]
    fn receiver_that_is_away_is_a_retry() {
        testing::serve_tcp(|_| Err(NetError::Refused("localhost:2003: connection refused".to_owned())));
        let mut graphite = Graphite::new(&Settings::new()).unwrap();
        let expected = HandleError::retry("localhost:2003: connection refused");
        assert_eq!(graphite.handle(&samples()), Err(expected));
    }

    #[test]
    fn events_and_checks_alone_make_no_connection() {
        testing::serve_tcp(|call| panic!("{call:?}"));
        let check = kimberlite_plugin_sdk::Check::new("heartbeat", Status::Ok, Duration::from_secs(60));
        let batch = testing::batch().event(Event::new("INFO", "deploy")).check(check).build();
        let mut graphite = Graphite::new(&Settings::new()).unwrap();
        assert_eq!(graphite.handle(&batch), Ok(Receipt::delivered()));
    }

    #[test]
    fn unusable_settings_are_named() {
        let cases = [
            (Settings::new().with("host", ""), "host"),
            (Settings::new().with("port", 0), "port"),
            (Settings::new().with("port", 70_000), "port"),
            (Settings::new().with("proto", "udp").with("ack", "close"), "ack"),
            (Settings::new().with("reconnect_interval", "soon"), "reconnect_interval"),
        ];
        for (settings, key) in cases {
            assert_eq!(Graphite::new(&settings).unwrap_err().setting_key(), Some(key));
        }
    }
}
