//! `--date-format` of the consumer's performance test: patterns of Java's `SimpleDateFormat`, in English and in UTC.

#![forbid(unsafe_code)]

use crate::bench::civil::{MS_PER_DAY, date};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// From the day of 1970-01-01 on.
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
/// Letters of a short name.
const SHORT: usize = 3;
const LETTERS: &str = "GyMLDdFEuaHkKhmsSzZX";
/// A number has no more digits; longer runs of a letter would only be zeros.
const RUN_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A letter and how often it stands there.
    Field(char, usize),
}

/// A pattern that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateFormat(Vec<Piece>);

impl DateFormat {
    /// # Errors
    /// In words: a letter that is not supported, or a quote without its end.
    pub fn new(pattern: &str) -> Result<DateFormat, String> {
        let mut pieces = Vec::new();
        let mut letters = pattern.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '\'' => pieces.push(Piece::Text(quoted(&mut letters)?)),
                letter if letter.is_ascii_alphabetic() => {
                    let mut count = 1;
                    while letters.next_if_eq(&letter).is_some() {
                        count += 1;
                    }
                    if !LETTERS.contains(letter) || (letter == 'X' && count > SHORT) || count > RUN_MAX {
                        let run = letter.to_string().repeat(count.min(RUN_MAX));
                        return Err(format!(
                            "'{run}' can't be shown; letters are {LETTERS}, other text stands in quotes"
                        ));
                    }
                    pieces.push(Piece::Field(letter, count));
                }
                other => pieces.push(Piece::Text(other.to_string())),
            }
        }
        Ok(DateFormat(pieces))
    }

    /// A time in milliseconds since 1970.
    pub fn text(&self, ms: i64) -> String {
        let shown = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Field(letter, count) => field(*letter, *count, ms),
        };
        self.0.iter().map(shown).collect()
    }
}

/// Text up to the closing quote; two quotes stand for one, within and without.
fn quoted(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, String> {
    if letters.next_if_eq(&'\'').is_some() {
        return Ok("'".to_owned());
    }
    let mut text = String::new();
    loop {
        match letters.next() {
            Some('\'') if letters.next_if_eq(&'\'').is_some() => text.push('\''),
            Some('\'') => return Ok(text),
            Some(letter) => text.push(letter),
            None => return Err(format!("the quote before '{text}' has no end")),
        }
    }
}

fn field(letter: char, count: usize, ms: i64) -> String {
    let days = ms.div_euclid(MS_PER_DAY);
    let of_day = ms.rem_euclid(MS_PER_DAY);
    let (year, month, day) = date(days);
    let hour = of_day / 3_600_000;
    let number = |number: i64| format!("{number:0count$}");
    let name = |name: &str| name.get(..if count > SHORT { name.len() } else { SHORT }).unwrap_or(name).to_owned();
    match letter {
        'G' => "AD".to_owned(),
        'y' if count == 2 => format!("{:02}", year % 100),
        'y' => number(year),
        'M' | 'L' if count < SHORT => number(month),
        'M' | 'L' => name(MONTHS[(month as usize - 1) % MONTHS.len()]),
        'D' => number(days - first_of(year, days) + 1),
        'd' => number(day),
        'F' => number((day - 1) / 7 + 1),
        'E' => name(DAYS[days.rem_euclid(7) as usize]),
        // Monday is the first, and the fifth of those that begin with a Thursday.
        'u' => number((days + 3).rem_euclid(7) + 1),
        'a' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
        'H' => number(hour),
        'k' => number(if hour == 0 { 24 } else { hour }),
        'K' => number(hour % 12),
        'h' => number(if hour % 12 == 0 { 12 } else { hour % 12 }),
        'm' => number(of_day / 60_000 % 60),
        's' => number(of_day / 1000 % 60),
        'S' => number(of_day % 1000),
        'z' => if count > SHORT { "Coordinated Universal Time" } else { "UTC" }.to_owned(),
        'Z' => "+0000".to_owned(),
        _ => "Z".to_owned(),
    }
}

/// The day, since 1970, of the first of January of a year that has the day `within`.
fn first_of(year: i64, within: i64) -> i64 {
    let before = |back: &i64| date(within - back).0 == year;
    within - (0..366).take_while(before).last().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Java 21 prints for 2024-02-29 15:04:05.006 UTC in the English of the United States.
    #[test]
    fn patterns_print_what_javas_do() {
        for (pattern, expected) in [
            ("yyyy-MM-dd HH:mm:ss:SSS", "2024-02-29 15:04:05:006"),
            ("yy y yyyyy", "24 2024 02024"),
            ("M MMM MMMM L", "2 Feb February 2"),
            ("d ddd D DDD F", "29 029 60 060 5"),
            ("E EEEE u", "Thu Thursday 4"),
            ("h:mm a K k H", "3:04 PM 3 15 15"),
            ("S SS SSSSSS", "6 06 000006"),
            ("z zzzz Z X XXX G", "UTC Coordinated Universal Time +0000 Z Z AD"),
            ("yyyy'T'HH'h' ''yy'' 'it''s'", "2024T15h '24' it's"),
            ("[m.s]", "[4.5]"),
            ("", ""),
        ] {
            let format = DateFormat::new(pattern).expect("right");
            assert_eq!(format.text(1_709_219_045_006), expected, "{pattern}");
        }
        let hours = DateFormat::new("h K k H a").expect("right");
        assert_eq!(hours.text(0), "12 0 24 0 AM");
        assert_eq!(DateFormat::new("D").expect("right").text(-1), "365");
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (wrong, named) in
            [("yyyy w", "'w'"), ("YYYY", "'YYYY'"), ("HHn", "'n'"), ("XXXX", "'XXXX'"), ("'at", "'at'")]
        {
            assert!(DateFormat::new(wrong).is_err_and(|why| why.contains(named)), "{wrong}");
        }
    }
}
