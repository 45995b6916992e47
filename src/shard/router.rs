//! The hops: work goes to the shard that owns its partitions, here or over its mailbox, and the answer comes back.

#![forbid(unsafe_code)]

use std::future::Future;
use std::rc::Rc;

use futures_channel::oneshot;

use super::mailbox::Mailboxes;
use super::message::Message;
use crate::base::budget::Budget;
use crate::base::ids::ShardId;
use crate::handlers::{Context, Owners, Work, produce};
use crate::metrics::status::BoundUse;
use crate::partition::partition::LogCheckpoint;
use crate::platform::{Platform, Tasks};

/// One per shard.
pub struct Router<P: Platform> {
    context: Rc<Context<P>>,
    mailboxes: Mailboxes<Message<P>>,
    /// By owner: credits of this shard.
    credits: Vec<Rc<Budget>>,
}

impl<P: Platform> Clone for Router<P> {
    fn clone(&self) -> Router<P> {
        Router { context: Rc::clone(&self.context), mailboxes: self.mailboxes.clone(), credits: self.credits.clone() }
    }
}

impl<P: Platform> Router<P> {
    pub fn new(context: Rc<Context<P>>, mailboxes: Mailboxes<Message<P>>) -> Router<P> {
        let credits = (0..mailboxes.shard_count()).map(|_| Budget::new(mailboxes.credits() as u64)).collect();
        Router { context, mailboxes, credits }
    }

    /// Does what other shards ask of this one; a task for the shard's life.
    pub async fn serve_mailbox(self) {
        let tasks = self.context.platform.tasks().clone();
        loop {
            match self.mailboxes.receive(self.context.shard).await {
                Message::Produce { work, answer } => {
                    // The batches are queued here and now, in the order of the messages.
                    let executing = produce::execute(&self.context, work);
                    tasks.spawn(send_back(executing, answer));
                }
                Message::Work(work) => tasks.spawn(work(Rc::clone(&self.context))),
                Message::Checkpoints { answer } => tasks.spawn(send_back(self.clone().checkpoints(), answer)),
            }
        }
    }

    /// How much of the ways to and from other shards is in use.
    pub fn bounds(&self) -> Vec<BoundUse> {
        let (queued, most) = self.mailboxes.queue(self.context.shard);
        let help = "Messages to other shards that are not answered; without a credit a request waits.";
        let credits = self.credits.iter().map(|credits| BoundUse::of_budget("mailbox_credits", help, credits));
        let mailbox = BoundUse {
            name: "mailbox_messages",
            help: "Messages of other shards that wait here.",
            now: queued as u64,
            max: most as u64,
            waits_total: None,
        };
        credits.reduce(BoundUse::plus).into_iter().chain([mailbox]).collect()
    }

    /// Sends a message to another shard and waits for its answer, holding a credit meanwhile.
    fn send<T: 'static>(
        &self,
        owner: ShardId,
        message: impl FnOnce(oneshot::Sender<T>) -> Message<P> + 'static,
    ) -> impl Future<Output = Option<T>> + 'static {
        let (credits, mailboxes) = (Rc::clone(&self.credits[owner.index()]), self.mailboxes.clone());
        async move {
            let _credit = credits.acquire(1).await;
            let (sender, receiver) = oneshot::channel();
            mailboxes.push(owner, message(sender));
            receiver.await.ok()
        }
    }

    /// How far the logs of every shard are.
    pub async fn all_checkpoints(&self) -> Option<Vec<LogCheckpoint>> {
        let mut all = self.clone().checkpoints().await;
        for index in 0..self.mailboxes.shard_count() {
            let shard = ShardId(u16::try_from(index).expect("shards are numbered by u16"));
            if !self.is_here(shard) {
                all.extend(self.send(shard, |answer| Message::Checkpoints { answer }).await?);
            }
        }
        Some(all)
    }

    /// Of this shard; others get their turn in between.
    async fn checkpoints(self) -> Vec<LogCheckpoint> {
        let mut checkpoints = Vec::new();
        self.context.each_partition(|partition| checkpoints.extend(partition.checkpoint())).await;
        checkpoints
    }

    fn is_here(&self, owner: ShardId) -> bool {
        owner == self.context.shard
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

impl<P: Platform> Owners<P> for Router<P> {
    fn produce(
        &self,
        owner: ShardId,
        work: produce::Work,
    ) -> impl Future<Output = Option<Vec<produce::Done>>> + 'static {
        let hop = if self.is_here(owner) {
            Hop::Here(produce::execute(&self.context, work))
        } else {
            Hop::There(self.send(owner, move |answer| Message::Produce { work, answer }))
        };
        hop.run()
    }

    fn ask<W: Work<P>>(&self, owner: ShardId, work: W) -> impl Future<Output = Option<W::Done>> + 'static {
        let hop = if self.is_here(owner) {
            Hop::Here(work.execute(Rc::clone(&self.context)))
        } else {
            Hop::There(self.send(owner, move |answer| {
                Message::Work(Box::new(move |context| Box::pin(send_back(work.execute(context), answer))))
            }))
        };
        hop.run()
    }
}
