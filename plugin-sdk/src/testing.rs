//! Call a plugin in an ordinary `#[test]`: `cargo test`, no wasm and no agent needed.
//!
//! [`Collect`] runs a collector and gives what it recorded; [`batch`] builds what a handler is given.
//! Whatever a plugin asks of the agent is answered by the test, for its own thread:
//!
//! | the plugin uses | the test says |
//! |---|---|
//! | `host_stats` | [`set_host_stats`] with a [`table`] |
//! | `http` | [`serve_http`] |
//! | `tcp`, `udp` | [`serve_tcp`], [`serve_udp`] |
//! | `state` | nothing: it begins empty, or `state::set` |
//! | `agent::info` | [`set_agent`] |
//! | `log` | [`logs`] |
//!
//! What was not said is refused, as by an operator who granted nothing. Files are the machine's own:
//! keep reading a file apart from parsing its text, and test the parser.
//!
//! ```
//! use kimberlite_plugin_sdk::testing::{self, Collect};
//! use kimberlite_plugin_sdk::{Collector, Result, Run, Settings, host_stats};
//!
//! struct Load;
//!
//! impl Collector for Load {
//!     fn new(_: &Settings) -> Result<Self> {
//!         Ok(Self)
//!     }
//!
//!     fn collect(&mut self, run: &mut Run) -> Result<()> {
//!         for row in host_stats::load()?.now.rows() {
//!             if let Some(average) = row.number("01") {
//!                 run.gauge("loadavg.01", average);
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! testing::set_host_stats("load", testing::table(["01", "05", "15"]).row("load", [0.5, 0.4, 0.3]));
//! let mut collect = Collect::new::<Load>(&Settings::new()).unwrap();
//! let recorded = collect.run(60_000).unwrap();
//! assert_eq!(recorded.value("loadavg.01"), Some(0.5));
//! ```

mod build;
mod collect;
pub(crate) mod fakes;
mod pack;

pub use build::{BatchBuilder, TableBuilder, batch, table};
pub use collect::{Collect, Recorded};
pub use fakes::{TcpCall, UdpCall};

use crate::agent::Info;
use crate::host_stats::Table;
use crate::http;
use crate::log::Severity;
use crate::net::NetError;

/// Who the agent is from now on. Without it: version 0.1.0, id and name `test`, 10 s left.
pub fn set_agent(info: Info) {
    fakes::with(|world| world.agent = info);
}

/// What the family (`cpu`, `disk`, …) is from now on. What it was at the last run of a [`Collect`]
/// that ended well becomes `previous`, as with the agent.
///
/// # Panics
/// If there is no such family.
pub fn set_host_stats(family: &str, table: impl Into<Table>) {
    let known = fakes::host_stats::FAMILIES.contains(&family);
    assert!(known, "no family `{family}`; there are {}", fakes::host_stats::FAMILIES.join(", "));
    fakes::with(|world| world.stats.entry(family.to_owned()).or_default().now = Some(table.into().raw));
}

/// Answers every HTTP request from now on. `Request::sent_url` and its like say what was asked.
pub fn serve_http(server: impl FnMut(&http::Request) -> Result<http::Response, http::Error> + 'static) {
    fakes::with(|world| world.http = Some(Box::new(server)));
}

/// Answers every use of a TCP connection from now on. Bytes given for a [`TcpCall::Receive`] are
/// what is received, otherwise they are ignored; an error for [`TcpCall::IsClosed`] means yes.
pub fn serve_tcp(server: impl FnMut(TcpCall<'_>) -> Result<Vec<u8>, NetError> + 'static) {
    fakes::with(|world| world.tcp = Some(Box::new(server)));
}

/// Answers every use of a UDP socket from now on, like [`serve_tcp`].
pub fn serve_udp(server: impl FnMut(UdpCall<'_>) -> Result<Vec<u8>, NetError> + 'static) {
    fakes::with(|world| world.udp = Some(Box::new(server)));
}

/// Takes the lines that were logged since the last time; the newest 1,000 of them.
pub fn logs() -> Vec<(Severity, String)> {
    fakes::with(|world| std::mem::take(&mut world.logs).into())
}
