//! Starts and tells handlers, and says which samples go to which of them.
//!
//! Uses: `delivery`, `backlog`, `router`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::error;

use super::terms::{batch_form, filter, keeper, retry_config};
use super::{Fleet, HandlerTask, Parts, Speaks, behind, lock};
use crate::backlog::Backlog;
use crate::config::HandlerConfig;
use crate::config::manifest::PluginKind;
use crate::data_dir::dead_letters_dir;
use crate::dead_letters::DeadLetters;
use crate::delivery::{self, Delivery, Parked, Terms};
use crate::delivery_policy::DeliveryPolicy;
use crate::halt::HaltFile;
use crate::loader::Prepared;
use crate::queue::Queue;
use crate::routes::{Filter, MOST_HANDLERS};

impl Fleet {
    pub(super) fn start_handler(&mut self, name: &str, table: &HandlerConfig, prepared: Prepared) {
        let (queue, filter) = self.queue(name, table);
        let terms = self.terms(name, table, &prepared);
        let backlog = self.backlog(name, table, queue.clone(), terms.wait);
        let Terms { form, retry, halt, settings, letters, .. } = terms;
        let status = self.parts.status.plugin(name, PluginKind::Handler);
        let keeper = keeper(&table.plugin, prepared, status);
        let delivery = Delivery::new(keeper, backlog, form, DeliveryPolicy::new(retry))
            .with_halt(halt, settings)
            .with_dead_letters(letters);
        let (commands, inbox) = mpsc::channel(8);
        let (orphans, named) = (self.parts.orphans.clone(), name.to_owned());
        let task = behind(self.leaving.remove(name), async move {
            orphans.adopt(&named);
            delivery.serve(inbox).await;
        });
        self.handlers
            .insert(name.to_owned(), HandlerTask { speaks: Speaks::To(commands), task, queue, filter });
        self.reroute();
    }

    /// A place for its samples, until it can run.
    pub(super) fn park_handler(&mut self, name: &str, table: &HandlerConfig) {
        let (queue, filter) = self.queue(name, table);
        let backlog = self.backlog(name, table, queue.clone(), Duration::ZERO);
        let status = self.parts.status.plugin(name, PluginKind::Handler);
        let (commands, inbox) = mpsc::channel(1);
        let parked = Parked::new(backlog, status, self.loader.clock.clone());
        let (orphans, named) = (self.parts.orphans.clone(), name.to_owned());
        let task = behind(self.leaving.remove(name), async move {
            orphans.adopt(&named);
            parked.serve(inbox).await;
        });
        let speaks = Speaks::Parked(commands);
        self.handlers.insert(name.to_owned(), HandlerTask { speaks, task, queue, filter });
        self.reroute();
    }

    /// The one it had while it was parked, or a new one.
    fn queue(&mut self, name: &str, table: &HandlerConfig) -> (Arc<Queue>, Filter) {
        let limit = usize::try_from(table.queue.memory).unwrap_or(usize::MAX);
        let queue = match self.handlers.remove(name) {
            Some(parked) => parked.queue,
            None => Arc::new(Queue::new(limit)),
        };
        queue.set_limit(limit);
        (queue, filter(&table.plugin))
    }

    fn backlog(&self, name: &str, table: &HandlerConfig, queue: Arc<Queue>, wait: Duration) -> Backlog {
        let spool = Some(self.parts.data.spool(name));
        Backlog::new(queue, table.queue.clone(), wait, spool, self.loader.clock.clone())
    }

    pub(super) fn terms(&self, name: &str, table: &HandlerConfig, prepared: &Prepared) -> Terms {
        let Parts { data, .. } = &self.parts;
        let Prepared { plugin, settings, .. } = prepared;
        Terms {
            form: batch_form(table, &plugin.manifest),
            retry: retry_config(table),
            queue: table.queue.clone(),
            wait: table.batch.over(&plugin.manifest.batch).wait,
            halt: HaltFile::new(data.halt(name), data.id(), &plugin.sha256, settings),
            settings: self.loader.settings_source(&plugin.manifest, &table.plugin),
            letters: DeadLetters::new(dead_letters_dir(data.path()).join(name), table.queue.dead_letters),
        }
    }

    pub(super) fn refilter(&mut self, name: &str, table: &HandlerConfig) {
        let filter = filter(&table.plugin);
        if let Some(handler) = self.handlers.get_mut(name).filter(|handler| handler.filter != filter) {
            handler.filter = filter;
            self.reroute();
        }
    }

    /// Which handlers there are has changed, or what they take.
    pub(super) fn reroute(&mut self) {
        let queues = self.handlers.values().map(|handler| (handler.queue.clone(), handler.filter.clone()));
        let routes = match self.parts.router.set_handlers(queues.take(MOST_HANDLERS).collect()) {
            Ok(routes) => routes,
            Err(error) => return error!(%error, "samples do not reach all handlers"),
        };
        for series in lock(&self.parts.tables).values() {
            lock(series).reroute(routes.clone());
        }
    }

    pub(super) fn tell_handler(&self, name: &str, command: delivery::Command) -> bool {
        let Some(commands) = self.handler(name).cloned() else { return false };
        if let Err(mpsc::error::TrySendError::Full(command)) = commands.try_send(command) {
            tokio::spawn(async move { drop(commands.send(command).await) });
        }
        true
    }
}
