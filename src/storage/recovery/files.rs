//! A partition's files: what is there, what is left over from a deletion or a compaction, and how they are read.
//!
//! A compaction writes `.cleaned` files, renames them to `.swap` when they are whole, removes what they replace, and gives
//! them their names. Wherever it was interrupted, the next open goes on or takes it back (Kafka 3.9
//! `LogLoader.removeTempFilesAndCollectSwapFiles`, `LogLoader.load`):
//!
//! 1. `.deleted` files go.
//! 2. `.swap` files at or past the lowest `.cleaned` one are part of a split that was not finished: they go, then the
//!    `.cleaned` ones.
//! 3. What the `.swap` logs that are left replace goes: files whose base offset lies in their offsets.
//! 4. The `.swap` files get their names, logs first: an index that came first would be taken for a replaced one.
//!
//! Each step finds the same to do when it is begun again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::ids::Offset;
use crate::platform::{DirectoryEntry, Disk, OpenMode};
use crate::storage::entry::{Entry, HEAD_BYTES_MAX, Scanned, Scanner};
use crate::storage::log::{LEADER_EPOCH_CHECKPOINT, LogError, PARTITION_METADATA};
use crate::storage::segment::{
    INDEX_FILE_BYTES_MAX, LOG, OFFSET_INDEX, SNAPSHOT, TIME_INDEX, TRANSACTION_INDEX, parse_segment_name, segment_path,
};
use crate::storage::transaction_index::TransactionIndex;

const DELETED_SUFFIX: &str = ".deleted";
pub(in crate::storage) const CLEANED_SUFFIX: &str = ".cleaned";
pub(in crate::storage) const SWAP_SUFFIX: &str = ".swap";
/// The files of one segment; the log goes last and comes first, so that none of the others is ever without it.
pub(in crate::storage) const SEGMENT_FILES: [&str; 5] = [OFFSET_INDEX, TIME_INDEX, TRANSACTION_INDEX, SNAPSHOT, LOG];

/// Blocks behind a log's end that are worth to be given back: what a file system rounds up to is less.
const RESERVED_BYTES_MIN: u64 = 1 << 20;

/// The directory's files, by what they are.
#[derive(Debug, Default)]
pub(in crate::storage) struct Files {
    /// Base offset and bytes of each `.log`.
    pub logs: BTreeMap<Offset, u64>,
    /// Bytes of each `.index`.
    pub offset_indexes: BTreeMap<Offset, u64>,
    pub time_indexes: BTreeMap<Offset, u64>,
    pub transaction_indexes: BTreeMap<Offset, u64>,
    pub snapshots: BTreeSet<Offset>,
    /// Logs with blocks reserved behind their end, which whoever reserved them did not live to give back.
    pub reserved: Vec<Offset>,
}

