//! Files of the log directories: what may run on the shard runs here and now, all else on the directory's threads.

use std::cell::Cell;
use std::fs::{DirEntry, File};
use std::future::Future;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};

use super::Held;
use super::cache_life::cache_life;
use super::directory::{Directory, LinuxFile};
use crate::base::budget::Budget;
use crate::metrics::status::BoundUse;
use crate::metrics::{HeldCall, ShardCounters};
use crate::platform::{DirectoryEntry, Disk, OpenMode, Space};
use crate::sys;
use crate::uring::Ring;
use crate::uring::ops::read;
use crate::uring::ops::write;
use crate::worker::Helper;

/// After an inline write in which the shard slept for longer, the directory's appends go to kernel workers for
/// [`SLOW_TIMES`] as long, so that a device that hangs does not hold the shard once for each file (tuning.md).
const INLINE_WRITE_SLOW: Duration = Duration::from_millis(5);
const SLOW_TIMES: u32 = 4;
const SLOW_FOR_MAX: Duration = Duration::from_millis(500);

/// Blocks are reserved in pieces of this size: the kernel holds a file's lock for each, and an append to it waits as long.
const PREALLOCATE_PIECE_BYTES: u64 = 4 << 20;

/// What devices take in one request at least, if there is so much to read.
const REQUEST_BYTES: u64 = 128 * 1024;

/// The unit of `st_blocks`, whatever the file system's own is.
const STAT_BLOCK_BYTES: u64 = 512;

/// How much the fallback for cachestat reads at a time to see whether pages are resident.
const PROBE_BYTES: usize = 64 * 1024;

/// Appends of one directory that a shard has with kernel workers at once: the others keep workers of their own.
const DEFERRED_APPENDS_MAX: u64 = 16;

/// Cold steps of one directory that a shard has with kernel workers at once.
const COLD_STEPS_MAX: u64 = 16;

/// Kernel workers that a shard's ring may use for each directory: what the two bounds above allow, and as many again for
/// scans and look-ups.
pub const KERNEL_WORKERS_PER_DIRECTORY: u32 = 2 * (DEFERRED_APPENDS_MAX + COLD_STEPS_MAX) as u32;

/// How a shard uses its directories.
#[derive(Clone, Copy, Debug)]
pub struct DiskLimits {
    /// Cold bytes in flight, all readers of the shard and of one directory together.
    pub cold_bytes_max: u64,
    /// Ask `cachestat(2)` what is resident (Linux 6.5). Otherwise, and on older kernels, ranges are read to find out.
    pub cachestat: bool,
}

/// The log directories, for one shard.
#[derive(Clone)]
pub struct LinuxDisk(Rc<Inner>);

struct Inner {
    ring: Ring,
    directories: Vec<Share>,
    cachestat: bool,
    held: Held,
    counters: Arc<ShardCounters>,
}

/// What one shard has of one directory.
struct Share {
    directory: Arc<Directory>,
    /// Appends go to kernel workers until then.
    slow_until: Cell<Option<Instant>>,
    deferred_appends: Rc<Budget>,
    cold_bytes: Rc<Budget>,
    cold_steps: Rc<Budget>,
}

impl LinuxDisk {
    pub fn new(
        ring: Ring,
        directories: &[Arc<Directory>],
        limits: DiskLimits,
        held: Held,
        counters: Arc<ShardCounters>,
    ) -> LinuxDisk {
        let share = |directory: &Arc<Directory>| Share {
            directory: Arc::clone(directory),
            slow_until: Cell::new(None),
            deferred_appends: Budget::new(DEFERRED_APPENDS_MAX),
            cold_bytes: Budget::new(limits.cold_bytes_max),
            cold_steps: Budget::new(COLD_STEPS_MAX),
        };
        let directories = directories.iter().map(share).collect();
        LinuxDisk(Rc::new(Inner { ring, directories, cachestat: limits.cachestat, held, counters }))
    }

