//! The transactions of one transactional id, without I/O: what is wanted in, requests out, answers in (KIP-98; Kafka 3.9
//! `TransactionManager`).
//!
//! ```text
//!  init ──> Ready ── add ──> Open ── add ──> Open ── end ──> Ready ──> ...
//!
//!  each of them, one at a time:  [FindCoordinator] ──> its request ──> done
//!                                        ^                 │ retriable: again after a back-off
//!                                        └── the coordinator has moved, or its connection is gone
//! ```
//! Invariants: one request is asked at a time; what is wanted is asked again until it is done, is refused, or has taken
//! longer than the patience; nothing is written to a partition before [`Transaction::has`] it; a transaction without
//! partitions ends without asking anybody.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::time::Monotonic;
use crate::protocol::ErrorCode;
use crate::protocol::message::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, AddPartitionsToTxnTopic, EndTxnRequest, EndTxnResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest, InitProducerIdResponse,
};

/// Between two tries: doubled from the least to the most. The least is short because a coordinator answers
/// CONCURRENT_TRANSACTIONS while it still writes the last transaction's markers, which takes a moment (Kafka 3.9
/// `ADD_PARTITIONS_RETRY_BACKOFF_MS`).
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(1000);

/// An abort comes at the end of a run that has failed or is not wanted any more: the coordinator does it by itself some
/// time, and nobody waits longer than this.
const ABORT_PATIENCE: Duration = Duration::from_secs(5);

/// FindCoordinator's key type of a transactional id.
const KEY_TYPE_TRANSACTION: i8 = 1;

#[derive(Clone, Debug)]
pub struct TransactionOptions {
    pub transactional_id: String,
    /// `transaction.timeout.ms`: after which the coordinator aborts a transaction that nobody ends.
    pub timeout_ms: i32,
    /// How long one thing that is wanted may take, tries and all.
    pub patience: Duration,
}

/// What the caller is to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Ask(ToAsk),
    /// Nothing before this time.
    Wait(Monotonic),
    /// What was wanted is done.
    Done,
}

/// A request: the first of them to any broker, the others to [`Transaction::coordinator`].
#[derive(Clone, Debug, PartialEq)]
pub enum ToAsk {
    FindCoordinator(FindCoordinatorRequest),
    InitProducerId(InitProducerIdRequest),
    /// For versions up to 3, which are the clients'.
    AddPartitions(AddPartitionsToTxnRequest),
    EndTxn(EndTxnRequest),
}

/// Why it can't go on. A transaction that is open stays so until it is ended, or its timeout ends it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    #[error("{what} is refused: code {code}")]
    Refused { what: &'static str, code: i16, message: Option<String> },
    /// Code 13: there was no answer.
    #[error("{what} has not been done within {patience:?}: code {code}")]
    TooLate { what: &'static str, code: i16, patience: Duration },
    #[error("the coordinator's answer leaves out partition {0}")]
    NoAnswer(i32),
}

#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    ProducerId,
    Partition(String, i32),
    End { commit: bool },
}

impl Wanted {
    fn what(&self) -> &'static str {
        match self {
            Wanted::ProducerId => "getting a producer id",
            Wanted::Partition(..) => "adding a partition to the transaction",
            Wanted::End { commit: true } => "committing the transaction",
            Wanted::End { commit: false } => "aborting the transaction",
        }
    }
}

/// See the head of this file.
#[derive(Debug)]
pub struct Transaction {
    options: TransactionOptions,
    coordinator: Option<(String, u16)>,
    /// Producer id and epoch.
    identity: Option<(i64, i16)>,
    /// Of the open transaction.
    partitions: BTreeSet<(String, i32)>,
    wanted: Option<Wanted>,
    wanted_since: Monotonic,
    /// Of what is wanted.
    tries: u32,
    retry_at: Monotonic,
    /// Why the last try did not do.
    last_code: i16,
}

impl Transaction {
    pub fn new(options: TransactionOptions) -> Transaction {
        Transaction {
            options,
            coordinator: None,
            identity: None,
            partitions: BTreeSet::new(),
            wanted: None,
            wanted_since: Monotonic::default(),
            tries: 0,
            retry_at: Monotonic::default(),
            last_code: 0,
        }
    }

