//! `kimberlite collect`: one collector alone, live or on recorded trees in virtual time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use super::alone::{Alone, loader, refused};
use super::table::{size, table};
use super::{Ended, Session, print, runtime};
use crate::agent::own_element;
use crate::clock::{Clock, RealClock, VirtualClock};
use crate::config::manifest::PluginKind;
use crate::config::{CollectorConfig, Config};
use crate::fleet::series_config;
use crate::host_stats::{HostStats, Sources};
use crate::jsonl;
use crate::loader::{Prepared, machine_stats};
use crate::plugin::{CollectError, Instance, Tick, TickReason};
use crate::routes::Routes;
use crate::sample::{Batch, Element, Millis, Series};
use crate::series::SeriesTable;

#[derive(Debug, Args)]
pub(super) struct Collect {
    #[command(flatten)]
    alone: Alone,
    /// A recorded /proc to read instead of this machine's; one run for each.
    #[arg(long = "proc", value_name = "DIR")]
    trees: Vec<PathBuf>,
    /// Time between runs; virtual with --proc [default: 1s, with --proc 10s].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    interval: Option<Duration>,
    /// When the first run of recorded trees is [default: 2026-01-01T00:00:00Z].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    start: Option<SystemTime>,
    /// How many runs of this machine; 0: until interrupted. Rates need two.
    #[arg(long, value_name = "N", default_value_t = 2, conflicts_with = "trees")]
    runs: u64,
}

impl Collect {
    pub(super) fn run(self, session: &Session) -> Result<(), Ended> {
        let mut config = session.config()?;
        runtime()?.block_on(async {
            if self.trees.is_empty() {
                self.live(session, &config).await
            } else {
                // Nothing of this machine belongs among recorded figures.
                config.agent.name.get_or_insert_with(|| "recorded".to_owned());
                self.recorded(session, config).await
            }
        })
    }

    async fn live(&self, session: &Session, config: &Config) -> Result<(), Ended> {
        let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
        let interval = self.interval.unwrap_or(Duration::from_secs(1));
        let stats = machine_stats(&config.agent);
        let mut lone = self.start_collector(session, config, clock.clone(), stats, interval).await?;
        let mut run = 0;
        while self.runs == 0 || run < self.runs {
            if run > 0 {
                clock.sleep(interval).await;
            }
            run += 1;
            lone.run(run, clock.wall_ms()).await?;
        }
        lone.verdict().await
    }

    async fn recorded(&self, session: &Session, mut config: Config) -> Result<(), Ended> {
        let start = match self.start {
            Some(start) => {
                u64::try_from(start.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(0)
            }
            None => 1_767_225_600_000,
        };
        let interval = self.interval.unwrap_or(Duration::from_secs(10));
        let clock = Arc::new(VirtualClock::new(start));
        // A guest's view of /proc is opened once, so all trees are shown in one place, one after
        // the other.
        let stage = Stage::new()?;
        config.agent.proc = stage.0.join("proc");
        config.agent.sys = stage.0.join("sys");
        stage.show(&self.trees[0])?;
        let stats = Arc::new(Mutex::new(recorded_stats(&config)));
        let mut lone = self.start_collector(session, &config, clock.clone(), stats.clone(), interval).await?;
        for (run, tree) in (1..).zip(&self.trees) {
            if run > 1 {
                clock.step_to(interval.saturating_mul(run as u32 - 1));
            }
            stage.show(tree)?;
            if let Ok(mut stats) = stats.lock() {
                *stats = recorded_stats(&config);
            }
            let due = clock.wall_ms();
            let mut call = std::pin::pin!(lone.run(run, due));
            loop {
                tokio::select! {
                    biased;
                    done = &mut call => break done?,
                    // Nothing happens any more: the guest sleeps, and its time is virtual.
                    () = tokio::time::sleep(Duration::from_millis(20)) => drop(clock.advance_to_next()),
                }
            }
        }
        lone.verdict().await
    }

    async fn start_collector(
        &self,
        session: &Session,
        config: &Config,
        clock: Arc<dyn Clock>,
        stats: Arc<Mutex<HostStats>>,
        interval: Duration,
    ) -> Result<Lone, Ended> {
        let name = self.alone.name();
        let known = config
            .collectors
            .get(&name)
            .filter(|_| self.alone.source() == crate::config::PluginSource::Named(name.clone()));
        let mut table =
            known.cloned().unwrap_or_else(|| CollectorConfig::new(self.alone.source(), &config.agent));
        table.interval = interval;
        let loader = loader(session, config, clock.clone(), stats)?;
        self.alone.adjust(&mut table.plugin, config, true, &loader)?;
        let prepared = loader.prepare(PluginKind::Collector, &name, &table.plugin).map_err(refused)?;
        let Prepared { plugin, settings, context, .. } = prepared;
        let timeout = context.limits.timeout;
        let instance = plugin
            .start(context, &settings)
            .await
            .map_err(|error| Ended::Config(format!("collector `{name}` does not start: {error}")))?;
        let own = own_element(config);
        let series = SeriesTable::new(own.clone(), series_config(&table), Arc::new(Routes::everything()));
        Ok(Lone {
            name,
            instance,
            series,
            own,
            clock,
            interval,
            timeout,
            last: None,
            failed: false,
            json: session.is_json(),
        })
    }
}

/// One collector without an agent around it.
struct Lone {
    name: String,
    instance: Instance,
    series: SeriesTable,
    own: Arc<Element>,
    clock: Arc<dyn Clock>,
    interval: Duration,
    timeout: Duration,
    last: Option<Millis>,
    failed: bool,
    json: bool,
}

impl Lone {
    async fn run(&mut self, run: u64, due: Millis) -> Result<(), Ended> {
        let expired = self.series.expire(due, self.interval);
        let tick = Tick {
            due,
            now: self.clock.wall_ms(),
            elapsed: self.last.map(|last| due.saturating_sub(last)),
            reason: TickReason::Probe,
            expired: expired.series,
            expired_elements: expired.elements,
            slot: run,
            timeout: self.timeout,
        };
        let name = &self.name;
        let collected = match self.instance.collect(tick).await {
            Ok(Ok(collected)) => collected,
            Ok(Err(CollectError::Absent(text))) => {
                super::complain(&format!("run {run}: `{name}` has nothing to measure here: {text}"));
                return Ok(());
            }
            Ok(Err(CollectError::Failed(text))) => {
                super::complain(&format!("run {run}: `{name}` failed: {text}"));
                self.failed = true;
                return Ok(());
            }
            Err(failure) => {
                super::complain(&format!("run {run}: `{name}` was killed: {failure}"));
                return Err(Ended::Found);
            }
        };
        self.last = Some(due);
        match self.series.apply(due, collected) {
            Ok(applied) => {
                for (reason, count) in applied.dropped.iter() {
                    super::complain(&format!("run {run}: {count} dropped: {}", reason.as_str()));
                    self.failed = true;
                }
                self.show(&applied.batch, run);
                Ok(())
            }
            Err(flood) => {
                super::complain(&format!("run {run}: `{name}` is stopped: flood: {flood}"));
                Err(Ended::Found)
            }
        }
    }

