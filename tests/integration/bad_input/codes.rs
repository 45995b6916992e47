//! Every error code of Kafka 3.9, provoked where this broker can give it; the others with the reason. The table is one
//! `match` over all codes: a new one must find its place in it.

use std::path::{Path, PathBuf};

use ringlog::base::ids::TopicId;
use ringlog::protocol::ApiKey;
use ringlog::protocol::ErrorCode::{self, *};
use ringlog::protocol::message::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse,
};
use ringlog::protocol::message::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic,
};
use ringlog::protocol::message::delete_topics::{DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};
use ringlog::protocol::message::describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
use ringlog::protocol::message::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use ringlog::protocol::message::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use ringlog::protocol::message::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ringlog::protocol::message::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use ringlog::protocol::message::produce::ProduceRequestToSend;
use ringlog::protocol::message::sasl_handshake::{SaslHandshakeRequest, SaslHandshakeResponse};
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;

use super::{Bench, answer_of};
use crate::wire::{Wire, ask};

/// Where a code comes from.
enum Row {
    /// What is asked, and the code that comes back.
    Provoked(fn(&mut Bench) -> i16),
    /// The test that provokes it, since it takes a broken disk, another start or the table of batches.
    ShownBy(&'static str),
    /// It is given in a moment that no client can bring about: which.
    Momentary(&'static str),
    /// Why nobody gets it from this broker now: no handler names it.
    NotHere(&'static str),
}
use Row::{Momentary, NotHere, Provoked, ShownBy};

const BATCHES: &str = "every_demand_on_a_batch_is_held_with_kafkas_code_and_nothing_refused_is_appended";
const OFFLINE: &str = "a_directory_made_read_only_goes_offline_with_its_partitions_and_the_other_serves_on";
const EPOCHS: &str = "repeated_and_unknown_partitions_and_wrong_epochs_have_kafkas_codes";
const BY_ID: &str = "topics_are_fetched_by_id_and_a_topic_made_anew_is_not_the_one_that_was_meant";
const SESSIONS: &str = "a_session_is_made_answers_what_changed_forgets_and_ends";
const LISTENERS: &str = "a_client_is_told_the_addresses_of_the_listener_that_it_came_in_by";

const OF_CLIENTS: &str = "only clients give it to themselves";
const GROUPS: &str = "there is no group coordinator yet";
const TRANSACTIONS: &str = "there is no transaction coordinator yet";
const SECURITY: &str = "there are no listeners with SASL, no ACLs, tokens or SCRAM yet";
const QUOTAS: &str = "there are no quotas yet";
const REPLICATION: &str = "it takes other brokers";
const ADMIN: &str = "its request is not served yet";
const KRAFT: &str = "only brokers in KRaft mode give it";

fn row(code: ErrorCode) -> Row {
    match code {
        None => Provoked(|bench| bench.witness.produce(9, TOPIC, 0, &batch(Codec::None)).error_code),
        UnknownServerError => Provoked(|bench| {
            let partition = ListOffsetsPartition { timestamp: -1, max_num_offsets: -2, ..Default::default() };
            list_offsets(&mut bench.witness, 0, partition)
        }),
        OffsetOutOfRange => Provoked(|bench| bench.witness.fetch(TOPIC, 0, 1_000_000, 1000).0.error_code),
        CorruptMessage => Provoked(|bench| {
            let mut torn = batch(Codec::None);
            *torn.last_mut().expect("a byte") ^= 1;
            bench.witness.produce(9, TOPIC, 0, &torn).error_code
        }),
        UnknownTopicOrPartition => {
            Provoked(|bench| bench.witness.produce(9, TOPIC, 77, &batch(Codec::None)).error_code)
        }
        RequestTimedOut => Provoked(|bench| {
            create_topic(&mut bench.witness, "hurried", &[]);
            let topics = vec![DeleteTopicState { name: Some("hurried".into()), ..Default::default() }];
            let request = DeleteTopicsRequest { topics, timeout_ms: 0, ..Default::default() };
            ask!(bench.witness, 6, request, DeleteTopicsResponse).responses[0].error_code
        }),
        InvalidTopicException => Provoked(|bench| bench.witness.create_topic("no/name", 1)),
        InvalidRequiredAcks => Provoked(|bench| {
            bench.witness.send_produce(9, 2, TOPIC, 0, &batch(Codec::None)).expect("sent");
            bench.witness.receive_produce(9).expect("answered").1.error_code
        }),
        UnsupportedVersion => Provoked(|bench| {
            // By the greatest timestamp: version 7 and later know that.
            let partition = ListOffsetsPartition { timestamp: -3, ..Default::default() };
            list_offsets(&mut bench.witness, 6, partition)
        }),
        TopicAlreadyExists => Provoked(|bench| bench.witness.create_topic(TOPIC, 1)),
        InvalidPartitions => Provoked(|bench| bench.witness.create_topic("none", 0)),
        InvalidReplicationFactor => {
            Provoked(|bench| create(&mut bench.witness, CreatableTopic { replication_factor: 3, ..new("three") }))
        }
        InvalidReplicaAssignment => Provoked(|bench| {
            let assignments = vec![CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![1, 1] }];
            let topic = CreatableTopic { num_partitions: -1, replication_factor: -1, assignments, ..new("twice") };
            create(&mut bench.witness, topic)
        }),
        InvalidConfig => Provoked(|bench| {
            let configs = vec![CreatableTopicConfig { name: "retention.ms".into(), value: Some("soon".into()) }];
            create(&mut bench.witness, CreatableTopic { configs, ..new("wrong") })
        }),
        InvalidRequest => Provoked(|bench| {
            let request = CreateTopicsRequest { topics: vec![new("again"), new("again")], ..Default::default() };
            ask!(bench.witness, 7, request, CreateTopicsResponse).topics[0].error_code
        }),
        OutOfOrderSequenceNumber => Provoked(|bench| {
            let (id, epoch) = bench.witness.new_producer();
            assert_eq!(bench.witness.produce(9, TOPIC, 0, &idempotent(id, epoch, 0)).error_code, 0);
            bench.witness.produce(9, TOPIC, 0, &idempotent(id, epoch, 7)).error_code
        }),
        InvalidProducerEpoch => Provoked(|bench| {
            let (id, epoch) = bench.witness.new_producer();
            assert_eq!(bench.witness.produce(9, TOPIC, 0, &idempotent(id, epoch + 2, 0)).error_code, 0);
            bench.witness.produce(9, TOPIC, 0, &idempotent(id, epoch + 1, 0)).error_code
        }),
        InvalidTxnState => Provoked(|bench| produce_as(&mut bench.witness, Some("id"), true)),
        TransactionalIdAuthorizationFailed => Provoked(|bench| {
            let plain = produce_as(&mut bench.witness, Some("id"), false);
            assert_eq!(plain, None.code(), "an id alone makes no transaction");
            produce_as(&mut bench.witness, Option::None, true)
        }),
        InvalidTransactionTimeout => Provoked(|bench| {
            let transactional_id = Some("id".to_owned());
            let request = InitProducerIdRequest { transactional_id, transaction_timeout_ms: -1, ..Default::default() };
            ask!(bench.witness, 4, request, InitProducerIdResponse).error_code
        }),
        CoordinatorNotAvailable => Provoked(|bench| {
            let request = FindCoordinatorRequest { coordinator_keys: vec!["group".into()], ..Default::default() };
            ask!(bench.witness, 4, request, FindCoordinatorResponse).coordinators[0].error_code
        }),
        FetchSessionIdNotFound => Provoked(|bench| {
            fetch(&mut bench.witness, 12, FetchRequest { session_id: 77, session_epoch: 1, ..Default::default() })
        }),
        TopicDeletionDisabled => Provoked(|_| {
            let mut other = Bench::start(&["delete.topic.enable=false"]);
            create_topic(&mut other.witness, "kept", &[]);
            let topics = vec![DeleteTopicState { name: Some("kept".into()), ..Default::default() }];
            let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
            ask!(other.witness, 6, request, DeleteTopicsResponse).responses[0].error_code
        }),
        UnknownLeaderEpoch => Provoked(|bench| {
            let partition = ListOffsetsPartition { timestamp: -1, current_leader_epoch: 99, ..Default::default() };
            list_offsets(&mut bench.witness, 9, partition)
        }),
        UnsupportedCompressionType => {
            Provoked(|bench| bench.witness.produce(6, TOPIC, 0, &batch(Codec::Zstd)).error_code)
        }
        InvalidRecord => Provoked(|bench| bench.witness.produce(9, TOPIC, 0, &[]).error_code),
        UnknownTopicId => Provoked(|bench| {
            let topics = vec![DeleteTopicState { name: Option::None, topic_id: TopicId([9; 16]) }];
            let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
            ask!(bench.witness, 6, request, DeleteTopicsResponse).responses[0].error_code
        }),
        PolicyViolation => Provoked(|bench| {
            create_topic(&mut bench.witness, "compacted", &[("cleanup.policy", "compact")]);
            let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: -1 }];
            let topics = vec![DeleteRecordsTopic { name: "compacted".into(), partitions }];
            let request = DeleteRecordsRequest { topics, timeout_ms: 30_000 };
            ask!(bench.witness, 2, request, DeleteRecordsResponse).topics[0].partitions[0].error_code
        }),
        IllegalSaslState => Provoked(|bench| {
            let request = SaslHandshakeRequest { mechanism: "PLAIN".into() };
            ask!(bench.witness, 1, request, SaslHandshakeResponse).error_code
        }),
        MismatchedEndpointType => Provoked(|bench| endpoint(&mut bench.witness, 2)),
        UnsupportedEndpointType => Provoked(|bench| endpoint(&mut bench.witness, 7)),

        MessageTooLarge | RecordListTooLarge | InvalidTimestamp => ShownBy(BATCHES),
        KafkaStorageError => ShownBy(OFFLINE),
        FencedLeaderEpoch => ShownBy(EPOCHS),
        InvalidFetchSessionEpoch | FetchSessionTopicIdError => ShownBy(SESSIONS),
        InconsistentTopicId => ShownBy(BY_ID),
        ListenerNotFound => ShownBy(LISTENERS),

        LeaderNotAvailable | NotLeaderOrFollower => {
            Momentary("one broker leads all that it shows, but while a partition opens or closes")
        }
        NotEnoughReplicas | NotEnoughReplicasAfterAppend | OffsetNotAvailable => {
            Momentary("one broker has the one replica of each partition, and that is in sync")
        }
        TransactionCoordinatorFenced => Momentary("a coordinator is told it of its markers, and no client sends those"),
        NotController => Momentary("one broker is the controller, but while it starts"),
        NetworkException
        | InvalidFetchSize
        | BrokerNotAvailable
        | ReplicaNotAvailable
        | UnsupportedForMessageFormat => NotHere(OF_CLIENTS),
        DuplicateSequenceNumber | UnknownProducerId => {
            NotHere("a repeated batch is answered as the first was, and an unknown producer may begin anywhere")
        }
        StaleControllerEpoch
        | StaleBrokerEpoch
        | PreferredLeaderNotAvailable
        | EligibleLeadersNotAvailable
        | ElectionNotNeeded
        | ReassignmentInProgress
        | NoReassignmentInProgress
        | BrokerIdNotRegistered
        | IneligibleReplica
        | NewLeaderElected
        | InvalidUpdateVersion
        | FeatureUpdateFailed => NotHere(REPLICATION),
        OffsetMetadataTooLarge
        | CoordinatorLoadInProgress
        | NotCoordinator
        | IllegalGeneration
        | InconsistentGroupProtocol
        | InvalidGroupId
        | UnknownMemberId
        | InvalidSessionTimeout
        | RebalanceInProgress
        | InvalidCommitOffsetSize
        | NonEmptyGroup
        | GroupIdNotFound
        | MemberIdRequired
        | GroupMaxSizeReached
        | FencedInstanceId
        | GroupSubscribedToTopic
        | UnstableOffsetCommit => NotHere(GROUPS),
        InvalidProducerIdMapping
        | ConcurrentTransactions
        | ProducerFenced
        | TransactionalIdNotFound
        | TransactionAbortable => NotHere(TRANSACTIONS),
        TopicAuthorizationFailed
        | GroupAuthorizationFailed
        | ClusterAuthorizationFailed
        | DelegationTokenAuthorizationFailed
        | UnsupportedSaslMechanism
        | SaslAuthenticationFailed
        | SecurityDisabled
        | DelegationTokenAuthDisabled
        | DelegationTokenNotFound
        | DelegationTokenOwnerMismatch
        | DelegationTokenRequestNotAllowed
        | DelegationTokenExpired
        | InvalidPrincipalType
        | UnacceptableCredential
        | DuplicateResource
        | ResourceNotFound
        | PrincipalDeserializationFailure => NotHere(SECURITY),
        ThrottlingQuotaExceeded => NotHere(QUOTAS),
        OperationNotAttempted | LogDirNotFound => NotHere(ADMIN),
        OffsetMovedToTieredStorage => NotHere("there is no tiered storage"),
        InconsistentVoterSet
        | SnapshotNotFound
        | PositionOutOfRange
        | DuplicateBrokerRegistration
        | InconsistentClusterId
        | FencedMemberEpoch
        | UnreleasedInstanceId
        | UnsupportedAssignor
        | StaleMemberEpoch
        | UnknownControllerId
        | UnknownSubscriptionId
        | TelemetryTooLarge
        | InvalidRegistration
        | InvalidRecordState
        | ShareSessionNotFound
        | InvalidShareSessionEpoch
        | FencedStateEpoch
        | InvalidVoterKey
        | DuplicateVoter
        | VoterNotFound => NotHere(KRAFT),
    }
}

