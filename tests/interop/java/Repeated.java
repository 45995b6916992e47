import com.fasterxml.jackson.databind.JsonNode;
import java.io.DataInputStream;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.SimpleRecord;
import org.apache.kafka.common.requests.AbstractResponse;
import org.apache.kafka.common.requests.RequestHeader;
import org.apache.kafka.common.requests.RequestUtils;

/**
 * Elements that a request names more than once: ringlog and Kafka say the same of each. Where Kafka answers once, so does
 * ringlog; where Kafka refuses each because it is repeated, so does ringlog; where Kafka repeats itself otherwise, ringlog
 * answers once still.
 *
 * <p>Arguments: the addresses of ringlog and of Kafka, and perhaps `planted`: then Kafka is asked something else once, which
 * must be noticed.
 */
public final class Repeated {
    private static final String TOPIC = "repeated";
    private static final int TIMES = 3;

    /** How often an element that is named several times is answered. */
    private enum Answered { ONCE, ONCE_BY_RINGLOG, AS_OFTEN }

    private record Case(String name, ApiKeys key, int version, ApiMessage request, Answered answered) {}

    public static void main(String[] args) throws Exception {
        boolean planted = args.length > 2;
        for (String address : List.of(args[0], args[1])) {
            createTopic(address);
        }
        int checked = 0;
        int failed = 0;
        List<Case> theirs = cases(planted ? 1 : 0);
        List<Case> ours = cases(0);
        for (int at = 0; at < ours.size(); at++) {
            List<String> fromRinglog = ask(args[0], ours.get(at));
            List<String> fromKafka = ask(args[1], theirs.get(at));
            Case row = ours.get(at);
            TreeSet<String> once = new TreeSet<>(fromKafka);
            int oursWanted = row.answered == Answered.AS_OFTEN ? fromKafka.size() : once.size();
            boolean isSame = new TreeSet<>(fromRinglog).equals(once) && fromRinglog.size() == oursWanted
                && !once.isEmpty() && (fromKafka.size() == once.size()) == (row.answered == Answered.ONCE);
            checked++;
            if (!isSame) {
                failed++;
                System.out.printf("FAILED %s %s: ringlog %s, Kafka %s%n", planted ? "planted" : "repeated", row.name,
                    fromRinglog, fromKafka);
            }
        }
        System.out.printf("%d requests with repeated elements, %d answered otherwise%n", checked, failed);
        System.exit(failed == 0 ? 0 : 1);
    }

