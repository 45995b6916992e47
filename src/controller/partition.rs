//! One partition's leadership: the first one, and the next when its leader went (Kafka 3.9 `Election`, KIP-106).

#![forbid(unsafe_code)]

use crate::base::ids::{BrokerId, LeaderEpoch};
use crate::metadata::inputs::NO_LEADER;
use crate::metadata::znodes::Others;

/// A partition as the tree has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// `None`: it never had a leader.
    pub state: Option<Leadership>,
    /// Its node is there, though perhaps no state below it.
    pub has_node: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// [`NO_LEADER`] while no eligible replica lives.
    pub leader: BrokerId,
    pub leader_epoch: LeaderEpoch,
    pub isr: Vec<BrokerId>,
    /// Data version of the state node.
    pub partition_epoch: i32,
    /// What else the state node says.
    pub others: Others,
}

/// The first leadership of a partition: the first live replica leads, all live ones are in sync. `None` while none lives.
pub fn first_leadership(replicas: &[BrokerId], is_live: impl Fn(BrokerId) -> bool) -> Option<Leadership> {
    let isr: Vec<BrokerId> = replicas.iter().copied().filter(|id| is_live(*id)).collect();
    let leader = *isr.first()?;
    Some(Leadership { leader, leader_epoch: 0, isr, partition_epoch: 0, others: Others::default() })
}

/// The next leadership after the leader went: the first live replica of the ISR, in the order of assignment; with
/// `unclean` any live replica, and then it alone is in sync. `None` if nothing changes: nobody can lead, and nobody did.
pub fn next_leadership(
    replicas: &[BrokerId],
    before: &Leadership,
    is_live: impl Fn(BrokerId) -> bool,
    unclean: bool,
) -> Option<Leadership> {
    let live = || replicas.iter().copied().filter(|id| is_live(*id));
    let (leader, isr) = if let Some(leader) = live().find(|id| before.isr.contains(id)) {
        (leader, before.isr.iter().copied().filter(|id| is_live(*id)).collect())
    } else if let Some(leader) = live().next().filter(|_| unclean) {
        (leader, vec![leader])
    } else if before.leader != NO_LEADER {
        // The last in sync stay in the ISR: they alone have all that was acknowledged.
        (NO_LEADER, before.isr.clone())
    } else {
        return None;
    };
    // Epochs and versions come from a tree that others may have written, so they may be at their end.
    let leader_epoch = before.leader_epoch.checked_add(1)?;
    let partition_epoch = before.partition_epoch.wrapping_add(1);
    Some(Leadership { leader, leader_epoch, isr, partition_epoch, others: before.others.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[i32]) -> Vec<BrokerId> {
        ids.iter().copied().map(BrokerId).collect()
    }

    fn before(leader: i32, isr: &[i32]) -> Leadership {
        Leadership {
            leader: BrokerId(leader),
            leader_epoch: 5,
            isr: ids(isr),
            partition_epoch: 8,
            others: Others::default(),
        }
    }

    #[test]
    fn the_first_live_replica_leads_and_all_live_ones_are_in_sync() {
        let first = first_leadership(&ids(&[3, 1, 2]), |id| id.0 != 3).unwrap();
        assert_eq!((first.leader, first.leader_epoch, first.isr), (BrokerId(1), 0, ids(&[1, 2])));
        assert_eq!(first_leadership(&ids(&[3]), |_| false), None);
    }

    #[test]
    fn the_next_leader_is_the_first_live_one_of_the_isr() {
        let next = next_leadership(&ids(&[1, 2, 3]), &before(1, &[3, 2, 1]), |id| id.0 != 1, false).unwrap();
        assert_eq!(
            next,
            Leadership {
                leader: BrokerId(2),
                leader_epoch: 6,
                isr: ids(&[3, 2]),
                partition_epoch: 9,
                others: Others::default()
            }
        );
        let same = next_leadership(&ids(&[1]), &before(1, &[1]), |_| true, false).unwrap();
        assert_eq!((same.leader, same.leader_epoch), (BrokerId(1), 6), "a leader that returns starts a new epoch");
    }

    #[test]
    fn without_one_in_sync_nobody_leads_unless_unclean_election_is_on() {
        let live = |id: BrokerId| id.0 == 2;
        let none = next_leadership(&ids(&[1, 2]), &before(1, &[1]), live, false).unwrap();
        assert_eq!((none.leader, none.leader_epoch, &none.isr), (NO_LEADER, 6, &ids(&[1])));
        assert_eq!(next_leadership(&ids(&[1, 2]), &none, live, false), None);
        let unclean = next_leadership(&ids(&[1, 2]), &none, live, true).unwrap();
        assert_eq!((unclean.leader, unclean.isr), (BrokerId(2), ids(&[2])));
    }
}
