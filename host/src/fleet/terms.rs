//! What tables say, as the parts of a plugin take it.
//!
//! Uses: `config`.

use crate::backoff::Backoff;
use crate::collected::Publish;
use crate::config::manifest::{BatchBy, Manifest};
use crate::config::{CollectorConfig, Counters, HandlerConfig, PluginConfig};
use crate::delivery_policy::RetryConfig;
use crate::keeper::{Keeper, Successor};
use crate::loader::Prepared;
use crate::outgoing::BatchForm;
use crate::routes::Filter;
use crate::series::{SeriesConfig, SeriesLimits};
use crate::status::PluginHandle;
use crate::supervisor::{Rules, Supervisor};

/// Which metrics pass.
pub(super) fn filter(table: &PluginConfig) -> Filter {
    Filter::new(&table.metrics, &table.except)
}

/// What the operator says about a collector's series.
pub fn series_config(table: &CollectorConfig) -> SeriesConfig {
    let limits = &table.plugin.limits;
    SeriesConfig {
        limits: SeriesLimits {
            samples: limits.samples,
            series: limits.series,
            elements: limits.elements,
            text: limits.string,
            ..SeriesLimits::default()
        },
        counters: table.counters.map(|counters| match counters {
            Counters::Rate => Publish::Rate,
            Counters::Total => Publish::Total,
        }),
        tags: table.tags.clone(),
        filter: filter(&table.plugin),
    }
}

/// How batches for this handler are formed.
pub fn batch_form(table: &HandlerConfig, manifest: &Manifest) -> BatchForm {
    let rule = table.batch.over(&manifest.batch);
    BatchForm {
        by_element: rule.by == BatchBy::Element,
        samples: rule.samples,
        bytes: usize::try_from(rule.bytes).unwrap_or(usize::MAX),
    }
}

/// How long this handler is left alone after a failure.
pub fn retry_config(table: &HandlerConfig) -> RetryConfig {
    let crate::config::RetryConfig { first, longest, jitter } = table.retry;
    RetryConfig { backoff: Backoff { first, longest, jitter }, ..RetryConfig::default() }
}

/// How its failures are judged.
fn rules(table: &PluginConfig) -> Rules {
    Rules { failures: table.limits.failures, quarantine: table.limits.quarantine, ..Rules::default() }
}

/// A plugin and its supervisor, as its table says.
pub fn keeper(table: &PluginConfig, parts: Prepared, status: PluginHandle) -> Keeper {
    Keeper::new(parts.plugin, parts.context, parts.settings, status, Supervisor::new(rules(table)))
}

/// What follows a plugin that runs.
pub(super) fn successor(table: &PluginConfig, parts: Prepared) -> Successor {
    let Prepared { plugin, context, settings, .. } = parts;
    Successor { plugin, context, settings, rules: rules(table) }
}
