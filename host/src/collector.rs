//! One collector's task: owns its instance, runs it when the scheduler says so, and hands what it
//! found to the router.
//!
//! ```text
//!              ┌─ start an instance, if there is none and the supervisor lets one start
//! Run ─▶ run ──┤─ collect ──▶ series table ──▶ router ──▶ queues of the handlers
//!              └─ killed: once more on a fresh instance, if the slot leaves time for it
//! ```
//!
//! Uses: `keeper`, `series`, `router`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::clock::WallWatch;
use crate::collected::Collected;
use crate::keeper::{Keeper, Successor};
use crate::machine::Machine;
use crate::plugin::{CollectError, Failure, Tick, TickReason};
use crate::reason::ReasonCode;
use crate::router::Router;
use crate::sample::Millis;
use crate::scheduler::SlotEnd;
use crate::series::SeriesTable;

/// A collector that took longer than this in its last run does not hold up the flush of its slot.
const SLOW: Duration = Duration::from_millis(100);

/// What the agent tells a collector, besides when to run.
#[derive(Debug)]
pub enum Command {
    /// Ends a quarantine.
    Release,
    /// Goes on with another program, or on other terms.
    Replace(Box<Successor>, oneshot::Sender<Result<(), Failure>>),
    /// How often it runs from now on.
    Interval(Duration),
}

/// One run.
#[derive(Debug)]
pub struct Run {
    pub due: Millis,
    pub slot: u64,
    /// Slots right before this one that passed without a run.
    pub skipped: u32,
    /// When the last of a slot's collectors lets go of it, the handlers are woken.
    pub slot_end: Arc<SlotEnd>,
}

/// A collector between two runs.
#[derive(Debug)]
pub struct Collector {
    keeper: Keeper,
    interval: Duration,
    series: Arc<Mutex<SeriesTable>>,
    router: Arc<Router>,
    machine: Arc<Machine>,
    /// Due time of the last run that ended well.
    last_good: Option<Millis>,
    wall: WallWatch,
    is_slow: bool,
    /// What the log was told is not there; said once.
    absent: Option<String>,
}

impl Collector {
    /// `series` outlives this task: it may be handed to the next one.
    pub fn new(
        keeper: Keeper,
        interval: Duration,
        series: Arc<Mutex<SeriesTable>>,
        router: Arc<Router>,
        machine: Arc<Machine>,
    ) -> Self {
        let wall = WallWatch::default();
        Self {
            keeper,
            interval,
            series,
            router,
            machine,
            last_good: None,
            wall,
            is_slow: false,
            absent: None,
        }
    }

