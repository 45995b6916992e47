//! Message sets of magic 0 and 1, which Produce v0 to v2 carries, made into one v2 batch.

#![forbid(unsafe_code)]

use bytes::BytesMut;

#[derive(Debug, thiserror::Error)]
pub enum MessageSetError {
    /// CORRUPT_MESSAGE.
    #[error("{0}")]
    Corrupt(&'static str),
    /// INVALID_RECORD.
    #[error("{0}")]
    Invalid(&'static str),
    /// UNSUPPORTED_COMPRESSION_TYPE: zstd is not allowed before magic 2.
    #[error("zstd needs magic 2")]
    Zstd,
    /// MESSAGE_TOO_LARGE.
    #[error("decompressed message set is longer than {0} bytes")]
    TooLong(usize),
}

/// Converts a whole message set into one batch with base offset 0 and the source's codec.
pub fn convert_to_v2(_message_set: &[u8], _limit: usize) -> Result<BytesMut, MessageSetError> {
    todo!()
}
