//! A collector that misbehaves as its settings say, against `wit/` alone.
//!
//! Every run that ends well brings `PREFIX.calls` (runs of this instance) and `PREFIX.clock` (a counter
//! that rises by 1 a second whatever happens to instances). The log says how each misdeed went:
//! `did read /etc/passwd`, or `cannot read /etc/passwd: …`.

use std::cell::RefCell;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::ToSocketAddrs;
use std::time::Duration;

wit_bindgen::generate!({ path: "../../../wit", world: "collector-plugin", generate_all });

use exports::kimberlite::plugin::collector::{Batch, CollectError, Guest, Series, Tick};
use kimberlite::plugin::log::{Severity, log};
use kimberlite::plugin::types::{InitError, Kind, Publish, Setting, SettingValue};
use kimberlite::plugin::{host_stats, state, tcp, udp};
use wasi::http::outgoing_handler;
use wasi::http::types::{Fields, OutgoingBody, OutgoingRequest, Scheme};

#[used]
#[unsafe(link_section = "kimberlite:manifest")]
static MANIFEST: [u8; include_bytes!("../plugin.toml").len()] = *include_bytes!("../plugin.toml");

struct Hostile;

#[derive(Default)]
struct Instance {
    mode: String,
    prefix: String,
    after: u64,
    amount: usize,
    target: String,
    token: String,
    calls: u64,
    /// How many series have been described.
    known: u32,
    hoard: Vec<Vec<u8>>,
    connections: Vec<tcp::Connection>,
    requests: Vec<(OutgoingRequest, Option<OutgoingBody>)>,
    pollables: Vec<wasi::io::poll::Pollable>,
}

thread_local! {
    static INSTANCE: RefCell<Instance> = RefCell::default();
}

impl Guest for Hostile {
    fn init(settings: Vec<Setting>) -> Result<(), InitError> {
        INSTANCE.with_borrow_mut(|instance| {
            for Setting { key, value } in settings {
                match (key.as_str(), value) {
                    ("mode", SettingValue::Text(mode)) => instance.mode = mode,
                    ("prefix", SettingValue::Text(prefix)) => instance.prefix = prefix,
                    ("after", SettingValue::Whole(after)) => instance.after = after as u64,
                    ("amount", SettingValue::Whole(amount)) => instance.amount = amount as usize,
                    ("target", SettingValue::Text(target)) => instance.target = target,
                    ("token", SettingValue::Text(token)) => instance.token = token,
                    _ => {}
                }
            }
            match instance.mode.as_str() {
                "init-trap" => panic!("no wish to live"),
                "init-spin" => spin(),
                "init-sleep" => std::thread::sleep(Duration::from_secs(3600)),
                "init-hoard" => instance.hoard(),
                "init-exit" => std::process::exit(instance.amount as i32),
                "init-error" => return Err(InitError::Failed(format!("no good day {}", instance.token))),
                "init-setting" => {
                    return Err(InitError::Setting(("target".to_owned(), "is not to my taste".to_owned())));
                }
                _ => {}
            }
            Ok(())
        })
    }

    fn collect(tick: Tick) -> Result<Batch, CollectError> {
        INSTANCE.with_borrow_mut(|instance| {
            instance.calls += 1;
            let mut batch = instance.good_batch(&tick);
            if instance.calls > instance.after {
                instance.misbehave(&mut batch)?;
            }
            instance.known += batch.series.len() as u32;
            Ok(batch)
        })
    }
}

impl Instance {
    fn good_batch(&self, tick: &Tick) -> Batch {
        let mut batch = empty();
        if self.known == 0 {
            batch.series.push(series(0, &format!("{}.calls", self.prefix), Kind::Gauge));
            batch.series.push(series(1, &format!("{}.clock", self.prefix), Kind::Counter));
        }
        batch.handles = vec![0, 1];
        batch.values = vec![self.calls as f64, tick.due as f64 / 1000.0];
        batch
    }

