//! Routing: work goes to the shard that owns its partitions, here or over its mailbox, and what came of it comes back.
//!
//! Work of one class is begun in the order in which one shard hands it over: for the shard itself at once, for another by
//! its message's place in the queue of its class. A message costs a credit of its class; without one it waits here, behind
//! those before it. The credit comes back with the answer, which therefore must not wait for time or for others: what does
//! (a batch that waits for its replicas) answers first and leaves something to wait for.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_channel::oneshot;

use super::Local;
use super::mailbox::Mailboxes;
use crate::base::class::{ByClass, Class};
use crate::base::ids::ShardId;
use crate::executor::all;
use crate::metadata::image::TopicImage;
use crate::metrics::status::BoundUse;
use crate::platform::{Platform, Tasks};
use crate::protocol::ErrorCode;

/// What the shard that owns some partitions is to do with them.
pub trait Work<P: Platform>: Send + 'static {
    type Done: Send + 'static;

    /// What happens before this returns happens in the order in which the work was handed over.
    fn execute(self, local: Rc<Local<P>>) -> impl Future<Output = Self::Done> + 'static;
}

/// All that crosses from shard to shard: work, which knows the way back for its answer. One that is dropped (the process
/// stops) resolves the asker with `None`.
pub type Message<P> = Box<dyn FnOnce(Rc<Local<P>>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// The shard that owns a partition of an image, which knows whether its replica leads, and the topic; or why there is none
/// to ask.
pub fn owner_of(topic: Option<&Arc<TopicImage>>, partition: i32) -> Result<(ShardId, &Arc<TopicImage>), ErrorCode> {
    let topic = topic.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let found = topic.partition(partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok((found.shard.ok_or(ErrorCode::NotLeaderOrFollower)?, topic))
}

/// The work of one owner among that of all whom a request concerns: few, mostly one.
pub fn by_owner<W>(work: &mut Vec<(ShardId, W)>, owner: ShardId, make: impl FnOnce() -> W) -> &mut W {
    let place = work.iter().position(|(shard, _)| *shard == owner).unwrap_or_else(|| {
        work.push((owner, make()));
        work.len() - 1
    });
    &mut work[place].1
}

impl<P: Platform> Local<P> {
    /// Hands work to the shard that owns its partitions, now, and waits for what comes of it. `None`: the process stops.
    pub fn ask<W: Work<P>>(
        self: &Rc<Self>,
        owner: ShardId,
        class: Class,
        work: W,
    ) -> impl Future<Output = Option<W::Done>> + 'static {
        let hop = if owner == self.shard {
            // Boxed at once: such a future is large, and would be copied each time that it changes hands.
            Hop::Here(Box::pin(work.execute(Rc::clone(self))))
        } else {
            Hop::There(self.send(owner, class, work))
        };
        hop.run()
    }

    /// The same with the work of several owners.
    pub fn ask_all<W: Work<P>>(
        self: &Rc<Self>,
        class: Class,
        work: impl IntoIterator<Item = (ShardId, W)>,
    ) -> impl Future<Output = Option<Vec<W::Done>>> + 'static {
        let mut asked = work.into_iter().map(|(owner, work)| self.ask(owner, class, work));
        let first = asked.next();
        let others: Vec<_> = asked.map(Box::pin).collect();
        async move {
            match first {
                None => Some(Vec::new()),
                // Nearly every request concerns one owner.
                Some(first) if others.is_empty() => Some(vec![first.await?]),
                Some(first) => {
                    let asked = [Box::pin(first)].into_iter().chain(others).collect();
                    all(asked).await.into_iter().collect()
                }
            }
        }
    }

    fn send<W: Work<P>>(self: &Rc<Self>, owner: ShardId, class: Class, work: W) -> Answer<P, W::Done> {
        let (sender, receiver) = oneshot::channel();
        let way = Rc::clone(self.ways.to[owner.index()].get(class));
        way.send(Box::new(move |local| Box::pin(send_back(work.execute(local), sender))));
        Answer { local: Rc::clone(self), way, receiver: Some(receiver) }
    }

    /// Does what other shards ask of this one; a task for the shard's life.
    pub async fn serve_mailbox(self: Rc<Self>) {
        let tasks = self.platform.tasks().clone();
        loop {
            let message = self.ways.mailboxes.receive(self.shard).await;
            // Begun here and now, in the order of the messages.
            tasks.spawn(message(Rc::clone(&self)));
        }
    }
}

/// From one shard to all others.
pub(super) struct Ways<P: Platform> {
    mailboxes: Mailboxes<Message<P>>,
    /// By owner.
    to: Vec<ByClass<Rc<Way<P>>>>,
}

