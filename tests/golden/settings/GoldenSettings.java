// Writes kafka-3.9.1.txt: the settings that Kafka's own classes define. See README.md.

import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.config.ConfigDef.ConfigKey;

public class GoldenSettings {
    public static void main(String[] arguments) throws Exception {
        System.out.println("# Settings as Kafka 3.9.1 defines them: kind, name, type, default, update mode, internal.");
        Class<?> dynamic = Class.forName("kafka.server.DynamicBrokerConfig$");
        Object module = dynamic.getField("MODULE$").get(null);
        Map<?, ?> modes = (Map<?, ?>) dynamic.getMethod("dynamicConfigUpdateModes").invoke(module);
        Object broker = Class.forName("kafka.server.KafkaConfig").getMethod("configDef").invoke(null);
        Class<?> log = Class.forName("org.apache.kafka.storage.internals.log.LogConfig");
        write("broker", (ConfigDef) broker, modes);
        write("topic", (ConfigDef) log.getMethod("configDefCopy").invoke(null), Map.of());
    }

    static void write(String kind, ConfigDef definition, Map<?, ?> modes) {
        for (ConfigKey key : new TreeMap<>(definition.configKeys()).values()) {
            Object value = key.hasDefault() ? key.defaultValue : null;
            String text = value == null ? "null" : "'" + ConfigDef.convertToString(value, key.type) + "'";
            Object mode = modes.containsKey(key.name) ? modes.get(key.name) : "-";
            System.out.println(String.join("\t", kind, key.name, key.type.toString(), text, mode.toString(),
                    key.internalConfig ? "internal" : "-"));
        }
    }
}
