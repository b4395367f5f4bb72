//! A batch as lines in columns. Columns only grow, so that one batch stands below the other.
//!
//! Uses: `figure`.

use std::fmt::{self, Write};

use handler_text::Date;
use kimberlite_plugin_sdk::batch::ElementView;
use kimberlite_plugin_sdk::{Batch, Level, Status, Summary, Value};

use crate::figure::Figure;

/// A longer name or number stands out of its column, rather than pushing all others aside.
const WIDEST_NAME: usize = 48;
const WIDEST_WHOLE: usize = 14;
/// `.123`
const FRACTION: usize = 4;

/// What is printed, and how wide.
#[derive(Debug)]
pub(crate) struct Page {
    prefix: String,
    /// Of the agent's own element, which goes without saying.
    own: String,
    text: String,
    name_width: usize,
    whole_width: usize,
}

impl Page {
    pub(crate) fn new(prefix: &str, own: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            own: own.to_owned(),
            text: String::new(),
            name_width: 0,
            whole_width: 0,
        }
    }

    /// All lines of `batch`.
    pub(crate) fn print(&mut self, batch: &Batch) -> &str {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let names: Vec<String> = batch
            .series()
            .map(|series| format!("{}{}", self.element(series.element()), Plain(series.name())))
            .collect();
        self.widen(batch, &names);
        // Writing to memory cannot fail.
        let _ = self.samples(batch, &names, &mut text);
        let _ = self.events(batch, &mut text);
        let _ = self.checks(batch, &mut text);
        self.text = text;
        &self.text
    }

    fn widen(&mut self, batch: &Batch, names: &[String]) {
        let width = |text: &str, most| Some(text.chars().count()).filter(|width| *width <= most);
        let name = names.iter().filter_map(|name| width(name, WIDEST_NAME)).max();
        let whole = |value: Value| match value {
            Value::Number(number) => width(Figure::new(number).whole(), WIDEST_WHOLE),
            Value::Summary(_) => None,
        };
        let whole = batch.samples().filter_map(|sample| whole(sample.value())).max();
        self.name_width = self.name_width.max(name.unwrap_or_default());
        self.whole_width = self.whole_width.max(whole.unwrap_or_default());
    }

    fn samples(&self, batch: &Batch, names: &[String], out: &mut String) -> fmt::Result {
        for sample in batch.samples() {
            self.start(out, sample.timestamp())?;
            write!(out, "{:width$}  ", names[sample.series_index()], width = self.name_width)?;
            match sample.value() {
                Value::Number(number) => {
                    let figure = Figure::new(number);
                    let (whole, fraction) = (figure.whole(), figure.fraction());
                    write!(out, "{whole:>width$}{fraction:FRACTION$}", width = self.whole_width)?;
                }
                Value::Summary(summary) => parts(out, summary)?,
            }
            write!(out, "  {}", Plain(sample.unit()))?;
            end(out, sample.tags())?;
        }
        Ok(())
    }

    fn events(&self, batch: &Batch, out: &mut String) -> fmt::Result {
        for event in batch.events() {
            self.start(out, event.timestamp())?;
            let level = match event.level() {
                Level::Info => "info",
                Level::Warning => "warning",
                Level::Critical => "critical",
            };
            let element = self.element(event.element());
            write!(out, "{element}event {} ({level}): {}", Plain(event.kind()), Plain(event.title()))?;
            if !event.message().is_empty() {
                write!(out, ": {}", Plain(event.message()))?;
            }
            if let Some(source) = event.source() {
                write!(out, ", says {}", Plain(source))?;
            }
            end(out, event.tags())?;
        }
        Ok(())
    }

    fn checks(&self, batch: &Batch, out: &mut String) -> fmt::Result {
        for check in batch.checks() {
            self.start(out, check.timestamp())?;
            let status = match check.status() {
                Status::Ok => "ok",
                Status::Warning => "warning",
                Status::Critical => "critical",
                Status::Unknown => "unknown",
            };
            let element = self.element(check.element());
            write!(out, "{element}check {} {status}", Plain(check.name()))?;
            if !check.message().is_empty() {
                write!(out, ": {}", Plain(check.message()))?;
            }
            write!(out, ", the next within {} s", check.ttl())?;
            end(out, std::iter::empty())?;
        }
        Ok(())
    }

    fn start(&self, out: &mut String, milliseconds: u64) -> fmt::Result {
        let Date { year, month, day, hour, minute, second } = Date::from_unix(milliseconds / 1000);
        out.push_str(&self.prefix);
        write!(out, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}  ")
    }

    /// `web-7: `; nothing for the agent's own.
    fn element(&self, element: ElementView<'_>) -> String {
        if element.name() == self.own { String::new() } else { format!("{}: ", Plain(element.name())) }
    }
}

