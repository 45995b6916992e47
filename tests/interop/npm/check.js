// kafkajs and @platformatic/kafka: records in every codec, administration, and what is to fail. kafkajs can't consume
// without a group, so kcat reads what it wrote; @platformatic/kafka fetches by its Fetch request what both wrote.
//
// Usage: node check.js HOST:PORT HOST:PORT [planted]. The second broker creates no topics by itself. With `planted` two
// wrong expectations are to be caught instead.

const assert = require('node:assert')
const { execFileSync } = require('node:child_process')
const zlib = require('node:zlib')
const zstd = require('@bokuweb/zstd-wasm')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')

const [BOOTSTRAP, STRICT, MODE] = process.argv.slice(2)
const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd']
const RECORDS = 60
const FIRST_TIMESTAMP = 1700000000000
const TOPIC = 2
const BROKER = 4
// mode -> acks, idempotence
const MODES = { acks1: [1, false], acksall: [-1, false], idempotent: [-1, true] }

let passed = 0
let failed = 0

// One thing that is to hold; a failure is told and counted, and the others go on.
async function run(name, body) {
  try {
    await body()
    passed += 1
  } catch (error) {
    failed += 1
    console.log(`FAILED ${name}: ${String(error.message).slice(0, 400)} ${[...names(error)]}`)
  }
}

// Kafka's names of errors that an error of either library holds.
function names(error, found = new Set()) {
  if (error) {
    for (const name of [error.type, error.apiId]) name && found.add(name)
    for (const inner of [error.cause, error.originalError, ...(error.errors ?? [])]) names(inner, found)
  }
  return found
}

function refused(name, wanted, body) {
  return run(name, async () => {
    const error = await Promise.resolve(body()).then(() => null, error => error)
    assert.ok(error, `nothing failed; ${wanted} was to come`)
    assert.ok(names(error).has(wanted), `${error.message}: ${[...names(error)]} instead of ${wanted}`)
  })
}

function records(topic) {
  return Array.from({ length: RECORDS }, (_, number) => ({
    key: number % 7 ? `key-${number % 5}` : null,
    value: number % 11 ? `${topic} ${number} `.repeat(20 + number) : null,
    timestamp: FIRST_TIMESTAMP + number,
    headers: number % 2 ? { number: String(number) } : {},
  }))
}

function expected(topic) {
  return records(topic).map(({ key, value, timestamp, headers }, offset) => [
    offset,
    key,
    value,
    timestamp,
    Object.entries(headers).flat(),
  ])
}

function readWithKcat(topic) {
  const options = ['-b', BOOTSTRAP, '-C', '-t', topic, '-p', '0', '-o', 'beginning', '-e', '-q', '-J']
  const output = execFileSync('kcat', options, { timeout: 30000, maxBuffer: 64 * 1024 * 1024 }).toString()
  return output
    .trim()
    .split('\n')
    .map(line => JSON.parse(line))
    .map(found => [found.offset, found.key, found.payload, found.ts, found.headers ?? []])
}

