//! What is posted. The keys stand in the order of the client library: sorted.
//!
//! Uses: `json`.

use std::collections::BTreeSet;
use std::ops::Range;

use kimberlite_plugin_sdk::batch::{AttributeView, CheckView, ElementView, EventView, SeriesView};
use kimberlite_plugin_sdk::{Batch, Kind, Level, Status, Summary, Value};

use crate::json::Json;

/// The samples of one element.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) body: Vec<u8>,
    /// Which items of the batch they are.
    pub(crate) items: Vec<Range<u32>>,
}

/// Element, metrics and samples; none if the batch has no sample of this element.
pub(crate) fn metrics(batch: &Batch, element: ElementView<'_>) -> Option<Metrics> {
    let samples = || batch.samples().filter(move |sample| sample.element().index() == element.index());
    let mut ids = vec![None; batch.series().len()];
    for sample in samples() {
        ids[sample.series_index()].get_or_insert_with(|| metric_id(sample.name()));
    }
    if ids.iter().all(Option::is_none) {
        return None;
    }
    let id_of = |series: SeriesView<'_>| ids[series.index()].as_deref();

    let mut body = Vec::with_capacity(batch.sample_count() * 128);
    let mut array = Json::array(&mut body);
    let mut object = array.object();
    let mut attributes = object.array_at("attributes");
    for (name, value) in element.attributes() {
        let mut attribute = attributes.object();
        attribute.text("name", name);
        match value {
            AttributeView::Text(text) => attribute.text("value", text),
            AttributeView::Number(number) => attribute.number("value", number),
        }
        attribute.end();
    }
    attributes.end();
    object.text("id", element.id());
    if let Some(location) = element.location() {
        object.text("location", location);
    }
    // Names that differ only in what is not allowed share one entry; the first one describes it.
    let mut entered = BTreeSet::new();
    let mut entries = object.array_at("metrics");
    for series in batch.series() {
        if let Some(id) = id_of(series)
            && entered.insert(id)
        {
            metric(&mut entries, series, id);
        }
    }
    entries.end();
    object.text("name", element.name());
    let mut relations = object.array_at("relations");
    for id in element.relations() {
        let mut relation = relations.object();
        relation.text("fqn", id);
        relation.end();
    }
    relations.end();
    let mut items = Items::default();
    let mut entries = object.array_at("samples");
    for sample in samples() {
        items.add(sample.item());
        let mut entry = entries.object();
        let summary = match sample.value() {
            Value::Number(value) => Summary { val: Some(value), ..Summary::default() },
            Value::Summary(summary) => summary,
        };
        let Summary { val, min, max, avg, sum, cnt } = summary;
        let number = |entry: &mut Json<'_>, key, value: Option<f64>| {
            if let Some(value) = value {
                entry.number(key, value);
            }
        };
        number(&mut entry, "avg", avg);
        if let Some(cnt) = cnt {
            entry.whole("cnt", cnt);
        }
        number(&mut entry, "max", max);
        entry.text("metricId", id_of(sample.series()).unwrap_or_default());
        number(&mut entry, "min", min);
        number(&mut entry, "sum", sum);
        entry.whole("timestamp", sample.timestamp());
        number(&mut entry, "val", val);
        entry.end();
    }
    entries.end();
    tags(&mut object, element.tags());
    object.text("type", element.kind());
    object.end();
    array.end();
    Some(Metrics { body, items: items.0 })
}

fn metric(entries: &mut Json<'_>, series: SeriesView<'_>, id: &str) {
    let mut entry = entries.object();
    entry.text("id", id);
    let strategy = series.sparse_data();
    entry.text("sparseDataStrategy", if strategy.is_empty() { "None" } else { strategy });
    if series.tags().len() > 0 {
        tags(&mut entry, series.tags());
    }
    let kind = match series.kind() {
        Kind::Gauge | Kind::Rate => "GAUGE",
        Kind::Counter => "COUNTER",
    };
    entry.text("type", kind);
    entry.text("unit", series.unit());
    entry.end();
}

fn tags<'a>(object: &mut Json<'_>, tags: impl Iterator<Item = (&'a str, &'a str)>) {
    let mut array = object.array_at("tags");
    for (name, value) in tags {
        let mut tag = array.object();
        tag.text("name", name);
        tag.text("value", value);
        tag.end();
    }
    array.end();
}

/// `name` with `_` for each character that a metric's id may not have.
fn metric_id(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.chars().map(|c| if allowed(c) { c } else { '_' }).collect()
}

