//! Who has to go where something new would pass a limit: the longest unused, and nothing that this
//! run names.

use std::collections::HashSet;

use super::SeriesTable;
use super::entry::Identity;
use crate::collected::{Collected, NamedSample, SeriesDescription};
use crate::sample::Millis;

impl SeriesTable {
    /// Where new elements would pass the limit, lets idle ones go that this run does not name.
    pub(super) fn make_room_for_elements(&mut self, collected: &Collected) {
        let new = collected.elements.iter().filter(|element| !self.elements.knows(&element.id)).count();
        let missing = (self.elements.len() + new).saturating_sub(self.config.limits.elements);
        if missing == 0 {
            return;
        }
        let handles: HashSet<u32> = (collected.series.iter().filter_map(|series| series.element))
            .chain(collected.samples.iter().filter_map(|sample| sample.element))
            .chain(collected.events.iter().filter_map(|event| event.element))
            .chain(collected.checks.iter().filter_map(|check| check.element))
            .collect();
        let ids: HashSet<&str> = collected.elements.iter().map(|element| &*element.id).collect();
        self.elements.mark_oldest(missing, |id, handle| {
            ids.contains(id) || handle.is_some_and(|handle| handles.contains(&handle))
        });
        self.elements.sweep(&mut self.untold.elements);
    }

    /// The same for series; `used` are the handles of this run's values.
    pub(super) fn make_room_for_series(
        &mut self,
        described: &[SeriesDescription],
        named: &[NamedSample],
        used: impl Iterator<Item = u32>,
    ) {
        let limit = self.config.limits.series;
        if self.series.len() + described.len() + named.len() <= limit {
            return;
        }
        let mut needed = vec![false; self.series.len()];
        let mut new = HashSet::new();
        let identities = (described.iter().map(|series| (series.element, &*series.name)))
            .chain(named.iter().map(|sample| (sample.element, &*sample.name)));
        for (element, name) in identities {
            let Ok(element) = self.elements.get(element) else { continue };
            let identity = Identity::new(element, name);
            match self.series.get_index_of(&identity) {
                Some(slot) => needed[slot] = true,
                None => drop(new.insert(identity)),
            }
        }
        let missing = (self.series.len() + new.len()).saturating_sub(limit);
        if missing == 0 {
            return;
        }
        for slot in used.filter_map(|handle| self.handles.slot(handle)) {
            needed[slot] = true;
        }
        let slots = self.series.values().enumerate();
        let mut idle: Vec<(Millis, usize)> =
            slots.filter(|&(slot, _)| !needed[slot]).map(|(slot, state)| (state.used, slot)).collect();
        idle.sort_unstable();
        for (_, slot) in idle.into_iter().take(missing) {
            self.series[slot].gone = true;
        }
        self.sweep_series();
    }
}
