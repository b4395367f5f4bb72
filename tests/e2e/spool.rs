//! What waits for a receiver outlasts the agent: on disk, in order, within its bounds. So does what it will
//! never take.

use std::fs;
use std::path::Path;

use kimberlite_tests::{Agent, HttpSink, Plugin, Reply, TempDir, verb};
use serde_json::Value;

use crate::{KIMBERLITE, collector, metricly};

const QUIET: &str = "self_metrics = false\ngrace = \"2s\"";
const FAST: &str = "retry = { first = \"100ms\", longest = \"200ms\" }\nqueue = { sync = \"200ms\" }";

fn config(port: u16, rest: &str) -> String {
    collector("good", "", "interval = \"100ms\"") + &metricly(port, "hush-hush-key", rest)
}

/// The values of `good.calls` in order of arrival: 1, 2, … in each life of the collector.
fn calls(sink: &HttpSink) -> Vec<u64> {
    arrived(sink).into_iter().map(|(_, call)| call).collect()
}

/// How far the first life's values go on without a gap, from 1.
fn first_life(calls: &[u64]) -> u64 {
    (1..).zip(calls).take_while(|(wanted, call)| wanted == *call).count() as u64
}

fn runs(agent: &Agent) -> u64 {
    agent.plugin("good").map_or(0, |good| good.runs())
}

/// What has run by now has been on disk for a while when this returns.
fn settled(agent: &Agent) -> u64 {
    let seen = runs(agent);
    agent.wait("ten further runs", |agent| (runs(agent) > seen + 10).then_some(()));
    seen
}

fn wait_for_second_life(agent: &Agent, sink: &HttpSink) -> Vec<u64> {
    agent.wait("the second life's samples have arrived", |_| {
        let calls = calls(sink);
        let first = first_life(&calls) as usize;
        (calls.len() > first + 3).then_some(calls)
    })
}

fn survives_a_kill(reply: Reply) {
    let sink = HttpSink::start(&[reply]);
    let agent = Agent::start_with(KIMBERLITE, QUIET, &config(sink.port(), FAST));
    agent.wait("the receiver has been asked", |_| (!sink.requests().is_empty()).then_some(()));
    let seen = settled(&agent);
    let metricly = agent.plugin("metricly").unwrap();
    assert!(metricly.figure("spool_bytes") > 0, "{metricly:?}");
    let dir = agent.kill_and_keep();
    sink.answer(Reply::Status(202));
    let agent = Agent::start_in(dir, KIMBERLITE, QUIET, &config(sink.port(), FAST));
    let calls = wait_for_second_life(&agent, &sink);
    let first = first_life(&calls);
    assert!(first >= seen, "{seen} had run, these arrived: {calls:?}");
    // The second life's behind the first's, each once.
    let second = &calls[first as usize..];
    assert_eq!(second, (1..=second.len() as u64).collect::<Vec<_>>());
    agent.wait_for("metricly", "has emptied its spool", |plugin| plugin.figure("spool_bytes") == 0);
}

#[test]
fn a_killed_agent_delivers_what_a_receiver_refused_before() {
    survives_a_kill(Reply::Status(503));
}

#[test]
fn a_killed_agent_delivers_what_a_receiver_never_answered() {
    survives_a_kill(Reply::Silence);
}

#[test]
fn a_stopped_agent_delivers_all_of_it_at_the_next_start() {
    let sink = HttpSink::start(&[Reply::Status(503)]);
    // What is in memory goes to disk at the end, however long it might have waited there.
    let lazy = "queue = { sync = \"1h\" }";
    let agent = Agent::start_with(KIMBERLITE, QUIET, &config(sink.port(), lazy));
    let seen = settled(&agent);
    let (ended, dir) = agent.stop_and_keep();
    assert_eq!(ended.code, Some(0));
    assert!(!ended.stderr.iter().any(|line| line.contains("lost")), "{ended:?}");
    sink.answer(Reply::Status(202));
    let agent = Agent::start_in(dir, KIMBERLITE, QUIET, &config(sink.port(), lazy));
    let calls = wait_for_second_life(&agent, &sink);
    assert!(first_life(&calls) > seen + 10, "{seen}: {calls:?}");
}

