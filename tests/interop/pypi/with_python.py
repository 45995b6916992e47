"""kafka-python: produce, fetch, administration, and what is to fail."""

import kafka
from kafka import errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, OffsetSpec

from cases import CODECS, DEADLINE_S, FIRST_TIMESTAMP, RECORDS, case, collect, fails, records, same

NAME = "kafka-python"
MODES = {"acks0": (0, False), "acks1": (1, False), "idempotent": ("all", True)}


def produce(bootstrap, topic, codec, acks, idempotent, **settings):
    """Produces the records; the offsets that the broker gave them."""
    producer = kafka.KafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type=None if codec == "none" else codec,
        acks=acks,
        enable_idempotence=idempotent,
        linger_ms=50,
        **settings,
    )
    try:
        sent = [
            producer.send(topic, key=key, value=value, partition=0, timestamp_ms=timestamp, headers=headers)
            for key, value, timestamp, headers in records(topic)
        ]
        producer.flush(timeout=DEADLINE_S)
        return [future.get(timeout=DEADLINE_S).offset for future in sent]
    finally:
        producer.close()


def write(bootstrap):
    topics = []
    for codec in CODECS:
        for mode, (acks, idempotent) in MODES.items():
            topic = f"python.{codec}.{mode}"
            with case(f"{NAME} writes {topic}"):
                offsets = produce(bootstrap, topic, codec, acks, idempotent)
                assert acks == 0 or offsets == list(range(RECORDS)), f"acknowledged at {offsets}"
            topics.append(topic)
    return topics


def consumer_of(bootstrap, partitions, **settings):
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False, **settings
    )
    consumer.assign(partitions)
    return consumer


def consume(bootstrap, topics):
    partitions = [kafka.TopicPartition(topic, 0) for topic in topics]
    consumer = consumer_of(bootstrap, partitions)
    consumer.seek_to_beginning(*partitions)

    def poll():
        for found in consumer.poll(timeout_ms=500).values():
            for record in found:
                fields = (record.offset, record.key, record.value, record.timestamp, list(record.headers))
                yield record.topic, fields

    read = collect(topics, poll)
    consumer.close()
    return read


def settings_of(client, topic):
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    found = client.describe_configs([resource], config_filter="all")["topic"][topic]
    return {name: entry["value"] for name, entry in found.items()}


def alter(client, topic, configs, **how):
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs)
    return client.alter_configs([resource], **how)["topic"][topic]