/// What a compaction or a deletion left over.
#[derive(Debug, Default)]
struct Leftovers<'a> {
    deleted: Vec<&'a str>,
    cleaned: Vec<(Offset, &'a str)>,
    /// Base offset, file name, and whether it is a log.
    swap: Vec<(Offset, &'a str, bool)>,
}

impl<'a> Leftovers<'a> {
    fn of(entries: &'a [DirectoryEntry]) -> Leftovers<'a> {
        let mut found = Leftovers::default();
        for entry in entries.iter().filter(|entry| !entry.is_directory) {
            let Some((base_offset, extension)) = parse_segment_name(&entry.name) else { continue };
            if extension.ends_with(DELETED_SUFFIX) {
                found.deleted.push(&entry.name);
            } else if extension.ends_with(CLEANED_SUFFIX) {
                found.cleaned.push((base_offset, &entry.name));
            } else if let Some(extension) = extension.strip_suffix(SWAP_SUFFIX) {
                found.swap.push((base_offset, &entry.name, extension == LOG));
            }
        }
        found
    }

    fn is_empty(&self) -> bool {
        self.deleted.is_empty() && self.cleaned.is_empty() && self.swap.is_empty()
    }
}

/// A partition's directory, its files named by base offset and extension.
#[derive(Clone, Debug)]
pub(in crate::storage) struct Directory<D: Disk> {
    pub disk: D,
    pub path: PathBuf,
}

impl<D: Disk> Directory<D> {
    pub fn path_of(&self, base_offset: Offset, extension: &str) -> PathBuf {
        segment_path(&self.path, base_offset, extension)
    }

    /// Settles what is left over, and says what is there then, and which indexes are without their log. Also whether
    /// anything was changed.
    pub async fn settle(&self, entries: Vec<DirectoryEntry>) -> Result<(Files, Vec<PathBuf>, bool), LogError> {
        let leftovers = Leftovers::of(&entries);
        let had_leftovers = !leftovers.is_empty();
        if had_leftovers {
            self.settle_leftovers(&entries, leftovers).await?;
        }
        let entries = match had_leftovers {
            true => self.disk.list(&self.path).await.map_err(LogError::io_at(&self.path))?,
            false => entries,
        };
        let (files, orphans) = sort(&entries);
        Ok((files, orphans.iter().map(|name| self.path.join(name)).collect(), had_leftovers))
    }

    /// Refuses names of ours that lead nowhere: a file that lies where nobody can look is not missing, and made anew it
    /// would be another one.
    pub fn refuse_broken_links(&self, entries: &[DirectoryEntry]) -> Result<(), LogError> {
        let is_ours = |name: &str| {
            parse_segment_name(name).is_some() || [LEADER_EPOCH_CHECKPOINT, PARTITION_METADATA].contains(&name)
        };
        match entries.iter().find(|entry| entry.is_broken_link && is_ours(&entry.name)) {
            None => Ok(()),
            Some(entry) => {
                let reason =
                    "a symbolic link that leads nowhere; bring back what it is to lead to, then restart".to_owned();
                Err(LogError::Malformed { path: self.path.join(&entry.name), reason })
            }
        }
    }

    /// Gives back the blocks that a process which did not stop in order had reserved behind the ends of logs.
    pub async fn give_back_blocks(&self, files: &Files) -> Result<(), LogError> {
        for base_offset in &files.reserved {
            let (file, length) = self.open(*base_offset, LOG).await?;
            let path = self.path_of(*base_offset, LOG);
            self.disk.set_length(&file, length).await.map_err(LogError::io_at(&path))?;
        }
        Ok(())
    }

    /// What is there now.
    pub async fn files(&self) -> Result<Files, LogError> {
        let entries = self.disk.list(&self.path).await.map_err(LogError::io_at(&self.path))?;
        Ok(sort(&entries).0)
    }

    async fn settle_leftovers(&self, entries: &[DirectoryEntry], leftovers: Leftovers<'_>) -> Result<(), LogError> {
        for name in leftovers.deleted {
            self.remove(&self.path.join(name)).await?;
        }
        let cleaned_min = leftovers.cleaned.iter().map(|(base_offset, _)| *base_offset).min().unwrap_or(Offset::MAX);
        let (swap, unfinished): (Vec<_>, Vec<_>) =
            leftovers.swap.into_iter().partition(|(base_offset, ..)| *base_offset < cleaned_min);
        for (_, name, _) in unfinished {
            self.remove(&self.path.join(name)).await?;
        }
        for (_, name) in leftovers.cleaned {
            self.remove(&self.path.join(name)).await?;
        }
        self.swap_in(entries, swap).await
    }

    async fn swap_in(&self, entries: &[DirectoryEntry], mut swap: Vec<(Offset, &str, bool)>) -> Result<(), LogError> {
        let (mut replaced_from, mut replaced_end) = (Offset::MAX, Offset::MIN);
        for (base_offset, name, _) in swap.iter().filter(|(_, _, is_log)| *is_log) {
            tracing::info!(directory = %self.path.display(), name, "an interrupted compaction is finished");
            replaced_from = replaced_from.min(*base_offset);
            replaced_end = replaced_end.max(self.end_offset(*base_offset, &self.path.join(name)).await?);
        }
        for entry in entries.iter().filter(|entry| !entry.is_directory) {
            let Some((base_offset, extension)) = parse_segment_name(&entry.name) else { continue };
            if SEGMENT_FILES.contains(&extension) && (replaced_from..replaced_end).contains(&base_offset) {
                self.remove(&self.path.join(&entry.name)).await?;
            }
        }
        swap.sort_by_key(|(base_offset, _, is_log)| (!*is_log, *base_offset));
        for (_, name, _) in swap {
            let from = self.path.join(name);
            let to = self.path.join(name.strip_suffix(SWAP_SUFFIX).unwrap_or(name));
            self.disk.rename(&from, &to).await.map_err(LogError::io_at(&from))?;
        }
        Ok(())
    }

    /// The offset behind the last batch of a log, whatever its name.
    async fn end_offset(&self, base_offset: Offset, path: &Path) -> Result<Offset, LogError> {
        let (file, length) = self.disk.open(path, OpenMode::Read).await.map_err(LogError::io_at(path))?;
        let mut scanner = Scanner::new(self.disk.clone(), file, 0, length);
        let mut end_offset = base_offset;
        loop {
            match scanner.next().await.map_err(LogError::io_at(path))? {
                Scanned::Entry { entry, .. } => end_offset = entry.last_offset.saturating_add(1),
                Scanned::End => return Ok(end_offset),
                Scanned::Torn { position, error } => {
                    let reason = format!(
                        "at position {position}: {error}; the compaction that wrote this file had finished it. Move all \
                         .swap files out of the directory to go on with the segments that they were to replace"
                    );
                    return Err(LogError::Malformed { path: path.to_owned(), reason });
                }
            }
        }
    }

    /// Removes a file; fine if it is gone already.
    pub async fn remove(&self, path: &Path) -> Result<(), LogError> {
        match self.disk.remove_file(path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::io_at(path)(error)),
            _ => Ok(()),
        }
    }

    /// Takes a segment out of the log: its files become `.deleted`, which the next open removes. Gives their new names.
    pub async fn set_aside(&self, base_offset: Offset) -> Result<Vec<PathBuf>, LogError> {
        self.set_files_aside(base_offset, SEGMENT_FILES).await
    }

    /// The same with some of a segment's files.
    pub async fn set_files_aside(
        &self,
        base_offset: Offset,
        extensions: impl IntoIterator<Item = &'static str>,
    ) -> Result<Vec<PathBuf>, LogError> {
        let mut aside = Vec::new();
        for extension in extensions {
            let from = self.path_of(base_offset, extension);
            let to = self.path_of(base_offset, &format!("{extension}{DELETED_SUFFIX}"));
            match self.disk.rename(&from, &to).await {
                Ok(()) => aside.push(to),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LogError::io_at(&from)(error)),
            }
        }
        Ok(aside)
    }

    /// Makes names durable: of files made, renamed and removed.
    pub async fn sync(&self) -> Result<(), LogError> {
        self.disk.sync_directory(&self.path).await.map_err(LogError::io_at(&self.path))
    }

    /// A segment's file for reading and writing, made if it is missing, and its length.
    pub async fn open(&self, base_offset: Offset, extension: &str) -> Result<(Arc<D::File>, u64), LogError> {
        let path = self.path_of(base_offset, extension);
        self.disk.open(&path, OpenMode::ReadWrite).await.map_err(LogError::io_at(&path))
    }

    /// A segment's index, whole; `None` if there is no such file.
    pub async fn read_index(&self, base_offset: Offset, extension: &str) -> Result<Option<Vec<u8>>, LogError> {
        let path = self.path_of(base_offset, extension);
        match self.disk.read_whole(&path, INDEX_FILE_BYTES_MAX).await {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io_at(&path)(error)),
        }
    }

    /// A segment's transaction index, empty if there is no such file; `None` if it is damaged.
    pub async fn transaction_index(&self, base_offset: Offset) -> Result<Option<TransactionIndex>, LogError> {
        let Some(file) = self.read_index(base_offset, TRANSACTION_INDEX).await? else {
            return Ok(Some(TransactionIndex::default()));
        };
        let parsed = TransactionIndex::parse(base_offset, &file);
        if let Err(error) = &parsed {
            let path = self.path_of(base_offset, TRANSACTION_INDEX);
            tracing::warn!(file = %path.display(), %error, "damaged transaction index, to be made anew");
        }
        Ok(parsed.ok())
    }

    /// The entry at `position` of a segment's file, if one that lies wholly in it stands there.
    pub async fn entry_at(
        &self,
        base_offset: Offset,
        file: &Arc<D::File>,
        position: u64,
        length: u64,
    ) -> Result<Option<Entry>, LogError> {
        let Some(left) = length.checked_sub(position) else { return Ok(None) };
        let head_bytes = left.min(HEAD_BYTES_MAX as u64) as usize;
        let read = self.disk.read(file, position, head_bytes).await;
        let head = read.map_err(LogError::io_at(&self.path_of(base_offset, LOG)))?;
        Ok(Entry::parse(&head).ok().filter(|entry| entry.bytes <= left))
    }

    /// Cuts a segment's index to `position` bytes and puts `data` behind them.
    pub async fn rewrite_index(
        &self,
        base_offset: Offset,
        extension: &str,
        position: u64,
        data: Vec<u8>,
    ) -> Result<Arc<D::File>, LogError> {
        let path = self.path_of(base_offset, extension);
        let (file, length) = self.disk.open(&path, OpenMode::ReadWrite).await.map_err(LogError::io_at(&path))?;
        if length != position {
            self.disk.set_length(&file, position).await.map_err(LogError::io_at(&path))?;
        }
        if !data.is_empty() {
            self.disk.write(&file, position, data).await.map_err(LogError::io_at(&path))?;
        }
        Ok(file)
    }
}

