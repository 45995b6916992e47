pub mod base;
pub mod platform;
/// Kafka's wire protocol: bytes <-> values.
pub mod protocol;
