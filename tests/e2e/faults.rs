//! Every fault against every handler, and an account of every sample.
//!
//! ```text
//! collectors ──RUNS samples each──▶ agent ──▶ metricly, graphite (twice), udp, archive, stdout, hostile
//!                                      ▲
//!                    fault, from the start until half of them are measured; then all is well
//! ```
//!
//! The table is printed: `cargo test --test e2e every_fault -- --nocapture`; `FAULT=TLS` does only those
//! with that in their names.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::sync::Mutex;
use std::{fs, thread};

use kimberlite_tests::{
    Agent, Authority, ClosedPort, HttpSink, LineSink, Manner, Plugin, Reply, TempDir, self_signed, verb,
};
use serde_json::Value;

use crate::{KIMBERLITE, collector};

const COLLECTORS: u64 = 4;
/// Of each collector, one sample each.
const RUNS: u64 = 40;
const SENT: u64 = COLLECTORS * RUNS;
/// More would only make them late.
const AT_ONCE: usize = 3;

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Refuses,
    /// Over HTTP, and over plain TCP.
    Receivers(Reply, Manner),
    Tls(Certificate),
    NameMoves,
    Disk(Disk),
    /// The hostile handler's mode and amount.
    Handler(&'static str, u32),
}

#[derive(Debug, Clone, Copy)]
enum Certificate {
    Expired,
    OfAnother,
    SelfSigned,
}

#[derive(Debug, Clone, Copy)]
enum Disk {
    Full,
    ReadOnly,
    Deleted,
}

const FAULTS: [(&str, Fault); 22] = [
    ("refuses connections", Fault::Refuses),
    ("accepts, never answers", Fault::Receivers(Reply::Silence, Manner::Ignores)),
    ("byte by byte", Fault::Receivers(Reply::Trickle, Manner::Trickles)),
    ("answer without an end", Fault::Receivers(Reply::Endless, Manner::Reads)),
    ("500", Fault::Receivers(Reply::Status(500), Manner::Reads)),
    ("503", Fault::Receivers(Reply::Status(503), Manner::Reads)),
    ("429, Retry-After: 1", Fault::Receivers(Reply::After(429, 1), Manner::Reads)),
    ("400", Fault::Receivers(Reply::Status(400), Manner::Reads)),
    ("401", Fault::Receivers(Reply::Status(401), Manner::Reads)),
    ("410", Fault::Receivers(Reply::Status(410), Manner::Reads)),
    ("413", Fault::Receivers(Reply::Status(413), Manner::Reads)),
    ("closes in mid-request", Fault::Receivers(Reply::Cut, Manner::Cuts)),
    ("takes it, then resets", Fault::Receivers(Reply::Reset, Manner::Resets)),
    ("TLS: expired", Fault::Tls(Certificate::Expired)),
    ("TLS: another's name", Fault::Tls(Certificate::OfAnother)),
    ("TLS: self-signed", Fault::Tls(Certificate::SelfSigned)),
    ("name moves", Fault::NameMoves),
    ("disk full", Fault::Disk(Disk::Full)),
    ("disk read-only", Fault::Disk(Disk::ReadOnly)),
    ("spool deleted", Fault::Disk(Disk::Deleted)),
    ("traps, every 7th batch", Fault::Handler("late-trap", 7)),
    ("leaks, every 20th batch", Fault::Handler("leak", 20)),
];

/// What became of one handler's samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) sent: u64,
    /// Each once.
    pub(crate) received: u64,
    pub(crate) duplicates: u64,
    pub(crate) unconfirmed: u64,
    pub(crate) dead: u64,
    pub(crate) evicted: u64,
}

impl Account {
    /// What nobody has and the agent has not let go of knowingly.
    fn missing(&self) -> i64 {
        self.sent as i64 - (self.received + self.dead + self.evicted) as i64
    }

    /// What it cannot even suspect to be missing.
    pub(crate) fn lost(&self) -> i64 {
        self.missing().saturating_sub_unsigned(self.unconfirmed).max(0)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, received, duplicates, unconfirmed, dead, evicted } = self;
        write!(
            f,
            "{sent} sent, {received} received, {duplicates} duplicates, {unconfirmed} unconfirmed, \
             {dead} dead-lettered, {evicted} evicted, {} lost",
            self.lost()
        )
    }
}

