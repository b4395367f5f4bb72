//! What time it is, and how to wait: the only place that asks the system's clocks.
//!
//! ```text
//!              wall_ms          monotonic          sleep_until
//! RealClock    since 1970       since its making   tokio's timer
//! VirtualClock both stand still until step_to or advance_to_next; sleepers wait in its queue,
//!              the nearest first, those of one deadline in the order in which they came
//! ```
//!
//! CPU deadlines and the timeouts of real sockets do not ask here: they are always real.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use crate::sample::Millis;

/// Ends when its deadline has come. Dropping it leaves nothing behind.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A wall clock that may jump and a monotonic one that may not.
pub trait Clock: Debug + Send + Sync {
    /// Milliseconds since 1970 (UTC).
    fn wall_ms(&self) -> Millis;

    /// Since the clock was made.
    fn monotonic(&self) -> Duration;

    /// The same in milliseconds.
    fn monotonic_ms(&self) -> Millis {
        Millis::try_from(self.monotonic().as_millis()).unwrap_or(Millis::MAX)
    }

    /// Waits until `monotonic` says `deadline`; `Duration::MAX` is never. One that has passed
    /// gives way once to whoever else is ready.
    fn sleep_until(&self, deadline: Duration) -> Sleep;

    /// Waits this long.
    fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.monotonic().saturating_add(duration))
    }
}

/// What a wall clock may be corrected by without being set: time servers do that.
const SLEW: i64 = 1_000;

/// Notices when somebody sets the wall clock, or the machine was suspended.
#[derive(Debug, Default)]
pub struct WallWatch {
    /// How far the wall clock was ahead of the monotonic one.
    ahead: Option<i64>,
}

impl WallWatch {
    /// By how many milliseconds the wall clock has jumped since this was last asked.
    pub fn jumped(&mut self, clock: &dyn Clock) -> i64 {
        let signed = |time: Millis| i64::try_from(time).unwrap_or(i64::MAX);
        let ahead = signed(clock.wall_ms()) - signed(clock.monotonic_ms());
        let by = ahead - self.ahead.replace(ahead).unwrap_or(ahead);
        if by.abs() > SLEW { by } else { 0 }
    }
}

/// The system's clocks. Sleeps need a tokio runtime with time.
#[derive(Debug)]
pub struct RealClock {
    start: tokio::time::Instant,
}

