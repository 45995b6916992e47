//! A shard's mailbox: a bounded queue that is never full, because senders hold credits.
//!
//! Each sender has [`Mailboxes::credits`] for each owner and keeps one from before its message until the answer, so the
//! queue needs room for credits times senders and no more. Whoever is out of credits waits at home, first come, first
//! served, and nobody ever waits for a mailbox.

#![forbid(unsafe_code)]

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use atomic_waker::AtomicWaker;
use crossbeam_queue::ArrayQueue;

use crate::base::ids::ShardId;

/// Messages that one shard may have under way to one other.
pub const CREDITS_DEFAULT: usize = 1024;

struct Mailbox<M> {
    queue: ArrayQueue<M>,
    receiver: AtomicWaker,
}

/// The mailboxes of all shards.
pub struct Mailboxes<M> {
    mailboxes: Arc<[Mailbox<M>]>,
    credits: usize,
}

impl<M> Clone for Mailboxes<M> {
    fn clone(&self) -> Mailboxes<M> {
        Mailboxes { mailboxes: Arc::clone(&self.mailboxes), credits: self.credits }
    }
}

impl<M> Mailboxes<M> {
    pub fn new(shard_count: u16, credits: usize) -> Mailboxes<M> {
        let capacity = credits * usize::from(shard_count);
        let mailbox = |_| Mailbox { queue: ArrayQueue::new(capacity), receiver: AtomicWaker::new() };
        Mailboxes { mailboxes: (0..shard_count).map(mailbox).collect(), credits }
    }

    pub fn shard_count(&self) -> usize {
        self.mailboxes.len()
    }

    /// Credits of each sender for each owner.
    pub fn credits(&self) -> usize {
        self.credits
    }

    /// Messages that wait for `shard`, and may.
    pub fn queue(&self, shard: ShardId) -> (usize, usize) {
        let queue = &self.mailboxes[shard.index()].queue;
        (queue.len(), queue.capacity())
    }

    /// Puts a message into `owner`'s mailbox. The caller holds a credit for it.
    pub fn push(&self, owner: ShardId, message: M) {
        let mailbox = &self.mailboxes[owner.index()];
        let pushed = mailbox.queue.push(message).is_ok();
        assert!(pushed, "a credit stands for a place in the mailbox");
        mailbox.receiver.wake();
    }

    /// The next message for `shard`, on that shard.
    pub async fn receive(&self, shard: ShardId) -> M {
        let mailbox = &self.mailboxes[shard.index()];
        poll_fn(|context| {
            if let Some(message) = mailbox.queue.pop() {
                return Poll::Ready(message);
            }
            mailbox.receiver.register(context.waker());
            match mailbox.queue.pop() {
                Some(message) => Poll::Ready(message),
                None => Poll::Pending,
            }
        })
        .await
    }
}
