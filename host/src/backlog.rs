//! What waits for one handler, in memory and on disk, as its delivery sees it.
//!
//! ```text
//! queue (memory) ──unacknowledged for `sync`, or more than half full──▶ spool (disk)
//!    │ nothing on disk                                                     │ no faster than catch_up
//!    └───────────────────────────────▶ take ◀──────────────────────────────┘
//! ```
//!
//! Where the disk fails, all stays in memory within its bound, and the disk is tried again.
//! Uses: `queue`, `spool`. Times are the agent's monotonic clock unless they say otherwise.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use crate::clock::Clock;
use crate::config::{Order, QueueConfig};
use crate::outgoing::{BatchForm, Outgoing};
use crate::queue::Queue;
use crate::sample::{Batch, Millis};
use crate::spool::{Dropped, Spool, SpoolConfig};

/// How long a disk that failed is left alone.
const DISK_RETRY: Millis = 5_000;
/// Over which time the live rate is taken.
const WINDOW: Millis = 60_000;
/// However little is measured, a backlog goes on with one batch in this time.
const SLOWEST: Millis = 1_000;

/// Which part of the pause between two batches of a backlog is chance.
const JITTER: f64 = 0.25;

/// Where the batch that is out came from, and so what its end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    Nothing,
    Memory,
    /// The same, and no spool of this size can have it.
    Oversized,
    /// The spool has it, too.
    Disk,
    /// The same, and it has gone for good.
    Gone,
}

/// What [`Backlog::take`] found.
#[derive(Debug)]
pub enum Taken {
    Batch(Outgoing),
    /// What there is may not go before that.
    NotBefore(Millis),
    Nothing,
}

/// One handler's queue and spool.
#[derive(Debug)]
pub struct Backlog {
    queue: Arc<Queue>,
    config: QueueConfig,
    /// How long a batch that is not full waits for more.
    wait: Millis,
    dir: PathBuf,
    /// None: not opened yet, or there is none.
    spool: Option<Spool>,
    is_off: bool,
    /// The disk failed, and is not tried before.
    failing_until: Millis,
    out: Out,
    clock: Arc<dyn Clock>,
    /// The spool's next batch may not go before.
    next: Millis,
    /// When the window began, what had been pushed then, and the rate of the one before.
    window: (Millis, u64, f64),
    warned: bool,
    /// How many damaged bytes the log has been told of.
    damaged: u64,
}

impl Backlog {
    /// `wait`: how long a batch that is not full waits for more. `dir`: the spool's; none: there is
    /// none, whatever the config says.
    pub fn new(
        queue: Arc<Queue>,
        config: QueueConfig,
        wait: Duration,
        dir: Option<PathBuf>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let now = clock.monotonic_ms();
        Self {
            window: (now, queue.pushed(), 0.0),
            queue,
            is_off: dir.is_none() || config.disk == 0,
            config,
            wait: millis(wait),
            dir: dir.unwrap_or_default(),
            spool: None,
            failing_until: 0,
            out: Out::Nothing,
            clock,
            next: 0,
            warned: false,
            damaged: 0,
        }
    }

    /// Other bounds; what is beyond them goes. `wait` as in [`Backlog::new`].
    pub fn set_config(&mut self, config: QueueConfig, wait: Duration) {
        self.queue.set_limit(usize::try_from(config.memory).unwrap_or(usize::MAX));
        self.is_off = self.dir.as_os_str().is_empty() || config.disk == 0;
        let (disk, age, fsync) = (config.disk, config.age, config.fsync);
        if let Some(spool) = self.spool.as_mut().filter(|_| disk > 0) {
            spool.set_config(SpoolConfig { disk, age, fsync });
        }
        (self.config, self.wait) = (config, millis(wait));
    }

    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// The end is near: no batch waits for more.
    pub fn hurry(&mut self) {
        self.wait = 0;
    }

