//! A small store that outlives the plugin's instances and the agent's restarts. Capability `state`.
//!
//! Writes count when the call they are made in ends well. Most plugins need none of it: the agent
//! makes rates and keeps the previous view of `host_stats` by itself.

use std::fmt;

use crate::bindings::imports::kimberlite::plugin::state as wit;
#[cfg(target_arch = "wasm32")]
use crate::bindings::imports::kimberlite::plugin::state as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::fakes::state as host;

/// Why the store could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateError {
    /// The manifest or the operator's config does not name `state`.
    NotGranted,
    /// It would take more bytes, keys included, than the limit given here.
    Full(u64),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGranted => f.write_str("the capability `state` is not granted"),
            Self::Full(limit) => write!(f, "the state would take more than its limit of {limit} bytes"),
        }
    }
}

impl std::error::Error for StateError {}

impl From<wit::StateError> for StateError {
    fn from(error: wit::StateError) -> Self {
        match error {
            wit::StateError::NotGranted => Self::NotGranted,
            wit::StateError::Full(limit) => Self::Full(limit),
        }
    }
}

/// What `key` was set to; none: nothing.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, StateError> {
    Ok(host::get(key)?)
}

/// The same as text; bytes that are none are replaced.
pub fn get_text(key: &str) -> Result<Option<String>, StateError> {
    let text = |bytes| match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    Ok(get(key)?.map(text))
}

/// Sets `key` to a text or to bytes.
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<(), StateError> {
    Ok(host::set(key, value.as_ref())?)
}

/// Removes `key`; it is no error if it is not there.
pub fn remove(key: &str) -> Result<(), StateError> {
    Ok(host::remove(key)?)
}

/// All keys, in order.
pub fn keys() -> Result<Vec<String>, StateError> {
    Ok(host::keys()?)
}
