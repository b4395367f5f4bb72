//! Space and inodes of mounted file systems.

use collector_parts::{ByteUnit, Kept};
use kimberlite_plugin_sdk::host_stats::{self, Row};
use kimberlite_plugin_sdk::{Collector, Context, Error, Result, Run, Series, Settings, export_collector};
use regex_lite::Regex;

mod sizes;

use sizes::{Columns, Sizes};

struct DiskSpace {
    filesystems: Vec<String>,
    exclude_filters: Vec<Regex>,
    units: Vec<ByteUnit>,
    /// By mount point; only those that are taken.
    mounts: Kept<Mount>,
}

/// The series of a file system.
struct Mount {
    /// Of its device; its name if it is not empty.
    label: Box<str>,
    /// For each unit `Sizes::space`, then `Sizes::inodes`.
    series: Vec<Series>,
}

impl Collector for DiskSpace {
    fn new(settings: &Settings) -> Result<Self> {
        let filters: &[String] = settings.require("exclude_filters")?;
        Ok(Self {
            filesystems: settings.require::<&[String]>("filesystems")?.to_vec(),
            exclude_filters: filters.iter().map(|text| filter(text)).collect::<Result<_>>()?,
            units: ByteUnit::listed(settings)?,
            mounts: Kept::new(),
        })
    }

    fn collect(&mut self, run: &mut Run) -> Result<()> {
        let filesystems = host_stats::filesystem()?.now;
        let columns =
            Columns::of(&filesystems).context("the agent's table of file systems lacks a column")?;
        let mut seen = Vec::new();
        for row in filesystems.rows() {
            if !self.takes(&row) {
                continue;
            }
            let Some((device, sizes)) = columns.read(&row) else { continue };
            // Mounted a second time, it is the same space.
            if seen.contains(&device) {
                continue;
            }
            seen.push(device);
            let label = row.text("label").unwrap_or_default();
            let mount = self.mounts.get(row.key(), || Mount::new(row.key(), label, &self.units));
            if *mount.label != *label {
                mount.forget(run);
                *mount = Mount::new(row.key(), label, &self.units);
            }
            mount.record(&sizes, self.units.len(), run);
        }
        if seen.is_empty() {
            return Err(Error::absent("no mounted file system is of a type in `filesystems`"));
        }
        for gone in self.mounts.sweep() {
            gone.forget(run);
        }
        Ok(())
    }
}

export_collector!(DiskSpace);

fn filter(text: &str) -> Result<Regex> {
    Regex::new(text).map_err(|error| Error::setting("exclude_filters", format!("\"{text}\": {error}")))
}

impl DiskSpace {
    fn takes(&self, mount: &Row<'_>) -> bool {
        let device = mount.text("device").unwrap_or_default();
        let kind = mount.text("type").unwrap_or_default();
        self.filesystems.iter().any(|taken| taken == kind)
            && (device.contains(['/', ':']) || device == "tmpfs")
            && !self.exclude_filters.iter().any(|filter| filter.is_match(mount.key()))
    }
}

impl Mount {
    fn new(point: &str, label: &str, units: &[ByteUnit]) -> Self {
        let path = format!("diskspace.{}", if label.is_empty() { name(point) } else { label.to_owned() });
        let gauge = |metric: &str| Series::gauge(format!("{path}.{metric}"));
        let mut series = Vec::new();
        for ByteUnit { name, per_byte } in units {
            series.push(gauge(&format!("{name}_percentfree")).unit("percent"));
            for part in ["used", "free", "avail"] {
                series.push(gauge(&format!("{name}_{part}")).unit(name).scale(*per_byte));
            }
        }
        series.extend(["inodes_used", "inodes_free", "inodes_avail"].map(gauge));
        series.push(gauge("inodes_percentfree").unit("percent"));
        Self { label: label.into(), series }
    }

    fn record(&self, sizes: &Sizes, units: usize, run: &mut Run) {
        let values = std::iter::repeat_n(sizes.space(), units).flatten().chain(sizes.inodes());
        for (series, value) in self.series.iter().zip(values) {
            run.record(series, value);
        }
    }

