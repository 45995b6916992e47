//! Produces that wait for a replica, and that replica's fetches: neither may take what the other needs, nor what others do.

use std::sync::Arc;
use std::thread::LocalKey;

use super::client::{Client, FETCH_VERSION, PRODUCE_VERSION};
use super::*;
use crate::base::budget::{Budget, Permit};
use crate::base::class::Class;
use crate::base::ids::BrokerId;
use crate::handlers::Unanswered;
use crate::handlers::api::Askers;
use crate::handlers::exchange::ConnectionState;
use crate::handlers::produce::planted::{HOLD_CREDITS, OUTLIVE_CLIENTS};
use crate::local::Local;
use crate::local::budgets::Budgets;
use crate::metadata::image::BrokerImage;
use crate::net::claims::planted::{ONE_FOR_ALL, WAIT_FOR_THE_MADE};
use crate::net::connection::planted::HOLD_BYTES;
use crate::protocol::message::{
    ApiVersionsRequest, CreatableTopic, CreateTopicsRequest, FetchPartition, FetchRequest, FetchTopic,
    ProduceRequestToSend, ProduceResponse,
};
use crate::protocol::{ApiKey, Reader, Writer};
use crate::record::batch::BatchBuilder;
use crate::record::compression::Codec;
use crate::sim::platform::SimPlatform;

/// Not this node's own id.
const FOLLOWER: BrokerId = BrokerId(77);

/// Several times of what one shard may have under way at another.
const PRODUCERS: usize = 12;

const FEW_CREDITS: Capacities = Capacities { credits: 2, ..TWO_SHARDS };

/// Connections that fill what a shard may have of something, with a request each that waits for replicas at their head.
const PIPELINES: usize = 6;

/// A third of the bytes that a shard's requests may take.
const LARGE_BYTES: usize = 350_000;

/// So many partitions make a fetch that is counted, and an answer to a produce that is.
const WIDE: i32 = 3_000;

const SOON: Duration = Duration::from_secs(5);

