//! Samples per second on the road from the router to a handler, to a receiver and to disk, each on one
//! core. `BENCH_SAMPLES` says how many (2,000,000).

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kimberlite::clock::{Clock, RealClock};
use kimberlite::config::QueueConfig;
use kimberlite::outgoing::{BatchForm, Outgoing};
use kimberlite::queue::Queue;
use kimberlite::router::Router;
use kimberlite::routes::Filter;
use kimberlite::sample::{Batch, Element, Facts, Kind, Sample, Series};
use kimberlite::spool::{Spool, SpoolConfig};
use kimberlite_tests::TempDir;
use tokio::sync::mpsc;

use crate::parts::{Parts, runtime};
use crate::report::{figure, note, quantile, speed, title};
use crate::setting;
use crate::sink::Sink;

/// As many as seven collectors on a big machine publish in one slot.
const BATCH: usize = 1000;
/// As the graphite handler asks for them.
const FORM: BatchForm = BatchForm { by_element: false, samples: 10_000, bytes: 1 << 20 };
/// Alternating with the native sender, so that both meet the same moods of the machine.
const ROUNDS: usize = 5;

pub(crate) fn run() {
    let samples = usize::try_from(setting("BENCH_SAMPLES", 2_000_000)).unwrap() / BATCH * BATCH;
    title(&format!("delivery: {samples} samples of {BATCH} series, in batches of {BATCH}"));
    let batch = batch();
    in_memory(&batch, samples);
    through_graphite(&batch, samples);
    through_the_spool(&batch, samples);
}

/// One slot's samples.
fn batch() -> Batch {
    let element = Arc::new(Element::new("web-1", Facts::default()));
    let sample = |number: usize| Sample {
        series: Arc::new(Series {
            element: element.clone(),
            name: format!("iostat.sd{number}.average_queue_length").into(),
            unit: "".into(),
            kind: Kind::Gauge,
            sparse_data: "".into(),
            tags: Box::default(),
            handlers: 1,
        }),
        timestamp: 1_767_225_600_000,
        value: number as f64 / 7.0,
    };
    Batch { samples: (0..BATCH).map(sample).collect(), ..Batch::default() }
}

fn router(queue: &Arc<Queue>) -> Router {
    let router = Router::default();
    router.set_handlers(vec![(queue.clone(), Filter::default())]).unwrap();
    router
}

fn per_second(samples: usize, took: Duration) -> f64 {
    samples as f64 / took.as_secs_f64()
}

/// Up to the columns that are copied into the handler.
fn in_memory(batch: &Batch, samples: usize) {
    let queue = Arc::new(Queue::new(8 << 20));
    let router = router(&queue);
    let mut values = 0;
    let began = Instant::now();
    for round in 0..samples / BATCH {
        router.route(batch.clone(), round as u64);
        router.slot_end();
        if (round + 1) % (FORM.samples / BATCH) == 0 {
            let taken = queue.take(&FORM).unwrap();
            values += taken.columns().values.len();
            queue.settle(taken.bytes());
        }
    }
    let took = began.elapsed();
    assert_eq!(values + queue.len(), samples);
    speed("router to handler, in memory", per_second(samples, took), "/s", Some(1e6));
}

/// The wasm graphite handler, and beside it a program of its own that writes the same lines.
fn through_graphite(batch: &Batch, samples: usize) {
    let (mut ours, mut natives) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(per_second(samples, wasm(batch, samples)));
        natives.push(per_second(samples, native(batch, samples)));
    }
    let (ours, native) = (quantile(&mut ours, 0.5), quantile(&mut natives, 0.5));
    speed("through the wasm graphite handler to loopback, median", ours, "/s", Some(250e3));
    speed("native sender to loopback, median", native, "/s", None);
    figure("time for a sample, wasm : native", native / ours, "x", None);
}

fn wasm(batch: &Batch, samples: usize) -> Duration {
    let sink = Sink::start();
    let port = sink.port;
    let config = format!(
        "[handlers.graphite]\nsettings = {{ host = \"127.0.0.1\", port = {port} }}\n\
         grant = {{ tcp = [\"127.0.0.1:{port}\"] }}\n"
    );
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let parts = Parts::new(&config, clock.clone());
    let queue =
        Arc::new(Queue::new(usize::try_from(parts.config.handlers["graphite"].queue.memory).unwrap()));
    let router = router(&queue);
    runtime().block_on(async {
        let (commands, inbox) = mpsc::channel(1);
        tokio::spawn(parts.delivery("graphite", &queue).serve(inbox));
        let began = Instant::now();
        for _ in 0..samples / BATCH {
            while queue.len() > 2 * FORM.samples {
                tokio::task::yield_now().await;
            }
            router.route(batch.clone(), clock.monotonic_ms());
            router.slot_end();
        }
        while sink.lines() < samples as u64 {
            tokio::task::yield_now().await;
        }
        let took = began.elapsed();
        drop(commands);
        took
    })
}

fn native(batch: &Batch, samples: usize) -> Duration {
    let sink = Sink::start();
    let mut stream = TcpStream::connect(("127.0.0.1", sink.port)).unwrap();
    let mut lines = Vec::new();
    let began = Instant::now();
    for round in 1..=samples / BATCH {
        for Sample { series, timestamp, value } in &batch.samples {
            writeln!(lines, "servers.web-1.{} {value} {}", series.name, timestamp / 1000).unwrap();
        }
        if round % (FORM.samples / BATCH) == 0 || round == samples / BATCH {
            stream.write_all(&lines).unwrap();
            lines.clear();
        }
    }
    while sink.lines() < samples as u64 {
        thread::yield_now();
    }
    began.elapsed()
}

/// With the default policy: what one spill writes is forced to disk as one.
fn through_the_spool(batch: &Batch, samples: usize) {
    let dir = TempDir::new();
    let defaults = QueueConfig::default();
    let config = SpoolConfig { disk: 1 << 40, age: defaults.age, fsync: defaults.fsync };
    let outgoing = Outgoing::new(batch.clone(), 0);
    for spill in [10, 100] {
        let path = dir.path().join(format!("spool-{spill}"));
        let mut spool = Spool::open(path.clone(), config).unwrap();
        let began = Instant::now();
        for round in 1..=samples / BATCH {
            spool.append(&outgoing, 0).unwrap();
            if round % spill == 0 {
                spool.sync().unwrap();
            }
        }
        spool.sync().unwrap();
        let written = per_second(samples, began.elapsed());
        let bytes = spool.bytes() as f64 / samples as f64;
        let mut spool = Spool::open(path, config).unwrap();
        let began = Instant::now();
        let mut read = 0;
        while let Some((outgoing, _)) = spool.load(0).unwrap() {
            read += outgoing.len();
            spool.acknowledge();
        }
        let took = began.elapsed();
        assert_eq!(read, samples);
        let size = spill * BATCH;
        speed(&format!("spool: written, forced to disk every {size} samples"), written, "/s", Some(200e3));
        speed("spool: read", per_second(samples, took), "/s", Some(200e3));
        note(&format!("    {bytes:.1} bytes for a sample"));
    }
}
