//! Kimberlite: a monitoring agent whose collectors and handlers are WebAssembly components, each
//! with limits of its own.
//!
//! ```text
//! scheduler ──due──▶ collector ──batch──▶ router ──▶ queue ──▶ delivery ──▶ handler ──▶ receiver
//!                    (keeper:    (series             (one per handler)     (keeper:
//!                     instance)   table)                                    instance)
//! ```
//!
//! The modules, each of which uses only those above it:

// Plain data and decisions: no clock of their own, no I/O.
pub mod backoff;
pub mod reason;
pub mod sample;

pub mod capability;
pub mod collected;
pub mod delivery_policy;
pub mod jsonl;
pub mod machine;
pub mod outgoing;
pub mod queue;
pub mod router;
pub mod routes;
pub mod schedule;
pub mod series;
pub mod settling;
pub mod supervisor;
pub mod upgrade;

// What they stand on.
pub mod clock;
pub mod config;
pub mod data_dir;
pub mod dead_letters;
pub mod halt;
pub mod host_stats;
pub mod memory;
pub mod secrets;
pub mod spool;
pub mod state;
pub mod status;
pub mod telemetry;
pub mod tls;
pub mod trust;

// The only corner that knows wasmtime.
pub mod plugin;

// Tasks: one per plugin, one for the schedule.
pub mod backlog;
pub mod collector;
pub mod delivery;
pub mod keeper;
pub mod scheduler;
pub mod upkeep;
pub mod watch;

// From files to plugins, and from a configuration to a running agent.
pub mod bundled;
pub mod catalog;
pub mod component_file;
pub mod fleet;
pub mod loader;
pub mod orphans;
pub mod paste;
pub mod reload;

pub mod admin;
pub mod agent;
pub mod cli;
