//! Kafka's deserializers by the names of their classes, and what `toString` makes of their values.

#![forbid(unsafe_code)]

use std::borrow::Cow;

/// See the head of this file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deserializer {
    /// As they are. Kafka's console consumer would print a Java object's address.
    #[default]
    ByteArray,
    String,
    Short,
    Integer,
    Long,
    Float,
    Double,
}

use Deserializer as D;

impl Deserializer {
    const ALL: [Deserializer; 7] = [D::ByteArray, D::String, D::Short, D::Integer, D::Long, D::Float, D::Double];

    fn name(self) -> &'static str {
        match self {
            D::ByteArray => "ByteArrayDeserializer",
            D::String => "StringDeserializer",
            D::Short => "ShortDeserializer",
            D::Integer => "IntegerDeserializer",
            D::Long => "LongDeserializer",
            D::Float => "FloatDeserializer",
            D::Double => "DoubleDeserializer",
        }
    }

    /// Of `org.apache.kafka.common.serialization.LongDeserializer`, or the last part of it.
    pub fn of_class(class: &str) -> Result<Deserializer, String> {
        let name = class.strip_prefix("org.apache.kafka.common.serialization.").unwrap_or(class);
        Self::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Deserializer::name).join(", ");
            format!("Java classes such as '{class}' can't be loaded; there are {known}")
        })
    }

    /// What is printed.
    ///
    /// # Errors
    /// Kafka's sentence on a number of another size.
    pub fn show(self, bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
        let text = match self {
            D::ByteArray => return Ok(Cow::Borrowed(bytes)),
            D::String => String::from_utf8_lossy(bytes).into_owned(),
            D::Short => i16::from_be_bytes(self.sized(bytes)?).to_string(),
            D::Integer => i32::from_be_bytes(self.sized(bytes)?).to_string(),
            D::Long => i64::from_be_bytes(self.sized(bytes)?).to_string(),
            D::Float => {
                let number = f32::from_be_bytes(self.sized(bytes)?);
                as_java(number.into(), &format!("{number:?}"), &format!("{number:e}"))
            }
            D::Double => {
                let number = f64::from_be_bytes(self.sized(bytes)?);
                as_java(number, &format!("{number:?}"), &format!("{number:e}"))
            }
        };
        Ok(Cow::Owned(text.into_bytes()))
    }

    fn sized<const N: usize>(self, bytes: &[u8]) -> Result<[u8; N], String> {
        bytes.try_into().map_err(|_| format!("Size of data received by {} is not {N}", self.name()))
    }
}

/// `Double.toString`: computerised scientific notation below a thousandth and from ten million on.
fn as_java(number: f64, plain: &str, scientific: &str) -> String {
    match number.abs() {
        _ if number.is_nan() => "NaN".to_owned(),
        f64::INFINITY => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        size if size == 0.0 || (1e-3..1e7).contains(&size) => plain.to_owned(),
        _ => match scientific.split_once('e') {
            Some((digits, exponent)) if digits.contains('.') => format!("{digits}E{exponent}"),
            Some((digits, exponent)) => format!("{digits}.0E{exponent}"),
            None => plain.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(class: &str, bytes: &[u8]) -> Result<String, String> {
        let class = format!("org.apache.kafka.common.serialization.{class}Deserializer");
        let shown = Deserializer::of_class(&class).expect("known").show(bytes)?;
        Ok(String::from_utf8_lossy(&shown).into_owned())
    }

    #[test]
    fn values_are_printed_as_java_prints_them() {
        assert_eq!(shown("Short", &(-2i16).to_be_bytes()).as_deref(), Ok("-2"));
        assert_eq!(shown("Integer", &7i32.to_be_bytes()).as_deref(), Ok("7"));
        assert_eq!(shown("Long", &i64::MIN.to_be_bytes()).as_deref(), Ok("-9223372036854775808"));
        assert_eq!(shown("Float", &0.1f32.to_be_bytes()).as_deref(), Ok("0.1"));
        for (number, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.001, "0.001"),
            (0.00025, "2.5E-4"),
            (9_999_999.5, "9999999.5"),
            (1e7, "1.0E7"),
            (-1.5e300, "-1.5E300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(shown("Double", &f64::to_be_bytes(number)).as_deref(), Ok(text));
        }
        assert_eq!(shown("String", b"a\xff").as_deref(), Ok("a\u{fffd}"));
        assert_eq!(shown("ByteArray", b"abc").as_deref(), Ok("abc"));
    }

    #[test]
    fn another_size_and_another_class_are_refused_in_a_sentence() {
        assert_eq!(shown("Integer", b"abc"), Err("Size of data received by IntegerDeserializer is not 4".to_owned()));
        assert!(Deserializer::of_class("com.example.AvroDeserializer").unwrap_err().contains("can't be loaded"));
    }
}
