//! What must never be written: the values of settings of type `secret`, and `[secret]` in their place.
//!
//! ```text
//! config ──add──▶ Secrets ──scrub──▶ log lines, errors, panic messages, reports
//! ```
//!
//! A secret in a URL's path or in JSON looks different from the one in the config. A text is therefore
//! searched twice, as it is and with its `%xx` decoded: whatever an encoder chose to escape, in
//! whichever case of hex digits, is found. Scrub a text before it is cut: half a secret is not known.
//!
//! Uses: nothing of kimberlite.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use aho_corasick::AhoCorasick;
use percent_encoding::percent_decode_str;

/// Values of fewer bytes would be found in innocent texts.
const SHORTEST: usize = 6;

/// What is written in a secret's place.
const PLACEHOLDER: &str = "[secret]";

/// All secrets of the agent. Clones share one registry.
#[derive(Clone, Default)]
pub struct Secrets(Arc<RwLock<Registry>>);

#[derive(Default)]
struct Registry {
    forms: BTreeSet<String>,
    finder: Option<AhoCorasick>,
}

impl Secrets {
    /// From now on `value` is scrubbed, and so is each line of a value of several lines. White space
    /// around it does not count; what is then shorter than 6 bytes is left alone.
    pub fn add(&self, value: &str) {
        let mut registry = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = registry.forms.len();
        for text in std::iter::once(value).chain(value.lines()) {
            registry.add_forms(text.trim());
        }
        if registry.forms.len() > known {
            registry.finder = AhoCorasick::new(&registry.forms).ok();
        }
    }

    /// `text` with every secret in it replaced by `[secret]`.
    pub fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let registry = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(finder) = &registry.finder else { return Cow::Borrowed(text) };
        let mut spans: Vec<Range<usize>> = finder.find_overlapping_iter(text).map(|m| m.range()).collect();
        if text.contains('%') {
            let (decoded, origin) = decode(text.as_bytes());
            spans.extend(finder.find_overlapping_iter(&decoded).map(|m| origin[m.start()]..origin[m.end()]));
        }
        if spans.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(replace(text, spans)) }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets([secret])")
    }
}

impl Registry {
    /// All that the value looks like once something has quoted or encoded it.
    fn add_forms(&mut self, value: &str) {
        if value.len() < SHORTEST {
            return;
        }
        let plain = percent_decode_str(value).decode_utf8_lossy();
        for form in [value, plain.as_ref()] {
            self.forms.insert(form.to_owned());
            self.forms.insert(form.replace(' ', "+"));
            self.forms.insert(unquoted(&format!("{form:?}")));
            self.forms.insert(unquoted(&serde_json::Value::from(form).to_string()));
            self.forms.insert(unquoted(&serde_json::Value::from(form).to_string()).replace('/', "\\/"));
        }
    }
}

fn unquoted(text: &str) -> String {
    text.get(1..text.len() - 1).unwrap_or(text).to_owned()
}

