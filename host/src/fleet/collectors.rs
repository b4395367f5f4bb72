//! Starts and tells collectors.
//!
//! Uses: `collector`, `scheduler`, `series`.

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::terms::{keeper, series_config};
use super::{CollectorTask, Fleet, Parts, behind, lock};
use crate::collector::{self, Collector, Run};
use crate::config::CollectorConfig;
use crate::config::manifest::PluginKind;
use crate::loader::Prepared;
use crate::scheduler::{Order, Scheduled};
use crate::series::SeriesTable;

impl Fleet {
    pub(super) fn start_collector(&mut self, name: &str, table: &CollectorConfig, prepared: Prepared) {
        let Parts { machine, router, status, tables, schedule, .. } = &self.parts;
        let status = status.plugin(name, PluginKind::Collector);
        let series = SeriesTable::new(machine.element().clone(), series_config(table), router.routes());
        let series = Arc::new(Mutex::new(series));
        lock(tables).insert(name.to_owned(), series.clone());
        let keeper = keeper(&table.plugin, prepared, status.clone());
        let collector = Collector::new(keeper, table.interval, series, router.clone(), machine.clone());
        // One run may wait behind the one that runs; a third is skipped and counted.
        let (runs, due) = mpsc::channel::<Run>(1);
        let (commands, inbox) = mpsc::channel(8);
        let task = behind(self.leaving.remove(name), collector.serve(due, inbox));
        self.collectors.insert(name.to_owned(), CollectorTask { commands, task });
        // The scheduler ends with the agent.
        drop(
            schedule
                .send(Order::Insert(name.to_owned(), Scheduled { interval: table.interval, runs, status })),
        );
    }

    /// Interval, tags, filter: nothing of that concerns an instance.
    pub(super) fn reschedule(&mut self, name: &str, table: &CollectorConfig) {
        let Parts { router, tables, schedule, .. } = &self.parts;
        if let Some(series) = lock(tables).get(name) {
            lock(series).reconfigure(series_config(table), router.routes());
        }
        self.tell_collector(name, collector::Command::Interval(table.interval));
        drop(schedule.send(Order::Reschedule(name.to_owned(), table.interval)));
    }

    pub(super) fn tell_collector(&self, name: &str, command: collector::Command) {
        let Some(collector) = self.collectors.get(name) else { return };
        let commands = collector.commands.clone();
        // In order: a task's inbox is full only while its plugin is busy.
        if let Err(mpsc::error::TrySendError::Full(command)) = commands.try_send(command) {
            tokio::spawn(async move { drop(commands.send(command).await) });
        }
    }
}