/// One event. Only those of type INFO have a place for element, level and message.
pub(crate) fn event(event: EventView<'_>) -> Vec<u8> {
    let kind = event.kind().to_uppercase();
    // Without a message there would be no word of the element either.
    let message = if event.message().is_empty() { event.title() } else { event.message() };
    let data = Data { element: event.element().id(), level: event.level(), message };
    let mut body = Vec::new();
    let mut array = Json::array(&mut body);
    let mut object = array.object();
    if kind == "INFO" {
        data.write(&mut object);
    }
    if let Some(source) = event.source() {
        object.text("source", source);
    }
    if event.tags().len() > 0 {
        tags(&mut object, event.tags());
    }
    object.whole("timestamp", event.timestamp());
    object.text("title", event.title());
    object.text("type", &kind);
    object.end();
    array.end();
    body
}

/// A check that did not go well, as an event of its element.
pub(crate) fn failed_check(check: CheckView<'_>) -> Vec<u8> {
    let (level, word) = match check.status() {
        Status::Ok => (Level::Info, "ok"),
        Status::Warning => (Level::Warning, "warning"),
        Status::Critical => (Level::Critical, "critical"),
        Status::Unknown => (Level::Warning, "unknown"),
    };
    let title = format!("{} is {word}", check.name());
    let message = if check.message().is_empty() { &title } else { check.message() };
    let mut body = Vec::new();
    let mut array = Json::array(&mut body);
    let mut object = array.object();
    Data { element: check.element().id(), level, message }.write(&mut object);
    object.whole("timestamp", check.timestamp());
    object.text("title", &title);
    object.text("type", "INFO");
    object.end();
    array.end();
    body
}

struct Data<'a> {
    element: &'a str,
    level: Level,
    message: &'a str,
}

impl Data<'_> {
    fn write(&self, object: &mut Json<'_>) {
        let level = match self.level {
            Level::Info => "INFO",
            Level::Warning => "WARNING",
            Level::Critical => "CRITICAL",
        };
        let mut data = object.object_at("data");
        data.text("elementId", self.element);
        data.text("level", level);
        data.text("message", self.message);
        data.end();
    }
}

/// Items as few ranges; they are added in rising order.
#[derive(Debug, Default)]
struct Items(Vec<Range<u32>>);

