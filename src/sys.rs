//! Thin libc calls that are not ring operations. Each returns `io::Result` and retries `EINTR`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The longest vector that one `pwritev` takes (`UIO_MAXIOV`).
pub const IOV_COUNT_MAX: usize = 1024;

fn retry(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        let result = call();
        if let Ok(count) = usize::try_from(result) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// `sendfile(2)`: from the page cache to a socket. `WouldBlock` when the socket's buffer is full; 0 at the file's end.
pub fn sendfile(socket: BorrowedFd<'_>, file: BorrowedFd<'_>, position: u64, length: usize) -> io::Result<usize> {
    let mut offset = position as libc::off64_t;
    // SAFETY: both descriptors are borrowed for the call and `offset` is a local that outlives it.
    retry(|| unsafe { libc::sendfile64(socket.as_raw_fd(), file.as_raw_fd(), &mut offset, length) })
}

/// `send(2)` without waiting and without SIGPIPE. `more`: MSG_MORE, the kernel may wait for what follows.
pub fn send_now(socket: BorrowedFd<'_>, data: &[u8], more: bool) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
    // SAFETY: pointer and length describe `data`, which is borrowed for the call and only read.
    retry(|| unsafe { libc::send(socket.as_raw_fd(), data.as_ptr().cast(), data.len(), flags) })
}

/// `pwritev(2)`. May write less than all.
pub fn pwritev(file: BorrowedFd<'_>, data: &[io::IoSlice<'_>], position: u64) -> io::Result<usize> {
    let count = data.len().min(IOV_COUNT_MAX) as libc::c_int;
    // SAFETY: IoSlice has the layout of iovec (std guarantees it), and the slices are borrowed for the call.
    retry(|| unsafe { libc::pwritev64(file.as_raw_fd(), data.as_ptr().cast(), count, position as libc::off64_t) })
}

/// `pwritev2(2)` with RWF_NOWAIT: only what can be written without waiting. `WouldBlock` when that is nothing,
/// `Unsupported` on file systems that can't tell (ext4). May write less than all.
pub fn pwritev_now(file: BorrowedFd<'_>, data: &[io::IoSlice<'_>], position: u64) -> io::Result<usize> {
    let count = data.len().min(IOV_COUNT_MAX) as libc::c_int;
    let (vector, position) = (data.as_ptr().cast(), position as libc::off64_t);
    // SAFETY: as for pwritev.
    let written = retry(|| unsafe { libc::pwritev2(file.as_raw_fd(), vector, count, position, libc::RWF_NOWAIT) });
    written.map_err(|error| match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => io::ErrorKind::Unsupported.into(),
        _ => error,
    })
}

/// `preadv2(2)` with RWF_NOWAIT: only what the page cache holds. `WouldBlock` when the first byte is not there.
pub fn pread_resident(file: BorrowedFd<'_>, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: the vector describes `buffer`, which is borrowed mutably for the call.
    retry(|| unsafe { libc::preadv2(file.as_raw_fd(), &vector, 1, position as libc::off64_t, libc::RWF_NOWAIT) })
}

/// Reserves blocks without changing the file's length (FALLOC_FL_KEEP_SIZE).
pub fn preallocate(file: BorrowedFd<'_>, position: u64, length: u64) -> io::Result<()> {
    // SAFETY: no memory is passed.
    retry(|| unsafe {
        libc::fallocate64(
            file.as_raw_fd(),
            libc::FALLOC_FL_KEEP_SIZE,
            position as libc::off64_t,
            length as libc::off64_t,
        ) as libc::ssize_t
    })
    .map(drop)
}

/// Has the kernel begin to write the dirty pages of a range to the device (`sync_file_range`). What is being written already
/// is passed over: with the waiting flags in the same call the kernel would wait for it with the folio locked, and an append
/// to that folio too.
pub fn start_write_back(file: BorrowedFd<'_>, position: u64, length: u64) -> io::Result<()> {
    sync_file_range(file, position, length, libc::SYNC_FILE_RANGE_WRITE)
}

/// Waits until no page of a range is being written to the device. Not durable: the device's cache and the file's metadata
/// are not flushed. The first error of a page is told once.
pub fn wait_written_back(file: BorrowedFd<'_>, position: u64, length: u64) -> io::Result<()> {
    sync_file_range(file, position, length, libc::SYNC_FILE_RANGE_WAIT_BEFORE)
}

fn sync_file_range(file: BorrowedFd<'_>, position: u64, length: u64, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: no memory is passed.
    retry(|| unsafe {
        libc::sync_file_range(file.as_raw_fd(), position as libc::off64_t, length as libc::off64_t, flags)
            as libc::ssize_t
    })
    .map(drop)
}

