//! What a test hands to a plugin: batches and tables, piece by piece.

use super::fakes;
use super::pack::{Packer, SeriesFacts};
use crate::batch::{Batch, Kind};
use crate::bindings::imports::kimberlite::plugin::host_stats as wit;
use crate::element::Element;
use crate::event::{Check, Event};
use crate::host_stats::Table;
use crate::run::Number;
use crate::series::{Measure, Series};
use crate::strings;
use crate::summary::Summary;

/// A batch for a handler, to be filled.
///
/// ```
/// use kimberlite_plugin_sdk::{Element, testing};
///
/// let batch = testing::batch()
///     .at(1_767_225_600_000)
///     .gauge("memory.MemFree", 1024)
///     .of(&Element::new("4f1c").kind("CONTAINER"))
///     .rate("cpu.total.user", 1.5)
///     .build();
/// assert_eq!(batch.len(), 2);
/// ```
pub fn batch() -> BatchBuilder {
    let own = Element::new(fakes::agent::info().id).name(fakes::agent::info().name);
    BatchBuilder { packer: Packer::new(), element: own, timestamp: 0 }
}

/// See [`batch`].
#[derive(Debug)]
pub struct BatchBuilder {
    packer: Packer,
    element: Element,
    timestamp: u64,
}

impl BatchBuilder {
    /// Which attempt it is; 1 if not said.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.packer.batch.attempt = attempt;
        self
    }

    /// What follows has this time, in milliseconds since 1970 (UTC).
    pub fn at(mut self, timestamp: u64) -> Self {
        self.timestamp = timestamp;
        self
    }

    /// What follows is of this element; before, it is of the agent's own.
    pub fn of(mut self, element: &Element) -> Self {
        self.element = element.clone();
        self
    }

    /// Adds a value as it is now.
    pub fn gauge(self, name: &str, value: impl Number) -> Self {
        self.number(name, Kind::Gauge, value.number())
    }

    /// Adds a value per second.
    pub fn rate(self, name: &str, value: impl Number) -> Self {
        self.number(name, Kind::Rate, value.number())
    }

    /// Adds a running total.
    pub fn counter(self, name: &str, value: impl Number) -> Self {
        self.number(name, Kind::Counter, value.number())
    }

    /// Adds a value of a series with unit, tags and perhaps an element of its own. The scale is not
    /// applied; a counter that is published as a rate is a rate.
    pub fn sample(mut self, series: &Series, value: impl Number) -> Self {
        let series = self.series(series);
        self.packer.number(series, value.number(), self.timestamp);
        self
    }

    /// Adds many values in one.
    pub fn summary(mut self, series: &Series, summary: Summary) -> Self {
        let series = self.series(series);
        self.packer.summary(series, summary.into(), self.timestamp);
        self
    }

    /// Adds an event.
    pub fn event(mut self, event: Event) -> Self {
        let element = Some(self.place(event.element.as_ref()));
        let timestamp = event.raw.timestamp.or(Some(self.timestamp));
        self.packer.batch.events.push(crate::bindings::imports::kimberlite::plugin::types::Event {
            element,
            timestamp,
            ..event.raw
        });
        self
    }

    /// Adds a check.
    pub fn check(mut self, check: Check) -> Self {
        let element = Some(self.place(check.element.as_ref()));
        let timestamp = check.raw.timestamp.or(Some(self.timestamp));
        self.packer.batch.checks.push(crate::bindings::imports::kimberlite::plugin::types::Check {
            element,
            timestamp,
            ..check.raw
        });
        self
    }

    /// The batch.
    pub fn build(self) -> Batch {
        self.packer.finish()
    }

    fn number(mut self, name: &str, kind: Kind, value: f64) -> Self {
        let element = self.place(None);
        let series = self.packer.series(SeriesFacts {
            name: name.to_owned(),
            unit: String::new(),
            kind: kind as u8,
            sparse_data: String::new(),
            tags: Vec::new(),
            element,
        });
        self.packer.number(series, value, self.timestamp);
        self
    }

    fn series(&mut self, series: &Series) -> u32 {
        let element = self.place(series.element.as_ref());
        let kind = match series.measure {
            Measure::Gauge => Kind::Gauge,
            Measure::Rate => Kind::Rate,
            Measure::Total => Kind::Counter,
        };
        self.packer.series(SeriesFacts {
            name: series.name.to_string(),
            unit: series.unit.to_string(),
            kind: kind as u8,
            sparse_data: series.sparse_data.to_string(),
            tags: series.tags.iter().map(|tag| (tag.name.clone(), tag.value.clone())).collect(),
            element,
        })
    }

    /// The place of an element, without one of the element that was named by `of`.
    fn place(&mut self, element: Option<&Element>) -> u32 {
        self.packer.element(&element.unwrap_or(&self.element).described_as(0))
    }
}

/// A table of `host_stats` with these columns, to be filled row by row.
pub fn table<'a>(columns: impl IntoIterator<Item = &'a str>) -> TableBuilder {
    let mut raw = wit::Table {
        columns: strings::empty(),
        keys: strings::empty(),
        values: Vec::new(),
        text_columns: strings::empty(),
        texts: strings::empty(),
    };
    columns.into_iter().for_each(|name| strings::push(&mut raw.columns, name));
    TableBuilder { raw }
}

/// See [`table`].
#[derive(Debug, Clone)]
pub struct TableBuilder {
    raw: wit::Table,
}

impl TableBuilder {
    /// Names the columns with texts. Then every row needs [`texts`](Self::texts).
    pub fn text_columns<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().for_each(|name| strings::push(&mut self.raw.text_columns, name));
        self
    }

    /// Adds a row. Numbers that are missing at its end, or not-a-number, are not there.
    ///
    /// # Panics
    /// If there are more numbers than columns.
    pub fn row(mut self, key: &str, numbers: impl IntoIterator<Item = f64>) -> Self {
        strings::push(&mut self.raw.keys, key);
        self.raw.values.extend(numbers);
        let full = self.raw.keys.ends.len() * self.raw.columns.ends.len();
        assert!(self.raw.values.len() <= full, "row `{key}` has more numbers than there are columns");
        self.raw.values.resize(full, f64::NAN);
        self
    }

    /// The texts of the row that was added last.
    pub fn texts<'a>(mut self, texts: impl IntoIterator<Item = &'a str>) -> Self {
        texts.into_iter().for_each(|text| strings::push(&mut self.raw.texts, text));
        self
    }
}

impl From<TableBuilder> for Table {
    fn from(builder: TableBuilder) -> Self {
        Self { raw: builder.raw }
    }
}
