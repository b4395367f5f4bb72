//! What one record of a spool says: a batch, its texts once each, its values in columns.
//!
//! ```text
//! header  magic 4 | payload bytes 4 | items 4 | kills 4 | since 8 | CRC-32 of payload 4 | CRC-32 of the 28 before 4
//! payload postcard: elements, series (of an element), samples and summaries (of a series), events, checks
//! ```
//!
//! Numbers are little-endian. The magic names the version: a newer agent reads what an older one
//! wrote. Uses: `sample`.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::sample::{
    Attribute, AttributeValue, Batch, Check, Element, Event, Facts, Kind, Level, Millis, Sample, Series,
    Status, Summary, SummarySample, Tag,
};

pub(super) const MAGIC: [u8; 4] = *b"KBR1";
pub(super) const HEADER: usize = 32;

/// What can be said of a record without reading its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes behind the header.
    pub(super) payload: u32,
    pub(super) items: u32,
    /// How often a handler died of it.
    pub(super) kills: u32,
    /// When the oldest of it entered the queue, by the wall clock.
    pub(super) since: Millis,
    checksum: u32,
}

impl Header {
    /// Bytes of the whole record.
    pub(super) fn record(&self) -> u64 {
        HEADER as u64 + u64::from(self.payload)
    }

    /// None: no record begins here.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let u32_at = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
        if header[..4] != MAGIC || u32_at(28)? != crc32fast::hash(&header[..28]) {
            return None;
        }
        Some(Self {
            payload: u32_at(4)?,
            items: u32_at(8)?,
            kills: u32_at(12)?,
            since: u64::from_le_bytes(header.get(16..24)?.try_into().ok()?),
            checksum: u32_at(24)?,
        })
    }

    /// Whether this is the payload that it was written with.
    pub(super) fn fits(&self, payload: &[u8]) -> bool {
        crc32fast::hash(payload) == self.checksum
    }
}

/// The whole record of a batch.
pub(super) fn encode(batch: &Batch, kills: u32, since: Millis) -> Result<Vec<u8>, postcard::Error> {
    let mut record = postcard::to_extend(&Stored::of(batch), vec![0; HEADER])?;
    let payload = &record[HEADER..];
    let length = u32::try_from(payload.len()).map_err(|_| postcard::Error::SerializeBufferFull)?;
    let items = u32::try_from(batch.len()).map_err(|_| postcard::Error::SerializeBufferFull)?;
    let checksum = crc32fast::hash(payload);
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&MAGIC);
    for (at, number) in [(4, length), (8, items), (12, kills), (24, checksum)] {
        header[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
    header[16..24].copy_from_slice(&since.to_le_bytes());
    let own = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&own.to_le_bytes());
    record[..HEADER].copy_from_slice(&header);
    Ok(record)
}

/// The batch of a payload; none: it holds none.
pub(super) fn decode(payload: &[u8]) -> Option<Batch> {
    postcard::from_bytes::<Stored<'_>>(payload).ok()?.batch()
}

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    elements: Vec<StoredElement<'a>>,
    series: Vec<StoredSeries<'a>>,
    /// Series, timestamp, value.
    samples: Vec<(u32, Millis, f64)>,
    /// The same, with a summary.
    summaries: Vec<(u32, Millis, StoredSummary)>,
    events: Vec<StoredEvent<'a>>,
    checks: Vec<StoredCheck<'a>>,
}

/// val, min, max, avg, sum; cnt.
type StoredSummary = ([Option<f64>; 5], Option<u64>);

#[derive(Serialize, Deserialize)]
struct StoredElement<'a> {
    id: &'a str,
    name: String,
    kind: String,
    location: Option<String>,
    tags: Vec<(String, String)>,
    attributes: Vec<(String, StoredValue)>,
    relations: Vec<String>,
}

#[derive(Serialize, Deserialize)]
enum StoredValue {
    Text(String),
    Number(f64),
}

#[derive(Serialize, Deserialize)]
struct StoredSeries<'a> {
    element: u32,
    name: &'a str,
    unit: &'a str,
    /// 0 gauge, 1 rate, 2 counter.
    kind: u8,
    sparse_data: &'a str,
    #[serde(borrow)]
    tags: Vec<(&'a str, &'a str)>,
}

#[derive(Serialize, Deserialize)]
struct StoredEvent<'a> {
    element: u32,
    kind: &'a str,
    title: &'a str,
    message: &'a str,
    /// 0 info, 1 warning, 2 critical.
    level: u8,
    source: Option<&'a str>,
    #[serde(borrow)]
    tags: Vec<(&'a str, &'a str)>,
    timestamp: Millis,
}

#[derive(Serialize, Deserialize)]
struct StoredCheck<'a> {
    element: u32,
    name: &'a str,
    /// 0 ok, 1 warning, 2 critical, 3 unknown.
    status: u8,
    message: &'a str,
    ttl: u32,
    timestamp: Millis,
}

