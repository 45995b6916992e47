//! Messages that are not sent as requests and answers but kept: in the records of Kafka's own topics, or in bytes that a
//! coordinator passes on unread. Their versions stand in their tables, and Kafka's tools show them as JSON.

use std::ops::RangeInclusive;

use super::field::{Codec, Field};
use super::json::{Json, ToJson};
#[cfg(any(test, feature = "sample"))]
use crate::protocol::sample::Sampler;
use crate::protocol::wire::{Reader, WireError, WireErrorKind, Writer};

/// A whole message of a [`kept_message!`] table. Its version is not part of it: it stands before it.
pub trait KeptMessage: Field + ToJson {
    const NAME: &'static str;
    /// Kafka 3.9's.
    const VERSIONS: RangeInclusive<i16>;

    fn is_flexible(version: i16) -> bool;

    /// # Errors
    /// `Version` if Kafka 3.9 has no such version.
    fn codec(version: i16) -> Result<Codec, WireError> {
        match Self::VERSIONS.contains(&version) {
            true => Ok(Codec { version, flexible: Self::is_flexible(version) }),
            false => Err(WireError::new(WireErrorKind::Version { api: Self::NAME, version }, 0)),
        }
    }

    /// Reads one message and leaves the reader behind it.
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, WireError> {
        Self::read(reader, Self::codec(version)?)
    }

    /// # Errors
    /// As of requests: what was written so far is no message.
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), WireError> {
        self.write(writer, Self::codec(version)?)
    }

    /// The fields that this version has.
    fn json(&self, version: i16) -> Result<Json, WireError> {
        Ok(self.to_json(Self::codec(version)?))
    }

    /// A random value that this version can carry.
    ///
    /// # Panics
    /// If there is no such version.
    #[cfg(any(test, feature = "sample"))]
    fn sample_of(sampler: &mut Sampler, version: i16) -> Self {
        Self::sample(sampler, Self::codec(version).expect("the version is in the table"))
    }
}

/// A table as of [`message!`]; `of [versions; flexible versions]` makes a struct a whole message.
macro_rules! kept_message {
    ($(
        $(#[$attribute:meta])*
        struct $name:ident $(of [$versions:expr $(; flexible $flexible:expr)?])? {
            $(
                $(#[$field_attribute:meta])*
                $field:ident: $type:ty [$field_versions:expr $(; $ignorable:ident)?] $(default($default:expr))?,
            )*
        }
    )*) => {$(
        message! {
            $(#[$attribute])*
            struct $name {
                $(
                    $(#[$field_attribute])*
                    $field: $type [$field_versions $(; $ignorable)?] $(default($default))?,
                )*
            }
        }

        impl $crate::protocol::message::json::ToJson for $name {
            fn to_json(
                &self,
                codec: $crate::protocol::message::field::Codec,
            ) -> $crate::protocol::message::json::Json {
                use $crate::protocol::message::json::{Json, ToJson, camel_case};
                let mut fields = Vec::new();
                $(
                    if ($field_versions).contains(&codec.version) {
                        fields.push((camel_case(stringify!($field)), ToJson::to_json(&self.$field, codec)));
                    }
                )*
                Json::Object(fields)
            }
        }

        $(
            impl $crate::protocol::message::KeptMessage for $name {
                const NAME: &'static str = stringify!($name);
                const VERSIONS: std::ops::RangeInclusive<i16> = $versions;

                fn is_flexible(_version: i16) -> bool {
                    false $(|| ($flexible).contains(&_version))?
                }
            }
        )?
    )*};
}
