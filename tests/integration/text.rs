//! Strings that are not UTF-8, as raw bytes: Kafka reads them as Java does, with U+FFFD for what is malformed, and answers the
//! request for what it says then.

use std::process::Command;

use ringlog::protocol::message::create_topics::CreateTopicsResponse;
use ringlog::protocol::message::delete_topics::DeleteTopicsResponse;
use ringlog::protocol::message::describe_configs::DescribeConfigsResponse;
use ringlog::protocol::message::fetch::FetchResponse;
use ringlog::protocol::message::find_coordinator::FindCoordinatorResponse;
use ringlog::protocol::message::incremental_alter_configs::IncrementalAlterConfigsResponse;
use ringlog::protocol::message::list_offsets::ListOffsetsResponse;
use ringlog::protocol::message::metadata::MetadataResponse;
use ringlog::protocol::message::produce::ProduceResponse;
use ringlog::protocol::message::sasl_authenticate::SaslAuthenticateResponse;
use ringlog::protocol::message::sasl_handshake::SaslHandshakeResponse;
use ringlog::protocol::{ApiKey, ErrorCode, Reader};

use crate::server::{Server, directory};
use crate::wire::Wire;

/// A client's name in Latin-1, and what is made of it.
const LATIN_1: &[u8] = b"caf\xe9";
const REPLACED: &str = "caf\u{fffd}";

/// Sends a body below a header in which the client's name is not UTF-8 either; gives the body of the answer. No version here
/// is flexible.
fn ask(wire: &mut Wire, key: ApiKey, version: i16, body: &[&[u8]]) -> Vec<u8> {
    let head = [&key.code().to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 7]].concat();
    wire.send_frame(&[&head, &text(LATIN_1)[..], &body.concat()].concat()).expect("sent");
    let answer = wire.receive().unwrap_or_else(|error| panic!("{key} v{version}: {error}"));
    assert_eq!(answer[..4], [0, 0, 0, 7], "{key}");
    answer[4..].to_vec()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&i16::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat()
}

const ONE: &[u8] = &[0, 0, 0, 1];
const NONE: &[u8] = &[0, 0, 0, 0];

macro_rules! decoded {
    ($response:ident, $version:expr, $answer:expr) => {
        $response::decode(&mut Reader::new(&$answer), $version).expect("an answer")
    };
}

