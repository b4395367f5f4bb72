//! When each collector is due: slots, splay, skipped runs.
//!
//! ```text
//!             ├────────── interval ──────────┤
//! wall clock  ┼──────────────────────────────┼────────────────────────────▶
//!             ├ splay ┤                      ├ splay ┤
//! slots               1  2  3                        1  2  3
//! ```
//!
//! Slot 1 takes the first 32 collectors of an interval, slot 2, 20 ms later, the next 32, and so
//! on. The splay is the machine's own, so that a fleet does not start as one.
//!
//! Everything runs once at its start and then on its slots. All collectors of one interval that
//! fit share a slot, and with them a reading of /proc and a flush of each handler; intervals that
//! divide each other meet, too. A run that is late past its next slot is skipped and counted,
//! never piled up. Where the wall clock is set back, everybody is fitted into the new time; where
//! it is set forward, or the machine slept, each one runs once.
//!
//! Time (of the wall clock) is an argument everywhere, so nothing here waits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::sample::Millis;

/// How many collectors of one interval share a slot.
pub const SLOT_CAPACITY: usize = 32;
/// Slots of one interval that follow each other are this far apart; if that is not enough for
/// all, the gaps are halved.
const SPREAD: Millis = 20;
/// Between the run at the start and the first slot lies at least this or half the interval:
/// rates over a few milliseconds would be noise.
const LEAST_GAP: Millis = 1_000;
/// Even with nothing due, the wall clock is looked at this often: it may have been set, or the
/// machine may have slept.
const LONGEST_SLEEP: Millis = 60_000;

/// A run that is to start now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due<Id> {
    pub id: Id,
    /// The slot's instant: the timestamp of the run's samples.
    pub due: Millis,
    /// The slot's number; it rises by one with each interval.
    pub slot: u64,
    /// How many slots right before this one passed without a run.
    pub skipped: u32,
}

/// Plans the runs of all collectors. `Id` names a collector; those that are due together come in
/// its order.
#[derive(Debug)]
pub struct Schedule<Id> {
    /// Which part of each interval the machine's slots lie behind the wall clock's round times.
    splay: u64,
    plans: BTreeMap<Id, Plan>,
    /// The due time of each plan.
    queue: BTreeSet<(Millis, Id)>,
    /// For each interval, how many collectors each of its slots has.
    slots: BTreeMap<Millis, Vec<usize>>,
    /// The latest time it has been told.
    now: Millis,
}

#[derive(Debug)]
struct Plan {
    /// Its slots are at `phase + n * interval`.
    interval: Millis,
    phase: Millis,
    /// Which of the interval's slots it has.
    place: usize,
    due: Millis,
    /// The slot behind `due`.
    next: Millis,
    /// Slots without a run since the last run.
    skipped: u32,
    skipped_ever: u64,
}

impl<Id: Clone + Ord> Schedule<Id> {
    /// For the machine whose agent has this id, which decides its splay.
    pub fn new(agent_id: &str) -> Self {
        Self {
            splay: stable_hash(agent_id),
            plans: BTreeMap::new(),
            queue: BTreeSet::new(),
            slots: BTreeMap::new(),
            now: 0,
        }
    }

    /// Adds a collector; it is due at once (beyond the first 32 of its interval: within the
    /// interval) and then at its slots. One that is there already and keeps its interval keeps
    /// its slots; with a new interval it goes on with the next slot, old or new. Less than a
    /// millisecond counts as one.
    pub fn insert(&mut self, id: Id, interval: Duration, now: Millis) {
        let interval =
            Millis::try_from(interval.as_millis()).unwrap_or(Millis::MAX / 4).clamp(1, Millis::MAX / 4);
        if self.plans.get(&id).is_some_and(|plan| plan.interval == interval) {
            return;
        }
        let old = self.take_out(&id);
        let place = self.take_place(interval);
        let delay = delay(place, interval);
        let mut plan = Plan {
            interval,
            phase: (self.splay % interval + delay) % interval,
            place,
            due: now.saturating_add(delay),
            next: 0,
            skipped: 0,
            skipped_ever: 0,
        };
        if let Some(old) = old {
            plan.due = plan.slot_after_gap(now).min(old.due);
            plan.skipped_ever = old.skipped_ever;
        }
        plan.next = plan.slot_after_gap(plan.due);
        self.queue.insert((plan.due, id.clone()));
        self.plans.insert(id, plan);
    }

    /// Forgets a collector; false: it was not there.
    pub fn remove(&mut self, id: &Id) -> bool {
        self.take_out(id).is_some()
    }

