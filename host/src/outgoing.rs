//! A batch on its way out: what a handler is given, again or in parts until all of it has gone.
//!
//! Uses: `sample`. Its parts: `items` cuts and joins batches, `columns` lays one out for a call.

mod columns;
mod items;

use std::ops::Range;
use std::sync::Arc;

pub use self::columns::{Columns, Strings};
pub use self::items::BatchForm;
pub(crate) use self::items::{chop, element_key, owned, part_by_element};
use crate::sample::{Batch, Millis};

/// A batch that was taken out of a handler's queue, or a part of one.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub batch: Batch,
    /// Which attempt this is: 1 the first time.
    pub attempt: u32,
    /// How often a handler died of it.
    pub kills: u32,
    /// When the oldest of it entered the queue, by the agent's monotonic clock.
    pub since: Millis,
}

impl Outgoing {
    pub fn new(batch: Batch, since: Millis) -> Self {
        Self { batch, attempt: 1, kills: 0, since }
    }

    /// How many items are left of it.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// As [`Batch::bytes`].
    pub fn bytes(&self) -> usize {
        self.batch.bytes()
    }

    /// Parts it in two: the items that `ranges` name, and the others. Ranges come from handlers:
    /// they may overlap, be out of order, empty or beyond the end.
    pub fn part(mut self, ranges: &[Range<u32>]) -> (Self, Self) {
        let named = self.batch.extract(ranges);
        (Self { batch: named, ..self }, self)
    }

    /// The items that `ranges` do not name.
    pub fn without(self, ranges: &[Range<u32>]) -> Self {
        self.part(ranges).1
    }

    /// The items that `ranges` name.
    pub fn only(self, ranges: &[Range<u32>]) -> Self {
        self.part(ranges).0
    }

    /// Two halves, in order; the first is the smaller one where they differ.
    pub fn split(mut self) -> (Self, Self) {
        let second = self.batch.split_off(self.len() / 2);
        let second = Self { batch: second, ..self };
        (self, second)
    }

    /// As a handler wants it now, in order: it may have been formed for one that wanted it otherwise.
    pub fn formed(self, form: &BatchForm) -> Vec<Self> {
        let Self { batch, attempt, kills, since } = self;
        let parts = if form.by_element {
            part_by_element(Arc::new(batch)).into_iter().map(|(_, part)| owned(part)).collect()
        } else {
            vec![batch]
        };
        let pieces = parts.into_iter().flat_map(|part| chop(part, form));
        pieces.map(|batch| Self { batch, attempt, kills, since }).collect()
    }

