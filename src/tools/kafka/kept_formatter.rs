//! The console consumer's formatters of what coordinators keep (Kafka 3.9 `ApiMessageFormatter`): JSON without a line's
//! end. Records of the other kind in the same topic are passed over.

#![forbid(unsafe_code)]

use super::group_records::kafkas_words;
use crate::client::consumer::RecordRef;
use crate::protocol::Reader;
use crate::protocol::message::json::Json;
use crate::protocol::message::{
    GroupMetadataKey, GroupMetadataValue, KeptMessage, OffsetCommitKey, OffsetCommitValue, TransactionLogKey,
    TransactionLogValue,
};

/// Which records are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Offsets,
    Groups,
    Transactions,
}

impl Kept {
    pub fn write(self, out: &mut Vec<u8>, record: &RecordRef<'_>) -> Result<(), String> {
        let key = match record.key {
            None => Json::Null,
            Some(key) => {
                let version = version_of(key)?;
                let (commit, group) =
                    (OffsetCommitKey::VERSIONS.contains(&version), GroupMetadataKey::VERSIONS.contains(&version));
                match self {
                    Kept::Offsets if group => return Ok(()),
                    Kept::Groups if commit => return Ok(()),
                    Kept::Offsets => versioned::<OffsetCommitKey>(key)?,
                    Kept::Groups => versioned::<GroupMetadataKey>(key)?,
                    Kept::Transactions => versioned::<TransactionLogKey>(key)?,
                }
            }
        };
        let value = match (record.value, self) {
            (None, _) => Json::Null,
            (Some(value), Kept::Offsets) => versioned::<OffsetCommitValue>(value)?,
            (Some(value), Kept::Groups) => versioned::<GroupMetadataValue>(value)?,
            (Some(value), Kept::Transactions) => versioned::<TransactionLogValue>(value)?,
        };
        out.extend_from_slice(Json::object([("key", key), ("value", value)]).to_string().as_bytes());
        Ok(())
    }
}

fn version_of(bytes: &[u8]) -> Result<i16, String> {
    Reader::new(bytes).i16().map_err(|_| "no version stands before the message".to_owned())
}

/// A message behind its version; `unknown` in a version that Kafka does not have.
fn versioned<M: KeptMessage>(bytes: &[u8]) -> Result<Json, String> {
    let version = version_of(bytes)?;
    let data = match M::VERSIONS.contains(&version) {
        false => Json::text("unknown"),
        true => {
            let mut reader = Reader::new(bytes);
            let read = reader.i16().and_then(|_| M::decode(&mut reader, version));
            read.and_then(|message| message.json(version)).map_err(|error| kafkas_words(&error, bytes.len()))?
        }
    };
    Ok(Json::object([("version", Json::Number(version.into())), ("data", data)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::consumer::Headers;
    use crate::record::batch::TimestampType;

    const OFFSET: [&[u8]; 2] = [
        &[0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 7],
        &[0, 3, 0, 0, 0, 0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
    ];
    const GROUP: [&[u8]; 2] = [&[0, 2, 0, 1, b'g'], &[0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]];

    fn shown(kept: Kept, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<String, String> {
        let timestamp_type = TimestampType::CreateTime;
        let record = RecordRef { offset: 0, timestamp: 0, timestamp_type, key, value, headers: Headers::None };
        let mut out = Vec::new();
        kept.write(&mut out, &record).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn each_formatter_shows_its_own_records_as_json() {
        let [key, value] = OFFSET.map(Some);
        let key_json = r#"{"version":1,"data":{"group":"g","topic":"t","partition":7}}"#;
        let data = r#"{"offset":5,"leaderEpoch":-1,"metadata":"","commitTimestamp":9}"#;
        let whole = format!(r#"{{"key":{key_json},"value":{{"version":3,"data":{data}}}}}"#);
        assert_eq!(shown(Kept::Offsets, key, value), Ok(whole));
        assert_eq!(shown(Kept::Offsets, key, None), Ok(format!(r#"{{"key":{key_json},"value":null}}"#)));
        assert_eq!(shown(Kept::Groups, key, value), Ok(String::new()));

        let [key, value] = GROUP.map(Some);
        let data = r#"{"protocolType":"","generation":1,"protocol":null,"leader":null,"members":[]}"#;
        let whole =
            format!(r#"{{"key":{{"version":2,"data":{{"group":"g"}}}},"value":{{"version":0,"data":{data}}}}}"#);
        assert_eq!(shown(Kept::Groups, key, value), Ok(whole));
        assert_eq!(shown(Kept::Offsets, key, value), Ok(String::new()));
        let unknown = r#"{"key":{"version":2,"data":"unknown"},"value":null}"#;
        assert_eq!(shown(Kept::Transactions, key, None), Ok(unknown.to_owned()));
        assert_eq!(shown(Kept::Transactions, None, None), Ok(r#"{"key":null,"value":null}"#.to_owned()));
        assert!(shown(Kept::Groups, key, Some(&[0, 0, 0])).is_err());
    }
}
