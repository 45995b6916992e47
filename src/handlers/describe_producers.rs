//! DescribeProducers (61), version 0: the producer ids that partitions know, their sequences and open transactions
//! (KIP-664). One that is named twice is answered once; Kafka repeats itself, which no client can tell.

use std::rc::Rc;
use std::sync::Arc;

use super::distinct::Distinct;
use super::{Exchange, Handler, Unanswered};
use super::{errors, metadata};
use crate::base::class::Class;
use crate::base::ids::ShardId;
use crate::local::{Local, Work, by_owner, owner_of};
use crate::partition::partition::LeadershipError;
use crate::platform::Platform;
use crate::protocol::ErrorCode;
use crate::protocol::message::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use crate::storage::producer_state::ActiveProducer;

/// Questions for the partitions of one owner.
#[derive(Debug, Default)]
pub struct DescribeProducersWork {
    parts: Vec<DescribeProducersPart>,
}

#[derive(Debug)]
struct DescribeProducersPart {
    place: usize,
    topic: Arc<str>,
    partition: i32,
}

#[derive(Debug)]
pub struct DescribeProducersDone {
    place: usize,
    result: Result<Vec<ActiveProducer>, LeadershipError>,
}

pub struct DescribeProducers;

impl<P: Platform> Handler<P> for DescribeProducers {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let request: DescribeProducersRequest = exchange.decode().await?;
        let response = answer(&exchange.local, exchange.class(), request).await.ok_or(Unanswered::Stopping)?;
        exchange.reply(&response).await
    }
}

/// Asks the owners and gathers. `None`: the process stops.
async fn answer<P: Platform>(
    local: &Rc<Local<P>>,
    class: Class,
    request: DescribeProducersRequest,
) -> Option<DescribeProducersResponse> {
    let (mut response, work) = plan(local, request);
    let done = local.ask_all(class, work).await?;
    let mut answers: Vec<&mut PartitionResponse> =
        response.topics.iter_mut().flat_map(|topic| topic.partitions.iter_mut()).collect();
    for DescribeProducersDone { place, result } in done.into_iter().flatten() {
        match result {
            Ok(producers) => answers[place].active_producers = producers.into_iter().map(described).collect(),
            Err(error) => answers[place].error_code = errors::of_leadership(error).code(),
        }
    }
    Some(response)
}

fn described(producer: ActiveProducer) -> ProducerState {
    ProducerState {
        producer_id: producer.producer_id,
        producer_epoch: i32::from(producer.epoch),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.transaction_first_offset.unwrap_or(-1),
    }
}

fn plan<P: Platform>(
    local: &Local<P>,
    request: DescribeProducersRequest,
) -> (DescribeProducersResponse, Vec<(ShardId, DescribeProducersWork)>) {
    let image = local.image();
    let mut response = DescribeProducersResponse::default();
    let mut work: Vec<(ShardId, DescribeProducersWork)> = Vec::new();
    let mut place = 0;
    let (mut named, mut topics) = (Distinct::with_capacity(0), Distinct::with_capacity(request.topics.len()));
    for requested in request.topics {
        let topic = image.topic(&requested.name);
        let name: Arc<str> = topic.map_or_else(|| Arc::from(&*requested.name), |topic| Arc::clone(&topic.name));
        let mut partitions = Vec::new();
        for partition_index in requested.partition_indexes {
            if !named.is_new((Arc::clone(&name), partition_index)) {
                continue;
            }
            let mut answer = PartitionResponse { partition_index, ..Default::default() };
            let owner = match metadata::is_valid_name(&requested.name) {
                true => owner_of(topic, partition_index),
                false => Err(ErrorCode::InvalidTopicException),
            };
            match owner {
                Ok((owner, topic)) => {
                    let part =
                        DescribeProducersPart { place, topic: Arc::clone(&topic.name), partition: partition_index };
                    by_owner(&mut work, owner, DescribeProducersWork::default).parts.push(part);
                }
                Err(code) => answer.error_code = code.code(),
            }
            place += 1;
            partitions.push(answer);
        }
        if topics.is_new(name) || !partitions.is_empty() {
            response.topics.push(TopicResponse { name: requested.name, partitions });
        }
    }
    (response, work)
}

impl<P: Platform> Work<P> for DescribeProducersWork {
    type Done = Vec<DescribeProducersDone>;

    async fn execute(self, local: Rc<Local<P>>) -> Vec<DescribeProducersDone> {
        let look = |part: DescribeProducersPart| {
            let result = match local.partition(&part.topic, part.partition) {
                Some(partition) => partition.active_producers(),
                None => Err(LeadershipError::NotLeader),
            };
            DescribeProducersDone { place: part.place, result }
        };
        self.parts.into_iter().map(look).collect()
    }
}
