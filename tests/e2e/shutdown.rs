//! SIGTERM and SIGINT: what was measured is delivered, and nothing holds the end up for ever.

use std::time::Duration;

use kimberlite_tests::{Agent, HttpSink, LineSink, Reply};
use rustix::process::Signal;

use crate::{KIMBERLITE, collector, graphite, handler, metricly};

#[test]
fn what_was_measured_is_delivered_before_the_end() {
    let sink = LineSink::start();
    // Batches wait for more, longer than this test.
    let config =
        collector("good", "", "interval = \"100ms\"") + &graphite(sink.port(), "batch = { wait = \"1h\" }");
    let agent = Agent::start(KIMBERLITE, &config);
    agent.wait_for("good", "has run", |good| good.runs() > 3);
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let calls: Vec<String> = sink.lines().into_iter().filter(|line| line.contains("good.calls")).collect();
    assert!(calls.len() > 3, "{calls:?}");
    for (wanted, line) in (1..).zip(&calls) {
        assert!(line.starts_with(&format!("servers.web-1.good.calls {wanted} ")), "{calls:?}");
    }
}

#[test]
fn an_interrupt_ends_it_as_well() {
    let agent = Agent::start(KIMBERLITE, &collector("good", "", ""));
    agent.wait_for("good", "has run", |good| good.runs() > 0);
    agent.signal(Signal::INT);
    assert_eq!(agent.end().code, Some(0));
}

#[test]
fn who_does_not_answer_holds_up_the_end_no_longer_than_the_grace() {
    let silent = HttpSink::start(&[Reply::Silence]);
    let config = collector("good", "", "")
        + &collector("spin", "mode = \"spin\"", "limits = { failures = 1000 }")
        + &handler("slow", "mode = \"slow\", amount = 100_000", "queue = { disk = \"0B\" }")
        + &metricly(silent.port(), "hush-hush-key", "");
    let agent = Agent::start_with(KIMBERLITE, "grace = \"1s\"", &config);
    agent.wait("both handlers are busy", |agent| {
        let waits = |name: &str| agent.plugin(name).is_some_and(|plugin| plugin.figure("queue_bytes") > 0);
        (waits("slow") && !silent.requests().is_empty()).then_some(())
    });
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.took < Duration::from_secs(8), "{:?}", ended.took);
    assert!(ended.stderr.iter().any(|line| line.contains("lost")), "what is lost is said: {ended:?}");
}

#[test]
fn a_receiver_that_recovers_within_the_grace_gets_everything() {
    let sink = HttpSink::start(&[503, 503, 202].map(Reply::Status));
    let retry = "retry = { first = \"500ms\", longest = \"500ms\" }";
    let config = collector("good", "", "interval = \"1h\"") + &metricly(sink.port(), "hush-hush-key", retry);
    let agent = Agent::start(KIMBERLITE, &config);
    agent.wait("the receiver has refused", |_| (!sink.requests().is_empty()).then_some(()));
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0));
    let taken = sink.requests().into_iter().filter(|request| request.status == Some(202)).count();
    assert_eq!(taken, 1, "{:?}", ended.stderr);
}
