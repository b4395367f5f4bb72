//! The shape in which figures travel to plugins: the record `table` of `wit/host.wit`.
//!
//! Everything lies behind an `Arc`, so that all plugins of a slot share one table and handing it to
//! a guest copies it once, into the guest. A [`Draft`] is what parsers write into; it is reused, and
//! a table whose keys are those of the one before it shares them: mostly only the numbers are new.

use std::sync::Arc;

/// Most rows of a table; what is beyond is cut and counted.
pub const MAX_ROWS: usize = 10_000;

/// Many texts in one: the i-th is `text[ends[i-1]..ends[i]]`, the first starts at 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    pub text: Arc<str>,
    pub ends: Arc<[u32]>,
}

impl Packed {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(self.ends.iter()).map(|(start, end)| &self.text[start as usize..*end as usize])
    }

    fn bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.ends)
    }
}

impl<'a> FromIterator<&'a str> for Packed {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        let mut draft = Texts::default();
        texts.into_iter().for_each(|text| draft.push(text.as_bytes()));
        draft.pack()
    }
}

/// The names of a table's columns. They never change while the agent runs.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    numbers: Packed,
    texts: Packed,
}

impl Columns {
    pub(super) fn new(numbers: &[&str], texts: &[&str]) -> Self {
        Self { numbers: numbers.iter().copied().collect(), texts: texts.iter().copied().collect() }
    }
}

/// Figures with a name for each row and each column. A clone shares everything.
#[derive(Debug, Clone)]
pub struct Table {
    /// Names of the columns with numbers.
    pub columns: Packed,
    /// The name of each row.
    pub keys: Packed,
    /// Row by row: a number for each column; not-a-number where the kernel has none.
    pub values: Arc<[f64]>,
    /// Names of the columns with texts.
    pub text_columns: Packed,
    /// Row by row: a text for each text column.
    pub texts: Packed,
}

impl Table {
    /// The rows: a key and its numbers.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &[f64])> {
        self.keys.iter().zip(self.values.chunks_exact(self.columns.len().max(1)))
    }

    /// What it costs to keep, in bytes. Keys and texts count in full although tables of one
    /// family mostly share them; the names of columns are shared by all and do not count.
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.texts.bytes() + size_of_val(&*self.values)
    }
}

/// Texts that are being packed.
#[derive(Debug, Default)]
struct Texts {
    /// Not yet known to be UTF-8: mostly they turn out to be those of the table before.
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Texts {
    fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        // A source is at most 16 MiB: the length fits.
        self.ends.push(self.bytes.len() as u32);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Bytes that are no UTF-8 become replacement characters, text by text: a character begun in
    /// one must not end in the next.
    fn pack(&self) -> Packed {
        let mut text = String::with_capacity(self.bytes.len());
        let mut start = 0;
        let end_of = |end: &u32| {
            text.push_str(&String::from_utf8_lossy(&self.bytes[start..*end as usize]));
            start = *end as usize;
            text.len() as u32
        };
        let ends = self.ends.iter().map(end_of).collect();
        Packed { text: text.into(), ends }
    }

    fn pack_like(&self, last: Option<&Packed>) -> Packed {
        match last {
            Some(last) if *last.ends == *self.ends && *last.text.as_bytes() == *self.bytes => last.clone(),
            _ => self.pack(),
        }
    }
}

/// A table that is being written.
#[derive(Debug, Default)]
pub(super) struct Draft {
    keys: Texts,
    values: Vec<f64>,
    texts: Texts,
    cut: usize,
}

impl Draft {
    /// Adds a row without texts; beyond [`MAX_ROWS`] it is only counted.
    pub(super) fn push(&mut self, key: &[u8], values: &[f64]) {
        self.push_with_texts(key, values, &[]);
    }

    pub(super) fn push_with_texts(&mut self, key: &[u8], values: &[f64], texts: &[&[u8]]) {
        if self.keys.ends.len() >= MAX_ROWS {
            self.cut += 1;
            return;
        }
        self.keys.push(key);
        self.values.extend_from_slice(values);
        texts.iter().for_each(|text| self.texts.push(text));
    }

    /// The table and how many rows were cut; the draft is empty afterwards. What is as in `last`
    /// is shared with it.
    pub(super) fn finish(&mut self, columns: &Columns, last: Option<&Table>) -> (Table, usize) {
        let table = Table {
            columns: columns.numbers.clone(),
            keys: self.keys.pack_like(last.map(|last| &last.keys)),
            values: self.values.as_slice().into(),
            text_columns: columns.texts.clone(),
            texts: self.texts.pack_like(last.map(|last| &last.texts)),
        };
        self.keys.clear();
        self.values.clear();
        self.texts.clear();
        (table, std::mem::take(&mut self.cut))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Columns {
        Columns::new(&["value"], &["type"])
    }

    #[test]
    fn rows_come_out_as_they_went_in() {
        let mut draft = Draft::default();
        draft.push_with_texts(b"a", &[1.0], &[b"x"]);
        draft.push_with_texts(b"", &[2.0], &[b""]);
        draft.push_with_texts("ü".as_bytes(), &[3.0], &[b"y\xc3"]);
        draft.push_with_texts(b"b", &[4.0], &[b"\xbc"]);
        let (table, cut) = draft.finish(&columns(), None);
        assert_eq!(
            table.rows().collect::<Vec<_>>(),
            [("a", &[1.0][..]), ("", &[2.0]), ("ü", &[3.0]), ("b", &[4.0])]
        );
        assert_eq!(table.texts.iter().collect::<Vec<_>>(), ["x", "", "y\u{fffd}", "\u{fffd}"]);
        assert_eq!(
            (table.columns.iter().next(), table.text_columns.iter().next()),
            (Some("value"), Some("type"))
        );
        assert_eq!(cut, 0);
    }

    #[test]
    fn unchanged_keys_are_shared_with_the_table_before() {
        let mut draft = Draft::default();
        draft.push(b"a", &[1.0]);
        let first = draft.finish(&columns(), None).0;
        draft.push(b"a", &[2.0]);
        let second = draft.finish(&columns(), Some(&first)).0;
        assert!(Arc::ptr_eq(&first.keys.text, &second.keys.text));
        assert_eq!(second.values[0], 2.0);
        draft.push(b"b", &[2.0]);
        let third = draft.finish(&columns(), Some(&second)).0;
        assert_eq!(&*third.keys.text, "b");
    }

    #[test]
    fn rows_beyond_the_bound_are_cut_and_counted() {
        let mut draft = Draft::default();
        (0..MAX_ROWS + 3).for_each(|row| draft.push(b"k", &[row as f64]));
        let (table, cut) = draft.finish(&columns(), None);
        assert_eq!((table.keys.len(), table.values.len(), cut), (MAX_ROWS, MAX_ROWS, 3));
        draft.push(b"k", &[1.0]);
        assert_eq!(draft.finish(&columns(), None).1, 0, "the count starts anew");
    }
}
