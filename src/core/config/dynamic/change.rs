//! What a change is held to while the broker runs, by what was in effect before it (Kafka 3.9 `DynamicThreadPool`,
//! `LogCleaner`, `ListenerConnectionQuota`, `DynamicLogConfig`). What is in a file, or was stored long ago, is not.

#![forbid(unsafe_code)]

use super::super::Endpoint;
use super::super::keys::BrokerKey;
use super::super::load::Settings;
use super::super::rules::retention_ms;

/// Numbers of threads at most double or halve in one change.
const THREAD_COUNTS: &[&str] = &[
    "background.threads",
    "log.cleaner.threads",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
];

/// Limits that would shut everybody out at 0, and whoever set them with them.
const CONNECTION_LIMITS: &[&str] = &["max.connection.creation.rate", "max.connections"];

/// What is kept of a tiered log here, and in all: there is no tiered storage, but Kafka holds changes to it.
const LOCAL_RETENTION_UNSET: i64 = -2;

/// Whether a change from one to the other may be; each is of its kind, and passes as a whole.
pub(super) fn check(listeners: &[Endpoint], before: &Settings, after: &Settings) -> Result<(), String> {
    for name in THREAD_COUNTS {
        check_threads(name, before.value(name).number(), after.value(name).number())?;
    }
    for listener in listeners {
        let value = |settings: &Settings, name| of_listener(settings, listener, name);
        let name = "num.network.threads";
        check_threads(name, value(before, name), value(after, name))?;
        let limits =
            |settings: &Settings| CONNECTION_LIMITS.iter().map(|name| value(settings, name)).collect::<Vec<_>>();
        let (before, after) = (limits(before), limits(after));
        if before != after
            && let Some(at) = after.iter().position(|limit| *limit == 0)
        {
            let (name, listener) = (CONNECTION_LIMITS[at], &listener.listener);
            return Err(format!("{name} 0 would let nobody connect to listener {listener}"));
        }
    }
    let tiered = |settings: &Settings| {
        let local = |name| settings.value(name).number();
        [
            ("log.local.retention.ms", local("log.local.retention.ms"), retention_ms(settings).1),
            ("log.local.retention.bytes", local("log.local.retention.bytes"), local("log.retention.bytes").max(-1)),
        ]
    };
    if tiered(before) != tiered(after) {
        for (name, local, all) in tiered(after) {
            if all != -1 && local != LOCAL_RETENTION_UNSET && (local == -1 || local > all) {
                return Err(format!("{name} {local} is more than {}, {all}", name.replace("local.", "")));
            }
        }
    }
    Ok(())
}

fn check_threads(name: &str, before: i64, after: i64) -> Result<(), String> {
    let (least, most) = ((before / 2).max(1), before * 2);
    match after == before || (least..=most).contains(&after) {
        true => Ok(()),
        false => Err(format!("{name} can go from {before} to anything from {least} to {most}, not to {after}")),
    }
}

/// A listener's own value, or that of all.
fn of_listener(settings: &Settings, listener: &Endpoint, name: &str) -> i64 {
    let own = format!("listener.name.{}.{name}", listener.listener.to_lowercase());
    let kind = BrokerKey::find(name).expect("in the table").kind;
    // What a file says for one listener is not held to its kind before this.
    let own = settings.named.get(&own).and_then(|text| kind.parse(text).ok());
    own.unwrap_or_else(|| settings.value(name)).number()
}
