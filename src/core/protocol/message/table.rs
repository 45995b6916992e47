//! The one macro behind all messages.
//!
//! A table reads: `field: type [versions]`, then what applies of
//! - `[versions; ignorable]`: a value is dropped where the version has no room for it; without the word that is an error;
//! - `null [versions]`: where an `Option` may be null, if not in all versions of the field;
//! - `tag(n)`: a tagged field (KIP-482), written only if it is not the default; tags of a struct ascend;
//! - `default(value)`: Kafka's default, if not the type's own.
//!
//! `struct Name of Api` is a whole request or response and gets `decode` and `encode`; the others are parts of one.

macro_rules! is_ignorable {
    () => {
        false
    };
    (ignorable) => {
        true
    };
}

macro_rules! tag_of {
    () => {
        None::<u32>
    };
    ($tag:literal) => {
        Some::<u32>($tag)
    };
}

macro_rules! may_be_null {
    ($version:expr) => {
        true
    };
    ($version:expr, $versions:expr) => {
        ($versions).contains(&$version)
    };
}

macro_rules! default_of {
    ($type:ty) => {
        <$type as $crate::protocol::message::field::Field>::default_value()
    };
    ($type:ty, $default:expr) => {
        $default
    };
}

/// Has the writer count what it writes as an error: any field of this name.
macro_rules! note_error {
    ($writer:ident, error_code, $value:expr) => {
        $writer.note_error($value)
    };
    ($writer:ident, $field:ident, $value:expr) => {};
}

/// See the head of this file.
macro_rules! message {
    ($(
        $(#[$attribute:meta])*
        struct $name:ident $(of $key:ident)? {
            $(
                $(#[$field_attribute:meta])*
                $field:ident: $type:ty [$versions:expr $(; $ignorable:ident)?]
                    $(null [$null:expr])? $(tag($tag:literal))? $(default($default:expr))?,
            )*
        }
    )*) => {$(
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_attribute])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: default_of!($type $(, $default)?),)* }
            }
        }

        $(message!(@whole $name $key);)?

        impl $crate::protocol::message::field::Field for $name {
            fn bytes_min(codec: $crate::protocol::message::field::Codec) -> usize {
                let mut bytes = usize::from(codec.flexible);
                $(
                    if tag_of!($($tag)?).is_none() && ($versions).contains(&codec.version) {
                        bytes += <$type as $crate::protocol::message::field::Field>::bytes_min(codec);
                    }
                )*
                bytes
            }

            fn read(
                reader: &mut $crate::protocol::wire::Reader<'_>,
                codec: $crate::protocol::message::field::Codec,
            ) -> Result<$name, $crate::protocol::wire::WireError> {
                let mut message = $name::default();
                $(
                    if tag_of!($($tag)?).is_none() && ($versions).contains(&codec.version) {
                        message.$field = message!(@read $name $field $type, reader, codec $(, $null)?);
                    }
                )*
                if codec.flexible {
                    reader.tagged_fields(|tag, reader| {
                        $(
                            if tag_of!($($tag)?) == Some(tag) && ($versions).contains(&codec.version) {
                                message.$field = message!(@read $name $field $type, reader, codec $(, $null)?);
                                return Ok(true);
                            }
                        )*
                        Ok(false)
                    })?;
                }
                Ok(message)
            }

            fn write(
                &self,
                writer: &mut $crate::protocol::wire::Writer,
                codec: $crate::protocol::message::field::Codec,
            ) -> Result<(), $crate::protocol::wire::WireError> {
                use $crate::protocol::wire::WireErrorKind;
                $(
                    let name = concat!(stringify!($name), ".", stringify!($field));
                    if !($versions).contains(&codec.version) {
                        if !is_ignorable!($($ignorable)?) && self.$field != default_of!($type $(, $default)?) {
                            let error = writer.error(WireErrorKind::CannotCarry { version: codec.version });
                            return Err(error.in_field(name));
                        }
                    } else if self.$field.is_null() && !may_be_null!(codec.version $(, $null)?) {
                        return Err(writer.error(WireErrorKind::Null).in_field(name));
                    } else if tag_of!($($tag)?).is_none() {
                        note_error!(writer, $field, self.$field);
                        self.$field.write(writer, codec).map_err(|error| error.in_field(name))?;
                    }
                )*
                if codec.flexible {
                    let mut tagged_count = 0;
                    $(
                        let is_written = tag_of!($($tag)?).is_some()
                            && ($versions).contains(&codec.version)
                            && self.$field != default_of!($type $(, $default)?);
                        tagged_count += u32::from(is_written);
                    )*
                    writer.uvarint(tagged_count);
                    $(
                        if let Some(tag) = tag_of!($($tag)?)
                            && ($versions).contains(&codec.version)
                            && self.$field != default_of!($type $(, $default)?)
                        {
                            writer.tagged_field(tag, |writer| self.$field.write(writer, codec))?;
                        }
                    )*
                }
                Ok(())
            }

            fn default_value() -> $name {
                $name::default()
            }

            #[cfg(any(test, feature = "sample"))]
            fn sample(
                sampler: &mut $crate::protocol::sample::Sampler,
                codec: $crate::protocol::message::field::Codec,
            ) -> $name {
                let mut message = $name::default();
                $(
                    if ($versions).contains(&codec.version) {
                        let value = <$type as $crate::protocol::message::field::Field>::sample(sampler, codec);
                        if !value.is_null() || may_be_null!(codec.version $(, $null)?) {
                            message.$field = value;
                        }
                    }
                )*
                message
            }
        }
    )*};

    (@read $name:ident $field:ident $type:ty, $reader:ident, $codec:ident $(, $null:expr)?) => {{
        let name = concat!(stringify!($name), ".", stringify!($field));
        let value = <$type>::read($reader, $codec).map_err(|error| error.in_field(name))?;
        if value.is_null() && !may_be_null!($codec.version $(, $null)?) {
            return Err($reader.error($crate::protocol::wire::WireErrorKind::Null).in_field(name));
        }
        value
    }};

    (@whole $name:ident $key:ident) => {
        impl $name {
            pub const API_KEY: $crate::protocol::ApiKey = $crate::protocol::ApiKey::$key;

            /// Reads one body of this version and leaves the reader behind it; as Kafka does, bytes after that are
            /// the caller's to judge.
            pub fn decode(
                reader: &mut $crate::protocol::Reader<'_>,
                version: i16,
            ) -> Result<$name, $crate::protocol::WireError> {
                use $crate::protocol::message::field::{Codec, Field as _};
                $name::read(reader, Codec::new(Self::API_KEY, version)?)
            }

            /// Writes the body in this version.
            ///
            /// # Errors
            /// `CannotCarry`, `Null`, `TooLong`, `Version`: what was written so far is no message.
            pub fn encode(
                &self,
                writer: &mut $crate::protocol::Writer,
                version: i16,
            ) -> Result<(), $crate::protocol::WireError> {
                use $crate::protocol::message::field::{Codec, Field as _};
                self.write(writer, Codec::new(Self::API_KEY, version)?)
            }

            /// A random value that this version can carry.
            ///
            /// # Panics
            /// If there is no such version.
            #[cfg(any(test, feature = "sample"))]
            pub fn sample(sampler: &mut $crate::protocol::sample::Sampler, version: i16) -> $name {
                use $crate::protocol::message::field::{Codec, Field};
                let codec = Codec::new(Self::API_KEY, version).expect("the version is in the table");
                <$name as Field>::sample(sampler, codec)
            }
        }

        impl $crate::protocol::message::Body for $name {
            fn decode(
                reader: &mut $crate::protocol::Reader<'_>,
                version: i16,
            ) -> Result<$name, $crate::protocol::WireError> {
                $name::decode(reader, version)
            }

            fn encode(
                &self,
                writer: &mut $crate::protocol::Writer,
                version: i16,
            ) -> Result<(), $crate::protocol::WireError> {
                $name::encode(self, writer, version)
            }
        }
    };
}

