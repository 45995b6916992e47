"""confluent-kafka (librdkafka) and kafka-python: what each wrote, both read back, record by record.

Usage: check.py HOST:PORT. Consumers are assigned partitions; groups do not exist yet.
"""

import sys
import time

import confluent_kafka
import kafka

BOOTSTRAP = sys.argv[1]
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
# Name of a mode -> acks, idempotence.
CONFLUENT_MODES = {"acks0": (0, False), "acks1": (1, False), "acksall": (-1, False), "idempotent": (-1, True)}
PYTHON_MODES = {"acks0": (0, False), "acks1": (1, False), "idempotent": ("all", True)}
RECORDS = 60
FIRST_TIMESTAMP = 1_700_000_000_000
DEADLINE_S = 30


def records(topic):
    """(key, value, timestamp, headers) of each record.

    Each repeats itself: librdkafka sends a batch as it is, even one of a single record, if compression gains nothing.
    """
    for number in range(RECORDS):
        key = None if number % 7 == 0 else f"key-{number % 5} ".encode() * 20
        value = None if number % 11 == 0 and key else f"{topic} {number} ".encode() * (20 + number)
        headers = [("number", str(number).encode()), ("empty", b"")] if number % 2 else []
        yield key, value, FIRST_TIMESTAMP + number, headers


def produce_confluent(topic, codec, acks, idempotent):
    failures = []
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "compression.type": codec,
            "acks": acks,
            "enable.idempotence": idempotent,
            "linger.ms": 50,
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
            on_delivery=lambda error, _: error and failures.append(error),
        )
    left = producer.flush(DEADLINE_S)
    assert left == 0 and not failures, f"{topic}: {left} not delivered, {failures[:1]}"


def produce_python(topic, codec, acks, idempotent):
    producer = kafka.KafkaProducer(
        bootstrap_servers=BOOTSTRAP,
        compression_type=None if codec == "none" else codec,
        acks=acks,
        enable_idempotence=idempotent,
        linger_ms=50,
    )
    sent = [
        producer.send(topic, key=key, value=value, partition=0, timestamp_ms=timestamp, headers=headers)
        for key, value, timestamp, headers in records(topic)
    ]
    producer.flush(timeout=DEADLINE_S)
    offsets = [future.get(timeout=DEADLINE_S).offset for future in sent]
    assert acks == 0 or offsets == list(range(RECORDS)), f"{topic}: acknowledged at {offsets}"
    producer.close()


def consume_confluent(topics):
    """topic -> what was read from its first offset on."""
    # The library wants a group's name even where none is joined.
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": BOOTSTRAP, "group.id": "unused", "enable.auto.commit": False}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0) for topic in topics])
    read = {topic: [] for topic in topics}
    deadline = time.monotonic() + DEADLINE_S
    while any(len(found) < RECORDS for found in read.values()) and time.monotonic() < deadline:
        for message in consumer.consume(500, timeout=0.5):
            assert not message.error(), message.error()
            read[message.topic()].append(
                (message.offset(), message.key(), message.value(), message.timestamp()[1], message.headers() or [])
            )
    consumer.close()
    return read


def consume_python(topics):
    consumer = kafka.KafkaConsumer(bootstrap_servers=BOOTSTRAP, group_id=None, enable_auto_commit=False)
    partitions = [kafka.TopicPartition(topic, 0) for topic in topics]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    read = {topic: [] for topic in topics}
    deadline = time.monotonic() + DEADLINE_S
    while any(len(found) < RECORDS for found in read.values()) and time.monotonic() < deadline:
        for found in consumer.poll(timeout_ms=500).values():
            for record in found:
                read[record.topic].append(
                    (record.offset, record.key, record.value, record.timestamp, list(record.headers))
                )
    consumer.close()
    return read


def main():
    topics = []
    for codec in CODECS:
        for client, modes, produce in [
            ("confluent", CONFLUENT_MODES, produce_confluent),
            ("python", PYTHON_MODES, produce_python),
        ]:
            for mode, (acks, idempotent) in modes.items():
                topics.append(f"{client}.{codec}.{mode}")
                produce(topics[-1], codec, acks, idempotent)
    for reader, consume in [("confluent-kafka", consume_confluent), ("kafka-python", consume_python)]:
        read = consume(topics)
        for topic in topics:
            expected = [(offset, *record) for offset, record in enumerate(records(topic))]
            pairs = zip(expected, read[topic], strict=False)
            differing = next((pair for pair in pairs if pair[0] != pair[1]), None)
            assert read[topic] == expected, f"{reader} {topic}: {len(read[topic])} records, first other {differing}"
        print(f"{reader} read {len(topics)} topics")


main()
