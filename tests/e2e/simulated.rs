//! A whole agent in virtual time, with real receivers and a real disk: outages of hours in seconds.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kimberlite::agent::Agent;
use kimberlite::clock::{Clock, VirtualClock};
use kimberlite::config::ConfigSource;
use kimberlite::data_dir::DataDir;
use kimberlite::secrets::Secrets;
use kimberlite::status::{AgentStatus, PluginStatus};
use kimberlite::telemetry::{self, Format};
use kimberlite_tests::{
    ClosedPort, HttpSink, LineSink, Manner, Reply, TempDir, lend_code_cache, take_code_cache_back,
};
use tokio::runtime::{Builder, Runtime};

use crate::faults::{Account, id, posted};
use crate::{collector, graphite, handler, metricly};

/// 2026-01-01
const START: u64 = 1_767_225_600_000;
/// What guests, disks and receivers have of each instant. Who takes longer finds that time has gone on,
/// as on a busy machine.
const BREATH: Duration = Duration::from_millis(1);
const FAST: &str = "retry = { first = \"1s\", longest = \"10s\" }";
/// One sample for each run, so that they can be told apart.
const CALLS: &str = "match = { metrics = [\"*.calls\"] }";

struct Simulation {
    runtime: Runtime,
    clock: VirtualClock,
    status: AgentStatus,
    dir: TempDir,
}

impl Simulation {
    fn start(dir: TempDir, config: &str) -> Self {
        let data = dir.join("data");
        let text = format!(
            "[agent]\nname = \"web-1\"\ndata_dir = {data:?}\nplugin_dirs = []\nself_metrics = false\n\n{config}"
        );
        let file = PathBuf::from(dir.write("kimberlite.toml", text));
        let source = ConfigSource { main: vec![file], directory: None };
        let config = source.load().unwrap_or_else(|faults| panic!("{faults}"));
        lend_code_cache(&dir.join("data/cache"));
        let data = DataDir::open(Path::new(&data)).unwrap();
        let clock = VirtualClock::new(START);
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let status = runtime.block_on(async {
            let secrets = Secrets::default();
            let log = telemetry::init(Format::Text, -3, secrets.clone());
            let agent = Agent::start(config, source, data, secrets, log, Arc::new(clock.clone())).unwrap();
            let status = agent.status();
            tokio::spawn(agent.run());
            status
        });
        Self { runtime, clock, status, dir }
    }

    /// Until `is`, but not for more than a virtual day.
    fn run_until(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let end = self.clock.monotonic() + Duration::from_secs(86_400);
        self.runtime.block_on(async {
            loop {
                tokio::time::sleep(BREATH).await;
                if is(self) {
                    break;
                }
                assert!(
                    self.clock.monotonic() < end,
                    "never came true: {what}\n{:#?}",
                    self.status.snapshot()
                );
                self.clock.advance_to_next();
            }
        });
    }

    fn run_for(&self, time: Duration) {
        let end = self.clock.monotonic() + time;
        self.run_until("time passes", |simulation| simulation.clock.monotonic() >= end);
    }

    fn plugin(&self, name: &str) -> PluginStatus {
        let plugins = self.status.snapshot().plugins;
        plugins.into_iter().find(|plugin| plugin.name == name).unwrap()
    }

