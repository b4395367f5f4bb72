//! The series table of one collector: turns what a run found into a batch.
//!
//! ```text
//!            handle ─▶ slot ─▶ ┌────────────────────────────┐
//! collected                    │ series, previous reading,  │ ─▶ batch: samples with their
//!     element + name ────────▶ │ scale, kind, last used     │    series; rates made
//!                              └────────────────────────────┘
//!                     bounded in entries and bytes; what is unused for long goes
//! ```
//!
//! The table outlives the plugin's instances: a new instance describes its series under new
//! handles and finds their previous readings here, so a reload breaks no rate.
//!
//! Uses: `sample`, `collected`, `routes`. Time is an argument.

mod drops;
mod elements;
mod entry;
mod handles;
mod limits;
mod reading;
mod room;
mod texts;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use indexmap::map::MutableKeys;

pub use self::drops::{DropReason, Drops};
use self::elements::{Elements, Room};
use self::entry::{Described, Identity, Key, State};
use self::handles::Handles;
pub use self::limits::{Flood, SeriesConfig, SeriesLimits};
use self::reading::scaled;
use self::texts::Texts;
use crate::collected::{
    Additions, Collected, CollectedCheck, CollectedEvent, NamedSample, SeriesDescription, Value,
};
use crate::routes::Routes;
use crate::sample::{Batch, Check, Element, Event, Millis, Sample, SummarySample};

/// The least time for which an unused series is kept.
const LEAST_KEEP: Duration = Duration::from_secs(600);
/// For how many intervals an unused series is kept.
const KEEP_INTERVALS: u32 = 10;

/// What became of a run.
#[derive(Debug, Default)]
pub struct Applied {
    pub batch: Batch,
    /// What the collector adds to the agent's own element.
    pub machine: Option<Additions>,
    pub dropped: Drops,
}

/// Handles that have become void since the instance was told last.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expired {
    pub series: Vec<u32>,
    pub elements: Vec<u32>,
}

/// All series and elements of one collector.
#[derive(Debug)]
pub struct SeriesTable {
    config: SeriesConfig,
    routes: Arc<Routes>,
    elements: Elements,
    series: IndexMap<Key, State>,
    handles: Handles,
    /// Bytes of the series themselves, without the table around them.
    series_bytes: usize,
    /// Void handles of which the instance has not been told.
    untold: Expired,
    /// Nothing was last used before this time, so until it is long ago nothing can expire.
    oldest_use: Millis,
    /// Nothing was used after this time, unless the clock goes back.
    newest_use: Millis,
}

impl SeriesTable {
    /// `own` is the agent's own element.
    pub fn new(own: Arc<Element>, config: SeriesConfig, routes: Arc<Routes>) -> Self {
        Self {
            config,
            routes,
            elements: Elements::new(own),
            series: IndexMap::new(),
            handles: Handles::default(),
            series_bytes: 0,
            untold: Expired::default(),
            oldest_use: Millis::MAX,
            newest_use: 0,
        }
    }

