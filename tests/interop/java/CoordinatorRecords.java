import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.internals.ConsumerProtocol;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.ConsumerProtocolAssignment;
import org.apache.kafka.common.message.ConsumerProtocolSubscription;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MemoryRecordsBuilder;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.coordinator.group.generated.GroupMetadataKey;
import org.apache.kafka.coordinator.group.generated.GroupMetadataValue;
import org.apache.kafka.coordinator.group.generated.GroupMetadataValue.MemberMetadata;
import org.apache.kafka.coordinator.group.generated.OffsetCommitKey;
import org.apache.kafka.coordinator.group.generated.OffsetCommitValue;
import org.apache.kafka.coordinator.transaction.generated.TransactionLogKey;
import org.apache.kafka.coordinator.transaction.generated.TransactionLogValue;
import org.apache.kafka.coordinator.transaction.generated.TransactionLogValue.PartitionsSchema;

/**
 * Writes segments as those of __consumer_offsets and __transaction_state, with records in every version that Kafka's own
 * classes have, and damaged ones: what a dump of them has to show without failing.
 */
public final class CoordinatorRecords {
    static final int BATCH_RECORDS = 50;
    static final String[] TEXTS = {"g", "", "a \"quoted\"\\ /name", "\u0001\u001f\b\f\n\r\t\u007f", "gr\u00fc\u00dfe \ud83e\udd80"};

    static final Random random = new Random(39);
    static final List<byte[][]> records = new ArrayList<>();

    public static void main(String[] arguments) throws Exception {
        Path directory = Path.of(arguments[0]);
        offsets();
        groups();
        damaged();
        write(directory.resolve("offsets"));
        transactions();
        write(directory.resolve("transactions"));
    }

    static byte[] bytes(int version, Message message) {
        return MessageUtil.toVersionPrefixedBytes((short) version, message);
    }

    static byte[] withVersion(int version, byte[] message) {
        byte[] changed = message.clone();
        ByteBuffer.wrap(changed).putShort((short) version);
        return changed;
    }

    static void add(byte[] key, byte[] value) {
        records.add(new byte[][] {key, value});
    }

    static byte[] offsetKey(int version, String group) {
        return bytes(version, new OffsetCommitKey().setGroup(group).setTopic("topic." + group).setPartition(random.nextInt()));
    }

    static byte[] offsetValue(int version, String metadata) {
        OffsetCommitValue value = new OffsetCommitValue().setOffset(random.nextLong()).setMetadata(metadata)
            .setLeaderEpoch(random.nextInt(100) - 1).setCommitTimestamp(random.nextLong());
        if (version == 1) value.setExpireTimestamp(random.nextLong());
        return bytes(version, value);
    }

    static void offsets() {
        for (String text : TEXTS) {
            for (int version = 0; version <= 4; version++) add(offsetKey(version % 2, text), offsetValue(version, text));
            add(offsetKey(1, text), null);
        }
        for (int version : new int[] {5, 32767, -1}) {
            add(offsetKey(1, "beyond"), withVersion(version, offsetValue(version < 0 ? 0 : 4, "beyond")));
        }
        for (int type : new int[] {9, 32767, -1}) add(withVersion(type, offsetKey(1, "beyond")), offsetValue(3, ""));
    }

    static byte[] groupKey(String group) {
        return bytes(2, new GroupMetadataKey().setGroup(group));
    }

    static byte[] subscription(int version) {
        ConsumerProtocolSubscription message = new ConsumerProtocolSubscription().setTopics(List.of("t", "\u00fc"))
            .setUserData(version % 2 == 0 ? null : ByteBuffer.wrap(new byte[] {-1, 0, 62}));
        if (version > 0) {
            message.ownedPartitions().add(new ConsumerProtocolSubscription.TopicPartition().setTopic("t").setPartitions(List.of(0, 2)));
            message.ownedPartitions().add(new ConsumerProtocolSubscription.TopicPartition().setTopic("t").setPartitions(List.of()));
        }
        if (version > 1) message.setGenerationId(7);
        if (version > 2) message.setRackId("rack");
        return bytes(version, message);
    }

    static byte[] assignment(int version) {
        ConsumerProtocolAssignment message = new ConsumerProtocolAssignment();
        message.assignedPartitions().add(new ConsumerProtocolAssignment.TopicPartition().setTopic("t").setPartitions(List.of(1, 0)));
        return bytes(version, message.setUserData(version == 1 ? ByteBuffer.allocate(0) : null));
    }

    static MemberMetadata member(int version, byte[] subscription, byte[] assignment) {
        MemberMetadata member = new MemberMetadata().setMemberId("consumer-1-\u00fc").setClientId("consumer-1").setClientHost("/127.0.0.1")
            .setSessionTimeout(45000).setSubscription(subscription).setAssignment(assignment);
        if (version > 0) member.setRebalanceTimeout(300000);
        return version > 2 ? member.setGroupInstanceId("instance") : member;
    }

    static byte[] groupValue(int version, String type, MemberMetadata... members) {
        GroupMetadataValue value = new GroupMetadataValue().setProtocolType(type).setGeneration(members.length)
            .setProtocol(members.length == 0 ? null : "range").setLeader(members.length == 0 ? null : "consumer-1").setMembers(List.of(members));
        return bytes(version, version > 1 ? value.setCurrentStateTimestamp(1700000000000L) : value);
    }

