//! One run of a collector: when it is, and what it records.

use std::rc::Rc;
use std::time::Duration;

use crate::bindings::collector::exports::kimberlite::plugin::collector as wit;
use crate::element::{Additions, Element};
use crate::event::{Check, Event};
use crate::registry::{ElementState, Registry};
use crate::series::{Measure, Series, Slot};
use crate::summary::Summary;

/// Why a collector is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its interval has passed.
    Due,
    /// Its inbox is half full.
    Inbox,
    /// A trial run: `kimberlite collect`, or after a quarantine.
    Probe,
}

/// A number as it is recorded: every number type of Rust is one. Whole numbers are exact up to 2^53.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a number that can be recorded",
    label = "needs a number, for instance an `f64` or a `u64`",
    note = "a text becomes one by `text.parse::<f64>()?`"
)]
pub trait Number: Copy {
    /// The same as `f64`.
    fn number(self) -> f64;
}

macro_rules! numbers {
    ($($type:ty)*) => {
        $(impl Number for $type {
            fn number(self) -> f64 {
                self as f64
            }
        })*
    };
}

numbers!(f64 f32 u64 u32 u16 u8 usize i64 i32 i16 i8 isize);

/// One run of a collector: when it is, and where it puts what it found. All of it counts only if
/// `collect` ends well.
#[derive(Debug)]
pub struct Run {
    registry: Registry,
    tick: wit::Tick,
    batch: wit::Batch,
    /// How many values the last run had; this one will have about as many.
    expected: usize,
}

impl Run {
    /// When the run was due, in milliseconds since 1970 (UTC). Values have this time.
    pub fn due(&self) -> u64 {
        self.tick.due
    }

    /// When it really started, in milliseconds since 1970 (UTC).
    pub fn now(&self) -> u64 {
        self.tick.now
    }

    /// The time between the due time of the last run that ended well and this one's; none at first.
    /// For own differences; totals recorded as counters become rates without it.
    pub fn elapsed(&self) -> Option<Duration> {
        self.tick.elapsed.map(Duration::from_millis)
    }

    /// Why the collector is called.
    pub fn reason(&self) -> Reason {
        match self.tick.reason {
            wit::Reason::Due => Reason::Due,
            wit::Reason::Inbox => Reason::Inbox,
            wit::Reason::Probe => Reason::Probe,
        }
    }

    /// Records a value as it is now, of the agent's own machine. The easy way: for a unit, tags or an
    /// element of its own prepare a [`Series`] and [`record`](Self::record) it.
    pub fn gauge(&mut self, name: impl AsRef<str>, value: impl Number) {
        self.by_name(Measure::Gauge, name.as_ref(), value.number());
    }

    /// Records a running total; the agent makes a rate per second of it. A first reading and a reset
    /// give no sample.
    pub fn counter(&mut self, name: impl AsRef<str>, total: impl Number) {
        self.by_name(Measure::Rate, name.as_ref(), total.number());
    }

    /// Records a running total that is passed on as it is.
    pub fn total(&mut self, name: impl AsRef<str>, total: impl Number) {
        self.by_name(Measure::Total, name.as_ref(), total.number());
    }

    /// Records a value (of a counter: its total) of a prepared series.
    pub fn record(&mut self, series: &Series, value: impl Number) {
        let handle = self.handle(series);
        self.push(handle, value.number());
    }

    /// The same with its own time, in milliseconds since 1970 (UTC).
    pub fn record_at(&mut self, series: &Series, value: impl Number, timestamp: u64) {
        let handle = self.handle(series);
        // Times are all or nothing, so the values before get theirs now.
        if self.batch.timestamps.is_empty() {
            self.batch.timestamps.resize(self.batch.handles.len(), self.tick.due);
        }
        self.batch.handles.push(handle);
        self.batch.values.push(value.number());
        self.batch.timestamps.push(timestamp);
    }

    /// Records many values in one.
    pub fn summary(&mut self, series: &Series, summary: Summary) {
        self.push_summary(series, summary, None);
    }

    /// The same with its own time, in milliseconds since 1970 (UTC).
    pub fn summary_at(&mut self, series: &Series, summary: Summary, timestamp: u64) {
        self.push_summary(series, summary, Some(timestamp));
    }

