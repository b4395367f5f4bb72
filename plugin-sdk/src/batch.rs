//! What a handler is given: views into one packed batch.
//!
//! ```text
//! series[i] ──▶ dictionary (names, units, kinds, tags) ──▶ elements
//! values[i]     timestamps[i]
//! ```
//!
//! Nothing is copied or allocated while looking at it, so going through millions of samples costs
//! what reading their bytes costs.

use std::fmt;

use crate::bindings::handler::exports::kimberlite::plugin::handler as wit;
use crate::bindings::imports::kimberlite::plugin::types as wit_types;
use crate::event::{Level, Status};
use crate::strings;
use crate::summary::Summary;

/// Samples, events and checks on their way out. Its *items* are numbered through: first the samples
/// (numbers, then summaries), then events, then checks.
#[derive(Debug)]
pub struct Batch {
    raw: wit::Batch,
}

/// What the values of a series are.
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
    /// `gauge`, `rate` or `counter`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Rate => "rate",
            Self::Counter => "counter",
        }
    }
}

/// A sample's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// One number, always finite.
    Number(f64),
    /// Many values in one.
    Summary(Summary),
}

impl Batch {
    pub(crate) fn new(raw: wit::Batch) -> Self {
        Self { raw }
    }

    /// 1 the first time; higher when an earlier attempt did not succeed. Parts of it may have been
    /// delivered then.
    pub fn attempt(&self) -> u32 {
        self.raw.attempt
    }

    /// How many items it has: samples, events and checks.
    pub fn len(&self) -> usize {
        self.sample_count() + self.raw.events.len() + self.raw.checks.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many samples it has.
    pub fn sample_count(&self) -> usize {
        self.raw.values.len() + self.raw.summaries.len()
    }

    /// All samples, numbers first, in the order of their items.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = Sample<'_>> + Clone {
        (0..self.sample_count()).map(|item| Sample { batch: self, item })
    }

    /// Every series that the batch names, so that what depends on the series alone is made once; see
    /// [`Sample::series_index`].
    pub fn series(&self) -> impl ExactSizeIterator<Item = SeriesView<'_>> + Clone {
        (0..self.raw.dictionary.names.ends.len()).map(|index| SeriesView { batch: self, index })
    }

    /// Every element that the batch names.
    pub fn elements(&self) -> impl ExactSizeIterator<Item = ElementView<'_>> + Clone {
        (0..self.raw.elements.len()).map(|index| self.element_at(index))
    }

    /// All events, in the order of their items.
    pub fn events(&self) -> impl ExactSizeIterator<Item = EventView<'_>> + Clone {
        let first = self.sample_count();
        let view = move |(i, raw)| EventView { batch: self, raw, item: first + i };
        self.raw.events.iter().enumerate().map(view)
    }

    /// All checks, in the order of their items.
    pub fn checks(&self) -> impl ExactSizeIterator<Item = CheckView<'_>> + Clone {
        let first = self.sample_count() + self.raw.events.len();
        let view = move |(i, raw)| CheckView { batch: self, raw, item: first + i };
        self.raw.checks.iter().enumerate().map(view)
    }

    fn element_at(&self, index: usize) -> ElementView<'_> {
        ElementView { raw: &self.raw.elements[index], index }
    }
}

fn item(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// One value of one series at one instant.
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    batch: &'a Batch,
    item: usize,
}

impl<'a> Sample<'a> {
    /// Its number among the batch's items, for [`HandleError::done`](crate::HandleError::done) and
    /// [`HandleError::which`](crate::HandleError::which).
    pub fn item(&self) -> u32 {
        item(self.item)
    }

    /// The place of its series in [`Batch::series`].
    pub fn series_index(&self) -> usize {
        let raw = &self.batch.raw;
        let index = match raw.series.get(self.item) {
            Some(index) => *index,
            None => raw.summaries[self.item - raw.series.len()].series,
        };
        index as usize
    }