/// Drops a file's clean pages in a range from the page cache (POSIX_FADV_DONTNEED).
pub fn evict(file: BorrowedFd<'_>, position: u64, length: u64) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let error = unsafe {
        libc::posix_fadvise64(
            file.as_raw_fd(),
            position as libc::off64_t,
            length as libc::off64_t,
            libc::POSIX_FADV_DONTNEED,
        )
    };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

#[repr(C)]
struct CachestatRange {
    position: u64,
    length: u64,
}

#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// The same number on every architecture that has it.
const SYS_CACHESTAT: libc::c_long = 451;

/// Set once the kernel has said that it has no cachestat (before 6.5), so that it is asked once.
static CACHESTAT_MISSING: AtomicBool = AtomicBool::new(false);

/// How many pages of a range are in the page cache, by `cachestat(2)` (Linux 6.5). A page on its way from the disk
/// counts as present. `Unsupported` on older kernels.
pub fn pages_cached(file: BorrowedFd<'_>, position: u64, length: u64) -> io::Result<u64> {
    if CACHESTAT_MISSING.load(Ordering::Relaxed) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let range = CachestatRange { position, length };
    let mut stat = Cachestat::default();
    // SAFETY: both structs have the kernel's layout (include/uapi/linux/mman.h) and outlive the call.
    let result = retry(|| unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, 0) as libc::ssize_t
    });
    match result {
        Ok(_) => Ok(stat.cached),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            CACHESTAT_MISSING.store(true, Ordering::Relaxed);
            Err(io::ErrorKind::Unsupported.into())
        }
        Err(error) => Err(error),
    }
}

/// How often the calling thread has given its core up by itself, to wait for something; 0 if the kernel does not say.
pub fn voluntary_switches() -> i64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD);
    usage.map_or(0, |usage| usage.voluntary_context_switches())
}

/// Binds the calling thread to one core.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    let mut set = nix::sched::CpuSet::new();
    set.set(core)?;
    Ok(nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)?)
}

/// The cores this process may run on, ascending.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
    Ok((0..nix::sched::CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect())
}

/// Gives the calling thread the lowest ordinary priority, so that work threads never take a core from a shard.
pub fn lower_priority() -> io::Result<()> {
    // SAFETY: no memory is passed; on Linux `who` 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `IOPRIO_CLASS_IDLE` (include/uapi/linux/ioprio.h), in its place.
const IO_PRIORITY_IDLE: libc::c_int = 3 << 13;
const IO_PRIORITY_WHO_THREAD: libc::c_int = 1;

/// What the calling thread reads and writes goes to the device when nobody else has anything for it, as far as the
/// device's scheduler looks at that (mq-deadline, bfq).
pub fn idle_io_priority() -> io::Result<()> {
    // SAFETY: no memory is passed; 0 is the calling thread.
    retry(|| unsafe {
        libc::syscall(libc::SYS_ioprio_set, IO_PRIORITY_WHO_THREAD, 0, IO_PRIORITY_IDLE) as libc::ssize_t
    })
    .map(drop)
}

/// The page size, bytes.
pub fn page_bytes() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
        bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_range_just_written_is_resident_and_reads_back_without_waiting() {
        let mut file = tempfile::tempfile().expect("temporary file");
        file.write_all(&[7; 10_000]).expect("written");
        let mut buffer = [0; 20_000];
        assert_eq!(pread_resident(file.as_fd(), &mut buffer, 0).expect("read"), 10_000);
        assert!(buffer[..10_000].iter().all(|&byte| byte == 7));
        if let Ok(pages) = pages_cached(file.as_fd(), 0, 10_000) {
            assert_eq!(pages, 3);
        }
    }

    #[test]
    fn a_vector_is_written_in_order_at_its_position() {
        let file = tempfile::tempfile().expect("temporary file");
        let slices = [io::IoSlice::new(b"one"), io::IoSlice::new(b"two")];
        assert_eq!(pwritev(file.as_fd(), &slices, 5).expect("written"), 6);
        let mut buffer = [0; 11];
        assert_eq!(pread_resident(file.as_fd(), &mut buffer, 0).expect("read"), 11);
        assert_eq!(&buffer, b"\0\0\0\0\0onetwo");
    }

    #[test]
    fn preallocated_blocks_do_not_change_the_length() {
        let file = tempfile::tempfile().expect("temporary file");
        match preallocate(file.as_fd(), 0, 1 << 20) {
            Ok(()) => assert_eq!(file.metadata().expect("metadata").len(), 0),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{error}"),
        }
    }
}