    private static void createTopic(String address) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", address))) {
            if (!admin.listTopics().names().get().contains(TOPIC)) {
                admin.createTopics(List.of(new NewTopic(TOPIC, 2, (short) 1))).all().get();
            }
            long deadline = System.nanoTime() + 30_000_000_000L;
            while (admin.describeTopics(List.of(TOPIC)).allTopicNames().get().get(TOPIC).partitions().stream()
                .anyMatch(partition -> partition.leader() == null)) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("no leader");
                }
            }
        }
    }

    /** With `more` one of them asks for something else. */
    private static List<Case> cases(int more) {
        List<Case> cases = new ArrayList<>();
        List<MetadataRequestData.MetadataRequestTopic> named = new ArrayList<>();
        for (String name : List.of(TOPIC, "no/name", "missing")) {
            named.addAll(times(() -> new MetadataRequestData.MetadataRequestTopic().setName(name)));
        }
        cases.add(new Case("names", ApiKeys.METADATA, 9,
            new MetadataRequestData().setTopics(named).setAllowAutoTopicCreation(false), Answered.ONCE));
        cases.add(new Case("partitions to fetch", ApiKeys.FETCH, 12, new FetchRequestData().setMaxBytes(1 << 20)
            .setTopics(times(() -> new FetchRequestData.FetchTopic().setTopic(TOPIC).setPartitions(times(
                () -> new FetchRequestData.FetchPartition().setPartition(0).setPartitionMaxBytes(1 << 20))))), Answered.ONCE));
        MemoryRecords records =
            MemoryRecords.withRecords(Compression.NONE, new SimpleRecord(System.currentTimeMillis(), "v".getBytes()));
        ProduceRequestData produce = new ProduceRequestData().setAcks((short) 1).setTimeoutMs(10_000);
        for (int at = 0; at < TIMES; at++) {
            ProduceRequestData.TopicProduceData topic = new ProduceRequestData.TopicProduceData().setName(TOPIC);
            // The last one is asked of a partition that is not there.
            for (int partition : new int[] {0, 1, 0, 7}) {
                topic.partitionData().add(
                    new ProduceRequestData.PartitionProduceData().setIndex(partition).setRecords(records));
            }
            produce.topicData().add(topic);
        }
        cases.add(new Case("batches", ApiKeys.PRODUCE, 9, produce, Answered.ONCE));
        for (int version : new int[] {0, 9}) {
            List<ListOffsetsRequestData.ListOffsetsTopic> topics = times(
                () -> new ListOffsetsRequestData.ListOffsetsTopic().setName(TOPIC).setPartitions(List.of(
                    new ListOffsetsRequestData.ListOffsetsPartition().setPartitionIndex(0).setTimestamp(-1))));
            topics.add(new ListOffsetsRequestData.ListOffsetsTopic().setName(TOPIC).setPartitions(List.of(
                new ListOffsetsRequestData.ListOffsetsPartition().setPartitionIndex(1).setTimestamp(-1))));
            cases.add(new Case("offsets, version " + version, ApiKeys.LIST_OFFSETS, version,
                new ListOffsetsRequestData().setReplicaId(-1).setTopics(topics),
                version == 0 ? Answered.ONCE_BY_RINGLOG : Answered.AS_OFTEN));
        }
        OffsetForLeaderEpochRequestData epochs = new OffsetForLeaderEpochRequestData();
        epochs.topics().add(new OffsetForLeaderEpochRequestData.OffsetForLeaderTopic().setTopic(TOPIC).setPartitions(
            times(() -> new OffsetForLeaderEpochRequestData.OffsetForLeaderPartition().setPartition(more)
                .setLeaderEpoch(0))));
        cases.add(new Case("epochs", ApiKeys.OFFSET_FOR_LEADER_EPOCH, 4, epochs, Answered.ONCE_BY_RINGLOG));
        cases.add(new Case("records to delete", ApiKeys.DELETE_RECORDS, 2, new DeleteRecordsRequestData()
            .setTimeoutMs(10_000).setTopics(times(() -> new DeleteRecordsRequestData.DeleteRecordsTopic()
                .setName(TOPIC).setPartitions(times(() -> new DeleteRecordsRequestData.DeleteRecordsPartition()
                    .setPartitionIndex(0).setOffset(0))))), Answered.ONCE));
        cases.add(new Case("producers", ApiKeys.DESCRIBE_PRODUCERS, 0, new DescribeProducersRequestData()
            .setTopics(List.of(new DescribeProducersRequestData.TopicRequest().setName(TOPIC)
                .setPartitionIndexes(Arrays.asList(0, 0, 0, 7, 7)))), Answered.ONCE_BY_RINGLOG));
        DescribeLogDirsRequestData logs =
            new DescribeLogDirsRequestData().setTopics(new DescribeLogDirsRequestData.DescribableLogDirTopicCollection());
        for (int at = 0; at < TIMES; at++) {
            logs.topics().add(new DescribeLogDirsRequestData.DescribableLogDirTopic().setTopic(TOPIC)
                .setPartitions(Arrays.asList(0, 0, 1)));
        }
        cases.add(new Case("logs", ApiKeys.DESCRIBE_LOG_DIRS, 4, logs, Answered.ONCE));
        CreateTopicsRequestData created = new CreateTopicsRequestData().setTimeoutMs(10_000);
        for (String name : new String[] {"twice", "twice", "twice", TOPIC}) {
            created.topics().add(new CreateTopicsRequestData.CreatableTopic().setName(name).setNumPartitions(1)
                .setReplicationFactor((short) 1));
        }
        cases.add(new Case("topics to create", ApiKeys.CREATE_TOPICS, 7, created, Answered.AS_OFTEN));
        cases.add(new Case("topics to delete", ApiKeys.DELETE_TOPICS, 5, new DeleteTopicsRequestData()
            .setTimeoutMs(10_000).setTopicNames(Arrays.asList("missing", "absent", "missing")), Answered.ONCE_BY_RINGLOG));
        CreatePartitionsRequestData grown = new CreatePartitionsRequestData().setTimeoutMs(10_000);
        for (String name : new String[] {TOPIC, TOPIC, TOPIC, "missing"}) {
            grown.topics().add(new CreatePartitionsRequestData.CreatePartitionsTopic().setName(name).setCount(4)
                .setAssignments(null));
        }
        cases.add(new Case("topics to grow", ApiKeys.CREATE_PARTITIONS, 3, grown, Answered.ONCE));
        cases.add(new Case("settings to describe", ApiKeys.DESCRIBE_CONFIGS, 4, new DescribeConfigsRequestData()
            .setResources(times(() -> new DescribeConfigsRequestData.DescribeConfigsResource()
                .setResourceType((byte) 2).setResourceName(TOPIC)
                .setConfigurationKeys(List.of("retention.ms", "retention.ms")))), Answered.ONCE_BY_RINGLOG));
        // AlterConfigs is left out: Kafka never answers one that names a resource twice.
        IncrementalAlterConfigsRequestData changed = new IncrementalAlterConfigsRequestData();
        for (int at = 0; at < TIMES; at++) {
            changed.resources().add(new IncrementalAlterConfigsRequestData.AlterConfigsResource()
                .setResourceType((byte) 2).setResourceName(TOPIC));
        }
        cases.add(new Case("settings to change", ApiKeys.INCREMENTAL_ALTER_CONFIGS, 1, changed, Answered.AS_OFTEN));
        return cases;
    }

    private static <T> List<T> times(java.util.function.Supplier<T> element) {
        return java.util.stream.Stream.generate(element).limit(TIMES).collect(Collectors.toList());
    }

    /** What is said of each element: its names, its error code, and offsets. */
    private static List<String> ask(String address, Case row) throws Exception {
        short version = (short) row.version;
        RequestHeader header = new RequestHeader(row.key, version, "repeated", 7);
        ByteBuffer request = RequestUtils.serialize(header.data(), header.headerVersion(), row.request, version);
        String[] parts = address.split(":");
        try (Socket socket = new Socket(parts[0], Integer.parseInt(parts[1]))) {
            socket.setSoTimeout(30_000);
            ByteBuffer framed = ByteBuffer.allocate(4 + request.remaining()).putInt(request.remaining()).put(request);
            socket.getOutputStream().write(framed.array());
            DataInputStream in = new DataInputStream(socket.getInputStream());
            byte[] answer = new byte[in.readInt()];
            in.readFully(answer);
            AbstractResponse response = AbstractResponse.parseResponse(ByteBuffer.wrap(answer), header);
            Class<?> type = response.data().getClass();
            JsonNode json = (JsonNode) Class.forName(type.getName() + "JsonConverter")
                .getMethod("write", type, short.class).invoke(null, response.data(), version);
            List<String> said = new ArrayList<>();
            collect(json, "", said);
            return said;
        }
    }

    /** An element is what has an error code, or lies where nothing in it has one; names of what it lies in come first. */
    private static void collect(JsonNode node, String names, List<String> said) {
        if (node.isArray()) {
            node.forEach(element -> collect(element, names, said));
            return;
        }
        if (!node.isObject()) {
            return;
        }
        StringBuilder own = new StringBuilder(names);
        for (String field : List.of("name", "topic", "resourceName", "partitionIndex", "partition", "index")) {
            if (node.hasNonNull(field)) {
                own.append(' ').append(node.get(field).asText());
            }
        }
        boolean isElement = node.has("partitionIndex") || node.has("partition") || node.has("index")
            || (!names.isEmpty() || own.length() > 0) && node.has("errorCode");
        if (isElement) {
            said.add(own + " error " + node.path("errorCode").asText("none") + " offset "
                + node.path("baseOffset").asText(node.path("offset").asText("-")));
            if (!node.has("partitions")) {
                return;
            }
        }
        node.forEach(field -> collect(field, own.toString(), said));
    }
}
