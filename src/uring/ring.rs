//! One io_uring: set-up, submission, and reaping completions into the operations they belong to.
//!
//! A ring belongs to the thread that made it (SINGLE_ISSUER, DEFER_TASKRUN: completions are only produced while that
//! thread is inside `io_uring_enter`). Completions are collected first and only then handed to their operations; no
//! user code runs while the queues are borrowed, and wakers only put tasks on the executor's queue.
//!
//! Least kernel: 6.1 (DEFER_TASKRUN, with TASKRUN_FLAG of 5.19).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use slab::Slab;

use super::op::{Event, Slot};
use super::receive_pool::ReceivePool;
use crate::base::time::Monotonic;

/// Submission entries by default; a full queue is submitted early, so this bounds a batch, not the work in flight.
pub const RING_ENTRIES_DEFAULT: u32 = 1024;

/// Completions that fit the queue before the kernel keeps them aside (IORING_FEAT_NODROP, none is lost).
const COMPLETIONS_PER_SUBMISSION: u32 = 8;

/// The user data of cancel requests, whose own completions say nothing we act on.
const IGNORED: u64 = u64::MAX;

/// Turns that an operation waits for room in the submission queue before it is an error of that one: some milliseconds,
/// in which a kernel that is short of memory, or has completions to be reaped, has usually taken what is queued.
const ROOM_TURNS_MAX: usize = 1000;

/// How many turns a dropped ring gives its abandoned operations to finish, at [`DRAIN_TURN`] each.
const DRAIN_TURNS_MAX: usize = 200;
const DRAIN_TURN: Duration = Duration::from_millis(10);

/// A handle to the ring of this thread; clones share it.
#[derive(Clone)]
pub struct Ring(Rc<RefCell<Inner>>);

struct Inner {
    /// `None` only after a failed drain has leaked it, see `Drop`.
    uring: Option<IoUring>,
    ops: Slab<Slot>,
    pool: ReceivePool,
    /// Receivers that met an empty pool, oldest first.
    starved: VecDeque<Waker>,
    /// Who found the submission queue full though it was submitted.
    crowded: Vec<Waker>,
    /// Operations to be given up, whose cancel requests found it full.
    uncancelled: Vec<usize>,
    reaped: Vec<(u64, i32, u32)>,
    /// When, at the earliest, what was reaped last had come.
    came_after: Monotonic,
    /// Memory that streams hold for tasks that have not taken it yet.
    queued_bytes: Rc<Cell<usize>>,
    /// Submissions that the kernel is to refuse.
    #[cfg(test)]
    refusals: usize,
}