const TOPIC: &str = "provoked";

fn batch(codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    builder.push(1_700_000_000_000, Some(b"key"), Some(b"value"), &[]);
    builder.build().to_vec()
}

/// Produces a batch of a transaction, or a plain one, under a transactional id.
fn produce_as(wire: &mut Wire, transactional_id: Option<&str>, transactional: bool) -> i16 {
    const VERSION: i16 = 9;
    let mut builder = BatchBuilder::new(Codec::None);
    if transactional {
        builder = builder.producer(5, 0, 0).transactional();
    }
    builder.push(1, Option::None, Some(b"v"), &[]);
    let records = builder.build();
    let topics: &[(&str, &[(i32, Option<&[u8]>)])] = &[(TOPIC, &[(0, Some(&records))])];
    let request = ProduceRequestToSend { transactional_id, acks: 1, timeout_ms: 1000, topics };
    wire.send(ApiKey::Produce, VERSION, |writer| request.encode(writer, VERSION)).expect("sent");
    wire.receive_produce(VERSION).expect("answered").1.error_code
}

fn idempotent(producer_id: i64, epoch: i16, sequence: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None).producer(producer_id, epoch, sequence);
    builder.push(1_700_000_000_000, Some(b"key"), Some(b"value"), &[]);
    builder.build().to_vec()
}

