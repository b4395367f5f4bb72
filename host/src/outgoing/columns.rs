//! A batch in columns, exactly as `wit/handler.wit` lays it out: texts packed, series in a
//! dictionary that is valid for this batch only.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::sample::{Batch, Element, Kind, Millis, Series};

/// Many texts in one: the i-th ends where `ends[i]` says and starts where the one before it ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strings {
    pub text: String,
    pub ends: Vec<u32>,
}

impl Strings {
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len() as u32);
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(&start, &end)| &self.text[start as usize..end as usize])
    }
}

/// The record `batch` of the contract without what events and checks say themselves; each list's
/// meaning is described there.
#[derive(Debug, Default)]
pub struct Columns {
    /// A place in this list is the element's handle.
    pub elements: Vec<Arc<Element>>,

    // The dictionary: one entry for each series.
    pub names: Strings,
    pub series_elements: Vec<u32>,
    pub kinds: Vec<u8>,
    pub units: Vec<u16>,
    pub sparse_data: Vec<u16>,
    pub labels: Strings,
    pub tag_series: Vec<u32>,
    pub tag_names: Strings,
    pub tag_values: Strings,

    // The numbers.
    pub series: Vec<u32>,
    pub values: Vec<f64>,
    pub timestamps: Vec<Millis>,

    /// The series of each of the batch's summaries.
    pub summary_series: Vec<u32>,
    /// The element of each of its events.
    pub event_elements: Vec<u32>,
    /// The element of each of its checks.
    pub check_elements: Vec<u32>,
}

impl Columns {
    pub fn of(batch: &Batch) -> Self {
        let mut writer = Writer::new();
        let count = batch.samples.len();
        let mut series = Vec::with_capacity(count);
        let mut values = Vec::with_capacity(count);
        let mut timestamps = Vec::with_capacity(count);
        for sample in &batch.samples {
            series.push(writer.series(&sample.series));
            values.push(sample.value);
            timestamps.push(sample.timestamp);
        }
        let summary_series = batch.summaries.iter().map(|summary| writer.series(&summary.series)).collect();
        let event_elements = batch.events.iter().map(|event| writer.element(&event.element)).collect();
        let check_elements = batch.checks.iter().map(|check| writer.element(&check.element)).collect();
        Self { series, values, timestamps, summary_series, event_elements, check_elements, ..writer.columns }
    }
}

/// Writes the dictionary, each series and element once.
struct Writer<'a> {
    columns: Columns,
    elements: ByAddress<u32>,
    series: ByAddress<u32>,
    labels: HashMap<&'a str, u16>,
}

impl<'a> Writer<'a> {
    fn new() -> Self {
        let mut columns = Columns::default();
        columns.labels.push("");
        let labels = HashMap::from([("", 0)]);
        Self { columns, elements: ByAddress::default(), series: ByAddress::default(), labels }
    }

    fn element(&mut self, element: &Arc<Element>) -> u32 {
        let known = &mut self.columns.elements;
        *self.elements.entry(Arc::as_ptr(element).addr()).or_insert_with(|| {
            known.push(element.clone());
            known.len() as u32 - 1
        })
    }

    fn series(&mut self, series: &'a Arc<Series>) -> u32 {
        let address = Arc::as_ptr(series).addr();
        if let Some(&place) = self.series.get(&address) {
            return place;
        }
        let place = self.columns.names.len() as u32;
        self.series.insert(address, place);
        self.columns.names.push(&series.name);
        let element = self.element(&series.element);
        self.columns.series_elements.push(element);
        self.columns.kinds.push(match series.kind {
            Kind::Gauge => 0,
            Kind::Rate => 1,
            Kind::Counter => 2,
        });
        let (unit, sparse_data) = (self.label(&series.unit), self.label(&series.sparse_data));
        self.columns.units.push(unit);
        self.columns.sparse_data.push(sparse_data);
        for tag in &series.tags {
            self.columns.tag_series.push(place);
            self.columns.tag_names.push(&tag.name);
            self.columns.tag_values.push(&tag.value);
        }
        place
    }

