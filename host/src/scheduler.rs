//! Starts collectors when they are due. One timer for all of them; what is due when is
//! [`crate::schedule`]'s business.
//!
//! Uses: `schedule`, `collector` through its channel, `router` to end a slot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::collector::Run;
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
    pub runs: mpsc::Sender<Run>,
    pub status: PluginHandle,
}

/// What the scheduler is told.
#[derive(Debug)]
pub enum Order {
    /// A collector that is to run.
    Insert(String, Scheduled),
    /// One that runs at another interval from now on.
    Reschedule(String, Duration),
    /// One that has ended its last run.
    Remove(String),
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

    fn insert(&mut self, name: String, collector: Scheduled) {
        self.schedule.insert(name.clone(), collector.interval, self.clock.wall_ms());
        self.collectors.insert(name, collector);
    }

    /// Runs until it is dropped; does what it is told meanwhile.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            let wait = self.schedule.wait(self.clock.wall_ms());
            if !wait.is_zero() {
                tokio::select! {
                    biased;
                    Some(order) = orders.recv() => {
                        self.obey(order);
                        // All that came together starts together.
                        while let Ok(order) = orders.try_recv() {
                            self.obey(order);
                        }
                        continue;
                    }
                    () = self.clock.sleep(wait) => {}
                }
            }
            self.start_due();
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Insert(name, collector) => self.insert(name, collector),
            Order::Reschedule(name, interval) => {
                if let Some(collector) = self.collectors.get_mut(&name) {
                    collector.interval = interval;
                    self.schedule.insert(name, interval, self.clock.wall_ms());
                }
            }
            Order::Remove(name) => {
                self.schedule.remove(&name);
                self.collectors.remove(&name);
            }
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
            if collector.runs.try_send(run).is_err() {
                self.schedule.busy(&due);
                collector.status.update(|status| status.skipped += 1);
            }
        }
    }
}
