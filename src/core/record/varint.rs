//! Zigzag LEB128, as records use it (Kafka 3.9 `ByteUtils`).

#![forbid(unsafe_code)]

/// Bytes of the longest encoded varlong.
pub const VARLONG_BYTES_MAX: usize = 10;
/// Bytes of the longest encoded varint.
pub const VARINT_BYTES_MAX: usize = 5;

/// Takes a varint off the front; `None` if it is cut short or longer than five bytes.
pub fn take_varint(bytes: &mut &[u8]) -> Option<i32> {
    // Like Kafka's reader, the fifth byte's surplus bits fall off the top.
    let raw = take_unsigned(bytes, VARINT_BYTES_MAX)? as u32;
    Some(((raw >> 1) as i32) ^ -((raw & 1) as i32))
}

/// Takes a varlong off the front; `None` if it is cut short or longer than ten bytes.
pub fn take_varlong(bytes: &mut &[u8]) -> Option<i64> {
    let raw = take_unsigned(bytes, VARLONG_BYTES_MAX)?;
    Some(((raw >> 1) as i64) ^ -((raw & 1) as i64))
}

fn take_unsigned(bytes: &mut &[u8], bytes_max: usize) -> Option<u64> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(bytes_max).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *bytes = &bytes[index + 1..];
            return Some(value);
        }
    }
    None
}

pub fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_varlong(out, i64::from(value));
}

pub fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Bytes that `put_varint` writes.
pub fn varint_bytes(value: i32) -> usize {
    let raw = ((value << 1) ^ (value >> 31)) as u32;
    (38 - raw.leading_zeros() as usize) / 7 + usize::from(raw == 0)
}

/// Bytes that `put_varlong` writes.
pub fn varlong_bytes(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)) as u64;
    (70 - raw.leading_zeros() as usize) / 7 + usize::from(raw == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_reads_back_and_has_the_length_foretold() {
        for value in [0, 1, -1, 63, 64, -64, -65, 8191, 8192, 1 << 20, i32::MAX, i32::MIN] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_bytes(value), "{value}");
            let mut rest = &out[..];
            assert_eq!(take_varint(&mut rest), Some(value));
            assert!(rest.is_empty());
        }
        for value in [0, i64::MAX, i64::MIN, 1 << 40, -(1 << 40)] {
            let mut out = Vec::new();
            put_varlong(&mut out, value);
            assert_eq!(out.len(), varlong_bytes(value), "{value}");
            assert_eq!(take_varlong(&mut &out[..]), Some(value));
        }
    }

    #[test]
    fn a_cut_or_overlong_number_is_refused() {
        assert_eq!(take_varint(&mut &[0x80, 0x80][..]), None);
        assert_eq!(take_varint(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0x01][..]), None);
        assert_eq!(take_varlong(&mut &[0xff; 11][..]), None);
        assert_eq!(take_varint(&mut &[][..]), None);
    }
}
