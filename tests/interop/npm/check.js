// kafkajs: topics made and deleted, records produced with the codecs it has; kcat reads them back, since kafkajs can't
// consume without a group. Usage: node check.js HOST:PORT

const assert = require('node:assert')
const { execFileSync } = require('node:child_process')
const { Kafka, CompressionTypes, logLevel } = require('kafkajs')

const BOOTSTRAP = process.argv[2]
const RECORDS = 60
const FIRST_TIMESTAMP = 1700000000000
// name -> codec, acks, idempotence
const PRODUCERS = {
  'kafkajs.none.acks1': [CompressionTypes.None, 1, false],
  'kafkajs.gzip.acks1': [CompressionTypes.GZIP, 1, false],
  'kafkajs.gzip.acksall': [CompressionTypes.GZIP, -1, false],
  'kafkajs.gzip.idempotent': [CompressionTypes.GZIP, -1, true],
}

function records(topic) {
  return Array.from({ length: RECORDS }, (_, number) => ({
    partition: 0,
    key: number % 7 ? `key-${number % 5}` : null,
    value: number % 11 ? `${topic} ${number} `.repeat(20 + number) : null,
    timestamp: String(FIRST_TIMESTAMP + number),
    headers: number % 2 ? { number: String(number) } : {},
  }))
}

function readWithKcat(topic) {
  const options = ['-b', BOOTSTRAP, '-C', '-t', topic, '-p', '0', '-o', 'beginning', '-e', '-q', '-J']
  const output = execFileSync('kcat', options, { timeout: 30000, maxBuffer: 64 * 1024 * 1024 }).toString()
  return output.trim().split('\n').map(line => JSON.parse(line))
}

async function produce(kafka, topic, [compression, acks, idempotent]) {
  const producer = kafka.producer({ idempotent, maxInFlightRequests: 1 })
  await producer.connect()
  const messages = records(topic)
  for (let from = 0; from < RECORDS; from += 20) {
    const [answer] = await producer.send({ topic, compression, acks, messages: messages.slice(from, from + 20) })
    assert.strictEqual(answer.errorCode, 0)
    assert.strictEqual(answer.baseOffset, String(from))
  }
  await producer.disconnect()
}

function compare(topic) {
  const read = readWithKcat(topic)
  const expected = records(topic)
  assert.strictEqual(read.length, RECORDS, `${topic}: ${read.length} records`)
  read.forEach((record, offset) => {
    const { key, value, timestamp, headers } = expected[offset]
    assert.deepStrictEqual(
      [record.offset, record.key, record.payload, record.ts, record.headers ?? []],
      [offset, key, value, Number(timestamp), Object.entries(headers).flat()],
      `${topic}: record ${offset}`
    )
  })
}

async function main() {
  const kafka = new Kafka({ clientId: 'interop', brokers: [BOOTSTRAP], logLevel: logLevel.ERROR, retry: { retries: 3 } })
  const admin = kafka.admin()
  await admin.connect()
  const topics = Object.keys(PRODUCERS)
  assert.ok(await admin.createTopics({ topics: topics.map(topic => ({ topic, numPartitions: 1 })) }))
  for (const topic of topics) {
    await produce(kafka, topic, PRODUCERS[topic])
    compare(topic)
    const [{ low, high }] = await admin.fetchTopicOffsets(topic)
    assert.deepStrictEqual([low, high], ['0', String(RECORDS)])
  }
  assert.ok(await admin.createTopics({ topics: [{ topic: 'short-lived', numPartitions: 3 }] }))
  await admin.deleteTopics({ topics: ['short-lived'] })
  assert.deepStrictEqual((await admin.listTopics()).sort(), topics.sort())
  await admin.disconnect()
  console.log(`kafkajs wrote ${topics.length} topics, kcat read the same`)
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
