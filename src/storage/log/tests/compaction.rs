//! Compaction against a model: random histories of keys, tombstones, producers and transactions, cleaned again and
//! again while the clock moves.

use super::*;
use crate::record::batch::Record;
use crate::sim::disk::power_cut::Dice;
use crate::storage::compaction::{CleanerBounds, Dirtiness};
use crate::storage::retention::RetentionPolicy;

const NO_LAGS: CompactionLags = CompactionLags { min_ms: 0, max_ms: i64::MAX };
const BOUNDS: CleanerBounds = CleanerBounds { map_bytes_max: 1 << 20, load_factor: 0.9, chunk_bytes: 4096 };
const RETENTION_MS: i64 = 1000;
const SEEDS: u64 = 60;
const PASSES: usize = 5;
/// Producers without transactions, then those with.
const IDEMPOTENT: std::ops::Range<i64> = 0..3;
const TRANSACTIONAL: std::ops::Range<i64> = 10..13;

fn compacted() -> LogConfig {
    LogConfig { compacted: true, segment_bytes: 3000, ..small() }
}

fn dirtiness(log: &mut Log<FakeDisk>, lags: CompactionLags, now: WallMs) -> Dirtiness {
    loop {
        match log.dirtiness(log.log_end_offset(), lags, now) {
            Ok(dirtiness) => return dirtiness,
            Err(Unknown::Age(base_offset)) => {
                let age = run(log.age(base_offset));
                log.finish_age(age).unwrap();
            }
            Err(Unknown::Beginning(base_offset)) => {
                let beginning = run(log.beginning(base_offset));
                log.finish_beginning(beginning).unwrap();
            }
        }
    }
}

/// Cleans a log once; gives up to where it is clean then.
fn try_clean(
    log: &mut Log<FakeDisk>,
    lags: CompactionLags,
    bounds: CleanerBounds,
    time: CleanTime,
) -> Result<Offset, CleanError> {
    let dirtiness = dirtiness(log, lags, time.now);
    if dirtiness.dirty_bytes == 0 {
        return Ok(dirtiness.first_dirty);
    }
    let aborted = log.aborted_transactions(log.first_segment_offset(), dirtiness.uncleanable);
    let aborted = aborted.map_or(Ok(Vec::new()), run)?;
    let mut cleaning = run(log.clean_plan(dirtiness).index(aborted, bounds, time, Inline))?;
    while let Some(cleaned) = run(cleaning.clean_group()) {
        let names = run(log.names().hold_alone());
        let swapped = run(cleaned?.swap(names))?;
        log.finish_swap(swapped);
    }
    log.set_cleaned_to(cleaning.end_offset);
    Ok(cleaning.end_offset)
}

fn clean(log: &mut Log<FakeDisk>, now: WallMs) -> Offset {
    let time = CleanTime { now, delete_retention_ms: RETENTION_MS };
    try_clean(log, NO_LAGS, BOUNDS, time).unwrap()
}

fn flush(log: &mut Log<FakeDisk>) {
    let flushed = run(log.flush());
    log.finish_flush(flushed).unwrap();
}

/// Every batch of the log with its records.
fn all_batches(log: &mut Log<FakeDisk>) -> Vec<(BatchHeader, Vec<Record>)> {
    let (mut out, mut offset) = (Vec::new(), log.log_start_offset());
    loop {
        match read(log, offset, 1 << 20, log.log_end_offset()) {
            Read::Range { range, .. } => {
                for (header, batch) in batches(&range.file.bytes_at(range.position, range.length)).map(Result::unwrap) {
                    assert!(crate::record::batch::has_valid_crc(batch) && header.last_offset() >= offset);
                    out.push((header, decode_records(batch, 1 << 20).unwrap()));
                    offset = header.last_offset() + 1;
                }
            }
            Read::Empty => return out,
            other => panic!("{other:?}"),
        }
    }
}

/// What was written at one offset.
#[derive(Clone, Debug)]
struct Written {
    record: Record,
    is_control: bool,
    aborted: bool,
}

