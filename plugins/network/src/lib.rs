//! What network interfaces sent and received, from /proc/net/dev.

use collector_parts::{ByteUnit, Kept};
use kimberlite_plugin_sdk::host_stats;
use kimberlite_plugin_sdk::{Collector, Error, Result, Run, Series, Settings, export_collector};

/// What is counted, and the unit; bytes are published in `byte_unit`.
const COUNTERS: [(&str, &str); 16] = [
    ("rx_bytes", "byte"),
    ("rx_packets", "packet"),
    ("rx_errors", "error"),
    ("rx_drop", "packet"),
    ("rx_fifo", "error"),
    ("rx_frame", "error"),
    ("rx_compressed", "packet"),
    ("rx_multicast", "packet"),
    ("tx_bytes", "byte"),
    ("tx_packets", "packet"),
    ("tx_errors", "error"),
    ("tx_drop", "packet"),
    ("tx_fifo", "error"),
    ("tx_colls", "collision"),
    ("tx_carrier", "error"),
    ("tx_compressed", "packet"),
];

struct Network {
    names: Vec<String>,
    greedy: bool,
    units: Vec<ByteUnit>,
    /// By interface; none: it is not taken.
    interfaces: Kept<Option<Interface>>,
}

/// Series with the place in `COUNTERS` of what each counts.
type Interface = Vec<(usize, Series)>;

impl Collector for Network {
    fn new(settings: &Settings) -> Result<Self> {
        Ok(Self {
            names: settings.require::<&[String]>("interfaces")?.to_vec(),
            greedy: settings.require("greedy")?,
            units: ByteUnit::listed(settings)?,
            interfaces: Kept::new(),
        })
    }

    fn collect(&mut self, run: &mut Run) -> Result<()> {
        let network = host_stats::network()?.now;
        let columns = COUNTERS.map(|(counter, _)| network.column(counter));
        let mut any = false;
        for row in network.rows() {
            let is_taken = || is_taken(row.key(), &self.names, self.greedy);
            let interface =
                self.interfaces.get(row.key(), || is_taken().then(|| interface(row.key(), &self.units)));
            let Some(interface) = interface else { continue };
            any = true;
            for (place, series) in interface {
                if let Some(total) = columns[*place].and_then(|column| row.get(column)) {
                    run.record(series, total);
                }
            }
        }
        if !any {
            return Err(Error::absent("no interface is one of those in the setting `interfaces`"));
        }
        for gone in self.interfaces.sweep().flatten() {
            gone.iter().for_each(|(_, series)| run.forget(series));
        }
        Ok(())
    }
}

export_collector!(Network);

fn is_taken(interface: &str, names: &[String], greedy: bool) -> bool {
    names.iter().any(|name| if greedy { interface.starts_with(&**name) } else { interface == name })
}

