//! Which brokers get a new topic's replicas (Kafka 3.9 `AdminUtils.assignReplicasToBrokers`).
//!
//! Round robin from a random broker, so that leaders spread evenly; the other replicas follow at a shift that grows each
//! time all brokers had a turn. With racks, brokers are taken rack by rack, and one whose rack has a replica already
//! waits until every rack has one.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thiserror::Error;

use super::cluster::Cluster;
use crate::base::ids::BrokerId;
use crate::metadata::proposal::TopicRefusal;

/// Why there is no assignment. Kafka's code is named beside each.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlacementError {
    /// INVALID_PARTITIONS (37)
    #[error("Number of partitions must be larger than 0.")]
    NoPartitions,
    /// INVALID_REPLICATION_FACTOR (38)
    #[error("Replication factor must be larger than 0.")]
    NoReplicas,
    /// INVALID_REPLICATION_FACTOR (38)
    #[error("Replication factor: {wanted} larger than available brokers: {available}.")]
    TooFewBrokers { wanted: i16, available: usize },
    /// UNKNOWN_SERVER_ERROR (-1)
    #[error("Not all brokers have rack information.")]
    SomeRacksMissing,
}

impl From<PlacementError> for TopicRefusal {
    fn from(error: PlacementError) -> TopicRefusal {
        match error {
            PlacementError::NoPartitions => TopicRefusal::InvalidPartitions(error.to_string()),
            PlacementError::NoReplicas | PlacementError::TooFewBrokers { .. } => {
                TopicRefusal::InvalidReplicationFactor(error.to_string())
            }
            PlacementError::SomeRacksMissing => TopicRefusal::Tree(error.to_string()),
        }
    }
}

/// The live brokers by id, with their racks.
pub fn live(cluster: &Cluster) -> Vec<(BrokerId, Option<Arc<str>>)> {
    cluster.brokers.values().map(|(broker, _)| (broker.id, broker.rack.clone())).collect()
}

/// Replicas for partitions `0..partitions`, the preferred leader first. `brokers` by id, with their racks; `start` and
/// `shift` are random numbers.
pub fn assign(
    partitions: i32,
    replication_factor: i16,
    brokers: &[(BrokerId, Option<Arc<str>>)],
    start: u64,
    shift: u64,
) -> Result<BTreeMap<i32, Vec<BrokerId>>, PlacementError> {
    place(0, partitions, replication_factor, brokers, (start, shift))
}

/// Replicas for `partitions` more of a topic that has `existing`, the first of which has its preferred leader at
/// `first_leader`: the round goes on where it would have been had it begun there.
pub fn assign_more(
    existing: i32,
    partitions: i32,
    replication_factor: i16,
    brokers: &[(BrokerId, Option<Arc<str>>)],
    first_leader: BrokerId,
) -> Result<BTreeMap<i32, Vec<BrokerId>>, PlacementError> {
    let start = brokers.iter().position(|(id, _)| *id >= first_leader).unwrap_or(0) as u64;
    place(existing, partitions, replication_factor, brokers, (start, start))
}

fn place(
    first_partition: i32,
    partitions: i32,
    replication_factor: i16,
    brokers: &[(BrokerId, Option<Arc<str>>)],
    (start, shift): (u64, u64),
) -> Result<BTreeMap<i32, Vec<BrokerId>>, PlacementError> {
    if partitions <= 0 {
        return Err(PlacementError::NoPartitions);
    }
    let count = usize::try_from(replication_factor).ok().filter(|count| *count > 0);
    let count = count.ok_or(PlacementError::NoReplicas)?;
    if count > brokers.len() {
        return Err(PlacementError::TooFewBrokers { wanted: replication_factor, available: brokers.len() });
    }
    let with_rack = brokers.iter().filter(|(_, rack)| rack.is_some()).count();
    if with_rack != 0 && with_rack != brokers.len() {
        return Err(PlacementError::SomeRacksMissing);
    }
    let order = rack_alternated(brokers);
    let racks = order.iter().map(|(_, rack)| rack).collect::<BTreeSet<_>>().len();
    // Without racks the brokers share one, so to speak: only their own use counts.
    let racks = if with_rack == 0 { 1 } else { racks };
    let n = order.len();
    let start = index_below(start, n);
    let mut shift = index_below(shift, n);

    let mut assignment = BTreeMap::new();
    for partition in first_partition..first_partition.saturating_add(partitions) {
        let turn = usize::try_from(partition).expect("not negative");
        if turn > 0 && turn.is_multiple_of(n) {
            shift += 1;
        }
        let first = (turn + start) % n;
        assignment.insert(partition, replicas(&order, first, shift * racks, count, racks));
    }
    Ok(assignment)
}

