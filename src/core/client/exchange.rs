//! One connection's side of the protocol: requests become frames, received bytes become answers, in order.
//!
//! The versions come from the broker's own list: the owner sends [`Exchange::ask_versions`] first and gives its answer to
//! [`Exchange::learn_versions`]; every later request takes the highest version that both sides know and the caller can fill.
//! Any broker back to 0.10 has such a list (KIP-35).
//!
//! Invariants: answers come in the order of the requests (Kafka's promise for a connection), each is matched with the
//! oldest unanswered request, and one that does not match ends the connection: what follows can't be trusted.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use bytes::{Buf, Bytes, BytesMut};

use super::request::{Request, Response};
use crate::protocol::frame::{FRAME_PREFIX_BYTES, FrameError, frame_length};
use crate::protocol::header::{HeaderError, RequestHeader, begin_request, decode_response_header, finish_frame};
use crate::protocol::message::{ApiVersionsRequest, ApiVersionsResponse};
use crate::protocol::{ApiKey, ErrorCode, Reader, WireError};

/// The first version of ApiVersions that has the client's name in it, understood since Kafka 2.4; older brokers answer a
/// higher version than theirs by version 0 and an error.
const VERSIONS_VERSION: i16 = 3;

/// Why a connection can't go on, or a request can't be sent on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    #[error("the broker has no version of {} that this client speaks", .0.name())]
    NoVersion(ApiKey),
    #[error("the broker does not speak Kafka's protocol: {0}")]
    Frame(#[from] FrameError),
    #[error("the broker does not speak Kafka's protocol: an answer with number {found} where {expected} was asked")]
    Correlation { expected: i32, found: i32 },
    #[error("the broker does not speak Kafka's protocol: an answer that nothing was asked for")]
    Unasked,
    #[error("the broker's answer to {} can't be read: {error}", .key.name())]
    Unreadable { key: ApiKey, error: WireError },
    #[error("the request can't be written: {0}")]
    Unwritable(#[from] WireError),
    #[error("the broker refuses to list its versions: error code {0}")]
    VersionsRefused(i16),
}

impl From<HeaderError> for ExchangeError {
    fn from(error: HeaderError) -> ExchangeError {
        match error {
            HeaderError::Wire(error) => ExchangeError::Unwritable(error),
            HeaderError::UnknownApi { .. } => unreachable!("keys of requests come from the table"),
        }
    }
}

/// What the broker understands: lowest and highest version by API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions(Vec<(ApiKey, i16, i16)>);

impl Versions {
    /// Lowest and highest version that the broker has of this API; `None` if it has none.
    pub fn of(&self, key: ApiKey) -> Option<RangeInclusive<i16>> {
        self.0.iter().find(|(listed, _, _)| *listed == key).map(|(_, lowest, highest)| *lowest..=*highest)
    }

    /// The highest version that the broker has, our codec has, and `able` contains.
    pub fn choose(&self, key: ApiKey, able: RangeInclusive<i16>) -> Option<i16> {
        let (theirs, ours) = (self.of(key)?, key.versions());
        let lowest = *theirs.start().max(ours.start()).max(able.start());
        let highest = *theirs.end().min(ours.end()).min(able.end());
        (lowest <= highest).then_some(highest)
    }

    /// Every API that the broker lists and that the table knows.
    pub fn iter(&self) -> impl Iterator<Item = (ApiKey, RangeInclusive<i16>)> + '_ {
        self.0.iter().map(|(key, lowest, highest)| (*key, *lowest..=*highest))
    }
}

/// A request that was written and not answered.
#[derive(Clone, Copy, Debug)]
struct Asked {
    key: ApiKey,
    version: i16,
    correlation_id: i32,
}

/// An answer whose body is not read yet.
#[derive(Clone, Debug)]
pub struct Answer {
    pub key: ApiKey,
    pub version: i16,
    pub correlation_id: i32,
    /// The whole frame behind its size, header and all: spans of records count from here.
    pub frame: Bytes,
    body: usize,
}

impl Answer {
    /// Reads the body.
    ///
    /// # Errors
    /// `Unreadable` if it is not one whole answer of this kind.
    pub fn read<R: Response>(&self) -> Result<R, ExchangeError> {
        let unreadable = |error| ExchangeError::Unreadable { key: self.key, error };
        assert_eq!(R::API_KEY, self.key, "the caller knows what it asked");
        let mut reader = Reader::new(&self.frame);
        reader.bytes(self.body).map_err(unreadable)?;
        R::read(&mut reader, self.version).map_err(unreadable)
    }
}

/// See the head of this file.
pub struct Exchange {
    client_id: String,
    versions: Versions,
    next_correlation_id: i32,
    asked: VecDeque<Asked>,
    received: BytesMut,
    answer_bytes_max: usize,
}

