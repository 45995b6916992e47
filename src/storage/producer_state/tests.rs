use super::*;
use crate::record::batch::{BatchBuilder, BatchHeader};
use crate::record::compression::Codec;

fn header(producer_id: i64, epoch: i16, base_sequence: i32, base_offset: Offset, count: i32) -> BatchHeader {
    let mut builder =
        BatchBuilder::new(Codec::None).producer(producer_id, epoch, base_sequence).base_offset(base_offset);
    (0..count).for_each(|_| builder.push(1000 + base_offset, None, None, &[]));
    BatchHeader::parse(&builder.build()).unwrap()
}

fn state_after(batches: &[(i16, i32, Offset, i32)]) -> ProducerState {
    let mut state = ProducerState::default();
    for (epoch, sequence, offset, count) in batches {
        let header = header(7, *epoch, *sequence, *offset, *count);
        assert_eq!(state.check(&header), Ok(Admission::New));
        state.apply(&header);
    }
    state
}

#[test]
fn the_next_sequence_is_new_and_a_gap_is_refused() {
    let state = state_after(&[(0, 0, 0, 3)]);
    assert_eq!(state.check(&header(7, 0, 3, 0, 2)), Ok(Admission::New));
    for sequence in [1, 2, 4, 100] {
        let refused = state.check(&header(7, 0, sequence, 0, 1));
        let expected = AppendRefusal::OutOfOrderSequence { producer_id: 7, base_sequence: sequence, last_sequence: 2 };
        assert_eq!(refused, Err(expected));
    }
    assert_eq!(state.check(&header(8, 3, 55, 0, 1)), Ok(Admission::New), "an unknown producer starts anywhere");
}

#[test]
fn the_last_five_batches_are_recognised_and_the_sixth_is_out_of_order() {
    let batches: Vec<_> = (0..6).map(|at| (0, at * 2, i64::from(at) * 10, 2)).collect();
    let state = state_after(&batches);
    for at in 1..6 {
        let offset = i64::from(at) * 10;
        let duplicate = Admission::Duplicate { base_offset: offset, last_offset: offset + 1, timestamp: 1000 + offset };
        assert_eq!(state.check(&header(7, 0, at * 2, 999, 2)), Ok(duplicate));
    }
    assert!(matches!(state.check(&header(7, 0, 0, 999, 2)), Err(AppendRefusal::OutOfOrderSequence { .. })));
    assert!(state.check(&header(7, 0, 4, 999, 1)).is_err(), "part of a batch is no duplicate");
}

#[test]
fn sequences_wrap_from_the_largest_to_zero() {
    let state = state_after(&[(0, i32::MAX - 1, 0, 2)]);
    assert_eq!(state.check(&header(7, 0, 0, 0, 1)), Ok(Admission::New));
    let state = state_after(&[(0, i32::MAX, 0, 3)]);
    assert_eq!(state.check(&header(7, 0, 2, 0, 1)), Ok(Admission::New));
    let duplicate = Admission::Duplicate { base_offset: 0, last_offset: 2, timestamp: 1000 };
    assert_eq!(state.check(&header(7, 0, i32::MAX, 0, 3)), Ok(duplicate));
}

#[test]
fn epochs_below_none_are_refused_and_one_that_is_none_has_no_order() {
    let state = ProducerState::default();
    assert!(matches!(state.check(&header(7, -2, 0, 0, 1)), Err(AppendRefusal::InvalidProducerEpoch { .. })));
    let state = state_after(&[(-1, 5, 0, 1)]);
    assert_eq!(state.check(&header(7, -1, 99, 0, 1)), Ok(Admission::New));
    assert!(matches!(state.check(&header(7, -2, 0, 0, 1)), Err(AppendRefusal::InvalidProducerEpoch { .. })));
}

#[test]
fn a_newer_epoch_starts_at_zero_and_an_older_one_is_fenced() {
    let state = state_after(&[(3, 0, 0, 3)]);
    assert_eq!(state.check(&header(7, 4, 0, 0, 1)), Ok(Admission::New));
    assert!(matches!(state.check(&header(7, 4, 3, 0, 1)), Err(AppendRefusal::OutOfOrderSequence { .. })));
    let fenced = AppendRefusal::InvalidProducerEpoch { producer_id: 7, producer_epoch: 2, current_epoch: 3 };
    assert_eq!(state.check(&header(7, 2, 3, 0, 1)), Err(fenced));
}

#[test]
fn undone_batches_leave_no_trace() {
    let mut state = state_after(&[(0, 0, 0, 1)]);
    let before = state.encode_snapshot();
    let undos =
        [header(7, 0, 1, 1, 1), header(9, 0, 0, 2, 1), header(7, 1, 0, 3, 1)].map(|header| state.apply(&header));
    undos.into_iter().rev().for_each(|undo| state.undo(undo));
    assert_eq!(state.encode_snapshot(), before);
    assert_eq!(state, state_after(&[(0, 0, 0, 1)]));
}

