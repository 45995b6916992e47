import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.zip.CRC32;
import java.util.zip.Deflater;
import java.util.zip.GZIPOutputStream;
import com.github.luben.zstd.Zstd;
import com.github.luben.zstd.ZstdOutputStreamNoFinalizer;
import net.jpountz.lz4.LZ4Factory;
import net.jpountz.lz4.LZ4FrameOutputStream;
import net.jpountz.lz4.LZ4FrameOutputStream.BLOCKSIZE;
import net.jpountz.lz4.LZ4FrameOutputStream.FLG.Bits;
import net.jpountz.xxhash.XXHashFactory;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.ProduceRequestData;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.record.CompressionType;
import org.apache.kafka.common.record.DefaultRecordBatch;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MemoryRecordsBuilder;
import org.apache.kafka.common.record.MutableRecordBatch;
import org.apache.kafka.common.record.Record;
import org.apache.kafka.common.record.RecordBatch;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.requests.AbstractResponse;
import org.apache.kafka.common.requests.ProduceRequest;
import org.apache.kafka.common.requests.ProduceResponse;
import org.apache.kafka.common.requests.RequestHeader;
import org.apache.kafka.common.utils.BufferSupplier;
import org.apache.kafka.common.utils.CloseableIterator;
import org.xerial.snappy.Snappy;

/**
 * Frames of every codec, sound, unusual and damaged, made by the libraries that Kafka's clients use and by hand, and what
 * Kafka makes of each as the records of a produced batch.
 * Usage: CodecTable make > TABLE        name, codec, records, frame, then what Kafka's classes read of it
 *        CodecTable produce TABLE HOST:PORT       sends each as a batch, and prints name and error code
 */
public class CodecTable {
    static final String TOPIC = "codecs";
    static final long TIMESTAMP = 1_700_000_000_000L;
    static final int PRODUCE_VERSION = 9;
    static final int SMALL_RECORDS = 3;
    static final int LARGE_RECORDS = 4;
    /** With that of its record over one LZ4 block of 64 KiB, over one xerial block, and short when compressed. */
    static final int LARGE_VALUE_BYTES = 20_000;
    static final byte[] SMALL = records(SMALL_RECORDS, 30);
    static final byte[] LARGE = records(LARGE_RECORDS, LARGE_VALUE_BYTES);
    /** A record, and the next one of its batch. */
    static final byte[] FIRST = records(1, 30);
    static final byte[] SECOND = Arrays.copyOfRange(records(2, 30), FIRST.length, records(2, 30).length);
    static final HexFormat HEX = HexFormat.of();

