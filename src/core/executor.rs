//! A small single-thread executor: a slab of tasks and one queue of those that are ready.
//!
//! It knows nothing of rings, clocks or sockets, so a shard, the metadata node and the simulator all run on it. Tasks
//! never leave their thread; wakers may. A wake from another thread puts the task on the same queue and rings the
//! [`Doorbell`], which is how mailboxes, helpers and work threads reach a shard: there is no second mechanism.
//!
//! Invariants: a task is on the queue at most once (`queued`), and a wake that arrives while the task runs puts it on
//! the queue again, so that no wake is lost.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};

use slab::Slab;

/// Gets a sleeping executor's thread out of its wait.
pub trait Doorbell: Send + Sync + 'static {
    /// Called by any thread but the executor's own, after it has put a task on the queue.
    fn ring(&self);
}

/// A doorbell for an executor that never sleeps, such as the simulator's.
pub struct NoDoorbell;

impl Doorbell for NoDoorbell {
    fn ring(&self) {}
}

struct ReadyQueue {
    ready: Mutex<VecDeque<usize>>,
    thread: ThreadId,
    doorbell: Box<dyn Doorbell>,
}

impl ReadyQueue {
    fn push(&self, key: usize) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(key);
        if thread::current().id() != self.thread {
            self.doorbell.ring();
        }
    }
}

struct TaskWaker {
    key: usize,
    queued: AtomicBool,
    queue: Arc<ReadyQueue>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.queue.push(self.key);
        }
    }
}

struct Task {
    /// Taken out while it runs, so that a task may spawn others.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Arc<TaskWaker>,
}

/// A handle to the executor of this thread; clones share it.
#[derive(Clone)]
pub struct Executor {
    tasks: Rc<RefCell<Slab<Task>>>,
    queue: Arc<ReadyQueue>,
}

impl Executor {
    /// An executor of the calling thread, whose sleep `doorbell` ends.
    pub fn new(doorbell: impl Doorbell) -> Executor {
        let queue = ReadyQueue {
            ready: Mutex::new(VecDeque::with_capacity(256)),
            thread: thread::current().id(),
            doorbell: Box::new(doorbell),
        };
        Executor { tasks: Rc::default(), queue: Arc::new(queue) }
    }

    /// Adds a task; it runs after those that are ready now.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let waker =
            Arc::new(TaskWaker { key: entry.key(), queued: AtomicBool::new(true), queue: Arc::clone(&self.queue) });
        self.queue.push(entry.key());
        entry.insert(Task { future: Some(Box::pin(future)), waker });
    }

    pub fn has_ready(&self) -> bool {
        self.ready_count() > 0
    }

    pub fn ready_count(&self) -> usize {
        self.queue.ready.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many tasks there are, ready or waiting.
    pub fn task_count(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// Runs the tasks that are ready now, oldest first, and says how many they were; what they make ready waits for the
    /// next call.
    pub fn run_ready(&self) -> usize {
        let count = self.ready_count();
        for _ in 0..count {
            self.run_one(|_| 0);
        }
        count
    }

    /// Runs one ready task, the one that `pick` chooses from their count (oldest is 0); false if none was ready.
    pub fn run_one(&self, pick: impl FnOnce(usize) -> usize) -> bool {
        let key = {
            let mut ready = self.queue.ready.lock().unwrap_or_else(PoisonError::into_inner);
            if ready.is_empty() {
                return false;
            }
            let index = pick(ready.len());
            ready.remove(index).expect("pick stays within the count it was given")
        };
        self.poll_task(key);
        true
    }

    fn poll_task(&self, key: usize) {
        let Some((mut future, waker)) = self.take_future(key) else { return };
        // Cleared before the poll: a wake during it must put the task back.
        waker.queued.store(false, Ordering::Release);
        let poll = future.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&waker))));
        match poll {
            Poll::Pending => {
                if let Some(task) = self.tasks.borrow_mut().get_mut(key) {
                    task.future = Some(future);
                }
            }
            Poll::Ready(()) => {
                // A stale wake may still name this key; it must not reach the next task in this slot.
                waker.queued.store(true, Ordering::Release);
                let finished = self.tasks.borrow_mut().try_remove(key);
                drop(future);
                drop(finished);
            }
        }
    }

    fn take_future(&self, key: usize) -> Option<(Pin<Box<dyn Future<Output = ()>>>, Arc<TaskWaker>)> {
        let mut tasks = self.tasks.borrow_mut();
        let task = tasks.get_mut(key)?;
        Some((task.future.take()?, Arc::clone(&task.waker)))
    }

    /// Drops every task, for the end of a shard's life. Tasks that others spawn while they are dropped go too.
    pub fn clear(&self) {
        while !self.tasks.borrow().is_empty() {
            let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
            drop(tasks);
        }
    }
}