impl Ring {
    /// Makes a ring for the calling thread.
    ///
    /// # Errors
    /// What the kernel says; `probe::explain` turns it into advice.
    pub fn new(entries: u32) -> io::Result<Ring> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_clamp()
            .setup_submit_all()
            .setup_cqsize(entries.saturating_mul(COMPLETIONS_PER_SUBMISSION))
            .build(entries)?;
        let pool = ReceivePool::register(&uring)?;
        Ok(Ring(Rc::new(RefCell::new(Inner {
            uring: Some(uring),
            ops: Slab::with_capacity(1024),
            pool,
            starved: VecDeque::new(),
            crowded: Vec::new(),
            uncancelled: Vec::new(),
            reaped: Vec::with_capacity(256),
            came_after: Monotonic::default(),
            queued_bytes: Rc::default(),
            #[cfg(test)]
            refusals: 0,
        }))))
    }

    /// Bounds the kernel workers that wait for files in this ring's stead. Least kernel: 5.15.
    pub fn bound_workers(&self, count: u32) -> io::Result<()> {
        let inner = self.0.borrow();
        // 0: what is not about files stays as the kernel has it.
        inner.uring.as_ref().map_or(Ok(()), |uring| uring.submitter().register_iowq_max_workers(&mut [count, 0]))
    }

    /// Resolves when the submission queue takes so many entries more, which is at once unless the kernel refuses what is
    /// queued (EAGAIN: no memory; EBUSY: completions must be reaped first). For the same turn only: whoever waits queues
    /// its entries before anything else runs.
    ///
    /// # Errors
    /// EBUSY after [`ROOM_TURNS_MAX`] turns without room.
    pub(super) async fn room(&self, entries: usize) -> io::Result<()> {
        for _ in 0..ROOM_TURNS_MAX {
            if self.0.borrow_mut().has_room(entries)? {
                return Ok(());
            }
            self.next_turn(|inner, waker| inner.crowded.push(waker)).await;
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// Queues an entry for the next submission; its completions go to the slot of the returned key.
    ///
    /// # Safety
    /// What the entry points to must stay where it is until the operation's last completion has been reaped: the
    /// caller keeps it in the operation's resources, which [`Slot`] parks when their future is dropped.
    pub(super) unsafe fn push(&self, entry: squeue::Entry, slot: Slot) -> io::Result<usize> {
        let mut inner = self.0.borrow_mut();
        let key = inner.ops.insert(slot);
        // SAFETY: passed on to the caller.
        match unsafe { inner.push_entry(&entry.user_data(key as u64)) } {
            Ok(()) => Ok(key),
            Err(error) => {
                inner.ops.remove(key);
                Err(error)
            }
        }
    }

    /// Queues two entries of which the second starts when the first has succeeded (IOSQE_IO_LINK); only the second's
    /// completion is reported, a failed first one cancels it.
    ///
    /// # Safety
    /// As for [`Ring::push`], for both entries.
    pub(super) unsafe fn push_linked(
        &self,
        first: squeue::Entry,
        second: squeue::Entry,
        slot: Slot,
    ) -> io::Result<usize> {
        let mut inner = self.0.borrow_mut();
        // Both must be in one submission, or the link is cut.
        if !inner.has_room(2)? {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let key = inner.ops.insert(slot);
        let first = first.user_data(IGNORED).flags(squeue::Flags::IO_LINK);
        // SAFETY: passed on to the caller.
        let pushed = unsafe { inner.push_entry(&first).and_then(|()| inner.push_entry(&second.user_data(key as u64))) };
        match pushed {
            Ok(()) => Ok(key),
            Err(error) => {
                inner.ops.remove(key);
                Err(error)
            }
        }
    }

    /// Asks the kernel to give an operation up. Its completion still comes, usually with ECANCELED.
    pub(super) fn cancel(&self, key: usize) {
        self.0.borrow_mut().cancel(key);
    }

    /// Runs `change` on the slot of an operation.
    pub(super) fn with_slot<T>(&self, key: usize, change: impl FnOnce(&mut Slot) -> T) -> T {
        change(self.0.borrow_mut().ops.get_mut(key).expect("an operation's slot lives until its future lets it go"))
    }

    /// Lets go of a finished operation's slot.
    pub(super) fn release(&self, key: usize) -> Slot {
        self.0.borrow_mut().ops.remove(key)
    }

    /// Resolves a turn later, when the receive pool has buffers again; see [`Ring::wake_waiting`].
    pub async fn receive_buffers_returned(&self) {
        self.next_turn(|inner, waker| inner.starved.push_back(waker)).await;
    }

    /// Resolves when the waker that `register` puts somewhere is woken.
    async fn next_turn(&self, register: impl Fn(&mut Inner, Waker)) {
        let mut registered = false;
        std::future::poll_fn(|context: &mut Context<'_>| {
            if registered {
                return Poll::Ready(());
            }
            registered = true;
            register(&mut self.0.borrow_mut(), context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Submits what is queued and runs the kernel's deferred work, without waiting.
    pub fn submit(&self) -> io::Result<()> {
        let inner = self.0.borrow();
        // SAFETY: GETEVENTS with no wait count and no argument passes no memory to the kernel.
        let entered = unsafe {
            let uring = inner.uring();
            let queued = uring.submission_shared().len();
            uring.submitter().enter::<libc::sigset_t>(queued as u32, 0, IORING_ENTER_GETEVENTS, None)
        };
        ignore_interruptions(entered.map(drop))
    }

    /// Submits what is queued and waits for at least one completion, at most for `wait`.
    pub fn submit_and_wait(&self, wait: Option<Duration>) -> io::Result<()> {
        let inner = self.0.borrow();
        let submitter = inner.uring().submitter();
        let waited = match wait {
            None => submitter.submit_and_wait(1),
            Some(wait) => {
                let timeout = Timespec::from(wait);
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&timeout))
            }
        };
        ignore_interruptions(waited.map(drop))
    }

    /// Something has come that the kernel tells when the ring is entered next: a wait would end at once.
    pub fn has_come(&self) -> bool {
        let inner = self.0.borrow();
        // SAFETY: the queue is only looked at, and its flags are the kernel's to change.
        unsafe { inner.uring().submission_shared() }.taskrun()
    }

    /// When, at the earliest, what was reaped last had come.
    pub fn came_after(&self) -> Monotonic {
        self.0.borrow().came_after
    }

    /// Hands every completion that has come to its operation; returns how many there were. Whoever calls knows since when
    /// nobody had looked: all of them came after that.
    pub fn reap(&self, came_after: Monotonic) -> usize {
        let mut inner = self.0.borrow_mut();
        let inner = &mut *inner;
        inner.came_after = came_after;
        let Some(uring) = inner.uring.as_mut() else { return 0 };
        let mut reaped = std::mem::take(&mut inner.reaped);
        reaped.extend(uring.completion().map(|entry| (entry.user_data(), entry.result(), entry.flags())));
        let count = reaped.len();
        for (user_data, result, flags) in reaped.drain(..) {
            inner.complete(user_data, result, flags);
        }
        inner.reaped = reaped;
        inner.pool.publish();
        inner.cancel_late();
        count
    }

    /// Lets receivers that met an empty pool try again, oldest first, as many as the pool has chunks for, and all who found
    /// the submission queue full. Once a turn, before the loop decides to sleep: reaping has filled the pool, submitting
    /// empties the queue, and nothing else would wake them.
    pub fn wake_waiting(&self) {
        let mut inner = self.0.borrow_mut();
        inner.crowded.drain(..).for_each(Waker::wake);
        let let_through = inner.starved.len().min(inner.pool.buffer_count());
        for waker in inner.starved.drain(..let_through) {
            waker.wake();
        }
    }

    /// Memory of what streams have queued, all of them together.
    pub fn queued_bytes(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.0.borrow().queued_bytes)
    }

    /// Operations the kernel still holds.
    pub fn in_flight(&self) -> usize {
        self.0.borrow().ops.len()
    }

    /// Has the kernel refuse so many submissions for want of room in the queue.
    #[cfg(test)]
    pub(super) fn refuse_submissions(&self, count: usize) {
        self.0.borrow_mut().refusals = count;
    }
}

/// `io_uring_enter` also processes deferred completions when this is set; not exported by the crate.
const IORING_ENTER_GETEVENTS: u32 = 1;

/// A signal or a timeout ends a wait early, and EBUSY says that completions must be reaped first: the loop does all
/// of that next anyway.
fn ignore_interruptions(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN)) => {
            Ok(())
        }
        other => other,
    }
}