/// The files by what they are, and the names of indexes without their log.
fn sort(entries: &[DirectoryEntry]) -> (Files, Vec<String>) {
    let mut files = Files::default();
    for entry in entries.iter().filter(|entry| !entry.is_directory) {
        let Some((base_offset, extension)) = parse_segment_name(&entry.name) else { continue };
        let kind = match extension {
            LOG => {
                if entry.allocated_bytes >= entry.length + RESERVED_BYTES_MIN {
                    files.reserved.push(base_offset);
                }
                &mut files.logs
            }
            OFFSET_INDEX => &mut files.offset_indexes,
            TIME_INDEX => &mut files.time_indexes,
            TRANSACTION_INDEX => &mut files.transaction_indexes,
            SNAPSHOT => {
                files.snapshots.insert(base_offset);
                continue;
            }
            _ => continue,
        };
        kind.insert(base_offset, entry.length);
    }
    let is_orphan = |entry: &&DirectoryEntry| {
        let name = parse_segment_name(&entry.name).filter(|_| !entry.is_directory);
        name.is_some_and(|(base_offset, extension)| {
            [OFFSET_INDEX, TIME_INDEX, TRANSACTION_INDEX].contains(&extension) && !files.logs.contains_key(&base_offset)
        })
    };
    let orphans = entries.iter().filter(is_orphan).map(|entry| entry.name.clone()).collect();
    (files, orphans)
}
