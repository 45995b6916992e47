//! Types and ranges of settings: from the text an operator wrote to a checked value.

#![forbid(unsafe_code)]

/// What a setting may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// 32 bits.
    Int {
        min: i32,
        max: i32,
    },
    /// 64 bits.
    Long {
        min: i64,
        max: i64,
    },
    Double {
        min: f64,
        max: f64,
    },
    Bool,
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Comma-separated, each one of these words.
    Words(&'static [&'static str]),
    /// -1, or a gzip level.
    GzipLevel,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Number(i64),
    Double(f64),
    Bool(bool),
    Text(String),
}

impl Kind {
    pub const fn int(min: i32) -> Kind {
        Kind::Int { min, max: i32::MAX }
    }

    pub const fn long(min: i64) -> Kind {
        Kind::Long { min, max: i64::MAX }
    }

    /// Reads `text` as Kafka does: trimmed, booleans in any case. The error says what would have been right.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        match self {
            Kind::Int { min, max } => {
                let number: i32 = text.parse().map_err(|_| "not a 32-bit number".to_owned())?;
                in_range(i64::from(number), i64::from(min), i64::from(max)).map(Value::Number)
            }
            Kind::Long { min, max } => {
                let number: i64 = text.parse().map_err(|_| "not a 64-bit number".to_owned())?;
                in_range(number, min, max).map(Value::Number)
            }
            Kind::GzipLevel => match text.parse() {
                Ok(level @ (-1 | 1..=9)) => Ok(Value::Number(level)),
                _ => Err("must be -1 or from 1 to 9".to_owned()),
            },
            Kind::Double { min, max } => match text.parse::<f64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(Value::Double(number)),
                Ok(_) => Err(format!("must be from {min} to {max}")),
                Err(_) => Err("not a number".to_owned()),
            },
            Kind::Bool if text.eq_ignore_ascii_case("true") => Ok(Value::Bool(true)),
            Kind::Bool if text.eq_ignore_ascii_case("false") => Ok(Value::Bool(false)),
            Kind::Bool => Err("must be true or false".to_owned()),
            Kind::Text => Ok(Value::Text(text.to_owned())),
            Kind::Word(words) => one_of(text, words).map(|()| Value::Text(text.to_owned())),
            Kind::Words(words) => {
                for word in text.split(',') {
                    one_of(word.trim(), words)?;
                }
                Ok(Value::Text(text.to_owned()))
            }
        }
    }
}

impl Value {
    /// A number's value.
    ///
    /// # Panics
    /// If the setting is no number: its table entry and its reader disagree.
    pub fn number(&self) -> i64 {
        match self {
            Value::Number(number) => *number,
            other => panic!("{other:?} is no number"),
        }
    }

    /// An `Int` setting's value; panics like [`Value::number`].
    pub fn int(&self) -> i32 {
        i32::try_from(self.number()).expect("an Int setting has 32 bits")
    }

    /// Panics like [`Value::number`].
    pub fn bool(&self) -> bool {
        match self {
            Value::Bool(value) => *value,
            other => panic!("{other:?} is no boolean"),
        }
    }

    /// Panics like [`Value::number`].
    pub fn double(&self) -> f64 {
        match self {
            Value::Double(value) => *value,
            other => panic!("{other:?} is no double"),
        }
    }

    /// Panics like [`Value::number`].
    pub fn text(&self) -> &str {
        match self {
            Value::Text(value) => value,
            other => panic!("{other:?} is no text"),
        }
    }
}

fn in_range(number: i64, min: i64, max: i64) -> Result<i64, String> {
    if number < min {
        Err(format!("must be at least {min}"))
    } else if number > max {
        Err(format!("must be at most {max}"))
    } else {
        Ok(number)
    }
}

fn one_of(text: &str, words: &[&str]) -> Result<(), String> {
    if words.contains(&text) { Ok(()) } else { Err(format!("must be one of {}", words.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_kafka_reads_them() {
        assert_eq!(Kind::int(0).parse(" 42 "), Ok(Value::Number(42)));
        assert!(Kind::int(0).parse("2147483648").is_err());
        assert!(Kind::int(1).parse("0").unwrap_err().contains("at least 1"));
        assert_eq!(Kind::long(-1).parse("-1"), Ok(Value::Number(-1)));
        assert_eq!(Kind::Bool.parse("TRUE"), Ok(Value::Bool(true)));
        assert!(Kind::Bool.parse("yes").is_err());
        assert!(Kind::GzipLevel.parse("0").is_err() && Kind::GzipLevel.parse("-1").is_ok());
        assert!(Kind::Double { min: 0.0, max: 1.0 }.parse("NaN").is_err());
        assert!(Kind::Words(&["a", "b"]).parse("a, b").is_ok());
        assert!(Kind::Words(&["a", "b"]).parse("a,,b").is_err());
        assert!(Kind::Word(&["a"]).parse("A").unwrap_err().contains("one of a"));
    }
}