    /// The next batch, which is out until [`Backlog::finished`].
    pub async fn take(&mut self, form: &BatchForm) -> Taken {
        let now = self.clock.monotonic_ms();
        if self.out == Out::Gone {
            self.out = Out::Nothing;
            self.on_disk(|spool, _| {
                spool.acknowledge();
                Ok(())
            })
            .await;
        }
        let newest_first = self.config.order == Order::NewestFirst;
        if newest_first && let Taken::Batch(outgoing) = self.take_queued(form, now) {
            return Taken::Batch(outgoing);
        }
        match self.load(now).await {
            Taken::Nothing => self.take_queued(form, now),
            found => found,
        }
    }

    fn take_queued(&mut self, form: &BatchForm, now: Millis) -> Taken {
        let Some(oldest) = self.queue.oldest_since(false) else { return Taken::Nothing };
        let ripe = oldest.saturating_add(self.wait);
        if now < ripe && form.fits(self.queue.len() + 1, self.queue.bytes()) {
            return Taken::NotBefore(ripe);
        }
        let Some(outgoing) = self.queue.take(form) else { return Taken::Nothing };
        self.out = Out::Memory;
        Taken::Batch(outgoing)
    }

    /// The oldest on disk.
    async fn load(&mut self, now: Millis) -> Taken {
        // Whether there is any is not known before it has been opened.
        if self.is_off || now < self.failing_until || self.spool.as_ref().is_some_and(Spool::is_empty) {
            return Taken::Nothing;
        }
        if now < self.next {
            return Taken::NotBefore(self.next);
        }
        let loaded = self.on_disk(|spool, wall| spool.load(wall)).await.flatten();
        let Some((outgoing, since)) = loaded else { return Taken::Nothing };
        self.out = Out::Disk;
        let rate = self.live_rate(now) * self.config.catch_up;
        let pause = Duration::try_from_secs_f64(outgoing.len() as f64 / rate).map_or(SLOWEST, millis);
        // A fleet's receiver comes back to all agents at once.
        let chance = rand::rng().random_range(1.0 - JITTER..=1.0 + JITTER);
        self.next = self.next.max(now) + (pause.min(SLOWEST) as f64 * chance) as Millis;
        let waited = self.clock.wall_ms().saturating_sub(since);
        Taken::Batch(Outgoing { since: now.saturating_sub(waited), ..outgoing })
    }

    /// So many bytes of what is out have gone for good.
    pub fn settle(&mut self, bytes: usize) {
        if self.is_out_of_queue() {
            self.queue.settle(bytes);
        }
    }

    /// Whether what is out counts towards the queue's limit.
    fn is_out_of_queue(&self) -> bool {
        matches!(self.out, Out::Memory | Out::Oversized)
    }

    /// Nothing is left of what was out.
    pub fn finished(&mut self) {
        self.out = if self.out == Out::Disk { Out::Gone } else { Out::Nothing };
    }

    /// When [`Backlog::spill`] is due; none: there is nothing in memory, or no disk.
    pub fn spill_at(&self) -> Option<Millis> {
        if self.is_off {
            return None;
        }
        // What waits for more has not been tried yet.
        let longest = millis(self.config.sync).saturating_add(self.wait);
        let oldest = self.queue.oldest_since(self.out == Out::Memory)?.saturating_add(longest);
        let due = if self.queue.is_filling() { 0 } else { oldest };
        Some(due.max(self.failing_until))
    }

