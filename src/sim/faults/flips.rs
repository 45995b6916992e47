//! Bits that flip where nobody wrote: whatever is served is what was appended, or says that it is not.

use super::*;

/// What a start and all reads make of one flipped bit.
#[derive(Debug, Default)]
struct Seen {
    refused: usize,
    /// Offsets served as they were appended.
    whole: usize,
    /// Offsets whose batch fails its checksum: whoever fetches it sees that.
    marked: usize,
    /// Offsets that are not there, whose read is an error, or where a later batch is served, which says so itself.
    missing: usize,
}

impl Seen {
    /// Starts on a disk with a flipped bit and reads every offset.
    fn look(&mut self, disk: &FakeDisk, bench: &Bench, what: &str) {
        let started = Directory::start(disk, &config(), [(bench.tp.clone(), bench.log.topic_id)]);
        let Ok(mut directory) = started else {
            self.refused += 1;
            return;
        };
        for offset in 0..bench.log.end_offset() {
            let Ok(Read::Range { range, first_batch_bytes, .. }) = directory.read(&bench.tp, offset, 1) else {
                self.missing += 1;
                continue;
            };
            let served = range.file.bytes_at(range.position, first_batch_bytes);
            let first = batches(&served).next().and_then(Result::ok);
            match first.filter(|(_, batch)| has_valid_crc(batch)) {
                None => self.marked += 1,
                Some((header, batch)) => {
                    let base_offset = header.base_offset;
                    assert!(
                        bench.log.batch_at(base_offset) == Some(batch),
                        "{what}: other bytes are served at {base_offset}"
                    );
                    match header.last_offset() >= offset && base_offset <= offset {
                        true => self.whole += 1,
                        false => self.missing += 1,
                    }
                }
            }
        }
        let _ = directory.offset_of(&bench.tp, crate::sim::power_cut::directory::NOW + 3);
    }
}

/// The header's fields that the checksum covers, and those that it does not but that decide what is read. The base
/// offset has a test of its own, and nothing covers the leader epoch.
const HEADER_FIELDS: [(&str, std::ops::Range<usize>); 13] = [
    ("batch length", 8..12),
    ("magic", 16..17),
    ("crc", 17..21),
    ("attributes", 21..23),
    ("last offset delta", 23..27),
    ("base timestamp", 27..35),
    ("max timestamp", 35..43),
    ("producer id", 43..51),
    ("producer epoch", 51..53),
    ("base sequence", 53..57),
    ("record count", 57..61),
    ("first record", 61..68),
    ("later records", 68..90),
];

#[test]
fn a_bit_flipped_in_any_field_of_a_batch_never_serves_other_bytes_that_look_sound() {
    let mut bench = Bench::filled(11);
    let stopped = {
        let disk = bench.disk.restart();
        Directory::start(&disk, &config(), [(bench.tp.clone(), bench.log.topic_id)]).unwrap().stop().unwrap();
        disk
    };
    let (mut killed_seen, mut stopped_seen) = (Seen::default(), Seen::default());
    let logs: Vec<_> =
        bench.disk.paths().into_iter().filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    for path in &logs {
        let contents = bench.disk.contents(path).unwrap();
        let starts: Vec<_> = batches(&contents)
            .map_while(Result::ok)
            .map(|(_, batch)| (batch.as_ptr() as usize - contents.as_ptr() as usize, batch.len()))
            .collect();
        for (start, length) in [starts[0], starts[starts.len() / 2], starts[starts.len() - 1]] {
            for (field, range) in HEADER_FIELDS {
                for at in range.filter(|at| *at < length) {
                    let bit = bench.dice.below(8) as u8;
                    let what = format!("{field} at {} of {}", start + at, path.display());
                    for (disk, seen) in [(&bench.disk, &mut killed_seen), (&stopped, &mut stopped_seen)] {
                        let disk = disk.restart();
                        disk.flip(path, start + at, bit).unwrap();
                        seen.look(&disk, &bench, &what);
                    }
                }
            }
        }
    }
    assert!(killed_seen.whole > killed_seen.marked && killed_seen.missing > 0);
    assert!(stopped_seen.whole > stopped_seen.marked);
}

#[test]
fn a_bit_flipped_in_a_base_offset_is_seen_where_recovery_looks_since_offsets_do_not_follow() {
    let bench = Bench::filled(12);
    let mut seen = Seen::default();
    for path in bench.disk.paths().iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
        let contents = bench.disk.contents(path).unwrap();
        let mut start = 0;
        for (_, batch) in batches(&contents).map_while(Result::ok) {
            for at in start..start + 8 {
                for bit in 0..8 {
                    let disk = bench.disk.restart();
                    disk.flip(path, at, bit).unwrap();
                    // Without them every batch is looked at.
                    for name in [RECOVERY_POINTS, CACHE_MARK] {
                        disk.put(&Path::new(LOG_DIR).join(name), b"");
                    }
                    seen.look(&disk, &bench, &format!("base offset at {at} of {}", path.display()));
                }
            }
            start += batch.len();
        }
    }
    assert!(seen.whole > 0 && seen.missing > 0 && seen.marked == 0, "{seen:?}");
}

#[test]
fn a_bit_flipped_in_an_index_a_snapshot_or_a_checkpoint_never_serves_other_bytes() {
    let bench = Bench::filled(13);
    let stopped = {
        let disk = bench.disk.restart();
        Directory::start(&disk, &config(), [(bench.tp.clone(), bench.log.topic_id)]).unwrap().stop().unwrap();
        disk
    };
    for (disk, is_stopped) in [(&bench.disk, false), (&stopped, true)] {
        let mut seen = Seen::default();
        let small: Vec<PathBuf> =
            disk.paths().into_iter().filter(|path| path.extension().is_none_or(|e| e != "log")).collect();
        let is_there = |name: &str| small.iter().any(|path| path.to_string_lossy().contains(name));
        for name in ["index", "timeindex", "snapshot", RECOVERY_POINTS, LOG_START_OFFSETS, HIGH_WATERMARKS] {
            assert!(is_there(name), "{name} is among {small:?}");
        }
        for path in &small {
            for at in 0..disk.contents(path).unwrap().len() {
                let flipped = disk.restart();
                flipped.flip(path, at, (at % 8) as u8).unwrap();
                seen.look(&flipped, &bench, &format!("byte {at} of {} (stopped: {is_stopped})", path.display()));
            }
        }
        assert!(seen.whole > 10 * seen.missing, "{seen:?}");
        println!("stopped in order: {is_stopped}; {seen:?}");
    }
}
