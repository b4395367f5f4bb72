//! The policy by itself, and with a queue: whatever handlers do, nothing is lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::outgoing::BatchForm;
use crate::outgoing::tests::samples;
use crate::queue::Queue;

const EVEN: RetryConfig = RetryConfig {
    backoff: Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60), jitter: 0.0 },
    longest_wish: Duration::from_secs(600),
};

fn rng() -> StdRng {
    StdRng::seed_from_u64(1)
}

/// A policy that has loaded samples with the values 0 … `count` − 1.
fn loaded(count: u32) -> DeliveryPolicy {
    let mut policy = DeliveryPolicy::new(EVEN);
    policy.load(Outgoing::new(samples(0..count), 0));
    policy
}

fn sent(policy: &mut DeliveryPolicy, now: Millis) -> Outgoing {
    match policy.next(now) {
        Next::Send(outgoing) => outgoing,
        other => panic!("expected something to send, not {other:?}"),
    }
}

fn answer(policy: &mut DeliveryPolicy, answer: Answer, now: Millis) -> Outcome {
    let outgoing = sent(policy, now);
    policy.answered(outgoing, answer, now, &mut rng())
}

fn kill(policy: &mut DeliveryPolicy, kill: Kill, now: Millis) -> Outcome {
    let outgoing = sent(policy, now);
    policy.killed(outgoing, kill, now, &mut rng())
}

fn retry(after: Option<u64>, done: Vec<Range<u32>>) -> Answer {
    Answer::Retry { after: after.map(Duration::from_secs), reason: "503".to_owned(), done }
}

fn reject(which: Vec<Range<u32>>) -> Answer {
    Answer::Reject { reason: "422".to_owned(), which }
}

fn too_large() -> Answer {
    Answer::TooLarge { reason: "413".to_owned() }
}

fn trap() -> Kill {
    Kill::ByBatch { reason: "trap".to_owned() }
}

fn values(batch: &Batch) -> Vec<u32> {
    batch.samples.iter().map(|sample| sample.value as u32).collect()
}

#[test]
fn delivered_batch_is_forgotten() {
    let mut policy = loaded(3);
    let bytes = policy.held[0].bytes();
    let outcome = answer(&mut policy, Answer::Delivered { unconfirmed: 2 }, 0);
    assert_eq!((outcome.verdict, outcome.settled_bytes), (Verdict::Delivered, bytes));
    assert!(matches!(policy.next(0), Next::Take));
    assert_eq!(policy.sums(), Delivered { delivered: 3, unconfirmed: 2, ..Delivered::default() });
}

#[test]
fn waits_double_and_start_anew_after_success() {
    let mut policy = loaded(1);
    let mut now = 0;
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        let outcome = answer(&mut policy, retry(None, vec![]), now);
        let until = now + seconds * 1000;
        assert_eq!(outcome.verdict, Verdict::Waits { until, reason: "503".to_owned() });
        assert!(matches!(policy.next(until - 1), Next::WaitUntil(time) if time == until));
        now = until;
    }
    assert_eq!((policy.failures(), policy.waiting()), (8, Some((now, "503"))));
    answer(&mut policy, Answer::Delivered { unconfirmed: 0 }, now);
    policy.load(Outgoing::new(samples(0..1), now));
    answer(&mut policy, retry(None, vec![]), now);
    assert!(matches!(policy.next(now), Next::WaitUntil(time) if time == now + 1000));
    assert_eq!(policy.sums().retried, 9);
}

#[test]
fn receivers_wish_is_kept_and_capped_and_never_makes_it_spin() {
    for (wish, least) in [(5, 5_000), (0, 1_000), (100_000, 600_000)] {
        let mut policy = loaded(1);
        answer(&mut policy, retry(Some(wish), vec![]), 0);
        let Some((until, _)) = policy.waiting() else { panic!("it does not wait") };
        assert!((least..=least * 5 / 4).contains(&until), "{wish} s lead to {until} ms");
    }
}

#[test]
fn what_a_retry_has_done_is_not_sent_again() {
    let mut policy = loaded(4);
    let outcome = answer(&mut policy, retry(None, vec![1..2, 2..3]), 0);
    let again = sent(&mut policy, 1000);
    assert_eq!((values(&again.batch), again.attempt), (vec![0, 3], 2));
    assert_eq!(outcome.settled_bytes, again.bytes());
    assert_eq!(policy.sums().delivered, 2);
}

