//! What waits for one handler, in memory: bounded in bytes, the oldest goes when it is full.
//!
//! ```text
//!             push                          take              settle
//! router ───────────▶ incoming ─▶ lanes ───────────▶ in flight ───────▶ gone
//!                        │          │                    │
//!                        └──────────┴─▶ evicted          └─ put_back ─▶ lanes
//!                        limit ≥ bytes that wait + bytes in flight
//! ```
//!
//! Collectors only ever append to `incoming`; forming batches is the consumer's work. A batch that
//! several handlers take is shared between their queues until one of them takes it.
//!
//! Uses: `sample`, `outgoing`. The lock is never held across an await.

mod lanes;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use self::lanes::{Entry, Lanes};
use crate::outgoing::{BatchForm, Outgoing, chop, element_key, owned, part_by_element};
use crate::sample::{Batch, Millis};

/// One handler's queue. Thread-safe; one consumer takes, anybody pushes.
#[derive(Debug)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug)]
struct Waiting {
    limit: usize,
    /// As it came, and when.
    incoming: VecDeque<(Millis, Arc<Batch>)>,
    /// As it will go.
    lanes: Lanes,
    by_element: bool,
    /// Place of the next entry behind all others in lanes.
    next: i64,
    /// Place of the next entry in front of all others.
    first: i64,
    items: usize,
    bytes: usize,
    in_flight: usize,
    /// When the oldest in flight entered the queue.
    in_flight_since: Option<Millis>,
    evicted: u64,
    pushed: u64,
}

impl Queue {
    /// `limit` in bytes as [`Batch::bytes`] counts them, what is in flight included.
    pub fn new(limit: usize) -> Self {
        let waiting = Waiting {
            limit,
            incoming: VecDeque::new(),
            lanes: Lanes::default(),
            by_element: false,
            next: 0,
            first: -1,
            items: 0,
            bytes: 0,
            in_flight: 0,
            in_flight_since: None,
            evicted: 0,
            pushed: 0,
        };
        Self { waiting: Mutex::new(waiting), wake: Notify::new() }
    }

    /// Adds a batch behind all others; where it does not fit the oldest go. Beyond half the limit
    /// the consumer is woken at once, else by [`Queue::wake`].
    pub fn push(&self, batch: Arc<Batch>, now: Millis) {
        if batch.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        waiting.items += batch.len();
        waiting.pushed += batch.len() as u64;
        waiting.bytes += batch.bytes();
        waiting.incoming.push_back((now, batch));
        waiting.evict();
        if waiting.bytes > waiting.limit / 2 {
            self.wake.notify_one();
        }
    }

    /// The slot has ended: wakes the consumer if there is anything for it.
    pub fn wake(&self) {
        if self.lock().items > 0 {
            self.wake.notify_one();
        }
    }

    /// Waits for a wake-up; one that came while nobody waited counts.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The oldest of what waits, formed as the handler wants it: small batches joined, big ones
    /// cut. It counts towards the limit until it is settled or put back.
    pub fn take(&self, form: &BatchForm) -> Option<Outgoing> {
        self.lock().take(form)
    }

    /// Bytes of what was taken have gone for good, wherever to.
    pub fn settle(&self, bytes: usize) {
        let mut waiting = self.lock();
        debug_assert!(bytes <= waiting.in_flight, "settled more than was taken");
        waiting.land(bytes);
    }

    /// Takes back what could not go, in front of all others. Several go back last one first.
    pub fn put_back(&self, outgoing: Outgoing) {
        if !outgoing.is_empty() {
            self.lock().put_back(outgoing);
        }
    }

    /// Changes the limit; what is beyond it goes at once.
    pub fn set_limit(&self, limit: usize) {
        let mut waiting = self.lock();
        waiting.limit = limit;
        waiting.evict();
    }

