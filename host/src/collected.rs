//! What one run of a collector found, as it said it: handles are the instance's own, nothing is
//! checked yet. [`crate::series`] turns it into a [`crate::sample::Batch`].

use crate::sample::{Attribute, Facts, Level, Millis, Status, Summary, Tag};

/// A new or changed element. Handles are dense, from 0, chosen by the collector.
#[derive(Debug, Clone, PartialEq)]
pub struct ElementDescription {
    pub handle: u32,
    pub id: String,
    pub facts: Facts,
}

/// What values are before the router has seen them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawKind {
    Gauge,
    Counter,
}

/// What becomes of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    Rate,
    Total,
}

/// A new series. Handles are dense, from 0, chosen by the collector.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesDescription {
    pub handle: u32,
    /// An element's handle; none: the agent's own element.
    pub element: Option<u32>,
    pub name: String,
    pub unit: String,
    pub kind: RawKind,
    pub publish: Publish,
    /// Every value is multiplied by this.
    pub scale: f64,
    pub tags: Vec<Tag>,
    pub sparse_data: String,
}

/// A summary of a described series.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectedSummary {
    pub handle: u32,
    pub summary: Summary,
    /// None: the run's due time.
    pub timestamp: Option<Millis>,
}

/// A sample's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    Number(f64),
    Summary(Summary),
}

/// A sample that brings its own description.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedSample {
    pub name: String,
    pub value: Value,
    pub kind: RawKind,
    pub publish: Publish,
    pub unit: String,
    pub element: Option<u32>,
    pub tags: Vec<Tag>,
    pub timestamp: Option<Millis>,
}

/// Facts that a collector adds to the agent's own element.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Additions {
    pub tags: Vec<Tag>,
    pub attributes: Vec<Attribute>,
    pub relations: Vec<String>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectedEvent {
    pub element: Option<u32>,
    pub kind: String,
    pub title: String,
    pub message: String,
    pub level: Level,
    pub source: Option<String>,
    pub tags: Vec<Tag>,
    pub timestamp: Option<Millis>,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectedCheck {
    pub element: Option<u32>,
    pub name: String,
    pub status: Status,
    pub message: String,
    pub ttl: u32,
    pub timestamp: Option<Millis>,
}

/// All of one run. Order: elements, then series, then values, then what is forgotten.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Collected {
    pub elements: Vec<ElementDescription>,
    pub machine: Option<Additions>,
    pub series: Vec<SeriesDescription>,
    /// The series of each value.
    pub handles: Vec<u32>,
    pub values: Vec<f64>,
    /// Empty (all are of the due time), or one for each handle.
    pub timestamps: Vec<Millis>,
    pub summaries: Vec<CollectedSummary>,
    pub samples: Vec<NamedSample>,
    pub forget: Vec<u32>,
    pub forget_elements: Vec<u32>,
    pub events: Vec<CollectedEvent>,
    pub checks: Vec<CollectedCheck>,
}
