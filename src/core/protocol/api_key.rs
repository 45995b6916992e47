//! Keys, versions and first flexible versions of all APIs: Kafka 3.9's for a ZooKeeper-mode broker (`ApiKeys.java`, the
//! schemas' `validVersions`). A version in this table has, or will have, a codec here; what a broker serves of them is said
//! by the table of its handlers.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::RangeInclusive;

/// First flexible version of an API that has none.
const NEVER: i16 = i16::MAX;

/// One line per API: name, key, versions, first flexible version (KIP-482).
macro_rules! api_keys {
    ($($name:ident = $key:literal, $versions:expr, flexible $flexible:expr;)*) => {
        /// An API of the Kafka protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $($name = $key,)*
        }

        impl ApiKey {
            /// Every API of the table, ascending by key.
            pub const ALL: &'static [ApiKey] = &[$(ApiKey::$name,)*];

            /// The API with this key; `None` for one that a ZooKeeper-mode broker does not have.
            pub fn from_code(code: i16) -> Option<ApiKey> {
                match code {
                    $($key => Some(ApiKey::$name),)*
                    _ => None,
                }
            }

            /// Kafka's name of it, without `Request` or `Response`.
            pub fn name(self) -> &'static str {
                match self {
                    $(ApiKey::$name => stringify!($name),)*
                }
            }

            /// Lowest and highest version that Kafka 3.9 defines, and our codec with it.
            pub fn versions(self) -> RangeInclusive<i16> {
                match self {
                    $(ApiKey::$name => $versions,)*
                }
            }

            const fn first_flexible_version(self) -> i16 {
                match self {
                    $(ApiKey::$name => $flexible,)*
                }
            }
        }
    };
}

api_keys! {
    Produce = 0, 0..=11, flexible 9;
    Fetch = 1, 0..=17, flexible 12;
    ListOffsets = 2, 0..=9, flexible 6;
    Metadata = 3, 0..=12, flexible 9;
    LeaderAndIsr = 4, 0..=7, flexible 4;
    StopReplica = 5, 0..=4, flexible 2;
    UpdateMetadata = 6, 0..=8, flexible 6;
    ControlledShutdown = 7, 0..=3, flexible 3;
    OffsetCommit = 8, 0..=9, flexible 8;
    OffsetFetch = 9, 0..=9, flexible 6;
    FindCoordinator = 10, 0..=6, flexible 3;
    JoinGroup = 11, 0..=9, flexible 6;
    Heartbeat = 12, 0..=4, flexible 4;
    LeaveGroup = 13, 0..=5, flexible 4;
    SyncGroup = 14, 0..=5, flexible 4;
    DescribeGroups = 15, 0..=5, flexible 5;
    ListGroups = 16, 0..=5, flexible 3;
    SaslHandshake = 17, 0..=1, flexible NEVER;
    ApiVersions = 18, 0..=4, flexible 3;
    CreateTopics = 19, 0..=7, flexible 5;
    DeleteTopics = 20, 0..=6, flexible 4;
    DeleteRecords = 21, 0..=2, flexible 2;
    InitProducerId = 22, 0..=5, flexible 2;
    OffsetForLeaderEpoch = 23, 0..=4, flexible 4;
    AddPartitionsToTxn = 24, 0..=5, flexible 3;
    AddOffsetsToTxn = 25, 0..=4, flexible 3;
    EndTxn = 26, 0..=4, flexible 3;
    WriteTxnMarkers = 27, 0..=1, flexible 1;
    TxnOffsetCommit = 28, 0..=4, flexible 3;
    DescribeAcls = 29, 0..=3, flexible 2;
    CreateAcls = 30, 0..=3, flexible 2;
    DeleteAcls = 31, 0..=3, flexible 2;
    DescribeConfigs = 32, 0..=4, flexible 4;
    AlterConfigs = 33, 0..=2, flexible 2;
    AlterReplicaLogDirs = 34, 0..=2, flexible 2;
    DescribeLogDirs = 35, 0..=4, flexible 2;
    SaslAuthenticate = 36, 0..=2, flexible 2;
    CreatePartitions = 37, 0..=3, flexible 2;
    CreateDelegationToken = 38, 0..=3, flexible 2;
    RenewDelegationToken = 39, 0..=2, flexible 2;
    ExpireDelegationToken = 40, 0..=2, flexible 2;
    DescribeDelegationToken = 41, 0..=3, flexible 2;
    DeleteGroups = 42, 0..=2, flexible 2;
    ElectLeaders = 43, 0..=2, flexible 2;
    IncrementalAlterConfigs = 44, 0..=1, flexible 1;
    AlterPartitionReassignments = 45, 0..=0, flexible 0;
    ListPartitionReassignments = 46, 0..=0, flexible 0;
    OffsetDelete = 47, 0..=0, flexible NEVER;
    DescribeClientQuotas = 48, 0..=1, flexible 1;
    AlterClientQuotas = 49, 0..=1, flexible 1;
    DescribeUserScramCredentials = 50, 0..=0, flexible 0;
    AlterUserScramCredentials = 51, 0..=0, flexible 0;
    AlterPartition = 56, 0..=3, flexible 0;
    UpdateFeatures = 57, 0..=1, flexible 0;
    Envelope = 58, 0..=0, flexible 0;
    DescribeCluster = 60, 0..=1, flexible 0;
    DescribeProducers = 61, 0..=0, flexible 0;
    DescribeTransactions = 65, 0..=0, flexible 0;
    ListTransactions = 66, 0..=1, flexible 0;
    AllocateProducerIds = 67, 0..=0, flexible 0;
    ConsumerGroupHeartbeat = 68, 0..=0, flexible 0;
    ConsumerGroupDescribe = 69, 0..=0, flexible 0;
}