def administer(bootstrap):
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    topic = "python-admin"
    partition = kafka.TopicPartition("python-records", 0)
    with case(f"{NAME} creates a topic with settings"):
        client.create_topics({topic: {"num_partitions": 2, "configs": {"retention.ms": "60000000000"}}})
        assert topic in client.list_topics()
        same(settings_of(client, topic)["retention.ms"], "60000000000")
    with case(f"{NAME} describes topics and the cluster"):
        (described,) = client.describe_topics([topic])
        same([partition["leader_id"] for partition in described["partitions"]], [1, 1])
        cluster = client.describe_cluster()
        same([broker["broker_id"] for broker in cluster["brokers"]], [1])
        same(cluster["controller_id"], 1)
    with case(f"{NAME} creates partitions"):
        client.create_partitions({topic: 4})
        same(len(client.describe_topics([topic])[0]["partitions"]), 4)
    with case(f"{NAME} alters settings incrementally"):
        same(alter(client, topic, {"cleanup.policy": ("APPEND", "compact"), "retention.ms": ("DELETE", None)}), "OK")
        after = settings_of(client, topic)
        same((after["cleanup.policy"], after["retention.ms"]), ("delete,compact", "-1"))
    with case(f"{NAME} alters settings as a whole"):
        # It adds the others that are set, so that they stay.
        same(alter(client, topic, {"max.message.bytes": "2000"}, incremental=False), "OK")
        after = settings_of(client, topic)
        same((after["cleanup.policy"], after["max.message.bytes"]), ("delete,compact", "2000"))
    with case(f"{NAME} resets settings"):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, {"cleanup.policy": None})
        client.reset_configs([resource])
        same(settings_of(client, topic)["cleanup.policy"], "delete")
    with case(f"{NAME} lists offsets by time, earliest, latest and of the latest timestamp"):
        same(produce(bootstrap, "python-records", "lz4", "all", False), list(range(RECORDS)))
        for spec, offset in [
            (OffsetSpec.EARLIEST, 0),
            (OffsetSpec.LATEST, RECORDS),
            (FIRST_TIMESTAMP + 17, 17),
            (FIRST_TIMESTAMP + RECORDS, -1),
            (OffsetSpec.MAX_TIMESTAMP, RECORDS - 1),
        ]:
            same(client.list_partition_offsets({partition: spec})[partition].offset, offset, spec)
    with case(f"{NAME} deletes records"):
        same(client.delete_records({partition: 20})[partition]["low_watermark"], 20)
        consumer = consumer_of(bootstrap, [partition])
        same(consumer.beginning_offsets([partition])[partition], 20)
        consumer.close()
    with case(f"{NAME} describes log directories"):
        (broker,) = client.describe_log_dirs(["python-records"])
        (directory,) = broker["log_dirs"]
        (found,) = directory["topics"]
        same(found["name"], "python-records")
        assert found["partitions"][0]["partition_size"] > 0, found
    with case(f"{NAME} deletes topics"):
        client.create_topics({"python-short-lived": {"num_partitions": 1, "replication_factor": 1}})
        client.delete_topics(["python-short-lived"])
        assert "python-short-lived" not in client.list_topics()
    # What is to fail, on the topic of 4 partitions and 2000 bytes.
    for what, kind, call in [
        ("a topic twice", errors.TopicAlreadyExistsError, lambda: client.create_topics([topic])),
        ("a topic of 0 partitions", errors.InvalidPartitionsError, lambda: client.create_topics({"x": {"num_partitions": 0}})),
        (
            "3 replicas of one broker",
            errors.InvalidReplicationFactorError,
            lambda: client.create_topics({"x": {"replication_factor": 3}}),
        ),
        ("a topic's name", errors.InvalidTopicError, lambda: client.create_topics(["a b"])),
        (
            "a topic's unknown setting",
            errors.InvalidConfigurationError,
            lambda: client.create_topics({"x": {"configs": {"unknown.setting": "1"}}}),
        ),
        ("fewer partitions", errors.InvalidPartitionsError, lambda: client.create_partitions({topic: 3})),
        (
            "partitions of no topic",
            errors.UnknownTopicOrPartitionError,
            lambda: client.create_partitions({"nowhere": 3}),
        ),
        ("the deletion of no topic", errors.UnknownTopicOrPartitionError, lambda: client.delete_topics(["nowhere"])),
        (
            "the deletion of records beyond the end",
            errors.OffsetOutOfRangeError,
            lambda: client.delete_records({kafka.TopicPartition(topic, 0): 99}),
        ),
        (
            "a message that is too large",
            errors.MessageSizeTooLargeError,
            lambda: send_one(bootstrap, topic, bytes(3000)),
        ),
        (
            "an offset out of range",
            errors.OffsetOutOfRangeError,
            lambda: read_at(bootstrap, kafka.TopicPartition("python-records", 0), 3),
        ),
    ]:
        with case(f"{NAME} is refused {what}"), fails(kind):
            call()
    with case(f"{NAME} is refused a setting's value"):
        assert "InvalidConfig" in alter(client, topic, {"retention.ms": "soon"})
        assert "InvalidConfig" in alter(client, topic, {"retention.ms": "soon"}, incremental=False)
    client.close()


def send_one(bootstrap, topic, value):
    # A batch of several it would split, and send again.
    producer = kafka.KafkaProducer(bootstrap_servers=bootstrap, acks=1, enable_idempotence=False)
    try:
        producer.send(topic, value=value, partition=0).get(timeout=DEADLINE_S)
    finally:
        producer.close()


def read_at(bootstrap, partition, offset):
    consumer = consumer_of(bootstrap, [partition], auto_offset_reset="none")
    consumer.seek(partition, offset)
    try:
        return consumer.poll(timeout_ms=DEADLINE_S * 1000)
    finally:
        consumer.close()


def strict(bootstrap):
    with case(f"{NAME} is refused a topic that nobody created"):
        with fails(errors.KafkaTimeoutError, errors.UnknownTopicOrPartitionError):
            produce(bootstrap, "nowhere", "none", 1, False, max_block_ms=3000)
        client = KafkaAdminClient(bootstrap_servers=bootstrap)
        assert "nowhere" not in client.list_topics()
        client.close()
