//! Messages as JSON, as Kafka's generated `JsonConverter`s make it and Jackson prints it: what its tools show.
#![forbid(unsafe_code)]

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Serialize, ser};
use serde_json::ser::{CharEscape, Formatter};

use super::field::Codec;

/// A value whose objects keep their fields in the schema's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    Null,
    Number(i64),
    Text(String),
    /// Shown as base64.
    Bytes(Bytes),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn text(text: impl Into<String>) -> Json {
        Json::Text(text.into())
    }

    pub fn object<const N: usize>(fields: [(&str, Json); N]) -> Json {
        Json::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// The field of an object.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Json> {
        match self {
            Json::Object(fields) => fields.iter_mut().find(|(known, _)| known == name).map(|(_, value)| value),
            _ => None,
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => serializer.serialize_unit(),
            Json::Number(number) => serializer.serialize_i64(*number),
            Json::Text(text) => serializer.serialize_str(text),
            Json::Bytes(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            Json::Array(elements) => serializer.collect_seq(elements),
            Json::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                ser::SerializeMap::end(map)
            }
        }
    }
}

/// Jackson's text, which differs from serde_json's in one thing: control characters have capital digits.
struct Jackson;

impl Formatter for Jackson {
    fn write_char_escape<W: ?Sized + io::Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        let escaped: &[u8] = match escape {
            CharEscape::Quote => b"\\\"",
            CharEscape::ReverseSolidus => b"\\\\",
            CharEscape::Solidus => b"\\/",
            CharEscape::Backspace => b"\\b",
            CharEscape::FormFeed => b"\\f",
            CharEscape::LineFeed => b"\\n",
            CharEscape::CarriageReturn => b"\\r",
            CharEscape::Tab => b"\\t",
            CharEscape::AsciiControl(byte) => return write!(writer, "\\u{byte:04X}"),
        };
        writer.write_all(escaped)
    }
}

impl std::fmt::Display for Json {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, Jackson);
        self.serialize(&mut serializer).map_err(|_| std::fmt::Error)?;
        formatter.write_str(str::from_utf8(&text).map_err(|_| std::fmt::Error)?)
    }
}

/// A field that is shown as JSON.
pub trait ToJson {
    fn to_json(&self, codec: Codec) -> Json;
}

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl ToJson for $type {
            fn to_json(&self, _: Codec) -> Json {
                Json::Number(i64::from(*self))
            }
        }
    )*};
}

numbers! { i8 i16 i32 i64 }

impl ToJson for String {
    fn to_json(&self, _: Codec) -> Json {
        Json::text(self)
    }
}

impl ToJson for Bytes {
    fn to_json(&self, _: Codec) -> Json {
        Json::Bytes(self.clone())
    }
}

impl<T: ToJson> ToJson for Vec<T> {
    fn to_json(&self, codec: Codec) -> Json {
        Json::Array(self.iter().map(|element| element.to_json(codec)).collect())
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn to_json(&self, codec: Codec) -> Json {
        self.as_ref().map_or(Json::Null, |value| value.to_json(codec))
    }
}

/// `leader_epoch` as `leaderEpoch`.
pub fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (initial, rest) = word.split_at(word.len().min(1));
        name + &initial.to_ascii_uppercase() + rest
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_jacksons_text_with_fields_in_order() {
        let json = Json::object([
            ("z", Json::Null),
            ("a", Json::Array(vec![Json::Number(-1), Json::Bytes(Bytes::from_static(&[0xfb, 0xff]))])),
            ("text", Json::text("\"\\/\u{8}\t\n\u{c}\r\u{1f}\u{7f}é🦀")),
            ("empty", Json::object([])),
        ]);
        let expected =
            concat!(r#"{"z":null,"a":[-1,"+/8="],"text":"\"\\/\b\t\n\f\r\u001F"#, "\u{7f}", r#"é🦀","empty":{}}"#);
        assert_eq!(json.to_string(), expected);
    }

    #[test]
    fn names_are_the_schemas() {
        assert_eq!(camel_case("group"), "group");
        assert_eq!(camel_case("transaction_last_update_timestamp_ms"), "transactionLastUpdateTimestampMs");
    }
}
