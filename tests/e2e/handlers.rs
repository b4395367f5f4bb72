//! Handlers that misbehave: whatever they do, no sample is lost that could be delivered.

use kimberlite_tests::{Agent, Plugin, verb};
use serde_json::Value;

use crate::{KIMBERLITE, collector, handler};

const FAST: &str = "retry = { first = \"50ms\", longest = \"100ms\" }";

/// An agent with one good collector and this handler, once the handler is as wanted.
#[track_caller]
fn agent_with(settings: &str, rest: &str, what: &str, is: impl Fn(&Plugin) -> bool) -> (Agent, Plugin) {
    let config = collector("good", "", "interval = \"200ms\"") + &handler("out", settings, rest);
    let agent = Agent::start_with(KIMBERLITE, "self_metrics = false", &config);
    let plugin = agent.wait_for("out", what, is);
    (agent, plugin)
}

/// What the handler says it took: `took 3 items, attempt 1: good.calls good.clock`.
fn taken(log: &[Value]) -> usize {
    let messages = log.iter().filter_map(|line| line["message"].as_str());
    let items = messages
        .filter_map(|message| message.strip_prefix("took ")?.split(' ').next()?.parse::<usize>().ok());
    items.sum()
}

fn delivered(plugin: &Plugin) -> u64 {
    plugin.figure("delivery/delivered")
}

#[test]
fn one_that_takes_everything_gets_everything_once() {
    let (agent, out) = agent_with("", "", "has delivered", |out| delivered(out) >= 8);
    assert_eq!((out.figure("failures"), out.figure("delivery/retried")), (0, 0));
    let collected = agent.plugin("good").unwrap().figure("samples_total");
    let ended = agent.stop();
    let log: Vec<Value> = ended.stderr.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(taken(&log) as u64 >= collected);
}

#[test]
fn one_killed_in_the_middle_gets_the_same_batch_again() {
    let settings = "mode = \"trap\", amount = 3";
    let (agent, out) =
        agent_with(settings, FAST, "was killed twice", |out| out.kills("trap") >= 2 && delivered(out) > 4);
    assert_eq!((out.figure("delivery/dead_letters"), out.figure("delivery/rejected")), (0, 0), "{out:?}");
    assert!(agent.has_logged(&["took", "attempt 2"]), "{}", agent.all_that_is_known());
}

#[test]
fn a_batch_that_kills_its_handler_three_times_is_set_aside_and_the_rest_goes_on() {
    let config = collector("good", "", "interval = \"200ms\"")
        + &collector("poison", "", "interval = \"1h\"")
        + &handler("out", "mode = \"poison\"", FAST);
    let agent = Agent::start_with(KIMBERLITE, "self_metrics = false", &config);
    let out = agent.wait_for("out", "has set it aside", |out| out.figure("delivery/dead_letters") > 0);
    assert_eq!(out.kills("trap"), 3, "{out:?}");
    agent.wait_for_log(&["set aside", "out"]);
    agent.wait_for("out", "delivers the rest", |out| delivered(out) >= 4);
}

#[test]
fn one_that_says_retry_is_asked_again_until_it_takes_the_batch() {
    let (agent, out) =
        agent_with("mode = \"retry\", amount = 3", FAST, "has delivered", |out| delivered(out) >= 4);
    assert!(out.figure("delivery/retried") >= 3, "{out:?}");
    assert!(agent.has_logged(&["took", "attempt 4"]));
}

#[test]
fn what_is_rejected_is_set_aside_and_counted() {
    let (agent, out) =
        agent_with("mode = \"reject\"", "", "has rejected", |out| out.figure("delivery/rejected") >= 3);
    assert_eq!(
        (delivered(&out), out.figure("dropped/dead-letter")),
        (0, out.figure("delivery/dead_letters"))
    );
    let (name, reason) = ("handler=\"out\"", "reason=\"dead-letter\"");
    let dropped = agent.metric(&format!("kimberlite_samples_dropped_total{{{name},{reason}}}"));
    assert!(dropped >= Some(3.0), "{dropped:?}");
}