    /// What this shard has under way, all directories together.
    pub(super) fn bounds(&self) -> Vec<BoundUse> {
        let sum = |name, help, budget: fn(&Share) -> &Rc<Budget>| {
            let each = self.0.directories.iter().map(|share| BoundUse::of_budget(name, help, budget(share)));
            each.reduce(BoundUse::plus)
        };
        let all = [
            sum("cold_bytes", "Bytes on their way from the device into the page cache.", |share| &share.cold_bytes),
            sum("cold_steps", "Reads of the device that kernel workers do.", |share| &share.cold_steps),
            sum("deferred_appends", "Appends that kernel workers do.", |share| &share.deferred_appends),
        ];
        all.into_iter().flatten().collect()
    }

    /// The directory that holds `path`. Paths of a broker are always below one of its log directories.
    fn directory_of(&self, path: &Path) -> &Arc<Directory> {
        let share = self.0.directories.iter().find(|share| path.starts_with(&share.directory.path));
        &share.unwrap_or(&self.0.directories[0]).directory
    }

    fn names(&self, path: &Path) -> &Helper {
        self.directory_of(path).names(path)
    }

    fn share_of(&self, file: &LinuxFile) -> &Share {
        let share = self.0.directories.iter().find(|share| Arc::ptr_eq(&share.directory, &file.directory));
        share.unwrap_or(&self.0.directories[0])
    }

    /// Writes on this thread what can be written without waiting, as far as that can be known; how much it was.
    fn append_inline(&self, file: &LinuxFile, position: u64, data: &[BytesMut]) -> io::Result<u64> {
        let share = self.share_of(file);
        let tells_waits = file.directory.tells_waits();
        let is_held = || file.is_held(position) || share.slow_until.get().is_some_and(|until| Instant::now() < until);
        if !tells_waits && is_held() {
            return Ok(0);
        }
        let now = |slices: &[IoSlice<'_>], position| sys::pwritev_now(file.as_fd(), slices, position);
        let whole = |slices: &[IoSlice<'_>], position| sys::pwritev(file.as_fd(), slices, position);
        let write = || if tells_waits { pwrite(data, position, now) } else { pwrite(data, position, whole) };
        let (result, took) = self.0.held.during(HeldCall::Write, file.as_fd(), write);
        if matches!(&result, Err(error) if error.kind() == io::ErrorKind::Unsupported) {
            file.directory.set_tells_no_waits();
            return self.append_inline(file, position, data);
        }
        self.0.counters.append_time.record(took.time);
        if took.slept && took.time > INLINE_WRITE_SLOW {
            let reaction = (took.time * SLOW_TIMES).min(SLOW_FOR_MAX);
            share.slow_until.set(Some(Instant::now() + reaction));
        }
        result
    }

    /// Has a kernel worker write.
    async fn append_deferred(&self, file: &Arc<LinuxFile>, position: u64, data: Vec<BytesMut>) -> io::Result<()> {
        self.0.counters.appends_deferred_total.add(1);
        let start = Instant::now();
        let permits = Rc::clone(&self.share_of(file).deferred_appends);
        let _permit = permits.acquire(1).await;
        let result = write::write_all(&self.0.ring, file, position, data).await;
        self.0.counters.append_time.record(start.elapsed());
        result
    }

    fn on_helper<T: Send + 'static>(
        &self,
        file: &Arc<LinuxFile>,
        job: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> impl Future<Output = io::Result<T>> + 'static {
        let shared = Arc::clone(file);
        file.names.run(move || job(shared.file()))
    }

    /// As [`Disk::is_resident`] says, of at least a byte.
    fn all_resident(&self, file: &LinuxFile, position: u64, length: u64) -> bool {
        let end = position + length;
        let pages = end.div_ceil(sys::page_bytes()) - position / sys::page_bytes();
        if !self.0.cachestat {
            return reads_resident(file, position, length);
        }
        match sys::pages_cached(file.as_fd(), position, length) {
            // A page that read-ahead has just asked for counts as cached: a read of a byte tells.
            Ok(cached) => {
                let is_there = |at| matches!(pread_resident(file, at, &mut [0]), Ok(Some(_)));
                cached >= pages && marks(position, end).all(is_there)
            }
            Err(_) => reads_resident(file, position, length),
        }
    }
}

/// Bytes of a range of which at least one is in every request that reads a part of it: the last byte, and one in each
/// piece of [`REQUEST_BYTES`], since a long range is read by several requests, which complete in any order. What it begins
/// with can come by shorter ones: its first page with what was read before it, those behind that by a request that ends
/// where the kernel has read ahead.
fn marks(position: u64, end: u64) -> impl Iterator<Item = u64> {
    let second_page = (position / sys::page_bytes() + 1) * sys::page_bytes();
    let inner = (position + REQUEST_BYTES..end).step_by(REQUEST_BYTES as usize).map(|behind| behind - 1);
    [end - 1, position].into_iter().chain(Some(second_page).filter(|at| *at < end)).chain(inner)
}

/// What of the range's beginning the page cache holds; `None` if it is not its first byte.
fn pread_resident(file: &LinuxFile, position: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match sys::pread_resident(file.as_fd(), buffer, position) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        // A file system without RWF_NOWAIT (overlayfs, old tmpfs): its pages can only be counted.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            match sys::pages_cached(file.as_fd(), position, buffer.len() as u64) {
                Ok(0) if !buffer.is_empty() && position < file.file().metadata()?.len() => Ok(None),
                _ => file.file().read_at(buffer, position).map(Some),
            }
        }
        Err(error) => Err(error),
    }
}

