//! CPU time by state, in all and for each core, from /proc/stat.
//!
//! Totals go out as the kernel has them and the agent makes rates of them; normalising is a scale of
//! the series, so that a core that comes or goes breaks no rate.

use std::mem;

use collector_parts::Kept;
use kimberlite_plugin_sdk::host_stats::{self, View};
use kimberlite_plugin_sdk::{Collector, Error, Result, Run, Series, Settings, export_collector};

/// The states, as /proc/stat orders them. Older kernels have fewer.
const STATES: [&str; 10] =
    ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];

/// The row of all CPUs together.
const TOTAL: &str = "total";

struct Cpu {
    percore: bool,
    simple: bool,
    normalize: bool,
    derivative: bool,
    percent: Series,
    cpu_count: Series,
    /// By row.
    lines: Kept<Line>,
}

struct Line {
    /// What its values are divided by.
    divisor: usize,
    /// In the order of `STATES`.
    series: Vec<Series>,
}

impl Collector for Cpu {
    fn new(settings: &Settings) -> Result<Self> {
        Ok(Self {
            percore: settings.require("percore")?,
            simple: settings.require("simple")?,
            normalize: settings.require("normalize")?,
            derivative: settings.require("derivative")?,
            percent: Series::gauge("cpu.percent").unit("percent"),
            cpu_count: Series::gauge("cpu.cpu_count"),
            lines: Kept::new(),
        })
    }

    fn collect(&mut self, run: &mut Run) -> Result<()> {
        let view = host_stats::cpu()?;
        if view.now.is_empty() {
            return Err(Error::absent("/proc/stat says nothing of CPUs"));
        }
        if self.simple {
            if let Some(percent) = busy_percent(&view) {
                run.record(&self.percent, percent);
            }
            return Ok(());
        }
        let cores = view.now.rows().filter(|row| row.key() != TOTAL).count();
        run.record(&self.cpu_count, cores);
        let total_divisor = if self.normalize { cores.max(1) } else { 1 };
        let columns = STATES.map(|state| view.now.column(state));
        for row in view.now.rows().filter(|row| self.percore || row.key() == TOTAL) {
            let divisor = if row.key() == TOTAL { total_divisor } else { 1 };
            let make = || Line::new(row.key(), self.derivative, divisor);
            let line = self.lines.get(row.key(), make);
            if line.divisor != divisor {
                // Described anew under the same name, it keeps its previous reading.
                mem::replace(line, make()).forget(run);
            }
            for (series, column) in line.series.iter().zip(columns) {
                if let Some(ticks) = column.and_then(|column| row.get(column)) {
                    run.record(series, ticks);
                }
            }
        }
        for gone in self.lines.sweep() {
            gone.forget(run);
        }
        Ok(())
    }
}

export_collector!(Cpu);

impl Line {
    fn new(row: &str, derivative: bool, divisor: usize) -> Self {
        let series = |state| {
            let name = format!("cpu.{row}.{state}");
            let series = Series::counter(name).unit("tick").scale(1.0 / divisor as f64);
            if derivative { series } else { series.total() }
        };
        Self { divisor, series: STATES.into_iter().map(series).collect() }
    }

    fn forget(&self, run: &mut Run) {
        self.series.iter().for_each(|series| run.forget(series));
    }
}

