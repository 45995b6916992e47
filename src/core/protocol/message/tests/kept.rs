//! What coordinators keep, in every version. Kafka's own bytes and words are in `tests/golden/tools/coordinators`.

use super::*;

const SAMPLES: usize = 40;

/// Calls a function with every kept message as its type.
macro_rules! each_kept {
    ($check:ident) => {
        $check::<ConsumerProtocolAssignment>();
        $check::<ConsumerProtocolSubscription>();
        $check::<GroupMetadataKey>();
        $check::<GroupMetadataValue>();
        $check::<OffsetCommitKey>();
        $check::<OffsetCommitValue>();
        $check::<TransactionLogKey>();
        $check::<TransactionLogValue>();
    };
}

#[test]
fn every_kept_message_reads_back_as_it_was_written_in_every_version() {
    fn check<M: KeptMessage + std::fmt::Debug>() {
        let mut sampler = Sampler::new(1);
        for version in M::VERSIONS {
            for _ in 0..SAMPLES {
                let message = M::sample_of(&mut sampler, version);
                let bytes = written(|writer| message.encode(writer, version)).unwrap();
                let mut reader = Reader::new(&bytes);
                assert_eq!(M::decode(&mut reader, version), Ok(message), "version {version}");
                assert_eq!(reader.remaining(), 0);
            }
        }
    }
    each_kept!(check);
}

#[test]
fn a_kept_message_cut_at_any_byte_is_an_error() {
    fn check<M: KeptMessage + std::fmt::Debug>() {
        let mut sampler = Sampler::new(2);
        for version in M::VERSIONS {
            let message = M::sample_of(&mut sampler, version);
            let bytes = written(|writer| message.encode(writer, version)).unwrap();
            for end in 0..bytes.len() {
                let cut = M::decode(&mut Reader::new(&bytes[..end]), version);
                assert!(cut.is_err(), "version {version}, {end} of {} bytes: {cut:?}", bytes.len());
            }
        }
    }
    each_kept!(check);
}

#[test]
fn versions_of_kept_messages_that_kafka_does_not_have_are_refused_both_ways() {
    fn check<M: KeptMessage + std::fmt::Debug>() {
        for version in [M::VERSIONS.start() - 1, M::VERSIONS.end() + 1] {
            let refused = WireErrorKind::Version { api: M::NAME, version };
            let decoded = M::decode(&mut Reader::new(&[0; 64]), version);
            assert_eq!(decoded.map_err(|error| error.kind), Err(refused.clone()));
            let encoded = M::default_value().encode(&mut Writer::new(), version);
            assert_eq!(encoded.map_err(|error| error.kind), Err(refused));
        }
    }
    each_kept!(check);
}

#[test]
fn counts_and_lengths_beyond_the_bytes_left_take_no_memory() {
    fn error<M: KeptMessage + std::fmt::Debug>(version: i16, bytes: &[u8]) -> WireErrorKind {
        M::decode(&mut Reader::new(bytes), version).unwrap_err().kind
    }
    let huge = i32::MAX.to_be_bytes();
    let count = WireErrorKind::ArrayCount { count: i32::MAX as usize };
    // An empty protocol type, generation, no protocol, no leader; then the members.
    let group = [&[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff][..], &huge].concat();
    assert_eq!(error::<GroupMetadataValue>(0, &group), count);
    // One member without names or session timeout, whose subscription is to be that long.
    let member = [&group[..10], &1i32.to_be_bytes(), &[0; 10], &huge, &[0; 4]].concat();
    assert_eq!(error::<GroupMetadataValue>(0, &member).to_string(), "2147483647 bytes needed, 4 left");
    assert_eq!(error::<ConsumerProtocolAssignment>(0, &huge), count);
    assert_eq!(error::<ConsumerProtocolSubscription>(0, &huge), count);
    assert_eq!(error::<TransactionLogValue>(0, &[&[0; 15][..], &huge].concat()), count);
    let compact = error::<TransactionLogValue>(1, &[&[0; 15][..], &[0xff, 0xff, 0xff, 0xff, 7]].concat());
    assert_eq!(compact, WireErrorKind::ArrayCount { count: i32::MAX as usize - 1 });
    assert_eq!(error::<OffsetCommitKey>(0, &[0xff, 0xfe]), WireErrorKind::Length { length: -2 });
}

#[test]
fn json_has_the_fields_of_the_version() {
    let value = OffsetCommitValue { offset: 5, leader_epoch: 2, expire_timestamp: 9, ..OffsetCommitValue::default() };
    let json = |version| value.json(version).unwrap().to_string();
    assert_eq!(json(0), r#"{"offset":5,"metadata":"","commitTimestamp":0}"#);
    assert_eq!(json(1), r#"{"offset":5,"metadata":"","commitTimestamp":0,"expireTimestamp":9}"#);
    for version in 3..=4 {
        assert_eq!(json(version), r#"{"offset":5,"leaderEpoch":2,"metadata":"","commitTimestamp":0}"#);
    }
    let empty = TransactionLogValue { transaction_partitions: None, ..TransactionLogValue::default() };
    assert!(empty.json(1).unwrap().to_string().contains(r#""transactionPartitions":null,"#));
}
