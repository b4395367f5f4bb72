//! The bundled handlers against real sockets: outages lose nothing that the protocol can tell.

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use kimberlite_tests::{Agent, HttpSink, LineSink, Manner, Reply, TempDir, verb, verb_with_input};
use serde_json::{Value, json};

use crate::{KIMBERLITE, collector, graphite, metricly};

const FAST: &str = "retry = { first = \"100ms\", longest = \"200ms\" }";

/// Values of a metric that a receiver of lines has, in order of arrival.
fn values(sink: &LineSink, path: &str) -> Vec<u64> {
    let lines = sink.lines();
    let words = lines.iter().filter_map(|line| line.strip_prefix(path)?.trim_start().split(' ').next());
    words.map(|word| word.parse().unwrap()).collect()
}

#[test]
fn graphite_lines_are_path_value_and_seconds() {
    let sink = LineSink::start();
    let config = format!("[agent]\nname = \"web.1\"\n\n{}", graphite(sink.port(), ""));
    let files = TempDir::new();
    let config = files.write("k.toml", config);
    let samples = [
        r#"{"timestamp":1503300000999,"element":"web.1","metric":"cpu.total.user","value":12.5,"kind":"rate"}"#,
        r#"{"timestamp":1503300060000,"element":"disk 7","metric":"disk.reads","value":3,"kind":"counter"}"#,
    ];
    let args = ["send", "graphite", "--from", "-", "--give-up", "10s", "-c", &config];
    verb_with_input(KIMBERLITE, &args, &samples.join("\n")).expect_code(0);
    kimberlite_tests::wait(
        "both lines",
        || format!("{:?}", sink.lines()),
        || (sink.lines().len() == 2).then_some(()),
    );
    assert_eq!(sink.lines()[0], "servers.web_1.cpu.total.user 12.5 1503300000");
    assert!(sink.lines()[1].starts_with("servers.disk"), "{:?}", sink.lines());
    assert!(sink.lines()[1].ends_with(".disk.reads 3 1503300060"), "{:?}", sink.lines());
}

#[test]
fn graphite_gets_what_was_measured_while_it_was_away() {
    let sink = LineSink::start();
    let port = sink.port();
    let config = collector("good", "", "interval = \"200ms\"") + &graphite(port, FAST);
    let agent = Agent::start_with(KIMBERLITE, "self_metrics = false", &config);
    agent.wait("the first runs have arrived", |_| {
        (values(&sink, "servers.web-1.good.calls").len() > 2).then_some(())
    });
    let before = values(&sink, "servers.web-1.good.calls");
    drop(sink);
    agent.wait_for("graphite", "notices", |plugin| plugin.figure("delivery/retried") > 1);
    let sink = LineSink::start_on(TcpListener::bind(("127.0.0.1", port)).unwrap(), Manner::Reads);
    agent.wait("the latest runs have arrived", |_| {
        (values(&sink, "servers.web-1.good.calls").len() > 4).then_some(())
    });
    let graphite = agent.plugin("graphite").unwrap();
    assert_eq!(agent.stop().code, Some(0));
    let after = values(&sink, "servers.web-1.good.calls");
    let all: BTreeSet<u64> = before.iter().chain(&after).copied().collect();
    let last = *all.last().unwrap();
    let missing: Vec<u64> = (1..=last).filter(|run| !all.contains(run)).collect();
    // What was written to a dead connection is known to be uncertain; nothing else is lost.
    let unconfirmed = graphite.figure("delivery/unconfirmed");
    assert!(missing.len() as u64 <= unconfirmed, "missing {missing:?}, unconfirmed {unconfirmed}");
    assert!(after.windows(2).all(|pair| pair[0] <= pair[1]), "oldest first: {after:?}");
}

#[test]
fn a_receiver_that_is_never_there_ends_send_with_code_1() {
    let gone = LineSink::start();
    let port = gone.port();
    drop(gone);
    let files = TempDir::new();
    let config = files.write("k.toml", graphite(port, FAST));
    let sample = r#"{"timestamp":1503300000000,"element":"a","metric":"b","value":1,"kind":"gauge"}"#;
    let args = ["send", "graphite", "--from", "-", "--give-up", "1s", "-c", &config];
    let sent = verb_with_input(KIMBERLITE, &args, sample).expect_code(1);
    assert!(sent.stderr.contains("0 of 1 delivered") && sent.stderr.contains("refused"), "{}", sent.stderr);
}

