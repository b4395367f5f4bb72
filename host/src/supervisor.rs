//! Decides whether a plugin may run: one plugin's life, from its first instance to its last.
//!
//! ```text
//!                      ┌──── wait is over ────┐
//!             started  ▼       killed         │
//! loading ──────────▶ running ──────▶ backing-off ──`failures` in a row──▶ quarantined
//!    ▲                  │ ▲                                                    │
//!    │                  ▼ └──────────────── a probe after `quarantine` ────────┤
//!    ├── resume ──── halted                                                    │
//!    ├── replace ─── parked   (a grant is missing; nothing was started)        │
//!    └────────────────────────────────── release ──────────────────────────────┘
//!
//! recycled leads from running to loading; stop from everywhere to stopped, and replace from
//! everywhere else to loading.
//! ```
//!
//! The first failure after a success waits for nothing, so a killed run can be tried again within
//! its slot; each further one in a row waits twice as long. A probe is an ordinary run: if it ends
//! well all is forgiven, if it is killed the quarantine starts anew. To recycle an instance that
//! grew, or to replace it, is no failure.
//!
//! Uses: `backoff`, `reason`. Time (since the agent's start) is an argument everywhere, so nothing
//! here waits.

use std::time::Duration;

use rand::Rng;

use crate::backoff::Backoff;
pub use crate::reason::ReasonCode;

/// Where a plugin is in its life. Times are since the agent's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It has no instance yet and may get one at once.
    Loading,
    /// It is called when it is due; between two calls its instance may be exchanged.
    Running,
    /// Its next instance may start then.
    BackingOff { until: Duration },
    /// It failed too often in a row. A probe may start then.
    Quarantined { until: Duration },
    /// A grant is missing: which, and the line of config that would give it.
    Parked { reason: String },
    /// A person has to look, says the handler.
    Halted { reason: String },
    /// For good.
    Stopped,
}

impl State {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Running => "running",
            Self::BackingOff { .. } => "backing-off",
            Self::Quarantined { .. } => "quarantined",
            Self::Parked { .. } => "parked",
            Self::Halted { .. } => "halted",
            Self::Stopped => "stopped",
        }
    }
}

/// What a failure leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The instance is as good as before, or none is wanted any more.
    Stay,
    /// A fresh instance after this wait; zero: at once.
    Restart(Duration),
    /// No instance before this time has passed.
    Quarantine(Duration),
}

/// What is to be done about an instance's memory after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recycle {
    No,
    /// Exchange the instance before its next call.
    Recycle,
    /// `limit-too-tight`: it was past the soft limit almost at once, so a fresh instance would
    /// not help. Said once for each instance, which then lives on.
    TooTight,
}

/// How a supervisor judges. `failures` counts those in a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    pub backoff: Backoff,
    /// This many lead to quarantine; 0 counts as 1.
    pub failures: u32,
    pub quarantine: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { backoff: Backoff::default(), failures: 5, quarantine: Duration::from_secs(600) }
    }
}

/// The latest failure, kept until the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: ReasonCode,
    /// At most [`Supervisor::MOST_TEXT`] bytes.
    pub text: String,
    /// Since the agent's start.
    pub at: Duration,
}

/// What it knows of the present instance.
#[derive(Debug, Default)]
struct Instance {
    calls: u64,
    is_too_tight: bool,
}

/// One plugin's life. It decides; whoever owns the plugin asks, does, and reports back.
///
/// Reports that arrive after a plugin was parked, halted or stopped (a call was in flight) are
/// counted and change nothing else.
#[derive(Debug)]
pub struct Supervisor {
    rules: Rules,
    state: State,
    failures_in_a_row: u32,
    instance: Instance,
    starts: u64,
    counts: [u64; ReasonCode::ALL.len()],
    last_failure: Option<Failure>,
}

