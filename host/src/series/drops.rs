//! Why something that a collector said is not used, and how often.

/// One reason; its text is the label `reason` of `kimberlite_samples_dropped_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// A handle that was never described, or is void.
    UnknownHandle,
    /// A description whose handle is not the next unused one.
    WrongHandle,
    /// Not-a-number or infinite.
    NotFinite,
    /// A name that may not be empty is.
    EmptyName,
    /// A text beyond its limit.
    TooLong,
    /// As many series are live as may be, and all are in use.
    SeriesLimit,
    /// The same of elements.
    ElementLimit,
    /// The table has no bytes left for a description.
    TableBytes,
    /// A second reading of a counter with the timestamp of the one before it.
    SameTimestamp,
    /// Columns of different lengths: what has no partner.
    UnevenColumns,
}

impl DropReason {
    pub const ALL: [Self; 10] = [
        Self::UnknownHandle,
        Self::WrongHandle,
        Self::NotFinite,
        Self::EmptyName,
        Self::TooLong,
        Self::SeriesLimit,
        Self::ElementLimit,
        Self::TableBytes,
        Self::SameTimestamp,
        Self::UnevenColumns,
    ];

    /// As in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownHandle => "unknown-handle",
            Self::WrongHandle => "wrong-handle",
            Self::NotFinite => "not-finite",
            Self::EmptyName => "empty-name",
            Self::TooLong => "too-long",
            Self::SeriesLimit => "series-limit",
            Self::ElementLimit => "element-limit",
            Self::TableBytes => "table-bytes",
            Self::SameTimestamp => "same-timestamp",
            Self::UnevenColumns => "uneven-columns",
        }
    }
}

/// How many samples, descriptions, events and checks were dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Drops {
    pub fn add(&mut self, reason: DropReason, count: u64) {
        self.0[reason as usize] += count;
    }

    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// The reasons that occurred.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self.get(reason))).filter(|&(_, count)| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_lie_in_the_order_of_their_counters() {
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }

    #[test]
    fn merged_drops_add_up() {
        let mut drops = Drops::default();
        drops.add(DropReason::TooLong, 2);
        let mut sum = drops;
        sum.merge(&drops);
        assert_eq!(sum.iter().collect::<Vec<_>>(), [(DropReason::TooLong, 4)]);
        assert_eq!(sum.total(), 4);
    }
}
