//! What one instance may use, and how the end of a call is told apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;

use crate::config::Limits;
use crate::reason::ReasonCode;

/// Bytes that may be copied out of the guest at once: the largest allowed answer, counted in the
/// sizes of the generated types, and never less than one call of WASI needs.
pub(super) fn hostcall_fuel(limits: &Limits) -> usize {
    let samples = 128 * limits.samples;
    let series = (160 + 96) * limits.series.min(limits.samples);
    (samples + series + 64 * limits.string).max(1 << 20)
}

/// A bound was passed: raised by the limiter and by host functions, found again by
/// [`super::failure::classify`].
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct LimitHit {
    pub(super) reason: ReasonCode,
    pub(super) text: String,
}

impl LimitHit {
    pub(super) fn new(reason: ReasonCode, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

/// Bytes that the host holds for one instance: connections, requests and answers under way.
#[derive(Debug, Clone)]
pub(super) struct HostBytes {
    held: Arc<AtomicUsize>,
    limit: usize,
}

impl HostBytes {
    pub(super) fn new(limit: usize) -> Self {
        Self { held: Arc::default(), limit }
    }

    pub(super) fn get(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Counts `bytes` until the charge is dropped; none: they would be too many.
    pub(super) fn charge(&self, bytes: usize) -> Option<Charge> {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        let charge = Charge { held: self.held.clone(), bytes };
        (before + bytes <= self.limit).then_some(charge)
    }
}

/// Bytes that are counted as long as this lives.
#[derive(Debug)]
pub(super) struct Charge {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Counts linear memory and table elements over all that a store holds.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_limit: usize,
    table_limit: usize,
    /// Of instances, memories and tables: so many of each.
    most: usize,
    pub(super) memory: usize,
    pub(super) peak: usize,
    table_elements: usize,
}

impl Limiter {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            memory_limit: limits.memory,
            table_limit: limits.tables,
            most: limits.instances,
            memory: 0,
            peak: 0,
            table_elements: 0,
        }
    }
}

impl ResourceLimiter for Limiter {
    // An error, not `Ok(false)`: a denied growth would make the guest abort, which looks like any
    // other trap.
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_add(desired.saturating_sub(current));
        if total > self.memory_limit {
            return Err(LimitHit::new(
                ReasonCode::MemoryLimit,
                format!(
                    "wants {total} bytes of memory where the limit is {} (limits.memory)",
                    self.memory_limit
                ),
            )
            .into());
        }
        self.memory = total;
        self.peak = self.peak.max(total);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.table_elements.saturating_add(desired.saturating_sub(current));
        if total > self.table_limit {
            return Err(LimitHit::new(
                ReasonCode::HostLimit,
                format!(
                    "wants {total} table elements where the limit is {} (limits.tables)",
                    self.table_limit
                ),
            )
            .into());
        }
        self.table_elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.most
    }

    fn tables(&self) -> usize {
        self.most
    }

    fn memories(&self) -> usize {
        self.most
    }
}

/// The clocks of one call. Shared by the future that polls the guest and the epoch callback
/// inside it; real time always, for a virtual clock cannot stop a loop.
#[derive(Debug)]
pub(super) struct Meter {
    started: Instant,
    /// Nanoseconds since `started` at which the current poll began.
    poll_began: AtomicU64,
    /// Nanoseconds spent in polls that have ended.
    used: AtomicU64,
    wall: Duration,
    cpu: Duration,
}

impl Meter {
    pub(super) fn start(wall: Duration, cpu: Duration) -> Self {
        Self { started: Instant::now(), poll_began: AtomicU64::new(0), used: AtomicU64::new(0), wall, cpu }
    }

    fn elapsed_nanos(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn poll_begins(&self) {
        self.poll_began.store(self.elapsed_nanos(), Ordering::Relaxed);
    }

    pub(super) fn poll_ends(&self) {
        let spent = self.elapsed_nanos().saturating_sub(self.poll_began.load(Ordering::Relaxed));
        self.used.fetch_add(spent, Ordering::Relaxed);
    }

    /// CPU time of the polls that have ended.
    pub(super) fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }

    /// When the call is ended at the latest.
    pub(super) fn deadline(&self) -> Instant {
        self.started + self.wall
    }

    /// When host I/O of this call gives up: a fifth of the time is left for the guest to answer.
    pub(super) fn io_deadline(&self) -> Instant {
        let now = Instant::now();
        now + self.deadline().saturating_duration_since(now).mul_f64(0.8)
    }

    /// Said by the epoch callback, in the middle of a poll.
    pub(super) fn is_over(&self) -> bool {
        let now = self.elapsed_nanos();
        let running = now.saturating_sub(self.poll_began.load(Ordering::Relaxed));
        let used = Duration::from_nanos(self.used.load(Ordering::Relaxed) + running);
        Duration::from_nanos(now) >= self.wall || used >= self.cpu
    }
}
