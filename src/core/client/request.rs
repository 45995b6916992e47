//! Which answer belongs to which request, so that a caller names one type only.

#![forbid(unsafe_code)]

use crate::protocol::message as m;
use crate::protocol::{ApiKey, Reader, WireError, Writer};

/// A whole request.
pub trait Request {
    const API_KEY: ApiKey;
    type Response: Response;

    /// # Errors
    /// `CannotCarry` if a field has a value for which this version has no room.
    fn write(&self, writer: &mut Writer, version: i16) -> Result<(), WireError>;
}

/// A whole answer.
pub trait Response: Sized {
    const API_KEY: ApiKey;

    fn read(reader: &mut Reader<'_>, version: i16) -> Result<Self, WireError>;
}

macro_rules! pairs {
    ($($request:ty => $response:ty,)*) => {$(
        impl Request for $request {
            const API_KEY: ApiKey = <$response>::API_KEY;
            type Response = $response;

            fn write(&self, writer: &mut Writer, version: i16) -> Result<(), WireError> {
                self.encode(writer, version)
            }
        }

        impl Response for $response {
            const API_KEY: ApiKey = <$response>::API_KEY;

            fn read(reader: &mut Reader<'_>, version: i16) -> Result<$response, WireError> {
                <$response>::decode(reader, version)
            }
        }
    )*};
}

pairs! {
    m::ProduceRequestToSend<'_> => m::ProduceResponse,
    m::FetchRequest => m::FetchResponse,
    m::ListOffsetsRequest => m::ListOffsetsResponse,
    m::MetadataRequest => m::MetadataResponse,
    m::OffsetForLeaderEpochRequest => m::OffsetForLeaderEpochResponse,
    m::FindCoordinatorRequest => m::FindCoordinatorResponse,
    m::ApiVersionsRequest => m::ApiVersionsResponse,
    m::CreateTopicsRequest => m::CreateTopicsResponse,
    m::DeleteTopicsRequest => m::DeleteTopicsResponse,
    m::CreatePartitionsRequest => m::CreatePartitionsResponse,
    m::DeleteRecordsRequest => m::DeleteRecordsResponse,
    m::InitProducerIdRequest => m::InitProducerIdResponse,
    m::AddPartitionsToTxnRequest => m::AddPartitionsToTxnResponse,
    m::EndTxnRequest => m::EndTxnResponse,
    m::DescribeConfigsRequest => m::DescribeConfigsResponse,
    m::AlterConfigsRequest => m::AlterConfigsResponse,
    m::IncrementalAlterConfigsRequest => m::IncrementalAlterConfigsResponse,
    m::DescribeLogDirsRequest => m::DescribeLogDirsResponse,
    m::DescribeClusterRequest => m::DescribeClusterResponse,
    m::DescribeProducersRequest => m::DescribeProducersResponse,
}
