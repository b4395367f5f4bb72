//! What block devices did, how long it took and how busy they were, from /proc/diskstats.
//!
//! All figures are about the time between two readings; the agent keeps the previous one.

use collector_parts::{ByteUnit, Kept};
use kimberlite_plugin_sdk::{Collector, Context, Error, Result, Run, Series, Settings};
use kimberlite_plugin_sdk::{export_collector, host_stats};
use regex_lite::Regex;

mod activity;

use activity::{Activity, Columns};

struct DiskUsage {
    wanted: Regex,
    unwanted: Option<Regex>,
    sector_size: f64,
    send_zero: bool,
    units: Vec<ByteUnit>,
    /// By device; none: it is not taken.
    devices: Kept<Option<Device>>,
}

/// The series of a device, in the order of its figures; empty until the first time they are needed.
type Device = Vec<Series>;

impl Collector for DiskUsage {
    fn new(settings: &Settings) -> Result<Self> {
        let sector_size: u32 = settings.require("sector_size")?;
        Ok(Self {
            wanted: pattern("devices", settings.require("devices")?)?,
            unwanted: match settings.require("exclude_devices")? {
                "" => None,
                text => Some(pattern("exclude_devices", text)?),
            },
            sector_size: sector_size.into(),
            send_zero: settings.require("send_zero")?,
            units: ByteUnit::listed(settings)?,
            devices: Kept::new(),
        })
    }

    fn collect(&mut self, run: &mut Run) -> Result<()> {
        let view = host_stats::disk()?;
        let columns = Columns::of(&view.now).context("the agent's table of disks lacks a column")?;
        let seconds = view.elapsed.unwrap_or_default().as_secs_f64();
        let mut any = false;
        for row in view.now.rows() {
            let is_taken = || is_taken(row.key(), &self.wanted, self.unwanted.as_ref());
            let Some(device) = self.devices.get(row.key(), || is_taken().then(Device::new)) else { continue };
            any = true;
            let activity = view
                .previous_row(&row)
                .and_then(|previous| Activity::between(&previous, &row, &columns, seconds))
                .filter(|activity| self.send_zero || activity.io() > 0.0);
            if let Some(activity) = activity {
                if device.is_empty() {
                    *device = series(row.key(), &activity, &self.units);
                }
                record(device, &activity, self.sector_size, self.units.len(), run);
            }
        }
        if !any {
            return Err(Error::absent(
                "/proc/diskstats has no device that `devices` and `exclude_devices` take",
            ));
        }
        for gone in self.devices.sweep().flatten() {
            gone.iter().for_each(|series| run.forget(series));
        }
        Ok(())
    }
}

export_collector!(DiskUsage);

/// Matches from the beginning of a name, as Diamond does.
fn pattern(key: &str, text: &str) -> Result<Regex> {
    Regex::new(&format!("^(?:{text})")).map_err(|error| Error::setting(key, format!("\"{text}\": {error}")))
}

fn is_taken(device: &str, wanted: &Regex, unwanted: Option<&Regex>) -> bool {
    !device.starts_with("ram")
        && !device.starts_with("loop")
        && wanted.is_match(device)
        && !unwanted.is_some_and(|unwanted| unwanted.is_match(device))
}

/// The series of a device's figures, whatever their values.
fn series(device: &str, activity: &Activity, units: &[ByteUnit]) -> Device {
    let path = format!("iostat.{}", device.replace('/', "_"));
    let figures = activity.figures();
    let mut series: Device =
        figures.iter().map(|f| Series::gauge(format!("{path}.{}", f.name)).unit(f.unit)).collect();
    for unit in units {
        series.extend(activity.byte_figures(0.0).iter().map(|f| {
            let name = format!("{path}.{}{}{}", f.name.0, unit.name, f.name.1);
            Series::gauge(name).unit(format!("{}{}", unit.name, f.per)).scale(unit.per_byte)
        }));
    }
    series
}

