//! Which handlers take which metrics: `match = { metrics = […], except = […] }` as types.
//!
//! A name is matched once, when its series is described; from then on a bit mask decides.

use wildmatch::WildMatch;

/// Most handlers that one agent can have: one bit each in [`crate::sample::Series::handlers`].
pub const MOST_HANDLERS: usize = 64;

/// Globs over metric names: `*` stands for any text, `?` for one character.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    metrics: Vec<WildMatch>,
    except: Vec<WildMatch>,
}

impl Filter {
    /// No globs in `metrics` means all of them; `except` is taken out of that.
    pub fn new(metrics: &[String], except: &[String]) -> Self {
        let globs = |texts: &[String]| texts.iter().map(|text| WildMatch::new(text)).collect();
        Self { metrics: globs(metrics), except: globs(except) }
    }

    pub fn takes(&self, name: &str) -> bool {
        let any = |globs: &[WildMatch]| globs.iter().any(|glob| glob.matches(name));
        (self.metrics.is_empty() || any(&self.metrics)) && !any(&self.except)
    }
}

/// The filters of all handlers, each with its bit. Bits may have gaps: a handler keeps its own
/// while others come and go.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Routes {
    filters: Vec<(u32, Filter)>,
}

impl Routes {
    /// Bits are below [`MOST_HANDLERS`].
    pub fn new(filters: Vec<(u32, Filter)>) -> Self {
        debug_assert!(filters.iter().all(|&(bit, _)| (bit as usize) < MOST_HANDLERS));
        Self { filters }
    }

    /// One handler that takes everything.
    pub fn everything() -> Self {
        Self::new(vec![(0, Filter::default())])
    }

    /// The handlers that take metrics of this name.
    pub fn mask(&self, name: &str) -> u64 {
        self.filters.iter().filter(|(_, filter)| filter.takes(name)).fold(0, |mask, (bit, _)| mask | 1 << bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(metrics: &[&str], except: &[&str]) -> Filter {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        Filter::new(&owned(metrics), &owned(except))
    }

    #[test]
    fn filter_without_globs_takes_all() {
        assert!(Filter::default().takes("cpu.total.idle"));
    }

    #[test]
    fn except_wins_over_metrics() {
        let filter = filter(&["cpu.*", "loadavg.0?"], &["*.idle"]);
        assert!(filter.takes("cpu.total.user"));
        assert!(filter.takes("loadavg.01"));
        assert!(!filter.takes("cpu.total.idle"));
        assert!(!filter.takes("memory.MemFree"));
    }

    #[test]
    fn mask_has_the_bit_of_each_handler_that_takes_the_name() {
        let routes = Routes::new(vec![
            (0, Filter::default()),
            (3, filter(&["cpu.*"], &[])),
            (63, filter(&[], &["cpu.*"])),
        ]);
        assert_eq!(routes.mask("cpu.a"), 0b1001);
        assert_eq!(routes.mask("memory.a"), 1 | 1 << 63);
    }
}