/// Lets the tasks that are ready now run first.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Runs two futures until one is done: `Ok` with the first's output, `Err` with the second's. The first wins a tie.
pub async fn either<A: Future, B: Future>(first: A, second: B) -> Result<A::Output, B::Output> {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = first.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        second.as_mut().poll(context).map(Err)
    })
    .await
}

/// Runs two futures until both are done.
pub async fn both<A: Future, B: Future>(first: A, second: B) -> (A::Output, B::Output) {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    let (mut of_first, mut of_second) = (None, None);
    std::future::poll_fn(|context| {
        if of_first.is_none()
            && let Poll::Ready(output) = first.as_mut().poll(context)
        {
            of_first = Some(output);
        }
        if of_second.is_none()
            && let Poll::Ready(output) = second.as_mut().poll(context)
        {
            of_second = Some(output);
        }
        match (of_first.take(), of_second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (first, second) => {
                (of_first, of_second) = (first, second);
                Poll::Pending
            }
        }
    })
    .await
}

/// Runs futures beside one another, first polled in order; resolves to their outputs, in order.
pub async fn all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, output) in futures.iter_mut().zip(&mut outputs).filter(|(_, output)| output.is_none()) {
            match Pin::new(future).poll(context) {
                Poll::Ready(value) => *output = Some(value),
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn a_task_spawned_by_a_task_runs_after_those_already_ready() {
        let executor = Executor::new(NoDoorbell);
        let order = Rc::new(RefCell::new(Vec::new()));
        let (inner, seen) = (executor.clone(), Rc::clone(&order));
        executor.spawn(async move {
            let seen_by_child = Rc::clone(&seen);
            inner.spawn(async move { seen_by_child.borrow_mut().push("child") });
            seen.borrow_mut().push("parent");
        });
        let seen = Rc::clone(&order);
        executor.spawn(async move { seen.borrow_mut().push("sibling") });
        executor.run_ready();
        executor.run_ready();
        assert_eq!(*order.borrow(), ["parent", "sibling", "child"]);
        assert_eq!(executor.task_count(), 0);
    }

    #[test]
    fn a_wake_during_the_poll_is_not_lost_and_two_wakes_run_it_once() {
        let executor = Executor::new(NoDoorbell);
        let polls = Rc::new(Cell::new(0));
        let count = Rc::clone(&polls);
        executor.spawn(poll_fn(move |context| {
            count.set(count.get() + 1);
            if count.get() == 3 {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        for expected in 1..=3 {
            executor.run_ready();
            assert_eq!(polls.get(), expected);
        }
        assert!(!executor.has_ready());
    }

    #[test]
    fn a_wake_of_a_finished_task_does_not_reach_the_next_one_in_its_slot() {
        let executor = Executor::new(NoDoorbell);
        let stale = Rc::new(RefCell::new(None));
        let keep = Rc::clone(&stale);
        executor.spawn(poll_fn(move |context| {
            *keep.borrow_mut() = Some(context.waker().clone());
            Poll::Ready(())
        }));
        executor.run_ready();
        let polls = Rc::new(Cell::new(0));
        let count = Rc::clone(&polls);
        executor.spawn(poll_fn(move |_| {
            count.set(count.get() + 1);
            Poll::<()>::Pending
        }));
        executor.run_ready();
        stale.borrow_mut().take().expect("kept").wake();
        executor.run_ready();
        assert_eq!(polls.get(), 1);
    }

    #[test]
    fn a_wake_from_another_thread_rings_the_doorbell_and_a_local_one_does_not() {
        struct Count(Arc<std::sync::atomic::AtomicUsize>);
        impl Doorbell for Count {
            fn ring(&self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let rung = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let executor = Executor::new(Count(Arc::clone(&rung)));
        let (sender, receiver) = futures_channel::oneshot::channel::<u8>();
        let got = Rc::new(Cell::new(0));
        let result = Rc::clone(&got);
        executor.spawn(async move { result.set(receiver.await.unwrap_or(0)) });
        executor.run_ready();
        assert_eq!(rung.load(Ordering::SeqCst), 0);
        thread::spawn(move || sender.send(7)).join().expect("joined").expect("received");
        assert_eq!(rung.load(Ordering::SeqCst), 1);
        executor.run_ready();
        assert_eq!(got.get(), 7);
    }
}
