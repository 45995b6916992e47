//! What a shard tells whoever watches it. Nothing of it is counted while requests are served.

#![forbid(unsafe_code)]

use std::rc::Rc;
use std::sync::Arc;

use super::shard::Shard;
use crate::base::class::{ByClass, Class};
use crate::metrics::status::{BoundUse, PartitionStatus, ShardStatus};
use crate::net::claims::Claims;
use crate::partition::Partition;
use crate::partition::partition::{ANY_EPOCH, AnsweredBy};
use crate::platform::Platform;

impl<P: Platform> Shard<P> {
    /// How it is now; what changes meanwhile is in it or not.
    pub async fn status(&self, with_partitions: bool) -> ShardStatus {
        let log_dirs = self.local.log_dirs.all().len();
        let mut status = ShardStatus { log_dir_bytes: vec![0; log_dirs], ..ShardStatus::default() };
        let look = |partition: &Rc<Partition<P>>| {
            let Some(size_bytes) = partition.size_bytes() else {
                status.partitions_offline += 1;
                return;
            };
            status.partitions_online += 1;
            status.log_dir_bytes[partition.log_dir_index()] += size_bytes;
            if with_partitions {
                status.partitions.extend(of_partition(partition, size_bytes));
            }
        };
        self.local.partitions.each(look).await;
        status.bounds = self.bounds();
        status
    }

    fn bounds(&self) -> Vec<BoundUse> {
        let of_claims = |names: [(Class, &'static str); 3], help: &'static str, claims: &ByClass<Rc<Claims>>| {
            names.map(|(class, name)| {
                let (now, max) = claims.get(class).in_use();
                BoundUse { name, help, now, max, waits_total: Some(claims.get(class).waits()) }
            })
        };
        let requests = [
            (Class::Client, "request_bytes_in_flight"),
            (Class::Replication, "replication_request_bytes_in_flight"),
            (Class::Control, "control_request_bytes_in_flight"),
        ];
        let help = "Bytes of requests that were received and are not decoded, and of produces that are not written.";
        let of_class = |(class, name)| BoundUse::of_budget(name, help, self.connections.request_bytes.get(class));
        let mut bounds: Vec<_> = requests.into_iter().map(of_class).collect();
        bounds.extend(of_claims(
            [
                (Class::Client, "incoming_frame_bytes"),
                (Class::Replication, "replication_incoming_frame_bytes"),
                (Class::Control, "control_incoming_frame_bytes"),
            ],
            "Bytes that large frames on their way in have claimed.",
            &self.connections.incoming,
        ));
        bounds.extend(of_claims(
            [
                (Class::Client, "outgoing_answer_bytes"),
                (Class::Replication, "replication_outgoing_answer_bytes"),
                (Class::Control, "control_outgoing_answer_bytes"),
            ],
            "Bytes of large answers that are made and not sent yet, without the records in them.",
            &self.connections.outgoing,
        ));
        bounds.extend(self.local.bounds());
        bounds
    }
}

/// `None` while its directory is offline.
fn of_partition<P: Platform>(partition: &Partition<P>, size_bytes: u64) -> Option<PartitionStatus> {
    let offsets = partition.offsets(ANY_EPOCH, AnsweredBy::AnyReplica).ok()?;
    Some(PartitionStatus {
        topic: Arc::clone(&partition.topic_partition.topic),
        partition: partition.topic_partition.partition,
        size_bytes,
        log_start_offset: offsets.log_start,
        log_end_offset: offsets.log_end,
        high_watermark: offsets.high_watermark,
        last_stable_offset: offsets.last_stable,
        leader_epoch: partition.leader_epoch(),
    })
}
