//! While a receiver is away: what the agent says of it, what it costs, and what is kept at the end.

use std::fs;

use kimberlite_tests::{Agent, Authority, ClosedPort, HttpSink, LineSink, Reply, TempDir, verb};

use crate::faults::posted;
use crate::{KIMBERLITE, collector, graphite, metricly};

const QUIET: &str = "self_metrics = false\ngrace = \"1s\"";
const MIB: u64 = 1 << 20;

/// Bytes.
fn resident(agent: &Agent) -> u64 {
    agent.metric("kimberlite_resident_memory_bytes").unwrap_or(0.0) as u64
}

/// Its most so far.
fn most_resident(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn an_outage_takes_no_more_memory_than_its_bounds() {
    // 100,000 samples a second.
    let load: String = (0..5)
        .map(|number| {
            let settings = "mode = \"flood-samples\", amount = 2000";
            collector(&format!("load{number}"), settings, "interval = \"100ms\"")
        })
        .collect();
    let handlers = |port: u16| {
        let queue = "queue = { memory = \"4MiB\", disk = \"8MiB\", fsync = false }\n\
                     retry = { longest = \"1s\" }\nmatch = { metrics = [\"*.calls\"] }";
        let no_disk = queue.replace("8MiB", "0B");
        let closing = graphite(port, &no_disk)
            .replace("[handlers.graphite]", "[handlers.closing]\nplugin = \"graphite\"");
        graphite(port, queue) + &metricly(port, "hush-hush-key", queue) + &closing
    };
    let bounds = 3 * 4 * MIB;

    let sink = LineSink::start();
    let well = handlers(sink.port()).replace("[handlers.metricly]", "[handlers.metricly]\nenabled = false");
    let agent = Agent::start_with(KIMBERLITE, QUIET, &(load.clone() + &well));
    agent.wait_for("load0", "runs", |plugin| plugin.runs() > 50);
    let healthy = resident(&agent);
    drop(agent);

    let closed = ClosedPort::new();
    let agent = Agent::start_with(KIMBERLITE, QUIET, &(load + &handlers(closed.number())));
    for name in ["graphite", "metricly"] {
        agent.wait_for(name, "has let go of a disk full", |plugin| {
            // 10 to 20 bytes a sample.
            plugin.figure("dropped/spool-full") * 10 > 8 * MIB
        });
    }
    assert!(agent.plugin("closing").unwrap().figure("dropped/queue-full") > 0);
    let most = most_resident(&agent);
    let shown = format!("{} KiB while all is well, at most {} KiB in the outage", healthy >> 10, most >> 10);
    println!("{shown}; bounds: {} KiB", bounds >> 10);
    assert!(most <= healthy + bounds + 8 * MIB, "{shown}");
}

#[test]
fn list_says_how_often_delivery_has_failed_and_when_it_is_tried_again() {
    let sink = HttpSink::start(&[Reply::Status(503)]);
    let config = collector("good", "", "interval = \"100ms\"")
        + &metricly(sink.port(), "hush-hush-key", "retry = { first = \"10ms\", longest = \"1h\" }");
    let agent = Agent::start_with(KIMBERLITE, QUIET, &config);
    agent.wait_for("metricly", "has failed", |plugin| plugin.figure("delivery/retrying/attempts") > 3);
    let listed = verb(KIMBERLITE, &["list", "-c", &agent.config_file()]).expect_code(0).stdout;
    let line = listed.lines().find(|line| line.starts_with("metricly has failed")).unwrap();
    assert!(line.contains("times in a row, tries again at 2") && line.contains("503"), "{listed}");
    assert!(agent.metric("kimberlite_delivery_attempts_failed{handler=\"metricly\"}") > Some(3.0));
    sink.answer(Reply::Status(202));
    agent.wait_for("metricly", "is well", |plugin| plugin.0["delivery"]["retrying"].is_null());
}

/// Whatever the handler does meanwhile, and however much longer than the grace that takes.
fn is_kept_at_the_end(handlers: impl Fn(u16) -> String, is_busy: impl Fn(&Agent) -> bool) {
    let sink = HttpSink::start(&[Reply::Silence]);
    let config = collector("good", "mode = \"quiet\", after = 5", "interval = \"100ms\"");
    let agent = Agent::start_with(KIMBERLITE, QUIET, &(config + &handlers(sink.port())));
    agent.wait_for("good", "has measured", |plugin| plugin.runs() > 5);
    agent.wait("the handler is busy", |agent| is_busy(agent).then_some(()));
    let (ended, dir) = agent.stop_and_keep();
    assert_eq!(ended.code, Some(0));
    sink.answer(Reply::Status(202));
    let agent = Agent::start_in(dir, KIMBERLITE, QUIET, &metricly(sink.port(), "hush-hush-key", ""));
    agent.wait("all has arrived", |_| {
        let calls = posted(&sink).into_iter().filter(|id| id.starts_with("good.calls")).count();
        (calls == 5).then_some(())
    });
}

#[test]
fn what_a_handler_has_in_its_hands_when_the_grace_ends_is_delivered_by_the_next_agent() {
    let lazy = "queue = { sync = \"1h\" }";
    is_kept_at_the_end(
        |port| metricly(port, "hush-hush-key", lazy),
        |agent| agent.plugin("metricly").is_some_and(|plugin| plugin.figure("queue_bytes") > 0),
    );
}

#[test]
fn what_waits_for_a_handler_that_cannot_run_is_delivered_by_the_next_agent() {
    is_kept_at_the_end(
        |port| metricly(port, "hush-hush-key", "").replace("grant = ", "#"),
        |agent| agent.plugin("metricly").is_some_and(|plugin| plugin.state() == "parked"),
    );
}

#[test]
fn renewed_certificates_count_at_once() {
    let (stranger, authority) = (Authority::new(), Authority::new());
    let sink = HttpSink::start(&[Reply::Status(202)]);
    sink.show(authority.sign_for_known("localhost"));
    let dir = TempDir::new();
    let (cert, key) = stranger.sign_sender();
    let files = [("ca.pem", stranger.pem()), ("cert.pem", cert), ("key.pem", key)];
    let [ca, cert, key] = files.map(|(name, text)| dir.write(name, text));
    let rest = format!(
        "tls = {{ ca = {ca:?}, cert = {cert:?}, key = {key:?} }}\n\
         retry = {{ first = \"100ms\", longest = \"200ms\" }}"
    );
    let table =
        metricly(sink.port(), "hush-hush-key", &rest).replace("http://127.0.0.1", "https://localhost");
    let config = collector("good", "", "interval = \"100ms\"") + &table;
    let agent = Agent::start_in(dir, KIMBERLITE, QUIET, &config);
    let fails_on = |why: &str| {
        let failures = agent.plugin("metricly").map_or(0, |plugin| plugin.figure("failures"));
        agent.wait_for("metricly", why, |plugin| plugin.figure("failures") > failures + 1);
        assert!(sink.requests().is_empty());
    };
    fails_on("trusts nobody");
    agent.dir.write("ca.pem", "-----BEGIN CERTIFICATE-----\nhalf a ce");
    fails_on("still trusts nobody");
    agent.dir.write("ca.pem", authority.pem());
    fails_on("is not known itself");
    let (cert, key) = authority.sign_sender();
    agent.dir.write("key.pem", key);
    fails_on("has a key that is another's");
    agent.dir.write("cert.pem", cert);
    agent.wait("it delivers", |_| (!sink.requests().is_empty()).then_some(()));
}