    /// Its series.
    pub fn series(&self) -> SeriesView<'a> {
        SeriesView { batch: self.batch, index: self.series_index() }
    }

    /// Whose it is.
    pub fn element(&self) -> ElementView<'a> {
        self.series().element()
    }

    /// The metric's full name.
    pub fn name(&self) -> &'a str {
        self.series().name()
    }

    /// For instance `byte`; may be empty.
    pub fn unit(&self) -> &'a str {
        self.series().unit()
    }

    /// What the value is.
    pub fn kind(&self) -> Kind {
        self.series().kind()
    }

    /// What to do where samples are missing, in the receiver's words; may be empty.
    pub fn sparse_data(&self) -> &'a str {
        self.series().sparse_data()
    }

    /// The metric's tags, name and value.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.series().tags()
    }

    /// When, in milliseconds since 1970 (UTC).
    pub fn timestamp(&self) -> u64 {
        let raw = &self.batch.raw;
        match raw.timestamps.get(self.item) {
            Some(timestamp) => *timestamp,
            None => raw.summaries[self.item - raw.values.len()].timestamp,
        }
    }

    /// What was measured.
    pub fn value(&self) -> Value {
        let raw = &self.batch.raw;
        match raw.values.get(self.item) {
            Some(value) => Value::Number(*value),
            None => Value::Summary(raw.summaries[self.item - raw.values.len()].summary.into()),
        }
    }
}

/// `web-1 cpu.total.user 1.5 percent`; a summary as `avg=1.5 cnt=3`.
impl fmt::Display for Sample<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.element().name(), self.name())?;
        match self.value() {
            Value::Number(number) => write!(f, " {number}")?,
            Value::Summary(Summary { val, min, max, avg, sum, cnt }) => {
                for (name, part) in [("val", val), ("min", min), ("max", max), ("avg", avg), ("sum", sum)] {
                    if let Some(part) = part {
                        write!(f, " {name}={part}")?;
                    }
                }
                if let Some(cnt) = cnt {
                    write!(f, " cnt={cnt}")?;
                }
            }
        }
        if self.unit().is_empty() { Ok(()) } else { write!(f, " {}", self.unit()) }
    }
}

impl fmt::Debug for Sample<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sample({self} at {})", self.timestamp())
    }
}

/// A named series of an element.
#[derive(Clone, Copy)]
pub struct SeriesView<'a> {
    batch: &'a Batch,
    index: usize,
}

impl<'a> SeriesView<'a> {
    /// Its place in [`Batch::series`]; valid for this batch only.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Whose it is.
    pub fn element(&self) -> ElementView<'a> {
        self.batch.element_at(self.dictionary().elements[self.index] as usize)
    }

    /// The metric's full name.
    pub fn name(&self) -> &'a str {
        strings::get(&self.dictionary().names, self.index)
    }

    /// For instance `byte`; may be empty.
    pub fn unit(&self) -> &'a str {
        self.label(&self.dictionary().units)
    }

    /// What its values are.
    pub fn kind(&self) -> Kind {
        match self.dictionary().kinds[self.index] {
            1 => Kind::Rate,
            2 => Kind::Counter,
            _ => Kind::Gauge,
        }
    }

    /// What to do where samples are missing, in the receiver's words; may be empty.
    pub fn sparse_data(&self) -> &'a str {
        self.label(&self.dictionary().sparse_data)
    }

    /// The metric's tags, name and value.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        let dictionary = self.dictionary();
        let start = dictionary.tag_series.partition_point(|series| (*series as usize) < self.index);
        let end = dictionary.tag_series.partition_point(|series| (*series as usize) <= self.index);
        let tag = |i| (strings::get(&dictionary.tag_names, i), strings::get(&dictionary.tag_values, i));
        (start..end).map(tag)
    }

    fn dictionary(&self) -> &'a wit::Dictionary {
        &self.batch.raw.dictionary
    }

    fn label(&self, labels: &[u16]) -> &'a str {
        strings::get(&self.dictionary().labels, labels[self.index].into())
    }
}