async function kafkajs() {
  const kafka = new Kafka({ clientId: 'interop', brokers: [BOOTSTRAP], logLevel: logLevel.NOTHING, retry: { retries: 3 } })
  const admin = kafka.admin()
  await admin.connect()
  const topics = CODECS.flatMap(codec => Object.keys(MODES).map(mode => `kafkajs.${codec}.${mode}`))
  await admin.createTopics({ topics: topics.map(topic => ({ topic, numPartitions: 1 })) })
  for (const topic of topics) {
    await run(`kafkajs writes ${topic}`, async () => {
      const [, codec, mode] = topic.split('.')
      const [acks, idempotent] = MODES[mode]
      const producer = kafka.producer({ idempotent, maxInFlightRequests: 1 })
      await producer.connect()
      const messages = records(topic).map(record => ({ ...record, partition: 0, timestamp: String(record.timestamp) }))
      // Their names are in the order of Kafka's codes.
      const compression = CODECS.indexOf(codec)
      for (let from = 0; from < RECORDS; from += 20) {
        const [answer] = await producer.send({ topic, compression, acks, messages: messages.slice(from, from + 20) })
        assert.strictEqual(answer.baseOffset, String(from))
      }
      await producer.disconnect()
      assert.deepStrictEqual(readWithKcat(topic), expected(topic))
    })
  }
  const topic = 'kafkajs-admin'
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
  const setting = async name => {
    const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [resource] })
    return resources[0].configEntries.find(entry => entry.configName === name).configValue
  }
  await run('kafkajs creates a topic, and partitions', async () => {
    const configEntries = [{ name: 'retention.ms', value: '60000000000' }]
    assert.ok(await admin.createTopics({ topics: [{ topic, numPartitions: 2, configEntries }] }))
    assert.strictEqual(await setting('retention.ms'), '60000000000')
    await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] })
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    assert.strictEqual(topics[0].partitions.length, 4)
  })
  await run('kafkajs describes the cluster', async () => {
    const { brokers, controller } = await admin.describeCluster()
    assert.deepStrictEqual([`${brokers[0].host}:${brokers[0].port}`, controller], [BOOTSTRAP, 1])
  })
  await run('kafkajs alters settings', async () => {
    const configEntries = [{ name: 'max.message.bytes', value: '2000' }]
    await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries }] })
    assert.deepStrictEqual([await setting('max.message.bytes'), await setting('retention.ms')], ['2000', '-1'])
  })
  const written = topics[0]
  await run('kafkajs lists offsets by time, and deletes records', async () => {
    const [{ low, high }] = await admin.fetchTopicOffsets(written)
    assert.deepStrictEqual([low, high], ['0', String(RECORDS)])
    const [{ offset }] = await admin.fetchTopicOffsetsByTimestamp(written, FIRST_TIMESTAMP + 17)
    assert.strictEqual(offset, '17')
    const producer = kafka.producer()
    await producer.connect()
    await producer.send({ topic: 'kafkajs-records', messages: ['a', 'b', 'c'].map(value => ({ value })) })
    await producer.disconnect()
    // It deletes only from topics whose leaders it has asked for before.
    assert.strictEqual((await admin.fetchTopicOffsets('kafkajs-records'))[0].low, '0')
    await admin.deleteTopicRecords({ topic: 'kafkajs-records', partitions: [{ partition: 0, offset: '2' }] })
    assert.strictEqual((await admin.fetchTopicOffsets('kafkajs-records'))[0].low, '2')
  })
  await run('kafkajs deletes topics', async () => {
    assert.ok(await admin.createTopics({ topics: [{ topic: 'kafkajs-short-lived' }] }))
    await admin.deleteTopics({ topics: ['kafkajs-short-lived'] })
    assert.ok(!(await admin.listTopics()).includes('kafkajs-short-lived'))
  })
  // It answers false where the topic exists.
  await run('kafkajs is refused a topic twice', async () => {
    assert.strictEqual(await admin.createTopics({ topics: [{ topic }] }), false)
  })
  await refused('kafkajs is refused a topic of 0 partitions', 'INVALID_PARTITIONS', () =>
    admin.createTopics({ topics: [{ topic: 'x', numPartitions: 0 }] })
  )
  await refused('kafkajs is refused 3 replicas of one broker', 'INVALID_REPLICATION_FACTOR', () =>
    admin.createTopics({ topics: [{ topic: 'x', replicationFactor: 3 }] })
  )
  await refused('kafkajs is refused fewer partitions', 'INVALID_PARTITIONS', () =>
    admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] })
  )
  await refused("kafkajs is refused a setting's value", 'INVALID_CONFIG', () =>
    admin.alterConfigs({
      validateOnly: false,
      resources: [{ ...resource, configEntries: [{ name: 'retention.ms', value: 'soon' }] }],
    })
  )
  const send = async (client, topic, value, acks) => {
    const producer = client.producer({ retry: { retries: 1 }, allowAutoTopicCreation: false })
    await producer.connect()
    try {
      await producer.send({ topic, acks, messages: [{ partition: 0, value }] })
    } finally {
      await producer.disconnect()
    }
  }
  await refused('kafkajs is refused a message that is too large', 'MESSAGE_TOO_LARGE', () =>
    send(kafka, topic, 'x'.repeat(3000), -1)
  )
  await refused('kafkajs is refused acks=5', 'INVALID_REQUIRED_ACKS', () => send(kafka, topic, 'x', 5))
  const strict = new Kafka({ brokers: [STRICT], logLevel: logLevel.NOTHING, retry: { retries: 1 } })
  await refused('kafkajs is refused a topic that nobody created', 'UNKNOWN_TOPIC_OR_PARTITION', () =>
    send(strict, 'nowhere', 'x', 1)
  )
  await admin.disconnect()
  return topics
}