/// Handlers by their names, in the order of the table.
const HANDLERS: [&str; 7] = ["metricly", "graphite", "closing", "udp", "archive", "stdout", "hostile"];

#[test]
fn every_fault_leaves_every_sample_accounted_for() {
    let asked = std::env::var("FAULT").unwrap_or_default();
    let faults = FAULTS.iter().enumerate().filter(|(_, (name, _))| name.contains(&asked));
    let waiting: Mutex<Vec<_>> = Mutex::new(faults.collect());
    let found = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((place, (name, fault))) = { waiting.lock().unwrap().pop() } {
                    if let Some(accounts) = World::new(*fault).live() {
                        found.lock().unwrap().insert(place, (*name, *fault, accounts));
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    println!("{}", table(found.values().map(|(name, _, accounts)| (*name, accounts))));
    for (name, fault, accounts) in found.values() {
        check(name, *fault, accounts);
    }
}

/// Whatever the fault, at this handler or at another.
fn check(name: &str, fault: Fault, accounts: &BTreeMap<&str, Account>) {
    for (handler, account) in accounts {
        let shown = format!("{name}, {handler}: {account:?}");
        // Nobody can tell what became of a datagram.
        if *handler != "udp" {
            assert_eq!(account.lost(), 0, "{shown}");
            assert!(account.missing() >= 0, "counted twice: {shown}");
        }
        let is_refused = matches!(fault, Fault::Receivers(Reply::Status(400 | 413), _));
        assert!(account.dead == 0 || is_refused && *handler == "metricly", "{shown}");
        assert!(account.evicted == 0 || matches!(fault, Fault::Disk(Disk::Deleted)), "{shown}");
        assert!(account.unconfirmed == 0 || *handler == "graphite", "{shown}");
    }
}

fn table<'a>(rows: impl Iterator<Item = (&'a str, &'a BTreeMap<&'static str, Account>)>) -> String {
    let mut text = format!(
        "{SENT} samples were sent to each handler. received+duplicates, and if there are any: ?unconfirmed \
         xdead-lettered -evicted LOST\n\
         graphite: unconfirmed is what sockets may have held; closing: ack = \"close\"; udp, stdout: best effort\n\
         {:<24}",
        ""
    );
    HANDLERS.iter().for_each(|handler| write!(text, "{handler:<16}").unwrap());
    for (name, accounts) in rows {
        write!(text, "\n{name:<24}").unwrap();
        for handler in HANDLERS {
            let Account { received, duplicates, unconfirmed, dead, evicted, .. } = accounts[handler];
            let mut cell = format!("{received}+{duplicates}");
            for (sign, count) in [('?', unconfirmed), ('x', dead), ('-', evicted)] {
                if count > 0 {
                    write!(cell, " {sign}{count}").unwrap();
                }
            }
            if accounts[handler].lost() != 0 {
                write!(cell, " LOST {}", accounts[handler].lost()).unwrap();
            }
            write!(text, "{cell:<15} ").unwrap();
        }
    }
    text
}

/// An agent's receivers; the last of each is the one that is asked.
struct World {
    fault: Fault,
    dir: TempDir,
    authority: Authority,
    http: Vec<HttpSink>,
    graphite: Vec<LineSink>,
    closing: Vec<LineSink>,
    udp: UdpSocket,
    closed: Option<[ClosedPort; 3]>,
    ports: [u16; 3],
}

