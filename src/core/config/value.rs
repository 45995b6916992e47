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
    /// Comma-separated.
    List,
    /// The name of a Java class; none can be loaded here.
    Class,
    /// Text that nobody is told.
    Password,
    /// -1, or a gzip level.
    GzipLevel,
    /// A boolean that can only be false here.
    Never,
    /// A version of Kafka, as `inter.broker.protocol.version` names it.
    Version,
    /// `*`, or pairs `partition:broker` with commas between.
    Replicas,
    /// 16 bits.
    Short {
        min: i16,
        max: i16,
    },
}

/// Releases, and the steps `-IV0`, `-IV1`... that each was made in.
#[rustfmt::skip]
const RELEASES: &[(&str, u8)] = &[
    ("0.8.0", 0), ("0.8.1", 0), ("0.8.2", 0), ("0.9.0", 0), ("0.10.0", 2), ("0.10.1", 3), ("0.10.2", 1), ("0.11.0", 3),
    ("1.0", 1), ("1.1", 1), ("2.0", 2), ("2.1", 3), ("2.2", 2), ("2.3", 2), ("2.4", 2), ("2.5", 1), ("2.6", 1), ("2.7", 3),
    ("2.8", 2), ("3.0", 2), ("3.1", 1), ("3.2", 1), ("3.3", 4), ("3.4", 1), ("3.5", 3), ("3.6", 3), ("3.7", 5), ("3.8", 1),
    ("3.9", 1),
];

/// Kafka's name of a type, as DescribeConfigs numbers it (Kafka 3.9 `DescribeConfigsResponse.ConfigType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigType {
    Unknown = 0,
    Boolean = 1,
    String = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
    Class = 8,
    Password = 9,
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

    /// The type as clients are told of it.
    pub fn config_type(self) -> ConfigType {
        match self {
            Kind::Int { .. } | Kind::GzipLevel => ConfigType::Int,
            Kind::Short { .. } => ConfigType::Short,
            Kind::Long { .. } => ConfigType::Long,
            Kind::Double { .. } => ConfigType::Double,
            Kind::Bool | Kind::Never => ConfigType::Boolean,
            Kind::Text | Kind::Word(_) | Kind::Version => ConfigType::String,
            Kind::Words(_) | Kind::List | Kind::Replicas => ConfigType::List,
            Kind::Class => ConfigType::Class,
            Kind::Password => ConfigType::Password,
        }
    }

    /// Reads `text` as Kafka does: trimmed, booleans in any case. The error says what would have been right, in the words
    /// of Kafka 3.9's `ConfigDef`.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let not_a_number = || format!("Not a number of type {}", format!("{:?}", self.config_type()).to_uppercase());
        match self {
            Kind::Int { min, max } => {
                let number: i32 = text.parse().map_err(|_| not_a_number())?;
                in_range(i64::from(number), i64::from(min), i64::from(max)).map(Value::Number)
            }
            Kind::Short { min, max } => {
                let number: i16 = text.parse().map_err(|_| not_a_number())?;
                in_range(i64::from(number), i64::from(min), i64::from(max)).map(Value::Number)
            }
            Kind::Long { min, max } => {
                let number: i64 = text.parse().map_err(|_| not_a_number())?;
                in_range(number, min, max).map(Value::Number)
            }
            Kind::GzipLevel => match text.parse::<i32>().map_err(|_| not_a_number())? {
                level @ (-1 | 1..=9) => Ok(Value::Number(i64::from(level))),
                _ => Err("Value must be between 1 and 9 or equal to -1".to_owned()),
            },
            Kind::Double { min, max } => match java_double(text) {
                Some(number) if number < min => Err(format!("Value must be at least {min}")),
                Some(number) if number > max => Err(format!("Value must be no more than {max}")),
                Some(number) if !number.is_nan() => Ok(Value::Double(number)),
                Some(_) | None => Err(not_a_number()),
            },
            Kind::Bool if text.eq_ignore_ascii_case("true") => Ok(Value::Bool(true)),
            Kind::Bool if text.eq_ignore_ascii_case("false") => Ok(Value::Bool(false)),
            Kind::Never if text.eq_ignore_ascii_case("true") => Err("there is no tiered storage".to_owned()),
            Kind::Never if text.eq_ignore_ascii_case("false") => Ok(Value::Bool(false)),
            Kind::Bool | Kind::Never => Err("Expected value to be either true or false".to_owned()),
            // None is loaded here, but a name there must be.
            Kind::Class if text.is_empty() => Err("Class could not be found.".to_owned()),
            Kind::Text | Kind::Class | Kind::Password => Ok(Value::Text(text.to_owned())),
            Kind::Version if is_version(text) => Ok(Value::Text(text.to_owned())),
            Kind::Version => Err(format!("Version {text} is not a valid version")),
            Kind::Word(words) => one_of(text, words).map(|()| Value::Text(text.to_owned())),
            Kind::Words(_) | Kind::List | Kind::Replicas if text.is_empty() => Ok(Value::Text(String::new())),
            Kind::Words(words) => {
                for word in text.split(',') {
                    one_of(word.trim(), words)?;
                }
                Ok(Value::Text(text.to_owned()))
            }
            Kind::List => Ok(Value::Text(text.to_owned())),
            Kind::Replicas if text == "*" || text.split(',').all(is_replica) => Ok(Value::Text(text.to_owned())),
            Kind::Replicas => Err(
                "Must be the literal '*' or a list of replicas in the form [partitionId]:[brokerId],..., but was not"
                    .to_owned(),
            ),
        }
    }

    /// A value of this kind as Kafka writes it: `TRUE` is `true`, `a, b` is `a,b`.
    pub fn text(self, value: &Value) -> String {
        match (self, value) {
            (Kind::Words(_) | Kind::List | Kind::Replicas, Value::Text(text)) => {
                text.split(',').map(str::trim).collect::<Vec<_>>().join(",")
            }
            (_, Value::Text(text)) => text.clone(),
            (_, Value::Number(number)) => number.to_string(),
            (_, Value::Bool(value)) => value.to_string(),
            (_, Value::Double(number)) => double_text(*number),
        }
    }
}

