//! The table of APIs: what this broker serves, and what each API is. A row here is all that makes an API known to clients
//! (ApiVersions lists the rows), to the dispatcher, and to those who judge who may do what.

use std::future::Future;
use std::pin::Pin;

use super::{Exchange, Handler, Unanswered};
use super::{
    alter_configs, api_versions, create_partitions, create_topics, delete_records, delete_topics, describe_cluster,
    describe_configs, describe_log_dirs, describe_producers, fetch, find_coordinator, incremental_alter_configs,
    init_producer_id, list_offsets, metadata, offset_for_leader_epoch, produce, sasl,
};
use crate::base::class::Class;
use crate::platform::Platform;
use crate::protocol::ApiKey;

/// One API, and the versions of it, both ends included, that ApiVersions lists and the broker answers. From which version on
/// it is flexible (KIP-482), the codec knows: [`ApiKey::is_flexible`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    pub api_key: ApiKey,
    pub lowest_version: i16,
    pub highest_version: i16,
    /// On a connection of clients; on one on which a replica fetches it is the replica's.
    pub class: Class,
    pub order: Order,
    /// What it needs in general, and of what: which topic, what else in which case, is said by its handler.
    pub needs: Option<(Operation, Resource)>,
    pub quota: Quota,
}

impl Served {
    pub fn has(&self, version: i16) -> bool {
        (self.lowest_version..=self.highest_version).contains(&version)
    }
}

/// How a request stands to others of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Starts when all before it are answered.
    Alone,
    /// May run while others of its kind do.
    Overlaps,
}

/// Kafka's `AclOperation`, as far as rows name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    Create,
    Delete,
    Alter,
    Describe,
    DescribeConfigs,
    AlterConfigs,
    /// IDEMPOTENT_WRITE.
    IdempotentWrite,
}

/// Kafka's `ResourceType`, as far as rows name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Topic,
    Group,
    Cluster,
}

/// Which quotas it counts against, beside the time that it takes (Kafka 3.9 `QuotaFactory`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// None: `RequestHandlerHelper.sendResponseExemptThrottle`, or it comes before there is a principal.
    Exempt,
    RequestTime,
    ProduceBytes,
    FetchBytes,
    ControllerMutations,
}

/// What is said of an API that has a row.
const fn served(api_key: ApiKey) -> &'static Served {
    let mut index = 0;
    while SERVED[index].api_key as i16 != api_key as i16 {
        index += 1;
    }
    &SERVED[index]
}

/// What answers a row's requests.
type Handle<P> = fn(Exchange<P>) -> Pin<Box<dyn Future<Output = Result<(), Unanswered>>>>;

/// A row.
pub struct Api<P: Platform> {
    pub served: &'static Served,
    pub handle: Handle<P>,
}

macro_rules! needs {
    (nothing) => {
        None
    };
    ($operation:ident $resource:ident) => {
        Some((Operation::$operation, Resource::$resource))
    };
}

macro_rules! apis {
    ($(
        $key:ident $lowest:literal ..= $highest:literal, $handler:ty, $class:ident, $order:ident,
        needs($($needs:ident)+), $quota:ident;
    )*) => {
        /// What the broker serves, ascending by key: the whole answer to ApiVersions, and the gate of the dispatcher.
        pub const SERVED: &[Served] = &[$(Served {
            api_key: ApiKey::$key,
            lowest_version: $lowest,
            highest_version: $highest,
            class: Class::$class,
            order: Order::$order,
            needs: needs!($($needs)+),
            quota: Quota::$quota,
        },)*];

        impl<P: Platform> Api<P> {
            /// All rows, ascending by key.
            const ALL: &'static [Api<P>] = &[$(Api {
                served: served(ApiKey::$key),
                handle: |exchange| Box::pin(<$handler as Handler<P>>::handle(exchange)),
            },)*];
        }
    };
}

