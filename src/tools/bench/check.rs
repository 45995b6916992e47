//! Whether what is read is what was written: checksums of batches and values, order, loss and repetition.

#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::payload::{Damage, Stamp};
use crate::record::batch::{BatchHeader, has_valid_crc};

/// Sources whose order is followed: a source is one client of one run in one partition. Records of further ones count as
/// foreign.
const SOURCES_MAX: usize = 1 << 20;
/// Findings described in words; all are counted.
const EXAMPLES_MAX: usize = 10;

/// What was looked at, and what was wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub batches: u64,
    pub records: u64,
    /// Records of somebody else, which say nothing of themselves: only their batches are checked.
    pub foreign: u64,
    pub damaged_batches: u64,
    pub damaged_records: u64,
    pub lost: u64,
    pub repeated: u64,
    pub examples: Vec<String>,
}

impl Findings {
    pub fn is_sound(&self) -> bool {
        self.damaged_batches + self.damaged_records + self.lost + self.repeated == 0
    }

    fn note(&mut self, example: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }

    pub fn add(&mut self, other: Findings) {
        self.batches += other.batches;
        self.records += other.records;
        self.foreign += other.foreign;
        self.damaged_batches += other.damaged_batches;
        self.damaged_records += other.damaged_records;
        self.lost += other.lost;
        self.repeated += other.repeated;
        other.examples.into_iter().for_each(|example| self.note(|| example));
    }
}

/// Who wrote a record: partition, run, client.
type Source = (i32, u32, u32);

/// Follows what one consumer reads.
#[derive(Debug)]
pub struct Checker {
    /// The run whose sources are seen from their first record on.
    from_first: Option<u32>,
    next: HashMap<Source, u64>,
    pub findings: Findings,
}

impl Checker {
    pub fn new(from_first: Option<u32>) -> Checker {
        Checker { from_first, next: HashMap::new(), findings: Findings::default() }
    }

    /// Looks at a whole batch's checksum; false: its records are not to be looked at.
    pub fn batch(&mut self, partition: i32, header: &BatchHeader, batch: &[u8]) -> bool {
        self.findings.batches += 1;
        let sound = has_valid_crc(batch);
        if !sound {
            self.findings.damaged_batches += 1;
            let offset = header.base_offset;
            self.findings.note(|| format!("partition {partition}, offset {offset}: the batch's checksum is wrong"));
        }
        sound
    }

    /// A batch whose records can't be read.
    pub fn unreadable(&mut self, partition: i32, offset: i64, error: &str) {
        self.findings.damaged_batches += 1;
        self.findings.note(|| format!("partition {partition}, offset {offset}: {error}"));
    }

    /// Looks at one record's value, given what its stamp says.
    pub fn record(&mut self, partition: i32, offset: i64, stamp: Result<Stamp, Damage>) {
        self.findings.records += 1;
        let stamp = match stamp {
            Ok(stamp) => stamp,
            Err(Damage::Foreign) => {
                self.findings.foreign += 1;
                return;
            }
            Err(Damage::Checksum) => {
                self.findings.damaged_records += 1;
                self.findings.note(|| format!("partition {partition}, offset {offset}: the value's checksum is wrong"));
                return;
            }
        };
        let source = (partition, stamp.run, stamp.client);
        let first = if self.from_first == Some(stamp.run) { 0 } else { stamp.sequence };
        if self.next.len() >= SOURCES_MAX && !self.next.contains_key(&source) {
            self.findings.foreign += 1;
            return;
        }
        let next = self.next.entry(source).or_insert(first);
        let expected = *next;
        if stamp.sequence < expected {
            self.findings.repeated += 1;
            self.findings.note(|| {
                let Stamp { client, sequence, .. } = stamp;
                format!("partition {partition}, offset {offset}: record {sequence} of client {client} comes again")
            });
            return;
        }
        *next = stamp.sequence + 1;
        if stamp.sequence > expected {
            self.findings.lost += stamp.sequence - expected;
            self.findings.note(|| {
                let (client, last) = (stamp.client, stamp.sequence - 1);
                format!("partition {partition}, before offset {offset}: records {expected} to {last} of client {client} are missing")
            });
        }
    }

