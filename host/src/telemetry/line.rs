//! One line of the log. Every text in it is scrubbed before it is cut, and escaped before it is
//! written, so that what a plugin says can neither tell a secret nor look like a line of its own.

use std::fmt::{self, Write};
use std::panic::PanicHookInfo;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::Format;
use super::repeats::Repeated;
use crate::secrets::Secrets;

/// No text of a line is longer, in bytes.
const LONGEST: usize = 8 * 1024;

/// An event, ready to be rendered.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) level: Level,
    pub(super) message: String,
    target: &'static str,
    fields: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
enum Value {
    /// As it stands in both formats: a number, `true`, `false`.
    Bare(String),
    Text(String),
}

impl Line {
    pub(super) fn of(event: &Event<'_>, secrets: &Secrets) -> Self {
        let metadata = event.metadata();
        let mut reader = Reader { message: String::new(), fields: Vec::new(), secrets };
        event.record(&mut reader);
        let Reader { message, fields, .. } = reader;
        Self { level: *metadata.level(), message, target: metadata.target(), fields }
    }

    pub(super) fn of_panic(info: &PanicHookInfo<'_>, secrets: &Secrets) -> Self {
        let said = info.payload_as_str().unwrap_or("no message");
        let place = info.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        Self {
            level: Level::ERROR,
            message: clean(&format!("panic: {said}"), secrets),
            target: module_path!(),
            fields: vec![("location", Value::Text(place))],
        }
    }

    /// What its field `plugin` says.
    pub(super) fn plugin(&self) -> Option<&str> {
        self.fields.iter().find_map(|(name, value)| match value {
            Value::Text(text) if *name == "plugin" => Some(text.as_str()),
            _ => None,
        })
    }

    /// The whole line, its newline too.
    pub(super) fn render(&self, format: Format, now: SystemTime) -> String {
        let time = humantime::format_rfc3339_millis(now);
        let mut out = String::with_capacity(128);
        // Writing to a string cannot fail.
        let _ = match format {
            Format::Text => self.render_text(&mut out, time),
            Format::Json => self.render_json(&mut out, time),
        };
        out.push('\n');
        out
    }

    fn render_text(&self, out: &mut String, time: impl fmt::Display) -> fmt::Result {
        write!(out, "{time} {} ", self.level)?;
        escape(out, &self.message, false);
        for (name, value) in &self.fields {
            write!(out, " {name}=")?;
            match value {
                Value::Text(text) if !is_plain(text) => quote(out, text),
                Value::Text(text) | Value::Bare(text) => out.push_str(text),
            }
        }
        if !super::is_ours(self.target) {
            write!(out, " target={}", self.target)?;
        }
        Ok(())
    }

    fn render_json(&self, out: &mut String, time: impl fmt::Display) -> fmt::Result {
        let level = self.level.as_str().to_ascii_lowercase();
        write!(
            out,
            "{{\"time\":\"{time}\",\"level\":\"{level}\",\"target\":\"{}\",\"message\":",
            self.target
        )?;
        quote(out, &self.message);
        for (name, value) in &self.fields {
            let taken = matches!(*name, "time" | "level" | "target" | "message");
            write!(out, ",\"{name}{}\":", if taken { "_" } else { "" })?;
            match value {
                Value::Text(text) => quote(out, text),
                Value::Bare(text) => out.push_str(text),
            }
        }
        out.push('}');
        Ok(())
    }
}

/// What became of lines that were held back.
impl From<Repeated> for Line {
    fn from(repeated: Repeated) -> Self {
        let times = repeated.times;
        let plugin = repeated.plugin.map(|name| ("plugin", Value::Text(name)));
        Self {
            level: repeated.level,
            message: format!("{} … repeated {times} times", repeated.message),
            target: module_path!(),
            fields: plugin.into_iter().chain([("repeated", Value::Bare(times.to_string()))]).collect(),
        }
    }
}

struct Reader<'a> {
    message: String,
    fields: Vec<(&'static str, Value)>,
    secrets: &'a Secrets,
}

impl Reader<'_> {
    /// A number may be a secret, too, for instance a PIN.
    fn bare(&mut self, field: &Field, text: String) {
        let scrubbed = self.secrets.scrub(&text);
        let value = if scrubbed == text { Value::Bare(text) } else { Value::Text(scrubbed.into_owned()) };
        self.fields.push((field.name(), value));
    }
}

impl Visit for Reader<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.bare(field, value.to_string());
        } else {
            self.fields.push((field.name(), Value::Text(value.to_string())));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), Value::Bare(value.to_string())));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let text = clean(value, self.secrets);
        match field.name() {
            "message" => self.message = text,
            name => self.fields.push((name, Value::Text(text))),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Scrubbed, then cut.
fn clean(text: &str, secrets: &Secrets) -> String {
    let text = secrets.scrub(text);
    match text.len() <= LONGEST {
        true => text.into_owned(),
        false => format!("{}…", &text[..text.floor_char_boundary(LONGEST)]),
    }
}

/// Whether a value can stand without quotes.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| !c.is_whitespace() && !matches!(c, '"' | '=' | '\\') && !is_hidden(c))
}

/// Whether a terminal would do something else with it than show it.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    escape(out, text, true);
    out.push('"');
}

/// As JSON escapes, so that one set of rules serves both formats.
fn escape(out: &mut String, text: &str, quoted: bool) {
    for c in text.chars() {
        match c {
            '"' | '\\' if quoted => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // All of these fit into four digits.
            c if is_hidden(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_could_be_misread_are_quoted() {
        for text in ["", "a b", "a=b", "say \"hi\"", "back\\slash", "new\nline"] {
            assert!(!is_plain(text), "{text:?}");
        }
        assert!(is_plain("/var/lib/kimberlite:3,ü"));
    }

    #[test]
    fn escaped_texts_are_json() {
        let text: String = (0..0x2100).filter_map(char::from_u32).collect();
        let mut out = String::new();
        quote(&mut out, &text);
        assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
    }

    #[test]
    fn a_secret_at_the_cut_is_not_cut() {
        let secrets = Secrets::default();
        secrets.add("hunter22");
        let text =
            clean(&format!("{}hunter22{}", "ü".repeat(LONGEST / 2 - 2), "x".repeat(LONGEST)), &secrets);
        assert!(text.len() <= LONGEST + "…".len() && text.ends_with("[sec…"), "{}", &text[LONGEST - 20..]);
    }
}
