//! Record batches, message sets, records and what the codecs make of them.

use ringlog::base::crc32c::crc32c;
use ringlog::record::batch::{BATCH_HEADER_BYTES, fuzz_decode_batches};
use ringlog::record::compression::{Codec, Compression, compress, fuzz_decompress};
use ringlog::record::down_convert::fuzz_down_convert;
use ringlog::record::message_set::fuzz_convert_to_v2;
use ringlog::record::records::fuzz_take_record;
use ringlog::record::validate::fuzz_validate_produce;
use ringlog::storage::compaction::pass::fuzz_pass;
use ringlog::storage::entry::fuzz_parse_entry;

use crate::corpus;
use crate::harness::{Target, check, of_bytes};

/// What one decompressed batch may have in the fuzz bodies, twice for growing, and what is made of it.
const DECOMPRESSED_MEMORY: usize = 4 << 20;

/// Puts the CRC of every entry right, of batches and of old messages.
pub fn mend_entries(bytes: &mut [u8]) {
    let mut at = 0;
    while bytes.len() >= at + 18 {
        let length = i32::from_be_bytes([bytes[at + 8], bytes[at + 9], bytes[at + 10], bytes[at + 11]]);
        let Some(end) = usize::try_from(length).ok().map(|length| at + 12 + length) else { return };
        if end > bytes.len() {
            return;
        }
        let (crc, from) = if bytes[at + 16] == 2 { (at + 17, at + 21) } else { (at + 12, at + 16) };
        if from > end {
            return;
        }
        let sum = if bytes[at + 16] == 2 { crc32c(&bytes[from..end]) } else { crc32fast::hash(&bytes[from..end]) };
        bytes[crc..crc + 4].copy_from_slice(&sum.to_be_bytes());
        at = end;
    }
}

/// A target that may decompress.
fn decompressing(mut target: Target<Vec<u8>>) -> Target<Vec<u8>> {
    let in_proportion = target.memory_max;
    target.memory_max = Box::new(move |input| in_proportion(input) + DECOMPRESSED_MEMORY);
    target
}

/// What a topic's `compression.type` may be.
fn target(choice: u32) -> Option<Compression> {
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    codecs.get(choice as usize % 6).map(|codec| Compression::of(*codec))
}

#[test]
fn batches_are_read_or_refused() {
    let (batches, _) = corpus::batches_and_sets();
    check(decompressing(of_bytes("batches", batches, Some(mend_entries), fuzz_decode_batches)));
}

#[test]
fn a_produced_batch_is_validated_or_refused() {
    let (batches, _) = corpus::batches_and_sets();
    let body = |input: &[u8]| fuzz_validate_produce(input, target(crc32fast::hash(input)));
    check(decompressing(of_bytes("validate", batches, Some(mend_entries), body)));
}

#[test]
fn records_are_walked_to_their_end() {
    check(of_bytes("records", plain_records(), None, fuzz_take_record));
}

#[test]
fn message_sets_are_converted_or_refused() {
    let (_, mut sets) = corpus::batches_and_sets();
    sets.extend(corpus::partition("old-formats-0").into_iter().filter(|(name, _)| name.ends_with(".log")).map(|f| f.1));
    check(decompressing(of_bytes("message sets", sets, Some(mend_entries), fuzz_convert_to_v2)));
}

#[test]
fn stored_records_are_converted_down_or_refused() {
    let (mut stored, sets) = corpus::batches_and_sets();
    stored.extend(sets);
    check(packing(of_bytes("down-conversion", stored, Some(mend_entries), fuzz_down_convert)));
}

#[test]
fn a_segment_is_compacted_or_refused() {
    let (mut entries, sets) = corpus::batches_and_sets();
    entries.extend(sets);
    check(packing(of_bytes("compaction", entries, Some(mend_entries), fuzz_pass)));
}

#[test]
fn the_entries_of_a_log_are_told_apart() {
    let (mut entries, sets) = corpus::batches_and_sets();
    entries.extend(sets);
    check(of_bytes("entries", entries, Some(mend_entries), fuzz_parse_entry));
}

