//! A prepared series: described to the agent once, afterwards a number beside a handle.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use crate::bindings::imports::kimberlite::plugin::types as wit;
use crate::element::{Element, tag};

/// A named series of an element, prepared so that recording its values costs a few nanoseconds. Keep
/// it between runs. It describes itself to the agent when it is first recorded, and again when the
/// agent has let it go because nobody used it for long.
///
/// ```
/// use kimberlite_plugin_sdk::Series;
///
/// let temperature = Series::gauge("room.temperature").unit("celsius").tag("floor", "2");
/// let received = Series::counter("link.bytes").unit("byte"); // leaves the agent as bytes per second
/// ```
pub struct Series {
    pub(crate) name: Box<str>,
    pub(crate) unit: Box<str>,
    pub(crate) measure: Measure,
    pub(crate) scale: f64,
    pub(crate) sparse_data: Box<str>,
    pub(crate) tags: Vec<wit::Tag>,
    pub(crate) element: Option<Element>,
    pub(crate) slot: Rc<Slot>,
}

impl Series {
    /// Values as they are now; they may rise and fall. `name` is the metric's full name, for
    /// instance `memory.MemFree`: not empty, at most 1,024 bytes.
    pub fn gauge(name: impl Into<String>) -> Self {
        Self::new(name.into(), Measure::Gauge)
    }

    /// A running total, which the agent turns into a rate per second. A first reading and a reset
    /// give no sample.
    pub fn counter(name: impl Into<String>) -> Self {
        Self::new(name.into(), Measure::Rate)
    }

    fn new(name: String, measure: Measure) -> Self {
        Self {
            name: name.into(),
            unit: Box::default(),
            measure,
            scale: 1.0,
            sparse_data: Box::default(),
            tags: Vec::new(),
            element: None,
            slot: Rc::default(),
        }
    }

    /// Passes a counter's total on as it is, instead of a rate. Changes nothing for a gauge.
    pub fn total(mut self) -> Self {
        if self.measure == Measure::Rate {
            self.measure = Measure::Total;
        }
        self
    }

    /// For instance `byte` or `percent`. A rate's unit is that of what it counts.
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = unit.into().into();
        self
    }

    /// The agent multiplies every value by this.
    pub fn scale(mut self, factor: f64) -> Self {
        self.scale = factor;
        self
    }

    /// Adds a tag of the metric, not of the element.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push(tag(name, value));
        self
    }

    /// What it measures; without it the agent's own machine.
    pub fn element(mut self, element: &Element) -> Self {
        self.element = Some(element.clone());
        self
    }

    /// What the receiver shall do where samples are missing, in its own words (Metricly:
    /// `ReplaceWithZero`).
    pub fn sparse_data(mut self, strategy: impl Into<String>) -> Self {
        self.sparse_data = strategy.into().into();
        self
    }

    /// Its full name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Series")
            .field("name", &self.name)
            .field("measure", &self.measure)
            .finish_non_exhaustive()
    }
}

/// What becomes of the values of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    Gauge,
    Rate,
    Total,
}

/// Where a series stands in this instance; shared with the registry, which empties it when the
/// agent lets the series go.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) handle: Cell<u32>,
    /// Whose series it is, by handle; `NONE` for the agent's own.
    pub(crate) element: Cell<u32>,
    /// Set for series that are recorded by name only.
    pub(crate) named: Option<(Measure, Box<str>)>,
}

impl Slot {
    /// Not described, or not any more.
    pub(crate) const NONE: u32 = u32::MAX;

    pub(crate) fn named(measure: Measure, name: &str) -> Self {
        Self { named: Some((measure, name.into())), ..Self::default() }
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self { handle: Cell::new(Self::NONE), element: Cell::new(Self::NONE), named: None }
    }
}
