//! The performance test's transactions against a coordinator that is played here: a go-between answers what belongs to
//! transactions, holds every batch to the rules, and passes all else on to ringlog.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use ringlog::handlers::api::SERVED;
use ringlog::protocol::header::{RequestHeader, begin_response, finish_frame};
use ringlog::protocol::message::produce::{PartitionProduceResponse, TopicProduceResponse};
use ringlog::protocol::message::*;
use ringlog::protocol::{ApiKey, ErrorCode, Reader};

use super::*;
use crate::tools::ages::{behind, frame};

const PRODUCER: (i64, i16) = (77, 3);

/// What the coordinator and the partitions have seen.
#[derive(Default)]
struct Seen {
    /// Partitions of the open transaction.
    open: BTreeSet<i32>,
    next_sequences: BTreeMap<i32, i32>,
    records: u64,
    committed: usize,
    aborted: usize,
    found: usize,
    /// Answers to come before any other.
    to_add: Vec<ErrorCode>,
    to_end: Vec<ErrorCode>,
    to_find: Option<ErrorCode>,
    /// What a batch is answered once so many records have come.
    refuse_after: Option<u64>,
    wrong: Vec<String>,
}

impl Seen {
    fn check(&mut self, is_right: bool, what: impl FnOnce() -> String) {
        if !is_right {
            self.wrong.push(what());
        }
    }

    fn add(&mut self, request: &AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
        let error = self.to_add.pop().unwrap_or(ErrorCode::None);
        let asked = (request.v3_and_below_producer_id, request.v3_and_below_producer_epoch);
        self.check(asked == PRODUCER && request.v3_and_below_transactional_id == "tx", || format!("{request:?}"));
        let result = |partition: &i32| AddPartitionsToTxnPartitionResult {
            partition_index: *partition,
            partition_error_code: error.code(),
        };
        let topics = request.v3_and_below_topics.iter().map(|topic| AddPartitionsToTxnTopicResult {
            name: topic.name.clone(),
            results_by_partition: topic.partitions.iter().map(result).collect(),
        });
        if error == ErrorCode::None {
            self.open.extend(request.v3_and_below_topics.iter().flat_map(|topic| &topic.partitions));
        }
        AddPartitionsToTxnResponse { results_by_topic_v3_and_below: topics.collect(), ..Default::default() }
    }

    fn end(&mut self, request: &EndTxnRequest) -> EndTxnResponse {
        let error = self.to_end.pop().unwrap_or(ErrorCode::None);
        self.check((request.producer_id, request.producer_epoch) == PRODUCER, || format!("{request:?}"));
        self.check(!self.open.is_empty(), || "nothing to end".to_owned());
        if error == ErrorCode::None {
            self.open.clear();
            *if request.committed { &mut self.committed } else { &mut self.aborted } += 1;
        }
        EndTxnResponse { error_code: error.code(), ..Default::default() }
    }

    fn produce(&mut self, body: &[u8], version: i16) -> ProduceResponse {
        let request = ProduceRequest::decode(body, version).expect("a request");
        self.check(request.transactional_id.as_deref() == Some("tx"), || "no transactional id".to_owned());
        let refused = self.refuse_after.is_some_and(|after| self.records >= after);
        let error_code = if refused { ErrorCode::NotEnoughReplicas } else { ErrorCode::None }.code();
        let mut responses = Vec::new();
        for topic in &request.topic_data {
            let mut partition_responses = Vec::new();
            for data in &topic.partition_data {
                let batch = &body[data.records.clone().expect("records")];
                let header = BatchHeader::parse(batch).expect("a header");
                let next = self.next_sequences.get(&data.index).copied().unwrap_or(0);
                self.check(self.open.contains(&data.index), || format!("{} is not in a transaction", data.index));
                let producer = (header.producer_id, header.producer_epoch);
                self.check(header.is_transactional() && producer == PRODUCER, || format!("{header:?}"));
                self.check(header.base_sequence == next, || format!("{next} was to come, not {header:?}"));
                self.next_sequences.insert(data.index, next + header.record_count);
                self.records += header.record_count as u64;
                partition_responses.push(PartitionProduceResponse {
                    index: data.index,
                    error_code,
                    ..PartitionProduceResponse::default()
                });
            }
            let name = (*topic.name).into();
            responses.push(TopicProduceResponse { name, partition_responses });
        }
        ProduceResponse { responses, ..ProduceResponse::default() }
    }
}

fn versions() -> ApiVersionsResponse {
    let listed = |key: ApiKey, min_version, max_version| ApiVersion { api_key: key.code(), min_version, max_version };
    let theirs = SERVED.iter().map(|range| listed(range.api_key, range.lowest_version, range.highest_version));
    let ours = [listed(ApiKey::AddPartitionsToTxn, 0, 3), listed(ApiKey::EndTxn, 0, 4)];
    ApiVersionsResponse { api_keys: theirs.chain(ours).collect(), ..Default::default() }
}

