use super::*;

const LIMIT: usize = 1 << 20;

fn sample(codec: Codec) -> BytesMut {
    let mut builder = BatchBuilder::new(codec).base_offset(40).leader_epoch(3).producer(9, 1, i32::MAX - 1);
    builder.push(1000, Some(b"k"), Some(&[7; 300]), &[(b"h", Some(b"v")), (b"n", None)]);
    builder.push(990, None, Some(b"two"), &[]);
    builder.push(1005, Some(b""), None, &[]);
    builder.build()
}

#[test]
fn what_was_built_reads_back_in_every_codec() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let batch = sample(codec);
        let header = BatchHeader::parse(&batch).unwrap();
        assert_eq!(header.batch_bytes(), batch.len());
        assert_eq!(header.codec(), Some(codec));
        assert_eq!((header.base_offset, header.last_offset(), header.record_count), (40, 42, 3));
        assert_eq!((header.base_timestamp, header.max_timestamp), (1000, 1005));
        assert_eq!((header.leader_epoch, header.last_sequence()), (3, 0), "the sequence wraps to 0");
        assert!(has_valid_crc(&batch));
        let records = decode_records(&batch, LIMIT).unwrap();
        assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [40, 41, 42]);
        assert_eq!(records.iter().map(|record| record.timestamp).collect::<Vec<_>>(), [1000, 990, 1005]);
        assert_eq!(records[0].headers[1], ("n".into(), None));
        assert_eq!((records[2].key.as_deref(), records[2].value.as_deref()), (Some(&b""[..]), None));
    }
}

#[test]
fn a_stamp_leaves_the_crc_valid_and_append_time_renews_it() {
    let mut batch = sample(Codec::None);
    stamp(&mut batch, 7, 12);
    assert!(has_valid_crc(&batch));
    let header = BatchHeader::parse(&batch).unwrap();
    assert_eq!((header.base_offset, header.leader_epoch), (7, 12));
    set_log_append_time(&mut batch, 5000);
    assert!(has_valid_crc(&batch));
    let header = BatchHeader::parse(&batch).unwrap();
    assert_eq!((header.timestamp_type(), header.max_timestamp), (TimestampType::LogAppendTime, 5000));
    assert!(decode_records(&batch, LIMIT).unwrap().iter().all(|record| record.timestamp == 5000));
}

#[test]
fn concatenated_batches_end_at_a_cut_one() {
    let (first, second) = (sample(Codec::None), sample(Codec::Gzip));
    let both = [&first[..], &second[..]].concat();
    assert_eq!(batches(&both).filter(Result::is_ok).count(), 2);
    for cut in first.len() + 1..both.len() {
        let mut iteration = batches(&both[..cut]);
        assert!(iteration.next().unwrap().is_ok());
        assert!(matches!(iteration.next(), Some(Err(BatchError::Truncated))));
        assert!(iteration.next().is_none());
    }
}

#[test]
fn a_header_with_another_magic_or_a_length_below_its_own_is_refused() {
    let mut batch = sample(Codec::None);
    batch[MAGIC_POSITION] = 1;
    assert!(matches!(BatchHeader::parse(&batch), Err(BatchError::Magic(1))));
    batch[MAGIC_POSITION] = 2;
    for (length, fine) in [(48, false), (49, true), (-1, false)] {
        batch[8..12].copy_from_slice(&i32::to_be_bytes(length));
        assert_eq!(BatchHeader::parse(&batch).is_ok(), fine, "{length}");
    }
}

#[test]
fn a_record_count_that_is_not_the_bodys_is_refused() {
    for count in [0i32, 2, 4, i32::MAX, -1] {
        let mut batch = sample(Codec::None);
        batch[57..61].copy_from_slice(&count.to_be_bytes());
        assert!(matches!(decode_records(&batch, LIMIT), Err(BatchError::Count { .. })), "{count}");
    }
}

#[test]
fn mutated_batches_never_panic_a_reader() {
    let mut seed = 1u64;
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let batch = sample(codec);
        for _ in 0..1000 {
            let mut mutated = batch.clone();
            for _ in 0..1 + crate::base::splitmix64::next(&mut seed) % 4 {
                let at = crate::base::splitmix64::next(&mut seed) as usize % mutated.len();
                mutated[at] = crate::base::splitmix64::next(&mut seed) as u8;
            }
            mutated.truncate(1 + crate::base::splitmix64::next(&mut seed) as usize % mutated.len());
            fuzz_decode_batches(&mutated);
        }
    }
}
