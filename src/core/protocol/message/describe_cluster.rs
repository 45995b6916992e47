//! DescribeCluster (60): brokers and controller, without topics (KIP-700).
#![forbid(unsafe_code)]

message! {
    /// `endpoint_type`: 1 brokers, 2 controllers (KIP-919).
    struct DescribeClusterRequest of DescribeCluster {
        include_cluster_authorized_operations: bool [0..],
        endpoint_type: i8 [1..] default(1),
    }

    /// The cluster.
    struct DescribeClusterResponse of DescribeCluster {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..] default(None),
        endpoint_type: i8 [1..] default(1),
        cluster_id: String [0..],
        controller_id: i32 [0..] default(-1),
        brokers: Vec<DescribeClusterBroker> [0..],
        cluster_authorized_operations: i32 [0..] default(i32::MIN),
    }

    /// A live broker, as it is reached over the listener of the request.
    struct DescribeClusterBroker {
        broker_id: i32 [0..],
        host: String [0..],
        port: i32 [0..],
        rack: Option<String> [0..] default(None),
    }
}
