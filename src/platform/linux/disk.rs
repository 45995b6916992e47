//! Files of one data directory: what may run on the shard runs here and now, all else on the directory's helper.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::metrics::ShardCounters;
use crate::platform::{DirectoryEntry, Disk, DiskFile, OpenMode};
use crate::sys;
use crate::uring::Ring;
use crate::uring::ops::read::{self, RingFile};
use crate::uring::ops::write;
use crate::worker::Helper;

/// An inline write over this sends the directory's appends to kernel workers for [`SLOW_FOR`].
const INLINE_WRITE_SLOW: Duration = Duration::from_millis(5);
const SLOW_FOR: Duration = Duration::from_millis(500);

/// The read-ahead limit assumed where sysfs does not tell: Linux's default.
const READ_AHEAD_BYTES_DEFAULT: u64 = 128 * 1024;

/// How much the fallback for cachestat reads at a time to see whether pages are resident.
const PROBE_BYTES: usize = 64 * 1024;

/// Bounds of a shard's use of its directory.
#[derive(Clone, Copy, Debug)]
pub struct DiskLimits {
    /// Cold bytes in flight, all readers of the shard together.
    pub cold_bytes_max: u64,
    /// The device's read-ahead limit: what one WILLNEED really reads.
    pub read_ahead_bytes: u64,
    /// Ask `cachestat(2)` what is resident (Linux 6.5). Otherwise, and on older kernels, ranges are read to find out.
    pub cachestat: bool,
}

impl DiskLimits {
    /// The limits for a directory, with the read-ahead limit of its device.
    pub fn of(directory: &Path, cold_bytes_max: u64, cachestat: bool) -> DiskLimits {
        let read_ahead_bytes = read_ahead_bytes(directory).unwrap_or(READ_AHEAD_BYTES_DEFAULT);
        DiskLimits { cold_bytes_max, read_ahead_bytes, cachestat }
    }
}

fn read_ahead_bytes(directory: &Path) -> Option<u64> {
    let device = std::fs::metadata(directory).ok()?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let block = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // A partition has its queue in the directory above, the disk's.
    let setting = std::fs::read_to_string(block.join("queue/read_ahead_kb"))
        .or_else(|_| std::fs::read_to_string(block.join("../queue/read_ahead_kb")))
        .ok()?;
    let bytes = setting.trim().parse::<u64>().ok()?.checked_mul(1024)?;
    (bytes >= sys::page_bytes()).then_some(bytes)
}

/// An open file; its last drop closes it on the helper.
#[derive(Debug)]
pub struct LinuxFile {
    /// `None` only inside `drop`.
    file: Option<File>,
    helper: Helper,
}

impl LinuxFile {
    fn file(&self) -> &File {
        self.file.as_ref().expect("taken only by drop")
    }
}

impl Drop for LinuxFile {
    fn drop(&mut self) {
        self.helper.drop_there(self.file.take());
    }
}

impl DiskFile for LinuxFile {}

impl AsFd for LinuxFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file().as_fd()
    }
}

impl RingFile for LinuxFile {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

#[derive(Clone)]
pub struct LinuxDisk(Rc<Inner>);

struct Inner {
    ring: Ring,
    helper: Helper,
    limits: DiskLimits,
    counters: Arc<ShardCounters>,
    slow_until: Cell<Option<Instant>>,
    cold: Rc<ColdBudget>,
}

impl LinuxDisk {
    pub fn new(ring: Ring, helper: Helper, limits: DiskLimits, counters: Arc<ShardCounters>) -> LinuxDisk {
        let cold = Rc::new(ColdBudget::new(limits.cold_bytes_max.max(limits.read_ahead_bytes)));
        LinuxDisk(Rc::new(Inner { ring, helper, limits, counters, slow_until: Cell::new(None), cold }))
    }

    /// Writes everything on this thread, unless the directory has been slow of late.
    fn append_inline(&self, file: &LinuxFile, position: u64, data: &[BytesMut]) -> Option<io::Result<()>> {
        let start = Instant::now();
        if self.0.slow_until.get().is_some_and(|until| start < until) {
            return None;
        }
        let result = pwrite_all(file.as_fd(), position, data);
        if start.elapsed() > INLINE_WRITE_SLOW {
            self.0.slow_until.set(Some(Instant::now() + SLOW_FOR));
        }
        Some(result)
    }

    fn on_helper<T: Send + 'static>(
        &self,
        file: &Arc<LinuxFile>,
        job: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> impl Future<Output = io::Result<T>> + 'static {
        let file = Arc::clone(file);
        self.0.helper.run(move || job(file.file()))
    }

    /// The fallback for kernels without cachestat: read the range with RWF_NOWAIT and see whether all of it comes.
    fn reads_resident(&self, file: &LinuxFile, position: u64, length: u64) -> bool {
        let mut buffer = vec![0; PROBE_BYTES.min(length as usize)];
        let (mut next, end) = (position, position + length);
        while next < end {
            let want = buffer.len().min((end - next) as usize);
            match self.read_resident(file, next, &mut buffer[..want]) {
                Ok(Some(count)) if count > 0 => next += count as u64,
                _ => return false,
            }
        }
        true
    }
}

