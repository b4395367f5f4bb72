//! `kimberlite send`: samples from a file, through one handler alone.

use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::alone::{Alone, loader, refused};
use super::{Ended, Session, complain, print, runtime};
use crate::agent::own_element;
use crate::backlog::Backlog;
use crate::clock::{Clock, RealClock};
use crate::config::manifest::PluginKind;
use crate::config::{Config, HandlerConfig, PluginSource};
use crate::delivery::Delivery;
use crate::delivery_policy::DeliveryPolicy;
use crate::fleet::{batch_form, keeper, retry_config};
use crate::jsonl;
use crate::loader::machine_stats;
use crate::queue::Queue;
use crate::routes::Filter;
use crate::sample::Batch;
use crate::status::AgentStatus;

#[derive(Debug, Args)]
pub(super) struct Send {
    #[command(flatten)]
    alone: Alone,
    /// JSON Lines, as `collect -o json` prints them; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// How long to go on trying.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    give_up: Duration,
}

impl Send {
    pub(super) fn run(self, session: &Session) -> Result<(), Ended> {
        let config = session.config()?;
        runtime()?.block_on(self.deliver(session, &config))
    }

    async fn deliver(&self, session: &Session, config: &Config) -> Result<(), Ended> {
        let name = self.alone.name();
        let known =
            config.handlers.get(&name).filter(|_| self.alone.source() == PluginSource::Named(name.clone()));
        let mut table = known.cloned().unwrap_or_else(|| HandlerConfig::new(self.alone.source()));
        let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
        let loader = loader(session, config, clock.clone(), machine_stats(&config.agent))?;
        self.alone.adjust(&mut table.plugin, config, false, &loader)?;
        let prepared = loader.prepare(PluginKind::Handler, &name, &table.plugin).map_err(refused)?;

        let mut batch = self.read(config)?;
        let filter = Filter::new(&table.plugin.metrics, &table.plugin.except);
        batch.samples.retain(|sample| filter.takes(&sample.series.name));
        batch.summaries.retain(|sample| filter.takes(&sample.series.name));
        let total = batch.len() as u64;
        // All of it is here already, so there is nothing to bound.
        let queue = Arc::new(Queue::new(usize::MAX));
        queue.push(Arc::new(batch), clock.monotonic_ms());

        let agent = AgentStatus::new("alone", &name, clock.wall_ms(), session.secrets.clone());
        let status = agent.plugin(&name, PluginKind::Handler);
        let form = batch_form(&table, &prepared.plugin.manifest);
        let policy = DeliveryPolicy::new(retry_config(&table));
        let backlog = Backlog::new(queue, table.queue.clone(), Duration::ZERO, None, clock);
        let delivery = Delivery::new(keeper(&table.plugin, prepared, status.clone()), backlog, form, policy);
        let sums = delivery.finish(self.give_up).await;
        crate::plugin::drain_stdout(Duration::from_secs(5));

        if sums.unconfirmed > 0 {
            complain(&format!(
                "handler `{name}`: whether {} samples arrived cannot be told: the receiver closed the \
                 connection behind them",
                sums.unconfirmed
            ));
        }
        let left = total - sums.delivered - sums.dead_lettered;
        if left == 0 && sums.dead_lettered == 0 {
            return Ok(());
        }
        let why = status.update(|status| status.last_failure.clone());
        let why = why.map_or_else(|| "no reason is known".to_owned(), |failure| failure.text);
        complain(&session.secrets.scrub(&format!(
            "handler `{name}`: {} of {total} delivered, {} refused, {left} given up; last: {why}",
            sums.delivered, sums.dead_lettered
        )));
        Err(Ended::Found)
    }

    fn read(&self, config: &Config) -> Result<Batch, Ended> {
        let shown = self.from.display();
        let cannot = |error: std::io::Error| Ended::Io(format!("cannot read {shown}: {error}"));
        let input: Box<dyn BufRead> = if self.from.as_os_str() == "-" {
            Box::new(std::io::stdin().lock())
        } else {
            Box::new(std::io::BufReader::new(std::fs::File::open(&self.from).map_err(cannot)?))
        };
        let mut reader = jsonl::Reader::new(own_element(config));
        let mut batch = Batch::default();
        for (number, line) in (1..).zip(input.lines()) {
            let line = line.map_err(cannot)?;
            reader
                .line(&line, &mut batch)
                .map_err(|error| Ended::Io(format!("{shown}:{number}: {error}")))?;
        }
        if batch.is_empty() {
            print(&format!("{shown} holds no samples\n"));
        }
        Ok(batch)
    }
}