// All records of partition 0 by Fetch requests.
async function fetchAll(consumer, topic, offset = 0n) {
  const metadata = await consumer.metadata({ topics: [topic], forceUpdate: true })
  const { id: topicId } = metadata.topics.get(topic)
  const found = []
  while (found.length < RECORDS) {
    const { responses } = await consumer.fetch({
      node: 1,
      minBytes: 1,
      maxBytes: 1 << 20,
      maxWaitTime: 1000,
      isolationLevel: 1,
      topics: [
        {
          topicId,
          partitions: [
            {
              partition: 0,
              currentLeaderEpoch: -1,
              fetchOffset: offset + BigInt(found.length),
              lastFetchedEpoch: -1,
              partitionMaxBytes: 1 << 20,
            },
          ],
        },
      ],
    })
    const batches = responses[0].partitions[0].records ?? []
    assert.ok(batches.length > 0, `${topic}: nothing at ${found.length}`)
    for (const batch of batches) {
      for (const record of batch.records) {
        const at = Number(batch.firstOffset) + record.offsetDelta
        if (at < found.length) continue
        const text = bytes => (bytes === null || bytes === undefined ? null : bytes.toString())
        const headers = [...record.headers].flatMap(([name, value]) => [text(name), text(value)])
        const timestamp = Number(batch.firstTimestamp + record.timestampDelta)
        found.push([at, text(record.key), text(record.value), timestamp, headers])
      }
    }
  }
  return found
}

async function platformatic(others) {
  const { Admin, Consumer, Producer, stringSerializers } = await import('@platformatic/kafka')
  const settings = { clientId: 'interop', bootstrapBrokers: [BOOTSTRAP], retries: 2, autocreateTopics: false }
  const admin = new Admin(settings)
  const consumer = new Consumer({ ...settings, groupId: 'unused' })
  const produce = async (messages, options) => {
    const producer = new Producer({ ...settings, serializers: stringSerializers, ...options })
    try {
      return await producer.send({ messages, ...options })
    } finally {
      await producer.close()
    }
  }
  const topics = CODECS.flatMap(codec => Object.keys(MODES).map(mode => `platformatic.${codec}.${mode}`))
  await admin.createTopics({ topics, partitions: 1, replicas: 1 })
  for (const topic of topics) {
    await run(`platformatic writes ${topic}`, async () => {
      const [, compression, mode] = topic.split('.')
      const [acks, idempotent] = MODES[mode]
      const messages = records(topic).map(({ key, value, timestamp, headers }) => ({
        topic,
        partition: 0,
        key: key ?? undefined,
        value: value ?? undefined,
        timestamp: BigInt(timestamp),
        headers,
      }))
      await produce(messages, { acks, idempotent, compression })
    })
  }
  for (const topic of [...others, ...topics]) {
    await run(`platformatic reads ${topic}`, async () => {
      assert.deepStrictEqual(await fetchAll(consumer, topic), expected(topic))
    })
  }
  const topic = 'platformatic-admin'
  const resource = { resourceType: TOPIC, resourceName: topic }
  const setting = async (name, where = resource) => {
    const [{ configs }] = await admin.describeConfigs({ resources: [where] })
    return configs.find(config => config.name === name).value
  }
  await run('platformatic creates a topic, and partitions', async () => {
    const configs = [{ name: 'retention.ms', value: '60000000000' }]
    const [created] = await admin.createTopics({ topics: [topic], partitions: 2, replicas: 1, configs })
    assert.strictEqual(created.partitions, 2)
    assert.strictEqual(await setting('retention.ms'), '60000000000')
    await admin.createPartitions({ topics: [{ name: topic, count: 4 }] })
    const metadata = await admin.metadata({ topics: [topic], forceUpdate: true })
    assert.strictEqual(metadata.topics.get(topic).partitionsCount, 4)
  })
  await run("platformatic describes the broker's settings", async () => {
    assert.strictEqual(await setting('broker.id', { resourceType: BROKER, resourceName: '1' }), '1')
  })
  await run('platformatic alters settings, one and all', async () => {
    const configs = [{ name: 'cleanup.policy', configOperation: 2, value: 'compact' }]
    await admin.incrementalAlterConfigs({ resources: [{ ...resource, configs }] })
    assert.strictEqual(await setting('cleanup.policy'), 'delete,compact')
    await admin.alterConfigs({ resources: [{ ...resource, configs: [{ name: 'max.message.bytes', value: '2000' }] }] })
    assert.deepStrictEqual([await setting('cleanup.policy'), await setting('max.message.bytes')], ['delete', '2000'])
  })
  const offsetAt = async (name, timestamp) => {
    const [found] = await admin.listOffsets({ topics: [{ name, partitions: [{ partitionIndex: 0, timestamp }] }] })
    return Number(found.partitions[0].offset)
  }
  await run('platformatic lists offsets by time, earliest and latest, and deletes records', async () => {
    const name = topics[0]
    assert.strictEqual(await offsetAt(name, -2n), 0)
    assert.strictEqual(await offsetAt(name, -1n), RECORDS)
    assert.strictEqual(await offsetAt(name, BigInt(FIRST_TIMESTAMP + 17)), 17)
    await produce(['a', 'b', 'c'].map(value => ({ topic, partition: 0, value })), { acks: 1 })
    const [found] = await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 2n }] }] })
    assert.strictEqual(found.partitions[0].lowWatermark, 2n)
    assert.strictEqual(await offsetAt(topic, -2n), 2)
  })
  await run('platformatic describes log directories', async () => {
    const [{ broker, results }] = await admin.describeLogDirs({ topics: [{ name: topics[0], partitions: [0] }] })
    assert.strictEqual(broker, 1)
    assert.ok(results[0].topics[0].partitions[0].partitionSize > 0n)
  })
  await run('platformatic deletes topics', async () => {
    await admin.createTopics({ topics: ['platformatic-short-lived'], partitions: 1, replicas: 1 })
    await admin.deleteTopics({ topics: ['platformatic-short-lived'] })
    assert.ok(!(await admin.listTopics()).includes('platformatic-short-lived'))
  })
  await refused('platformatic is refused a topic twice', 'TOPIC_ALREADY_EXISTS', () =>
    admin.createTopics({ topics: [topic], partitions: 1, replicas: 1 })
  )
  await refused('platformatic is refused 3 replicas of one broker', 'INVALID_REPLICATION_FACTOR', () =>
    admin.createTopics({ topics: ['x'], partitions: 1, replicas: 3 })
  )
  await refused('platformatic is refused fewer partitions', 'INVALID_PARTITIONS', () =>
    admin.createPartitions({ topics: [{ name: topic, count: 3 }] })
  )
  await refused("platformatic is refused a setting's value", 'INVALID_CONFIG', () =>
    admin.alterConfigs({ resources: [{ ...resource, configs: [{ name: 'retention.ms', value: 'soon' }] }] })
  )
  await refused('platformatic is refused records beyond the end', 'OFFSET_OUT_OF_RANGE', () =>
    admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 99n }] }] })
  )
  await refused('platformatic is refused a message that is too large', 'MESSAGE_TOO_LARGE', () =>
    produce([{ topic, partition: 0, value: 'x'.repeat(3000) }], { acks: 1 })
  )
  await refused('platformatic is refused an offset out of range', 'OFFSET_OUT_OF_RANGE', () =>
    fetchAll(consumer, topics[0], 1000n)
  )
  await run('platformatic is refused a topic that nobody created', async () => {
    const messages = [{ topic: 'nowhere', partition: 0, value: 'x' }]
    await assert.rejects(produce(messages, { acks: 1, bootstrapBrokers: [STRICT] }), /Unknown topic nowhere/)
  })
  await consumer.close()
  await admin.close()
}

