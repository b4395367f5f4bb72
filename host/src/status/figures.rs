//! The agent's own figures by name, once for both ways out: `/metrics` and the `kimberlite.*` samples.
//!
//! | in `/metrics` | as a sample |
//! |---|---|
//! | `kimberlite_plugin_memory_bytes{plugin="cpu",space="linear"}` | `kimberlite.plugin.cpu.memory_bytes.linear` |
//! | `kimberlite_collect_lateness_seconds_sum{plugin="cpu"}` | `kimberlite.plugin.cpu.collect_lateness_seconds.sum` |
//! | `kimberlite_samples_dropped_total{handler="graphite",reason="full"}` | `kimberlite.handler.graphite.samples_dropped.full` |
//! | `kimberlite_resident_memory_bytes` | `kimberlite.resident_memory_bytes` |
//!
//! So: whose it is, the name without what that says already and without `_total`, then the other
//! labels' values. Dots in a plugin's name become `_`. Buckets and `kimberlite_build_info` are not
//! sampled. All labels travel as tags, too.

use std::borrow::Cow;

use super::{AgentStatus, BUCKETS, Counts, Delivery, PluginKind, PluginStatus, Snapshot};
use crate::collected::{NamedSample, Publish, RawKind, Value};
use crate::sample::Tag;

/// What Prometheus calls a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FamilyKind {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

impl FamilyKind {
    /// As in a `# TYPE` line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// All figures of one name.
#[derive(Debug)]
pub struct Family<'a> {
    /// Without the `kimberlite_`.
    pub name: &'static str,
    pub kind: FamilyKind,
    pub help: &'static str,
    /// May be empty: nothing of the sort has happened yet.
    pub figures: Vec<Figure<'a>>,
}

/// One number and whose it is.
#[derive(Debug)]
pub struct Figure<'a> {
    /// Empty, or `_sum`, `_count`, `_bucket`.
    pub suffix: &'static str,
    /// The first one, if any, says whose it is: `plugin` or `handler`.
    pub labels: Vec<(&'static str, Cow<'a, str>)>,
    pub value: f64,
}

/// Whose figures a family has, and how it calls their owner.
#[derive(Clone, Copy)]
enum Of {
    Plugins,
    Collectors,
    Handlers,
}

impl Of {
    fn label(self) -> &'static str {
        match self {
            Self::Plugins | Self::Collectors => "plugin",
            Self::Handlers => "handler",
        }
    }

    fn includes(self, kind: PluginKind) -> bool {
        match self {
            Self::Plugins => true,
            Self::Collectors => kind == PluginKind::Collector,
            Self::Handlers => kind == PluginKind::Handler,
        }
    }
}

type One = (&'static str, FamilyKind, &'static str, Of, fn(&PluginStatus) -> f64);