/// A history, and the files that hold it.
struct History {
    disk: FakeDisk,
    dice: Dice,
    written: BTreeMap<Offset, Written>,
    headers: BTreeMap<Offset, BatchHeader>,
    sequences: BTreeMap<i64, i32>,
    last_batches: BTreeMap<i64, BytesMut>,
    /// Offsets of the open transaction of each producer.
    open: BTreeMap<i64, Vec<Offset>>,
    segment: Option<(Offset, Vec<u8>)>,
    end: Offset,
    now: WallMs,
    cleaned_to: Option<Offset>,
}

impl History {
    fn new(seed: u64) -> History {
        History {
            disk: FakeDisk::new(),
            dice: Dice(seed),
            written: BTreeMap::new(),
            headers: BTreeMap::new(),
            sequences: BTreeMap::new(),
            last_batches: BTreeMap::new(),
            open: BTreeMap::new(),
            segment: None,
            end: 0,
            now: 1_000_000,
            cleaned_to: None,
        }
    }

    fn put(&mut self, mut batch: BytesMut) {
        crate::record::batch::stamp(&mut batch, self.end, 0);
        let header = BatchHeader::parse(&batch).unwrap();
        for record in decode_records(&batch, 1 << 20).unwrap() {
            let written = Written { is_control: header.is_control(), aborted: false, record };
            self.written.insert(written.record.offset, written);
        }
        self.headers.insert(header.base_offset, header);
        self.end = header.last_offset() + 1;
        if !header.is_control() && IDEMPOTENT.contains(&header.producer_id) {
            self.last_batches.insert(header.producer_id, batch.clone());
        }
        let is_full = self.segment.as_ref().is_none_or(|(_, bytes)| bytes.len() + batch.len() > 700);
        if is_full {
            self.segment = Some((header.base_offset, Vec::new()));
        }
        let (base_offset, bytes) = self.segment.as_mut().unwrap();
        bytes.extend_from_slice(&batch);
        self.disk.put(&segment_path(Path::new(DIR), *base_offset, LOG), bytes);
    }

    fn data_batch(&mut self) {
        let codecs = [Codec::None, Codec::None, Codec::Lz4, Codec::Zstd];
        let codec = codecs[self.dice.below(4) as usize];
        let mut builder = BatchBuilder::new(codec);
        let who = self.dice.below(9) as i64;
        let producer_id = match who {
            0..3 => Some(who),
            3..6 => Some(who - 3 + TRANSACTIONAL.start),
            _ => None,
        };
        let count = 1 + self.dice.below(4);
        if let Some(producer_id) = producer_id {
            let sequence = self.sequences.entry(producer_id).or_default();
            builder = builder.producer(producer_id, 0, *sequence);
            *sequence += count as i32;
            if TRANSACTIONAL.contains(&producer_id) {
                builder = builder.transactional();
                self.open.entry(producer_id).or_default().extend(self.end..self.end + count as i64);
            }
        }
        for at in 0..count {
            let key = [b'k', self.dice.below(12) as u8];
            let value = format!("{:020}", self.end + at as i64);
            let value = (self.dice.below(4) > 0).then_some(value.as_bytes());
            builder.push(self.now + at as i64, Some(&key), value, &[]);
        }
        self.put(builder.build());
    }

    fn marker(&mut self, producer_id: i64) {
        let aborts = self.dice.below(2) == 0;
        for offset in self.open.remove(&producer_id).unwrap_or_default() {
            self.written.get_mut(&offset).unwrap().aborted = aborts;
        }
        let mut builder = BatchBuilder::new(Codec::None).producer(producer_id, 0, -1).transactional().control();
        builder.push(self.now, Some(&[0, 0, 0, u8::from(!aborts)]), Some(&[0; 6]), &[]);
        self.put(builder.build());
    }