    interface Writing {
        void to(OutputStream out) throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("make")) {
            System.out.println("# name, codec, records, frame in hexadecimal, and what Kafka 3.9.1"
                + " reads: length and SHA-256 of the data, or that it refuses");
            lz4();
            zstd();
            gzip();
            snappy();
        } else {
            produce(Path.of(arguments[1]), arguments[2]);
        }
    }

    // The rows.

    static void lz4() throws Exception {
        CompressionType lz4 = CompressionType.LZ4;
        Compression kafka = Compression.lz4().build();
        both(lz4, "kafka", data -> written(kafka, data));
        row(lz4, "no bytes", SMALL_RECORDS, new byte[0]);
        row(lz4, "empty frame", SMALL_RECORDS, written(kafka, new byte[0]));
        for (BLOCKSIZE size : BLOCKSIZE.values()) {
            both(lz4, "java " + size, data -> javaFrame(data, size, -1, Bits.BLOCK_INDEPENDENCE));
        }
        both(lz4, "java block checksums",
            data -> javaFrame(data, BLOCKSIZE.SIZE_64KB, -1, Bits.BLOCK_INDEPENDENCE, Bits.BLOCK_CHECKSUM));
        both(lz4, "java content checksum",
            data -> javaFrame(data, BLOCKSIZE.SIZE_64KB, -1, Bits.BLOCK_INDEPENDENCE, Bits.CONTENT_CHECKSUM));
        both(lz4, "java content size",
            data -> javaFrame(data, BLOCKSIZE.SIZE_64KB, data.length, Bits.BLOCK_INDEPENDENCE, Bits.CONTENT_SIZE));
        both(lz4, "java everything", data -> javaFrame(data, BLOCKSIZE.SIZE_256KB, data.length, Bits.BLOCK_INDEPENDENCE,
            Bits.CONTENT_SIZE, Bits.BLOCK_CHECKSUM, Bits.CONTENT_CHECKSUM));

        byte[] block = lz4Block(SMALL);
        byte[] end = le(0);
        small(lz4, "stored block", cat(lz4Header(0x60, 0x70), le(SMALL.length | 1 << 31), SMALL, end));
        small(lz4, "linked flag", cat(lz4Header(0x40, 0x40), le(block.length), block, end));
        small(lz4, "linked blocks", linkedBlocks());
        small(lz4, "version 0", cat(lz4Header(0x20, 0x40), le(block.length), block, end));
        small(lz4, "version 2", cat(lz4Header(0xa0, 0x40), le(block.length), block, end));
        small(lz4, "reserved flag", cat(lz4Header(0x62, 0x40), le(block.length), block, end));
        small(lz4, "dictionary id", cat(lz4Header(0x61, 0x40, le(7)), le(block.length), block, end));
        small(lz4, "wrong header checksum", flipped(cat(lz4Header(0x60, 0x40), le(block.length), block, end), 6));
        for (int sizes : new int[] {0x00, 0x30, 0x41, 0x48, 0xc0}) {
            small(lz4, "block size byte " + sizes, cat(lz4Header(0x60, sizes), le(block.length), block, end));
        }
        small(lz4, "wrong content size", cat(lz4Header(0x68, 0x40, le(1), le(0)), le(block.length), block, end));
        small(lz4, "content size of petabytes", cat(lz4Header(0x68, 0x40, le(1), le(1 << 30)), le(block.length), block, end));
        byte[] sum = le(xxh32(block));
        small(lz4, "block checksum", cat(lz4Header(0x70, 0x40), le(block.length), block, sum, end));
        small(lz4, "wrong block checksum", cat(lz4Header(0x70, 0x40), le(block.length), block, flipped(sum, 0), end));
        small(lz4, "block checksum cut", cat(lz4Header(0x70, 0x40), le(block.length), block, new byte[2]));
        byte[] stored = cat(le(SMALL.length | 1 << 31), SMALL);
        small(lz4, "stored block with checksum", cat(lz4Header(0x70, 0x40), stored, le(xxh32(SMALL)), end));
        byte[] summed = cat(lz4Header(0x64, 0x40), le(block.length), block, end);
        small(lz4, "content checksum", cat(summed, le(xxh32(SMALL))));
        small(lz4, "wrong content checksum", cat(summed, le(~xxh32(SMALL))));
        small(lz4, "content checksum missing", summed);
        small(lz4, "content checksum cut", cat(summed, new byte[3]));

        byte[] whole = cat(lz4Header(0x60, 0x40), le(block.length), block, end);
        small(lz4, "whole", whole);
        small(lz4, "no end mark", cut(whole, 4));
        small(lz4, "half an end mark", cut(whole, 2));
        small(lz4, "cut in its block", cut(whole, 10));
        small(lz4, "cut in its block's length", Arrays.copyOf(whole, 9));
        small(lz4, "header alone", Arrays.copyOf(whole, 7));
        for (int length = 1; length < 7; length++) {
            small(lz4, "header of " + length + " bytes", Arrays.copyOf(whole, length));
        }
        small(lz4, "bytes behind it", cat(whole, "garbage".getBytes()));
        byte[] twice = cat(written(kafka, FIRST), written(kafka, SECOND));
        row(lz4, "two frames, the records of both", 2, twice);
        row(lz4, "two frames, the records of the first", 1, twice);
        byte[] skippable = cat(le(0x184d2a50), le(4), new byte[4]);
        small(lz4, "skippable frame before", cat(skippable, whole));
        small(lz4, "skippable frame behind", cat(whole, skippable));
        small(lz4, "legacy frame", cat(le(0x184c2102), le(block.length), block));
        small(lz4, "legacy frame with an end", cat(le(0x184c2102), le(block.length), block, end));
        // At the beginning it depends on how the stream is read whether Kafka takes it.
        small(lz4, "a block of nothing instead of the end", cat(lz4Header(0x60, 0x40), le(block.length), block, le(1), new byte[1]));
        small(lz4, "a block of nothing, then another", cat(lz4Header(0x60, 0x40), le(block.length), block, le(1), new byte[1], stored, end));
        small(lz4, "a stored block of nothing", cat(lz4Header(0x60, 0x40), le(block.length), block, le(1 << 31), end));
        small(lz4, "a stored block of nothing instead of the end", cat(lz4Header(0x60, 0x40), le(block.length), block, le(1 << 31)));
        small(lz4, "a stored block over the block size", cat(lz4Header(0x60, 0x40), le(65537 | 1 << 31), new byte[100]));
        byte[] over = lz4Block(LARGE);
        row(lz4, "a block that becomes more than the block size", LARGE_RECORDS, cat(lz4Header(0x60, 0x40), le(over.length), over, end));
        row(lz4, "a block of 256 KiB", LARGE_RECORDS, cat(lz4Header(0x60, 0x50), le(over.length), over, end));
        small(lz4, "a block cut in a match", cat(lz4Header(0x60, 0x40), le(block.length - 3), cut(block, 3), end));
        // Four literals, then a match of four bytes before the beginning.
        small(lz4, "a match before the beginning", cat(lz4Header(0x60, 0x40), le(8), new byte[] {0x40, 1, 2, 3, 4, 9, 0, 0}, end));
        small(lz4, "a block that ends with a match", cat(lz4Header(0x60, 0x40), le(7), new byte[] {0x40, 1, 2, 3, 4, 4, 0}, end));
    }

    static void zstd() throws Exception {
        CompressionType zstd = CompressionType.ZSTD;
        both(zstd, "kafka", data -> written(Compression.zstd().build(), data));
        row(zstd, "no bytes", SMALL_RECORDS, new byte[0]);
        both(zstd, "one call, with content size", Zstd::compress);
        both(zstd, "level 22", data -> Zstd.compress(data, 22));
        both(zstd, "level -5", data -> Zstd.compress(data, -5));
        both(zstd, "checksum", data -> zstdStream(data, 0, true));
        both(zstd, "window of 128 MiB", data -> zstdStream(data, 27, false));
        both(zstd, "window of 256 MiB", data -> zstdWindow(data, 28));
        both(zstd, "window of 2 GiB", data -> zstdWindow(data, 31));
        byte[] whole = zstdStream(SMALL, 0, true);
        small(zstd, "wrong checksum", flipped(whole, whole.length - 1));
        small(zstd, "damaged", flipped(whole, whole.length / 2));
        for (int bytes : new int[] {1, 4, 5, 20}) {
            small(zstd, "cut by " + bytes, cut(whole, bytes));
        }
        byte[] large = Zstd.compress(LARGE);
        row(zstd, "large, cut by 1", LARGE_RECORDS, cut(large, 1));
        row(zstd, "large, cut in half", LARGE_RECORDS, cut(large, large.length / 2));
        byte[] unsized = zstdStream(LARGE, 0, false);
        row(zstd, "no end block", LARGE_RECORDS, zstdFlushed(LARGE));
        row(zstd, "large, unsized, cut by 1", LARGE_RECORDS, cut(unsized, 1));
        for (int length : new int[] {1, 3, 4, 5, 6}) {
            small(zstd, "header of " + length + " bytes", Arrays.copyOf(whole, length));
        }
        byte[] frame = Zstd.compress(FIRST);
        byte[] behind = Zstd.compress(SECOND);
        row(zstd, "two frames, the records of both", 2, cat(frame, behind));
        row(zstd, "two frames, the records of the first", 1, cat(frame, behind));
        row(zstd, "two frames, the second cut by 1", 2, cat(frame, cut(behind, 1)));
        row(zstd, "two frames, the second cut to its head", 1, cat(frame, Arrays.copyOf(frame, 6)));
        row(zstd, "two frames, the second cut to its magic", 1, cat(frame, Arrays.copyOf(frame, 4)));
        row(zstd, "two frames, the second cut to two bytes", 1, cat(frame, Arrays.copyOf(frame, 2)));
        byte[] empty = Zstd.compress(new byte[0]);
        row(zstd, "empty frame", 1, empty);
        row(zstd, "empty frames around", 1, cat(empty, frame, empty));
        byte[] skippable = cat(le(0x184d2a5f), le(4), new byte[4]);
        row(zstd, "skippable frame alone", 1, skippable);
        row(zstd, "skippable frames around", 1, cat(skippable, frame, skippable));
        row(zstd, "skippable frame cut", 1, cat(frame, cut(skippable, 1)));
        row(zstd, "garbage behind", 1, cat(frame, "garbage".getBytes()));
        row(zstd, "zeros behind", 1, cat(frame, new byte[8]));
        row(zstd, "a zero behind", 1, cat(frame, new byte[1]));
        row(zstd, "garbage alone", 1, "garbage garbage".getBytes());
        // Single segment, a dictionary's id of one byte, a content size of one byte; an empty raw block, the last.
        row(zstd, "dictionary id", 1, cat(frame, le(0xfd2fb528), new byte[] {0x21, 7, 0, 1, 0, 0}));
        row(zstd, "reserved bit", 1, cat(frame, le(0xfd2fb528), new byte[] {0x28, 0, 1, 0, 0}));
        row(zstd, "reserved block type", 1, cat(frame, le(0xfd2fb528), new byte[] {0x20, 0, 7, 0, 0}));
        row(zstd, "content size too large", SMALL_RECORDS, zstdRaw(SMALL, SMALL.length + 1));
        row(zstd, "content size too small", SMALL_RECORDS, zstdRaw(SMALL, SMALL.length - 1));
        row(zstd, "raw block", SMALL_RECORDS, zstdRaw(SMALL, SMALL.length));
    }

    static void gzip() throws Exception {
        CompressionType gzip = CompressionType.GZIP;
        both(gzip, "kafka", data -> written(Compression.gzip().build(), data));
        row(gzip, "no bytes", SMALL_RECORDS, new byte[0]);
        row(gzip, "empty member", SMALL_RECORDS, gzipMember(new byte[0], 0, 9, new byte[0]));
        both(gzip, "stored", data -> gzipMember(data, 0, 0, new byte[0]));
        both(gzip, "java", CodecTable::javaGzip);
        byte[] whole = gzipMember(SMALL, 0, 9, new byte[0]);
        small(gzip, "extra field", gzipMember(SMALL, 4, 9, new byte[] {3, 0, 'a', 'b', 'c'}));
        small(gzip, "extra field of nothing", gzipMember(SMALL, 4, 9, new byte[2]));
        small(gzip, "extra field cut", Arrays.copyOf(gzipMember(SMALL, 4, 9, new byte[] {3, 0, 'a', 'b', 'c'}), 13));
        small(gzip, "name", gzipMember(SMALL, 8, 9, "name\0".getBytes()));
        small(gzip, "name without end", Arrays.copyOf(gzipMember(SMALL, 8, 9, "name\0".getBytes()), 14));
        small(gzip, "name and comment", gzipMember(SMALL, 24, 9, "name\0comment\0".getBytes()));
        byte[] extra = {1, 0, 'x'};
        byte[] named = cat(extra, "name\0comment\0".getBytes());
        small(gzip, "text and all of it", gzipMember(SMALL, 29, 9, named));
        small(gzip, "header checksum", gzipMember(SMALL, 30, 9, named));
        small(gzip, "wrong header checksum", flipped(gzipMember(SMALL, 2, 9, new byte[0]), 10));
        for (int flag : new int[] {32, 64, 128}) {
            small(gzip, "reserved flag " + flag, gzipMember(SMALL, flag, 9, new byte[0]));
        }
        small(gzip, "another method", set(whole, 2, 7));
        small(gzip, "wrong magic", set(whole, 1, 0x8c));
        small(gzip, "wrong crc", flipped(whole, whole.length - 8));
        small(gzip, "wrong length", flipped(whole, whole.length - 1));
        small(gzip, "damaged", set(whole, 10, 7));
        for (int bytes : new int[] {1, 4, 8, 9, 20}) {
            small(gzip, "cut by " + bytes, cut(whole, bytes));
        }
        byte[] large = javaGzip(LARGE);
        row(gzip, "large, cut by 9", LARGE_RECORDS, cut(large, 9));
        row(gzip, "large, cut in half", LARGE_RECORDS, cut(large, large.length / 2));
        for (int length : new int[] {1, 2, 3, 9, 10, 11}) {
            small(gzip, "header of " + length + " bytes", Arrays.copyOf(whole, length));
        }
        byte[] member = javaGzip(FIRST);
        byte[] behind = javaGzip(SECOND);
        row(gzip, "two members, the records of both", 2, cat(member, behind));
        row(gzip, "two members, the records of the first", 1, cat(member, behind));
        row(gzip, "three members, one of them empty", 2, cat(member, gzipMember(new byte[0], 0, 9, new byte[0]), behind));
        row(gzip, "second member cut by 1", 2, cat(member, cut(behind, 1)));
        row(gzip, "second member cut, the records of the first", 1, cat(member, cut(member, 1)));
        row(gzip, "second member cut to 18 bytes", 1, cat(member, Arrays.copyOf(member, 18)));
        row(gzip, "second member cut to 19 bytes", 1, cat(member, Arrays.copyOf(member, 19)));
        row(gzip, "second member cut to its header", 1, cat(member, Arrays.copyOf(member, 10)));
        row(gzip, "second member of another method", 1, cat(member, set(member, 2, 7)));
        row(gzip, "second member's header checksum wrong", 1, cat(member, flipped(gzipMember(SMALL, 2, 9, new byte[0]), 10)));
        row(gzip, "second member damaged", 2, cat(member, set(behind, 10, 7)));
        row(gzip, "second member's crc wrong", 2, cat(member, flipped(behind, behind.length - 8)));
        for (int zeros : new int[] {1, 8, 18, 19, 100}) {
            row(gzip, zeros + " zeros behind", 1, cat(member, new byte[zeros]));
        }
        row(gzip, "garbage behind", 1, cat(member, "garbage".getBytes()));
        row(gzip, "more garbage behind", 1, cat(member, "garbage garbage garbage garbage".getBytes()));
        row(gzip, "zeros, then another member", 1, cat(member, new byte[4], member));
        row(gzip, "zlib instead", SMALL_RECORDS, deflated(SMALL, 9, false));
    }

    static void snappy() throws Exception {
        CompressionType snappy = CompressionType.SNAPPY;
        Compression kafka = Compression.snappy().build();
        both(snappy, "kafka", data -> written(kafka, data));
        both(snappy, "raw", Snappy::compress);
        row(snappy, "no bytes", SMALL_RECORDS, new byte[0]);
        row(snappy, "raw, of nothing", SMALL_RECORDS, Snappy.compress(new byte[0]));
        byte[] whole = written(kafka, SMALL);
        byte[] header = Arrays.copyOf(whole, 16);
        byte[] raw = Snappy.compress(SMALL);
        row(snappy, "header alone", SMALL_RECORDS, header);
        for (int length : new int[] {1, 8, 15}) {
            small(snappy, "header of " + length + " bytes", Arrays.copyOf(whole, length));
        }
        small(snappy, "version 2", cat(set(header, 11, 2), be(raw.length), raw));
        small(snappy, "readable by version 2 on", cat(set(header, 15, 2), be(raw.length), raw));
        small(snappy, "version 0", cat(set(header, 11, 0), be(raw.length), raw));
        small(snappy, "wrong magic", cat(set(header, 1, 's'), be(raw.length), raw));
        small(snappy, "cut by 1", cut(whole, 1));
        small(snappy, "cut in half", cut(whole, whole.length / 2 - 10));
        small(snappy, "cut in a length", Arrays.copyOf(whole, 18));
        for (int bytes = 1; bytes <= 4; bytes++) {
            small(snappy, bytes + " zeros behind", cat(whole, new byte[bytes]));
        }
        small(snappy, "garbage behind", cat(whole, "garbage".getBytes()));
        small(snappy, "three bytes behind", cat(whole, "xyz".getBytes()));
        small(snappy, "a length too large", cat(header, be(raw.length + 1), raw));
        small(snappy, "a length too small", cat(header, be(raw.length - 1), raw));
        small(snappy, "a length of nothing", cat(header, be(0), be(raw.length), raw));
        small(snappy, "a negative length", cat(header, be(-1), raw));
        small(snappy, "a length of 1 GiB", cat(header, be(1 << 30), raw));
        small(snappy, "a block of nothing", cat(header, be(1), new byte[1], be(raw.length), raw));
        small(snappy, "damaged", flipped(whole, 24));
        byte[] stream = written(kafka, FIRST);
        byte[] behind = written(kafka, SECOND);
        row(snappy, "two streams, the records of both", 2, cat(stream, behind));
        row(snappy, "two streams, the records of the first", 1, cat(stream, behind));
        row(snappy, "two streams, the second's header cut", 1, cat(stream, Arrays.copyOf(header, 9)));
        row(snappy, "two streams, the second's header alone", 1, cat(stream, header));
        row(snappy, "two streams, the second's header twice", 2, cat(stream, header, behind));
        row(snappy, "two streams, the second of version 0", 1, cat(stream, set(behind, 11, 0)));
        row(snappy, "two streams, the second of version 0, the records of both", 2, cat(stream, set(behind, 11, 0)));
        row(snappy, "two streams, the second readable by version 2 on", 2, cat(stream, set(behind, 15, 2)));
        row(snappy, "two streams, the second of a wrong magic", 1, cat(stream, set(behind, 5, 'x')));
        row(snappy, "two streams, the second of a wrong magic, the records of both", 2, cat(stream, set(behind, 5, 'x')));
        small(snappy, "raw, cut by 1", cut(raw, 1));
        small(snappy, "raw, bytes behind", cat(raw, new byte[3]));
        small(snappy, "raw, that says too much", set(raw, 0, raw[0] + 1));
        small(snappy, "raw, that says 512 MiB", new byte[] {(byte) 0x80, (byte) 0x80, (byte) 0x80, (byte) 0x80, 2, 0, 'x'});
        row(snappy, "a block of nothing alone", SMALL_RECORDS, cat(header, be(1), new byte[1]));
    }

    interface Compressing {
        byte[] of(byte[] data) throws Exception;
    }

    static void both(CompressionType codec, String name, Compressing compressing) throws Exception {
        row(codec, name, SMALL_RECORDS, compressing.of(SMALL));
        row(codec, name + ", large", LARGE_RECORDS, compressing.of(LARGE));
    }

    static void small(CompressionType codec, String name, byte[] frame) throws Exception {
        row(codec, name, SMALL_RECORDS, frame);
    }

    static void row(CompressionType codec, String name, int records, byte[] frame) throws Exception {
        String outcome = walked(codec, records, frame) ? read(codec, frame) : "refused";
        System.out.println(String.join("\t", codec.name + ": " + name, codec.name, "" + records, HEX.formatHex(frame), outcome));
    }

    /** Whether the leader of a partition takes the frame, in place and when it writes it anew: the same of both. */
    static boolean walked(CompressionType codec, int records, byte[] frame) {
        boolean[] taken = new boolean[2];
        for (int way = 0; way < 2; way++) {
            MutableRecordBatch batch = batch(codec, records, frame).batches().iterator().next();
            try (CloseableIterator<Record> iterator = way == 0
                ? batch.skipKeyValueIterator(BufferSupplier.NO_CACHING)
                : batch.streamingIterator(BufferSupplier.NO_CACHING)) {
                while (iterator.hasNext()) {
                    iterator.next();
                }
                taken[way] = true;
            } catch (Throwable refused) {
                // snappy-java throws errors, too.
            }
        }
        if (taken[0] != taken[1]) {
            throw new IllegalStateException("Kafka is of two minds");
        }
        return taken[0];
    }

    static String read(CompressionType codec, byte[] frame) throws Exception {
        MutableRecordBatch batch = batch(codec, 1, frame).batches().iterator().next();
        try (InputStream in = ((DefaultRecordBatch) batch).recordInputStream(BufferSupplier.NO_CACHING)) {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            for (int next = in.read(); next != -1; next = in.read()) {
                out.write(next);
            }
            return out.size() + " " + HEX.formatHex(MessageDigest.getInstance("SHA-256").digest(out.toByteArray()));
        }
    }

    // How frames are made.

    static byte[] records(int count, int valueBytes) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(count * (valueBytes + 100) + 100),
            Compression.NONE, TimestampType.CREATE_TIME, 0);
        for (int at = 0; at < count; at++) {
            byte[] value = new byte[valueBytes];
            for (int place = 0; place < valueBytes; place++) {
                value[place] = (byte) ('a' + (place / 7 + place % 7 * at) % 23);
            }
            builder.append(TIMESTAMP + at, ("key " + at).getBytes(), value);
        }
        ByteBuffer batch = builder.build().buffer();
        batch.position(DefaultRecordBatch.RECORD_BATCH_OVERHEAD);
        byte[] body = new byte[batch.remaining()];
        batch.get(body);
        return body;
    }

    static MemoryRecords batch(CompressionType codec, int records, byte[] frame) {
        int bytes = DefaultRecordBatch.RECORD_BATCH_OVERHEAD + frame.length;
        ByteBuffer buffer = ByteBuffer.allocate(bytes);
        buffer.position(DefaultRecordBatch.RECORD_BATCH_OVERHEAD);
        buffer.put(frame);
        buffer.position(0);
        DefaultRecordBatch.writeHeader(buffer, 0, records - 1, bytes, RecordBatch.MAGIC_VALUE_V2, codec,
            TimestampType.CREATE_TIME, TIMESTAMP, TIMESTAMP + records - 1, RecordBatch.NO_PRODUCER_ID,
            RecordBatch.NO_PRODUCER_EPOCH, RecordBatch.NO_SEQUENCE, false, false, false, -1, records);
        buffer.position(0);
        return MemoryRecords.readableRecords(buffer);
    }

    static byte[] written(Compression compression, byte[] data) throws Exception {
        org.apache.kafka.common.utils.ByteBufferOutputStream buffer =
            new org.apache.kafka.common.utils.ByteBufferOutputStream(64);
        try (OutputStream out = compression.wrapForOutput(buffer, RecordBatch.MAGIC_VALUE_V2)) {
            out.write(data);
        }
        ByteBuffer written = buffer.buffer().duplicate();
        written.flip();
        byte[] frame = new byte[written.remaining()];
        written.get(frame);
        return frame;
    }

    static byte[] caught(Writing writing) throws Exception {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        writing.to(out);
        return out.toByteArray();
    }

    static byte[] javaFrame(byte[] data, BLOCKSIZE size, long contentBytes, Bits... bits) throws Exception {
        return caught(to -> {
            try (OutputStream out = contentBytes < 0
                ? new LZ4FrameOutputStream(to, size, bits)
                : new LZ4FrameOutputStream(to, size, contentBytes, bits)) {
                out.write(data);
            }
        });
    }

    static byte[] lz4Block(byte[] data) {
        return LZ4Factory.safeInstance().fastCompressor().compress(data);
    }

    static byte[] lz4Header(int flags, int sizes, byte[]... fields) {
        byte[] descriptor = cat(new byte[] {(byte) flags, (byte) sizes}, cat(fields));
        return cat(le(0x184d2204), descriptor, new byte[] {(byte) (xxh32(descriptor) >> 8)});
    }

    /** The second block is a match in the first, and five literals. */
    static byte[] linkedBlocks() {
        int half = SMALL.length - 20;
        byte[] first = Arrays.copyOf(SMALL, half);
        byte[] rest = Arrays.copyOfRange(SMALL, half, SMALL.length);
        byte[] second = cat(new byte[] {0, 1, 0, 0x50}, Arrays.copyOf(rest, 5));
        return cat(lz4Header(0x40, 0x40), le(half | 1 << 31), first, le(second.length), second, le(0));
    }

    static int xxh32(byte[] data) {
        return XXHashFactory.safeInstance().hash32().hash(data, 0, data.length, 0);
    }

    static byte[] zstdStream(byte[] data, int windowLog, boolean checksum) throws Exception {
        return caught(to -> {
            try (ZstdOutputStreamNoFinalizer out = new ZstdOutputStreamNoFinalizer(to)) {
                out.setChecksum(checksum);
                if (windowLog > 0) {
                    out.setLong(windowLog);
                }
                out.write(data);
            }
        });
    }

    /** Everything is there but the end. */
    static byte[] zstdFlushed(byte[] data) throws Exception {
        ByteArrayOutputStream caught = new ByteArrayOutputStream();
        try (ZstdOutputStreamNoFinalizer out = new ZstdOutputStreamNoFinalizer(caught)) {
            out.write(data);
            out.flush();
            return caught.toByteArray();
        }
    }

    /** A window that the data does not need, in the header alone. */
    static byte[] zstdWindow(byte[] data, int log) throws Exception {
        byte[] frame = zstdStream(data, 0, false);
        if (frame[4] != 0) {
            throw new IllegalStateException("not a window and nothing else");
        }
        return set(frame, 5, log - 10 << 3);
    }

    /** One segment of raw bytes, with a content size of four bytes. */
    static byte[] zstdRaw(byte[] data, int contentBytes) {
        byte[] block = le(data.length << 3 | 1);
        return cat(le(0xfd2fb528), new byte[] {(byte) 0xa0}, le(contentBytes), Arrays.copyOf(block, 3), data);
    }

    static byte[] javaGzip(byte[] data) throws Exception {
        return caught(to -> {
            try (OutputStream out = new GZIPOutputStream(to)) {
                out.write(data);
            }
        });
    }

    static byte[] gzipMember(byte[] data, int flags, int level, byte[] fields) {
        byte[] header = cat(new byte[] {0x1f, (byte) 0x8b, 8, (byte) flags, 0, 0, 0, 0, 0, 3}, fields);
        if ((flags & 2) != 0) {
            header = cat(header, Arrays.copyOf(le((int) crc32(header)), 2));
        }
        return cat(header, deflated(data, level, true), le((int) crc32(data)), le(data.length));
    }

    static long crc32(byte[] data) {
        CRC32 sum = new CRC32();
        sum.update(data);
        return sum.getValue();
    }

    static byte[] deflated(byte[] data, int level, boolean raw) {
        Deflater deflater = new Deflater(level, raw);
        deflater.setInput(data);
        deflater.finish();
        byte[] out = new byte[data.length + 100];
        return Arrays.copyOf(out, deflater.deflate(out));
    }

    static byte[] cat(byte[]... parts) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        for (byte[] part : parts) {
            out.writeBytes(part);
        }
        return out.toByteArray();
    }

    static byte[] cut(byte[] bytes, int count) {
        return Arrays.copyOf(bytes, bytes.length - count);
    }

    static byte[] set(byte[] bytes, int place, int value) {
        byte[] changed = bytes.clone();
        changed[place] = (byte) value;
        return changed;
    }

    static byte[] flipped(byte[] bytes, int place) {
        return set(bytes, place, ~bytes[place]);
    }

    static byte[] le(int value) {
        return ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN).putInt(value).array();
    }

    static byte[] be(int value) {
        return ByteBuffer.allocate(4).putInt(value).array();
    }

    // The same to a broker.

    /** Behind each frame goes a sound batch of the same codec, by the same connection: it has to be taken. */
    static void produce(Path table, String broker) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", broker);
        try (Admin admin = Admin.create(settings)) {
            // Where keys have to be there, every broker looks into each batch.
            NewTopic topic = new NewTopic(TOPIC, 1, (short) 1).configs(Map.of("cleanup.policy", "compact"));
            admin.createTopics(List.of(topic)).all().get();
        }
        String[] address = broker.split(":");
        try (Socket socket = new Socket(address[0], Integer.parseInt(address[1]))) {
            int correlation = 0;
            for (String line : Files.readAllLines(table)) {
                if (line.startsWith("#")) {
                    continue;
                }
                String[] fields = line.split("\t");
                CompressionType codec = CompressionType.forName(fields[1]);
                MemoryRecords batch = batch(codec, Integer.parseInt(fields[2]), HEX.parseHex(fields[3]));
                System.out.println(fields[0] + ": " + sent(socket, correlation++, batch));
                byte[] sound = written(Compression.of(codec).build(), SMALL);
                short after = sent(socket, correlation++, batch(codec, SMALL_RECORDS, sound));
                if (after != 0) {
                    System.out.println("a sound batch behind it: " + after);
                }
            }
        }
    }

    static short sent(Socket socket, int correlation, MemoryRecords batch) throws Exception {
        ProduceRequestData data = new ProduceRequestData().setAcks((short) 1).setTimeoutMs(10_000);
        ProduceRequestData.PartitionProduceData partition =
            new ProduceRequestData.PartitionProduceData().setIndex(0).setRecords(batch);
        data.topicData().add(new ProduceRequestData.TopicProduceData().setName(TOPIC).setPartitionData(List.of(partition)));
        short version = PRODUCE_VERSION;
        RequestHeader header = new RequestHeader(ApiKeys.PRODUCE, version, "codecs", correlation);
        ByteBuffer request = new ProduceRequest.Builder(version, version, data).build(version).serializeWithHeader(header);
        DataOutputStream out = new DataOutputStream(socket.getOutputStream());
        out.writeInt(request.remaining());
        out.write(request.array(), request.arrayOffset() + request.position(), request.remaining());
        DataInputStream in = new DataInputStream(socket.getInputStream());
        byte[] answer = new byte[in.readInt()];
        in.readFully(answer);
        ProduceResponse response = (ProduceResponse) AbstractResponse.parseResponse(ByteBuffer.wrap(answer), header);
        return response.data().responses().iterator().next().partitionResponses().get(0).errorCode();
    }
}