#[test]
fn metricly_gets_every_sample_although_it_answered_503_five_times() {
    let script = [503, 503, 503, 503, 503, 202].map(Reply::Status);
    let sink = HttpSink::start(&script);
    let config =
        collector("good", "", "interval = \"200ms\"") + &metricly(sink.port(), "hush-hush-key", FAST);
    let agent = Agent::start_with(KIMBERLITE, "self_metrics = false", &config);
    agent.wait_for("metricly", "has delivered", |plugin| plugin.figure("delivery/delivered") > 10);
    let plugin = agent.wait_for("metricly", "has delivered all", |plugin| plugin.figure("queue_bytes") == 0);
    assert_eq!(plugin.figure("delivery/retried"), 5, "{plugin:?}");
    agent.stop();
    let taken: Vec<_> = sink.requests().into_iter().filter(|request| request.status == Some(202)).collect();
    let samples: Vec<Value> = taken.iter().flat_map(|request| bodies(&request.body)).collect();
    let calls: Vec<u64> = samples
        .iter()
        .filter(|sample| sample["metricId"] == "good.calls")
        .map(|sample| sample["val"].as_f64().unwrap() as u64)
        .collect();
    assert_eq!(calls, (1..=calls.len() as u64).collect::<Vec<_>>(), "each once, in order");
    assert!(taken.iter().all(|request| request.path == "/ingest/hush-hush-key" && request.method == "POST"));
    assert!(taken.iter().all(|request| request.headers["content-type"] == "application/json"));
    assert!(sink.requests().iter().all(|request| !request.headers.contains_key("transfer-encoding")));
}

/// The samples of all elements of a body.
fn bodies(body: &str) -> Vec<Value> {
    let elements: Vec<Value> = serde_json::from_str(body).unwrap();
    elements.iter().flat_map(|element| element["samples"].as_array().unwrap().clone()).collect()
}

#[test]
fn metricly_bodies_are_those_of_the_old_client_key_by_key() {
    let sink = HttpSink::start(&[Reply::Status(202)]);
    let files = TempDir::new();
    let config = files.write("k.toml", metricly(sink.port(), "APIKEY123", FAST));
    // The second worked example of the reference.
    let sample = r#"{"timestamp":1503300000123,
        "element":{"id":"web-7","type":"CONTAINER","location":"dc1"},
        "metric":"app.requests","kind":"gauge","unit":"requests/s","sparse_data":"ReplaceWithZero",
        "tags":{"utilization":"true","statsdType":"c"},
        "summary":{"val":50,"min":0,"max":100,"avg":25,"sum":50,"cnt":2}}"#;
    let args = ["send", "metricly", "--from", "-", "--give-up", "10s", "-c", &config];
    verb_with_input(KIMBERLITE, &args, &sample.replace('\n', " ")).expect_code(0);
    let requests = sink.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    let mut body: Value = serde_json::from_str(&requests[0].body).unwrap();
    let tags = body[0]["metrics"][0]["tags"].as_array_mut().unwrap();
    tags.sort_by_key(|tag| tag["name"].to_string());
    let wanted = json!([{
        "attributes": [], "id": "web-7", "location": "dc1", "name": "web-7", "relations": [], "tags": [],
        "type": "CONTAINER",
        "metrics": [{
            "id": "app.requests", "sparseDataStrategy": "ReplaceWithZero", "type": "GAUGE", "unit": "requests/s",
            "tags": [{"name": "statsdType", "value": "c"}, {"name": "utilization", "value": "true"}],
        }],
        "samples": [{
            "metricId": "app.requests", "timestamp": 1_503_300_000_123_u64,
            "val": 50, "min": 0, "max": 100, "avg": 25, "sum": 50, "cnt": 2,
        }],
    }]);
    assert_eq!(as_numbers(&body), as_numbers(&wanted));
    assert_eq!(requests[0].headers["content-length"], requests[0].body.len().to_string());
}

/// 50 and 50.0 are one number to the receiver.
fn as_numbers(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(as_numbers).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), as_numbers(value))).collect(),
        Value::Number(number) => json!(number.as_f64()),
        other => other.clone(),
    }
}

#[test]
fn metricly_with_a_wrong_key_is_halted_and_resumes_when_told() {
    let sink = HttpSink::start(&[Reply::Status(401), Reply::Status(202)]);
    let config =
        collector("good", "", "interval = \"200ms\"") + &metricly(sink.port(), "hush-hush-key", FAST);
    let agent = Agent::start(KIMBERLITE, &config);
    agent.wait_for("metricly", "is halted", |plugin| plugin.state() == "halted");
    agent.wait_for("good", "runs on", |good| good.runs() > 6);
    assert_eq!(sink.requests().len(), 1, "nobody asks a receiver that said no");
    verb(KIMBERLITE, &["resume", "metricly", "-c", &agent.config_file()]).expect_code(0);
    let plugin = agent.wait_for("metricly", "delivers", |plugin| plugin.figure("delivery/delivered") > 6);
    assert_eq!(plugin.figure("delivery/dead_letters"), 0);
}

