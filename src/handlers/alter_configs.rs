//! AlterConfigs (33), versions 0-2: all settings of a topic or a broker at once; what is not named is reset. The answer
//! leaves when every shard shows the new settings.

use super::configs::{self, AlteredResource, Refusal};
use super::exchange::ANSWER_GROWTH;
use super::{Exchange, Handler, Unanswered};
use crate::local::Local;
use crate::metadata::proposal::{ConfigChange, ConfigEdit};
use crate::platform::Platform;
use crate::protocol::message::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse,
};

pub struct AlterConfigs;

impl<P: Platform> Handler<P> for AlterConfigs {
    async fn handle(mut exchange: Exchange<P>) -> Result<(), Unanswered> {
        let (request, _room) = exchange.decode_to_propose::<AlterConfigsRequest>(ANSWER_GROWTH).await?;
        let response = answer(&exchange.local, request).await;
        exchange.reply(&response).await
    }
}

async fn answer<P: Platform>(local: &Local<P>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let asked = request.resources.into_iter().map(|resource| AlteredResource {
        wanted: change(local, &resource).into(),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
    });
    let outcomes = configs::alter(local, asked.collect(), request.validate_only).await;
    let responses = outcomes.into_iter().map(|(resource_type, resource_name, outcome)| {
        let (error_code, error_message) = configs::told(outcome);
        AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
    });
    AlterConfigsResponse { responses: responses.collect(), ..AlterConfigsResponse::default() }
}

fn change<P: Platform>(local: &Local<P>, resource: &AlterConfigsResource) -> Result<ConfigChange, Refusal> {
    let configs = &resource.configs;
    let without_value = configs.iter().filter(|config| config.value.is_none());
    configs::check_settings(configs.iter().map(|config| &*config.name), without_value.map(|config| &*config.name))?;
    let settings = configs.iter().filter_map(|config| Some((config.name.clone(), config.value.clone()?))).collect();
    let resource = configs::changed_resource(local, resource.resource_type, &resource.resource_name)?;
    Ok(ConfigChange { resource, edit: ConfigEdit::Replace(settings) })
}