    /// Host and port, once found.
    pub fn coordinator(&self) -> Option<(&str, u16)> {
        self.coordinator.as_ref().map(|(host, port)| (host.as_str(), *port))
    }

    /// Producer id and epoch, once given.
    pub fn identity(&self) -> Option<(i64, i16)> {
        self.identity
    }

    /// Whether a partition is in the open transaction.
    pub fn has(&self, topic: &str, partition: i32) -> bool {
        self.partitions.contains(&(topic.to_owned(), partition))
    }

    /// Whether a transaction is open: the coordinator knows of it.
    pub fn is_open(&self) -> bool {
        !self.partitions.is_empty()
    }

    /// What goes on, and the error code of its last try: for a person who waits. `None` if nothing had to be tried again.
    pub fn waits_for(&self) -> Option<(&'static str, i16)> {
        self.wanted.as_ref().filter(|_| self.tries > 0).map(|wanted| (wanted.what(), self.last_code))
    }

    /// What is left of the patience: no try may take longer.
    pub fn time_left(&self, now: Monotonic) -> Duration {
        self.patience().saturating_sub(now.since(self.wanted_since))
    }

    fn patience(&self) -> Duration {
        match self.wanted {
            Some(Wanted::End { commit: false }) => self.options.patience.min(ABORT_PATIENCE),
            _ => self.options.patience,
        }
    }

    /// Wants a producer id: the first thing to want. Fences whoever had the transactional id, and ends what they left
    /// open.
    pub fn init(&mut self, now: Monotonic) {
        assert!(self.identity.is_none(), "once");
        self.want(Wanted::ProducerId, now);
    }

    /// Wants a partition in the transaction; the first one begins it.
    pub fn add(&mut self, topic: &str, partition: i32, now: Monotonic) {
        assert!(self.identity.is_some(), "a producer id comes first");
        if !self.has(topic, partition) {
            self.want(Wanted::Partition(topic.to_owned(), partition), now);
        }
    }

    /// Wants the end. The caller has every acknowledgement that it will get.
    pub fn end(&mut self, commit: bool, now: Monotonic) {
        // What failed may still be wanted: it is not any more.
        self.wanted = None;
        if self.is_open() {
            self.want(Wanted::End { commit }, now);
        }
    }

    fn want(&mut self, wanted: Wanted, now: Monotonic) {
        assert!(self.wanted.is_none(), "one thing at a time");
        (self.wanted, self.wanted_since) = (Some(wanted), now);
        (self.tries, self.retry_at) = (0, now);
    }

    /// What to do at `now`. After [`Step::Ask`] the answer, or that there is none, is told before this is called again.
    pub fn next(&self, now: Monotonic) -> Step {
        let Some(wanted) = &self.wanted else { return Step::Done };
        if now < self.retry_at {
            return Step::Wait(self.retry_at);
        }
        let transactional_id = self.options.transactional_id.clone();
        if self.coordinator.is_none() {
            return Step::Ask(ToAsk::FindCoordinator(FindCoordinatorRequest {
                key: transactional_id,
                key_type: KEY_TYPE_TRANSACTION,
                coordinator_keys: Vec::new(),
            }));
        }
        let (producer_id, producer_epoch) = self.identity.unwrap_or((-1, -1));
        Step::Ask(match wanted {
            Wanted::ProducerId => ToAsk::InitProducerId(InitProducerIdRequest {
                transactional_id: Some(transactional_id),
                transaction_timeout_ms: self.options.timeout_ms,
                producer_id,
                producer_epoch,
            }),
            Wanted::Partition(topic, partition) => ToAsk::AddPartitions(AddPartitionsToTxnRequest {
                v3_and_below_transactional_id: transactional_id,
                v3_and_below_producer_id: producer_id,
                v3_and_below_producer_epoch: producer_epoch,
                v3_and_below_topics: vec![AddPartitionsToTxnTopic {
                    name: topic.clone(),
                    partitions: vec![*partition],
                }],
                ..AddPartitionsToTxnRequest::default()
            }),
            Wanted::End { commit } => {
                ToAsk::EndTxn(EndTxnRequest { transactional_id, producer_id, producer_epoch, committed: *commit })
            }
        })
    }