impl World {
    fn new(fault: Fault) -> Self {
        let mut world = Self {
            fault,
            dir: TempDir::new(),
            authority: Authority::new(),
            http: Vec::new(),
            graphite: Vec::new(),
            closing: Vec::new(),
            udp: UdpSocket::bind(("127.0.0.1", 0)).unwrap(),
            closed: None,
            ports: [0; 3],
        };
        world.udp.set_nonblocking(true).unwrap();
        world.dir.write("ca.pem", world.authority.pem());
        fs::create_dir(world.dir.join("archive")).unwrap();
        if matches!(fault, Fault::Refuses) {
            let closed = [(); 3].map(|()| ClosedPort::new());
            world.ports = closed.each_ref().map(ClosedPort::number);
            world.closed = Some(closed);
            return world;
        }
        let address = if matches!(fault, Fault::NameMoves) { "127.0.0.2" } else { "127.0.0.1" };
        world.listen([(); 3].map(|()| TcpListener::bind((address, 0)).unwrap()));
        let (reply, manner) = match fault {
            Fault::Receivers(reply, manner) => (reply, manner),
            Fault::Disk(_) => (Reply::Status(503), Manner::Reads),
            _ => (Reply::Status(202), Manner::Reads),
        };
        world.behave(reply, manner);
        if let Fault::Tls(certificate) = fault {
            world.http[0].show(match certificate {
                Certificate::Expired => world.authority.sign_expired("localhost"),
                Certificate::OfAnother => world.authority.sign("example.com"),
                Certificate::SelfSigned => self_signed("localhost"),
            });
        }
        world
    }

    fn listen(&mut self, listeners: [TcpListener; 3]) {
        self.ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
        let address = listeners[0].local_addr().unwrap().ip();
        fs::write(self.dir.join("hosts"), format!("{address} localhost\n")).unwrap();
        let [http, graphite, closing] = listeners;
        self.http.push(HttpSink::start_on(http, &[Reply::Status(202)]));
        self.graphite.push(LineSink::start_on(graphite, Manner::Reads));
        self.closing.push(LineSink::start_on(closing, Manner::Reads));
    }

    fn behave(&self, reply: Reply, manner: Manner) {
        self.http.last().unwrap().answer(reply);
        self.graphite.last().unwrap().behave(manner);
        self.closing.last().unwrap().behave(manner);
    }

    fn config(&self) -> String {
        let collectors: String = (0..COLLECTORS)
            .map(|number| {
                let settings = format!("mode = \"quiet\", after = {RUNS}");
                collector(&format!("good{number}"), &settings, "interval = \"50ms\"")
            })
            .collect();
        let scheme = if matches!(self.fault, Fault::Tls(_)) { "https" } else { "http" };
        let [http, graphite, closing] = self.ports;
        let udp = self.udp.local_addr().unwrap().port();
        let (archive, ca) = (self.dir.join("archive"), self.dir.join("ca.pem"));
        let (mode, amount) =
            if let Fault::Handler(mode, amount) = self.fault { (mode, amount) } else { ("ok", 1) };
        let file = kimberlite_tests::HOSTILE_HANDLER;
        let tables = [
            format!(
                "metricly]\n\
                 settings = {{ url = \"{scheme}://localhost:{http}/ingest\", api_key = \"hush-hush-key\" }}\n\
                 grant = {{ http = [\"{scheme}://localhost:{http}\"] }}\ntls = {{ ca = {ca:?} }}"
            ),
            format!(
                "graphite]\n\
                 settings = {{ host = \"localhost\", port = {graphite}, reconnect_interval = \"300ms\" }}\n\
                 grant = {{ tcp = [\"localhost:{graphite}\"] }}"
            ),
            format!(
                "closing]\nplugin = \"graphite\"\n\
                 settings = {{ host = \"localhost\", port = {closing}, ack = \"close\" }}\n\
                 grant = {{ tcp = [\"localhost:{closing}\"] }}"
            ),
            format!(
                "udp]\nplugin = \"graphite\"\n\
                 settings = {{ host = \"127.0.0.1\", port = {udp}, proto = \"udp\" }}\n\
                 grant = {{ udp = [\"127.0.0.1:{udp}\"] }}"
            ),
            format!(
                "archive]\nsettings = {{ log_file = \"{archive}/archive.log\" }}\n\
                 grant = {{ write = [{archive:?}] }}"
            ),
            "stdout]\ngrant = { stdout = true }".to_owned(),
            format!(
                "hostile]\nplugin = {{ file = {file:?} }}\n\
                 settings = {{ mode = \"{mode}\", amount = {amount}, file = \"{archive}/hostile\" }}\n\
                 grant = {{ write = [{archive:?}] }}"
            ),
        ];
        let rest = "retry = { first = \"100ms\", longest = \"200ms\" }\nqueue = { sync = \"100ms\" }\n\
                    limits = { timeout = \"1s\", connection_age = \"300ms\" }\n\
                    match = { metrics = [\"*.calls\"] }";
        collectors + &tables.map(|table| format!("[handlers.{table}\n{rest}\n\n")).concat()
    }