    fn extend(&mut self) {
        for _ in 0..20 + self.dice.below(40) {
            let open: Vec<_> = self.open.keys().copied().collect();
            match self.dice.below(6) {
                0 | 1 if !open.is_empty() => {
                    let place = self.dice.below(open.len() as u64) as usize;
                    self.marker(open[place]);
                }
                _ => self.data_batch(),
            }
            self.now += self.dice.below(20) as i64;
        }
        if self.dice.below(3) > 0 {
            self.open.keys().copied().collect::<Vec<_>>().into_iter().for_each(|producer_id| self.marker(producer_id));
        }
    }

    /// Opens the log as after a kill, without anything that the last process knew of producers.
    fn open(&self) -> Log<FakeDisk> {
        for path in self.disk.paths().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == SNAPSHOT)) {
            run(self.disk.remove_file(&path)).unwrap();
        }
        let mut log = open(&self.disk, compacted(), LastStop { cleaned_to: self.cleaned_to, ..KILLED });
        assert_eq!(log.log_end_offset(), self.end);
        flush(&mut log);
        log
    }

    /// The last record of each key that counts, below an offset.
    fn latest(&self, end: Offset) -> BTreeMap<&[u8], Offset> {
        let counts = self.written.range(..end).filter(|(_, written)| !written.is_control && !written.aborted);
        counts.map(|(offset, written)| (written.record.key.as_deref().unwrap(), *offset)).collect()
    }

    /// Holds what is left after a cleaning against what was written and what was there before it.
    fn check(
        &self,
        log: &mut Log<FakeDisk>,
        before: &[(BatchHeader, Vec<Record>)],
        rewritten_end: Offset,
    ) -> Vec<(BatchHeader, Vec<Record>)> {
        let after = all_batches(log);
        let cleaned_to = self.cleaned_to.unwrap();
        let horizons: BTreeMap<_, _> =
            before.iter().map(|(header, _)| (header.base_offset, header.delete_horizon_ms())).collect();
        let mut last = -1;
        for (header, records) in &after {
            let original = &self.headers[&header.base_offset];
            assert_eq!(header.last_offset(), original.last_offset());
            assert_eq!(
                (header.producer_id, header.producer_epoch, header.base_sequence, header.is_control()),
                (original.producer_id, original.producer_epoch, original.base_sequence, original.is_control())
            );
            assert!(header.base_offset > last && (header.codec() == original.codec() || records.is_empty()));
            last = header.last_offset();
            for record in records {
                assert_eq!(record, &self.written[&record.offset].record);
            }
            let was = horizons.get(&header.base_offset).copied().flatten();
            let has_tombstone = records.iter().any(|record| record.value.is_none());
            if header.base_offset >= rewritten_end {
                assert_eq!(header.delete_horizon_ms(), was, "left alone");
            } else if !records.is_empty() && (was.is_some() || has_tombstone) {
                let expected = was.unwrap_or(self.now + RETENTION_MS);
                assert_eq!(header.delete_horizon_ms(), Some(expected));
            }
        }
        let left: BTreeMap<_, _> = after
            .iter()
            .flat_map(|(header, records)| records.iter().map(|record| (record.offset, header.base_offset)))
            .collect();
        let was: BTreeMap<_, _> = before
            .iter()
            .flat_map(|(header, records)| records.iter().map(|record| (record.offset, header.base_offset)))
            .collect();
        let (latest, latest_of_all) = (self.latest(cleaned_to), self.latest(self.end));
        for (offset, written) in self.written.iter().filter(|(_, written)| !written.is_control) {
            let is_left = left.contains_key(offset);
            if !was.contains_key(offset) {
                assert!(!is_left, "{offset} is back");
                continue;
            }
            if written.aborted && *offset < rewritten_end {
                assert!(!is_left, "{offset} was aborted");
                continue;
            }
            if *offset >= cleaned_to {
                assert!(is_left, "{offset} is not cleaned yet");
                continue;
            }
            let key = written.record.key.as_deref().unwrap();
            let is_superseded = latest[key] != *offset;
            let horizon = horizons[&was[offset]];
            let has_expired = written.record.value.is_none() && horizon.is_some_and(|horizon| horizon <= self.now);
            // The map may know keys of a batch that did not fit into it as a whole.
            let may_be_superseded = latest_of_all[key] != *offset;
            if is_superseded || has_expired {
                assert!(!is_left, "{offset} is of no use: {is_superseded} {has_expired}");
            } else if !may_be_superseded {
                assert!(is_left, "{offset} is the latest of its key");
            }
        }
        self.check_committed(log, &after);
        after
    }

    /// A read_committed consumer sees no aborted record, and every committed one that is left.
    fn check_committed(&self, log: &Log<FakeDisk>, all: &[(BatchHeader, Vec<Record>)]) {
        let stable = log.last_stable_offset(self.end);
        let aborted = log.aborted_transactions(0, stable).map_or(Vec::new(), |found| run(found).unwrap());
        let mut skipping = BTreeSet::new();
        let mut ahead: Vec<_> =
            aborted.iter().map(|transaction| (transaction.first_offset, transaction.producer_id)).collect();
        ahead.sort_unstable();
        let mut ahead = ahead.into_iter().peekable();
        for (header, records) in all.iter().filter(|(header, _)| header.base_offset < stable) {
            while let Some((_, producer_id)) = ahead.next_if(|(first, _)| *first <= header.last_offset()) {
                skipping.insert(producer_id);
            }
            if header.is_control() {
                if records.first().is_some_and(|record| record.key.as_deref() == Some(&[0, 0, 0, 0])) {
                    skipping.remove(&header.producer_id);
                }
                continue;
            }
            let skipped = header.is_transactional() && skipping.contains(&header.producer_id);
            for record in records {
                assert_eq!(
                    self.written[&record.offset].aborted, skipped,
                    "{} of {}",
                    record.offset, header.producer_id
                );
            }
        }
    }
}

