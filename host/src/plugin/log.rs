//! What a guest says: bounded per call, at the plugin's own level, under the plugin's name.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use tracing::Level;

use super::failure::bounded;

/// The longest line that is kept.
const LONGEST: usize = 4096;
/// Of what a guest said last, in bytes.
const MOST_WORDS: usize = 400;

/// The log of one plugin. Lines beyond the limit of a call are counted, not written.
#[derive(Debug)]
pub struct GuestLog {
    plugin: String,
    level: RwLock<Level>,
    lines_per_call: u32,
    call: Mutex<Call>,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Call {
    lines: u32,
    dropped: u64,
    /// The last line of severity error, or the output of this call: what a trap's text shows.
    last_words: Option<String>,
}

impl GuestLog {
    pub fn new(plugin: &str, level: Level, lines_per_call: u32) -> Self {
        Self {
            plugin: plugin.to_owned(),
            level: RwLock::new(level),
            lines_per_call,
            call: Mutex::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Lines of this plugin that were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// What is written from now on.
    pub fn set_level(&self, level: Level) {
        *self.level.write().unwrap_or_else(PoisonError::into_inner) = level;
    }

    pub(super) fn enabled(&self, level: Level) -> bool {
        level <= *self.level.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin_call(&self) {
        if let Ok(mut call) = self.call.lock() {
            *call = Call::default();
        }
    }

    /// Gives the guest's last words and says how many lines were too many.
    pub(super) fn end_call(&self) -> Option<String> {
        let mut call = self.call.lock().ok()?;
        if call.dropped > 0 {
            self.dropped.fetch_add(call.dropped, Ordering::Relaxed);
            tracing::warn!(
                plugin = self.plugin,
                dropped = call.dropped,
                limit = self.lines_per_call,
                "plugin wrote more lines than limits.log_lines allows in one call"
            );
            call.dropped = 0;
        }
        call.last_words.take()
    }

    pub(super) fn line(&self, level: Level, message: &str) {
        if !self.enabled(level) {
            return;
        }
        let message = &message[..message.floor_char_boundary(LONGEST)];
        let Ok(mut call) = self.call.lock() else { return };
        if level == Level::ERROR {
            call.last_words = Some(bounded(message, MOST_WORDS));
        }
        if call.lines >= self.lines_per_call {
            call.dropped += 1;
            return;
        }
        call.lines += 1;
        drop(call);
        let plugin = self.plugin.as_str();
        match level {
            Level::ERROR => tracing::error!(plugin, "{message}"),
            Level::WARN => tracing::warn!(plugin, "{message}"),
            Level::INFO => tracing::info!(plugin, "{message}"),
            Level::DEBUG => tracing::debug!(plugin, "{message}"),
            Level::TRACE => tracing::trace!(plugin, "{message}"),
        }
    }

    /// A line of standard output or error. What a runtime prints there before it gives up is
    /// often the only hint, so it counts as last words.
    pub(super) fn output_line(&self, line: &str) {
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        self.line(Level::INFO, line);
        if line.starts_with("note: run with `RUST_BACKTRACE") {
            return;
        }
        if let Ok(mut call) = self.call.lock() {
            let words = match call.last_words.take() {
                Some(words) => format!("{words} {line}"),
                None => line.to_owned(),
            };
            // The end of it is nearest to what went wrong.
            let start = words.ceil_char_boundary(words.len().saturating_sub(MOST_WORDS));
            call.last_words = Some(words[start..].to_owned());
        }
    }
}
