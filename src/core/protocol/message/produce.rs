//! Produce (0): records in, base offsets out.
//!
//! The request is read in place, by hand: names are lent and records are positions in the body, because the broker
//! checks and stamps the batches where they were received. The response is a table as any other.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::field::Codec;
use super::leader::{LeaderIdAndEpoch, NodeEndpoint};
use crate::protocol::api_key::ApiKey;
use crate::protocol::wire::{Reader, WireError, WireErrorKind, Writer};

/// Records to append, lent from the received body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRequest<'a> {
    /// From version 3 on.
    pub transactional_id: Option<Cow<'a, str>>,
    /// 0: none, 1: the leader's, -1: all of the ISR.
    pub acks: i16,
    /// How long acks of -1 may take, in ms.
    pub timeout_ms: i32,
    pub topic_data: Vec<TopicProduceData<'a>>,
}

/// A topic's part of a [`ProduceRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicProduceData<'a> {
    pub name: Cow<'a, str>,
    pub partition_data: Vec<PartitionProduceData>,
}

/// A partition's records, as a range of the body given to [`ProduceRequest::decode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionProduceData {
    pub index: i32,
    pub records: Option<Range<usize>>,
}

impl<'a> ProduceRequest<'a> {
    /// Reads the body of a request, all that follows its header. No record is looked at.
    pub fn decode(body: &'a [u8], version: i16) -> Result<ProduceRequest<'a>, WireError> {
        let codec = Codec::new(ApiKey::Produce, version)?;
        let flexible = codec.flexible;
        let mut reader = Reader::new(body);
        let reader = &mut reader;
        let transactional_id = if version >= 3 {
            reader.nullable_string(flexible).map_err(|error| error.in_field("ProduceRequest.transactional_id"))?
        } else {
            None
        };
        let acks = reader.i16().map_err(|error| error.in_field("ProduceRequest.acks"))?;
        let timeout_ms = reader.i32().map_err(|error| error.in_field("ProduceRequest.timeout_ms"))?;
        let topic_data =
            decode_topics(reader, flexible).map_err(|error| error.in_field("ProduceRequest.topic_data"))?;
        skip_tags(reader, flexible)?;
        Ok(ProduceRequest { transactional_id, acks, timeout_ms, topic_data })
    }
}

fn decode_topics<'a>(reader: &mut Reader<'a>, flexible: bool) -> Result<Vec<TopicProduceData<'a>>, WireError> {
    let bytes_min = if flexible { 3 } else { 6 };
    let count = reader.array_count::<TopicProduceData<'_>>(flexible, bytes_min)?;
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        let name = reader.string(flexible)?;
        let partition_data = decode_partitions(reader, flexible)?;
        skip_tags(reader, flexible)?;
        topics.push(TopicProduceData { name, partition_data });
    }
    Ok(topics)
}

fn decode_partitions(reader: &mut Reader<'_>, flexible: bool) -> Result<Vec<PartitionProduceData>, WireError> {
    let bytes_min = if flexible { 6 } else { 8 };
    let count = reader.array_count::<PartitionProduceData>(flexible, bytes_min)?;
    let mut partitions = Vec::with_capacity(count);
    for _ in 0..count {
        let index = reader.i32()?;
        let records = reader.nullable_bytes(flexible)?;
        let records = records.map(|records| reader.position() - records.len()..reader.position());
        skip_tags(reader, flexible)?;
        partitions.push(PartitionProduceData { index, records });
    }
    Ok(partitions)
}

fn skip_tags(reader: &mut Reader<'_>, flexible: bool) -> Result<(), WireError> {
    if flexible { reader.skip_tagged_fields() } else { Ok(()) }
}

/// A partition's index and its records, to send.
pub type PartitionToSend<'a> = (i32, Option<&'a [u8]>);

/// A request to send, for clients: names and records are lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRequestToSend<'a> {
    pub transactional_id: Option<&'a str>,
    pub acks: i16,
    pub timeout_ms: i32,
    pub topics: &'a [(&'a str, &'a [PartitionToSend<'a>])],
}

impl ProduceRequestToSend<'_> {
    /// Writes the body in this version, records and all.
    ///
    /// # Errors
    /// `CannotCarry` for a transactional id below version 3; `TooLong`, `Version`.
    pub fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), WireError> {
        let flexible = Codec::new(ApiKey::Produce, version)?.flexible;
        if version >= 3 {
            writer.nullable_string(self.transactional_id, flexible)?;
        } else if self.transactional_id.is_some() {
            return Err(writer
                .error(WireErrorKind::CannotCarry { version })
                .in_field("ProduceRequest.transactional_id"));
        }
        writer.i16(self.acks);
        writer.i32(self.timeout_ms);
        writer.length(Some(self.topics.len()), flexible)?;
        for (name, partitions) in self.topics {
            writer.string(name, flexible)?;
            writer.length(Some(partitions.len()), flexible)?;
            for (index, records) in *partitions {
                writer.i32(*index);
                writer.nullable_bytes(*records, flexible)?;
                no_tags(writer, flexible);
            }
            no_tags(writer, flexible);
        }
        no_tags(writer, flexible);
        Ok(())
    }
}

fn no_tags(writer: &mut Writer, flexible: bool) {
    if flexible {
        writer.uvarint(0);
    }
}

message! {
    /// What became of each partition's records.
    struct ProduceResponse of Produce {
        responses: Vec<TopicProduceResponse> [0..],
        throttle_time_ms: i32 [1..; ignorable],
        node_endpoints: Vec<NodeEndpoint> [10..] tag(0),
    }

    /// A topic answered.
    struct TopicProduceResponse {
        name: Arc<str> [0..],
        partition_responses: Vec<PartitionProduceResponse> [0..],
    }

    /// Base offset and, in ms, log append time (-1: the records keep their own); -1 for all of them on an error.
    struct PartitionProduceResponse {
        index: i32 [0..],
        error_code: i16 [0..],
        base_offset: i64 [0..],
        log_append_time_ms: i64 [2..; ignorable] default(-1),
        log_start_offset: i64 [5..; ignorable] default(-1),
        record_errors: Vec<BatchIndexAndErrorMessage> [8..; ignorable],
        error_message: Option<String> [8..; ignorable] default(None),
        current_leader: LeaderIdAndEpoch [10..] tag(0),
    }

    /// A record that made the broker refuse its batch (KIP-467).
    struct BatchIndexAndErrorMessage {
        batch_index: i32 [8..],
        batch_index_error_message: Option<String> [8..] default(None),
    }
}

#[cfg(test)]
mod tests;
