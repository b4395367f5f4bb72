//! What becomes of one value: scaled, or turned into a rate.
//!
//! ```text
//! gauge          value × scale
//! total          value × scale
//! rate           (value − previous) ÷ seconds between × scale
//!                first reading, decrease, earlier time: no sample, the reading is kept
//!                same time: dropped
//! ```

use super::drops::DropReason;
use crate::collected::{Publish, RawKind};
use crate::sample::{Kind, Millis, Summary};

/// What a series remembers between two values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// When `raw` was read.
    at: Millis,
    /// As the collector said it; NaN: there is none yet. Kept for every kind, so that a series
    /// may change from total to rate without a gap.
    raw: f64,
    /// What left the table last, at `at`; NaN: nothing did.
    published: f64,
}

impl Reading {
    pub(super) const NONE: Self = Self { at: 0, raw: f64::NAN, published: f64::NAN };

    /// The sample that this value gives, if any.
    #[inline]
    pub(super) fn take(
        &mut self,
        value: f64,
        at: Millis,
        kind: Kind,
        scale: f64,
    ) -> Result<Option<f64>, DropReason> {
        if !value.is_finite() {
            return Err(DropReason::NotFinite);
        }
        let published = match kind {
            Kind::Gauge | Kind::Counter => value * scale,
            Kind::Rate if self.raw.is_nan() || value < self.raw || at < self.at => f64::NAN,
            Kind::Rate if at == self.at => return Err(DropReason::SameTimestamp),
            Kind::Rate => (value - self.raw) / ((at - self.at) as f64 / 1000.0) * scale,
        };
        *self = Self { at, raw: value, published };
        if published.is_infinite() {
            self.published = f64::NAN;
            return Err(DropReason::NotFinite);
        }
        Ok((!published.is_nan()).then_some(published))
    }

    /// The clock by which it was read has jumped.
    pub(super) fn clock_jumped(&mut self, by: i64) {
        self.at = self.at.saturating_add_signed(by);
    }

    /// What left the table last.
    pub(super) fn published(&self) -> Option<(Millis, f64)> {
        (!self.published.is_nan()).then_some((self.at, self.published))
    }
}

/// What the values are once they have left the table.
pub(super) fn kind_of(raw: RawKind, publish: Publish) -> Kind {
    match (raw, publish) {
        (RawKind::Gauge, _) => Kind::Gauge,
        (RawKind::Counter, Publish::Rate) => Kind::Rate,
        (RawKind::Counter, Publish::Total) => Kind::Counter,
    }
}

/// All of it scaled; none if something of it is not finite.
pub(super) fn scaled(summary: Summary, scale: f64) -> Option<Summary> {
    let times = |part: Option<f64>| part.map(|part| part * scale);
    let (min, max) = if scale < 0.0 { (summary.max, summary.min) } else { (summary.min, summary.max) };
    let scaled = Summary {
        val: times(summary.val),
        min: times(min),
        max: times(max),
        avg: times(summary.avg),
        sum: times(summary.sum),
        cnt: summary.cnt,
    };
    let parts = [scaled.val, scaled.min, scaled.max, scaled.avg, scaled.sum];
    parts.into_iter().flatten().all(f64::is_finite).then_some(scaled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(readings: &[(Millis, f64)]) -> Vec<Result<Option<f64>, DropReason>> {
        let mut reading = Reading::NONE;
        readings.iter().map(|&(at, value)| reading.take(value, at, Kind::Rate, 1.0)).collect()
    }

    #[test]
    fn rate_is_the_difference_by_the_seconds_that_really_passed() {
        assert_eq!(
            rates(&[(0, 100.0), (10_000, 150.0), (30_000, 250.0)]),
            [Ok(None), Ok(Some(5.0)), Ok(Some(5.0))]
        );
    }

    #[test]
    fn reset_gives_no_sample_and_starts_anew() {
        assert_eq!(rates(&[(0, 100.0), (1000, 3.0), (2000, 5.0)]), [Ok(None), Ok(None), Ok(Some(2.0))]);
    }

    #[test]
    fn clock_that_went_back_starts_anew() {
        assert_eq!(rates(&[(5000, 1.0), (1000, 2.0), (2000, 5.0)]), [Ok(None), Ok(None), Ok(Some(3.0))]);
    }

    #[test]
    fn second_reading_of_one_instant_is_dropped_and_not_kept() {
        assert_eq!(
            rates(&[(0, 0.0), (1000, 1.0), (1000, 9.0), (2000, 2.0)])[2..],
            [Err(DropReason::SameTimestamp), Ok(Some(1.0))]
        );
    }

    #[test]
    fn value_that_is_not_finite_leaves_the_reading_as_it_was() {
        assert_eq!(
            rates(&[(0, 0.0), (1000, f64::NAN), (2000, f64::INFINITY), (4000, 8.0)])[1..],
            [Err(DropReason::NotFinite), Err(DropReason::NotFinite), Ok(Some(2.0))]
        );
    }

    #[test]
    fn scale_multiplies_every_kind() {
        let mut reading = Reading::NONE;
        assert_eq!(reading.take(4.0, 0, Kind::Gauge, 0.5), Ok(Some(2.0)));
        assert_eq!(reading.published(), Some((0, 2.0)));
        assert_eq!(reading.take(6.0, 1000, Kind::Counter, 0.5), Ok(Some(3.0)));
        assert_eq!(reading.take(10.0, 2000, Kind::Rate, 0.5), Ok(Some(2.0)));
        assert_eq!(reading.take(f64::MAX, 3000, Kind::Gauge, 2.0), Err(DropReason::NotFinite));
        assert_eq!(reading.published(), None);
    }

    #[test]
    fn summary_is_scaled_but_for_its_count() {
        let summary = Summary { min: Some(1.0), max: Some(3.0), cnt: Some(2), ..Summary::default() };
        let negated = Summary { min: Some(-3.0), max: Some(-1.0), ..summary };
        assert_eq!(scaled(summary, -1.0), Some(negated));
        assert_eq!(scaled(Summary { avg: Some(f64::NAN), ..summary }, 1.0), None);
    }
}
