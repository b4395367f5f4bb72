//! Batches by their items: cutting, joining, choosing. Items are numbered through: samples, then
//! summaries, events, checks.

use std::collections::HashMap;
use std::mem::take;
use std::ops::Range;
use std::sync::Arc;

use crate::sample::{Batch, Check, Element, Event, Sample, SummarySample};

/// How a handler wants its batches; its manifest says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchForm {
    /// Each batch is of one element.
    pub by_element: bool,
    /// Most items; at least one is always sent.
    pub samples: usize,
    /// Most bytes, as [`Batch::bytes`] counts; at least one item is always sent.
    pub bytes: usize,
}

impl Default for BatchForm {
    fn default() -> Self {
        Self { by_element: false, samples: 1000, bytes: 1 << 20 }
    }
}

impl BatchForm {
    /// True if a batch of this size may be sent.
    pub(crate) fn fits(&self, items: usize, bytes: usize) -> bool {
        items <= self.samples && bytes <= self.bytes
    }
}

/// Cuts a batch into as few pieces as the form allows, in order.
pub(crate) fn chop(mut batch: Batch, form: &BatchForm) -> Vec<Batch> {
    let mut cuts = Vec::new();
    let (mut items, mut bytes) = (0, 0);
    for (place, more) in batch.bytes_of_items().enumerate() {
        if items > 0 && !form.fits(items + 1, bytes + more) {
            cuts.push(place);
            (items, bytes) = (0, 0);
        }
        items += 1;
        bytes += more;
    }
    // From behind, so that each item is moved once.
    let mut pieces: Vec<Batch> = cuts.into_iter().rev().map(|cut| batch.split_off(cut)).collect();
    pieces.push(batch);
    pieces.reverse();
    pieces
}

/// Which element it is, for as long as it lives.
type ElementKey = usize;

/// Batches take their place in memory anew only if another handler has them, too.
pub(crate) fn owned(batch: Arc<Batch>) -> Batch {
    Arc::unwrap_or_clone(batch)
}

pub(crate) fn element_key(element: &Arc<Element>) -> ElementKey {
    Arc::as_ptr(element).addr()
}

/// One batch for each element, in the order in which they first occur.
pub(crate) fn part_by_element(batch: Arc<Batch>) -> Vec<(ElementKey, Arc<Batch>)> {
    let Some(first) = batch.elements().next().map(element_key) else { return Vec::new() };
    if batch.elements().all(|element| element_key(element) == first) {
        return vec![(first, batch)];
    }
    let mut parts = Parts::default();
    let Batch { samples, summaries, events, checks } = owned(batch);
    for sample in samples {
        parts.of(&sample.series.element).samples.push(sample);
    }
    for summary in summaries {
        parts.of(&summary.series.element).summaries.push(summary);
    }
    for event in events {
        parts.of(&event.element).events.push(event);
    }
    for check in checks {
        parts.of(&check.element).checks.push(check);
    }
    parts.batches.into_iter().map(|(key, part)| (key, Arc::new(part))).collect()
}

#[derive(Debug, Default)]
struct Parts {
    batches: Vec<(ElementKey, Batch)>,
    places: HashMap<ElementKey, usize>,
}

impl Parts {
    fn of(&mut self, element: &Arc<Element>) -> &mut Batch {
        let key = element_key(element);
        let place = *self.places.entry(key).or_insert_with(|| {
            self.batches.push((key, Batch::default()));
            self.batches.len() - 1
        });
        &mut self.batches[place].1
    }
}

impl Batch {
    /// The elements of all items, in order.
    pub(crate) fn elements(&self) -> impl Iterator<Item = &Arc<Element>> {
        (self.samples.iter().map(|sample| &sample.series.element))
            .chain(self.summaries.iter().map(|summary| &summary.series.element))
            .chain(self.events.iter().map(|event| &event.element))
            .chain(self.checks.iter().map(|check| &check.element))
    }