    /// Writes all that is in memory to disk. `held`: what is left of the batch that is out, in
    /// order; it stays out.
    pub async fn spill(&mut self, held: Vec<Outgoing>, form: &BatchForm) {
        if self.is_off {
            return;
        }
        let gone = std::mem::replace(&mut self.out, Out::Nothing);
        self.out = if gone == Out::Gone { Out::Nothing } else { gone };
        let held = if self.out == Out::Memory { joined(held) } else { None };
        let mut batches: Vec<Outgoing> = std::iter::from_fn(|| self.queue.take(form)).collect();
        let now = self.clock.monotonic_ms();
        let since =
            move |wall: Millis, outgoing: &Outgoing| wall.saturating_sub(now.saturating_sub(outgoing.since));
        let sizes: Vec<usize> = batches.iter().map(Outgoing::bytes).collect();
        let held_bytes = held.as_ref().map(Outgoing::bytes);
        let (kept, shared) = (Arc::new(batches), held);
        let given = kept.clone();
        let written = self
            .on_disk(move |spool, wall| {
                if gone == Out::Gone {
                    spool.acknowledge();
                }
                // It came before all others that are in memory.
                let mut out = None;
                if let Some(held) = shared {
                    let place = spool.append(&held, since(wall, &held))?;
                    place.into_iter().for_each(|place| spool.adopt(place));
                    out = Some(if place.is_some() { Out::Disk } else { Out::Oversized });
                }
                let mut written = 0;
                let mut failure = None;
                for outgoing in given.iter() {
                    match spool.append(outgoing, since(wall, outgoing)) {
                        Ok(Some(_)) => {}
                        Ok(None) => spool.drop_items(outgoing.len()),
                        Err(error) => {
                            failure = Some(error);
                            break;
                        }
                    }
                    written += 1;
                }
                let failure = spool.sync().err().or(failure);
                Ok((out, written, failure.map(|error| error.to_string())))
            })
            .await;
        let (out, written, failure) = written.unwrap_or((None, 0, None));
        self.out = out.unwrap_or(self.out);
        if let (Some(Out::Disk), Some(bytes)) = (out, held_bytes) {
            self.queue.settle(bytes);
        }
        self.queue.settle(sizes.iter().take(written).sum());
        batches = Arc::unwrap_or_clone(kept);
        for outgoing in batches.drain(written..).rev() {
            self.queue.put_back(outgoing);
        }
        match failure {
            Some(why) => self.failed(&why),
            None if written > 0 && std::mem::take(&mut self.warned) => {
                tracing::info!(dir = %self.dir.display(), "spool can be used again");
            }
            None => {}
        }
    }

    /// Before the end: what is out and not gone stays on disk, or goes back to memory.
    pub fn give_back(&mut self, held: impl Iterator<Item = Outgoing>) {
        if self.is_out_of_queue() {
            held.for_each(|outgoing| self.queue.put_back(outgoing));
        } else {
            held.for_each(drop);
        }
        if self.out != Out::Gone {
            self.out = Out::Nothing;
        }
    }