#[test]
fn an_open_transaction_wants_transactional_batches_until_its_marker() {
    let mut state = ProducerState::default();
    let mut builder = BatchBuilder::new(Codec::None).producer(7, 0, 0).transactional().base_offset(40);
    builder.push(5, None, None, &[]);
    state.apply(&BatchHeader::parse(&builder.build()).unwrap());
    let plain = header(7, 0, 1, 41, 1);
    assert_eq!(state.check(&plain), Err(AppendRefusal::InvalidTxnState { producer_id: 7 }));
    state.expire(i64::MAX, 1);
    assert_eq!(state.len(), 1, "an open transaction does not expire");
    let marker =
        Marker { producer_id: 7, producer_epoch: 0, coordinator_epoch: 2, timestamp: 9, offset: 41, aborts: true };
    let ended = EndedTransaction { producer_id: 7, first_offset: 40, last_offset: 41, last_stable_offset: 42 };
    assert_eq!(state.apply_marker(&marker).1, Some(ended));
    assert_eq!(state.apply_marker(&marker).1, None, "a marker without records ends nothing");
    assert_eq!(state.check(&plain), Ok(Admission::New));
    state.expire(10, 1);
    assert!(state.is_empty());
}

#[test]
fn a_snapshot_reads_back_with_one_batch_of_each_producer() {
    let state = state_after(&[(0, 0, 0, 2), (0, 2, 2, 3)]);
    let read = ProducerState::decode_snapshot(&state.encode_snapshot()).unwrap();
    let duplicate = Admission::Duplicate { base_offset: 2, last_offset: 4, timestamp: 1002 };
    assert_eq!(read.check(&header(7, 0, 2, 9, 3)), Ok(duplicate));
    assert_eq!(read.check(&header(7, 0, 5, 9, 1)), Ok(Admission::New));
    assert!(read.check(&header(7, 0, 0, 9, 2)).is_err());
    assert_eq!(read.encode_snapshot(), state.encode_snapshot());
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let file = state_after(&[(0, 0, 0, 2)]).encode_snapshot();
    for cut in 0..file.len() {
        assert!(ProducerState::decode_snapshot(&file[..cut]).is_err(), "{cut}");
    }
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 4;
        assert!(ProducerState::decode_snapshot(&damaged).is_err(), "{at}");
        // With a right CRC, so that what is inside is read.
        let crc = crc32c(&damaged[SNAPSHOT_CRC_END..]);
        damaged[2..SNAPSHOT_CRC_END].copy_from_slice(&crc.to_be_bytes());
        fuzz_decode_snapshot(&damaged);
    }
}

#[test]
fn more_producers_than_the_bound_push_out_the_longest_idle() {
    let mut state = ProducerState::default();
    for id in 0..=PRODUCERS_MAX as i64 {
        state.apply(&header(id, 0, 0, id, 1));
    }
    assert!(state.len() <= PRODUCERS_MAX);
    assert!(!state.producers.contains_key(&0) && state.producers.contains_key(&(PRODUCERS_MAX as i64)));
}

fn transactional(producer_id: i64, offset: Offset) -> BatchHeader {
    let mut builder = BatchBuilder::new(Codec::None).producer(producer_id, 0, 0).transactional().base_offset(offset);
    builder.push(5, None, None, &[]);
    BatchHeader::parse(&builder.build()).unwrap()
}

fn marker(producer_id: i64, offset: Offset) -> Marker {
    Marker { producer_id, producer_epoch: 0, coordinator_epoch: 0, timestamp: 5, offset, aborts: true }
}

#[test]
fn the_last_stable_offset_is_that_of_the_earliest_undecided_or_unreplicated_transaction() {
    let mut state = ProducerState::default();
    assert_eq!(state.last_stable_offset(9), 9);
    state.apply(&transactional(1, 10));
    state.apply(&transactional(2, 12));
    assert_eq!([5, 10, 11, 20].map(|high_watermark| state.last_stable_offset(high_watermark)), [5, 10, 10, 10]);
    let ended = state.apply_marker(&marker(1, 15)).1.unwrap();
    assert_eq!(ended.last_stable_offset, 12, "the other one is open still");
    assert_eq!(state.last_stable_offset(15), 10, "the marker may be lost yet");
    assert_eq!(state.last_stable_offset(16), 12);
    state.high_watermark_moved(16);
    assert_eq!(state.apply_marker(&marker(2, 16)).1.unwrap().last_stable_offset, 17);
    assert_eq!(state.last_stable_offset(17), 17);
    state.high_watermark_moved(17);
    assert_eq!(state.last_stable_offset(40), 40);
    assert!(state.ended.is_empty() && state.open.is_empty());
}

#[test]
fn an_undone_batch_opens_no_transaction_and_a_snapshot_keeps_the_open_ones() {
    let mut state = ProducerState::default();
    let undo = state.apply(&transactional(1, 10));
    state.undo(undo);
    assert_eq!(state.last_stable_offset(20), 20);
    state.apply(&transactional(1, 10));
    let read = ProducerState::decode_snapshot(&state.encode_snapshot()).unwrap();
    assert_eq!(read.last_stable_offset(20), 10);
}
