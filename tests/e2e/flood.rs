//! What is too much to say, or makes no sense, is dropped and counted; the rest of a run counts.

use kimberlite_tests::Agent;

use crate::{KIMBERLITE, collector};

#[test]
fn lines_beyond_the_limit_of_a_call_are_dropped_and_counted() {
    let limits = "limits = { log_lines = 20 }";
    let config = collector("logs", "mode = \"flood-logs\", amount = 100_000", limits)
        + &collector("prints", "mode = \"flood-output\", amount = 10_000", limits);
    let agent = Agent::start(KIMBERLITE, &config);
    for (name, noise) in [("logs", "noise"), ("prints", "printed noise")] {
        let plugin =
            agent.wait_for(name, "has dropped lines", |plugin| plugin.figure("log_lines_dropped") > 0);
        agent.wait_for_log(&[name, "limits.log_lines"]);
        assert_eq!((plugin.state(), plugin.figure("failures")), ("running", 0), "{plugin:?}");
        let runs = usize::try_from(plugin.runs()).unwrap() + 2;
        let lines =
            agent.log().iter().filter(|line| line["message"].as_str().unwrap().contains(noise)).count();
        assert!(lines > 0 && lines <= 20 * runs, "{lines} lines in {runs} runs");
    }
}

#[test]
fn a_line_without_end_is_cut() {
    let agent =
        Agent::start(KIMBERLITE, &collector("endless", "mode = \"endless-output\", amount = 5000", ""));
    agent.wait_for("endless", "has run twice", |plugin| plugin.runs() > 1);
    let longest = agent.log().iter().map(|line| line.to_string().len()).max();
    assert!(longest < Some(10_000), "{longest:?}");
}

#[test]
fn nonsense_is_dropped_with_a_reason_and_the_rest_of_the_run_counts() {
    let modes = ["unknown-handle", "gap-in-handles", "not-a-number", "huge-name"];
    let config: String =
        modes.iter().map(|mode| collector(mode, &format!("mode = \"{mode}\", amount = 5000"), "")).collect();
    let agent = Agent::start(KIMBERLITE, &config);
    for mode in modes {
        let plugin = agent.wait_for(mode, "has run twice", |plugin| plugin.runs() > 2);
        let dropped = plugin.0["dropped"].as_object().unwrap();
        assert!(!dropped.is_empty(), "{mode} dropped nothing: {plugin:?}");
        assert_eq!((plugin.state(), plugin.figure("failures")), ("running", 0), "{plugin:?}");
        let reason = dropped.keys().next().unwrap();
        agent.wait_for_log(&[mode, reason, "dropped"]);
    }
}

#[test]
fn a_batch_whose_columns_do_not_match_does_not_bring_the_agent_down() {
    let config = collector("uneven", "mode = \"uneven-columns\"", "") + &collector("good", "", "");
    let agent = Agent::start(KIMBERLITE, &config);
    agent.wait_for("uneven", "has run", |plugin| plugin.runs() > 1);
    let good = agent.wait_for("good", "runs on", |good| good.runs() > 2);
    assert_eq!((good.state(), good.figure("failures")), ("running", 0));
}
