//! Records for consumers older than 0.11: read into memory, converted to magic 0 or 1 on a work thread.
//!
//! Bounds: what one answer converts ([`SOURCE_BYTES_MAX`], or one batch), what it decompresses and makes
//! ([`crate::record::down_convert`]), and per shard what is under way or waits to be sent
//! (`Budgets::conversion_bytes`).

use bytes::Bytes;

use super::TOPIC_IDS_VERSION;
use crate::base::budget::Permit;
use crate::base::ids::Offset;
use crate::local::Local;
use crate::net::reply::FileOf;
use crate::partition::read::ReadResult;
use crate::platform::{Disk, FileRange, Platform, Tasks};
use crate::protocol::ErrorCode;
use crate::record::down_convert::{DownConvertError, OldMagic, down_convert};

/// Stored bytes that one answer may convert, unless its first batch alone is larger.
pub const SOURCE_BYTES_MAX: u64 = 1024 * 1024;

/// How much larger converted records are taken to be: a small record's fields grow from about 10 bytes to 34.
const GROWTH: u64 = 4;

/// The last version that gets magic 0.
const MAGIC_0_VERSION: i16 = 1;

/// Converted records.
pub struct Converted {
    /// By place.
    pub records: Vec<Option<Bytes>>,
    /// What they take of the shard's bound.
    pub held: Option<Permit>,
}

/// Converts what was found; what can't be converted becomes an error of its partition.
pub async fn all<P: Platform>(
    local: &Local<P>,
    version: i16,
    offsets: &[Offset],
    found: &mut [Option<Result<ReadResult<FileOf<P>>, ErrorCode>>],
) -> Converted {
    debug_assert!(version < TOPIC_IDS_VERSION, "a request that names its partitions itself");
    let magic = if version <= MAGIC_0_VERSION { OldMagic::V0 } else { OldMagic::V1 };
    let lengths = found.iter().flatten().flatten().filter_map(|read| read.data.as_ref());
    let source_bytes: u64 = lengths.map(|data| data.range.length).sum();
    let held = match source_bytes {
        0 => None,
        bytes => Some(local.budgets.conversion_bytes.acquire(bytes.saturating_mul(GROWTH)).await),
    };
    let mut records = Vec::with_capacity(found.len());
    for (found, offset) in found.iter_mut().zip(offsets) {
        let data = found.as_mut().and_then(|found| found.as_mut().ok()).and_then(|read| read.data.take());
        let Some(data) = data else {
            records.push(None);
            continue;
        };
        match one(local, &data.range, magic, *offset).await {
            Ok(converted) => records.push(converted),
            Err(code) => {
                *found = Some(Err(code));
                records.push(None);
            }
        }
    }
    Converted { records, held }
}

async fn one<P: Platform>(
    local: &Local<P>,
    range: &FileRange<FileOf<P>>,
    magic: OldMagic,
    offset: Offset,
) -> Result<Option<Bytes>, ErrorCode> {
    let read = local.platform.disk().read(&range.file, range.position, range.length as usize).await;
    let source = read.map_err(|error| {
        tracing::warn!(%error, "records could not be read to convert them");
        ErrorCode::KafkaStorageError
    })?;
    // Cut off meanwhile: they were never promised.
    if range.enter().is_none() {
        return Ok(None);
    }
    let converted = local.platform.tasks().work(move || down_convert(&source, magic, offset)).await;
    // The work threads have more to do than they take: nothing is an answer too, and the client asks again.
    let Some(converted) = converted else { return Ok(None) };
    converted.map(|records| Some(Bytes::from(records))).map_err(|error| match error {
        DownConvertError::Zstd => ErrorCode::UnsupportedCompressionType,
        DownConvertError::Damaged(reason) => {
            tracing::warn!(reason, "records could not be converted to an older format");
            ErrorCode::CorruptMessage
        }
    })
}
