"""What the programs for the three libraries share: the records that they write, and the count of what held."""

import contextlib
import time
import traceback

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
RECORDS = 60
FIRST_TIMESTAMP = 1_700_000_000_000
DEADLINE_S = 30

passed, failed = [], []


@contextlib.contextmanager
def case(name):
    """One thing that is to hold; a failure is told and counted, and the others go on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 # whatever a library raises is that case's failure
        failed.append(name)
        print(f"FAILED {name}: {type(error).__name__}: {str(error)[:400]}")
        print(traceback.format_exc().splitlines()[-3].strip())
    else:
        passed.append(name)


def same(found, wanted, what="found"):
    assert found == wanted, f"{what}: {str(found)[:200]} instead of {str(wanted)[:200]}"


@contextlib.contextmanager
def fails(*kinds):
    """The block must raise one of these; `kind` of what is given holds it."""
    try:
        yield
    except kinds:
        return
    raise AssertionError(f"nothing failed; {kinds} was to come")


def records(topic):
    """(key, value, timestamp, headers) of each record.

    Each repeats itself: librdkafka sends a batch as it is, even one of a single record, if compression gains nothing.
    """
    for number in range(RECORDS):
        key = None if number % 7 == 0 else f"key-{number % 5} ".encode() * 20
        value = None if number % 11 == 0 and key else f"{topic} {number} ".encode() * (20 + number)
        headers = [("number", str(number).encode()), ("empty", b"")] if number % 2 else []
        yield key, value, FIRST_TIMESTAMP + number, headers


def expected(topic):
    """The same with their offsets, as they are to be read."""
    return [(offset, *record) for offset, record in enumerate(records(topic))]


def same_records(found, wanted, topic):
    differing = next((pair for pair in zip(wanted, found, strict=False) if pair[0] != pair[1]), None)
    assert found == wanted, f"{topic}: {len(found)} records of {len(wanted)}, first other {differing}"


def collect(topics, poll):
    """topic -> what `poll` gives, as (topic, record) pairs, until each has all or time is up."""
    read = {topic: [] for topic in topics}
    deadline = time.monotonic() + DEADLINE_S
    while any(len(found) < RECORDS for found in read.values()) and time.monotonic() < deadline:
        for topic, record in poll():
            read[topic].append(record)
    return read