impl RealClock {
    pub fn new() -> Self {
        Self { start: tokio::time::Instant::now() }
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RealClock {
    fn wall_ms(&self) -> Millis {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep_until(&self, deadline: Duration) -> Sleep {
        if deadline <= self.monotonic() {
            return Box::pin(tokio::task::yield_now());
        }
        match self.start.checked_add(deadline) {
            Some(at) => Box::pin(async move { tokio::time::sleep_until(at).await }),
            None => Box::pin(std::future::pending()),
        }
    }
}

/// A clock that stands still until it is stepped. Clones are the same clock.
///
/// A simulation lets everybody run until all wait, then calls [`VirtualClock::advance_to_next`],
/// and so on; nobody wakes late, and every run of it is the same.
#[derive(Debug, Clone)]
pub struct VirtualClock {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    monotonic: Duration,
    /// What the wall clock said, or would have said, at monotonic zero; jumps move it.
    wall_start: i64,
    sleepers: BTreeMap<Place, Waker>,
    tickets: u64,
}

/// In the queue: deadline, then the order of arrival.
type Place = (Duration, u64);

impl VirtualClock {
    pub fn new(wall_start: Millis) -> Self {
        let inner = Inner {
            monotonic: Duration::ZERO,
            wall_start: i64::try_from(wall_start).unwrap_or(i64::MAX),
            sleepers: BTreeMap::new(),
            tickets: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// The nearest deadline that somebody sleeps for.
    pub fn next_sleeper(&self) -> Option<Duration> {
        self.lock().sleepers.first_key_value().map(|(&(deadline, _), _)| deadline)
    }

    /// Moves both clocks on and wakes whose deadline has come, in the queue's order. Beyond more
    /// than one deadline it is like a suspended machine: the later sleepers are still in order,
    /// but all of them see the new time. A time that has passed changes nothing.
    pub fn step_to(&self, monotonic: Duration) {
        let mut inner = self.lock();
        inner.monotonic = inner.monotonic.max(monotonic);
        let last = (inner.monotonic, u64::MAX);
        let waiting = inner.sleepers.split_off(&last);
        let woken = std::mem::replace(&mut inner.sleepers, waiting);
        drop(inner); // A waker may run whatever it likes, this clock's own methods too.
        for waker in woken.into_values() {
            waker.wake();
        }
    }

    /// Steps to the nearest deadline and wakes everybody who waits for it. None: nobody sleeps,
    /// and the time stays.
    pub fn advance_to_next(&self) -> Option<Duration> {
        let deadline = self.next_sleeper()?;
        self.step_to(deadline);
        Some(deadline)
    }

    /// Sets the wall clock forward or, below zero, back; monotonic time does not notice.
    pub fn jump_wall(&self, milliseconds: i64) {
        let mut inner = self.lock();
        inner.wall_start = inner.wall_start.saturating_add(milliseconds);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for VirtualClock {
    fn wall_ms(&self) -> Millis {
        let inner = self.lock();
        let since = i64::try_from(inner.monotonic.as_millis()).unwrap_or(i64::MAX);
        Millis::try_from(inner.wall_start.saturating_add(since)).unwrap_or(0)
    }

    fn monotonic(&self) -> Duration {
        self.lock().monotonic
    }

    fn sleep_until(&self, deadline: Duration) -> Sleep {
        if deadline == Duration::MAX {
            return Box::pin(std::future::pending()); // Else the queue would step to the end of time.
        }
        Box::pin(Sleeper { clock: self.clone(), deadline, ticket: None })
    }
}

struct Sleeper {
    clock: VirtualClock,
    deadline: Duration,
    /// Its number in the queue, once it has been polled.
    ticket: Option<u64>,
}

impl Future for Sleeper {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.clock.lock();
        let is_first = self.ticket.is_none();
        let ticket = self.ticket.unwrap_or_else(|| {
            inner.tickets += 1;
            inner.tickets
        });
        let has_come = self.deadline <= inner.monotonic;
        let old =
            if has_come { None } else { inner.sleepers.insert((self.deadline, ticket), cx.waker().clone()) };
        drop(inner);
        drop(old); // Outside of the lock: a waker may own a task that owns sleepers.
        self.ticket = Some(ticket);
        if has_come && !is_first {
            return Poll::Ready(());
        }
        if has_come {
            cx.waker().wake_by_ref(); // It never waited, so it gives way.
        }
        Poll::Pending
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let waker = self.clock.lock().sleepers.remove(&(self.deadline, ticket));
            drop(waker); // Outside of the lock, as above.
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// Lets every task run until it waits; enough for the few there are.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    /// Sleepers with these deadlines, and the list of those that woke.
    async fn sleepers(clock: &VirtualClock, deadlines: &[u64]) -> Arc<Mutex<Vec<usize>>> {
        let woken = Arc::new(Mutex::new(Vec::new()));
        for (i, &deadline) in deadlines.iter().enumerate() {
            let (clock, woken) = (clock.clone(), woken.clone());
            tokio::spawn(async move {
                clock.sleep_until(secs(deadline)).await;
                woken.lock().unwrap().push(i);
            });
        }
        settle().await;
        woken
    }

    #[test]
    fn both_clocks_advance_together() {
        let clock = VirtualClock::new(1_000_000);
        assert_eq!((clock.wall_ms(), clock.monotonic()), (1_000_000, Duration::ZERO));
        clock.step_to(secs(90));
        assert_eq!((clock.wall_ms(), clock.monotonic()), (1_090_000, secs(90)));
        clock.step_to(secs(10));
        assert_eq!(clock.monotonic(), secs(90), "time never goes back");
    }

    #[test]
    fn jumps_move_the_wall_alone() {
        let clock = VirtualClock::new(10_000_000);
        clock.jump_wall(HOUR_MS);
        assert_eq!((clock.wall_ms(), clock.monotonic()), (13_600_000, Duration::ZERO));
        clock.jump_wall(-2 * HOUR_MS);
        assert_eq!(clock.wall_ms(), 6_400_000);
        clock.jump_wall(i64::MIN);
        assert_eq!(clock.wall_ms(), 0, "never before 1970");
    }

    #[tokio::test]
    async fn sleepers_wait_until_the_clock_is_stepped() {
        let clock = VirtualClock::new(0);
        let woken = sleepers(&clock, &[30, 10, 20]).await;
        assert_eq!((clock.next_sleeper(), woken.lock().unwrap().len()), (Some(secs(10)), 0));
        for (deadline, expected) in [(10, vec![1]), (20, vec![1, 2]), (30, vec![1, 2, 0])] {
            assert_eq!(clock.advance_to_next(), Some(secs(deadline)));
            settle().await;
            assert_eq!(*woken.lock().unwrap(), expected);
        }
        assert_eq!((clock.advance_to_next(), clock.monotonic()), (None, secs(30)));
    }

    #[tokio::test]
    async fn one_step_beyond_many_deadlines_wakes_in_their_order() {
        let clock = VirtualClock::new(0);
        let woken = sleepers(&clock, &[3, 1, 2, 1, 9]).await;
        clock.step_to(secs(3));
        settle().await;
        assert_eq!(*woken.lock().unwrap(), [1, 3, 2, 0]);
        assert_eq!(clock.next_sleeper(), Some(secs(9)));
    }

    #[tokio::test]
    async fn equal_deadlines_wake_in_the_order_of_arrival() {
        let clock = VirtualClock::new(0);
        let woken = sleepers(&clock, &[5; 10]).await;
        clock.advance_to_next();
        settle().await;
        assert_eq!(*woken.lock().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[tokio::test]
    async fn a_dropped_sleep_leaves_the_queue() {
        let clock = VirtualClock::new(0);
        let task = tokio::spawn(clock.sleep(secs(5)));
        settle().await;
        assert_eq!(clock.next_sleeper(), Some(secs(5)));
        task.abort();
        settle().await;
        assert_eq!(clock.next_sleeper(), None);
    }

    #[tokio::test]
    async fn a_sleep_of_nothing_yields_once() {
        let clocks: [Arc<dyn Clock>; 2] = [Arc::new(VirtualClock::new(0)), Arc::new(RealClock::new())];
        for clock in clocks {
            let order = Arc::new(Mutex::new(Vec::new()));
            let other = order.clone();
            let task = tokio::spawn(async move { other.lock().unwrap().push("other") });
            clock.sleep(Duration::ZERO).await;
            order.lock().unwrap().push("sleeper");
            task.await.unwrap();
            assert_eq!(*order.lock().unwrap(), ["other", "sleeper"]);
        }
    }

    #[tokio::test]
    async fn whoever_sleeps_for_ever_is_not_stepped_to() {
        let clock = VirtualClock::new(0);
        let task = tokio::spawn(clock.sleep(Duration::MAX));
        settle().await;
        assert_eq!((clock.advance_to_next(), task.is_finished()), (None, false));
    }

    #[tokio::test]
    async fn weeks_pass_in_a_loop() {
        let clock = VirtualClock::new(0);
        let ticker = clock.clone();
        let task = tokio::spawn(async move {
            for _ in 0..2 * 7 * 24 * 60 {
                ticker.sleep(secs(60)).await;
            }
        });
        while !task.is_finished() {
            tokio::task::yield_now().await;
            clock.advance_to_next();
        }
        assert_eq!(clock.monotonic(), secs(14 * 86_400));
    }

    #[tokio::test]
    async fn real_sleeps_end_and_far_ones_do_not_overflow() {
        let clock = RealClock::new();
        clock.sleep(Duration::from_millis(1)).await;
        assert!(clock.monotonic() >= Duration::from_millis(1));
        assert!(clock.wall_ms() > 1_600_000_000_000);
        drop(clock.sleep(Duration::MAX));
    }
}