impl ApiKey {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// Whether this version uses compact lengths and tagged fields (KIP-482).
    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.first_flexible_version()
    }

    /// Version of the request header that goes with this version of the body.
    pub fn request_header_version(self, version: i16) -> i16 {
        match self {
            ApiKey::ControlledShutdown if version == 0 => 0,
            _ if self.is_flexible(version) => 2,
            _ => 1,
        }
    }

    /// Version of the response header that goes with this version of the body.
    ///
    /// ApiVersions keeps version 0 for ever: its client does not know yet which versions the broker has (KIP-511).
    pub fn response_header_version(self, version: i16) -> i16 {
        match self {
            ApiKey::ApiVersions => 0,
            _ if self.is_flexible(version) => 1,
            _ => 0,
        }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_ascend_and_read_back() {
        assert!(ApiKey::ALL.is_sorted());
        for key in ApiKey::ALL {
            assert_eq!(ApiKey::from_code(key.code()), Some(*key));
        }
        for absent in [-1, 52, 55, 59, 62, 71, 75, 127] {
            assert_eq!(ApiKey::from_code(absent), None);
        }
    }

    #[test]
    fn header_versions_follow_the_first_flexible_version_but_for_two_apis() {
        assert_eq!(ApiKey::Fetch.request_header_version(11), 1);
        assert_eq!(ApiKey::Fetch.request_header_version(12), 2);
        assert_eq!(ApiKey::Fetch.response_header_version(11), 0);
        assert_eq!(ApiKey::Fetch.response_header_version(12), 1);
        assert_eq!(ApiKey::ApiVersions.request_header_version(3), 2);
        assert_eq!(ApiKey::ApiVersions.response_header_version(3), 0);
        assert_eq!(ApiKey::ControlledShutdown.request_header_version(0), 0);
        assert_eq!(ApiKey::ControlledShutdown.request_header_version(1), 1);
        assert_eq!(ApiKey::SaslHandshake.request_header_version(1), 1);
    }
}