    /// Begins anew: what comes next is the beginning of the log again.
    pub fn rewind(&mut self, partition: i32) {
        self.next.retain(|(of, _, _), _| *of != partition);
    }

    /// At the end of a run: `client` has `count` acknowledged records in `partition`, all of which must have come.
    pub fn expect(&mut self, partition: i32, run: u32, client: u32, count: u64) {
        let seen = self.next.get(&(partition, run, client)).copied().unwrap_or(0);
        if seen < count {
            self.findings.lost += count - seen;
            self.findings.note(|| {
                format!("partition {partition}: of client {client} {seen} records have come, {count} are acknowledged")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::payload::{Author, Keys, Payload, Shape, Values};
    use crate::record::batch::{BATCH_HEADER_BYTES, set_create_time, walk_records};
    use crate::record::compression::{Codec, Compression};

    const RUN: u32 = 9;

    fn batch(count: u64) -> Vec<u8> {
        let shape = Shape {
            values: Values::Filler,
            record_bytes: 50,
            batch_bytes: 4000,
            keys: Keys::None,
            compression: Compression::of(Codec::None),
            compressible: 1.0,
            stamped: true,
        };
        Payload::new(shape, Author { run: RUN, client: 1, ..Author::default() }, 1)
            .batch(0, count, |_| 5)
            .bytes
            .to_vec()
    }

    /// Looks at a batch as a consumer does.
    fn look(checker: &mut Checker, batch: &[u8]) {
        let header = BatchHeader::parse(batch).expect("a header");
        if checker.batch(0, &header, batch) {
            let walked =
                walk_records::<crate::record::batch::BatchError>(&header, &batch[BATCH_HEADER_BYTES..], |record| {
                    let stamp = Stamp::read(record.value.unwrap_or_default(), true);
                    checker.record(0, i64::from(record.offset_delta), stamp);
                    Ok(())
                });
            walked.expect("sound records");
        }
    }

    fn stamp(sequence: u64) -> Result<Stamp, Damage> {
        Ok(Stamp { run: RUN, client: 1, sequence, due_ns: 0 })
    }

    #[test]
    fn what_was_written_is_sound() {
        let mut checker = Checker::new(Some(RUN));
        look(&mut checker, &batch(10));
        checker.expect(0, RUN, 1, 10);
        assert!(checker.findings.is_sound() && checker.findings.records == 10, "{:?}", checker.findings);
    }

    #[test]
    fn a_planted_corruption_is_caught_by_the_batch_and_behind_it_by_the_value() {
        let mut damaged = batch(3);
        let last = damaged.len() - 5;
        damaged[last] ^= 1;
        let mut checker = Checker::new(Some(RUN));
        look(&mut checker, &damaged);
        assert_eq!((checker.findings.damaged_batches, checker.findings.records), (1, 0));
        // As if the broker had damaged the value and then made a checksum of its own.
        set_create_time(&mut damaged, 0);
        look(&mut checker, &damaged);
        assert_eq!((checker.findings.damaged_batches, checker.findings.damaged_records), (1, 1));
        assert!(checker.findings.examples[1].contains("offset 2: the value's checksum"), "{:?}", checker.findings);
    }

    #[test]
    fn loss_and_repetition_are_counted_record_by_record() {
        let mut checker = Checker::new(Some(RUN));
        for sequence in [2, 3, 3, 1, 6] {
            checker.record(0, 0, stamp(sequence));
        }
        let Findings { lost, repeated, .. } = checker.findings;
        assert_eq!((lost, repeated), (4, 2), "0, 1, 4 and 5 were not there in time");
        checker.expect(0, RUN, 1, 10);
        assert_eq!((checker.findings.lost, checker.findings.is_sound()), (7, false));
        let mut other = Checker::new(None);
        other.record(0, 0, stamp(5));
        other.record(0, 0, stamp(6));
        other.rewind(0);
        other.record(0, 0, stamp(5));
        other.record(0, 0, Err(Damage::Foreign));
        assert!(other.findings.is_sound() && other.findings.foreign == 1, "{:?}", other.findings);
    }
}
