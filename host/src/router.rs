//! Brings batches to the handlers: each gets what its filter selects, whole batches shared.
//!
//! ```text
//!              Series.handlers        bit 0 ─▶ queue of `metricly`
//! batch ──────────────────────────▶   bit 1 ─▶ queue of `graphite`
//!          events, checks: to all     bit 2    (free)
//! ```
//!
//! Uses: `sample`, `routes`, `queue`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::queue::Queue;
use crate::routes::{Filter, MOST_HANDLERS, Routes};
use crate::sample::{Batch, Millis};

/// More handlers than there are bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} handlers are configured, there can be at most {MOST_HANDLERS}")]
pub struct TooManyHandlers(usize);

/// All handlers' queues. One for the whole agent; what it knows of handlers is replaced as a whole.
#[derive(Debug, Default)]
pub struct Router {
    handlers: RwLock<Handlers>,
    samples: AtomicU64,
}

#[derive(Debug, Clone, Default)]
struct Handlers {
    routes: Arc<Routes>,
    queues: Arc<[(u32, Arc<Queue>)]>,
}

impl Router {
    /// Sets which handlers there are. A queue that was there before keeps its bit, so series that
    /// have not heard of the change yet still go the right way. The answer is for
    /// [`crate::series::SeriesTable::reconfigure`].
    pub fn set_handlers(&self, handlers: Vec<(Arc<Queue>, Filter)>) -> Result<Arc<Routes>, TooManyHandlers> {
        if handlers.len() > MOST_HANDLERS {
            return Err(TooManyHandlers(handlers.len()));
        }
        let mut current = self.handlers.write().unwrap_or_else(PoisonError::into_inner);
        let kept = |queue: &Arc<Queue>| {
            current.queues.iter().find(|(_, known)| Arc::ptr_eq(known, queue)).map(|&(bit, _)| bit)
        };
        let taken: Vec<u32> = handlers.iter().filter_map(|(queue, _)| kept(queue)).collect();
        let mut free = (0..MOST_HANDLERS as u32).filter(|bit| !taken.contains(bit));
        let numbered: Vec<(u32, Arc<Queue>, Filter)> = handlers
            .into_iter()
            .filter_map(|(queue, filter)| Some((kept(&queue).or_else(|| free.next())?, queue, filter)))
            .collect();
        let queues = numbered.iter().map(|(bit, queue, _)| (*bit, queue.clone())).collect();
        let filters = numbered.into_iter().map(|(bit, _, filter)| (bit, filter)).collect();
        *current = Handlers { routes: Arc::new(Routes::new(filters)), queues };
        Ok(current.routes.clone())
    }

    /// The handlers' filters as they are now.
    pub fn routes(&self) -> Arc<Routes> {
        self.current().routes
    }

    /// Puts a batch into the queues. Handlers are not woken before [`Router::slot_end`], unless
    /// their queue grows full.
    pub fn route(&self, mut batch: Batch, now: Millis) {
        self.samples.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let (mut all, mut any) = (u64::MAX, 0);
        for mask in masks(&batch) {
            all &= mask;
            any |= mask;
        }
        if batch.samples.len() < batch.samples.capacity() / 2 {
            batch.samples.shrink_to_fit(); // queues count what is used, and may keep it for long
        }
        let batch = Arc::new(batch);
        for (bit, queue) in &*self.current().queues {
            let bit = 1 << bit;
            if all & bit != 0 {
                queue.push(batch.clone(), now);
            } else if any & bit != 0 || !batch.events.is_empty() || !batch.checks.is_empty() {
                queue.push(Arc::new(part_for(bit, &batch)), now);
            }
        }
    }

    /// All collectors of a slot have run: handlers may start.
    pub fn slot_end(&self) {
        self.current().queues.iter().for_each(|(_, queue)| queue.wake());
    }

