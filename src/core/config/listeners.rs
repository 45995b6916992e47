//! `listeners`, what clients are told of them, and who may be named for what (Kafka 3.9 `KafkaConfig`, `CoreUtils`).

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use super::Endpoint;
use super::load::{ConfigError, Settings, invalid};

/// Listeners of one broker.
const LISTENERS_MAX: usize = 16;

const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
const PROTOCOL_MAP: &str = "listener.security.protocol.map";
const ADVERTISED: &str = "advertised.listeners";
const INTER_BROKER: &str = "inter.broker.listener.name";
const INTER_BROKER_PROTOCOL: &str = "security.inter.broker.protocol";
const CONTROL_PLANE: &str = "control.plane.listener.name";

/// Where the broker listens, and what of that clients are told.
pub(super) struct Listeners {
    pub listeners: Vec<Endpoint>,
    pub advertised: Vec<Endpoint>,
}

/// The security protocol of each listener, by its name in upper case.
type ProtocolMap<'s> = BTreeMap<String, &'s str>;

impl Listeners {
    pub fn of(settings: &Settings) -> Result<Listeners, ConfigError> {
        let protocols = protocol_map(settings)?;
        let listeners = listeners(settings, &protocols)?;
        let advertised = advertised(settings, &protocols, &listeners)?;
        check_names(settings, &protocols, &advertised)?;
        Ok(Listeners { listeners, advertised })
    }
}

fn protocol_map(settings: &Settings) -> Result<ProtocolMap<'_>, ConfigError> {
    let text = settings.text(PROTOCOL_MAP).unwrap_or_default();
    let mut map = ProtocolMap::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (listener, protocol) = entry.rsplit_once(':').ok_or_else(|| {
            invalid(PROTOCOL_MAP, text, "write it as LISTENER:PROTOCOL, with commas between".to_owned())
        })?;
        let known = PROTOCOLS.into_iter().find(|known| known.eq_ignore_ascii_case(protocol.trim()));
        let protocol = known
            .ok_or_else(|| invalid(PROTOCOL_MAP, text, format!("{protocol} is none of {}", PROTOCOLS.join(", "))))?;
        map.insert(listener.trim().to_uppercase(), protocol);
    }
    Ok(map)
}

fn listeners(settings: &Settings, protocols: &ProtocolMap<'_>) -> Result<Vec<Endpoint>, ConfigError> {
    let text = settings.text("listeners").unwrap_or_default();
    let endpoints = parse("listeners", text, protocols)?;
    if endpoints.is_empty() || endpoints.len() > LISTENERS_MAX {
        return Err(invalid("listeners", text, format!("name 1 to {LISTENERS_MAX} listeners")));
    }
    check_ports(&endpoints).map_err(|reason| invalid("listeners", text, reason))?;
    for endpoint in &endpoints {
        let protocol = protocols[&*endpoint.listener];
        if protocol != "PLAINTEXT" {
            let reason = format!("{protocol} is not supported yet; use PLAINTEXT listeners");
            return Err(invalid("listeners", text, reason));
        }
    }
    Ok(endpoints)
}

/// Endpoints of mapped listeners, each named once.
fn parse(setting: &str, text: &str, protocols: &ProtocolMap<'_>) -> Result<Vec<Endpoint>, ConfigError> {
    let mut names = BTreeSet::new();
    let mut endpoints = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let is_host = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-%._:".contains(&byte));
        let endpoint = Endpoint::parse(part).filter(|endpoint| is_host(&endpoint.host)).ok_or_else(|| {
            invalid(setting, text, format!("{part} is no listener; write it as PLAINTEXT://host:port"))
        })?;
        // Kafka compares listener names in upper case (`ListenerName.normalised`).
        let listener: Arc<str> = endpoint.listener.to_uppercase().into();
        if !protocols.contains_key(&*listener) {
            let reason = format!("no security protocol is mapped to listener {listener} in {PROTOCOL_MAP}");
            return Err(invalid(setting, text, reason));
        }
        if !names.insert(Arc::clone(&listener)) {
            let reason = format!("there are two listeners named {listener}; each must have its own name");
            return Err(invalid(setting, text, reason));
        }
        endpoints.push(Endpoint { listener, ..endpoint });
    }
    Ok(endpoints)
}

/// Each listener has a port of its own; but one port may be bound once for an address of IPv4 and once for one of IPv6.
fn check_ports(listeners: &[Endpoint]) -> Result<(), String> {
    for (index, listener) in listeners.iter().enumerate() {
        let same_port: Vec<&Endpoint> =
            listeners[..index].iter().filter(|other| other.port == listener.port && other.port != 0).collect();
        let address = |endpoint: &Endpoint| endpoint.host.parse::<IpAddr>().ok();
        let go_together = |other: &Endpoint| match (address(other), address(listener)) {
            (Some(one), Some(two)) => one.is_ipv4() != two.is_ipv4(),
            _ => false,
        };
        match same_port[..] {
            [] => {}
            [other] if go_together(other) => {}
            [other, ..] => return Err(format!("{other} and {listener} have the same port")),
        }
    }
    Ok(())
}

