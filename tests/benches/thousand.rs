//! A thousand collectors of a hundred samples each, every second. `BENCH_SECONDS` says for how long (20).

use std::thread;
use std::time::Duration;

use kimberlite_tests::{Agent, TempDir};

use crate::canonical::pid;
use crate::process::{Process, mib};
use crate::report::{Goal, figure, note, spread, title};
use crate::sink::Sink;
use crate::{component, setting};

/// How often the lateness of each collector's last run is looked at. Looking costs the agent time, so
/// the run right behind it is let go by.
const LOOKS: usize = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(2500);

pub(crate) fn run() {
    let seconds = setting("BENCH_SECONDS", 20);
    title(&format!("thousand: 1,000 collectors of 100 samples, 1 s, for {seconds} s"));
    let file = component::bench_collector();

    let one = Thousand::start(&file, 1, 1, None);
    let alone = one.process.resident();
    drop(one);
    let idle = Thousand::start(&file, 1000, 1, None);
    let each = (idle.process.resident() - alone) / 999.0 / 1024.0;
    drop(idle);
    figure("resident, one collector of 1 sample", mib(alone), "MiB", None);
    figure("resident, each further one", each, "KiB", Some(48.0));

    let full = Thousand::start(&file, 1000, 100, None);
    let cpu = full.cpu_percent(seconds);
    let mut late = full.lateness();
    figure("no handler: CPU", cpu, "%", Some(10.0));
    spread("no handler: start after the slot", &mut late, "ms", Goal::Of(0.99, 5.0));
    full.memory("no handler");
    full.skipped();
    drop(full);

    let sink = Sink::start();
    let full = Thousand::start(&file, 1000, 100, Some(&sink));
    let before = sink.lines();
    let cpu = full.cpu_percent(seconds);
    let delivered = (sink.lines() - before) as f64 / seconds as f64;
    let mut late = full.lateness();
    figure("to Graphite: samples delivered per second", delivered, "", None);
    figure("to Graphite: CPU", cpu, "%", None);
    spread("to Graphite: start after the slot", &mut late, "ms", Goal::None);
    full.memory("to Graphite");
    full.skipped();
}

/// An agent with so many collectors, all of which have run.
struct Thousand {
    agent: Agent,
    process: Process,
}

impl Thousand {
    fn start(file: &str, collectors: usize, samples: usize, sink: Option<&Sink>) -> Self {
        let mut config = String::new();
        if let Some(Sink { port, .. }) = sink {
            config += &format!(
                "[handlers.graphite]\nsettings = {{ host = \"127.0.0.1\", port = {port} }}\n\
                 grant = {{ tcp = [\"127.0.0.1:{port}\"] }}\n\n"
            );
        }
        for i in 0..collectors {
            config += &format!(
                "[collectors.c{i:03}]\nplugin = {{ file = {file:?} }}\ninterval = \"1s\"\n\
                 settings = {{ prefix = \"c{i:03}\", count = {samples} }}\n\n"
            );
        }
        let agent = Agent::start_in(TempDir::new(), &component::kimberlite(), "", &config);
        agent.wait("every collector has run", |agent| (agent.get("/-/ready")?.0 == 200).then_some(()));
        thread::sleep(Duration::from_secs(5));
        let process = pid(&agent);
        thread::sleep(Duration::from_secs(2));
        Self { agent, process }
    }

    /// Of one core.
    fn cpu_percent(&self, seconds: u64) -> f64 {
        let before = self.process.counters();
        thread::sleep(Duration::from_secs(seconds));
        let after = self.process.counters();
        let switches: u64 = after.switches_since(&before).iter().map(|(_, count)| count).sum();
        note(&format!("    {:.1} context switches per second", switches as f64 / seconds as f64));
        100.0 * after.cpu_since(&before).as_secs_f64() / seconds as f64
    }

    /// Of many runs of all collectors, in milliseconds.
    fn lateness(&self) -> Vec<f64> {
        let mut late = Vec::new();
        for _ in 0..LOOKS {
            thread::sleep(BETWEEN_LOOKS);
            let plugins = self.agent.plugins();
            let collectors = plugins.iter().filter(|plugin| plugin.0["kind"] == "collector");
            late.extend(collectors.filter_map(|plugin| Some(1e3 * plugin.0["lateness"]["last"].as_f64()?)));
        }
        late
    }

    fn memory(&self, what: &str) {
        figure(&format!("{what}: resident"), mib(self.process.resident()), "MiB", Some(64.0));
        let sum =
            |name: &str| self.agent.plugins().iter().map(|plugin| plugin.figure(name)).sum::<u64>() as f64;
        let (linear, durable) = (sum("memory_now"), sum("durable_bytes"));
        note(&format!(
            "    anonymous {:.1} MiB, of files {:.1} MiB; linear memory as declared {:.1} MiB; series {:.1} MiB",
            mib(self.process.memory("RssAnon")),
            mib(self.process.memory("RssFile")),
            mib(linear),
            mib(durable)
        ));
    }

    fn skipped(&self) {
        let skipped: u64 = self.agent.plugins().iter().map(|plugin| plugin.figure("skipped")).sum();
        note(&format!("    {skipped} runs were skipped since the start"));
    }
}
