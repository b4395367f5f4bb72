//! A plugin that takes too much is ended, says why, and disturbs nobody.

use kimberlite_tests::{Agent, GROWS_TABLES, HOSTILE_COLLECTOR, LineSink};

use crate::{KIMBERLITE, collector, handler};

/// A misdeed: the table's name, which is the mode unless `settings` has one, the table, and how it
/// has to end.
struct Misdeed {
    name: &'static str,
    settings: String,
    rest: String,
    reason: &'static str,
    /// What the failure's text says.
    words: &'static str,
}

fn misdeed(
    name: &'static str,
    settings: &str,
    rest: &str,
    reason: &'static str,
    words: &'static str,
) -> Misdeed {
    let mode = if settings.contains("mode") { String::new() } else { format!("mode = \"{name}\", ") };
    Misdeed { name, settings: mode + settings, rest: rest.to_owned(), reason, words }
}

/// Runs them all beside a good collector, in one agent: each is killed for its own reason, wherever
/// people look for it, and the good one never misses a run.
#[track_caller]
fn each_is_killed(misdeeds: &[Misdeed]) {
    let mut config = collector("good", "", "") + &handler("out", "", "");
    for misdeed in misdeeds {
        let limits = if misdeed.rest.contains("limits") { "" } else { "limits = { failures = 2 }\n" };
        config += &collector(misdeed.name, &misdeed.settings, &format!("{limits}{}", misdeed.rest));
    }
    let agent = Agent::start(KIMBERLITE, &config);
    for Misdeed { name, reason, words, .. } in misdeeds {
        let plugin = agent.wait_for(name, &format!("is killed: {reason}"), |plugin| plugin.kills(reason) > 0);
        let (last, text) = plugin.last_failure();
        assert_eq!(last, *reason, "`{name}` ended for another reason: {text}");
        assert!(text.contains(words), "`{name}`: {text:?} does not say {words:?}");
        agent.wait_for_log(&[&format!("\"plugin\":\"{name}\""), &format!("\"reason\":\"{reason}\"")]);
        let series = format!("kimberlite_plugin_kills_total{{plugin=\"{name}\",reason=\"{reason}\"}}");
        assert!(agent.metric(&series) >= Some(1.0), "no {series}");
    }
    // And the good one goes on.
    let runs = agent.plugin("good").unwrap().runs();
    let good = agent.wait_for("good", "runs on", |good| good.runs() > runs + 1);
    assert_eq!(
        (good.state(), good.figure("failures"), good.figure("skipped")),
        ("running", 0, 0),
        "{good:?}"
    );
    assert_eq!(agent.stop().code, Some(0));
}

#[test]
fn whoever_computes_or_waits_too_long_is_ended_at_its_deadline() {
    each_is_killed(&[
        misdeed("spin", "", "limits = { cpu = \"150ms\", failures = 2 }", "deadline", "computing"),
        misdeed("spin-calling", "", "limits = { cpu = \"150ms\", failures = 2 }", "deadline", "computing"),
        misdeed(
            "sleep",
            "",
            "limits = { timeout = \"300ms\", failures = 2 }",
            "deadline",
            "waiting for the host",
        ),
        misdeed("init-spin", "", "limits = { cpu = \"150ms\", failures = 2 }", "deadline", "computing"),
        misdeed("init-sleep", "", "limits = { timeout = \"300ms\", failures = 2 }", "deadline", "waiting"),
    ]);
}

#[test]
fn whoever_wants_too_much_memory_is_ended() {
    each_is_killed(&[
        misdeed("hoard", "amount = 64", "", "memory-limit", "limits.memory"),
        misdeed("later", "mode = \"hoard\", amount = 64, after = 1", "", "memory-limit", "limits.memory"),
        misdeed("init-hoard", "amount = 64", "", "memory-limit", "limits.memory"),
        misdeed(
            "tiny",
            "mode = \"ok\"",
            "limits = { memory = \"64KiB\", failures = 2 }",
            "memory-limit",
            "65536",
        ),
    ]);
}

#[test]
fn whoever_keeps_too_many_handles_or_makes_the_host_keep_too_much_is_ended() {
    let sink = LineSink::start();
    let address = format!("127.0.0.1:{}", sink.port());
    let network = format!("target = {address:?}, ask_tcp = [{address:?}]");
    let grant = format!("grant = {{ tcp = [{address:?}] }}\n");
    each_is_killed(&[
        misdeed("hoard-requests", "amount = 5000", "", "host-limit", "handles"),
        misdeed("hoard-pollables", "amount = 5000", "", "host-limit", "handles"),
        misdeed(
            "hoard-bodies",
            "amount = 200",
            "limits = { handles = 100, failures = 2 }",
            "host-limit",
            "handles",
        ),
        misdeed("huge-headers", "amount = 100_000", "", "host-limit", "headers"),
        misdeed("huge-log", "amount = 8_000_000", "", "host-limit", "more than its limits"),
        misdeed(
            "few-handles",
            &format!("mode = \"hoard-connections\", amount = 50, {network}"),
            &format!("{grant}limits = {{ handles = 10, failures = 2 }}"),
            "host-limit",
            "handles",
        ),
        misdeed(
            "many-sockets",
            &format!("mode = \"hoard-connections\", amount = 50, {network}"),
            &format!("{grant}limits = {{ host_memory = \"1MiB\", failures = 2 }}"),
            "host-memory-limit",
            "limits.host_memory",
        ),
    ]);
}

