"""The libraries of PyPI: what each wrote is read back by all of them, record by record; administration; what must fail.

Usage: check.py HOST:PORT HOST:PORT [planted]. The second broker creates no topics by itself. With `planted` two wrong
expectations are to be caught instead. Consumers are assigned partitions; groups do not exist yet.
"""

import sys

import cases
import with_aiokafka
import with_confluent
import with_python

LIBRARIES = [with_confluent, with_python, with_aiokafka]


def main():
    bootstrap, strict = sys.argv[1:3]
    if sys.argv[3:] == ["planted"]:
        with_confluent.plant(bootstrap)
    else:
        topics = [topic for library in LIBRARIES for topic in library.write(bootstrap)]
        for library in LIBRARIES:
            read = library.consume(bootstrap, topics)
            for topic in topics:
                with cases.case(f"{library.NAME} reads {topic}"):
                    cases.same_records(read[topic], cases.expected(topic), topic)
        for library in LIBRARIES:
            library.administer(bootstrap)
            library.strict(strict)
    print(f"pypi: {len(cases.passed)} checks passed, {len(cases.failed)} failed")
    sys.exit(bool(cases.failed))


main()
