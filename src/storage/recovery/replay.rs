//! The producer state of an offset: from the newest sound snapshot at or below it, and the batches behind that.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::files::Directory;
use crate::base::ids::Offset;
use crate::base::time::WallMs;
use crate::platform::Disk;
use crate::record::batch::BatchHeader;
use crate::storage::entry::{Entry, Scanned, Scanner};
use crate::storage::log::LogError;
use crate::storage::offset_index::OffsetIndex;
use crate::storage::producer_state::{Marker, ProducerState, SNAPSHOT_BYTES_MAX};
use crate::storage::segment::{LOG, OFFSET_INDEX, SNAPSHOT};
use crate::storage::transaction_index::EndedTransaction;

/// Producer state on its way through a log.
#[derive(Debug, Default)]
pub(in crate::storage) struct Replay {
    pub producers: ProducerState,
    /// Batches that end below are in it.
    pub offset: Offset,
    /// Offset of the snapshot that it began with.
    pub snapshot: Option<Offset>,
}

impl Replay {
    /// Begins with the newest sound snapshot at or below `offset_max`, or empty at `start_offset`. Also the offsets
    /// of snapshots that are not sound.
    ///
    /// Only what the snapshot holds is expired (Kafka 3.9 `ProducerStateManager.loadFromSnapshot`): a producer whose
    /// records are old by their own timestamps keeps its window until the first periodic look.
    pub async fn begin<D: Disk>(
        directory: &Directory<D>,
        snapshots: &BTreeSet<Offset>,
        offset_max: Offset,
        start_offset: Offset,
        expiry: (WallMs, i64),
    ) -> Result<(Replay, Vec<Offset>), LogError> {
        let mut damaged = Vec::new();
        for offset in snapshots.range(..=offset_max.max(0)).rev().copied() {
            let path = directory.path_of(offset, SNAPSHOT);
            let decoded = match directory.disk.read_whole(&path, SNAPSHOT_BYTES_MAX).await {
                Ok(file) => ProducerState::decode_snapshot(&file).map_err(|error| error.to_string()),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error.to_string()),
                Err(error) => return Err(LogError::io_at(&path)(error)),
            };
            match decoded {
                Ok(mut producers) => {
                    let (now, expiration_ms) = expiry;
                    producers.expire(now, expiration_ms);
                    return Ok((Replay { producers, offset, snapshot: Some(offset) }, damaged));
                }
                Err(error) => {
                    tracing::warn!(file = %path.display(), error, "producer snapshot not used");
                    damaged.push(offset);
                }
            }
        }
        Ok((Replay { producers: ProducerState::default(), offset: start_offset, snapshot: None }, damaged))
    }

    /// Takes up every batch of these segments that begins below `end_offset`; none of them is checked but by its head.
    pub async fn run<D: Disk>(
        &mut self,
        directory: &Directory<D>,
        logs: &BTreeMap<Offset, u64>,
        end_offset: Offset,
    ) -> Result<(), LogError> {
        if self.offset >= end_offset {
            return Ok(());
        }
        let first = logs.range(..=self.offset).next_back().map_or(Offset::MIN, |(base_offset, _)| *base_offset);
        for (base_offset, length) in logs.range(first..end_offset) {
            self.run_segment(directory, *base_offset, *length, end_offset).await?;
        }
        self.offset = self.offset.max(end_offset);
        Ok(())
    }

    async fn run_segment<D: Disk>(
        &mut self,
        directory: &Directory<D>,
        base_offset: Offset,
        length: u64,
        end_offset: Offset,
    ) -> Result<(), LogError> {
        let path = directory.path_of(base_offset, LOG);
        let io_at = LogError::io_at(&path);
        let (file, _) = directory.open(base_offset, LOG).await?;
        let mut position = 0;
        if let Some(index) = directory.read_index(base_offset, OFFSET_INDEX).await? {
            let size = u32::try_from(length).unwrap_or(u32::MAX);
            let index = OffsetIndex::decode(base_offset, u32::MAX, &index, size);
            if let Some(indexed) = index.lookup(self.offset) {
                let found = directory.entry_at(base_offset, &file, u64::from(indexed.position), length).await?;
                if found.is_some_and(|entry| indexed.points_at(base_offset, entry.last_offset)) {
                    position = u64::from(indexed.position);
                }
            }
        }
        let mut scanner = Scanner::new(directory.disk.clone(), file, position, length);
        let replayed = async {
            loop {
                match scanner.next().await? {
                    Scanned::Entry { entry, .. } if entry.base_offset >= end_offset => return Ok(()),
                    Scanned::Entry { position, entry } => self.note(&mut scanner, position, &entry).await?,
                    Scanned::End => return Ok(()),
                    Scanned::Torn { position, error } => {
                        let text = format!("at position {position}: {error}");
                        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                    }
                };
            }
        };
        replayed.await.map_err(io_at)
    }

    /// Takes up one entry of a scan, unless it is in the state already. Gives the transaction that it aborted.
    pub async fn note<D: Disk>(
        &mut self,
        scanner: &mut Scanner<D>,
        position: u64,
        entry: &Entry,
    ) -> io::Result<Option<EndedTransaction>> {
        if entry.last_offset < self.offset {
            return Ok(None);
        }
        self.offset = entry.last_offset.saturating_add(1);
        let Some(header) = entry.header.filter(BatchHeader::has_producer_id) else { return Ok(None) };
        if !header.is_control() {
            self.producers.apply(&header);
            return Ok(None);
        }
        let batch = scanner.bytes(position, entry.bytes as usize).await?;
        let marker = Marker::parse(&header, batch);
        let marker = marker.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let Some(marker) = marker else { return Ok(None) };
        let (_, ended) = self.producers.apply_marker(&marker);
        Ok(ended.filter(|_| marker.aborts))
    }
}
