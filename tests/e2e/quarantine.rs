//! The life of a plugin that fails: tried again, backed off, quarantined, let back.

use kimberlite_tests::{Agent, LineSink, verb};

use crate::{KIMBERLITE, collector, graphite};

#[test]
fn failures_in_a_row_quarantine_and_release_lets_back() {
    let table = collector("bad", "mode = \"trap\"", "interval = \"100ms\"\nlimits = { failures = 2 }");
    let agent = Agent::start(KIMBERLITE, &(table + &collector("good", "", "")));
    let bad = agent.wait_for("bad", "is quarantined", |plugin| plugin.state() == "quarantined");
    assert_eq!((bad.kills("trap"), bad.figure("memory_now")), (2, 0));
    agent.wait_for_log(&["quarantined", "bad", "kimberlite release"]);
    let (code, body) = agent.get("/-/healthy").unwrap();
    assert!(code == 503 && body.contains("`bad` is quarantined"), "{code} {body}");

    let config = agent.config_file();
    let told = verb(KIMBERLITE, &["release", "bad", "-c", &config]).expect_code(0);
    assert!(told.stdout.contains("bad"), "{told:?}");
    agent.wait_for("bad", "was tried again", |plugin| plugin.kills("trap") >= 4);
    let unknown = verb(KIMBERLITE, &["release", "nobody", "-c", &config]);
    assert!(unknown.code != Some(0) && unknown.stderr.contains("nobody"), "{unknown:?}");
}

#[test]
fn a_quarantine_ends_with_a_probe() {
    let limits = "limits = { failures = 1, quarantine = \"300ms\" }";
    let table = collector("bad", "mode = \"trap\", after = 2", &format!("interval = \"100ms\"\n{limits}"));
    let agent = Agent::start(KIMBERLITE, &table);
    // Two good runs, a trap, a quarantine, and again.
    agent.wait_for("bad", "came back twice", |plugin| plugin.kills("trap") >= 3 && plugin.runs() > 4);
    let config = agent.config_file();
    let shown = verb(KIMBERLITE, &["list", "-c", &config]).expect_code(0);
    assert!(shown.stdout.contains("bad") && shown.stdout.contains("trap"), "{shown:?}");
}

#[test]
fn a_killed_run_is_run_again_on_a_fresh_instance_and_no_rate_breaks() {
    let sink = LineSink::start();
    let table = collector("bad", "mode = \"trap\", after = 2", "interval = \"500ms\"");
    let agent = Agent::start(KIMBERLITE, &(table + &graphite(sink.port(), "")));
    let bad = agent.wait_for("bad", "was killed three times", |plugin| plugin.kills("trap") >= 3);
    assert_eq!((bad.state(), bad.figure("skipped")), ("running", 0), "{bad:?}");
    agent.stop();
    // Instances live for two runs: calls are 1 2 1 2 … without a gap, and the rate is always 1.
    let values = |name: &str| -> Vec<String> {
        let lines = sink.lines();
        let lines = lines.iter().filter(|line| line.starts_with(&format!("servers.web-1.bad.{name} ")));
        lines.map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
    };
    let calls = values("calls");
    assert!(calls.len() >= 7, "{calls:?}");
    assert!(calls.iter().zip(["1", "2"].iter().cycle()).all(|(found, wanted)| found == wanted), "{calls:?}");
    let rates = values("clock");
    assert_eq!(rates.len(), calls.len() - 1, "one rate for each run behind the first");
    assert!(rates.iter().all(|rate| (rate.parse::<f64>().unwrap() - 1.0).abs() < 1e-5), "{rates:?}");
}
