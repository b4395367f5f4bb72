//! Between the generated types and ours, 1:1. Nothing is decided here.

use std::time::Duration;

use super::bindings::exports::kimberlite::plugin::{collector, handler};
use super::bindings::kimberlite::plugin::types;
use super::instance::{Tick, TickReason};
use crate::collected::{
    Additions, Collected, CollectedCheck, CollectedEvent, CollectedSummary, ElementDescription, NamedSample,
    Publish, RawKind, SeriesDescription, Value,
};
use crate::config::settings::{Setting, SettingValue};
use crate::delivery_policy::Answer;
use crate::outgoing::{Columns, Outgoing, Strings};
use crate::sample::{Attribute, AttributeValue, Element, Facts, Level, Status, Summary, Tag};

pub(super) fn tick(tick: Tick) -> collector::Tick {
    collector::Tick {
        due: tick.due,
        now: tick.now,
        elapsed: tick.elapsed,
        reason: match tick.reason {
            TickReason::Due => collector::Reason::Due,
            TickReason::Probe => collector::Reason::Probe,
        },
        expired: tick.expired,
        expired_elements: tick.expired_elements,
    }
}

pub(super) fn collected(batch: collector::Batch) -> Collected {
    Collected {
        elements: batch.elements.into_iter().map(element).collect(),
        machine: batch.machine.map(|additions| Additions {
            tags: tags(additions.tags),
            attributes: additions.attributes.into_iter().map(attribute).collect(),
            relations: additions.relations,
        }),
        series: batch.series.into_iter().map(series).collect(),
        handles: batch.handles,
        values: batch.values,
        timestamps: batch.timestamps,
        summaries: batch
            .summaries
            .into_iter()
            .map(|sample| CollectedSummary {
                handle: sample.handle,
                summary: summary(sample.summary),
                timestamp: sample.timestamp,
            })
            .collect(),
        samples: batch.samples.into_iter().map(named).collect(),
        forget: batch.forget,
        forget_elements: batch.forget_elements,
        events: batch.events.into_iter().map(event).collect(),
        checks: batch.checks.into_iter().map(check).collect(),
    }
}

fn element(element: types::Element) -> ElementDescription {
    let default = Facts::default();
    ElementDescription {
        handle: element.handle,
        facts: Facts {
            name: if element.name.is_empty() { element.id.clone() } else { element.name },
            kind: if element.type_.is_empty() { default.kind } else { element.type_ },
            location: element.location,
            tags: tags(element.tags),
            attributes: element.attributes.into_iter().map(attribute).collect(),
            relations: element.relations,
        },
        id: element.id,
    }
}

fn series(series: collector::Series) -> SeriesDescription {
    SeriesDescription {
        handle: series.handle,
        element: series.element,
        name: series.name,
        unit: series.unit,
        kind: kind(series.kind),
        publish: publish(series.publish),
        scale: series.scale,
        tags: tags(series.tags),
        sparse_data: series.sparse_data,
    }
}

fn named(sample: collector::Sample) -> NamedSample {
    NamedSample {
        name: sample.name,
        value: match sample.value {
            types::Value::Number(number) => Value::Number(number),
            types::Value::Summary(given) => Value::Summary(summary(given)),
        },
        kind: kind(sample.kind),
        publish: publish(sample.publish),
        unit: sample.unit,
        element: sample.element,
        tags: tags(sample.tags),
        timestamp: sample.timestamp,
    }
}

fn event(event: types::Event) -> CollectedEvent {
    CollectedEvent {
        element: event.element,
        kind: event.type_,
        title: event.title,
        message: event.message,
        level: match event.level {
            types::Level::Info => Level::Info,
            types::Level::Warning => Level::Warning,
            types::Level::Critical => Level::Critical,
        },
        source: event.source,
        tags: tags(event.tags),
        timestamp: event.timestamp,
    }
}

fn check(check: types::Check) -> CollectedCheck {
    CollectedCheck {
        element: check.element,
        name: check.name,
        status: match check.status {
            types::Status::Ok => Status::Ok,
            types::Status::Warning => Status::Warning,
            types::Status::Critical => Status::Critical,
            types::Status::Unknown => Status::Unknown,
        },
        message: check.message,
        ttl: check.ttl,
        timestamp: check.timestamp,
    }
}

fn kind(kind: types::Kind) -> RawKind {
    match kind {
        types::Kind::Gauge => RawKind::Gauge,
        types::Kind::Counter => RawKind::Counter,
    }
}

fn publish(publish: types::Publish) -> Publish {
    match publish {
        types::Publish::Rate => Publish::Rate,
        types::Publish::Total => Publish::Total,
    }
}

fn summary(given: types::Summary) -> Summary {
    let types::Summary { val, min, max, avg, sum, cnt } = given;
    Summary { val, min, max, avg, sum, cnt }
}

fn tags(tags: Vec<types::Tag>) -> Vec<Tag> {
    tags.into_iter().map(|types::Tag { name, value }| Tag { name, value }).collect()
}