const KINDS: [Kind; 3] = [Kind::Gauge, Kind::Rate, Kind::Counter];
const LEVELS: [Level; 3] = [Level::Info, Level::Warning, Level::Critical];
const STATUSES: [Status; 4] = [Status::Ok, Status::Warning, Status::Critical, Status::Unknown];

fn number<T: PartialEq>(of: &[T], value: &T) -> u8 {
    of.iter().position(|known| known == value).map_or(0, |at| at as u8)
}

fn pairs(tags: &[Tag]) -> Vec<(&str, &str)> {
    tags.iter().map(|tag| (tag.name.as_str(), tag.value.as_str())).collect()
}

fn tags<T: Into<String>>(pairs: Vec<(T, T)>) -> Vec<Tag> {
    pairs.into_iter().map(|(name, value)| Tag { name: name.into(), value: value.into() }).collect()
}

/// Numbers of what has been met, by address.
#[derive(Default)]
struct Met<'a> {
    elements: HashMap<*const Element, u32>,
    series: HashMap<*const Series, u32>,
    stored: (Vec<StoredElement<'a>>, Vec<StoredSeries<'a>>),
}

impl<'a> Met<'a> {
    fn element(&mut self, element: &'a Arc<Element>) -> u32 {
        let stored = &mut self.stored.0;
        *self.elements.entry(Arc::as_ptr(element)).or_insert_with(|| {
            stored.push(StoredElement::of(element));
            stored.len() as u32 - 1
        })
    }

    fn series(&mut self, series: &'a Arc<Series>) -> u32 {
        if let Some(&known) = self.series.get(&Arc::as_ptr(series)) {
            return known;
        }
        let element = self.element(&series.element);
        let stored = &mut self.stored.1;
        stored.push(StoredSeries {
            element,
            name: &series.name,
            unit: &series.unit,
            kind: number(&KINDS, &series.kind),
            sparse_data: &series.sparse_data,
            tags: pairs(&series.tags),
        });
        self.series.insert(Arc::as_ptr(series), stored.len() as u32 - 1);
        stored.len() as u32 - 1
    }
}

impl<'a> StoredElement<'a> {
    fn of(element: &'a Element) -> Self {
        let Facts { name, kind, location, tags, attributes, relations } = (*element.facts()).clone();
        let attributes = attributes.into_iter().map(|Attribute { name, value }| match value {
            AttributeValue::Text(text) => (name, StoredValue::Text(text)),
            AttributeValue::Number(number) => (name, StoredValue::Number(number)),
        });
        Self {
            id: &element.id,
            name,
            kind,
            location,
            tags: tags.into_iter().map(|Tag { name, value }| (name, value)).collect(),
            attributes: attributes.collect(),
            relations,
        }
    }

    fn element(self) -> Arc<Element> {
        let attributes = self.attributes.into_iter().map(|(name, value)| Attribute {
            name,
            value: match value {
                StoredValue::Text(text) => AttributeValue::Text(text),
                StoredValue::Number(number) => AttributeValue::Number(number),
            },
        });
        let facts = Facts {
            name: self.name,
            kind: self.kind,
            location: self.location,
            tags: tags(self.tags),
            attributes: attributes.collect(),
            relations: self.relations,
        };
        Arc::new(Element::new(self.id, facts))
    }
}

impl<'a> Stored<'a> {
    fn of(batch: &'a Batch) -> Self {
        let mut met = Met::default();
        let samples = batch.samples.iter().map(|s| (met.series(&s.series), s.timestamp, s.value)).collect();
        let summaries = batch.summaries.iter().map(|s| {
            let Summary { val, min, max, avg, sum, cnt } = s.summary;
            (met.series(&s.series), s.timestamp, ([val, min, max, avg, sum], cnt))
        });
        let summaries = summaries.collect();
        let events = batch.events.iter().map(|event| StoredEvent {
            element: met.element(&event.element),
            kind: &event.kind,
            title: &event.title,
            message: &event.message,
            level: number(&LEVELS, &event.level),
            source: event.source.as_deref(),
            tags: pairs(&event.tags),
            timestamp: event.timestamp,
        });
        let events = events.collect();
        let checks = batch.checks.iter().map(|check| StoredCheck {
            element: met.element(&check.element),
            name: &check.name,
            status: number(&STATUSES, &check.status),
            message: &check.message,
            ttl: check.ttl,
            timestamp: check.timestamp,
        });
        let checks = checks.collect();
        let (elements, series) = met.stored;
        Self { elements, series, samples, summaries, events, checks }
    }

