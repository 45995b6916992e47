//! A log directory driven as a broker drives it, without shards: the only place here that knows how a [`Log`] is used.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use crate::base::ids::{LeaderEpoch, Offset, TopicId, TopicPartition};
use crate::base::time::WallMs;
use crate::partition::partition::LogCheckpoint;
use crate::platform::{Disk, OpenMode};
use crate::record::batch::BatchHeader;
use crate::shard::checkpoints;
use crate::sim::disk::tests::run;
use crate::sim::disk::{FakeDisk, FakeFile};
use crate::storage::cache_mark::{self, CacheMark};
use crate::storage::compaction::{CleanerBounds, Inline};
use crate::storage::entry::Entry;
use crate::storage::log::{
    CleanTime, CompactionLags, Flushed, LastStop, Log, LogConfig, LogWrite, OpenLog, Origin, Read, Retention, Staged,
};
use crate::storage::log_dir::{self, LogDirScan};
use crate::storage::open_files::OpenFiles;
use crate::storage::retention::RetentionPolicy;
use crate::storage::segment::{LOG, OFFSET_INDEX, parse_segment_name, segment_path};

pub const LOG_DIR: &str = "/data";
/// Of all appends; records have timestamps near it.
pub const NOW: WallMs = 1_700_000_000_000;
const NO_BROKER_EPOCH: i64 = -1;
/// The time that passes between two looks of a log's upkeep.
const UPKEEP_MS: WallMs = 1500;
/// Bytes behind index entries and snapshots that have new ones written: logs are small here.
const UPKEEP_BYTES: u64 = 2500;
/// Fewer than there are, so that files are closed and opened again.
const SEGMENTS_OPEN_MAX: usize = 2;

/// What went wrong, in words: an operation's error, or what a check saw.
pub type Outcome<T> = Result<T, String>;

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The logs of one process in one directory.
pub struct Directory {
    disk: FakeDisk,
    config: LogConfig,
    open_files: Rc<OpenFiles>,
    scan: LogDirScan,
    logs: BTreeMap<TopicPartition, Log<FakeDisk>>,
    upkeep_at: WallMs,
    /// A bug to be caught: an index entry is written before its batch is.
    pub indexes_first: bool,
}

impl Directory {
    /// A process starts: the directory is scanned, what a deletion left is removed, and these logs are opened.
    pub fn start(
        disk: &FakeDisk,
        config: &LogConfig,
        logs: impl IntoIterator<Item = (TopicPartition, TopicId)>,
    ) -> Outcome<Directory> {
        let scan = run(log_dir::scan(disk, Path::new(LOG_DIR))).map_err(said)?;
        run(log_dir::take_marker(disk, Path::new(LOG_DIR))).map_err(said)?;
        for leftover in &scan.deleted {
            run(disk.remove_directory(leftover)).map_err(said)?;
        }
        let mut directory = Directory {
            disk: disk.clone(),
            config: config.clone(),
            open_files: OpenFiles::new(SEGMENTS_OPEN_MAX),
            scan,
            logs: BTreeMap::new(),
            upkeep_at: NOW,
            indexes_first: false,
        };
        for (tp, topic_id) in logs {
            let last_stop = directory.scan.last_stop(&tp);
            directory.open(&tp, topic_id, last_stop).map_err(|error| format!("{tp} does not open: {error}"))?;
        }
        // A deletion that had not begun on disk when the process ended is begun again.
        let stale: Vec<_> = directory.scan.partitions.drain(..).collect();
        for tp in stale.iter().filter(|tp| !directory.logs.contains_key(tp)) {
            run(disk.remove_directory(&partition_directory(tp))).map_err(said)?;
            run(disk.sync_directory(Path::new(LOG_DIR))).map_err(said)?;
        }
        directory.mark_cache_life();
        Ok(directory)
    }

