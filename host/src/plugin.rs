//! One plugin as the rest of the agent sees it: load a component, start an instance, call it.
//!
//! The only corner that knows wasmtime. A [`Plugin`] is code that passed every check; an
//! [`Instance`] is that code with memory of its own, owned by one task; a [`Failure`] says how an
//! instance ended. Whatever outlasts an instance lives in its [`Context`].

mod bindings;
mod cache;
mod clocks;
mod convert;
mod engine;
mod failure;
mod files;
pub mod http;
mod imports;
mod instance;
pub mod interface;
mod limits;
mod log;
mod network;
mod output;
pub mod section;
mod store;
mod ticker;

pub use engine::{Engine, Plugin};
pub use failure::Failure;
pub use instance::{CollectError, Heap, InitError, Instance, Memory, StartError, Tick, TickReason};
pub use log::GuestLog;
pub use output::drain_stdout;
pub use store::{AgentInfo, Context, Roots};
