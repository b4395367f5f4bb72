//! Prints figures beside their goals.

#![expect(clippy::print_stdout, reason = "what benchmarks are for")]

/// Starts the report of one benchmark.
pub(crate) fn title(text: &str) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load: Vec<&str> = load.split(' ').take(3).collect();
    let cpus = std::thread::available_parallelism().unwrap();
    println!("\n{text}   (load {} on {cpus} CPUs)", load.join(" "));
}

/// One figure; its goal is a most.
pub(crate) fn figure(what: &str, value: f64, unit: &str, goal: Option<f64>) {
    let verdict = goal.map_or_else(String::new, |goal| verdict("at most", goal, unit, value <= goal));
    println!("  {what:<62} {value:>10.2} {unit:<4}{verdict}");
}

/// How much was done in a second; its goal is a least.
pub(crate) fn speed(what: &str, value: f64, unit: &str, goal: Option<f64>) {
    let verdict = goal.map_or_else(String::new, |goal| verdict("at least", goal, unit, value >= goal));
    println!("  {what:<62} {value:>10.0} {unit:<4}{verdict}");
}

fn verdict(bound: &str, goal: f64, unit: &str, is_met: bool) -> String {
    format!("   goal {bound} {goal} {unit}: {}", if is_met { "met" } else { "MISSED" })
}

/// Anything else worth knowing.
pub(crate) fn note(text: &str) {
    println!("  {text}");
}

/// The value that `share` of all values do not exceed. Sorts.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let place = (values.len() as f64 * share).ceil() as usize;
    values.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// p50, p99 and the greatest, with a goal for one of them.
pub(crate) fn spread(what: &str, values: &mut [f64], unit: &str, goal: Goal) {
    let bound = |wanted| match goal {
        Goal::Of(share, most) if share == wanted => Some(most),
        _ => None,
    };
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        figure(&format!("{what}, {name}"), quantile(values, share), unit, bound(share));
    }
}

/// Which quantile shall be at most what.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    None,
    Of(f64, f64),
}
