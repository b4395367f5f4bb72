//! Starts collectors when they are due. One timer for all of them; what is due when is
//! [`crate::schedule`]'s business.
//!
//! Uses: `schedule`, `collector` through its channel, `router` to end a slot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::collector::{Command, Run};
use crate::router::Router;
use crate::schedule::Schedule;
use crate::status::PluginHandle;

/// Held by every collector of a slot while it runs: with the last of them the slot ends, and the
/// handlers are woken once for all that it brought.
#[derive(Debug)]
pub struct SlotEnd(Arc<Router>);

impl Drop for SlotEnd {
    fn drop(&mut self) {
        self.0.slot_end();
    }
}

/// A collector, as the scheduler knows it.
#[derive(Debug)]
pub struct Scheduled {
    pub interval: Duration,
    pub commands: mpsc::Sender<Command>,
    pub status: PluginHandle,
}

/// Owns all collectors' channels: when it goes, they end.
#[derive(Debug)]
pub struct Scheduler {
    schedule: Schedule<String>,
    collectors: BTreeMap<String, Scheduled>,
    router: Arc<Router>,
    clock: Arc<dyn Clock>,
}

impl Scheduler {
    pub fn new(agent_id: &str, router: Arc<Router>, clock: Arc<dyn Clock>) -> Self {
        Self { schedule: Schedule::new(agent_id), collectors: BTreeMap::new(), router, clock }
    }

    pub fn insert(&mut self, name: String, collector: Scheduled) {
        self.schedule.insert(name.clone(), collector.interval, self.clock.wall_ms());
        self.collectors.insert(name, collector);
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        loop {
            let wait = self.schedule.wait(self.clock.wall_ms());
            if !wait.is_zero() {
                self.clock.sleep(wait).await;
            }
            self.start_due();
        }
    }

    fn start_due(&mut self) {
        let mut slot_end: Option<(u64, Arc<SlotEnd>)> = None;
        for due in self.schedule.take_due(self.clock.wall_ms()) {
            let Some(collector) = self.collectors.get(&due.id) else { continue };
            let end = match &slot_end {
                Some((at, end)) if *at == due.due => end.clone(),
                _ => Arc::new(SlotEnd(self.router.clone())),
            };
            slot_end = Some((due.due, end.clone()));
            // Readings of the machine are shared by what is due at one instant.
            let run = Run { due: due.due, slot: due.due, skipped: due.skipped, slot_end: end };
            if collector.commands.try_send(Command::Run(run)).is_err() {
                self.schedule.busy(&due);
                collector.status.update(|status| status.skipped += 1);
            }
        }
    }
}