    /// How many items were ever routed, whether or not a handler took them.
    pub fn samples_total(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    fn current(&self) -> Handlers {
        self.handlers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Which handlers take each number and each summary.
fn masks(batch: &Batch) -> impl Iterator<Item = u64> {
    let samples = batch.samples.iter().map(|sample| sample.series.handlers);
    samples.chain(batch.summaries.iter().map(|summary| summary.series.handlers))
}

fn part_for(bit: u64, batch: &Batch) -> Batch {
    let samples = batch.samples.iter().filter(|sample| sample.series.handlers & bit != 0);
    let summaries = batch.summaries.iter().filter(|summary| summary.series.handlers & bit != 0);
    Batch {
        samples: samples.cloned().collect(),
        summaries: summaries.cloned().collect(),
        events: batch.events.clone(),
        checks: batch.checks.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outgoing::BatchForm;
    use crate::outgoing::tests::{check, element, event, sample, series};

    fn queues(count: usize) -> Vec<Arc<Queue>> {
        (0..count).map(|_| Arc::new(Queue::new(1 << 20))).collect()
    }

    fn router(queues: &[Arc<Queue>]) -> Router {
        let router = Router::default();
        router.set_handlers(queues.iter().map(|queue| (queue.clone(), Filter::default())).collect()).unwrap();
        router
    }

    #[test]
    fn each_handler_gets_what_its_bit_selects() {
        let queues = queues(3);
        let web = element("web-1");
        let (both, second) = (series(&web, "a", 0b011), series(&web, "b", 0b010));
        let samples = vec![sample(&both, 1.0), sample(&second, 2.0)];
        let router = router(&queues);
        router.route(Batch { samples, ..Batch::default() }, 0);
        assert_eq!(queues.iter().map(|queue| queue.len()).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(router.samples_total(), 2);
    }

    #[test]
    fn events_and_checks_go_to_all() {
        let queues = queues(2);
        let web = element("web-1");
        let batch = Batch {
            samples: vec![sample(&series(&web, "a", 0b01), 1.0)],
            events: vec![event(&web, "e")],
            checks: vec![check(&web, "c")],
            ..Batch::default()
        };
        router(&queues).route(batch, 0);
        assert_eq!(queues.iter().map(|queue| queue.len()).collect::<Vec<_>>(), [3, 2]);
    }

    #[test]
    fn batch_that_all_take_is_shared() {
        let queues = queues(2);
        let shared = series(&element("web-1"), "a", 0b11);
        router(&queues).route(Batch { samples: vec![sample(&shared, 1.0)], ..Batch::default() }, 0);
        assert_eq!(Arc::strong_count(&shared), 2);
        let taken = queues[0].take(&BatchForm::default());
        assert_eq!((Arc::strong_count(&shared), taken.map(|taken| taken.len())), (3, Some(1)));
    }

    #[test]
    fn handler_that_stays_keeps_its_bit() {
        let queues = queues(3);
        let router = router(&queues[..2]);
        let only = |name: &str| Filter::new(&[name.to_owned()], &[]);
        let handlers = vec![(queues[2].clone(), only("c")), (queues[1].clone(), only("b"))];
        let routes = router.set_handlers(handlers).unwrap();
        assert_eq!((routes.mask("b"), routes.mask("c")), (0b10, 0b01));
        let samples = vec![sample(&series(&element("web-1"), "b", routes.mask("b")), 1.0)];
        router.route(Batch { samples, ..Batch::default() }, 0);
        assert_eq!(queues.iter().map(|queue| queue.len()).collect::<Vec<_>>(), [0, 1, 0]);
    }

    #[test]
    fn sixty_fifth_handler_is_refused_and_changes_nothing() {
        let queues = queues(65);
        let router = router(&queues[..64]);
        let handlers = queues.iter().map(|queue| (queue.clone(), Filter::default())).collect();
        assert_eq!(router.set_handlers(handlers), Err(TooManyHandlers(65)));
        assert_eq!(router.routes().mask("a"), u64::MAX);
    }
}