    /// The answer to FindCoordinator, of a version up to 3.
    ///
    /// # Errors
    /// As all answers': what can't be retried, or has been for too long. Nothing is wanted any more then.
    pub fn found(&mut self, response: &FindCoordinatorResponse, now: Monotonic) -> Result<(), TransactionError> {
        match (response.error_code, u16::try_from(response.port)) {
            (0, Ok(port)) => {
                self.coordinator = Some((response.host.clone(), port));
                Ok(())
            }
            (0, Err(_)) => self.failed(ErrorCode::CoordinatorNotAvailable.code(), None, now),
            (code, _) => self.failed(code, response.error_message.clone(), now),
        }
    }

    /// The answer to InitProducerId.
    pub fn initialized(&mut self, response: &InitProducerIdResponse, now: Monotonic) -> Result<(), TransactionError> {
        if response.error_code != 0 {
            return self.failed(response.error_code, None, now);
        }
        self.identity = Some((response.producer_id, response.producer_epoch));
        self.wanted = None;
        Ok(())
    }

    /// The answer to AddPartitionsToTxn.
    pub fn added(&mut self, response: &AddPartitionsToTxnResponse, now: Monotonic) -> Result<(), TransactionError> {
        let Some(Wanted::Partition(topic, partition)) = self.wanted.clone() else { return Ok(()) };
        let results = response.results_by_topic_v3_and_below.iter().filter(|result| result.name == topic);
        let mut results = results.flat_map(|result| &result.results_by_partition);
        match results.find(|result| result.partition_index == partition).map(|result| result.partition_error_code) {
            Some(0) => {
                self.partitions.insert((topic, partition));
                self.wanted = None;
                Ok(())
            }
            Some(code) => self.failed(code, None, now),
            None => {
                self.wanted = None;
                Err(TransactionError::NoAnswer(partition))
            }
        }
    }

    /// The answer to EndTxn.
    pub fn ended(&mut self, response: &EndTxnResponse, now: Monotonic) -> Result<(), TransactionError> {
        if response.error_code != 0 {
            return self.failed(response.error_code, None, now);
        }
        self.partitions.clear();
        self.wanted = None;
        Ok(())
    }

    /// There was no answer: the connection is gone, or could not be made. Another broker may coordinate by now.
    pub fn unanswered(&mut self, now: Monotonic) -> Result<(), TransactionError> {
        self.coordinator = None;
        self.failed(ErrorCode::NetworkException.code(), None, now)
    }

    fn failed(&mut self, code: i16, message: Option<String>, now: Monotonic) -> Result<(), TransactionError> {
        let Some(wanted) = &self.wanted else { return Ok(()) };
        let what = wanted.what();
        let error = ErrorCode::from_code(code);
        if matches!(error, Some(ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator)) {
            self.coordinator = None;
        }
        if !error.is_some_and(is_worth_another_try) {
            self.wanted = None;
            return Err(TransactionError::Refused { what, code, message });
        }
        let backoff = BACKOFF_MIN.saturating_mul(1 << self.tries.min(16)).min(BACKOFF_MAX);
        self.tries = self.tries.saturating_add(1);
        self.last_code = code;
        self.retry_at = now + backoff;
        let patience = self.patience();
        if self.retry_at.since(self.wanted_since) > patience {
            self.wanted = None;
            return Err(TransactionError::TooLate { what, code, patience });
        }
        Ok(())
    }
}