fn new(name: &str) -> CreatableTopic {
    CreatableTopic { name: name.to_owned(), num_partitions: 1, replication_factor: 1, ..Default::default() }
}

fn create(wire: &mut Wire, topic: CreatableTopic) -> i16 {
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    ask!(wire, 7, request, CreateTopicsResponse).topics[0].error_code
}

/// Creates a topic of one partition with these settings.
pub fn create_topic(wire: &mut Wire, name: &str, configs: &[(&str, &str)]) {
    let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
        name: (*name).to_owned(),
        value: Some((*value).to_owned()),
    };
    let topic = CreatableTopic { configs: configs.iter().map(config).collect(), ..new(name) };
    assert_eq!(create(wire, topic), 0, "{name}");
}

fn list_offsets(wire: &mut Wire, version: i16, partition: ListOffsetsPartition) -> i16 {
    list_one(wire, version, TOPIC, partition).error_code
}

fn list_one(
    wire: &mut Wire,
    version: i16,
    topic: &str,
    partition: ListOffsetsPartition,
) -> ListOffsetsPartitionResponse {
    let topics = vec![ListOffsetsTopic { name: topic.to_owned(), partitions: vec![partition] }];
    let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    ask!(wire, version, request, ListOffsetsResponse).topics.remove(0).partitions.remove(0)
}

