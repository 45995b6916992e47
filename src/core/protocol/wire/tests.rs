use super::*;
use crate::protocol::sample::Sampler;

fn kind<T>(result: Result<T, WireError>) -> Option<WireErrorKind> {
    result.err().map(|error| error.kind)
}

#[test]
fn varints_are_as_kafkas_and_read_back() {
    let cases: [(u32, &[u8]); 5] =
        [(0, &[0]), (127, &[0x7f]), (128, &[0x80, 1]), (300, &[0xac, 2]), (u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0x0f])];
    for (value, bytes) in cases {
        let mut writer = Writer::new();
        writer.uvarint(value);
        assert_eq!(writer.into_bytes().as_ref(), bytes);
        assert_eq!(Reader::new(bytes).uvarint(), Ok(value));
    }
    let mut sampler = Sampler::new(7);
    let edges = [0, -1, 1, i64::MIN, i64::MAX, i64::from(i32::MIN), i64::from(i32::MAX)];
    for value in edges.into_iter().chain((0..500).map(|_| sampler.number() as i64)) {
        let mut writer = Writer::new();
        writer.varlong(value);
        writer.varint(value as i32);
        let bytes = writer.into_bytes();
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.varlong(), reader.varint()), (Ok(value), Ok(value as i32)));
        assert_eq!(reader.remaining(), 0);
    }
}

#[test]
fn a_varint_too_long_for_its_type_is_refused() {
    let refused = Some(WireErrorKind::Varint);
    assert_eq!(kind(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).uvarint()), refused);
    assert_eq!(kind(Reader::new(&[0xff; 9]).uvarint()), refused);
    assert_eq!(kind(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).varlong()), refused);
    assert_eq!(kind(Reader::new(&[0xff; 12]).varlong()), refused);
    assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).varlong(), Ok(i64::MIN));
}

#[test]
fn a_string_may_be_as_long_as_the_limit_and_not_a_byte_longer() {
    for flexible in [false, true] {
        let longest = "x".repeat(STRING_BYTES_MAX);
        let mut writer = Writer::new();
        writer.string(&longest, flexible).unwrap();
        let bytes = writer.into_bytes();
        assert_eq!(Reader::new(&bytes).string(flexible), Ok(longest.as_str().into()));

        let too_long = "x".repeat(STRING_BYTES_MAX + 1);
        let refused = WireErrorKind::TooLong { length: STRING_BYTES_MAX + 1 };
        assert_eq!(kind(Writer::new().string(&too_long, flexible)), Some(refused));
    }
    // The compact form could say more: 0x8001 is 32768 + 1.
    let mut bytes = vec![0x81, 0x80, 0x02];
    bytes.resize(3 + 0x8000, b'x');
    assert_eq!(kind(Reader::new(&bytes).string(true)), Some(WireErrorKind::Length { length: 0x8000 }));
}

#[test]
fn null_strings_and_bytes_are_null_in_both_forms_and_other_negative_lengths_are_refused() {
    assert_eq!(Reader::new(&[255, 255]).nullable_string(false), Ok(None));
    assert_eq!(Reader::new(&[0]).nullable_string(true), Ok(None));
    assert_eq!(Reader::new(&[255; 4]).nullable_bytes(false), Ok(None));
    assert_eq!(Reader::new(&[0]).nullable_bytes(true), Ok(None));
    assert_eq!(kind(Reader::new(&[255, 255]).string(false)), Some(WireErrorKind::Null));
    assert_eq!(kind(Reader::new(&[255, 254]).string(false)), Some(WireErrorKind::Length { length: -2 }));
    assert_eq!(
        kind(Reader::new(&[255, 255, 255, 254]).nullable_bytes(false)),
        Some(WireErrorKind::Length { length: -2 })
    );
    assert_eq!(Reader::new(&[0, 1, 0xff]).string(false), Ok("\u{fffd}".into()));
}

#[test]
fn an_array_count_is_checked_against_bytes_left_count_and_memory() {
    let mut bytes = vec![0; 4 + ARRAY_COUNT_MAX + 1];
    let mut count_of = |count: usize| {
        bytes[..4].copy_from_slice(&(count as i32).to_be_bytes());
        Reader::new(&bytes).array_count::<u8>(false, 1)
    };
    assert_eq!(count_of(ARRAY_COUNT_MAX), Ok(ARRAY_COUNT_MAX));
    let refused = WireErrorKind::ArrayCount { count: ARRAY_COUNT_MAX + 1 };
    assert_eq!(kind(count_of(ARRAY_COUNT_MAX + 1)), Some(refused));

    assert_eq!(Reader::new(&[0, 0, 0, 3, 1, 2, 3]).array_count::<u8>(false, 1), Ok(3));
    assert_eq!(Reader::new(&[0, 0, 0, 2, 1, 2, 3, 4]).array_count::<i16>(false, 2), Ok(2));
    let refused = Some(WireErrorKind::ArrayCount { count: 2 });
    assert_eq!(kind(Reader::new(&[0, 0, 0, 2, 1, 2, 3]).array_count::<i16>(false, 2)), refused);

    type Half = [u8; DECODED_BYTES_MAX / 2];
    let mut reader = Reader::new(&[0, 0, 0, 2, 0, 0, 0, 1, 9]);
    assert_eq!(reader.array_count::<Half>(false, 1), Ok(2));
    let refused = Some(WireErrorKind::ArrayCount { count: 1 });
    assert_eq!(kind(reader.array_count::<Half>(false, 1)), refused);
}

#[test]
fn absurdly_many_tagged_fields_are_refused() {
    let mut writer = Writer::new();
    writer.uvarint(TAGGED_FIELDS_MAX + 1);
    let bytes = writer.into_bytes();
    let refused = WireErrorKind::TaggedFieldCount { count: TAGGED_FIELDS_MAX + 1 };
    assert_eq!(kind(Reader::new(&bytes).skip_tagged_fields()), Some(refused));
    let refused = Some(WireErrorKind::Truncated { needed: 100, remaining: 1 });
    assert_eq!(kind(Reader::new(&[1, 0, 100, 0]).skip_tagged_fields()), refused);
}

#[test]
fn chunks_end_where_the_gaps_are_and_a_gap_of_nothing_is_none() {
    let mut writer = Writer::new();
    writer.bytes(b"ab");
    writer.gap(5);
    writer.gap(0);
    writer.bytes(b"c");
    writer.gap(7);
    assert_eq!((writer.position(), writer.total_bytes()), (3, 15));
    assert_eq!(writer.into_chunks(), [&b"ab"[..], b"c", b""]);
}