/// The fallback for kernels without cachestat: read the range with RWF_NOWAIT and see whether all of it comes.
fn reads_resident(file: &LinuxFile, position: u64, length: u64) -> bool {
    let mut buffer = vec![0; PROBE_BYTES.min(length as usize)];
    let (mut next, end) = (position, position + length);
    while next < end {
        let want = buffer.len().min((end - next) as usize);
        match pread_resident(file, next, &mut buffer[..want]) {
            Ok(Some(count)) if count > 0 => next += count as u64,
            _ => return false,
        }
    }
    true
}

/// Writes one after the other, until it would have to wait; how much was written.
fn pwrite(
    data: &[BytesMut],
    position: u64,
    write: impl Fn(&[IoSlice<'_>], u64) -> io::Result<usize>,
) -> io::Result<u64> {
    let mut slices: Vec<IoSlice<'_>> = data.iter().map(|bytes| IoSlice::new(bytes)).collect();
    let mut rest = &mut slices[..];
    let mut next = position;
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match write(rest, next) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                next += count as u64;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(next - position)
}

/// What is left of `data` behind its first `count` bytes.
fn behind(mut data: Vec<BytesMut>, mut count: u64) -> Vec<BytesMut> {
    data.retain_mut(|bytes| {
        let gone = count.min(bytes.len() as u64);
        bytes.advance(gone as usize);
        count -= gone;
        !bytes.is_empty()
    });
    data
}

impl Disk for LinuxDisk {
    type File = LinuxFile;

    fn read_resident(&self, file: &LinuxFile, position: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.0.held.during(HeldCall::Read, file.as_fd(), || pread_resident(file, position, buffer)).0
    }

    fn is_resident(&self, file: &LinuxFile, position: u64, length: u64) -> bool {
        length == 0 || self.0.held.during(HeldCall::Read, file.as_fd(), || self.all_resident(file, position, length)).0
    }

    fn append(
        &self,
        file: &Arc<LinuxFile>,
        position: u64,
        data: Vec<BytesMut>,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let (this, file) = (self.clone(), Arc::clone(file));
        async move {
            let length = data.iter().map(|bytes| bytes.len() as u64).sum();
            this.0.counters.appends_total.add(1);
            this.0.counters.append_bytes_total.add(length);
            if file.directory.is_over_budget() {
                file.directory.room().await;
            }
            file.directory.check()?;
            let result = match this.append_inline(&file, position, &data) {
                Ok(written) if written < length => {
                    this.append_deferred(&file, position + written, behind(data, written)).await
                }
                written => written.map(drop),
            };
            file.finish_append(position, length, result)
        }
    }

    fn make_resident(
        &self,
        file: &Arc<LinuxFile>,
        position: u64,
        length: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let (this, file) = (self.clone(), Arc::clone(file));
        let share = self.share_of(&file);
        let (bytes, steps) = (Rc::clone(&share.cold_bytes), Rc::clone(&share.cold_steps));
        async move {
            let end = position + length;
            let mut next = position;
            while next < end {
                let step = (end - next).min(file.directory.read_ahead_bytes);
                let permits = (bytes.acquire(step).await, steps.acquire(1).await);
                read::will_need(&this.0.ring, &file, next, step).await?;
                for mark in marks(next, next + step).skip(1) {
                    read::read(&this.0.ring, &file, mark, 1).await?;
                }
                drop(permits);
                this.0.counters.cold_bytes_total.add(step);
                next += step;
            }
            Ok(())
        }
    }

    fn read(
        &self,
        file: &Arc<LinuxFile>,
        position: u64,
        length: usize,
    ) -> impl Future<Output = io::Result<BytesMut>> + 'static {
        let (ring, file) = (self.0.ring.clone(), Arc::clone(file));
        async move { read::read(&ring, &file, position, length).await }
    }

    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<(Arc<LinuxFile>, u64)>> + 'static {
        let (path, directory) = (path.to_owned(), Arc::clone(self.directory_of(path)));
        self.names(&path).run(move || {
            let mut options = File::options();
            options.read(true).write(mode != OpenMode::Read);
            options.create(mode == OpenMode::ReadWrite).create_new(mode == OpenMode::CreateNew);
            let file = options.open(&path)?;
            let length = file.metadata()?.len();
            Ok((Arc::new(LinuxFile::new(file, &path, directory)), length))
        })
    }

    fn write(
        &self,
        file: &Arc<LinuxFile>,
        position: u64,
        data: Vec<u8>,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        self.on_helper(file, move |file| file.write_all_at(&data, position))
    }

    fn set_length(&self, file: &Arc<LinuxFile>, length: u64) -> impl Future<Output = io::Result<()>> + 'static {
        self.on_helper(file, move |file| file.set_len(length))
    }

    fn give_back(&self, file: &Arc<LinuxFile>, length: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let shared = Arc::clone(file);
        file.directory.syncs.run(move || shared.file().set_len(length))
    }

    fn preallocate(
        &self,
        file: &Arc<LinuxFile>,
        position: u64,
        length: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let shared = Arc::clone(file);
        file.names.run(move || {
            let end = position + length;
            (position..end)
                .step_by(PREALLOCATE_PIECE_BYTES as usize)
                .try_for_each(|next| shared.reserve(next, PREALLOCATE_PIECE_BYTES.min(end - next)))
        })
    }

    fn sync(&self, file: &Arc<LinuxFile>) -> impl Future<Output = io::Result<()>> + 'static {
        let shared = Arc::clone(file);
        file.directory.syncs.run(move || shared.sync())
    }

    fn replace(&self, path: &Path, data: Vec<u8>) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.directory_of(&path).syncs.run(move || {
            let mut name = path.clone().into_os_string();
            name.push(".tmp");
            let temporary = PathBuf::from(name);
            let mut file = File::create(&temporary)?;
            file.write_all(&data)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            sync_parent(&path)
        })
    }

    fn read_whole(&self, path: &Path, length_max: usize) -> impl Future<Output = io::Result<Vec<u8>>> + 'static {
        let path = path.to_owned();
        self.names(&path).run(move || {
            let mut data = Vec::new();
            File::open(&path)?.take(length_max as u64 + 1).read_to_end(&mut data)?;
            if data.len() > length_max {
                let message = format!("{} is longer than {length_max} bytes", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            Ok(data)
        })
    }

    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirectoryEntry>>> + 'static {
        let path = path.to_owned();
        self.names(&path).run(move || {
            let mut entries = Vec::new();
            for entry in std::fs::read_dir(&path).map_err(|error| name_broken_link(&path, error))? {
                entries.extend(listed(&entry?)?);
            }
            entries.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(entries)
        })
    }

    fn create_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.names(&path).run(move || {
            std::fs::create_dir_all(&path)?;
            sync_parent(&path)
        })
    }

    fn space(&self, path: &Path) -> impl Future<Output = io::Result<Space>> + 'static {
        let (directory, path) = (Arc::clone(self.directory_of(path)), path.to_owned());
        self.names(&path).run(move || {
            directory.check()?;
            let stat = nix::sys::statvfs::statvfs(&path)?;
            let unit = stat.fragment_size();
            Ok(Space { free_bytes: stat.blocks_available() * unit, total_bytes: stat.blocks() * unit })
        })
    }

    fn sync_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.directory_of(&path).syncs.run(move || File::open(&path)?.sync_all())
    }

    fn cache_life(&self, path: &Path) -> impl Future<Output = io::Result<Option<String>>> + 'static {
        let path = path.to_owned();
        self.names(&path).run(move || cache_life(&path))
    }

    fn remove_file(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.directory_of(&path).removals.run(move || std::fs::remove_file(&path))
    }

    fn remove_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.directory_of(&path).removals.run(move || std::fs::remove_dir_all(&path))
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.names(&from).run(move || std::fs::rename(&from, &to))
    }
}

