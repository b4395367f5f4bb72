//! Runaway plugins: how fast they are stopped, how fast another instance serves, what is left of them.
//! `BENCH_CYCLES` says how often one is killed (1000).

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kimberlite::clock::{Clock, RealClock, Sleep};
use kimberlite::keeper::Keeper;
use kimberlite::plugin::{Failure, Tick, TickReason};
use kimberlite::reason::ReasonCode;
use kimberlite::sample::Millis;

use crate::parts::{Parts, runtime};
use crate::process::{Process, mib, millis};
use crate::report::{Goal, figure, note, spread, title};
use crate::{component, setting};

const SPINS: usize = 20;
const DEADLINE: Duration = Duration::from_millis(100);
const NEIGHBOUR: Duration = Duration::from_millis(20);

pub(crate) fn run() {
    title("limits: runaway plugins, on a runtime with one thread");
    let cycles = setting("BENCH_CYCLES", 1000);
    let clock = Arc::new(Witness::new());
    let file = component::bench_collector();
    let table = |name: &str, settings: &str| {
        format!(
            "[collectors.{name}]\nplugin = {{ file = {file:?} }}\ninterval = \"1s\"\n\
             settings = {{ mode = \"{name}\", {settings} }}\n\n"
        )
    };
    let tables = [
        table("gauges", ""),
        table("spin", "") + "limits = { timeout = \"100ms\" }\n\n",
        table("hoard", "room = 14680064"),
        table("trap", ""),
    ];
    let parts = Parts::new(&tables.concat(), clock.clone());
    let tick = parts.config.agent.epoch_tick;
    runtime().block_on(async {
        spin(&parts, tick).await;
        reload(&parts, &clock, cycles).await;
    });
}

/// A guest that computes for ever, beside one that is due every 20 ms.
async fn spin(parts: &Parts, tick: Duration) {
    let mut neighbour = Subject::new(parts.keeper("gauges"));
    neighbour.serves().await;
    let mut alone = delays(&mut neighbour, tokio::time::sleep(DEADLINE * 20)).await.1;
    spread("a neighbour, alone: end of its run after its due time", &mut alone, "ms", Goal::None);

    let mut subject = Subject::new(parts.keeper("spin"));
    let (mut over, mut delayed) = (Vec::new(), Vec::new());
    for _ in 0..SPINS {
        subject.serves().await;
        let begun = Instant::now();
        let killed = async {
            let failure = subject.dies().await;
            (failure.reason, begun.elapsed())
        };
        let ((reason, took), delays) = delays(&mut neighbour, killed).await;
        assert_eq!(reason, ReasonCode::Deadline);
        over.push(millis(took.saturating_sub(DEADLINE)));
        delayed.extend(delays);
    }
    let most = millis(tick) + 5.0;
    spread("a spinning guest: stopped after its deadline", &mut over, "ms", Goal::Of(1.0, most));
    let most = millis(2 * tick);
    spread("its neighbour: end of its run after its due time", &mut delayed, "ms", Goal::Of(1.0, most));
}

/// While `work` goes on: how long after their due times the neighbour's runs ended.
async fn delays<T>(neighbour: &mut Subject, work: impl Future<Output = T>) -> (T, Vec<f64>) {
    let mut delays = Vec::new();
    let mut due = Instant::now() + NEIGHBOUR;
    let ended = {
        let runs = async {
            loop {
                tokio::time::sleep_until(due.into()).await;
                neighbour.serves().await;
                delays.push(millis(due.elapsed()));
                // Slots that went by meanwhile are not made up for.
                due = (due + NEIGHBOUR).max(Instant::now());
            }
        };
        tokio::select! {
            biased;
            ended = work => ended,
            () = runs => unreachable!(),
        }
    };
    (ended, delays)
}

/// Kills and reloads, again and again.
async fn reload(parts: &Parts, clock: &Witness, cycles: u64) {
    for (name, reason) in [("hoard", ReasonCode::MemoryLimit), ("trap", ReasonCode::Trap)] {
        let mut subject = Subject::new(parts.keeper(name));
        subject.serves().await;
        let (mut from_denial, mut from_end) = (Vec::new(), Vec::new());
        let mut resident = vec![(0, Process::myself().resident())];
        for cycle in 1..=cycles {
            let failure = subject.dies().await;
            let ended = Instant::now();
            assert_eq!(failure.reason, reason, "{failure}");
            let denied = clock.last_seen();
            subject.serves().await;
            from_denial.push(millis(denied.elapsed()));
            from_end.push(millis(ended.elapsed()));
            if [10, 100, cycles].contains(&cycle) {
                resident.push((cycle, Process::myself().resident()));
            }
        }
        if reason == ReasonCode::MemoryLimit {
            let what = "memory denied, until a fresh instance has served";
            spread(what, &mut from_denial, "ms", Goal::Of(0.99, 2.0));
        }
        spread(&format!("{name}: from the end of the call until then"), &mut from_end, "ms", Goal::None);
        let (first, last) = (resident[0].1, resident[resident.len() - 1].1);
        figure(&format!("{name}: resident more after {cycles} reloads"), mib(last - first), "MiB", Some(2.0));
        for (cycle, bytes) in resident {
            note(&format!("    after {cycle}: {:.2} MiB", mib(bytes)));
        }
    }
}

/// A collector whose instances are counted on to die in their second run.
struct Subject {
    keeper: Keeper,
    slot: u64,
}

impl Subject {
    fn new(keeper: Keeper) -> Self {
        Self { keeper, slot: 0 }
    }

    /// One good run, of a fresh instance where there is none.
    async fn serves(&mut self) {
        if self.keeper.instance().is_none() {
            self.keeper.start().await.unwrap();
        }
        let collected = self.collect().await.unwrap();
        assert_eq!(collected, 100);
        self.keeper.succeeded();
    }

    /// The run that ends badly, dealt with as the agent does.
    async fn dies(&mut self) -> Failure {
        let failure = self.collect().await.unwrap_err();
        self.keeper.killed(&failure);
        failure
    }

    /// How many values a run brought.
    async fn collect(&mut self) -> Result<usize, Failure> {
        self.slot += 1;
        let now = self.keeper.context.clock.wall_ms();
        let tick = Tick {
            due: now,
            now,
            elapsed: None,
            reason: TickReason::Due,
            expired: Vec::new(),
            expired_elements: Vec::new(),
            slot: self.slot,
            timeout: self.keeper.context.limits.timeout,
        };
        let collected = self.keeper.instance().unwrap().collect(tick).await?;
        Ok(collected.unwrap().handles.len())
    }
}

/// The real clock, which remembers when somebody looked at it: a guest that is about to be denied
/// memory does.
#[derive(Debug)]
struct Witness {
    clock: RealClock,
    seen: Mutex<Vec<Instant>>,
}

impl Witness {
    fn new() -> Self {
        Self { clock: RealClock::new(), seen: Mutex::default() }
    }

    fn last_seen(&self) -> Instant {
        // The supervisor looks at it, too, once the guest is gone.
        self.seen.lock().unwrap().drain(..).next().unwrap_or_else(Instant::now)
    }
}

impl Clock for Witness {
    fn wall_ms(&self) -> Millis {
        self.clock.wall_ms()
    }

    fn monotonic(&self) -> Duration {
        self.seen.lock().unwrap().push(Instant::now());
        self.clock.monotonic()
    }

    fn sleep_until(&self, deadline: Duration) -> Sleep {
        self.clock.sleep_until(deadline)
    }
}
