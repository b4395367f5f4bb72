//! Many texts in one allocation.

use crate::bindings::imports::kimberlite::plugin::types as wit;

/// The `i`-th text of a packed list; empty behind the last.
pub(crate) fn get(strings: &wit::Strings, i: usize) -> &str {
    let Some(end) = strings.ends.get(i) else { return "" };
    let start = if i == 0 { 0 } else { strings.ends[i - 1] };
    strings.text.get(start as usize..*end as usize).unwrap_or_default()
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn push(strings: &mut wit::Strings, text: &str) {
    strings.text.push_str(text);
    strings.ends.push(u32::try_from(strings.text.len()).unwrap_or(u32::MAX));
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn empty() -> wit::Strings {
    wit::Strings { text: String::new(), ends: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_out_as_they_went_in() {
        let mut strings = empty();
        for text in ["", "cpu0", "ä", ""] {
            push(&mut strings, text);
        }
        let all: Vec<_> = (0..5).map(|i| get(&strings, i)).collect();
        assert_eq!(all, ["", "cpu0", "ä", "", ""]);
    }
}
