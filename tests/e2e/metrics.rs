//! What the agent says about itself.

use kimberlite_tests::{Agent, LineSink};

use crate::{KIMBERLITE, collector, graphite};

#[test]
fn every_figure_has_its_name_and_help() {
    let sink = LineSink::start();
    let config =
        collector("good", "", "") + &collector("bad", "mode = \"trap\"", "") + &graphite(sink.port(), "");
    let agent = Agent::start_with(KIMBERLITE, "interval = \"1s\"", &config);
    agent.wait_for("bad", "was killed", |plugin| plugin.kills("trap") > 0);
    agent.wait_for("graphite", "has delivered", |plugin| plugin.figure("delivery/delivered") > 0);
    let (code, text) = agent.get("/metrics").unwrap();
    assert_eq!(code, 200);
    for series in [
        "kimberlite_plugin_memory_bytes{plugin=\"good\",space=\"linear\"} ",
        "kimberlite_plugin_memory_bytes{plugin=\"good\",space=\"instance\"} ",
        "kimberlite_plugin_memory_bytes{plugin=\"good\",space=\"durable\"} ",
        "kimberlite_plugin_memory_limit_bytes{plugin=\"good\"} 16777216",
        "kimberlite_plugin_cpu_seconds_total{plugin=\"good\"} ",
        "kimberlite_plugin_kills_total{plugin=\"bad\",reason=\"trap\"} ",
        "kimberlite_plugin_recycles_total{plugin=\"good\"} 0",
        "kimberlite_plugin_state{plugin=\"good\",state=\"running\"} 1",
        "kimberlite_collect_duration_seconds_count{plugin=\"good\"} ",
        "kimberlite_collect_lateness_seconds_count{plugin=\"good\"} ",
        "kimberlite_collect_skipped_total{plugin=\"good\"} 0",
        "kimberlite_samples_total{plugin=\"good\"} ",
        "kimberlite_queue_bytes{handler=\"graphite\"} ",
        "kimberlite_series{plugin=\"good\"} ",
        "kimberlite_config_last_reload_success 1",
    ] {
        assert!(text.lines().any(|line| line.starts_with(series)), "no {series:?} in\n{text}");
    }
    for name in ["samples_dropped_total", "spool_bytes"] {
        assert!(text.contains(&format!("# HELP kimberlite_{name} ")), "no {name}");
    }
    // The same figures travel as samples.
    agent.wait("own figures arrive", |_| {
        sink.lines()
            .iter()
            .any(|line| line.starts_with("servers.web-1.kimberlite.plugin.good."))
            .then_some(())
    });
}

#[test]
fn the_machine_itself_can_be_scraped() {
    let agent = Agent::start(KIMBERLITE, &collector("good", "", ""));
    agent.wait_for("good", "has run twice", |good| good.runs() > 2);
    let (_, text) = agent.get("/metrics?samples=1").unwrap();
    assert!(text.contains("good_calls{element=\"web-1\"} "), "{text}");
    assert!(text.contains("good_clock{element=\"web-1\"} 1\n"), "{text}");
    let (_, text) = agent.get("/metrics").unwrap();
    assert!(!text.contains("good_calls"));
}