    /// When the next run is due.
    pub fn next_due(&self) -> Option<Millis> {
        self.queue.first().map(|&(due, _)| due)
    }

    /// How long to wait before asking again: until the next run is due, and never longer than a
    /// minute, so that a wall clock that was set, or a suspended machine, is noticed.
    pub fn wait(&self, now: Millis) -> Duration {
        let wait = self.next_due().map_or(LONGEST_SLEEP, |due| due.saturating_sub(now));
        Duration::from_millis(wait.min(LONGEST_SLEEP))
    }

    /// All runs that are due, in the order of their slots. Each is the caller's to start or to
    /// give back with [`Schedule::busy`].
    pub fn take_due(&mut self, now: Millis) -> Vec<Due<Id>> {
        if now < self.now {
            self.realign(now);
        }
        self.now = now;
        let mut runs = Vec::new();
        while self.queue.first().is_some_and(|&(due, _)| due <= now) {
            let Some((_, id)) = self.queue.pop_first() else { break };
            let Some(plan) = self.plans.get_mut(&id) else { continue };
            runs.push(plan.take(id.clone(), now));
            self.queue.insert((plan.due, id));
        }
        runs.sort_by(|a, b| (a.due, &a.id).cmp(&(b.due, &b.id)));
        runs
    }

    /// A run could not start because the one before it has not ended: its slot counts as skipped.
    pub fn busy(&mut self, run: &Due<Id>) {
        if let Some(plan) = self.plans.get_mut(&run.id) {
            plan.skipped = run.skipped.saturating_add(1);
            plan.skipped_ever += 1;
        }
    }

    /// How many slots of this collector ever passed without a run.
    pub fn skipped(&self, id: &Id) -> u64 {
        self.plans.get(id).map_or(0, |plan| plan.skipped_ever)
    }

    pub fn len(&self) -> usize {
        self.plans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// The wall clock was set back: nobody waits for longer than two intervals. What is nearer
    /// stays, or a clock that is corrected by a little would run a slot twice.
    fn realign(&mut self, now: Millis) {
        for (id, plan) in &mut self.plans {
            if plan.due.saturating_sub(now) <= 2 * plan.interval {
                continue;
            }
            self.queue.remove(&(plan.due, id.clone()));
            plan.due = plan.slot_after_gap(now);
            plan.next = plan.due.saturating_add(plan.interval);
            self.queue.insert((plan.due, id.clone()));
        }
    }

    fn take_out(&mut self, id: &Id) -> Option<Plan> {
        let plan = self.plans.remove(id)?;
        self.queue.remove(&(plan.due, id.clone()));
        if let Some(slots) = self.slots.get_mut(&plan.interval) {
            slots[plan.place] -= 1;
            if slots.iter().all(|&count| count == 0) {
                self.slots.remove(&plan.interval);
            }
        }
        Some(plan)
    }

    /// The first slot with room, else the one with the fewest collectors.
    fn take_place(&mut self, interval: Millis) -> usize {
        let slots = self.slots.entry(interval).or_default();
        let place = slots.iter().position(|&count| count < SLOT_CAPACITY).unwrap_or_else(|| {
            if (slots.len() as u64) < places(interval) {
                slots.push(0);
                return slots.len() - 1;
            }
            (0..slots.len()).min_by_key(|&place| slots[place]).unwrap_or(0)
        });
        slots[place] += 1;
        place
    }
}

impl Plan {
    /// The run that is due at `now`, which is not before `due`; and on to the slot behind it.
    fn take<Id>(&mut self, id: Id, now: Millis) -> Due<Id> {
        let mut due = self.due;
        let mut missed = 0;
        if now >= self.next {
            let further = (now - self.next) / self.interval;
            due = self.next + further * self.interval;
            missed = further + 1;
            self.next = due.saturating_add(self.interval);
        }
        self.due = self.next;
        self.next = self.due.saturating_add(self.interval);
        self.skipped_ever = self.skipped_ever.saturating_add(missed);
        let skipped = self.skipped.saturating_add(u32::try_from(missed).unwrap_or(u32::MAX));
        self.skipped = 0;
        // An interval more, for there are times before the first slot of 1970.
        let slot = (due.saturating_add(self.interval) - self.phase) / self.interval;
        Due { id, due, slot, skipped }
    }