impl Inner {
    fn uring(&self) -> &IoUring {
        self.uring.as_ref().expect("a live handle has its ring")
    }

    fn free_entries(&mut self) -> usize {
        let queue = self.uring.as_mut().expect("a live handle has its ring").submission();
        queue.capacity() - queue.len()
    }

    /// Whether so many entries can be queued, once what is queued was submitted if there was no room.
    fn has_room(&mut self, entries: usize) -> io::Result<bool> {
        if self.free_entries() < entries {
            self.submit()?;
        }
        Ok(self.free_entries() >= entries)
    }

    fn submit(&mut self) -> io::Result<()> {
        #[cfg(test)]
        if self.refusals > 0 {
            self.refusals -= 1;
            return Ok(());
        }
        ignore_interruptions(self.uring().submit().map(drop))
    }

    /// # Safety
    /// As for [`Ring::push`].
    unsafe fn push_entry(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        self.has_room(1)?;
        let mut queue = self.uring.as_mut().expect("a live handle has its ring").submission();
        // SAFETY: passed on to the caller.
        unsafe { queue.push(entry) }.map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))
    }

    fn cancel(&mut self, key: usize) {
        let entry = opcode::AsyncCancel::new(key as u64).build().user_data(IGNORED);
        // SAFETY: a cancel request points to nothing.
        if unsafe { self.push_entry(&entry) }.is_err() {
            self.uncancelled.push(key);
        }
    }

    /// Asks again for what found no room. The slot may be another operation's by now, which is only given up if it is to be.
    fn cancel_late(&mut self) {
        for key in std::mem::take(&mut self.uncancelled) {
            if self.ops.get(key).is_some_and(Slot::is_to_end) {
                self.cancel(key);
            }
        }
    }

    fn complete(&mut self, user_data: u64, result: i32, flags: u32) {
        if user_data == IGNORED {
            return;
        }
        let key = user_data as usize;
        // A provided buffer goes back to the pool here, whoever still waits for the bytes in it.
        let data = cqueue::buffer_select(flags).map(|id| self.pool.take(id, usize::try_from(result).unwrap_or(0)));
        let more = cqueue::more(flags);
        let Some(slot) = self.ops.get_mut(key) else { return };
        match slot.complete(Event { result, data, came_after: self.came_after }, more) {
            super::op::Verdict::Keep => {}
            super::op::Verdict::Remove => {
                self.ops.remove(key);
            }
            super::op::Verdict::Cancel => self.cancel(key),
        }
    }
}

impl Drop for Inner {
    /// Memory that the kernel may still write to must outlive the ring: abandoned operations are waited for, and what
    /// does not finish is leaked with the ring rather than freed under the kernel.
    fn drop(&mut self) {
        for _ in 0..DRAIN_TURNS_MAX {
            for key in self.ops.iter().map(|(key, _)| key).collect::<Vec<_>>() {
                self.cancel(key);
            }
            let timeout = Timespec::from(DRAIN_TURN);
            let _ = self.uring().submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout));
            let finished: Vec<_> = self.uring.as_mut().expect("present until here").completion().collect();
            for entry in finished {
                let key = entry.user_data() as usize;
                if self.ops.contains(key) && !cqueue::more(entry.flags()) {
                    self.ops.remove(key);
                }
            }
            if self.ops.is_empty() {
                return;
            }
        }
        std::mem::forget(std::mem::take(&mut self.ops));
        self.pool.leak();
        std::mem::forget(self.uring.take());
    }
}