impl Supervisor {
    /// Of a failure's text, in bytes.
    pub const MOST_TEXT: usize = 500;
    /// Which part of its memory limit an instance may use before it is recycled.
    pub const SOFT_LIMIT: f64 = 0.8;
    /// An instance past the soft limit this early is not growing: its limit is too tight.
    pub const FIRST_CALLS: u64 = 3;

    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            state: State::Loading,
            failures_in_a_row: 0,
            instance: Instance::default(),
            starts: 0,
            counts: [0; ReasonCode::ALL.len()],
            last_failure: None,
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// When a fresh instance may start (zero: at once); none where one runs or somebody has to
    /// act first.
    pub fn start_at(&self) -> Option<Duration> {
        match self.state {
            State::Loading => Some(Duration::ZERO),
            State::BackingOff { until } | State::Quarantined { until } => Some(until),
            State::Running | State::Parked { .. } | State::Halted { .. } | State::Stopped => None,
        }
    }

    /// Whether a fresh instance may start now.
    pub fn may_start(&self, now: Duration) -> bool {
        self.start_at().is_some_and(|at| at <= now)
    }

    /// Whether its next run decides between quarantine and pardon: tell the plugin it is a probe.
    pub fn is_on_probation(&self) -> bool {
        self.failures_in_a_row >= self.rules.failures.max(1)
    }

    /// Whether the run that was just killed may be tried again on a fresh instance: once, and only
    /// if it can end before the next is due. Both times are of one clock.
    pub fn may_retry_now(&self, now: Duration, next_due: Duration, timeout: Duration) -> bool {
        self.failures_in_a_row == 1 && self.may_start(now) && now.saturating_add(timeout) <= next_due
    }

    /// A fresh instance has been initialised.
    pub fn started(&mut self) {
        if matches!(self.state, State::Parked { .. } | State::Halted { .. } | State::Stopped) {
            return;
        }
        self.state = State::Running;
        self.instance = Instance::default();
        self.starts += 1;
    }

    /// A call ended well: earlier failures are forgiven.
    pub fn succeeded(&mut self) {
        self.failures_in_a_row = 0;
    }

    /// A call or a start failed. A plugin's own error ([`ReasonCode::Failed`]) is counted and
    /// neither forgives nor adds to failures in a row; all else ends the instance.
    pub fn failed(&mut self, reason: ReasonCode, text: &str, now: Duration, rng: &mut impl Rng) -> Verdict {
        self.count_up(reason);
        self.last_failure = Some(Failure { reason, text: shortened(text), at: now });
        let may_go_on = matches!(
            self.state,
            State::Loading | State::Running | State::BackingOff { .. } | State::Quarantined { .. }
        );
        if !reason.is_kill() || !may_go_on {
            return Verdict::Stay;
        }
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        if self.is_on_probation() {
            let wait = self.rules.quarantine;
            self.state = State::Quarantined { until: now.saturating_add(wait) };
            return Verdict::Quarantine(wait);
        }
        let wait = self.rules.backoff.wait(self.failures_in_a_row - 1, rng);
        self.state = State::BackingOff { until: now.saturating_add(wait) };
        Verdict::Restart(wait)
    }

    /// Judges the instance's memory after each call that ended well. Both in bytes.
    pub fn after_call(&mut self, memory: u64, limit: u64) -> Recycle {
        let instance = &mut self.instance;
        instance.calls += 1;
        if instance.is_too_tight || memory as f64 <= limit as f64 * Self::SOFT_LIMIT {
            return Recycle::No;
        }
        if instance.calls <= Self::FIRST_CALLS {
            instance.is_too_tight = true;
            return Recycle::TooTight;
        }
        Recycle::Recycle
    }

    /// The instance was dropped because [`Supervisor::after_call`] said so; the next is not
    /// started yet.
    pub fn recycled(&mut self) {
        self.count_up(ReasonCode::Recycled);
        if self.state == State::Running {
            self.state = State::Loading;
        }
    }

    /// Its file, settings, grants or secrets changed: whatever held it back is over.
    pub fn replace(&mut self) {
        if self.state == State::Running {
            self.count_up(ReasonCode::Replaced);
        }
        self.begin_anew();
    }

    /// How it judges from now on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// A grant is missing.
    pub fn park(&mut self, reason: impl Into<String>) {
        if self.state != State::Stopped {
            self.state = State::Parked { reason: reason.into() };
        }
    }

    /// A handler wants no batch before a person has looked. It was well enough to say so.
    pub fn halt(&mut self, reason: impl Into<String>) {
        if self.state != State::Stopped {
            self.failures_in_a_row = 0;
            self.state = State::Halted { reason: reason.into() };
        }
    }

