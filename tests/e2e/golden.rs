//! The seven collectors on the pretend machine of `fixtures/proc`: t0, and ten seconds later t1.
//!
//! Its figures are chosen so that Diamond's formulas give numbers that can be checked in one's head;
//! see `fixtures/README.md`.

use std::fs;

use kimberlite_tests::{TempDir, fixture, updates_golden_files, verb};
use serde_json::Value;

use crate::KIMBERLITE;

const COLLECTORS: [&str; 7] = ["cpu", "memory", "loadavg", "diskusage", "diskspace", "network", "vmstat"];

/// What `collect` finds on these trees, sorted by run and name.
fn collected(name: &str, trees: &[&str], more: &[&str]) -> Vec<String> {
    let files = TempDir::new();
    let config = files.write("k.toml", "[agent]\nname = \"web-1\"\n");
    let mut args = vec![
        "collect",
        name,
        "--interval",
        "10s",
        "--start",
        "2026-11-22T12:00:00Z",
        "-o",
        "json",
        "-c",
        &config,
    ];
    for tree in trees {
        args.extend(["--proc", tree]);
    }
    args.extend(more);
    let output = verb(KIMBERLITE, &args).expect_code(0);
    let mut lines: Vec<String> = output.stdout.lines().map(str::to_owned).collect();
    lines.sort_by_key(|line| {
        let sample: Value = serde_json::from_str(line).unwrap();
        (sample["run"].as_u64(), sample["metric"].to_string())
    });
    lines
}

#[test]
fn the_pretend_machine_has_diamonds_figures() {
    let (t0, t1) = (fixture("proc/t0"), fixture("proc/t1"));
    let mut differences = Vec::new();
    for name in COLLECTORS {
        let found = collected(name, &[&t0, &t1], &[]).join("\n") + "\n";
        let file = fixture(&format!("golden/{name}.jsonl"));
        if updates_golden_files() {
            fs::write(&file, &found).unwrap();
        }
        let wanted = fs::read_to_string(&file).unwrap_or_default();
        for line in wanted.lines().filter(|line| !found.contains(line)) {
            differences.push(format!("{name} lacks {line}"));
        }
        for line in found.lines().filter(|line| !wanted.contains(line)) {
            differences.push(format!("{name} has   {line}"));
        }
    }
    assert!(differences.is_empty(), "UPDATE_GOLDEN=1 accepts this:\n{}", differences.join("\n"));
}

#[test]
fn a_tree_with_one_file_is_enough_for_the_collector_that_reads_it() {
    for (name, file) in [
        ("cpu", "stat"),
        ("memory", "meminfo"),
        ("diskusage", "diskstats"),
        ("network", "net/dev"),
        ("vmstat", "vmstat"),
    ] {
        let trees = TempDir::new();
        for tree in ["t0", "t1"] {
            trees
                .write(&format!("{tree}/{file}"), fs::read(fixture(&format!("proc/{tree}/{file}"))).unwrap());
        }
        let lines = collected(name, &[&trees.join("t0"), &trees.join("t1")], &[]);
        let whole = fs::read_to_string(fixture(&format!("golden/{name}.jsonl"))).unwrap();
        assert_eq!(lines.join("\n") + "\n", whole, "{name} on {file} alone");
    }
}

#[test]
fn a_tree_without_its_file_gives_nothing_and_no_failure() {
    let empty = TempDir::new();
    for name in COLLECTORS {
        let lines = collected(name, &[&empty.join(""), &empty.join("")], &[]);
        assert!(lines.is_empty() || name == "diskspace" || name == "loadavg", "{name}: {lines:?}");
    }
}
