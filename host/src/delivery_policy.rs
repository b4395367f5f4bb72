//! What happens to a batch after each attempt to deliver it. Decides only; the delivery loop does.
//!
//! ```text
//!                      load                          next
//!        ┌─ Take ◀──────────────── Ready ─────────────────────────▶ Send ─┐
//!        │    delivered, reject ▶  ▲  ▲ ▲   the first that waits          │ answer, kill
//!        │                         │  │ └────────────────────────────┐     │
//!        │   time has come, resume │  │ resume                       │     ▼
//!        │                   Waiting  Halted                         └─ decided:
//!        │                         ▲  ▲                                 delivered   forget it
//!        │  retry, call that hung ─┘  └─ halt                           reject      dead letters
//!        │                                                              too-large   two halves
//!        └─▶ queue                                                      third kill  dead letter
//! ```
//!
//! Whatever comes in through [`DeliveryPolicy::load`] leaves as delivered or as a dead letter, or
//! is given back; the sums of [`Delivered`] show it.
//!
//! Uses: `outgoing`, `backoff`. Time and chance are arguments.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use rand::{Rng, RngExt};

use crate::backoff::Backoff;
use crate::outgoing::Outgoing;
use crate::sample::{Batch, Millis};

/// A batch that killed its handler this often is set aside.
const KILLS: u32 = 3;

/// How long a handler that said `retry` is left alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryConfig {
    pub backoff: Backoff,
    /// The longest wait that a receiver may wish for.
    pub longest_wish: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        let backoff = Backoff { jitter: Backoff::MOST_JITTER, ..Backoff::default() };
        Self { backoff, longest_wish: Duration::from_secs(600) }
    }
}

impl RetryConfig {
    /// A wish is kept to, and a little chance added, for a fleet may have been told the same. It is
    /// never below the first wait, or a handler could spin.
    fn wait(&self, failures: u32, wish: Option<Duration>, rng: &mut impl Rng) -> Duration {
        let Some(wish) = wish else { return self.backoff.wait(failures, rng) };
        let wish = wish.min(self.longest_wish).max(self.backoff.first);
        wish.mul_f64(1.0 + rng.random_range(0.0..=0.25))
    }
}

/// What a handler answered. Item numbers are those of the batch it was given.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Delivered { unconfirmed: u64 },
    Retry { after: Option<Duration>, reason: String, done: Vec<Range<u32>> },
    Reject { reason: String, which: Vec<Range<u32>> },
    TooLarge { reason: String },
    Halt { reason: String },
}

/// Why a call ended without an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Kill {
    /// By what the handler did with the batch (memory, trap, CPU time): counts against the batch.
    ByBatch { reason: String },
    /// The deadline passed while it waited for the network: an outage, the same as `retry`.
    Hung { reason: String },
    /// By nothing of its own doing (it was replaced): counts for nothing.
    Innocent,
}

/// What to do next.
#[derive(Debug)]
pub enum Next {
    /// Take from the queue and [`DeliveryPolicy::load`] it, or wait for the queue.
    Take,
    /// Hand this to the handler; the outcome goes to [`DeliveryPolicy::answered`] or
    /// [`DeliveryPolicy::killed`].
    Send(Outgoing),
    /// Nothing before this time.
    WaitUntil(Millis),
    /// Nothing before [`DeliveryPolicy::resume`].
    Halted,
}

/// Items that will never be delivered.
#[derive(Debug)]
pub struct DeadLetter {
    pub batch: Batch,
    pub reason: String,
}

/// What an attempt led to.
#[derive(Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    /// To be told to [`crate::queue::Queue::settle`].
    pub settled_bytes: usize,
    pub dead: Option<DeadLetter>,
}

/// The attempt's result in a word, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    /// Again at that time.
    Waits {
        until: Millis,
        reason: String,
    },
    /// Again at once: the batch in two halves, or whole on a new instance.
    Again {
        reason: String,
    },
    /// Some or all of it became a dead letter; its reason is there.
    SetAside,
    Halted {
        reason: String,
    },
}

