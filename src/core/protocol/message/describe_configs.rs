//! DescribeConfigs (32): settings, where they come from, and what they are.
#![forbid(unsafe_code)]

message! {
    /// Resources whose settings are asked for.
    struct DescribeConfigsRequest of DescribeConfigs {
        resources: Vec<DescribeConfigsResource> [0..],
        include_synonyms: bool [1..],
        include_documentation: bool [3..],
    }

    /// A resource; `configuration_keys` null: all its settings.
    struct DescribeConfigsResource {
        resource_type: i8 [0..],
        resource_name: String [0..],
        configuration_keys: Option<Vec<String>> [0..],
    }

    /// Each resource's settings, in the request's order.
    struct DescribeConfigsResponse of DescribeConfigs {
        throttle_time_ms: i32 [0..],
        results: Vec<DescribeConfigsResult> [0..],
    }

    /// A resource's settings, or why there are none.
    struct DescribeConfigsResult {
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        resource_type: i8 [0..],
        resource_name: String [0..],
        configs: Vec<DescribeConfigsResourceResult> [0..],
    }

    /// One setting; version 0 only says whether it has the default.
    struct DescribeConfigsResourceResult {
        name: String [0..],
        value: Option<String> [0..],
        read_only: bool [0..],
        is_default: bool [0..=0],
        config_source: i8 [1..; ignorable] default(-1),
        is_sensitive: bool [0..],
        synonyms: Vec<DescribeConfigsSynonym> [1..; ignorable],
        config_type: i8 [3..; ignorable],
        documentation: Option<String> [3..; ignorable],
    }

    /// A name and place where the setting may have its value from, the first that counts first.
    struct DescribeConfigsSynonym {
        name: String [1..],
        value: Option<String> [1..],
        source: i8 [1..],
    }
}