    /// Every log that is left is open. Where there can be no mark there is none.
    fn mark_cache_life(&self) {
        let mark = self.scan.cache_life.clone().map(|life| CacheMark { life, unopened: BTreeSet::new() });
        if let Some(mark) = mark.filter(|mark| Some(mark) != self.scan.cache_mark.as_ref()) {
            let _ = run(cache_mark::write(&self.disk, Path::new(LOG_DIR), &mark));
        }
    }

    /// What holds for the files that a kill leaves, if the next start believes them: the last entry of the last segment's
    /// index leads to a whole batch.
    pub fn check_written_point(disk: &FakeDisk, tp: &TopicPartition) -> Outcome<()> {
        // On a copy: this is no operation of the process.
        let scan = run(log_dir::scan(&disk.restart(), Path::new(LOG_DIR))).map_err(said)?;
        let Some(base_offset) = last_segment(disk, tp).filter(|_| scan.last_stop(tp).cache_survived) else {
            return Ok(());
        };
        let contents = |extension| disk.contents(&segment_path(&partition_directory(tp), base_offset, extension));
        let (log, index) = (contents(LOG).map_err(said)?, contents(OFFSET_INDEX).unwrap_or_default());
        let Some(entry) = index.as_chunks::<8>().0.last() else { return Ok(()) };
        let [a, b, c, d, position @ ..] = *entry;
        let (last_offset, position) =
            (base_offset + i64::from(u32::from_be_bytes([a, b, c, d])), u32::from_be_bytes(position));
        let rest = log.get(position as usize..).unwrap_or_default();
        let is_whole = Entry::parse(rest).is_ok_and(|entry| {
            entry.last_offset == last_offset
                && rest.get(..entry.bytes as usize).is_some_and(|bytes| entry.is_valid(bytes))
        });
        match is_whole {
            true => Ok(()),
            false => {
                Err(format!("{tp}: an index entry leads to offset {last_offset} at {position}, which is not whole"))
            }
        }
    }

    /// A partition of a new topic.
    pub fn create(&mut self, tp: &TopicPartition, topic_id: TopicId) -> Outcome<()> {
        self.open(tp, topic_id, LastStop::default())
    }

    fn open(&mut self, tp: &TopicPartition, topic_id: TopicId, last_stop: LastStop) -> Outcome<()> {
        let opened = run(Log::open(OpenLog {
            disk: self.disk.clone(),
            log_dir: PathBuf::from(LOG_DIR),
            topic_partition: tp.clone(),
            topic_id,
            config: LogConfig { compacted: is_compacted(tp), ..self.config.clone() },
            last_stop,
            wall: NOW,
            open_files: Rc::clone(&self.open_files),
            progress: Arc::default(),
        }));
        let mut log = opened.map_err(said)?;
        log.set_upkeep_bytes(UPKEEP_BYTES);
        self.logs.insert(tp.clone(), log);
        Ok(())
    }

    pub fn disk(&self) -> &FakeDisk {
        &self.disk
    }

    pub fn log(&self, tp: &TopicPartition) -> &Log<FakeDisk> {
        &self.logs[tp]
    }

    fn log_mut(&mut self, tp: &TopicPartition) -> &mut Log<FakeDisk> {
        self.logs.get_mut(tp).expect("an open log")
    }

    /// What a batch is to the log; it waits to be written if it is accepted.
    pub fn offer(&mut self, tp: &TopicPartition, batch: BytesMut, epoch: LeaderEpoch) -> Outcome<Staged> {
        let header = BatchHeader::parse(&batch).expect("a batch");
        Ok(match self.log_mut(tp).stage(batch, &header, Origin::Client, epoch, NOW) {
            Staged::NeedFile(batch) => {
                let loaded = run(self.log(tp).load_active());
                self.log_mut(tp).finish_load_segment(loaded).map_err(said)?;
                self.log_mut(tp).stage(batch, &header, Origin::Client, epoch, NOW)
            }
            staged => staged,
        })
    }