#[test]
fn what_a_cleaning_leaves_is_what_the_model_says_over_random_histories() {
    let (mut removed, mut emptied, mut merged) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut history = History::new(seed);
        for pass in 0..PASSES {
            history.extend();
            history.now += history.dice.below(3) as i64 * 600;
            let mut log = history.open();
            let before = all_batches(&mut log);
            let keys = [3, 8, 1000][history.dice.below(3) as usize];
            let bounds = CleanerBounds { map_bytes_max: 24 * (keys * 10 / 9 + 4), ..BOUNDS };
            let lags = CompactionLags { min_ms: [0, 300][history.dice.below(2) as usize], ..NO_LAGS };
            let time = CleanTime { now: history.now, delete_retention_ms: RETENTION_MS };
            let was = dirtiness(&mut log, lags, history.now);
            let segments_before = log.closed.len();
            let first_unclean = was.first_dirty;
            let end = match try_clean(&mut log, lags, bounds, time) {
                Ok(end) => end,
                Err(CleanError::Damaged {
                    damage: crate::storage::compaction::pass::Damage::TooManyKeys(_), ..
                }) => try_clean(&mut log, lags, BOUNDS, time).unwrap(),
                Err(error) => panic!("seed {seed}, pass {pass}: {error}"),
            };
            assert!(end >= first_unclean && end <= was.uncleanable.max(first_unclean));
            history.cleaned_to = Some(end);
            println!("seed {seed}, pass {pass}: cleaned to {end} of {}", history.end);
            let rewritten_end = match was.dirty_bytes {
                0 => 0,
                // The whole of the segment that holds the last offset.
                _ => log.next_segment(log.segment_of(end - 1)).unwrap_or(history.end),
            };
            let after = history.check(&mut log, &before, rewritten_end);
            merged += segments_before - log.closed.len();
            let count =
                |all: &[(BatchHeader, Vec<Record>)]| all.iter().map(|(_, records)| records.len()).sum::<usize>();
            removed += count(&before) - count(&after);
            emptied += after.iter().filter(|(_, records)| records.is_empty()).count();
            drop(log);
            // Another process finds the same, and still knows every producer.
            let mut log = history.open();
            assert_eq!(all_batches(&mut log), after);
            for (producer_id, batch) in &history.last_batches {
                let header = BatchHeader::parse(batch).unwrap();
                match stage(&mut log, batch.clone()) {
                    Staged::Duplicate { base_offset, .. } => assert_eq!(base_offset, header.base_offset),
                    other => panic!("seed {seed}, pass {pass}, producer {producer_id}: {other:?}"),
                }
            }
        }
    }
    assert!(removed > 5000 && emptied > 50 && merged > 300, "{removed} {emptied} {merged}");
}

