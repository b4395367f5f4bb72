//! Figures and samples as Prometheus reads them: text format 0.0.4.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::sample::{Kind, Sample};
use crate::status::figures::Family;

/// So many samples one answer has at most.
pub(super) const MOST_SAMPLES: usize = 100_000;

/// The agent's own figures.
pub(super) fn figures(families: &[Family<'_>]) -> String {
    let mut out = String::with_capacity(16 * 1024);
    for Family { name, kind, help, figures } in families {
        let kind = kind.as_str();
        // Writing to a string cannot fail.
        let _ = write!(out, "# HELP kimberlite_{name} {help}\n# TYPE kimberlite_{name} {kind}\n");
        for figure in figures {
            let labels = labels(figure.labels.iter().map(|(name, value)| (*name, value.as_ref())));
            let _ = writeln!(out, "kimberlite_{name}{}{labels} {}", figure.suffix, number(figure.value));
        }
    }
    out
}

/// One line for each series, with its last value. `own_id` is the agent's own element.
///
/// Names that Prometheus does not allow are changed; where two series then are the same, the first is
/// written. The agent's own figures are left out: [`figures`] has them under their better names.
pub(super) fn samples(samples: &[Sample], own_id: &str) -> String {
    let mut families: BTreeMap<Cow<'_, str>, Vec<&Sample>> = BTreeMap::new();
    for sample in samples.iter().take(MOST_SAMPLES) {
        families.entry(identifier(&sample.series.name, ":")).or_default().push(sample);
    }
    families.retain(|name, _| !name.starts_with("kimberlite_"));
    let mut out = String::with_capacity(64 * samples.len());
    for (name, samples) in families {
        let _ = writeln!(out, "# TYPE {name} {}", kind_of(&samples));
        let mut seen = BTreeSet::new();
        for sample in samples {
            let labels = labels_of(sample, own_id);
            if !seen.contains(&labels) {
                let _ = writeln!(out, "{name}{labels} {}", number(sample.value));
                seen.insert(labels);
            }
        }
    }
    if samples.len() >= MOST_SAMPLES {
        out.push_str("# that is as many series as one answer has; there may be more\n");
    }
    out
}

fn kind_of(samples: &[&Sample]) -> &'static str {
    let counters = samples.iter().filter(|sample| sample.series.kind == Kind::Counter).count();
    match counters {
        0 => "gauge",
        all if all == samples.len() => "counter",
        _ => "untyped",
    }
}

/// The element, by its name for people; by its id as well where that is another one's; then the tags.
fn labels_of(sample: &Sample, own_id: &str) -> String {
    let element = &sample.series.element;
    let facts = element.facts();
    let name = if facts.name.is_empty() { &element.id } else { &facts.name };
    let mut all = vec![(Cow::Borrowed("element"), name.as_str())];
    if element.id != own_id && element.id != *name {
        all.push((Cow::Borrowed("element_id"), &element.id));
    }
    for tag in &sample.series.tags {
        let label = identifier(&tag.name, "");
        if !all.iter().any(|(taken, _)| *taken == label) {
            all.push((label, &tag.value));
        }
    }
    labels(all.iter().map(|(name, value)| (name.as_ref(), *value)))
}

/// `{a="1",b="2"}`, or nothing.
fn labels<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        out.push(if out.is_empty() { '{' } else { ',' });
        let _ = write!(out, "{name}=\"");
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    if !out.is_empty() {
        out.push('}');
    }
    out
}

/// Letters, digits, `_` and what is `allowed` besides; no digit first, nor `__`, which is Prometheus' own.
fn identifier<'a>(text: &'a str, allowed: &str) -> Cow<'a, str> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || c == '_' || allowed.contains(c);
    let is_first = |c: char| is_good(c) && !c.is_ascii_digit();
    if text.starts_with(is_first) && !text.starts_with("__") && text.chars().all(is_good) {
        return Cow::Borrowed(text);
    }
    let mut out: String = text.chars().map(|c| if is_good(c) { c } else { '_' }).collect();
    let rest = out.trim_start_matches('_').to_owned();
    if rest.len() < out.len() || !out.starts_with(is_first) {
        out = format!("_{rest}");
    }
    Cow::Owned(out)
}

