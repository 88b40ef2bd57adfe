//! Unix milliseconds as dates and spans that people read.

use std::fmt;

const DAY_S: u64 = 86_400;

/// A time in UTC: 2026-01-31 13:05:59.007.
pub fn utc(unix_ms: u64) -> impl fmt::Display {
    let (seconds, millis) = (unix_ms / 1_000, unix_ms % 1_000);
    let (year, month, day) = civil(seconds / DAY_S);
    let (hour, minute, second) = (seconds % DAY_S / 3_600, seconds % 3_600 / 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}")
}

/// The time of day alone: 13:05:59.007.
pub(super) fn time_of_day(unix_ms: u64) -> String {
    utc(unix_ms).to_string().split_off(11)
}

/// A span: 7 ms, 1.250 s, 2 min 3 s, 5 h 20 min.
pub(super) fn span(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{}.{:03} s", millis / 1_000, millis % 1_000),
        60_000..3_600_000 => format!("{} min {} s", millis / 60_000, millis % 60_000 / 1_000),
        _ => format!("{} h {} min", millis / 3_600_000, millis % 3_600_000 / 60_000),
    }
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar: H. Hinnant, "chrono-compatible low-level
/// date algorithms", civil_from_days.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let known = [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_400_000, "2000-02-29 00:00:00.000"),
            (1_767_225_599_999, "2025-12-31 23:59:59.999"),
            (1_795_244_645_007, "2026-11-21 07:04:05.007"),
        ];
        for (unix_ms, text) in known {
            assert_eq!(utc(unix_ms).to_string(), text);
        }
        assert_eq!(time_of_day(1_795_244_645_007), "07:04:05.007");
        // The largest number does not panic.
        let _ = utc(u64::MAX).to_string();
    }

    #[test]
    fn spans_have_the_unit_that_fits() {
        let texts = [7, 1_250, 123_456, 19_200_000].map(span);
        assert_eq!(texts, ["7 ms", "1.250 s", "2 min 3 s", "5 h 20 min"]);
    }
}
