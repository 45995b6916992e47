import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Apache Kafka's own clients: administration, every codec at every acks, and records read back by assignment and seek.
 * Usage: Check HOST:PORT
 */
public class Check {
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    /** Mode -> acks. The last is Java's default, idempotent. */
    static final Map<String, String> MODES = Map.of("acks0", "0", "acks1", "1", "idempotent", "all");
    static final int RECORDS = 60;
    static final long FIRST_TIMESTAMP = 1_700_000_000_000L;
    static final int DEADLINE_S = 30;

    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0];
        administer(bootstrap);
        List<String> topics = new ArrayList<>();
        for (String codec : CODECS) {
            for (String mode : MODES.keySet()) {
                String topic = "java." + codec + "." + mode;
                produce(bootstrap, topic, codec, MODES.get(mode));
                topics.add(topic);
            }
        }
        consume(bootstrap, topics);
        System.out.println("Apache Kafka's clients read " + topics.size() + " topics");
    }

    static void administer(String bootstrap) throws Exception {
        try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", bootstrap))) {
            check(admin.describeCluster().nodes().get().size() == 1, "one node");
            NewTopic topic = new NewTopic("made-by-admin", 3, (short) 1).configs(Map.of("retention.ms", "60000"));
            admin.createTopics(Set.of(topic)).all().get(DEADLINE_S, TimeUnit.SECONDS);
            check(fails(admin.createTopics(Set.of(topic)).all()) instanceof TopicExistsException, "created twice");
            check(admin.listTopics().names().get().equals(Set.of("made-by-admin")), "listed");
            TopicDescription described =
                admin.describeTopics(Set.of("made-by-admin")).allTopicNames().get().get("made-by-admin");
            check(described.partitions().size() == 3, "three partitions");
            check(described.partitions().get(2).isr().size() == 1, "in sync with itself");
            admin.deleteTopics(Set.of("made-by-admin")).all().get(DEADLINE_S, TimeUnit.SECONDS);
            Throwable missing = fails(admin.describeTopics(Set.of("made-by-admin")).allTopicNames());
            check(missing instanceof UnknownTopicOrPartitionException, "described after its deletion: " + missing);
        }
    }

    static void produce(String bootstrap, String topic, String codec, String acks) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("compression.type", codec);
        settings.put("acks", acks);
        settings.put("linger.ms", "50");
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
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

    static void consume(String bootstrap, List<String> topics) {
        Map<String, Object> settings =
            Map.of("bootstrap.servers", bootstrap, "enable.auto.commit", false, "isolation.level", "read_committed");
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            for (String topic : topics) {
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

    /** What a future fails with; null if it does not. */
    static Throwable fails(Future<?> future) throws Exception {
        try {
            future.get(DEADLINE_S, TimeUnit.SECONDS);
            return null;
        } catch (ExecutionException failed) {
            return failed.getCause();
        }
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
