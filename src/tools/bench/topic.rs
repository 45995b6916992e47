//! Before and after a run: the topic, who leads its partitions, where their logs begin and end.

#![forbid(unsafe_code)]

use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use super::settings::{PARTITIONS_DEFAULT, Settings};
use crate::admin::{self, EARLIEST, LATEST, Place};
use crate::connect::{Client, To};
use crate::failure::Failure;
use crate::protocol::message::{
    CreatableTopic, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
};
use crate::protocol::{ApiKey, ErrorCode};

/// Between two looks whether all partitions of a new topic have leaders.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// One partition of the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    pub index: i32,
    pub leader: SocketAddr,
    pub start_offset: i64,
    pub end_offset: i64,
}

/// The topic as the run finds it.
#[derive(Clone, Debug)]
pub struct Topic {
    pub name: String,
    pub partitions: Vec<Partition>,
    /// Whether the run has made it.
    pub created: bool,
}

/// Finds or makes the topic.
pub fn prepare(settings: &Settings) -> Result<Topic, Failure> {
    let mut client = Client::connect(&settings.connect)?;
    if settings.transaction.is_some() && client.connection(To::Any)?.versions().of(ApiKey::AddPartitionsToTxn).is_none()
    {
        // A coordinator would be looked for in vain until time is up.
        let message = "this broker has no transactions; leave --transaction-duration-ms away, or name another broker";
        return Err(Failure::Refused(message.to_owned()));
    }
    let name = &settings.topic.name;
    let names = [name.clone()];
    let cluster = client.look(Some(&names))?;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let missing = !cluster.topics.contains_key(name) && cluster.refused.get(name).is_none_or(|code| *code == unknown);
    let created = missing && settings.mode.produces();
    if created {
        create(&mut client, settings)?;
        wait_for_leaders(&mut client, settings)?;
    }
    let topic = admin::topic(&mut client, name)?;
    if let Some(asked) = settings.topic.partitions.filter(|asked| *asked > 0)
        && topic.partitions.len() != usize::try_from(asked).unwrap_or(0)
    {
        let has = topic.partitions.len();
        let advice = "leave --partitions away, or take another topic";
        return Err(Failure::Usage(format!("topic '{name}' has {has} partitions already; {advice}")));
    }
    let places = |timestamp| topic.partitions.iter().map(move |partition| ((name.clone(), partition.index), timestamp));
    let starts = admin::list_offsets(&mut client, &places(EARLIEST).collect::<Vec<_>>(), false)?;
    let ends = admin::list_offsets(&mut client, &places(LATEST).collect::<Vec<_>>(), false)?;
    let partitions = topic.partitions.iter().map(|partition| {
        let place: Place = (name.clone(), partition.index);
        let offset = |found: Option<&Result<admin::Found, i16>>| match found {
            Some(Ok(found)) => Ok(found.offset.max(0)),
            Some(Err(code)) => Err(Failure::of_code(&format!("partition {} of topic '{name}'", place.1), *code, None)),
            None => Err(super::failures::answer("it does not say where the log begins and ends")),
        };
        let (start_offset, end_offset) = (offset(starts.get(&place))?, offset(ends.get(&place))?);
        let leader = leader_address(&client, partition.leader)?;
        Ok(Partition { index: partition.index, leader, start_offset, end_offset })
    });
    let partitions = partitions.collect::<Result<Vec<_>, Failure>>()?;
    Ok(Topic { name: name.clone(), partitions, created })
}

/// Deletes the topic.
pub fn delete(settings: &Settings) -> Result<(), Failure> {
    let mut client = Client::connect(&settings.connect)?;
    let name = settings.topic.name.clone();
    let request =
        DeleteTopicsRequest { topic_names: vec![name.clone()], timeout_ms: client.timeout_ms(), ..Default::default() };
    let codes =
        |response: &DeleteTopicsResponse| response.responses.iter().map(|result| result.error_code).collect::<Vec<_>>();
    let response = admin::ask_controller(&mut client, &request, 0..=5, codes)?;
    match codes(&response).first() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::of_code(&format!("topic '{name}' can't be deleted"), *code, None)),
        None => Err(super::failures::answer("it names no topic")),
    }
}

fn leader_address(client: &Client, leader: Option<i32>) -> Result<SocketAddr, Failure> {
    let missing = || Failure::of_code("the topic", ErrorCode::LeaderNotAvailable.code(), None);
    let address = client.cluster.broker(leader.ok_or_else(missing)?).ok_or_else(missing)?.address();
    let resolved = address.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    resolved.ok_or_else(|| {
        let advice = "that is what its advertised.listeners says";
        Failure::Unreachable(format!("the leader's address {address} can't be resolved; {advice}"))
    })
}

fn create(client: &mut Client, settings: &Settings) -> Result<(), Failure> {
    let topic = CreatableTopic {
        name: settings.topic.name.clone(),
        num_partitions: settings.topic.partitions.unwrap_or(PARTITIONS_DEFAULT),
        replication_factor: settings.topic.replication_factor,
        ..Default::default()
    };
    // The broker's own defaults can be asked for from version 4 on.
    let able = if topic.replication_factor < 0 || topic.num_partitions < 0 { 4..=7 } else { 0..=7 };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: client.timeout_ms(), validate_only: false };
    let codes =
        |response: &CreateTopicsResponse| response.topics.iter().map(|result| result.error_code).collect::<Vec<_>>();
    let response = admin::ask_controller(client, &request, able, codes)?;
    match response.topics.first() {
        Some(result) if result.error_code == 0 => Ok(()),
        Some(result) => {
            let what = format!("topic '{}' can't be made", settings.topic.name);
            Err(Failure::of_code(&what, result.error_code, result.error_message.as_deref()))
        }
        None => Err(super::failures::answer("it names no topic")),
    }
}

fn wait_for_leaders(client: &mut Client, settings: &Settings) -> Result<(), Failure> {
    let names = [settings.topic.name.clone()];
    let asked = usize::try_from(settings.topic.partitions.unwrap_or(PARTITIONS_DEFAULT)).unwrap_or(0);
    let deadline = Instant::now() + client.timeout();
    loop {
        let topic = client.look(Some(&names))?.topics.get(&names[0]);
        let led = topic.map_or(0, |topic| topic.partitions.iter().filter(|one| one.leader.is_some()).count());
        if led >= asked.max(1) || Instant::now() > deadline {
            return Ok(());
        }
        thread::sleep(LOOK_AGAIN);
    }
}
