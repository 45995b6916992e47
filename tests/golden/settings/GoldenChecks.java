// Writes what Kafka's own classes, or a running broker, say to settings. See README.md.

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigsOptions;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.protocol.Errors;

public class GoldenChecks {
    static final String TOPIC = "checked";

    public static void main(String[] arguments) throws Exception {
        List<String> cases = Files.readAllLines(Path.of(arguments[1]));
        switch (arguments[0]) {
            case "cases" -> probes().forEach(System.out::println);
            case "start" -> start(cases);
            case "alter" -> alter(cases, arguments[2]);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    /** A row's settings: its fields after the kind. */
    static Map<String, String> settings(String row) {
        Map<String, String> settings = new TreeMap<>();
        String[] fields = row.split("\t", -1);
        for (int at = 1; at < fields.length; at++) {
            int equals = fields[at].indexOf('=');
            settings.put(fields[at].substring(0, equals), fields[at].substring(equals + 1));
        }
        return settings;
    }

    static void say(String row, String verdict, String message) {
        String words = message == null ? "" : message.replaceAll("\\s+", " ").trim();
        System.out.println(row + "\t" + verdict + "\t" + words);
    }

    /** Values about the bounds of every setting's type. */
    static List<String> probes() throws Exception {
        List<String> rows = new ArrayList<>();
        Class<?> dynamic = Class.forName("kafka.server.DynamicBrokerConfig$");
        Object module = dynamic.getField("MODULE$").get(null);
        Map<?, ?> modes = (Map<?, ?>) dynamic.getMethod("dynamicConfigUpdateModes").invoke(module);
        ConfigDef broker = (ConfigDef) Class.forName("kafka.server.KafkaConfig").getMethod("configDef").invoke(null);
        ConfigDef topic = (ConfigDef) Class.forName("org.apache.kafka.storage.internals.log.LogConfig")
            .getMethod("configDefCopy").invoke(null);
        for (ConfigDef.ConfigKey key : new TreeMap<>(broker.configKeys()).values()) {
            for (String value : values(key)) {
                rows.add("start\t" + key.name + "=" + value);
                if (modes.containsKey(key.name)) {
                    rows.add("broker\t" + key.name + "=" + value);
                }
            }
            rows.add((modes.containsKey(key.name) ? "all\t" : "broker\t") + key.name + "=1");
        }
        for (ConfigDef.ConfigKey key : new TreeMap<>(topic.configKeys()).values()) {
            for (String value : values(key)) {
                rows.add("topic\t" + key.name + "=" + value);
            }
        }
        return rows;
    }

    static List<String> values(ConfigDef.ConfigKey key) {
        return switch (key.type) {
            case INT -> List.of("", "x", "-2", "-1", "0", "1", "2147483647", "2147483648");
            case SHORT -> List.of("", "x", "-1", "0", "1", "32768");
            case LONG -> List.of("", "x", "-2", "-1", "0", "1", "9223372036854775807", "9223372036854775808");
            case DOUBLE -> List.of("", "x", "-0.1", "0", "1", "1.1", "NaN");
            case BOOLEAN -> List.of("", "yes", "TRUE", "false");
            case STRING, LIST -> List.of("", "nonsense", ",");
            default -> List.of("");
        };
    }

    /** As the start of a broker in ZooKeeper mode looks at its file. */
    static void start(List<String> cases) throws Exception {
        Class<?> config = Class.forName("kafka.server.KafkaConfig");
        Class<?> log = Class.forName("org.apache.kafka.storage.internals.log.LogConfig");
        for (String row : cases) {
            if (!row.startsWith("start\t")) {
                continue;
            }
            Properties properties = new Properties();
            properties.setProperty("zookeeper.connect", "localhost:2181");
            settings(row).forEach(properties::setProperty);
            try {
                Object read = config.getMethod("fromProps", Properties.class, boolean.class)
                    .invoke(null, properties, false);
                // Kafka 3.9 LogManager.apply.
                Map<?, ?> defaults = (Map<?, ?>) config.getMethod("extractLogConfigMap").invoke(read);
                log.getMethod("validateBrokerLogConfigValues", Map.class, boolean.class).invoke(null, defaults, false);
                log.getConstructor(Map.class).newInstance(defaults);
                say(row, "taken", "");
            } catch (ReflectiveOperationException refused) {
                say(row, "refused", refused.getCause().getMessage());
            }
        }
    }

    /** Asks a running broker, which is to change nothing. */
    static void alter(List<String> cases, String address) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", address))) {
            admin.createTopics(List.of(new NewTopic(TOPIC, 1, (short) 1))).all().get();
            String broker = admin.describeCluster().nodes().get().iterator().next().idString();
            for (String row : cases) {
                ConfigResource resource = switch (row.split("\t")[0]) {
                    case "broker" -> new ConfigResource(ConfigResource.Type.BROKER, broker);
                    case "all" -> new ConfigResource(ConfigResource.Type.BROKER, "");
                    case "topic" -> new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
                    default -> null;
                };
                if (resource == null) {
                    continue;
                }
                List<AlterConfigOp> operations = new ArrayList<>();
                settings(row).forEach((name, value) -> operations.add(
                    new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET)));
                try {
                    admin.incrementalAlterConfigs(Map.of(resource, operations),
                        new AlterConfigsOptions().validateOnly(true)).all().get();
                    say(row, "NONE", "");
                } catch (ExecutionException refused) {
                    say(row, Errors.forException(refused.getCause()).name(), refused.getCause().getMessage());
                }
            }
        }
    }
}