/// What became of all items. At any time what was loaded is `delivered + dead_lettered`, what is
/// [held](DeliveryPolicy::held), what is being sent, and what was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivered {
    pub delivered: u64,
    /// All that were set aside.
    pub dead_lettered: u64,
    /// Those among them that the handler refused.
    pub rejected: u64,
    /// Of what counts as delivered, how much the protocol lost or is not sure of.
    pub unconfirmed: u64,
    /// Attempts, not items, that ended in a wait.
    pub retried: u64,
    /// Batches that were halved.
    pub split: u64,
}

/// The state of one handler's delivery. It outlives the handler's instances.
#[derive(Debug)]
pub struct DeliveryPolicy {
    config: RetryConfig,
    state: State,
    /// What has been loaded and not gone, in order.
    held: VecDeque<Outgoing>,
    /// Attempts in a row that ended in a wait.
    failures: u32,
    sums: Delivered,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Ready,
    Waiting { until: Millis, reason: String },
    Halted { since: Millis, reason: String },
}

impl DeliveryPolicy {
    pub fn new(config: RetryConfig) -> Self {
        Self { config, state: State::Ready, held: VecDeque::new(), failures: 0, sums: Delivered::default() }
    }

    pub fn set_config(&mut self, config: RetryConfig) {
        self.config = config;
    }

    /// What to do now.
    pub fn next(&mut self, now: Millis) -> Next {
        match self.state {
            State::Halted { .. } => return Next::Halted,
            State::Waiting { until, .. } if now < until => return Next::WaitUntil(until),
            State::Waiting { .. } => self.state = State::Ready,
            State::Ready => {}
        }
        self.held.pop_front().map_or(Next::Take, Next::Send)
    }

    /// Takes over a batch from the queue, behind what is held.
    pub fn load(&mut self, outgoing: Outgoing) {
        if !outgoing.is_empty() {
            self.held.push_back(outgoing);
        }
    }

    /// What [`Next::Send`] gave out could not even be tried: it comes first again, as it was.
    pub fn unsent(&mut self, outgoing: Outgoing) {
        self.held.push_front(outgoing);
    }

    /// The handler has answered. `sent` is what [`Next::Send`] gave out.
    pub fn answered(&mut self, sent: Outgoing, answer: Answer, now: Millis, rng: &mut impl Rng) -> Outcome {
        match answer {
            Answer::Delivered { unconfirmed } => {
                self.sums.unconfirmed += unconfirmed;
                self.delivered(sent)
            }
            Answer::Retry { after, reason, done } => {
                let (done, rest) = sent.part(&done);
                let settled_bytes = done.bytes();
                if rest.is_empty() {
                    return self.delivered(done);
                }
                self.sums.delivered += done.len() as u64;
                Outcome { settled_bytes, ..self.waits(rest, after, reason, now, rng) }
            }
            Answer::Reject { reason, which } => self.rejected(sent, reason, &which),
            Answer::TooLarge { reason } if sent.len() == 1 => self.rejected(sent, reason, &[]),
            Answer::TooLarge { reason } => {
                self.sums.split += 1;
                let (first, second) = sent.split();
                self.hold_again(second);
                self.hold_again(first);
                Outcome::of(Verdict::Again { reason })
            }
            Answer::Halt { reason } => {
                self.hold_again(sent);
                self.halt(now, reason.clone());
                Outcome::of(Verdict::Halted { reason })
            }
        }
    }

    /// The call was ended. `sent` is what [`Next::Send`] gave out.
    pub fn killed(&mut self, mut sent: Outgoing, kill: Kill, now: Millis, rng: &mut impl Rng) -> Outcome {
        match kill {
            Kill::Hung { reason } => self.waits(sent, None, reason, now, rng),
            Kill::Innocent => {
                self.hold_again(sent);
                Outcome::of(Verdict::Again { reason: "the handler was replaced".to_owned() })
            }
            Kill::ByBatch { reason } => {
                sent.kills += 1;
                if sent.kills >= KILLS {
                    return self.set_aside(sent, format!("killed its handler {KILLS} times, last: {reason}"));
                }
                self.hold_again(sent);
                Outcome::of(Verdict::Again { reason })
            }
        }
    }

