"""Debian's python3-kafka against a broker: produce, fetch and administration in old protocols.

Usage: python_kafka.py HOST:PORT CODEC. Prints what it found, a line each; python_kafka.rs holds it to what it must be.
"""

import sys

import kafka
from kafka import errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewPartitions, NewTopic

BOOTSTRAP = sys.argv[1]
CODEC = sys.argv[2]
RECORDS = 60
FIRST_TIMESTAMP = 1_600_000_000_000
DEADLINE_S = 30


def records(topic):
    for number in range(RECORDS):
        yield f"key {number}".encode(), f"{topic} {number} ".encode() * 20


def write_and_read(version):
    """Produces by the protocols of a broker of this version, and reads by them."""
    topic = f"python-{CODEC}-{'.'.join(map(str, version))}"
    producer = kafka.KafkaProducer(
        bootstrap_servers=BOOTSTRAP,
        api_version=version,
        compression_type=None if CODEC == "none" else CODEC,
        acks="all",
        linger_ms=50,
    )
    sent = [
        producer.send(topic, key=key, value=value, partition=0, timestamp_ms=FIRST_TIMESTAMP + number)
        for number, (key, value) in enumerate(records(topic))
    ]
    producer.flush(timeout=DEADLINE_S)
    offsets = [future.get(timeout=DEADLINE_S).offset for future in sent]
    producer.close()
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=BOOTSTRAP,
        api_version=version,
        group_id=None,
        enable_auto_commit=False,
        consumer_timeout_ms=DEADLINE_S * 1000,
    )
    partition = kafka.TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    read = []
    for record in consumer:
        read.append((record.key, record.value))
        if len(read) == RECORDS:
            break
    by_time = "-"
    if version >= (0, 10, 1):
        by_time = consumer.offsets_for_times({partition: FIRST_TIMESTAMP + 17})[partition].offset
    consumer.close()
    same = offsets == list(range(RECORDS)) and read == list(records(topic))
    print(f"{topic} same={same} by_time={by_time}")


def error_of(call):
    try:
        answer = call()
    except errors.KafkaError as error:
        return type(error).__name__
    return f"nothing: {answer}"


def administer():
    client = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    resource = ConfigResource(ConfigResourceType.TOPIC, "admin")

    def setting(name):
        (answer,) = client.describe_configs([resource])
        return {entry[0]: entry[1] for entry in answer.resources[0][4]}[name]

    client.create_topics([NewTopic("admin", 2, 1, topic_configs={"retention.ms": "60000"})])
    print("created", "admin" in client.list_topics(), setting("retention.ms"))
    client.create_partitions({"admin": NewPartitions(4)})
    print("partitions", len(client.describe_topics(["admin"])[0]["partitions"]))
    changed = ConfigResource(ConfigResourceType.TOPIC, "admin", {"max.message.bytes": "2000"})
    client.alter_configs([changed])
    print("altered", setting("max.message.bytes"), setting("retention.ms"))
    print("twice", error_of(lambda: client.create_topics([NewTopic("admin", 1, 1)])))
    print("no partitions", error_of(lambda: client.create_topics([NewTopic("x", 0, 1)])))
    print("replicas", error_of(lambda: client.create_topics([NewTopic("x", 1, 3)])))
    print("fewer", error_of(lambda: client.create_partitions({"admin": NewPartitions(3)})))
    producer = kafka.KafkaProducer(bootstrap_servers=BOOTSTRAP)
    print("large", error_of(lambda: producer.send("admin", bytes(3000), partition=0).get(DEADLINE_S)))
    producer.close()
    client.delete_topics(["admin"])
    print("deleted", "admin" not in client.list_topics())
    client.close()


def main():
    if CODEC == "admin":
        administer()
        return
    # zstd came with 2.1; before 0.10 lz4 had a checksum that only Java's client computed.
    versions = [(0, 9), (0, 10, 0), (0, 10, 1), (0, 11), (1, 0), (2, 5)]
    least = {"zstd": (2, 1), "lz4": (0, 10)}.get(CODEC, (0, 9))
    for version in versions:
        if version >= least:
            write_and_read(version)


main()
