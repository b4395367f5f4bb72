//! Memory and swap, from /proc/meminfo.

use collector_parts::{ByteUnit, Kept};
use kimberlite_plugin_sdk::host_stats::{self, Table};
use kimberlite_plugin_sdk::{Collector, Error, Result, Run, Series, Settings, export_collector};

/// What is published without `detailed`.
const USUAL: [&str; 16] = [
    "MemTotal",
    "MemFree",
    "MemAvailable",
    "Buffers",
    "Cached",
    "Active",
    "Dirty",
    "Inactive",
    "Shmem",
    "SwapTotal",
    "SwapFree",
    "SwapCached",
    "VmallocTotal",
    "VmallocUsed",
    "VmallocChunk",
    "Committed_AS",
];

struct Memory {
    detailed: bool,
    unit: ByteUnit,
    used: Series,
    /// By line; none: it is not published.
    lines: Kept<Option<Series>>,
}

impl Collector for Memory {
    fn new(settings: &Settings) -> Result<Self> {
        let units = ByteUnit::listed(settings)?;
        let unit = units.into_iter().next();
        Ok(Self {
            detailed: settings.require("detailed")?,
            unit: unit.ok_or_else(|| Error::setting("byte_unit", "names no unit"))?,
            used: Series::gauge("memory.MemUsedPercentage").unit("percent"),
            lines: Kept::new(),
        })
    }

    fn collect(&mut self, run: &mut Run) -> Result<()> {
        let memory = host_stats::memory()?.now;
        let (Some(value), Some(kilobytes)) = (memory.column("value"), memory.column("kilobytes")) else {
            return Err(Error::failed("the agent's table of memory lacks `value` or `kilobytes`"));
        };
        if memory.is_empty() {
            return Err(Error::absent("/proc/meminfo says nothing"));
        }
        for row in memory.rows() {
            let is_wanted = || self.detailed || USUAL.contains(&row.key());
            let series = self.lines.get(row.key(), || is_wanted().then(|| amount(row.key(), &self.unit)));
            if let (Some(series), Some(value), Some(1.0)) = (series, row.get(value), row.get(kilobytes)) {
                run.record(series, value);
            }
        }
        if let Some(percent) = used_percent(&memory) {
            run.record(&self.used, percent);
        }
        for gone in self.lines.sweep().flatten() {
            run.forget(&gone);
        }
        Ok(())
    }
}

export_collector!(Memory);

/// The series of a line, whose values are in kilobytes as the file has them.
fn amount(line: &str, unit: &ByteUnit) -> Series {
    Series::gauge(format!("memory.{line}")).unit(&*unit.name).scale(1024.0 * unit.per_byte)
}

/// How much of the memory is not available, rounded to two decimals.
fn used_percent(memory: &Table) -> Option<f64> {
    let total = memory.row("MemTotal")?.number("value")?;
    let available = memory.row("MemAvailable")?.number("value")?;
    let percent = 100.0 * (total - available) / total;
    percent.is_finite().then(|| (percent * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_plugin_sdk::testing::{Collect, TableBuilder, set_host_stats, table};

    fn collect(detailed: bool, byte_unit: &[&str]) -> Collect {
        let settings = Settings::new().with("detailed", detailed).with("byte_unit", byte_unit.to_vec());
        Collect::new::<Memory>(&settings).unwrap()
    }

    fn meminfo() -> TableBuilder {
        table(["value", "kilobytes"])
            .row("MemTotal", [3000.0, 1.0])
            .row("MemFree", [500.0, 1.0])
            .row("MemAvailable", [1000.0, 1.0])
            .row("Active(anon)", [7.0, 1.0])
            .row("HugePages_Total", [4.0, 0.0])
    }

    #[test]
    fn usual_lines_are_published_in_bytes() {
        set_host_stats("memory", meminfo());
        let recorded = collect(false, &["byte"]).run(0).unwrap();
        assert_eq!(
            recorded.names(),
            ["memory.MemTotal", "memory.MemFree", "memory.MemAvailable", "memory.MemUsedPercentage"]
        );
        assert_eq!(recorded.value("memory.MemTotal"), Some(3_072_000.0));
        assert_eq!(recorded.sample("memory.MemTotal").unwrap().unit(), "byte");
    }

    #[test]
    fn detailed_adds_every_amount_and_no_bare_number() {
        set_host_stats("memory", meminfo());
        let recorded = collect(true, &["byte"]).run(0).unwrap();
        assert_eq!(recorded.value("memory.Active(anon)"), Some(7168.0));
        assert_eq!(recorded.value("memory.HugePages_Total"), None);
    }

    #[test]
    fn only_the_first_unit_counts() {
        set_host_stats("memory", meminfo());
        let recorded = collect(false, &["megabyte", "bit"]).run(0).unwrap();
        assert_eq!(recorded.value("memory.MemFree"), Some(500.0 / 1024.0));
        assert_eq!(recorded.sample("memory.MemFree").unwrap().unit(), "megabyte");
        assert_eq!(recorded.names().len(), 4);
    }

    #[test]
    fn used_percentage_has_two_decimals_and_needs_both_lines() {
        set_host_stats("memory", meminfo());
        let mut collect = collect(false, &["byte"]);
        assert_eq!(collect.run(0).unwrap().value("memory.MemUsedPercentage"), Some(66.67));
        set_host_stats("memory", table(["value", "kilobytes"]).row("MemTotal", [3000.0, 1.0]));
        assert_eq!(collect.run(10_000).unwrap().names(), ["memory.MemTotal"]);
        set_host_stats("memory", meminfo().row("MemTotal", [0.0, 1.0]));
        assert!(collect.run(20_000).is_ok());
    }

    #[test]
    fn second_run_describes_nothing() {
        set_host_stats("memory", meminfo());
        let mut collect = collect(true, &["byte"]);
        assert_eq!(collect.run(0).unwrap().described().len(), 5);
        assert!(collect.run(10_000).unwrap().described().is_empty());
    }

    #[test]
    fn machine_without_meminfo_has_nothing_to_measure() {
        set_host_stats("memory", table(["value", "kilobytes"]));
        assert!(collect(false, &["byte"]).run(0).unwrap_err().is_absent());
    }

    #[test]
    fn empty_list_of_units_is_refused() {
        let settings = Settings::new().with("detailed", false).with("byte_unit", Vec::<String>::new());
        assert_eq!(Collect::new::<Memory>(&settings).unwrap_err().setting_key(), Some("byte_unit"));
    }
}
