//! The records of `__consumer_offsets`, as Kafka 3.9's tools show them: offsets that groups have committed, and groups.
//!
//! Both halves of a record begin with a number: the key with its type, the value with its version. Like Kafka's
//! `CoordinatorRecordSerde` this reads a value of a version it does not know as the nearest one it knows.

#![forbid(unsafe_code)]

use crate::protocol::message::json::{Json, camel_case};
use crate::protocol::message::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, GroupMetadataKey, GroupMetadataValue, KeptMessage,
    OffsetCommitKey, OffsetCommitValue,
};
use crate::protocol::wire::{Reader, WireError, WireErrorKind};

/// The protocol type whose members' bytes Kafka's own consumers understand.
const CONSUMER: &str = "consumer";

/// Fields whose length may be negative, which is null then.
const NULLABLE: [&str; 3] = ["protocol", "leader", "groupInstanceId"];

/// What is shown of a key, and of a value unless the record can't be read.
///
/// # Errors
/// Of a record without a key, at which Kafka's tool ends.
pub fn show(offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(String, Option<String>), String> {
    let Some(key) = key else {
        let what = "using offset topic decoder (message had a missing key)";
        return Err(format!("Failed to decode message at offset {offset} {what}"));
    };
    let shown = match version_of(key, "key") {
        Ok(kind @ 0..=1) => both::<OffsetCommitKey, OffsetCommitValue>(kind, key, value, OffsetCommitValue::json),
        Ok(2) => both::<GroupMetadataKey, GroupMetadataValue>(2, key, value, group_json),
        Ok(kind @ 3..=8) => Err(format!(
            "Record type {kind} is one of KIP-848's groups, which a cluster with ZooKeeper can't have; they are not read here."
        )),
        Ok(kind) => return Ok((format!("Unknown record type {kind} at offset {offset}, skipping."), None)),
        Err(why) => Err(why),
    };
    Ok(match shown {
        Ok((key, value)) => (key, Some(value)),
        Err(why) => (format!("Error at offset {offset}, skipping. {why}"), None),
    })
}

/// The number that key and value begin with.
fn version_of(bytes: &[u8], what: &str) -> Result<i16, String> {
    Reader::new(bytes).i16().map_err(|_| format!("Could not read version from {what}'s buffer."))
}

fn both<K: KeptMessage, V: KeptMessage>(
    kind: i16,
    key: &[u8],
    value: Option<&[u8]>,
    value_json: fn(&V, i16) -> Result<Json, WireError>,
) -> Result<(String, String), String> {
    let key = message(key, kind, "key", K::json)?;
    let key = Json::object([("type", Json::text(kind.to_string())), ("data", key)]);
    let Some(value) = value else { return Ok((key.to_string(), "<DELETE>".to_owned())) };
    let version = version_of(value, "value")?;
    let value = message(value, version, "value", value_json)?;
    let value = Json::object([("version", Json::text(version.to_string())), ("data", value)]);
    Ok((key.to_string(), value.to_string()))
}

fn message<M: KeptMessage>(
    bytes: &[u8],
    version: i16,
    what: &str,
    json: fn(&M, i16) -> Result<Json, WireError>,
) -> Result<Json, String> {
    let nearest = nearest::<M>(version);
    let mut reader = Reader::new(bytes);
    let read = reader.i16().and_then(|_| M::decode(&mut reader, nearest)).and_then(|message| json(&message, nearest));
    read.map_err(|error| {
        let why = kafkas_words(&error, bytes.len());
        format!("Could not read record with version {version} from {what}'s buffer due to: {why}.")
    })
}

fn nearest<M: KeptMessage>(version: i16) -> i16 {
    version.clamp(*M::VERSIONS.start(), *M::VERSIONS.end())
}

/// What Kafka's reader says of damaged bytes, so many in all, where it says the same thing.
pub fn kafkas_words(error: &WireError, length: usize) -> String {
    let field = camel_case(error.field.rsplit('.').next().unwrap_or_default());
    let remaining = length - error.position.min(length);
    match error.kind {
        // Of an exception of Java's own, which has no message.
        WireErrorKind::Ended { .. } => "null".to_owned(),
        WireErrorKind::Truncated { needed, remaining } => {
            format!("Error reading byte array of {needed} byte(s): only {remaining} byte(s) available")
        }
        WireErrorKind::Null | WireErrorKind::Length { length: ..=-1 } if !NULLABLE.contains(&field.as_str()) => {
            format!("non-nullable field {field} was serialized as null")
        }
        WireErrorKind::Length { length: length @ 0.. } => format!("string field {field} had invalid length {length}"),
        WireErrorKind::ArrayCount { count } if count > remaining => {
            format!("Tried to allocate a collection of size {count}, but there are only {remaining} bytes remaining.")
        }
        _ => error.to_string(),
    }
}

/// With what consumers wrote into their groups' records.
fn group_json(group: &GroupMetadataValue, version: i16) -> Result<Json, WireError> {
    let mut json = group.json(version)?;
    if group.protocol_type == CONSUMER
        && let Some(Json::Array(members)) = json.get_mut("members")
    {
        for (member, shown) in group.members.iter().zip(members) {
            for (name, understood) in
                [("subscription", subscription(&member.subscription)), ("assignment", assignment(&member.assignment))]
            {
                if let (Some(understood), Some(field)) = (understood, shown.get_mut(name)) {
                    *field = understood;
                }
            }
        }
    }
    Ok(json)
}

/// `None` if these are not such bytes, which are shown as they are then.
fn embedded<M: KeptMessage>(bytes: &[u8]) -> Option<(M, i16)> {
    let mut reader = Reader::new(bytes);
    let version = reader.i16().ok()?;
    Some((M::decode(&mut reader, nearest::<M>(version)).ok()?, version))
}

/// Kafka reads a version beyond its own only as long as there are no partitions in it.
fn subscription(bytes: &[u8]) -> Option<Json> {
    let (message, version) = embedded::<ConsumerProtocolSubscription>(bytes)?;
    let nearest = nearest::<ConsumerProtocolSubscription>(version);
    (version <= nearest || message.owned_partitions.is_empty()).then(|| message.json(nearest).ok()).flatten()
}

fn assignment(bytes: &[u8]) -> Option<Json> {
    let (message, version) = embedded::<ConsumerProtocolAssignment>(bytes)?;
    let nearest = nearest::<ConsumerProtocolAssignment>(version);
    (version <= nearest || message.assigned_partitions.is_empty()).then(|| message.json(nearest).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `OffsetCommitKey` 1 of group g, topic t, partition 7; Kafka's words for all else are in `tests/golden/tools`.
    const KEY: &[u8] = &[0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 7];

    #[test]
    fn what_kafka_can_not_show_either_has_its_sentence() {
        assert!(
            show(3, None, None).unwrap_err().starts_with("Failed to decode message at offset 3 using offset topic")
        );
        let (key, value) = show(3, Some(KEY), None).unwrap();
        let data = r#"{"type":"1","data":{"group":"g","topic":"t","partition":7}}"#;
        assert_eq!((&key[..], value.as_deref()), (data, Some("<DELETE>")));
        let (key, value) = show(3, Some(&[0, 4]), None).unwrap();
        assert!(
            key.starts_with("Error at offset 3, skipping. Record type 4 is one of KIP-848's groups") && value.is_none()
        );
    }

    #[test]
    fn damage_that_kafka_describes_otherwise_is_described_all_the_same() {
        let group = [0, 2, 0, 1, b'g'];
        // A generation, no protocol and no leader: a length below -1, and a count that fits only elements of a byte.
        let lengths = [&[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe][..], &[0; 8]].concat();
        let count = [&[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 5][..], &[0; 9]].concat();
        for (value, why) in [(&lengths, "-2 is out of range"), (&count, "an array of 5 elements is more than is left")]
        {
            let (key, value) = show(0, Some(&group), Some(value)).unwrap();
            assert!(
                key.starts_with("Error at offset 0, skipping. Could not read record") && key.contains(why),
                "{key}"
            );
            assert_eq!(value, None);
        }
    }
}
