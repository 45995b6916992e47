// Writes kafka-3.9.0.txt: message bodies as Kafka's own generated classes write them. See README.md.

import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.errors.UnsupportedVersionException;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.record.BaseRecords;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.utils.ImplicitLinkedHashCollection;

public class GoldenMessages {
    static final short[] API_KEYS = {
        0, 1, 2, 3, 4, 5, 6, 10, 17, 18, 19, 20, 21, 22, 23, 24, 26, 32, 33, 35, 36, 37, 44, 60, 61};
    static final int WRITE_SLACK_BYTES = 100;
    static int counter = 0;

    public static void main(String[] arguments) throws Exception {
        System.out.println("# Bodies as kafka-clients 3.9.0 writes them: message, version, content, bytes in hexadecimal.");
        for (short key : API_KEYS) {
            ApiMessageType type = ApiMessageType.fromApiKey(key);
            for (boolean isRequest : new boolean[] {true, false}) {
                for (short version = 0; version <= type.highestSupportedVersion(true); version++) {
                    print("default", isRequest ? type.newRequest() : type.newResponse(), version);
                    Message message = isRequest ? type.newRequest() : type.newResponse();
                    counter = key * 10 + version;
                    fill(message, version);
                    print("filled", message, version);
                }
            }
        }
    }

    static void print(String content, Message message, short version) {
        StringBuilder line = new StringBuilder(message.getClass().getSimpleName().replace("Data", ""));
        line.append(' ').append(version).append(' ').append(content).append(' ');
        ByteBuffer bytes = MessageUtil.toByteBuffer(message, version);
        while (bytes.hasRemaining()) line.append(String.format("%02x", bytes.get()));
        System.out.println(line);
    }

    /** Sets each field that this version can carry to a value of its own; arrays get two elements. */
    static void fill(Message message, short version) throws Exception {
        for (Field field : message.getClass().getDeclaredFields()) {
            boolean isLink = field.getName().equals("next") || field.getName().equals("prev");
            if (Modifier.isStatic(field.getModifiers()) || field.getName().equals("_unknownTaggedFields") || isLink) continue;
            field.setAccessible(true);
            Object unset = field.get(message);
            field.set(message, value(field.getGenericType(), version));
            if (!canBeWritten(message, version)) field.set(message, unset);
        }
    }

    static boolean canBeWritten(Message message, short version) {
        try {
            ObjectSerializationCache cache = new ObjectSerializationCache();
            ByteBuffer bytes = ByteBuffer.allocate(message.size(cache, version) + WRITE_SLACK_BYTES);
            message.write(new ByteBufferAccessor(bytes), cache, version);
            return true;
        } catch (UnsupportedVersionException | NullPointerException refused) {
            return false;
        }
    }

    static Object value(Type type, short version) throws Exception {
        int number = ++counter;
        if (type == boolean.class) return true;
        if (type == byte.class) return (byte) (number % 100 + 1);
        if (type == short.class) return (short) (number + 300);
        if (type == int.class || type == Integer.class) return number + 70_000;
        if (type == long.class || type == Long.class) return number + 5_000_000_000L;
        if (type == String.class) return "text-" + number;
        if (type == byte[].class) return ("bytes-" + number).getBytes();
        if (type == Uuid.class) return new Uuid(number + 0x1122334455667788L, number);
        if (type == BaseRecords.class) return MemoryRecords.readableRecords(ByteBuffer.wrap(("records-" + number).getBytes()));
        if (type instanceof ParameterizedType) {
            Type element = ((ParameterizedType) type).getActualTypeArguments()[0];
            return new ArrayList<>(List.of(value(element, version), value(element, version)));
        }
        Object made = ((Class<?>) type).getDeclaredConstructor().newInstance();
        if (made instanceof ImplicitLinkedHashCollection) {
            addTwo((ImplicitLinkedHashCollection<?>) made, version);
        } else {
            fill((Message) made, version);
        }
        return made;
    }

    @SuppressWarnings("unchecked")
    static <E extends ImplicitLinkedHashCollection.Element> void addTwo(ImplicitLinkedHashCollection<E> made, short version)
            throws Exception {
        Type element = ((ParameterizedType) made.getClass().getGenericSuperclass()).getActualTypeArguments()[0];
        made.add((E) value(element, version));
        made.add((E) value(element, version));
    }
}
