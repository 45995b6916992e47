"""Holds every batch of the topics named client.codec.mode to the compression that the name says.

A record that comes back proves nothing about compression: the broker's answers decide silently whether a client
compresses at all, so the bits are read from the log files. Usage: check_codecs.py DATA_DIRECTORY TOPICS_EXPECTED [planted]

With `planted` the last topic is held to another codec than its own, which must fail.
"""

import pathlib
import struct
import sys

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
# base offset i64, length i32 of what follows the length itself; magic at 16; attributes at 21, the codec its low 3 bits.
PREFIX = 12
ATTRIBUTES = 21
CODEC_MASK = 0b111


def batch_codecs(data):
    """The codec of each batch, in order."""
    position = 0
    while position + ATTRIBUTES + 2 <= len(data):
        (length,) = struct.unpack_from(">i", data, position + 8)
        assert data[position + 16] == 2, f"magic {data[position + 16]} at {position}"
        (attributes,) = struct.unpack_from(">h", data, position + ATTRIBUTES)
        yield CODECS[attributes & CODEC_MASK]
        position += PREFIX + length
    assert position == len(data), f"a torn batch at {position}"


def main():
    directory, expected = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    topics = sorted(path for path in directory.glob("*.*.*-0") if path.is_dir())
    planted = topics[-1] if sys.argv[3:] == ["planted"] else None
    assert len(topics) == expected, f"{len(topics)} topics instead of {expected}"
    for topic in topics:
        codec = topic.name.split(".")[1]
        if topic == planted:
            codec = CODECS[CODECS.index(codec) - 1]
        codecs = [found for log in sorted(topic.glob("*.log")) for found in batch_codecs(log.read_bytes())]
        assert codecs and set(codecs) == {codec}, f"{topic.name}: batches of {codecs}"
    print(f"{len(topics)} topics hold their codec's batches")


main()
