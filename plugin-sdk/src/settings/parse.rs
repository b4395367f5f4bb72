//! Flat, dotted settings as a struct of the author's: a serde deserializer over the sorted keys.
//!
//! ```text
//! tls.cert = "x"  tls.verify = true  url = "y"      the keys, sorted, so a table is a run of them
//! ╰────── table tls ──────────────╯  ╰─ value ─╯
//! ```

use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::SettingValue;
use crate::error::Error;

type Entry = (String, SettingValue);

pub(super) fn parse<'a, T: serde::Deserialize<'a>>(entries: &'a [Entry]) -> Result<T, Error> {
    T::deserialize(Table { entries, depth: 0 }).map_err(|problem| match problem.key {
        Some(key) => Error::setting(key, problem.message),
        None => Error::failed(format_args!("settings: {}", problem.message)),
    })
}

/// What is wrong, and with which key where that is known.
#[derive(Debug)]
struct Problem {
    key: Option<String>,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl serde::de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { key: None, message: message.to_string() }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { key: Some(field.to_owned()), message: "is required".to_owned() }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let message = format!("is not known; known are {}", expected.join(", "));
        Self { key: Some(field.to_owned()), message }
    }
}

/// The entries whose keys begin with the same `depth` bytes.
#[derive(Clone, Copy)]
struct Table<'a> {
    entries: &'a [Entry],
    depth: usize,
}

impl<'de> Deserializer<'de> for Table<'de> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_map(Fields { rest: self, field: None })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Goes through a table field by field; a field is one value, or a run of keys behind one dot.
struct Fields<'a> {
    rest: Table<'a>,
    /// The field whose name was given out last: its path, and its entries.
    field: Option<(&'a str, &'a [Entry])>,
}

impl<'a> MapAccess<'a> for Fields<'a> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        let Table { entries, depth } = self.rest;
        let Some((first, _)) = entries.first() else { return Ok(None) };
        let end = first[depth..].find('.').map_or(first.len(), |dot| depth + dot);
        let path = &first[..end];
        let is_inside =
            |key: &str| key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let count = entries.iter().take_while(|(key, _)| is_inside(key)).count();
        let (inside, behind) = entries.split_at(count);
        self.rest.entries = behind;
        self.field = Some((path, inside));
        let name = BorrowedStrDeserializer::new(&path[depth..]);
        seed.deserialize(name).map(Some).map_err(|problem| below(&path[..depth], problem))
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let (path, entries) = self.field.take().ok_or_else(|| Problem::custom("a value without a key"))?;
        match entries {
            [(key, value)] if key == path => seed.deserialize(Value(value)).map_err(|mut problem| {
                problem.key.get_or_insert_with(|| path.to_owned());
                problem
            }),
            [(key, _), ..] if key == path => Err(Problem {
                key: Some(path.to_owned()),
                message: "is a value and a table at once".to_owned(),
            }),
            _ => seed.deserialize(Table { entries, depth: path.len() + 1 }).map_err(|problem| Problem {
                key: Some(problem.key.map_or_else(|| path.to_owned(), |key| full(path, key))),
                ..problem
            }),
        }
    }
}

/// A problem with a field of the table whose path, dot included, is `prefix`.
fn below(prefix: &str, problem: Problem) -> Problem {
    Problem { key: problem.key.map(|key| full(prefix.trim_end_matches('.'), key)), ..problem }
}

/// `missing_field` and `unknown_field` know the field's own name only.
fn full(path: &str, key: String) -> String {
    if path.is_empty() || key.starts_with(path) && key[path.len()..].starts_with('.') {
        key
    } else {
        format!("{path}.{key}")
    }
}

struct Value<'a>(&'a SettingValue);

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.0 {
            SettingValue::Text(text) => visitor.visit_borrowed_str(text),
            SettingValue::Whole(whole) => match u64::try_from(*whole) {
                Ok(whole) => visitor.visit_u64(whole),
                Err(_) => visitor.visit_i64(*whole),
            },
            SettingValue::Number(number) => visitor.visit_f64(*number),
            SettingValue::Boolean(boolean) => visitor.visit_bool(*boolean),
            SettingValue::Texts(texts) => visitor.visit_seq(Texts(texts.iter())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let SettingValue::Text(text) = self.0 else {
            return Err(Problem::custom(self.0.is_not(&format!("one of {}", variants.join(", ")))));
        };
        let word: StringDeserializer<Problem> = text.clone().into_deserializer();
        word.deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Texts<'a>(std::slice::Iter<'a, String>);

impl<'a> SeqAccess<'a> for Texts<'a> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        self.0.next().map(|text| seed.deserialize(BorrowedStrDeserializer::new(text))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use crate::Settings;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Mine {
        url: String,
        #[serde(default)]
        port: Option<u16>,
        #[serde(default)]
        ratio: f32,
        #[serde(default)]
        only: Vec<String>,
        #[serde(default)]
        proto: Proto,
        #[serde(default)]
        tls: Tls,
    }

    #[derive(Debug, PartialEq, Default, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Proto {
        #[default]
        Tcp,
        Udp,
    }

    #[derive(Debug, PartialEq, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Tls {
        verify: bool,
        cert: String,
    }

    fn problem(settings: Settings) -> String {
        settings.parse::<Mine>().unwrap_err().to_string()
    }

    #[test]
    fn flat_keys_become_nested_fields() {
        let settings = Settings::new()
            .with("url", "http://x")
            .with("port", 80)
            .with("ratio", 1)
            .with("only", ["a", "b"])
            .with("proto", "udp")
            .with("tls.verify", true)
            .with("tls.cert", "/x.pem");
        let mine: Mine = settings.parse().unwrap();
        let tls = Tls { verify: true, cert: "/x.pem".into() };
        let only = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(
            mine,
            Mine { url: "http://x".into(), port: Some(80), ratio: 1.0, only, proto: Proto::Udp, tls }
        );
    }

    #[test]
    fn errors_name_the_full_key() {
        let url = || Settings::new().with("url", "x");
        assert_eq!(problem(Settings::new()), "setting `url`: is required");
        assert_eq!(
            problem(url().with("prot", 1)),
            "setting `prot`: is not known; known are url, port, ratio, only, proto, tls"
        );
        assert_eq!(
            problem(url().with("tls.verfiy", true)),
            "setting `tls.verfiy`: is not known; known are verify, cert"
        );
        assert_eq!(
            problem(url().with("tls.verify", 1)),
            "setting `tls.verify`: invalid type: integer `1`, expected a boolean"
        );
        assert_eq!(
            problem(url().with("port", 70_000)),
            "setting `port`: invalid value: integer `70000`, expected u16"
        );
        assert!(problem(url().with("proto", "sctp")).starts_with("setting `proto`: unknown variant `sctp`"));
    }

    #[test]
    fn key_that_is_a_value_and_a_table_is_an_error() {
        let settings = Settings::new().with("url", "x").with("tls", true).with("tls.verify", true);
        assert_eq!(problem(settings), "setting `tls`: is a value and a table at once");
    }

    #[test]
    fn key_that_begins_like_another_is_its_own_field() {
        #[derive(serde::Deserialize)]
        struct Both {
            a: std::collections::BTreeMap<String, i64>,
            #[serde(rename = "a-b")]
            ab: i64,
        }
        // Sorted, "a-b" stands before "a.x".
        let settings = Settings::new().with("a.x", 1).with("a-b", 2).with("a.y", 3);
        let both: Both = settings.parse().unwrap();
        assert_eq!((both.a["x"], both.a["y"], both.ab), (1, 3, 2));
    }
}