#[test]
fn whoever_ends_itself_is_counted_by_how_it_did() {
    each_is_killed(&[
        misdeed("trap", "", "", "trap", "out of patience"),
        misdeed("init-trap", "", "", "trap", "no wish to live"),
        misdeed("recurse", "", "", "trap", "memory access"),
        misdeed("exit-well", "mode = \"exit\", amount = 0", "", "exited", "exit(0)"),
        misdeed("exit-badly", "mode = \"exit\", amount = 3", "", "exited", "exit(1)"),
        misdeed("init-exit", "amount = 0", "", "exited", "exit(0)"),
        misdeed("init-error", "", "", "init-failed", "no good day"),
        misdeed("init-setting", "", "", "init-failed", "setting `target`: is not to my taste"),
    ]);
}

#[test]
fn whoever_brings_too_much_is_ended_and_nothing_of_that_run_counts() {
    each_is_killed(&[
        misdeed("flood-samples", "amount = 10_001", "", "flood", "limits.samples"),
        misdeed(
            "flood-series",
            "amount = 600",
            "limits = { series = 500, failures = 2 }",
            "flood",
            "limits.series",
        ),
        misdeed(
            "avalanche",
            "mode = \"flood-samples\", amount = 400_000",
            "limits = { samples = 1000, failures = 2 }",
            "host-limit",
            "limits.samples",
        ),
    ]);
}

#[test]
fn whoever_grows_tables_is_ended() {
    // The memory it was born with serves it for a while.
    let table = collector("grows-tables", "mode = \"hoard\", amount = 2", "limits = { failures = 2 }");
    let table = table.replace(HOSTILE_COLLECTOR, GROWS_TABLES);
    let agent = Agent::start(KIMBERLITE, &(table + &collector("good", "", "")));
    let plugin = agent.wait_for("grows-tables", "is killed", |plugin| plugin.kills("host-limit") > 0);
    assert!(plugin.last_failure().1.contains("limits.tables"), "{plugin:?}");
    agent.wait_for("good", "runs on", |good| good.runs() > 2);
}

#[test]
fn an_error_of_its_own_is_counted_and_ends_nothing() {
    let agent = Agent::start(KIMBERLITE, &collector("error", "mode = \"error\", after = 1", ""));
    let plugin = agent.wait_for("error", "has failed twice", |plugin| plugin.figure("failures") >= 2);
    assert_eq!((plugin.state(), &plugin.0["kills"]), ("running", &serde_json::json!({})));
    assert_eq!(plugin.last_failure(), ("failed", "no data today "));
}

#[test]
fn what_grows_slowly_is_exchanged_between_two_runs_and_misses_none() {
    let table = collector("grower", "mode = \"hoard\", amount = 1", "interval = \"100ms\"");
    let agent = Agent::start(KIMBERLITE, &table);
    let grower = agent.wait_for("grower", "is recycled twice", |plugin| plugin.figure("recycles") >= 2);
    let counts = (grower.figure("failures"), grower.figure("skipped"), &grower.0["kills"]);
    assert_eq!(counts, (0, 0, &serde_json::json!({})));
    assert!(grower.figure("memory_peak") < 16 << 20, "{grower:?}");
    agent.wait_for_log(&["recycled", "grower"]);
}

#[test]
fn a_limit_that_is_tight_from_the_start_is_reported_and_leads_to_no_recycling() {
    let table =
        collector("tight", "mode = \"ok\"", "interval = \"100ms\"\nlimits = { memory = \"1280KiB\" }");
    let agent = Agent::start(KIMBERLITE, &table);
    agent.wait_for_log(&["limit-too-tight", "tight"]);
    let tight = agent.wait_for("tight", "has run a while", |tight| tight.runs() > 6);
    assert_eq!((tight.figure("recycles"), tight.figure("limit_hits/limit-too-tight")), (0, 1));
}

#[test]
fn waiting_for_the_network_ends_in_time_for_an_answer() {
    // It accepts, and never says a word.
    let sink = LineSink::start();
    let address = format!("127.0.0.1:{}", sink.port());
    let table = collector(
        "receive",
        &format!("mode = \"receive\", target = {address:?}, ask_tcp = [{address:?}]"),
        &format!("grant = {{ tcp = [{address:?}] }}\nlimits = {{ timeout = \"500ms\" }}"),
    );
    let agent = Agent::start(KIMBERLITE, &table);
    agent.wait_for_log(&["cannot receive", "TimedOut"]);
    let plugin = agent.wait_for("receive", "has answered", |plugin| plugin.runs() > 0);
    assert_eq!(plugin.figure("failures"), 0, "{plugin:?}");
}