#[test]
fn retry_that_has_done_all_is_a_delivery() {
    let mut policy = loaded(2);
    assert_eq!(answer(&mut policy, retry(None, vec![0..1, 1..2]), 0).verdict, Verdict::Delivered);
    assert!(matches!(policy.next(0), Next::Take));
    assert_eq!((policy.sums().delivered, policy.sums().retried), (2, 0));
}

#[test]
fn refused_items_are_set_aside_and_the_rest_counts_as_delivered() {
    let mut policy = loaded(4);
    let bytes = policy.held[0].bytes();
    let outcome = answer(&mut policy, reject(vec![1..2, 1..2]), 0);
    assert_eq!((outcome.verdict, outcome.settled_bytes), (Verdict::SetAside, bytes));
    let dead = outcome.dead.unwrap();
    assert_eq!((values(&dead.batch), &*dead.reason), (vec![1], "422"));
    let sums = Delivered { delivered: 3, rejected: 1, dead_lettered: 1, ..Delivered::default() };
    assert_eq!(policy.sums(), sums);
}

#[test]
fn refusal_that_names_nothing_means_all() {
    for which in [vec![], vec![7..8, 8..9]] {
        let mut policy = loaded(2);
        let dead = answer(&mut policy, reject(which), 0).dead.unwrap();
        assert_eq!((values(&dead.batch), policy.sums().delivered), (vec![0, 1], 0));
    }
}

#[test]
fn too_large_batch_is_halved_until_the_culprit_is_alone() {
    let mut policy = loaded(8);
    let mut dead = Vec::new();
    while let Next::Send(outgoing) = policy.next(0) {
        let is_refused = values(&outgoing.batch).contains(&5);
        let answer = if is_refused { too_large() } else { Answer::Delivered { unconfirmed: 0 } };
        dead.extend(policy.answered(outgoing, answer, 0, &mut rng()).dead);
    }
    assert_eq!(dead.iter().map(|dead| values(&dead.batch)).collect::<Vec<_>>(), [[5]]);
    let sums = Delivered { delivered: 7, rejected: 1, dead_lettered: 1, split: 3, ..Delivered::default() };
    assert_eq!(policy.sums(), sums);
}

#[test]
fn third_kill_makes_a_dead_letter() {
    let mut policy = loaded(2);
    for attempt in 1..=2 {
        assert_eq!(policy.held[0].attempt, attempt);
        assert_eq!(kill(&mut policy, trap(), 0).verdict, Verdict::Again { reason: "trap".to_owned() });
    }
    let outcome = kill(&mut policy, trap(), 0);
    assert_eq!(outcome.dead.unwrap().reason, "killed its handler 3 times, last: trap");
    assert!(matches!(policy.next(0), Next::Take));
    assert_eq!(policy.sums(), Delivered { dead_lettered: 2, ..Delivered::default() });
}

#[test]
fn call_that_hung_waits_and_counts_not_against_the_batch() {
    let mut policy = loaded(1);
    let mut now = 0;
    for _ in 0..5 {
        kill(&mut policy, Kill::Hung { reason: "deadline".to_owned() }, now);
        now = policy.waiting().unwrap().0;
    }
    assert_eq!((policy.failures(), policy.held[0].kills, policy.held[0].attempt), (5, 0, 6));
}

#[test]
fn innocent_kill_counts_for_nothing() {
    let mut policy = loaded(1);
    for _ in 0..5 {
        kill(&mut policy, Kill::Innocent, 0);
    }
    assert_eq!((policy.held(), policy.failures(), policy.sums()), (1, 0, Delivered::default()));
}

#[test]
fn batch_that_was_not_tried_comes_first_again_as_it_was() {
    let mut policy = loaded(2);
    policy.load(Outgoing::new(samples(2..3), 0));
    let outgoing = sent(&mut policy, 0);
    policy.unsent(outgoing);
    let again = sent(&mut policy, 0);
    assert_eq!((values(&again.batch), again.attempt), (vec![0, 1], 1));
}