    /// The first slot that is at least the least gap behind `time`.
    fn slot_after_gap(&self, time: Millis) -> Millis {
        let earliest = time.saturating_add(LEAST_GAP.min(self.interval / 2));
        let slots = earliest.saturating_sub(self.phase).div_ceil(self.interval);
        self.phase.saturating_add(slots.saturating_mul(self.interval))
    }
}

/// How many slots an interval has room for: every 20 ms, and then between those.
fn places(interval: Millis) -> u64 {
    2 * (interval / SPREAD).max(1)
}

/// How far a slot lies behind the first one of its interval.
fn delay(place: usize, interval: Millis) -> Millis {
    let (place, half) = (place as u64, places(interval) / 2);
    if place < half { place * SPREAD } else { (place - half) * SPREAD + SPREAD / 2 }
}

/// FNV-1a: the same in every version of the agent, so that an update moves no slot.
fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Millis = 1_760_000_000_123;
    const HOUR: Millis = 3_600_000;
    const DAY: Millis = 24 * HOUR;

    const fn ms(ms: Millis) -> Duration {
        Duration::from_millis(ms)
    }

    fn schedule(count: u32, interval: Millis) -> Schedule<u32> {
        let mut schedule = Schedule::new("agent-1");
        for id in 0..count {
            schedule.insert(id, ms(interval), START);
        }
        schedule
    }

    /// One collector that has had its first run; and its next slot.
    fn under_way(interval: Millis) -> (Schedule<u32>, Millis) {
        let mut schedule = schedule(1, interval);
        schedule.take_due(START);
        let slot = schedule.next_due().unwrap();
        (schedule, slot)
    }

    fn take_one(schedule: &mut Schedule<u32>, now: Millis) -> Due<u32> {
        let mut runs = schedule.take_due(now);
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs.remove(0)
    }

    /// Runs everything punctually until `end`.
    fn run_until(schedule: &mut Schedule<u32>, end: Millis) -> Vec<Due<u32>> {
        let mut runs = Vec::new();
        while let Some(due) = schedule.next_due().filter(|&due| due < end) {
            runs.extend(schedule.take_due(due));
        }
        runs
    }

    #[test]
    fn everything_runs_at_once_and_then_together_on_its_slots() {
        let mut schedule = schedule(7, 10_000);
        let first = schedule.take_due(START);
        assert!(first.iter().map(|run| run.id).eq(0..7));
        assert!(first.iter().all(|run| run.due == START && run.skipped == 0));
        assert_eq!(schedule.take_due(START), []);

        let slot = schedule.next_due().unwrap();
        assert!((START + 1_000..START + 11_000).contains(&slot));
        assert_eq!(schedule.take_due(slot - 1), []);
        for n in 0..10 {
            let runs = schedule.take_due(slot + n * 10_000);
            assert_eq!(runs.len(), 7);
            assert!(runs.iter().all(|run| run.due == slot + n * 10_000 && run.slot == runs[0].slot));
            assert_eq!(schedule.next_due(), Some(slot + (n + 1) * 10_000));
        }
    }

    #[test]
    fn slots_are_where_they_were_whenever_the_agent_starts() {
        for interval in [100, 1_000, 10_000, 60_000, DAY] {
            let (_, slot) = under_way(interval);
            for start in [0, 1, START + 17, START + 12_345_678] {
                let mut schedule = Schedule::new("agent-1");
                schedule.insert(1, ms(interval), start);
                schedule.take_due(start);
                let due = schedule.next_due().unwrap();
                assert_eq!(due % interval, slot % interval);
                assert!(due >= start + LEAST_GAP.min(interval / 2), "a first rate over too little time");
            }
        }
    }

    #[test]
    fn slot_numbers_rise_by_one() {
        let mut schedule = schedule(1, 1_000);
        let runs = run_until(&mut schedule, START + 20_000);
        assert!(runs[0].slot < runs[1].slot);
        assert!(runs[1..].windows(2).all(|pair| pair[1].slot == pair[0].slot + 1));
    }

    #[test]
    fn intervals_that_divide_each_other_meet() {
        let (_, of_seconds) = under_way(1_000);
        let (_, of_minutes) = under_way(60_000);
        assert_eq!(of_minutes % 1_000, of_seconds % 1_000);
    }