    static byte[] groupValue(int version) {
        return groupValue(version, ConsumerProtocol.PROTOCOL_TYPE, member(version, subscription(3), assignment(3)),
            member(version, subscription(0), new byte[0]));
    }

    static void groups() {
        for (int version = 0; version <= 4; version++) {
            add(groupKey("empty"), groupValue(version, ""));
            for (int protocol = 0; protocol <= 3; protocol++) {
                MemberMetadata member = member(version, subscription(protocol), assignment(protocol));
                add(groupKey("consumers"), groupValue(version, ConsumerProtocol.PROTOCOL_TYPE, member, member));
            }
            // Of other clients, and such as Kafka can't read: those of versions to come, if partitions are in them.
            byte[][] odd = {new byte[0], {0}, {0, 3, 0}, withVersion(4, subscription(0)), withVersion(4, subscription(3)),
                withVersion(-1, subscription(0)), withVersion(9, assignment(3))};
            for (byte[] bytes : odd) {
                add(groupKey("odd"), groupValue(version, ConsumerProtocol.PROTOCOL_TYPE, member(version, bytes, bytes)));
            }
            add(groupKey("workers"), groupValue(version, "connect", member(version, subscription(1), new byte[] {-5, -1})));
        }
        add(groupKey("gone"), null);
        for (int version : new int[] {5, -1}) add(groupKey("beyond"), withVersion(version, groupValue(version < 0 ? 0 : 4)));
    }

    static byte[] cut(byte[] bytes, int length) {
        return java.util.Arrays.copyOf(bytes, length);
    }

    /** Cut at every byte, and with counts and lengths that are too large or below zero. */
    static void damaged() {
        byte[] offsetKey = offsetKey(1, "cut"), groupKey = groupKey("cut");
        for (int length = 0; length < offsetKey.length; length++) add(cut(offsetKey, length), offsetValue(3, ""));
        for (int length = 0; length < groupKey.length; length++) add(cut(groupKey, length), null);
        for (int version = 0; version <= 4; version++) {
            byte[] offset = offsetValue(version, "metadata"), group = groupValue(version), empty = groupValue(version, "");
            for (int length = 0; length < offset.length; length++) add(offsetKey, cut(offset, length));
            // In the midst of members; elsewhere a group without them.
            for (int length = group.length * 2 / 3; length < group.length; length++) add(groupKey, cut(group, length));
            for (int length = 0; length < empty.length; length++) add(groupKey, cut(empty, length));
            for (int count : new int[] {-1, -2, 1, Integer.MAX_VALUE}) {
                byte[] changed = empty.clone();
                if (version < 4) ByteBuffer.wrap(changed).putInt(changed.length - 4, count);
                add(groupKey, changed);
            }
            byte[] changed = empty.clone();
            changed[2] = -1;
            add(groupKey, changed);
        }
    }

    static void transactions() {
        for (int version = 0; version <= 1; version++) {
            for (int state = 0; state < 8; state++) {
                for (String text : TEXTS) add(transactionKey(text), transactionValue(version, state, state == 0 ? 0 : 2, 3));
            }
            // Kafka prints partitions in the order of their hashes.
            for (int partitions = 1; partitions < 70; partitions += 1 + partitions / 4) {
                add(transactionKey("many"), transactionValue(version, 1, 1 + random.nextInt(12), partitions));
            }
            add(transactionKey("one each"), transactionValue(version, 1, 60, 1));
        }
        add(transactionKey("gone"), null);
        for (int type : new int[] {1, -1}) add(withVersion(type, transactionKey("beyond")), transactionValue(0, 0, 0, 0));
    }

    static byte[] transactionKey(String id) {
        return bytes(0, new TransactionLogKey().setTransactionalId(id));
    }

    static byte[] transactionValue(int version, int state, int topics, int partitions) {
        List<PartitionsSchema> all = IntStream.range(0, topics).mapToObj(topic -> new PartitionsSchema().setTopic("topic-" + topic * 7919)
            .setPartitionIds(random.ints(partitions, 0, 200).distinct().boxed().collect(Collectors.toList()))).collect(Collectors.toList());
        return bytes(version, new TransactionLogValue().setProducerId(random.nextLong()).setProducerEpoch((short) random.nextInt())
            .setTransactionTimeoutMs(60000).setTransactionStatus((byte) state).setTransactionPartitions(topics == 0 ? null : all)
            .setTransactionLastUpdateTimestampMs(random.nextLong()).setTransactionStartTimestampMs(random.nextLong()));
    }

    static void write(Path directory) throws Exception {
        Files.createDirectories(directory);
        ByteBuffer segment = ByteBuffer.allocate(1 << 20);
        for (int first = 0; first < records.size(); first += BATCH_RECORDS) {
            MemoryRecordsBuilder batch = MemoryRecords.builder(ByteBuffer.allocate(1 << 19), Compression.gzip().build(), TimestampType.CREATE_TIME, first);
            for (byte[][] record : records.subList(first, Math.min(first + BATCH_RECORDS, records.size()))) {
                batch.append(1700000000000L, record[0], record[1]);
            }
            segment.put(batch.build().buffer());
        }
        Files.write(directory.resolve("00000000000000000000.log"), cut(segment.array(), segment.position()));
        records.clear();
    }
}
