//! The table as a whole: one run after the other.

use super::*;
use crate::collected::{CollectedSummary, ElementDescription, Publish, RawKind};
use crate::routes::Filter;
use crate::sample::{Attribute, AttributeValue, Facts, Kind, Level, Summary, Tag};

const MINUTE: Millis = 60_000;
const SECOND: Duration = Duration::from_secs(1);

fn table_with(config: SeriesConfig) -> SeriesTable {
    let own = Arc::new(Element::new("agent", Facts::default()));
    SeriesTable::new(own, config, Arc::new(Routes::everything()))
}

pub(super) fn table() -> SeriesTable {
    table_with(SeriesConfig::default())
}

fn limited(limits: SeriesLimits) -> SeriesTable {
    table_with(SeriesConfig { limits, ..SeriesConfig::default() })
}

fn gauge(handle: u32, name: &str) -> SeriesDescription {
    SeriesDescription {
        handle,
        element: None,
        name: name.to_owned(),
        unit: String::new(),
        kind: RawKind::Gauge,
        publish: Publish::Total,
        scale: 1.0,
        tags: Vec::new(),
        sparse_data: String::new(),
    }
}

pub(super) fn counter(handle: u32, name: &str) -> SeriesDescription {
    SeriesDescription { kind: RawKind::Counter, publish: Publish::Rate, ..gauge(handle, name) }
}

fn container(handle: u32, id: &str) -> ElementDescription {
    ElementDescription { handle, id: id.to_owned(), facts: Facts::default() }
}

fn named(name: &str, value: f64) -> NamedSample {
    NamedSample {
        name: name.to_owned(),
        value: Value::Number(value),
        kind: RawKind::Gauge,
        publish: Publish::Total,
        unit: String::new(),
        element: None,
        tags: Vec::new(),
        timestamp: None,
    }
}

fn tag(name: &str, value: &str) -> Tag {
    Tag { name: name.to_owned(), value: value.to_owned() }
}

fn event(element: Option<u32>) -> CollectedEvent {
    CollectedEvent {
        element,
        kind: "INFO".to_owned(),
        title: "it happened".to_owned(),
        message: String::new(),
        level: Level::Info,
        source: None,
        tags: Vec::new(),
        timestamp: None,
    }
}

/// A run that describes series and has these values.
pub(super) fn run(series: Vec<SeriesDescription>, values: &[(u32, f64)]) -> Collected {
    let (handles, values) = values.iter().copied().unzip();
    Collected { series, handles, values, ..Collected::default() }
}

/// A run of named samples.
fn names(names: impl IntoIterator<Item = String>) -> Collected {
    Collected { samples: names.into_iter().map(|name| named(&name, 1.0)).collect(), ..Collected::default() }
}

/// What left the table, as `name value`, `element/name value` for others than the agent's.
pub(super) fn seen(applied: &Applied) -> Vec<String> {
    let show = |sample: &Sample| match &*sample.series.element.id {
        "agent" => format!("{} {}", sample.series.name, sample.value),
        id => format!("{id}/{} {}", sample.series.name, sample.value),
    };
    applied.batch.samples.iter().map(show).collect()
}

fn dropped(applied: &Applied) -> Vec<(DropReason, u64)> {
    applied.dropped.iter().collect()
}

#[test]
fn values_get_the_series_of_their_handles_and_the_due_time() {
    let mut table = table();
    let applied = table.apply(7, run(vec![gauge(0, "a"), gauge(1, "b")], &[(1, 2.0), (0, 1.0)])).unwrap();
    assert_eq!(seen(&applied), ["b 2", "a 1"]);
    assert!(applied.batch.samples.iter().all(|sample| sample.timestamp == 7));
    let again = table.apply(8, run(vec![], &[(0, 3.0)])).unwrap();
    assert!(Arc::ptr_eq(&again.batch.samples[0].series, &applied.batch.samples[1].series));
}

