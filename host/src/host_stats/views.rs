//! What a plugin saw of each family at its last run that ended well, so that it can tell what has
//! happened since without keeping anything itself.
//!
//! ```text
//! begin ──▶ pending ──commit──▶ previous      (and at the next run: previous beside now)
//!              └─────rollback──▶ forgotten
//! ```
//!
//! One of these belongs to a plugin's table in the config and outlives its instances. It holds at
//! most one reading of each family, and shares it with all others who saw the same.

use std::sync::Arc;

use super::{Family, Reading};

const FAMILIES: usize = Family::ALL.len();

/// The readings that a plugin may compare with.
#[derive(Debug, Default)]
pub struct Views {
    kept: [bool; FAMILIES],
    previous: [Option<Arc<Reading>>; FAMILIES],
    pending: [Option<Arc<Reading>>; FAMILIES],
}

/// What is handed to a plugin: the record `view` of `wit/host.wit`.
#[derive(Debug, Clone)]
pub struct View {
    pub now: Arc<Reading>,
    pub previous: Option<Arc<Reading>>,
    /// Microseconds between the two. 0 when a plugin runs twice in one slot (both are the same
    /// reading then), and when the clock was set back.
    pub elapsed_micros: Option<u64>,
}

impl Views {
    /// States of which families the previous reading is wanted, as the plugin's manifest lists
    /// them. What is held of others goes.
    pub fn keep(&mut self, families: impl IntoIterator<Item = Family>) {
        self.kept = [false; FAMILIES];
        families.into_iter().for_each(|family| self.kept[family as usize] = true);
        for (at, kept) in self.kept.iter().enumerate() {
            if !kept {
                self.previous[at] = None;
            }
        }
        self.rollback();
    }

    /// What the plugin's former context saw, as far as this one wants it.
    pub fn take_over(&mut self, former: &mut Self) {
        for (at, kept) in self.kept.iter().enumerate() {
            if *kept {
                self.previous[at] = former.previous[at].take();
            }
        }
    }

    /// The view of `now` in a running call; it becomes the previous one if the call ends well.
    pub fn begin(&mut self, family: Family, now: Arc<Reading>) -> View {
        let at = family as usize;
        if self.kept[at] {
            self.pending[at] = Some(now.clone());
        }
        let previous = self.previous[at].clone();
        let elapsed_micros =
            previous.as_ref().map(|previous| now.taken_micros.saturating_sub(previous.taken_micros));
        View { now, previous, elapsed_micros }
    }

    /// The call ended well. A family that it did not ask for keeps what it has.
    pub fn commit(&mut self) {
        for (previous, pending) in self.previous.iter_mut().zip(&mut self.pending) {
            if let Some(seen) = pending.take() {
                *previous = Some(seen);
            }
        }
    }

    /// The call failed or was killed: it has seen nothing.
    pub fn rollback(&mut self) {
        self.pending = Default::default();
    }

    /// What the previous readings cost, in bytes; those that other plugins share count in full.
    pub fn bytes(&self) -> usize {
        self.previous.iter().flatten().map(|reading| size_of::<Reading>() + reading.table.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::reading, *};

    fn views() -> Views {
        let mut views = Views::default();
        views.keep([Family::Cpu]);
        views
    }

    #[test]
    fn first_run_has_no_previous_and_the_next_has_the_last_good_one() {
        let mut views = views();
        let first = views.begin(Family::Cpu, reading(1_000));
        assert!(first.previous.is_none() && first.elapsed_micros.is_none());
        views.commit();
        let second = views.begin(Family::Cpu, reading(4_500));
        assert_eq!(second.previous.unwrap().taken_micros, 1_000);
        assert_eq!(second.elapsed_micros, Some(3_500));
    }

    #[test]
    fn call_that_failed_has_seen_nothing() {
        let mut views = views();
        views.begin(Family::Cpu, reading(1_000));
        views.commit();
        views.begin(Family::Cpu, reading(2_000));
        views.rollback();
        views.commit();
        assert_eq!(views.begin(Family::Cpu, reading(3_000)).elapsed_micros, Some(2_000));
    }

    #[test]
    fn asking_twice_in_a_call_gives_the_same_previous() {
        let mut views = views();
        views.begin(Family::Cpu, reading(1_000));
        views.commit();
        views.begin(Family::Cpu, reading(2_000));
        assert_eq!(views.begin(Family::Cpu, reading(2_000)).elapsed_micros, Some(1_000));
    }

    #[test]
    fn family_that_was_not_asked_for_keeps_its_previous() {
        let mut views = views();
        views.begin(Family::Cpu, reading(1_000));
        views.commit();
        views.commit();
        assert_eq!(views.begin(Family::Cpu, reading(9_000)).elapsed_micros, Some(8_000));
    }

    #[test]
    fn only_the_families_asked_for_are_kept() {
        let mut views = views();
        views.begin(Family::Memory, reading(1_000));
        views.commit();
        assert_eq!(views.bytes(), 0);
        assert!(views.begin(Family::Memory, reading(2_000)).previous.is_none());

        views.begin(Family::Cpu, reading(1_000));
        views.commit();
        assert!(views.bytes() > 0);
        views.keep([Family::Memory]);
        assert_eq!(views.bytes(), 0);
    }

    #[test]
    fn clock_that_was_set_back_gives_no_negative_time() {
        let mut views = views();
        views.begin(Family::Cpu, reading(5_000));
        views.commit();
        assert_eq!(views.begin(Family::Cpu, reading(1_000)).elapsed_micros, Some(0));
    }
}