// Two wrong expectations.
async function plant() {
  const kafka = new Kafka({ brokers: [BOOTSTRAP], logLevel: logLevel.NOTHING, retry: { retries: 1 } })
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic: 'planted' }] })
  await run('planted: other records', async () => {
    const producer = kafka.producer()
    await producer.connect()
    await producer.send({ topic: 'planted', messages: [{ value: 'one' }] })
    await producer.disconnect()
    assert.strictEqual(readWithKcat('planted')[0][2], 'another')
  })
  await refused('planted: another error', 'TOPIC_ALREADY_EXISTS', () =>
    admin.createTopics({ topics: [{ topic: 'x', numPartitions: 0 }] })
  )
  await admin.disconnect()
}

async function main() {
  await zstd.init()
  const { lz4Compress } = await import('@platformatic/wasm-utils')
  // kafkajs leaves these to others. What it would decompress, it can't consume here.
  CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
  CompressionCodecs[CompressionTypes.LZ4] = () => ({ compress: async encoder => lz4Compress(encoder.buffer) })
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: async encoder => Buffer.from(zstd.compress(encoder.buffer, 3)),
  })
  // Before 22.15 Node has no zstd, without which @platformatic/kafka refuses it.
  zlib.zstdCompressSync ??= data => Buffer.from(zstd.compress(data, 3))
  zlib.zstdDecompressSync ??= data => Buffer.from(zstd.decompress(data))
  if (MODE === 'planted') {
    await plant()
  } else {
    await platformatic(await kafkajs())
  }
  console.log(`npm: ${passed} checks passed, ${failed} failed`)
  process.exit(failed ? 1 : 0)
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
