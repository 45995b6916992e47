//! Headers of requests and responses, and whole frames begun with them.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use bytes::BytesMut;

use super::api_key::ApiKey;
use super::frame::FRAME_PREFIX_BYTES;
use super::wire::{Reader, WireError, WireErrorKind, Writer};

/// Room a response's buffer starts with: most small answers fit, and need no second allocation.
const RESPONSE_CAPACITY: usize = 256;

/// Why a request header can not be used. The connection is closed without an answer, as Kafka does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("unknown API key {api_key}")]
    UnknownApi { api_key: i16 },
    #[error("request header: {0}")]
    Wire(#[from] WireError),
}

/// What stands before every request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    pub api_key: i16,
    pub api_version: i16,
    /// The client's number of this request; the response repeats it.
    pub correlation_id: i32,
    pub client_id: Option<Cow<'a, str>>,
}

impl<'a> RequestHeader<'a> {
    /// Reads a header and leaves the reader at the body. The version is not judged here, only used to tell the
    /// header's own version (0, 1 or 2).
    pub fn decode(reader: &mut Reader<'a>) -> Result<RequestHeader<'a>, HeaderError> {
        let api_key = reader.i16()?;
        let api_version = reader.i16()?;
        let correlation_id = reader.i32()?;
        let key = ApiKey::from_code(api_key).ok_or(HeaderError::UnknownApi { api_key })?;
        let header_version = key.request_header_version(api_version);
        // The client id keeps its plain length in flexible headers: every broker must be able to read the header of
        // an ApiVersions request, whatever its version.
        let client_id = if header_version >= 1 { reader.nullable_string(false)? } else { None };
        if header_version >= 2 {
            reader.skip_tagged_fields()?;
        }
        Ok(RequestHeader { api_key, api_version, correlation_id, client_id })
    }

    /// Writes the header, in the header version that the key and version of the body ask for.
    pub fn encode(&self, writer: &mut Writer) -> Result<(), HeaderError> {
        let api_key = self.api_key;
        let key = ApiKey::from_code(api_key).ok_or(HeaderError::UnknownApi { api_key })?;
        let header_version = key.request_header_version(self.api_version);
        writer.i16(api_key);
        writer.i16(self.api_version);
        writer.i32(self.correlation_id);
        if header_version >= 1 {
            writer.nullable_string(self.client_id.as_deref(), false)?;
        }
        if header_version >= 2 {
            writer.uvarint(0);
        }
        Ok(())
    }
}

/// Writes the header of a response to a request of this key and version.
pub fn encode_response_header(writer: &mut Writer, key: ApiKey, version: i16, correlation_id: i32) {
    writer.i32(correlation_id);
    if key.response_header_version(version) >= 1 {
        writer.uvarint(0);
    }
}

/// Reads the header of a response to a request of this key and version, and returns its correlation id.
pub fn decode_response_header(reader: &mut Reader<'_>, key: ApiKey, version: i16) -> Result<i32, WireError> {
    let correlation_id = reader.i32()?;
    if key.response_header_version(version) >= 1 {
        reader.skip_tagged_fields()?;
    }
    Ok(correlation_id)
}

/// A writer that holds room for the frame's prefix, and the response's header: the body goes next, then [`finish_frame`].
pub fn begin_response(key: ApiKey, version: i16, correlation_id: i32) -> Writer {
    let mut writer = Writer::with_capacity(RESPONSE_CAPACITY);
    writer.i32(0);
    encode_response_header(&mut writer, key, version, correlation_id);
    writer
}

/// A writer that holds room for the frame's prefix, and the request's header.
pub fn begin_request(header: &RequestHeader<'_>) -> Result<Writer, HeaderError> {
    let mut writer = Writer::new();
    writer.i32(0);
    header.encode(&mut writer)?;
    Ok(writer)
}

/// Puts the size of the whole message, gaps included, into the prefix that `begin_*` left room for.
///
/// # Errors
/// `TooLong` if the message is 2 GiB or larger.
pub fn set_frame_length(writer: &mut Writer) -> Result<(), WireError> {
    let length = writer.total_bytes() - FRAME_PREFIX_BYTES;
    let size = i32::try_from(length).map_err(|_| writer.error(WireErrorKind::TooLong { length }))?;
    writer.patch_i32(0, size);
    Ok(())
}

/// The finished frame of a message without gaps.
pub fn finish_frame(mut writer: Writer) -> Result<BytesMut, WireError> {
    set_frame_length(&mut writer)?;
    Ok(writer.into_bytes())
}

#[cfg(test)]
mod tests;
