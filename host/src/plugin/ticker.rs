//! Advances the engine's epoch while a guest runs, and only then.
//!
//! ```text
//! parked ──a guest is entered──▶ ticking ──no guest at a tick──▶ parked
//! ```
//!
//! A call shorter than a tick costs at most one wake-up of this thread; an idle agent none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// The thread behind all deadlines of guests. Ends with its owner.
#[derive(Debug)]
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// How many polls of guests are under way.
    running: AtomicUsize,
    parked: AtomicBool,
    stopped: AtomicBool,
}

impl Ticker {
    /// Calls `tick` every `period` while guests run.
    pub(super) fn start(period: Duration, tick: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let seen = shared.clone();
        let handle =
            std::thread::Builder::new().name("epoch".to_owned()).stack_size(64 * 1024).spawn(move || {
                while !seen.stopped.load(Ordering::SeqCst) {
                    if seen.running.load(Ordering::SeqCst) > 0 {
                        std::thread::sleep(period);
                        tick();
                        continue;
                    }
                    seen.parked.store(true, Ordering::SeqCst);
                    // Whoever entered in between saw no parked thread to wake: look once more.
                    if seen.running.load(Ordering::SeqCst) == 0 && !seen.stopped.load(Ordering::SeqCst) {
                        std::thread::park();
                    }
                    seen.parked.store(false, Ordering::SeqCst);
                }
            })?;
        Ok(Self { thread: handle.thread().clone(), shared, handle: Some(handle) })
    }

    /// A guest is about to run, until the guard is dropped.
    pub(super) fn enter(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.parked.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.thread.unpark();
        if let Some(handle) = self.handle.take() {
            // It cannot have panicked, and nobody could act on it here.
            drop(handle.join());
        }
    }
}

/// While it lives, epochs pass.
#[derive(Debug)]
pub(super) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
