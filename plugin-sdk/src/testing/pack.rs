//! Packs a batch as the agent does: elements and series once each, samples in columns.

use crate::batch::Batch;
use crate::bindings::handler::exports::kimberlite::plugin::handler as wit;
use crate::bindings::imports::kimberlite::plugin::types;
use crate::hash::Map;
use crate::strings;

/// A series as handlers see it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SeriesFacts {
    pub(super) name: String,
    pub(super) unit: String,
    /// 0 gauge, 1 rate, 2 counter.
    pub(super) kind: u8,
    pub(super) sparse_data: String,
    pub(super) tags: Vec<(String, String)>,
    /// By its place in the batch.
    pub(super) element: u32,
}

#[derive(Debug)]
pub(super) struct Packer {
    pub(super) batch: wit::Batch,
    series: Map<SeriesFacts, u32>,
}

impl Packer {
    pub(super) fn new() -> Self {
        let mut labels = strings::empty();
        strings::push(&mut labels, "");
        let dictionary = wit::Dictionary {
            names: strings::empty(),
            elements: Vec::new(),
            kinds: Vec::new(),
            units: Vec::new(),
            sparse_data: Vec::new(),
            labels,
            tag_series: Vec::new(),
            tag_names: strings::empty(),
            tag_values: strings::empty(),
        };
        let batch = wit::Batch {
            attempt: 1,
            elements: Vec::new(),
            dictionary,
            series: Vec::new(),
            values: Vec::new(),
            timestamps: Vec::new(),
            summaries: Vec::new(),
            events: Vec::new(),
            checks: Vec::new(),
        };
        Self { batch, series: Map::default() }
    }

    /// The place of an element; the first facts seen under its id are kept.
    pub(super) fn element(&mut self, element: &types::Element) -> u32 {
        let known = self.batch.elements.iter().position(|known| known.id == element.id);
        let at = known.unwrap_or_else(|| {
            self.batch.elements.push(element.clone());
            self.batch.elements.len() - 1
        });
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        self.batch.elements[at as usize].handle = at;
        at
    }

    /// The place of a series.
    pub(super) fn series(&mut self, facts: SeriesFacts) -> u32 {
        if let Some(at) = self.series.get(&facts) {
            return *at;
        }
        let at = u32::try_from(self.series.len()).unwrap_or(u32::MAX);
        let unit = self.label(&facts.unit);
        let sparse_data = self.label(&facts.sparse_data);
        let dictionary = &mut self.batch.dictionary;
        strings::push(&mut dictionary.names, &facts.name);
        dictionary.elements.push(facts.element);
        dictionary.kinds.push(facts.kind);
        dictionary.units.push(unit);
        dictionary.sparse_data.push(sparse_data);
        for (name, value) in &facts.tags {
            dictionary.tag_series.push(at);
            strings::push(&mut dictionary.tag_names, name);
            strings::push(&mut dictionary.tag_values, value);
        }
        self.series.insert(facts, at);
        at
    }

    pub(super) fn number(&mut self, series: u32, value: f64, timestamp: u64) {
        self.batch.series.push(series);
        self.batch.values.push(value);
        self.batch.timestamps.push(timestamp);
    }

    pub(super) fn summary(&mut self, series: u32, summary: types::Summary, timestamp: u64) {
        self.batch.summaries.push(wit::SummarySample { series, summary, timestamp });
    }

    pub(super) fn finish(self) -> Batch {
        Batch::new(self.batch)
    }

    fn label(&mut self, text: &str) -> u16 {
        let labels = &mut self.batch.dictionary.labels;
        let known = (0..labels.ends.len()).find(|i| strings::get(labels, *i) == text);
        let at = known.unwrap_or_else(|| {
            strings::push(labels, text);
            labels.ends.len() - 1
        });
        u16::try_from(at).unwrap_or_default()
    }
}