impl Exchange {
    /// A connection that calls itself `client_id` and takes answers of at most `answer_bytes_max` bytes.
    pub fn new(client_id: &str, answer_bytes_max: usize) -> Exchange {
        Exchange {
            client_id: client_id.to_owned(),
            versions: Versions::default(),
            next_correlation_id: 0,
            asked: VecDeque::new(),
            received: BytesMut::new(),
            answer_bytes_max,
        }
    }

    /// The first request of a connection.
    pub fn ask_versions(&mut self) -> Result<BytesMut, ExchangeError> {
        let request = ApiVersionsRequest {
            client_software_name: env!("CARGO_PKG_NAME").to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.frame(&request, VERSIONS_VERSION).map(|(frame, _)| frame)
    }

    /// The first request again, in the version that brokers before 2.4 know: those answer any other with an error alone.
    pub fn ask_versions_of_old(&mut self) -> Result<BytesMut, ExchangeError> {
        self.frame(&ApiVersionsRequest::default(), 0).map(|(frame, _)| frame)
    }

    /// Takes up the answer to [`Exchange::ask_versions`].
    ///
    /// # Errors
    /// `VersionsRefused` with the broker's code, unless the answer has a list all the same: an older broker's has
    /// (KIP-511).
    pub fn learn_versions(&mut self, answer: &Answer) -> Result<(), ExchangeError> {
        // A broker that does not know our version answers in version 0, with its list.
        let response = match answer.read::<ApiVersionsResponse>() {
            Ok(response) if response.error_code != ErrorCode::UnsupportedVersion.code() => response,
            _ => Answer { version: 0, ..answer.clone() }.read::<ApiVersionsResponse>()?,
        };
        if response.api_keys.is_empty() {
            return Err(ExchangeError::VersionsRefused(response.error_code));
        }
        let known = response
            .api_keys
            .iter()
            .filter_map(|api| ApiKey::from_code(api.api_key).map(|key| (key, api.min_version, api.max_version)));
        self.versions = Versions(known.collect());
        Ok(())
    }

    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Versions that the connection uses from now on, learned by another one to the same broker.
    pub fn set_versions(&mut self, versions: Versions) {
        self.versions = versions;
    }

    /// The frame of a request in the highest version that both sides have and `able` contains, and that version. It
    /// counts as sent.
    ///
    /// # Errors
    /// `NoVersion`, and `Unwritable` if the version has no room for what the request says; nothing has changed then.
    pub fn ask<R: Request>(
        &mut self,
        request: &R,
        able: RangeInclusive<i16>,
    ) -> Result<(BytesMut, i16), ExchangeError> {
        let version = self.versions.choose(R::API_KEY, able).ok_or(ExchangeError::NoVersion(R::API_KEY))?;
        self.frame(request, version)
    }

    /// Notes that the request sent last has no answer (acks=0).
    pub fn expect_no_answer(&mut self) {
        self.asked.pop_back();
    }

    fn frame<R: Request>(&mut self, request: &R, version: i16) -> Result<(BytesMut, i16), ExchangeError> {
        let correlation_id = self.next_correlation_id;
        let header = RequestHeader {
            api_key: R::API_KEY.code(),
            api_version: version,
            correlation_id,
            client_id: Some(self.client_id.as_str().into()),
        };
        let mut writer = begin_request(&header)?;
        request.write(&mut writer, version)?;
        let frame = finish_frame(writer)?;
        self.next_correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        self.asked.push_back(Asked { key: R::API_KEY, version, correlation_id });
        Ok((frame, version))
    }

    /// Requests that were asked and not answered.
    pub fn unanswered(&self) -> usize {
        self.asked.len()
    }

    /// Room for received bytes behind those that are there: read into its spare capacity, or extend it. At least
    /// `bytes` are spare.
    pub fn room(&mut self, bytes: usize) -> &mut BytesMut {
        self.received.reserve(bytes);
        &mut self.received
    }

    /// Bytes of the next answer that are yet to come; those of any length if that is not known.
    pub fn missing(&self) -> usize {
        let Some(prefix) = self.received.first_chunk::<FRAME_PREFIX_BYTES>() else { return usize::MAX };
        let length = frame_length(*prefix, self.answer_bytes_max).unwrap_or(0);
        (FRAME_PREFIX_BYTES + length).saturating_sub(self.received.len())
    }

    /// Adds received bytes.
    pub fn received(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next whole answer; `None` until more is received.
    ///
    /// # Errors
    /// Any: the connection is of no use any more.
    pub fn next_answer(&mut self) -> Result<Option<Answer>, ExchangeError> {
        let Some(prefix) = self.received.first_chunk::<FRAME_PREFIX_BYTES>() else { return Ok(None) };
        let length = frame_length(*prefix, self.answer_bytes_max)?;
        if self.received.len() < FRAME_PREFIX_BYTES + length {
            return Ok(None);
        }
        self.received.advance(FRAME_PREFIX_BYTES);
        let frame = self.received.split_to(length).freeze();
        let Asked { key, version, correlation_id } = self.asked.pop_front().ok_or(ExchangeError::Unasked)?;
        let mut reader = Reader::new(&frame);
        let found = decode_response_header(&mut reader, key, version)
            .map_err(|error| ExchangeError::Unreadable { key, error })?;
        if found != correlation_id {
            return Err(ExchangeError::Correlation { expected: correlation_id, found });
        }
        let body = frame.len() - reader.remaining();
        Ok(Some(Answer { key, version, correlation_id, frame, body }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::header::begin_response;
    use crate::protocol::message::{ApiVersion, MetadataRequest, MetadataResponse};

    const BYTES_MAX: usize = 1000;

    fn answer(
        key: ApiKey,
        version: i16,
        correlation_id: i32,
        response: impl FnOnce(&mut crate::protocol::Writer),
    ) -> BytesMut {
        let mut writer = begin_response(key, version, correlation_id);
        response(&mut writer);
        finish_frame(writer).expect("small")
    }

    fn versions_answer(correlation_id: i32, version: i16, error_code: i16) -> BytesMut {
        let listed =
            |key: ApiKey, min_version, max_version| ApiVersion { api_key: key.code(), min_version, max_version };
        let api_keys = vec![listed(ApiKey::Metadata, 2, 9), listed(ApiKey::Fetch, 0, 99)];
        let response = ApiVersionsResponse { error_code, api_keys, ..Default::default() };
        answer(ApiKey::ApiVersions, version, correlation_id, |writer| response.encode(writer, version).expect("fits"))
    }

    fn connected() -> Exchange {
        let mut exchange = Exchange::new("test", BYTES_MAX);
        exchange.ask_versions().expect("a frame");
        exchange.received(&versions_answer(0, 3, 0));
        let answer = exchange.next_answer().expect("in order").expect("whole");
        exchange.learn_versions(&answer).expect("a list");
        exchange
    }

    #[test]
    fn a_request_takes_the_highest_version_that_both_sides_have_and_the_caller_can_fill() {
        let versions = connected().versions;
        assert_eq!(versions.choose(ApiKey::Metadata, 0..=12), Some(9));
        assert_eq!(versions.choose(ApiKey::Metadata, 0..=4), Some(4));
        assert_eq!(versions.choose(ApiKey::Metadata, 0..=1), None);
        assert_eq!(versions.choose(ApiKey::Fetch, 0..=99), Some(17), "our codec ends there");
        assert_eq!(versions.choose(ApiKey::CreateTopics, 0..=7), None, "the broker has none");
    }

    #[test]
    fn a_broker_that_lists_its_versions_beside_an_error_is_understood() {
        let mut exchange = Exchange::new("test", BYTES_MAX);
        exchange.ask_versions().expect("a frame");
        exchange.received(&versions_answer(0, 0, ErrorCode::UnsupportedVersion.code()));
        let answer = exchange.next_answer().expect("in order").expect("whole");
        exchange.learn_versions(&answer).expect("a list");
        assert_eq!(exchange.versions.of(ApiKey::Metadata), Some(2..=9));
    }

    #[test]
    fn answers_come_out_in_order_however_their_bytes_come() {
        let mut exchange = connected();
        for _ in 0..2 {
            assert_eq!(exchange.ask(&MetadataRequest::default(), 0..=12).expect("a frame").1, 9);
        }
        let mut bytes = BytesMut::new();
        for number in [1, 2] {
            let response = MetadataResponse { controller_id: number, ..Default::default() };
            bytes.extend(answer(ApiKey::Metadata, 9, number, |writer| response.encode(writer, 9).expect("fits")));
        }
        let mut controllers = Vec::new();
        for byte in bytes {
            exchange.received(&[byte]);
            while let Some(answer) = exchange.next_answer().expect("in order") {
                controllers.push(answer.read::<MetadataResponse>().expect("whole").controller_id);
            }
        }
        assert_eq!(controllers, [1, 2]);
        assert_eq!(exchange.unanswered(), 0);
    }

    #[test]
    fn what_is_no_answer_ends_the_connection_with_its_reason() {
        let mut exchange = connected();
        exchange.received(b"HTTP/1.1 400 Bad Request\r\n");
        assert!(matches!(exchange.next_answer(), Err(ExchangeError::Frame(FrameError::TooLarge { .. }))));
        let mut exchange = connected();
        exchange.received(&versions_answer(1, 3, 0));
        assert!(matches!(exchange.next_answer(), Err(ExchangeError::Unasked)));
        let mut exchange = connected();
        exchange.ask(&MetadataRequest::default(), 0..=12).expect("a frame");
        exchange.received(&versions_answer(7, 0, 0));
        assert!(matches!(exchange.next_answer(), Err(ExchangeError::Correlation { expected: 1, found: 7 })));
    }
}