/// A log of several segments whose keys come again and again; the last segment is the active one.
fn filled_with_keys(disk: &FakeDisk) -> Log<FakeDisk> {
    let mut log = open(disk, compacted(), CLEAN);
    append_keys(&mut log, 0..200);
    roll(&mut log);
    append_keys(&mut log, 200..201);
    flush(&mut log);
    log
}

fn append_keys(log: &mut Log<FakeDisk>, values: std::ops::Range<i64>) {
    for at in values {
        let mut builder = BatchBuilder::new(Codec::None);
        let key = format!("key {}", at % 7);
        builder.push(10_000 + at, Some(key.as_bytes()), Some(format!("{at:040}").as_bytes()), &[]);
        append(log, builder.build());
    }
}

fn values(log: &mut Log<FakeDisk>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let records = all_batches(log).into_iter().flat_map(|(_, records)| records);
    records.map(|record| (record.key.unwrap().to_vec(), record.value.unwrap().to_vec())).collect()
}

fn names(disk: &FakeDisk, end: &str) -> usize {
    disk.paths().iter().filter(|path| path.to_string_lossy().ends_with(end)).count()
}

#[test]
fn readers_of_the_old_files_go_on_and_who_waits_for_them_reads_the_new_ones() {
    let disk = FakeDisk::new();
    let mut log = filled_with_keys(&disk);
    let expected = values(&mut log);
    let held = read(&mut log, 0, 1 << 20, 201);
    let mut log = {
        drop(log);
        open(&disk, compacted(), KILLED)
    };
    flush(&mut log);
    let (waiting, lookup) = (log.load_segment(0), log.lookup_timestamp(10_000, 201, &Inline));
    assert_eq!(clean(&mut log, 20_000), 200);
    let loaded = run(waiting);
    log.finish_load_segment(loaded).unwrap();
    assert!(matches!(run(lookup), Err(LogError::SegmentsChanged)));
    assert_eq!(values(&mut log), expected);
    assert_eq!(all_batches(&mut log).len(), 8, "one of each key, and the one that is not clean yet");
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (0, 201));
    let segments = log.closed.len();
    let policy = RetentionPolicy { delete: true, retention_ms: 1000, retention_bytes: -1 };
    assert_eq!(log.retention(policy, 201, 1 << 40, None), Retention::RollFirst, "nobody asks how old nothing is");
    assert_eq!(run(log.lookup_timestamp(10_000, 201, &Inline)).unwrap(), Some((193, 10_193)));
    let Read::Range { range, .. } = held else { panic!("{held:?}") };
    let old: Vec<_> =
        batches(&range.file.bytes_at(0, range.length)).map(|batch| batch.unwrap().0.base_offset).collect();
    assert_eq!(old, (0..old.len() as i64).collect::<Vec<_>>());

    // Offsets go on, and another pass finds nothing but what is new.
    append_keys(&mut log, 201..300);
    flush(&mut log);
    assert_eq!(dirtiness(&mut log, NO_LAGS, 0).first_dirty, 200);
    clean(&mut log, 20_000);
    let end = log.log_end_offset();
    assert_eq!((end, values(&mut log).len()), (300, 7));
    assert!(log.closed.len() < segments, "what has become small becomes one");
    drop(log);
    let cleaned_to = Some(200);
    let mut log =
        open(&disk.restart(), LogConfig { compacted: false, ..compacted() }, LastStop { cleaned_to, ..KILLED });
    assert_eq!((log.log_end_offset(), values(&mut log).len()), (300, 7), "compact once, compact for ever");
}

