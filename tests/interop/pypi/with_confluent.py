"""confluent-kafka (librdkafka): produce, fetch, administration, and what is to fail."""

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition, admin
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec

from cases import CODECS, DEADLINE_S, FIRST_TIMESTAMP, RECORDS, case, collect, expected, records, same, same_records

NAME = "confluent-kafka"
# Name of a mode -> acks, idempotence.
MODES = {"acks0": (0, False), "acks1": (1, False), "acksall": (-1, False), "idempotent": (-1, True)}


def error_of(call):
    """Kafka's code of the error that a call, or the future it gives, ends with."""
    try:
        future = call()
        if future is not None:
            future.result(DEADLINE_S)
    except KafkaException as error:
        return error.args[0].code()
    return None


def produce(bootstrap, topic, codec, acks, idempotent, **settings):
    """Produces the records; the code of each that failed."""
    failures = []
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": codec,
            "acks": acks,
            "enable.idempotence": idempotent,
            "linger.ms": 50,
            **settings,
        }
    )
    for key, value, timestamp, headers in records(topic):
        producer.produce(
            topic,
            key=key,
            value=value,
            partition=0,
            timestamp=timestamp,
            headers=headers,
            on_delivery=lambda error, _: error and failures.append(error.code()),
        )
    left = producer.flush(DEADLINE_S)
    assert left == 0, f"{topic}: {left} not delivered"
    return failures


def consumer_of(bootstrap, assignment, **settings):
    # The library wants a group's name even where none is joined.
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, **settings}
    )
    consumer.assign(assignment)
    return consumer


def consume(bootstrap, topics):
    consumer = consumer_of(bootstrap, [TopicPartition(topic, 0, 0) for topic in topics])

    def poll():
        for message in consumer.consume(500, timeout=0.5):
            assert not message.error(), message.error()
            record = (message.offset(), message.key(), message.value(), message.timestamp()[1])
            yield message.topic(), (*record, message.headers() or [])

    read = collect(topics, poll)
    consumer.close()
    return read


def first_error(bootstrap, partition, **settings):
    """The code of the first message's error."""
    consumer = consumer_of(bootstrap, [partition], **settings)
    message = consumer.poll(DEADLINE_S)
    consumer.close()
    return message and message.error() and message.error().code()


def write(bootstrap):
    topics = []
    for codec in CODECS:
        for mode, (acks, idempotent) in MODES.items():
            topic = f"confluent.{codec}.{mode}"
            with case(f"{NAME} writes {topic}"):
                same(produce(bootstrap, topic, codec, acks, idempotent), [], "failures")
            topics.append(topic)
    return topics


def config(client, resource):
    found = client.describe_configs([resource])[resource].result(DEADLINE_S)
    return {name: entry.value for name, entry in found.items()}


