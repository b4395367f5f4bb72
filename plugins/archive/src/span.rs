//! Which stretch of time a file holds, in UTC: plugins know no local time.
//!
//! Spans are counted from fixed moments (1970, or the first week's end), not from the moment the
//! agent started, so that a restart moves no border.

use handler_text::date::{DAY, Date};
use kimberlite_plugin_sdk::{Error, Result};

/// How long a file is written to before it is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    seconds: u64,
    /// From 1970 to the first border.
    offset: u64,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
}

impl Span {
    /// `when` as Python's `TimedRotatingFileHandler` has it, `count` of them.
    pub(crate) fn new(when: &str, count: u32) -> Result<Self> {
        let week = |digit: u8| {
            // Python's W0 ends with Monday, at midnight; the first one in 1970 was 5 January.
            let border = (5 + u64::from(digit - b'0')) % 7;
            (Unit::Day, 7 * DAY, border * DAY)
        };
        let (unit, length, offset) = match when.as_bytes() {
            b"S" => (Unit::Second, 1, 0),
            b"M" => (Unit::Minute, 60, 0),
            b"H" => (Unit::Hour, 3600, 0),
            b"D" | b"midnight" => (Unit::Day, DAY, 0),
            [b'W', digit @ b'0'..=b'6'] => week(*digit),
            _ => return Err(Error::setting("when", "must be midnight, S, M, H, D or W0 to W6")),
        };
        if count == 0 {
            return Err(Error::setting("rollover_interval", "must not be 0"));
        }
        Ok(Self { seconds: length * u64::from(count), offset, unit })
    }

    /// When the span that holds `seconds` (since 1970) began; 0 for what lies before the first border.
    pub(crate) fn start(self, seconds: u64) -> u64 {
        match seconds.checked_sub(self.offset) {
            Some(since) => since / self.seconds * self.seconds + self.offset,
            None => 0,
        }
    }

    /// What a rotated file's name ends in: the beginning of its span, as Python writes it.
    pub(crate) fn suffix(self, start: u64) -> String {
        let Date { year, month, day, hour, minute, second } = Date::from_unix(start);
        let date = format!("{year:04}-{month:02}-{day:02}");
        match self.unit {
            Unit::Day => date,
            Unit::Hour => format!("{date}_{hour:02}"),
            Unit::Minute => format!("{date}_{hour:02}-{minute:02}"),
            Unit::Second => format!("{date}_{hour:02}-{minute:02}-{second:02}"),
        }
    }

    /// Whether `text` is such a suffix. No other file is ever removed.
    pub(crate) fn is_suffix(self, text: &str) -> bool {
        let sample = self.suffix(0);
        let alike = |(a, b): (u8, u8)| if a.is_ascii_digit() { b.is_ascii_digit() } else { a == b };
        sample.len() == text.len() && sample.bytes().zip(text.bytes()).all(alike)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, 21 August 2017, 07:21:01.
    const MONDAY: u64 = 1_503_300_061;

    fn named(when: &str, count: u32, seconds: u64) -> String {
        let span = Span::new(when, count).unwrap();
        span.suffix(span.start(seconds))
    }

    #[test]
    fn files_are_named_for_the_beginning_of_their_span() {
        let cases = [
            ("midnight", "2017-08-21"),
            ("D", "2017-08-21"),
            ("H", "2017-08-21_07"),
            ("M", "2017-08-21_07-21"),
            ("S", "2017-08-21_07-21-01"),
        ];
        for (when, name) in cases {
            assert_eq!(named(when, 1, MONDAY), name, "{when}");
        }
        assert_eq!(named("H", 6, MONDAY), "2017-08-21_06");
        assert_eq!(named("M", 15, MONDAY), "2017-08-21_07-15");
    }

    #[test]
    fn week_ends_with_its_day() {
        // W0 ends when Monday does: the week of this Monday began on the Tuesday before.
        assert_eq!(named("W0", 1, MONDAY), "2017-08-15");
        assert_eq!(named("W0", 1, MONDAY + DAY), "2017-08-22");
        assert_eq!(named("W6", 1, MONDAY), "2017-08-21");
        assert_eq!(named("W6", 1, MONDAY - DAY), "2017-08-14");
        assert_eq!(named("W4", 1, 0), "1970-01-01");
    }

    #[test]
    fn only_own_suffixes_are_known() {
        let day = Span::new("midnight", 1).unwrap();
        assert!(day.is_suffix("2017-08-21"));
        for other in ["2017-08-21.gz", "2017-08-2x", "2017_08_21", "", "1"] {
            assert!(!day.is_suffix(other), "{other}");
        }
        assert!(!Span::new("H", 1).unwrap().is_suffix("2017-08-21"));
    }

    #[test]
    fn what_makes_no_span_names_its_setting() {
        assert_eq!(Span::new("W7", 1).unwrap_err().setting_key(), Some("when"));
        assert_eq!(Span::new("", 1).unwrap_err().setting_key(), Some("when"));
        assert_eq!(Span::new("D", 0).unwrap_err().setting_key(), Some("rollover_interval"));
    }
}