    /// Appends batches as one write, unless a roll comes between; `staged` hears the base offset of each, before it is
    /// written.
    pub fn append(
        &mut self,
        tp: &TopicPartition,
        batches: Vec<BytesMut>,
        epoch: LeaderEpoch,
        mut staged: impl FnMut(&[u8], Offset),
    ) -> Outcome<()> {
        for mut batch in batches {
            let kept = batch.clone();
            loop {
                match self.offer(tp, batch, epoch)? {
                    Staged::Written { base_offset, .. } => break staged(&kept, base_offset),
                    Staged::WriteFull(again) => {
                        self.write(tp)?;
                        batch = again;
                    }
                    Staged::RollFirst(again) => {
                        self.write(tp)?;
                        self.roll(tp)?;
                        batch = again;
                    }
                    other => return Err(format!("{tp}: a new batch came to {other:?}")),
                }
            }
        }
        self.write(tp)?;
        self.upkeep(tp)
    }

    /// Writes what is staged.
    pub fn write(&mut self, tp: &TopicPartition) -> Outcome<()> {
        let disk = self.disk.clone();
        while let Some(LogWrite { file, position, data }) = self.log_mut(tp).take_write() {
            if self.indexes_first {
                self.write_index_entry(tp, position)?;
            }
            let written = run(disk.append(&file, position, data));
            self.log_mut(tp).finish_write(written).map_err(said)?;
        }
        Ok(())
    }

    /// Puts an entry for the write that is in flight into the file of the index.
    fn write_index_entry(&self, tp: &TopicPartition, position: u64) -> Outcome<()> {
        let Some(base_offset) = last_segment(&self.disk, tp) else { return Ok(()) };
        let path = segment_path(&partition_directory(tp), base_offset, OFFSET_INDEX);
        let (file, length) = run(self.disk.open(&path, OpenMode::ReadWrite)).map_err(said)?;
        let last = (self.log(tp).log_end_offset() - base_offset) as u32;
        let entry = [last.to_be_bytes(), (position as u32).to_be_bytes()].concat();
        run(self.disk.write(&file, length, entry)).map_err(said)
    }

    /// After a failed write.
    pub fn repair(&mut self, tp: &TopicPartition) -> Outcome<()> {
        let repaired = run(self.log(tp).repair());
        self.log_mut(tp).finish_repair(repaired).map_err(said)
    }

    /// Whether the active segment holds something.
    pub fn can_roll(&self, tp: &TopicPartition) -> bool {
        last_segment(&self.disk, tp) < Some(self.log(tp).log_end_offset())
    }

    /// Ends the active segment, which holds something.
    pub fn roll(&mut self, tp: &TopicPartition) -> Outcome<()> {
        let log = self.log_mut(tp);
        let rolled = run(log.begin_roll(log.log_end_offset(), NOW));
        self.log_mut(tp).finish_roll(rolled).map_err(said)
    }

    fn upkeep(&mut self, tp: &TopicPartition) -> Outcome<()> {
        self.upkeep_at += UPKEEP_MS;
        let now = self.upkeep_at;
        match self.log_mut(tp).upkeep(now, true).map(run) {
            Some(done) => self.log_mut(tp).finish_upkeep(done).map_err(said),
            None => Ok(()),
        }
    }

    /// A new leader's reign begins.
    pub fn assign_epoch(&mut self, tp: &TopicPartition, epoch: LeaderEpoch) -> Outcome<()> {
        let log = self.log_mut(tp);
        log.assign_epoch(epoch, log.log_end_offset()).map_or(Ok(()), run).map_err(said)
    }

    /// Half a flush: its end offset is that of now, and its work is done when the future runs.
    pub fn begin_flush(&mut self, tp: &TopicPartition) -> Pin<Box<dyn Future<Output = Flushed>>> {
        Box::pin(self.log_mut(tp).flush())
    }

    /// The same of the closed segments, if there are any to flush.
    pub fn begin_flush_closed(&mut self, tp: &TopicPartition) -> Option<Pin<Box<dyn Future<Output = Flushed>>>> {
        Some(Box::pin(self.log_mut(tp).flush_closed()?))
    }

