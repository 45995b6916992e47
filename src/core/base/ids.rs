//! Identifiers that must not be mistaken for one another.

use std::fmt;
use std::sync::Arc;

/// A record's place in its partition: counts records, not bytes.
pub type Offset = i64;

/// Which reign of a partition's leader wrote a batch; -1 is "unknown". Not a producer epoch.
pub type LeaderEpoch = i32;

/// A broker, as `broker.id` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerId(pub i32);

/// A shard of this process: one thread, one ring, its partitions. Dense from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl ShardId {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A topic id (KIP-516): 128 bits, printed as base64url without padding (22 characters).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// "No topic id": requests by name carry it.
    pub const ZERO: TopicId = TopicId([0; 16]);

    /// Parses the text form; `None` unless it is exactly 16 bytes of base64url without padding.
    pub fn parse(text: &str) -> Option<TopicId> {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()?;
        Some(TopicId(bytes.try_into().ok()?))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use base64::Engine as _;
        f.write_str(&base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One partition of one topic, by name. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    /// The name of its directory: `topic-partition`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_reads_back_from_its_text_and_nothing_else_parses() {
        let id = TopicId(*b"0123456789abcdef");
        assert_eq!(id.to_string().len(), 22);
        assert_eq!(TopicId::parse(&id.to_string()), Some(id));
        for wrong in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAAA==", "!!!!!!!!!!!!!!!!!!!!!!"] {
            assert_eq!(TopicId::parse(wrong), None, "{wrong}");
        }
    }
}
