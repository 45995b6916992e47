import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Apache Kafka's own clients, of 3.9 and of 4: every codec at every acks, records read back by assignment and seek, fetch
 * sessions, and administration (Administration.java).
 * Usage: Check HOST:PORT HOST:PORT PREFIX [planted]: the second broker creates no topics by itself; topics' names begin
 * with the prefix; with `planted` two wrong expectations are to be caught instead.
 */
public class Check {
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    /** Mode -> acks. The last is Java's default, idempotent. */
    static final Map<String, String> MODES = Map.of("acks0", "0", "acks1", "1", "idempotent", "all");
    static final int RECORDS = 60;
    static final long FIRST_TIMESTAMP = 1_700_000_000_000L;
    static final int DEADLINE_S = 30;
    static final int SESSION_PARTITIONS = 60;
    static final int SESSION_ROUNDS = 6;

    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0];
        String prefix = arguments[2];
        if (List.of(arguments).contains("planted")) {
            plant(bootstrap, prefix);
        } else {
            check(bootstrap, prefix);
            Administration.run(bootstrap, prefix);
            Administration.strict(arguments[1]);
        }
        System.out.println(prefix + ": " + Cases.passed + " checks passed, " + Cases.failed + " failed");
        System.exit(Cases.failed == 0 ? 0 : 1);
    }

    static void check(String bootstrap, String prefix) {
        for (String codec : CODECS) {
            for (String mode : MODES.keySet()) {
                String topic = prefix + "." + codec + "." + mode;
                Cases.run("writes " + topic, () -> produce(bootstrap, topic, codec, MODES.get(mode)));
                Cases.run("reads " + topic, () -> consume(bootstrap, topic));
            }
        }
        Cases.run("many partitions in one fetch session", () -> session(bootstrap, prefix + "-session"));
        Cases.run("an offset out of range", () -> outOfRange(bootstrap, prefix + ".none.acks1"));
    }

    /** Two wrong expectations. */
    static void plant(String bootstrap, String prefix) {
        String topic = prefix + "-planted";
        Cases.run("planted: other records", () -> {
            produce(bootstrap, topic, "none", "1");
            try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap)) {
                consumer.assign(List.of(new TopicPartition(topic, 0)));
                consumer.seekToBeginning(consumer.assignment());
                compare(topic + "-other", read(consumer, RECORDS), 0);
            }
        });
        Cases.fails("planted: another error", InvalidTopicException.class, () -> {
            try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", bootstrap))) {
                Cases.get(admin.createTopics(Set.of(new NewTopic(topic, 1, (short) 1))).all());
            }
        });
    }

    static void produce(String bootstrap, String topic, String codec, String acks) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, codec, acks)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int number = 0; number < RECORDS; number++) {
                sent.add(producer.send(record(topic, number)));
            }
            for (int number = 0; number < RECORDS; number++) {
                RecordMetadata answer = sent.get(number).get(DEADLINE_S, TimeUnit.SECONDS);
                // Without an acknowledgement nobody knows the offset.
                check(acks.equals("0") || answer.offset() == number, topic + ": acknowledged at " + answer.offset());
            }
        }
    }

    /** Idempotent with acks=all, as Java's is by default. */
    static KafkaProducer<byte[], byte[]> producer(String bootstrap, String codec, String acks) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("compression.type", codec);
        settings.put("acks", acks);
        settings.put("linger.ms", "50");
        settings.put("max.block.ms", "10000");
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(String bootstrap) {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "enable.auto.commit", false,
            "isolation.level", "read_committed", "auto.offset.reset", "none");
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static void consume(String bootstrap, String topic) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap)) {
            TopicPartition partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            compare(topic, read(consumer, RECORDS), 0);
            consumer.seek(partition, RECORDS / 2);
            compare(topic, read(consumer, RECORDS / 2), RECORDS / 2);
            long found = consumer.offsetsForTimes(Map.of(partition, FIRST_TIMESTAMP + 17)).get(partition).offset();
            check(found == 17, topic + ": offset by time " + found);
            check(consumer.endOffsets(List.of(partition)).get(partition) == RECORDS, topic + ": end offset");
        }
    }

    /**
     * One consumer of many partitions, whose session goes on while the partitions get records by turns; some are let go
     * and come back.
     */
    static void session(String bootstrap, String topic) throws Exception {
        try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", bootstrap))) {
            Cases.get(admin.createTopics(Set.of(new NewTopic(topic, SESSION_PARTITIONS, (short) 1))).all());
        }
        List<TopicPartition> partitions =
            IntStream.range(0, SESSION_PARTITIONS).mapToObj(number -> new TopicPartition(topic, number)).toList();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap);
                KafkaProducer<byte[], byte[]> producer = producer(bootstrap, "none", "all")) {
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            for (int round = 0; round < SESSION_ROUNDS; round++) {
                Set<TopicPartition> wanted = new HashSet<>();
                for (int number = round; number < SESSION_PARTITIONS; number += SESSION_ROUNDS) {
                    wanted.add(partitions.get(number));
                    producer.send(new ProducerRecord<>(topic, number, null, bytes("round " + round)));
                }
                producer.flush();
                Set<TopicPartition> found = new HashSet<>();
                for (ConsumerRecord<byte[], byte[]> record : read(consumer, wanted.size())) {
                    found.add(new TopicPartition(record.topic(), record.partition()));
                    check(Arrays.equals(record.value(), bytes("round " + round)), "a record of another round");
                }
                Cases.same(found, wanted);
                // Positions stay: only the session forgets these, and learns of them again.
                consumer.pause(partitions.subList(0, SESSION_PARTITIONS / 2));
                consumer.poll(Duration.ofMillis(20));
                consumer.resume(partitions.subList(0, SESSION_PARTITIONS / 2));
            }
        }
    }

    static void outOfRange(String bootstrap, String topic) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap)) {
            TopicPartition partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seek(partition, RECORDS + 1);
            try {
                read(consumer, 1);
            } catch (OffsetOutOfRangeException error) {
                Cases.same(error.partitions(), Set.of(partition));
                return;
            }
            check(false, "an offset beyond the end was taken");
        }
    }

    static List<ConsumerRecord<byte[], byte[]>> read(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE_S);
        while (records.size() < count && System.nanoTime() < deadline) {
            consumer.poll(Duration.ofMillis(500)).forEach(records::add);
        }
        return records;
    }

    static void compare(String topic, List<ConsumerRecord<byte[], byte[]>> read, int firstOffset) {
        check(read.size() == RECORDS - firstOffset, topic + ": " + read.size() + " records from " + firstOffset);
        for (int index = 0; index < read.size(); index++) {
            ConsumerRecord<byte[], byte[]> found = read.get(index);
            int number = firstOffset + index;
            ProducerRecord<byte[], byte[]> wanted = record(topic, number);
            check(found.offset() == number && found.timestamp() == wanted.timestamp()
                && Arrays.equals(found.key(), wanted.key()) && Arrays.equals(found.value(), wanted.value())
                && Arrays.equals(found.headers().toArray(), wanted.headers().toArray()), topic + ": record " + number);
        }
    }

    static ProducerRecord<byte[], byte[]> record(String topic, int number) {
        byte[] key = number % 7 == 0 ? null : bytes("key-" + number % 5);
        byte[] value = number % 11 == 0 ? null : bytes((topic + " " + number + " ").repeat(20 + number));
        List<Header> headers = new ArrayList<>();
        if (number % 2 == 1) {
            headers.add(new RecordHeader("number", bytes(String.valueOf(number))));
            headers.add(new RecordHeader("null", null));
        }
        return new ProducerRecord<>(topic, 0, FIRST_TIMESTAMP + number, key, value, headers);
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
