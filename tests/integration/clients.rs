//! librdkafka produces, fetches and administers: codecs, acks, batch sizes, keys, headers, timestamps, idempotence, and
//! what is to fail.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Headers, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use ringlog::record::batch::BatchHeader;
use ringlog::record::compression::Codec;

use crate::server::{DEADLINE, Server, batches_of, directory};
use crate::wire::Wire;

pub const CODECS: [(&str, Codec); 5] = [
    ("none", Codec::None),
    ("gzip", Codec::Gzip),
    ("snappy", Codec::Snappy),
    ("lz4", Codec::Lz4),
    ("zstd", Codec::Zstd),
];
const COUNT: usize = 300;
const FIRST_TIMESTAMP: i64 = 1_600_000_000_000;

/// The first `count` messages of partition 0, read by a fresh consumer without a group.
pub fn consume(address: SocketAddr, topic: &str, count: usize) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address.to_string())
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning).expect("an offset");
    consumer.assign(&assignment).expect("assigned");
    let deadline = Instant::now() + DEADLINE;
    let mut messages = Vec::new();
    while messages.len() < count {
        assert!(Instant::now() < deadline, "{topic}: {} of {count} messages came", messages.len());
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => messages.push(message.detach()),
            Some(Err(error)) => panic!("{topic}: {error}"),
            None => {}
        }
    }
    for (index, message) in messages.iter().enumerate() {
        assert_eq!(message.offset(), index as i64, "{topic}");
    }
    messages
}

struct Case {
    codec: (&'static str, Codec),
    acks: &'static str,
    idempotence: bool,
    /// Messages of a batch at most.
    batch_messages: &'static str,
}

impl Case {
    fn topic(&self) -> String {
        let idempotent = if self.idempotence { "-idempotent" } else { "" };
        format!("{}-acks{}-{}{idempotent}", self.codec.0, self.acks, self.batch_messages)
    }

    fn produce(&self, address: SocketAddr) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", address.to_string())
            .set("compression.type", self.codec.0)
            .set("acks", self.acks)
            .set("enable.idempotence", if self.idempotence { "true" } else { "false" })
            .set("batch.num.messages", self.batch_messages)
            .set("linger.ms", "20")
            .set("message.timeout.ms", "30000")
            .create()
            .expect("a producer");
        let topic = self.topic();
        for index in 0..COUNT {
            let (key, value) = (key(index), value(index));
            let headers = OwnedHeaders::new()
                .insert(Header { key: "index", value: Some(&index.to_string()) })
                .insert(Header { key: "null", value: None::<&str> });
            let record = BaseRecord::to(&topic)
                .partition(0)
                .key(&key)
                .payload(&value)
                .timestamp(FIRST_TIMESTAMP + index as i64)
                .headers(headers);
            producer.send(record).map_err(|(error, _)| error).expect("queued");
        }
        producer.flush(DEADLINE).expect("all delivered");
    }
}

fn key(index: usize) -> String {
    format!("key {index}")
}

/// Long and repetitive: librdkafka sends a batch as it is where compression gains nothing.
fn value(index: usize) -> String {
    format!("value {index} {}", "again and ".repeat(20))
}

fn check(case: &Case, server: &Server) {
    let topic = case.topic();
    for (index, message) in consume(server.address, &topic, COUNT).iter().enumerate() {
        assert_eq!(message.key(), Some(key(index).as_bytes()), "{topic}");
        assert_eq!(message.payload(), Some(value(index).as_bytes()), "{topic}");
        assert_eq!(message.timestamp().to_millis(), Some(FIRST_TIMESTAMP + index as i64), "{topic}");
        let headers = message.headers().expect("headers");
        let index = index.to_string();
        assert_eq!(headers.get(0), Header { key: "index", value: Some(index.as_bytes()) }, "{topic}");
        assert_eq!(headers.get(1), Header { key: "null", value: None }, "{topic}");
    }
    let codecs = server.codecs(&topic, 0);
    assert!(codecs.iter().all(|codec| *codec == case.codec.1), "{topic}: {codecs:?}");
}

fn run(cases: impl IntoIterator<Item = Case>) {
    let directory = directory();
    let server = Server::start(directory.path());
    for case in cases {
        assert_eq!(Wire::connect(server.address).create_topic(&case.topic(), 1), 0);
        case.produce(server.address);
        check(&case, &server);
        let batches = batches_of(directory.path(), &case.topic(), 0);
        let headers: Vec<_> = batches.iter().map(|batch| BatchHeader::parse(batch).expect("a header")).collect();
        if case.batch_messages == "1" {
            assert_eq!(headers.len(), COUNT, "{}", case.topic());
        }
        assert!(headers.iter().all(|header| header.has_producer_id() == case.idempotence), "{}", case.topic());
    }
    server.stop();
}

