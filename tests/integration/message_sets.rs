//! Message sets v0 and v1, which old producers send in Produce 0 to 2, come back as records.

use rdkafka::Message;
use ringlog::record::compression::{Codec, compress};

use crate::clients::consume;
use crate::server::{Server, directory};
use crate::wire::Wire;

/// Magic, codec and timestamp of a set's messages (magic 0 has none).
#[derive(Clone, Copy, Debug)]
struct Form {
    magic: u8,
    codec: Codec,
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let length = bytes.map_or(-1, |bytes| i32::try_from(bytes.len()).expect("short"));
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn put_message(out: &mut Vec<u8>, offset: i64, form: Form, timestamp: i64, key: Option<&[u8]>, value: &[u8]) {
    let mut body = vec![form.magic, form.codec.id() as u8];
    if form.magic == 1 {
        body.extend_from_slice(&timestamp.to_be_bytes());
    }
    put_bytes(&mut body, key);
    put_bytes(&mut body, Some(value));
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&i32::try_from(body.len() + 4).expect("short").to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    out.extend_from_slice(&body);
}

const COUNT: i64 = 50;

fn value(index: i64) -> String {
    format!("value {index} {}", "again ".repeat(20))
}

fn message_set(form: Form) -> Vec<u8> {
    let inner = Form { codec: Codec::None, ..form };
    let mut messages = Vec::new();
    for index in 0..COUNT {
        put_message(
            &mut messages,
            index,
            inner,
            5000 + index,
            Some(format!("key {index}").as_bytes()),
            value(index).as_bytes(),
        );
    }
    if form.codec == Codec::None {
        return messages;
    }
    let mut wrapper = Vec::new();
    put_message(&mut wrapper, COUNT - 1, form, 5000 + COUNT - 1, None, &compress(form.codec, &messages));
    wrapper
}

#[test]
fn message_sets_of_old_producers_come_back_from_a_new_consumer() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    for (version, magic) in [(0, 0), (1, 0), (2, 1)] {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy] {
            let topic = format!("set-{version}-{codec:?}");
            assert_eq!(wire.create_topic(&topic, 1), 0);
            for round in 0..2 {
                let answer = wire.produce(version, &topic, 0, &message_set(Form { magic, codec }));
                assert_eq!((answer.error_code, answer.base_offset), (0, round * COUNT), "{topic}");
            }
            let messages = consume(server.address, &topic, 2 * COUNT as usize);
            for (message, index) in messages.iter().zip((0..COUNT).cycle()) {
                assert_eq!(message.key(), Some(format!("key {index}").as_bytes()), "{topic}");
                assert_eq!(message.payload(), Some(value(index).as_bytes()), "{topic}");
                let timestamp = (magic == 1).then_some(5000 + index);
                assert_eq!(message.timestamp().to_millis(), timestamp, "{topic}");
            }
            assert_eq!(server.codecs(&topic, 0), [codec, codec], "{topic}");
        }
    }
}

#[test]
fn a_message_set_with_a_wrong_crc_is_refused() {
    let directory = directory();
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("damaged", 1), 0);
    let mut set = message_set(Form { magic: 1, codec: Codec::None });
    *set.last_mut().expect("not empty") ^= 1;
    let answer = wire.produce(2, "damaged", 0, &set);
    assert_eq!(answer.error_code, ringlog::protocol::ErrorCode::CorruptMessage as i16);
    assert!(wire.read_all("damaged", 0).is_empty());
}