    /// Ends a quarantine, or a wait; false: there was none.
    pub fn release(&mut self) -> bool {
        let held = matches!(self.state, State::Quarantined { .. } | State::BackingOff { .. });
        if held {
            self.begin_anew();
        }
        held
    }

    /// Ends a halt; false: there was none.
    pub fn resume(&mut self) -> bool {
        let held = matches!(self.state, State::Halted { .. });
        if held {
            self.begin_anew();
        }
        held
    }

    /// For good: the plugin was removed or the agent ends.
    pub fn stop(&mut self) {
        self.state = State::Stopped;
    }

    /// How often this happened since the agent's start.
    pub fn count(&self, reason: ReasonCode) -> u64 {
        self.counts[reason as usize]
    }

    /// Every reason that ends an instance against its will, with how often it did.
    pub fn kills(&self) -> impl Iterator<Item = (ReasonCode, u64)> {
        ReasonCode::ALL
            .into_iter()
            .filter(|reason| reason.is_kill())
            .map(|reason| (reason, self.count(reason)))
    }

    /// How many instances followed the first one.
    pub fn reloads(&self) -> u64 {
        self.starts.saturating_sub(1)
    }

    pub fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row
    }

    pub fn last_failure(&self) -> Option<&Failure> {
        self.last_failure.as_ref()
    }

    fn begin_anew(&mut self) {
        if self.state != State::Stopped {
            self.failures_in_a_row = 0;
            self.state = State::Loading;
        }
    }

    fn count_up(&mut self, reason: ReasonCode) {
        self.counts[reason as usize] += 1;
    }
}

/// Writes down what a failure led to: an error where it takes a person or a long time to get the
/// plugin back.
pub fn log(plugin: &str, reason: ReasonCode, text: &str, verdict: Verdict) {
    let reason = reason.as_str();
    match verdict {
        Verdict::Stay => tracing::warn!(plugin, reason, error = text, "plugin failed"),
        Verdict::Restart(Duration::ZERO) => {
            tracing::warn!(plugin, reason, error = text, "plugin was killed; restarting at once");
        }
        Verdict::Restart(wait) => {
            tracing::warn!(plugin, reason, error = text, retry_in = ?wait, "plugin failed again; backing off");
        }
        Verdict::Quarantine(wait) => tracing::error!(
            plugin,
            reason,
            error = text,
            probe_in = ?wait,
            "plugin failed too often in a row; quarantined, `kimberlite release NAME` lets it back"
        ),
    }
}

