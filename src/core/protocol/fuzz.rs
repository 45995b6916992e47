//! Fuzz bodies of the decoders: any bytes may go in, only a panic or an abort is a finding.
#![forbid(unsafe_code)]

use super::api_key::ApiKey;
use super::header::{RequestHeader, decode_response_header};
use super::message::*;
use super::wire::Reader;

/// Keys of the APIs that have a codec.
pub const CODED: [i16; 23] = [0, 1, 2, 3, 4, 5, 6, 10, 17, 18, 19, 20, 21, 22, 23, 32, 33, 35, 36, 37, 44, 60, 61];

macro_rules! plain_bodies {
    ($($api:ident: $request:ident, $response:ident;)*) => {
        fn decode_request_body(key: ApiKey, reader: &mut Reader<'_>, version: i16) {
            match key {
                $(ApiKey::$api => drop($request::decode(reader, version)),)*
                ApiKey::Fetch => drop(FetchRequest::decode(reader, version)),
                _ => {}
            }
        }

        fn decode_response_body(key: ApiKey, reader: &mut Reader<'_>, version: i16) {
            match key {
                $(ApiKey::$api => drop($response::decode(reader, version)),)*
                ApiKey::Fetch => drop(FetchResponse::decode(reader, version)),
                ApiKey::Produce => drop(ProduceResponse::decode(reader, version)),
                _ => {}
            }
        }
    };
}

each_plain_api!(plain_bodies);

/// Takes a frame from a client, without its size: header, then the body that the header names.
pub fn fuzz_decode_request(frame: &[u8]) {
    let mut reader = Reader::new(frame);
    let Ok(header) = RequestHeader::decode(&mut reader) else { return };
    let Some(key) = ApiKey::from_code(header.api_key) else { return };
    if key == ApiKey::Produce {
        let body = &frame[reader.position()..];
        if let Ok(request) = ProduceRequest::decode(body, header.api_version) {
            let partitions = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
            let records = partitions.filter_map(|partition| partition.records.clone());
            assert!(records.map(|records| body[records].len()).sum::<usize>() <= body.len());
        }
    } else {
        decode_request_body(key, &mut reader, header.api_version);
    }
}

/// Takes a frame from a broker, without its size, as the answer to a request of this key and version.
pub fn fuzz_decode_response(key: ApiKey, version: i16, frame: &[u8]) {
    let mut reader = Reader::new(frame);
    if decode_response_header(&mut reader, key, version).is_ok() {
        decode_response_body(key, &mut reader, version);
    }
}

/// Takes what is kept in a record or in another message's bytes, each in every version, and shows what can be read.
pub fn fuzz_decode_kept(bytes: &[u8]) {
    fn each_version<M: KeptMessage>(bytes: &[u8]) {
        for version in M::VERSIONS {
            if let Ok(message) = M::decode(&mut Reader::new(bytes), version) {
                assert!(message.json(version).is_ok_and(|json| !json.to_string().is_empty()));
            }
        }
    }
    each_version::<ConsumerProtocolAssignment>(bytes);
    each_version::<ConsumerProtocolSubscription>(bytes);
    each_version::<GroupMetadataKey>(bytes);
    each_version::<GroupMetadataValue>(bytes);
    each_version::<OffsetCommitKey>(bytes);
    each_version::<OffsetCommitValue>(bytes);
    each_version::<TransactionLogKey>(bytes);
    each_version::<TransactionLogValue>(bytes);
}

#[cfg(test)]
mod tests;
