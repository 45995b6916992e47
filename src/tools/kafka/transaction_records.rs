//! The records of `__transaction_state`, as Kafka 3.9's `TransactionLog` shows them.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::group_records::kafkas_words;
use crate::protocol::message::{KeptMessage, TransactionLogKey, TransactionLogValue};
use crate::protocol::wire::Reader;

/// By number, the `TransactionState` of Kafka.
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

/// What is shown of a key, and of a value unless the key is of a type that Kafka does not know.
///
/// # Errors
/// Of a record at which Kafka's tool ends.
pub fn show(offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(String, Option<String>), String> {
    let key =
        key.ok_or_else(|| format!("the record at offset {offset} has no key, and so is none of __transaction_state"))?;
    let version = Reader::new(key).i16().map_err(|_| format!("the key at offset {offset} is empty"))?;
    if !TransactionLogKey::VERSIONS.contains(&version) {
        return Ok((format!("unknown::version={version}"), None));
    }
    let key: TransactionLogKey = message(key, version)?;
    let value = value.map_or_else(|| Ok("<DELETE>".to_owned()), value_text)?;
    Ok((format!("transaction_metadata::transactionalId={}", key.transactional_id), Some(value)))
}

fn message<M: KeptMessage>(bytes: &[u8], version: i16) -> Result<M, String> {
    let mut reader = Reader::new(bytes);
    let read = reader.i16().and_then(|_| M::decode(&mut reader, version));
    read.map_err(|error| kafkas_words(&error, bytes.len()))
}

fn value_text(bytes: &[u8]) -> Result<String, String> {
    let version = Reader::new(bytes).i16().map_err(|_| "a value is empty".to_owned())?;
    if !TransactionLogValue::VERSIONS.contains(&version) {
        return Err(format!("Unknown version {version} from the transaction log message value"));
    }
    let value: TransactionLogValue = message(bytes, version)?;
    let state = value.transaction_status;
    let name = usize::try_from(state).ok().and_then(|state| STATES.get(state));
    let name =
        name.ok_or_else(|| format!("Unknown transaction state id {state} from the transaction status message"))?;
    let partitions = match (*name, &value.transaction_partitions) {
        ("Empty", _) => Vec::new(),
        (_, None) => return Err(format!("a transaction in state {name} has no list of partitions")),
        (_, Some(topics)) => in_scalas_order(topics.iter().map(|topic| (&topic.topic[..], &topic.partition_ids[..]))),
    };
    Ok(format!(
        "producerId:{},producerEpoch:{},state={name},partitions=[{}],txnLastUpdateTimestamp={},txnTimeoutMs={}",
        value.producer_id,
        value.producer_epoch,
        partitions.join(","),
        value.transaction_last_update_timestamp_ms,
        value.transaction_timeout_ms
    ))
}

/// Partitions, `topic-N`, in the order in which Kafka prints them: that of Scala 2.13's `mutable.HashSet`, a table of
/// buckets by the lowest bits of the hash, each in ascending order of the whole one.
fn in_scalas_order<'a>(topics: impl Iterator<Item = (&'a str, &'a [i32])>) -> Vec<String> {
    let mut partitions: Vec<(i32, &str, i32)> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut buckets = Buckets::default();
    for (topic, ids) in topics {
        let ids: BTreeSet<i32> = ids.iter().copied().collect();
        buckets.hint(ids.len());
        // Up to four elements are a set of another class, which is added one by one.
        let is_counted = ids.len() <= 4;
        for id in ids {
            if is_counted {
                buckets.make_room(partitions.len());
            }
            if seen.insert((topic, id)) {
                partitions.push((improved_hash(topic, id), topic, id));
            }
        }
    }
    partitions.sort_by_key(|(hash, ..)| (*hash as u32 & (buckets.count - 1), *hash));
    partitions.into_iter().map(|(_, topic, id)| format!("{topic}-{id}")).collect()
}

/// How large Scala's table is: a power of two of at least 16, at most three quarters full where that is looked at.
struct Buckets {
    count: u32,
}

impl Default for Buckets {
    fn default() -> Buckets {
        Buckets { count: 16 }
    }
}

impl Buckets {
    /// Before a whole set of so many is added, whatever is there already.
    fn hint(&mut self, elements: usize) {
        let capacity = ((elements + 1) as f64 / 0.75) as u32;
        self.count = self.count.max((capacity.saturating_sub(1).max(4) + 1).next_power_of_two());
    }

    /// Before one more is added to so many.
    fn make_room(&mut self, elements: usize) {
        if elements + 1 >= (f64::from(self.count) * 0.75) as usize {
            self.count *= 2;
        }
    }
}

/// `TopicPartition.hashCode`, its high half mixed into the low one as Scala does.
fn improved_hash(topic: &str, partition: i32) -> i32 {
    let topic = topic.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    let hash = partition.wrapping_add(31).wrapping_mul(31).wrapping_add(topic);
    hash ^ (hash as u32 >> 16) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Writer;

    const KEY: &[u8] = &[0, 0, 0, 2, b'i', b'd'];

    fn shown(value: &TransactionLogValue) -> Result<String, String> {
        let mut writer = Writer::new();
        writer.i16(0);
        value.encode(&mut writer, 0).unwrap();
        show(0, Some(KEY), Some(&writer.into_bytes())).map(|(_, value)| value.unwrap())
    }

    #[test]
    fn a_record_at_which_kafkas_tool_ends_says_why() {
        assert!(show(5, None, None).unwrap_err().contains("offset 5 has no key"));
        assert_eq!(
            show(5, Some(&KEY[..5]), None).unwrap_err(),
            "Error reading byte array of 2 byte(s): only 1 byte(s) available"
        );
        let unknown = show(5, Some(KEY), Some(&[0, 2])).unwrap_err();
        assert_eq!(unknown, "Unknown version 2 from the transaction log message value");
        let state = TransactionLogValue { transaction_status: 8, ..TransactionLogValue::default() };
        assert_eq!(shown(&state).unwrap_err(), "Unknown transaction state id 8 from the transaction status message");
        let bare = |transaction_status| TransactionLogValue {
            transaction_status,
            transaction_partitions: None,
            ..TransactionLogValue::default()
        };
        assert!(shown(&bare(1)).unwrap_err().contains("has no list of partitions"));
        assert!(shown(&bare(0)).unwrap().contains("state=Empty,partitions=[],"));
    }
}