/// Cut at a character's border, with a mark that something is missing.
fn shortened(text: &str) -> String {
    const MARK: &str = "…";
    if text.len() <= Supervisor::MOST_TEXT {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(Supervisor::MOST_TEXT - MARK.len());
    format!("{}{MARK}", &text[..end])
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::ReasonCode::{Failed, InitFailed, MemoryLimit, Recycled, Replaced, Trap};
    use super::*;

    const NOW: Duration = secs(1000);

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn loading() -> Supervisor {
        let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
        Supervisor::new(Rules { backoff, failures: 4, quarantine: secs(600) })
    }

    fn running() -> Supervisor {
        let mut life = loading();
        life.started();
        life
    }

    fn fail(life: &mut Supervisor, reason: ReasonCode, now: Duration) -> Verdict {
        life.failed(reason, "boom", now, &mut StdRng::seed_from_u64(1))
    }

    fn quarantined() -> Supervisor {
        let mut life = running();
        while fail(&mut life, Trap, NOW) != Verdict::Quarantine(secs(600)) {
            life.started();
        }
        life
    }

    fn parked() -> Supervisor {
        let mut life = loading();
        life.park("not granted: http");
        life
    }

    fn halted() -> Supervisor {
        let mut life = running();
        life.halt("wrong key");
        life
    }

    #[test]
    fn loads_at_once_and_then_runs() {
        let mut life = loading();
        assert_eq!((life.state(), life.may_start(Duration::ZERO)), (&State::Loading, true));
        life.started();
        assert_eq!((life.state(), life.start_at()), (&State::Running, None));
        assert_eq!(life.reloads(), 0);
    }

    #[test]
    fn failures_in_a_row_wait_ever_longer_and_lead_to_quarantine() {
        let mut life = running();
        for wait in [secs(0), secs(1), secs(2)] {
            assert_eq!(fail(&mut life, Trap, NOW), Verdict::Restart(wait));
            assert_eq!(life.state(), &State::BackingOff { until: NOW + wait });
            assert!(life.may_start(NOW + wait));
            assert!(wait.is_zero() || !life.may_start(NOW + wait - Duration::from_millis(1)));
            life.started();
            assert_eq!(life.state(), &State::Running);
        }
        assert_eq!(fail(&mut life, Trap, NOW), Verdict::Quarantine(secs(600)));
        assert_eq!(life.state(), &State::Quarantined { until: secs(1600) });
        assert!(!life.may_start(secs(1599)));
        assert_eq!((life.count(Trap), life.reloads()), (4, 3));
    }

    #[test]
    fn a_start_that_fails_counts_in_the_row() {
        let mut life = running();
        fail(&mut life, Trap, NOW);
        assert_eq!(fail(&mut life, InitFailed, NOW), Verdict::Restart(secs(1)));
        assert_eq!(fail(&mut life, InitFailed, NOW), Verdict::Restart(secs(2)));
        assert_eq!(fail(&mut life, InitFailed, NOW), Verdict::Quarantine(secs(600)));
        assert_eq!(fail(&mut loading(), InitFailed, NOW), Verdict::Restart(Duration::ZERO));
    }

    #[test]
    fn a_success_forgives_what_was_before() {
        let mut life = running();
        for _ in 0..100 {
            assert_eq!(fail(&mut life, MemoryLimit, NOW), Verdict::Restart(Duration::ZERO));
            life.started();
            life.succeeded();
        }
        assert_eq!((life.failures_in_a_row(), life.count(MemoryLimit)), (0, 100));
    }

    #[test]
    fn a_probe_that_ends_well_pardons() {
        let mut life = quarantined();
        assert!(life.is_on_probation() && life.may_start(secs(1600)));
        life.started();
        assert!(life.is_on_probation());
        life.succeeded();
        assert!(!life.is_on_probation());
        assert_eq!(fail(&mut life, Trap, NOW), Verdict::Restart(Duration::ZERO));
    }

    #[test]
    fn a_probe_that_is_killed_or_cannot_start_is_quarantined_again() {
        let mut life = quarantined();
        assert_eq!(fail(&mut life, InitFailed, secs(1600)), Verdict::Quarantine(secs(600)));
        life.started();
        assert_eq!(fail(&mut life, Trap, secs(2200)), Verdict::Quarantine(secs(600)));
        assert_eq!(life.state(), &State::Quarantined { until: secs(2800) });
        assert!(!life.may_retry_now(secs(2800), secs(9999), secs(1)));
    }

    #[test]
    fn without_patience_the_first_failure_quarantines() {
        for failures in [0, 1] {
            let mut life = Supervisor::new(Rules { failures, ..Rules::default() });
            life.started();
            assert!(!life.is_on_probation());
            assert_eq!(fail(&mut life, Trap, NOW), Verdict::Quarantine(secs(600)));
        }
    }

    #[test]
    fn release_ends_quarantine_and_waits_and_nothing_else() {
        let mut life = quarantined();
        assert!(life.release());
        assert_eq!((life.state(), life.failures_in_a_row()), (&State::Loading, 0));

        let mut waiting = running();
        fail(&mut waiting, Trap, NOW);
        assert!(waiting.release());

        for mut life in [loading(), running(), parked(), halted()] {
            let before = life.state().clone();
            assert!(!life.release());
            assert_eq!(life.state(), &before);
        }
    }

    #[test]
    fn a_plugins_own_error_leaves_the_instance_and_the_row_alone() {
        let mut life = running();
        fail(&mut life, Trap, NOW);
        life.started();
        for _ in 0..100 {
            assert_eq!(fail(&mut life, Failed, NOW), Verdict::Stay);
        }
        assert_eq!((life.state(), life.failures_in_a_row(), life.count(Failed)), (&State::Running, 1, 100));
        assert_eq!(life.last_failure().unwrap().reason, Failed);
    }

    #[test]
    fn a_killed_run_is_tried_again_once_and_only_within_its_slot() {
        let mut life = running();
        assert!(!life.may_retry_now(NOW, secs(1010), secs(2)), "nothing was killed");
        fail(&mut life, Trap, NOW);
        assert!(life.may_retry_now(NOW, secs(1002), secs(2)));
        assert!(!life.may_retry_now(NOW, secs(1002) - Duration::from_nanos(1), secs(2)));
        assert!(!life.may_retry_now(NOW, secs(1010), Duration::MAX));
        life.started();
        fail(&mut life, Trap, NOW);
        assert!(!life.may_retry_now(secs(1001), secs(1010), secs(2)), "twice in a row");
    }

    #[test]
    fn grown_memory_is_recycled_between_calls_and_is_no_failure() {
        let mut life = running();
        for _ in 0..3 {
            assert_eq!(life.after_call(80, 100), Recycle::No);
        }
        assert_eq!(life.after_call(81, 100), Recycle::Recycle);
        life.recycled();
        assert_eq!((life.state(), life.failures_in_a_row()), (&State::Loading, 0));
        life.started();
        assert_eq!((life.count(Recycled), life.reloads(), life.last_failure()), (1, 1, None));
    }

    #[test]
    fn a_limit_that_is_too_tight_is_said_once_for_each_instance() {
        let mut life = running();
        life.after_call(10, 100);
        life.after_call(10, 100);
        assert_eq!(life.after_call(81, 100), Recycle::TooTight);
        for _ in 0..10 {
            assert_eq!(life.after_call(99, 100), Recycle::No);
        }
        life.started();
        assert_eq!(life.after_call(81, 100), Recycle::TooTight);
    }

    #[test]
    fn a_replacement_lets_everything_but_the_stopped_start_anew() {
        for mut life in [loading(), running(), quarantined(), parked(), halted()] {
            let replaced = u64::from(life.state() == &State::Running);
            life.replace();
            assert_eq!((life.state(), life.failures_in_a_row()), (&State::Loading, 0));
            assert_eq!(life.count(Replaced), replaced);
        }
        let mut life = running();
        life.stop();
        life.replace();
        assert_eq!(life.state(), &State::Stopped);
    }

    #[test]
    fn halted_waits_for_a_person() {
        let mut life = halted();
        assert_eq!(life.state(), &State::Halted { reason: "wrong key".to_owned() });
        assert_eq!(life.start_at(), None);
        assert!(life.resume());
        assert_eq!(life.state(), &State::Loading);
        for mut life in [loading(), running(), parked(), quarantined()] {
            assert!(!life.resume());
        }
    }

    #[test]
    fn reports_of_a_call_in_flight_do_not_wake_the_held_back() {
        let mut stopped = running();
        stopped.stop();
        for mut life in [parked(), halted(), stopped] {
            let before = life.state().clone();
            life.started();
            life.succeeded();
            life.recycled();
            assert_eq!(fail(&mut life, Trap, NOW), Verdict::Stay);
            assert_eq!((life.state(), life.count(Trap), life.start_at()), (&before, 1, None));
            assert!(!life.may_retry_now(NOW, secs(9999), secs(1)));
        }
    }

    #[test]
    fn stopped_is_for_good() {
        let mut life = running();
        life.stop();
        life.park("no");
        life.halt("no");
        assert!(!life.release() && !life.resume());
        assert_eq!(life.state(), &State::Stopped);
    }

    #[test]
    fn the_last_failure_is_kept_and_bounded() {
        let mut life = running();
        life.failed(Trap, &"ä".repeat(1000), NOW, &mut StdRng::seed_from_u64(1));
        let failure = life.last_failure().unwrap();
        assert!(failure.text.len() <= Supervisor::MOST_TEXT && failure.text.ends_with("ä…"));
        assert_eq!((failure.reason, failure.at), (Trap, NOW));
        life.failed(InitFailed, &"x".repeat(500), NOW, &mut StdRng::seed_from_u64(1));
        assert_eq!(life.last_failure().unwrap().text, "x".repeat(500));
    }

    #[test]
    fn every_reason_has_its_own_counter() {
        for reason in ReasonCode::ALL {
            let mut life = running();
            fail(&mut life, reason, NOW);
            let total: u64 = ReasonCode::ALL.iter().map(|&other| life.count(other)).sum();
            assert_eq!((life.count(reason), total), (1, 1));
            assert_eq!(life.kills().any(|(_, count)| count == 1), reason.is_kill());
        }
    }
}
