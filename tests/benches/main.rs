//! What kimberlite costs, in figures that stand beside their goals. Nothing fails here: a busy machine
//! makes other figures, so each run prints the load, and ratios to what it measured itself.
//!
//! ```text
//! cargo build --release && cargo bench -p kimberlite-tests [-- canonical thousand limits names delivery reload]
//! ```
//!
//! | name | asks | how |
//! |---|---|---|
//! | `canonical` | what a sample costs, beside a native program that does the same | the agent as a process |
//! | `thousand` | what a thousand collectors cost, and whether they start in time | the agent as a process |
//! | `limits` | how fast a runaway plugin is stopped and replaced, and what is left of it | the library |
//! | `names` | what a million names leave behind once they are gone | the library, in virtual time |
//! | `reload` | how soon a dropped plugin runs, and what the others feel of it | the agent as a process |
//! | `delivery` | how many samples a second go to a handler, to a socket and to disk | the library |
//!
//! Each runs in a process of its own, so that none finds the heap of another.

#![expect(clippy::unwrap_used, reason = "benchmarks: whatever fails ends them")]

mod canonical;
mod component;
mod delivery;
mod floor;
mod limits;
mod names;
mod parts;
mod process;
mod reload;
mod report;
mod sink;
mod thousand;

use std::process::Command;

const ALL: [(&str, fn()); 6] = [
    ("canonical", canonical::run),
    ("thousand", thousand::run),
    ("limits", limits::run),
    ("names", names::run),
    ("delivery", delivery::run),
    ("reload", reload::run),
];

/// What the child processes of this program are told to be.
const ONLY: &str = "BENCH_ONLY";

fn main() {
    if let Ok(role) = std::env::var(ONLY) {
        match ALL.iter().find(|(name, _)| *name == role) {
            Some((_, run)) => run(),
            None => floor::run(&role),
        }
        return;
    }
    // cargo adds flags of its own.
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for name in &asked {
        assert!(ALL.iter().any(|(known, _)| known == name), "there is no benchmark `{name}`");
    }
    for (name, _) in ALL {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            let ended = myself(name).status().unwrap();
            assert!(ended.success(), "benchmark `{name}` ended with {ended}");
        }
    }
}

/// This program in another role.
fn myself(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ONLY, role);
    command
}

/// The native program that `canonical` compares with, sending to this port.
fn floor_at(port: u16) -> Command {
    myself(&format!("floor:{port}"))
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}