fn interface(name: &str, units: &[ByteUnit]) -> Interface {
    let mut series = Vec::new();
    for (place, (counter, unit)) in COUNTERS.into_iter().enumerate() {
        match counter.strip_suffix("bytes") {
            Some(direction) => series.extend(units.iter().map(|unit| {
                let name = format!("network.{name}.{direction}{}", unit.name);
                (place, Series::counter(name).unit(&*unit.name).scale(unit.per_byte))
            })),
            None => series.push((place, Series::counter(format!("network.{name}.{counter}")).unit(unit))),
        }
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_plugin_sdk::Kind;
    use kimberlite_plugin_sdk::testing::{Collect, TableBuilder, set_host_stats, table};

    fn collect(interfaces: &[&str], greedy: bool, byte_unit: &[&str]) -> Collect {
        let settings = Settings::new()
            .with("interfaces", interfaces.to_vec())
            .with("greedy", greedy)
            .with("byte_unit", byte_unit.to_vec());
        Collect::new::<Network>(&settings).unwrap()
    }

    fn devices<'a>(names: impl IntoIterator<Item = &'a str>) -> TableBuilder {
        let empty = table(COUNTERS.map(|(counter, _)| counter));
        names.into_iter().fold(empty, |table, name| table.row(name, (1..=16).map(f64::from)))
    }

    #[test]
    fn bytes_come_once_for_each_unit_and_the_rest_as_counted() {
        set_host_stats("network", devices(["lo", "eth0"]));
        let mut collect = collect(&["eth"], true, &["bit", "byte"]);
        let recorded = collect.run(0).unwrap();
        let expected = [
            ("rx_bit", 8.0),
            ("rx_byte", 1.0),
            ("rx_packets", 2.0),
            ("rx_errors", 3.0),
            ("rx_drop", 4.0),
            ("rx_fifo", 5.0),
            ("rx_frame", 6.0),
            ("rx_compressed", 7.0),
            ("rx_multicast", 8.0),
            ("tx_bit", 72.0),
            ("tx_byte", 9.0),
            ("tx_packets", 10.0),
            ("tx_errors", 11.0),
            ("tx_drop", 12.0),
            ("tx_fifo", 13.0),
            ("tx_colls", 14.0),
            ("tx_carrier", 15.0),
            ("tx_compressed", 16.0),
        ];
        assert_eq!(recorded.names(), expected.map(|(name, _)| format!("network.eth0.{name}")));
        for (sample, (name, value)) in recorded.samples().zip(expected) {
            assert_eq!(recorded.value(sample.name()), Some(value), "{name}");
            assert_eq!(sample.kind(), Kind::Rate, "{name}");
        }
        assert_eq!(recorded.sample("network.eth0.rx_bit").unwrap().unit(), "bit");
        assert!(collect.run(10_000).unwrap().described().is_empty());
    }

    #[test]
    fn prefixes_are_1024_apart() {
        set_host_stats("network", devices(["eth0"]));
        let recorded = collect(&["eth"], true, &["kilobit"]).run(0).unwrap();
        assert_eq!(recorded.value("network.eth0.tx_kilobit"), Some(72.0 / 1024.0));
        assert_eq!(recorded.value("network.eth0.tx_byte"), None);
    }

    #[test]
    fn greedy_takes_beginnings_and_otherwise_only_whole_names() {
        let interfaces = |greedy| {
            set_host_stats("network", devices(["eth0", "eth0.100", "veth0", "eth"]));
            let recorded = collect(&["eth", "nothing"], greedy, &[]).run(0).unwrap();
            let names = recorded.names();
            names
                .iter()
                .filter_map(|name| Some(name.strip_suffix(".rx_drop")?.to_owned()))
                .collect::<Vec<_>>()
        };
        assert_eq!(interfaces(true), ["network.eth0", "network.eth0.100", "network.eth"]);
        assert_eq!(interfaces(false), ["network.eth"]);
    }

    #[test]
    fn interface_that_is_gone_is_forgotten_and_described_again_when_it_is_back() {
        let mut collect = collect(&["eth"], true, &["byte"]);
        set_host_stats("network", devices(["eth0", "eth1"]));
        collect.run(0).unwrap();
        set_host_stats("network", devices(["eth1"]));
        assert!(collect.run(10_000).unwrap().names().iter().all(|name| name.starts_with("network.eth1.")));
        set_host_stats("network", devices(["eth0", "eth1"]));
        assert_eq!(collect.run(20_000).unwrap().described().len(), 16);
    }

    #[test]
    fn machine_without_such_an_interface_has_nothing_to_measure() {
        set_host_stats("network", devices(["lo", "wlan0"]));
        assert!(collect(&["eth"], true, &["byte"]).run(0).unwrap_err().is_absent());
        set_host_stats("network", devices([]));
        assert!(collect(&["eth"], true, &["byte"]).run(0).unwrap_err().is_absent());
    }

    #[test]
    fn unknown_unit_is_refused() {
        let settings =
            Settings::new().with("interfaces", ["eth"]).with("greedy", true).with("byte_unit", ["nibble"]);
        assert_eq!(Collect::new::<Network>(&settings).unwrap_err().setting_key(), Some("byte_unit"));
    }
}