/// Where the first partition of a topic ends.
pub fn end_offset(wire: &mut Wire, topic: &str) -> i64 {
    list_one(wire, 9, topic, ListOffsetsPartition { timestamp: -1, ..Default::default() }).offset
}

/// The code of the whole answer.
fn fetch(wire: &mut Wire, version: i16, request: FetchRequest) -> i16 {
    let partitions = vec![FetchPartition { partition_max_bytes: 1000, ..Default::default() }];
    let topics = vec![FetchTopic { topic: TOPIC.into(), partitions, ..Default::default() }];
    let request = FetchRequest { topics, ..request };
    let response = answer_of(
        wire,
        ApiKey::Fetch,
        version,
        |writer| request.encode(writer, version),
        |reader| FetchResponse::decode(reader, version).expect("a body"),
    );
    response.error_code
}

fn endpoint(wire: &mut Wire, endpoint_type: i8) -> i16 {
    let request = DescribeClusterRequest { endpoint_type, ..Default::default() };
    ask!(wire, 1, request, DescribeClusterResponse).error_code
}

/// The text of all files below a directory.
fn sources(directory: &Path) -> String {
    let entries = std::fs::read_dir(directory).expect("the sources").map(|entry| entry.expect("an entry").path());
    let text = |path: PathBuf| match path.is_dir() {
        true => sources(&path),
        false => std::fs::read_to_string(path).expect("a source"),
    };
    entries.map(text).collect()
}

