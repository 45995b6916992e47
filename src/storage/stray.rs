//! Directories under a partition's name that are not that partition's, and what becomes of them.
//!
//! The records of one topic are never served as another's: whoever is to make a log where a directory lies first asks
//! whether it is the topic's own, and else gives it another name, under which nobody looks for it and nothing is lost
//! (Kafka 3.9 `LogManager.loadLog` of a stray log).

#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};

use crate::base::ids::{TopicId, TopicPartition};
use crate::platform::{DirectoryEntry, Disk};
use crate::storage::log::{LogError, PARTITION_METADATA};
use crate::storage::log_dir::{STRAY_SUFFIX, aside_name};
use crate::storage::recovery::{SMALL_FILE_BYTES_MAX, parse_partition_metadata};
use crate::storage::segment::parse_segment_name;

/// What lies where a new partition's log is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// This very topic's, or what a creation that was interrupted has left: nothing but empty files.
    Own,
    Foreign,
}

/// Looks what lies under the name of a partition that was never led.
///
/// # Errors
/// `Io` of the directory; what can't be read within it is foreign.
pub async fn look<D: Disk>(
    disk: &D,
    log_dir: &Path,
    topic_partition: &TopicPartition,
    topic_id: TopicId,
) -> Result<Found, LogError> {
    let directory = log_dir.join(topic_partition.to_string());
    let entries = match disk.list(&directory).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        // A symbolic link that leads nowhere.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(Found::Foreign),
        Err(error) => return Err(LogError::io_at(&directory)(error)),
    };
    let path = directory.join(PARTITION_METADATA);
    let is_own = match disk.read_whole(&path, SMALL_FILE_BYTES_MAX).await {
        Ok(file) => parse_partition_metadata(&file) == Some(topic_id),
        Err(error) if error.kind() == io::ErrorKind::NotFound => entries.iter().all(is_of_a_beginning),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => false,
        Err(error) => return Err(LogError::io_at(&path)(error)),
    };
    Ok(if is_own { Found::Own } else { Found::Foreign })
}

/// Whether an entry is of a log that nothing was ever appended to, before its topic id was written.
fn is_of_a_beginning(entry: &DirectoryEntry) -> bool {
    let is_first = parse_segment_name(&entry.name).is_none_or(|(base_offset, _)| base_offset == 0);
    let is_id_under_way = entry.name.strip_suffix(".tmp") == Some(PARTITION_METADATA);
    !entry.is_directory && !entry.is_broken_link && is_first && (entry.length == 0 || is_id_under_way)
}

/// Gives a partition's directory the name of a stray one, durably; a symbolic link is renamed itself. `None` if there is
/// no such directory. `unique` keeps it apart from others.
pub async fn set_aside<D: Disk>(
    disk: &D,
    log_dir: &Path,
    topic_partition: &TopicPartition,
    unique: [u8; 16],
) -> Result<Option<PathBuf>, LogError> {
    let directory = log_dir.join(topic_partition.to_string());
    let aside = log_dir.join(aside_name(topic_partition, unique, STRAY_SUFFIX));
    match disk.rename(&directory, &aside).await {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io_at(&directory)(error)),
    }
    disk.sync_directory(log_dir).await.map_err(LogError::io_at(log_dir))?;
    Ok(Some(aside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::disk::FakeDisk;
    use crate::sim::disk::tests::run;

    const ID: TopicId = TopicId([7; 16]);
    const LOG_FILE: &str = "00000000000000000000.log";

    fn partition() -> TopicPartition {
        TopicPartition { topic: "a".into(), partition: 3 }
    }

    fn found(files: &[(&str, &[u8])]) -> Found {
        let disk = FakeDisk::new();
        run(disk.create_directory(Path::new("/data/a-3"))).unwrap();
        files.iter().for_each(|(name, data)| disk.put(&Path::new("/data/a-3").join(name), data));
        run(look(&disk, Path::new("/data"), &partition(), ID)).unwrap()
    }

    #[test]
    fn a_directory_is_a_new_topics_own_by_its_id_or_as_the_beginning_of_a_log() {
        let metadata = |id: TopicId| format!("version: 0\ntopic_id: {id}");
        let (own, other) = (metadata(ID), metadata(TopicId([8; 16])));
        assert_eq!(found(&[(PARTITION_METADATA, own.as_bytes()), (LOG_FILE, b"records")]), Found::Own);
        assert_eq!(found(&[]), Found::Own);
        assert_eq!(found(&[(LOG_FILE, b""), ("partition.metadata.tmp", b"version")]), Found::Own);
        assert_eq!(found(&[(PARTITION_METADATA, other.as_bytes())]), Found::Foreign);
        assert_eq!(found(&[(PARTITION_METADATA, b"garbage")]), Found::Foreign);
        assert_eq!(found(&[(LOG_FILE, b"records")]), Found::Foreign);
        assert_eq!(found(&[("00000000000000000500.log", b"")]), Found::Foreign);
        assert_eq!(found(&[(LOG_FILE, b""), ("leader-epoch-checkpoint", b"0\n1\n5 0\n")]), Found::Foreign);
        let nothing = run(look(&FakeDisk::new(), Path::new("/data"), &partition(), ID)).unwrap();
        assert_eq!(nothing, Found::Nothing);
    }

    #[test]
    fn what_is_set_aside_keeps_all_its_files_under_kafkas_name_for_it_even_if_the_power_goes() {
        let disk = FakeDisk::new();
        disk.put(&Path::new("/data/a-3").join(LOG_FILE), b"records");
        let aside = run(set_aside(&disk, Path::new("/data"), &partition(), [0xab; 16])).unwrap().unwrap();
        assert_eq!(aside, Path::new("/data/a-3.abababababababababababababababab-stray"));
        for seed in 0..8 {
            assert_eq!(disk.power_cut(seed).contents(&aside.join(LOG_FILE)).unwrap(), b"records");
        }
        assert_eq!(run(set_aside(&disk, Path::new("/data"), &partition(), [0xab; 16])).unwrap(), None);
    }
}
