//! How long to wait after n failures in a row.
//!
//! ```text
//! failures   1     2     3     4  …
//! wait       1 s   2 s   4 s   8 s  … 60 s     each times 1 ± jitter
//! ```

use std::time::Duration;

use rand::{Rng, RngExt};

/// The growing wait after failures: `first`, doubling with each further one, never beyond
/// `longest`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    pub first: Duration,
    pub longest: Duration,
    /// Which part of a wait is chance, so that retries do not meet: at 0.2 a wait of 10 s lies
    /// between 8 s and 12 s. Held to 0 … [`Backoff::MOST_JITTER`].
    pub jitter: f64,
}

impl Backoff {
    pub const MOST_JITTER: f64 = 0.5;

    /// How long to wait after this many failures in a row; nothing after none.
    pub fn wait(&self, failures: u32, rng: &mut impl Rng) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let wait = self.first.saturating_mul(factor).min(self.longest);
        let jitter = self.jitter.clamp(0.0, Self::MOST_JITTER);
        let wish = wait.as_secs_f64() * (1.0 + jitter * rng.random_range(-1.0..=1.0));
        Duration::try_from_secs_f64(wish).unwrap_or(wait)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(60), jitter: 0.2 }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const EVEN: Backoff =
        Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60), jitter: 0.0 };

    fn rng() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<u64> = (0..9).map(|n| EVEN.wait(n, &mut rng()).as_secs()).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn any_number_of_failures_waits_the_longest() {
        for failures in [32, 33, 34, 1000, u32::MAX] {
            assert_eq!(EVEN.wait(failures, &mut rng()), Duration::from_secs(60));
        }
    }

    #[test]
    fn jitter_goes_both_ways_and_never_beyond_its_part() {
        let backoff = Backoff { jitter: 0.25, ..EVEN };
        let mut rng = rng();
        let waits: Vec<f64> = (0..1000).map(|_| backoff.wait(4, &mut rng).as_secs_f64()).collect();
        assert!(waits.iter().all(|wait| (6.0..=10.0).contains(wait)));
        assert!(waits.iter().any(|&wait| wait < 6.5) && waits.iter().any(|&wait| wait > 9.5));
    }

    #[test]
    fn jitter_is_at_most_half() {
        for jitter in [2.0, f64::INFINITY, f64::NAN] {
            let backoff = Backoff { jitter, ..EVEN };
            let mut rng = rng();
            assert!((0..1000).all(|_| backoff.wait(1, &mut rng).as_secs_f64() >= 0.5));
        }
    }
}