#[test]
fn whatever_fails_in_a_cleaning_leaves_the_old_or_the_new_log_and_nothing_half() {
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        let (mut failed, mut swaps_failed) = (0, 0);
        for nth in 1.. {
            let disk = FakeDisk::new();
            let mut log = filled_with_keys(&disk);
            let expected = values(&mut log);
            let dirtiness = dirtiness(&mut log, NO_LAGS, 0);
            let plan = log.clean_plan(dirtiness);
            disk.inject(Fault::Any(kind).at(nth));
            let time = CleanTime { now: 20_000, delete_retention_ms: RETENTION_MS };
            let cleaned = run(async {
                let mut cleaning = plan.index(Vec::new(), BOUNDS, time, Inline).await?;
                while let Some(cleaned) = cleaning.clean_group().await {
                    let swapped = cleaned?.swap(log.names().hold_alone().await).await?;
                    log.finish_swap(swapped);
                }
                Ok(())
            });
            disk.heal();
            match &cleaned {
                Err(CleanError::SwapFailed(_)) => swaps_failed += 1,
                Err(_) => {
                    failed += 1;
                    assert_eq!(
                        (names(&disk, ".cleaned"), names(&disk, ".swap")),
                        (0, 0),
                        "operation {nth}: {cleaned:?}"
                    );
                    assert_eq!(values(&mut log), expected);
                    clean(&mut log, 20_000);
                    assert_eq!(values(&mut log), expected);
                }
                Ok(()) => {}
            }
            // Whatever happened, the next start finds every key.
            let mut log = open(&disk.restart(), compacted(), LastStop { recovery_point: 201, ..KILLED });
            assert_eq!(values(&mut log), expected, "operation {nth}: {cleaned:?}");
            assert_eq!(log.log_end_offset(), 201);
            if cleaned.is_ok() {
                break;
            }
        }
        assert!(failed > 15 && swaps_failed > 10, "{failed} {swaps_failed}");
    }
}

#[test]
fn a_damaged_batch_ends_the_cleaning_and_is_not_made_to_look_sound() {
    let disk = FakeDisk::new();
    let mut log = filled_with_keys(&disk);
    let before = disk.contents(&segment_path(Path::new(DIR), 0, LOG)).unwrap().len();
    disk.flip(&segment_path(Path::new(DIR), 0, LOG), before - 3, 2).unwrap();
    let time = CleanTime { now: 20_000, delete_retention_ms: RETENTION_MS };
    let refused = try_clean(&mut log, NO_LAGS, BOUNDS, time);
    assert!(matches!(refused, Err(CleanError::Damaged { .. })), "{refused:?}");
    assert_eq!(disk.contents(&segment_path(Path::new(DIR), 0, LOG)).unwrap().len(), before);
    assert_eq!((names(&disk, ".cleaned"), log.cleaned_to()), (0, None));
}

/// Its records can't be read, and its checksum is right: what a producer sent, and nobody looked into.
fn undecodable(mut batch: BytesMut) -> BytesMut {
    let at = batch.len() - 9;
    batch[61..70].fill(0xee);
    batch[at..].fill(0xee);
    crate::record::batch::set_max_timestamp(&mut batch, 10_000);
    batch
}

