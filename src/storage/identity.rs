//! What a partition's directory says of the partition, read without opening its log: for the import of a directory.

#![forbid(unsafe_code)]

use std::io;
use std::path::Path;

use crate::base::ids::{LeaderEpoch, TopicId, TopicPartition};
use crate::platform::{Disk, OpenMode};
use crate::storage::entry::{Scanned, Scanner};
use crate::storage::leader_epoch::LeaderEpochs;
use crate::storage::log::{LEADER_EPOCH_CHECKPOINT, LogError, PARTITION_METADATA};
use crate::storage::recovery::{EPOCH_CHECKPOINT_BYTES_MAX, SMALL_FILE_BYTES_MAX, parse_partition_metadata};
use crate::storage::segment::{LOG, parse_segment_name};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `None` without `partition.metadata`.
    pub topic_id: Option<TopicId>,
    /// The newest epoch in `leader-epoch-checkpoint`, or without that file of the newest batch; `None`: there is none.
    pub latest_epoch: Option<LeaderEpoch>,
}

/// Reads a partition's identity; changes nothing.
///
/// # Errors
/// `Malformed` names a file that is there and can't be read as what it is.
pub async fn read<D: Disk>(disk: &D, log_dir: &Path, partition: &TopicPartition) -> Result<Identity, LogError> {
    let directory = log_dir.join(partition.to_string());
    let path = directory.join(PARTITION_METADATA);
    let malformed = |path: &Path, reason: String| LogError::Malformed { path: path.to_owned(), reason };
    let topic_id = match read_if_there(disk, &path, SMALL_FILE_BYTES_MAX).await? {
        None => None,
        Some(file) => match parse_partition_metadata(&file).filter(|id| *id != TopicId::ZERO) {
            Some(id) => Some(id),
            None => return Err(malformed(&path, "no topic id of version 0".to_owned())),
        },
    };
    let path = directory.join(LEADER_EPOCH_CHECKPOINT);
    let latest_epoch = match read_if_there(disk, &path, EPOCH_CHECKPOINT_BYTES_MAX).await? {
        Some(file) => LeaderEpochs::parse(&file).map_err(|error| malformed(&path, error.to_string()))?.latest(),
        None => None,
    };
    match latest_epoch {
        Some(_) => Ok(Identity { topic_id, latest_epoch }),
        None => Ok(Identity { topic_id, latest_epoch: newest_in_log(disk, &directory).await? }),
    }
}

async fn read_if_there<D: Disk>(disk: &D, path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, LogError> {
    match disk.read_whole(path, bytes_max).await {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogError::io_at(path)(error)),
    }
}

/// The epoch of the last whole batch: epochs never fall within a log. Logs from before Kafka 0.11 have none.
async fn newest_in_log<D: Disk>(disk: &D, directory: &Path) -> Result<Option<LeaderEpoch>, LogError> {
    let entries = disk.list(directory).await.map_err(LogError::io_at(directory))?;
    let is_log = |name: &str| parse_segment_name(name).is_some_and(|(_, extension)| extension == LOG);
    let logs = entries.iter().rev().filter(|entry| !entry.is_directory && entry.length > 0 && is_log(&entry.name));
    for entry in logs {
        let path = directory.join(&entry.name);
        let (file, length) = disk.open(&path, OpenMode::Read).await.map_err(LogError::io_at(&path))?;
        let mut scanner = Scanner::new(disk.clone(), file, 0, length);
        let mut newest = None;
        while let Scanned::Entry { entry, .. } = scanner.next().await.map_err(LogError::io_at(&path))? {
            newest = Some(entry.leader_epoch).filter(|epoch| *epoch >= 0).max(newest);
        }
        if newest.is_some() {
            return Ok(newest);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::record::batch::BatchBuilder;
    use crate::record::compression::Codec;
    use crate::sim::disk::FakeDisk;
    use crate::sim::disk::tests::run;

    const ID: &str = "f1E3-KkETBuUkT4m46-H6w";

    fn identity(files: &[(&str, &[u8])]) -> Result<Identity, LogError> {
        let (disk, log_dir) = (FakeDisk::new(), PathBuf::from("/data"));
        run(disk.create_directory(&log_dir.join("a-0"))).unwrap();
        files.iter().for_each(|(name, data)| disk.put(&log_dir.join("a-0").join(name), data));
        run(read(&disk, &log_dir, &TopicPartition { topic: "a".into(), partition: 0 }))
    }

    #[test]
    fn id_and_epoch_come_from_their_files() {
        let metadata = format!("version: 0\ntopic_id: {ID}");
        let files = [(PARTITION_METADATA, metadata.as_bytes()), (LEADER_EPOCH_CHECKPOINT, b"0\n2\n0 0\n5 30\n")];
        let found = identity(&files).unwrap();
        assert_eq!(found, Identity { topic_id: TopicId::parse(ID), latest_epoch: Some(5) });
        assert_eq!(identity(&[]).unwrap(), Identity { topic_id: None, latest_epoch: None });
    }

    #[test]
    fn without_a_checkpoint_the_newest_batch_says_the_epoch() {
        let segment = |epochs: &[LeaderEpoch]| {
            let batches = epochs.iter().enumerate().map(|(offset, epoch)| {
                let mut builder = BatchBuilder::new(Codec::None).base_offset(offset as i64).leader_epoch(*epoch);
                builder.push(1, None, Some(b"value"), &[]);
                builder.build()
            });
            batches.flatten().collect::<Vec<u8>>()
        };
        let (first, second) = (segment(&[1, 2]), segment(&[3, 3, 7]));
        let torn = [&second[..], &[0; 30]].concat();
        let names = ["00000000000000000000.log", "00000000000000000002.log", "00000000000000000009.log"];
        let newest = |files: &[(&str, &[u8])]| identity(files).unwrap().latest_epoch;
        assert_eq!(newest(&[(names[0], &first), (names[1], &second), (names[2], b"")]), Some(7));
        assert_eq!(newest(&[(names[0], &first), (names[1], &torn)]), Some(7));
        assert_eq!(newest(&[(names[0], &first), (LEADER_EPOCH_CHECKPOINT, b"0\n0\n")]), Some(2));
    }

    #[test]
    fn files_that_are_there_must_be_sound() {
        for (name, data) in [
            (PARTITION_METADATA, &b"version: 1\ntopic_id: x"[..]),
            (PARTITION_METADATA, b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA"),
            (LEADER_EPOCH_CHECKPOINT, b"garbage"),
        ] {
            let error = identity(&[(name, data)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
