//! `Retry-After`: seconds, or a date such as `Sun, 06 Nov 1994 08:49:37 GMT`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use handler_text::Date;

/// How long to wait from now on; none: it says nothing that can be understood.
pub(crate) fn parse(header: &str) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    wait(header.trim(), now)
}

/// `now` is seconds since 1970.
fn wait(text: &str, now: u64) -> Option<Duration> {
    let seconds = match text.parse() {
        Ok(seconds) => seconds,
        // A date that has passed: now.
        Err(_) => date(text)?.saturating_sub(now),
    };
    Some(Duration::from_secs(seconds))
}

/// The one form of a date that HTTP servers may send.
fn date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts: Vec<&str> = text.split([' ', ':']).collect();
    let [_weekday, day, month, year, hour, minute, second, "GMT"] = parts[..] else { return None };
    let month = 1 + MONTHS.iter().position(|name| *name == month)? as u64;
    let number = |text: &str| text.parse::<u64>().ok();
    let date = Date {
        year: number(year)?,
        month,
        day: number(day)?,
        hour: number(hour)?,
        minute: number(minute)?,
        second: number(second)?,
    };
    date.to_unix()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood() {
        let seconds = |text| wait(text, 784_111_700).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("0"), Some(0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(77));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        for nothing in ["", "-1", "1.5", "soon", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Foo 1994 08:49:37 GMT"]
        {
            assert_eq!(seconds(nothing), None, "{nothing}");
        }
    }
}