#[test]
fn halt_holds_the_batch_until_resumed() {
    let mut policy = loaded(2);
    answer(&mut policy, Answer::Halt { reason: "401".to_owned() }, 7);
    assert_eq!(policy.halted(), Some((7, "401")));
    assert!(matches!(policy.next(Millis::MAX), Next::Halted));
    policy.resume();
    assert_eq!(values(&sent(&mut policy, 8).batch), [0, 1]);
    assert_eq!(policy.halted(), None);
}

#[test]
fn what_is_held_goes_back_to_the_queue_in_order() {
    let queue = Queue::new(1 << 20);
    queue.push(Arc::new(samples(0..5)), 0);
    let mut policy = DeliveryPolicy::new(EVEN);
    policy.load(queue.take(&BatchForm::default()).unwrap());
    answer(&mut policy, too_large(), 0);
    policy.give_back().for_each(|outgoing| queue.put_back(outgoing));
    assert_eq!(values(&queue.take(&BatchForm::default()).unwrap().batch), [0, 1, 2, 3, 4]);
}

/// An answer of a handler that has no character.
fn any_answer(rng: &mut StdRng) -> Answer {
    let ranges: Vec<Range<u32>> =
        (0..rng.random_range(0..3)).map(|_| rng.random_range(0..20)..rng.random_range(0..20)).collect();
    match rng.random_range(0..10) {
        0 | 1 => retry(Some(rng.random_range(0..100)), ranges),
        2 => reject(ranges),
        3 | 4 => too_large(),
        5 => Answer::Halt { reason: "401".to_owned() },
        _ => Answer::Delivered { unconfirmed: 0 },
    }
}

fn any_kill(rng: &mut StdRng) -> Kill {
    match rng.random_range(0..4) {
        0 => Kill::Innocent,
        1 => Kill::Hung { reason: "deadline".to_owned() },
        _ => trap(),
    }
}

#[test]
fn nothing_is_lost_whatever_handlers_do() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let queue = Queue::new(rng.random_range(1_000..20_000));
        let form = BatchForm { by_element: rng.random(), samples: rng.random_range(1..30), bytes: 2_000 };
        let mut policy = DeliveryPolicy::new(RetryConfig::default());
        let mut dead = BTreeSet::new();
        let (mut loaded, mut now, mut pushed) = (0, 0, 0);
        for _ in 0..500 {
            let more = rng.random_range(0..40);
            queue.push(Arc::new(samples(pushed..pushed + more)), now);
            pushed += more;
            match policy.next(now) {
                Next::Take => {
                    let taken = queue.take(&form);
                    loaded += taken.as_ref().map_or(0, Outgoing::len);
                    taken.into_iter().for_each(|outgoing| policy.load(outgoing));
                }
                Next::Send(outgoing) => {
                    let outcome = if rng.random_bool(0.2) {
                        let kill = any_kill(&mut rng);
                        policy.killed(outgoing, kill, now, &mut rng)
                    } else {
                        let answer = any_answer(&mut rng);
                        policy.answered(outgoing, answer, now, &mut rng)
                    };
                    queue.settle(outcome.settled_bytes);
                    for value in outcome.dead.iter().flat_map(|dead| values(&dead.batch)) {
                        assert!(dead.insert(value), "{value} was set aside twice");
                    }
                }
                Next::WaitUntil(until) => now = until,
                Next::Halted => policy.resume(),
            }
            if rng.random_bool(0.02) {
                loaded -= policy.held();
                policy.give_back().for_each(|outgoing| queue.put_back(outgoing));
            }
            let sums = policy.sums();
            let gone = sums.delivered + sums.dead_lettered;
            assert_eq!(loaded as u64, gone + policy.held() as u64, "seed {seed}");
            let accounted = gone + policy.held() as u64 + queue.len() as u64 + queue.evicted();
            assert_eq!(u64::from(pushed), accounted, "seed {seed}");
            assert_eq!(dead.len() as u64, sums.dead_lettered, "seed {seed}");
        }
        policy.give_back().for_each(|outgoing| queue.put_back(outgoing));
        let mut rest = 0;
        while let Some(outgoing) = queue.take(&form) {
            rest += outgoing.len() as u64;
            queue.settle(outgoing.bytes());
        }
        let sums = policy.sums();
        let accounted = sums.delivered + sums.dead_lettered + queue.evicted() + rest;
        assert_eq!((u64::from(pushed), queue.bytes()), (accounted, 0), "seed {seed}");
    }
}
