//! The elements that one collector has described, by id and by handle.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use indexmap::{Equivalent, IndexMap};

use super::drops::DropReason;
use super::handles::Handles;
use super::texts::{Texts, tag_bytes};
use crate::collected::ElementDescription;
use crate::sample::{AttributeValue, Element, Facts, Millis};

/// The agent's own element comes first and stays for ever.
const OWN: usize = 0;

/// An element that is known by its id.
#[derive(Debug)]
struct ById(Arc<Element>);

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.as_str().hash(state);
    }
}

impl Equivalent<ById> for str {
    fn equivalent(&self, key: &ById) -> bool {
        self == key.0.id
    }
}

#[derive(Debug, Default)]
struct State {
    handle: Option<u32>,
    /// How many series it has.
    series: usize,
    /// When it was described last, or an event or check named it.
    used: Millis,
    bytes: usize,
    gone: bool,
}

/// What a description may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Most elements at all.
    pub(super) elements: usize,
    /// Bytes that are left.
    pub(super) bytes: usize,
    pub(super) texts: Texts,
}

#[derive(Debug)]
pub(super) struct Elements {
    known: IndexMap<ById, State>,
    handles: Handles,
    /// Bytes of ids and facts.
    bytes: usize,
}

impl Elements {
    pub(super) fn new(own: Arc<Element>) -> Self {
        let known = [(ById(own), State::default())].into_iter().collect();
        Self { known, handles: Handles::default(), bytes: 0 }
    }

    /// How many there are besides the agent's own.
    pub(super) fn len(&self) -> usize {
        self.known.len() - 1
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.known.capacity() * size_of::<(usize, ById, State)>() + self.handles.bytes()
    }

    /// By handle; none: the agent's own.
    pub(super) fn get(&self, handle: Option<u32>) -> Result<&Arc<Element>, DropReason> {
        let slot = handle.map_or(Some(OWN), |handle| self.handles.slot(handle));
        let known = slot.and_then(|slot| self.known.get_index(slot));
        known.map(|(key, _)| &key.0).ok_or(DropReason::UnknownHandle)
    }

    /// The same, for an event or a check, which keep it alive.
    pub(super) fn mention(&mut self, handle: Option<u32>, now: Millis) -> Result<Arc<Element>, DropReason> {
        let slot = handle.map_or(Some(OWN), |handle| self.handles.slot(handle));
        let (key, state) =
            slot.and_then(|slot| self.known.get_index_mut(slot)).ok_or(DropReason::UnknownHandle)?;
        state.used = now;
        Ok(key.0.clone())
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        self.known.contains_key(id)
    }

    /// Takes over a description. Only the agent says what its own element is like.
    pub(super) fn describe(
        &mut self,
        description: ElementDescription,
        now: Millis,
        room: Room,
    ) -> Result<(), DropReason> {
        let texts = room.texts;
        let ElementDescription { handle, id, facts } = description;
        let described_before = self.handles.slot(handle);
        if described_before.is_none() && !self.handles.claim(handle) {
            return Err(DropReason::WrongHandle);
        }
        texts.id(&id)?;
        texts.text(&facts.name)?;
        texts.text(&facts.kind)?;
        texts.text(facts.location.as_deref().unwrap_or_default())?;
        texts.tags(&facts.tags)?;
        texts.attributes(&facts.attributes)?;
        facts.relations.iter().try_for_each(|relation| texts.text(relation))?;

        let bytes = facts_bytes(&id, &facts);
        let count = self.len();
        let slot = match self.known.get_full_mut(id.as_str()) {
            Some((slot, ..)) if described_before.is_some_and(|before| before != slot) => {
                return Err(DropReason::WrongHandle);
            }
            Some((OWN, ..)) => OWN,
            Some((slot, key, state)) => {
                let facts = complete(&id, facts);
                if *key.0.facts() != facts {
                    if bytes > state.bytes + room.bytes {
                        return Err(DropReason::TableBytes);
                    }
                    key.0.set_facts(facts);
                    self.bytes = self.bytes - state.bytes + bytes;
                    state.bytes = bytes;
                }
                state.used = now;
                slot
            }
            None if described_before.is_some() => return Err(DropReason::WrongHandle),
            None if count >= room.elements => return Err(DropReason::ElementLimit),
            None if bytes > room.bytes => return Err(DropReason::TableBytes),
            None => {
                let facts = complete(&id, facts);
                self.bytes += bytes;
                let state = State { used: now, bytes, ..State::default() };
                self.known.insert_full(ById(Arc::new(Element::new(id, facts))), state).0
            }
        };
        if described_before.is_none() {
            if let Some(former) = self.known[slot].handle.replace(handle) {
                self.handles.void(former);
            }
            self.handles.bind(handle, slot);
        }
        Ok(())
    }

