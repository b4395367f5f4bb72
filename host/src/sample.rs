//! What travels: elements, series, samples, batches. Plain data; knows nothing of the rest.

use std::sync::{Arc, RwLock};

/// Milliseconds since 1970-01-01 00:00 UTC.
pub type Millis = u64;

/// A name with a text, of an element or a metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag {
    pub name: String,
    pub value: String,
}

/// The value of an [`Attribute`].
#[derive(Debug, Clone, PartialEq)]
pub enum AttributeValue {
    Text(String),
    Number(f64),
}

/// A fact about an element that seldom changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribute {
    pub name: String,
    pub value: AttributeValue,
}

/// All that is known of an element besides its id.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// For people.
    pub name: String,
    /// `SERVER`, `CONTAINER`, …
    pub kind: String,
    pub location: Option<String>,
    pub tags: Vec<Tag>,
    pub attributes: Vec<Attribute>,
    /// Ids of other elements.
    pub relations: Vec<String>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: "SERVER".to_owned(),
            location: None,
            tags: Vec::new(),
            attributes: Vec::new(),
            relations: Vec::new(),
        }
    }
}

/// What is measured: a machine, a disk, a container. Its id never changes; its facts may,
/// and every series of the element then shows the new ones.
#[derive(Debug)]
pub struct Element {
    pub id: String,
    facts: RwLock<Arc<Facts>>,
}

impl Element {
    pub fn new(id: impl Into<String>, facts: Facts) -> Self {
        Self { id: id.into(), facts: RwLock::new(Arc::new(facts)) }
    }

    /// The facts as they are now.
    pub fn facts(&self) -> Arc<Facts> {
        match self.facts.read() {
            Ok(facts) => facts.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    pub fn set_facts(&self, facts: Facts) {
        let facts = Arc::new(facts);
        match self.facts.write() {
            Ok(mut slot) => *slot = facts,
            Err(poisoned) => *poisoned.into_inner() = facts,
        }
    }
}

/// What the values of a series are once they have left the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// As it is now.
    Gauge,
    /// Per second.
    Rate,
    /// A running total.
    Counter,
}

impl Kind {
    /// `gauge`, `rate`, `counter`: as in JSON Lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Rate => "rate",
            Kind::Counter => "counter",
        }
    }
}

/// A named series of an element, as handlers see it.
#[derive(Debug)]
pub struct Series {
    pub element: Arc<Element>,
    pub name: Box<str>,
    pub unit: Box<str>,
    pub kind: Kind,
    /// What a receiver shall do where samples are missing; empty: nothing.
    pub sparse_data: Box<str>,
    pub tags: Box<[Tag]>,
    /// Which handlers take it: bit n is the router's n-th handler.
    pub handlers: u64,
}

/// One number of one series at one instant.
#[derive(Debug, Clone)]
pub struct Sample {
    pub series: Arc<Series>,
    pub timestamp: Millis,
    /// Finite.
    pub value: f64,
}

/// Many values in one (Metricly's shape). What is absent is not known.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Summary {
    pub val: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub avg: Option<f64>,
    pub sum: Option<f64>,
    pub cnt: Option<u64>,
}

/// One summary of one series at one instant.
#[derive(Debug, Clone)]
pub struct SummarySample {
    pub series: Arc<Series>,
    pub timestamp: Millis,
    pub summary: Summary,
}

/// How bad an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Info,
    Warning,
    Critical,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Event {
    pub element: Arc<Element>,
    /// For instance `INFO`.
    pub kind: String,
    pub title: String,
    pub message: String,
    pub level: Level,
    pub source: Option<String>,
    pub tags: Vec<Tag>,
    pub timestamp: Millis,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ok,
    Warning,
    Critical,
    Unknown,
}

/// A sign of life that a receiver misses when it stays away.
#[derive(Debug, Clone)]
pub struct Check {
    pub element: Arc<Element>,
    pub name: String,
    pub status: Status,
    pub message: String,
    /// Seconds that the receiver may wait for the next one.
    pub ttl: u32,
    pub timestamp: Millis,
}

/// What travels together. *Items* are numbered through: samples, summaries, events, checks.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub samples: Vec<Sample>,
    pub summaries: Vec<SummarySample>,
    pub events: Vec<Event>,
    pub checks: Vec<Check>,
}

impl Batch {
    /// How many items it has.
    pub fn len(&self) -> usize {
        self.samples.len() + self.summaries.len() + self.events.len() + self.checks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it costs to keep in memory, in bytes; series and elements are shared and not
    /// counted, texts of events and checks are.
    pub fn bytes(&self) -> usize {
        let events: usize = self
            .events
            .iter()
            .map(|e| size_of::<Event>() + e.kind.len() + e.title.len() + e.message.len())
            .sum();
        let checks: usize =
            self.checks.iter().map(|c| size_of::<Check>() + c.name.len() + c.message.len()).sum();
        self.samples.len() * size_of::<Sample>()
            + self.summaries.len() * size_of::<SummarySample>()
            + events
            + checks
    }
}