fn replicas(
    order: &[(BrokerId, Option<Arc<str>>)],
    first: usize,
    shift: usize,
    count: usize,
    racks: usize,
) -> Vec<BrokerId> {
    let n = order.len();
    let mut chosen = vec![order[first].0];
    let mut racks_used = BTreeSet::from([&order[first].1]);
    let mut step = 0;
    while chosen.len() < count {
        let (broker, rack) = &order[(first + 1 + (shift + step) % (n - 1)) % n];
        step += 1;
        let rack_waits = racks_used.contains(rack) && racks_used.len() < racks;
        if !rack_waits && !chosen.contains(broker) {
            chosen.push(*broker);
            racks_used.insert(rack);
        }
    }
    chosen
}

/// The first broker of each rack, then the second of each, and so on; as they come if there are no racks.
fn rack_alternated(brokers: &[(BrokerId, Option<Arc<str>>)]) -> Vec<(BrokerId, Option<Arc<str>>)> {
    let mut turns: BTreeMap<&Option<Arc<str>>, usize> = BTreeMap::new();
    let mut order: Vec<_> = brokers
        .iter()
        .map(|(id, rack)| {
            let turn = turns.entry(rack).or_default();
            *turn += 1;
            (*turn, rack.clone(), *id)
        })
        .collect();
    order.sort();
    order.into_iter().map(|(_, rack, id)| (id, rack)).collect()
}

fn index_below(random: u64, n: usize) -> usize {
    let n = u64::try_from(n).expect("usize fits");
    usize::try_from(random % n).expect("smaller than a usize")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(racks: &[(i32, &str)]) -> Vec<(BrokerId, Option<Arc<str>>)> {
        racks.iter().map(|(id, rack)| (BrokerId(*id), (!rack.is_empty()).then(|| Arc::from(*rack)))).collect()
    }

    fn lists(assignment: &BTreeMap<i32, Vec<BrokerId>>) -> Vec<Vec<i32>> {
        assignment.values().map(|replicas| replicas.iter().map(|id| id.0).collect()).collect()
    }

    #[test]
    fn without_racks_it_is_kafkas_documented_example() {
        let five = brokers(&[(0, ""), (1, ""), (2, ""), (3, ""), (4, "")]);
        let assignment = assign(10, 3, &five, 0, 0).unwrap();
        let expected = [
            [0, 1, 2],
            [1, 2, 3],
            [2, 3, 4],
            [3, 4, 0],
            [4, 0, 1],
            [0, 2, 3],
            [1, 3, 4],
            [2, 4, 0],
            [3, 0, 1],
            [4, 1, 2],
        ];
        assert_eq!(lists(&assignment), expected);
    }

    #[test]
    fn more_partitions_go_on_where_the_first_ones_would_have() {
        let five = brokers(&[(0, ""), (1, ""), (2, ""), (3, ""), (4, "")]);
        let all = assign(10, 3, &five, 2, 2).unwrap();
        // The shift that all brokers' turn has added is not known any more, so only whole first turns agree.
        let more = assign_more(3, 2, 3, &five, BrokerId(2)).unwrap();
        assert_eq!(more.keys().copied().collect::<Vec<_>>(), [3, 4]);
        assert!(more.iter().all(|(number, replicas)| all[number] == *replicas));
        assert_eq!(assign_more(1, 0, 1, &five, BrokerId(9)), Err(PlacementError::NoPartitions));
    }

    #[test]
    fn with_racks_each_partition_has_a_replica_in_every_rack() {
        let six = brokers(&[(0, "a"), (1, "b"), (2, "c"), (3, "a"), (4, "b"), (5, "c")]);
        for start in 0..6 {
            for shift in 0..6 {
                for replicas in lists(&assign(12, 3, &six, start, shift).unwrap()) {
                    let racks: BTreeSet<i32> = replicas.iter().map(|id| id % 3).collect();
                    assert_eq!(racks.len(), 3, "{replicas:?}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_placed_is_refused() {
        let one = brokers(&[(1, "")]);
        assert_eq!(assign(0, 1, &one, 0, 0), Err(PlacementError::NoPartitions));
        assert_eq!(assign(1, 0, &one, 0, 0), Err(PlacementError::NoReplicas));
        assert_eq!(assign(1, 2, &one, 0, 0), Err(PlacementError::TooFewBrokers { wanted: 2, available: 1 }));
        assert_eq!(assign(1, 1, &brokers(&[(1, "a"), (2, "")]), 0, 0), Err(PlacementError::SomeRacksMissing));
        assert_eq!(lists(&assign(2, 1, &one, 7, 9).unwrap()), [[1], [1]]);
    }
}
