//! Seconds since 1970 as a date (UTC), and back. Plugins know no local time.

/// A day has this many seconds, always: Unix time leaves leap seconds out.
pub const DAY: u64 = 86_400;

/// A moment of the Gregorian calendar, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
    pub hour: u64,
    pub minute: u64,
    pub second: u64,
}

// Years are counted from March, so that the leap day is the last of one; 400 of them, an era, have
// always the same number of days.
const ERA_DAYS: u64 = 146_097;
/// From 1 March of the year 0 to 1970.
const BEFORE_1970: u64 = 719_468;

impl Date {
    /// `seconds` since 1970.
    pub fn from_unix(seconds: u64) -> Self {
        let days = seconds / DAY + BEFORE_1970;
        let (era, of_era) = (days / ERA_DAYS, days % ERA_DAYS);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let of_day = seconds % DAY;
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }

    /// Seconds since 1970; none before that, and for what is no date at all.
    pub fn to_unix(self) -> Option<u64> {
        let Self { year, month, day, hour, minute, second } = self;
        let is_date = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        // 60 is a leap second.
        if !(is_date && hour < 24 && minute < 60 && second <= 60) {
            return None;
        }
        let year = year - u64::from(month <= 2);
        let year_of_era = year % 400;
        let from_march = if month > 2 { month - 3 } else { month + 9 };
        let of_year = (153 * from_march + 2) / 5 + day - 1;
        let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
        let days = (year / 400 * ERA_DAYS + of_era).checked_sub(BEFORE_1970)?;
        Some(days * DAY + hour * 3600 + minute * 60 + second)
    }
}

/// 0 is Monday.
pub fn weekday(seconds: u64) -> u64 {
    // 1 January 1970 was a Thursday.
    (seconds / DAY + 3) % 7
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(seconds: u64) -> (u64, u64, u64, u64, u64, u64) {
        let Date { year, month, day, hour, minute, second } = Date::from_unix(seconds);
        (year, month, day, hour, minute, second)
    }

    #[test]
    fn known_moments_have_their_dates() {
        assert_eq!(date(0), (1970, 1, 1, 0, 0, 0));
        assert_eq!(date(951_782_400), (2000, 2, 29, 0, 0, 0));
        assert_eq!(date(1_503_300_061), (2017, 8, 21, 7, 21, 1));
        assert_eq!(date(4_107_542_399), (2100, 2, 28, 23, 59, 59));
        assert_eq!(date(4_107_542_400), (2100, 3, 1, 0, 0, 0));
    }

    #[test]
    fn every_day_comes_back_from_its_date() {
        for day in 0..400 * 366 {
            let seconds = day * DAY + 3 * 3600 + 25 * 60 + 45;
            assert_eq!(Date::from_unix(seconds).to_unix(), Some(seconds));
        }
    }

    #[test]
    fn what_is_no_date_has_no_seconds() {
        let good = Date { year: 1994, month: 11, day: 6, hour: 8, minute: 49, second: 37 };
        assert_eq!(good.to_unix(), Some(784_111_777));
        for bad in [
            Date { year: 1969, ..good },
            Date { month: 0, ..good },
            Date { month: 13, ..good },
            Date { day: 0, ..good },
            Date { hour: 24, ..good },
            Date { second: 61, ..good },
        ] {
            assert_eq!(bad.to_unix(), None, "{bad:?}");
        }
    }

    #[test]
    fn weeks_begin_on_monday() {
        assert_eq!(weekday(0), 3);
        assert_eq!(weekday(1_503_300_061), 0);
        assert_eq!(weekday(1_503_300_061 + 6 * DAY), 6);
    }
}
