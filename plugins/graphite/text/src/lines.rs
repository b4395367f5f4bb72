//! Graphite's plaintext: `servers.web-1.cpu.total.user 1.5 1503300000`, one line for each number.
//!
//! ```text
//! batch ── element ──▶ `servers.web-1.` ─┐
//!       └─ series  ──────────────────────┴▶ path, once per batch ─┐
//!       └─ sample  ──▶ value, time ───────────────────────────────┴▶ line
//! ```
//!
//! A summary is a line for each number it has: `val` under the metric's own path, the others under
//! `PATH.min`, `.max`, `.avg`, `.sum` and `.cnt`. The format has no place for tags, units, events and
//! checks.

use kimberlite_plugin_sdk::{Batch, Summary, Value};

use crate::number;

/// The lines of one batch. Reused, so that a steady flow of batches allocates nothing.
#[derive(Debug, Default)]
pub struct Lines {
    text: Vec<u8>,
    /// Where each sample's lines end in `text`.
    ends: Vec<u32>,
}

impl Lines {
    /// All lines.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// How many samples they are.
    pub fn samples(&self) -> usize {
        self.ends.len()
    }

    /// How many samples are whole within the first `bytes` of the text.
    pub fn samples_within(&self, bytes: usize) -> usize {
        self.ends.partition_point(|end| *end as usize <= bytes)
    }

    /// Where the first `samples` end.
    pub fn end_of(&self, samples: usize) -> usize {
        samples.checked_sub(1).and_then(|last| self.ends.get(last)).map_or(0, |end| *end as usize)
    }

    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }
}

/// Writes batches as lines.
#[derive(Debug)]
pub struct Plaintext {
    /// With its dot; empty for none.
    prefix: String,
    /// Of the batch at hand, one behind the other.
    paths: Vec<u8>,
    /// Where each series' path ends.
    path_ends: Vec<usize>,
    /// ` 1503300000\n` of the last sample: most samples of a batch share it.
    tail: Vec<u8>,
    tail_of: Option<u64>,
}

impl Plaintext {
    /// Paths begin with `prefix`; an empty one is left out, with its dot.
    pub fn new(prefix: &str) -> Self {
        let mut clean = Vec::new();
        push_clean(&mut clean, prefix.trim_matches('.'), false);
        let mut prefix = String::from_utf8_lossy(&clean).into_owned();
        if !prefix.is_empty() {
            prefix.push('.');
        }
        Self { prefix, paths: Vec::new(), path_ends: Vec::new(), tail: Vec::new(), tail_of: None }
    }

    /// Replaces what was in `lines` by the samples of `batch`.
    pub fn write(&mut self, batch: &Batch, lines: &mut Lines) {
        self.make_paths(batch);
        lines.clear();
        for sample in batch.samples() {
            let series = sample.series_index();
            self.make_tail(sample.timestamp() / 1000);
            match sample.value() {
                Value::Number(value) => self.line(series, "", value, &mut lines.text),
                Value::Summary(Summary { val, min, max, avg, sum, cnt }) => {
                    let cnt = cnt.map(|cnt| cnt as f64);
                    let parts = [
                        ("", val),
                        (".min", min),
                        (".max", max),
                        (".avg", avg),
                        (".sum", sum),
                        (".cnt", cnt),
                    ];
                    for (name, part) in parts {
                        // Graphite has no way to say not-a-number.
                        if let Some(value) = part.filter(|value| value.is_finite()) {
                            self.line(series, name, value, &mut lines.text);
                        }
                    }
                }
            }
            lines.ends.push(u32::try_from(lines.text.len()).unwrap_or(u32::MAX));
        }
    }

    fn make_paths(&mut self, batch: &Batch) {
        let elements: Vec<_> = batch.elements().map(|element| element_part(element.name())).collect();
        self.paths.clear();
        self.path_ends.clear();
        for series in batch.series() {
            self.paths.extend_from_slice(self.prefix.as_bytes());
            self.paths.extend_from_slice(&elements[series.element().index()]);
            push_clean(&mut self.paths, series.name(), false);
            self.path_ends.push(self.paths.len());
        }
    }

    fn make_tail(&mut self, seconds: u64) {
        if self.tail_of != Some(seconds) {
            self.tail_of = Some(seconds);
            self.tail.clear();
            self.tail.push(b' ');
            number::push_whole(&mut self.tail, seconds);
            self.tail.push(b'\n');
        }
    }