/// A planted bug, for as long as this lives.
struct Planted(&'static LocalKey<Cell<bool>>);

impl Planted {
    fn new(bug: &'static LocalKey<Cell<bool>>) -> Planted {
        bug.set(true);
        Planted(bug)
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// How one seed went.
#[derive(PartialEq)]
struct Run {
    /// What was to come, and how much of it came in time.
    expected: usize,
    came: usize,
    trace: Vec<TraceEntry>,
}

fn all_comes(run: fn(u64) -> Run) {
    for seed in 0..6 {
        let Run { expected, came, .. } = run(seed);
        assert_eq!(came, expected, "seed {seed}");
    }
}

fn is_caught(bug: &'static LocalKey<Cell<bool>>, run: fn(u64) -> Run) {
    let _planted = Planted::new(bug);
    let caught = (0..6).map(|seed| (seed, run(seed))).find(|(_, run)| run.came < run.expected);
    let (seed, first) = caught.expect("some seed shows it");
    assert!(first == run(seed), "seed {seed} ran differently the second time");
}

/// A node of which another broker's replicas follow all partitions, and which knows of that one.
struct Leader {
    world: World,
    clients: Executor,
    node: Node,
    came: Rc<Cell<usize>>,
}

impl Leader {
    fn start(seed: u64, capacities: Capacities) -> Leader {
        let world = World::new(seed);
        let clients = world.executor();
        let node = Node::start(&world, Remains::none(), capacities);
        create_topic(&world, &clients, &node);
        for partition in 0..PARTITIONS {
            node.set_replicas(TOPIC, partition, &[node.broker_id(), FOLLOWER]);
        }
        run_for(&world, Duration::from_secs(1));
        for local in node.locals() {
            let mut image = (*local.image()).clone();
            let follower = BrokerImage { id: FOLLOWER, ..image.brokers[0].clone() };
            image.brokers = image.brokers.iter().cloned().chain([follower]).collect();
            local.set_image(Arc::new(image));
        }
        Leader { world, clients, node, came: Rc::default() }
    }

    /// Sends requests at once, and counts which of them are answered without an error, besides those of other topics.
    fn pipeline(&self, requests: Vec<Vec<u8>>) {
        let (mut client, came) = (Client::new(self.node.connect()), Rc::clone(&self.came));
        self.clients.spawn(async move {
            let count = requests.len();
            for request in requests {
                let write = |writer: &mut Writer| {
                    writer.bytes(&request);
                    Ok(())
                };
                if client.post(ApiKey::Produce, PRODUCE_VERSION, write).await.is_none() {
                    return;
                }
            }
            for _ in 0..count {
                let Some((_, answer)) = client.answer(ApiKey::Produce, PRODUCE_VERSION).await else { return };
                let response = ProduceResponse::decode(&mut Reader::new(&answer), PRODUCE_VERSION).expect("produced");
                let ours = response.responses.iter().filter(|topic| &*topic.name == TOPIC);
                let sound = ours.flat_map(|topic| &topic.partition_responses).filter(|answer| answer.error_code == 0);
                came.set(came.get() + sound.count());
            }
        });
    }

    /// Has the other broker follow all partitions by connections that it opens now, to each shard one.
    fn follow(&self, wide: i32) -> Rc<Cell<bool>> {
        let stop = Rc::new(Cell::new(false));
        for shard in 0..TWO_SHARDS.shards {
            let (client, stop) = (Client::new(self.node.connect()), Rc::clone(&stop));
            let partitions = (0..PARTITIONS).filter(move |partition| partition % 2 == i32::from(shard)).collect();
            self.clients.spawn(follow(self.world.clone(), client, partitions, wide, stop));
        }
        stop
    }

    fn end(self, expected: usize) -> Run {
        let came = self.came.get();
        self.node.end(End::Kill);
        Run { expected, came, trace: self.world.trace() }
    }
}

/// A follower that fetches over and over from some partitions, and asks for more of them than there are.
async fn follow(world: World, mut client: Client, partitions: Vec<i32>, wide: i32, stop: Rc<Cell<bool>>) {
    let versions = ApiVersionsRequest::default();
    if client.ask(ApiKey::ApiVersions, 0, |writer| versions.encode(writer, 0)).await.is_none() {
        return;
    }
    let mut next: BTreeMap<i32, i64> = partitions.iter().map(|partition| (*partition, 0)).collect();
    while !stop.get() {
        let asked = |(partition, offset): (i32, i64)| FetchPartition {
            partition,
            fetch_offset: offset,
            partition_max_bytes: 500,
            ..FetchPartition::default()
        };
        let topic = |name: &str, partitions: Vec<FetchPartition>| FetchTopic {
            topic: name.into(),
            partitions,
            ..FetchTopic::default()
        };
        let ours = next.iter().map(|(partition, offset)| asked((*partition, *offset))).collect();
        let others = (0..wide).map(|partition| asked((partition, 0))).collect();
        let request = FetchRequest {
            replica_id: FOLLOWER.0,
            max_wait_ms: 100,
            min_bytes: 1,
            topics: vec![topic(TOPIC, ours), topic("another", others)],
            ..FetchRequest::default()
        };
        let encode = |writer: &mut Writer| request.encode(writer, FETCH_VERSION);
        let Some(body) = client.ask(ApiKey::Fetch, FETCH_VERSION, encode).await else { return };
        for (partition, end) in client::ends_of(&body) {
            next.entry(partition).and_modify(|next| *next = end.max(*next));
        }
        sleep(&world, Duration::from_millis(20)).await;
    }
}

/// A produce of one record with so many bytes to a partition, with acks=all.
fn produce(partition: i32, bytes: usize, timeout_ms: i32) -> Vec<u8> {
    let batch = one_record(&vec![b'x'; bytes]);
    encoded(-1, timeout_ms, &[(TOPIC, &[(partition, Some(&batch))])])
}

/// A produce to many partitions of a topic that is not there: it waits for nobody, and its answer is large.
fn wide_answer() -> Vec<u8> {
    let absent: Vec<(i32, Option<&[u8]>)> = (0..WIDE).map(|partition| (partition, None)).collect();
    encoded(-1, 10_000, &[("another", &absent)])
}

fn one_record(value: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(1_700_000_000_000, None, Some(value), &[]);
    builder.build().to_vec()
}

fn encoded(acks: i16, timeout_ms: i32, topics: &[(&str, &[(i32, Option<&[u8]>)])]) -> Vec<u8> {
    let request = ProduceRequestToSend { transactional_id: None, acks, timeout_ms, topics };
    let mut writer = Writer::new();
    request.encode(&mut writer, PRODUCE_VERSION).expect("a request");
    writer.into_bytes().to_vec()
}

/// Clients of both shards produce to every partition with acks=all, more of them than there are credits; then a replica
/// fetches.
fn many_producers(seed: u64) -> Run {
    let leader = Leader::start(seed, FEW_CREDITS);
    for index in 0..PRODUCERS {
        leader.pipeline(vec![produce(index as i32 / 2 % PARTITIONS, 100, 10_000)]);
    }
    run_for(&leader.world, Duration::from_secs(1));
    assert_eq!(leader.came.get(), 0, "seed {seed}: acknowledged before the replica had it");
    let stop = leader.follow(0);
    run_for(&leader.world, SOON);
    stop.set(true);
    leader.end(PRODUCERS)
}

#[test]
fn a_replica_fetches_on_while_produces_that_wait_for_it_are_more_than_there_are_credits() {
    all_comes(many_producers);
}

#[test]
fn produces_that_keep_what_the_replica_needs_while_they_wait_for_it_are_caught() {
    is_caught(&HOLD_CREDITS, many_producers);
}

/// Connections have as many produces unanswered as they may, and large ones behind those, together more than a shard's
/// requests may take. Then a follower connects.
fn large_produces_behind_others(seed: u64) -> Run {
    let leader = Leader::start(seed, TWO_SHARDS);
    let in_flight = TWO_SHARDS.limits.requests_in_flight_max;
    for index in 0..PIPELINES as i32 {
        let partition = index % PARTITIONS;
        let small = (0..in_flight).map(|_| produce(partition, 100, 10_000));
        leader.pipeline(small.chain([produce(partition, LARGE_BYTES, 10_000)]).collect());
        // The next one is the same shard's.
        drop(leader.node.connect());
    }
    run_for(&leader.world, Duration::from_secs(1));
    let stop = leader.follow(0);
    run_for(&leader.world, SOON);
    stop.set(true);
    leader.end(PIPELINES * (in_flight + 1))
}

#[test]
fn a_follower_that_connects_anew_gets_through_while_large_produces_stand_behind_those_that_wait_for_it() {
    all_comes(large_produces_behind_others);
}

#[test]
fn requests_that_take_their_bytes_before_their_turn_are_caught() {
    is_caught(&HOLD_BYTES, large_produces_behind_others);
}

/// Answers are made that stand behind others for which a replica is waited for, as many as there is room for.
fn answers_behind_others(seed: u64) -> Leader {
    let leader = Leader::start(seed, TWO_SHARDS);
    for index in 0..PIPELINES as i32 {
        let answers = (1..TWO_SHARDS.limits.requests_in_flight_max).map(|_| wide_answer());
        leader.pipeline([produce(index % PARTITIONS, 100, 60_000)].into_iter().chain(answers).collect());
    }
    run_for(&leader.world, Duration::from_secs(1));
    leader
}

/// A follower then asks for many partitions.
fn wide_fetch_beside_answers(seed: u64) -> Run {
    let leader = answers_behind_others(seed);
    let stop = leader.follow(WIDE);
    run_for(&leader.world, SOON);
    stop.set(true);
    leader.end(PIPELINES)
}

#[test]
fn a_follower_of_many_partitions_is_answered_while_answers_that_wait_for_it_take_all_that_clients_may() {
    all_comes(wide_fetch_beside_answers);
}

#[test]
fn answers_to_followers_that_share_what_answers_to_clients_take_are_caught() {
    is_caught(&ONE_FOR_ALL, wide_fetch_beside_answers);
}

/// No follower comes, and other clients want large answers.
fn large_answers_beside_answers(seed: u64) -> Run {
    let leader = answers_behind_others(seed);
    let count = usize::from(TWO_SHARDS.shards);
    for _ in 0..count {
        let (mut client, came) = (Client::new(leader.node.connect()), Rc::clone(&leader.came));
        leader.clients.spawn(async move {
            let request = wide_answer();
            let write = |writer: &mut Writer| {
                writer.bytes(&request);
                Ok(())
            };
            let answer = client.ask(ApiKey::Produce, PRODUCE_VERSION, write).await;
            came.set(came.get() + usize::from(answer.is_some()));
        });
    }
    run_for(&leader.world, SOON);
    leader.end(count)
}

#[test]
fn answers_that_stand_behind_others_give_way_when_somebody_waits_for_their_room() {
    all_comes(large_answers_beside_answers);
}

#[test]
fn answers_that_never_give_way_are_caught() {
    is_caught(&WAIT_FOR_THE_MADE, large_answers_beside_answers);
}

/// Clients produce with acks=all and all the time in the world, some ask for something else behind that, and go away.
fn clients_that_go_away(seed: u64) -> Run {
    let leader = Leader::start(seed, TWO_SHARDS);
    // What a partition starts for its first batch stays.
    let batch = one_record(b"first");
    leader.pipeline((0..PARTITIONS).map(|partition| encoded(1, 0, &[(TOPIC, &[(partition, Some(&batch))])])).collect());
    run_for(&leader.world, Duration::from_secs(10));
    let before = leader.node.task_count();
    for index in 0..PIPELINES as i32 {
        let mut client = Client::new(leader.node.connect());
        leader.clients.spawn(async move {
            let request = produce(index % PARTITIONS, 100, i32::MAX);
            for _ in 0..3 {
                let write = |writer: &mut Writer| {
                    writer.bytes(&request);
                    Ok(())
                };
                client.post(ApiKey::Produce, PRODUCE_VERSION, write).await.expect("sent");
            }
            if index % 2 == 0 {
                let versions = ApiVersionsRequest::default();
                client.post(ApiKey::ApiVersions, 0, |writer| versions.encode(writer, 0)).await.expect("sent");
            }
        });
    }
    run_for(&leader.world, Duration::from_secs(30));
    let left = leader.node.task_count().saturating_sub(before);
    leader.came.set(PIPELINES.saturating_sub(left));
    leader.end(PIPELINES)
}

#[test]
fn nothing_is_left_of_produces_that_wait_for_replicas_when_their_clients_are_gone() {
    all_comes(clients_that_go_away);
}

#[test]
fn produces_that_outlive_their_clients_are_caught() {
    is_caught(&OUTLIVE_CLIENTS, clients_that_go_away);
}

#[test]
fn only_a_broker_of_the_cluster_that_asks_what_followers_do_has_what_followers_have() {
    let leader = Leader::start(1, TWO_SHARDS);
    let local = leader.node.locals().next().expect("a shard");
    let classes = |replica_id: i32| {
        let connection = ConnectionState::default();
        connection.asked_by(local, replica_id);
        [Askers::ClientsAndFollowers, Askers::Clients].map(|askers| connection.class(askers))
    };
    assert_eq!(classes(FOLLOWER.0), [Class::Replication, Class::Client]);
    for nobody in [FOLLOWER.0 + 1, leader.node.broker_id().0, 0, -1, -2] {
        assert_eq!(classes(nobody), [Class::Client; 2], "{nobody}");
    }
    leader.end(0);
}

#[test]
fn a_produce_that_finds_no_room_to_wait_for_its_replicas_is_told_that_its_time_is_over() {
    let Leader { world, clients, node, .. } = Leader::start(7, TWO_SHARDS);
    let take = |room: fn(&Budgets) -> &Rc<Budget>| -> Vec<Permit> {
        let take = |budget: &Rc<Budget>| budget.try_acquire(budget.bytes_max()).expect("all of it is free");
        node.locals().map(|local| take(room(&local.budgets))).collect()
    };
    let batch = one_record(b"waits");
    let absent: Vec<(i32, Option<&[u8]>)> = (0..2_000).map(|partition| (partition, None)).collect();
    let answer_to = |partitions: &[(i32, Option<&[u8]>)]| {
        let (mut client, body) = (
            Client::new(node.connect()),
            encoded(-1, 25_000, &[(TOPIC, &[(0, Some(&batch))]), ("another", partitions)]),
        );
        let before = world.now();
        let answer = run(&world, &clients, async move {
            let write = |writer: &mut Writer| {
                writer.bytes(&body);
                Ok(())
            };
            client.ask(ApiKey::Produce, PRODUCE_VERSION, write).await.expect("answered")
        });
        let response = ProduceResponse::decode(&mut Reader::new(&answer), PRODUCE_VERSION).expect("produced");
        (response.responses[0].partition_responses[0].error_code, world.now().since(before))
    };
    let is_refused = |partitions: &[(i32, Option<&[u8]>)]| {
        let (code, took) = answer_to(partitions);
        assert_eq!(code, ErrorCode::RequestTimedOut.code());
        assert!(took < Duration::from_secs(1) || took >= Duration::from_secs(25), "it waited for {took:?}");
        took < Duration::from_secs(1)
    };
    let taken = take(|budgets| &budgets.waiting_produce_bytes);
    assert!(is_refused(&absent) && !is_refused(&absent[..1]), "small ones have room of their own");
    drop(taken);
    let taken = take(|budgets| &budgets.waiting_small_produce_bytes);
    assert!(!is_refused(&absent) && is_refused(&absent[..1]));
    drop(taken);
    assert!(!is_refused(&absent) && !is_refused(&absent[..1]));
    node.end(End::Kill);
}

#[test]
fn a_produce_that_fails_and_wants_no_answer_is_counted_as_it_closes_its_connection() {
    let Leader { world, clients, node, .. } = Leader::start(8, TWO_SHARDS);
    let refused = || node.locals().map(|local| local.counters.connections_refused_total.get()).sum::<u64>();
    let before = refused();
    let batch = one_record(b"lost");
    let request = encoded(0, 1_000, &[("another", &[(0, Some(&batch))])]);
    let mut client = Client::new(node.connect());
    let is_closed = run(&world, &clients, async move {
        let write = |writer: &mut Writer| {
            writer.bytes(&request);
            Ok(())
        };
        client.post(ApiKey::Produce, PRODUCE_VERSION, write).await.expect("sent");
        client.answer(ApiKey::Produce, PRODUCE_VERSION).await.is_none()
    });
    assert!(is_closed);
    assert_eq!(refused() - before, 1);
    // So is one that finds no work thread, and none whose client is gone.
    let local = node.locals().next().expect("a shard");
    for (unanswered, counted) in [(Unanswered::Busy, 2), (Unanswered::Gone, 2), (Unanswered::Stopping, 2)] {
        unanswered.tell(local, ApiKey::Fetch);
        assert_eq!(refused() - before, counted, "{unanswered}");
    }
    node.end(End::Kill);
}

#[test]
fn large_requests_that_wait_for_the_controller_wait_for_one_another_and_keep_nothing_from_other_answers() {
    let Leader { world, clients, node, .. } = Leader::start(9, TWO_SHARDS);
    let take = |local: &Rc<Local<SimPlatform>>| {
        let room = &local.budgets.proposing_bytes;
        room.try_acquire(room.bytes_max()).expect("all of it is free")
    };
    let others: Vec<Permit> = node.locals().map(take).collect();
    let created = Rc::new(Cell::new(0));
    for shard in 0..TWO_SHARDS.shards {
        let (mut client, created) = (Client::new(node.connect()), Rc::clone(&created));
        let named = |number| CreatableTopic {
            name: format!("{shard}-{number:0>60}"),
            num_partitions: 1,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        // Its answer is held to take more than all answers to clients may.
        let topics = (0..300).map(named).collect();
        let request = CreateTopicsRequest { topics, timeout_ms: 60_000, ..CreateTopicsRequest::default() };
        clients.spawn(async move {
            client.ask(ApiKey::CreateTopics, 5, |writer| request.encode(writer, 5)).await.expect("answered");
            created.set(created.get() + 1);
        });
    }
    run_for(&world, Duration::from_secs(1));
    for _ in 0..TWO_SHARDS.shards {
        let (mut client, before) = (Client::new(node.connect()), world.now());
        let answer = run(&world, &clients, async move {
            let request = wide_answer();
            let write = |writer: &mut Writer| {
                writer.bytes(&request);
                Ok(())
            };
            client.ask(ApiKey::Produce, PRODUCE_VERSION, write).await
        });
        assert!(answer.is_some() && world.now().since(before) < SOON);
    }
    assert_eq!(created.get(), 0, "others have all the room");
    drop(others);
    world.run_until(|| created.get() == TWO_SHARDS.shards);
    node.end(End::Kill);
}