#[test]
fn librdkafka_gets_back_what_it_sent_in_every_codec_and_batch_size() {
    run(CODECS.into_iter().flat_map(|codec| {
        ["1", "50", "10000"].map(|batch_messages| Case { codec, acks: "1", idempotence: false, batch_messages })
    }));
}

#[test]
fn librdkafka_gets_back_what_it_sent_with_every_kind_of_acknowledgement() {
    let codec = CODECS[3];
    run(["0", "1", "all"].map(|acks| Case { codec, acks, idempotence: false, batch_messages: "50" }));
}

#[test]
fn librdkafkas_idempotent_producer_works_in_every_codec() {
    run(CODECS.map(|codec| Case { codec, acks: "all", idempotence: true, batch_messages: "20" }));
}

/// Runs a future that librdkafka's own threads complete.
fn wait<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(DEADLINE, future).await }).expect("an answer in time")
}

struct Administrator {
    client: AdminClient<DefaultClientContext>,
    options: AdminOptions,
}

impl Administrator {
    fn connect(address: SocketAddr) -> Administrator {
        let client = ClientConfig::new().set("bootstrap.servers", address.to_string()).create().expect("a client");
        Administrator { client, options: AdminOptions::new() }
    }

    /// The error of the one answer, if it is one.
    fn create(&self, topic: &NewTopic<'_>) -> Option<RDKafkaErrorCode> {
        let answers = wait(self.client.create_topics([topic], &self.options)).expect("answers");
        answers[0].as_ref().err().map(|(_, code)| *code)
    }

    fn grow(&self, topic: &str, partitions: usize) -> Option<RDKafkaErrorCode> {
        let wanted = NewPartitions::new(topic, partitions);
        let answers = wait(self.client.create_partitions([&wanted], &self.options)).expect("answers");
        answers[0].as_ref().err().map(|(_, code)| *code)
    }

    fn alter(&self, topic: &str, name: &str, value: &str) {
        let wanted = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        wait(self.client.alter_configs([&wanted], &self.options)).expect("answers");
    }

    fn delete(&self, topic: &str) -> Option<RDKafkaErrorCode> {
        let answers = wait(self.client.delete_topics(&[topic], &self.options)).expect("answers");
        answers[0].as_ref().err().map(|(_, code)| *code)
    }

    fn setting(&self, topic: &str, name: &str) -> Option<String> {
        let answers = wait(self.client.describe_configs([&ResourceSpecifier::Topic(topic)], &self.options));
        let mut answers = answers.expect("answers");
        let resource = answers.remove(0).expect("a resource");
        resource.get(name).and_then(|entry| entry.value.clone())
    }
}

#[test]
fn librdkafka_administers_topics_and_is_told_what_fails() {
    let directory = directory();
    let server = Server::start(directory.path());
    let admin = Administrator::connect(server.address);
    let topic = NewTopic::new("admin", 2, TopicReplication::Fixed(1)).set("retention.ms", "60000");
    assert_eq!(admin.create(&topic), None);
    assert_eq!(admin.setting("admin", "retention.ms").as_deref(), Some("60000"));
    assert_eq!(admin.grow("admin", 4), None);
    admin.alter("admin", "max.message.bytes", "2000");
    assert_eq!(admin.setting("admin", "max.message.bytes").as_deref(), Some("2000"));

    assert_eq!(admin.create(&topic), Some(RDKafkaErrorCode::TopicAlreadyExists));
    let replicated = NewTopic::new("other", 1, TopicReplication::Fixed(3));
    assert_eq!(admin.create(&replicated), Some(RDKafkaErrorCode::InvalidReplicationFactor));
    let misconfigured = NewTopic::new("other", 1, TopicReplication::Fixed(1)).set("unknown.setting", "1");
    assert_eq!(admin.create(&misconfigured), Some(RDKafkaErrorCode::InvalidConfig));
    assert_eq!(admin.grow("admin", 3), Some(RDKafkaErrorCode::InvalidPartitions));
    assert_eq!(admin.grow("nowhere", 3), Some(RDKafkaErrorCode::UnknownTopicOrPartition));
    // The crate keeps a resource's error to itself. Taken, this would have reset the other setting.
    admin.alter("admin", "retention.ms", "soon");
    assert_eq!(admin.setting("admin", "max.message.bytes").as_deref(), Some("2000"));
    assert_eq!(admin.delete("nowhere"), Some(RDKafkaErrorCode::UnknownTopicOrPartition));

    assert_eq!(admin.delete("admin"), None);
    let metadata = admin.client.inner().fetch_metadata(None, DEADLINE).expect("metadata");
    assert!(metadata.topics().iter().all(|topic| topic.name() != "admin"));
    server.stop();
}
