//! Which transactions the cleaner is passing through, and which markers nobody needs any more (Kafka 3.9
//! `CleanedTransactionMetadata`).
//!
//! Records of aborted transactions go at once. A marker stays as long as the pass has met a batch of its transaction:
//! until then it tells readers how that ended. Afterwards it waits for its delete horizon like a tombstone.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::base::ids::Offset;
use crate::record::batch::BatchHeader;
use crate::record::records::RecordView;
use crate::storage::transaction_index::{EndedTransaction, TransactionIndex};

/// Passed through with the batches, in their order.
#[derive(Debug, Default)]
pub struct PassedTransactions {
    /// Producers whose committed transaction the pass has met batches of.
    committed: BTreeSet<i64>,
    /// Those whose aborted transaction it is in, and whether it has met batches of it.
    aborted: BTreeMap<i64, (EndedTransaction, bool)>,
    /// Aborted transactions that begin further on, in the order of their first offsets.
    ahead: VecDeque<EndedTransaction>,
    /// Those whose abort markers stay.
    kept: Vec<EndedTransaction>,
}

/// What a control record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlType {
    Abort,
    Commit,
    Other,
}

impl ControlType {
    /// By the key: i16 version, i16 type.
    pub fn of(record: &RecordView<'_>) -> ControlType {
        match record.key {
            Some([_, _, 0, 0, ..]) => ControlType::Abort,
            Some([_, _, 0, 1, ..]) => ControlType::Commit,
            _ => ControlType::Other,
        }
    }
}

impl PassedTransactions {
    /// A pass over what these aborted transactions are all of.
    pub fn new(mut aborted: Vec<EndedTransaction>) -> PassedTransactions {
        aborted.sort_by_key(|transaction| transaction.first_offset);
        PassedTransactions { ahead: aborted.into(), ..PassedTransactions::default() }
    }

    fn pass_to(&mut self, offset: Offset) {
        while let Some(begun) = self.ahead.front().copied().filter(|begun| begun.first_offset <= offset) {
            self.ahead.pop_front();
            self.aborted.entry(begun.producer_id).or_insert((begun, false));
        }
    }

    /// Passes a data batch; whether its records were aborted.
    pub fn pass_batch(&mut self, header: &BatchHeader) -> bool {
        self.pass_to(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        match self.aborted.get_mut(&header.producer_id) {
            Some((_, met)) => {
                *met = true;
                true
            }
            None => {
                self.committed.insert(header.producer_id);
                false
            }
        }
    }

    /// Passes a control batch with this record, or one that was emptied before; whether nobody needs it any more.
    pub fn pass_marker(&mut self, header: &BatchHeader, control: Option<ControlType>) -> bool {
        self.pass_to(header.last_offset());
        match control {
            Some(ControlType::Abort) => match self.aborted.remove(&header.producer_id) {
                Some((transaction, true)) => {
                    self.kept.push(transaction);
                    false
                }
                Some((_, false)) | None => true,
            },
            Some(ControlType::Commit) => !self.committed.remove(&header.producer_id),
            Some(ControlType::Other) => false,
            None => true,
        }
    }

    /// The transaction index of what was passed since the last call.
    pub fn take_index(&mut self) -> TransactionIndex {
        let mut kept = std::mem::take(&mut self.kept);
        // Damaged indexes may have named one twice, or in another order.
        kept.sort_by_key(|transaction| transaction.last_offset);
        kept.dedup_by_key(|transaction| transaction.last_offset);
        let mut index = TransactionIndex::default();
        kept.into_iter().for_each(|transaction| index.push(transaction));
        index
    }
}
