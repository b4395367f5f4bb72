//! A TOML file as a tree that knows where everything stands, its variables filled in.
//!
//! Uses: `expand`, `fault`.

use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::expand::{Env, expand};
use super::fault::{Fault, Place};

/// The entries of a table, in the file's order.
pub(super) type Entries = IndexMap<String, Node>;

/// A value and the line of its key; of a list's item, its own.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Whole(i64),
    Number(f64),
    Boolean(bool),
    /// A date or a time, which no key takes.
    Date(String),
    List(Vec<Node>),
    Table(Entries),
    /// Has been reported, and is passed over from here on.
    Faulty,
}

/// Reads one file; without an `env`, texts stay as they are. Where its syntax is wrong, everything wrong with it is reported, and there is
/// no tree.
pub(super) fn parse(file: &Path, text: &str, env: Option<Env<'_>>, faults: &mut Vec<Fault>) -> Option<Node> {
    let starts: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
    let mut builder = Builder { file: file.into(), starts, env, faults };
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut last = 0;
    for error in &errors {
        let line = error.span().map_or(0, |span| builder.line(span.start));
        // What follows on the same line mostly follows from the first.
        if line == 0 || line != last {
            let place = builder.place(line, String::new());
            builder.faults.push(Fault::new(format!("not valid TOML: {}", error.message())).at(&place));
        }
        last = line;
    }
    if !errors.is_empty() {
        return None;
    }
    let value = Value::Table(builder.entries(table.into_inner(), ""));
    Some(Node { value, place: Place::file(file) })
}

struct Builder<'a> {
    file: Arc<Path>,
    starts: Vec<usize>,
    env: Option<Env<'a>>,
    faults: &'a mut Vec<Fault>,
}

impl Builder<'_> {
    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset) + 1
    }

    fn place(&self, line: usize, table: String) -> Place {
        Place { file: self.file.clone(), line, table }
    }

    fn entries(&mut self, table: DeTable<'_>, path: &str) -> Entries {
        let mut pairs: Vec<_> = table.into_iter().collect();
        pairs.sort_by_key(|(key, _)| key.span().start);
        let mut entries = Entries::with_capacity(pairs.len());
        for (key, value) in pairs {
            let line = self.line(key.span().start);
            let key = key.into_inner().into_owned();
            let node = self.node(&key, value, line, path);
            entries.insert(key, node);
        }
        entries
    }

    fn node(&mut self, key: &str, value: Spanned<DeValue<'_>>, line: usize, path: &str) -> Node {
        let mut place = self.place(line, path.to_owned());
        let value = match value.into_inner() {
            DeValue::String(text) => match self.env {
                Some(env) => expand(&text, env).map(Value::Text),
                None => Ok(Value::Text(text.into_owned())),
            },
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
                .map(Value::Whole)
                .map_err(|_| format!("{digits} is too big")),
            DeValue::Float(digits) => {
                digits.as_str().parse().map(Value::Number).map_err(|_| format!("{digits} is no number"))
            }
            DeValue::Boolean(value) => Ok(Value::Boolean(value)),
            DeValue::Datetime(date) => Ok(Value::Date(date.to_string())),
            DeValue::Array(items) => {
                let items = items.into_iter();
                Ok(Value::List(
                    items
                        .map(|item| {
                            let line = self.line(item.span().start);
                            self.node(key, item, line, path)
                        })
                        .collect(),
                ))
            }
            DeValue::Table(table) => {
                place.table = join(path, key);
                Ok(Value::Table(self.entries(table, &place.table)))
            }
        };
        let value = value.unwrap_or_else(|error| {
            self.faults.push(Fault::new(format!("`{key}`: {error}")).at(&place));
            Value::Faulty
        });
        Node { value, place }
    }
}

/// `collectors.disk`; a key that is not bare is quoted.
pub(super) fn join(path: &str, key: &str) -> String {
    let is_bare =
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let key = if is_bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// Puts several files together: tables of one name meet, and what stands in two of them is a fault
/// that names both places.
pub(super) fn merge(trees: Vec<Node>, faults: &mut Vec<Fault>) -> Entries {
    let mut merged = Entries::new();
    for tree in trees {
        let Value::Table(entries) = tree.value else { continue };
        for (name, node) in entries {
            let Some(known) = merged.get_mut(&name) else {
                merged.insert(name, node);
                continue;
            };
            match (&mut known.value, node.value) {
                (Value::Table(known), Value::Table(entries)) => {
                    for (key, node) in entries {
                        match known.get(&key) {
                            None => {
                                known.insert(key, node);
                            }
                            Some(first) => faults.push(twice(&join(&name, &key), &first.place, &node.place)),
                        }
                    }
                }
                _ => faults.push(twice(&name, &known.place, &node.place)),
            }
        }
    }
    merged
}

fn twice(what: &str, first: &Place, second: &Place) -> Fault {
    Fault::new(format!("`{what}` stands twice: here and in {}:{}", first.file.display(), first.line))
        .at(second)
        .hint("keep one of them")
}
