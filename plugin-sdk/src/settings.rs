//! What the operator has set, as the manifest types it.

use crate::bindings::imports::kimberlite::plugin::types as wit;
use crate::error::{Error, Result};

mod parse;

/// A setting's value, of the type that the manifest states for its key.
#[derive(Debug, Clone, PartialEq)]
pub enum SettingValue {
    /// Text; also every secret, duration and size, as the operator wrote it.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A number.
    Number(f64),
    /// Yes or no.
    Boolean(bool),
    /// A list of texts.
    Texts(Vec<String>),
}

/// The plugin's settings. The agent has filled in the manifest's defaults and checked the types, so
/// a key is missing only if the manifest gives it no default.
///
/// Either key by key, or all at once with [`parse`](Self::parse):
///
/// ```
/// use kimberlite_plugin_sdk::{Result, Settings};
///
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Mine {
///     url: String,
///     #[serde(default)]
///     compact: bool,
/// }
///
/// fn new(settings: &Settings) -> Result<()> {
///     let mine: Mine = settings.parse()?;
///     let compact = settings.boolean("compact").unwrap_or(false);
///     # let _ = (mine.url, compact == mine.compact);
///     Ok(())
/// }
/// # new(&Settings::new().with("url", "http://127.0.0.1:8080")).unwrap();
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// By key.
    entries: Vec<(String, SettingValue)>,
}

impl Settings {
    /// No settings at all; tests add theirs by [`with`](Self::with).
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with `key` set to `value`.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<SettingValue>) -> Self {
        let (key, value) = (key.into(), value.into());
        match self.entries.binary_search_by(|(k, _)| k.as_str().cmp(&key)) {
            Ok(at) => self.entries[at].1 = value,
            Err(at) => self.entries.insert(at, (key, value)),
        }
        self
    }

    /// The value of `key` as it came; none: it is not set.
    pub fn value(&self, key: &str) -> Option<&SettingValue> {
        let at = self.entries.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
        Some(&self.entries[at].1)
    }

    /// The value of `key` as `T`: `get::<&str>("url")`, `get::<u16>("port")`, `get::<bool>(…)`,
    /// `get::<f64>(…)`, `get::<&[String]>(…)`, `get::<Duration>("wait")`. None if it is not set; an
    /// error that names the key if it does not fit.
    pub fn get<'a, T: FromSetting<'a>>(&'a self, key: &str) -> Result<Option<T>> {
        let read = |value| T::from_setting(value).map_err(|what| Error::setting(key, what));
        self.value(key).map(read).transpose()
    }

    /// The same for a key that has to be there.
    pub fn require<'a, T: FromSetting<'a>>(&'a self, key: &str) -> Result<T> {
        self.get(key)?.ok_or_else(|| Error::setting(key, "is required"))
    }

    /// A text; none if `key` is not set or no text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).ok().flatten()
    }

    /// A whole number; none if `key` is not set or none.
    pub fn whole(&self, key: &str) -> Option<i64> {
        self.get(key).ok().flatten()
    }

    /// A number, whole or not; none if `key` is not set or none.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.get(key).ok().flatten()
    }

    /// Yes or no; none if `key` is not set or neither.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        self.get(key).ok().flatten()
    }

    /// A list of texts; empty if `key` is not set or no list.
    pub fn texts(&self, key: &str) -> &[String] {
        self.get(key).ok().flatten().unwrap_or_default()
    }

    /// All keys with their values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SettingValue)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// All settings as a struct of your own. Dotted keys are nested structs: `tls.verify` is the
    /// field `verify` of the field `tls`. A `Duration` or a size is read by
    /// `#[serde(deserialize_with = "…")]`, or as text.
    pub fn parse<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T> {
        parse::parse(&self.entries)
    }

    #[cfg_attr(not(target_arch = "wasm32"), expect(dead_code, reason = "called by the export"))]
    pub(crate) fn from_wit(settings: Vec<wit::Setting>) -> Self {
        let value = |value| match value {
            wit::SettingValue::Text(text) => SettingValue::Text(text),
            wit::SettingValue::Whole(whole) => SettingValue::Whole(whole),
            wit::SettingValue::Number(number) => SettingValue::Number(number),
            wit::SettingValue::Boolean(boolean) => SettingValue::Boolean(boolean),
            wit::SettingValue::Texts(texts) => SettingValue::Texts(texts),
        };
        // There are few of them, and a sort would cost 5 KB of code in every plugin.
        settings.into_iter().fold(Self::new(), |all, setting| all.with(setting.key, value(setting.value)))
    }
}

/// What [`Settings::get`] can give.
pub trait FromSetting<'a>: Sized {
    /// Or what is wrong with the value, for people.
    fn from_setting(value: &'a SettingValue) -> Result<Self, String>;
}

impl SettingValue {
    fn is_not(&self, wanted: &str) -> String {
        match self {
            Self::Text(text) => format!("\"{text}\" is not {wanted}"),
            Self::Whole(number) => format!("{number} is not {wanted}"),
            Self::Number(number) => format!("{number} is not {wanted}"),
            Self::Boolean(boolean) => format!("{boolean} is not {wanted}"),
            Self::Texts(_) => format!("a list is not {wanted}"),
        }
    }
}