    fn misbehave(&mut self, batch: &mut Batch) -> Result<(), CollectError> {
        let amount = self.amount;
        let found = match self.mode.clone().as_str() {
            // Time.
            "spin" => spin(),
            "spin-calling" => loop {
                log(Severity::Trace, "still here");
            },
            "sleep" => {
                std::thread::sleep(Duration::from_secs(3600));
                Ok(())
            }
            "receive" => self.connect().and_then(|connection| {
                let received = connection.receive(1).map_err(|error| format!("{error:?}"))?;
                Err(format!("received {received:?}"))
            }),

            // Memory and handles.
            "hoard" => {
                self.hoard();
                Ok(())
            }
            "hoard-connections" => (0..amount).try_for_each(|_| {
                self.connections.push(self.connect()?);
                Ok(())
            }),
            "hoard-requests" => {
                self.requests.extend((0..amount).map(|_| (OutgoingRequest::new(Fields::new()), None)));
                Ok(())
            }
            "hoard-bodies" => (0..amount).try_for_each(|_| self.keep_body()),
            "hoard-pollables" => {
                let sleep = || wasi::clocks::monotonic_clock::subscribe_duration(3_600_000_000_000);
                self.pollables.extend((0..amount).map(|_| sleep()));
                Ok(())
            }
            "huge-headers" => {
                let fields = Fields::new();
                let set = fields.append("x-much", &vec![b'x'; amount]);
                set.map_err(|error| format!("{error:?}"))
            }

            // Ends of their own choice.
            "trap" => panic!("out of patience {}", self.token),
            "exit" => std::process::exit(amount as i32),
            "recurse" => {
                black_box(recurse(1));
                Ok(())
            }
            "quiet" => {
                batch.handles.clear();
                batch.values.clear();
                return Ok(());
            }
            "error" => return Err(CollectError::Failed(format!("no data today {}", self.token))),
            "absent" => return Err(CollectError::Absent("nothing here".to_owned())),

            // Floods.
            "flood-samples" => {
                batch.handles.extend((0..amount).map(|_| 0));
                batch.values.extend((0..amount).map(|value| value as f64));
                Ok(())
            }
            "flood-series" => {
                let first = self.known + batch.series.len() as u32;
                for handle in first..first + amount as u32 {
                    batch.series.push(series(handle, &format!("hostile.flood.{handle}"), Kind::Gauge));
                    batch.handles.push(handle);
                    batch.values.push(1.0);
                }
                Ok(())
            }
            "flood-logs" => {
                (0..amount).for_each(|line| log(Severity::Info, &format!("noise {line}")));
                Ok(())
            }
            "flood-output" => {
                (0..amount).for_each(|line| println!("printed noise {line}"));
                Ok(())
            }
            "endless-output" => {
                // One line that never ends.
                let block = [b'x'; 4096];
                (0..amount).for_each(|_| _ = std::io::stdout().write_all(&block));
                Ok(())
            }
            "huge-log" => {
                log(Severity::Info, &"x".repeat(amount));
                Ok(())
            }
            "huge-name" => {
                let handle = self.known + batch.series.len() as u32;
                batch.series.push(series(handle, &"x".repeat(amount), Kind::Gauge));
                batch.handles.push(handle);
                batch.values.push(1.0);
                Ok(())
            }

            // Nonsense.
            "unknown-handle" => {
                batch.handles.insert(0, 999_999);
                batch.values.insert(0, 1.0);
                Ok(())
            }
            "gap-in-handles" => {
                let handle = self.known + batch.series.len() as u32 + 7;
                batch.series.push(series(handle, "hostile.gap", Kind::Gauge));
                batch.handles.push(handle);
                batch.values.push(1.0);
                Ok(())
            }
            "not-a-number" => {
                batch.handles.extend([0, 0]);
                batch.values.extend([f64::NAN, f64::INFINITY]);
                Ok(())
            }
            "uneven-columns" => {
                batch.values.pop();
                Ok(())
            }

            // Prying.
            "read" => std::fs::read_to_string(&self.target).map(drop).map_err(|error| error.to_string()),
            "write" => std::fs::write(&self.target, "mine").map_err(|error| error.to_string()),
            "list" => std::fs::read_dir(&self.target).map(drop).map_err(|error| error.to_string()),
            "env" => std::env::var(&self.target).map(drop).map_err(|error| error.to_string()),
            "connect" => self.connect().map(drop),
            "connect-wasi" => {
                std::net::TcpStream::connect(&self.target).map(drop).map_err(|error| error.to_string())
            }
            "resolve" => self.target.to_socket_addrs().map(drop).map_err(|error| error.to_string()),
            "datagram" => udp::connect(&self.target).map(drop).map_err(|error| format!("{error:?}")),
            "get" => get(&self.target),
            "stats" => host_stats::cpu().map(drop).map_err(|error| format!("{error:?}")),
            "remember" => remember(),
            "remember-in-vain" => {
                let _ = remember();
                panic!("forget it");
            }
            "stdin" => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map(drop).map_err(|error| error.to_string())
            }
            _ => Ok(()),
        };
        match found {
            Ok(()) => log(Severity::Info, &format!("did {} {}", self.mode, self.target)),
            Err(why) => log(Severity::Warn, &format!("cannot {} {}: {why}", self.mode, self.target)),
        }
        Ok(())
    }

    fn hoard(&mut self) {
        self.hoard.extend((0..self.amount).map(|_| black_box(vec![1; 1 << 20])));
    }

    fn connect(&self) -> Result<tcp::Connection, String> {
        tcp::connect(&self.target, &tcp::Options { tls_name: None }).map_err(|error| format!("{error:?}"))
    }

    /// A request with a body that is written to and never sent.
    fn keep_body(&mut self) -> Result<(), String> {
        let request = OutgoingRequest::new(Fields::new());
        let body = request.body().map_err(|()| "no body".to_owned())?;
        let stream = body.write().map_err(|()| "no stream".to_owned())?;
        for _ in 0..16 {
            let Ok(allowed @ 1..) = stream.check_write() else { break };
            let bytes = vec![1; (allowed as usize).min(64 * 1024)];
            stream.write(&bytes).map_err(|error| format!("{error:?}"))?;
        }
        drop(stream);
        self.requests.push((request, Some(body)));
        Ok(())
    }
}

