//! JSON Lines: one sample, event or check per line, as `collect -o json` prints and
//! `send --from` reads them.
//!
//! ```json
//! {"run":1,"timestamp":1790000000000,"element":"web-1","metric":"cpu.total.user","value":1.5,"kind":"rate","unit":"tick","tags":{}}
//! {"timestamp":1790000000000,"element":{"id":"c1","type":"CONTAINER"},"metric":"x","summary":{"min":1,"max":3},"kind":"gauge"}
//! {"event":{"timestamp":1790000000000,"element":"web-1","type":"INFO","title":"deploy","message":"v7","level":"info"}}
//! {"check":{"timestamp":1790000000000,"element":"web-1","name":"heartbeat","status":"ok","ttl":150}}
//! ```
//!
//! Uses: `sample`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::sample::{
    Attribute, AttributeValue, Batch, Check, Element, Event, Facts, Kind, Level, Millis, Sample, Series,
    Status, Summary, SummarySample, Tag,
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<u64>,
    timestamp: Millis,
    element: ElementField,
    metric: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    summary: Option<SummaryField>,
    kind: KindField,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    sparse_data: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventLine {
    event: EventField,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventField {
    timestamp: Millis,
    element: ElementField,
    #[serde(rename = "type")]
    kind: String,
    title: String,
    #[serde(default)]
    message: String,
    #[serde(default = "info")]
    level: LevelField,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckLine {
    check: CheckField,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckField {
    timestamp: Millis,
    element: ElementField,
    name: String,
    status: StatusField,
    #[serde(default)]
    message: String,
    ttl: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "an element is its id, or an object with at least `id`")]
enum ElementField {
    Id(String),
    Whole(WholeElement),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WholeElement {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default = "server", rename = "type")]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, AttributeField>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    relations: Vec<String>,
}

fn info() -> LevelField {
    LevelField::Info
}

fn server() -> String {
    Facts::default().kind
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum AttributeField {
    Number(f64),
    Text(String),
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct SummaryField {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    val: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    avg: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cnt: Option<u64>,
}

/// Enums of `sample` by their names in JSON.
macro_rules! field_enum {
    ($field:ident for $ty:ident: $($case:ident),+) => {
        #[derive(Serialize, Deserialize, Clone, Copy)]
        #[serde(rename_all = "lowercase")]
        enum $field { $($case),+ }

        impl From<$field> for $ty {
            fn from(field: $field) -> Self {
                match field { $($field::$case => $ty::$case),+ }
            }
        }

        impl From<$ty> for $field {
            fn from(value: $ty) -> Self {
                match value { $($ty::$case => $field::$case),+ }
            }
        }
    };
}

field_enum!(KindField for Kind: Gauge, Rate, Counter);
field_enum!(StatusField for Status: Ok, Warning, Critical, Unknown);
field_enum!(LevelField for Level: Info, Warning, Critical);

/// The lines of a batch, each with its line feed. `run` numbers the collector's runs from 1.
/// The agent's own element is named by its id alone.
pub fn write(batch: &Batch, run: u64, own: &Element) -> String {
    let mut out = String::new();
    for sample in &batch.samples {
        let line = sample_line(&sample.series, sample.timestamp, run, own);
        push(&mut out, &SampleLine { value: Some(sample.value), ..line });
    }
    for sample in &batch.summaries {
        let Summary { val, min, max, avg, sum, cnt } = sample.summary;
        let line = sample_line(&sample.series, sample.timestamp, run, own);
        push(&mut out, &SampleLine { summary: Some(SummaryField { val, min, max, avg, sum, cnt }), ..line });
    }
    for event in &batch.events {
        let event = EventField {
            timestamp: event.timestamp,
            element: element_field(&event.element, own),
            kind: event.kind.clone(),
            title: event.title.clone(),
            message: event.message.clone(),
            level: event.level.into(),
            source: event.source.clone(),
            tags: tag_map(&event.tags),
        };
        push(&mut out, &EventLine { event });
    }
    for check in &batch.checks {
        let check = CheckField {
            timestamp: check.timestamp,
            element: element_field(&check.element, own),
            name: check.name.clone(),
            status: check.status.into(),
            message: check.message.clone(),
            ttl: check.ttl,
        };
        push(&mut out, &CheckLine { check });
    }
    out
}

fn sample_line(series: &Series, timestamp: Millis, run: u64, own: &Element) -> SampleLine {
    SampleLine {
        run: Some(run),
        timestamp,
        element: element_field(&series.element, own),
        metric: series.name.to_string(),
        value: None,
        summary: None,
        kind: series.kind.into(),
        unit: series.unit.to_string(),
        tags: tag_map(&series.tags),
        sparse_data: series.sparse_data.to_string(),
    }
}

fn element_field(element: &Element, own: &Element) -> ElementField {
    if element.id == own.id {
        return ElementField::Id(element.id.clone());
    }
    let facts = element.facts();
    ElementField::Whole(WholeElement {
        id: element.id.clone(),
        name: (facts.name != element.id).then(|| facts.name.clone()),
        kind: facts.kind.clone(),
        location: facts.location.clone(),
        tags: tag_map(&facts.tags),
        attributes: facts
            .attributes
            .iter()
            .map(|attribute| {
                let value = match &attribute.value {
                    AttributeValue::Text(text) => AttributeField::Text(text.clone()),
                    AttributeValue::Number(number) => AttributeField::Number(*number),
                };
                (attribute.name.clone(), value)
            })
            .collect(),
        relations: facts.relations.clone(),
    })
}

fn tag_map(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter().map(|tag| (tag.name.clone(), tag.value.clone())).collect()
}

fn push(out: &mut String, line: &impl Serialize) {
    // Maps with text keys and finite numbers: there is nothing that could not be written.
    if let Ok(text) = serde_json::to_string(line) {
        out.push_str(&text);
        out.push('\n');
    }
}

/// Reads lines into a batch. Elements and series that are named twice are one; the agent's own
/// element is known by its id and keeps its facts.
#[derive(Debug)]
pub struct Reader {
    elements: HashMap<String, Arc<Element>>,
    series: HashMap<(String, String, u8), Arc<Series>>,
}

impl Reader {
    pub fn new(own: Arc<Element>) -> Self {
        Self { elements: HashMap::from([(own.id.clone(), own)]), series: HashMap::new() }
    }

    /// Adds one line; blank ones are nothing. An error says what is wrong, not where.
    pub fn line(&mut self, line: &str, batch: &mut Batch) -> Result<(), String> {
        if line.trim().is_empty() {
            return Ok(());
        }
        let value: serde_json::Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let said = |error: serde_json::Error| error.to_string();
        if value.get("event").is_some() {
            let EventLine { event } = serde_json::from_value(value).map_err(said)?;
            batch.events.push(Event {
                element: self.element(event.element),
                kind: event.kind,
                title: event.title,
                message: event.message,
                level: event.level.into(),
                source: event.source,
                tags: tags(event.tags),
                timestamp: event.timestamp,
            });
        } else if value.get("check").is_some() {
            let CheckLine { check } = serde_json::from_value(value).map_err(said)?;
            batch.checks.push(Check {
                element: self.element(check.element),
                name: check.name,
                status: check.status.into(),
                message: check.message,
                ttl: check.ttl,
                timestamp: check.timestamp,
            });
        } else {
            let line: SampleLine = serde_json::from_value(value).map_err(said)?;
            let (timestamp, value, summary) = (line.timestamp, line.value, line.summary);
            let series = self.series(line);
            match (value, summary) {
                (Some(value), None) => batch.samples.push(Sample { series, timestamp, value }),
                (None, Some(SummaryField { val, min, max, avg, sum, cnt })) => {
                    let summary = Summary { val, min, max, avg, sum, cnt };
                    batch.summaries.push(SummarySample { series, timestamp, summary });
                }
                _ => return Err("a sample has either `value` or `summary`".to_owned()),
            }
        }
        Ok(())
    }

    fn element(&mut self, field: ElementField) -> Arc<Element> {
        let (id, facts) = match field {
            ElementField::Id(id) => (id.clone(), Facts { name: id, ..Facts::default() }),
            ElementField::Whole(element) => {
                let facts = Facts {
                    name: element.name.unwrap_or_else(|| element.id.clone()),
                    kind: element.kind,
                    location: element.location,
                    tags: tags(element.tags),
                    attributes: element
                        .attributes
                        .into_iter()
                        .map(|(name, value)| {
                            let value = match value {
                                AttributeField::Text(text) => AttributeValue::Text(text),
                                AttributeField::Number(number) => AttributeValue::Number(number),
                            };
                            Attribute { name, value }
                        })
                        .collect(),
                    relations: element.relations,
                };
                (element.id, facts)
            }
        };
        self.elements.entry(id).or_insert_with_key(|id| Arc::new(Element::new(id.clone(), facts))).clone()
    }

    fn series(&mut self, line: SampleLine) -> Arc<Series> {
        let element = self.element(line.element);
        let kind = Kind::from(line.kind);
        let key = (element.id.clone(), line.metric, kind as u8);
        self.series
            .entry(key)
            .or_insert_with_key(|(_, metric, _)| {
                Arc::new(Series {
                    element,
                    name: metric.as_str().into(),
                    unit: line.unit.into(),
                    kind,
                    sparse_data: line.sparse_data.into(),
                    tags: tags(line.tags).into(),
                    handlers: u64::MAX,
                })
            })
            .clone()
    }
}

fn tags(map: BTreeMap<String, String>) -> Vec<Tag> {
    map.into_iter().map(|(name, value)| Tag { name, value }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Arc<Element> {
        Arc::new(Element::new("web-1", Facts { name: "web-1".into(), ..Facts::default() }))
    }

    fn read(text: &str) -> Result<Batch, String> {
        let mut batch = Batch::default();
        let mut reader = Reader::new(own());
        text.lines().try_for_each(|line| reader.line(line, &mut batch)).map(|()| batch)
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let lines = concat!(
            r#"{"run":3,"timestamp":5,"element":"web-1","metric":"cpu.user","value":1.5,"kind":"rate","unit":"tick","tags":{"a":"b"}}"#,
            "\n",
            r#"{"run":3,"timestamp":6,"element":{"id":"c1","name":"web","type":"CONTAINER","location":"dc1","tags":{"t":"v"},"attributes":{"cpus":4.0,"os":"Linux"},"relations":["web-1"]},"metric":"m","summary":{"val":0.0,"cnt":2},"kind":"gauge","unit":"","tags":{},"sparse_data":"ReplaceWithZero"}"#,
            "\n",
            r#"{"event":{"timestamp":7,"element":"web-1","type":"INFO","title":"t","message":"m","level":"warning","source":"ci","tags":{}}}"#,
            "\n",
            r#"{"check":{"timestamp":8,"element":"web-1","name":"heartbeat","status":"ok","message":"","ttl":150}}"#,
            "\n",
        );
        assert_eq!(write(&read(lines).unwrap(), 3, &own()), lines);
    }

    #[test]
    fn one_series_named_twice_is_one() {
        let line = r#"{"timestamp":5,"element":"web-1","metric":"a","value":1,"kind":"gauge"}"#;
        let batch = read(&format!("{line}\n\n{line}\n")).unwrap();
        assert!(Arc::ptr_eq(&batch.samples[0].series, &batch.samples[1].series));
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        for (line, words) in [
            ("{", "EOF"),
            (r#"{"timestamp":1,"element":"e","metric":"m","kind":"gauge"}"#, "either `value` or `summary`"),
            (r#"{"timestamp":1,"element":"e","metric":"m","kind":"gouge","value":1}"#, "gouge"),
            (r#"{"timestamp":1,"element":"e","metric":"m","kind":"gauge","valeu":1}"#, "valeu"),
            (
                r#"{"timestamp":1,"element":{"name":"e"},"metric":"m","kind":"gauge","value":1}"#,
                "at least `id`",
            ),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