#[test]
fn own_timestamps_win_over_the_due_time() {
    let mut table = table();
    let mut collected = run(vec![counter(0, "c")], &[(0, 0.0), (0, 10.0), (0, 40.0)]);
    collected.timestamps = vec![1000, 2000, 4000];
    let applied = table.apply(9000, collected).unwrap();
    assert_eq!(seen(&applied), ["c 10", "c 15"]);
    assert_eq!(applied.batch.samples[1].timestamp, 4000);
}

#[test]
fn reload_breaks_no_rate() {
    let mut table = table();
    table.apply(0, run(vec![counter(0, "x"), counter(1, "c")], &[(0, 1.0), (1, 100.0)])).unwrap();
    table.new_instance();
    let applied = table.apply(10_000, run(vec![counter(0, "c")], &[(0, 150.0), (1, 1.0)])).unwrap();
    assert_eq!(seen(&applied), ["c 5"]);
    assert_eq!(dropped(&applied), [(DropReason::UnknownHandle, 1)]);
}

#[test]
fn rates_are_of_one_element_each() {
    let mut table = table();
    let described = |handle, element| SeriesDescription { element, ..counter(handle, "rx") };
    let mut first = run(vec![described(0, Some(0)), described(1, Some(1))], &[(0, 0.0), (1, 100.0)]);
    first.elements = vec![container(0, "web"), container(1, "db")];
    table.apply(0, first).unwrap();
    let applied = table.apply(1000, run(vec![], &[(0, 1.0), (1, 102.0)])).unwrap();
    assert_eq!(seen(&applied), ["web/rx 1", "db/rx 2"]);
}

#[test]
fn operator_may_turn_rates_into_totals_and_back_without_a_gap() {
    let mut table = table();
    table.apply(0, run(vec![counter(0, "c")], &[(0, 10.0)])).unwrap();
    let totals = SeriesConfig { counters: Some(Publish::Total), ..SeriesConfig::default() };
    table.reconfigure(totals, Arc::new(Routes::everything()));
    let applied = table.apply(1000, run(vec![], &[(0, 12.0)])).unwrap();
    assert_eq!(
        (seen(&applied), applied.batch.samples[0].series.kind),
        (vec!["c 12".to_owned()], Kind::Counter)
    );
    table.reconfigure(SeriesConfig::default(), Arc::new(Routes::everything()));
    let applied = table.apply(2000, run(vec![], &[(0, 15.0)])).unwrap();
    assert_eq!((seen(&applied), applied.batch.samples[0].series.kind), (vec!["c 3".to_owned()], Kind::Rate));
}

#[test]
fn flood_leaves_the_table_as_it_was() {
    let limits = SeriesLimits { samples: 3, series: 2, elements: 1, ..SeriesLimits::default() };
    let mut table = limited(limits);
    table.apply(0, run(vec![counter(0, "c")], &[(0, 1.0)])).unwrap();
    let samples = run(vec![gauge(1, "g")], &[(0, 5.0), (0, 6.0), (0, 7.0), (0, 8.0)]);
    assert_eq!(table.apply(1000, samples).unwrap_err(), Flood::Samples { found: 4, limit: 3 });
    let series = names(["a", "b", "c"].map(str::to_owned));
    assert_eq!(table.apply(1000, series).unwrap_err(), Flood::Series { found: 3, limit: 2 });
    let elements = vec![container(0, "web"), container(1, "db")];
    let elements = Collected { elements, ..Collected::default() };
    assert_eq!(table.apply(1000, elements).unwrap_err(), Flood::Elements { found: 2, limit: 1 });
    assert_eq!(table.len(), 1);
    let applied = table.apply(2000, run(vec![gauge(1, "g")], &[(0, 5.0), (1, 1.0)])).unwrap();
    assert_eq!(seen(&applied), ["c 2", "g 1"]);
}

#[test]
fn one_name_many_times_is_no_flood_of_series() {
    let mut table = limited(SeriesLimits { series: 1, ..SeriesLimits::default() });
    let applied = table.apply(0, names(["a", "a", "a"].map(str::to_owned))).unwrap();
    assert_eq!((seen(&applied).len(), dropped(&applied)), (3, vec![]));
}

