//! What is wrong with a config or a manifest, where it stands, and what to do about it.
//!
//! Uses: nothing of kimberlite.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where something is written. Two places always compare equal: a line that moved means what it
/// meant, and a reload restarts only what means something else.
#[derive(Debug, Clone)]
pub struct Place {
    /// As it was given on the command line; or what stands for it, such as `--set`.
    pub file: Arc<Path>,
    /// From 1; 0 where the whole file is meant.
    pub line: usize,
    /// The table's path, `collectors.disk`; empty at the top.
    pub table: String,
}

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Place {
    /// A whole file.
    pub fn file(file: &Path) -> Self {
        Self { file: file.into(), line: 0, table: String::new() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.table.is_empty() {
            write!(f, "  [{}]", self.table)?;
        }
        Ok(())
    }
}

/// One thing that is wrong. The message is lower case, names the culprit and holds no secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub message: String,
    pub place: Option<Place>,
    /// The next step.
    pub hint: Option<String>,
}

impl Fault {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, hint: None }
    }

    pub fn at(mut self, place: &Place) -> Self {
        self.place = Some(place.clone());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    /// Up to three lines, without a line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(place) = &self.place {
            write!(f, "\n  {place}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong, in the order of files and lines; at least one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// At least one.
    pub fn new(faults: Vec<Fault>) -> Self {
        debug_assert!(!faults.is_empty());
        Self(faults)
    }

    /// `value` if nothing is wrong.
    pub fn none_or<T>(faults: Vec<Fault>, value: T) -> Result<T, Self> {
        if faults.is_empty() { Ok(value) } else { Err(Self(faults)) }
    }

    /// The same, said of `place` where a fault has none of its own.
    pub fn at(mut self, place: &Place) -> Self {
        for fault in self.0.iter_mut().filter(|fault| fault.place.is_none()) {
            fault.place = Some(place.clone());
        }
        self
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl IntoIterator for Faults {
    type Item = Fault;
    type IntoIter = std::vec::IntoIter<Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if index > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

/// "did you mean `interval`?" if one of the known names is near, else all of them.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let distance = |other: &str| strsim::damerau_levenshtein(name, other);
    // Of a short word a third may be wrong before another word is meant.
    let near = |other: &str| distance(other) <= 1 + name.len().max(other.len()) / 4;
    match known.iter().copied().filter(|other| near(other)).min_by_key(|other| distance(other)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.is_empty() => "there is nothing to set here".to_owned(),
        None => format!("there are `{}`", known.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_as_error_place_and_hint() {
        let place = Place {
            file: Path::new("config/kimberlite.toml").into(),
            line: 14,
            table: "collectors.disk".into(),
        };
        let fault = Fault::new("unknown key `intervall`").at(&place).hint("did you mean `interval`?");
        assert_eq!(
            fault.to_string(),
            "error: unknown key `intervall`\n  config/kimberlite.toml:14  [collectors.disk]\n  hint: did you mean `interval`?"
        );
        assert_eq!(Fault::new("x").at(&Place::file(Path::new("a.toml"))).to_string(), "error: x\n  a.toml");
    }

    #[test]
    fn the_nearest_name_is_offered_and_else_all() {
        assert_eq!(nearest("intervall", ["plugin", "interval"]), "did you mean `interval`?");
        assert_eq!(nearest("colectors", ["agent", "collectors"]), "did you mean `collectors`?");
        assert_eq!(nearest("colour", ["ca", "key"]), "there are `ca`, `key`");
    }
}
