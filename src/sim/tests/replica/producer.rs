//! Producers, plain and with transactions, and the ledger of what they were promised.

use std::collections::BTreeMap;

use futures_channel::oneshot;

use super::super::*;
use super::cluster::{Cluster, Replica};
use crate::base::ids::{LeaderEpoch, Offset};
use crate::executor::either;
use crate::partition::append::{Append, AppendFailure, Appended, Origin, Replication};
use crate::partition::partition::ANY_EPOCH;
use crate::record::batch::{BatchBuilder, BatchHeader};
use crate::record::compression::Codec;

const PRODUCERS: usize = 3;
/// How long a producer waits for replicas.
const TIMEOUT: Duration = Duration::from_millis(200);
/// Between two batches of one producer, at most.
const INTERVAL_MS: usize = 8;

#[derive(Default)]
pub struct Ledger {
    /// By acks=all.
    promised: BTreeMap<Offset, Vec<u8>>,
    next_value: u64,
    next_producer_id: i64,
    is_stopped: bool,
}

impl Ledger {
    /// The epoch that a record's value says it was queued under; `None`: it says nothing.
    pub fn epoch_of(value: &[u8]) -> Option<LeaderEpoch> {
        std::str::from_utf8(value).ok()?.split_once('/')?.0.parse().ok()
    }

    fn value(&mut self, epoch: LeaderEpoch, length: usize) -> Vec<u8> {
        self.next_value += 1;
        format!("{epoch}/{}-{}", self.next_value, "x".repeat(length)).into_bytes()
    }

    /// A leader from outside of the ISR knows nothing of them.
    pub fn forget_promises(&mut self) {
        self.promised.clear();
    }

    pub fn promised_count(&self) -> usize {
        self.promised.len()
    }

    /// No more is produced.
    pub fn stop(&mut self) {
        self.is_stopped = true;
    }

    pub fn check(&self, found: &[(Offset, LeaderEpoch, Vec<u8>)]) -> Result<(), String> {
        let found: BTreeMap<_, _> = found.iter().map(|(offset, _, value)| (offset, value)).collect();
        match self.promised.iter().find(|(offset, value)| found.get(offset) != Some(value)) {
            Some((offset, _)) => Err(format!("offset {offset} is not what was acknowledged by all")),
            None => Ok(()),
        }
    }
}

/// A receiver of what became of a batch.
type Written = oneshot::Receiver<Result<Appended, AppendFailure>>;

impl Cluster {
    pub fn produce(&self) {
        for _ in 0..PRODUCERS {
            self.clients.spawn(self.clone().keep_producing());
        }
        if self.setup.transactions {
            self.clients.spawn(self.clone().keep_transacting());
        }
    }

    async fn rest(&self) {
        let pause = Duration::from_millis(self.world.below(INTERVAL_MS) as u64);
        self.world.timers().sleep_until(self.world.now() + pause).await;
    }

    async fn keep_producing(self) {
        while !self.ledger.borrow().is_stopped {
            self.rest().await;
            let all_replicas = self.world.below(2) == 0;
            // Several at once, so that some wait for the write in flight.
            for _ in 0..1 + self.world.below(3) {
                let this = self.clone();
                let Some((leader, value, written)) = self.send(all_replicas) else { continue };
                self.clients.spawn(async move { this.note(leader, value, written, all_replicas).await });
            }
        }
    }

    fn send(&self, all_replicas: bool) -> Option<(Rc<Replica>, Vec<u8>, Written)> {
        let leader = self.leader()?;
        let value = self.ledger.borrow_mut().value(leader.partition.leader_epoch(), self.world.below(200));
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(self.world.wall(), None, Some(&value), &[]);
        let written = append(&leader, builder, Origin::Client, all_replicas).ok()?;
        Some((leader, value, written))
    }

    /// Waits for what becomes of a batch, and writes a promise down.
    async fn note(&self, leader: Rc<Replica>, value: Vec<u8>, written: Written, all_replicas: bool) {
        let Ok(Ok(appended)) = written.await else { return };
        if !all_replicas || !self.is_running(&leader) {
            return;
        }
        let is_replicated = match leader.partition.when_replicated(&appended) {
            Ok(Replication::Replicated) => true,
            Ok(Replication::Waiting(replicated)) => {
                let times_out = self.world.timers().sleep_until(self.world.now() + TIMEOUT);
                matches!(either(replicated, times_out).await, Ok(Ok(Ok(()))))
            }
            Err(_) => false,
        };
        if is_replicated && self.is_running(&leader) {
            self.ledger.borrow_mut().promised.insert(appended.base_offset, value);
        }
    }

    /// One producer after the other: some batches of a transaction, and a marker, unless something fails.
    async fn keep_transacting(self) {
        while !self.ledger.borrow().is_stopped {
            let producer_id = {
                let mut ledger = self.ledger.borrow_mut();
                ledger.next_producer_id += 1;
                ledger.next_producer_id
            };
            // What fails is left open.
            let _ = self.transact(producer_id).await;
            self.rest().await;
        }
    }

    async fn transact(&self, producer_id: i64) -> Option<()> {
        let mut sequence = 0;
        for _ in 0..1 + self.world.below(3) {
            for _ in 0..1 + self.world.below(3) {
                let mut builder = BatchBuilder::new(Codec::None).producer(producer_id, 0, sequence).transactional();
                builder.push(self.world.wall(), None, Some(b"in a transaction"), &[]);
                let written = append(&*self.leader()?, builder, Origin::Client, false).ok()?;
                written.await.ok()?.ok()?;
                sequence += 1;
                self.rest().await;
            }
            let kind = self.world.below(2) as u8;
            let mut builder = BatchBuilder::new(Codec::None).producer(producer_id, 0, -1).transactional().control();
            builder.push(self.world.wall(), Some(&[0, 0, 0, kind]), Some(&[0; 6]), &[]);
            let written = append(&*self.leader()?, builder, Origin::Marker, false).ok()?;
            written.await.ok()?.ok()?;
        }
        Some(())
    }

    /// How long acks=all takes for one batch.
    pub fn timed_produce(&self) -> Duration {
        let this = self.clone();
        run(&self.world, &self.clients, async move {
            let since = this.world.now();
            let (leader, value, written) = this.send(true).expect("it leads");
            this.note(leader, value, written, true).await;
            this.world.now().since(since)
        })
    }
}

pub fn append(
    leader: &Replica,
    builder: BatchBuilder,
    origin: Origin,
    all_replicas: bool,
) -> Result<Written, AppendFailure> {
    let batch = builder.build();
    let header = BatchHeader::parse(&batch).expect("whole");
    leader.partition.append_replicated(Append { batch, header, origin, leader_epoch: ANY_EPOCH, all_replicas })
}