/// How busy all CPUs together were between the two readings, by Diamond's four states; none at a
/// first run, and where a counter went backwards or none moved.
fn busy_percent(view: &View) -> Option<f64> {
    let now = view.now.row(TOTAL)?;
    let previous = view.previous_row(&now)?;
    let difference = |state| Some(now.number(state)? - previous.number(state)?).filter(|ticks| *ticks >= 0.0);
    let idle = difference("idle")?;
    let all = difference("user")? + difference("nice")? + difference("system")? + idle;
    (all > 0.0).then(|| 100.0 - 100.0 * idle / all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_plugin_sdk::Kind;
    use kimberlite_plugin_sdk::testing::{Collect, Recorded, TableBuilder, set_host_stats, table};

    fn collect(changed: &[(&str, bool)]) -> Collect {
        let defaults = [("percore", true), ("simple", false), ("normalize", false), ("derivative", true)];
        let settings = defaults.iter().chain(changed).fold(Settings::new(), |s, (key, on)| s.with(*key, *on));
        Collect::new::<Cpu>(&settings).unwrap()
    }

    fn stat() -> TableBuilder {
        table(STATES)
    }

    /// Two cores; the total is their sum.
    fn two_cores(total_user: f64) -> TableBuilder {
        stat()
            .row("total", [total_user, 2.0, 30.0, 400.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
            .row("cpu0", [60.0, 1.0, 20.0, 300.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
            .row("cpu1", [40.0, 1.0, 10.0, 100.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    }

    fn kind_of(recorded: &Recorded, name: &str) -> Option<Kind> {
        recorded.sample(name).map(|sample| sample.kind())
    }

    #[test]
    fn every_state_of_every_row_is_a_counter_that_leaves_as_a_rate() {
        set_host_stats("cpu", two_cores(100.0));
        let recorded = collect(&[]).run(0).unwrap();
        assert_eq!(recorded.names().len(), 3 * 10 + 1);
        assert_eq!(recorded.value("cpu.total.user"), Some(100.0));
        assert_eq!(recorded.value("cpu.total.guest_nice"), Some(10.0));
        assert_eq!(recorded.value("cpu.cpu0.idle"), Some(300.0));
        assert_eq!(recorded.value("cpu.cpu1.steal"), Some(2.0));
        assert_eq!(recorded.value("cpu.cpu_count"), Some(2.0));
        assert_eq!(kind_of(&recorded, "cpu.total.user"), Some(Kind::Rate));
        assert_eq!(kind_of(&recorded, "cpu.cpu_count"), Some(Kind::Gauge));
        assert_eq!(recorded.sample("cpu.total.user").unwrap().unit(), "tick");
    }

    #[test]
    fn second_run_describes_nothing() {
        set_host_stats("cpu", two_cores(100.0));
        let mut collect = collect(&[]);
        assert_eq!(collect.run(0).unwrap().described().len(), 31);
        assert!(collect.run(10_000).unwrap().described().is_empty());
    }

    #[test]
    fn without_percore_only_the_total_is_published() {
        set_host_stats("cpu", two_cores(100.0));
        let recorded = collect(&[("percore", false)]).run(0).unwrap();
        assert_eq!(recorded.names().len(), 11);
        assert_eq!(recorded.value("cpu.cpu0.user"), None);
        assert_eq!(recorded.value("cpu.cpu_count"), Some(2.0));
    }

    #[test]
    fn normalize_divides_the_total_and_not_the_cores() {
        set_host_stats("cpu", two_cores(100.0));
        let mut collect = collect(&[("normalize", true)]);
        let recorded = collect.run(0).unwrap();
        assert_eq!(recorded.value("cpu.total.user"), Some(50.0));
        assert_eq!(recorded.value("cpu.cpu0.user"), Some(60.0));
    }

    #[test]
    fn normalize_follows_a_core_that_goes_offline_with_a_new_scale() {
        set_host_stats("cpu", two_cores(100.0));
        let mut collect = collect(&[("normalize", true)]);
        collect.run(0).unwrap();
        set_host_stats("cpu", stat().row("total", [120.0]).row("cpu0", [60.0]));
        let recorded = collect.run(10_000).unwrap();
        assert_eq!(recorded.described().len(), 1);
        assert_eq!(recorded.value("cpu.total.user"), Some(120.0));
        assert_eq!(recorded.value("cpu.cpu_count"), Some(1.0));
    }

    #[test]
    fn core_that_comes_back_is_described_anew() {
        set_host_stats("cpu", two_cores(100.0));
        let mut collect = collect(&[]);
        collect.run(0).unwrap();
        set_host_stats("cpu", stat().row("total", [100.0]).row("cpu0", [60.0]));
        collect.run(10_000).unwrap();
        set_host_stats("cpu", two_cores(100.0));
        let recorded = collect.run(20_000).unwrap();
        assert!(recorded.described().iter().all(|name| name.starts_with("cpu.cpu1.")));
        assert_eq!(recorded.described().len(), 10);
    }

    #[test]
    fn without_derivative_the_totals_are_passed_on() {
        set_host_stats("cpu", two_cores(101.0));
        let recorded = collect(&[("derivative", false), ("normalize", true)]).run(0).unwrap();
        assert_eq!(kind_of(&recorded, "cpu.total.user"), Some(Kind::Counter));
        assert_eq!(recorded.value("cpu.total.user"), Some(50.5));
    }

    #[test]
    fn state_that_an_old_kernel_does_not_have_is_left_out() {
        set_host_stats("cpu", stat().row("total", [1.0, 2.0, 3.0, 4.0]));
        let recorded = collect(&[]).run(0).unwrap();
        assert_eq!(
            recorded.names(),
            ["cpu.cpu_count", "cpu.total.user", "cpu.total.nice", "cpu.total.system", "cpu.total.idle"]
        );
    }

    /// user, nice, system, idle; and an iowait that does not count.
    fn total(user: f64, nice: f64, system: f64, idle: f64) -> TableBuilder {
        stat().row("total", [user, nice, system, idle, user * 7.0])
    }

    #[test]
    fn simple_is_the_part_that_was_not_idle_between_two_runs() {
        let mut collect = collect(&[("simple", true)]);
        set_host_stats("cpu", total(100.0, 0.0, 50.0, 1000.0));
        assert!(collect.run(0).unwrap().names().is_empty());
        // 30 + 10 + 5 of 160 ticks were not idle.
        set_host_stats("cpu", total(130.0, 10.0, 55.0, 1115.0));
        let recorded = collect.run(10_000).unwrap();
        assert_eq!(recorded.names(), ["cpu.percent"]);
        assert_eq!(recorded.value("cpu.percent"), Some(28.125));
    }

    #[test]
    fn simple_says_nothing_of_a_reset_or_of_no_time() {
        let mut collect = collect(&[("simple", true)]);
        let (before, after) = ([100.0, 0.0, 50.0, 1000.0], [3.0, 0.0, 60.0, 1500.0]);
        for [user, nice, system, idle] in [before, after, after] {
            set_host_stats("cpu", total(user, nice, system, idle));
            assert!(collect.run(0).unwrap().names().is_empty());
        }
    }

    #[test]
    fn machine_without_proc_stat_has_nothing_to_measure() {
        set_host_stats("cpu", stat());
        assert!(collect(&[]).run(0).unwrap_err().is_absent());
        assert!(collect(&[("simple", true)]).run(0).unwrap_err().is_absent());
    }
}