fn record(device: &Device, activity: &Activity, sector_size: f64, units: usize, run: &mut Run) {
    let figures = activity.figures().map(|figure| figure.value);
    let bytes = activity.byte_figures(sector_size).map(|figure| figure.bytes);
    let values = figures.into_iter().chain(std::iter::repeat_n(bytes, units).flatten());
    for (series, value) in device.iter().zip(values) {
        run.record(series, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_plugin_sdk::Kind;
    use kimberlite_plugin_sdk::testing::{Collect, Recorded, TableBuilder, set_host_stats, table};

    const DEVICES: &str =
        r"sd[a-z]+[0-9]*$|x?vd[a-z]+[0-9]*$|nvme[0-9]+n[0-9]+(p[0-9]+)?$|dm\-[0-9]+$|cciss/";

    fn defaults() -> Settings {
        Settings::new()
            .with("devices", DEVICES)
            .with("exclude_devices", "")
            .with("sector_size", 512)
            .with("send_zero", false)
            .with("byte_unit", ["byte"])
    }

    fn collect(settings: &Settings) -> Collect {
        Collect::new::<DiskUsage>(settings).unwrap()
    }

    /// The columns as the agent has them, which is not the order of `Activity`.
    fn diskstats() -> TableBuilder {
        table([
            "major",
            "minor",
            "reads",
            "reads_merged",
            "reads_sectors",
            "reads_milliseconds",
            "writes",
            "writes_merged",
            "writes_sectors",
            "writes_milliseconds",
            "io_in_progress",
            "io_milliseconds",
            "io_milliseconds_weighted",
        ])
    }

    const BEFORE: [f64; 13] =
        [8.0, 0.0, 100.0, 10.0, 2000.0, 500.0, 200.0, 20.0, 4000.0, 1000.0, 0.0, 300.0, 1500.0];
    /// 50 reads and 150 writes later.
    const AFTER: [f64; 13] =
        [8.0, 0.0, 150.0, 15.0, 2800.0, 700.0, 350.0, 50.0, 7200.0, 2000.0, 3.0, 1300.0, 3500.0];

    /// What is recorded of a device that goes from `before` to `after` in ten seconds.
    fn recorded(settings: &Settings, device: &str, before: [f64; 13], after: [f64; 13]) -> Recorded {
        let mut collect = collect(settings);
        set_host_stats("disk", diskstats().row(device, before));
        collect.run(0).unwrap();
        set_host_stats("disk", diskstats().row(device, after));
        collect.run(10_000).unwrap()
    }

    #[test]
    fn every_figure_is_what_diamond_makes_of_the_differences() {
        let recorded = recorded(&defaults(), "sda", BEFORE, AFTER);
        let expected = [
            ("reads", 50.0),
            ("reads_merged", 5.0),
            ("reads_milliseconds", 200.0),
            ("writes", 150.0),
            ("writes_merged", 30.0),
            ("writes_milliseconds", 1000.0),
            ("io_milliseconds", 1000.0),
            ("io_milliseconds_weighted", 2000.0),
            ("io_in_progress", 3.0),
            ("reads_per_second", 5.0),
            ("writes_per_second", 15.0),
            ("read_requests_merged_per_second", 0.5),
            ("write_requests_merged_per_second", 3.0),
            ("io", 200.0),
            ("iops", 20.0),
            ("average_queue_length", 0.2),
            ("util_percentage", 10.0),
            ("read_await", 4.0),
            ("write_await", 1000.0 / 150.0),
            ("await", 6.0),
            ("service_time", 5.0),
            ("concurrent_io", 0.1),
            ("reads_byte", 800.0 * 512.0),
            ("writes_byte", 3200.0 * 512.0),
            ("read_byte_per_second", 40_960.0),
            ("write_byte_per_second", 163_840.0),
            ("average_request_size_byte", 10_240.0),
        ];
        assert_eq!(recorded.names(), expected.map(|(name, _)| format!("iostat.sda.{name}")));
        for (sample, (name, value)) in recorded.samples().zip(expected) {
            assert_eq!(recorded.value(sample.name()), Some(value), "{name}");
            assert_eq!(sample.kind(), Kind::Gauge, "{name}");
        }
        assert_eq!(recorded.sample("iostat.sda.read_byte_per_second").unwrap().unit(), "byte/s");
    }

    #[test]
    fn each_unit_is_made_of_bytes_and_not_of_the_unit_before() {
        let settings = defaults().with("byte_unit", ["kilobyte", "bit"]);
        let recorded = recorded(&settings, "sda", BEFORE, AFTER);
        assert_eq!(recorded.names().len(), 22 + 2 * 5);
        assert_eq!(recorded.value("iostat.sda.reads_kilobyte"), Some(400.0));
        assert_eq!(recorded.value("iostat.sda.reads_bit"), Some(800.0 * 4096.0));
        assert_eq!(recorded.value("iostat.sda.average_request_size_kilobyte"), Some(10.0));
    }

    #[test]
    fn sector_may_have_any_size() {
        let recorded = recorded(&defaults().with("sector_size", 4096), "sda", BEFORE, AFTER);
        assert_eq!(recorded.value("iostat.sda.reads_byte"), Some(800.0 * 4096.0));
    }

    #[test]
    fn first_run_and_new_device_publish_nothing() {
        let mut collect = collect(&defaults().with("send_zero", true));
        set_host_stats("disk", diskstats().row("sda", AFTER));
        assert!(collect.run(0).unwrap().names().is_empty());
        set_host_stats("disk", diskstats().row("sdb", AFTER).row("sda", AFTER));
        let recorded = collect.run(10_000).unwrap();
        assert!(recorded.names().iter().all(|name| name.starts_with("iostat.sda.")));
        assert_eq!(recorded.names().len(), 27);
    }

    #[test]
    fn idle_device_is_published_only_with_send_zero() {
        assert!(recorded(&defaults(), "sda", AFTER, AFTER).names().is_empty());
        let recorded = recorded(&defaults().with("send_zero", true), "sda", AFTER, AFTER);
        assert_eq!(recorded.value("iostat.sda.io_in_progress"), Some(3.0));
        for name in
            ["io", "await", "read_await", "service_time", "average_request_size_byte", "concurrent_io"]
        {
            assert_eq!(recorded.value(&format!("iostat.sda.{name}")), Some(0.0), "{name}");
        }
    }

    #[test]
    fn device_whose_counters_fell_publishes_nothing_this_time() {
        let mut collect = collect(&defaults());
        for (due, row) in [(0, AFTER), (10_000, BEFORE), (20_000, AFTER)] {
            set_host_stats("disk", diskstats().row("sda", row).row("sdb", row.map(|n| n + due as f64)));
            let recorded = collect.run(due).unwrap();
            assert_eq!(recorded.value("iostat.sda.io").is_some(), due == 20_000);
            assert_eq!(recorded.value("iostat.sdb.io").is_some(), due > 0);
        }
    }

    #[test]
    fn two_runs_at_one_instant_publish_nothing() {
        let mut collect = collect(&defaults().with("send_zero", true));
        set_host_stats("disk", diskstats().row("sda", BEFORE));
        collect.run(10_000).unwrap();
        assert!(collect.run(10_000).unwrap().names().is_empty());
    }

    #[test]
    fn wrap_of_32_bits_is_seen_through_where_it_is_possible() {
        let (mut before, mut after) = (BEFORE, AFTER);
        before[11] = 4_294_967_000.0;
        after[11] = 704.0;
        let wrapped = recorded(&defaults(), "sda", before, after);
        assert_eq!(wrapped.value("iostat.sda.io_milliseconds"), Some(1000.0));

        before[11] = 4_000_000_000.0;
        assert!(recorded(&defaults(), "sda", before, after).names().is_empty());
        before[11] = 4_294_967_296.0;
        assert!(recorded(&defaults(), "sda", before, after).names().is_empty());
    }

    #[test]
    fn devices_match_from_the_beginning_and_slashes_become_underscores() {
        let names = |settings: &Settings| {
            let rows = |row: [f64; 13]| {
                ["ram0", "loop1", "hdsda", "sda1", "nvme0n1p2", "dm-0", "dm-0x", "cciss/c0d0"]
                    .into_iter()
                    .fold(diskstats(), |table, device| table.row(device, row))
            };
            let mut collect = collect(settings);
            set_host_stats("disk", rows(BEFORE));
            collect.run(0).unwrap();
            set_host_stats("disk", rows(AFTER));
            let recorded = collect.run(10_000).unwrap();
            let names = recorded.names();
            names.iter().filter_map(|name| Some(name.strip_suffix(".iops")?.to_owned())).collect::<Vec<_>>()
        };
        let all = ["iostat.sda1", "iostat.nvme0n1p2", "iostat.dm-0", "iostat.cciss_c0d0"];
        assert_eq!(names(&defaults()), all);
        assert_eq!(names(&defaults().with("exclude_devices", "sda|0n1|dm")), [all[1], all[3]]);
        let any = names(&defaults().with("devices", ".*").with("exclude_devices", "nvme|cciss"));
        assert_eq!(any, ["iostat.hdsda", all[0], all[2], "iostat.dm-0x"]);
    }

    #[test]
    fn machine_without_disks_has_nothing_to_measure() {
        for table in [diskstats(), diskstats().row("loop0", BEFORE)] {
            set_host_stats("disk", table);
            assert!(collect(&defaults()).run(0).unwrap_err().is_absent());
        }
    }

    #[test]
    fn faulty_expression_is_refused() {
        for key in ["devices", "exclude_devices"] {
            let error = Collect::new::<DiskUsage>(&defaults().with(key, "sd[a")).unwrap_err();
            assert_eq!(error.setting_key(), Some(key));
        }
    }

    #[test]
    fn steady_state_describes_nothing() {
        let mut collect = collect(&defaults());
        let mut described = Vec::new();
        for run in 0..4 {
            set_host_stats("disk", diskstats().row("sda", AFTER.map(|n| n * f64::from(run))));
            described.push(collect.run(u64::from(run as u32) * 10_000).unwrap().described().len());
        }
        assert_eq!(described, [0, 27, 0, 0]);
    }
}