#[test]
fn metricly_isolates_the_sample_that_is_refused() {
    let files = TempDir::new();
    // Eight samples; whatever is posted, the first three posts are too large or bad.
    let sink = HttpSink::start(&[413, 400, 400, 202].map(Reply::Status));
    let config = files.write("k.toml", metricly(sink.port(), "hush-hush-key", FAST));
    let line = |n: u32| {
        format!(r#"{{"timestamp":150330000000{n},"element":"a","metric":"m{n}","value":{n},"kind":"gauge"}}"#)
    };
    let lines: Vec<String> = (0..4).map(line).collect();
    let args = ["send", "metricly", "--from", "-", "--give-up", "10s", "-c", &config];
    let sent = verb_with_input(KIMBERLITE, &args, &lines.join("\n")).expect_code(1);
    assert!(sent.stderr.contains("3 of 4 delivered, 1 refused"), "{}", sent.stderr);
    let sizes: Vec<usize> = sink.requests().iter().map(|request| bodies(&request.body).len()).collect();
    assert_eq!(sizes, [4, 2, 1, 1, 2]);
}

#[test]
fn metricly_waits_as_long_as_the_receiver_wishes() {
    let sink = HttpSink::start(&[Reply::After(429, 2), Reply::Status(202)]);
    let config = collector("good", "", "") + &metricly(sink.port(), "hush-hush-key", FAST);
    let agent = Agent::start(KIMBERLITE, &config);
    agent.wait_for_log(&["metricly", "429", "retry_in"]);
    let logged = agent.log();
    let line = logged.iter().find(|line| line["retry_in"].is_string()).unwrap();
    let wait = line["retry_in"].as_str().unwrap();
    assert!(wait.starts_with("2.") || wait == "2s" || wait.starts_with("1.9"), "{line}");
    agent.wait_for("metricly", "has delivered", |plugin| plugin.figure("delivery/delivered") > 0);
}

#[test]
fn graphite_over_udp_sends_what_one_datagram_holds() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let port = receiver.local_addr().unwrap().port();
    let files = TempDir::new();
    let table = format!(
        "[handlers.graphite]\nsettings = {{ host = \"127.0.0.1\", port = {port}, proto = \"udp\" }}\n\
         grant = {{ udp = [\"127.0.0.1:{port}\"] }}\n"
    );
    let config = files.write("k.toml", table);
    let line = |n: u32| {
        format!(
            r#"{{"timestamp":1503300000000,"element":"a","metric":"m{n:04}","value":{n},"kind":"gauge"}}"#
        )
    };
    let lines: Vec<String> = (0..200).map(line).collect();
    let args = ["send", "graphite", "--from", "-", "--give-up", "10s", "-c", &config];
    verb_with_input(KIMBERLITE, &args, &lines.join("\n")).expect_code(0);
    let mut found = BTreeSet::new();
    let mut datagram = [0; 65536];
    while found.len() < 200 {
        let size = receiver.recv(&mut datagram).unwrap();
        assert!(size <= 1472, "{size} bytes do not fit into one frame");
        let text = std::str::from_utf8(&datagram[..size]).unwrap();
        assert!(text.ends_with('\n'), "half a line: {text:?}");
        found.extend(text.lines().map(str::to_owned));
    }
    assert!(found.contains("servers.a.m0007 7 1503300000"), "{found:?}");
}

#[test]
fn archive_appends_diamonds_lines_to_its_file() {
    let files = TempDir::new();
    let log = files.join("archive.log");
    let folder = files.join("");
    let table = format!(
        "[handlers.archive]\nsettings = {{ log_file = {log:?} }}\ngrant = {{ write = [{folder:?}] }}\n"
    );
    let config = files.write("k.toml", table);
    let sample = r#"{"timestamp":1503300000000,"element":"a","metric":"b.c","value":1.25,"kind":"gauge"}"#;
    for _ in 0..2 {
        let args = ["send", "archive", "--from", "-", "--give-up", "10s", "-c", &config];
        verb_with_input(KIMBERLITE, &args, sample).expect_code(0);
    }
    let written = fs::read_to_string(&log).unwrap();
    assert_eq!(written, "servers.a.b.c 1.25 1503300000\n".repeat(2));
}

#[test]
fn stdout_prints_readable_lines_and_nothing_else() {
    let config = collector("good", "", "interval = \"200ms\"")
        + "[handlers.stdout]\ngrant = { stdout = true }\nsettings = { prefix = \"> \" }\n";
    let agent = Agent::start_with(KIMBERLITE, "self_metrics = false", &config);
    agent.wait("three runs are printed", |agent| (agent.stdout().len() > 5).then_some(()));
    let ended = agent.stop();
    assert!(ended.stdout.iter().all(|line| line.starts_with("> ") && line.contains("good.c")), "{ended:?}");
    assert!(ended.stdout.iter().any(|line| line.contains("good.calls") && line.contains(" 1")), "{ended:?}");
}