fn parts(out: &mut String, summary: Summary) -> fmt::Result {
    let Summary { val, min, max, avg, sum, cnt } = summary;
    let cnt = cnt.map(|cnt| cnt as f64);
    let mut gap = "";
    for (name, part) in [("val", val), ("min", min), ("max", max), ("avg", avg), ("sum", sum), ("cnt", cnt)] {
        if let Some(part) = part {
            write!(out, "{gap}{name}={}", Figure::new(part))?;
            gap = " ";
        }
    }
    Ok(())
}

/// Tags, and the line's end without the blanks before it.
fn end<'a>(out: &mut String, tags: impl Iterator<Item = (&'a str, &'a str)>) -> fmt::Result {
    let mut gap = " {";
    for (name, value) in tags {
        write!(out, "{gap}{}={}", Plain(name), Plain(value))?;
        gap = ", ";
    }
    if gap == ", " {
        out.push('}');
    }
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
    Ok(())
}

/// Text that cannot leave its line or steer a terminal.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.0.split_inclusive(char::is_control) {
            match piece.char_indices().next_back().filter(|(_, c)| c.is_control()) {
                Some((at, c)) => write!(f, "{}{}", &piece[..at], c.escape_default())?,
                None => f.write_str(piece)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_plugin_sdk::{Check, Element, Event, Series, testing};
    use std::time::Duration;

    fn page() -> Page {
        Page::new("", "test")
    }

    /// 21 August 2017, 07:21:00.
    const TIME: u64 = 1_503_300_060_000;

    #[test]
    fn batch_is_printed_in_columns() {
        let web = Element::new("4f1c").name("web-7");
        let requests = Series::gauge("app.requests").unit("requests").tag("region", "eu").element(&web);
        let summary = Summary { val: Some(50.0), max: Some(100.0), cnt: Some(2), ..Summary::default() };
        let event = Event::new("INFO", "deploy").message("version 7").level(Level::Warning).source("ci");
        let batch = testing::batch()
            .at(TIME)
            .sample(&Series::gauge("cpu.total.user").unit("percent"), 12.5)
            .sample(&Series::gauge("memory.MemFree").unit("kB"), 2_048_000)
            .rate("iostat.sda.reads_per_second", 100.0 / 3.0)
            .sample(&requests, 50)
            .summary(&requests, summary)
            .event(event.tag("build", "77").element(&web))
            .check(Check::new("heartbeat", Status::Ok, Duration::from_secs(150)).message("fine"))
            .build();
        assert_eq!(page().print(&batch), include_str!("../fixtures/page.txt"));
    }

    #[test]
    fn columns_only_grow() {
        let mut page = page();
        page.print(&testing::batch().gauge("a.long.name", 1_000_000).build());
        let second = page.print(&testing::batch().gauge("short", 1).build());
        assert_eq!(second, "1970-01-01 00:00:00  short              1\n");
    }

    #[test]
    fn name_that_is_too_long_moves_no_column() {
        let long = "x".repeat(60);
        let batch = testing::batch().gauge(&long, 1).gauge("short", 1).build();
        assert_eq!(
            page().print(&batch),
            format!("1970-01-01 00:00:00  {long}  1\n1970-01-01 00:00:00  short  1\n")
        );
    }

    #[test]
    fn prefix_stands_before_every_line() {
        let batch = testing::batch().gauge("a", 1).gauge("b", 2).build();
        let mut page = Page::new("> ", "test");
        assert!(page.print(&batch).lines().all(|line| line.starts_with("> 1970")));
    }

    #[test]
    fn no_text_leaves_its_line_or_steers_the_terminal() {
        let event = Event::new("INFO", "one\ntwo").message("\u{1b}[31mred\u{7}");
        let batch = testing::batch().gauge("a\r\nb", 1).event(event).build();
        let text = page().print(&batch).to_owned();
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
}