#[test]
fn a_batch_that_is_too_large_is_halved_until_it_fits() {
    let config = (0..8).map(|n| collector(&format!("good{n}"), "", "")).collect::<String>()
        + &handler("out", "mode = \"too-large\", amount = 3", "");
    let agent = Agent::start_with(KIMBERLITE, "self_metrics = false", &config);
    let out = agent.wait_for("out", "has delivered", |out| delivered(out) >= 24);
    assert_eq!(out.figure("delivery/dead_letters"), 0, "{out:?}");
    let items = |line: &Value| {
        line["message"].as_str()?.strip_prefix("took ")?.split(' ').next()?.parse::<usize>().ok()
    };
    let largest = agent.log().iter().filter_map(items).max();
    assert!(largest <= Some(3), "{largest:?}");
}

#[test]
fn a_halted_handler_keeps_everything_until_somebody_resumes_it() {
    let (agent, out) = agent_with("mode = \"halt\"", "", "is halted", |out| out.state() == "halted");
    assert!(out.0["delivery"]["halted"].as_str().unwrap().contains("halt says"), "{out:?}");
    let (code, body) = agent.get("/-/healthy").unwrap();
    assert!(code == 503 && body.contains("`out` is halted"), "{code} {body}");
    let queued = agent.wait_for("out", "has a queue that grows", |out| {
        out.figure("queue_bytes") > 0 && out.figure("samples_total") > 6
    });
    assert_eq!((delivered(&queued), queued.figure("delivery/dead_letters")), (0, 0));
    verb(KIMBERLITE, &["resume", "out", "-c", &agent.config_file()]).expect_code(0);
    // It halts again, which is the only way to see that it was asked.
    agent.wait_for("out", "was asked again", |out| out.figure("failures") > queued.figure("failures"));
}

#[test]
fn one_that_spins_or_hoards_is_killed_and_the_others_deliver() {
    let config = collector("good", "", "interval = \"200ms\"")
        + &handler("spins", "mode = \"spin\"", "limits = { cpu = \"100ms\", failures = 2 }")
        + &handler("hoards", "mode = \"hoard\", amount = 64", "limits = { failures = 2 }")
        + &handler("out", "", "");
    let agent = Agent::start(KIMBERLITE, &config);
    agent.wait_for("spins", "is quarantined", |plugin| {
        plugin.state() == "quarantined" && plugin.kills("deadline") == 2
    });
    agent.wait_for("hoards", "is quarantined", |plugin| {
        plugin.state() == "quarantined" && plugin.kills("memory-limit") == 2
    });
    let before = delivered(&agent.plugin("out").unwrap());
    agent.wait_for("out", "delivers on", |out| delivered(out) > before + 2);
    assert_eq!(agent.plugin("good").unwrap().figure("skipped"), 0);
}

#[test]
fn a_slow_handler_makes_nobody_late() {
    let settings = "mode = \"slow\", amount = 400";
    let (agent, _) = agent_with(settings, "", "has delivered twice", |out| out.runs() >= 2);
    let good = agent.plugin("good").unwrap();
    assert_eq!((good.figure("skipped"), good.figure("failures")), (0, 0));
}

#[test]
fn a_full_queue_without_a_disk_drops_the_oldest_and_counts_them() {
    let rest = "queue = { memory = \"2KiB\", disk = \"0B\" }";
    let (agent, out) =
        agent_with("mode = \"halt\"", rest, "has dropped", |out| out.figure("dropped/queue-full") > 0);
    assert!(out.figure("queue_bytes") <= 4096, "{out:?}");
    let series = "kimberlite_samples_dropped_total{handler=\"out\",reason=\"queue-full\"}";
    assert!(agent.metric(series) > Some(0.0), "no {series}");
}