    /// The flushed offset then.
    pub fn finish_flush(&mut self, tp: &TopicPartition, flushed: Flushed) -> Outcome<Offset> {
        let log = self.log_mut(tp);
        log.finish_flush(flushed).map_err(said)?;
        Ok(log.flushed_offset())
    }

    pub fn flush(&mut self, tp: &TopicPartition) -> Outcome<Offset> {
        let flushed = run(self.begin_flush(tp));
        self.finish_flush(tp, flushed)
    }

    /// What the checkpoint files should say now.
    pub fn checkpoints(&self) -> Vec<LogCheckpoint> {
        let checkpoint = |(tp, log): (&TopicPartition, &Log<FakeDisk>)| LogCheckpoint {
            topic_partition: tp.clone(),
            log_dir: 0,
            recovery_point: log.recovery_point(),
            log_start_offset: log.log_start_offset(),
            first_segment_offset: log.first_segment_offset(),
            high_watermark: log.log_end_offset(),
            cleaned_to: log.cleaned_to(),
        };
        self.logs.iter().map(checkpoint).collect()
    }

    pub fn write_checkpoints(&self, checkpoints: &[LogCheckpoint]) -> Outcome<()> {
        run(checkpoints::write_all(&self.disk, Path::new(LOG_DIR), checkpoints)).map_err(said)
    }

    /// Closes every log; `closed` hears the log end of each. Gives what the checkpoint files should say.
    pub fn close_logs(&mut self, mut closed: impl FnMut(&TopicPartition, Offset)) -> Outcome<Vec<LogCheckpoint>> {
        let mut checkpoints = self.checkpoints();
        for checkpoint in &mut checkpoints {
            let tp = &checkpoint.topic_partition;
            let log = self.logs.remove(tp).expect("an open log");
            checkpoint.recovery_point = run(log.close()).map_err(said)?;
            closed(tp, checkpoint.recovery_point);
        }
        Ok(checkpoints)
    }

    pub fn write_clean_shutdown(&self) -> Outcome<()> {
        run(cache_mark::remove(&self.disk, Path::new(LOG_DIR))).map_err(said)?;
        run(log_dir::write_clean_shutdown(&self.disk, Path::new(LOG_DIR), NO_BROKER_EPOCH)).map_err(said)
    }

    /// An orderly stop, whole.
    pub fn stop(mut self) -> Outcome<()> {
        let checkpoints = self.close_logs(|_, _| ())?;
        self.write_checkpoints(&checkpoints)?;
        self.write_clean_shutdown()
    }

    pub fn delete(&mut self, tp: &TopicPartition) -> Outcome<()> {
        let log = self.logs.remove(tp).expect("an open log");
        run(log.delete()).map_err(said)
    }

    /// What lies below this offset is given up.
    pub fn delete_records(&mut self, tp: &TopicPartition, offset: Offset) {
        self.log_mut(tp).increment_log_start_offset(offset);
    }

    /// Takes out what is more than so many bytes; `moved` hears the new log start before anything happens to files.
    pub fn retain(&mut self, tp: &TopicPartition, retention_bytes: i64, mut moved: impl FnMut(Offset)) -> Outcome<()> {
        let policy = RetentionPolicy { delete: true, retention_ms: -1, retention_bytes };
        loop {
            let log = self.log_mut(tp);
            match log.retention(policy, log.log_end_offset(), NOW, None) {
                Retention::Keep => return Ok(()),
                Retention::NeedsAge(_) => return Err("age does not matter".into()),
                Retention::RollFirst => self.roll(tp)?,
                Retention::FlushFirst => drop(self.flush(tp)?),
                Retention::DeleteBelow(end_offset) => {
                    log.increment_log_start_offset(end_offset);
                    moved(log.log_start_offset());
                    let names = run(log.names().hold_alone());
                    let taken = run(log.take_out(end_offset, names));
                    let (_, files, error) = log.finish_take_out(taken);
                    if let Some(error) = error {
                        return Err(said(error));
                    }
                    return self.remove(files);
                }
            }
        }
    }