    /// A series of this element has come.
    pub(super) fn retain(&mut self, element: &Element) {
        if let Some(state) = self.known.get_mut(element.id.as_str()) {
            state.series += 1;
        }
    }

    /// A series of this element has gone.
    pub(super) fn release(&mut self, element: &Element) {
        if let Some(state) = self.known.get_mut(element.id.as_str()) {
            state.series -= 1;
        }
    }

    /// Lets an element go at the next [`Elements::sweep`]; none: unknown, or the agent's own.
    pub(super) fn forget(&mut self, handle: u32) -> Option<Arc<Element>> {
        let slot = self.handles.slot(handle).filter(|&slot| slot != OWN)?;
        let (key, state) = self.known.get_index_mut(slot)?;
        state.gone = true;
        self.handles.void(handle);
        state.handle = None;
        Some(key.0.clone())
    }

    pub(super) fn clock_jumped(&mut self, by: i64) {
        for state in self.known.values_mut() {
            state.used = state.used.saturating_add_signed(by);
        }
    }

    /// Marks what has no series and was not used for `keep` milliseconds. Answers the oldest use
    /// among those without series that stay.
    pub(super) fn mark_expired(&mut self, now: Millis, keep: Millis) -> Millis {
        let mut oldest = Millis::MAX;
        for state in self.known.values_mut().skip(1).filter(|state| state.series == 0) {
            state.used = state.used.min(now);
            state.gone |= state.used + keep <= now;
            if !state.gone {
                oldest = oldest.min(state.used);
            }
        }
        oldest
    }

    /// Marks up to `count` without series that are not `needed`, the longest unused first.
    pub(super) fn mark_oldest(&mut self, count: usize, needed: impl Fn(&str, Option<u32>) -> bool) {
        let mut idle: Vec<(Millis, usize)> = (self.known.iter().enumerate().skip(1))
            .filter(|(_, (key, state))| state.series == 0 && !needed(&key.0.id, state.handle))
            .map(|(slot, (_, state))| (state.used, slot))
            .collect();
        idle.sort_unstable();
        for (_, slot) in idle.into_iter().take(count) {
            self.known[slot].gone = true;
        }
    }

    /// Lets go what is marked, with its memory; the handles among it are added to `expired`.
    pub(super) fn sweep(&mut self, expired: &mut Vec<u32>) {
        let before = self.known.len();
        self.known.retain(|_, state| {
            if state.gone {
                self.bytes -= state.bytes;
                expired.extend(state.handle);
            }
            !state.gone
        });
        if self.known.len() == before {
            return;
        }
        if self.known.len() < self.known.capacity() / 4 {
            self.known.shrink_to(self.known.len() * 2);
        }
        let live = self.known.values().enumerate();
        self.handles.rebuild(live.filter_map(|(slot, state)| Some((state.handle?, slot))));
    }

    /// Makes all handles void.
    pub(super) fn new_instance(&mut self) {
        self.handles.clear();
        self.known.values_mut().for_each(|state| state.handle = None);
    }
}

/// Fills in what an empty name and an empty type stand for.
fn complete(id: &str, mut facts: Facts) -> Facts {
    if facts.name.is_empty() {
        id.clone_into(&mut facts.name);
    }
    if facts.kind.is_empty() {
        facts.kind = Facts::default().kind;
    }
    facts
}

fn facts_bytes(id: &str, facts: &Facts) -> usize {
    let attributes: usize = facts
        .attributes
        .iter()
        .map(|attribute| {
            let text = match &attribute.value {
                AttributeValue::Text(text) => text.len(),
                AttributeValue::Number(_) => 0,
            };
            size_of_val(attribute) + attribute.name.len() + text
        })
        .sum();
    let relations: usize = facts.relations.iter().map(|relation| size_of::<String>() + relation.len()).sum();
    let texts =
        id.len() + facts.name.len() + facts.kind.len() + facts.location.as_ref().map_or(0, String::len);
    size_of::<Element>() + size_of::<Facts>() + texts + tag_bytes(&facts.tags) + attributes + relations
}