impl fmt::Debug for SeriesView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeriesView({} {})", self.element().name(), self.name())
    }
}

/// What is measured: a machine, a disk, a container.
#[derive(Clone, Copy)]
pub struct ElementView<'a> {
    raw: &'a wit::Element,
    index: usize,
}

/// The value of an element's attribute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AttributeView<'a> {
    /// For instance a distribution's name.
    Text(&'a str),
    /// For instance how many CPUs there are.
    Number(f64),
}

impl<'a> ElementView<'a> {
    /// Its place in [`Batch::elements`]; valid for this batch only.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Unique for the receiver.
    pub fn id(&self) -> &'a str {
        &self.raw.id
    }

    /// For people.
    pub fn name(&self) -> &'a str {
        if self.raw.name.is_empty() { &self.raw.id } else { &self.raw.name }
    }

    /// For instance `SERVER`.
    pub fn kind(&self) -> &'a str {
        if self.raw.type_.is_empty() { "SERVER" } else { &self.raw.type_ }
    }

    /// Where it is.
    pub fn location(&self) -> Option<&'a str> {
        self.raw.location.as_deref()
    }

    /// Its tags, name and value.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.raw.tags.iter().map(|tag| (tag.name.as_str(), tag.value.as_str()))
    }

    /// Its attributes, name and value.
    pub fn attributes(
        &self,
    ) -> impl ExactSizeIterator<Item = (&'a str, AttributeView<'a>)> + Clone + use<'a> {
        self.raw.attributes.iter().map(|attribute| {
            let value = match &attribute.value {
                wit_types::AttributeValue::Text(text) => AttributeView::Text(text),
                wit_types::AttributeValue::Number(number) => AttributeView::Number(*number),
            };
            (attribute.name.as_str(), value)
        })
    }

    /// Ids of elements it belongs to or uses.
    pub fn relations(&self) -> impl ExactSizeIterator<Item = &'a str> + Clone + use<'a> {
        self.raw.relations.iter().map(String::as_str)
    }
}

impl fmt::Debug for ElementView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ElementView").field(&self.raw.id).finish()
    }
}

/// Something that happened.
#[derive(Debug, Clone, Copy)]
pub struct EventView<'a> {
    batch: &'a Batch,
    raw: &'a wit::Event,
    item: usize,
}

impl<'a> EventView<'a> {
    /// Its number among the batch's items.
    pub fn item(&self) -> u32 {
        item(self.item)
    }

    /// What it happened to.
    pub fn element(&self) -> ElementView<'a> {
        self.batch.element_at(self.raw.element.unwrap_or_default() as usize)
    }

    /// Which sort of event, for instance `INFO`.
    pub fn kind(&self) -> &'a str {
        &self.raw.type_
    }

    /// One line.
    pub fn title(&self) -> &'a str {
        &self.raw.title
    }

    /// The whole text; may be empty.
    pub fn message(&self) -> &'a str {
        &self.raw.message
    }

    /// How bad it is.
    pub fn level(&self) -> Level {
        self.raw.level.into()
    }

    /// Who says so.
    pub fn source(&self) -> Option<&'a str> {
        self.raw.source.as_deref()
    }

    /// Its tags, name and value.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.raw.tags.iter().map(|tag| (tag.name.as_str(), tag.value.as_str()))
    }

    /// When, in milliseconds since 1970 (UTC).
    pub fn timestamp(&self) -> u64 {
        self.raw.timestamp.unwrap_or_default()
    }
}

/// A sign of life.
#[derive(Debug, Clone, Copy)]
pub struct CheckView<'a> {
    batch: &'a Batch,
    raw: &'a wit::Check,
    item: usize,
}

impl<'a> CheckView<'a> {
    /// Its number among the batch's items.
    pub fn item(&self) -> u32 {
        item(self.item)
    }

