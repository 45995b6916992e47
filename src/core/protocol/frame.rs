//! Frames: a message on a connection is its size, four bytes big-endian, and then that many bytes.
//!
//! The rule only; buffers and sockets are the connection's.
#![forbid(unsafe_code)]

/// Bytes of the size that stands before every frame; the size does not count them.
pub const FRAME_PREFIX_BYTES: usize = 4;

/// Kafka's default of `socket.request.max.bytes`.
pub const SOCKET_REQUEST_MAX_BYTES: usize = 104_857_600;

/// A frame that closes its connection (Kafka 3.9 `NetworkReceive`: InvalidReceiveException).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {size} bytes")]
    Negative { size: i32 },
    #[error("a frame of {size} bytes, {limit} are allowed")]
    TooLarge { size: usize, limit: usize },
}

/// Bytes that follow this prefix; at most `limit` (`socket.request.max.bytes`).
pub fn frame_length(prefix: [u8; FRAME_PREFIX_BYTES], limit: usize) -> Result<usize, FrameError> {
    let size = i32::from_be_bytes(prefix);
    let Ok(length) = usize::try_from(size) else { return Err(FrameError::Negative { size }) };
    if length > limit {
        return Err(FrameError::TooLarge { size: length, limit });
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_may_be_as_large_as_the_limit_and_not_a_byte_larger() {
        let limit = SOCKET_REQUEST_MAX_BYTES;
        let prefix = |size: i32| size.to_be_bytes();
        assert_eq!(frame_length(prefix(0), limit), Ok(0));
        assert_eq!(frame_length(prefix(104_857_600), limit), Ok(limit));
        assert_eq!(frame_length(prefix(104_857_601), limit), Err(FrameError::TooLarge { size: limit + 1, limit }));
        assert_eq!(frame_length(prefix(-1), limit), Err(FrameError::Negative { size: -1 }));
        assert_eq!(frame_length(prefix(i32::MIN), limit), Err(FrameError::Negative { size: i32::MIN }));
    }
}
