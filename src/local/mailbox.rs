//! A shard's mailbox: a bounded queue for each class that is never full, because senders hold credits.
//!
//! Each sender has [`Mailboxes::credits`] of each class for each owner and spends one on a message until its answer, so a
//! queue needs room for credits times senders and no more. Whoever is out of credits waits at home (see
//! [`super::routing`]), and nobody ever waits for a mailbox.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use atomic_waker::AtomicWaker;
use crossbeam_queue::ArrayQueue;

use crate::base::class::{ByClass, Class};
use crate::base::ids::ShardId;

/// Messages that one shard may have under way to one other.
pub const CREDITS_DEFAULT: ByClass<usize> = ByClass { client: 1024, replication: 256, control: 64 };

struct Mailbox<M> {
    queues: ByClass<ArrayQueue<M>>,
    receiver: AtomicWaker,
}

impl<M> Mailbox<M> {
    fn pop(&self) -> Option<M> {
        Class::ALL.into_iter().find_map(|class| self.queues.get(class).pop())
    }
}

/// The mailboxes of all shards.
pub struct Mailboxes<M> {
    mailboxes: Arc<[Mailbox<M>]>,
    credits: ByClass<usize>,
}

impl<M> Clone for Mailboxes<M> {
    fn clone(&self) -> Mailboxes<M> {
        Mailboxes { mailboxes: Arc::clone(&self.mailboxes), credits: self.credits }
    }
}

impl<M> Mailboxes<M> {
    pub fn new(shard_count: u16, credits: ByClass<usize>) -> Mailboxes<M> {
        let queue = |class| ArrayQueue::new(*credits.get(class) * usize::from(shard_count));
        let mailbox = |_| Mailbox { queues: ByClass::of(queue), receiver: AtomicWaker::new() };
        Mailboxes { mailboxes: (0..shard_count).map(mailbox).collect(), credits }
    }

    pub fn shard_count(&self) -> usize {
        self.mailboxes.len()
    }

    /// Credits of each sender for each owner.
    pub fn credits(&self) -> ByClass<usize> {
        self.credits
    }

    /// Messages that wait for `shard`, and may.
    pub fn queue(&self, shard: ShardId) -> (usize, usize) {
        let queues = &self.mailboxes[shard.index()].queues;
        let sum = |count: fn(&ArrayQueue<M>) -> usize| Class::ALL.iter().map(|class| count(queues.get(*class))).sum();
        (sum(ArrayQueue::len), sum(ArrayQueue::capacity))
    }

    /// Puts a message into `owner`'s mailbox. The caller has spent a credit of this class on it.
    pub fn push(&self, owner: ShardId, class: Class, message: M) {
        let mailbox = &self.mailboxes[owner.index()];
        let pushed = mailbox.queues.get(class).push(message).is_ok();
        assert!(pushed, "a credit stands for a place in the mailbox");
        mailbox.receiver.wake();
    }

    /// The next message for `shard`, on that shard: in the order of their coming among those of a class.
    pub async fn receive(&self, shard: ShardId) -> M {
        let mailbox = &self.mailboxes[shard.index()];
        poll_fn(|context| {
            if let Some(message) = mailbox.pop() {
                return Poll::Ready(message);
            }
            mailbox.receiver.register(context.waker());
            match mailbox.pop() {
                Some(message) => Poll::Ready(message),
                None => Poll::Pending,
            }
        })
        .await
    }
}