    /// Lets go of a series that will not be used again, so that the agent need not wait until it
    /// expires. Recorded all the same, it is described anew.
    pub fn forget(&mut self, series: &Series) {
        self.batch.forget.extend(self.registry.forget(&series.slot));
    }

    /// Describes an element, or describes it again if anything but its id has changed. Elements are
    /// described by themselves when a series, event or check of theirs is first recorded, so this is
    /// for changes.
    pub fn describe(&mut self, element: &Element) {
        self.element(element, true);
    }

    /// Lets go of an element with all its series.
    pub fn forget_element(&mut self, element: &Element) {
        self.batch.forget_elements.extend(self.registry.forget_element(element.id()));
    }

    /// Adds facts to the agent's own element. They stay as long as they are said at least once an
    /// hour.
    pub fn machine(&mut self, facts: Additions) {
        let none = || wit::Additions { tags: Vec::new(), attributes: Vec::new(), relations: Vec::new() };
        let machine = self.batch.machine.get_or_insert_with(none);
        machine.tags.extend(facts.tags);
        machine.attributes.extend(facts.attributes);
        machine.relations.extend(facts.relations);
    }

    /// Tells of something that happened since the last run.
    pub fn event(&mut self, event: Event) {
        let element = event.element.as_ref().map(|element| self.element(element, false));
        self.batch.events.push(wit::Event { element, ..event.raw });
    }

    /// Gives a sign of life.
    pub fn check(&mut self, check: Check) {
        let element = check.element.as_ref().map(|element| self.element(element, false));
        self.batch.checks.push(wit::Check { element, ..check.raw });
    }

    pub(crate) fn new() -> Self {
        let tick = wit::Tick {
            due: 0,
            now: 0,
            elapsed: None,
            reason: wit::Reason::Due,
            expired: Vec::new(),
            expired_elements: Vec::new(),
        };
        Self { registry: Registry::default(), tick, batch: empty_batch(0), expected: 0 }
    }

    pub(crate) fn begin(&mut self, tick: wit::Tick) {
        self.registry.expire(&tick.expired, &tick.expired_elements);
        self.tick = tick;
        self.batch = empty_batch(self.expected);
    }

    /// The run ended well.
    pub(crate) fn commit(&mut self) -> wit::Batch {
        self.registry.commit();
        self.expected = self.batch.handles.len();
        std::mem::replace(&mut self.batch, empty_batch(0))
    }

    /// The run failed: nothing of it is ever said.
    pub(crate) fn rollback(&mut self) {
        self.registry.rollback();
        self.batch = empty_batch(0);
    }

    fn push(&mut self, handle: u32, value: f64) {
        self.batch.handles.push(handle);
        self.batch.values.push(value);
        if !self.batch.timestamps.is_empty() {
            self.batch.timestamps.push(self.tick.due);
        }
    }

    fn push_summary(&mut self, series: &Series, summary: Summary, timestamp: Option<u64>) {
        let handle = self.handle(series);
        self.batch.summaries.push(wit::SummarySample { handle, summary: summary.into(), timestamp });
    }

    fn by_name(&mut self, measure: Measure, name: &str, value: f64) {
        let handle = self.registry.find(measure, name).unwrap_or_else(|| {
            let handle = self.registry.describe(&Rc::new(Slot::named(measure, name)), None);
            let (kind, publish) = wire(measure);
            self.batch.series.push(wit::Series {
                handle,
                element: None,
                name: name.to_owned(),
                unit: String::new(),
                kind,
                publish,
                scale: 1.0,
                tags: Vec::new(),
                sparse_data: String::new(),
            });
            handle
        });
        self.push(handle, value);
    }

    fn handle(&mut self, series: &Series) -> u32 {
        match series.slot.handle.get() {
            Slot::NONE => self.describe_series(series),
            handle => handle,
        }
    }