    /// Sends nothing before [`DeliveryPolicy::resume`]. Also how a halt is taken over from an
    /// earlier run of the agent.
    pub fn halt(&mut self, since: Millis, reason: String) {
        self.state = State::Halted { since, reason };
    }

    /// Goes on at once, halted or waiting.
    pub fn resume(&mut self) {
        self.state = State::Ready;
        self.failures = 0;
    }

    /// Since when it is halted, and why.
    pub fn halted(&self) -> Option<(Millis, &str)> {
        match &self.state {
            State::Halted { since, reason } => Some((*since, reason)),
            _ => None,
        }
    }

    /// Until when it waits, and why.
    pub fn waiting(&self) -> Option<(Millis, &str)> {
        match &self.state {
            State::Waiting { until, reason } => Some((*until, reason)),
            _ => None,
        }
    }

    /// How many attempts in a row ended in a wait.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// How many items are held.
    pub fn held(&self) -> usize {
        self.held.iter().map(Outgoing::len).sum()
    }

    /// What is held, in order.
    pub fn parts(&self) -> impl Iterator<Item = &Outgoing> {
        self.held.iter()
    }

    pub fn sums(&self) -> Delivered {
        self.sums
    }

    /// Gives back all that is held, the last first: as [`crate::queue::Queue::put_back`] takes it.
    pub fn give_back(&mut self) -> impl Iterator<Item = Outgoing> + '_ {
        self.held.drain(..).rev()
    }

    fn delivered(&mut self, sent: Outgoing) -> Outcome {
        self.failures = 0;
        self.sums.delivered += sent.len() as u64;
        Outcome { settled_bytes: sent.bytes(), ..Outcome::of(Verdict::Delivered) }
    }

    /// The receiver works, so failures in a row are over. Where `which` names nothing all is meant:
    /// what is not known to be delivered must not be forgotten.
    fn rejected(&mut self, sent: Outgoing, reason: String, which: &[Range<u32>]) -> Outcome {
        self.failures = 0;
        let (mut refused, mut taken) = sent.part(which);
        if refused.is_empty() {
            std::mem::swap(&mut refused, &mut taken);
        }
        self.sums.delivered += taken.len() as u64;
        self.sums.rejected += refused.len() as u64;
        let taken_bytes = taken.bytes();
        let outcome = self.set_aside(refused, reason);
        Outcome { settled_bytes: outcome.settled_bytes + taken_bytes, ..outcome }
    }

    fn set_aside(&mut self, sent: Outgoing, reason: String) -> Outcome {
        self.sums.dead_lettered += sent.len() as u64;
        let settled_bytes = sent.bytes();
        Outcome {
            verdict: Verdict::SetAside,
            settled_bytes,
            dead: Some(DeadLetter { batch: sent.batch, reason }),
        }
    }

    fn waits(
        &mut self,
        sent: Outgoing,
        wish: Option<Duration>,
        reason: String,
        now: Millis,
        rng: &mut impl Rng,
    ) -> Outcome {
        self.failures = self.failures.saturating_add(1);
        self.sums.retried += 1;
        self.hold_again(sent);
        let wait = self.config.wait(self.failures, wish, rng);
        let until = now.saturating_add(Millis::try_from(wait.as_millis()).unwrap_or(Millis::MAX));
        self.state = State::Waiting { until, reason: reason.clone() };
        Outcome::of(Verdict::Waits { until, reason })
    }

    fn hold_again(&mut self, sent: Outgoing) {
        if !sent.is_empty() {
            self.held.push_front(Outgoing { attempt: sent.attempt.saturating_add(1), ..sent });
        }
    }
}

impl Outcome {
    fn of(verdict: Verdict) -> Self {
        Self { verdict, settled_bytes: 0, dead: None }
    }
}

#[cfg(test)]
mod tests;
