//! One series in the table: its key, what describes it, and what is remembered of it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use indexmap::Equivalent;

use super::SeriesConfig;
use super::reading::{Reading, kind_of};
use super::texts::tag_bytes;
use crate::collected::{Publish, RawKind};
use crate::routes::Routes;
use crate::sample::{Element, Kind, Millis, Series, Tag};

/// What makes two series the same: element and name. Within one table an element's id has one
/// [`Element`], so its address stands for it.
#[derive(Debug, PartialEq, Eq, Hash, Clone, Copy)]
pub(super) struct Identity<'a> {
    element: usize,
    name: &'a str,
}

impl<'a> Identity<'a> {
    pub(super) fn new(element: &Arc<Element>, name: &'a str) -> Self {
        Self { element: Arc::as_ptr(element).addr(), name }
    }
}

impl Equivalent<Key> for Identity<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.identity()
    }
}

/// A series, known by its [`Identity`].
#[derive(Debug)]
pub(super) struct Key(pub(super) Arc<Series>);

impl Key {
    fn identity(&self) -> Identity<'_> {
        Identity::new(&self.0.element, &self.0.name)
    }

    /// Bytes it takes on the heap, as long as no batch holds it, too.
    pub(super) fn bytes(&self) -> usize {
        const COUNTS: usize = 2 * size_of::<usize>();
        let series = &self.0;
        let texts = series.name.len() + series.unit.len() + series.sparse_data.len();
        COUNTS + size_of::<Series>() + texts + tag_bytes(&series.tags)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// What a collector says of a series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Described<'a> {
    pub(super) name: &'a str,
    pub(super) unit: &'a str,
    pub(super) kind: RawKind,
    pub(super) publish: Publish,
    pub(super) scale: f64,
    pub(super) tags: &'a [Tag],
    pub(super) sparse_data: &'a str,
}

impl Described<'_> {
    /// The collector's tags, but for those that the operator sets.
    fn own_tags<'t>(tags: &'t [Tag], config: &SeriesConfig) -> impl Iterator<Item = &'t Tag> {
        tags.iter().filter(|tag| config.tags.iter().all(|set| set.name != tag.name))
    }

    /// True if this is how the series is already known.
    pub(super) fn is(&self, series: &Series, state: &State, config: &SeriesConfig) -> bool {
        (self.kind, self.publish, self.scale) == (state.raw_kind, state.publish, state.scale)
            && *self.unit == *series.unit
            && *self.sparse_data == *series.sparse_data
            && Self::own_tags(self.tags, config).eq(&series.tags[config.tags.len()..])
    }

    pub(super) fn series(&self, element: Arc<Element>, config: &SeriesConfig, routes: &Routes) -> Series {
        Series {
            element,
            name: self.name.into(),
            unit: self.unit.into(),
            kind: kind_of(self.kind, config.counters.unwrap_or(self.publish)),
            sparse_data: self.sparse_data.into(),
            tags: config.tags.iter().chain(Self::own_tags(self.tags, config)).cloned().collect(),
            handlers: if config.filter.takes(self.name) { routes.mask(self.name) } else { 0 },
        }
    }

    pub(super) fn state(&self, series: &Series, config: &SeriesConfig) -> State {
        State {
            raw_kind: self.kind,
            publish: self.publish,
            scale: self.scale,
            kind: series.kind,
            wanted: config.filter.takes(self.name),
            sent: series.handlers != 0,
            reading: Reading::NONE,
            handle: None,
            used: 0,
            gone: false,
        }
    }
}

/// What is remembered of a series.
#[derive(Debug)]
pub(super) struct State {
    pub(super) raw_kind: RawKind,
    pub(super) publish: Publish,
    pub(super) scale: f64,
    /// That of the series: here it costs no second look into memory.
    pub(super) kind: Kind,
    /// True unless the operator's `match` of this collector leaves it out.
    pub(super) wanted: bool,
    /// True if a handler takes it.
    pub(super) sent: bool,
    pub(super) reading: Reading,
    /// The instance's handle for it.
    pub(super) handle: Option<u32>,
    /// Due time of the last run that named it.
    pub(super) used: Millis,
    /// Goes at the next sweep.
    pub(super) gone: bool,
}

impl State {
    /// The same series, described otherwise: the reading stays, for a total goes on being the
    /// same total whatever is made of it.
    pub(super) fn follows(self, former: &Self) -> Self {
        let same_sort = self.raw_kind == former.raw_kind;
        Self {
            reading: if same_sort { former.reading } else { Reading::NONE },
            handle: former.handle,
            used: former.used,
            gone: former.gone,
            ..self
        }
    }
}