    fn forget(&self, run: &mut Run) {
        self.series.iter().for_each(|series| run.forget(series));
    }
}

/// The name of a mount point, as one level of a metric's name: `/var/lib` is `_var_lib`.
fn name(point: &str) -> String {
    let name: String = point
        .chars()
        .filter(|c| *c != '\\')
        .map(|c| if c == '/' || c == '.' || c.is_whitespace() { '_' } else { c })
        .collect();
    match &*name {
        "_" => "root".to_owned(),
        "_tmp" => "tmp".to_owned(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_plugin_sdk::Kind;
    use kimberlite_plugin_sdk::testing::{Collect, Recorded, TableBuilder, set_host_stats, table};

    fn defaults() -> Settings {
        Settings::new()
            .with("filesystems", ["ext4", "nfs4", "btrfs"])
            .with("exclude_filters", ["^/export/home"])
            .with("byte_unit", ["byte"])
    }

    fn mounts() -> TableBuilder {
        table(["dev", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail"])
            .text_columns(["device", "type", "label"])
    }

    /// 1,000 blocks of 4 KiB, 250 of them free, 200 for everybody; 400 inodes, 100 and 90 free.
    fn sizes(dev: f64) -> [f64; 8] {
        [dev, 4096.0, 1000.0, 250.0, 200.0, 400.0, 100.0, 90.0]
    }

    fn recorded(settings: &Settings, mounts: TableBuilder) -> Recorded {
        set_host_stats("filesystem", mounts);
        Collect::new::<DiskSpace>(settings).unwrap().run(0).unwrap()
    }

    /// The names of the file systems that were taken.
    fn names(recorded: &Recorded) -> Vec<&str> {
        let metrics = recorded.names().into_iter().filter_map(|name| name.strip_suffix(".inodes_used"));
        metrics.filter_map(|name| name.strip_prefix("diskspace.")).collect()
    }

    #[test]
    fn space_and_inodes_of_a_file_system() {
        let recorded = recorded(&defaults(), mounts().row("/", sizes(1.0)).texts(["/dev/sda1", "ext4", ""]));
        let expected = [
            ("byte_percentfree", 25.0),
            ("byte_used", 750.0 * 4096.0),
            ("byte_free", 250.0 * 4096.0),
            ("byte_avail", 200.0 * 4096.0),
            ("inodes_used", 300.0),
            ("inodes_free", 100.0),
            ("inodes_avail", 90.0),
            ("inodes_percentfree", 25.0),
        ];
        assert_eq!(recorded.names(), expected.map(|(name, _)| format!("diskspace.root.{name}")));
        for (sample, (name, value)) in recorded.samples().zip(expected) {
            assert_eq!(recorded.value(sample.name()), Some(value), "{name}");
            assert_eq!(sample.kind(), Kind::Gauge, "{name}");
        }
    }

    #[test]
    fn space_comes_once_for_each_unit() {
        let settings = defaults().with("byte_unit", ["kilobyte", "gigabyte"]);
        let recorded = recorded(&settings, mounts().row("/", sizes(1.0)).texts(["/dev/sda1", "ext4", ""]));
        assert_eq!(recorded.names().len(), 2 * 4 + 4);
        assert_eq!(recorded.value("diskspace.root.kilobyte_free"), Some(1000.0));
        assert_eq!(recorded.value("diskspace.root.gigabyte_percentfree"), Some(25.0));
        assert_eq!(recorded.sample("diskspace.root.gigabyte_used").unwrap().unit(), "gigabyte");
    }

    #[test]
    fn file_system_without_blocks_or_inodes_divides_by_nothing() {
        let empty = [1.0, 4096.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let recorded = recorded(&defaults(), mounts().row("/", empty).texts(["/dev/sda1", "btrfs", ""]));
        assert_eq!(recorded.value("diskspace.root.byte_percentfree"), Some(0.0));
        assert_eq!(recorded.value("diskspace.root.inodes_used"), Some(0.0));
        assert_eq!(recorded.value("diskspace.root.inodes_percentfree"), None);
    }

    #[test]
    fn types_filters_and_devices_decide_what_is_taken() {
        let table = mounts()
            .row("/a", sizes(1.0))
            .texts(["/dev/sda1", "ext4", ""])
            .row("/b", sizes(2.0))
            .texts(["/dev/sda2", "vfat", ""])
            .row("/c", sizes(3.0))
            .texts(["nas:/x", "nfs4", ""])
            .row("/d", sizes(4.0))
            .texts(["overlay", "ext4", ""])
            .row("/e", sizes(5.0))
            .texts(["tmpfs", "ext4", ""])
            .row("/export/home/ann", sizes(6.0))
            .texts(["/dev/sda3", "ext4", ""])
            .row("/x/export/home", sizes(7.0))
            .texts(["/dev/sda4", "ext4", ""]);
        let default = recorded(&defaults(), table.clone());
        assert_eq!(names(&default), ["_a", "_c", "_e", "_x_export_home"]);
        let anywhere = recorded(&defaults().with("exclude_filters", ["/home$", "a"]), table.clone());
        assert_eq!(names(&anywhere), ["_c", "_e"]);
        let nowhere = recorded(&defaults().with("exclude_filters", Vec::<String>::new()), table);
        assert_eq!(names(&nowhere), ["_a", "_c", "_e", "_export_home_ann", "_x_export_home"]);
    }

    #[test]
    fn device_counts_at_its_first_mount_that_is_taken() {
        let table = mounts()
            .row("/export/home", sizes(1.0))
            .texts(["/dev/sda1", "ext4", ""])
            .row("/first", sizes(1.0))
            .texts(["/dev/sda1", "ext4", ""])
            .row("/second", sizes(1.0))
            .texts(["/dev/sda1", "ext4", ""]);
        assert_eq!(names(&recorded(&defaults(), table)), ["_first"]);
    }

    #[test]
    fn names_are_labels_or_mount_points() {
        assert_eq!(name("/"), "root");
        assert_eq!(name("/tmp"), "tmp");
        assert_eq!(name("/var/lib.d"), "_var_lib_d");
        assert_eq!(name(r"/a b\c"), "_a_bc");
        let labelled = mounts().row("/mnt", sizes(1.0)).texts(["/dev/sda1", "ext4", "my/data"]);
        assert_eq!(names(&recorded(&defaults(), labelled)), ["my/data"]);
    }

    #[test]
    fn mount_that_is_gone_or_labelled_anew_is_described_anew() {
        let mut collect = Collect::new::<DiskSpace>(&defaults()).unwrap();
        let mut run = |label: &str, point: &str| {
            let table = mounts().row("/", sizes(1.0)).texts(["/dev/sda1", "ext4", label]);
            set_host_stats("filesystem", table.row(point, sizes(2.0)).texts(["/dev/sdb1", "ext4", ""]));
            collect.run(0).unwrap().described().to_vec()
        };
        assert_eq!(run("", "/b").len(), 16);
        assert!(run("", "/b").is_empty());
        assert_eq!(run("data", "/b")[0], "diskspace.data.byte_percentfree");
        assert_eq!(run("data", "/c")[0], "diskspace._c.byte_percentfree");
        assert_eq!(run("data", "/b").len(), 8);
    }

    #[test]
    fn machine_without_such_a_mount_has_nothing_to_measure() {
        for table in [mounts(), mounts().row("/", sizes(1.0)).texts(["overlay", "overlay", ""])] {
            set_host_stats("filesystem", table);
            let error = Collect::new::<DiskSpace>(&defaults()).unwrap().run(0).unwrap_err();
            assert!(error.is_absent());
        }
    }

    #[test]
    fn faulty_expression_is_refused() {
        let error = Collect::new::<DiskSpace>(&defaults().with("exclude_filters", ["("])).unwrap_err();
        assert_eq!(error.setting_key(), Some("exclude_filters"));
    }
}
