//! Reports how long the machine has been up.

use kimberlite_plugin_sdk::{Collector, Context, Result, Run, Settings, export_collector};

struct Uptime;

impl Collector for Uptime {
    fn new(_settings: &Settings) -> Result<Self> {
        Ok(Self)
    }

    fn collect(&mut self, run: &mut Run) -> Result<()> {
        let text = std::fs::read_to_string("/proc/uptime").context("reading /proc/uptime")?;
        run.gauge("uptime.seconds", parse(&text)?);
        Ok(())
    }
}

export_collector!(Uptime);

/// The first number of the file.
fn parse(text: &str) -> Result<f64> {
    let seconds = text.split_whitespace().next().context("/proc/uptime is empty")?;
    seconds.parse().context("/proc/uptime")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_number_is_the_uptime() {
        assert_eq!(parse("350735.47 234388.90\n").unwrap(), 350735.47);
        assert!(parse("").is_err());
    }
}