#[test]
fn names_that_are_not_utf_8_are_answered_with_the_code_of_the_field_and_the_text_that_java_reads() {
    let directory = directory();
    let server = Server::start(directory.path());
    let wire = &mut Wire::connect(server.address);
    let name = text(LATIN_1);
    const INVALID_TOPIC: i16 = ErrorCode::InvalidTopicException as i16;
    const UNKNOWN_TOPIC: i16 = ErrorCode::UnknownTopicOrPartition as i16;

    let answer = ask(wire, ApiKey::Metadata, 4, &[ONE, &name, &[1]]);
    let topic = &decoded!(MetadataResponse, 4, answer).topics[0];
    assert_eq!((topic.error_code, topic.name.as_deref()), (INVALID_TOPIC, Some(REPLACED)));

    let batch = [0; 0];
    let records = [&i32::try_from(batch.len()).expect("short").to_be_bytes()[..], &batch].concat();
    let partition = [&[0, 0, 0, 0][..], &records].concat();
    let body = [&[0xff, 0xff, 0, 1, 0, 0, 3, 0xe8][..], ONE, &name, ONE, &partition].concat();
    let answer = ask(wire, ApiKey::Produce, 3, &[&body]);
    let topic = &decoded!(ProduceResponse, 3, answer).responses[0];
    assert_eq!((&*topic.name, topic.partition_responses[0].error_code), (REPLACED, UNKNOWN_TOPIC));

    let partition = [&[0; 4][..], &[0; 8], &[0, 1, 0, 0]].concat();
    let head = [&[0xff; 4][..], &[0; 4], &[0, 0, 0, 1]].concat();
    let answer = ask(wire, ApiKey::Fetch, 0, &[&head, ONE, &name, ONE, &partition]);
    let topic = &decoded!(FetchResponse, 0, answer).responses[0];
    assert_eq!((&*topic.topic, topic.partitions[0].error_code), (REPLACED, UNKNOWN_TOPIC));

    let partition = [&[0; 4][..], &[0xff; 8]].concat();
    let answer = ask(wire, ApiKey::ListOffsets, 1, &[&[0xff; 4], ONE, &name, ONE, &partition]);
    let topic = &decoded!(ListOffsetsResponse, 1, answer).topics[0];
    assert_eq!((&*topic.name, topic.partitions[0].error_code), (REPLACED, UNKNOWN_TOPIC));

    let topic = [ONE, &name, &[0, 0, 0, 1, 0, 1], NONE, NONE].concat();
    let answer = ask(wire, ApiKey::CreateTopics, 0, &[&topic, &[0, 0, 3, 0xe8]]);
    let topic = &decoded!(CreateTopicsResponse, 0, answer).topics[0];
    assert_eq!((&*topic.name, topic.error_code), (REPLACED, INVALID_TOPIC));

    let answer = ask(wire, ApiKey::DeleteTopics, 0, &[ONE, &name, &[0, 0, 3, 0xe8]]);
    let topic = &decoded!(DeleteTopicsResponse, 0, answer).responses[0];
    assert_eq!((topic.name.as_deref(), topic.error_code), (Some(REPLACED), UNKNOWN_TOPIC));

    let answer = ask(wire, ApiKey::DescribeConfigs, 0, &[ONE, &[2], &name, &[0xff; 4]]);
    let result = &decoded!(DescribeConfigsResponse, 0, answer).results[0];
    assert_eq!((&*result.resource_name, result.error_code), (REPLACED, INVALID_TOPIC));

    // A name and a value of a plug-in may be anything.
    let config = [ONE, &name, &[0], &name].concat();
    let answer = ask(wire, ApiKey::IncrementalAlterConfigs, 0, &[ONE, &[4], &text(b"1"), &config, &[0]]);
    assert_eq!(decoded!(IncrementalAlterConfigsResponse, 0, answer).responses[0].error_code, 0);
    let answer = ask(wire, ApiKey::DescribeConfigs, 0, &[ONE, &[4], &text(b"1"), ONE, &name]);
    assert_eq!(decoded!(DescribeConfigsResponse, 0, answer).results[0].configs[0].name, REPLACED);

    let answer = ask(wire, ApiKey::FindCoordinator, 1, &[&name, &[0]]);
    let expected = ErrorCode::CoordinatorNotAvailable as i16;
    assert_eq!(decoded!(FindCoordinatorResponse, 1, answer).error_code, expected);

    let answer = ask(wire, ApiKey::SaslHandshake, 1, &[&name]);
    let handshake = decoded!(SaslHandshakeResponse, 1, answer);
    assert_eq!((handshake.error_code, handshake.mechanisms.len()), (ErrorCode::IllegalSaslState as i16, 0));
    server.stop();
}

#[test]
fn a_client_that_begins_with_sasl_where_there_is_none_is_told_so() {
    let directory = directory();
    let server = Server::start(directory.path());
    let wire = &mut Wire::connect(server.address);
    let expected = ErrorCode::IllegalSaslState as i16;
    for version in 0..=1 {
        let answer = ask(wire, ApiKey::SaslHandshake, version, &[&text(b"PLAIN")]);
        assert_eq!(decoded!(SaslHandshakeResponse, version, answer).error_code, expected);
        let answer = ask(wire, ApiKey::SaslAuthenticate, version, &[NONE]);
        assert_eq!(decoded!(SaslAuthenticateResponse, version, answer).error_code, expected);
    }
    server.stop();
}

#[test]
fn kcat_with_a_client_id_in_latin_1_is_served() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let directory = directory();
    let server = Server::start(directory.path());
    let client_id = [b"client.id=", LATIN_1].concat();
    let output = Command::new("kcat")
        .args(["-b", &server.address.to_string(), "-L", "-X"])
        .arg(OsStr::from_bytes(&client_id))
        .output()
        .expect("kcat runs: it is Debian's package kcat");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("broker 1 at"), "{output:?}");
    server.stop();
}
