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
use crate::platform::Platform;
use crate::protocol::ApiKey;

/// One API, and the versions of it, both ends included, that ApiVersions lists and the broker answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    pub api_key: ApiKey,
    pub lowest_version: i16,
    pub highest_version: i16,
    /// Of which classes its requests are.
    pub askers: Askers,
    pub order: Order,
    /// What it needs in general, and of what: which topic, what else in which case, is said by its handler.
    pub needs: Option<(Operation, Resource)>,
    pub quota: Quota,
}

impl Served {
    /// The first version with compact forms and tagged fields (KIP-482), which the codec's table of all APIs knows; `None`: no
    /// version has them.
    pub fn flexible_from(&self) -> Option<i16> {
        self.api_key.versions().find(|version| self.api_key.is_flexible(*version))
    }

    pub fn has(&self, version: i16) -> bool {
        (self.lowest_version..=self.highest_version).contains(&version)
    }
}

/// Who sends requests of an API, and so of which class they are. Nothing that a controller sends is served yet, which
/// would be [`Class::Control`](crate::base::class::Class::Control).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Askers {
    Clients,
    /// On a connection that is known to be a follower's it is the follower's work, else a client's.
    ClientsAndFollowers,
}

/// How a request stands to others of its connection. The row says it alone: what a connection's state adds (it ends, it
/// drains) stops all kinds alike, in `net::connection`.
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
    /// That alone. (What brokers ask of one another is exempt from it, and is not served yet.)
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
        $key:ident $lowest:literal ..= $highest:literal, $handler:ty, $askers:ident, $order:ident,
        needs($($needs:ident)+), $quota:ident;
    )*) => {
        /// What the broker serves, ascending by key: the whole answer to ApiVersions, and the gate of the dispatcher.
        pub const SERVED: &[Served] = &[$(Served {
            api_key: ApiKey::$key,
            lowest_version: $lowest,
            highest_version: $highest,
            askers: Askers::$askers,
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
    Produce 0..=11, produce::Produce, Clients, Overlaps, needs(Write Topic), ProduceBytes;
    Fetch 0..=17, fetch::Fetch, ClientsAndFollowers, Alone, needs(Read Topic), FetchBytes;
    ListOffsets 0..=9, list_offsets::ListOffsets, ClientsAndFollowers, Alone, needs(Describe Topic), RequestTime;
    Metadata 0..=12, metadata::Metadata, Clients, Alone, needs(Describe Topic), RequestTime;
    FindCoordinator 0..=6, find_coordinator::FindCoordinator, Clients, Alone, needs(Describe Group), RequestTime;
    SaslHandshake 0..=1, sasl::SaslHandshake, Clients, Alone, needs(nothing), RequestTime;
    ApiVersions 0..=4, api_versions::ApiVersions, Clients, Alone, needs(nothing), RequestTime;
    CreateTopics 0..=7, create_topics::CreateTopics, Clients, Alone, needs(Create Cluster), ControllerMutations;
    DeleteTopics 0..=6, delete_topics::DeleteTopics, Clients, Alone, needs(Delete Topic), ControllerMutations;
    DeleteRecords 0..=2, delete_records::DeleteRecords, Clients, Alone, needs(Delete Topic), RequestTime;
    InitProducerId 0..=5, init_producer_id::InitProducerId, Clients, Alone, needs(IdempotentWrite Cluster), RequestTime;
    OffsetForLeaderEpoch 0..=4, offset_for_leader_epoch::OffsetForLeaderEpoch, ClientsAndFollowers, Alone,
        needs(Describe Topic), RequestTime;
    DescribeConfigs 0..=4, describe_configs::DescribeConfigs, Clients, Alone, needs(DescribeConfigs Topic), RequestTime;
    AlterConfigs 0..=2, alter_configs::AlterConfigs, Clients, Alone, needs(AlterConfigs Topic), RequestTime;
    DescribeLogDirs 0..=4, describe_log_dirs::DescribeLogDirs, Clients, Alone, needs(Describe Cluster), RequestTime;
    SaslAuthenticate 0..=2, sasl::SaslAuthenticate, Clients, Alone, needs(nothing), RequestTime;
    CreatePartitions 0..=3, create_partitions::CreatePartitions, Clients, Alone, needs(Alter Topic), ControllerMutations;
    IncrementalAlterConfigs 0..=1, incremental_alter_configs::IncrementalAlterConfigs, Clients, Alone,
        needs(AlterConfigs Topic), RequestTime;
    DescribeCluster 0..=1, describe_cluster::DescribeCluster, Clients, Alone, needs(nothing), RequestTime;
    DescribeProducers 0..=0, describe_producers::DescribeProducers, Clients, Alone, needs(Read Topic), RequestTime;
}

impl<P: Platform> Api<P> {
    /// The row of an API that is served in this version; of ApiVersions in any, since its client does not know yet which
    /// there are. For all others Kafka closes the connection without an answer.
    pub fn of(api_key: ApiKey, version: i16) -> Option<&'static Api<P>> {
        let api = Api::ALL.iter().find(|api| api.served.api_key == api_key)?;
        (api.served.has(version) || api_key == ApiKey::ApiVersions).then_some(api)
    }
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
        assert!(served(ApiKey::Fetch).has(17));
        for (key, version) in [(ApiKey::Fetch, -1), (ApiKey::Fetch, 18), (ApiKey::Metadata, 13), (ApiKey::Metadata, -1)]
        {
            assert!(!served(key).has(version), "{key} {version}");
        }
    }

    /// Key, versions, first flexible version, what a client needs first and of what, and the quota, as Kafka 3.9's schemas and
    /// `KafkaApis` have them.
    const KAFKA: &str = "
        0 0-11 9 Write Topic ProduceBytes
        1 0-17 12 Read Topic FetchBytes
        2 0-9 6 Describe Topic RequestTime
        3 0-12 9 Describe Topic RequestTime
        10 0-6 3 Describe Group RequestTime
        17 0-1 never nothing RequestTime
        18 0-4 3 nothing RequestTime
        19 0-7 5 Create Cluster ControllerMutations
        20 0-6 4 Delete Topic ControllerMutations
        21 0-2 2 Delete Topic RequestTime
        22 0-5 2 IdempotentWrite Cluster RequestTime
        23 0-4 4 Describe Topic RequestTime
        32 0-4 4 DescribeConfigs Topic RequestTime
        33 0-2 2 AlterConfigs Topic RequestTime
        35 0-4 2 Describe Cluster RequestTime
        36 0-2 2 nothing RequestTime
        37 0-3 2 Alter Topic ControllerMutations
        44 0-1 1 AlterConfigs Topic RequestTime
        60 0-1 0 nothing RequestTime
        61 0-0 0 Read Topic RequestTime
    ";

    #[test]
    fn every_row_says_what_kafka_does() {
        let rows = SERVED.iter().map(|served| {
            let flexible = served.flexible_from().map_or("never".to_owned(), |version| version.to_string());
            let needs = served.needs.map_or("nothing".to_owned(), |(what, of)| format!("{what:?} {of:?}"));
            let (key, lowest, highest) = (served.api_key.code(), served.lowest_version, served.highest_version);
            format!("{key} {lowest}-{highest} {flexible} {needs} {:?}", served.quota)
        });
        let kafka = KAFKA.lines().map(str::trim).filter(|line| !line.is_empty());
        assert_eq!(rows.collect::<Vec<_>>(), kafka.collect::<Vec<_>>());
    }

    #[test]
    fn only_what_followers_ask_may_be_a_followers_work_and_only_produce_overlaps() {
        let keys =
            |is_so: fn(&Served) -> bool| SERVED.iter().filter(move |served| is_so(served)).map(|served| served.api_key);
        let followers = keys(|served| served.askers == Askers::ClientsAndFollowers);
        assert!(followers.eq([ApiKey::Fetch, ApiKey::ListOffsets, ApiKey::OffsetForLeaderEpoch]));
        assert!(keys(|served| served.order == Order::Overlaps).eq([ApiKey::Produce]));
    }
}
