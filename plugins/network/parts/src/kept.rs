//! What a collector keeps for each row of a table between two runs, most often its series.

/// Something for each row, by the row's key.
#[derive(Debug)]
pub struct Kept<T> {
    entries: Vec<Entry<T>>,
    /// Where the row behind the one asked for last is, if rows come in the order of the last run.
    guess: usize,
}

#[derive(Debug)]
struct Entry<T> {
    key: Box<str>,
    value: T,
    /// Since the last sweep.
    is_asked_for: bool,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Kept<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { entries: Vec::new(), guess: 0 }
    }

    /// What is kept for the row `key`, made if the row is new.
    pub fn get(&mut self, key: &str, make: impl FnOnce() -> T) -> &mut T {
        let is_meant = |entry: &Entry<T>| *entry.key == *key;
        let at = match self.entries.get(self.guess).is_some_and(is_meant) {
            true => Some(self.guess),
            false => self.entries.iter().position(is_meant),
        };
        let at = at.unwrap_or_else(|| {
            self.entries.push(Entry { key: key.into(), value: make(), is_asked_for: true });
            self.entries.len() - 1
        });
        self.guess = at + 1;
        let entry = &mut self.entries[at];
        entry.is_asked_for = true;
        &mut entry.value
    }

    /// Lets go what was not asked for since the last sweep.
    pub fn sweep(&mut self) -> impl Iterator<Item = T> {
        self.guess = 0;
        let missing = self.entries.extract_if(.., |entry| !std::mem::take(&mut entry.is_asked_for));
        missing.map(|entry| entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_that_is_gone_is_let_go_and_made_anew_when_it_comes_back() {
        let mut kept = Kept::new();
        let mut run = |rows: &[(&str, i32)]| {
            let values: Vec<_> = rows.iter().map(|(key, fresh)| *kept.get(key, || *fresh)).collect();
            (values, kept.sweep().collect::<Vec<_>>())
        };
        assert_eq!(run(&[("a", 1), ("b", 2), ("c", 3)]), (vec![1, 2, 3], vec![]));
        assert_eq!(run(&[("a", 4), ("c", 5)]), (vec![1, 3], vec![2]));
        assert_eq!(run(&[("c", 6), ("b", 7), ("a", 8)]), (vec![3, 7, 1], vec![]));
    }
}