    /// Laid out as handlers take it.
    pub fn columns(&self) -> Columns {
        Columns::of(&self.batch)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sample::{Check, Element, Event, Facts, Kind, Level, Sample, Series, Status, SummarySample};

    pub(crate) fn element(id: &str) -> Arc<Element> {
        Arc::new(Element::new(id, Facts::default()))
    }

    pub(crate) fn series(element: &Arc<Element>, name: &str, handlers: u64) -> Arc<Series> {
        Arc::new(Series {
            element: element.clone(),
            name: name.into(),
            unit: "".into(),
            kind: Kind::Gauge,
            sparse_data: "".into(),
            tags: Box::default(),
            handlers,
        })
    }

    pub(crate) fn sample(series: &Arc<Series>, value: f64) -> Sample {
        Sample { series: series.clone(), timestamp: 1000, value }
    }

    /// Samples of one series with these values.
    pub(crate) fn samples(values: impl IntoIterator<Item = u32>) -> Batch {
        let series = series(&element("web-1"), "m", u64::MAX);
        let samples = values.into_iter().map(|value| sample(&series, f64::from(value))).collect();
        Batch { samples, ..Batch::default() }
    }

    pub(crate) fn event(element: &Arc<Element>, title: &str) -> Event {
        Event {
            element: element.clone(),
            kind: "INFO".to_owned(),
            title: title.to_owned(),
            message: String::new(),
            level: Level::Info,
            source: None,
            tags: Vec::new(),
            timestamp: 1000,
        }
    }

    pub(crate) fn check(element: &Arc<Element>, name: &str) -> Check {
        Check {
            element: element.clone(),
            name: name.to_owned(),
            status: Status::Ok,
            message: String::new(),
            ttl: 60,
            timestamp: 1000,
        }
    }

    /// Items 0 and 1 are samples, 2 a summary, 3 and 4 events, 5 a check.
    fn mixed() -> Outgoing {
        let web = element("web-1");
        let series = series(&web, "m", u64::MAX);
        let summary = SummarySample { series: series.clone(), timestamp: 1000, summary: Default::default() };
        let batch = Batch {
            samples: vec![sample(&series, 0.0), sample(&series, 1.0)],
            summaries: vec![summary],
            events: vec![event(&web, "3"), event(&web, "4")],
            checks: vec![check(&web, "5")],
        };
        Outgoing::new(batch, 7)
    }

    /// The items of a part of [`mixed`].
    fn items(part: &Outgoing) -> Vec<u32> {
        let batch = &part.batch;
        (batch.samples.iter().map(|sample| sample.value as u32))
            .chain(batch.summaries.iter().map(|_| 2))
            .chain(batch.events.iter().map(|event| event.title.parse().unwrap()))
            .chain(batch.checks.iter().map(|check| check.name.parse().unwrap()))
            .collect()
    }

    #[test]
    fn ranges_name_items_across_all_sorts() {
        let (named, others) = mixed().part(&[1..2, 2..4]);
        assert_eq!((items(&named), items(&others)), (vec![1, 2, 3], vec![0, 4, 5]));
        assert_eq!((named.since, others.since), (7, 7));
    }

    #[test]
    fn odd_ranges_are_understood() {
        #[expect(clippy::reversed_empty_ranges, reason = "a handler may say so")]
        let ranges = [4..6, 0..1, 4..5, 3..3, 5..2, 9..u32::MAX, 5..u32::MAX];
        let (named, others) = mixed().part(&ranges);
        assert_eq!((items(&named), items(&others)), (vec![0, 4, 5], vec![1, 2, 3]));
    }

    #[test]
    fn without_and_only_are_the_two_parts() {
        assert_eq!(items(&mixed().without(&[0..2, 2..5])), [5]);
        assert_eq!(items(&mixed().only(&[0..1, 4..5])), [0, 4]);
        assert!(mixed().without(&[0..1, 1..6]).is_empty());
    }

    #[test]
    fn what_was_formed_otherwise_is_parted_by_element_and_size() {
        let (web, disk) = (series(&element("web-1"), "m", 1), series(&element("sda"), "m", 1));
        let samples = [&web, &disk, &web, &web, &disk].into_iter().zip(0u8..);
        let samples = samples.map(|(series, value)| sample(series, f64::from(value))).collect();
        let outgoing = Outgoing { kills: 2, ..Outgoing::new(Batch { samples, ..Batch::default() }, 7) };
        let form = BatchForm { by_element: true, samples: 2, ..BatchForm::default() };
        let formed = outgoing.clone().formed(&form);
        assert_eq!(formed.iter().map(items).collect::<Vec<_>>(), [vec![0, 2], vec![3], vec![1, 4]]);
        assert!(formed.iter().all(|part| (part.kills, part.since) == (2, 7)));
        assert_eq!(outgoing.formed(&BatchForm::default()).len(), 1);
    }

    #[test]
    fn halves_keep_the_order() {
        let (first, second) = mixed().split();
        assert_eq!((items(&first), items(&second)), (vec![0, 1, 2], vec![3, 4, 5]));
        let (first, second) = second.split();
        assert_eq!((items(&first), items(&second)), (vec![3], vec![4, 5]));
    }
}