#[test]
fn wrong_handle_drops_the_description_and_its_values_only() {
    let mut table = table();
    let described = vec![gauge(0, "a"), gauge(2, "b"), gauge(0, "c"), gauge(1, "d")];
    let applied = table.apply(0, run(described, &[(0, 1.0), (2, 1.0), (1, 1.0)])).unwrap();
    assert_eq!(seen(&applied), ["a 1", "d 1"]);
    assert_eq!(dropped(&applied), [(DropReason::UnknownHandle, 1), (DropReason::WrongHandle, 2)]);
}

#[test]
fn what_cannot_be_used_is_dropped_with_its_reason() {
    let mut table = table();
    let scale = SeriesDescription { scale: f64::INFINITY, ..gauge(2, "scaled") };
    let homeless = SeriesDescription { element: Some(9), ..gauge(3, "homeless") };
    let described = vec![gauge(0, ""), gauge(1, &"x".repeat(1025)), scale, homeless, gauge(4, "ok")];
    let mut collected = run(described, &[(4, f64::NAN), (4, 1.0), (3, 1.0)]);
    collected.handles.push(4);
    collected.events =
        vec![event(None), event(Some(9)), CollectedEvent { title: "x".repeat(5000), ..event(None) }];
    let applied = table.apply(7, collected).unwrap();
    assert_eq!(seen(&applied), ["ok 1"]);
    assert_eq!(applied.batch.events.len(), 1);
    assert_eq!((&*applied.batch.events[0].element.id, applied.batch.events[0].timestamp), ("agent", 7));
    assert_eq!(
        dropped(&applied),
        [
            (DropReason::UnknownHandle, 3),
            (DropReason::NotFinite, 2),
            (DropReason::EmptyName, 1),
            (DropReason::TooLong, 2),
            (DropReason::UnevenColumns, 1),
        ]
    );
}

#[test]
fn filtered_series_gives_no_samples_but_is_no_drop() {
    let filter = Filter::new(&[], &["*.idle".to_owned()]);
    let mut table = table_with(SeriesConfig { filter, ..SeriesConfig::default() });
    let applied =
        table.apply(0, run(vec![gauge(0, "cpu.idle"), gauge(1, "cpu.user")], &[(0, 1.0), (1, 2.0)]));
    assert_eq!(applied.as_ref().map(seen).unwrap(), ["cpu.user 2"]);
    assert_eq!(dropped(&applied.unwrap()), []);
    assert_eq!(table.latest().map(|sample| sample.series.name.to_string()).collect::<Vec<_>>(), ["cpu.user"]);
}

#[test]
fn series_that_no_handler_takes_is_still_among_the_latest() {
    let own = Arc::new(Element::new("agent", Facts::default()));
    let mut table = SeriesTable::new(own, SeriesConfig::default(), Arc::default());
    let applied = table.apply(5, run(vec![gauge(0, "a")], &[(0, 1.0)])).unwrap();
    assert!(applied.batch.is_empty());
    let latest: Vec<_> = table.latest().map(|sample| (sample.timestamp, sample.value)).collect();
    assert_eq!(latest, [(5, 1.0)]);
    table.reconfigure(SeriesConfig::default(), Arc::new(Routes::everything()));
    assert_eq!(seen(&table.apply(6, run(vec![], &[(0, 2.0)])).unwrap()), ["a 2"]);
}

#[test]
fn operators_tags_come_with_every_series_and_win() {
    let tags = vec![tag("team", "infra")];
    let mut table = table_with(SeriesConfig { tags, ..SeriesConfig::default() });
    let own = vec![tag("team", "mine"), tag("disk", "sda")];
    let sample = NamedSample { tags: own, ..named("m", 1.0) };
    let collected = || Collected { samples: vec![sample.clone()], ..Collected::default() };
    let first = table.apply(0, collected()).unwrap().batch.samples.remove(0);
    assert_eq!(*first.series.tags, [tag("team", "infra"), tag("disk", "sda")]);
    let second = table.apply(1000, collected()).unwrap().batch.samples.remove(0);
    assert!(Arc::ptr_eq(&first.series, &second.series));
}

