"""aiokafka: produce, fetch, administration, and what is to fail."""

import asyncio

import aiokafka
from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from cases import CODECS, DEADLINE_S, FIRST_TIMESTAMP, RECORDS, case, fails, records, same

NAME = "aiokafka"
MODES = {"acks0": (0, False), "acks1": (1, False), "idempotent": ("all", True)}


async def produce(bootstrap, topic, codec, acks, idempotent, **settings):
    """Produces the records; the offsets that the broker gave them."""
    async with aiokafka.AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type=None if codec == "none" else codec,
        acks=acks,
        enable_idempotence=idempotent,
        linger_ms=50,
        **settings,
    ) as producer:
        sent = [
            await producer.send(topic, key=key, value=value, partition=0, timestamp_ms=timestamp, headers=headers)
            for key, value, timestamp, headers in records(topic)
        ]
        await producer.flush()
        return [found and found.offset for found in await asyncio.gather(*sent)]


def write(bootstrap):
    topics = []
    for codec in CODECS:
        for mode, (acks, idempotent) in MODES.items():
            topic = f"aiokafka.{codec}.{mode}"
            with case(f"{NAME} writes {topic}"):
                offsets = asyncio.run(produce(bootstrap, topic, codec, acks, idempotent))
                assert acks == 0 or offsets == list(range(RECORDS)), f"acknowledged at {offsets}"
            topics.append(topic)
    return topics


def consumer_of(bootstrap, **settings):
    return aiokafka.AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False, **settings
    )


async def read(bootstrap, topics):
    found = {topic: [] for topic in topics}
    async with consumer_of(bootstrap) as consumer:
        partitions = [aiokafka.TopicPartition(topic, 0) for topic in topics]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        async with asyncio.timeout(DEADLINE_S):
            while any(len(records) < RECORDS for records in found.values()):
                for batch in (await consumer.getmany(timeout_ms=500)).values():
                    for record in batch:
                        fields = (record.offset, record.key, record.value, record.timestamp, list(record.headers))
                        found[record.topic].append(fields)
    return found


def consume(bootstrap, topics):
    return asyncio.run(read(bootstrap, topics))


async def administration(bootstrap):
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    topic = "aiokafka-admin"

    async def settings():
        (answer,) = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for entry in answer.resources[0][4]}

    async def alter(configs):
        (answer,) = await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])
        return answer.resources[0][0]

    async def create(name, partitions=1, replicas=1, configs=None):
        answer = await client.create_topics([NewTopic(name, partitions, replicas, topic_configs=configs or {})])
        return answer.topic_errors[0][1]

    with case(f"{NAME} creates a topic with settings"):
        same(await create(topic, 2, 1, {"retention.ms": "60000000000"}), 0)
        assert topic in await client.list_topics()
        same((await settings())["retention.ms"], "60000000000")
    with case(f"{NAME} describes topics and the cluster"):
        (described,) = await client.describe_topics([topic])
        same([partition["leader"] for partition in described["partitions"]], [1, 1])
        cluster = await client.describe_cluster()
        same([broker["node_id"] for broker in cluster["brokers"]], [1])
    with case(f"{NAME} creates partitions"):
        await client.create_partitions({topic: NewPartitions(4)})
        same(len((await client.describe_topics([topic]))[0]["partitions"]), 4)
    with case(f"{NAME} alters settings as a whole"):
        same(await alter({"max.message.bytes": "2000"}), 0)
        after = await settings()
        same((after["retention.ms"], after["max.message.bytes"]), ("-1", "2000"))
    partition = aiokafka.TopicPartition("aiokafka-records", 0)
    with case(f"{NAME} deletes records, and finds offsets by time"):
        await produce(bootstrap, "aiokafka-records", "gzip", 1, False)
        same(await client.delete_records({partition: RecordsToDelete(20)}), {partition: 20})
        async with consumer_of(bootstrap) as consumer:
            consumer.assign([partition])
            same(await consumer.beginning_offsets([partition]), {partition: 20})
            same(await consumer.end_offsets([partition]), {partition: RECORDS})
            found = await consumer.offsets_for_times({partition: FIRST_TIMESTAMP + 33})
            same(found[partition].offset, 33)
    with case(f"{NAME} deletes topics"):
        same(await create("aiokafka-short-lived"), 0)
        await client.delete_topics(["aiokafka-short-lived"])
        assert "aiokafka-short-lived" not in await client.list_topics()
    for what, kind, arguments in [
        ("a topic twice", errors.TopicAlreadyExistsError, (topic,)),
        ("a topic of 0 partitions", errors.InvalidPartitionsError, ("x", 0)),
        ("3 replicas of one broker", errors.InvalidReplicationFactorError, ("x", 1, 3)),
        ("a topic's name", errors.InvalidTopicError, ("a b",)),
        ("a topic's unknown setting", errors.InvalidConfigurationError, ("x", 1, 1, {"unknown.setting": "1"})),
    ]:
        with case(f"{NAME} is refused {what}"):
            same(await create(*arguments), kind.errno)
    with case(f"{NAME} is refused a setting's value"):
        same(await alter({"retention.ms": "soon"}), errors.InvalidConfigurationError.errno)
    with case(f"{NAME} is refused fewer partitions"), fails(errors.InvalidPartitionsError):
        await client.create_partitions({topic: NewPartitions(3)})
    with case(f"{NAME} is refused a message that is too large"), fails(errors.MessageSizeTooLargeError):
        await produce(bootstrap, topic, "none", 1, False)
    with case(f"{NAME} is refused an offset out of range"), fails(errors.OffsetOutOfRangeError):
        async with consumer_of(bootstrap, auto_offset_reset="none") as consumer:
            consumer.assign([partition])
            consumer.seek(partition, 3)
            async with asyncio.timeout(DEADLINE_S):
                await consumer.getone()
    await client.close()


def administer(bootstrap):
    asyncio.run(administration(bootstrap))


def strict(bootstrap):
    with case(f"{NAME} is refused a topic that nobody created"):
        with fails(errors.KafkaTimeoutError, errors.UnknownTopicOrPartitionError):
            asyncio.run(produce(bootstrap, "nowhere", "none", 1, False, request_timeout_ms=3000))
