//! Columns that line up.

/// Rows under a head, columns as wide as their widest text, two blanks between them.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|text| text.chars().count()).collect();
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    let mut out = String::new();
    let head: Vec<String> = head.iter().map(|text| (*text).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (width, text) in widths.iter().zip(row) {
            line += &format!("{text:<width$}  ");
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// `1.5 MiB`, as people read sizes.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec_short().to_string()
}