#[test]
fn series_described_anew_shows_it_and_its_old_handle_is_void() {
    let mut table = table();
    table.apply(0, run(vec![counter(0, "c")], &[(0, 1.0)])).unwrap();
    let described = SeriesDescription { unit: "byte".to_owned(), ..counter(1, "c") };
    let applied = table.apply(1000, run(vec![described], &[(1, 3.0), (0, 9.0)])).unwrap();
    assert_eq!(seen(&applied), ["c 2"]);
    assert_eq!(&*applied.batch.samples[0].series.unit, "byte");
    assert_eq!((table.len(), dropped(&applied)), (1, vec![(DropReason::UnknownHandle, 1)]));
}

#[test]
fn facts_described_again_are_seen_by_samples_already_made() {
    let mut table = table();
    let mut collected = run(vec![SeriesDescription { element: Some(0), ..gauge(0, "m") }], &[(0, 1.0)]);
    collected.elements = vec![container(0, "web")];
    let applied = table.apply(0, collected).unwrap();
    let element = applied.batch.samples[0].series.element.clone();
    assert_eq!((element.facts().name.as_str(), element.facts().kind.as_str()), ("web", "SERVER"));
    let facts = Facts { name: "Web 1".to_owned(), ..Facts::default() };
    let elements = vec![ElementDescription { facts, ..container(0, "web") }, container(0, "another")];
    let applied = table.apply(1000, Collected { elements, ..Collected::default() }).unwrap();
    assert_eq!(element.facts().name, "Web 1");
    assert_eq!(dropped(&applied), [(DropReason::WrongHandle, 1)]);
}

#[test]
fn plugin_that_describes_the_agents_element_changes_nothing_of_it() {
    let mut table = table();
    let facts = Facts { name: "evil".to_owned(), ..Facts::default() };
    let mut collected = run(vec![SeriesDescription { element: Some(0), ..gauge(0, "m") }], &[(0, 1.0)]);
    collected.elements = vec![ElementDescription { facts, ..container(0, "agent") }];
    let applied = table.apply(0, collected).unwrap();
    assert_eq!(seen(&applied), ["m 1"]);
    assert_ne!(applied.batch.samples[0].series.element.facts().name, "evil");
}

#[test]
fn unused_series_expire_with_their_elements_and_are_named_once() {
    let mut table = table();
    let described = vec![gauge(0, "stays"), SeriesDescription { element: Some(0), ..gauge(1, "goes") }];
    let mut collected = run(described, &[(0, 1.0), (1, 1.0)]);
    collected.elements = vec![container(0, "web")];
    table.apply(0, collected).unwrap();
    table.apply(5 * MINUTE, run(vec![], &[(0, 1.0)])).unwrap();
    assert_eq!(table.expire(10 * MINUTE - 1, SECOND), Expired::default());
    let expired = table.expire(10 * MINUTE, SECOND);
    assert_eq!((expired.series, expired.elements), (vec![1], vec![0]));
    assert_eq!(table.expire(10 * MINUTE, SECOND), Expired::default());
    let applied = table.apply(10 * MINUTE, run(vec![], &[(0, 2.0), (1, 2.0)])).unwrap();
    assert_eq!(
        (seen(&applied), dropped(&applied)),
        (vec!["stays 2".to_owned()], vec![(DropReason::UnknownHandle, 1)])
    );
}

#[test]
fn long_intervals_keep_series_for_ten_of_them() {
    let mut table = table();
    let hour = Duration::from_secs(3600);
    table.apply(0, run(vec![gauge(0, "a")], &[(0, 1.0)])).unwrap();
    assert_eq!(table.expire(600 * MINUTE - 1, hour).series, [0_u32; 0]);
    assert_eq!(table.expire(600 * MINUTE, hour).series, [0]);
}

