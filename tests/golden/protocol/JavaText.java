// Writes java-text.txt: bytes, and the text that Java makes of them, both in hexadecimal. See ../README.md.

import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.Random;

public class JavaText {
    /** Each of another kind to a decoder. */
    static final int[] BYTES = {0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xdf, 0xe0, 0xe1, 0xed, 0xef,
        0xf0, 0xf1, 0xf4, 0xf5, 0xff};

    public static void main(String[] arguments) {
        System.out.println("# Bytes, and the text that Java 17 makes of them (new String(bytes, UTF_8)), in hexadecimal.");
        for (int first : BYTES) {
            say(first);
            for (int second : BYTES) {
                say(first, second);
            }
        }
        Random random = new Random(1);
        for (int row = 0; row < 1500; row++) {
            int[] bytes = new int[3 + random.nextInt(6)];
            for (int at = 0; at < bytes.length; at++) {
                bytes[at] = BYTES[random.nextInt(BYTES.length)];
            }
            say(bytes);
        }
        // What is random seldom finds a surrogate, or a last byte that is missing.
        for (int second : BYTES) {
            for (int third : BYTES) {
                say(0xed, second, third);
                say(0xed, 0xa0, second, third);
                say(0xf0, second, third);
                say(0xf0, 0x90, second, third);
                say(0xf4, second, third, 0x80);
            }
        }
    }

    static void say(int... values) {
        byte[] bytes = new byte[values.length];
        for (int at = 0; at < values.length; at++) {
            bytes[at] = (byte) values[at];
        }
        byte[] text = new String(bytes, StandardCharsets.UTF_8).getBytes(StandardCharsets.UTF_8);
        System.out.println(HexFormat.of().formatHex(bytes) + "\t" + HexFormat.of().formatHex(text));
    }
}
