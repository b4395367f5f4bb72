//! Load averages and numbers of processes, from /proc/loadavg.

use kimberlite_plugin_sdk::host_stats::{self, Row};
use kimberlite_plugin_sdk::{Collector, Error, Result, Run, Series, Settings, export_collector};

struct LoadAverage {
    averages: Vec<Average>,
    running: Series,
    total: Series,
}

/// One of the kernel's averages.
struct Average {
    column: &'static str,
    load: Series,
    /// Divided by the number of CPUs.
    normalized: Series,
}

impl Collector for LoadAverage {
    fn new(settings: &Settings) -> Result<Self> {
        let averages = match settings.require("simple")? {
            true => vec![Average::new("01", "load")],
            false => ["01", "05", "15"].map(|column| Average::new(column, column)).into(),
        };
        Ok(Self {
            averages,
            running: Series::gauge("loadavg.processes_running"),
            total: Series::gauge("loadavg.processes_total"),
        })
    }

    fn collect(&mut self, run: &mut Run) -> Result<()> {
        let view = host_stats::load()?;
        let row = view.now.row("load").ok_or_else(|| Error::absent("/proc/loadavg says nothing"))?;
        for average in &self.averages {
            average.record(&row, run);
        }
        for (series, column) in [(&self.running, "running"), (&self.total, "total")] {
            if let Some(processes) = row.number(column) {
                run.record(series, processes);
            }
        }
        Ok(())
    }
}

export_collector!(LoadAverage);

impl Average {
    fn new(column: &'static str, name: &str) -> Self {
        Self {
            column,
            load: Series::gauge(format!("loadavg.{name}")),
            normalized: Series::gauge(format!("loadavg.{name}_normalized")),
        }
    }

    fn record(&self, row: &Row<'_>, run: &mut Run) {
        let Some(load) = row.number(self.column) else { return };
        run.record(&self.load, load);
        if let Some(cpus) = row.number("cpus").filter(|cpus| *cpus > 0.0) {
            run.record(&self.normalized, load / cpus);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_plugin_sdk::testing::{Collect, Recorded, TableBuilder, set_host_stats, table};

    fn recorded(simple: bool, load: TableBuilder) -> Recorded {
        set_host_stats("load", load);
        let mut collect = Collect::new::<LoadAverage>(&Settings::new().with("simple", simple)).unwrap();
        collect.run(0).unwrap()
    }

    fn columns() -> TableBuilder {
        table(["01", "05", "15", "running", "total", "cpus"])
    }

    #[test]
    fn averages_come_as_they_are_and_by_cpu() {
        let recorded = recorded(false, columns().row("load", [0.12, 0.25, 0.5, 1.0, 235.0, 2.0]));
        let expected = [
            ("loadavg.01", 0.12),
            ("loadavg.01_normalized", 0.06),
            ("loadavg.05", 0.25),
            ("loadavg.05_normalized", 0.125),
            ("loadavg.15", 0.5),
            ("loadavg.15_normalized", 0.25),
            ("loadavg.processes_running", 1.0),
            ("loadavg.processes_total", 235.0),
        ];
        assert_eq!(recorded.names(), expected.map(|(name, _)| name));
        for (name, value) in expected {
            assert_eq!(recorded.value(name), Some(value), "{name}");
        }
    }

    #[test]
    fn simple_is_the_average_of_one_minute() {
        let recorded = recorded(true, columns().row("load", [3.0, 0.25, 0.5, 1.0, 235.0, 4.0]));
        assert_eq!(recorded.value("loadavg.load"), Some(3.0));
        assert_eq!(recorded.value("loadavg.load_normalized"), Some(0.75));
        assert_eq!(recorded.names().len(), 4);
    }

    #[test]
    fn unknown_number_of_cpus_leaves_the_normalized_ones_out() {
        let recorded = recorded(false, columns().row("load", [0.12, 0.25, 0.5, 1.0, 235.0]));
        assert_eq!(recorded.names().len(), 5);
        assert_eq!(recorded.value("loadavg.01"), Some(0.12));
    }

    #[test]
    fn machine_without_loadavg_has_nothing_to_measure() {
        set_host_stats("load", columns());
        let mut collect = Collect::new::<LoadAverage>(&Settings::new().with("simple", false)).unwrap();
        assert!(collect.run(0).unwrap_err().is_absent());
    }
}
