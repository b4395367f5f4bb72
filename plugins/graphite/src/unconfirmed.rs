//! How many samples a connection may still lose.
//!
//! ```text
//! our send buffer ──▶ network ──▶ the receiver's buffer ──▶ read
//! ╰───────────── lost when the connection breaks ────────╯
//! ```
//!
//! TCP does not tell how far the other side has read. But the buffers in between hold only so much:
//! what went out more than a *window* ago has been read. Without that bound, a receiver that restarts
//! once a month would seem to lose a month.

/// More than the kernels on both sides hold by default (4 MiB to send, 6 MiB received).
const WINDOW: usize = 16 << 20;

/// Samples sent on one connection, counted in two halves: the older one is forgotten when the newer
/// one fills the window.
#[derive(Debug, Default)]
pub(crate) struct Unconfirmed {
    older: u64,
    newer: u64,
    newer_bytes: usize,
}

impl Unconfirmed {
    /// `samples` went out as `bytes`.
    pub(crate) fn add(&mut self, samples: usize, bytes: usize) {
        if self.newer_bytes >= WINDOW {
            self.older = std::mem::take(&mut self.newer);
            self.newer_bytes = 0;
        }
        self.newer += samples as u64;
        self.newer_bytes += bytes;
    }

    /// The connection is gone: what may be lost with it.
    pub(crate) fn take(&mut self) -> u64 {
        let Self { older, newer, .. } = std::mem::take(self);
        older + newer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_young_connection_is_unconfirmed() {
        let mut unconfirmed = Unconfirmed::default();
        unconfirmed.add(10, 600);
        unconfirmed.add(20, 1200);
        assert_eq!(unconfirmed.take(), 30);
        assert_eq!(unconfirmed.take(), 0);
    }

    #[test]
    fn what_was_sent_a_window_ago_has_been_read() {
        let mut unconfirmed = Unconfirmed::default();
        for _ in 0..100 {
            unconfirmed.add(1, WINDOW / 4);
        }
        assert!((4..=8).contains(&unconfirmed.take()));
    }
}
