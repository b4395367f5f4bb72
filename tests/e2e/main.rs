//! The agent from outside, one module per behaviour. Only what an operator sees: the command line, the
//! log, the admin socket, receivers.
//!
//! `UPDATE_GOLDEN=1 cargo test --test e2e golden` rewrites the expected output of the pretend machine.

#![expect(clippy::unwrap_used, reason = "tests")]

mod bad_files;
mod capabilities;
mod crash;
mod delivery;
mod faults;
mod flood;
mod frozen;
mod golden;
mod handlers;
mod limits;
mod metrics;
mod outage;
mod python;
mod quarantine;
mod reload;
mod schedule;
mod secrets;
mod shutdown;
mod simulated;
mod spool;

use kimberlite_tests::{HOSTILE_COLLECTOR, HOSTILE_HANDLER};

const KIMBERLITE: &str = env!("CARGO_BIN_EXE_kimberlite");

/// A table of the hostile collector: `settings` are inside the braces, `rest` further lines.
fn collector(name: &str, settings: &str, rest: &str) -> String {
    let interval = if rest.contains("interval") { "" } else { "interval = \"1s\"\n" };
    format!(
        "[collectors.{name}]\nplugin = {{ file = {HOSTILE_COLLECTOR:?} }}\n{interval}\
         settings = {{ prefix = \"{name}\", {settings} }}\n{rest}\n\n"
    )
}

/// A table of the hostile handler.
fn handler(name: &str, settings: &str, rest: &str) -> String {
    format!(
        "[handlers.{name}]\nplugin = {{ file = {HOSTILE_HANDLER:?} }}\nsettings = {{ {settings} }}\n{rest}\n\n"
    )
}

/// A table of the graphite handler that sends to this port.
fn graphite(port: u16, rest: &str) -> String {
    format!(
        "[handlers.graphite]\nsettings = {{ host = \"127.0.0.1\", port = {port} }}\n\
         grant = {{ tcp = [\"127.0.0.1:{port}\"] }}\n{rest}\n\n"
    )
}

/// A table of the metricly handler that posts to this port.
fn metricly(port: u16, key: &str, rest: &str) -> String {
    format!(
        "[handlers.metricly]\n\
         settings = {{ url = \"http://127.0.0.1:{port}/ingest\", api_key = \"{key}\" }}\n\
         grant = {{ http = [\"http://127.0.0.1:{port}\"] }}\n{rest}\n\n"
    )
}
