import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
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
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Work for a broker whose directory another broker is to take over: appends to every topic, makes new ones, and writes
 * down all that a consumer reads, so that two brokers' accounts of one directory can be compared.
 * Usage: Exchange HOST:PORT DUMP [PREFIX [transactions]]
 */
public class Exchange {
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    /** Small, so that a few hundred records roll. */
    static final Map<String, String> SMALL_SEGMENTS = Map.of("segment.bytes", "16384", "index.interval.bytes", "1024");
    static final int RECORDS = 400;
    static final int APPENDED_RECORDS = 40;
    static final long FIRST_TIMESTAMP = 1_700_000_000_000L;
    static final int DEADLINE_S = 30;

    final String bootstrap;

    Exchange(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    public static void main(String[] arguments) throws Exception {
        Exchange exchange = new Exchange(arguments[0]);
        if (arguments.length > 2) {
            exchange.write(arguments[2], Arrays.asList(arguments).contains("transactions"));
        }
        int records = exchange.dump(Path.of(arguments[1]));
        System.out.println(records + " records of " + exchange.partitions().size() + " partitions read");
    }

    void write(String prefix, boolean transactions) throws Exception {
        for (TopicPartition partition : partitions()) {
            produce(partition, Map.of("compression.type", "lz4"), APPENDED_RECORDS);
        }
        for (String codec : CODECS) {
            String topic = prefix + "." + codec;
            create(topic, 1);
            produce(new TopicPartition(topic, 0), Map.of("compression.type", codec), RECORDS);
        }
        String plain = prefix + ".acks1";
        create(plain, 2);
        for (int number = 0; number < 2; number++) {
            Map<String, String> settings = Map.of("acks", "1", "enable.idempotence", "false");
            produce(new TopicPartition(plain, number), settings, RECORDS);
        }
        if (transactions) {
            transact(prefix + ".transactions");
        }
    }

    void create(String topic, int partitions) throws Exception {
        try (Admin admin = Admin.create(clientSettings())) {
            NewTopic wanted = new NewTopic(topic, partitions, (short) 1).configs(SMALL_SEGMENTS);
            admin.createTopics(List.of(wanted)).all().get(DEADLINE_S, TimeUnit.SECONDS);
        }
    }

    void produce(TopicPartition partition, Map<String, String> settings, int count) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer(settings)) {
            send(producer, partition, count);
        }
    }

    /** One committed, one aborted, and one more committed. */
    void transact(String topic) throws Exception {
        create(topic, 1);
        TopicPartition partition = new TopicPartition(topic, 0);
        try (KafkaProducer<byte[], byte[]> producer = producer(Map.of("transactional.id", topic))) {
            producer.initTransactions();
            for (boolean commit : new boolean[] {true, false, true}) {
                producer.beginTransaction();
                send(producer, partition, APPENDED_RECORDS);
                if (commit) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
        }
    }

    /** Returns when all are acknowledged, in order. */
    void send(KafkaProducer<byte[], byte[]> producer, TopicPartition partition, int count) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int number = 0; number < count; number++) {
            sent.add(producer.send(record(partition, number)));
        }
        producer.flush();
        long last = -1;
        for (Future<RecordMetadata> answer : sent) {
            long offset = answer.get(DEADLINE_S, TimeUnit.SECONDS).offset();
            check(last < 0 || offset == last + 1, partition + ": acknowledged at " + offset + " after " + last);
            last = offset;
        }
    }

    static ProducerRecord<byte[], byte[]> record(TopicPartition partition, int number) {
        byte[] key = number % 7 == 0 ? null : bytes("key-" + number % 5);
        byte[] value = number % 11 == 0 ? null : bytes((partition + " " + number + " ").repeat(5 + number % 20));
        List<Header> headers = new ArrayList<>();
        if (number % 3 == 1) {
            headers.add(new RecordHeader("number", bytes(String.valueOf(number))));
            headers.add(new RecordHeader("null", null));
        }
        return new ProducerRecord<>(
            partition.topic(), partition.partition(), FIRST_TIMESTAMP + number, key, value, headers);
    }

    /** Everything from the beginnings to the ends, in a text that is the same for the same records. */
    int dump(Path path) throws Exception {
        List<TopicPartition> partitions = partitions();
        Map<String, Object> settings = clientSettings();
        settings.put("enable.auto.commit", false);
        settings.put("check.crcs", true);
        int count = 0;
        try (PrintWriter out = new PrintWriter(Files.newBufferedWriter(path));
                KafkaConsumer<byte[], byte[]> consumer =
                    new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            Map<TopicPartition, Long> starts = consumer.beginningOffsets(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            for (TopicPartition partition : partitions) {
                out.println(partition + " from " + starts.get(partition) + " to " + ends.get(partition));
                consumer.assign(List.of(partition));
                consumer.seekToBeginning(List.of(partition));
                long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE_S);
                while (consumer.position(partition) < ends.get(partition)) {
                    check(System.nanoTime() < deadline, partition + " stands still at " + consumer.position(partition));
                    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(500))) {
                        out.println(text(record));
                        count++;
                    }
                }
            }
        }
        return count;
    }

    static String text(ConsumerRecord<byte[], byte[]> record) {
        StringBuilder text = new StringBuilder();
        text.append(record.topic()).append(' ').append(record.partition()).append(' ').append(record.offset());
        text.append(' ').append(record.timestampType()).append(' ').append(record.timestamp());
        text.append(' ').append(text(record.key())).append(' ').append(text(record.value()));
        for (Header header : record.headers()) {
            text.append(' ').append(header.key()).append('=').append(text(header.value()));
        }
        return text.toString();
    }

    static String text(byte[] content) {
        return content == null ? "null" : "'" + Base64.getEncoder().encodeToString(content) + "'";
    }

    /** Of all topics but internal ones, sorted. */
    List<TopicPartition> partitions() throws Exception {
        try (Admin admin = Admin.create(clientSettings())) {
            var names = admin.listTopics().names().get(DEADLINE_S, TimeUnit.SECONDS);
            var described = admin.describeTopics(names).allTopicNames().get(DEADLINE_S, TimeUnit.SECONDS);
            List<TopicPartition> partitions = new ArrayList<>();
            for (TopicDescription topic : described.values()) {
                topic.partitions().forEach(info -> partitions.add(new TopicPartition(topic.name(), info.partition())));
            }
            partitions.sort(Comparator.comparing(TopicPartition::topic).thenComparing(TopicPartition::partition));
            return partitions;
        }
    }

    KafkaProducer<byte[], byte[]> producer(Map<String, String> settings) {
        Map<String, Object> all = clientSettings();
        all.put("batch.size", 2048);
        all.put("linger.ms", 5);
        all.putAll(settings);
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    Map<String, Object> clientSettings() {
        return new HashMap<>(Map.of("bootstrap.servers", bootstrap));
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
