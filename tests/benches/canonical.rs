//! The canonical work: seven collectors every second to Graphite on loopback, beside the floor, at the
//! same time. `BENCH_SECONDS` says for how long (30).

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kimberlite_tests::{Agent, TempDir};

use crate::process::{Counters, Process, mib, micros, millis};
use crate::report::{figure, note, quantile, title};
use crate::sink::Sink;
use crate::{component, floor_at, setting};

const COLLECTORS: [&str; 7] = ["cpu", "memory", "loadavg", "diskusage", "diskspace", "network", "vmstat"];
const WARM_STARTS: usize = 7;

/// The process ends with this.
struct Floor(Child);

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What one of the two did within the same stretch of time.
struct Work {
    process: Process,
    sink: Sink,
    before: Counters,
    lines_before: u64,
}

/// What it cost.
struct Cost {
    samples: u64,
    cpu: Duration,
    switches: Vec<(String, u64)>,
}

impl Work {
    fn begin(process: Process, sink: Sink) -> Self {
        Self { process, lines_before: sink.lines(), before: process.counters(), sink }
    }

    fn cost(&self) -> Cost {
        let after = self.process.counters();
        Cost {
            samples: self.sink.lines() - self.lines_before,
            cpu: after.cpu_since(&self.before),
            switches: after.switches_since(&self.before),
        }
    }
}

impl Cost {
    fn per_sample(&self) -> f64 {
        micros(self.cpu) / self.samples as f64
    }

    fn switches(&self) -> u64 {
        self.switches.iter().map(|(_, count)| count).sum()
    }
}

pub(crate) fn run() {
    let seconds = setting("BENCH_SECONDS", 30);
    title(&format!("canonical: seven collectors, 1 s, Graphite on loopback, for {seconds} s"));

    // The first start fills the cache, if nobody has before.
    let mut dir = start(TempDir::new()).1.stop_and_keep().1;
    let mut warm = Vec::new();
    let (agent, sink) = loop {
        let (first, agent, sink) = start(dir);
        warm.push(millis(first));
        if warm.len() == WARM_STARTS {
            break (agent, sink);
        }
        dir = agent.stop_and_keep().1;
    };
    let floor_sink = Sink::start();
    let begun = Instant::now();
    let floor = Floor(floor_at(floor_sink.port).stdin(Stdio::null()).spawn().unwrap());
    let floor_first = floor_sink.first_after(begun);

    thread::sleep(Duration::from_secs(5));
    let agent_process = pid(&agent);
    let floor_work = Work::begin(Process(floor.0.id()), floor_sink);
    let agent_work = Work::begin(agent_process, sink);
    thread::sleep(Duration::from_secs(seconds));
    let (floor_cost, agent_cost) = (floor_work.cost(), agent_work.cost());

    let by_second = |count: u64| count as f64 / seconds as f64;
    for (who, cost) in [("floor", &floor_cost), ("agent", &agent_cost)] {
        figure(&format!("{who}: samples per second"), by_second(cost.samples), "", None);
        figure(&format!("{who}: CPU per second"), micros(cost.cpu) / seconds as f64, "µs", None);
        figure(&format!("{who}: CPU per sample"), cost.per_sample(), "µs", None);
    }
    figure(
        "CPU per sample, agent : floor",
        agent_cost.per_sample() / floor_cost.per_sample(),
        "x",
        Some(2.5),
    );
    figure("floor: context switches per second", by_second(floor_cost.switches()), "", None);
    figure("agent: context switches per second", by_second(agent_cost.switches()), "", Some(10.0));
    for (thread, count) in &agent_cost.switches {
        note(&format!("    {thread}: {:.1}", by_second(*count)));
    }
    figure("floor: resident", mib(floor_work.process.resident()), "MiB", None);
    figure("agent: resident", mib(agent_process.resident()), "MiB", Some(20.0));
    for line in ["VmHWM", "RssAnon", "RssFile"] {
        note(&format!("    {line}: {:.1} MiB", mib(agent_process.memory(line))));
    }
    figure("floor: first sample", millis(floor_first), "ms", None);
    figure("agent: first sample, warm cache, median", quantile(&mut warm, 0.5), "ms", Some(50.0));
    figure("agent: first sample, warm cache, best", quantile(&mut warm, 0.0), "ms", None);
}

/// Until the first sample has come.
fn start(dir: TempDir) -> (Duration, Agent, Sink) {
    let sink = Sink::start();
    let port = sink.port;
    let mut config = format!(
        "[handlers.graphite]\nsettings = {{ host = \"127.0.0.1\", port = {port} }}\n\
         grant = {{ tcp = [\"127.0.0.1:{port}\"] }}\n\n"
    );
    for name in collectors() {
        config += &format!("[collectors.{name}]\ninterval = \"1s\"\n\n");
    }
    let binary = component::kimberlite();
    let begun = Instant::now();
    let agent = Agent::start_in(dir, &binary, "", &config);
    (sink.first_after(begun), agent, sink)
}

/// `BENCH_COLLECTORS` names others: to see what one of them costs.
fn collectors() -> Vec<String> {
    let asked = std::env::var("BENCH_COLLECTORS").unwrap_or_else(|_| COLLECTORS.join(","));
    asked.split(',').map(str::to_owned).collect()
}

/// The agent's process, as it says itself.
pub(crate) fn pid(agent: &Agent) -> Process {
    let snapshot = agent.wait("the agent answers", |agent| agent.get("/api/v1/plugins"));
    let snapshot: serde_json::Value = serde_json::from_str(&snapshot.1).unwrap();
    Process(u32::try_from(snapshot["agent"]["pid"].as_u64().unwrap()).unwrap())
}
