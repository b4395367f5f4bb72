//! One handler's task: empties its queue into it, one batch at a time.
//!
//! ```text
//! backlog ──take──▶ policy ──send──▶ handle (wasm) ──▶ answer, or a kill ──▶ policy: what next?
//!    ▲                ▲ └─ waits, is halted, sets aside                          │
//!    │ spill          └──────────────────────────────────────────────────────────┘
//!    └─ whatever happens meanwhile: what stays in memory too long goes to disk
//! ```
//!
//! The batch lives here while the handler has it, so that a handler may die at any instant.
//! Uses: `keeper`, `backlog`, `delivery_policy`. What to do next is decided there.

mod parked;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

pub use self::parked::Parked;
use crate::backlog::{Backlog, Taken};
use crate::clock::Clock;
use crate::config::QueueConfig;
use crate::dead_letters::DeadLetters;
use crate::delivery_policy::{
    Answer, DeadLetter, Delivered, DeliveryPolicy, Kill, Next, Outcome, RetryConfig, Verdict,
};
use crate::halt::{HaltFile, SettingsSource};
use crate::keeper::{Keeper, Successor};
use crate::outgoing::{BatchForm, Outgoing};
use crate::plugin::Failure;
use crate::queue::Queue;
use crate::sample::Millis;
use crate::spool::Dropped;
use crate::status::PluginStatus;

/// How often a halted handler's settings are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// How many commands are kept for when a busy handler is done.
const MOST_HEARD: usize = 64;

/// What the agent tells a handler's task.
#[derive(Debug)]
pub enum Command {
    /// Ends a quarantine.
    Release,
    /// Ends a halt.
    Resume,
    /// Takes up a dead letter again.
    Retry(u64),
    /// Goes on with another program, or on other terms.
    Replace(Box<Successor>, Box<Terms>, oneshot::Sender<Result<(), Failure>>),
    /// The same program; other bounds, waits or batches.
    Configure(Box<Terms>),
    /// Deliver what there is, then end; whoever asks waits for the task.
    Drain,
    /// End behind the present call; what waits goes to disk.
    End,
}

/// What a handler's table says about delivery.
#[derive(Debug)]
pub struct Terms {
    pub form: BatchForm,
    pub retry: RetryConfig,
    pub queue: QueueConfig,
    /// How long a batch that is not full waits for more.
    pub wait: Duration,
    pub halt: HaltFile,
    pub settings: SettingsSource,
    pub letters: DeadLetters,
}

/// A handler between two batches.
#[derive(Debug)]
pub struct Delivery {
    keeper: Keeper,
    backlog: Backlog,
    form: BatchForm,
    policy: DeliveryPolicy,
    drains: bool,
    ends: bool,
    halt: HaltFile,
    /// The settings as they are now: a file that one names may have changed.
    settings: Option<SettingsSource>,
    /// None: what is set aside is only counted.
    letters: Option<DeadLetters>,
    /// None: nobody speaks to it.
    commands: Option<mpsc::Receiver<Command>>,
    /// Commands that came while the handler was busy.
    heard: VecDeque<Command>,
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
    pub fn new(keeper: Keeper, backlog: Backlog, form: BatchForm, policy: DeliveryPolicy) -> Self {
        let shown = backlog.queue().clone();
        keeper.status.set_live(move |status| show_queue(&shown, status));
        let halt = HaltFile::default();
        Self {
            keeper,
            backlog,
            form,
            policy,
            drains: false,
            ends: false,
            halt,
            settings: None,
            letters: None,
            commands: None,
            heard: VecDeque::new(),
        }
    }

    /// A halt outlasts the process, but not a change of the settings.
    pub fn with_halt(mut self, halt: HaltFile, settings: SettingsSource) -> Self {
        if let Some(reason) = halt.read() {
            tracing::warn!(
                plugin = self.keeper.context.name,
                reason,
                "handler is still halted, since before the agent's start"
            );
            self.keeper.status.set_halted(Some(&reason));
            self.policy.halt(self.now(), reason);
        }
        self.halt = halt;
        self.settings = Some(settings);
        self
    }

    /// What is set aside is kept there.
    pub fn with_dead_letters(self, letters: DeadLetters) -> Self {
        Self { letters: Some(letters), ..self }
    }

    /// Runs until it is told to drain and has; that all senders are gone means the same. What could
    /// not be delivered is on disk then, or else in the queue.
    pub async fn serve(mut self, commands: mpsc::Receiver<Command>) {
        let clock = self.keeper.context.clock.clone();
        self.commands = Some(commands);
        self.report();
        while !self.ends {
            let step = self.step().await;
            if let Some(command) = self.heard.pop_front() {
                self.obey(command).await;
                continue;
            }
            self.spill_if_due(matches!(step, Step::Wait(_)) && self.drains).await;
            let wait = match step {
                Step::Progress => {
                    // However much waits here, others are due, too.
                    tokio::task::yield_now().await;
                    continue;
                }
                // What waits for a receiver goes on waiting: whoever drains has a limit for that.
                Step::Idle | Step::Wait(None) if self.drains => break,
                Step::Idle => None,
                Step::Wait(wait) => wait.map(|wait| clock.monotonic().saturating_add(wait)),
            };
            // The spool's last batch goes only when the next one is asked for.
            self.report();
            let spill = self.backlog.spill_at().map(Duration::from_millis);
            let look = self.policy.halted().map(|_| clock.monotonic() + LOOK);
            let until = wait.into_iter().chain(spill).chain(look).min();
            let command = tokio::select! {
                biased;
                command = spoken(&mut self.commands) => Some(command),
                () = self.backlog.queue().woken() => None,
                () = rest(&clock, until) => None,
            };
            match command {
                Some(command) => self.obey(command).await,
                None => self.look_at_settings(),
            }
        }
        self.end().await;
    }

