//! The agent that runs this plugin.

use std::time::Duration;

#[cfg(target_arch = "wasm32")]
use crate::bindings::imports::kimberlite::plugin::agent as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::fakes::agent as host;

/// Who runs this plugin, and for how much longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The agent's version, for instance `0.1.0`.
    pub version: String,
    /// Made once per installation and kept.
    pub id: String,
    /// The name of the agent's own element.
    pub name: String,
    /// How much time is left of this call before it is ended.
    pub remaining: Duration,
}

/// Who runs this plugin. Cheap; `remaining` is as of now.
pub fn info() -> Info {
    let info = host::info();
    let remaining = Duration::from_millis(info.remaining);
    Info { version: info.version, id: info.id, name: info.name, remaining }
}
