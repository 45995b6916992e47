import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.LogDirDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** Kafka's Admin: all that a node without groups, security and transactions has, and what is to fail. */
final class Administration {
    final String bootstrap;
    final String topic;
    final TopicPartition records;
    final ConfigResource resource;
    final Admin admin;

    Administration(String bootstrap, String prefix, Admin admin) {
        this.bootstrap = bootstrap;
        this.admin = admin;
        topic = prefix + "-admin";
        records = new TopicPartition(prefix + "-records", 0);
        resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
    }

    static void run(String bootstrap, String prefix) {
        try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", bootstrap))) {
            Administration all = new Administration(bootstrap, prefix, admin);
            all.topics();
            all.settings();
            all.records();
            all.refusals();
        }
    }

    Future<?> create(String name, int partitions, int replicas, Map<String, String> configs) {
        return admin.createTopics(Set.of(new NewTopic(name, partitions, (short) replicas).configs(configs))).all();
    }

    TopicDescription described() throws Exception {
        return Cases.get(admin.describeTopics(Set.of(topic)).allTopicNames()).get(topic);
    }

    Config config(ConfigResource resource) throws Exception {
        return Cases.get(admin.describeConfigs(Set.of(resource)).all()).get(resource);
    }

    Future<?> alter(ConfigResource resource, AlterConfigOp.OpType type, String name, String value) {
        Collection<AlterConfigOp> operations = List.of(new AlterConfigOp(new ConfigEntry(name, value), type));
        return admin.incrementalAlterConfigs(Map.of(resource, operations)).all();
    }

    void topics() {
        Cases.run("describes the cluster", () -> {
            DescribeClusterResult cluster = admin.describeCluster();
            Cases.same(Cases.get(cluster.nodes()).size(), 1);
            Cases.same(Cases.get(cluster.controller()).id(), 1);
            Cases.check(!Cases.get(cluster.clusterId()).isEmpty(), "a cluster id");
        });
        Cases.run("creates, lists and describes a topic", () -> {
            Cases.get(create(topic, 2, 1, Map.of("retention.ms", "60000")));
            Cases.check(Cases.get(admin.listTopics().names()).contains(topic), "listed");
            Cases.same(described().partitions().size(), 2);
            Cases.same(described().partitions().get(1).isr().size(), 1);
        });
        Cases.run("describes and deletes a topic by its id", () -> {
            Cases.get(create(topic + "-id", 1, 1, Map.of()));
            Uuid id = Cases.get(admin.describeTopics(Set.of(topic + "-id")).allTopicNames()).get(topic + "-id").topicId();
            TopicCollection ids = TopicCollection.ofTopicIds(Set.of(id));
            Cases.same(Cases.get(admin.describeTopics(ids).allTopicIds()).get(id).name(), topic + "-id");
            Cases.get(admin.deleteTopics(ids).all());
            Cases.check(!Cases.get(admin.listTopics().names()).contains(topic + "-id"), "still listed");
            Cases.fails("describes an id that is gone", UnknownTopicIdException.class,
                () -> Cases.get(admin.describeTopics(ids).allTopicIds()));
        });
        Cases.run("creates partitions", () -> {
            Cases.get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all());
            Cases.same(described().partitions().size(), 4);
        });
        Cases.run("deletes a topic", () -> {
            Cases.get(create(topic + "-short-lived", 1, 1, Map.of()));
            Cases.get(admin.deleteTopics(Set.of(topic + "-short-lived")).all());
            Cases.check(!Cases.get(admin.listTopics().names()).contains(topic + "-short-lived"), "still listed");
        });
    }

    void settings() {
        Cases.run("alters settings: set, append, subtract, delete", () -> {
            Cases.get(alter(resource, AlterConfigOp.OpType.APPEND, "cleanup.policy", "compact"));
            Cases.same(config(resource).get("cleanup.policy").value(), "delete,compact");
            Cases.get(alter(resource, AlterConfigOp.OpType.SUBTRACT, "cleanup.policy", "compact"));
            Cases.same(config(resource).get("cleanup.policy").value(), "delete");
            Cases.get(alter(resource, AlterConfigOp.OpType.SET, "max.message.bytes", "2000"));
            ConfigEntry changed = config(resource).get("max.message.bytes");
            Cases.same(changed.value(), "2000");
            Cases.same(changed.source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
            Cases.get(alter(resource, AlterConfigOp.OpType.DELETE, "retention.ms", null));
            Cases.check(!config(resource).get("retention.ms").value().equals("60000"), "retention.ms is still there");
        });
        Cases.run("alters the broker's settings", () -> {
            ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, "1");
            Cases.same(config(broker).get("broker.id").source(), ConfigEntry.ConfigSource.STATIC_BROKER_CONFIG);
            Cases.get(alter(broker, AlterConfigOp.OpType.SET, "log.cleaner.threads", "2"));
            ConfigEntry changed = config(broker).get("log.cleaner.threads");
            Cases.same(changed.value() + changed.source(), "2DYNAMIC_BROKER_CONFIG");
            Cases.get(alter(broker, AlterConfigOp.OpType.DELETE, "log.cleaner.threads", null));
            Cases.same(config(broker).get("log.cleaner.threads").source(), ConfigEntry.ConfigSource.DEFAULT_CONFIG);
        });
    }

    void offset(OffsetSpec spec, long wanted) throws Exception {
        Cases.same(Cases.get(admin.listOffsets(Map.of(records, spec)).partitionResult(records)).offset(), wanted);
    }

    void records() {
        Cases.run("lists offsets by time, earliest, latest and of the latest timestamp", () -> {
            Check.produce(bootstrap, records.topic(), "lz4", "all");
            offset(OffsetSpec.earliest(), 0);
            offset(OffsetSpec.latest(), Check.RECORDS);
            offset(OffsetSpec.forTimestamp(Check.FIRST_TIMESTAMP + 17), 17);
            offset(OffsetSpec.forTimestamp(Check.FIRST_TIMESTAMP + Check.RECORDS), -1);
            offset(OffsetSpec.maxTimestamp(), Check.RECORDS - 1);
        });
        Cases.run("describes log directories", () -> {
            Map<String, LogDirDescription> found = Cases.get(admin.describeLogDirs(Set.of(1)).allDescriptions()).get(1);
            Cases.same(found.size(), 1);
            Cases.check(found.values().iterator().next().replicaInfos().get(records).size() > 0, "a size");
        });
        Cases.run("describes producers", () -> {
            int producers = Cases.get(admin.describeProducers(Set.of(records)).all()).get(records).activeProducers().size();
            Cases.same(producers, 1);
        });
        Cases.run("deletes records", () -> {
            Map<TopicPartition, RecordsToDelete> until = Map.of(records, RecordsToDelete.beforeOffset(20));
            Cases.same(Cases.get(admin.deleteRecords(until).lowWatermarks().get(records)).lowWatermark(), 20L);
            offset(OffsetSpec.earliest(), 20);
        });
    }

    void refusals() {
        Cases.fails("a topic twice", TopicExistsException.class, () -> Cases.get(create(topic, 1, 1, Map.of())));
        Cases.fails("a topic of 0 partitions", InvalidPartitionsException.class,
            () -> Cases.get(create("x", 0, 1, Map.of())));
        Cases.fails("3 replicas of one broker", InvalidReplicationFactorException.class,
            () -> Cases.get(create("x", 1, 3, Map.of())));
        Cases.fails("a topic's name", InvalidTopicException.class, () -> Cases.get(create("a b", 1, 1, Map.of())));
        Cases.fails("a topic's unknown setting", InvalidConfigurationException.class,
            () -> Cases.get(create("x", 1, 1, Map.of("unknown.setting", "1"))));
        Cases.fails("a setting's value", InvalidConfigurationException.class,
            () -> Cases.get(alter(resource, AlterConfigOp.OpType.SET, "retention.ms", "soon")));
        Cases.fails("fewer partitions", InvalidPartitionsException.class,
            () -> Cases.get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all()));
        Cases.fails("partitions of no topic", UnknownTopicOrPartitionException.class,
            () -> Cases.get(admin.createPartitions(Map.of("nowhere", NewPartitions.increaseTo(3))).all()));
        Cases.fails("the deletion of no topic", UnknownTopicOrPartitionException.class,
            () -> Cases.get(admin.deleteTopics(Set.of("nowhere")).all()));
        Cases.fails("the deletion of records beyond the end", OffsetOutOfRangeException.class, () -> {
            TopicPartition partition = new TopicPartition(topic, 0);
            Cases.get(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(99))).all());
        });
        Cases.fails("a message that is too large", RecordTooLargeException.class, () -> {
            try (KafkaProducer<byte[], byte[]> producer = Check.producer(bootstrap, "none", "all")) {
                Cases.get(producer.send(new ProducerRecord<>(topic, 0, null, new byte[3000])));
            }
        });
    }

    /** On a broker that creates no topics by itself. */
    static void strict(String bootstrap) {
        Cases.fails("a topic that nobody created", org.apache.kafka.common.errors.TimeoutException.class, () -> {
            // The producer waits for the topic until max.block.ms is over.
            try (KafkaProducer<byte[], byte[]> producer = Check.producer(bootstrap, "none", "1")) {
                Cases.get(producer.send(new ProducerRecord<>("nowhere", 0, null, new byte[1])));
            }
        });
        Cases.run("and it is still not there", () -> {
            try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", bootstrap))) {
                Cases.same(new HashSet<>(Cases.get(admin.listTopics().names())), Set.of());
            }
        });
    }
}
