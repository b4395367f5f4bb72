//! `[capabilities.NAME]` of a manifest, whose addresses may come from settings.
//!
//! Uses: `spec`, for what a placeholder may name; `capability`.

use std::net::Ipv6Addr;
use std::path::Path;

use indexmap::IndexMap;

use super::spec::{SettingSpec, SettingType};
use crate::capability::{Ask, Capability, Target};
use crate::config::fault::{Fault, nearest};
use crate::config::reader::{Reader, wrong};
use crate::config::settings::{SettingValue, given_value};

/// `[capabilities.NAME]`: what is asked, its placeholders not filled yet.
#[derive(Debug, Clone, PartialEq)]
pub struct AskTemplate {
    pub capability: Capability,
    /// `{host}:{port}`; empty for `state` and `stdout`.
    pub ask: Vec<String>,
    /// Families of `host-stats` whose previous view is wanted too.
    pub previous: Vec<Target>,
    pub reason: String,
    /// It is asked only where these settings have these values.
    pub when: Vec<(String, SettingValue)>,
}

impl AskTemplate {
    /// What is asked where settings have these values, if anything. The error is the entry that
    /// comes to no target, and what was expected; the text that came is not shown, for a URL may
    /// hold more than an address.
    pub(super) fn fill<'a>(
        &self,
        value: &impl Fn(&str) -> Option<&'a SettingValue>,
    ) -> Result<Option<Ask>, (&str, &'static str)> {
        if !self.when.iter().all(|(key, wanted)| value(key) == Some(wanted)) {
            return Ok(None);
        }
        let mut targets = match self.ask.is_empty() {
            true => self.capability.whole().unwrap_or_default(),
            false => Vec::new(),
        };
        for pattern in &self.ask {
            for text in fill(pattern, value) {
                let target =
                    Target::parse(self.capability, &text).map_err(|wanted| (pattern.as_str(), wanted))?;
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
        }
        let Self { capability, previous, reason, .. } = self.clone();
        Ok((!targets.is_empty()).then_some(Ask { capability, targets, previous, reason }))
    }

    pub(super) fn read(
        name: &str,
        settings: &IndexMap<String, SettingSpec>,
        table: &mut Reader<'_>,
    ) -> Option<Self> {
        let Some(capability) = Capability::parse(name) else {
            let hint = nearest(name, Capability::ALL.map(Capability::as_str));
            table.fault_here(format!("there is no capability `{name}`"), Some(&hint));
            table.rest();
            return None;
        };
        let has_targets = !matches!(capability, Capability::State | Capability::Stdout);
        let ask: Vec<String> = if has_targets { table.take("ask").unwrap_or_default() } else { Vec::new() };
        if !has_targets && table.take("ask") == Some(false) {
            table.fault("ask", "`ask = false` asks nothing: leave the table out", None);
        }
        if has_targets && ask.is_empty() {
            table.fault(
                "ask",
                format!("`[capabilities.{name}]` asks nothing"),
                Some("name it: `ask = [\"…\"]`"),
            );
        }
        for pattern in &ask {
            let mut keys = placeholders(pattern).peekable();
            if keys.peek().is_none()
                && let Err(wanted) = Target::parse(capability, pattern)
            {
                table.fault("ask", format!("`{pattern}` in `ask`: {wanted}"), None);
            }
            for key in keys {
                match settings.get(key) {
                    None => {
                        let hint = nearest(key, settings.keys().map(String::as_str));
                        table.fault("ask", format!("`{{{key}}}` in `ask` is no setting"), Some(&hint));
                    }
                    Some(spec) if spec.kind == SettingType::Secret => {
                        let message = format!("`{{{key}}}` in `ask` is a secret, and a grant would show it");
                        table.fault("ask", message, None);
                    }
                    Some(_) => {}
                }
            }
        }
        let previous = if capability == Capability::HostStats { previous(&ask, table) } else { Vec::new() };
        let reason: String = table.take("reason").unwrap_or_default();
        if reason.trim().is_empty() {
            table.fault("reason", format!("`[capabilities.{name}]` gives no `reason`"), None);
        }
        let when = table.table("when", |table| when(settings, table)).unwrap_or_default();
        Some(Self { capability, ask, previous, reason, when })
    }
}

/// Families whose previous view is wanted; they have to be asked for, too.
fn previous(ask: &[String], table: &mut Reader<'_>) -> Vec<Target> {
    let names: Vec<String> = table.take("previous").unwrap_or_default();
    let mut families = Vec::new();
    for name in names {
        if ask.contains(&name) {
            families.extend(Target::parse(Capability::HostStats, &name).ok());
        } else {
            table.fault("previous", format!("`{name}` in `previous` is not in `ask`"), None);
        }
    }
    families
}

fn when(settings: &IndexMap<String, SettingSpec>, table: &mut Reader<'_>) -> Vec<(String, SettingValue)> {
    let mut conditions = Vec::new();
    for (key, node) in table.rest() {
        let Some(spec) = settings.get(&key) else {
            let hint = nearest(&key, settings.keys().map(String::as_str));
            table.report(Fault::new(format!("`{key}` in `when` is no setting")).at(&node.place).hint(hint));
            continue;
        };
        match given_value(&node).and_then(|value| spec.kind.accept(&value)) {
            Some(value) => conditions.push((key, value)),
            None => table.report(wrong(&key, spec.kind.wanted(), &node)),
        }
    }
    conditions
}

/// Behind a key: the folder of that file, as in `{log_file/..}`.
const FOLDER: &str = "/..";

/// The keys in `{host}:{port}`.
fn placeholders(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split('{').skip(1).filter_map(|part| {
        let hole = part.split_once('}')?.0;
        Some(hole.strip_suffix(FOLDER).unwrap_or(hole))
    })
}

/// `pattern` with the values of its placeholders, once for each item of a list. Values are not
/// searched for placeholders.
fn fill<'a>(pattern: &str, value: &impl Fn(&str) -> Option<&'a SettingValue>) -> Vec<String> {
    let hole = pattern.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    let Some((before, (key, after))) = hole else { return vec![pattern.to_owned()] };
    let (key, is_folder) = match key.strip_suffix(FOLDER) {
        Some(key) => (key, true),
        None => (key, false),
    };
    let texts = match value(key) {
        None => Vec::new(),
        Some(SettingValue::Text(text)) => vec![text.clone()],
        Some(SettingValue::Texts(texts)) => texts.clone(),
        Some(SettingValue::Whole(number)) => vec![number.to_string()],
        Some(SettingValue::Number(number)) => vec![number.to_string()],
        Some(SettingValue::Boolean(value)) => vec![value.to_string()],
    };
    let tails = fill(after, value);
    let mut filled = Vec::new();
    for text in texts {
        // An IPv6 address before a port is written in brackets.
        let is_bracketed = after.starts_with(':') && text.parse::<Ipv6Addr>().is_ok();
        let text = match (is_folder, Path::new(&text).parent()) {
            (true, Some(folder)) => folder.to_string_lossy().into_owned(),
            _ if is_bracketed => format!("[{text}]"),
            _ => text,
        };
        filled.extend(tails.iter().map(|tail| format!("{before}{text}{tail}")));
    }
    filled
}