#[test]
fn a_healthy_handler_writes_nothing_to_disk() {
    let sink = HttpSink::start(&[Reply::Status(202)]);
    let agent = Agent::start_with(KIMBERLITE, QUIET, &config(sink.port(), ""));
    settled(&agent);
    assert!(!Path::new(&agent.data("spool")).exists());
}

#[test]
fn a_spool_beyond_its_bytes_drops_the_oldest_and_counts_them() {
    let sink = HttpSink::start(&[Reply::Status(503)]);
    let small = format!("{FAST}\n").replace("sync = \"200ms\"", "sync = \"100ms\", disk = \"16KiB\"");
    let agent = Agent::start_with(KIMBERLITE, QUIET, &config(sink.port(), &small));
    let metricly =
        agent.wait_for("metricly", "has dropped some", |plugin| plugin.figure("dropped/spool-full") > 0);
    assert!(metricly.figure("spool_bytes") <= 16 << 10, "{metricly:?}");
    sink.answer(Reply::Status(202));
    agent.wait_for("metricly", "has emptied its spool", |plugin| plugin.figure("spool_bytes") == 0);
    agent.stop();
    let calls = calls(&sink);
    // The batch in the agent's hands when its record went is delivered still.
    let gaps: Vec<_> = calls.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
    assert!(calls[0] == 1 && gaps.len() == 1 && gaps[0][0] < gaps[0][1], "{calls:?}");
}