fn advertised(
    settings: &Settings,
    protocols: &ProtocolMap<'_>,
    listeners: &[Endpoint],
) -> Result<Vec<Endpoint>, ConfigError> {
    let mut advertised = match settings.named.get(ADVERTISED) {
        None => listeners.to_vec(),
        Some(text) => parse(ADVERTISED, text, protocols)?,
    };
    if advertised.is_empty() {
        return Err(invalid(ADVERTISED, "", "name a listener, or take the setting out".to_owned()));
    }
    for endpoint in &mut advertised {
        if !listeners.iter().any(|listener| listener.listener == endpoint.listener) {
            let reason = format!("listener {} is not in listeners", endpoint.listener);
            return Err(invalid(ADVERTISED, &endpoint.to_string(), reason));
        }
        if ["0.0.0.0", "::"].contains(&&*endpoint.host) {
            let reason = "clients can't connect to it; set advertised.listeners to an address they can reach";
            return Err(invalid(ADVERTISED, &endpoint.to_string(), reason.to_owned()));
        }
        if endpoint.host.is_empty() {
            endpoint.host = host_name()?.into();
        }
    }
    Ok(advertised)
}

/// Brokers must be able to reach each other, and the controller them, by listeners that are advertised.
fn check_names(settings: &Settings, protocols: &ProtocolMap<'_>, advertised: &[Endpoint]) -> Result<(), ConfigError> {
    let check = |setting: &str, name: &str| -> Result<String, ConfigError> {
        let listener = name.to_uppercase();
        let reason = if listener.is_empty() {
            "name a listener, or take the setting out".to_owned()
        } else if !protocols.contains_key(&listener) {
            format!("no security protocol is mapped to listener {listener} in {PROTOCOL_MAP}")
        } else if !advertised.iter().any(|endpoint| *endpoint.listener == *listener) {
            let names: Vec<&str> = advertised.iter().map(|endpoint| &*endpoint.listener).collect();
            format!("must be one of the advertised listeners: {}", names.join(", "))
        } else {
            return Ok(listener);
        };
        Err(invalid(setting, name, reason))
    };
    let inter_broker = match settings.named.get(INTER_BROKER) {
        Some(name) if settings.named.contains_key(INTER_BROKER_PROTOCOL) => {
            return Err(invalid(INTER_BROKER, name, format!("set it or {INTER_BROKER_PROTOCOL}, not both")));
        }
        Some(name) => check(INTER_BROKER, name)?,
        // The listener that is named like the protocol.
        None => {
            let protocol = settings.text(INTER_BROKER_PROTOCOL).unwrap_or_default();
            let named = advertised.iter().any(|endpoint| *endpoint.listener == *protocol);
            if !named && !settings.named.contains_key(INTER_BROKER_PROTOCOL) {
                let reason = format!(
                    "no advertised listener is named {protocol}, by which brokers would talk to each other; name one of them \
                     in {INTER_BROKER}"
                );
                let names: Vec<&str> = advertised.iter().map(|endpoint| &*endpoint.listener).collect();
                return Err(invalid(ADVERTISED, &names.join(","), reason));
            }
            check(INTER_BROKER_PROTOCOL, protocol)?
        }
    };
    if let Some(name) = settings.named.get(CONTROL_PLANE)
        && check(CONTROL_PLANE, name)? == inter_broker
    {
        return Err(invalid(CONTROL_PLANE, name, "must not be the listener between brokers".to_owned()));
    }
    if let Some(names) = settings.text("controller.listener.names") {
        let reason = "only brokers in KRaft mode have listeners for controllers; take the setting out".to_owned();
        return Err(invalid("controller.listener.names", names, reason));
    }
    Ok(())
}

fn host_name() -> Result<String, ConfigError> {
    let path = Path::new("/proc/sys/kernel/hostname");
    let text = fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_bound_once_or_once_for_each_family_of_addresses() {
        let check =
            |text: &str| check_ports(&text.split(' ').map(|text| Endpoint::parse(text).unwrap()).collect::<Vec<_>>());
        assert!(check("A://h:1 B://h:2").is_ok() && check("A://1.2.3.4:1 B://[::1]:1").is_ok());
        assert!(check("A://h:0 B://h:0").is_ok());
        assert!(check("A://h:1 B://g:1").unwrap_err().contains("same port"));
        // All interfaces, or a name, may be either family.
        assert!(check("A://:1 B://[::1]:1").is_err() && check("A://h:1 B://[::1]:1").is_err());
        assert!(check("A://1.2.3.4:1 B://[::1]:1 C://1.2.3.5:1").is_err());
    }
}
