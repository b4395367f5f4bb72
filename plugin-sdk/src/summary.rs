//! Many values in one.

use crate::bindings::imports::kimberlite::plugin::types as wit;

/// Many values in one: what was seen since the summary before it. What is absent is not known, which
/// is not the same as zero.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Summary {
    /// The one number that stands for all.
    pub val: Option<f64>,
    /// The least.
    pub min: Option<f64>,
    /// The greatest.
    pub max: Option<f64>,
    /// The mean.
    pub avg: Option<f64>,
    /// The sum.
    pub sum: Option<f64>,
    /// How many there were.
    pub cnt: Option<u64>,
}

impl Summary {
    /// Least, greatest, mean, sum and count of `values`; `val` is the mean. Of no values only the
    /// count (0) and the sum are known.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let (mut cnt, mut sum, mut min, mut max) = (0_u64, 0.0, f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            cnt += 1;
            sum += value;
            min = f64::min(min, value);
            max = f64::max(max, value);
        }
        let known = |value: f64| (cnt > 0).then_some(value);
        let avg = known(sum / cnt as f64);
        Self { val: avg, min: known(min), max: known(max), avg, sum: Some(sum), cnt: Some(cnt) }
    }
}

impl From<Summary> for wit::Summary {
    fn from(summary: Summary) -> Self {
        let Summary { val, min, max, avg, sum, cnt } = summary;
        Self { val, min, max, avg, sum, cnt }
    }
}

impl From<wit::Summary> for Summary {
    fn from(summary: wit::Summary) -> Self {
        let wit::Summary { val, min, max, avg, sum, cnt } = summary;
        Self { val, min, max, avg, sum, cnt }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_of_nothing_knows_only_that() {
        assert_eq!(Summary::of([]), Summary { sum: Some(0.0), cnt: Some(0), ..Summary::default() });
        let two = Summary::of([1.0, 3.0]);
        assert_eq!((two.min, two.max, two.avg, two.cnt), (Some(1.0), Some(3.0), Some(2.0), Some(2)));
    }
}