    /// How many items wait; what is in flight is not among them.
    pub fn len(&self) -> usize {
        self.lock().items
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that count towards the limit.
    pub fn bytes(&self) -> usize {
        let waiting = self.lock();
        waiting.bytes + waiting.in_flight
    }

    /// How many items ever came in.
    pub fn pushed(&self) -> u64 {
        self.lock().pushed
    }

    /// How many items were dropped because the queue was full.
    pub fn evicted(&self) -> u64 {
        self.lock().evicted
    }

    /// When the oldest came of what waits, or of what is in flight, too; none: there is nothing.
    pub fn oldest_since(&self, with_in_flight: bool) -> Option<Millis> {
        let waiting = self.lock();
        let in_lanes = waiting.lanes.oldest().and_then(|lane| waiting.lanes.front(lane));
        let first = in_lanes.map(|entry| entry.since).or(waiting.incoming.front().map(|&(since, _)| since));
        first.into_iter().chain(waiting.in_flight_since.filter(|_| with_in_flight)).min()
    }

    /// Whether what waits takes more than half the limit.
    pub fn is_filling(&self) -> bool {
        let waiting = self.lock();
        waiting.bytes > waiting.limit / 2
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn evict(&mut self) {
        while self.bytes + self.in_flight > self.limit {
            let oldest = match self.lanes.oldest() {
                Some(lane) => self.lanes.pop_front(lane).map(|entry| entry.batch),
                None => self.incoming.pop_front().map(|(_, batch)| batch),
            };
            let Some(batch) = oldest else { break };
            self.items -= batch.len();
            self.bytes -= batch.bytes();
            self.evicted += batch.len() as u64;
        }
    }

    fn take(&mut self, form: &BatchForm) -> Option<Outgoing> {
        self.sort(form.by_element);
        let lane = self.lanes.oldest()?;
        let Entry { place, since, attempt, batch } = self.lanes.pop_front(lane)?;
        let mut taken = Outgoing { attempt, ..Outgoing::new(Batch::default(), since) };
        let mut bytes = batch.bytes();
        if form.fits(batch.len(), bytes) {
            taken.batch = owned(batch);
            while let Some(next) = self.lanes.front(lane) {
                let more = next.batch.bytes();
                if !form.fits(taken.len() + next.batch.len(), bytes + more) {
                    break;
                }
                bytes += more;
                let Some(next) = self.lanes.pop_front(lane) else { break };
                taken.attempt = taken.attempt.max(next.attempt);
                taken.batch.append(owned(next.batch));
            }
        } else {
            let mut pieces = chop(owned(batch), form).into_iter();
            taken.batch = pieces.next()?;
            bytes = taken.bytes();
            for batch in pieces.rev().map(Arc::new) {
                self.lanes.push_front(lane, Entry { place, since, attempt, batch });
            }
        }
        self.items -= taken.len();
        self.bytes -= bytes;
        self.in_flight += bytes;
        self.in_flight_since = Some(self.in_flight_since.map_or(taken.since, |since| since.min(taken.since)));
        Some(taken)
    }

    /// Moves what came in to the lanes where it waits.
    fn sort(&mut self, by_element: bool) {
        let resorted = if by_element == self.by_element { Vec::new() } else { self.lanes.drain() };
        self.by_element = by_element;
        for Entry { since, attempt, batch, .. } in resorted {
            self.line_up(since, attempt, batch);
        }
        for (since, batch) in std::mem::take(&mut self.incoming) {
            self.line_up(since, 1, batch);
        }
    }

    /// Puts a batch, or its parts by element, behind all that is in lanes.
    fn line_up(&mut self, since: Millis, attempt: u32, batch: Arc<Batch>) {
        let parts = if self.by_element { part_by_element(batch) } else { vec![(0, batch)] };
        for (lane, batch) in parts {
            self.lanes.push_back(lane, Entry { place: self.next, since, attempt, batch });
            self.next += 1;
        }
    }

    fn land(&mut self, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        if self.in_flight == 0 {
            self.in_flight_since = None;
        }
    }

    fn put_back(&mut self, outgoing: Outgoing) {
        let bytes = outgoing.bytes();
        self.land(bytes);
        self.items += outgoing.len();
        self.bytes += bytes;
        let lane = match outgoing.batch.elements().next() {
            Some(element) if self.by_element => element_key(element),
            _ => 0,
        };
        let Outgoing { batch, attempt, since, .. } = outgoing;
        let entry = Entry { place: self.first, since, attempt, batch: Arc::new(batch) };
        self.first -= 1;
        self.lanes.push_front(lane, entry);
        self.evict();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::outgoing::tests::{element, event, sample, samples, series};
    use crate::sample::Sample;

    const EACH: usize = size_of::<Sample>();
    const ALL: BatchForm = BatchForm { by_element: false, samples: 1000, bytes: usize::MAX };
    const BY_ELEMENT: BatchForm = BatchForm { by_element: true, ..ALL };

    fn values(outgoing: &Outgoing) -> Vec<u32> {
        outgoing.batch.samples.iter().map(|sample| sample.value as u32).collect()
    }

    /// All that waits, batch by batch.
    fn drain(queue: &Queue, form: &BatchForm) -> Vec<Vec<u32>> {
        std::iter::from_fn(|| queue.take(form)).map(|outgoing| values(&outgoing)).collect()
    }

    fn is_woken(queue: &Queue) -> bool {
        pin!(queue.woken()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn small_batches_are_joined_and_big_ones_cut() {
        let queue = Queue::new(1 << 20);
        for batch in [0..2, 2..4, 4..15, 15..16] {
            queue.push(Arc::new(samples(batch)), 0);
        }
        let form = BatchForm { samples: 4, ..ALL };
        assert_eq!(drain(&queue, &form), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]);
    }

    #[test]
    fn full_queue_drops_the_oldest_batch() {
        let queue = Queue::new(4 * EACH);
        for batch in [0..2, 2..4, 4..5] {
            queue.push(Arc::new(samples(batch)), 0);
        }
        assert_eq!((queue.len(), queue.bytes(), queue.evicted()), (3, 3 * EACH, 2));
        assert_eq!(drain(&queue, &ALL), [[2, 3, 4]]);
    }

    #[test]
    fn batch_beyond_the_limit_is_dropped_itself() {
        let queue = Queue::new(4 * EACH);
        queue.push(Arc::new(samples(0..5)), 0);
        assert_eq!((queue.len(), queue.bytes(), queue.evicted()), (0, 0, 5));
    }

    #[test]
    fn what_is_in_flight_counts_until_it_is_settled() {
        let queue = Queue::new(4 * EACH);
        queue.push(Arc::new(samples(0..3)), 0);
        let taken = queue.take(&ALL).unwrap();
        assert_eq!((queue.len(), queue.bytes()), (0, 3 * EACH));
        queue.push(Arc::new(samples(3..5)), 0);
        assert_eq!((queue.len(), queue.evicted()), (0, 2));
        queue.settle(taken.bytes());
        queue.push(Arc::new(samples(5..9)), 0);
        assert_eq!((queue.len(), queue.evicted()), (4, 2));
    }

    #[test]
    fn what_is_put_back_comes_first_again() {
        let queue = Queue::new(1 << 20);
        queue.push(Arc::new(samples(0..2)), 5);
        let mut taken = queue.take(&ALL).unwrap();
        taken.attempt = 3;
        queue.push(Arc::new(samples(2..3)), 9);
        let (first, second) = taken.split();
        queue.put_back(second);
        queue.put_back(first);
        assert_eq!(queue.oldest_since(false), Some(5));
        let again = queue.take(&ALL).unwrap();
        assert_eq!((values(&again), again.attempt, again.since), (vec![0, 1, 2], 3, 5));
        queue.settle(again.bytes());
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn joined_batch_counts_the_attempts_of_the_part_that_had_most() {
        let queue = Queue::new(1 << 20);
        queue.push(Arc::new(samples(0..4)), 0);
        let half = BatchForm { samples: 2, ..ALL };
        let (first, mut second) = (queue.take(&half).unwrap(), queue.take(&half).unwrap());
        second.attempt = 3;
        queue.put_back(second);
        queue.put_back(first);
        let all = queue.take(&ALL).unwrap();
        assert_eq!((values(&all), all.attempt), (vec![0, 1, 2, 3], 3));
    }

    #[test]
    fn batches_by_element_keep_the_order_of_each() {
        let (web, disk) = (element("web-1"), element("sda"));
        let (load, reads) = (series(&web, "load", 1), series(&disk, "reads", 1));
        let queue = Queue::new(1 << 20);
        for round in 0..3 {
            let samples = vec![sample(&load, f64::from(round)), sample(&reads, f64::from(round + 10))];
            queue.push(Arc::new(Batch { samples, ..Batch::default() }), 0);
        }
        assert_eq!(drain(&queue, &BY_ELEMENT), [[0, 1, 2], [10, 11, 12]]);
    }

    #[test]
    fn handler_that_changes_its_form_loses_nothing() {
        let (web, disk) = (element("web-1"), element("sda"));
        let queue = Queue::new(1 << 20);
        let batch = Batch {
            samples: vec![sample(&series(&web, "load", 1), 0.0), sample(&series(&disk, "reads", 1), 1.0)],
            events: vec![event(&disk, "e")],
            ..Batch::default()
        };
        queue.push(Arc::new(batch.clone()), 0);
        queue.push(Arc::new(batch), 0);
        let web_only = queue.take(&BY_ELEMENT).unwrap();
        assert_eq!((web_only.batch.samples.len(), web_only.batch.events.len()), (2, 0));
        let rest = queue.take(&ALL).unwrap();
        assert_eq!((rest.batch.samples.len(), rest.batch.events.len()), (2, 2));
        queue.put_back(rest);
        queue.put_back(web_only);
        let all = queue.take(&ALL).unwrap();
        assert_eq!((all.len(), queue.len()), (6, 0));
    }

    #[test]
    fn age_is_that_of_the_oldest_in_flight_or_not() {
        let queue = Queue::new(1 << 20);
        assert_eq!(queue.oldest_since(true), None);
        queue.push(Arc::new(samples(0..1)), 100);
        let taken = queue.take(&ALL).unwrap();
        queue.push(Arc::new(samples(1..2)), 200);
        assert_eq!(queue.oldest_since(true), Some(100));
        queue.settle(taken.bytes());
        assert_eq!(queue.oldest_since(true), Some(200));
    }

    #[test]
    fn consumer_is_woken_at_the_slots_end_or_beyond_half_the_limit() {
        let queue = Queue::new(4 * EACH);
        queue.wake();
        assert!(!is_woken(&queue));
        queue.push(Arc::new(samples(0..2)), 0);
        assert!(!is_woken(&queue));
        queue.wake();
        assert!(is_woken(&queue) && !is_woken(&queue));
        queue.push(Arc::new(samples(2..3)), 0);
        assert!(is_woken(&queue));
    }

    #[test]
    fn lower_limit_evicts_at_once() {
        let queue = Queue::new(4 * EACH);
        queue.push(Arc::new(samples(0..1)), 0);
        queue.push(Arc::new(samples(1..4)), 0);
        queue.set_limit(3 * EACH);
        assert_eq!((queue.len(), queue.evicted()), (3, 1));
    }
}
