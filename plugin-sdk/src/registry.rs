//! Which series and elements the agent knows of this instance, under which handles.
//!
//! ```text
//! unknown ──described──▶ live ──forgotten, or expired by the agent──▶ void (described anew when used)
//! ```
//!
//! A run is a transaction: when it fails the agent has heard nothing, so `rollback` undoes the
//! run's journal and the same handles are given out again.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use crate::hash::{Map, Set};
use crate::series::{Measure, Slot};

#[derive(Debug, Default)]
pub(crate) struct Registry {
    next_series: u32,
    next_element: u32,
    /// Every described series, by handle; new ones come at the end. Only needed when one is let go.
    live: Vec<(u32, Rc<Slot>)>,
    /// Those of them that are recorded by name.
    named: Set<Named>,
    /// Every described element, by id.
    elements: Map<Box<str>, Known>,
    journal: Vec<Change>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    handle: u32,
    /// Of the facts that were described.
    fingerprint: u64,
}

/// What a run has changed, to be undone backwards if it fails.
#[derive(Debug)]
enum Change {
    Described(Rc<Slot>),
    Forgotten(Rc<Slot>, u32),
    ElementDescribed(Box<str>),
    ElementChanged(Box<str>, Known),
    ElementForgotten(Box<str>, Known),
}

/// What is to be said about an element.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ElementState {
    /// Described, and unchanged as far as was asked.
    Known(u32),
    /// To be described, for the first time or anew.
    Describe(u32),
}

impl Registry {
    /// The handle of a series that is recorded by name, if it is live. Allocates nothing.
    pub(crate) fn find(&self, measure: Measure, name: &str) -> Option<u32> {
        self.named.get(&(measure, name) as &dyn Name).map(|named| named.0.handle.get())
    }

    /// Gives the series of `slot` the next handle; the caller describes it.
    pub(crate) fn describe(&mut self, slot: &Rc<Slot>, element: Option<u32>) -> u32 {
        let handle = self.next_series;
        self.next_series += 1;
        slot.element.set(element.unwrap_or(Slot::NONE));
        self.enliven(slot, handle);
        self.journal.push(Change::Described(slot.clone()));
        handle
    }

    /// Lets go of a series: its handle, if it had one.
    pub(crate) fn forget(&mut self, slot: &Rc<Slot>) -> Option<u32> {
        let handle = slot.handle.get();
        self.void(handle)?;
        self.journal.push(Change::Forgotten(slot.clone(), handle));
        Some(handle)
    }

    /// The handle of the element `id`. A known one is described again only if `compare` is set and
    /// its facts are others than before.
    pub(crate) fn element(&mut self, id: &str, fingerprint: impl Fn() -> u64, compare: bool) -> ElementState {
        if let Some(known) = self.elements.get_mut(id) {
            let handle = known.handle;
            if !compare || known.fingerprint == fingerprint() {
                return ElementState::Known(handle);
            }
            let before = std::mem::replace(known, Known { handle, fingerprint: fingerprint() });
            self.journal.push(Change::ElementChanged(id.into(), before));
            return ElementState::Describe(handle);
        }
        let handle = self.next_element;
        self.next_element += 1;
        self.elements.insert(id.into(), Known { handle, fingerprint: fingerprint() });
        self.journal.push(Change::ElementDescribed(id.into()));
        ElementState::Describe(handle)
    }

    /// Lets go of an element and all its series: its handle, if it had one.
    pub(crate) fn forget_element(&mut self, id: &str) -> Option<u32> {
        let known = self.elements.remove(id)?;
        for slot in self.series_of(|element| element == known.handle) {
            self.forget(&slot);
        }
        self.journal.push(Change::ElementForgotten(id.into(), known));
        Some(known.handle)
    }

    /// The agent has let these go since the last run; a second time changes nothing.
    pub(crate) fn expire(&mut self, series: &[u32], elements: &[u32]) {
        for handle in series {
            self.void(*handle);
        }
        if !elements.is_empty() {
            let elements: Set<u32> = elements.iter().copied().collect();
            self.elements.retain(|_, known| !elements.contains(&known.handle));
            for slot in self.series_of(|element| elements.contains(&element)) {
                self.void(slot.handle.get());
            }
        }
    }

    /// The run ended well: what it said counts.
    pub(crate) fn commit(&mut self) {
        self.journal.clear();
    }

    /// The run failed: the agent has heard nothing of it.
    pub(crate) fn rollback(&mut self) {
        while let Some(change) = self.journal.pop() {
            match change {
                Change::Described(slot) => {
                    self.next_series -= 1;
                    self.void(slot.handle.get());
                }
                Change::Forgotten(slot, handle) => self.enliven(&slot, handle),
                Change::ElementDescribed(id) => {
                    self.next_element -= 1;
                    self.elements.remove(&id);
                }
                Change::ElementChanged(id, before) | Change::ElementForgotten(id, before) => {
                    self.elements.insert(id, before);
                }
            }
        }
    }

    fn enliven(&mut self, slot: &Rc<Slot>, handle: u32) {
        slot.handle.set(handle);
        let at = self.live.partition_point(|(other, _)| *other < handle);
        self.live.insert(at, (handle, slot.clone()));
        if slot.named.is_some() {
            self.named.insert(Named(slot.clone()));
        }
    }

