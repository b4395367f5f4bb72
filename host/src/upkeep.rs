//! What the agent does for itself, now and then: reports its own figures as samples, lets the log
//! sum up what it left out, and gives unused heap back to the system.
//!
//! Uses: `series`, `router`, `status`, `telemetry`.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::clock::{Clock, WallWatch};
use crate::collected::Collected;
use crate::memory;
use crate::router::Router;
use crate::series::SeriesTable;
use crate::status::{AgentStatus, figures};
use crate::telemetry;

/// Without figures to report there is still the log.
const SELDOM: Duration = Duration::from_secs(60);

/// The allocator would keep the heap of the busiest hour for ever.
const TRIM: Duration = Duration::from_secs(600);

/// The agent's own chores.
#[derive(Debug)]
pub struct Upkeep {
    /// None: no figures are reported.
    interval: Option<Duration>,
    /// On the agent's clock.
    next: Duration,
    next_trim: Duration,
    wall: WallWatch,
    series: SeriesTable,
    status: AgentStatus,
    router: Arc<Router>,
    clock: Arc<dyn Clock>,
    log: telemetry::Handle,
}

impl Upkeep {
    /// The first report is due after one interval: at the start there is nothing to report.
    pub fn new(
        interval: Option<Duration>,
        series: SeriesTable,
        status: AgentStatus,
        router: Arc<Router>,
        clock: Arc<dyn Clock>,
        log: telemetry::Handle,
    ) -> Self {
        let now = clock.monotonic();
        let (next, next_trim) = (now + interval.unwrap_or(SELDOM), now + TRIM);
        Self { interval, next, next_trim, wall: WallWatch::default(), series, status, router, clock, log }
    }

    /// Until there is something to do. May be given up and begun again.
    pub async fn wait(&self) {
        self.clock.sleep_until(self.next).await;
    }

    /// Reports as often as that from now on; none: not at all.
    pub fn set_interval(&mut self, interval: Option<Duration>) {
        if interval != self.interval {
            self.interval = interval;
            self.next = self.clock.monotonic() + interval.unwrap_or(SELDOM);
        }
    }

    pub fn work(&mut self) {
        let now = self.clock.monotonic();
        self.next = now + self.interval.unwrap_or(SELDOM);
        if self.next_trim <= now {
            self.next_trim = now + TRIM;
            memory::trim_heap();
        }
        self.log.sum_up();
        let Some(interval) = self.interval else { return };
        match self.wall.jumped(&*self.clock) {
            0 => {}
            jumped => self.series.clock_jumped(jumped),
        }
        self.series.reroute(self.router.routes());
        let now = self.clock.wall_ms();
        // These samples name their series each time, so nobody has to hear of handles.
        self.series.expire(now, interval);
        let collected = Collected { samples: figures::self_samples(&self.status), ..Collected::default() };
        match self.series.apply(now, collected) {
            Ok(applied) => self.router.route(applied.batch, self.clock.monotonic_ms()),
            Err(flood) => warn!(%flood, "the agent's own figures are too many to send"),
        }
        self.router.slot_end();
    }
}
