import java.io.IOException;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.server.ServerCnxnFactory;
import org.apache.zookeeper.server.ZooKeeperServer;

/**
 * A ZooKeeper on a free port, with what Kafka 3.9 needs to know of a log directory that ringlog wrote: cluster id,
 * topics with their ids, and who led which partition in which epoch; or as it was left. Says its port and runs until it
 * is killed.
 * Usage: Zoo ZOOKEEPER_DIRECTORY LOG_DIRECTORY
 */
public class Zoo {
    static final int TICK_MS = 500;
    static final int DEADLINE_S = 20;

    final ZooKeeper client;
    final Path logs;
    final Properties meta = new Properties();

    Zoo(ZooKeeper client, Path logs) throws IOException {
        this.client = client;
        this.logs = logs;
        try (InputStream in = Files.newInputStream(logs.resolve("meta.properties"))) {
            meta.load(in);
        }
    }

    public static void main(String[] arguments) throws Exception {
        Path directory = Path.of(arguments[0]);
        ZooKeeperServer server = new ZooKeeperServer(directory.toFile(), directory.toFile(), TICK_MS);
        ServerCnxnFactory factory = ServerCnxnFactory.createFactory(new InetSocketAddress("127.0.0.1", 0), 100);
        factory.startup(server);
        String address = "127.0.0.1:" + factory.getLocalPort();
        CountDownLatch connected = new CountDownLatch(1);
        ZooKeeper client = new ZooKeeper(address, 10_000, event -> {
            if (event.getState() == Watcher.Event.KeeperState.SyncConnected) {
                connected.countDown();
            }
        });
        if (!connected.await(DEADLINE_S, TimeUnit.SECONDS)) {
            throw new IllegalStateException("no session");
        }
        if (client.exists("/cluster", false) == null) {
            new Zoo(client, Path.of(arguments[1])).fill();
        }
        client.close();
        System.out.println("zookeeper " + address);
        new CountDownLatch(1).await();
    }

    void fill() throws Exception {
        create("/cluster", "");
        create("/cluster/id", "{\"version\":\"1\",\"id\":\"" + meta.getProperty("cluster.id") + "\"}");
        create("/brokers", "");
        create("/brokers/topics", "");
        for (Map.Entry<String, TreeSet<Integer>> topic : topics().entrySet()) {
            fillTopic(topic.getKey(), topic.getValue());
        }
    }

    void fillTopic(String topic, TreeSet<Integer> partitions) throws Exception {
        String broker = meta.getProperty("broker.id");
        List<String> assignment = new ArrayList<>();
        partitions.forEach(number -> assignment.add("\"" + number + "\":[" + broker + "]"));
        String path = "/brokers/topics/" + topic;
        create(path, "{\"version\":3,\"topic_id\":\"" + topicId(topic) + "\",\"partitions\":{"
            + String.join(",", assignment) + "},\"adding_replicas\":{},\"removing_replicas\":{}}");
        create(path + "/partitions", "");
        for (int number : partitions) {
            create(path + "/partitions/" + number, "");
            create(path + "/partitions/" + number + "/state", "{\"version\":1,\"leader\":" + broker
                + ",\"leader_epoch\":" + leaderEpoch(topic + "-" + number)
                + ",\"controller_epoch\":0,\"isr\":[" + broker + "]}");
        }
    }

    TreeMap<String, TreeSet<Integer>> topics() throws IOException {
        TreeMap<String, TreeSet<Integer>> topics = new TreeMap<>();
        try (var entries = Files.list(logs)) {
            for (Path entry : entries.filter(Files::isDirectory).toList()) {
                String name = entry.getFileName().toString();
                int dash = name.lastIndexOf('-');
                int number = Integer.parseInt(name.substring(dash + 1));
                topics.computeIfAbsent(name.substring(0, dash), topic -> new TreeSet<>()).add(number);
            }
        }
        return topics;
    }

    String topicId(String topic) throws IOException {
        String metadata = Files.readString(logs.resolve(topic + "-0").resolve("partition.metadata"));
        return metadata.substring(metadata.indexOf("topic_id: ") + "topic_id: ".length()).trim();
    }

    /** The newest one in the partition's checkpoint. */
    int leaderEpoch(String partition) throws IOException {
        List<String> lines = Files.readAllLines(logs.resolve(partition).resolve("leader-epoch-checkpoint"));
        return Integer.parseInt(lines.get(lines.size() - 1).split(" ")[0]);
    }

    void create(String path, String data) throws Exception {
        byte[] bytes = data.getBytes(StandardCharsets.UTF_8);
        client.create(path, bytes, ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
    }
}