    /// Live series.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        let slots = self.series.capacity() * size_of::<(usize, Key, State, usize)>();
        self.series_bytes + slots + self.handles.bytes() + self.elements.bytes()
    }

    /// The last number of each series that the collector's `match` takes.
    pub fn latest(&self) -> impl Iterator<Item = Sample> + '_ {
        self.series.iter().filter(|(_, state)| state.wanted).filter_map(|(key, state)| {
            let (timestamp, value) = state.reading.published()?;
            Some(Sample { series: key.0.clone(), timestamp, value })
        })
    }

    /// A new instance of the plugin starts: all handles are void, all readings stay.
    pub fn new_instance(&mut self) {
        self.handles.clear();
        self.elements.new_instance();
        self.series.values_mut().for_each(|state| state.handle = None);
        self.untold = Expired::default();
    }

    /// Changes what the operator said and which handlers there are; readings stay. Collector's
    /// tags that new tags of the operator replace come back when the series is described again.
    pub fn reconfigure(&mut self, config: SeriesConfig, routes: Arc<Routes>) {
        for slot in 0..self.series.len() {
            let Some((key, state)) = self.series.get_index_mut2(slot) else { continue };
            let former = &key.0;
            let described = Described {
                name: &former.name,
                unit: &former.unit,
                kind: state.raw_kind,
                publish: state.publish,
                scale: state.scale,
                tags: &former.tags[self.config.tags.len()..],
                sparse_data: &former.sparse_data,
            };
            let series = described.series(former.element.clone(), &config, &routes);
            *state = described.state(&series, &config).follows(state);
            self.series_bytes -= key.bytes();
            *key = Key(Arc::new(series));
            self.series_bytes += key.bytes();
        }
        self.config = config;
        self.routes = routes;
    }

    /// Other handlers are there.
    pub fn reroute(&mut self, routes: Arc<Routes>) {
        if !Arc::ptr_eq(&routes, &self.routes) {
            self.reconfigure(self.config.clone(), routes);
        }
    }

    /// Takes over one run that ended well. What cannot be used is dropped and counted; only a
    /// flood refuses all of it.
    pub fn apply(&mut self, due: Millis, collected: Collected) -> Result<Applied, Flood> {
        self.config.limits.refuse_flood(&collected)?;
        let mut applied = Applied::default();
        self.make_room_for_elements(&collected);
        for description in collected.elements {
            let outcome = self.elements.describe(description, due, self.room());
            applied.count(outcome);
        }
        let summarised = collected.summaries.iter().map(|summary| summary.handle);
        let used = collected.handles.iter().copied().chain(summarised);
        self.make_room_for_series(&collected.series, &collected.samples, used);
        let room = self.config.limits.series.saturating_sub(self.series.len());
        self.series.reserve_exact(collected.series.len().min(room));
        for description in &collected.series {
            let outcome = self.describe(description, due);
            applied.count(outcome);
        }
        self.numbers(due, &collected.handles, &collected.values, &collected.timestamps, &mut applied);
        for summary in collected.summaries {
            let at = summary.timestamp.unwrap_or(due);
            let slot = self.handles.slot(summary.handle).ok_or(DropReason::UnknownHandle);
            let outcome = slot.and_then(|slot| {
                self.value(slot, due, Value::Summary(summary.summary), at, &mut applied.batch)
            });
            applied.count(outcome);
        }
        for sample in collected.samples {
            let outcome = self.named(sample, due, &mut applied.batch);
            applied.count(outcome);
        }
        for event in collected.events {
            let event = self.event(event, due);
            if let Some(event) = applied.take(event) {
                applied.batch.events.push(event);
            }
        }
        for check in collected.checks {
            let check = self.check(check, due);
            if let Some(check) = applied.take(check) {
                applied.batch.checks.push(check);
            }
        }
        self.forget(&collected.forget, &collected.forget_elements);
        applied.machine = collected.machine.and_then(|machine| {
            let checked = self.additions(&machine);
            applied.take(checked).map(|()| machine)
        });
        self.oldest_use = self.oldest_use.min(due);
        self.newest_use = self.newest_use.max(due);
        Ok(applied)
    }

    /// The wall clock was set, by so many milliseconds: what was a second ago still was a second ago.
    pub fn clock_jumped(&mut self, by: i64) {
        let moved = |time: &mut Millis| *time = time.saturating_add_signed(by);
        for state in self.series.values_mut() {
            moved(&mut state.used);
            state.reading.clock_jumped(by);
        }
        self.elements.clock_jumped(by);
        moved(&mut self.oldest_use);
        moved(&mut self.newest_use);
    }

    /// Lets go what was not used for the longer of ten intervals and ten minutes, and names all
    /// handles that have become void since the last call of this. To be called before each run.
    pub fn expire(&mut self, now: Millis, interval: Duration) -> Expired {
        let keep = LEAST_KEEP.max(interval.saturating_mul(KEEP_INTERVALS));
        let keep = Millis::try_from(keep.as_millis()).unwrap_or(Millis::MAX);
        let clock_went_back = now < self.newest_use;
        if clock_went_back || self.oldest_use.saturating_add(keep) <= now {
            let mut oldest = Millis::MAX;
            for state in self.series.values_mut() {
                state.used = state.used.min(now);
                state.gone |= state.used.saturating_add(keep) <= now;
                if !state.gone {
                    oldest = oldest.min(state.used);
                }
            }
            self.newest_use = self.newest_use.min(now);
            self.sweep_series();
            self.oldest_use = oldest.min(self.elements.mark_expired(now, keep));
            self.elements.sweep(&mut self.untold.elements);
        }
        std::mem::take(&mut self.untold)
    }

    fn texts(&self) -> Texts {
        Texts(self.config.limits.text)
    }

    fn room(&self) -> Room {
        Room {
            elements: self.config.limits.elements,
            bytes: self.config.limits.bytes.saturating_sub(self.bytes()),
            texts: self.texts(),
        }
    }

    fn describe(&mut self, description: &SeriesDescription, due: Millis) -> Result<(), DropReason> {
        let handle = description.handle;
        if !self.handles.claim(handle) {
            return Err(DropReason::WrongHandle);
        }
        let slot = self.intern(
            description.element,
            due,
            &Described {
                name: &description.name,
                unit: &description.unit,
                kind: description.kind,
                publish: description.publish,
                scale: description.scale,
                tags: &description.tags,
                sparse_data: &description.sparse_data,
            },
        )?;
        if let Some(former) = self.series[slot].handle.replace(handle) {
            self.handles.void(former);
        }
        self.handles.bind(handle, slot);
        Ok(())
    }

    /// The slot of a series; made if it is new, made anew if it is described otherwise than before.
    fn intern(
        &mut self,
        element: Option<u32>,
        due: Millis,
        described: &Described<'_>,
    ) -> Result<usize, DropReason> {
        let element = self.elements.get(element)?;
        let identity = Identity::new(element, described.name);
        let known = self.series.get_index_of(&identity);
        if let Some(slot) = known {
            let (key, state) = self.series.get_index_mut(slot).ok_or(DropReason::UnknownHandle)?;
            if described.is(&key.0, state, &self.config) {
                state.used = due;
                return Ok(slot);
            }
        } else if self.series.len() >= self.config.limits.series {
            return Err(DropReason::SeriesLimit);
        }

        let texts = self.texts();
        texts.metric(described.name)?;
        texts.text(described.unit)?;
        texts.text(described.sparse_data)?;
        texts.tags(described.tags)?;
        if !described.scale.is_finite() {
            return Err(DropReason::NotFinite);
        }
        let key = Key(Arc::new(described.series(element.clone(), &self.config, &self.routes)));
        let former_bytes =
            known.and_then(|slot| self.series.get_index(slot)).map_or(0, |(key, _)| key.bytes());
        if self.bytes() + key.bytes() - former_bytes > self.config.limits.bytes {
            return Err(DropReason::TableBytes);
        }
        let state = State { used: due, ..described.state(&key.0, &self.config) };
        self.series_bytes = self.series_bytes + key.bytes() - former_bytes;
        match known.and_then(|slot| self.series.get_index_mut2(slot)) {
            Some((former_key, former)) => {
                *former = State { used: due, ..state.follows(former) };
                *former_key = key;
            }
            None => {
                self.elements.retain(&key.0.element);
                return Ok(self.series.insert_full(key, state).0);
            }
        }
        known.ok_or(DropReason::UnknownHandle)
    }

    /// The columns: the way that has to be fast.
    fn numbers(
        &mut self,
        due: Millis,
        handles: &[u32],
        values: &[f64],
        times: &[Millis],
        applied: &mut Applied,
    ) {
        let mut even = handles.len().min(values.len());
        if !times.is_empty() {
            even = even.min(times.len());
        }
        let uneven = handles.len().max(values.len()).max(times.len()) - even;
        applied.dropped.add(DropReason::UnevenColumns, uneven as u64);
        applied.batch.samples.reserve_exact(even);
        let mut guess = 0;
        for (place, (&handle, &value)) in handles[..even].iter().zip(values).enumerate() {
            let at = times.get(place).copied().unwrap_or(due);
            let slot = self.handles.slot_near(handle, &mut guess);
            let outcome = match slot.and_then(|slot| self.series.get_index_mut(slot)) {
                Some((key, state)) => number(key, state, due, value, at, &mut applied.batch),
                None => Err(DropReason::UnknownHandle),
            };
            if let Err(reason) = outcome {
                applied.dropped.add(reason, 1);
            }
        }
    }

    fn named(&mut self, sample: NamedSample, due: Millis, batch: &mut Batch) -> Result<(), DropReason> {
        let slot = self.intern(
            sample.element,
            due,
            &Described {
                name: &sample.name,
                unit: &sample.unit,
                kind: sample.kind,
                publish: sample.publish,
                scale: 1.0,
                tags: &sample.tags,
                sparse_data: "",
            },
        )?;
        self.value(slot, due, sample.value, sample.timestamp.unwrap_or(due), batch)
    }

    fn value(
        &mut self,
        slot: usize,
        due: Millis,
        value: Value,
        at: Millis,
        batch: &mut Batch,
    ) -> Result<(), DropReason> {
        let (key, state) = self.series.get_index_mut(slot).ok_or(DropReason::UnknownHandle)?;
        match value {
            Value::Number(value) => number(key, state, due, value, at, batch)?,
            Value::Summary(summary) => {
                state.used = due;
                let summary = scaled(summary, state.scale).ok_or(DropReason::NotFinite)?;
                if state.sent {
                    batch.summaries.push(SummarySample { series: key.0.clone(), timestamp: at, summary });
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, event: CollectedEvent, due: Millis) -> Result<Event, DropReason> {
        let texts = self.texts();
        [&*event.kind, &event.title, &event.message, event.source.as_deref().unwrap_or_default()]
            .into_iter()
            .try_for_each(|text| texts.text(text))?;
        texts.tags(&event.tags)?;
        Ok(Event {
            element: self.elements.mention(event.element, due)?,
            kind: event.kind,
            title: event.title,
            message: event.message,
            level: event.level,
            source: event.source,
            tags: event.tags,
            timestamp: event.timestamp.unwrap_or(due),
        })
    }

    fn check(&mut self, check: CollectedCheck, due: Millis) -> Result<Check, DropReason> {
        let texts = self.texts();
        texts.id(&check.name)?;
        texts.text(&check.message)?;
        Ok(Check {
            element: self.elements.mention(check.element, due)?,
            name: check.name,
            status: check.status,
            message: check.message,
            ttl: check.ttl,
            timestamp: check.timestamp.unwrap_or(due),
        })
    }

    fn additions(&self, machine: &Additions) -> Result<(), DropReason> {
        let texts = self.texts();
        texts.tags(&machine.tags)?;
        texts.attributes(&machine.attributes)?;
        machine.relations.iter().try_for_each(|relation| texts.text(relation))
    }

    /// Lets go what the collector says it will not use again. Of that it is not told.
    fn forget(&mut self, series: &[u32], elements: &[u32]) {
        if series.is_empty() && elements.is_empty() {
            return;
        }
        for slot in series.iter().filter_map(|&handle| self.handles.slot(handle)) {
            self.series[slot].gone = true;
            self.series[slot].handle = None;
        }
        let forgotten: HashSet<usize> = (elements.iter().filter_map(|&handle| self.elements.forget(handle)))
            .map(|element| Arc::as_ptr(&element).addr())
            .collect();
        if !forgotten.is_empty() {
            for (key, state) in &mut self.series {
                if forgotten.contains(&Arc::as_ptr(&key.0.element).addr()) {
                    state.gone = true;
                    state.handle = None;
                }
            }
        }
        self.sweep_series();
        self.elements.sweep(&mut self.untold.elements);
    }

    /// Lets go what is marked, with its memory.
    fn sweep_series(&mut self) {
        let before = self.series.len();
        self.series.retain(|key, state| {
            if state.gone {
                self.series_bytes -= key.bytes();
                self.elements.release(&key.0.element);
                self.untold.series.extend(state.handle);
            }
            !state.gone
        });
        if self.series.len() == before {
            return;
        }
        if self.series.len() < self.series.capacity() / 4 {
            self.series.shrink_to(self.series.len() * 2);
        }
        let live = self.series.values().enumerate();
        self.handles.rebuild(live.filter_map(|(slot, state)| Some((state.handle?, slot))));
    }
}

impl Applied {
    fn count(&mut self, outcome: Result<(), DropReason>) {
        self.take(outcome);
    }

    fn take<T>(&mut self, outcome: Result<T, DropReason>) -> Option<T> {
        outcome.map_err(|reason| self.dropped.add(reason, 1)).ok()
    }
}

#[inline]
fn number(
    key: &Key,
    state: &mut State,
    due: Millis,
    value: f64,
    at: Millis,
    batch: &mut Batch,
) -> Result<(), DropReason> {
    state.used = due;
    let published = state.reading.take(value, at, state.kind, state.scale)?;
    if let Some(value) = published
        && state.sent
    {
        batch.samples.push(Sample { series: key.0.clone(), timestamp: at, value });
    }
    Ok(())
}

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod tests;