    fn show(&self, batch: &Batch, run: u64) {
        if self.json {
            print(&jsonl::write(batch, run, &self.own));
        } else {
            print(&readable(batch, run, &self.own));
        }
    }

    /// What an author wants to know next, and whether all went well.
    async fn verdict(mut self) -> Result<(), Ended> {
        if !self.json {
            let linear = size(self.instance.memory().linear as u64);
            let heap = self.instance.heap().await;
            let heap = heap.map_or_else(String::new, |heap| {
                format!(", {} of heap in use, {} at most", size(heap.live_bytes), size(heap.peak_bytes))
            });
            print(&format!("memory: {linear} linear{heap}\n"));
        }
        if self.failed { Err(Ended::Found) } else { Ok(()) }
    }
}

/// A line for each sample, below a line for the run.
fn readable(batch: &Batch, run: u64, own: &Element) -> String {
    let label = |series: &Series| {
        if series.element.id == own.id {
            series.name.to_string()
        } else {
            format!("{}: {}", series.element.id, series.name)
        }
    };
    let unit = |series: &Series| match (series.unit.is_empty(), series.kind) {
        (true, crate::sample::Kind::Rate) => "/s".to_owned(),
        (false, crate::sample::Kind::Rate) => format!("{}/s", series.unit),
        _ => series.unit.to_string(),
    };
    let samples = batch
        .samples
        .iter()
        .map(|sample| vec![label(&sample.series), sample.value.to_string(), unit(&sample.series)]);
    let summaries = batch.summaries.iter().map(|sample| {
        let summary = sample.summary;
        let parts = [
            ("val", summary.val),
            ("min", summary.min),
            ("max", summary.max),
            ("avg", summary.avg),
            ("sum", summary.sum),
            ("cnt", summary.cnt.map(|cnt| cnt as f64)),
        ];
        let known = parts.iter().filter_map(|(name, value)| Some(format!("{name} {}", (*value)?)));
        vec![label(&sample.series), known.collect::<Vec<_>>().join(", "), unit(&sample.series)]
    });
    let events = batch.events.iter().map(|event| {
        vec![
            format!("{}: event", event.element.id),
            format!("{} {}", event.title, event.message),
            event.kind.clone(),
        ]
    });
    let checks = batch.checks.iter().map(|check| {
        let status = format!("{:?}", check.status).to_lowercase();
        vec![format!("{}: check {}", check.element.id, check.name), status, format!("for {} s", check.ttl)]
    });
    let rows: Vec<Vec<String>> = samples.chain(summaries).chain(events).chain(checks).collect();
    let title = format!("run {run}");
    table(&[&title, "", ""], &rows)
}

fn recorded_stats(config: &Config) -> HostStats {
    HostStats::new(Sources {
        proc: config.agent.proc.clone(),
        sys: config.agent.sys.clone(),
        root: config.agent.root.clone(),
        recorded: true,
    })
}

/// A directory of our own in which recorded trees are shown. Gone with the verb.
struct Stage(PathBuf);

impl Stage {
    fn new() -> Result<Self, Ended> {
        let dir = std::env::temp_dir().join(format!("kimberlite-collect-{}", std::process::id()));
        for sub in ["proc", "sys"] {
            std::fs::create_dir_all(dir.join(sub))
                .map_err(|error| Ended::Io(format!("cannot create {}: {error}", dir.display())))?;
        }
        Ok(Self(dir))
    }

    /// Puts a tree where the guest sees /proc. The directory itself stays: it is open.
    fn show(&self, tree: &Path) -> Result<(), Ended> {
        let about = |error: std::io::Error| {
            Ended::Io(format!("cannot read recorded tree {}: {error}", tree.display()))
        };
        let proc = self.0.join("proc");
        for entry in std::fs::read_dir(&proc)? {
            let path = entry?.path();
            if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
        copy(tree, &proc).map_err(about)
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Left-overs in the temporary directory hurt nobody.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
