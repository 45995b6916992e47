//! CRC-32C (Castagnoli), the checksum of record batches v2 and of producer snapshots.

/// The CRC-32C of `bytes`, as Kafka stores it (unsigned, no further masking).
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn the_check_value_of_the_castagnoli_polynomial_comes_out() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(b""), 0);
    }
}
