//! The agent's own element: what the operator says of it, what the system says, and what
//! collectors add.
//!
//! Additions are bounded, and go when their collector has not repeated them for an hour.
//! Uses: `sample`, `collected`. Time is an argument.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::collected::Additions;
use crate::sample::{Attribute, AttributeValue, Element, Facts, Millis};

/// How long additions stay without being repeated.
const KEEP: Millis = 3_600_000;
/// Tags, attributes and relations that one collector may add: so many of each.
const MOST: usize = 64;

/// The element of this machine.
#[derive(Debug)]
pub struct Machine {
    element: Arc<Element>,
    base: Mutex<Facts>,
    additions: Mutex<BTreeMap<String, (Millis, Additions)>>,
}

impl Machine {
    /// `id` names it for receivers; `base` is what holds without any collector.
    pub fn new(id: &str, base: Facts) -> Self {
        let element = Arc::new(Element::new(id, base.clone()));
        Self { element, base: Mutex::new(base), additions: Mutex::default() }
    }

    pub fn element(&self) -> &Arc<Element> {
        &self.element
    }

    /// What holds without any collector, from now on.
    pub fn set_base(&self, base: Facts) {
        let (Ok(all), Ok(mut own)) = (self.additions.lock(), self.base.lock()) else { return };
        *own = base;
        drop(own);
        self.tell(&all);
    }

    /// What a collector says now replaces what it said before.
    pub fn add(&self, collector: &str, mut said: Additions, now: Millis) {
        said.tags.truncate(MOST);
        said.attributes.truncate(MOST);
        said.relations.truncate(MOST);
        let Ok(mut all) = self.additions.lock() else { return };
        let before = all.insert(collector.to_owned(), (now, said));
        let expired = all.len();
        all.retain(|_, (said_at, _)| said_at.saturating_add(KEEP) > now);
        let changed = all.len() != expired
            || before.as_ref().map(|(_, said)| said) != all.get(collector).map(|(_, said)| said);
        if changed {
            self.tell(&all);
        }
    }

    fn tell(&self, all: &BTreeMap<String, (Millis, Additions)>) {
        let Ok(base) = self.base.lock() else { return };
        self.element.set_facts(merged(&base, all.values().map(|(_, said)| said)));
    }

    /// The collector is gone, and so is what it added.
    pub fn forget(&self, collector: &str) {
        let Ok(mut all) = self.additions.lock() else { return };
        if all.remove(collector).is_some() {
            self.tell(&all);
        }
    }
}

/// The operator's word comes first, then collectors by name.
fn merged<'a>(base: &Facts, additions: impl Iterator<Item = &'a Additions>) -> Facts {
    let mut facts = base.clone();
    for said in additions {
        for tag in &said.tags {
            if !facts.tags.iter().any(|other| other.name == tag.name) {
                facts.tags.push(tag.clone());
            }
        }
        for attribute in &said.attributes {
            if !facts.attributes.iter().any(|other| other.name == attribute.name) {
                facts.attributes.push(attribute.clone());
            }
        }
        for relation in &said.relations {
            if !facts.relations.contains(relation) {
                facts.relations.push(relation.clone());
            }
        }
    }
    facts
}

/// What the system says of itself: `platform`, `agent`, `cpus`, `ram`, `ram bytes`,
/// `distribution_name`, `_version`, `_id`; names and shapes as the ancestor's Metricly handler
/// sent them. What cannot be read is left out.
pub fn system_attributes(proc: &Path, root: &Path, version: &str) -> Vec<Attribute> {
    let text =
        |name: &str, value: String| Attribute { name: name.to_owned(), value: AttributeValue::Text(value) };
    let number =
        |name: &str, value: f64| Attribute { name: name.to_owned(), value: AttributeValue::Number(value) };
    let mut found =
        vec![text("platform", "Linux".to_owned()), text("agent", format!("kimberlite_{version}"))];
    if let Ok(stat) = std::fs::read_to_string(proc.join("stat")) {
        let cpus = stat.lines().filter(|line| {
            line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        });
        found.push(number("cpus", cpus.count() as f64));
    }
    if let Some(kilobytes) = std::fs::read_to_string(proc.join("meminfo")).ok().and_then(|meminfo| {
        meminfo.lines().next()?.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<f64>().ok()
    }) {
        let bytes = kilobytes * 1024.0;
        found.push(text("ram", format!("{:.2} GB", bytes / f64::from(1 << 30))));
        found.push(number("ram bytes", bytes));
    }
    let release = std::fs::read_to_string(root.join("etc/os-release"))
        .or_else(|_| std::fs::read_to_string(root.join("usr/lib/os-release")))
        .unwrap_or_default();
    for (key, name) in [
        ("ID", "distribution_name"),
        ("VERSION_ID", "distribution_version"),
        ("VERSION_CODENAME", "distribution_id"),
    ] {
        let value = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        if let Some(value) = value.map(|value| value.trim_matches('"')).filter(|value| !value.is_empty()) {
            found.push(text(name, value.to_owned()));
        }
    }
    found
}

/// The first label of the machine's name.
pub fn host_name() -> String {
    let full = rustix::system::uname().nodename().to_string_lossy().into_owned();
    match full.split('.').next() {
        Some(label) if !label.is_empty() => label.to_owned(),
        _ => "localhost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Tag;

    fn tag(name: &str, value: &str) -> Tag {
        Tag { name: name.into(), value: value.into() }
    }

    #[test]
    fn the_operators_tag_wins_over_a_collectors() {
        let machine = Machine::new("m", Facts { tags: vec![tag("env", "prod")], ..Facts::default() });
        let said = Additions { tags: vec![tag("env", "guess"), tag("rack", "7")], ..Additions::default() };
        machine.add("x", said, 0);
        assert_eq!(machine.element().facts().tags, [tag("env", "prod"), tag("rack", "7")]);
        machine.forget("x");
        assert_eq!(machine.element().facts().tags, [tag("env", "prod")]);
    }

    #[test]
    fn what_is_not_repeated_for_an_hour_goes() {
        let machine = Machine::new("m", Facts::default());
        machine.add("x", Additions { relations: vec!["r".into()], ..Additions::default() }, 0);
        machine.add("y", Additions::default(), KEEP - 1);
        assert_eq!(machine.element().facts().relations, ["r"]);
        machine.add("y", Additions::default(), KEEP);
        assert!(machine.element().facts().relations.is_empty());
    }

    #[test]
    fn one_collector_cannot_add_without_end() {
        let machine = Machine::new("m", Facts::default());
        let relations = (0..1000).map(|n| n.to_string()).collect();
        machine.add("x", Additions { relations, ..Additions::default() }, 0);
        assert_eq!(machine.element().facts().relations.len(), MOST);
    }
}
