//! Everything an author needs to write a kimberlite collector or handler.
//!
//! A plugin is a library crate with one type: a [`Collector`] measures, a [`Handler`] delivers. An
//! export macro makes it a WebAssembly component, a `plugin.toml` says what it asks for, and
//! `cargo test` tests it without either (see [`testing`]).
//!
//! # From nothing to a running collector
//!
//! ```text
//! rustup target add wasm32-wasip2
//! cargo new --lib uptime
//! ```
//!
//! `Cargo.toml`; the path is that of the folder `plugin-sdk` in a clone of kimberlite:
//!
//! ```toml
//! [package]
//! name = "uptime"
//! version = "0.1.0"
//! edition = "2024"
//!
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! kimberlite-plugin-sdk = { path = "../kimberlite/plugin-sdk" }
//!
//! [profile.release]
//! lto = true
//! strip = true
//! ```
//!
//! `plugin.toml`, beside it. What a plugin asks for has a reason, which the operator reads:
//!
//! ```toml
#![doc = include_str!("../example/collector/plugin.toml")]
//! ```
//!
//! `src/lib.rs`:
//!
//! ```no_run
//! use kimberlite_plugin_sdk::{Collector, Context, Result, Run, Settings, export_collector};
//!
//! struct Uptime;
//!
//! impl Collector for Uptime {
//!     fn new(_settings: &Settings) -> Result<Self> {
//!         Ok(Self)
//!     }
//!
//!     fn collect(&mut self, run: &mut Run) -> Result<()> {
//!         let text = std::fs::read_to_string("/proc/uptime").context("reading /proc/uptime")?;
//!         let seconds = text.split_whitespace().next().context("/proc/uptime is empty")?;
//!         run.gauge("uptime.seconds", seconds.parse::<f64>()?);
//!         Ok(())
//!     }
//! }
//!
//! # #[cfg(any())]
//! export_collector!(Uptime);
//! # export_collector!(Uptime, manifest = "example/collector/plugin.toml");
//! ```
//!
//! Build it, and run it with what it asked for:
//!
//! ```text
//! cargo build --target wasm32-wasip2 --release
//! kimberlite collect target/wasm32-wasip2/release/uptime.wasm --grant read=/proc/uptime
//! ```
//!
//! Dropped into one of the agent's `plugin_dirs`, with `[collectors.uptime]` and
//! `grant = { read = ["/proc/uptime"] }` in its config, it runs at every interval.
//!
//! # A handler
//!
//! The same crate with another `plugin.toml` and another type. Settings that a grant depends on are
//! named in braces:
//!
//! ```toml
#![doc = include_str!("../example/handler/plugin.toml")]
//! ```
//!
//! ```no_run
//! use kimberlite_plugin_sdk::{
//!     Batch, HandleError, Handler, Receipt, Result, Settings, Value, export_handler, http,
//! };
//!
//! struct PostJson {
//!     url: String,
//! }
//!
//! impl Handler for PostJson {
//!     fn new(settings: &Settings) -> Result<Self> {
//!         Ok(Self { url: settings.require("url")? })
//!     }
//!
//!     fn handle(&mut self, batch: &Batch) -> Result<Receipt, HandleError> {
//!         let mut samples = Vec::new();
//!         for sample in batch.samples() {
//!             if let Value::Number(value) = sample.value() {
//!                 // Fine for names without quotes; the example in `example/handler` uses serde_json.
//!                 samples.push(format!("{{\"metric\":\"{}\",\"value\":{value}}}", sample.name()));
//!             }
//!         }
//!         let json = format!("[{}]", samples.join(","));
//!         let request = http::Request::post(&self.url).header("content-type", "application/json");
//!         let response = request.body(json).send()?; // a network error becomes a retry
//!         match response.status() {
//!             200..300 => Ok(Receipt::delivered()),
//!             401 | 403 => Err(HandleError::halt("the receiver refuses us")),
//!             status => Err(HandleError::retry(format!("the receiver answered {status}"))),
//!         }
//!     }
//! }
//!
//! # #[cfg(any())]
//! export_handler!(PostJson);
//! # export_handler!(PostJson, manifest = "example/handler/plugin.toml");
//! ```
//!
//! ```text
//! kimberlite collect uptime.wasm --grant read=/proc/uptime -o json > samples.jsonl
//! kimberlite send target/wasm32-wasip2/release/post_json.wasm --from samples.jsonl \
//!     --set url=http://127.0.0.1:8080/ --grant http=http://127.0.0.1:8080
//! ```
//!
//! A batch leaves the agent only when its handler says so: `Ok` forgets it, [`HandleError`] says what
//! else becomes of it. A handler that is killed in the middle gets the same batch again.
//!
//! # Where to look
//!
//! | to | see |
//! |---|---|
//! | record values, totals, events, checks | [`Run`], [`Series`], [`Element`] |
//! | read samples | [`Batch`], [`Sample`], [`batch`] |
//! | know what the operator has set | [`Settings`] |
//! | read /proc without reading it | [`host_stats`] |
//! | reach others | [`http`], [`tcp`], [`udp`] |
//! | remember something across restarts | [`state`] |
//! | say something to the operator | [`log`], [`Error`] |
//! | test all of that | [`testing`] |
//!
//! Files are read with `std::fs`, under a `read` grant; what was not granted does not exist. Time is
//! `std::time`. `println!` ends in the agent's log. Threads and `std::net` do not work.
//!
//! # How a plugin lives
//!
//! The agent makes an instance (`new`), calls it, and may end it at any moment, for instance at its
//! memory limit or deadline; then it makes another. So keep in `self` only what can be made again.
//! Nothing is lost by that: the agent keeps queues, previous totals and [`state`]. A panic ends the
//! instance, too; its message is one line in the agent's log.
//!
//! # The manifest
//!
//! ```toml
//! name = "ping"
//! kind = "collector"                 # or "handler"
//! version = "0.1.0"
//! description = "Whether hosts answer"
//! memory = "2MiB"                    # the least it needs
//!
//! [capabilities.tcp]                 # read, write, http, tcp, udp, host-stats, state, env, stdout
//! ask = ["{host}:{port}"]            # {…} is filled from the settings
//! reason = "what is asked whether it answers"
//!
//! [capabilities.host-stats]
//! ask = ["cpu", "disk"]
//! previous = ["disk"]                # families whose previous view it wants
//! reason = "the machine's figures"
//!
//! [settings.host]
//! type = "text"                      # text whole number boolean texts secret duration size
//! required = true
//! example = "db-1"
//! help = "Whom to ask"
//!
//! [settings.port]
//! type = "whole"
//! default = 5432
//! help = "On which port"
//!
//! [batch]                            # handlers only: how batches are formed
//! by = "element"                     # of one element each
//! samples = 1000                     # at most
//! bytes = "256KiB"                   # at most
//! ```

pub mod agent;
pub mod batch;
pub mod host_stats;
pub mod http;
pub mod log;
pub mod state;
pub mod tcp;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod udp;

#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod export;

#[cfg(any(test, all(target_arch = "wasm32", feature = "count-allocations")))]
mod alloc;
mod collector;
mod element;
mod error;
mod event;
mod handler;
mod hash;
mod net;
mod registry;
mod run;
mod series;
mod settings;
mod strings;
mod summary;

pub use batch::{Batch, Kind, Sample, Value};
pub use collector::Collector;
pub use element::{Additions, AttributeValue, Element};
pub use error::{Context, Error, Result};
pub use event::{Check, Event, Level, Status};
pub use handler::{HandleError, Handler, Receipt};
pub use net::NetError;
pub use run::{Number, Reason, Run};
pub use series::Series;
pub use settings::{FromSetting, SettingValue, Settings};
pub use summary::Summary;
