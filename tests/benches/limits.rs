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
use crate::report::{Goal, figure, note, quantile, spread, title};
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

/// A guest that computes for ever, beside one that is due every 20 ms; each has a task of its own.
async fn spin(parts: &Parts, tick: Duration) {
    let mut neighbour = Subject::new(parts.keeper("gauges"));
    neighbour.serves().await;
    let (neighbour, mut alone) = delays(neighbour, tokio::time::sleep(DEADLINE * 20)).await;
    let usual = quantile(&mut alone, 0.5);
    figure("a neighbour, alone: from its due time to the end of its run, p50", usual, "ms", None);

    let mut subject = Subject::new(parts.keeper("spin"));
    let over = Arc::new(Mutex::new(Vec::new()));
    let kept = over.clone();
    let spins = tokio::spawn(async move {
        for _ in 0..SPINS {
            subject.serves().await;
            let begun = Instant::now();
            let failure = subject.dies().await;
            assert_eq!(failure.reason, ReasonCode::Deadline);
            kept.lock().unwrap().push(millis(begun.elapsed().saturating_sub(DEADLINE)));
        }
    });
    let (_, mut delayed) = delays(neighbour, async { spins.await.unwrap() }).await;
    let most = millis(tick) + 5.0;
    spread(
        "a spinning guest: stopped after its deadline",
        &mut over.lock().unwrap(),
        "ms",
        Goal::Of(1.0, most),
    );
    delayed.iter_mut().for_each(|delay| *delay -= usual);
    spread("its neighbour: delayed by", &mut delayed, "ms", Goal::Of(1.0, millis(2 * tick)));
}

/// While `work` goes on: how long after their due times the neighbour's runs ended.
async fn delays(mut neighbour: Subject, work: impl Future<Output = ()>) -> (Subject, Vec<f64>) {
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let runs = tokio::spawn(async move {
        let mut delays = Vec::new();
        let mut due = Instant::now() + NEIGHBOUR;
        while stopped.try_recv().is_err() {
            tokio::time::sleep_until(due.into()).await;
            neighbour.serves().await;
            delays.push(millis(due.elapsed()));
            // Slots that went by meanwhile are not made up for.
            due = (due + NEIGHBOUR).max(Instant::now());
        }
        (neighbour, delays)
    });
    work.await;
    stop.send(()).unwrap();
    runs.await.unwrap()
}

/// Kills and reloads, again and again.
async fn reload(parts: &Parts, clock: &Witness, cycles: u64) {
    for (name, reason) in [("hoard", ReasonCode::MemoryLimit), ("trap", ReasonCode::Trap)] {
        let mut subject = Subject::new(parts.keeper(name));
        subject.serves().await;
        let (mut from_denial, mut from_end) = (Vec::new(), Vec::new());
        let mut resident = vec![(0, Process::myself().resident())];
        for cycle in 1..=cycles {
            clock.forget();
            let failure = subject.dies().await;
            let ended = Instant::now();
            assert_eq!(failure.reason, reason, "{failure}");
            let denied = clock.first_look().unwrap_or(ended);
            let served = subject.serves().await;
            from_denial.push(millis(served - denied));
            from_end.push(millis(served - ended));
            // The agent, too, waits before it ends the same plugin again. What is dead is given back
            // meanwhile.
            tokio::time::sleep(NEIGHBOUR).await;
            if [10, 100, cycles].contains(&cycle) {
                tokio::time::sleep(DEADLINE).await;
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

    /// One good run, of a fresh instance where there is none; when it ended.
    async fn serves(&mut self) -> Instant {
        if self.keeper.instance().is_none() {
            self.keeper.start().await.unwrap();
        }
        let collected = self.collect().await.unwrap();
        let ended = Instant::now();
        assert_eq!(collected, 100);
        self.keeper.succeeded();
        ended
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

    fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    /// The guest's: the supervisor looks at it, too, but later.
    fn first_look(&self) -> Option<Instant> {
        self.seen.lock().unwrap().first().copied()
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