/// One figure for each plugin.
const ONES: &[One] = {
    use FamilyKind::{Counter, Gauge};
    use Of::{Collectors, Handlers, Plugins};
    &[
        (
            "plugin_memory_peak_bytes",
            Gauge,
            "The most linear memory so far, over all instances.",
            Plugins,
            |p| p.memory_peak as f64,
        ),
        ("plugin_memory_limit_bytes", Gauge, "The linear memory it may have.", Plugins, |p| {
            p.memory_limit as f64
        }),
        ("plugin_cpu_seconds_total", Counter, "CPU time spent in the plugin.", Plugins, |p| p.cpu_seconds),
        ("plugin_recycles_total", Counter, "Fresh instances made at the soft limit.", Plugins, |p| {
            p.recycles as f64
        }),
        ("plugin_failures_total", Counter, "Calls that failed, for whatever reason.", Plugins, |p| {
            p.failures as f64
        }),
        ("plugin_log_lines_dropped_total", Counter, "Log lines over the plugin's limit.", Plugins, |p| {
            p.log_lines_dropped as f64
        }),
        ("collect_lateness_max_seconds", Gauge, "The latest start of a run so far.", Collectors, |p| {
            p.lateness.max
        }),
        ("collect_skipped_total", Counter, "Runs skipped because one before was late.", Collectors, |p| {
            p.skipped as f64
        }),
        ("samples_total", Counter, "Samples measured.", Collectors, |p| p.samples_total as f64),
        ("series", Gauge, "Series that live.", Collectors, |p| p.series as f64),
        ("queue_bytes", Gauge, "Memory of the samples that wait.", Handlers, |p| p.queue_bytes as f64),
        ("spool_bytes", Gauge, "Disk space of the samples that wait.", Handlers, |p| p.spool_bytes as f64),
        ("samples_delivered_total", Counter, "Samples the receiver acknowledged.", Handlers, |p| {
            delivery(p, |d| d.delivered)
        }),
        ("delivery_retries_total", Counter, "How often a batch was tried again.", Handlers, |p| {
            delivery(p, |d| d.retried)
        }),
        ("delivery_attempts_failed", Gauge, "Attempts in a row that came to nothing.", Handlers, |p| {
            delivery(p, |d| d.retrying.as_ref().map_or(0, |retrying| retrying.attempts.into()))
        }),
        ("samples_rejected_total", Counter, "Samples the handler will never take.", Handlers, |p| {
            delivery(p, |d| d.rejected)
        }),
        ("samples_dead_letters_total", Counter, "Samples set aside.", Handlers, |p| {
            delivery(p, |d| d.dead_letters)
        }),
        ("samples_unconfirmed_total", Counter, "Samples that may or may not have arrived.", Handlers, |p| {
            delivery(p, |d| d.unconfirmed)
        }),
    ]
};

type Many = (&'static str, &'static str, Of, &'static str, fn(&PluginStatus) -> &Counts);

/// One counter for each plugin and reason, or limit.
const MANY: &[Many] = &[
    ("plugin_kills_total", "Instances ended, by reason.", Of::Plugins, "reason", |p| &p.kills),
    ("plugin_limit_hits_total", "How often a limit was hit.", Of::Plugins, "limit", |p| &p.limit_hits),
];

fn delivery(plugin: &PluginStatus, figure: fn(&Delivery) -> u64) -> f64 {
    plugin.delivery.as_ref().map_or(0, figure) as f64
}

/// Everything there is to tell.
pub fn families(snapshot: &Snapshot) -> Vec<Family<'_>> {
    let mut families = of_agent(snapshot);
    families.extend(ONES.iter().map(|&(name, kind, help, of, value)| {
        let plugins = snapshot.plugins.iter().filter(|plugin| of.includes(plugin.kind));
        let figures = plugins.map(|plugin| figure([(of.label(), &plugin.name)], value(plugin)));
        Family { name, kind, help, figures: figures.collect() }
    }));
    families.extend(MANY.iter().map(|&(name, help, of, label, counts)| {
        let figures = snapshot.plugins.iter().flat_map(|plugin| by_reason(plugin, of, label, counts(plugin)));
        Family { name, kind: FamilyKind::Counter, help, figures: figures.collect() }
    }));
    families.extend([
        memory(snapshot),
        state(snapshot),
        dropped(snapshot),
        duration(snapshot),
        lateness(snapshot),
    ]);
    families
}

/// The same as samples of the agent's own element, at the time of the run that asked.
pub fn self_samples(status: &AgentStatus) -> Vec<NamedSample> {
    let snapshot = status.snapshot();
    let families = families(&snapshot);
    let sampled = families.iter().filter(|family| family.name != "build_info");
    sampled.flat_map(|family| family.figures.iter().filter_map(|figure| sample(family, figure))).collect()
}

fn sample(family: &Family<'_>, figure: &Figure<'_>) -> Option<NamedSample> {
    let running = family.kind == FamilyKind::Counter || !figure.suffix.is_empty();
    let base = family.name.strip_prefix("plugin_").unwrap_or(family.name);
    let mut name = "kimberlite".to_owned();
    let mut labels = figure.labels.iter();
    if let Some((whose, owner)) = labels.next() {
        name = format!("{name}.{whose}.{}", owner.replace('.', "_"));
    }
    name = format!("{name}.{}", base.strip_suffix("_total").unwrap_or(base));
    match figure.suffix {
        "_bucket" => return None,
        suffix => name.extend(suffix.chars().map(|c| if c == '_' { '.' } else { c })),
    }
    for (_, value) in labels {
        name = format!("{name}.{value}");
    }
    let tag = |(name, value): &(&'static str, Cow<'_, str>)| Tag {
        name: (*name).to_owned(),
        value: value.clone().into_owned(),
    };
    let unit = ["second", "byte"].into_iter().find(|unit| base.contains(unit) && figure.suffix != "_count");
    Some(NamedSample {
        name,
        value: Value::Number(figure.value),
        kind: if running { RawKind::Counter } else { RawKind::Gauge },
        publish: Publish::Total,
        unit: unit.unwrap_or_default().to_owned(),
        element: None,
        tags: figure.labels.iter().map(tag).collect(),
        timestamp: None,
    })
}

