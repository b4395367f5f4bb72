//! How soon a dropped file runs, and what the others feel of it. `BENCH_SECONDS` says for how long (20).

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kimberlite::plugin::section::embed;
use kimberlite_tests::{Agent, LineSink, TempDir};

use crate::report::{Goal, figure, note, quantile, spread, title};
use crate::{component, setting};

const COLLECTORS: usize = 100;
/// As the config has it by default.
const DEBOUNCE: f64 = 200.0;
const ROUNDS: usize = 10;

pub(crate) fn run() {
    let seconds = setting("BENCH_SECONDS", 20);
    title(&format!("reload: {COLLECTORS} collectors, 1 s, while files are dropped"));
    let file = component::bench_collector();
    let component = fs::read(&file).unwrap();
    let dir = TempDir::new();
    let plugins = dir.join("plugins");
    fs::create_dir(&plugins).unwrap();
    let sink = LineSink::start();
    let port = sink.port();
    let mut config = format!(
        "[handlers.graphite]\nsettings = {{ host = \"127.0.0.1\", port = {port} }}\n\
         grant = {{ tcp = [\"127.0.0.1:{port}\"] }}\nmatch = {{ metrics = [\"dropped*\"] }}\n\n"
    );
    for i in 0..COLLECTORS {
        config += &format!(
            "[collectors.c{i:03}]\nplugin = {{ file = {file:?} }}\ninterval = \"1s\"\n\
             settings = {{ prefix = \"c{i:03}\", count = 100 }}\n\n"
        );
    }
    let keys = format!("plugin_dirs = [{plugins:?}]\nself_metrics = false\ninterval = \"1s\"");
    let agent = Agent::start_in(dir, &component::kimberlite(), &keys, &config);
    agent.wait("every collector has run", |agent| (agent.get("/-/ready")?.0 == 200).then_some(()));

    let path = format!("{plugins}/dropped.wasm");
    let mut cold: Vec<f64> =
        (0..ROUNDS).map(|n| drop_in(&agent, &sink, &path, &version(&component, n))).collect();
    // Its code has been compiled before.
    let mut warm: Vec<f64> =
        (0..ROUNDS).map(|n| drop_in(&agent, &sink, &path, &version(&component, n))).collect();
    let beyond = |times: &mut Vec<f64>, share| quantile(times, share) - DEBOUNCE;
    figure("warm: first sample after debounce, median", beyond(&mut warm, 0.5), "ms", Some(100.0));
    figure("warm: first sample after debounce, max", beyond(&mut warm, 1.0), "ms", Some(100.0));
    figure("compiled: first sample after debounce, max", beyond(&mut cold, 1.0), "ms", Some(1100.0));

    let mut quiet = lateness(&agent, seconds);
    spread("nothing is dropped: start after the slot", &mut quiet, "ms", Goal::None);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let dropping = scope.spawn(|| {
            let mut dropped = ROUNDS;
            while !is_over.load(Ordering::Relaxed) {
                put(&path, &version(&component, dropped));
                dropped += 1;
                thread::sleep(Duration::from_millis(300));
            }
            dropped - ROUNDS
        });
        let mut busy = lateness(&agent, seconds);
        is_over.store(true, Ordering::Relaxed);
        let dropped = dropping.join().unwrap();
        note(&format!("    {dropped} versions were dropped, each had to be compiled"));
        spread("dropped and compiled: start after the slot", &mut busy, "ms", Goal::Of(0.99, 5.0));
    });
    let skipped: u64 = agent.plugins().iter().map(|plugin| plugin.figure("skipped")).sum();
    note(&format!("    {skipped} runs were skipped since the start"));
}

/// Whose hash no agent has seen, and so no cache.
fn version(component: &[u8], number: usize) -> Vec<u8> {
    let process = std::process::id();
    let manifest = format!(
        "name = \"dropped\"\nkind = \"collector\"\nversion = \"1.{process}.{number}\"\ndescription = \"of a benchmark\"\n\
         [settings.prefix]\ntype = \"text\"\ndefault = \"dropped\"\nhelp = \"of its metrics\"\n\
         [settings.count]\ntype = \"whole\"\ndefault = 1\nhelp = \"how many\"\n"
    );
    embed(component, &manifest).unwrap()
}

fn put(path: &str, bytes: &[u8]) {
    let aside = format!("{path}.new");
    fs::write(&aside, bytes).unwrap();
    fs::rename(aside, path).unwrap();
}

/// From the last write to the first sample at the receiver, in milliseconds. It is gone again then.
fn drop_in(agent: &Agent, sink: &LineSink, path: &str, bytes: &[u8]) -> f64 {
    let before = sink.lines().len();
    put(path, bytes);
    let written = Instant::now();
    while sink.lines().len() == before {
        assert!(written.elapsed() < Duration::from_secs(60), "it never ran");
        thread::sleep(Duration::from_millis(1));
    }
    let took = written.elapsed();
    fs::remove_file(path).unwrap();
    agent.wait("it is gone", |agent| agent.plugin("dropped").is_none().then_some(()));
    1e3 * took.as_secs_f64()
}

/// Of the latest run of each collector, looked at now and then.
fn lateness(agent: &Agent, seconds: u64) -> Vec<f64> {
    let begun = Instant::now();
    let mut late = Vec::new();
    while begun.elapsed() < Duration::from_secs(seconds) {
        thread::sleep(Duration::from_millis(1300));
        let plugins = agent.plugins();
        let others = plugins.iter().filter(|plugin| plugin.0["name"].as_str().unwrap().starts_with('c'));
        late.extend(others.filter_map(|plugin| Some(1e3 * plugin.0["lateness"]["last"].as_f64()?)));
    }
    late
}
