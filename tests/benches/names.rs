//! A million names that come and go, as containers' do, through a whole agent in virtual time: 1,000 new
//! ones a minute, then none. `BENCH_NAMES` and `BENCH_NAMES_PER_RUN` say how many.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use kimberlite::clock::{Clock, VirtualClock};
use kimberlite::collector::Collector;
use kimberlite::config::manifest::PluginKind;
use kimberlite::fleet;
use kimberlite::machine::Machine;
use kimberlite::queue::Queue;
use kimberlite::router::Router;
use kimberlite::routes::Filter;
use kimberlite::scheduler::{Order, Scheduled, Scheduler};
use kimberlite::secrets::Secrets;
use kimberlite::series::{SeriesConfig, SeriesTable};
use kimberlite::status::PluginHandle;
use kimberlite::telemetry::{self, Format};
use kimberlite::upkeep::Upkeep;
use tokio::sync::mpsc;

use crate::parts::{Parts, runtime};
use crate::process::{Process, mib};
use crate::report::{Goal, figure, note, spread, title};
use crate::sink::Sink;
use crate::{component, setting};

/// 2026-01-01
const START: u64 = 1_767_225_600_000;
const INTERVAL: u64 = 60_000;
/// Runs before the names come, and after them: an hour, in which what is unused has long expired.
const QUIET: u64 = 60;

pub(crate) fn run() {
    let all = setting("BENCH_NAMES", 1_000_000);
    let each = setting("BENCH_NAMES_PER_RUN", 1_000);
    title(&format!("names: {all} distinct names, {each} a minute, in virtual time"));
    let runs = all / each;
    let from = START + QUIET * INTERVAL;
    let until = from + runs * INTERVAL;
    let sink = Sink::start();
    let port = sink.port;
    let file = component::bench_collector();
    let config = format!(
        "[collectors.names]\nplugin = {{ file = {file:?} }}\n\
         settings = {{ mode = \"names\", count = {each}, from = {from}, until = {until} }}\n\n\
         [handlers.graphite]\nsettings = {{ host = \"127.0.0.1\", port = {port} }}\n\
         grant = {{ tcp = [\"127.0.0.1:{port}\"] }}\n"
    );
    let clock = VirtualClock::new(START);
    let parts = Parts::new(&config, Arc::new(clock.clone()));
    runtime().block_on(async {
        let mut whole = Whole::start(&parts, clock);
        let begun = Instant::now();
        whole.run_until(from).await;
        let before = whole.memory();
        whole.run_until(until).await;
        let during = whole.memory();
        let mut took = std::mem::take(&mut whole.took).split_off(usize::try_from(QUIET).unwrap());
        whole.run_until(until + QUIET * INTERVAL).await;
        let after = whole.memory();
        note(&format!("{} lines arrived; {:.0} s of real time", sink.lines(), begun.elapsed().as_secs_f64()));
        spread("a run and its delivery while names come", &mut took, "ms", Goal::None);
        for (when, memory) in [("before", before), ("during", during), ("after", after)] {
            figure(&format!("{when}: resident"), mib(memory.resident), "MiB", None);
            let [collector, handler, durable] = [memory.collector, memory.handler, memory.durable].map(mib);
            note(&format!(
                "    guests {collector:.1} + {handler:.1} MiB, series table {durable:.2} MiB, {} series",
                memory.series
            ));
        }
        figure("after, in hundredths of before", 100.0 * after.resident / before.resident, "%", Some(110.0));
        // SAFETY: it only gives free memory back.
        let _ = unsafe { libc::malloc_trim(0) };
        figure("had the allocator given back what it can", mib(Process::myself().resident()), "MiB", None);
        note(&format!(
            "bytes that are left of each name: {:.2}",
            (after.resident - before.resident) / all as f64
        ));
    });
}

/// Bytes, and the live series.
#[derive(Clone, Copy)]
struct Memory {
    resident: f64,
    collector: f64,
    handler: f64,
    durable: f64,
    series: u64,
}

