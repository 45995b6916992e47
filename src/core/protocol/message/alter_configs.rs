//! AlterConfigs (33): all settings of a resource at once.
#![forbid(unsafe_code)]

message! {
    /// Resources and the settings they are to have, or only to be checked (`validate_only`).
    struct AlterConfigsRequest of AlterConfigs {
        resources: Vec<AlterConfigsResource> [0..],
        validate_only: bool [0..],
    }

    /// A resource; what is not named is reset.
    struct AlterConfigsResource {
        resource_type: i8 [0..],
        resource_name: String [0..],
        configs: Vec<AlterableConfig> [0..],
    }

    /// One setting.
    struct AlterableConfig {
        name: String [0..],
        value: Option<String> [0..],
    }

    /// Each resource's result.
    struct AlterConfigsResponse of AlterConfigs {
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
