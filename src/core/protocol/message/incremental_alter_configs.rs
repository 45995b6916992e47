//! IncrementalAlterConfigs (44): single settings of a resource (KIP-339).
#![forbid(unsafe_code)]

message! {
    /// Resources and changes of their settings, or only to be checked (`validate_only`).
    struct IncrementalAlterConfigsRequest of IncrementalAlterConfigs {
        resources: Vec<AlterConfigsResource> [0..],
        validate_only: bool [0..],
    }

    /// A resource; what is not named stays.
    struct AlterConfigsResource {
        resource_type: i8 [0..],
        resource_name: String [0..],
        configs: Vec<AlterableConfig> [0..],
    }

    /// One change: 0 set, 1 delete, 2 append to a list, 3 subtract from a list.
    struct AlterableConfig {
        name: String [0..],
        config_operation: i8 [0..],
        value: Option<String> [0..],
    }

    /// Each resource's result.
    struct IncrementalAlterConfigsResponse of IncrementalAlterConfigs {
        throttle_time_ms: i32 [0..],
        responses: Vec<AlterConfigsResourceResponse> [0..],
    }

    /// One resource's result.
    struct AlterConfigsResourceResponse {
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        resource_type: i8 [0..],
        resource_name: String [0..],
    }
}
