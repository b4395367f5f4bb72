//! `kill -9` at any moment, under load: what is older than `queue.sync` arrives.
//!
//! ```text
//! life 1 ── kill -9 ── life 2 ── kill -9 ── … ── the last life delivers what all of them left
//! ```
//!
//! `KILLS=1000 cargo test --test e2e killed_at_any_moment` does it more often.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kimberlite_tests::{Agent, HttpSink, Reply, TempDir};

use crate::spool::arrived;
use crate::{KIMBERLITE, collector, metricly};

/// At once: more would only make them late.
const WORLDS: usize = 5;
const QUIET: &str = "self_metrics = false";
const SYNC: &str = "queue = { sync = \"200ms\", catch_up = 1000 }";
/// Longer than `sync`, and a while for a busy machine to write.
const A_WHILE: Duration = Duration::from_millis(700);

/// One agent's life.
struct Life {
    /// From its start to that of the next, by the wall clock.
    time: Range<u64>,
    /// Runs that had been [`A_WHILE`] ago when it was killed: values 1 to this were measured.
    runs: u64,
}

#[test]
fn an_agent_killed_at_any_moment_loses_nothing_that_is_older_than_sync() {
    let kills = std::env::var("KILLS").map_or(200, |kills| kills.parse().unwrap());
    let worlds = thread::scope(|scope| {
        let start = |world| scope.spawn(move || kill_again_and_again(world as u64, kills / WORLDS));
        let worlds: Vec<_> = (0..WORLDS).map(start).collect();
        worlds.into_iter().flat_map(|world| world.join().unwrap()).collect::<Vec<_>>()
    });
    println!("{}", worlds.join("\n"));
}

/// Gives what is to be said about each handler.
fn kill_again_and_again(seed: u64, kills: usize) -> [String; 2] {
    let sink = HttpSink::start(&[Reply::Status(202)]);
    let mut dir = TempDir::new();
    let archive = dir.join("archive");
    fs::create_dir(&archive).unwrap();
    let load = |name: &str| collector(name, "mode = \"flood-samples\", amount = 200", "interval = \"100ms\"");
    let retry = format!("retry = {{ first = \"100ms\", longest = \"200ms\" }}\n{SYNC}");
    let config = collector("good", "", "interval = \"100ms\"")
        + &["load0", "load1", "load2"].map(load).concat()
        + &metricly(sink.port(), "hush-hush-key", &retry)
        + &format!(
            "[handlers.archive]\nsettings = {{ log_file = \"{archive}/archive.log\" }}\n\
             grant = {{ write = [{archive:?}] }}\n{SYNC}\n"
        );
    let mut random = random(seed);
    let mut lives = Vec::new();
    let mut lines = Vec::new();
    for life in 0..kills {
        let began = now();
        // Every third is at a receiver that works.
        sink.answer([Reply::Status(202), Reply::Status(503), Reply::Silence][life % 3]);
        let agent = Agent::start_in(dir, KIMBERLITE, QUIET, &config);
        agent.wait("runs", |agent| (runs(agent) > 2).then_some(()));
        let runs = runs(&agent);
        thread::sleep(A_WHILE + Duration::from_millis(random(400)));
        dir = agent.kill_and_keep();
        lives.push(Life { time: began..now(), runs });
    }
    let end = now();
    sink.answer(Reply::Status(202));
    let agent = Agent::start_in(dir, KIMBERLITE, QUIET, &config);
    let is_later = |&(timestamp, _): &(u64, u64)| timestamp >= end;
    agent.wait("what the last life measured has arrived", |agent| {
        lines = archived(&fs::read_to_string(agent.dir.join("archive/archive.log")).unwrap());
        (lines.iter().any(is_later) && arrived(&sink).iter().any(is_later)).then_some(())
    });
    agent.stop();
    [("metricly", arrived(&sink)), ("archive", lines)].map(|(handler, arrived)| {
        for (number, Life { time, runs }) in lives.iter().enumerate() {
            // The archive has whole seconds.
            let time = time.start / 1000 * 1000..time.end;
            let in_time = arrived.iter().filter(|(timestamp, _)| time.contains(timestamp));
            let here: BTreeSet<u64> = in_time.map(|&(_, value)| value).collect();
            let lost: Vec<u64> = (1..=*runs).filter(|value| !here.contains(value)).collect();
            assert!(lost.is_empty(), "{handler}, life {number}: {lost:?} of {runs} are missing");
        }
        let once: BTreeSet<&(u64, u64)> = arrived.iter().collect();
        let twice = arrived.len() - once.len();
        format!("{kills} kills, {handler}: {} arrived, {twice} of them twice", arrived.len())
    })
}

fn runs(agent: &Agent) -> u64 {
    agent.plugin("good").map_or(0, |good| good.runs())
}

/// Timestamp and value of each `good.calls` of Diamond's archive. A kill may leave a torn line.
fn archived(text: &str) -> Vec<(u64, u64)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("servers.web-1.good.calls "));
    lines
        .filter_map(|line| {
            let (value, seconds) = line.split_once(' ')?;
            Some((seconds.parse::<u64>().ok()? * 1000, value.parse::<f64>().ok()? as u64))
        })
        .collect()
}

/// Below what it is asked for, and the same for one seed each time.
fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut chance = seed;
    move |below| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) % below
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}