#[test]
fn every_error_code_that_this_broker_gives_is_provoked_and_the_others_have_a_reason() {
    let mut bench = Bench::start(&["auto.create.topics.enable=false"]);
    create_topic(&mut bench.witness, TOPIC, &[]);
    let own_tests = include_str!("batches.rs").to_owned()
        + include_str!("../disk_faults.rs")
        + include_str!("../offsets.rs")
        + include_str!("../fetch.rs")
        + include_str!("../connections.rs");
    let handlers = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/handlers"));
    assert!(handlers.contains("ErrorCode::InvalidRequest"));
    let mut provoked = 0;
    for code in ErrorCode::ALL {
        match row(*code) {
            Provoked(provoke) => {
                assert_eq!(ErrorCode::from_code(provoke(&mut bench)), Some(*code));
                provoked += 1;
                bench.assert_serves();
            }
            ShownBy(test) => assert!(own_tests.contains(&format!("fn {test}()")), "{code}: there is no test {test}"),
            Momentary(reason) => assert!(!reason.is_empty(), "{code}"),
            NotHere(reason) => {
                let name = format!("ErrorCode::{code:?}");
                let mut words = handlers.split(|letter: char| !letter.is_alphanumeric() && letter != ':');
                assert!(words.all(|word| word != name), "{code} is given by a handler, though {reason}");
            }
        }
    }
    assert!(provoked >= 29, "{provoked}");
    assert_eq!(bench.refused(), 0, "an error code closes no connection");
    bench.server.stop();
}