#[test]
fn a_batch_that_can_not_be_decoded_stays_as_it_is_and_everything_around_it_is_cleaned() {
    let keyed = |codec: Codec, key: &str, count: i64| {
        let mut builder = BatchBuilder::new(codec);
        (0..count).for_each(|at| builder.push(10_000, Some(key.as_bytes()), Some(&[at as u8; 40]), &[]));
        builder.build()
    };
    let misnumbered = {
        // A sound stream whose record says that it is far behind its batch.
        let body = [12, 0, 0, 100, 1, 1, 0];
        let header = BatchHeader::parse(&keyed(Codec::Gzip, "a", 1)).unwrap();
        header.seal(&crate::record::compression::compress(Codec::Gzip, &body))
    };
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        for bad in [undecodable(keyed(codec, "a", 10)), misnumbered.clone()] {
            let mut log = open(&FakeDisk::new(), compacted(), CLEAN);
            let (bad_offset, _) = {
                append(&mut log, keyed(codec, "a", 10));
                append(&mut log, keyed(codec, "b", 10));
                let at = append(&mut log, bad.clone());
                append(&mut log, keyed(codec, "b", 10));
                at
            };
            roll(&mut log);
            append(&mut log, keyed(Codec::None, "c", 1));
            flush(&mut log);
            for _ in 0..2 {
                let dirty = dirtiness(&mut log, NO_LAGS, 20_000);
                let mut cleaning = run(log.clean_plan(dirty).index(
                    Vec::new(),
                    BOUNDS,
                    CleanTime { now: 20_000, delete_retention_ms: 0 },
                    Inline,
                ))
                .unwrap();
                while let Some(cleaned) = run(cleaning.clean_group()) {
                    let names = run(log.names().hold_alone());
                    log.finish_swap(run(cleaned.unwrap().swap(names)).unwrap());
                }
                let kept = cleaning.undecodable();
                assert_eq!((kept.count, kept.first.is_some()), (1, true), "{codec:?}");
                // Again, from the beginning.
                log.set_cleaned_to(0);
            }
            let mut found = Vec::new();
            let mut offset = 0;
            let end = log.log_end_offset();
            while let Read::Range { range, .. } = read(&mut log, offset, 1 << 20, end) {
                for (header, batch) in batches(&range.file.bytes_at(range.position, range.length)).map(Result::unwrap) {
                    found.push((header.base_offset, header.record_count, batch[61..].to_vec()));
                    offset = header.last_offset() + 1;
                }
            }
            // The unread batch hides no older record of its key.
            let counts: Vec<_> = found.iter().map(|(base, count, _)| (*base, *count)).collect();
            let bad_count = BatchHeader::parse(&bad).unwrap().record_count;
            let behind = bad_offset + i64::from(bad_count);
            assert_eq!(counts, [(0, 1), (bad_offset, bad_count), (behind, 1), (behind + 10, 1)], "{codec:?}");
            assert_eq!(found[1].2, bad[61..], "{codec:?}");
        }
    }
}

#[test]
fn what_is_too_new_is_left_alone_and_what_waits_too_long_is_overdue() {
    let disk = FakeDisk::new();
    let mut log = open(&filled_with_keys(&disk).disk, compacted(), KILLED);
    flush(&mut log);
    let bases: Vec<_> = log.closed.keys().copied().collect();
    let lags = |min_ms, max_ms| CompactionLags { min_ms, max_ms };
    let all = dirtiness(&mut log, lags(0, i64::MAX), 10_300);
    assert_eq!((all.first_dirty, all.uncleanable, all.clean_bytes, all.is_overdue), (0, 200, 0, false));
    // The newest record of the second segment is less than this old, that of the first is older.
    let now = 10_000 + bases[1] + 99;
    assert_eq!(dirtiness(&mut log, lags(100, i64::MAX), now).uncleanable, bases[1]);
    assert_eq!(dirtiness(&mut log, lags(1000, i64::MAX), now).dirty_bytes, 0);
    assert!(
        !dirtiness(&mut log, lags(0, 300), 10_300).is_overdue && dirtiness(&mut log, lags(0, 299), 10_300).is_overdue
    );
    clean(&mut log, 20_000);
    assert!(!dirtiness(&mut log, lags(0, 1), 1 << 40).is_due(0.0), "nothing is dirty");
}

