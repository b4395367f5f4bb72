//! Reads one table of a tree into a type: every fault is collected, none stops the reading, and a
//! key that nobody asked for is a fault itself.
//!
//! ```text
//! Reader::read(node, faults, |table| {
//!     table.set("interval", &mut config.interval);              // stays as it is if absent or wrong
//!     table.table("queue", |queue| queue.size("memory", …));    // a table inside
//! })                                                            // leftover keys: faults
//! ```
//!
//! Uses: `tree`, `fault`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;

use super::fault::{Fault, Place, nearest};
use super::tree::{Entries, Node, Value};

/// Longer durations are mistakes, and would overflow what they are added to.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// One table while it is read.
pub(super) struct Reader<'f> {
    entries: Entries,
    place: Place,
    /// Keys that were asked for, and where those stand that were there.
    known: Vec<(&'static str, Option<Place>)>,
    faults: &'f mut Vec<Fault>,
}

impl<'f> Reader<'f> {
    /// Reads `node`. None if it is no table.
    pub(super) fn read<T>(
        node: Node,
        faults: &'f mut Vec<Fault>,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> Option<T> {
        let Value::Table(entries) = node.value else { return None };
        let mut reader = Reader { entries, place: node.place, known: Vec::new(), faults };
        let value = read(&mut reader);
        reader.finish();
        Some(value)
    }

    fn finish(self) {
        for (key, node) in self.entries {
            let hint = nearest(&key, self.known.iter().map(|(known, _)| *known));
            self.faults.push(Fault::new(format!("unknown key `{key}`")).at(&node.place).hint(hint));
        }
    }

    /// Where the table stands.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Reports something about `key`, at its place if it is there.
    pub(super) fn fault(&mut self, key: &str, message: impl Into<String>, hint: Option<&str>) {
        let known = self.known.iter().rev().find(|(known, _)| *known == key);
        let place = known.and_then(|(_, place)| place.as_ref()).unwrap_or(&self.place);
        let fault = Fault::new(message).at(place);
        self.faults.push(match hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        });
    }

    /// Reports something about the table itself.
    pub(super) fn fault_here(&mut self, message: impl Into<String>, hint: Option<&str>) {
        let fault = Fault::new(message).at(&self.place);
        self.faults.push(match hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        });
    }

    /// Reports what was found elsewhere.
    pub(super) fn report(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// The value as it stands.
    pub(super) fn node(&mut self, key: &'static str) -> Option<Node> {
        let node = self.entries.shift_remove(key);
        self.known.push((key, node.as_ref().map(|node| node.place.clone())));
        node.filter(|node| node.value != Value::Faulty)
    }

    /// The value, if it is there and of its type.
    pub(super) fn take<T: FromValue>(&mut self, key: &'static str) -> Option<T> {
        let node = self.node(key)?;
        self.convert(key, &node)
    }

    /// The same of a node.
    pub(super) fn convert<T: FromValue>(&mut self, key: &str, node: &Node) -> Option<T> {
        let found = T::from_value(&node.value);
        if found.is_none() && !node.value.is_faulty() {
            self.faults.push(wrong(key, T::WANTED, node));
        }
        found
    }

    /// Replaces `slot`, if the key is there.
    pub(super) fn set<T: FromValue>(&mut self, key: &'static str, slot: &mut T) {
        if let Some(value) = self.take(key) {
            *slot = value;
        }
    }

    /// Replaces `slot` by a number of bytes above zero, if the key is there.
    pub(super) fn size<T: TryFrom<u64>>(&mut self, key: &'static str, slot: &mut T) {
        if let Some(bytes) = self.some_size(key) {
            *slot = bytes;
        }
    }

    /// The same, where 0 has a meaning.
    pub(super) fn size_or_none(&mut self, key: &'static str, slot: &mut u64) {
        if let Some(Size(bytes)) = self.take(key) {
            *slot = bytes;
        }
    }

    /// A number of bytes above zero.
    pub(super) fn some_size<T: TryFrom<u64>>(&mut self, key: &'static str) -> Option<T> {
        let Size(bytes) = self.take(key)?;
        self.above_zero(key, bytes)
    }

    /// Replaces `slot` by a whole number above zero, if the key is there.
    pub(super) fn count<T: TryFrom<u64>>(&mut self, key: &'static str, slot: &mut T) {
        if let Some(number) = self.some_count(key) {
            *slot = number;
        }
    }

    /// A whole number above zero.
    pub(super) fn some_count<T: TryFrom<u64>>(&mut self, key: &'static str) -> Option<T> {
        let number: u64 = self.take(key)?;
        self.above_zero(key, number)
    }

    fn above_zero<T: TryFrom<u64>>(&mut self, key: &str, number: u64) -> Option<T> {
        let fitting = T::try_from(number).ok().filter(|_| number > 0);
        if fitting.is_none() {
            let wrong = if number == 0 { "must be more than 0" } else { "is too big" };
            self.fault(key, format!("`{key}` {wrong}"), None);
        }
        fitting
    }

    /// A duration above zero.
    pub(super) fn positive(&mut self, key: &'static str) -> Option<Duration> {
        let duration: Duration = self.take(key)?;
        if duration.is_zero() {
            self.fault(key, format!("`{key}` must be longer than 0s"), None);
            return None;
        }
        Some(duration)
    }

    /// Replaces `slot` by a duration above zero, if the key is there.
    pub(super) fn positive_into(&mut self, key: &'static str, slot: &mut Duration) {
        if let Some(duration) = self.positive(key) {
            *slot = duration;
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let node = self.node(key)?;
        if let Value::Text(text) = &node.value
            && let Some((_, value)) = choices.iter().find(|(name, _)| name == text)
        {
            return Some(*value);
        }
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
        self.faults.push(wrong(key, &format!("one of {}", names.join(", ")), &node));
        None
    }

    /// Whether the key is there, and not read yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// A path; a relative one starts at the directory of the file that names it.
    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let path: String = self.take(key)?;
        if path.is_empty() {
            self.fault(key, format!("`{key}` is empty: expected a path"), None);
            return None;
        }
        Some(beside(&self.place.file, &path))
    }

    /// A list of such paths.
    pub(super) fn paths(&mut self, key: &'static str) -> Option<Vec<PathBuf>> {
        let paths: Vec<String> = self.take(key)?;
        Some(paths.iter().map(|path| beside(&self.place.file, path)).collect())
    }

    /// A path that has to be absolute.
    pub(super) fn absolute(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = PathBuf::from(self.take::<String>(key)?);
        if path.is_absolute() {
            return Some(path);
        }
        self.fault(key, format!("`{key}` must be an absolute path, not `{}`", path.display()), None);
        None
    }

    /// Reads a table inside this one, if it is there.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> Option<T> {
        let node = self.node(key)?;
        self.within(key, node, read)
    }

    /// Reads each of the other entries as a table.
    pub(super) fn each(&mut self, mut read: impl FnMut(&str, &mut Reader<'_>)) {
        for (name, node) in self.rest() {
            self.within(&name, node, |table| read(&name, table));
        }
    }

    /// Reads a node of this table as a table.
    pub(super) fn within<T>(
        &mut self,
        key: &str,
        node: Node,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> Option<T> {
        if !matches!(node.value, Value::Table(_)) {
            if !node.value.is_faulty() {
                self.faults.push(wrong(key, "a table", &node));
            }
            return None;
        }
        Reader::read(node, self.faults, read)
    }

    /// All other entries, whatever their names.
    pub(super) fn rest(&mut self) -> Entries {
        std::mem::take(&mut self.entries)
    }
}

/// `path` as the file that names it means it.
pub(super) fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

/// "`interval` must be a duration such as `30s`, not `60`".
pub(super) fn wrong(key: &str, wanted: &str, node: &Node) -> Fault {
    let fault =
        Fault::new(format!("`{key}` must be {wanted}, not {}", node.value.describe())).at(&node.place);
    match &node.value {
        Value::Whole(number) if wanted == Duration::WANTED => {
            fault.hint(format!("a duration has a unit: `{key} = \"{number}s\"`"))
        }
        _ => fault,
    }
}

impl Value {
    /// Whether it, or an item of it, has been reported already.
    pub(super) fn is_faulty(&self) -> bool {
        match self {
            Self::Faulty => true,
            Self::List(items) => items.iter().any(|item| item.value.is_faulty()),
            _ => false,
        }
    }

    /// For people, behind "not".
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Text(text) => format!("`{text:?}`"),
            Self::Whole(number) => format!("`{number}`"),
            Self::Number(number) => format!("`{number}`"),
            Self::Boolean(value) => format!("`{value}`"),
            Self::Date(_) => "a date".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Faulty => "this".to_owned(),
        }
    }
}