/// Calls a macro with every API whose request and response are both tables without records: all but Produce and Fetch.
macro_rules! each_plain_api {
    ($callback:ident) => {
        $callback! {
            AddPartitionsToTxn: AddPartitionsToTxnRequest, AddPartitionsToTxnResponse;
            AlterConfigs: AlterConfigsRequest, AlterConfigsResponse;
            ApiVersions: ApiVersionsRequest, ApiVersionsResponse;
            CreatePartitions: CreatePartitionsRequest, CreatePartitionsResponse;
            CreateTopics: CreateTopicsRequest, CreateTopicsResponse;
            DeleteRecords: DeleteRecordsRequest, DeleteRecordsResponse;
            DeleteTopics: DeleteTopicsRequest, DeleteTopicsResponse;
            DescribeCluster: DescribeClusterRequest, DescribeClusterResponse;
            DescribeConfigs: DescribeConfigsRequest, DescribeConfigsResponse;
            DescribeLogDirs: DescribeLogDirsRequest, DescribeLogDirsResponse;
            DescribeProducers: DescribeProducersRequest, DescribeProducersResponse;
            EndTxn: EndTxnRequest, EndTxnResponse;
            FindCoordinator: FindCoordinatorRequest, FindCoordinatorResponse;
            IncrementalAlterConfigs: IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse;
            InitProducerId: InitProducerIdRequest, InitProducerIdResponse;
            LeaderAndIsr: LeaderAndIsrRequest, LeaderAndIsrResponse;
            ListOffsets: ListOffsetsRequest, ListOffsetsResponse;
            Metadata: MetadataRequest, MetadataResponse;
            OffsetForLeaderEpoch: OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse;
            SaslAuthenticate: SaslAuthenticateRequest, SaslAuthenticateResponse;
            SaslHandshake: SaslHandshakeRequest, SaslHandshakeResponse;
            StopReplica: StopReplicaRequest, StopReplicaResponse;
            UpdateMetadata: UpdateMetadataRequest, UpdateMetadataResponse;
        }
    };
}
pub(crate) use each_plain_api;