    #[test]
    fn each_machine_has_its_own_splay_for_ever() {
        assert_eq!(stable_hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(stable_hash("foobar"), 0x8594_4171_f739_67e8);
        let phases: BTreeSet<_> =
            (0..100).map(|n| stable_hash(&format!("agent-{n}")) % 60_000 / 6_000).collect();
        assert_eq!(phases.len(), 10, "a fleet is spread over the whole interval");
    }

    #[test]
    fn a_thousand_collectors_never_share_a_slot_by_more_than_32() {
        let mut schedule = schedule(1000, 1_000);
        let runs = run_until(&mut schedule, START + 5_000);
        let mut slots = BTreeMap::<Millis, usize>::new();
        for run in &runs {
            *slots.entry(run.due).or_default() += 1;
        }
        assert!(slots.values().all(|&count| count <= SLOT_CAPACITY), "{slots:?}");
        let on_grid: Vec<_> = slots.keys().filter(|&&due| due > START + 2_000).collect();
        assert!(on_grid.windows(2).all(|pair| pair[1] - pair[0] >= 10));
        assert!(runs.iter().all(|run| run.skipped == 0));
    }

    #[test]
    fn more_than_an_interval_can_take_is_spread_evenly() {
        let mut schedule = schedule(1000, 100);
        run_until(&mut schedule, START + 1_000);
        let runs = run_until(&mut schedule, START + 1_100);
        let mut slots = BTreeMap::<Millis, usize>::new();
        for run in &runs {
            *slots.entry(run.due).or_default() += 1;
        }
        assert_eq!(slots.values().copied().collect::<Vec<_>>(), [100; 10]);
    }

    #[test]
    fn ten_thousand_run_once_in_each_interval() {
        let mut schedule = schedule(10_000, 60_000);
        run_until(&mut schedule, START + 120_000);
        let mut ids: Vec<u32> = run_until(&mut schedule, START + 180_000).iter().map(|run| run.id).collect();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..10_000));
    }

    #[test]
    fn a_late_run_has_its_slots_timestamp() {
        let (mut schedule, slot) = under_way(10_000);
        let run = take_one(&mut schedule, slot + 9_999);
        assert_eq!((run.due, run.skipped), (slot, 0));
        assert_eq!(schedule.next_due(), Some(slot + 10_000));
    }

    #[test]
    fn a_run_late_past_its_next_slot_is_skipped_and_counted() {
        let (mut schedule, slot) = under_way(10_000);
        let run = take_one(&mut schedule, slot + 10_000);
        assert_eq!((run.due, run.skipped), (slot + 10_000, 1));
        let run = take_one(&mut schedule, slot + 55_000);
        assert_eq!((run.due, run.skipped), (slot + 50_000, 3));
        assert_eq!((schedule.next_due(), schedule.skipped(&0)), (Some(slot + 60_000), 4));
    }

    #[test]
    fn a_first_run_that_is_late_counts_only_slots_it_would_have_had() {
        let mut schedule = schedule(1, 10_000);
        let (_, slot) = under_way(10_000);
        let run = take_one(&mut schedule, slot - 1);
        assert_eq!((run.due, run.skipped), (START, 0));

        let mut schedule = self::schedule(1, 10_000);
        let run = take_one(&mut schedule, slot);
        assert_eq!((run.due, run.skipped), (slot, 1));
    }

    #[test]
    fn slots_of_a_busy_collector_are_skipped_and_told_to_the_next_run() {
        let (mut schedule, slot) = under_way(1_000);
        for n in 0..5 {
            let run = take_one(&mut schedule, slot + n * 1_000);
            assert_eq!(u64::from(run.skipped), n);
            schedule.busy(&run);
        }
        assert_eq!(take_one(&mut schedule, slot + 5_000).skipped, 5);
        assert_eq!(take_one(&mut schedule, slot + 6_000).skipped, 0);
        assert_eq!(schedule.skipped(&0), 5);
    }

    #[test]
    fn a_forward_jump_or_suspend_gives_one_run_and_counts_the_rest() {
        let mut schedule = schedule(100, 1_000);
        run_until(&mut schedule, START + 5_000);
        let now = START + 5_000 + HOUR;
        let runs = schedule.take_due(now);
        assert_eq!(runs.len(), 100);
        assert!(runs.iter().all(|run| run.due + 1_000 > now && run.due <= now));
        assert!(runs.iter().all(|run| (3_599..=3_600).contains(&run.skipped)));
        assert!(runs.is_sorted_by_key(|run| (run.due, run.id)));
        assert!(run_until(&mut schedule, now + 5_000).iter().all(|run| run.skipped == 0));
    }

    #[test]
    fn after_a_backward_jump_nobody_waits_for_the_old_time() {
        for interval in [100, 1_000, 10_000, 60_000] {
            let (mut schedule, slot) = under_way(interval);
            take_one(&mut schedule, slot);
            let now = slot - HOUR + 3;
            assert_eq!(schedule.take_due(now), []);
            let due = schedule.next_due().unwrap();
            assert!(due > now && due <= now + 2 * interval);
            assert_eq!(due % interval, slot % interval);
            assert_eq!(take_one(&mut schedule, due).skipped, 0);
        }
    }

    #[test]
    fn there_and_back_again() {
        let (mut schedule, slot) = under_way(1_000);
        take_one(&mut schedule, slot + HOUR);
        schedule.take_due(slot + 10);
        let runs = run_until(&mut schedule, slot + 10_000);
        assert!((8..=9).contains(&runs.len()) && runs.iter().all(|run| run.skipped == 0));
    }

    #[test]
    fn a_clock_corrected_by_a_little_runs_no_slot_twice() {
        for little in [5, 600, 999] {
            let (mut schedule, slot) = under_way(1_000);
            take_one(&mut schedule, slot);
            assert_eq!(schedule.take_due(slot - little), []);
            assert_eq!(schedule.take_due(slot), []);
            assert_eq!(take_one(&mut schedule, slot + 1_000).due, slot + 1_000);
        }
    }

    #[test]
    fn a_daily_run_that_was_slept_through_comes_on_waking() {
        let (mut schedule, slot) = under_way(DAY);
        let run = take_one(&mut schedule, slot + 3 * HOUR);
        assert_eq!((run.due, run.skipped), (slot, 0));
        schedule.take_due(slot + 2 * HOUR);
        assert_eq!(schedule.next_due(), Some(slot + DAY), "an hour back is nothing to a day");
    }

    #[test]
    fn weeks_pass_without_drift() {
        let mut schedule = schedule(7, 60_000);
        let runs = run_until(&mut schedule, START + 14 * DAY);
        let per_week = 7 * 7 * DAY / 60_000;
        assert!((2 * per_week - 7..=2 * per_week + 7).contains(&(runs.len() as u64)));
        let last = runs.last().unwrap();
        assert_eq!(last.due % 60_000, runs[7].due % 60_000);
        assert!((0..7).all(|id| schedule.skipped(&id) == 0));
    }

    #[test]
    fn the_wait_ends_with_the_next_slot_and_after_a_minute() {
        let (schedule, slot) = under_way(DAY);
        assert_eq!(schedule.wait(slot - 1_000), ms(1_000));
        assert_eq!(schedule.wait(slot - HOUR), ms(60_000));
        assert_eq!(schedule.wait(slot + 1), ms(0));
        assert_eq!(Schedule::<u32>::new("").wait(START), ms(60_000));
    }

    #[test]
    fn who_is_removed_runs_no_more_and_leaves_room() {
        let mut schedule = schedule(33, 1_000);
        assert!(schedule.remove(&5) && !schedule.remove(&5));
        schedule.insert(40, ms(1_000), START);
        let ids: Vec<u32> = schedule.take_due(START).iter().map(|run| run.id).collect();
        assert!(ids.len() == 32 && ids.contains(&40) && !ids.contains(&5));
        for id in 0..=40 {
            schedule.remove(&id);
        }
        assert!(schedule.is_empty() && schedule.slots.is_empty());
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn a_collector_that_is_inserted_again_keeps_its_slots() {
        let (mut schedule, slot) = under_way(10_000);
        schedule.insert(0, ms(10_000), slot - 500);
        assert_eq!((schedule.next_due(), schedule.len()), (Some(slot), 1));
    }

    #[test]
    fn a_changed_interval_goes_on_with_the_next_slot_of_either() {
        let (mut schedule, slot) = under_way(HOUR);
        let now = slot - 1_800_000;
        schedule.insert(0, ms(10_000), now);
        let runs = run_until(&mut schedule, now + 60_000);
        assert!(runs[0].due >= now + 1_000 && (5..=6).contains(&runs.len()));

        let (mut schedule, slot) = under_way(10_000);
        schedule.insert(0, ms(DAY), slot - 5_000);
        assert_eq!(take_one(&mut schedule, slot).due, slot);
        assert!(schedule.next_due().unwrap() >= slot + 1_000);
    }

    #[test]
    fn absurd_times_do_no_harm() {
        for interval in [Duration::ZERO, ms(1), ms(7), ms(19), Duration::MAX] {
            for start in [0, START, Millis::MAX / 2] {
                let mut schedule = Schedule::new("agent-1");
                for id in 0..100 {
                    schedule.insert(id, interval, start);
                }
                for now in [start, 0, Millis::MAX / 2, START] {
                    schedule.take_due(now);
                }
            }
        }
    }
}