/// What a value of a config can be read as.
pub(super) trait FromValue: Sized {
    /// For people, behind "must be".
    const WANTED: &'static str;

    fn from_value(value: &Value) -> Option<Self>;
}

/// A number of bytes: `"16MiB"`, or a whole number.
pub(super) struct Size(pub(super) u64);

impl FromValue for Size {
    const WANTED: &'static str = "a size such as `\"16MiB\"`";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => text.trim().parse::<ByteSize>().ok().map(|size| Self(size.0)),
            Value::Whole(number) => u64::try_from(*number).ok().map(Self),
            _ => None,
        }
    }
}

impl FromValue for Duration {
    const WANTED: &'static str = "a duration such as `\"30s\"`";

    fn from_value(value: &Value) -> Option<Self> {
        let Value::Text(text) = value else { return None };
        humantime::parse_duration(text.trim()).ok().filter(|duration| *duration <= LONGEST)
    }
}

impl FromValue for String {
    const WANTED: &'static str = "a text";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl FromValue for bool {
    const WANTED: &'static str = "`true` or `false`";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Boolean(value) => Some(*value),
            _ => None,
        }
    }
}

impl FromValue for u64 {
    const WANTED: &'static str = "a whole number from 0";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Whole(number) => Self::try_from(*number).ok(),
            _ => None,
        }
    }
}

impl FromValue for f64 {
    const WANTED: &'static str = "a number";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Some(*number).filter(|number| number.is_finite()),
            Value::Whole(number) => Some(*number as Self),
            _ => None,
        }
    }
}

impl FromValue for Vec<String> {
    const WANTED: &'static str = "a list of texts";

    fn from_value(value: &Value) -> Option<Self> {
        let Value::List(items) = value else { return None };
        items.iter().map(|item| String::from_value(&item.value)).collect()
    }
}