    /// Its agent's life. None: this machine cannot make that fault.
    fn live(mut self) -> Option<BTreeMap<&'static str, Account>> {
        let wrapper = self.wrapper()?;
        let config = self.config();
        let dir = std::mem::take(&mut self.dir);
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let agent = Agent::start_by(&wrapper, dir, KIMBERLITE, "self_metrics = false", &config);
        agent.wait_for("good0", "is at half", |plugin| plugin.runs() >= RUNS / 2);
        self.cure(&agent);
        let settled = |plugin: &Plugin| {
            let Account { dead, evicted, .. } = figures(plugin);
            let left = plugin.figure("queue_bytes") + plugin.figure("spool_bytes");
            left == 0 && plugin.figure("delivery/delivered") + dead + evicted >= SENT
        };
        let plugins = HANDLERS.map(|handler| agent.wait_for(handler, "has settled all", settled));
        let files = ["archive.log", "hostile"]
            .map(|name| fs::read_to_string(inside(&agent, &format!("archive/{name}"))).unwrap_or_default());
        let letters = verb(KIMBERLITE, &["deadletters", "list", "-o", "json", "-c", &agent.config_file()])
            .expect_code(0)
            .json_lines();
        let kept: u64 = letters.iter().map(|letter| letter["samples"].as_u64().unwrap()).sum();
        assert_eq!(kept, plugins.iter().map(|plugin| figures(plugin).dead).sum::<u64>());
        let stdout = agent.stop().stdout;
        let mut accounts = BTreeMap::new();
        for (handler, plugin) in HANDLERS.iter().zip(&plugins) {
            let ids: Vec<String> = match *handler {
                "metricly" => self.http.iter().flat_map(posted).collect(),
                "graphite" => self.graphite.iter().flat_map(LineSink::all_lines).map(id).collect(),
                "closing" => self.closing.iter().flat_map(LineSink::all_lines).map(id).collect(),
                "udp" => datagrams(&self.udp),
                "archive" => files[0].lines().map(|line| id(line.to_owned())).collect(),
                // The same sample is the same line.
                "stdout" => stdout.clone(),
                _ => files[1].lines().map(str::to_owned).collect(),
            };
            let received = ids.iter().collect::<std::collections::BTreeSet<_>>().len() as u64;
            let account = Account { received, duplicates: ids.len() as u64 - received, ..figures(plugin) };
            accounts.insert(*handler, account);
        }
        if matches!(self.fault, Fault::NameMoves) {
            let new =
                [posted(&self.http[1]).len(), self.graphite[1].lines().len(), self.closing[1].lines().len()];
            assert!(new.iter().all(|lines| *lines > 0), "the new address was given {new:?}");
        }
        Some(accounts)
    }

    /// A command that makes the agent a world of its own.
    fn wrapper(&self) -> Option<Vec<String>> {
        let script = match self.fault {
            Fault::NameMoves => "mount --bind \"$1/hosts\" /etc/hosts",
            Fault::Disk(Disk::Full) => {
                "for dir in data/spool archive; do mkdir -p -m 700 $1/$dir
                 mount -t tmpfs -o size=64k,mode=700 none $1/$dir
                 head -c 1M /dev/zero > $1/$dir/filler 2> /dev/null || true; done"
            }
            Fault::Disk(Disk::ReadOnly) => {
                "for dir in data/spool archive; do mkdir -p -m 700 $1/$dir
                 mount -t tmpfs -o mode=700,ro none $1/$dir; done"
            }
            _ => return Some(Vec::new()),
        };
        let can = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
        if !can {
            assert!(std::env::var_os("CI").is_none(), "`unshare -m` is not allowed here");
            // Not by `eprintln!`, which tests keep to themselves.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {:?}, for `unshare -m` is not allowed", self.fault);
            return None;
        }
        let script = format!("set -e\n{script}\nshift\nexec \"$@\"");
        let words = ["unshare", "-m", "sh", "-c", &script, "sh", self.dir.path().to_str().unwrap()];
        Some(words.map(str::to_owned).to_vec())
    }

    fn cure(&mut self, agent: &Agent) {
        match self.fault {
            Fault::Refuses => {
                let closed = self.closed.take().unwrap();
                self.listen(closed.map(ClosedPort::open));
            }
            Fault::Receivers(reply, _) => {
                self.behave(Reply::Status(202), Manner::Reads);
                if matches!(reply, Reply::Status(401 | 410)) {
                    agent.wait_for("metricly", "is halted", |plugin| plugin.state() == "halted");
                    verb(KIMBERLITE, &["resume", "metricly", "-c", &agent.config_file()]).expect_code(0);
                }
            }
            Fault::Tls(_) => self.http[0].show(self.authority.sign("localhost")),
            Fault::NameMoves => {
                // The old ones go on: nothing but the age of a connection leads away from them.
                let ports = self.ports;
                self.listen(ports.map(|port| TcpListener::bind(("127.0.0.3", port)).unwrap()));
                fs::copy(self.dir.join("hosts"), agent.dir.join("hosts")).unwrap();
            }
            Fault::Disk(Disk::Full) => {
                for dir in ["data/spool", "archive"] {
                    fs::remove_file(inside(agent, &format!("{dir}/filler"))).unwrap();
                }
                self.behave(Reply::Status(202), Manner::Reads);
            }
            Fault::Disk(Disk::ReadOnly) => {
                for dir in ["data/spool", "archive"] {
                    let pid = agent.pid().to_string();
                    let dir = agent.dir.join(dir);
                    let args = ["-t", &pid, "-m", "mount", "-o", "remount,rw", &dir];
                    assert!(Command::new("nsenter").args(args).status().unwrap().success());
                }
                self.behave(Reply::Status(202), Manner::Reads);
            }
            Fault::Disk(Disk::Deleted) => {
                agent.wait_for("metricly", "spools", |plugin| plugin.figure("spool_bytes") > 0);
                fs::remove_dir_all(agent.data("spool")).unwrap();
                self.behave(Reply::Status(202), Manner::Reads);
            }
            Fault::Handler(..) => {}
        }
    }
}

