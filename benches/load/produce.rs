//! Produce: the same batch again and again, as one frame per partition made beforehand.

use ringlog::protocol::header::{RequestHeader, begin_request, decode_response_header, finish_frame};
use ringlog::protocol::message::produce::{ProduceRequestToSend, ProduceResponse};
use ringlog::protocol::{ApiKey, Reader};
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;

use crate::LoadError;
use crate::client::{Carried, Workload};

const VERSION: i16 = 11;
const TIMEOUT_MS: i32 = 30_000;
/// Where a request frame has its correlation id: behind size, API key and version.
const CORRELATION_ID_POSITION: usize = 8;

/// Of batches, as they are sent, and of records' values.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub batch_bytes: usize,
    pub record_bytes: usize,
}

pub struct Produce {
    /// By partition.
    frames: Vec<Vec<u8>>,
    /// Of each batch.
    carried: Carried,
    next_partition: usize,
}

impl Produce {
    pub fn new(topic: &str, partitions: i32, sizes: Sizes, codec: Codec, acks: i16) -> Result<Produce, LoadError> {
        let (batch, records) = batch(sizes, codec);
        let mut frames = Vec::new();
        for partition in 0..partitions {
            let header = RequestHeader {
                api_key: ApiKey::Produce.code(),
                api_version: VERSION,
                correlation_id: 0,
                client_id: Some("load".into()),
            };
            let mut writer = begin_request(&header)?;
            let request = ProduceRequestToSend {
                transactional_id: None,
                acks,
                timeout_ms: TIMEOUT_MS,
                topics: &[(topic, &[(partition, Some(&batch[..]))])],
            };
            request.encode(&mut writer, VERSION)?;
            frames.push(finish_frame(writer)?.to_vec());
        }
        let carried = Carried { bytes: batch.len() as u64, records };
        Ok(Produce { frames, carried, next_partition: 0 })
    }
}

/// A batch of about `batch_bytes`, but at least one record, and how many: of bytes that do not repeat, unless a codec
/// is to have something to do.
fn batch(sizes: Sizes, codec: Codec) -> (Vec<u8>, u64) {
    const RECORD_OVERHEAD: usize = 12;
    const BATCH_OVERHEAD: usize = 61;
    /// What a codec makes of bytes half of which are always the same.
    const GROWTH: usize = 2;
    let Sizes { batch_bytes, record_bytes } = sizes;
    let wall_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    let growth = if codec == Codec::None { 1 } else { GROWTH };
    let plain_bytes = batch_bytes.saturating_sub(BATCH_OVERHEAD) * growth;
    let count = (plain_bytes / (record_bytes + RECORD_OVERHEAD)).max(1);
    let mut builder = BatchBuilder::new(codec);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..count {
        let mut value: Vec<u8> = (0..record_bytes)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        if codec != Codec::None {
            value[record_bytes / GROWTH..].fill(b'x');
        }
        builder.push(wall_ms, None, Some(&value), &[]);
    }
    (builder.build().to_vec(), count as u64)
}

impl Workload for Produce {
    fn request(&mut self, _connection: usize, correlation_id: i32, out: &mut Vec<u8>) -> Result<(), LoadError> {
        let start = out.len() + CORRELATION_ID_POSITION;
        out.extend_from_slice(&self.frames[self.next_partition]);
        out[start..start + 4].copy_from_slice(&correlation_id.to_be_bytes());
        self.next_partition = (self.next_partition + 1) % self.frames.len();
        Ok(())
    }

    fn answer(&mut self, _connection: usize, correlation_id: i32, frame: &[u8]) -> Result<Carried, LoadError> {
        let mut reader = Reader::new(frame);
        if decode_response_header(&mut reader, ApiKey::Produce, VERSION)? != correlation_id {
            return Err(LoadError::Answer("answers are out of order"));
        }
        let response = ProduceResponse::decode(&mut reader, VERSION)?;
        let partition = response.responses.first().and_then(|topic| topic.partition_responses.first());
        match partition.ok_or(LoadError::Answer("an answer without a partition"))?.error_code {
            0 => Ok(self.carried),
            code => Err(LoadError::Refused(code)),
        }
    }
}