    /// Delivers what is queued now, waiting as often as it takes, but not beyond `give_up` and not
    /// for a person. What could not be delivered is in the queue then.
    pub async fn finish(mut self, give_up: Duration) -> Delivered {
        let clock = self.keeper.context.clock.clone();
        let deadline = clock.monotonic() + give_up;
        self.backlog.hurry();
        loop {
            match self.step().await {
                Step::Progress => {}
                Step::Wait(Some(wait)) if clock.monotonic() + wait < deadline => clock.sleep(wait).await,
                Step::Idle | Step::Wait(_) => break,
            }
        }
        let sums = self.policy.sums();
        self.end().await;
        sums
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::End => self.ends = true,
            Command::Configure(terms) => self.agree(*terms),
            Command::Replace(successor, terms, reply) => {
                let replaced = self.keeper.replace(*successor).await;
                if replaced.is_ok() {
                    self.agree(*terms);
                }
                // Whoever asked may have gone.
                drop(reply.send(replaced));
            }
            Command::Drain => {
                self.drains = true;
                self.backlog.hurry();
                self.commands = None;
            }
            Command::Release => {
                self.keeper.supervisor.release();
            }
            Command::Resume => self.resume(),
            Command::Retry(number) => self.retry(number).await,
        }
    }

    /// Whatever held it back belongs to what it was before.
    fn agree(&mut self, terms: Terms) {
        let Terms { form, retry, queue, wait, halt, settings, letters } = terms;
        self.form = form;
        self.policy.set_config(retry);
        self.backlog.set_config(queue, wait);
        self.resume();
        (self.halt, self.settings, self.letters) = (halt, Some(settings), Some(letters));
    }

    async fn end(&mut self) {
        self.backlog.give_back(self.policy.give_back());
        self.backlog.spill(Vec::new(), &self.form).await;
        self.keeper.stop();
        self.report();
    }

    fn resume(&mut self) {
        self.policy.resume();
        self.halt.lift();
        self.keeper.status.set_halted(None);
    }

    /// The letter counts as arrived anew. It goes when it is on disk elsewhere, where there is a disk.
    async fn retry(&mut self, number: u64) {
        let Some(letters) = self.letters.clone() else { return };
        let taken = match letters.read(number) {
            Ok((_, batch)) => {
                self.backlog.queue().push(Arc::new(batch), self.now());
                self.backlog.spill(self.policy.parts().cloned().collect(), &self.form).await;
                letters.drop(number)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            let plugin = self.keeper.context.name.as_str();
            tracing::warn!(plugin, number, %error, "dead letter cannot be taken up again");
        }
    }

    /// A halted handler that is told something new may go on.
    fn look_at_settings(&mut self) {
        if self.policy.halted().is_none() {
            return;
        }
        let Some(settings) = self.settings.as_ref().and_then(SettingsSource::read) else { return };
        self.halt.told(&settings);
        if self.keeper.set_settings(settings) {
            tracing::info!(plugin = self.keeper.context.name, "settings have changed: handler goes on");
            self.resume();
        }
    }

    /// `now`: before it is due, for the agent is about to end.
    async fn spill_if_due(&mut self, now: bool) {
        let Some(due) = self.backlog.spill_at() else { return };
        if due <= self.now() || now {
            self.backlog.spill(self.policy.parts().cloned().collect(), &self.form).await;
        }
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
            Next::Take => match self.backlog.take(&self.form).await {
                Taken::Batch(outgoing) => {
                    outgoing.formed(&self.form).into_iter().for_each(|part| self.policy.load(part));
                    if self.policy.held() == 0 {
                        self.backlog.finished();
                    }
                    Step::Progress
                }
                // It is on disk, there for the next start.
                Taken::NotBefore(_) if self.drains => Step::Idle,
                Taken::NotBefore(at) => {
                    Step::Wait(Some(Duration::from_millis(at.saturating_sub(self.now()))))
                }
                Taken::Nothing => Step::Idle,
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

    /// The handler's answer. A receiver may be silent for as long as the call may take, so what
    /// stays in memory too long meanwhile, this batch included, goes to disk.
    async fn handle(&mut self, batch: &Outgoing) -> Option<Result<Answer, Failure>> {
        let Self { keeper, backlog, policy, form, commands, heard, drains, .. } = self;
        let (clock, status) = (keeper.context.clock.clone(), keeper.status.clone());
        let mut call = pin!(keeper.instance()?.handle(batch));
        loop {
            let spill = backlog.spill_at().map(Duration::from_millis);
            tokio::select! {
                biased;
                answered = &mut call => return Some(answered),
                () = rest(&clock, spill) => {}
                () = backlog.queue().woken() => continue,
                command = spoken(commands), if heard.len() < MOST_HEARD => match command {
                    // The grace may end before this call, and the agent with it.
                    Command::Drain => {
                        *drains = true;
                        *commands = None;
                        backlog.hurry();
                    }
                    later => {
                        heard.push_back(later);
                        continue;
                    }
                }
            }
            let parts = std::iter::once(batch).chain(policy.parts()).cloned().collect();
            backlog.spill(parts, form).await;
            status.update(|status| show_spool(backlog, status));
        }
    }

    async fn deliver(&mut self, batch: Outgoing) {
        let began = Instant::now();
        let Some(answered) = self.handle(&batch).await else { return self.policy.unsent(batch) };
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
        if let Some((dead, reason)) = self.follow(outcome) {
            self.keep(dead, reason).await;
        }
        self.report();
    }

    /// Gives what is to be kept as a dead letter, and the reason without secrets.
    fn follow(&mut self, outcome: Outcome) -> Option<(DeadLetter, String)> {
        let Keeper { context, status, .. } = &self.keeper;
        let (plugin, wall) = (context.name.as_str(), context.clock.wall_ms());
        self.backlog.settle(outcome.settled_bytes);
        if self.policy.held() == 0 {
            self.backlog.finished();
        }
        match &outcome.verdict {
            Verdict::Delivered | Verdict::SetAside => {}
            Verdict::Waits { until, reason } => {
                let retry_in = Duration::from_millis(until.saturating_sub(self.now()));
                tracing::warn!(plugin, reason, ?retry_in, "handler could not deliver; trying again");
                status.failed("retry", reason, wall);
                let next = wall.saturating_add(until.saturating_sub(self.now()));
                status.set_retrying(self.policy.failures(), next, reason);
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
                // As the status has it: without secrets.
                let clean = status.update(|status| status.delivery().halted.clone());
                self.halt.write(wall, clean.as_deref().unwrap_or_default());
            }
        }
        let dead = outcome.dead?;
        tracing::error!(plugin, samples = dead.batch.len(), reason = dead.reason, "samples were set aside");
        status.update(|status| status.dropped("dead-letter", dead.batch.len() as u64));
        status.failed("dead-letter", &dead.reason, wall);
        // As the status has it.
        let reason = status.update(|status| status.last_failure.clone()).map(|failure| failure.text);
        Some((dead, reason.unwrap_or_default()))
    }

    async fn keep(&mut self, dead: DeadLetter, reason: String) {
        let Some(letters) = self.letters.clone() else { return };
        let wall = self.keeper.context.clock.wall_ms();
        let kept = tokio::task::spawn_blocking(move || letters.keep(&dead.batch, &reason, wall)).await;
        if let Err(error) = kept.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            let plugin = self.keeper.context.name.as_str();
            tracing::error!(plugin, %error, "what was set aside could not be kept and is lost");
        }
    }

    /// Waits must survive a wall clock that is set, so the policy lives on the monotonic one.
    fn now(&self) -> Millis {
        self.keeper.context.clock.monotonic_ms()
    }

    fn report(&self) {
        self.keeper.report(self.backlog.queue().bytes());
        let sums = self.policy.sums();
        let is_halted = self.policy.halted().is_some();
        let is_well = self.policy.failures() == 0;
        self.keeper.status.update(|status| {
            if is_halted {
                status.state = "halted".into();
            }
            show_spool(&self.backlog, status);
            let delivery = status.delivery();
            delivery.delivered = sums.delivered;
            delivery.retried = sums.retried;
            delivery.rejected = sums.rejected;
            delivery.dead_letters = sums.dead_lettered;
            delivery.unconfirmed = sums.unconfirmed;
            delivery.retrying.take_if(|_| is_well);
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

fn show_spool(backlog: &Backlog, status: &mut PluginStatus) {
    status.spool_bytes = backlog.spool_bytes();
    let Dropped { full, old, deleted, .. } = backlog.dropped();
    for (reason, items) in [("spool-full", full), ("too-old", old), ("spool-deleted", deleted)] {
        if items > 0 {
            status.dropped.insert(reason.into(), items);
        }
    }
}

/// Nothing ever, where nobody speaks; that whoever spoke is gone is a word, too.
async fn spoken(commands: &mut Option<mpsc::Receiver<Command>>) -> Command {
    match commands {
        Some(commands) => commands.recv().await.unwrap_or(Command::Drain),
        None => std::future::pending().await,
    }
}

/// None: until somebody acts.
async fn rest(clock: &Arc<dyn Clock>, until: Option<Duration>) {
    match until {
        Some(until) => clock.sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Whether the batch is to blame.
fn kill(failure: Failure) -> Kill {
    let reason = format!("{}: {}", failure.reason.as_str(), failure.text);
    if failure.in_host_call { Kill::Hung { reason } } else { Kill::ByBatch { reason } }
}