/// `text` with every `%xx` decoded, and for each byte of the result, and for its end, where it came from.
fn decode(text: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let mut decoded = Vec::with_capacity(text.len());
    let mut origin = Vec::with_capacity(text.len() + 1);
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        origin.push(at);
        let escaped = match text.get(at..at + 3) {
            Some(&[b'%', high, low]) => hex(high).zip(hex(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        decoded.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    origin.push(text.len());
    (decoded, origin)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Spans that overlap become one. They begin and end where characters do: the patterns are whole texts.
fn replace(text: &str, mut spans: Vec<Range<usize>>) -> String {
    spans.sort_unstable_by_key(|span| span.start);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for span in spans {
        if span.start >= done {
            out.push_str(text.get(done..span.start).unwrap_or_default());
            out.push_str(PLACEHOLDER);
        }
        done = done.max(span.end);
    }
    out.push_str(text.get(done..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[&str]) -> Secrets {
        let secrets = Secrets::default();
        values.iter().for_each(|value| secrets.add(value));
        secrets
    }

    #[test]
    fn a_text_without_secrets_is_not_copied() {
        let text = "posted 12 samples to https://api.app.metricly.com/ingest/100%/x";
        assert!(matches!(secrets(&["s3cret-key"]).scrub(text), Cow::Borrowed(same) if same == text));
    }

    #[test]
    fn a_key_in_a_url_is_found_however_it_was_encoded() {
        let secrets = secrets(&["a/b+c d=ü"]);
        for encoded in [
            "a/b+c d=ü",
            "a/b+c%20d=%C3%BC",
            "a%2Fb%2Bc%20d%3D%C3%BC",
            "a%2fb%2bc%20d%3d%c3%bc",
            "a%2Fb%2bc+d%3D%C3%bc",
            "%61%2Fb%2Bc%20d%3D%C3%BC",
        ] {
            let line = format!("POST https://x.org/ingest/{encoded}/batch?n=1%20: 503");
            assert_eq!(
                secrets.scrub(&line),
                "POST https://x.org/ingest/[secret]/batch?n=1%20: 503",
                "{encoded}"
            );
        }
    }

    #[test]
    fn a_secret_that_is_configured_encoded_is_found_decoded() {
        assert_eq!(
            secrets(&["p%40ssword"]).scrub("login bob:p@ssword, p%40ssword"),
            "login bob:[secret], [secret]"
        );
    }

    #[test]
    fn quoted_in_json_and_in_debug_output_it_is_found() {
        let value = "q\"uo/te\\d\u{1}\n\u{7f}x";
        let secrets = secrets(&[value]);
        let json = serde_json::json!({ "key": value }).to_string();
        assert_eq!(secrets.scrub(&json), r#"{"key":"[secret]"}"#);
        assert_eq!(secrets.scrub(&json.replace('/', "\\/")), r#"{"key":"[secret]"}"#);
        assert_eq!(secrets.scrub(&format!("{:?}", Some(value))), r#"Some("[secret]")"#);
    }

    #[test]
    fn the_longest_of_several_secrets_is_replaced_whole() {
        assert_eq!(secrets(&["abcdef", "abcdefghij"]).scrub("xabcdefghijx abcdefg"), "x[secret]x [secret]g");
    }

    #[test]
    fn secrets_that_overlap_become_one() {
        assert_eq!(secrets(&["abc%41def", "Adefghi"]).scrub("-abc%41defghi-"), "-[secret]-");
    }

    #[test]
    fn short_values_are_left_alone() {
        assert_eq!(secrets(&["12345", "", " 1 "]).scrub("port 12345"), "port 12345");
    }

    #[test]
    fn a_files_last_newline_is_no_part_of_the_secret() {
        assert_eq!(secrets(&["hunter22\n"]).scrub("key hunter22 refused"), "key [secret] refused");
    }

    #[test]
    fn each_line_of_a_long_secret_is_one() {
        let secrets = secrets(&["first-line\nsecond-line\n}\n"]);
        assert_eq!(secrets.scrub("got second-line }"), "got [secret] }");
        assert_eq!(secrets.scrub("got first-line\nsecond-line\n}"), "got [secret]");
    }

    #[test]
    fn a_clone_learns_what_the_other_was_told() {
        let first = Secrets::default();
        let second = first.clone();
        first.add("hunter22");
        assert_eq!(second.scrub("hunter22"), "[secret]");
    }

    #[test]
    fn debug_output_shows_none() {
        assert!(!format!("{:?}", secrets(&["hunter22"])).contains("hunter"));
    }

    #[test]
    fn broken_escapes_and_cut_characters_do_no_harm() {
        let secrets = secrets(&["hunter22"]);
        for text in ["%", "%%", "%4", "%zz hunter2%3", "ü%C3", "%ü%"] {
            assert_eq!(secrets.scrub(text), text);
        }
    }
}