fn pwrite_all(file: BorrowedFd<'_>, mut position: u64, data: &[BytesMut]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = data.iter().map(|bytes| IoSlice::new(bytes)).collect();
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let count = sys::pwritev(file, rest, position)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        position += count as u64;
        IoSlice::advance_slices(&mut rest, count);
    }
    Ok(())
}

impl Disk for LinuxDisk {
    type File = LinuxFile;

    fn read_resident(&self, file: &LinuxFile, position: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
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

    fn is_resident(&self, file: &LinuxFile, position: u64, length: u64) -> bool {
        if length == 0 {
            return true;
        }
        let end = position + length;
        let pages = end.div_ceil(sys::page_bytes()) - position / sys::page_bytes();
        if !self.0.limits.cachestat {
            return self.reads_resident(file, position, length);
        }
        match sys::pages_cached(file.as_fd(), position, length) {
            // A page that read-ahead has just asked for counts as cached: a read of the last byte tells.
            Ok(cached) => cached >= pages && matches!(self.read_resident(file, end - 1, &mut [0]), Ok(Some(_))),
            Err(_) => self.reads_resident(file, position, length),
        }
    }

    fn append(
        &self,
        file: &Arc<LinuxFile>,
        position: u64,
        data: Vec<BytesMut>,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let counters = &self.0.counters;
        counters.appends_total.add(1);
        counters.append_bytes_total.add(data.iter().map(|bytes| bytes.len() as u64).sum());
        let inline = self.append_inline(file, position, &data);
        if inline.is_none() {
            counters.appends_deferred_total.add(1);
        }
        let (ring, file) = (self.0.ring.clone(), Arc::clone(file));
        async move {
            match inline {
                Some(result) => result,
                None => write::write_all(&ring, &file, position, data).await,
            }
        }
    }

    fn make_resident(
        &self,
        file: &Arc<LinuxFile>,
        position: u64,
        length: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let (this, file) = (self.clone(), Arc::clone(file));
        async move {
            let end = position + length;
            let mut next = position;
            while next < end {
                let step = (end - next).min(this.0.limits.read_ahead_bytes);
                let permit = ColdBudget::acquire(&this.0.cold, step).await;
                read::will_need(&this.0.ring, &file, next, step).await?;
                drop(permit);
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
        let (path, helper) = (path.to_owned(), self.0.helper.clone());
        self.0.helper.run(move || {
            let mut options = File::options();
            options.read(true).write(mode != OpenMode::Read);
            options.create(mode == OpenMode::ReadWrite).create_new(mode == OpenMode::CreateNew);
            let file = options.open(&path)?;
            let length = file.metadata()?.len();
            Ok((Arc::new(LinuxFile { file: Some(file), helper }), length))
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

    fn preallocate(
        &self,
        file: &Arc<LinuxFile>,
        position: u64,
        length: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        self.on_helper(file, move |file| sys::preallocate(file.as_fd(), position, length))
    }

    fn sync(&self, file: &Arc<LinuxFile>) -> impl Future<Output = io::Result<()>> + 'static {
        self.on_helper(file, File::sync_data)
    }

    fn replace(&self, path: &Path, data: Vec<u8>) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.0.helper.run(move || {
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
        self.0.helper.run(move || {
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
        self.0.helper.run(move || {
            let mut entries = Vec::new();
            for entry in std::fs::read_dir(&path)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                let is_directory = metadata.is_dir();
                entries.push(DirectoryEntry {
                    name: entry.file_name().to_string_lossy().into_owned(),
                    is_directory,
                    length: if is_directory { 0 } else { metadata.len() },
                });
            }
            entries.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(entries)
        })
    }

    fn create_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.0.helper.run(move || {
            std::fs::create_dir_all(&path)?;
            sync_parent(&path)
        })
    }

    fn sync_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.0.helper.run(move || File::open(&path)?.sync_all())
    }

    fn remove_file(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.0.helper.run(move || std::fs::remove_file(&path))
    }

    fn remove_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.0.helper.run(move || std::fs::remove_dir_all(&path))
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.0.helper.run(move || std::fs::rename(&from, &to))
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Cold bytes that may be in flight at once; who comes first is served first.
struct ColdBudget {
    free: Cell<u64>,
    waiting: RefCell<VecDeque<Waker>>,
}

struct ColdPermit {
    budget: Rc<ColdBudget>,
    bytes: u64,
}

impl ColdBudget {
    fn new(bytes: u64) -> ColdBudget {
        ColdBudget { free: Cell::new(bytes), waiting: RefCell::default() }
    }

    /// Waits for room; `bytes` is at most the whole budget.
    async fn acquire(budget: &Rc<ColdBudget>, bytes: u64) -> ColdPermit {
        std::future::poll_fn(|context| {
            if budget.free.get() >= bytes {
                budget.free.set(budget.free.get() - bytes);
                return Poll::Ready(());
            }
            budget.waiting.borrow_mut().push_back(context.waker().clone());
            Poll::Pending
        })
        .await;
        ColdPermit { budget: Rc::clone(budget), bytes }
    }
}

impl Drop for ColdPermit {
    fn drop(&mut self) {
        self.budget.free.set(self.budget.free.get() + self.bytes);
        // All of them look again, in order: a later one may fit where the first does not yet.
        for waker in self.budget.waiting.borrow_mut().drain(..) {
            waker.wake();
        }
    }
}