/// Serves one connection, a request and its answer at a time.
fn go_between(mut client: TcpStream, broker: SocketAddr, seen: &Mutex<Seen>) -> Option<()> {
    let own = client.local_addr().ok()?;
    let mut broker = TcpStream::connect(broker).ok()?;
    loop {
        let request = frame(&mut client)?;
        let mut reader = Reader::new(&request[4..]);
        let header = RequestHeader::decode(&mut reader).expect("a header");
        let (version, correlation_id) = (header.api_version, header.correlation_id);
        let key = ApiKey::from_code(header.api_key)?;
        let body = &request[request.len() - reader.remaining()..];
        let mut writer = begin_response(key, version, correlation_id);
        let mut seen = seen.lock().expect("no panic");
        let written = match key {
            ApiKey::ApiVersions => versions().encode(&mut writer, version),
            ApiKey::FindCoordinator => {
                seen.found += 1;
                let error_code = seen.to_find.unwrap_or(ErrorCode::None).code();
                let (host, port) = (own.ip().to_string(), i32::from(own.port()));
                let response = FindCoordinatorResponse { error_code, host, port, ..Default::default() };
                response.encode(&mut writer, version)
            }
            ApiKey::InitProducerId => {
                let (producer_id, producer_epoch) = PRODUCER;
                let response = InitProducerIdResponse { producer_id, producer_epoch, ..Default::default() };
                response.encode(&mut writer, version)
            }
            ApiKey::AddPartitionsToTxn => {
                let request = AddPartitionsToTxnRequest::decode(&mut Reader::new(body), version).expect("a request");
                seen.add(&request).encode(&mut writer, version)
            }
            ApiKey::EndTxn => {
                let request = EndTxnRequest::decode(&mut Reader::new(body), version).expect("a request");
                seen.end(&request).encode(&mut writer, version)
            }
            ApiKey::Produce => seen.produce(body, version).encode(&mut writer, version),
            _ => {
                drop(seen);
                broker.write_all(&request).ok()?;
                client.write_all(&frame(&mut broker)?).ok()?;
                continue;
            }
        };
        drop(seen);
        written.expect("an answer");
        client.write_all(&finish_frame(writer).expect("a frame")).ok()?;
    }
}

/// A played cluster, and what it has seen.
struct Cluster {
    _directory: tempfile::TempDir,
    server: Server,
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Cluster {
    fn start(seen: Seen) -> Cluster {
        let directory = directory();
        let seen = Arc::new(Mutex::new(seen));
        let looked = seen.clone();
        let (server, _, address) = behind(directory.path(), move |client, broker| go_between(client, broker, &looked));
        Cluster { _directory: directory, server, address, seen }
    }

    /// The performance test, with some records a second.
    fn perf(&self, records: u64, throughput: u64) -> Command {
        let address = self.address;
        ringlog(
            &self.server,
            &format!(
                "kafka producer-perf-test --topic t --num-records {records} --record-size 10 --throughput {throughput} \
                 --transactional-id tx --transaction-duration-ms 40 --producer-props bootstrap.servers={address}"
            ),
        )
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic")
    }

    /// Ends it: the rules were kept, and no transaction is left open.
    fn end(self) {
        let seen = self.seen();
        assert_eq!(seen.wrong, [""; 0]);
        assert_eq!(seen.open, BTreeSet::new(), "a transaction stays open");
        drop(seen);
        self.server.stop();
    }
}

#[test]
fn every_batch_is_in_a_transaction_and_each_of_them_is_committed_though_the_coordinator_moves_and_is_busy() {
    let to_add = vec![ErrorCode::None, ErrorCode::ConcurrentTransactions, ErrorCode::CoordinatorLoadInProgress];
    let to_end = vec![ErrorCode::NotCoordinator, ErrorCode::ConcurrentTransactions];
    let cluster = Cluster::start(Seen { to_add, to_end, ..Seen::default() });
    let output = cluster.perf(2000, 4000).arg("linger.ms=1").output().expect("run");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.starts_with("2000 records sent, "), "{out}");
    let seen = cluster.seen();
    assert_eq!((seen.records, seen.aborted, seen.found), (2000, 0, 2));
    assert!((2..=14).contains(&seen.committed), "{} transactions of 40 ms in half a second", seen.committed);
    drop(seen);
    cluster.end();
}

#[test]
fn ctrl_c_and_a_refused_batch_abort_the_open_transaction() {
    let cluster = Cluster::start(Seen::default());
    let mut command = cluster.perf(1_000_000, 1000);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process");
    let deadline = Instant::now() + DEADLINE;
    while cluster.seen().committed == 0 || cluster.seen().open.is_empty() {
        assert!(Instant::now() < deadline, "nothing is committed");
        std::thread::yield_now();
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("signalled");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(cluster.seen().aborted <= 1);
    cluster.end();

    let cluster = Cluster::start(Seen { refuse_after: Some(100), ..Seen::default() });
    let output = cluster.perf(1_000_000, 5000).output().expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("NOT_ENOUGH_REPLICAS") && said.lines().count() == 1, "{said}");
    assert_eq!(cluster.seen().aborted, 1);
    cluster.end();
}

#[test]
fn a_coordinator_that_is_never_there_ends_it_when_the_time_is_up() {
    let cluster = Cluster::start(Seen { to_find: Some(ErrorCode::CoordinatorNotAvailable), ..Seen::default() });
    let output = cluster.perf(10, 1000).arg("request.timeout.ms=500").output().expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("getting a producer id for transactional id 'tx' has not come to an end within 0.5 s"),
        "{said}"
    );
    assert!(said.contains("COORDINATOR_NOT_AVAILABLE") && cluster.seen().found > 3, "{said}");
    cluster.end();
}