impl<P: Platform> Ways<P> {
    pub fn new(mailboxes: Mailboxes<Message<P>>) -> Ways<P> {
        let credits = mailboxes.credits();
        let way = |owner, class| Way {
            mailboxes: mailboxes.clone(),
            owner,
            class,
            credits: Cell::new(*credits.get(class)),
            waiting: RefCell::default(),
            waits: Cell::new(0),
        };
        let shards =
            (0..mailboxes.shard_count()).map(|index| u16::try_from(index).expect("shards are numbered by u16"));
        let to = shards.map(|shard| ByClass::of(|class| Rc::new(way(ShardId(shard), class)))).collect();
        Ways { mailboxes, to }
    }

    /// How much of the ways to and from other shards is in use.
    pub fn in_use(&self, shard: ShardId) -> Vec<BoundUse> {
        let of_class = |class, name| {
            let help = "Messages to other shards that are not answered; without a credit a request waits.";
            let use_of = |ways: &ByClass<Rc<Way<P>>>| {
                let (way, max) = (ways.get(class), *self.mailboxes.credits().get(class));
                let now = (max - way.credits.get()) as u64;
                BoundUse { name, help, now, max: max as u64, waits_total: Some(way.waits.get()) }
            };
            self.to.iter().map(use_of).reduce(BoundUse::plus)
        };
        let (queued, most) = self.mailboxes.queue(shard);
        let mailbox = BoundUse {
            name: "mailbox_messages",
            help: "Messages of other shards that wait here.",
            now: queued as u64,
            max: most as u64,
            waits_total: None,
        };
        let credits = [
            (Class::Client, "mailbox_credits"),
            (Class::Replication, "mailbox_replication_credits"),
            (Class::Control, "mailbox_control_credits"),
        ];
        credits.into_iter().filter_map(|(class, name)| of_class(class, name)).chain([mailbox]).collect()
    }
}

/// To one other shard, for one class.
struct Way<P: Platform> {
    mailboxes: Mailboxes<Message<P>>,
    owner: ShardId,
    class: Class,
    /// Not spent.
    credits: Cell<usize>,
    /// Without a credit yet, oldest first: at most what the requests under way ask for.
    waiting: RefCell<VecDeque<Message<P>>>,
    /// How many messages had to wait.
    waits: Cell<u64>,
}

impl<P: Platform> Way<P> {
    fn send(&self, message: Message<P>) {
        match self.credits.get().checked_sub(1) {
            Some(left) => {
                self.credits.set(left);
                self.mailboxes.push(self.owner, self.class, message);
            }
            None => {
                self.waits.set(self.waits.get() + 1);
                self.waiting.borrow_mut().push_back(message);
            }
        }
    }

    /// A message is answered: its credit goes to the next.
    fn answered(&self) {
        match self.waiting.borrow_mut().pop_front() {
            Some(message) => self.mailboxes.push(self.owner, self.class, message),
            None => self.credits.set(self.credits.get() + 1),
        }
    }
}

/// What another shard will answer.
struct Answer<P: Platform, T: Send + 'static> {
    local: Rc<Local<P>>,
    way: Rc<Way<P>>,
    /// `None`: it has come.
    receiver: Option<oneshot::Receiver<T>>,
}

impl<P: Platform, T: Send + 'static> Future for Answer<P, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let Some(receiver) = self.receiver.as_mut() else { return Poll::Ready(None) };
        let Poll::Ready(answer) = Pin::new(receiver).poll(context) else { return Poll::Pending };
        self.receiver = None;
        self.way.answered();
        Poll::Ready(answer.ok())
    }
}

impl<P: Platform, T: Send + 'static> Drop for Answer<P, T> {
    /// Whoever asked is gone; the message is still under way, and its credit with it.
    fn drop(&mut self) {
        if let Some(receiver) = self.receiver.take() {
            let way = Rc::clone(&self.way);
            self.local.platform.tasks().spawn(async move {
                let _ = receiver.await;
                way.answered();
            });
        }
    }
}

/// Work on this shard, or an answer from another.
enum Hop<H, T> {
    Here(H),
    There(T),
}

impl<O, H: Future<Output = O>, T: Future<Output = Option<O>>> Hop<H, T> {
    async fn run(self) -> Option<O> {
        match self {
            Hop::Here(work) => Some(work.await),
            Hop::There(answer) => answer.await,
        }
    }
}

async fn send_back<T>(work: impl Future<Output = T>, answer: oneshot::Sender<T>) {
    // Whoever asked may be gone.
    let _ = answer.send(work.await);
}

#[cfg(test)]
mod tests;