    fn line(&self, series: usize, part: &str, value: f64, out: &mut Vec<u8>) {
        let start = if series == 0 { 0 } else { self.path_ends[series - 1] };
        out.extend_from_slice(&self.paths[start..self.path_ends[series]]);
        out.extend_from_slice(part.as_bytes());
        out.push(b' ');
        number::push(out, value);
        out.extend_from_slice(&self.tail);
    }
}

/// `web_example_com.` of `web.example.com`.
fn element_part(name: &str) -> Vec<u8> {
    let mut part = Vec::with_capacity(name.len() + 1);
    push_clean(&mut part, name, true);
    part.push(b'.');
    part
}

/// Appends `name` with `_` for each character that would end a path or a line, start tags, or lead to
/// another folder at a receiver that keeps a file for each path.
fn push_clean(out: &mut Vec<u8>, name: &str, also_dots: bool) {
    let is_clean = |byte: &u8| {
        byte.is_ascii_graphic() && !matches!(byte, b';' | b'/' | b'\\') && !(also_dots && *byte == b'.')
    };
    if name.as_bytes().iter().all(is_clean) {
        out.extend_from_slice(name.as_bytes());
        return;
    }
    for c in name.chars() {
        let breaks = c.is_whitespace() || c.is_control() || matches!(c, ';' | '/' | '\\');
        let c = if breaks || (also_dots && c == '.') { '_' } else { c };
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_plugin_sdk::{Element, Series, testing};

    fn written(prefix: &str, batch: &Batch) -> String {
        let mut lines = Lines::default();
        Plaintext::new(prefix).write(batch, &mut lines);
        assert_eq!(lines.samples(), batch.sample_count());
        String::from_utf8(lines.text().to_vec()).unwrap()
    }

    fn one(prefix: &str, element: &str, metric: &str) -> String {
        let batch = testing::batch().of(&Element::new("id").name(element)).gauge(metric, 1).build();
        written(prefix, &batch).trim_end_matches(" 1 0\n").to_owned()
    }

    #[test]
    fn every_number_is_a_line_of_path_value_and_seconds() {
        let batch = testing::batch()
            .of(&Element::new("web.example.com"))
            .at(1_503_300_000_999)
            .gauge("cpu.total.user", 12.5)
            .counter("network.eth0.rx_byte", 100)
            .at(1_503_300_060_000)
            .of(&Element::new("4f1c").name("web-7"))
            .rate("cpu.total.user", -0.25)
            .build();
        assert_eq!(
            written("servers", &batch),
            "servers.web_example_com.cpu.total.user 12.5 1503300000\n\
             servers.web_example_com.network.eth0.rx_byte 100 1503300000\n\
             servers.web-7.cpu.total.user -0.25 1503300060\n"
        );
    }

    #[test]
    fn summary_is_a_line_for_each_number_it_has() {
        let latency = Series::gauge("latency");
        let full = Summary { val: Some(2.0), cnt: Some(3), max: Some(4.5), ..Summary::default() };
        let odd = Summary { min: Some(f64::NAN), ..Summary::default() };
        let batch = testing::batch().summary(&latency, full).summary(&latency, odd).build();
        assert_eq!(written("", &batch), "test.latency 2 0\ntest.latency.max 4.5 0\ntest.latency.cnt 3 0\n");
    }

    #[test]
    fn prefix_may_be_missing() {
        assert_eq!(one("", "h", "m"), "h.m");
        assert_eq!(one(".a.b.", "h", "m"), "a.b.h.m");
    }

    #[test]
    fn no_name_breaks_its_line_or_path() {
        assert_eq!(one("s", "a b/c;d\ne", "f g\n1 2;t=v/\\"), "s.a_b_c_d_e.f_g_1_2_t=v__");
        assert_eq!(one("s", "münchen", "größe\u{a0}x"), "s.münchen.größe_x");
    }

    #[test]
    fn whole_samples_are_found_by_bytes() {
        let batch = testing::batch().gauge("a", 1).gauge("b", 2).build();
        let mut lines = Lines::default();
        Plaintext::new("").write(&batch, &mut lines);
        let line = "test.a 1 0\n".len();
        for (bytes, samples) in [(0, 0), (line - 1, 0), (line, 1), (2 * line - 1, 1), (2 * line, 2)] {
            assert_eq!(lines.samples_within(bytes), samples, "{bytes}");
        }
        assert_eq!((lines.end_of(0), lines.end_of(1), lines.end_of(2)), (0, line, 2 * line));
    }
}
