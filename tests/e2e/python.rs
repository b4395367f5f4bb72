//! A collector in Python, against `wit/` alone: it loads, runs, and is killed like any other.

use std::fs;

use kimberlite_tests::{Agent, TempDir, component_source, python, verb};

use crate::KIMBERLITE;

#[test]
fn a_python_collector_runs_and_is_killed_at_its_limit() {
    let Some(built) = python() else { return };
    let files = TempDir::new();
    let wasm = files.write("python.wasm", fs::read(built).unwrap());
    let manifest = component_source("python/plugin.toml");
    let embedded = verb(KIMBERLITE, &["embed", &manifest, &wasm]).expect_code(0);
    assert!(embedded.stdout.contains("python"), "{embedded:?}");
    let table = |name: &str, hoard: u32, memory: &str| {
        format!(
            "[collectors.{name}]\nplugin = {{ file = {wasm:?} }}\ninterval = \"1s\"\n\
             settings = {{ hoard = {hoard} }}\nlimits = {{ memory = \"{memory}\" }}\n\n"
        )
    };
    let config = table("modest", 0, "48MiB") + &table("greedy", 14, "48MiB") + &table("cramped", 0, "16MiB");
    let agent = Agent::start(KIMBERLITE, &config);
    let cramped = agent.wait_for("cramped", "is refused", |plugin| plugin.state() == "parked");
    let why = cramped.0["waits_for"].as_str().unwrap();
    assert!(why.contains("32") && why.contains("16") && why.contains("memory ="), "both numbers: {why}");
    let modest = agent.wait_for("modest", "has run", |plugin| plugin.runs() >= 2);
    assert_eq!((modest.state(), modest.figure("failures")), ("running", 0), "{modest:?}");
    // It passes its soft limit by its third run, so it is not recycled but killed.
    let greedy = agent.wait_for("greedy", "is killed twice", |plugin| plugin.kills("memory-limit") > 1);
    assert_eq!(greedy.last_failure().0, "memory-limit", "{greedy:?}");
    assert!(greedy.runs() > 2 && greedy.figure("memory_peak") <= 48 << 20, "{greedy:?}");

    // With the agent's config it uses the agent's compiled code.
    let shown = verb(KIMBERLITE, &["inspect", &wasm, "-c", &agent.config_file()]).expect_code(0).stdout;
    for words in ["collector", "0.1.0", "host-stats", "load"] {
        assert!(shown.contains(words), "{words:?} is not in\n{shown}");
    }
}