/// How often it was called over all instances, as far as the store tells.
fn remember() -> Result<(), String> {
    let before = state::get("calls").map_err(|error| format!("{error:?}"))?;
    let calls = before.and_then(|bytes| bytes.first().copied()).unwrap_or(0) + 1;
    log(Severity::Info, &format!("remembers {calls} calls"));
    state::set("calls", &[calls]).map_err(|error| format!("{error:?}"))
}

/// `http://host:port/path`, waiting for the head of the answer.
fn get(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").ok_or("not http")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let request = OutgoingRequest::new(Fields::new());
    let set = |result: Result<(), ()>| result.map_err(|()| "cannot be set".to_owned());
    set(request.set_scheme(Some(&Scheme::Http)))?;
    set(request.set_authority(Some(authority)))?;
    set(request.set_path_with_query(Some(&format!("/{path}"))))?;
    let answer = outgoing_handler::handle(request, None).map_err(|error| format!("{error:?}"))?;
    loop {
        match answer.get() {
            None => answer.subscribe().block(),
            Some(Ok(Ok(response))) => {
                log(Severity::Info, &format!("status {}", response.status()));
                return Ok(());
            }
            Some(Ok(Err(error))) => return Err(format!("{error:?}")),
            Some(Err(())) => return Err("no answer".to_owned()),
        }
    }
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

#[expect(unconditional_recursion, reason = "that is the misdeed")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + frame[depth as usize % 64]
}

fn series(handle: u32, name: &str, kind: Kind) -> Series {
    Series {
        handle,
        element: None,
        name: name.to_owned(),
        unit: String::new(),
        kind,
        publish: Publish::Rate,
        scale: 1.0,
        tags: Vec::new(),
        sparse_data: String::new(),
    }
}

fn empty() -> Batch {
    Batch {
        elements: Vec::new(),
        machine: None,
        series: Vec::new(),
        handles: Vec::new(),
        values: Vec::new(),
        timestamps: Vec::new(),
        summaries: Vec::new(),
        samples: Vec::new(),
        forget: Vec::new(),
        forget_elements: Vec::new(),
        events: Vec::new(),
        checks: Vec::new(),
    }
}

export!(Hostile);