fn attribute(attribute: types::Attribute) -> Attribute {
    Attribute {
        name: attribute.name,
        value: match attribute.value {
            types::AttributeValue::Text(text) => AttributeValue::Text(text),
            types::AttributeValue::Number(number) => AttributeValue::Number(number),
        },
    }
}

pub(super) fn settings(settings: &[Setting]) -> Vec<types::Setting> {
    settings
        .iter()
        .map(|setting| types::Setting {
            key: setting.key.clone(),
            value: match setting.value.clone() {
                SettingValue::Text(text) => types::SettingValue::Text(text),
                SettingValue::Whole(whole) => types::SettingValue::Whole(whole),
                SettingValue::Number(number) => types::SettingValue::Number(number),
                SettingValue::Boolean(value) => types::SettingValue::Boolean(value),
                SettingValue::Texts(texts) => types::SettingValue::Texts(texts),
            },
        })
        .collect()
}

pub(super) fn batch(outgoing: &Outgoing) -> handler::Batch {
    let batch = &outgoing.batch;
    let columns = Columns::of(batch);
    handler::Batch {
        attempt: outgoing.attempt,
        elements: (0..).zip(&columns.elements).map(|(handle, element)| whole(handle, element)).collect(),
        dictionary: handler::Dictionary {
            names: strings(columns.names),
            elements: columns.series_elements,
            kinds: columns.kinds,
            units: columns.units,
            sparse_data: columns.sparse_data,
            labels: strings(columns.labels),
            tag_series: columns.tag_series,
            tag_names: strings(columns.tag_names),
            tag_values: strings(columns.tag_values),
        },
        series: columns.series,
        values: columns.values,
        timestamps: columns.timestamps,
        summaries: batch
            .summaries
            .iter()
            .zip(columns.summary_series)
            .map(|(sample, series)| {
                let Summary { val, min, max, avg, sum, cnt } = sample.summary;
                let summary = types::Summary { val, min, max, avg, sum, cnt };
                handler::SummarySample { series, summary, timestamp: sample.timestamp }
            })
            .collect(),
        events: batch
            .events
            .iter()
            .zip(columns.event_elements)
            .map(|(event, element)| types::Event {
                element: Some(element),
                type_: event.kind.clone(),
                title: event.title.clone(),
                message: event.message.clone(),
                level: match event.level {
                    Level::Info => types::Level::Info,
                    Level::Warning => types::Level::Warning,
                    Level::Critical => types::Level::Critical,
                },
                source: event.source.clone(),
                tags: their_tags(&event.tags),
                timestamp: Some(event.timestamp),
            })
            .collect(),
        checks: batch
            .checks
            .iter()
            .zip(columns.check_elements)
            .map(|(check, element)| types::Check {
                element: Some(element),
                name: check.name.clone(),
                status: match check.status {
                    Status::Ok => types::Status::Ok,
                    Status::Warning => types::Status::Warning,
                    Status::Critical => types::Status::Critical,
                    Status::Unknown => types::Status::Unknown,
                },
                message: check.message.clone(),
                ttl: check.ttl,
                timestamp: Some(check.timestamp),
            })
            .collect(),
    }
}

fn whole(handle: u32, element: &Element) -> types::Element {
    let facts = element.facts();
    types::Element {
        handle,
        id: element.id.clone(),
        name: facts.name.clone(),
        type_: facts.kind.clone(),
        location: facts.location.clone(),
        tags: their_tags(&facts.tags),
        attributes: facts
            .attributes
            .iter()
            .map(|attribute| types::Attribute {
                name: attribute.name.clone(),
                value: match &attribute.value {
                    AttributeValue::Text(text) => types::AttributeValue::Text(text.clone()),
                    AttributeValue::Number(number) => types::AttributeValue::Number(*number),
                },
            })
            .collect(),
        relations: facts.relations.clone(),
    }
}

fn strings(strings: Strings) -> types::Strings {
    types::Strings { text: strings.text, ends: strings.ends }
}

fn their_tags(tags: &[Tag]) -> Vec<types::Tag> {
    tags.iter().map(|tag| types::Tag { name: tag.name.clone(), value: tag.value.clone() }).collect()
}

pub(super) fn answer(answer: handler::Answer) -> Answer {
    let ranges =
        |ranges: Vec<handler::Range>| ranges.into_iter().map(|range| range.start..range.end).collect();
    match answer {
        handler::Answer::Delivered(receipt) => Answer::Delivered { unconfirmed: receipt.unconfirmed },
        handler::Answer::Retry(retry) => Answer::Retry {
            after: retry.after.map(Duration::from_millis),
            reason: retry.reason,
            done: ranges(retry.done),
        },
        handler::Answer::Reject(reject) => {
            Answer::Reject { reason: reject.reason, which: ranges(reject.which) }
        }
        handler::Answer::TooLarge(reason) => Answer::TooLarge { reason },
        handler::Answer::Halt(reason) => Answer::Halt { reason },
    }
}
