//! Batches that are not handed to their owner at once: they are at a work thread, or wait for one of their connection that
//! is. Each is handed over in its turn ([`super::order`]); nobody else waits for it.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use super::check::{Batch, Preparation, Prepared, Refusal, admit};
use super::order::{BatchOrder, Turn};
use super::work::{ProduceBatch, ProduceDone, ProduceWork};
use crate::base::budget::Permit;
use crate::base::class::Class;
use crate::base::ids::ShardId;
use crate::executor::all;
use crate::local::Local;
use crate::platform::{Platform, Tasks};
use crate::protocol::ErrorCode;

/// Requests that all shards together have at work threads, at most, whatever their size: half of what those let wait.
const AWAY_REQUESTS_MAX: u64 = 512;

/// The late batches of one request.
#[derive(Default)]
pub struct LateBatches {
    batches: Vec<Late>,
    /// What makes those of them that have none yet, in their order.
    preparations: Vec<Preparation>,
}

struct Late {
    destination: Destination,
    turn: Turn,
    /// `None`: a preparation makes it.
    batch: Option<Batch>,
}

/// Whose a batch is.
pub struct Destination {
    /// In the request.
    pub place: usize,
    pub owner: ShardId,
    pub topic: Arc<str>,
    pub partition: i32,
}

/// A request's preparations at a work thread.
struct Job {
    prepared: Pin<Box<dyn Future<Output = Option<Vec<Prepared>>>>>,
    /// Of what may be away, until every batch has been handed to its owner.
    away: Rc<Permit>,
}

/// Late batches on their way to their owners.
pub struct LateWork {
    ready: Vec<Late>,
    unmade: Vec<Late>,
    job: Option<Job>,
}

/// The work threads have more to do than they take.
struct WorkRefused;

/// What became of a late batch.
pub enum Settled {
    Done(Vec<ProduceDone>),
    /// The batch of one place never came to its owner.
    Refused(usize, Refusal),
}

impl LateBatches {
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// A sound batch that must wait for those before it.
    pub fn wait(&mut self, order: &Rc<BatchOrder>, destination: Destination, batch: Batch) {
        self.add(order, destination, Some(batch));
    }

    /// One that a work thread is to prepare first.
    pub fn prepare(&mut self, order: &Rc<BatchOrder>, destination: Destination, preparation: Preparation) {
        self.add(order, destination, None);
        self.preparations.push(preparation);
    }

    fn add(&mut self, order: &Rc<BatchOrder>, destination: Destination, batch: Option<Batch>) {
        let turn = order.join(&destination.topic, destination.partition);
        self.batches.push(Late { destination, turn, batch });
    }

    /// Gives a work thread what it is to prepare, when there is room for that.
    pub async fn start<P: Platform>(self, local: &Local<P>) -> LateWork {
        let (ready, unmade): (Vec<Late>, Vec<Late>) = self.batches.into_iter().partition(|late| late.batch.is_some());
        let preparations = self.preparations;
        if preparations.is_empty() {
            return LateWork { ready, unmade, job: None };
        }
        let away_bytes = &local.budgets.away_bytes;
        let bytes = preparations.iter().map(|preparation| preparation.bytes() as u64).sum();
        let share = away_bytes.bytes_max() * u64::from(local.config.shards) / AWAY_REQUESTS_MAX;
        let away = Rc::new(away_bytes.acquire(share.max(bytes)).await);
        let prepared = local.platform.tasks().work(|| preparations.into_iter().map(Preparation::run).collect());
        LateWork { ready, unmade, job: Some(Job { prepared: Box::pin(prepared), away }) }
    }
}

impl LateWork {
    /// Hands each batch to its owner in its turn, and waits for what becomes of it. `None`: the process stops.
    pub async fn run<P: Platform>(
        self,
        local: &Rc<Local<P>>,
        class: Class,
        all_replicas: bool,
    ) -> Option<Vec<Settled>> {
        let mut settled: Vec<Pin<Box<dyn Future<Output = Vec<Option<Settled>>> + '_>>> = Vec::new();
        for mut late in self.ready {
            let prepared = Ok(Ok(late.batch.take()));
            let handing_over = late.hand_over(local, class, prepared, all_replicas, None);
            settled.push(Box::pin(async move { vec![handing_over.await] }));
        }
        if let Some(Job { prepared, away }) = self.job {
            settled.push(Box::pin(async move {
                let mut prepared = prepared.await.map(Vec::into_iter);
                let handed_over = self.unmade.into_iter().map(|late| {
                    let prepared = prepared.as_mut().and_then(Iterator::next).ok_or(WorkRefused);
                    Box::pin(late.hand_over(local, class, prepared, all_replicas, Some(Rc::clone(&away))))
                });
                let handed_over = handed_over.collect();
                drop(away);
                all(handed_over).await
            }));
        }
        all(settled).await.into_iter().flatten().collect()
    }
}

impl Late {
    /// Gives the batch to its owner when all that the connection sent before for this partition has been.
    async fn hand_over<P: Platform>(
        self,
        local: &Rc<Local<P>>,
        class: Class,
        prepared: Result<Prepared, WorkRefused>,
        all_replicas: bool,
        away: Option<Rc<Permit>>,
    ) -> Option<Settled> {
        let Late { destination: Destination { place, owner, topic, partition }, mut turn, batch: _ } = self;
        turn.come().await;
        let prepared = match prepared {
            Ok(prepared) => prepared.map_err(Refusal::from).and_then(|batch| batch.map(admit).transpose()),
            Err(WorkRefused) => {
                Err(Refusal::of(ErrorCode::RequestTimedOut, "too many batches wait for the work threads"))
            }
        };
        let (batch, header) = match prepared {
            Ok(Some(batch)) => batch,
            Ok(None) => return Some(Settled::Done(Vec::new())),
            Err(refusal) => return Some(Settled::Refused(place, refusal)),
        };
        let batches = vec![ProduceBatch { place, topic, partition, batch, header }];
        let appending = local.ask(owner, class, ProduceWork { batches, all_replicas });
        drop((turn, away));
        appending.await.map(Settled::Done)
    }
}