    fn void(&mut self, handle: u32) -> Option<()> {
        let at = self.live.binary_search_by_key(&handle, |(other, _)| *other).ok()?;
        let (_, slot) = self.live.remove(at);
        slot.handle.set(Slot::NONE);
        if let Some((measure, name)) = &slot.named {
            self.named.remove(&(*measure, &**name) as &dyn Name);
        }
        Some(())
    }

    fn series_of(&self, is_meant: impl Fn(u32) -> bool) -> Vec<Rc<Slot>> {
        let series = self.live.iter().map(|(_, slot)| slot);
        series.filter(|slot| is_meant(slot.element.get())).cloned().collect()
    }
}

/// A series that is found by its name and measure.
#[derive(Debug)]
struct Named(Rc<Slot>);

/// The key of [`Named`], with a name that is owned or borrowed.
trait Name {
    fn key(&self) -> (Measure, &str);
}

impl Name for Named {
    fn key(&self) -> (Measure, &str) {
        self.0.named.as_ref().map_or((Measure::Gauge, ""), |(measure, name)| (*measure, name))
    }
}

impl Name for (Measure, &str) {
    fn key(&self) -> (Measure, &str) {
        *self
    }
}

impl Hash for dyn Name + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (measure, name) = self.key();
        name.hash(state);
        state.write_u8(measure as u8);
    }
}

impl PartialEq for dyn Name + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for dyn Name + '_ {}

impl<'a> Borrow<dyn Name + 'a> for Named {
    fn borrow(&self) -> &(dyn Name + 'a) {
        self
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self as &dyn Name).hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Named {}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Rc<Slot> {
        Rc::default()
    }

    #[test]
    fn handles_are_dense_and_never_reused() {
        let mut registry = Registry::default();
        let (a, b, c) = (slot(), slot(), slot());
        assert_eq!(registry.describe(&a, None), 0);
        assert_eq!(registry.describe(&b, None), 1);
        assert_eq!(registry.forget(&b), Some(1));
        assert_eq!(b.handle.get(), Slot::NONE);
        assert_eq!(registry.describe(&c, None), 2);
        assert_eq!(registry.describe(&b, None), 3);
    }

    #[test]
    fn failed_run_gives_its_handles_out_again() {
        let mut registry = Registry::default();
        let (old, new, named) = (slot(), slot(), Rc::new(Slot::named(Measure::Rate, "x")));
        registry.describe(&old, None);
        registry.commit();

        registry.forget(&old);
        registry.describe(&new, None);
        registry.describe(&named, None);
        registry.element("disk", || 1, false);
        registry.rollback();

        assert_eq!(old.handle.get(), 0);
        assert_eq!(new.handle.get(), Slot::NONE);
        assert_eq!(registry.find(Measure::Rate, "x"), None);
        assert_eq!(registry.element("disk", || 1, false), ElementState::Describe(0));
        assert_eq!(registry.describe(&named, None), 1);
        assert_eq!(registry.find(Measure::Rate, "x"), Some(1));
        assert_eq!(registry.find(Measure::Gauge, "x"), None);
    }

    #[test]
    fn forgetting_and_describing_again_in_a_failed_run_restores_the_old_handle() {
        let mut registry = Registry::default();
        let slot = Rc::new(Slot::named(Measure::Gauge, "x"));
        registry.describe(&slot, None);
        registry.commit();
        registry.forget(&slot);
        registry.describe(&slot, None);
        registry.rollback();
        assert_eq!(slot.handle.get(), 0);
        assert_eq!(registry.find(Measure::Gauge, "x"), Some(0));
    }

    #[test]
    fn expired_series_leave_no_trace() {
        let mut registry = Registry::default();
        let slot = Rc::new(Slot::named(Measure::Gauge, "x"));
        registry.describe(&slot, None);
        registry.commit();
        registry.expire(&[0, 0, 17], &[]);
        assert_eq!(slot.handle.get(), Slot::NONE);
        assert!(registry.live.is_empty() && registry.named.is_empty());
        assert_eq!(Rc::strong_count(&slot), 1);
    }

    #[test]
    fn element_takes_its_series_along() {
        let mut registry = Registry::default();
        let (a, b, machine) = (slot(), slot(), slot());
        registry.element("a", || 1, false);
        registry.element("b", || 1, false);
        registry.describe(&a, Some(0));
        registry.describe(&b, Some(1));
        registry.describe(&machine, None);
        registry.commit();

        assert_eq!(registry.forget_element("a"), Some(0));
        assert_eq!(a.handle.get(), Slot::NONE);
        registry.rollback();
        assert_eq!(a.handle.get(), 0);

        registry.expire(&[], &[1]);
        assert_eq!((a.handle.get(), b.handle.get(), machine.handle.get()), (0, Slot::NONE, 2));
        assert_eq!(registry.element("b", || 1, false), ElementState::Describe(2));
    }

    #[test]
    fn changed_element_keeps_its_handle_and_is_described_again_only_when_asked() {
        let mut registry = Registry::default();
        registry.element("a", || 1, false);
        registry.commit();
        assert_eq!(registry.element("a", || 2, false), ElementState::Known(0));
        assert_eq!(registry.element("a", || 2, true), ElementState::Describe(0));
        registry.rollback();
        assert_eq!(registry.element("a", || 1, true), ElementState::Known(0));
    }
}