    /// Runs until the senders of `runs` are gone. A command comes before the next run.
    pub async fn serve(mut self, mut runs: mpsc::Receiver<Run>, mut commands: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                biased;
                Some(command) = commands.recv() => self.obey(command).await,
                run = runs.recv() => match run {
                    Some(run) => self.run(run).await,
                    None => break,
                },
            }
        }
        self.keeper.stop();
        self.report();
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Release => {
                self.keeper.supervisor.release();
            }
            Command::Interval(interval) => self.interval = interval,
            Command::Replace(successor, reply) => {
                let replaced = self.keeper.replace(*successor).await;
                if replaced.is_ok() {
                    lock(&self.series).new_instance();
                    self.absent = None;
                }
                // Whoever asked may have gone.
                drop(reply.send(replaced));
            }
        }
        self.report();
    }

    async fn run(&mut self, run: Run) {
        let jumped = self.wall.jumped(&*self.keeper.context.clock);
        if jumped != 0 {
            lock(&self.series).clock_jumped(jumped);
            self.last_good = self.last_good.map(|last| last.saturating_add_signed(jumped));
        }
        // A slow one keeps nobody waiting and wakes the handlers itself.
        let held = (!self.is_slow).then_some(run.slot_end);
        let began = Instant::now();
        let clock = self.keeper.context.clock.clone();
        let late = Duration::from_millis(clock.wall_ms().saturating_sub(run.due));
        let next_due = run.due.saturating_add(millis(self.interval));
        let mut timeout = self.keeper.context.limits.timeout;
        while self.attempt(run.due, run.slot, timeout).await.is_err() {
            let left = Duration::from_millis(next_due.saturating_sub(clock.wall_ms()));
            // The second try gets the time that is left, if that is worth a try.
            timeout = timeout.min(left);
            if timeout < self.interval / 4 || !self.may_retry(left, timeout) {
                break;
            }
        }
        let took = began.elapsed();
        self.is_slow = took > SLOW;
        self.keeper.status.update(|status| {
            status.ran(clock.wall_ms(), took, late);
            status.skipped += u64::from(run.skipped);
        });
        self.report();
        match held {
            Some(slot_end) => drop(slot_end),
            None => self.router.slot_end(),
        }
    }

    /// The supervisor's clock is monotonic and due times are not, so what is left is compared.
    fn may_retry(&self, left: Duration, timeout: Duration) -> bool {
        let now = self.keeper.context.clock.monotonic();
        self.keeper.supervisor.may_retry_now(now, now + left, timeout)
    }

    /// One call. A failure has been dealt with already: the instance is gone, and nothing of what
    /// the call did counts.
    async fn attempt(&mut self, due: Millis, slot: u64, timeout: Duration) -> Result<(), Failure> {
        if self.keeper.instance().is_none() {
            if !self.keeper.is_ready() {
                self.keeper.status.update(|status| status.skipped += 1);
                return Ok(());
            }
            self.keeper.start().await?;
            lock(&self.series).new_instance();
        }
        let expired = lock(&self.series).expire(due, self.interval);
        let probes = self.keeper.supervisor.is_on_probation();
        let tick = Tick {
            due,
            now: self.keeper.context.clock.wall_ms(),
            elapsed: self.last_good.map(|last| due.saturating_sub(last)),
            reason: if probes { TickReason::Probe } else { TickReason::Due },
            expired: expired.series,
            expired_elements: expired.elements,
            slot,
            timeout,
        };
        let Some(instance) = self.keeper.instance() else { return Ok(()) };
        let outcome = match instance.collect(tick).await {
            Ok(Ok(collected)) => self.take(due, collected),
            Ok(Err(error)) => {
                self.brought_nothing(error);
                Ok(())
            }
            Err(failure) => Err(failure),
        };
        outcome.inspect_err(|failure| self.keeper.killed(failure))
    }

    /// What it found counts from here on.
    fn take(&mut self, due: Millis, collected: Collected) -> Result<(), Failure> {
        let mut series = lock(&self.series);
        let applied = series
            .apply(due, collected)
            .map_err(|flood| Failure::new(ReasonCode::Flood, flood.to_string()))?;
        let live = series.len();
        drop(series);
        let context = &self.keeper.context;
        if let Some(additions) = applied.machine {
            self.machine.add(&context.name, additions, due);
        }
        self.keeper.status.update(|status| {
            status.samples_total += applied.batch.len() as u64;
            status.series = live as u64;
            for (reason, count) in applied.dropped.iter() {
                status.dropped(reason.as_str(), count);
            }
        });
        for (reason, count) in applied.dropped.iter() {
            tracing::warn!(
                plugin = context.name,
                reason = reason.as_str(),
                count,
                "some of what the collector said was dropped"
            );
        }
        self.router.route(applied.batch, context.clock.monotonic_ms());
        self.last_good = Some(due);
        self.absent = None;
        self.keeper.succeeded();
        Ok(())
    }

    fn brought_nothing(&mut self, error: CollectError) {
        match error {
            CollectError::Failed(text) => self.keeper.failed(&text),
            CollectError::Absent(text) => {
                if self.absent.as_ref() != Some(&text) {
                    let plugin = self.keeper.context.name.as_str();
                    tracing::info!(plugin, what = text, "collector has nothing to measure");
                    self.absent = Some(text);
                }
                self.keeper.succeeded();
            }
        }
    }

    fn report(&self) {
        self.keeper.report(lock(&self.series).bytes());
    }
}

/// A panic elsewhere must not end this collector too; the table is whole between its calls.
fn lock(series: &Mutex<SeriesTable>) -> MutexGuard<'_, SeriesTable> {
    series.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