#[test]
fn clock_that_is_set_costs_no_series_and_no_rate() {
    let mut table = table();
    let hour = 60 * MINUTE;
    table.apply(hour, run(vec![counter(0, "c")], &[(0, 10.0)])).unwrap();
    table.clock_jumped(7_200_000);
    assert_eq!(table.expire(3 * hour + 1000, SECOND), Expired::default());
    table.clock_jumped(-3_600_000);
    assert_eq!(table.expire(2 * hour + 2000, SECOND), Expired::default());
    let applied = table.apply(2 * hour + 2000, run(vec![], &[(0, 14.0)])).unwrap();
    assert_eq!(seen(&applied), ["c 2"]);
}

#[test]
fn series_used_before_the_clock_went_back_still_expire() {
    let mut table = table();
    table.apply(1000 * MINUTE, run(vec![gauge(0, "a")], &[(0, 1.0)])).unwrap();
    assert_eq!(table.expire(MINUTE, SECOND).series, [0_u32; 0]);
    assert_eq!(table.expire(11 * MINUTE, SECOND).series, [0]);
}

#[test]
fn instance_is_not_told_of_what_it_never_named() {
    let mut table = table();
    table.apply(0, run(vec![gauge(0, "a")], &[(0, 1.0)])).unwrap();
    table.new_instance();
    assert_eq!(table.expire(10 * MINUTE, SECOND), Expired::default());
    assert!(table.is_empty());
}

#[test]
fn at_the_limit_the_longest_unused_series_goes_and_is_named_in_the_next_tick() {
    let mut table = limited(SeriesLimits { series: 2, ..SeriesLimits::default() });
    table.apply(0, run(vec![gauge(0, "a"), gauge(1, "b")], &[(0, 1.0), (1, 1.0)])).unwrap();
    table.apply(1000, run(vec![], &[(0, 1.0)])).unwrap();
    let applied = table.apply(2000, run(vec![gauge(2, "c")], &[(0, 1.0), (2, 1.0)])).unwrap();
    assert_eq!((seen(&applied).len(), dropped(&applied)), (2, vec![]));
    assert_eq!(table.expire(3000, SECOND).series, [1]);
}

#[test]
fn at_the_limit_a_new_series_is_refused_if_all_are_in_use() {
    let mut table = limited(SeriesLimits { series: 2, ..SeriesLimits::default() });
    let mut first = run(vec![gauge(0, "a"), gauge(1, "b")], &[(0, 1.0)]);
    first.summaries = vec![CollectedSummary { handle: 1, summary: Summary::default(), timestamp: None }];
    table.apply(0, first.clone()).unwrap();
    let more = Collected { series: vec![gauge(2, "c")], ..first };
    let applied = table.apply(1000, more).unwrap();
    assert_eq!(dropped(&applied), [(DropReason::SeriesLimit, 1)]);
    assert_eq!(applied.batch.summaries.len(), 1);
    assert_eq!(table.expire(2000, SECOND), Expired::default());
}

#[test]
fn at_the_limit_an_idle_element_makes_room_and_one_in_use_does_not() {
    let mut table = limited(SeriesLimits { elements: 2, ..SeriesLimits::default() });
    let mut first = run(vec![SeriesDescription { element: Some(0), ..gauge(0, "m") }], &[(0, 1.0)]);
    first.elements = vec![container(0, "busy"), container(1, "idle")];
    table.apply(0, first).unwrap();
    let elements = |handle, id| Collected { elements: vec![container(handle, id)], ..Collected::default() };
    assert_eq!(dropped(&table.apply(1000, elements(2, "new")).unwrap()), []);
    assert_eq!(table.expire(2000, SECOND).elements, [1]);
    let with_event = Collected { events: vec![event(Some(2))], ..elements(3, "newer") };
    let applied = table.apply(2000, with_event).unwrap();
    assert_eq!((dropped(&applied), applied.batch.events.len()), (vec![(DropReason::ElementLimit, 1)], 1));
}