fn message(offset: i64, attributes: u8, key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<u8> {
    let mut body = vec![1, attributes];
    body.extend_from_slice(&(10_000 + offset).to_be_bytes());
    for field in [key, value] {
        body.extend_from_slice(&field.map_or(-1, |bytes| bytes.len() as i32).to_be_bytes());
        body.extend_from_slice(field.unwrap_or_default());
    }
    let mut out = offset.to_be_bytes().to_vec();
    out.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    out.extend_from_slice(&body);
    out
}

/// The messages of magic 1 that an older Kafka left: what stays is as it was, but for what must become a v2 batch.
#[test]
fn old_messages_are_cleaned_like_others() {
    let disk = FakeDisk::new();
    let inner =
        [message(0, 0, Some(b"a"), Some(b"2")), message(1, 0, Some(b"b"), Some(b"1")), message(2, 0, Some(b"c"), None)];
    let compressed = crate::record::compression::compress(Codec::Gzip, &inner.concat());
    let kept = message(6, 0, Some(b"d"), Some(b"1"));
    let segment =
        [message(2, 0, Some(b"a"), Some(b"1")), message(5, 1, None, Some(&compressed)), kept.clone()].concat();
    disk.put(&segment_path(Path::new(DIR), 0, LOG), &segment);
    let mut builder = BatchBuilder::new(Codec::None).base_offset(7);
    builder.push(10_007, Some(b"b"), Some(b"2"), &[]);
    disk.put(&segment_path(Path::new(DIR), 7, LOG), &builder.build());
    disk.put(&segment_path(Path::new(DIR), 8, LOG), &[]);
    let mut log = open(&disk, compacted(), KILLED);
    flush(&mut log);
    assert_eq!(clean(&mut log, 20_000), 8);
    let found = disk.contents(&segment_path(Path::new(DIR), 0, LOG)).unwrap();
    let header = BatchHeader::parse(&found).unwrap();
    let rewritten = decode_records(&found[..header.batch_bytes()], 1000).unwrap();
    let records: Vec<_> =
        rewritten.iter().map(|record| (record.offset, record.timestamp, record.value.as_deref())).collect();
    assert_eq!(records, [(3, 10_000, Some(&b"2"[..])), (5, 10_002, None)], "b has a later value");
    assert_eq!((header.last_offset(), header.delete_horizon_ms()), (5, Some(20_000 + RETENTION_MS)));
    assert_eq!(found[header.batch_bytes()..][..kept.len()], kept);
    log.cleaned_to = Some(0);
    clean(&mut log, 20_000 + RETENTION_MS);
    let found = disk.contents(&segment_path(Path::new(DIR), 0, LOG)).unwrap();
    let header = BatchHeader::parse(&found).unwrap();
    assert_eq!(decode_records(&found[..header.batch_bytes()], 1000).unwrap().len(), 1, "the tombstone is gone");
}

#[test]
fn a_reader_passes_what_compaction_has_emptied_with_hardly_a_file_open() {
    let disk = FakeDisk::new();
    let mut log = filled_with_keys(&disk);
    clean(&mut log, 20_000);
    append_keys(&mut log, 201..300);
    flush(&mut log);
    drop(log);
    let one_file = OpenLog { open_files: OpenFiles::new(1), ..what(&disk, compacted(), KILLED) };
    let mut log = run(Log::open(one_file)).unwrap();
    let mut reads = 0;
    for offset in 0..300 {
        while !matches!(log.read(offset, 100, 300), Read::Range { .. }) {
            reads += 1;
            assert!(reads < 3000, "offset {offset} is looked for again and again");
            match log.read(offset, 100, 300) {
                Read::NeedSegment { base_offset } => {
                    let loaded = run(log.load_segment(base_offset));
                    log.finish_load_segment(loaded).unwrap();
                }
                Read::NeedPages { file, position, length } => {
                    run(disk.make_resident(&file, position, length)).unwrap();
                }
                other => panic!("{offset}: {other:?}"),
            }
        }
    }
}