    /// None: a number names nothing.
    fn batch(self) -> Option<Batch> {
        let elements: Vec<Arc<Element>> = self.elements.into_iter().map(StoredElement::element).collect();
        let element = |number: u32| elements.get(number as usize).cloned();
        let series = self.series.into_iter().map(|series| {
            Some(Arc::new(Series {
                element: element(series.element)?,
                name: series.name.into(),
                unit: series.unit.into(),
                kind: *KINDS.get(usize::from(series.kind))?,
                sparse_data: series.sparse_data.into(),
                tags: tags(series.tags).into(),
                // It has been routed already.
                handlers: u64::MAX,
            }))
        });
        let series: Vec<Arc<Series>> = series.collect::<Option<_>>()?;
        let named = |number: u32| series.get(number as usize).cloned();
        let samples = self
            .samples
            .into_iter()
            .map(|(number, timestamp, value)| Some(Sample { series: named(number)?, timestamp, value }));
        let summaries =
            self.summaries.into_iter().map(|(number, timestamp, ([val, min, max, avg, sum], cnt))| {
                let summary = Summary { val, min, max, avg, sum, cnt };
                Some(SummarySample { series: named(number)?, timestamp, summary })
            });
        let events = self.events.into_iter().map(|event| {
            Some(Event {
                element: element(event.element)?,
                kind: event.kind.to_owned(),
                title: event.title.to_owned(),
                message: event.message.to_owned(),
                level: *LEVELS.get(usize::from(event.level))?,
                source: event.source.map(str::to_owned),
                tags: tags(event.tags),
                timestamp: event.timestamp,
            })
        });
        let checks = self.checks.into_iter().map(|check| {
            Some(Check {
                element: element(check.element)?,
                name: check.name.to_owned(),
                status: *STATUSES.get(usize::from(check.status))?,
                message: check.message.to_owned(),
                ttl: check.ttl,
                timestamp: check.timestamp,
            })
        });
        Some(Batch {
            samples: samples.collect::<Option<_>>()?,
            summaries: summaries.collect::<Option<_>>()?,
            events: events.collect::<Option<_>>()?,
            checks: checks.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outgoing::tests::{check, event, sample, series};

    fn rich() -> Batch {
        let facts = Facts {
            name: "web".to_owned(),
            location: Some("Frankfurt".to_owned()),
            tags: vec![Tag { name: "env".to_owned(), value: "prod".to_owned() }],
            attributes: vec![
                Attribute { name: "os".to_owned(), value: AttributeValue::Text("linux".to_owned()) },
                Attribute { name: "ram".to_owned(), value: AttributeValue::Number(1.5) },
            ],
            relations: vec!["rack".to_owned()],
            ..Facts::default()
        };
        let web = Arc::new(Element::new("web-1", facts));
        let (user, idle) = (series(&web, "cpu.user", 1), series(&web, "cpu.idle", 1));
        let summary = Summary { min: Some(-1.0), cnt: Some(7), ..Summary::default() };
        Batch {
            samples: vec![sample(&user, 1.25), sample(&idle, f64::MAX), sample(&user, -0.0)],
            summaries: vec![SummarySample { series: idle, timestamp: 5, summary }],
            events: vec![Event { level: Level::Critical, ..event(&web, "down") }],
            checks: vec![Check { status: Status::Unknown, ..check(&web, "alive") }],
        }
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let batch = rich();
        let record = encode(&batch, 2, 77).unwrap();
        let header = Header::read(&record).unwrap();
        assert_eq!((header.items, header.kills, header.since), (6, 2, 77));
        assert_eq!(header.record(), record.len() as u64);
        assert!(header.fits(&record[HEADER..]));
        let again = decode(&record[HEADER..]).unwrap();
        // Who else takes a series is not kept: it has arrived where it goes.
        let shown = |batch: &Batch| format!("{batch:?}").replace(&u64::MAX.to_string(), "1");
        assert_eq!(shown(&again), shown(&batch));
        assert!(Arc::ptr_eq(&again.samples[0].series, &again.samples[2].series));
    }

    #[test]
    fn no_byte_can_change_unseen() {
        let record = encode(&rich(), 0, 1).unwrap();
        for at in 0..record.len() {
            let mut bent = record.clone();
            bent[at] ^= 0x10;
            let header = Header::read(&bent);
            assert!(header.is_none_or(|header| !header.fits(&bent[HEADER..])), "byte {at}");
        }
    }

    #[test]
    fn a_payload_of_anything_is_no_panic() {
        let record = encode(&rich(), 0, 1).unwrap();
        let payload = &record[HEADER..];
        for at in 0..payload.len() {
            decode(&payload[..at]);
            let mut bent = payload.to_vec();
            bent[at] ^= 0xff;
            decode(&bent);
        }
    }

    /// As 0.1.0 wrote it; must be read for ever.
    #[test]
    fn the_format_does_not_change() {
        let record = encode(&crate::outgoing::tests::samples([7]), 0, 1).unwrap();
        let hex: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
        let header = "4b4252312a00000001000000000000000100000000000000e0e660798efaa397";
        let payload = "01057765622d310006534552564552000000000100016d000000000100e8070000000000001c40000000";
        assert_eq!(hex, format!("{header}{payload}"));
    }
}
