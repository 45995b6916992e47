import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Has a Kafka write all that its coordinators keep in __consumer_offsets and __transaction_state: members that come, go and
 * are known by name, commits of every kind, deletions, transactions that end well or not.
 * Usage: Coordinators HOST:PORT
 */
public final class Coordinators {
    static final Duration POLL = Duration.ofMillis(50);
    static final int DEADLINE_S = 30;
    static final Map<String, Integer> TOPICS = Map.of("one", 4, "two.two", 4);

    final String bootstrap;
    final List<TopicPartition> partitions = new ArrayList<>();

    Coordinators(String bootstrap) {
        this.bootstrap = bootstrap;
        TOPICS.forEach((topic, count) -> {
            for (int index = 0; index < count; index++) partitions.add(new TopicPartition(topic, index));
        });
    }

    public static void main(String[] arguments) throws Exception {
        Coordinators coordinators = new Coordinators(arguments[0]);
        try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", arguments[0]))) {
            admin.createTopics(TOPICS.entrySet().stream().map(topic -> new NewTopic(topic.getKey(), topic.getValue(), (short) 1))
                .collect(Collectors.toList())).all().get();
            coordinators.groups(admin);
        }
        coordinators.transactions();
    }

    KafkaConsumer<String, String> member(String group, Map<String, Object> more) {
        Map<String, Object> settings = new java.util.HashMap<>(more);
        settings.putAll(Map.of("bootstrap.servers", bootstrap, "group.id", group, "enable.auto.commit", "false"));
        KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
        consumer.subscribe(TOPICS.keySet());
        return consumer;
    }

    void until(List<KafkaConsumer<String, String>> members, int assigned) {
        long deadline = System.nanoTime() + DEADLINE_S * 1_000_000_000L;
        while (members.stream().anyMatch(member -> member.assignment().size() != assigned)) {
            if (System.nanoTime() > deadline) throw new IllegalStateException("the group does not settle");
            members.forEach(member -> member.poll(POLL));
        }
    }

    void groups(Admin admin) throws Exception {
        String group = "group \"quoted\"\t\u001f";
        try (KafkaConsumer<String, String> first = member(group, Map.of("client.id", "first", "client.rack", "rack"))) {
            until(List.of(first), 8);
            first.commitSync(offsets(first.assignment(), "metadata"));
            try (KafkaConsumer<String, String> second = member(group, Map.of("group.instance.id", "instance"))) {
                until(List.of(first, second), 4);
                second.commitSync(offsets(second.assignment(), ""));
            }
        }
        String sticky = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
        try (KafkaConsumer<String, String> member = member("cooperative", Map.of("partition.assignment.strategy", sticky))) {
            until(List.of(member), 8);
        }
        // Left behind by an administrator, without a member ever.
        admin.alterConsumerGroupOffsets("simple", offsets(Set.copyOf(partitions), "by hand")).all().get();
        admin.deleteConsumerGroupOffsets("simple", Set.of(partitions.get(0), partitions.get(1))).all().get();
        admin.deleteConsumerGroups(List.of("cooperative")).all().get();
    }

    static Map<TopicPartition, OffsetAndMetadata> offsets(Set<TopicPartition> partitions, String metadata) {
        return partitions.stream().collect(Collectors.toMap(place -> place, place ->
            new OffsetAndMetadata(place.partition() * 1_000_000_007L, java.util.Optional.of(place.partition()), metadata)));
    }

    void transactions() throws Exception {
        for (String id : List.of("id", "another id \"\u0001")) {
            Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "transactional.id", id);
            try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
                producer.initTransactions();
                for (int count = 1; count <= partitions.size(); count++) {
                    producer.beginTransaction();
                    for (TopicPartition place : partitions.subList(0, count)) {
                        producer.send(new ProducerRecord<>(place.topic(), place.partition(), "key", "value"));
                    }
                    producer.sendOffsetsToTransaction(offsets(Set.of(partitions.get(0)), "sent"), new ConsumerGroupMetadata("in transactions"));
                    if (count % 3 == 0) producer.abortTransaction();
                    else producer.commitTransaction();
                }
            }
        }
    }
}
