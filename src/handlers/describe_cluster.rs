//! DescribeCluster (60), versions 0-1 (KIP-700): brokers, controller, cluster id, and what the client may do if it asks.
//! v1 names the kind of endpoint (KIP-919): this is a broker's.

use super::metadata;
use super::{Exchange, Handler, Unanswered};
use crate::local::Local;
use crate::metadata::image::NO_LEADER;
use crate::platform::Platform;
use crate::protocol::ErrorCode;
use crate::protocol::message::{DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse};

/// Kafka's numbers of endpoint types (Kafka 3.9 `EndpointType`).
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub struct DescribeCluster;

impl<P: Platform> Handler<P> for DescribeCluster {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let request: DescribeClusterRequest = exchange.decode().await?;
        let response = answer(&exchange.local, &exchange.context.listener, request);
        exchange.reply(&response).await
    }
}

fn answer<P: Platform>(local: &Local<P>, listener: &str, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let refuse = |code: ErrorCode, message: String| DescribeClusterResponse {
        error_code: code.code(),
        error_message: Some(message),
        ..DescribeClusterResponse::default()
    };
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            let message =
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
            return refuse(ErrorCode::MismatchedEndpointType, message.to_owned());
        }
        other => return refuse(ErrorCode::UnsupportedEndpointType, format!("Unsupported endpoint type {other}")),
    }
    let image = local.image();
    let brokers: Vec<DescribeClusterBroker> = metadata::brokers(&image, listener)
        .into_iter()
        .map(|broker| DescribeClusterBroker {
            broker_id: broker.node_id,
            host: broker.host,
            port: broker.port,
            rack: broker.rack,
        })
        .collect();
    let is_listed = brokers.iter().any(|broker| broker.broker_id == image.controller_id.0);
    DescribeClusterResponse {
        cluster_id: image.cluster_id.to_string(),
        controller_id: if is_listed { image.controller_id.0 } else { NO_LEADER.0 },
        brokers,
        cluster_authorized_operations: match request.include_cluster_authorized_operations {
            true => metadata::CLUSTER_OPERATIONS,
            false => i32::MIN,
        },
        ..DescribeClusterResponse::default()
    }
}
