//! ApiVersions (18), versions 0-4: what this broker serves, and nothing else.
//!
//! A request in a version we do not have is answered in version 0 with UNSUPPORTED_VERSION (KIP-511), so that the
//! client can ask again; that is why the dispatcher lets every version of it through.

use super::api::{SERVED, Served};
use super::{Exchange, Handler, Unanswered};
use crate::platform::Platform;
use crate::protocol::message::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use crate::protocol::{ApiKey, ErrorCode, Reader, WireError};

pub struct ApiVersions;

impl<P: Platform> Handler<P> for ApiVersions {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let body = exchange.take_body();
        let (response, version) = answer(&body, exchange.version())?;
        exchange.reply_in(version, &response).await
    }
}

/// The answer, and the version to write it in.
fn answer(body: &[u8], version: i16) -> Result<(ApiVersionsResponse, i16), WireError> {
    let own = SERVED.iter().find(|served| served.api_key == ApiKey::ApiVersions);
    if !own.is_some_and(|own| own.has(version)) {
        let ours = own.map(api_version);
        let response = ApiVersionsResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            api_keys: ours.into_iter().collect(),
            ..ApiVersionsResponse::default()
        };
        return Ok((response, 0));
    }
    let request = ApiVersionsRequest::decode(&mut Reader::new(body), version)?;
    let named = version < 3
        || (is_software_name(&request.client_software_name) && is_software_name(&request.client_software_version));
    let response = if named {
        let api_keys = SERVED.iter().map(api_version).collect();
        ApiVersionsResponse { api_keys, ..ApiVersionsResponse::default() }
    } else {
        ApiVersionsResponse { error_code: ErrorCode::InvalidRequest.code(), ..ApiVersionsResponse::default() }
    };
    Ok((response, version))
}

fn api_version(served: &Served) -> ApiVersion {
    let (min_version, max_version) = (served.lowest_version, served.highest_version);
    ApiVersion { api_key: served.api_key.code(), min_version, max_version }
}

/// Kafka's pattern `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`.
fn is_software_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_follow_kafkas_pattern() {
        for good in ["a", "apache-kafka-java", "3.9.0", "librdkafka"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", ".", "a b", "ü"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_version_we_do_not_have_is_answered_in_version_0_with_our_range() {
        let (response, version) = answer(&[], 99).expect("answered");
        assert_eq!((response.error_code, version), (35, 0));
        assert_eq!(response.api_keys, [ApiVersion { api_key: 18, min_version: 0, max_version: 4 }]);
    }
}
