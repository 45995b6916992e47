//! Points in time as people read them, in UTC.

#![forbid(unsafe_code)]

pub const MS_PER_DAY: i64 = 86_400_000;
/// Days of the four hundred years after which the calendar repeats, and from 0000-03-01 to 1970-01-01.
const DAYS_PER_ERA: i64 = 146_097;
const DAYS_TO_1970: i64 = 719_468;

/// `2026-01-31 23:59:59:123`, as Kafka's performance tools print it.
pub fn text(ms: i64) -> String {
    let (year, month, day) = date(ms.div_euclid(MS_PER_DAY));
    let of_day = ms.rem_euclid(MS_PER_DAY);
    let (seconds, ms) = (of_day / 1000, of_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}:{ms:03}")
}

/// Year, month and day of a day since 1970-01-01; the year is counted from March, so that the leap day is its last.
pub fn date(day: i64) -> (i64, i64, i64) {
    let day = day + DAYS_TO_1970;
    let (era, day) = (day.div_euclid(DAYS_PER_ERA), day.rem_euclid(DAYS_PER_ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let calendar_month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(calendar_month <= 2), calendar_month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(text(0), "1970-01-01 00:00:00:000");
        assert_eq!(text(951_782_399_999), "2000-02-28 23:59:59:999");
        assert_eq!(text(951_782_400_000), "2000-02-29 00:00:00:000");
        assert_eq!(text(1_709_164_800_000), "2024-02-29 00:00:00:000");
        assert_eq!(text(4_107_542_400_000), "2100-03-01 00:00:00:000");
        assert_eq!(text(1_735_689_599_001), "2024-12-31 23:59:59:001");
    }
}
