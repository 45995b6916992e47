//! The limits of connections: `max.connections` and its like.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};

use super::Endpoint;
use super::value::Kind;

/// How many connections there may be, and how many new ones a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionQuotaLimits {
    /// `max.connections`.
    pub connections_max: u32,
    /// `listener.name.<listener>.max.connections`, by listener.
    pub listener_connections_max: Vec<u32>,
    /// `max.connections.per.ip`.
    pub address_connections_max: u32,
    /// `max.connections.per.ip.overrides`.
    pub address_overrides: BTreeMap<IpAddr, u32>,
    /// `max.connection.creation.rate`.
    pub creation_rate: u32,
    /// `listener.name.<listener>.max.connection.creation.rate`, by listener.
    pub listener_creation_rate: Vec<u32>,
}

/// Kafka's default for all of them: no limit.
pub const UNLIMITED: u32 = i32::MAX as u32;

/// A setting that can't be, and why.
pub type Invalid = (String, String, String);

impl ConnectionQuotaLimits {
    /// From the settings in effect by Kafka's names, each checked as its own kind, for these listeners.
    pub fn resolve(
        listeners: &[Endpoint],
        text: impl Fn(&str) -> Option<String>,
    ) -> Result<ConnectionQuotaLimits, Invalid> {
        let number = |name: &str| match text(name).filter(|text| !text.is_empty()) {
            None => Ok(UNLIMITED),
            Some(value) => match Kind::int(0).parse(&value) {
                Ok(number) => Ok(u32::try_from(number.int()).unwrap_or(0)),
                Err(reason) => Err((name.to_owned(), value, reason)),
            },
        };
        let of_listeners = |setting: &str| {
            let name = |listener: &Endpoint| format!("listener.name.{}.{setting}", listener.listener.to_lowercase());
            listeners.iter().map(|listener| number(&name(listener))).collect::<Result<Vec<_>, _>>()
        };
        Ok(ConnectionQuotaLimits {
            connections_max: number("max.connections")?,
            listener_connections_max: of_listeners("max.connections")?,
            address_connections_max: number("max.connections.per.ip")?,
            address_overrides: overrides(&text("max.connections.per.ip.overrides").unwrap_or_default())?,
            creation_rate: number("max.connection.creation.rate")?,
            listener_creation_rate: of_listeners("max.connection.creation.rate")?,
        })
    }
}

/// `host:count, ...`; a host name stands for all its addresses now.
fn overrides(text: &str) -> Result<BTreeMap<IpAddr, u32>, Invalid> {
    let invalid = |reason: String| ("max.connections.per.ip.overrides".to_owned(), text.to_owned(), reason);
    let mut overrides = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let parsed = part.rsplit_once(':').and_then(|(host, count)| Some((host.trim(), count.trim().parse().ok()?)));
        let (host, count): (&str, i32) = parsed.ok_or_else(|| invalid(format!("{part} is not host:count")))?;
        // As Kafka, which takes any negative count for none.
        let count = u32::try_from(count).unwrap_or(0);
        let addresses = (host, 0).to_socket_addrs().map_err(|error| invalid(format!("{host}: {error}")))?;
        overrides.extend(addresses.map(|address| (address.ip().to_canonical(), count)));
    }
    Ok(overrides)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(settings: &[(&str, &str)]) -> Result<ConnectionQuotaLimits, Invalid> {
        let listeners = ["CLIENT://a:1", "INNER://a:2"].map(|text| Endpoint::parse(text).unwrap());
        let found = |name: &str| settings.iter().find(|(set, _)| *set == name).map(|(_, text)| (*text).to_owned());
        ConnectionQuotaLimits::resolve(&listeners, found)
    }

    #[test]
    fn without_settings_nothing_is_limited_and_a_listener_may_have_limits_of_its_own() {
        let unlimited = resolve(&[]).unwrap();
        assert_eq!((unlimited.connections_max, unlimited.creation_rate), (UNLIMITED, UNLIMITED));
        let limits = resolve(&[
            ("max.connections", "100"),
            ("listener.name.inner.max.connections", "7"),
            ("listener.name.client.max.connection.creation.rate", "3"),
        ]);
        let limits = limits.unwrap();
        assert_eq!((limits.connections_max, limits.listener_connections_max), (100, vec![UNLIMITED, 7]));
        assert_eq!(limits.listener_creation_rate, vec![3, UNLIMITED]);
    }

    #[test]
    fn overrides_name_addresses_and_wrong_ones_are_named() {
        let limits = resolve(&[("max.connections.per.ip.overrides", "127.0.0.1:5, ::1:6")]).unwrap();
        assert_eq!(limits.address_overrides.into_values().collect::<Vec<_>>(), [5, 6]);
        for wrong in ["127.0.0.1", "127.0.0.1:x", "[::1]:5", "a b:5"] {
            assert!(resolve(&[("max.connections.per.ip.overrides", wrong)]).unwrap_err().1.contains(wrong), "{wrong}");
        }
        assert!(resolve(&[("listener.name.client.max.connections", "-1")]).is_err());
    }
}