    /// Bytes on disk.
    pub fn spool_bytes(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::bytes)
    }

    /// What the spool let go of unread, since the start.
    pub fn dropped(&self) -> Dropped {
        self.spool.as_ref().map_or_else(Dropped::default, Spool::dropped)
    }

    /// Items in a second, of what is measured now.
    fn live_rate(&mut self, now: Millis) -> f64 {
        let (began, pushed, last) = self.window;
        let took = now.saturating_sub(began);
        let rate = (self.queue.pushed() - pushed) as f64 * 1000.0 / took.max(1) as f64;
        if took >= WINDOW {
            self.window = (now, self.queue.pushed(), rate);
        }
        rate.max(last)
    }

    /// Does something with the spool, on a thread that may wait for a disk. None: it failed, and
    /// the log knows.
    async fn on_disk<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Spool, Millis) -> std::io::Result<R> + Send + 'static,
    ) -> Option<R> {
        let wall = self.clock.wall_ms();
        let settings = SpoolConfig { disk: self.config.disk, age: self.config.age, fsync: self.config.fsync };
        let (dir, spool) = (self.dir.clone(), self.spool.take());
        let worked = tokio::task::spawn_blocking(move || {
            let mut spool = match spool.map_or_else(|| Spool::open(dir, settings), Ok) {
                Ok(spool) => spool,
                Err(error) => return (None, Err(error)),
            };
            let done = work(&mut spool, wall);
            (Some(spool), done)
        })
        .await;
        let (spool, done) = worked.unwrap_or_else(|error| (None, Err(std::io::Error::other(error))));
        self.spool = spool;
        let damaged = self.dropped().damaged_bytes;
        if damaged > self.damaged {
            let (dir, bytes) = (self.dir.join("damaged"), damaged - self.damaged);
            tracing::warn!(dir = %dir.display(), bytes, "damaged records of a spool were moved aside");
        }
        self.damaged = damaged;
        match done {
            Ok(done) => Some(done),
            Err(error) => {
                self.failed(&error.to_string());
                None
            }
        }
    }

    /// The disk is left alone for a while.
    fn failed(&mut self, why: &str) {
        self.failing_until = self.clock.monotonic_ms() + DISK_RETRY;
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                dir = %self.dir.display(),
                why,
                "spool cannot be used: what waits stays in memory, within `queue.memory`"
            );
        }
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// Parts of one batch as one.
fn joined(parts: Vec<Outgoing>) -> Option<Outgoing> {
    let mut parts = parts.into_iter();
    let mut whole = parts.next()?;
    for part in parts {
        whole.kills = whole.kills.max(part.kills);
        let batch: Batch = part.batch;
        whole.batch.append(batch);
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::VirtualClock;
    use crate::outgoing::tests::samples;

    const FORM: BatchForm = BatchForm { by_element: false, samples: 2, bytes: usize::MAX };

    struct Bench {
        backlog: Backlog,
        queue: Arc<Queue>,
        clock: VirtualClock,
        dir: PathBuf,
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }

    impl Bench {
        fn new(name: &str, config: QueueConfig, wait: Duration) -> Self {
            let dir = std::env::temp_dir().join(format!("kimberlite-backlog-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            let clock = VirtualClock::new(1_000_000_000_000);
            let queue = Arc::new(Queue::new(1 << 20));
            let backlog =
                Backlog::new(queue.clone(), config, wait, Some(dir.clone()), Arc::new(clock.clone()));
            Self { backlog, queue, clock, dir }
        }

        fn push(&self, values: std::ops::Range<u32>) {
            self.queue.push(Arc::new(samples(values)), self.clock.monotonic_ms());
        }

        fn pass(&self, millis: Millis) {
            self.clock.step_to(self.clock.monotonic() + Duration::from_millis(millis));
        }

        /// Takes and settles; none: there is nothing now.
        async fn deliver(&mut self) -> Option<Vec<u32>> {
            let Taken::Batch(outgoing) = self.backlog.take(&FORM).await else { return None };
            self.backlog.settle(outgoing.bytes());
            self.backlog.finished();
            Some(values(&outgoing))
        }

        async fn spill(&mut self) {
            self.backlog.spill(Vec::new(), &FORM).await;
        }
    }

    fn values(outgoing: &Outgoing) -> Vec<u32> {
        outgoing.batch.samples.iter().map(|sample| sample.value as u32).collect()
    }

    fn config() -> QueueConfig {
        QueueConfig { fsync: false, ..QueueConfig::default() }
    }

    #[tokio::test]
    async fn what_is_on_disk_goes_before_what_came_later() {
        let mut bench = Bench::new("order", config(), Duration::ZERO);
        bench.push(0..2);
        assert_eq!(bench.backlog.spill_at(), Some(bench.clock.monotonic_ms() + 1000));
        bench.spill().await;
        assert_eq!((bench.queue.bytes(), bench.backlog.spill_at()), (0, None));
        bench.push(2..4);
        assert_eq!(bench.deliver().await, Some(vec![0, 1]));
        assert_eq!(bench.deliver().await, Some(vec![2, 3]));
        assert_eq!((bench.deliver().await, bench.backlog.spool_bytes()), (None, 0));
    }

    #[tokio::test]
    async fn live_overtakes_the_backlog_where_newest_goes_first() {
        let newest = QueueConfig { order: Order::NewestFirst, ..config() };
        let mut bench = Bench::new("newest", newest, Duration::ZERO);
        bench.push(0..2);
        bench.spill().await;
        bench.push(2..4);
        assert_eq!(bench.deliver().await, Some(vec![2, 3]));
        assert_eq!(bench.deliver().await, Some(vec![0, 1]));
    }

    #[tokio::test]
    async fn the_batch_that_is_out_is_written_first_and_stays_out() {
        let mut bench = Bench::new("out", config(), Duration::ZERO);
        bench.push(0..4);
        let Taken::Batch(out) = bench.backlog.take(&FORM).await else { panic!("nothing") };
        bench.backlog.spill(vec![out.clone()], &FORM).await;
        assert_eq!((bench.queue.bytes(), bench.queue.len()), (0, 0));
        // Another agent would begin with it.
        let spool = SpoolConfig { disk: 1 << 20, age: Duration::from_secs(1000), fsync: false };
        let mut left = Spool::open(bench.dir.clone(), spool).unwrap();
        assert_eq!(values(&left.load(bench.clock.wall_ms()).unwrap().unwrap().0), [0, 1]);
        drop(left);
        bench.backlog.settle(out.bytes());
        bench.backlog.finished();
        assert_eq!(bench.deliver().await, Some(vec![2, 3]));
    }

    #[tokio::test]
    async fn a_backlog_is_drained_at_a_multiple_of_the_live_rate() {
        let slow = QueueConfig { catch_up: 2.0, ..config() };
        let mut bench = Bench::new("rate", slow, Duration::ZERO);
        // 20 in 2 s are 10 in a second: 2 in 100 ms at twice that.
        bench.push(0..20);
        bench.pass(2000);
        bench.spill().await;
        let mut at = Vec::new();
        while at.len() < 10 {
            match bench.backlog.take(&FORM).await {
                Taken::Batch(_) => {
                    bench.backlog.finished();
                    at.push(bench.clock.monotonic_ms());
                }
                Taken::NotBefore(next) => bench.pass(next - bench.clock.monotonic_ms()),
                Taken::Nothing => panic!("{at:?}"),
            }
        }
        let took = at[9] - at[0];
        assert!((700..=1700).contains(&took), "{at:?}");
    }

    #[tokio::test]
    async fn a_batch_that_is_not_full_waits_for_more_but_not_at_the_end() {
        let mut bench = Bench::new("wait", config(), Duration::from_secs(5));
        bench.push(0..1);
        assert!(matches!(bench.backlog.take(&FORM).await, Taken::NotBefore(_)));
        bench.push(1..2);
        assert_eq!(bench.deliver().await, Some(vec![0, 1]));
        bench.push(2..3);
        bench.pass(5000);
        assert_eq!(bench.deliver().await, Some(vec![2]));
        bench.push(3..4);
        assert_eq!(bench.deliver().await, None);
        bench.backlog.hurry();
        assert_eq!(bench.deliver().await, Some(vec![3]));
    }

    #[tokio::test]
    async fn a_disk_that_fails_is_left_alone_for_a_while_and_loses_nothing() {
        let mut bench = Bench::new("fails", config(), Duration::ZERO);
        std::fs::write(&bench.dir, "in the way").unwrap();
        bench.push(0..4);
        bench.spill().await;
        assert_eq!(bench.queue.len(), 4);
        assert_eq!(bench.backlog.spill_at(), Some(bench.clock.monotonic_ms() + DISK_RETRY));
        std::fs::remove_file(&bench.dir).unwrap();
        bench.pass(DISK_RETRY);
        bench.spill().await;
        assert_eq!((bench.queue.len(), bench.backlog.spool_bytes() > 0), (0, true));
        assert_eq!(bench.deliver().await, Some(vec![0, 1]));
    }
}