    #[cold]
    fn describe_series(&mut self, series: &Series) -> u32 {
        let element = series.element.as_ref().map(|element| self.element(element, false));
        let handle = self.registry.describe(&series.slot, element);
        let (kind, publish) = wire(series.measure);
        self.batch.series.push(wit::Series {
            handle,
            element,
            name: series.name.to_string(),
            unit: series.unit.to_string(),
            kind,
            publish,
            scale: series.scale,
            tags: series.tags.clone(),
            sparse_data: series.sparse_data.to_string(),
        });
        handle
    }

    fn element(&mut self, element: &Element, compare: bool) -> u32 {
        match self.registry.element(element.id(), || element.fingerprint(), compare) {
            ElementState::Known(handle) => handle,
            ElementState::Describe(handle) => {
                self.batch.elements.push(element.described_as(handle));
                handle
            }
        }
    }
}

fn wire(measure: Measure) -> (wit::Kind, wit::Publish) {
    match measure {
        Measure::Gauge => (wit::Kind::Gauge, wit::Publish::Total),
        Measure::Rate => (wit::Kind::Counter, wit::Publish::Rate),
        Measure::Total => (wit::Kind::Counter, wit::Publish::Total),
    }
}

fn empty_batch(expected: usize) -> wit::Batch {
    wit::Batch {
        elements: Vec::new(),
        machine: None,
        series: Vec::new(),
        handles: Vec::with_capacity(expected),
        values: Vec::with_capacity(expected),
        timestamps: Vec::new(),
        summaries: Vec::new(),
        samples: Vec::new(),
        forget: Vec::new(),
        forget_elements: Vec::new(),
        events: Vec::new(),
        checks: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Collect, Recorded};
    use crate::{Collector, Error, Kind, Level, Result, Settings, Status};
    use std::cell::RefCell;

    type Step = Box<dyn FnMut(&mut Run) -> Result<()>>;

    thread_local! {
        static STEP: RefCell<Option<Step>> = const { RefCell::new(None) };
    }

    /// Does in a run what the test says.
    struct Told;

    impl Collector for Told {
        fn new(_: &Settings) -> Result<Self> {
            Ok(Self)
        }

        fn collect(&mut self, run: &mut Run) -> Result<()> {
            STEP.with_borrow_mut(|step| step.as_mut().map_or(Ok(()), |step| step(run)))
        }
    }

    fn told() -> Collect {
        Collect::new::<Told>(&Settings::new()).unwrap()
    }

    fn run(collect: &mut Collect, step: impl FnMut(&mut Run) -> Result<()> + 'static) -> Result<Recorded> {
        STEP.set(Some(Box::new(step)));
        collect.run(1000)
    }

    #[test]
    fn series_is_described_once_and_again_after_it_expired() {
        let mut collect = told();
        let series = Rc::new(Series::gauge("a"));
        let once = |collect: &mut Collect| {
            let series = series.clone();
            let recorded = run(collect, move |run| {
                run.record(&series, 1);
                run.gauge("b", 2);
                Ok(())
            });
            recorded.unwrap().described().to_vec()
        };
        assert_eq!(once(&mut collect), ["a", "b"]);
        assert!(once(&mut collect).is_empty());
        collect.expire_all();
        assert_eq!(once(&mut collect), ["a", "b"]);
        assert!(once(&mut collect).is_empty());
    }

    #[test]
    fn failed_run_says_nothing_and_its_series_are_described_anew() {
        let mut collect = told();
        let series = Rc::new(Series::counter("a").element(&Element::new("disk")));
        for fails in [true, false] {
            let series = series.clone();
            let recorded = run(&mut collect, move |run| {
                run.record(&series, 1);
                run.gauge("b", 1);
                if fails { Err(Error::failed("no")) } else { Ok(()) }
            });
            // The pretend agent checks that handles are dense, so the numbers came again.
            assert_eq!(recorded.is_err(), fails);
            if let Ok(recorded) = recorded {
                assert_eq!(recorded.described(), ["a", "b"]);
                assert_eq!(recorded.sample("a").unwrap().element().id(), "disk");
            }
        }
    }

    #[test]
    fn same_name_as_gauge_and_as_counter_is_two_series() {
        let recorded = run(&mut told(), |run| {
            run.gauge("a", 1);
            run.counter("a", 2);
            run.total("a", 3);
            run.gauge("a", 4);
            Ok(())
        });
        let recorded = recorded.unwrap();
        let kinds: Vec<_> = recorded.samples().map(|sample| (sample.kind(), sample.series_index())).collect();
        assert_eq!(kinds, [(Kind::Gauge, 0), (Kind::Rate, 1), (Kind::Counter, 2), (Kind::Gauge, 0)]);
    }

    #[test]
    fn one_time_of_its_own_leaves_the_others_the_due_time() {
        let recorded = run(&mut told(), |run| {
            run.gauge("a", 1);
            run.record_at(&Series::gauge("b"), 2, 77);
            run.gauge("c", 3);
            Ok(())
        });
        let recorded = recorded.unwrap();
        let times: Vec<_> = recorded.samples().map(|sample| sample.timestamp()).collect();
        assert_eq!(times, [1000, 77, 1000]);
    }

    #[test]
    fn everything_that_was_said_of_a_series_arrives() {
        let recorded = run(&mut told(), |run| {
            let disk = Element::new("sda").name("Disk").kind("DISK").tag("rack", "7").attribute("heads", 4);
            let bytes =
                Series::counter("bytes").total().unit("byte").scale(512.0).tag("dir", "in").element(&disk);
            run.record(&bytes, 3_u64);
            let wait = Series::gauge("wait").sparse_data("ReplaceWithZero");
            run.summary(&wait, Summary::of([1.0, 2.0]));
            Ok(())
        });
        let recorded = recorded.unwrap();
        let bytes = recorded.sample("bytes").unwrap();
        assert_eq!(
            (recorded.value("bytes"), bytes.kind(), bytes.unit()),
            (Some(1536.0), Kind::Counter, "byte")
        );
        assert_eq!(bytes.tags().collect::<Vec<_>>(), [("dir", "in")]);
        let disk = bytes.element();
        assert_eq!((disk.id(), disk.name(), disk.kind()), ("sda", "Disk", "DISK"));
        assert_eq!(disk.tags().collect::<Vec<_>>(), [("rack", "7")]);
        let wait = recorded.sample("wait").unwrap();
        assert_eq!((wait.sparse_data(), wait.element().id()), ("ReplaceWithZero", "test"));
        assert_eq!(wait.value(), crate::Value::Summary(Summary::of([1.0, 2.0])));
    }

    #[test]
    fn forgotten_element_takes_its_series_along() {
        let mut collect = told();
        let disk = Element::new("sda");
        let reads = Rc::new(Series::gauge("reads").element(&disk));
        let record = |reads: &Rc<Series>| {
            let reads = reads.clone();
            move |run: &mut Run| {
                run.record(&reads, 1);
                Ok(())
            }
        };
        run(&mut collect, record(&reads)).unwrap();
        run(&mut collect, move |run| {
            run.forget_element(&disk);
            run.forget_element(&disk);
            Ok(())
        })
        .unwrap();
        let recorded = run(&mut collect, record(&reads)).unwrap();
        assert_eq!(recorded.described(), ["reads"]);
    }

    #[test]
    fn events_checks_and_facts_of_the_machine_arrive() {
        let recorded = run(&mut told(), |run| {
            let job = Element::new("job");
            run.event(Event::new("INFO", "deployed").level(Level::Warning).tag("env", "prod").at(5));
            run.check(Check::new("alive", Status::Ok, Duration::from_millis(1500)).element(&job));
            run.machine(Additions::new().tag("os", "linux"));
            run.machine(Additions::new().attribute("cpus", 2).relation("rack-7"));
            Ok(())
        });
        let recorded = recorded.unwrap();
        let event = recorded.events().next().unwrap();
        assert_eq!(
            (event.title(), event.level(), event.timestamp(), event.item()),
            ("deployed", Level::Warning, 5, 0)
        );
        let check = recorded.checks().next().unwrap();
        assert_eq!((check.element().id(), check.ttl(), check.timestamp(), check.item()), ("job", 2, 1000, 1));
        let machine = event.element();
        assert_eq!((machine.tags().len(), machine.attributes().len(), machine.relations().len()), (1, 1, 1));
    }
}