def administer(bootstrap):
    client = admin.AdminClient({"bootstrap.servers": bootstrap})
    topic = "confluent-admin"
    resource = ConfigResource(admin.RESOURCE_TOPIC, topic)
    with case(f"{NAME} creates a topic with settings"):
        new = NewTopic(topic, num_partitions=2, replication_factor=1, config={"retention.ms": "60000000000"})
        client.create_topics([new])[topic].result(DEADLINE_S)
        same(config(client, resource)["retention.ms"], "60000000000")
    with case(f"{NAME} describes topics and the cluster"):
        collection = confluent_kafka.TopicCollection([topic])
        described = client.describe_topics(collection)[topic].result(DEADLINE_S)
        same([partition.leader.id for partition in described.partitions], [1, 1])
        assert str(described.topic_id) not in ("", "AAAAAAAAAAAAAAAAAAAAAA"), described.topic_id
        cluster = client.describe_cluster().result(DEADLINE_S)
        same([node.id for node in cluster.nodes], [1])
        same(f"{cluster.controller.host}:{cluster.controller.port}", bootstrap)
    with case(f"{NAME} creates partitions"):
        client.create_partitions([NewPartitions(topic, 4)])[topic].result(DEADLINE_S)
        same(len(client.list_topics(topic, DEADLINE_S).topics[topic].partitions), 4)
    with case(f"{NAME} alters settings incrementally"):
        resource.add_incremental_config(
            ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND)
        )
        resource.add_incremental_config(
            ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE)
        )
        client.incremental_alter_configs([resource])[resource].result(DEADLINE_S)
        after = config(client, ConfigResource(admin.RESOURCE_TOPIC, topic))
        same((after["cleanup.policy"], after["retention.ms"]), ("delete,compact", "-1"))
    with case(f"{NAME} alters settings as a whole"):
        whole = ConfigResource(admin.RESOURCE_TOPIC, topic, set_config={"max.message.bytes": "2000"})
        client.alter_configs([whole])[whole].result(DEADLINE_S)
        after = config(client, ConfigResource(admin.RESOURCE_TOPIC, topic))
        same((after["cleanup.policy"], after["max.message.bytes"]), ("delete", "2000"))
    with case(f"{NAME} describes the broker's settings"):
        broker = config(client, ConfigResource(admin.RESOURCE_BROKER, "1"))
        same((broker["broker.id"], broker["auto.create.topics.enable"]), ("1", "true"))
    partition = TopicPartition("confluent-records", 0)
    with case(f"{NAME} lists offsets by time, earliest, latest and of the latest timestamp"):
        same(produce(bootstrap, "confluent-records", "lz4", -1, False), [])
        for spec, offset in [
            (OffsetSpec.earliest(), 0),
            (OffsetSpec.latest(), RECORDS),
            (OffsetSpec.for_timestamp(FIRST_TIMESTAMP + 17), 17),
            (OffsetSpec.for_timestamp(FIRST_TIMESTAMP + RECORDS), -1),
            (OffsetSpec.max_timestamp(), RECORDS - 1),
        ]:
            same(client.list_offsets({partition: spec})[partition].result(DEADLINE_S).offset, offset, spec)
    with case(f"{NAME} deletes records"):
        until = TopicPartition("confluent-records", 0, 20)
        same(client.delete_records([until])[until].result(DEADLINE_S).low_watermark, 20)
        consumer = consumer_of(bootstrap, [TopicPartition("confluent-records", 0, confluent_kafka.OFFSET_BEGINNING)])
        same(consumer.poll(DEADLINE_S).offset(), 20)
        same(consumer.get_watermark_offsets(partition, DEADLINE_S), (20, RECORDS))
        consumer.close()
    with case(f"{NAME} deletes topics"):
        client.create_topics([NewTopic("confluent-short-lived", 1)])["confluent-short-lived"].result(DEADLINE_S)
        client.delete_topics(["confluent-short-lived"])["confluent-short-lived"].result(DEADLINE_S)
        assert "confluent-short-lived" not in client.list_topics(timeout=DEADLINE_S).topics
    # What is to fail, on the topic of 4 partitions and 2000 bytes.
    invalid = ConfigResource(admin.RESOURCE_TOPIC, topic)
    invalid.add_incremental_config(ConfigEntry("retention.ms", "soon", incremental_operation=AlterConfigOpType.SET))
    for what, wanted, call in [
        ("a topic twice", KafkaError.TOPIC_ALREADY_EXISTS, lambda: client.create_topics([NewTopic(topic, 1)])[topic]),
        ("a topic of 0 partitions", KafkaError.INVALID_PARTITIONS, lambda: client.create_topics([NewTopic("x", 0)])["x"]),
        (
            "3 replicas of one broker",
            KafkaError.INVALID_REPLICATION_FACTOR,
            lambda: client.create_topics([NewTopic("x", 1, 3)])["x"],
        ),
        ("a topic's name", KafkaError.TOPIC_EXCEPTION, lambda: client.create_topics([NewTopic("a b", 1)])["a b"]),
        (
            "a topic's unknown setting",
            KafkaError.INVALID_CONFIG,
            lambda: client.create_topics([NewTopic("x", 1, config={"unknown.setting": "1"})])["x"],
        ),
        (
            "fewer partitions",
            KafkaError.INVALID_PARTITIONS,
            lambda: client.create_partitions([NewPartitions(topic, 3)])[topic],
        ),
        (
            "partitions of no topic",
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            lambda: client.create_partitions([NewPartitions("nowhere", 3)])["nowhere"],
        ),
        ("a setting's value", KafkaError.INVALID_CONFIG, lambda: client.incremental_alter_configs([invalid])[invalid]),
        (
            "the deletion of no topic",
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            lambda: client.delete_topics(["nowhere"])["nowhere"],
        ),
        (
            "the deletion of records beyond the end",
            KafkaError.OFFSET_OUT_OF_RANGE,
            lambda: client.delete_records([TopicPartition(topic, 0, 99)])[TopicPartition(topic, 0)],
        ),
        (
            "a message that is too large",
            KafkaError.MSG_SIZE_TOO_LARGE,
            lambda: refuse(produce(bootstrap, topic, "none", 1, False)[0]),
        ),
        (
            "acks=5",
            KafkaError.INVALID_REQUIRED_ACKS,
            lambda: refuse(produce(bootstrap, "confluent-records", "none", 5, False)[0]),
        ),
        (
            "an offset out of range",
            KafkaError._AUTO_OFFSET_RESET,
            lambda: refuse(
                first_error(bootstrap, TopicPartition("confluent-records", 0, 3), **{"auto.offset.reset": "error"})
            ),
        ),
    ]:
        with case(f"{NAME} is refused {what}"):
            same(error_of(call), wanted, "error")


def refuse(code):
    """A code as the exception that it stands for."""
    if code is not None:
        raise KafkaException(KafkaError(code))


def strict(bootstrap):
    with case(f"{NAME} is refused a topic that nobody created"):
        patience = {"topic.metadata.propagation.max.ms": 1000}
        same(set(produce(bootstrap, "nowhere", "none", 1, False, **patience)), {KafkaError.UNKNOWN_TOPIC_OR_PART})
        client = admin.AdminClient({"bootstrap.servers": bootstrap})
        assert "nowhere" not in client.list_topics(timeout=DEADLINE_S).topics
        same(client.list_topics("nowhere", DEADLINE_S).topics["nowhere"].error.code(), KafkaError.UNKNOWN_TOPIC_OR_PART)


def plant(bootstrap):
    """Two wrong expectations."""
    with case("planted: other records"):
        produce(bootstrap, "planted", "none", 1, False)
        same_records(consume(bootstrap, ["planted"])["planted"], expected("Planted"), "planted")
    with case("planted: another error"):
        client = admin.AdminClient({"bootstrap.servers": bootstrap})
        call = client.create_topics([NewTopic("planted", 1)])["planted"].result
        same(error_of(lambda: call(DEADLINE_S)), KafkaError.INVALID_PARTITIONS)