/// CONCURRENT_TRANSACTIONS: the coordinator has not finished the last one.
fn is_worth_another_try(error: ErrorCode) -> bool {
    error.is_retriable() || error == ErrorCode::ConcurrentTransactions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::{AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult};

    const SECOND: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Monotonic {
        Monotonic::default() + Duration::from_millis(ms)
    }

    fn new() -> Transaction {
        Transaction::new(TransactionOptions {
            transactional_id: "id".to_owned(),
            timeout_ms: 60_000,
            patience: 10 * SECOND,
        })
    }

    fn coordinator(error: ErrorCode) -> FindCoordinatorResponse {
        FindCoordinatorResponse {
            error_code: error.code(),
            host: "c".to_owned(),
            port: if error == ErrorCode::None { 9 } else { -1 },
            ..Default::default()
        }
    }

    fn producer(error: ErrorCode) -> InitProducerIdResponse {
        InitProducerIdResponse { error_code: error.code(), producer_id: 7, producer_epoch: 2, ..Default::default() }
    }

    fn partition(index: i32, error: ErrorCode) -> AddPartitionsToTxnResponse {
        let result = AddPartitionsToTxnPartitionResult { partition_index: index, partition_error_code: error.code() };
        let topic = AddPartitionsToTxnTopicResult { name: "t".to_owned(), results_by_partition: vec![result] };
        AddPartitionsToTxnResponse { results_by_topic_v3_and_below: vec![topic], ..Default::default() }
    }

    fn end(error: ErrorCode) -> EndTxnResponse {
        EndTxnResponse { error_code: error.code(), ..Default::default() }
    }

    fn asked(transaction: &Transaction, now: Monotonic) -> &'static str {
        match transaction.next(now) {
            Step::Ask(ToAsk::FindCoordinator(_)) => "find",
            Step::Ask(ToAsk::InitProducerId(_)) => "init",
            Step::Ask(ToAsk::AddPartitions(_)) => "add",
            Step::Ask(ToAsk::EndTxn(request)) if request.committed => "commit",
            Step::Ask(ToAsk::EndTxn(_)) => "abort",
            Step::Wait(_) => "wait",
            Step::Done => "done",
        }
    }

    fn ready() -> Transaction {
        let mut transaction = new();
        transaction.init(at(0));
        transaction.found(&coordinator(ErrorCode::None), at(0)).expect("found");
        transaction.initialized(&producer(ErrorCode::None), at(0)).expect("given");
        transaction
    }

    fn open() -> Transaction {
        let mut transaction = ready();
        transaction.add("t", 0, at(0));
        transaction.added(&partition(0, ErrorCode::None), at(0)).expect("added");
        transaction
    }

    #[test]
    fn a_transaction_goes_from_its_coordinator_to_its_commit_and_the_next_one_begins() {
        let mut transaction = new();
        assert_eq!(asked(&transaction, at(0)), "done");
        transaction.init(at(0));
        assert_eq!(asked(&transaction, at(0)), "find");
        transaction.found(&coordinator(ErrorCode::None), at(0)).expect("found");
        assert_eq!((transaction.coordinator(), asked(&transaction, at(0))), (Some(("c", 9)), "init"));
        transaction.initialized(&producer(ErrorCode::None), at(0)).expect("given");
        assert_eq!((transaction.identity(), asked(&transaction, at(0))), (Some((7, 2)), "done"));
        for _ in 0..2 {
            for index in [0, 1, 0] {
                let is_new = !transaction.has("t", index);
                transaction.add("t", index, at(1));
                assert_eq!(asked(&transaction, at(1)), if is_new { "add" } else { "done" });
                transaction.added(&partition(index, ErrorCode::None), at(1)).expect("added");
                assert!(transaction.has("t", index) && transaction.is_open());
            }
            transaction.end(true, at(2));
            let Step::Ask(ToAsk::EndTxn(request)) = transaction.next(at(2)) else { panic!("nothing to end") };
            assert_eq!((request.producer_id, request.producer_epoch, request.committed), (7, 2, true));
            assert_eq!(request.transactional_id, "id");
            transaction.ended(&end(ErrorCode::None), at(2)).expect("ended");
            assert!(!transaction.is_open() && !transaction.has("t", 0));
        }
    }

    #[test]
    fn nothing_is_asked_to_end_a_transaction_without_partitions() {
        let mut transaction = ready();
        for commit in [true, false] {
            transaction.end(commit, at(5));
            assert_eq!(asked(&transaction, at(5)), "done");
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_later_and_later_and_of_the_coordinator_of_then() {
        let mut transaction = ready();
        transaction.add("t", 0, at(0));
        for (error, next) in [
            (ErrorCode::ConcurrentTransactions, "add"),
            (ErrorCode::CoordinatorLoadInProgress, "add"),
            (ErrorCode::UnknownTopicOrPartition, "add"),
            (ErrorCode::NotCoordinator, "find"),
        ] {
            assert_eq!(asked(&transaction, at(0)), "add");
            transaction.added(&partition(0, error), at(0)).expect("tried again");
            let Step::Wait(then) = transaction.next(at(0)) else { panic!("at once after {error}") };
            assert!(then > at(0));
            assert_eq!(
                (transaction.waits_for().map(|wait| wait.1), asked(&transaction, then)),
                (Some(error.code()), next)
            );
            transaction.retry_at = at(0);
        }
        transaction.found(&coordinator(ErrorCode::CoordinatorNotAvailable), at(0)).expect("tried again");
        assert_eq!(asked(&transaction, at(1000)), "find");
        transaction.found(&coordinator(ErrorCode::None), at(1000)).expect("found");
        assert_eq!(asked(&transaction, at(1000)), "add");
        transaction.unanswered(at(1000)).expect("tried again");
        assert_eq!((transaction.coordinator(), asked(&transaction, at(3000))), (None, "find"));
    }

    #[test]
    fn patience_ends_whatever_is_tried_with_what_it_was_and_why() {
        let mut transaction = new();
        transaction.init(at(0));
        let mut now = at(0);
        let mut tries = 0;
        let error = loop {
            tries += 1;
            match transaction.found(&coordinator(ErrorCode::CoordinatorNotAvailable), now) {
                Ok(()) => match transaction.next(now) {
                    Step::Wait(then) => now = then,
                    step => panic!("{step:?}"),
                },
                Err(error) => break error,
            }
        };
        let code = ErrorCode::CoordinatorNotAvailable.code();
        let patience = 10 * SECOND;
        assert_eq!(error, TransactionError::TooLate { what: "getting a producer id", code, patience });
        // 20 ms doubled up to a second, and then every second.
        assert!((10..20).contains(&tries) && now <= at(10_000), "{tries} tries until {now:?}");
        assert_eq!(asked(&transaction, now), "done");
    }

    #[test]
    fn an_abort_is_given_up_sooner_than_anything_else() {
        let mut transaction = open();
        transaction.end(true, at(0));
        assert_eq!((transaction.time_left(at(0)), transaction.time_left(at(9_000))), (10 * SECOND, SECOND));
        transaction.unanswered(at(6_000)).expect("tried again");
        transaction.end(false, at(6_000));
        assert_eq!((transaction.time_left(at(7_000)), transaction.time_left(at(90_000))), (4 * SECOND, Duration::ZERO));
        let given_up = transaction.unanswered(at(11_000)).expect_err("five seconds are over");
        assert!(matches!(given_up, TransactionError::TooLate { patience: ABORT_PATIENCE, .. }), "{given_up}");
    }

    #[test]
    fn a_refusal_leaves_a_transaction_to_abort() {
        for error in [ErrorCode::ProducerFenced, ErrorCode::InvalidTxnState, ErrorCode::TopicAuthorizationFailed] {
            let mut transaction = open();
            transaction.add("t", 1, at(0));
            let refused = transaction.added(&partition(1, error), at(0)).expect_err("refused");
            assert!(matches!(refused, TransactionError::Refused { code, .. } if code == error.code()), "{refused}");
            assert!(transaction.is_open() && !transaction.has("t", 1));
            transaction.end(false, at(0));
            assert_eq!(asked(&transaction, at(0)), "abort");
        }
        let mut transaction = open();
        transaction.add("t", 1, at(0));
        assert_eq!(transaction.added(&partition(5, ErrorCode::None), at(0)), Err(TransactionError::NoAnswer(1)));
    }

    #[test]
    fn an_end_that_is_not_done_yet_is_asked_again_and_the_transaction_stays_open() {
        let mut transaction = open();
        transaction.end(true, at(0));
        transaction.ended(&end(ErrorCode::ConcurrentTransactions), at(0)).expect("tried again");
        assert!(transaction.is_open());
        assert_eq!(asked(&transaction, at(20)), "commit");
        transaction.ended(&end(ErrorCode::None), at(20)).expect("ended");
        assert!(!transaction.is_open());
    }
}
