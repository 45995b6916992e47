//! `.ringlog-cache-life`: while the page cache lives that it names, everything that was written to the directory's logs is
//! in their files, synced or not, and a start after a kill need not read all that is past the recovery points.
//!
//! ```text
//!  scan: the mark and the life of now -> logs are opened -> mark written -> ... -> stop in order: mark removed, then the
//!                                                                              |   clean-shutdown marker written
//!                                                                              kill: the mark stays, and holds
//! ```
//! - It is written when the logs are open: what a power cut left of one that nobody has looked at yet must not be believed
//!   by the start after next. Those that could not be opened are named in it, and are no part of what it says.
//! - It is never synced: a power cut takes the life that it names anyway. Without it, or with one that is damaged or of
//!   another life, a start checks what is past the recovery points.
//! - It goes at a stop in order, so that nothing is believed of what a Kafka does to the directory afterwards, and with the
//!   first error of the device: what could not be written back counts as clean, and may be dropped from the cache.
//!
//! The file is a checkpoint in form: a version, a count, the life, then `<topic> <partition>` lines. Kafka passes over it.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use crate::base::ids::TopicPartition;
use crate::platform::{Disk, OpenMode};
use crate::storage::checkpoint::{CHECKPOINT_BYTES_MAX, encode_lines, parse_lines};
use crate::storage::log_dir::LogDirError;

pub const CACHE_MARK: &str = ".ringlog-cache-life";

/// What the mark says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMark {
    pub life: String,
    /// What a life before this one left of their logs was not looked at since.
    pub unopened: BTreeSet<TopicPartition>,
}

impl CacheMark {
    /// Whether it was written in this life of the page cache.
    pub fn holds_in(&self, life: Option<&str>) -> bool {
        #[cfg(test)]
        if planted::ANY_LIFE_BELIEVED.get() {
            return true;
        }
        life == Some(&self.life)
    }

    fn parse(file: &[u8]) -> Option<CacheMark> {
        let lines = parse_lines(file).ok()?;
        let (life, names) = lines.split_first()?;
        let unopened = names.iter().map(|name| {
            let (topic, partition) = name.split_once(' ')?;
            Some(TopicPartition { topic: topic.into(), partition: partition.parse().ok()? })
        });
        Some(CacheMark { life: (*life).to_owned(), unopened: unopened.collect::<Option<_>>()? })
    }

    fn encode(&self) -> Vec<u8> {
        let names = self.unopened.iter().map(|name| format!("{} {}", name.topic, name.partition));
        let lines: Vec<_> = std::iter::once(self.life.clone()).chain(names).collect();
        encode_lines(lines.into_iter())
    }
}

/// The mark of a directory; `None` if there is none that can be read.
pub async fn read<D: Disk>(disk: &D, log_dir: &Path) -> Option<CacheMark> {
    let path = log_dir.join(CACHE_MARK);
    match disk.read_whole(&path, CHECKPOINT_BYTES_MAX).await {
        Ok(file) => CacheMark::parse(&file),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(file = %path.display(), %error, "not read: the start checks more of the logs");
            }
            None
        }
    }
}

/// Makes the mark say this. A crash on the way leaves none, or the one before.
pub async fn write<D: Disk>(disk: &D, log_dir: &Path, mark: &CacheMark) -> Result<(), LogDirError> {
    let path = log_dir.join(CACHE_MARK);
    let written = async {
        let (file, length) = disk.open(&path, OpenMode::ReadWrite).await?;
        if length > 0 {
            disk.set_length(&file, 0).await?;
        }
        disk.write(&file, 0, mark.encode()).await
    };
    written.await.map_err(|source| LogDirError::Io { path, source })
}

/// Takes the mark away; fine if there is none.
pub async fn remove<D: Disk>(disk: &D, log_dir: &Path) -> Result<(), LogDirError> {
    let path = log_dir.join(CACHE_MARK);
    match disk.remove_file(&path).await {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(LogDirError::Io { path, source }),
        _ => Ok(()),
    }
}

/// The planted bug that power cuts must find: what was written is believed to be there after a reboot.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    thread_local! {
        pub(crate) static ANY_LIFE_BELIEVED: Cell<bool> = const { Cell::new(false) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::disk::tests::run;
    use crate::storage::log_dir::tests::directory;

    fn mark(life: &str, unopened: &[(&str, i32)]) -> CacheMark {
        let name = |(topic, partition): &(&str, i32)| TopicPartition { topic: (*topic).into(), partition: *partition };
        CacheMark { life: life.to_owned(), unopened: unopened.iter().map(name).collect() }
    }

    #[test]
    fn a_mark_reads_back_and_a_shorter_one_takes_its_place() {
        let (disk, dir) = directory();
        assert_eq!(run(read(&disk, &dir)), None);
        for mark in [mark("a boot vda 7", &[("a-b", 0), ("c", 12)]), mark("a boot vda 8", &[])] {
            run(write(&disk, &dir, &mark)).unwrap();
            assert_eq!(run(read(&disk, &dir)).as_ref(), Some(&mark));
            assert!(mark.holds_in(Some(&mark.life)) && !mark.holds_in(Some("another")) && !mark.holds_in(None));
        }
        run(remove(&disk, &dir)).unwrap();
        run(remove(&disk, &dir)).unwrap();
        assert_eq!(run(read(&disk, &dir)), None);
    }

    #[test]
    fn a_damaged_mark_is_none_and_never_another_one() {
        let (disk, dir) = directory();
        let whole = mark("a boot vda 7", &[("a-b", 0), ("c", 12)]);
        let file = whole.encode();
        // Without the line's end all of it is there.
        for length in 0..file.len() - 1 {
            disk.put(&dir.join(CACHE_MARK), &file[..length]);
            let found = run(read(&disk, &dir));
            assert!(found.is_none_or(|found| found.life == whole.life && length == file.len() - 2), "{length}");
        }
        for garbage in
            [&b"\xff\xfe"[..], b"1\n1\nlife\n", b"0\n0\n", b"0\n2\nlife\na\n", b"0\n2\nlife\na x\n", &[0; 40]]
        {
            disk.put(&dir.join(CACHE_MARK), garbage);
            assert_eq!(run(read(&disk, &dir)), None, "{garbage:?}");
        }
    }
}