fn figure<'a, const N: usize>(labels: [(&'static str, &'a str); N], value: f64) -> Figure<'a> {
    let labels = labels.into_iter().map(|(name, value)| (name, Cow::Borrowed(value))).collect();
    Figure { suffix: "", labels, value }
}

fn by_reason<'a>(
    plugin: &'a PluginStatus,
    of: Of,
    label: &'static str,
    counts: &'a Counts,
) -> impl Iterator<Item = Figure<'a>> {
    counts.iter().map(move |(reason, &times)| {
        figure([(of.label(), &plugin.name), (label, reason.as_ref())], times as f64)
    })
}

fn of_agent(snapshot: &Snapshot) -> Vec<Family<'_>> {
    use FamilyKind::Gauge;
    let agent = &snapshot.agent;
    let one = |name, help, value| Family { name, kind: Gauge, help, figures: vec![figure([], value)] };
    let reloaded = f64::from(u8::from(agent.config_last_reload_success));
    vec![
        Family {
            name: "build_info",
            kind: Gauge,
            help: "Always 1; the labels say which agent this is.",
            figures: vec![figure([("version", &agent.version), ("id", &agent.id)], 1.0)],
        },
        one("start_time_seconds", "When the agent started, since 1970.", agent.started as f64 / 1000.0),
        one("resident_memory_bytes", "Resident memory of the whole agent.", agent.rss as f64),
        one(
            "config_last_reload_success",
            "1: the config in force is the one on disk; 0: it has a fault.",
            reloaded,
        ),
    ]
}

fn memory(snapshot: &Snapshot) -> Family<'_> {
    let spaces = |plugin: &'_ PluginStatus| {
        [
            ("linear", plugin.memory_now),
            ("instance", plugin.instance_bytes),
            ("durable", plugin.durable_bytes),
        ]
    };
    let figures = snapshot.plugins.iter().flat_map(|plugin| {
        spaces(plugin)
            .map(|(space, bytes)| figure([("plugin", plugin.name.as_str()), ("space", space)], bytes as f64))
    });
    Family {
        name: "plugin_memory_bytes",
        kind: FamilyKind::Gauge,
        help: "What it holds: its own memory, what the host holds for the instance, what outlives that.",
        figures: figures.collect(),
    }
}

fn state(snapshot: &Snapshot) -> Family<'_> {
    let known = snapshot.plugins.iter().filter(|plugin| !plugin.state.is_empty());
    let figures = known.map(|plugin| figure([("plugin", &plugin.name), ("state", &plugin.state)], 1.0));
    Family {
        name: "plugin_state",
        kind: FamilyKind::Gauge,
        help: "1 for the state that the plugin is in; other states are not listed.",
        figures: figures.collect(),
    }
}

fn dropped(snapshot: &Snapshot) -> Family<'_> {
    let of = |plugin: &PluginStatus| match plugin.kind {
        PluginKind::Collector => Of::Collectors,
        PluginKind::Handler => Of::Handlers,
    };
    let figures =
        snapshot.plugins.iter().flat_map(|plugin| by_reason(plugin, of(plugin), "reason", &plugin.dropped));
    Family {
        name: "samples_dropped_total",
        kind: FamilyKind::Counter,
        help: "Samples lost, by reason: on the way to a handler, or of a plugin before the way parts.",
        figures: figures.collect(),
    }
}

