//! ApiVersions (18): the first request of most connections.
#![forbid(unsafe_code)]

message! {
    /// What a client asks first: which APIs and versions, and says who it is (KIP-511).
    struct ApiVersionsRequest of ApiVersions {
        client_software_name: String [3..; ignorable],
        client_software_version: String [3..; ignorable],
    }

    /// Served APIs; from version 3 also features (KIP-584). An unsupported version is answered in version 0.
    struct ApiVersionsResponse of ApiVersions {
        error_code: i16 [0..],
        api_keys: Vec<ApiVersion> [0..],
        throttle_time_ms: i32 [1..; ignorable],
        supported_features: Vec<SupportedFeatureKey> [3..; ignorable] tag(0),
        finalized_features_epoch: i64 [3..; ignorable] tag(1) default(-1),
        finalized_features: Vec<FinalizedFeatureKey> [3..; ignorable] tag(2),
        zk_migration_ready: bool [3..; ignorable] tag(3),
    }

    /// One API with its lowest and highest served version.
    struct ApiVersion {
        api_key: i16 [0..],
        min_version: i16 [0..],
        max_version: i16 [0..],
    }

    /// A feature and the range of levels this broker can do; none in ZooKeeper mode.
    struct SupportedFeatureKey {
        name: String [3..],
        min_version: i16 [3..],
        max_version: i16 [3..],
    }

    /// A feature and the range of levels the cluster has agreed on.
    struct FinalizedFeatureKey {
        name: String [3..],
        max_version_level: i16 [3..],
        min_version_level: i16 [3..],
    }
}
