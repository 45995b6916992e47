//! Producers that keep a ledger over the lives of a node: what they were promised, and what must never be there twice.

use super::client::Batch;
use super::*;
use crate::executor::all;

/// Idempotent producers, with one partition each.
const IDEMPOTENT_PRODUCERS: i32 = 4;
const PLAIN_PRODUCERS: usize = 4;

/// What an idempotent producer goes on with in the next life.
#[derive(Default)]
struct Sequence {
    next: i32,
    /// Sent, and not known to be there.
    unanswered: Option<Batch>,
}

#[derive(Default)]
struct Ledger {
    promised: Records,
    /// Of these acks.
    promised_count: usize,
    sequences: Vec<Sequence>,
    next_value: u64,
}

impl Ledger {
    fn promise(&mut self, partition: i32, offset: i64, value: &[u8]) {
        self.promised_count += 1;
        let before = self.promised.entry(partition).or_default().insert(offset, value.to_vec());
        assert!(
            before.is_none_or(|before| before == value),
            "offset {offset} of partition {partition} was promised to two records"
        );
    }

    fn value(&mut self, length: usize) -> Vec<u8> {
        self.next_value += 1;
        format!("{}-{}", self.next_value, "x".repeat(length)).into_bytes()
    }
}

/// Shared by all producers of a test.
#[derive(Clone)]
pub(super) struct Load {
    world: World,
    clients: Executor,
    ledger: Rc<RefCell<Ledger>>,
    /// Only these acks are promises.
    counts: fn(i16) -> bool,
}

impl Load {
    pub fn new(world: &World, clients: &Executor, counts: fn(i16) -> bool) -> Load {
        let sequences = (0..IDEMPOTENT_PRODUCERS).map(|_| Sequence::default()).collect();
        let ledger = Ledger { sequences, ..Ledger::default() };
        Load { world: world.clone(), clients: clients.clone(), ledger: Rc::new(RefCell::new(ledger)), counts }
    }

    fn note(&self, batch: &Batch, offset: i64) {
        if (self.counts)(batch.acks) {
            self.ledger.borrow_mut().promise(batch.partition, offset, &batch.value);
        }
    }

    /// Starts all producers on a node, until it ends under them.
    pub fn start(&self, node: &Node) {
        for _ in 0..PLAIN_PRODUCERS {
            self.clients.spawn(self.clone().produce(Client::new(node.connect())));
        }
        for id in 0..IDEMPOTENT_PRODUCERS {
            let connections = [Client::new(node.connect()), Client::new(node.connect())];
            self.clients.spawn(self.clone().produce_in_sequence(id, connections));
        }
    }

    async fn produce(self, mut client: Client) {
        loop {
            let partition = self.world.below(PARTITIONS as usize) as i32;
            let value = self.ledger.borrow_mut().value(self.world.below(200));
            let batch = Batch { acks: self.acks(), partition, producer: None, value };
            match client.send(&batch).await {
                Some(Ok(offset)) => self.note(&batch, offset),
                Some(Err(code)) => panic!("refused with {code}"),
                None => return,
            }
        }
    }

    /// Each batch is sent twice, as after a timeout, over two connections; what the last process left unanswered comes
    /// first.
    async fn produce_in_sequence(self, id: i32, mut connections: [Client; 2]) {
        loop {
            let batch = {
                let mut ledger = self.ledger.borrow_mut();
                let value = ledger.value(self.world.below(200));
                let sequence = &mut ledger.sequences[id as usize];
                let producer = Some((1000 + i64::from(id), sequence.next));
                // Where acks=1 is no promise, a power cut may take a batch, and the sequence has a gap.
                let acks = if (self.counts)(1) { self.acks() } else { -1 };
                let new = || Batch { acks, partition: id % PARTITIONS, producer, value };
                sequence.unanswered.get_or_insert_with(new).clone()
            };
            let tries = connections.iter_mut().map(|client| {
                let (this, batch) = (&self, &batch);
                Box::pin(async move {
                    this.world.pause().await;
                    let answer = client.send(batch).await;
                    if let Some(Ok(offset)) = answer {
                        this.note(batch, offset);
                    }
                    answer
                })
            });
            let answers: Vec<_> = all(tries.collect()).await.into_iter().collect();
            let Some(answers) = answers.into_iter().collect::<Option<Vec<_>>>() else { return };
            assert!(
                answers[0].is_ok() && answers[0] == answers[1],
                "a retry is told what its original is: {answers:?}"
            );
            let sequence = &mut self.ledger.borrow_mut().sequences[id as usize];
            sequence.next += 1;
            sequence.unanswered = None;
        }
    }

    fn acks(&self) -> i16 {
        if self.world.below(2) == 0 { 1 } else { -1 }
    }

    /// Runs until this many more are promised, and on into the midst of something.
    pub fn run(&self, count: usize) {
        let enough = self.ledger.borrow().promised_count + count;
        self.world.run_until(|| self.ledger.borrow().promised_count >= enough);
        run_steps(&self.world, self.world.below(300));
    }

    /// Everything promised is among `found`, at its offset; nothing is there twice, and no offset is missing. What is
    /// there now is promised to whoever read it.
    pub fn check(&self, found: &Records) -> Result<(), String> {
        let mut ledger = self.ledger.borrow_mut();
        for (partition, records) in found {
            if !records.keys().copied().eq(0..records.len() as i64) {
                return Err(format!("partition {partition} has a hole"));
            }
            let mut values: Vec<_> = records.values().collect();
            values.sort();
            values.dedup();
            if values.len() != records.len() {
                return Err(format!("partition {partition} holds a record twice"));
            }
            let promised = ledger.promised.entry(*partition).or_default();
            for (offset, value) in &*promised {
                if records.get(offset) != Some(value) {
                    return Err(format!("offset {offset} of partition {partition} is not what was acknowledged"));
                }
            }
            promised.extend(records.clone());
        }
        Ok(())
    }
}