/// A path in its directory, as it sees it.
fn inside(agent: &Agent, path: &str) -> String {
    format!("/proc/{}/root{}", agent.pid(), agent.dir.join(path))
}

/// What the agent itself says.
fn figures(plugin: &Plugin) -> Account {
    let dropped = ["queue-full", "spool-full", "too-old", "spool-deleted"];
    Account {
        sent: SENT,
        unconfirmed: plugin.figure("delivery/unconfirmed"),
        dead: plugin.figure("delivery/dead_letters"),
        evicted: dropped.iter().map(|reason| plugin.figure(&format!("dropped/{reason}"))).sum(),
        ..Account::default()
    }
}

/// Metric and value, which no other sample has, of all that was posted and taken.
pub(crate) fn posted(sink: &HttpSink) -> Vec<String> {
    let mut found = Vec::new();
    for request in sink.answered(202) {
        let elements: Vec<Value> = serde_json::from_str(&request.body).unwrap();
        for sample in elements.iter().flat_map(|element| element["samples"].as_array().unwrap()) {
            found.push(format!("{} {}", sample["metricId"].as_str().unwrap(), sample["val"]));
        }
    }
    found
}

/// The same of a line `servers.web-1.METRIC VALUE TIME`.
pub(crate) fn id(line: String) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    format!("{} {}", words[0].trim_start_matches("servers.web-1."), words[1])
}

fn datagrams(socket: &UdpSocket) -> Vec<String> {
    let mut space = [0; 1 << 16];
    let mut found = Vec::new();
    while let Ok(size) = socket.recv(&mut space) {
        let text = std::str::from_utf8(&space[..size]).unwrap();
        found.extend(text.lines().map(|line| id(line.to_owned())));
    }
    found
}
