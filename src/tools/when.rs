//! Points in time and offsets, as people write them.

#![forbid(unsafe_code)]

use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::time::WallMs;

const MS_PER_DAY: i64 = 86_400_000;

/// Where to begin, or to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Beginning,
    End,
    Offset(i64),
    /// So many records before the end.
    BeforeEnd(i64),
    /// The first record not earlier than this.
    Time(WallMs),
}

/// `beginning`, `end`, N, -N or `@TIME`.
pub fn place(text: &str) -> Result<Place, String> {
    match text {
        "beginning" | "earliest" | "start" => return Ok(Place::Beginning),
        "end" | "latest" => return Ok(Place::End),
        _ => {}
    }
    if let Some(time) = text.strip_prefix('@') {
        return timestamp(time).map(Place::Time);
    }
    match text.parse::<i64>() {
        Ok(offset @ 0..) => Ok(Place::Offset(offset)),
        Ok(before) => Ok(Place::BeforeEnd(before.saturating_neg())),
        Err(_) => Err(format!("'{text}' is none of beginning, end, N, -N (before the end) and @TIME")),
    }
}

/// Milliseconds since 1970, or ISO 8601: a date, maybe a time of day, maybe a zone; without one it is UTC.
pub fn timestamp(text: &str) -> Result<WallMs, String> {
    if let Ok(ms) = text.parse::<i64>()
        && ms >= 0
    {
        return Ok(ms);
    }
    iso8601(text).ok_or_else(|| {
        format!("'{text}' is not a time; write milliseconds since 1970, or like 2026-01-31T12:00:00Z (UTC if no zone)")
    })
}

fn iso8601(text: &str) -> Option<WallMs> {
    let (date, rest) = text.split_at_checked(10)?;
    let day = day_of(&numbers(date, '-')?)?;
    let Some(rest) = rest.strip_prefix(['T', 't', ' ']) else { return rest.is_empty().then_some(day * MS_PER_DAY) };
    let zone_at = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(zone_at);
    Some(day * MS_PER_DAY + ms_of_day(time)? - zone_ms(zone)?)
}

/// Numbers of digits alone, between separators.
fn numbers(text: &str, separator: char) -> Option<Vec<i64>> {
    let number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten();
    text.split(separator).map(number).collect()
}

/// Days since 1970-01-01 in the Gregorian calendar.
fn day_of(date: &[i64]) -> Option<i64> {
    let [year, month, day] = *date else { return None };
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *days.get(usize::try_from(month - 1).ok()?)?;
    if !(1..=length).contains(&day) {
        return None;
    }
    let before: i64 = days.iter().take(usize::try_from(month - 1).ok()?).sum();
    let leap_days = |year: i64| year / 4 - year / 100 + year / 400;
    let since_zero = |year: i64| 365 * year + leap_days(year - 1);
    Some(since_zero(year) - since_zero(1970) + before + day - 1)
}

fn ms_of_day(time: &str) -> Option<i64> {
    let (clock, fraction) = time.split_once(['.', ',']).unwrap_or((time, ""));
    let parts = numbers(clock, ':')?;
    let (hours, minutes, seconds) = match parts[..] {
        [hours, minutes] => (hours, minutes, 0),
        [hours, minutes, seconds] => (hours, minutes, seconds),
        _ => return None,
    };
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    let ms = numbers(&digits, ':')?.first().copied()?;
    let in_range = hours < 24 && minutes < 60 && seconds < 60;
    in_range.then_some(((hours * 60 + minutes) * 60 + seconds) * 1000 + ms)
}

fn zone_ms(zone: &str) -> Option<i64> {
    if zone.is_empty() || zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = zone.split_at(1);
    let digits = rest.replace(':', "");
    let number = numbers(&digits, ':')?.first().copied()?;
    let (hours, minutes) = match digits.len() {
        2 => (number, 0),
        4 => (number / 100, number % 100),
        _ => return None,
    };
    let ms = (hours * 60 + minutes) * 60_000;
    (minutes < 60).then_some(if sign == "-" { -ms } else { ms })
}

/// The wall clock, as records count it.
pub fn now_ms() -> WallMs {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form_and_zone() {
        for (text, ms) in [
            ("1700000000000", 1_700_000_000_000),
            ("1970-01-01", 0),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000),
            ("2023-11-14T22:13:20", 1_700_000_000_000),
            ("2023-11-14 22:13:20.5", 1_700_000_000_500),
            ("2023-11-15T00:13:20.123456+02:00", 1_700_000_000_123),
            ("2023-11-14T17:13-0500", 1_699_999_980_000),
            ("2024-02-29T00:00Z", 1_709_164_800_000),
            ("2000-03-01", 951_868_800_000),
        ] {
            assert_eq!(timestamp(text), Ok(ms), "{text}");
        }
        for wrong in [
            "",
            "-5",
            "2023-02-29",
            "2023-13-01",
            "2023-1-1",
            "2023-11-14T25:00",
            "yesterday",
            "2023-11-14T22:00+1",
            "2023-11-14X",
        ] {
            assert!(timestamp(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn places_are_words_offsets_or_times() {
        assert_eq!(place("beginning"), Ok(Place::Beginning));
        assert_eq!(place("end"), Ok(Place::End));
        assert_eq!(place("0"), Ok(Place::Offset(0)));
        assert_eq!(place("-10"), Ok(Place::BeforeEnd(10)));
        assert_eq!(place("@5"), Ok(Place::Time(5)));
        assert!(place("@").is_err() && place("somewhere").is_err());
    }
}
