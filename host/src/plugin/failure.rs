//! Why a call ended badly: the one place that turns errors of the runtime into reason codes.

use wasmtime::Trap;
use wasmtime::component::ResourceTableError;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::FieldMapError;

use super::limits::LimitHit;
use crate::reason::ReasonCode;

/// A call that did not come back: its instance is gone.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {text}", reason.as_str())]
pub struct Failure {
    pub reason: ReasonCode,
    /// For people; bounded, may hold what the guest said last.
    pub text: String,
    /// The guest was waiting for the host, not computing: nothing it was given is to blame.
    pub in_host_call: bool,
}

impl Failure {
    pub fn new(reason: ReasonCode, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), in_host_call: false }
    }
}

/// `last_words`: the last error line of the guest, for instance its panic message.
pub(super) fn classify(error: &wasmtime::Error, last_words: Option<&str>) -> Failure {
    if let Some(hit) = error.downcast_ref::<LimitHit>() {
        return Failure::new(hit.reason, hit.text.clone());
    }
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        return Failure::new(ReasonCode::Exited, format!("called exit({code})"));
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match trap {
            Trap::Interrupt => Failure::new(ReasonCode::Deadline, "still computing at its deadline"),
            trap => Failure::new(
                ReasonCode::Trap,
                match last_words {
                    Some(words) => format!("{trap}: {words}"),
                    None => trap.to_string(),
                },
            ),
        };
    }
    if error.downcast_ref::<ResourceTableError>().is_some() {
        return Failure::new(ReasonCode::HostLimit, "too many live handles (limits.handles)");
    }
    if error.downcast_ref::<FieldMapError>().is_some() {
        return Failure::new(ReasonCode::HostLimit, "HTTP headers are too large");
    }
    // These have no type of their own.
    let text = format!("{error:#}");
    let limit = [
        ("store handle limit exceeded", "too many live handles (limits.handles)"),
        (
            "fuel allocated for hostcalls",
            "handed the host more than its limits allow at once (limits.samples)",
        ),
        ("requested len", "asked for too many random bytes at once"),
    ]
    .into_iter()
    .find(|(needle, _)| text.contains(needle));
    match limit {
        Some((_, words)) => Failure::new(ReasonCode::HostLimit, words),
        None => Failure::new(ReasonCode::Trap, bounded(&text, 500)),
    }
}

/// The first `max` bytes, cut at a character.
pub(super) fn bounded(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}