/// Prometheus writes what is no number in its own way.
fn number(value: f64) -> Cow<'static, str> {
    match value {
        f64::INFINITY => "+Inf".into(),
        f64::NEG_INFINITY => "-Inf".into(),
        value => value.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Element, Facts, Series, Tag};
    use crate::status::figures::{FamilyKind, Figure};
    use std::sync::Arc;

    fn element(id: &str, name: &str) -> Arc<Element> {
        Arc::new(Element::new(id, Facts { name: name.to_owned(), ..Facts::default() }))
    }

    fn sample(element: &Arc<Element>, name: &str, kind: Kind, tags: &[(&str, &str)], value: f64) -> Sample {
        let tag = |&(name, value): &(&str, &str)| Tag { name: name.to_owned(), value: value.to_owned() };
        let series = Series {
            element: element.clone(),
            name: name.into(),
            unit: "".into(),
            kind,
            sparse_data: "".into(),
            tags: tags.iter().map(tag).collect(),
            handlers: 0,
        };
        Sample { series: Arc::new(series), timestamp: 0, value }
    }

    #[test]
    fn figures_have_help_type_and_escaped_labels() {
        let labels = vec![("plugin", "a\\b\"c\nd".into()), ("le", "+Inf".into())];
        let figures = vec![Figure { suffix: "_bucket", labels, value: 3.0 }];
        let family = Family { name: "x_seconds", kind: FamilyKind::Histogram, help: "How long.", figures };
        assert_eq!(
            super::figures(&[family]),
            "# HELP kimberlite_x_seconds How long.\n# TYPE kimberlite_x_seconds histogram\n\
             kimberlite_x_seconds_bucket{plugin=\"a\\\\b\\\"c\\nd\",le=\"+Inf\"} 3\n"
        );
    }

    #[test]
    fn samples_carry_element_and_tags() {
        let own = element("id-1", "web-1");
        let disk = element("disk-7", "sda");
        let text = samples(
            &[
                sample(&own, "cpu.total.user", Kind::Rate, &[], 1.5),
                sample(&disk, "disk.reads", Kind::Counter, &[("env", "prod"), ("1-a", "x")], 7.0),
                sample(&own, "kimberlite.plugin.cpu.kills", Kind::Counter, &[], 7.0),
            ],
            "id-1",
        );
        assert_eq!(
            text,
            "# TYPE cpu_total_user gauge\ncpu_total_user{element=\"web-1\"} 1.5\n\
             # TYPE disk_reads counter\n\
             disk_reads{element=\"sda\",element_id=\"disk-7\",env=\"prod\",_1_a=\"x\"} 7\n"
        );
    }

    #[test]
    fn names_that_become_one_make_one_family_without_duplicates() {
        let own = element("id-1", "");
        let text = samples(
            &[
                sample(&own, "a.b", Kind::Gauge, &[], 1.0),
                sample(&own, "a_b", Kind::Counter, &[], 2.0),
                sample(&own, "a-b", Kind::Gauge, &[("x", "y"), ("element", "forged")], 3.0),
            ],
            "id-1",
        );
        assert_eq!(text, "# TYPE a_b untyped\na_b{element=\"id-1\"} 1\na_b{element=\"id-1\",x=\"y\"} 3\n");
    }

    #[test]
    fn names_follow_prometheus_rules() {
        for (name, expected) in [
            ("cpu.total.user", "cpu_total_user"),
            ("a:b", "a:b"),
            ("5min", "_5min"),
            ("__name__", "_name__"),
            ("größe", "gr__e"),
            ("", "_"),
            ("...", "_"),
        ] {
            assert_eq!(identifier(name, ":"), expected, "{name}");
        }
        assert_eq!(identifier("a:b", ""), "a_b");
    }

    #[test]
    fn numbers_are_written_as_prometheus_reads_them() {
        assert_eq!(
            [1.0, 0.25, f64::INFINITY, f64::NEG_INFINITY, f64::NAN].map(number),
            ["1", "0.25", "+Inf", "-Inf", "NaN"]
        );
    }
}
