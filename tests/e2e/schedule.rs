//! Who runs when, seen from the receiver.

use std::collections::BTreeMap;

use kimberlite_tests::{Agent, LineSink};

use crate::{KIMBERLITE, collector, graphite};

#[test]
fn collectors_of_one_interval_run_together_and_on_time() {
    let sink = LineSink::start();
    let config = collector("one", "", "") + &collector("two", "", "") + &graphite(sink.port(), "");
    let agent = Agent::start(KIMBERLITE, &config);
    agent.wait("three runs have arrived", |_| (sink.lines().len() >= 10).then_some(()));
    agent.stop();
    let mut runs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in sink.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, _, timestamp] = words[..] else { panic!("{line}") };
        runs.entry(name.to_owned()).or_default().push(timestamp.to_owned());
    }
    let timestamps = &runs["servers.web-1.one.calls"];
    assert_eq!(timestamps, &runs["servers.web-1.two.calls"]);
    // Behind the first run, which is at the start, they are a second apart.
    let seconds: Vec<u64> = timestamps.iter().skip(1).map(|time| time.parse().unwrap()).collect();
    assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1), "{timestamps:?}");
}

#[test]
fn everything_runs_at_the_start_and_then_the_agent_is_ready() {
    let agent = Agent::start(KIMBERLITE, &collector("rare", "", "interval = \"1h\""));
    agent.wait("it is ready", |agent| agent.get("/-/ready").filter(|(code, _)| *code == 200));
    assert_eq!(agent.plugin("rare").unwrap().runs(), 1);
}

#[test]
fn one_that_hangs_in_every_run_delays_nobody() {
    let hanging =
        collector("hanging", "mode = \"sleep\"", "limits = { timeout = \"900ms\", failures = 1000 }");
    let agent = Agent::start(KIMBERLITE, &(hanging + &collector("good", "", "interval = \"200ms\"")));
    agent.wait_for("hanging", "was killed twice", |plugin| plugin.kills("deadline") >= 2);
    let good = agent.plugin("good").unwrap();
    assert_eq!((good.figure("skipped"), good.figure("failures")), (0, 0), "{good:?}");
    assert!(good.runs() >= 5, "{good:?}");
}