#[test]
fn a_disk_that_fails_leaves_memory_and_is_used_again_when_it_works() {
    let sink = HttpSink::start(&[Reply::Status(503)]);
    let dir = TempDir::new();
    fs::create_dir_all(dir.join("data")).unwrap();
    fs::set_permissions(dir.join("data"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(dir.join("data/id"), "web-1").unwrap();
    fs::write(dir.join("data/spool"), "in the way").unwrap();
    let agent = Agent::start_in(dir, KIMBERLITE, QUIET, &config(sink.port(), FAST));
    agent.wait_for_log(&["spool cannot be used"]);
    fs::remove_file(agent.data("spool")).unwrap();
    agent.wait_for_log(&["spool can be used again"]);
    agent.wait_for("metricly", "spools", |plugin| plugin.figure("spool_bytes") > 0);
    fs::remove_dir_all(agent.data("spool")).unwrap();
    let metricly = agent
        .wait_for("metricly", "counts what was deleted", |plugin| plugin.figure("dropped/spool-deleted") > 0);
    let gone = metricly.figure("dropped/spool-deleted");
    sink.answer(Reply::Status(202));
    agent.wait_for("metricly", "has delivered", |plugin| plugin.figure("delivery/delivered") > 0);
    let metricly = agent.wait_for("metricly", "has emptied its spool", |plugin| {
        plugin.figure("spool_bytes") == 0 && plugin.figure("queue_bytes") == 0
    });
    assert_eq!(metricly.figure("dropped/spool-deleted"), gone);
    let sent = metricly.figure("samples_total");
    let delivered = metricly.figure("delivery/delivered");
    assert!(sent - delivered - gone <= 20, "{sent} came, {delivered} went, {gone} were deleted");
}

#[test]
fn a_halt_survives_a_kill_and_ends_when_the_key_changes() {
    let sink = HttpSink::start(&[Reply::Status(401)]);
    let dir = TempDir::new();
    let key = dir.write("key", "hush-hush-key\n");
    let config = collector("good", "", "interval = \"100ms\"")
        + &format!(
            "[handlers.metricly]\n\
             settings = {{ url = \"http://127.0.0.1:{0}/ingest\", api_key = {{ file = {key:?} }} }}\n\
             grant = {{ http = [\"http://127.0.0.1:{0}\"] }}\n{FAST}\n",
            sink.port()
        );
    let agent = Agent::start_in(dir, KIMBERLITE, QUIET, &config);
    agent.wait_for("metricly", "is halted", |plugin| plugin.state() == "halted");
    let seen = settled(&agent);
    let dir = agent.kill_and_keep();
    let asked = sink.requests().len();
    let agent = Agent::start_in(dir, KIMBERLITE, QUIET, &config);
    let metricly = agent.wait_for("metricly", "is halted again", |plugin| plugin.state() == "halted");
    assert!(metricly.0["delivery"]["halted"].as_str().unwrap().contains("401"), "{metricly:?}");
    settled(&agent);
    assert_eq!(sink.requests().len(), asked, "nobody is asked meanwhile");
    sink.answer(Reply::Status(202));
    fs::write(&key, "another-key").unwrap();
    let calls = wait_for_second_life(&agent, &sink);
    assert!(first_life(&calls) >= seen, "{seen}: {calls:?}");
    assert!(sink.answered(202).iter().all(|request| request.path == "/ingest/another-key"));
    assert!(!Path::new(&agent.data("halted/metricly")).exists());
}

#[test]
fn what_a_receiver_refuses_is_kept_shown_and_handed_back() {
    let sink = HttpSink::start(&[Reply::Status(400)]);
    let config = ["good", "fine", "well"].map(|name| collector(name, "", "interval = \"1h\"")).concat()
        + &metricly(sink.port(), "hush-hush-key", FAST);
    let agent = Agent::start_with(KIMBERLITE, QUIET, &config);
    let idle = |plugin: &Plugin| plugin.figure("queue_bytes") == 0 && plugin.figure("spool_bytes") == 0;
    let metricly = agent.wait_for("metricly", "has set all aside", |plugin| {
        plugin.figure("delivery/dead_letters") == 3 && idle(plugin)
    });
    let file = agent.config_file();
    let ask = |words: &[&str]| verb(KIMBERLITE, &[&["deadletters"], words, &["-c", &file]].concat());
    let list = ask(&["list", "-o", "json"]).expect_code(0).json_lines();
    let samples: u64 = list.iter().map(|letter| letter["samples"].as_u64().unwrap()).sum();
    assert_eq!(samples, metricly.figure("delivery/dead_letters"));
    assert!(list[0]["reason"].as_str().unwrap().contains("400"), "{list:?}");

    let (first, second) = (list[0]["id"].as_str().unwrap(), list[1]["id"].as_str().unwrap());
    let shown = ask(&["show", first]).expect_code(0).json_lines();
    assert!(shown[0]["metric"].as_str().unwrap().ends_with(".calls"), "{shown:?}");
    ask(&["drop", second]).expect_code(0);
    let gone = ask(&["retry", second]).expect_code(74);
    assert!(gone.stderr.contains(second) && gone.stderr.contains("deadletters list"), "{}", gone.stderr);

    sink.answer(Reply::Status(202));
    ask(&["retry", first]).expect_code(0);
    agent.wait("it has arrived", |_| (sink.answered(202).len() == 1).then_some(()));
    let left = ask(&["list", "-o", "json"]).expect_code(0).json_lines();
    assert_eq!(left.len(), list.len() - 2);
    assert!(ask(&["list"]).expect_code(0).stdout.contains("metricly/"));
    ask(&["show", "no-such-thing"]).expect_code(2);
}

/// Timestamp and value of each `good.calls`, in order of arrival.
pub(crate) fn arrived(sink: &HttpSink) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    for request in sink.answered(202) {
        let elements: Vec<Value> = serde_json::from_str(&request.body).unwrap();
        for sample in elements.iter().flat_map(|element| element["samples"].as_array().unwrap()) {
            if sample["metricId"] == "good.calls" {
                found.push((sample["timestamp"].as_u64().unwrap(), sample["val"].as_f64().unwrap() as u64));
            }
        }
    }
    found
}
