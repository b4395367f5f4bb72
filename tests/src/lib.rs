//! The harness of the end-to-end tests in `e2e/`, which see only what an operator sees.
//!
//! ```text
//! e2e/*.rs ──config──▶ Agent (kimberlite run) ──▶ LineSink, HttpSink
//!     ▲                  │ log, admin socket
//!     └──── wait ────────┘
//! ```
//!
//! Whatever fails here fails the test, with all that is known. Nothing sleeps for a fixed time: what is
//! awaited is asked for again and again, until it is there or a generous deadline has passed.

#![expect(clippy::unwrap_used, reason = "a harness: what fails, fails the test")]

mod agent;
mod certificates;
mod code_cache;
mod components;
mod dir;
mod http_sink;
mod line_sink;
mod port;
mod signing;
mod verb;

use std::thread;
use std::time::{Duration, Instant};

pub use agent::{Agent, Ended, Plugin};
pub use certificates::{Authority, Identity, self_signed};
pub use code_cache::{lend as lend_code_cache, take_back as take_code_cache_back};
pub use components::{GROWS_TABLES, HOSTILE_COLLECTOR, HOSTILE_HANDLER, python};
pub use dir::TempDir;
pub use http_sink::{HttpSink, Reply, Request};
pub use line_sink::{LineSink, Manner};
pub use port::ClosedPort;
pub use signing::Minisign;
pub use verb::{Output, verb, verb_with_input};

/// Longer than anything takes on a busy machine, compiling 18 MB of Python too.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks until there is an answer. `context` is what is shown if there never is one.
pub fn wait<T>(what: &str, context: impl Fn() -> String, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "never came true: {what}\n{}", context());
        thread::sleep(Duration::from_millis(20));
    }
}

/// A folder of `tests/fixtures`.
pub fn fixture(name: &str) -> String {
    format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A file of `tests/components`.
pub fn component_source(name: &str) -> String {
    format!("{}/components/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Whether tests are to rewrite what they compare with.
pub fn updates_golden_files() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}