/// A double as Java's `Double.toString` writes it.
fn double_text(number: f64) -> String {
    let size = number.abs();
    if number == 0.0 || (1e-3..1e7).contains(&size) || !number.is_finite() {
        return format!("{number:?}");
    }
    let text = format!("{number:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
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
        Err(format!("Value must be at least {min}"))
    } else if number > max {
        Err(format!("Value must be no more than {max}"))
    } else {
        Ok(number)
    }
}

/// A double as Java's `Double.parseDouble` reads it: infinity by its name alone, and a letter for the type at the end.
fn java_double(text: &str) -> Option<f64> {
    let number = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    let unsigned = number.strip_prefix(['+', '-']).unwrap_or(number);
    let is_number = unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    (is_number || unsigned == "Infinity" || unsigned == "NaN").then(|| number.parse().ok())?
}

/// Whether Kafka 3.9 knows this version of brokers (`MetadataVersion.fromVersionString`): `3.9`, `3.9-IV0`, or `3.9.1`,
/// whose last part says nothing.
fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let counted = if text.starts_with("0.") { 3 } else { 2 };
    let text = parts[..counted.min(parts.len())].join(".");
    let (release, step) = text.split_once("-IV").map_or((&*text, None), |(release, step)| (release, Some(step)));
    let Some((_, steps)) = RELEASES.iter().find(|(known, _)| *known == release) else { return false };
    step.is_none_or(|step| (0..*steps).any(|known| known.to_string() == step))
}

fn is_replica(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.trim();
    // A comma too many does no harm in Kafka either.
    text.is_empty() || text.split_once(':').is_some_and(|(partition, broker)| number(partition) && number(broker))
}

fn one_of(text: &str, words: &[&str]) -> Result<(), String> {
    if words.contains(&text) { Ok(()) } else { Err(format!("String must be one of: {}", words.join(", "))) }
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
        assert!(Kind::Words(&["a", "b"]).parse("a, b").is_ok() && Kind::Words(&["a"]).parse("").is_ok());
        assert!(Kind::Short { min: 1, max: i16::MAX }.parse("32768").unwrap_err().ends_with("type SHORT"));
        let double = Kind::Double { min: 0.0, max: f64::INFINITY };
        for (text, is_number) in [(".5", true), ("5e-1", true), ("1d", true), ("Infinity", true), ("inf", false)] {
            assert_eq!(double.parse(text).is_ok(), is_number, "{text}");
        }
        for (text, is_known) in [
            ("3.9", true),
            ("3.9.1", true),
            ("3.9-IV0", true),
            ("3.9-IV1", false),
            ("0.10.2", true),
            ("4.0", false),
            ("", false),
        ] {
            assert_eq!(Kind::Version.parse(text).is_ok(), is_known, "{text}");
        }
        assert!(Kind::Words(&["a", "b"]).parse("a,,b").is_err());
        assert!(Kind::Word(&["a"]).parse("A").unwrap_err().contains("one of: a"));
    }
    #[test]
    fn values_are_written_as_java_writes_them() {
        let written = |kind: Kind, text: &str| kind.text(&kind.parse(text).unwrap());
        let double = Kind::Double { min: f64::MIN, max: f64::MAX };
        for (text, java) in [
            ("0.5", "0.5"),
            ("1", "1.0"),
            ("1.7976931348623157E308", "1.7976931348623157E308"),
            ("10000000", "1.0E7"),
            ("0.00025", "2.5E-4"),
        ] {
            assert_eq!(written(double, text), java);
        }
        assert_eq!(written(Kind::List, " a , b"), "a,b");
        assert_eq!(written(Kind::Bool, "TRUE"), "true");
        assert_eq!(written(Kind::int(0), " 7 "), "7");
    }
}