impl<'a> FromSetting<'a> for &'a str {
    fn from_setting(value: &'a SettingValue) -> Result<Self, String> {
        match value {
            SettingValue::Text(text) => Ok(text),
            other => Err(other.is_not("a text")),
        }
    }
}

impl FromSetting<'_> for String {
    fn from_setting(value: &SettingValue) -> Result<Self, String> {
        <&str>::from_setting(value).map(str::to_owned)
    }
}

impl FromSetting<'_> for bool {
    fn from_setting(value: &SettingValue) -> Result<Self, String> {
        match value {
            SettingValue::Boolean(boolean) => Ok(*boolean),
            other => Err(other.is_not("true or false")),
        }
    }
}

impl FromSetting<'_> for f64 {
    fn from_setting(value: &SettingValue) -> Result<Self, String> {
        match value {
            SettingValue::Number(number) => Ok(*number),
            SettingValue::Whole(whole) => Ok(*whole as f64),
            other => Err(other.is_not("a number")),
        }
    }
}

impl<'a> FromSetting<'a> for &'a [String] {
    fn from_setting(value: &'a SettingValue) -> Result<Self, String> {
        match value {
            SettingValue::Texts(texts) => Ok(texts),
            other => Err(other.is_not("a list of texts")),
        }
    }
}

/// As in `"1s500ms"`, `"30s"`, `"5m"`, `"2h"`, `"1d"`.
impl FromSetting<'_> for std::time::Duration {
    fn from_setting(value: &SettingValue) -> Result<Self, String> {
        let SettingValue::Text(text) = value else { return Err(value.is_not("a duration")) };
        duration(text).ok_or_else(|| value.is_not("a duration such as \"30s\""))
    }
}

macro_rules! whole_numbers {
    ($($type:ty)*) => {
        $(impl FromSetting<'_> for $type {
            fn from_setting(value: &SettingValue) -> Result<Self, String> {
                let SettingValue::Whole(whole) = value else { return Err(value.is_not("a whole number")) };
                Self::try_from(*whole)
                    .map_err(|_| value.is_not(&format!("between {} and {}", Self::MIN, Self::MAX)))
            }
        })*
    };
}

whole_numbers!(i64 i32 i16 i8 u64 u32 u16 u8 usize);

fn duration(text: &str) -> Option<std::time::Duration> {
    let mut total = std::time::Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let (number, milliseconds): (u64, u64) = match unit {
            "ms" => (number.parse().ok()?, 1),
            "s" | "sec" => (number.parse().ok()?, 1000),
            "m" | "min" => (number.parse().ok()?, 60_000),
            "h" => (number.parse().ok()?, 3_600_000),
            "d" => (number.parse().ok()?, 86_400_000),
            _ => return None,
        };
        total = total.checked_add(std::time::Duration::from_millis(number.checked_mul(milliseconds)?))?;
        rest = behind.trim_start();
    }
    Some(total)
}

impl From<&str> for SettingValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for SettingValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for SettingValue {
    fn from(whole: i64) -> Self {
        Self::Whole(whole)
    }
}

impl From<i32> for SettingValue {
    fn from(whole: i32) -> Self {
        Self::Whole(whole.into())
    }
}

impl From<f64> for SettingValue {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for SettingValue {
    fn from(boolean: bool) -> Self {
        Self::Boolean(boolean)
    }
}

impl<T: Into<String>> From<Vec<T>> for SettingValue {
    fn from(texts: Vec<T>) -> Self {
        Self::Texts(texts.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<String>, const N: usize> From<[T; N]> for SettingValue {
    fn from(texts: [T; N]) -> Self {
        Self::Texts(texts.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn values_are_found_by_key_and_type() {
        let settings = Settings::new()
            .with("url", "http://localhost")
            .with("port", 2003)
            .with("percore", true)
            .with("only", ["a", "b"])
            .with("port", 2004);
        assert_eq!(settings.text("url"), Some("http://localhost"));
        assert_eq!(settings.get::<u16>("port"), Ok(Some(2004)));
        assert_eq!(settings.number("port"), Some(2004.0));
        assert_eq!(settings.boolean("percore"), Some(true));
        assert_eq!(settings.texts("only"), ["a", "b"]);
        assert_eq!(settings.text("nothing"), None);
        assert_eq!(settings.text("port"), None);
    }

    #[test]
    fn value_that_does_not_fit_names_its_key() {
        let settings = Settings::new().with("port", 70_000).with("wait", "soon");
        let error = settings.get::<u16>("port").unwrap_err();
        assert_eq!(error.to_string(), "setting `port`: 70000 is not between 0 and 65535");
        let error = settings.get::<Duration>("wait").unwrap_err();
        assert_eq!(error.to_string(), "setting `wait`: \"soon\" is not a duration such as \"30s\"");
        let error = settings.require::<&str>("url").unwrap_err();
        assert_eq!(error.to_string(), "setting `url`: is required");
    }

    #[test]
    fn durations_are_sums_of_units() {
        let read = |text: &str| Settings::new().with("d", text).get::<Duration>("d").ok().flatten();
        assert_eq!(read("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(read("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(read("2h 5m"), Some(Duration::from_secs(7500)));
        for wrong in ["", "30", "s", "-1s", "1.5s", "99999999999999999999s", "9999999999999999999d"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