/// What is known of an entry; `None` if it has gone since.
fn listed(entry: &DirEntry) -> io::Result<Option<DirectoryEntry>> {
    let own = match entry.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        own => own?,
    };
    let target = if own.is_symlink() { std::fs::metadata(entry.path()).ok() } else { Some(own) };
    let name = entry.file_name().to_string_lossy().into_owned();
    let Some(metadata) = target else {
        let is_broken_link = true;
        return Ok(Some(DirectoryEntry {
            name,
            is_directory: false,
            is_broken_link,
            length: 0,
            allocated_bytes: 0,
            modified: 0,
        }));
    };
    let is_directory = metadata.is_dir();
    let of_file = |bytes: u64| if is_directory { 0 } else { bytes };
    Ok(Some(DirectoryEntry {
        name,
        is_directory,
        is_broken_link: false,
        length: of_file(metadata.len()),
        allocated_bytes: of_file(metadata.blocks() * STAT_BLOCK_BYTES),
        modified: metadata.mtime().saturating_mul(1000) + metadata.mtime_nsec() / 1_000_000,
    }))
}

/// A directory that is not there, or can't be reached, where a symbolic link says it is: that is no reason to make it anew.
fn name_broken_link(path: &Path, error: io::Error) -> io::Error {
    match std::fs::read_link(path) {
        Ok(target) => {
            let text = format!("a symbolic link to {}, which can't be used: {error}", target.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        }
        Err(_) => error,
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_that_reads_a_part_of_a_range_has_a_mark_in_it() {
        let page = sys::page_bytes();
        for position in (0..4 * REQUEST_BYTES).step_by(3001) {
            for length in [1, page, REQUEST_BYTES - 1, REQUEST_BYTES, REQUEST_BYTES + 1, 1 << 20] {
                let end = position + length;
                let marks: Vec<_> = marks(position, end).collect();
                let has_mark = |request: &std::ops::Range<u64>| marks.iter().any(|mark| request.contains(mark));
                assert!(marks.iter().all(|mark| (position..end).contains(mark)));
                let whole = (0..end).step_by(3001).map(|start| start..start + REQUEST_BYTES);
                let second = (position / page + 1) * page;
                let short = [0..second, second..second + page];
                for request in whole.chain(short).filter(|request| request.start < end && request.end > position) {
                    assert!(has_mark(&request), "{request:?} reads a part of {position}..{end}");
                }
            }
        }
    }
}