#[test]
fn table_stays_within_its_bytes() {
    let mut table = limited(SeriesLimits { bytes: 20_000, ..SeriesLimits::default() });
    let applied = table.apply(0, names((0..100).map(|n| format!("{n}{}", "x".repeat(1000))))).unwrap();
    assert!(applied.dropped.get(DropReason::TableBytes) > 80);
    assert!(!applied.batch.is_empty() && table.bytes() <= 20_000);
    let relations = vec!["r".repeat(4000); 5];
    let facts = Facts { relations, ..Facts::default() };
    let elements = vec![ElementDescription { facts, ..container(0, "web") }];
    let applied = table.apply(1000, Collected { elements, ..Collected::default() }).unwrap();
    assert_eq!(dropped(&applied), [(DropReason::TableBytes, 1)]);
}

#[test]
fn forgotten_series_and_elements_are_void_and_not_named() {
    let mut table = table();
    let of = |handle, element| SeriesDescription { element, ..counter(handle, "c") };
    let mut first = run(vec![of(0, None), of(1, Some(0))], &[(0, 1.0), (1, 1.0)]);
    first.elements = vec![container(0, "web")];
    first.forget = vec![0];
    first.forget_elements = vec![0];
    assert_eq!(table.apply(0, first).unwrap().dropped.total(), 0);
    assert!(table.is_empty());
    let mut second = run(vec![of(2, None)], &[(0, 2.0), (1, 2.0), (2, 2.0)]);
    second.events = vec![event(Some(0))];
    let applied = table.apply(1000, second).unwrap();
    assert_eq!((seen(&applied), dropped(&applied)), (vec![], vec![(DropReason::UnknownHandle, 3)]));
    assert_eq!(table.expire(2000, SECOND), Expired::default());
}

#[test]
fn additions_to_the_agents_element_are_passed_on_if_they_can_be_used() {
    let mut table = table();
    let machine = |tags| Collected {
        machine: Some(Additions { tags, ..Additions::default() }),
        ..Collected::default()
    };
    let good = table.apply(0, machine(vec![tag("os", "linux")])).unwrap();
    assert_eq!(good.machine.unwrap().tags, [tag("os", "linux")]);
    let bad = table.apply(0, machine(vec![tag("", "")])).unwrap();
    assert_eq!((bad.machine, bad.dropped.total()), (None, 1));
}

#[test]
fn names_that_pass_through_leave_no_memory_behind() {
    let mut table = table();
    table.apply(0, run(vec![gauge(0, "stays")], &[(0, 1.0)])).unwrap();
    let before = table.bytes();
    let mut due = 0;
    for round in 0..100 {
        due += MINUTE;
        table.expire(due, SECOND);
        let passing = names((0..1000).map(|n| format!("container.{round}.{n}")));
        let columns = run(vec![], &[(0, 1.0)]);
        let collected = Collected { samples: passing.samples, ..columns };
        assert_eq!(table.apply(due, collected).unwrap().dropped.total(), 0);
        assert!(table.len() <= 20_000);
    }
    for _ in 0..11 {
        due += MINUTE;
        table.expire(due, SECOND);
        table.apply(due, run(vec![], &[(0, 1.0)])).unwrap();
    }
    assert_eq!(table.len(), 1);
    assert!(table.bytes() <= before + 1024, "{} bytes, {before} before", table.bytes());
}

#[test]
fn described_series_and_elements_that_pass_through_leave_no_memory_behind() {
    let mut table = table();
    let mut due = 0;
    for round in 0..5000 {
        due += MINUTE;
        table.expire(due, SECOND);
        let facts = Facts {
            attributes: vec![Attribute {
                name: "image".to_owned(),
                value: AttributeValue::Text("nginx".to_owned()),
            }],
            ..Facts::default()
        };
        let element = ElementDescription { facts, ..container(round, &format!("container-{round}")) };
        let series = SeriesDescription { element: Some(round), ..counter(round, "cpu") };
        let collected = Collected { elements: vec![element], ..run(vec![series], &[(round, 1.0)]) };
        assert_eq!(table.apply(due, collected).unwrap().dropped.total(), 0);
    }
    assert_eq!((table.len(), table.elements.len()), (10, 10));
    table.expire(due + 20 * MINUTE, SECOND);
    assert_eq!((table.len(), table.elements.len(), table.series_bytes), (0, 0, 0));
    assert!(table.bytes() < 2048, "{} bytes", table.bytes());
}