    /// All that it was ever given has gone somewhere.
    fn run_until_settled(&self, handler: &str) {
        self.run_until("nothing waits", |simulation| {
            let plugin = simulation.plugin(handler);
            plugin.queue_bytes == 0 && plugin.spool_bytes == 0
        });
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        take_code_cache_back(&self.dir.join("data/cache"));
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The values of `good.calls` in the order of their first arrival: 1, 2, … were measured. A guest whose
/// clock leaps on while it waits for an answer may well ask twice.
fn calls(ids: impl IntoIterator<Item = String>) -> Vec<u64> {
    let values = ids.into_iter().filter_map(|id| Some(id.strip_prefix("good.calls ")?.to_owned()));
    let mut seen = BTreeSet::new();
    values.map(|value| value.parse::<f64>().unwrap() as u64).filter(|call| seen.insert(*call)).collect()
}

/// A key is refused for an hour, then its file changes. Gives the agent's own account, and what arrived.
fn halted_for_an_hour(queue: &str) -> (Account, Vec<u64>) {
    let sink = HttpSink::start(&[Reply::Status(401)]);
    let dir = TempDir::new();
    let key = dir.write("key", "hush-hush-key");
    let table = format!(
        "[handlers.metricly]\n\
         settings = {{ url = \"http://127.0.0.1:{0}/ingest\", api_key = {{ file = {key:?} }} }}\n\
         grant = {{ http = [\"http://127.0.0.1:{0}\"] }}\n{CALLS}\nqueue = {{ {queue} }}\n",
        sink.port()
    );
    let config = collector("good", "", "interval = \"10s\"") + &table;
    let simulation = Simulation::start(dir, &config);
    simulation.run_until("it is halted", |simulation| simulation.plugin("metricly").state == "halted");
    simulation.run_for(seconds(3600));
    assert_eq!(sink.requests().len(), 1, "nobody is asked meanwhile");
    sink.answer(Reply::Status(202));
    fs::write(&key, "another-key").unwrap();
    simulation.run_until("it goes on", |_| !sink.answered(202).is_empty());
    simulation.run_until_settled("metricly");
    let metricly = simulation.plugin("metricly");
    let arrived = posted(&sink);
    let calls = calls(arrived.iter().cloned());
    let account = Account {
        sent: metricly.samples_total,
        received: calls.len() as u64,
        duplicates: (arrived.len() - calls.len()) as u64,
        dead: metricly.delivery.unwrap_or_default().dead_letters,
        evicted: metricly.dropped.values().sum(),
        ..Account::default()
    };
    (account, calls)
}

#[test]
fn an_hour_without_a_key_ends_with_all_of_it_in_order() {
    let (account, calls) = halted_for_an_hour("disk = \"256MiB\"");
    println!("401 for an hour: {account}");
    assert!(account.sent >= 360 && account.evicted + account.dead == 0 && account.lost() == 0, "{account}");
    assert_eq!(calls, (1..=account.sent).collect::<Vec<_>>());
}

#[test]
fn an_hour_without_a_key_and_little_room_ends_with_the_latest_in_order() {
    let (account, calls) = halted_for_an_hour("disk = \"16KiB\"");
    println!("401 for an hour, a spool of 16 KiB: {account}");
    assert!(account.evicted > 0 && account.dead == 0 && account.lost() == 0, "{account}");
    assert!(calls.is_sorted() && calls.last() == Some(&account.sent), "{calls:?}");
}

#[test]
fn clock_that_jumps_by_an_hour_loses_nothing() {
    let sink = HttpSink::start(&[Reply::Status(503)]);
    let config = collector("good", "", "interval = \"1s\"")
        + &metricly(sink.port(), "hush-hush-key", &format!("{FAST}\n{CALLS}"));
    let simulation = Simulation::start(TempDir::new(), &config);
    simulation.run_for(seconds(60));
    for jump in [3_600_000, -7_200_000, 3_600_000] {
        simulation.clock.jump_wall(jump);
        simulation.run_for(seconds(60));
    }
    sink.answer(Reply::Status(202));
    simulation.run_until("it delivers", |_| !sink.answered(202).is_empty());
    simulation.run_until_settled("metricly");
    let metricly = simulation.plugin("metricly");
    let sent = metricly.samples_total;
    let calls = calls(posted(&sink));
    println!("clock jumps: {sent} sent, {} received, dropped: {:?}", calls.len(), metricly.dropped);
    assert!(sent >= 200, "{sent}: the scheduler stood still");
    assert_eq!(calls, (1..=sent).collect::<Vec<_>>());
}

#[test]
fn spool_that_turns_over_ten_times_keeps_the_latest_and_counts_the_rest() {
    let closed = ClosedPort::new();
    const DISK: u64 = 64 << 10;
    let rest = format!("{FAST}\n{CALLS}\nqueue = {{ disk = \"{DISK}B\", fsync = false, catch_up = 1000 }}");
    let others: String = (0..30).map(|n| collector(&format!("other{n}"), "", "interval = \"1s\"")).collect();
    let config = collector("good", "", "interval = \"1s\"") + &others + &graphite(closed.number(), &rest);
    let simulation = Simulation::start(TempDir::new(), &config);
    let bytes = |plugin: &PluginStatus| plugin.dropped.get("spool-full").copied().unwrap_or(0) * 55;
    simulation.run_until("it has turned over ten times", |simulation| {
        let graphite = simulation.plugin("graphite");
        assert!(graphite.spool_bytes <= DISK, "{}", graphite.spool_bytes);
        bytes(&graphite) >= 10 * DISK
    });
    let sink = LineSink::start_on(closed.open(), Manner::Reads);
    simulation.run_until("it delivers", |_| !sink.lines().is_empty());
    simulation.run_until_settled("graphite");
    let graphite = simulation.plugin("graphite");
    let evicted = graphite.dropped["spool-full"];
    let sent = graphite.samples_total;
    let lines: Vec<String> = sink.lines().into_iter().map(id).collect();
    let received = lines.iter().collect::<BTreeSet<_>>().len() as u64;
    println!("turned over ten times: {sent} sent, {received} received, {evicted} evicted");
    assert_eq!(sent, received + evicted);
    // Nothing is missing but what went, in one piece, behind what was in its hands.
    let calls = calls(lines);
    let gaps = calls.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert_eq!((calls[0], gaps), (1, 1), "{calls:?}");
}

/// Values of `good.calls`, and how often they go back: a batch that was taken is taken again.
fn in_order(text: &str) -> (Vec<u64>, u64) {
    let calls: Vec<u64> = text
        .lines()
        .map(|line| line.strip_prefix("good.calls ").unwrap().parse::<f64>().unwrap() as u64)
        .collect();
    let mut seen = Vec::new();
    let mut last = 0;
    let mut backs = 0;
    for &call in &calls {
        backs += u64::from(call <= last);
        assert!(call <= last || call == last + 1, "{call} after {last}");
        if call > seen.len() as u64 {
            seen.push(call);
        }
        last = call;
    }
    (seen, backs)
}

#[test]
fn handler_killed_a_thousand_times_loses_nothing() {
    const KILLS: u64 = 1000;
    const RUNS: u64 = 4000;
    let dir = TempDir::new();
    let out = dir.join("out");
    fs::create_dir(&out).unwrap();
    let rest = format!(
        "grant = {{ write = [{out:?}] }}\n{CALLS}\nlimits = {{ memory = \"3MiB\" }}\n\
         queue = {{ fsync = false, catch_up = 1000 }}"
    );
    // Each batch but the first is taken twice: before the instance dies of it, and by the next one.
    let config = collector("good", &format!("mode = \"quiet\", after = {RUNS}"), "interval = \"1s\"")
        + &handler("traps", &format!("mode = \"late-trap\", amount = 2, file = \"{out}/traps\""), &rest)
        + &handler("leaks", &format!("mode = \"leak\", amount = 2, file = \"{out}/leaks\""), &rest);
    let simulation = Simulation::start(dir, &config);
    simulation.run_until("all has been measured", |simulation| {
        simulation.plugin("good").collect_duration.count > RUNS
    });
    for (name, reason) in [("traps", "trap"), ("leaks", "memory-limit")] {
        simulation.run_until_settled(name);
        let plugin = simulation.plugin(name);
        let kills: u64 = plugin.kills.values().sum();
        let (received, twice) = in_order(&fs::read_to_string(format!("{out}/{name}")).unwrap());
        println!("{name}: {kills} kills, {RUNS} sent, {} received, {twice} batches twice", received.len());
        assert!(plugin.kills[reason] == kills && kills >= KILLS, "{plugin:#?}");
        assert_eq!((received.len() as u64, plugin.dropped.len()), (RUNS, 0), "{plugin:#?}");
        // Only batches in flight.
        assert_eq!(twice, kills, "{plugin:#?}");
    }
}
