//! Batches in lanes: within a lane they keep their order, and the lane whose first batch is the
//! oldest comes first. A handler that wants batches by element has a lane for each.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::sample::{Batch, Millis};

/// A batch that waits.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Its place among all that wait; only pieces of one batch, in one lane, share it.
    pub(super) place: i64,
    /// When it entered the queue.
    pub(super) since: Millis,
    /// Which attempt comes next.
    pub(super) attempt: u32,
    pub(super) batch: Arc<Batch>,
}

/// A lane's name: 0, or the address of the element that all of its batches are of.
pub(super) type LaneKey = usize;

#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// None of them is empty.
    lanes: HashMap<LaneKey, VecDeque<Entry>>,
    /// The lanes by the places of their first entries.
    order: BTreeMap<i64, LaneKey>,
}

impl Lanes {
    pub(super) fn push_back(&mut self, lane: LaneKey, entry: Entry) {
        let entries = self.lanes.entry(lane).or_default();
        if entries.is_empty() {
            self.order.insert(entry.place, lane);
        }
        entries.push_back(entry);
    }

    pub(super) fn push_front(&mut self, lane: LaneKey, entry: Entry) {
        self.withdraw(lane);
        self.order.insert(entry.place, lane);
        self.lanes.entry(lane).or_default().push_front(entry);
    }

    /// The lane that has waited longest.
    pub(super) fn oldest(&self) -> Option<LaneKey> {
        self.order.first_key_value().map(|(_, &lane)| lane)
    }

    pub(super) fn front(&self, lane: LaneKey) -> Option<&Entry> {
        self.lanes.get(&lane)?.front()
    }

    pub(super) fn pop_front(&mut self, lane: LaneKey) -> Option<Entry> {
        self.withdraw(lane);
        let entries = self.lanes.get_mut(&lane)?;
        let entry = entries.pop_front();
        match entries.front() {
            Some(next) => drop(self.order.insert(next.place, lane)),
            None => drop(self.lanes.remove(&lane)),
        }
        if self.lanes.len() < self.lanes.capacity() / 4 {
            self.lanes.shrink_to(self.lanes.len() * 2);
        }
        entry
    }

    /// Takes everything out, the oldest first.
    pub(super) fn drain(&mut self) -> Vec<Entry> {
        self.order.clear();
        let mut entries: Vec<Entry> = self.lanes.drain().flat_map(|(_, entries)| entries).collect();
        entries.sort_by_key(|entry| entry.place);
        entries
    }

    /// Takes a lane out of the order.
    fn withdraw(&mut self, lane: LaneKey) {
        if let Some(place) = self.front(lane).map(|entry| entry.place) {
            self.order.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(place: i64) -> Entry {
        Entry { place, since: 0, attempt: 1, batch: Arc::default() }
    }

    #[test]
    fn lane_with_the_oldest_front_comes_first() {
        let mut lanes = Lanes::default();
        lanes.push_back(7, entry(1));
        lanes.push_back(8, entry(2));
        lanes.push_back(7, entry(3));
        let mut places = Vec::new();
        while let Some(lane) = lanes.oldest() {
            places.push((lane, lanes.pop_front(lane).unwrap().place));
        }
        assert_eq!(places, [(7, 1), (8, 2), (7, 3)]);
        assert!(lanes.lanes.is_empty() && lanes.order.is_empty());
    }

    #[test]
    fn what_is_put_in_front_comes_first() {
        let mut lanes = Lanes::default();
        lanes.push_back(7, entry(1));
        lanes.push_back(8, entry(2));
        lanes.push_front(8, entry(0));
        assert_eq!((lanes.oldest(), lanes.order.len()), (Some(8), 2));
        assert_eq!(lanes.drain().iter().map(|entry| entry.place).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(lanes.oldest(), None);
    }
}