/// A whole agent but for its process.
struct Whole {
    clock: VirtualClock,
    collector: PluginHandle,
    handler: PluginHandle,
    queue: Arc<Queue>,
    runs: u64,
    /// Milliseconds of each run and its delivery.
    took: Vec<f64>,
}

impl Whole {
    fn start(parts: &Parts, clock: VirtualClock) -> Self {
        let router = Arc::new(Router::default());
        let machine = Arc::new(Machine::new(&parts.own.id, (*parts.own.facts()).clone()));
        let (collector, handler) =
            (parts.handle("names", PluginKind::Collector), parts.handle("graphite", PluginKind::Handler));

        let table = &parts.config.handlers["graphite"];
        let queue = Arc::new(Queue::new(usize::try_from(table.queue.memory).unwrap()));
        let filter = Filter::new(&table.plugin.metrics, &table.plugin.except);
        let routes = router.set_handlers(vec![(queue.clone(), filter)]).unwrap();
        let delivery = parts.delivery("graphite", &queue);
        let (commands, inbox) = mpsc::channel(1);
        tokio::spawn(async move {
            let _kept = commands;
            delivery.serve(inbox).await;
        });

        let table = &parts.config.collectors["names"];
        let series = SeriesTable::new(machine.element().clone(), fleet::series_config(table), routes);
        let series = Arc::new(Mutex::new(series));
        let (runs, due) = mpsc::channel(1);
        let (_, none) = mpsc::channel(1);
        let task = Collector::new(parts.keeper("names"), table.interval, series, router.clone(), machine);
        tokio::spawn(task.serve(due, none));
        let scheduler = Scheduler::new("bench", router.clone(), Arc::new(clock.clone()));
        let scheduled = Scheduled { interval: table.interval, runs, status: collector.clone() };
        let (orders, told) = mpsc::unbounded_channel();
        orders.send(Order::Insert("names".to_owned(), scheduled)).unwrap();
        tokio::spawn(scheduler.run(told));
        let mut upkeep = Upkeep::new(
            Some(parts.config.agent.interval),
            SeriesTable::new(parts.own.clone(), SeriesConfig::default(), router.routes()),
            parts.status.clone(),
            router,
            Arc::new(clock.clone()),
            telemetry::init(Format::Text, -3, Secrets::default()),
        );
        tokio::spawn(async move {
            loop {
                upkeep.wait().await;
                upkeep.work();
            }
        });
        Self { clock, collector, handler, queue, runs: 0, took: Vec::new() }
    }

    /// Steps from run to run.
    async fn run_until(&mut self, wall: u64) {
        while self.clock.wall_ms() < wall {
            self.settle().await;
            let runs = self.collector.update(|status| status.collect_duration.count);
            if std::mem::replace(&mut self.runs, runs) < runs {
                let took = |part: &PluginHandle| 1e3 * part.update(|status| status.collect_duration.last);
                self.took.push(took(&self.collector) + took(&self.handler));
            }
            self.clock.advance_to_next();
        }
        self.settle().await;
    }

    /// Until every run that is due has ended and the handler has taken what it brought. A guest that
    /// computes gives way once in a tick, so a thousand times without news are more than any run takes.
    async fn settle(&self) {
        let (mut quiet, mut last) = (0, 0);
        while quiet < 1000 {
            tokio::task::yield_now().await;
            let runs = self.collector.update(|status| status.collect_duration.count);
            let is_quiet = self.queue.bytes() == 0 && last == runs;
            last = runs;
            quiet = if is_quiet { quiet + 1 } else { 0 };
        }
    }

    fn memory(&self) -> Memory {
        let (collector, durable, series) =
            self.collector.update(|status| (status.memory_now, status.durable_bytes, status.series));
        let handler = self.handler.update(|status| status.memory_now);
        Memory {
            resident: Process::myself().resident(),
            collector: collector as f64,
            handler: handler as f64,
            durable: durable as f64,
            series,
        }
    }
}
