//! One file per API: the table of its fields, from which the macro in `table.rs` makes struct, decoder and encoder. What
//! is kept in records, or in bytes of other messages, has tables of the same kind (`kept.rs`).
//!
//! Tables are Kafka 3.9's schemas (`clients/src/main/resources/common/message/*.json`), fields in their order and under
//! their names in snake case. `Default` gives Kafka's defaults; beware of nullable text, whose default is the empty
//! text unless the schema says null.
#![forbid(unsafe_code)]

#[macro_use]
mod table;
#[macro_use]
mod kept;
mod field;

pub mod add_partitions_to_txn;
pub mod alter_configs;
pub mod api_versions;
pub mod consumer_protocol;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod end_txn;
pub mod fetch;
pub mod find_coordinator;
pub mod group_metadata_record;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod json;
pub mod leader;
pub mod leader_and_isr;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit_record;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sasl_authenticate;
pub mod sasl_handshake;
pub mod stop_replica;
pub mod transaction_log_record;
pub mod update_metadata;

#[cfg(test)]
mod tests;

use super::wire::{Reader, WireError, Writer};

/// A whole request or response, for those who handle any of them: its own functions of these names.
pub trait Body: Sized {
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, WireError>;

    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), WireError>;
}

pub(crate) use table::each_plain_api;

pub use add_partitions_to_txn::*;
pub use alter_configs::*;
pub use api_versions::*;
pub use consumer_protocol::*;
pub use create_partitions::*;
pub use create_topics::*;
pub use delete_records::*;
pub use delete_topics::*;
pub use describe_cluster::*;
pub use describe_configs::*;
pub use describe_log_dirs::*;
pub use describe_producers::{DescribeProducersRequest, DescribeProducersResponse};
pub use end_txn::*;
pub use fetch::*;
pub use field::RecordsSpan;
pub use find_coordinator::*;
pub use group_metadata_record::*;
pub use incremental_alter_configs::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
pub use init_producer_id::*;
pub use kept::KeptMessage;
pub use leader::*;
pub use leader_and_isr::*;
pub use list_offsets::*;
pub use metadata::*;
pub use offset_commit_record::*;
pub use offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition, OffsetForLeaderTopic,
    OffsetForLeaderTopicResult,
};
pub use produce::*;
pub use sasl_authenticate::*;
pub use sasl_handshake::*;
pub use stop_replica::*;
pub use transaction_log_record::*;
pub use update_metadata::*;