    fn remove(&self, files: Vec<PathBuf>) -> Outcome<()> {
        files.iter().try_for_each(|file| run(self.disk.remove_file(file))).map_err(said)
    }

    /// Cleans a log once, as its cleaner does; `begins` hears below which offset. Tombstones go with the next cleaning.
    pub fn compact(&mut self, tp: &TopicPartition, begins: impl FnOnce(Offset)) -> Outcome<()> {
        let log = self.log(tp);
        let lags = CompactionLags { min_ms: 0, max_ms: i64::MAX };
        let dirtiness = log.dirtiness(log.log_end_offset(), lags, NOW).map_err(|unknown| format!("{unknown:?}"))?;
        if dirtiness.dirty_bytes == 0 {
            return Ok(());
        }
        if log.cleaned_to() != Some(dirtiness.first_dirty) {
            self.log_mut(tp).set_cleaned_to(dirtiness.first_dirty);
            self.write_checkpoints(&self.checkpoints())?;
        }
        begins(dirtiness.uncleanable);
        let bounds = CleanerBounds { map_bytes_max: 1 << 16, load_factor: 0.9, chunk_bytes: 1 << 16 };
        let time = CleanTime { now: NOW, delete_retention_ms: 0 };
        let plan = self.log(tp).clean_plan(dirtiness);
        let mut cleaning = run(plan.index(Vec::new(), bounds, time, Inline)).map_err(said)?;
        while let Some(cleaned) = run(cleaning.clean_group()) {
            let names = run(self.log(tp).names().hold_alone());
            let swapped = run(cleaned.map_err(said)?.swap(names)).map_err(said)?;
            let aside = self.log_mut(tp).finish_swap(swapped);
            self.remove(aside)?;
        }
        self.log_mut(tp).set_cleaned_to(cleaning.end_offset);
        self.write_checkpoints(&self.checkpoints())
    }

    /// Reads as a fetch does: brings in what is missing, then reads again.
    pub fn read(&mut self, tp: &TopicPartition, offset: Offset, bytes_max: u64) -> Outcome<Read<FakeFile>> {
        let disk = self.disk.clone();
        loop {
            let log = self.log_mut(tp);
            match log.read(offset, bytes_max, log.log_end_offset()) {
                Read::NeedPages { file, position, length } => {
                    run(disk.make_resident(&file, position, length)).map_err(said)?;
                }
                Read::NeedSegment { base_offset } => {
                    let loaded = run(log.load_segment(base_offset));
                    log.finish_load_segment(loaded).map_err(said)?;
                }
                done => return Ok(done),
            }
        }
    }

    /// Offset of the first record at or past this timestamp.
    pub fn offset_of(&self, tp: &TopicPartition, timestamp: i64) -> Outcome<Option<Offset>> {
        let log = self.log(tp);
        let found = run(log.lookup_timestamp(timestamp, log.log_end_offset(), &Inline)).map_err(said)?;
        Ok(found.map(|(offset, _)| offset))
    }
}

/// Whether the log is one of those that are cleaned.
pub fn is_compacted(tp: &TopicPartition) -> bool {
    &*tp.topic == "c"
}

/// Base offset of a log's last segment, by the names of the files.
fn last_segment(disk: &FakeDisk, tp: &TopicPartition) -> Option<Offset> {
    let entries = run(disk.list(&partition_directory(tp))).unwrap_or_default();
    let logs = entries.iter().filter_map(|entry| parse_segment_name(&entry.name)).filter(|(_, kind)| *kind == LOG);
    logs.map(|(base_offset, _)| base_offset).max()
}

pub fn partition_directory(tp: &TopicPartition) -> PathBuf {
    Path::new(LOG_DIR).join(tp.to_string())
}
