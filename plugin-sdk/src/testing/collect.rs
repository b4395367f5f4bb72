//! Runs a collector as the agent would, and gives what it recorded.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use super::fakes;
use super::pack::{Packer, SeriesFacts};
use crate::batch::{Batch, Sample, Value};
use crate::bindings::collector::exports::kimberlite::plugin::collector as wit;
use crate::collector::{Collector, Instance};
use crate::element::Element;
use crate::error::Result;
use crate::settings::Settings;

/// A collector under test.
pub struct Collect {
    plugin: Box<dyn FnMut(wit::Tick) -> Result<wit::Batch>>,
    last: Option<u64>,
    /// What was described so far and not let go, by handle.
    series: BTreeMap<u32, wit::Series>,
    elements: BTreeMap<u32, wit::Element>,
    next_series: u32,
    next_element: u32,
    expired: Vec<u32>,
    expired_elements: Vec<u32>,
}

impl Collect {
    /// Makes the collector `T` with these settings; its own error if it refuses them. The manifest's
    /// defaults are not filled in.
    pub fn new<T: Collector + 'static>(settings: &Settings) -> Result<Self> {
        let mut instance = Instance::<T>::new(settings)?;
        Ok(Self {
            plugin: Box::new(move |tick| instance.collect(tick)),
            last: None,
            series: BTreeMap::new(),
            elements: BTreeMap::new(),
            next_series: 0,
            next_element: 0,
            expired: Vec::new(),
            expired_elements: Vec::new(),
        })
    }

    /// One run that is due at `due` (milliseconds since 1970) and starts at once.
    ///
    /// # Panics
    /// If the plugin says something that the agent would not take, which no plugin can.
    pub fn run(&mut self, due: u64) -> Result<Recorded> {
        let tick = wit::Tick {
            due,
            now: due,
            elapsed: self.last.map(|last| due.saturating_sub(last)),
            reason: wit::Reason::Due,
            expired: std::mem::take(&mut self.expired),
            expired_elements: std::mem::take(&mut self.expired_elements),
        };
        let before = fakes::begin(due);
        let batch = (self.plugin)(tick);
        fakes::end(before, batch.is_ok());
        let batch = batch?;
        self.last = Some(due);
        Ok(self.take(batch, due))
    }

    /// Lets go of all series and elements before the next run, as the agent does when nobody has
    /// used them for long.
    pub fn expire_all(&mut self) {
        self.expired = std::mem::take(&mut self.series).into_keys().collect();
        self.expired_elements = std::mem::take(&mut self.elements).into_keys().collect();
    }

    fn take(&mut self, batch: wit::Batch, due: u64) -> Recorded {
        for element in batch.elements {
            if !self.elements.contains_key(&element.handle) {
                assert_eq!(element.handle, self.next_element, "element handles are dense");
                self.next_element += 1;
            }
            self.elements.insert(element.handle, element);
        }
        let described: Vec<String> = batch.series.iter().map(|series| series.name.clone()).collect();
        for series in batch.series {
            assert_eq!(series.handle, self.next_series, "series handles are dense");
            self.next_series += 1;
            self.series.insert(series.handle, series);
        }

        let mut packer = Packer::new();
        let mut own = Element::new(fakes::agent::info().id).name(fakes::agent::info().name).described_as(0);
        if let Some(machine) = batch.machine {
            own.tags.extend(machine.tags);
            own.attributes.extend(machine.attributes);
            own.relations.extend(machine.relations);
        }
        packer.element(&own);
        for (i, (handle, value)) in batch.handles.iter().zip(&batch.values).enumerate() {
            let (series, scale) = self.pack(&mut packer, *handle);
            packer.number(series, value * scale, batch.timestamps.get(i).copied().unwrap_or(due));
        }
        for sample in batch.summaries {
            let (series, _) = self.pack(&mut packer, sample.handle);
            packer.summary(series, sample.summary, sample.timestamp.unwrap_or(due));
        }
        for event in batch.events {
            let element = Some(self.pack_element(&mut packer, event.element));
            let timestamp = event.timestamp.or(Some(due));
            packer.batch.events.push(wit::Event { element, timestamp, ..event });
        }
        for check in batch.checks {
            let element = Some(self.pack_element(&mut packer, check.element));
            let timestamp = check.timestamp.or(Some(due));
            packer.batch.checks.push(wit::Check { element, timestamp, ..check });
        }

        for handle in batch.forget {
            assert!(self.series.remove(&handle).is_some(), "series {handle} is forgotten once");
        }
        for handle in batch.forget_elements {
            assert!(self.elements.remove(&handle).is_some(), "element {handle} is forgotten once");
            self.series.retain(|_, series| series.element != Some(handle));
        }
        Recorded { batch: packer.finish(), described }
    }

    /// The place of a described series in the batch that is packed, and its scale.
    fn pack(&self, packer: &mut Packer, handle: u32) -> (u32, f64) {
        let Some(series) = self.series.get(&handle) else { panic!("series {handle} was never described") };
        let element = self.pack_element(packer, series.element);
        let kind = match (series.kind, series.publish) {
            (wit::Kind::Gauge, _) => 0,
            (wit::Kind::Counter, wit::Publish::Rate) => 1,
            (wit::Kind::Counter, wit::Publish::Total) => 2,
        };
        let facts = SeriesFacts {
            name: series.name.clone(),
            unit: series.unit.clone(),
            kind,
            sparse_data: series.sparse_data.clone(),
            tags: series.tags.iter().map(|tag| (tag.name.clone(), tag.value.clone())).collect(),
            element,
        };
        (packer.series(facts), series.scale)
    }

    fn pack_element(&self, packer: &mut Packer, handle: Option<u32>) -> u32 {
        let Some(handle) = handle else { return 0 };
        let Some(element) = self.elements.get(&handle) else {
            panic!("element {handle} was never described")
        };
        packer.element(element)
    }
}

impl fmt::Debug for Collect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collect").field("last", &self.last).finish_non_exhaustive()
    }
}

/// What one run recorded: a [`Batch`] as a handler would see it, with two differences. A counter that
/// is published as a rate has the kind `Rate` already, but its value is the total that was recorded;
/// and values that are not finite are still in it. The series' scale has been applied. The element
/// of the agent itself is the first.
pub struct Recorded {
    batch: Batch,
    described: Vec<String>,
}

impl Recorded {
    /// The last number that was recorded under `name`, of whatever element.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.sample(name).and_then(|sample| match sample.value() {
            Value::Number(number) => Some(number),
            Value::Summary(_) => None,
        })
    }

    /// The last sample that was recorded under `name`, of whatever element.
    pub fn sample(&self, name: &str) -> Option<Sample<'_>> {
        self.samples().filter(|sample| sample.name() == name).last()
    }

    /// The names of all samples, in order, each as often as it was recorded.
    pub fn names(&self) -> Vec<&str> {
        self.samples().map(|sample| sample.name()).collect()
    }

    /// The names of the series that this run described: all in the first run, none in the next.
    pub fn described(&self) -> &[String] {
        &self.described
    }
}

impl Deref for Recorded {
    type Target = Batch;

    fn deref(&self) -> &Batch {
        &self.batch
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.samples()).finish()
    }
}