apis! {
    Produce 0..=11, produce::Produce, Client, Overlaps, needs(Write Topic), ProduceBytes;
    Fetch 0..=17, fetch::Fetch, Client, Alone, needs(Read Topic), FetchBytes;
    ListOffsets 0..=9, list_offsets::ListOffsets, Client, Alone, needs(Describe Topic), RequestTime;
    Metadata 0..=12, metadata::Metadata, Client, Alone, needs(Describe Topic), RequestTime;
    FindCoordinator 0..=6, find_coordinator::FindCoordinator, Client, Alone, needs(Describe Group), RequestTime;
    SaslHandshake 0..=1, sasl::SaslHandshake, Client, Alone, needs(nothing), Exempt;
    ApiVersions 0..=4, api_versions::ApiVersions, Client, Alone, needs(nothing), RequestTime;
    CreateTopics 0..=7, create_topics::CreateTopics, Client, Alone, needs(Create Cluster), ControllerMutations;
    DeleteTopics 0..=6, delete_topics::DeleteTopics, Client, Alone, needs(Delete Topic), ControllerMutations;
    DeleteRecords 0..=2, delete_records::DeleteRecords, Client, Alone, needs(Delete Topic), RequestTime;
    InitProducerId 0..=5, init_producer_id::InitProducerId, Client, Alone, needs(IdempotentWrite Cluster), RequestTime;
    OffsetForLeaderEpoch 0..=4, offset_for_leader_epoch::OffsetForLeaderEpoch, Client, Alone, needs(Describe Topic),
        RequestTime;
    DescribeConfigs 0..=4, describe_configs::DescribeConfigs, Client, Alone, needs(DescribeConfigs Topic), RequestTime;
    AlterConfigs 0..=2, alter_configs::AlterConfigs, Client, Alone, needs(AlterConfigs Topic), RequestTime;
    DescribeLogDirs 0..=4, describe_log_dirs::DescribeLogDirs, Client, Alone, needs(Describe Cluster), RequestTime;
    SaslAuthenticate 0..=2, sasl::SaslAuthenticate, Client, Alone, needs(nothing), Exempt;
    CreatePartitions 0..=3, create_partitions::CreatePartitions, Client, Alone, needs(Alter Topic), ControllerMutations;
    IncrementalAlterConfigs 0..=1, incremental_alter_configs::IncrementalAlterConfigs, Client, Alone,
        needs(AlterConfigs Topic), RequestTime;
    DescribeCluster 0..=1, describe_cluster::DescribeCluster, Client, Alone, needs(nothing), RequestTime;
    DescribeProducers 0..=0, describe_producers::DescribeProducers, Client, Alone, needs(Read Topic), RequestTime;
}

impl<P: Platform> Api<P> {
    /// The row of an API that is served in this version; of ApiVersions in any, since its client does not know yet which
    /// there are. For all others Kafka closes the connection without an answer.
    pub fn of(api_key: ApiKey, version: i16) -> Option<&'static Api<P>> {
        let api = Api::ALL.iter().find(|api| api.served.api_key == api_key)?;
        (api.served.has(version) || api_key == ApiKey::ApiVersions).then_some(api)
    }
}

/// Whether an API of this key is served in this version.
pub fn is_served(api_key: i16, version: i16) -> bool {
    SERVED.iter().any(|served| served.api_key.code() == api_key && served.has(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_of_our_codecs_are_served_each_api_once() {
        assert!(SERVED.is_sorted_by_key(|served| served.api_key));
        for served in SERVED {
            assert!(served.api_key.versions().contains(&served.lowest_version), "{}", served.api_key);
            assert!(served.api_key.versions().contains(&served.highest_version), "{}", served.api_key);
        }
        assert!(is_served(1, 17));
        for (key, version) in [(1, -1), (1, 18), (-1, 0), (4, 0), (3, 13), (3, -1)] {
            assert!(!is_served(key, version), "{key} {version}");
        }
    }
}