fn duration(snapshot: &Snapshot) -> Family<'_> {
    let collectors = snapshot.plugins.iter().filter(|plugin| plugin.kind == PluginKind::Collector);
    let figures = collectors.flat_map(|plugin| {
        let took = &plugin.collect_duration;
        let bounds = BUCKETS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        let cumulative = took.buckets.iter().scan(0, |sum, &count| {
            *sum += count;
            Some(*sum)
        });
        let buckets = bounds.zip(cumulative.chain([took.count])).map(|(bound, count)| Figure {
            suffix: "_bucket",
            labels: vec![("plugin", Cow::Borrowed(plugin.name.as_str())), ("le", Cow::Owned(bound))],
            value: count as f64,
        });
        buckets.chain(sum_and_count(&plugin.name, took.sum, took.count))
    });
    Family {
        name: "collect_duration_seconds",
        kind: FamilyKind::Histogram,
        help: "How long runs took.",
        figures: figures.collect(),
    }
}

fn lateness(snapshot: &Snapshot) -> Family<'_> {
    let collectors = snapshot.plugins.iter().filter(|plugin| plugin.kind == PluginKind::Collector);
    let figures = collectors.flat_map(|p| sum_and_count(&p.name, p.lateness.sum, p.lateness.count));
    Family {
        name: "collect_lateness_seconds",
        kind: FamilyKind::Summary,
        help: "How much later than due runs started.",
        figures: figures.collect(),
    }
}

fn sum_and_count(plugin: &str, sum: f64, count: u64) -> [Figure<'_>; 2] {
    [("_sum", sum), ("_count", count as f64)]
        .map(|(suffix, value)| Figure { suffix, ..figure([("plugin", plugin)], value) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Secrets;
    use std::time::Duration;

    fn status() -> AgentStatus {
        let status = AgentStatus::new("id-1", "web-1", 1_500, Secrets::default());
        status.plugin("cpu.all", PluginKind::Collector).update(|cpu| {
            cpu.ran(2_000, Duration::from_millis(3), Duration::from_millis(500));
            cpu.holds(65_536, 10, 20);
            cpu.killed("deadline");
            cpu.dropped("flood", 4);
            cpu.state = "running".into();
        });
        status.plugin("graphite", PluginKind::Handler).update(|graphite| graphite.dropped("full", 9));
        status
    }

    #[test]
    fn samples_are_named_for_whose_they_are() {
        let samples = self_samples(&status());
        let find = |name: &str| samples.iter().find(|sample| sample.name == name).map(|s| (s.value, s.kind));
        for (name, value, kind) in [
            ("kimberlite.start_time_seconds", 1.5, RawKind::Gauge),
            ("kimberlite.plugin.cpu_all.memory_bytes.durable", 20.0, RawKind::Gauge),
            ("kimberlite.plugin.cpu_all.kills.deadline", 1.0, RawKind::Counter),
            ("kimberlite.plugin.cpu_all.state.running", 1.0, RawKind::Gauge),
            ("kimberlite.plugin.cpu_all.collect_lateness_seconds.sum", 0.5, RawKind::Counter),
            ("kimberlite.plugin.cpu_all.collect_duration_seconds.count", 1.0, RawKind::Counter),
            ("kimberlite.plugin.cpu_all.samples_dropped.flood", 4.0, RawKind::Counter),
            ("kimberlite.handler.graphite.samples_dropped.full", 9.0, RawKind::Counter),
            ("kimberlite.handler.graphite.queue_bytes", 0.0, RawKind::Gauge),
        ] {
            assert_eq!(find(name), Some((Value::Number(value), kind)), "{name}");
        }
    }

    #[test]
    fn no_two_samples_have_one_name() {
        let mut names: Vec<_> = self_samples(&status()).into_iter().map(|sample| sample.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn samples_say_their_unit() {
        let samples = self_samples(&status());
        let unit = |name: &str| samples.iter().find(|s| s.name.ends_with(name)).map(|s| s.unit.as_str());
        assert_eq!(unit("memory_bytes.linear"), Some("byte"));
        assert_eq!(unit("duration_seconds.sum"), Some("second"));
        assert_eq!(unit("duration_seconds.count"), Some(""));
        assert_eq!(unit("kills.deadline"), Some(""));
    }
}
