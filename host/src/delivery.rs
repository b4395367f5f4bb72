//! One handler's task: empties its queue into it, one batch at a time.
//!
//! ```text
//! queue ──take──▶ policy ──send──▶ handle (wasm) ──▶ answer, or a kill ──▶ policy: what next?
//!                   ▲ └─ waits, is halted, sets aside                          │
//!                   └──────────────────────────────────────────────────────────┘
//! ```
//!
//! The batch lives here while the handler has it, so that a handler may die at any instant.
//! Uses: `keeper`, `queue`, `delivery_policy`. What to do next is decided there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::delivery_policy::{Delivered, DeliveryPolicy, Kill, Next, Outcome, Verdict};
use crate::keeper::Keeper;
use crate::outgoing::{BatchForm, Outgoing};
use crate::plugin::Failure;
use crate::queue::Queue;
use crate::sample::Millis;
use crate::status::PluginStatus;

/// What the agent tells a handler's task.
#[derive(Debug)]
pub enum Command {
    /// Ends a quarantine.
    Release,
    /// Ends a halt.
    Resume,
    /// Deliver what there is, then end; whoever asks waits for the task.
    Drain,
}

/// A handler between two batches.
#[derive(Debug)]
pub struct Delivery {
    keeper: Keeper,
    queue: Arc<Queue>,
    form: BatchForm,
    policy: DeliveryPolicy,
    drains: bool,
}

/// How far one step of the work has come.
enum Step {
    /// Something was done; there may be more.
    Progress,
    /// There is nothing to deliver.
    Idle,
    /// Nothing can be done before that; none: before somebody acts.
    Wait(Option<Duration>),
}

impl Delivery {
    pub fn new(keeper: Keeper, queue: Arc<Queue>, form: BatchForm, policy: DeliveryPolicy) -> Self {
        let shown = queue.clone();
        keeper.status.set_live(move |status| show_queue(&shown, status));
        Self { keeper, queue, form, policy, drains: false }
    }

    /// Runs until it is told to drain and has, or all senders are gone. What could not be
    /// delivered is in the queue then.
    pub async fn serve(mut self, mut commands: mpsc::Receiver<Command>) {
        let clock = self.keeper.context.clock.clone();
        self.report();
        loop {
            let command = match self.step().await {
                Step::Progress => continue,
                // What waits for a receiver goes on waiting: whoever drains has a limit for that.
                Step::Idle | Step::Wait(None) if self.drains => break,
                Step::Idle => tokio::select! {
                    biased;
                    command = commands.recv() => Some(command),
                    () = self.queue.woken() => None,
                },
                Step::Wait(wait) => tokio::select! {
                    biased;
                    command = commands.recv(), if !self.drains => Some(command),
                    () = rest(&clock, wait) => None,
                },
            };
            match command {
                None => {}
                Some(None) => break,
                Some(Some(Command::Drain)) => self.drains = true,
                Some(Some(Command::Release)) => {
                    self.keeper.supervisor.release();
                }
                Some(Some(Command::Resume)) => {
                    self.policy.resume();
                    self.keeper.status.set_halted(None);
                }
            }
            self.report();
        }
        self.end();
    }

    /// Delivers what is queued now, waiting as often as it takes, but not beyond `give_up` and not
    /// for a person. What could not be delivered is in the queue then.
    pub async fn finish(mut self, give_up: Duration) -> Delivered {
        let clock = self.keeper.context.clock.clone();
        let deadline = clock.monotonic() + give_up;
        loop {
            match self.step().await {
                Step::Progress => {}
                Step::Wait(Some(wait)) if clock.monotonic() + wait < deadline => clock.sleep(wait).await,
                Step::Idle | Step::Wait(_) => break,
            }
        }
        let sums = self.policy.sums();
        self.end();
        sums
    }

    fn end(&mut self) {
        let held: Vec<_> = self.policy.give_back().collect();
        for outgoing in held {
            self.queue.put_back(outgoing);
        }
        self.keeper.stop();
        self.report();
    }

    async fn step(&mut self) -> Step {
        match self.policy.next(self.now()) {
            Next::Send(batch) => match self.ready().await {
                Ok(()) => {
                    self.deliver(batch).await;
                    Step::Progress
                }
                Err(wait) => {
                    // Not this batch's fault: it keeps its place.
                    self.policy.unsent(batch);
                    self.report();
                    Step::Wait(wait)
                }
            },
            Next::Take => match self.queue.take(&self.form) {
                Some(outgoing) => {
                    self.policy.load(outgoing);
                    Step::Progress
                }
                None => Step::Idle,
            },
            Next::WaitUntil(until) => {
                Step::Wait(Some(Duration::from_millis(until.saturating_sub(self.now()))))
            }
            Next::Halted => Step::Wait(None),
        }
    }

