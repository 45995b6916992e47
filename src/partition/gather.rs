//! Small batches of many producers made one (`--rebatch`): one header instead of many, and a codec that sees them all.
//!
//! Only batches that stand side by side in the queue, and none of idempotent or transactional producers: their sequence
//! numbers belong to batches. What can't be made one is appended as it came; that is always right, since each batch is
//! sound for itself.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use bytes::BytesMut;

use super::append::{Origin, Pending, Whose};
use crate::config::TopicConfig;
use crate::config::topic::CompressionType;
use crate::platform::Tasks;
use crate::record::batch::BatchHeader;
use crate::record::compression::{Codec, Compression};
use crate::record::repack::merge;

/// A larger batch has little to gain.
const SMALL_BATCH_BYTES_MAX: usize = 16 * 1024;
/// What is made one, as it came and decompressed: consumers read whole batches.
const GATHERED_BYTES_MAX: usize = 256 * 1024;
const DECOMPRESSED_BYTES_MAX: usize = 1024 * 1024;
const GATHERED_BATCHES_MAX: usize = 1024;

/// The codec that a topic wants its batches in, and its level; `None`: the producer's stays.
pub fn target_compression(config: &TopicConfig) -> Option<Compression> {
    let of = |codec, level| Some(Compression { codec, level });
    match config.compression_type {
        CompressionType::Producer => None,
        CompressionType::Uncompressed => of(Codec::None, 0),
        CompressionType::Gzip => of(Codec::Gzip, config.compression_gzip_level),
        CompressionType::Snappy => of(Codec::Snappy, 0),
        CompressionType::Lz4 => of(Codec::Lz4, config.compression_lz4_level),
        CompressionType::Zstd => of(Codec::Zstd, config.compression_zstd_level),
    }
}

/// Whether a batch may become part of another.
pub fn is_small(header: &BatchHeader) -> bool {
    header.batch_bytes() <= SMALL_BATCH_BYTES_MAX
        && !header.has_producer_id()
        && !header.is_transactional()
        && !header.is_control()
}

/// How many batches at the head of the queue are to be made one; `None`: the first is to be appended as it is.
pub(super) fn count(pending: &VecDeque<Pending>, config: &TopicConfig) -> Option<usize> {
    let is_gatherable = |pending: &&Pending| {
        pending.origin == Origin::Client && matches!(pending.whose, Whose::One(_)) && is_small(&pending.header)
    };
    let first = pending.front().filter(is_gatherable)?;
    let may_join = |pending: &&Pending| is_gatherable(pending) && pending.leader_epoch == first.leader_epoch;
    let mut bytes = 0;
    let bytes_max = batch_bytes_max(config).min(GATHERED_BYTES_MAX);
    let run = pending.iter().take(GATHERED_BATCHES_MAX).take_while(may_join).take_while(|pending| {
        bytes += pending.batch.len();
        bytes <= bytes_max
    });
    let count = run.count();
    let has_other_codec = target_compression(config).is_some_and(|target| first.header.codec() != Some(target.codec));
    match count {
        // Alone, and not compressed where it was checked because it might have met others.
        0 | 1 => has_other_codec.then_some(1),
        _ => Some(count),
    }
}

fn batch_bytes_max(config: &TopicConfig) -> usize {
    usize::try_from(config.max_message_bytes.min(config.segment_bytes)).unwrap_or(0)
}

/// Makes one batch of all; resolves to it, or to all of them if it can't be. Either way they are not looked at again.
pub(super) fn run<T: Tasks>(
    tasks: &T,
    pending: Vec<Pending>,
    config: &TopicConfig,
) -> impl Future<Output = Vec<Pending>> + 'static {
    let first = pending.first().and_then(|pending| pending.header.codec()).unwrap_or_default();
    let target = target_compression(config).unwrap_or_else(|| Compression::of(first));
    let bytes_max = batch_bytes_max(config);
    let (mut headers, mut senders, mut batches) = (Vec::new(), Vec::new(), Vec::new());
    let leader_epoch = pending.first().map_or(0, |pending| pending.leader_epoch);
    let made = move |batch, header, senders| Pending {
        batch,
        header,
        origin: Origin::Client,
        leader_epoch,
        whose: Whose::Gathered(senders),
    };
    for Pending { batch, header, whose, .. } in pending {
        headers.push(header);
        batches.push(batch);
        senders.push(whose);
    }
    // Shared, since the work threads drop what they have no room for.
    let batches = Arc::new(batches);
    let shared = Arc::clone(&batches);
    let merging = tasks.work(move || merge(&shared, target, DECOMPRESSED_BYTES_MAX, bytes_max));
    async move {
        let merged = merging.await.flatten().and_then(|batch| {
            let header = BatchHeader::parse(&batch).ok()?;
            Some((batch, header))
        });
        let senders = senders.into_iter().zip(&headers).flat_map(|(whose, header)| match whose {
            Whose::One(sender) => vec![(sender, header.record_count)],
            Whose::Gathered(senders) => senders,
        });
        match merged {
            Some((batch, header)) => vec![made(batch, header, senders.collect())],
            None => {
                let batches: Vec<BytesMut> = Arc::try_unwrap(batches).unwrap_or_else(|batches| batches.to_vec());
                let each = batches.into_iter().zip(&headers).zip(senders);
                each.map(|((batch, header), sender)| made(batch, *header, vec![sender])).collect()
            }
        }
    }
}