impl Items {
    fn add(&mut self, item: u32) {
        match self.0.last_mut() {
            Some(last) if last.end == item => last.end = item + 1,
            _ => self.0.push(item..item + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    //! The worked examples of the wire format, key by key: `fixtures/` holds the bodies.

    use super::*;
    use kimberlite_plugin_sdk::{Check, Element, Event, Series, testing};
    use serde_json::{Value as Json, json};
    use std::time::Duration;

    const TIME: u64 = 1_600_000_000_000;

    fn db() -> Element {
        Element::new("db-3")
    }

    fn posted(batch: &Batch) -> Vec<Json> {
        let bodies = batch.elements().filter_map(|element| metrics(batch, element));
        bodies.map(|metrics| serde_json::from_slice(&metrics.body).unwrap()).collect()
    }

    macro_rules! fixture {
        ($name:literal) => {
            serde_json::from_str::<Json>(include_str!(concat!("../fixtures/", $name, ".json"))).unwrap()
        };
    }

    #[test]
    fn machine_with_facts_and_a_metric_entry_for_each_name() {
        let element = db()
            .attribute("platform", "Linux")
            .attribute("cpus", 8.0)
            .attribute("ram bytes", 17_179_869_184.0)
            .relation("210987654321:EC2:eu-central-1:i-0def")
            .tag("env", "test");
        let user = Series::gauge("cpu.total.user").unit("percent").element(&element);
        let batch = testing::batch()
            .at(TIME)
            .of(&element)
            .sample(&user, 7.25)
            .counter("network.eth0.rx byte/s", 400)
            .at(TIME + 60_000)
            .sample(&user, 8)
            .build();
        assert_eq!(posted(&batch), [fixture!("machine")]);
    }

    #[test]
    fn container_with_everything_optional() {
        let element = Element::new("cache-2").kind("CONTAINER").location("rack 4");
        let hits = Series::gauge("cache.hits")
            .unit("hits/s")
            .sparse_data("ReplaceWithZero")
            .tag("utilization", "false")
            .tag("statsdType", "ms")
            .element(&element);
        let summary = Summary {
            val: Some(60.0),
            min: Some(0.0),
            max: Some(40.0),
            avg: Some(15.0),
            sum: Some(60.0),
            cnt: Some(4),
        };
        let batch = testing::batch().at(TIME + 123).summary(&hits, summary).build();
        assert_eq!(posted(&batch), [fixture!("container")]);
    }

    #[test]
    fn summary_of_which_nothing_is_known_has_no_values() {
        let a = Series::gauge("a").element(&Element::new("h"));
        let batch = testing::batch().at(TIME + 390).summary(&a, Summary::default()).build();
        assert_eq!(posted(&batch), [fixture!("nothing-known")]);
    }

    #[test]
    fn agent_as_the_packaged_one_posts() {
        let element = db()
            .attribute("platform", "Linux")
            .attribute("agent", "kimberlite_0.1.0")
            .attribute("cpus", 2.0)
            .attribute("ram", "15.60 GB")
            .location("rack 4")
            .relation("one")
            .relation("two")
            .tag("env", "prod")
            .tag("team", "infra");
        let batch = testing::batch()
            .at(TIME)
            .of(&element)
            .rate("cpu.total.user", 12.5)
            .counter("containers.web.cpu.cpu_usage.total_usage", 123)
            .gauge("iostat.sda.util_percentage", 3.25)
            .build();
        assert_eq!(posted(&batch), [fixture!("agent")]);
    }

    #[test]
    fn element_without_samples_has_no_body() {
        let batch = testing::batch().event(Event::new("INFO", "t")).build();
        assert_eq!(batch.elements().len(), 1);
        assert_eq!(posted(&batch), [] as [Json; 0]);
    }

    #[test]
    fn each_element_has_its_own_body_and_items() {
        let batch = testing::batch()
            .of(&db())
            .gauge("a", 1)
            .of(&Element::new("other"))
            .gauge("a", 2)
            .of(&db())
            .gauge("b", 3)
            .build();
        let items: Vec<_> =
            batch.elements().flat_map(|element| metrics(&batch, element).unwrap().items).collect();
        assert_eq!(items, [0..1, 2..3, 1..2]);
        assert_eq!(posted(&batch)[1][0]["samples"], json!([{ "metricId": "a", "timestamp": 0, "val": 2 }]));
    }

    #[test]
    fn names_that_become_one_id_share_the_first_entry() {
        let element = db();
        let slash = Series::gauge("disk/used").unit("byte").element(&element);
        let blank = Series::counter("disk used").total().unit("block").element(&element);
        let batch = testing::batch().sample(&slash, 1).sample(&blank, 2).build();
        let body = &posted(&batch)[0][0];
        let entry =
            json!({ "id": "disk_used", "sparseDataStrategy": "None", "type": "GAUGE", "unit": "byte" });
        assert_eq!(body["metrics"], json!([entry]));
        assert_eq!(body["samples"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn only_metric_ids_are_sanitised() {
        let element = Element::new("a b/ü").name("n ü").tag("t ü", "v/ü").attribute("a ü", "x ü");
        let batch = testing::batch().of(&element).gauge("größe (x).y-z_0", 1).build();
        let body = &posted(&batch)[0][0];
        assert_eq!(body["metrics"][0]["id"], "gr__e__x_.y-z_0");
        assert_eq!((&body["id"], &body["name"]), (&json!("a b/ü"), &json!("n ü")));
        assert_eq!(body["tags"][0], json!({ "name": "t ü", "value": "v/ü" }));
        assert_eq!(body["attributes"][0], json!({ "name": "a ü", "value": "x ü" }));
    }

    fn event_of(event: Event) -> Json {
        let batch = testing::batch().at(TIME).of(&db()).event(event).build();
        serde_json::from_slice(&super::event(batch.events().next().unwrap())).unwrap()
    }

    #[test]
    fn event_with_everything_and_with_the_least() {
        let full = Event::new("info", "failover")
            .level(Level::Critical)
            .message("the standby took over")
            .source("pager")
            .tag("team", "data")
            .tag("run", "12");
        assert_eq!(event_of(full), fixture!("event-full"));
        assert_eq!(event_of(Event::new("INFO", "t").message("m")), fixture!("event-minimal"));
    }

    #[test]
    fn event_without_a_message_still_names_its_element() {
        let data = json!({ "elementId": "db-3", "level": "INFO", "message": "t" });
        assert_eq!(event_of(Event::new("INFO", "t"))[0]["data"], data);
    }

    #[test]
    fn event_of_another_type_has_no_data() {
        assert_eq!(event_of(Event::new("deploy", "t").message("m")), fixture!("event-other"));
    }

    #[test]
    fn failed_check_is_an_event() {
        let check = Check::new("replication", Status::Unknown, Duration::from_secs(60));
        let batch = testing::batch().at(TIME).of(&db()).check(check).build();
        let body = failed_check(batch.checks().next().unwrap());
        assert_eq!(serde_json::from_slice::<Json>(&body).unwrap(), fixture!("failed-check"));
    }
}
