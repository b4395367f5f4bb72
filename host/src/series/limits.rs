//! What the operator says about one collector's series, and the run that says too much.

use std::collections::HashSet;

use crate::collected::{Collected, Publish};
use crate::routes::Filter;
use crate::sample::Tag;

/// How much one collector may say and the agent remember of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeriesLimits {
    /// Numbers, summaries, events and checks of one run.
    pub samples: usize,
    /// Live series, and distinct ones of one run.
    pub series: usize,
    /// Live elements, and described ones of one run.
    pub elements: usize,
    /// Bytes of the longest text; names have limits of their own besides.
    pub text: usize,
    /// Bytes of the whole table.
    pub bytes: usize,
}

impl Default for SeriesLimits {
    fn default() -> Self {
        Self { samples: 10_000, series: 20_000, elements: 1_000, text: 4096, bytes: 16 << 20 }
    }
}

/// What the operator says about one collector's series.
#[derive(Debug, Clone, Default)]
pub struct SeriesConfig {
    pub limits: SeriesLimits,
    /// What becomes of all counters, whatever the collector says of each.
    pub counters: Option<Publish>,
    /// Tags of every series; they win over the collector's of the same name.
    pub tags: Vec<Tag>,
    /// Series that it does not take give no samples.
    pub filter: Filter,
}

/// A run that said too much: nothing of it was used, the table is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flood {
    #[error("{found} samples in one run, {limit} are allowed by `limits.samples`")]
    Samples { found: usize, limit: usize },
    #[error("{found} series in one run, {limit} are allowed by `limits.series`")]
    Series { found: usize, limit: usize },
    #[error("{found} elements in one run, {limit} are allowed by `limits.elements`")]
    Elements { found: usize, limit: usize },
}

impl SeriesLimits {
    /// What is said too often can be told before anything is changed.
    pub(super) fn refuse_flood(&self, collected: &Collected) -> Result<(), Flood> {
        let Self { samples, series, elements, .. } = *self;
        let found = collected.handles.len()
            + collected.summaries.len()
            + collected.samples.len()
            + collected.events.len()
            + collected.checks.len();
        if found > samples {
            return Err(Flood::Samples { found, limit: samples });
        }
        if collected.elements.len() > elements {
            return Err(Flood::Elements { found: collected.elements.len(), limit: elements });
        }
        if collected.series.len() + collected.samples.len() > series {
            let described = collected.series.iter().map(|series| (series.element, &*series.name));
            let named = collected.samples.iter().map(|sample| (sample.element, &*sample.name));
            let found = described.chain(named).collect::<HashSet<_>>().len();
            if found > series {
                return Err(Flood::Series { found, limit: series });
            }
        }
        Ok(())
    }
}