    /// What each item costs; the sum is [`Batch::bytes`].
    fn bytes_of_items(&self) -> impl Iterator<Item = usize> {
        let event =
            |event: &Event| size_of::<Event>() + event.kind.len() + event.title.len() + event.message.len();
        let check = |check: &Check| size_of::<Check>() + check.name.len() + check.message.len();
        (self.samples.iter().map(|_| size_of::<Sample>()))
            .chain(self.summaries.iter().map(|_| size_of::<SummarySample>()))
            .chain(self.events.iter().map(event))
            .chain(self.checks.iter().map(check))
    }

    /// Adds another one behind; samples behind samples and so on.
    pub(crate) fn append(&mut self, mut other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        self.samples.append(&mut other.samples);
        self.summaries.append(&mut other.summaries);
        self.events.append(&mut other.events);
        self.checks.append(&mut other.checks);
    }

    /// Keeps the items before `at` and answers the others.
    pub(crate) fn split_off(&mut self, mut at: usize) -> Self {
        Self {
            samples: split_off(&mut self.samples, &mut at),
            summaries: split_off(&mut self.summaries, &mut at),
            events: split_off(&mut self.events, &mut at),
            checks: split_off(&mut self.checks, &mut at),
        }
    }

    /// Takes out the items that `ranges` name, whatever their order.
    pub(crate) fn extract(&mut self, ranges: &[Range<u32>]) -> Self {
        let mut named = Named::new(ranges);
        Self {
            samples: named.extract(&mut self.samples),
            summaries: named.extract(&mut self.summaries),
            events: named.extract(&mut self.events),
            checks: named.extract(&mut self.checks),
        }
    }
}

fn split_off<T>(items: &mut Vec<T>, at: &mut usize) -> Vec<T> {
    let kept = items.len().min(*at);
    *at -= kept;
    if kept == 0 { take(items) } else { items.split_off(kept) }
}

/// Goes through item numbers and tells which of them are named.
struct Named {
    /// By their starts, without the empty ones.
    ranges: std::iter::Peekable<std::vec::IntoIter<Range<u32>>>,
    next: u64,
}

impl Named {
    fn new(ranges: &[Range<u32>]) -> Self {
        let mut ranges: Vec<Range<u32>> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
        ranges.sort_unstable_by_key(|range| range.start);
        Self { ranges: ranges.into_iter().peekable(), next: 0 }
    }

    fn extract<T>(&mut self, items: &mut Vec<T>) -> Vec<T> {
        items.extract_if(.., |_| self.takes_next()).collect()
    }

    fn takes_next(&mut self) -> bool {
        let item = self.next;
        self.next += 1;
        while self.ranges.next_if(|range| u64::from(range.end) <= item).is_some() {}
        self.ranges.peek().is_some_and(|range| u64::from(range.start) <= item)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{element, event, samples};
    use super::*;

    fn sizes(batch: Batch, form: BatchForm) -> Vec<usize> {
        chop(batch, &form).iter().map(Batch::len).collect()
    }

    #[test]
    fn pieces_have_as_many_items_as_the_form_allows() {
        let form = BatchForm { samples: 4, ..BatchForm::default() };
        assert_eq!(sizes(samples(0..10), form), [4, 4, 2]);
        let pieces = chop(samples(0..10), &form);
        let values: Vec<f64> = pieces.iter().flat_map(|piece| &piece.samples).map(|s| s.value).collect();
        assert_eq!(values, (0..10).map(f64::from).collect::<Vec<_>>());
    }

    #[test]
    fn pieces_have_as_many_bytes_as_the_form_allows_but_at_least_one_item() {
        let form = BatchForm { bytes: 2 * size_of::<Sample>(), ..BatchForm::default() };
        assert_eq!(sizes(samples(0..5), form), [2, 2, 1]);
        assert_eq!(sizes(samples(0..2), BatchForm { bytes: 0, ..form }), [1, 1]);
        assert_eq!(sizes(samples(0..2), BatchForm { samples: 0, ..form }), [1, 1]);
    }

    #[test]
    fn bytes_of_items_add_up_to_the_batch() {
        let mut batch = samples(0..3);
        batch.events = vec![event(&element("web-1"), "a long title")];
        assert_eq!(batch.bytes_of_items().sum::<usize>(), batch.bytes());
    }
}
