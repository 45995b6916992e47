use super::*;
use crate::protocol::header::encode_response_header;
use crate::protocol::sample::Sampler;
use crate::protocol::wire::Writer;

const ROUNDS: usize = 6000;

/// One of the APIs that have a codec, and one of its versions.
fn sample_api(sampler: &mut Sampler) -> (ApiKey, i16) {
    let key = ApiKey::from_code(CODED[sampler.below(CODED.len())]).unwrap();
    (key, sampler.below(*key.versions().end() as usize + 1) as i16)
}

/// A body to start from: valid, but for records of a Fetch response, which are left out.
fn sample_body(sampler: &mut Sampler, writer: &mut Writer, key: ApiKey, version: i16, is_request: bool) {
    macro_rules! plain {
        ($($api:ident: $request:ident, $response:ident;)*) => {
            match (key, is_request) {
                $(
                    (ApiKey::$api, true) => $request::sample(sampler, version).encode(writer, version),
                    (ApiKey::$api, false) => $response::sample(sampler, version).encode(writer, version),
                )*
                (ApiKey::Fetch, true) => FetchRequest::sample(sampler, version).encode(writer, version),
                (ApiKey::Fetch, false) => FetchResponse::sample(sampler, version).encode(writer, version),
                (ApiKey::Produce, false) => ProduceResponse::sample(sampler, version).encode(writer, version),
                _ => {
                    let partitions = [(0, Some(&b"records"[..])), (1, None), (2, Some(b""))];
                    let topics = [("topic", &partitions[..]), ("", &partitions[1..])];
                    let request =
                        ProduceRequestToSend { transactional_id: None, acks: 1, timeout_ms: 5, topics: &topics };
                    request.encode(writer, version)
                }
            }
        };
    }
    each_plain_api!(plain).unwrap();
}

/// Flips, cuts, grows, or plants a length that no one should believe.
fn mutate(sampler: &mut Sampler, frame: &mut Vec<u8>) {
    for _ in 0..sampler.below(4) {
        let position = sampler.below(frame.len().max(1));
        match sampler.below(5) {
            0 => frame.truncate(position),
            1 => frame.extend_from_slice(&[0xff; 3]),
            _ if position >= frame.len() => {}
            2 => frame[position] ^= 1 << sampler.below(8),
            3 => frame[position] = [0, 1, 0x7f, 0x80, 0xff][sampler.below(5)],
            _ => {
                let end = frame.len().min(position + 4);
                frame[position..end].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff][..end - position]);
            }
        }
    }
}

#[test]
fn mutated_messages_never_panic() {
    let mut sampler = Sampler::new(8);
    for round in 0..ROUNDS {
        let (key, version) = sample_api(&mut sampler);
        let is_request = round % 2 == 0;
        let mut writer = Writer::new();
        if is_request {
            let (api_key, client_id) = (key.code(), Some("client".into()));
            RequestHeader { api_key, api_version: version, correlation_id: 1, client_id }.encode(&mut writer).unwrap();
        } else {
            encode_response_header(&mut writer, key, version, 1);
        }
        sample_body(&mut sampler, &mut writer, key, version, is_request);
        let mut frame = writer.into_chunks().concat();
        mutate(&mut sampler, &mut frame);
        if is_request {
            fuzz_decode_request(&frame);
        } else {
            fuzz_decode_response(key, version, &frame);
        }
    }
}

/// The canary: mutations that never find a decoder which trusts a length find nothing at all.
#[test]
#[should_panic(expected = "out of range for slice")]
fn a_decoder_that_trusts_a_length_is_caught() {
    let mut sampler = Sampler::new(8);
    for _ in 0..ROUNDS {
        let mut frame = [&3_i32.to_be_bytes()[..], b"abc"].concat();
        mutate(&mut sampler, &mut frame);
        if let Some((length, rest)) = frame.split_first_chunk::<4>() {
            assert!(rest[..u32::from_be_bytes(*length) as usize].len() <= rest.len());
        }
    }
}

#[test]
fn noise_never_panics() {
    let mut sampler = Sampler::new(9);
    for _ in 0..ROUNDS {
        let (key, version) = sample_api(&mut sampler);
        let length = sampler.below(200);
        let noise = sampler.bytes(length);
        fuzz_decode_response(key, version, &noise);
        let mut frame = [key.code().to_be_bytes(), version.to_be_bytes()].concat();
        frame.extend_from_slice(&noise);
        fuzz_decode_request(&frame);
        fuzz_decode_request(&noise);
    }
}