    /// A batch has few labels; those beyond what the contract can number become the empty one.
    fn label(&mut self, label: &'a str) -> u16 {
        if label.is_empty() {
            return 0;
        }
        if let Some(&place) = self.labels.get(label) {
            return place;
        }
        let Ok(place) = u16::try_from(self.columns.labels.len()) else { return 0 };
        self.columns.labels.push(label);
        self.labels.insert(label, place);
        place
    }
}

/// A map keyed by addresses of things that live as long as the map.
type ByAddress<T> = HashMap<usize, T, BuildHasherDefault<AddressHasher>>;

/// Spreads addresses, which end in zeros and lie close together; nobody can choose them.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_usize(byte.into()));
    }

    fn write_usize(&mut self, address: usize) {
        let spread = (self.0 ^ address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = spread ^ (spread >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, element, event, sample, series};
    use super::*;
    use crate::sample::{SummarySample, Tag};

    fn texts(strings: &Strings) -> Vec<&str> {
        strings.iter().collect()
    }

    #[test]
    fn each_series_and_element_is_written_once() {
        let (web, disk) = (element("web-1"), element("sda"));
        let (load, reads) = (series(&web, "loadavg.01", 1), series(&disk, "reads", 1));
        let batch = Batch {
            samples: vec![sample(&load, 1.0), sample(&reads, 2.0), sample(&load, 3.0)],
            ..Batch::default()
        };
        let columns = Columns::of(&batch);
        assert_eq!(texts(&columns.names), ["loadavg.01", "reads"]);
        assert_eq!(columns.series_elements, [0, 1]);
        assert_eq!(columns.elements.iter().map(|element| &*element.id).collect::<Vec<_>>(), ["web-1", "sda"]);
        assert_eq!(columns.series, [0, 1, 0]);
        assert_eq!(columns.values, [1.0, 2.0, 3.0]);
        assert_eq!(columns.timestamps, [1000; 3]);
    }

    #[test]
    fn dictionary_says_all_about_a_series() {
        let plain = series(&element("web-1"), "plain", 1);
        let rich = Arc::new(Series {
            element: plain.element.clone(),
            name: "Größe".into(),
            unit: "byte".into(),
            kind: Kind::Counter,
            sparse_data: "ReplaceWithZero".into(),
            tags: Box::new([Tag { name: "k".to_owned(), value: "v".to_owned() }]),
            handlers: 1,
        });
        let samples = vec![sample(&plain, 0.0), sample(&rich, 0.0)];
        let columns = Columns::of(&Batch { samples, ..Batch::default() });
        assert_eq!(texts(&columns.names), ["plain", "Größe"]);
        assert_eq!(columns.kinds, [0, 2]);
        assert_eq!(texts(&columns.labels), ["", "byte", "ReplaceWithZero"]);
        assert_eq!((columns.units, columns.sparse_data), (vec![0, 1], vec![0, 2]));
        assert_eq!(columns.tag_series, [1]);
        assert_eq!((texts(&columns.tag_names), texts(&columns.tag_values)), (vec!["k"], vec!["v"]));
    }

    #[test]
    fn summaries_events_and_checks_name_their_places() {
        let (web, disk) = (element("web-1"), element("sda"));
        let batch = Batch {
            samples: Vec::new(),
            summaries: vec![SummarySample {
                series: series(&web, "m", 1),
                timestamp: 1000,
                summary: Default::default(),
            }],
            events: vec![event(&disk, "e")],
            checks: vec![check(&disk, "c"), check(&web, "c")],
        };
        let columns = Columns::of(&batch);
        assert_eq!(columns.elements.len(), 2);
        assert_eq!(columns.summary_series, [0]);
        assert_eq!((columns.event_elements, columns.check_elements), (vec![1], vec![1, 0]));
    }
}
