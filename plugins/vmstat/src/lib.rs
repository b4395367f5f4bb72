//! Page faults, paging and swapping, from /proc/vmstat.

use kimberlite_plugin_sdk::host_stats;
use kimberlite_plugin_sdk::{Collector, Error, Result, Run, Series, Settings, export_collector};

/// The lines that are published, and what they count.
const LINES: [(&str, &str); 6] = [
    ("pgfault", "fault"),
    ("pgmajfault", "fault"),
    ("pgpgin", "kilobyte"),
    ("pgpgout", "kilobyte"),
    ("pswpin", "page"),
    ("pswpout", "page"),
];

struct VmStat {
    /// In the order of `LINES`.
    series: Vec<Series>,
}

impl Collector for VmStat {
    fn new(_settings: &Settings) -> Result<Self> {
        let series = |(line, unit)| Series::counter(format!("vmstat.{line}")).unit(unit);
        Ok(Self { series: LINES.into_iter().map(series).collect() })
    }

    fn collect(&mut self, run: &mut Run) -> Result<()> {
        let vmstat = host_stats::vmstat()?.now;
        if vmstat.is_empty() {
            return Err(Error::absent("/proc/vmstat says nothing"));
        }
        // One pass: the file has some 180 lines.
        for row in vmstat.rows() {
            let wanted = LINES.iter().position(|(line, _)| *line == row.key());
            if let (Some(place), Some(total)) = (wanted, row.number("value")) {
                run.record(&self.series[place], total);
            }
        }
        Ok(())
    }
}

export_collector!(VmStat);

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_plugin_sdk::Kind;
    use kimberlite_plugin_sdk::testing::{Collect, set_host_stats, table};

    #[test]
    fn six_lines_leave_as_rates() {
        let vmstat = table(["value"])
            .row("nr_free_pages", [9.0])
            .row("pgpgin", [1.0])
            .row("pgpgout", [2.0])
            .row("pswpin", [3.0])
            .row("pswpout", [4.0])
            .row("pgfault", [5.0])
            .row("pgmajfault", [6.0]);
        set_host_stats("vmstat", vmstat);
        let mut collect = Collect::new::<VmStat>(&Settings::new()).unwrap();
        let recorded = collect.run(0).unwrap();
        let lines = ["pgpgin", "pgpgout", "pswpin", "pswpout", "pgfault", "pgmajfault"];
        assert_eq!(recorded.names(), lines.map(|line| format!("vmstat.{line}")));
        assert!(recorded.samples().all(|sample| sample.kind() == Kind::Rate));
        assert_eq!(recorded.value("vmstat.pgmajfault"), Some(6.0));
        assert!(collect.run(10_000).unwrap().described().is_empty());
    }

    #[test]
    fn line_that_the_kernel_does_not_have_is_left_out() {
        set_host_stats("vmstat", table(["value"]).row("pgfault", [5.0]));
        let recorded = Collect::new::<VmStat>(&Settings::new()).unwrap().run(0).unwrap();
        assert_eq!(recorded.names(), ["vmstat.pgfault"]);
    }

    #[test]
    fn machine_without_vmstat_has_nothing_to_measure() {
        set_host_stats("vmstat", table(["value"]));
        assert!(Collect::new::<VmStat>(&Settings::new()).unwrap().run(0).unwrap_err().is_absent());
    }
}
