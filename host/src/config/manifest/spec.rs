//! `[settings.KEY]` of a manifest: type, default, help.
//!
//! Uses: `reader`, `settings`.

use std::time::Duration;

use bytesize::ByteSize;
use indexmap::IndexMap;

use crate::config::reader::{FromValue, Reader, Size, wrong};
use crate::config::settings::{GivenValue, SettingValue, given_value, plain};
use crate::config::tree::{Node, Value};

/// `[settings.KEY]`.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingSpec {
    pub kind: SettingType,
    pub default: Option<SettingValue>,
    pub required: bool,
    /// Of required ones: a value, as TOML.
    pub example: Option<String>,
    /// Of texts; empty: any.
    pub choices: Vec<String>,
    pub help: String,
}

/// What a setting's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingType {
    Text,
    Whole,
    Number,
    Boolean,
    Texts,
    /// A text that is never written anywhere.
    Secret,
    /// `"30s"`; passed on as written.
    Duration,
    /// `"16MiB"`; passed on as written.
    Size,
}

/// Reads `[settings.KEY]`; a table that holds only tables is a part of a dotted key.
pub(super) fn specs(prefix: &str, table: &mut Reader<'_>, settings: &mut IndexMap<String, SettingSpec>) {
    for (name, node) in table.rest() {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        if is_part(&node.value) {
            table.within(&key, node, |inner| specs(&key, inner, settings));
        } else if let Some(spec) = table.within(&key, node, |inner| SettingSpec::read(&key, inner)).flatten()
        {
            settings.insert(key, spec);
        }
    }
}

fn is_part(value: &Value) -> bool {
    let is_table = |node: &Node| matches!(node.value, Value::Table(_));
    matches!(value, Value::Table(entries) if !entries.is_empty() && entries.values().all(is_table))
}

impl SettingSpec {
    fn read(key: &str, table: &mut Reader<'_>) -> Option<Self> {
        if !table.has("type") {
            table.fault("type", format!("setting `{key}` has no `type`"), None);
        }
        if key.contains('.') && (key.ends_with(".file") || key.ends_with(".env")) {
            let message = format!("no setting may be called `{key}`: in a config that is where a secret is");
            table.fault_here(message, None);
        }
        let kind = table.choice("type", &SettingType::WORDS);
        let mut spec = Self {
            kind: kind.unwrap_or(SettingType::Text),
            default: None,
            required: table.take("required").unwrap_or(false),
            example: None,
            choices: table.take("choices").unwrap_or_default(),
            help: table.take("help").unwrap_or_default(),
        };
        let default = table.node("default");
        let example = table.node("example");
        // Without a type nothing more can be said.
        let kind = kind?;
        if !spec.choices.is_empty() && kind != SettingType::Text {
            table.fault("choices", "only a text has `choices`", None);
        }
        if let Some(node) = &default {
            spec.default = spec.checked("default", node, table);
            if kind == SettingType::Secret {
                table.fault("default", "a secret has no `default`", None);
            }
            if spec.required {
                table.fault(
                    "default",
                    format!("setting `{key}` is required, so its `default` is never used"),
                    None,
                );
            }
        }
        if let Some(node) = &example
            && spec.checked("example", node, table).is_some()
        {
            spec.example = given_value(node).map(|value| value.to_string());
        }
        if spec.required && example.is_none() {
            let message = format!("setting `{key}` is required and has no `example`");
            table.fault("example", message, Some("errors show it to whoever forgot the setting"));
        }
        Some(spec)
    }

    fn checked(&self, key: &str, node: &Node, table: &mut Reader<'_>) -> Option<SettingValue> {
        let value = given_value(node).and_then(|value| self.kind.accept(&value));
        match &value {
            None => table.report(wrong(key, self.kind.wanted(), node)),
            Some(SettingValue::Text(text)) if !self.choices.is_empty() && !self.choices.contains(text) => {
                table.fault(key, format!("`{key}` is none of its `choices`"), None);
            }
            Some(_) => {}
        }
        value
    }

    /// `host = "10.0.0.7"`.
    pub(in crate::config) fn example_line(&self, key: &str) -> String {
        format!("{key} = {}", self.example.as_deref().unwrap_or("…"))
    }
}

impl SettingType {
    const WORDS: [(&'static str, Self); 8] = [
        ("text", Self::Text),
        ("whole", Self::Whole),
        ("number", Self::Number),
        ("boolean", Self::Boolean),
        ("texts", Self::Texts),
        ("secret", Self::Secret),
        ("duration", Self::Duration),
        ("size", Self::Size),
    ];

    pub fn as_str(self) -> &'static str {
        Self::WORDS[self as usize].0
    }

    /// For people, behind "must be".
    pub(in crate::config) fn wanted(self) -> &'static str {
        match self {
            Self::Text => String::WANTED,
            Self::Whole => "a whole number",
            Self::Number => f64::WANTED,
            Self::Boolean => bool::WANTED,
            Self::Texts => Vec::<String>::WANTED,
            Self::Secret => "a text, `{ file = \"…\" }` or `{ env = \"…\" }`",
            Self::Duration => Duration::WANTED,
            Self::Size => Size::WANTED,
        }
    }

    /// The value as the plugin gets it, if it is of this type. Sources of secrets are not.
    pub(in crate::config) fn accept(self, value: &GivenValue) -> Option<SettingValue> {
        match (self, value) {
            (Self::Text | Self::Secret, GivenValue::Text(_))
            | (Self::Whole, GivenValue::Whole(_))
            | (Self::Number, GivenValue::Number(_))
            | (Self::Boolean, GivenValue::Boolean(_))
            | (Self::Texts, GivenValue::Texts(_)) => plain(value),
            (Self::Number, GivenValue::Whole(number)) => Some(SettingValue::Number(*number as f64)),
            (Self::Duration, GivenValue::Text(text)) => {
                humantime::parse_duration(text.trim()).ok().and_then(|_| plain(value))
            }
            (Self::Size, GivenValue::Text(text)) => {
                text.trim().parse::<ByteSize>().ok().and_then(|_| plain(value))
            }
            (Self::Size, GivenValue::Whole(bytes)) if *bytes >= 0 => {
                Some(SettingValue::Text(bytes.to_string()))
            }
            _ => None,
        }
    }
}