    /// What it speaks of.
    pub fn element(&self) -> ElementView<'a> {
        self.batch.element_at(self.raw.element.unwrap_or_default() as usize)
    }

    /// For instance `heartbeat`.
    pub fn name(&self) -> &'a str {
        &self.raw.name
    }

    /// How it went.
    pub fn status(&self) -> Status {
        self.raw.status.into()
    }

    /// For people; may be empty.
    pub fn message(&self) -> &'a str {
        &self.raw.message
    }

    /// How many seconds the receiver may wait for the next one.
    pub fn ttl(&self) -> u32 {
        self.raw.ttl
    }

    /// When, in milliseconds since 1970 (UTC).
    pub fn timestamp(&self) -> u64 {
        self.raw.timestamp.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Check, Element, Event, Series, testing};
    use std::time::Duration;

    fn mixed() -> Batch {
        let web = Element::new("c1").name("web").location("hel1").attribute("cpus", 2).relation("host");
        let tagged = Series::counter("net.bytes").unit("byte").tag("if", "eth0").tag("dir", "rx");
        testing::batch()
            .at(1000)
            .gauge("load", 0.5)
            .of(&web)
            .sample(&tagged, 10)
            .gauge("load", 0.75)
            .at(2000)
            .sample(&tagged, 20)
            .summary(
                &Series::gauge("wait").unit("ms"),
                Summary { avg: Some(1.5), cnt: Some(3), ..Summary::default() },
            )
            .event(Event::new("INFO", "restarted"))
            .check(Check::new("alive", Status::Ok, Duration::from_secs(60)))
            .build()
    }

    #[test]
    fn samples_know_their_series_and_elements() {
        let batch = mixed();
        let seen: Vec<_> =
            batch.samples().map(|s| (s.item(), s.series_index(), s.timestamp(), s.to_string())).collect();
        assert_eq!(
            seen,
            [
                (0, 0, 1000, "test load 0.5".to_owned()),
                (1, 1, 1000, "web net.bytes 10 byte".to_owned()),
                (2, 2, 1000, "web load 0.75".to_owned()),
                (3, 1, 2000, "web net.bytes 20 byte".to_owned()),
                (4, 3, 2000, "web wait avg=1.5 cnt=3 ms".to_owned()),
            ]
        );
        assert_eq!(
            batch.series().map(|series| series.name()).collect::<Vec<_>>(),
            ["load", "net.bytes", "load", "wait"]
        );
    }

    #[test]
    fn tags_belong_to_their_series_only() {
        let batch = mixed();
        let tags: Vec<Vec<_>> = batch.series().map(|series| series.tags().collect()).collect();
        assert_eq!(tags, [vec![], vec![("if", "eth0"), ("dir", "rx")], vec![], vec![]]);
    }

    #[test]
    fn items_are_numbered_through() {
        let batch = mixed();
        assert_eq!((batch.len(), batch.sample_count(), batch.attempt()), (7, 5, 1));
        assert_eq!(batch.events().map(|event| event.item()).collect::<Vec<_>>(), [5]);
        assert_eq!(batch.checks().map(|check| check.item()).collect::<Vec<_>>(), [6]);
        assert_eq!(batch.events().next().unwrap().element().name(), "web");
    }

    #[test]
    fn element_shows_its_facts_and_defaults() {
        let batch = mixed();
        let [own, web]: [ElementView<'_>; 2] = batch.elements().collect::<Vec<_>>().try_into().unwrap();
        assert_eq!((own.id(), own.kind(), own.location()), ("test", "SERVER", None));
        assert_eq!((web.id(), web.name(), web.location()), ("c1", "web", Some("hel1")));
        assert_eq!(web.attributes().collect::<Vec<_>>(), [("cpus", AttributeView::Number(2.0))]);
        assert_eq!(web.relations().collect::<Vec<_>>(), ["host"]);
    }
}
