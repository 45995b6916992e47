// Writes down-conversion-3.9.0.txt: stored records, and what Kafka's own classes make of them for old fetches. See README.md.

import java.nio.ByteBuffer;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.CompressionType;
import org.apache.kafka.common.record.ControlRecordType;
import org.apache.kafka.common.record.EndTransactionMarker;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MemoryRecordsBuilder;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.utils.Time;

public class GoldenDownConversion {
    static final long[] FIRST_OFFSETS = {100, 102, 105};

    public static void main(String[] arguments) {
        System.out.println("# Kafka 3.9.0: what is stored, magic and first offset of the fetch, bytes before and after in hexadecimal.");
        for (byte stored : new byte[] {2, 1}) {
            for (CompressionType codec : CompressionType.values()) {
                if (codec == CompressionType.ZSTD) continue;
                for (TimestampType type : new TimestampType[] {TimestampType.CREATE_TIME, TimestampType.LOG_APPEND_TIME}) {
                    ByteBuffer buffer = ByteBuffer.allocate(1 << 16);
                    write(buffer, stored, codec, type, 100, false);
                    if (stored == 2) {
                        write(buffer, stored, codec, type, 103, true);
                        MemoryRecords.writeEndTransactionalMarker(buffer, 106, 1700000000000L, 3, 7L, (short) 0,
                            new EndTransactionMarker(ControlRecordType.COMMIT, 1));
                    }
                    write(buffer, stored, codec, type, 107, false);
                    buffer.flip();
                    for (byte magic = 0; magic < stored; magic++)
                        for (long first : FIRST_OFFSETS) print("magic-" + stored + "-" + codec.name + "-" + type.name, buffer, magic, first);
                }
            }
        }
    }

    static void write(ByteBuffer buffer, byte magic, CompressionType codec, TimestampType type, long base, boolean transactional) {
        long appended = type == TimestampType.LOG_APPEND_TIME ? 1700000005000L + base : -1L;
        long producer = transactional ? 7L : -1L;
        ByteBuffer own = ByteBuffer.allocate(1 << 14);
        MemoryRecordsBuilder builder = MemoryRecords.builder(own, magic, Compression.of(codec).build(), type, base, appended,
            producer, (short) (transactional ? 0 : -1), transactional ? 0 : -1, transactional, 3);
        Header[] headers = magic < 2 ? new Header[0] : new Header[] {new RecordHeader("lost", new byte[] {1, 2})};
        builder.append(1700000000000L + base, "key".getBytes(), "some value, some value".getBytes(), headers);
        builder.append(1700000009000L + base, null, new byte[0], headers);
        builder.append(1700000001000L + base, new byte[0], null, headers);
        buffer.put(builder.build().buffer());
    }

    static void print(String name, ByteBuffer stored, byte magic, long first) {
        MemoryRecords source = MemoryRecords.readableRecords(stored.duplicate());
        MemoryRecords converted = source.downConvert(magic, first, Time.SYSTEM).records();
        System.out.println(name + ' ' + magic + ' ' + first + ' ' + hex(stored.duplicate()) + ' ' + hex(converted.buffer()));
    }

    static String hex(ByteBuffer bytes) {
        StringBuilder line = new StringBuilder();
        while (bytes.hasRemaining()) line.append(String.format("%02x", bytes.get()));
        return line.toString();
    }
}