    /// Sees to it that there is an instance; an error says how long to wait for one (none: until
    /// somebody acts).
    async fn ready(&mut self) -> Result<(), Option<Duration>> {
        if self.keeper.instance().is_some() {
            return Ok(());
        }
        if self.keeper.is_ready() && self.keeper.start().await.is_ok() {
            return Ok(());
        }
        let now = self.keeper.context.clock.monotonic();
        Err(self.keeper.supervisor.start_at().map(|at| at.saturating_sub(now)))
    }

    async fn deliver(&mut self, batch: Outgoing) {
        let Some(instance) = self.keeper.instance() else { return };
        let began = Instant::now();
        let answered = instance.handle(&batch).await;
        let took = began.elapsed();
        let now = self.now();
        let outcome = match answered {
            Ok(answer) => {
                self.keeper.succeeded();
                self.policy.answered(batch, answer, now, &mut rand::rng())
            }
            Err(failure) => {
                self.keeper.killed(&failure);
                self.policy.killed(batch, kill(failure), now, &mut rand::rng())
            }
        };
        let context = &self.keeper.context;
        self.keeper.status.update(|status| status.ran(context.clock.wall_ms(), took, Duration::ZERO));
        self.follow(outcome);
        self.report();
    }

    fn follow(&mut self, outcome: Outcome) {
        let Keeper { context, status, .. } = &self.keeper;
        let (plugin, wall) = (context.name.as_str(), context.clock.wall_ms());
        self.queue.settle(outcome.settled_bytes);
        match &outcome.verdict {
            Verdict::Delivered | Verdict::SetAside => {}
            Verdict::Waits { until, reason } => {
                let retry_in = Duration::from_millis(until.saturating_sub(self.now()));
                tracing::warn!(plugin, reason, ?retry_in, "handler could not deliver; trying again");
                status.failed("retry", reason, wall);
            }
            Verdict::Again { reason } => tracing::debug!(plugin, reason, "batch is sent again"),
            Verdict::Halted { reason } => {
                tracing::error!(
                    plugin,
                    reason,
                    "handler is halted until its config changes or `kimberlite resume` says so"
                );
                status.failed("halted", reason, wall);
                status.set_halted(Some(reason));
            }
        }
        if let Some(dead) = &outcome.dead {
            tracing::error!(
                plugin,
                samples = dead.batch.len(),
                reason = dead.reason,
                "samples were set aside"
            );
            status.update(|status| status.dropped("dead-letter", dead.batch.len() as u64));
            status.failed("dead-letter", &dead.reason, wall);
        }
    }

    /// Waits must survive a wall clock that is set, so the policy lives on the monotonic one.
    fn now(&self) -> Millis {
        u64::try_from(self.keeper.context.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    fn report(&self) {
        self.keeper.report(self.queue.bytes());
        let sums = self.policy.sums();
        let is_halted = self.policy.halted().is_some();
        self.keeper.status.update(|status| {
            if is_halted {
                status.state = "halted".into();
            }
            let delivery = status.delivery();
            delivery.delivered = sums.delivered;
            delivery.retried = sums.retried;
            delivery.rejected = sums.rejected;
            delivery.dead_letters = sums.dead_lettered;
            delivery.unconfirmed = sums.unconfirmed;
        });
    }
}

/// A queue fills while its handler is halted or waits.
fn show_queue(queue: &Queue, status: &mut PluginStatus) {
    status.queue_bytes = queue.bytes() as u64;
    status.samples_total = queue.pushed();
    if queue.evicted() > 0 {
        status.dropped.insert("queue-full".into(), queue.evicted());
    }
}

/// None: until somebody acts.
async fn rest(clock: &Arc<dyn Clock>, wait: Option<Duration>) {
    match wait {
        Some(wait) => clock.sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Whether the batch is to blame.
fn kill(failure: Failure) -> Kill {
    let reason = format!("{}: {}", failure.reason.as_str(), failure.text);
    if failure.in_host_call { Kill::Hung { reason } } else { Kill::ByBatch { reason } }
}