#[test]
fn every_codec_decompresses_or_refuses_what_it_is_given() {
    let (batches, _) = corpus::batches_and_sets();
    let is_compressed = |batch: &&Vec<u8>| {
        let codec = batch.get(22).and_then(|attributes| Codec::from_id(i16::from(attributes & 7)));
        batch.len() > BATCH_HEADER_BYTES && batch[16] == 2 && codec.is_some_and(|codec| codec != Codec::None)
    };
    let blocks = batches.iter().filter(is_compressed).map(|batch| batch[BATCH_HEADER_BYTES..].to_vec());
    let corpus = blocks.chain(corpus::saved("decompress")).collect();
    check(decompressing(of_bytes("decompress", corpus, None, fuzz_decompress)));
}

/// Bodies of the uncompressed batches, whose records are then damaged and compressed again.
fn plain_records() -> Vec<Vec<u8>> {
    let (batches, _) = corpus::batches_and_sets();
    let plain = batches.iter().filter(|batch| batch.len() > BATCH_HEADER_BYTES && batch[16] == 2 && batch[22] & 7 == 0);
    plain.map(|batch| batch[BATCH_HEADER_BYTES..].to_vec()).collect()
}

/// A sound v2 batch around such records, of as many as its header says.
fn batch_around(codec: Codec, count: i32, records: &[u8]) -> Vec<u8> {
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    batch[16] = 2;
    batch[21..23].copy_from_slice(&codec.id().to_be_bytes());
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[43..51].fill(0xff);
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    batch.extend_from_slice(&compress(codec, records));
    let length = i32::try_from(batch.len() - 12).expect("an input is short");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    mend_entries(&mut batch);
    batch
}

#[test]
fn damaged_records_in_sound_compression_are_read_or_refused() {
    let body = |input: &[u8]| {
        // How the input is packed comes from itself, so that it can be repeated.
        let choice = crc32fast::hash(input);
        let codec = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][choice as usize % 5];
        let batch = batch_around(codec, 1 + (choice >> 8) as i32 % 4, input);
        fuzz_decode_batches(&batch);
        fuzz_down_convert(&batch);
        fuzz_validate_produce(&batch, target(choice >> 16));
    };
    check(packing(of_bytes("compressed records", plain_records(), None, body)));
}

#[test]
fn damaged_messages_in_sound_wrappers_are_converted_or_refused() {
    let (_, mut sets) = corpus::batches_and_sets();
    sets.retain(|set| set.len() > 18 && set[17] & 7 == 0);
    let body = |input: &[u8]| {
        let choice = crc32fast::hash(input);
        let codec = [Codec::Gzip, Codec::Snappy, Codec::Lz4][choice as usize % 3];
        let magic = (choice >> 8) as u8 & 1;
        let mut wrapper = vec![0; 12 + 4];
        wrapper.extend_from_slice(&[magic, codec.id() as u8]);
        wrapper.extend_from_slice(&[0; 8][..usize::from(magic) * 8]);
        wrapper.extend_from_slice(&[0xff; 4]);
        let value = compress(codec, input);
        wrapper.extend_from_slice(&i32::try_from(value.len()).expect("an input is short").to_be_bytes());
        wrapper.extend_from_slice(&value);
        let length = i32::try_from(wrapper.len() - 12).expect("an input is short");
        wrapper[8..12].copy_from_slice(&length.to_be_bytes());
        mend_entries(&mut wrapper);
        fuzz_convert_to_v2(&wrapper);
        fuzz_down_convert(&wrapper);
    };
    check(packing(of_bytes("compressed messages", sets, Some(mend_entries), body)));
}

/// A target that compresses, whose libraries take some memory for that, and converts.
fn packing(target: Target<Vec<u8>>) -> Target<Vec<u8>> {
    let mut target = decompressing(target);
    let in_proportion = target.memory_max;
    target.memory_max = Box::new(move |input| in_proportion(input) + (64 << 20));
    target
}
