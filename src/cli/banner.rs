//! What a broker says once it serves.

#![forbid(unsafe_code)]

use std::net::SocketAddr;

use crate::config::{Config, Durability, Endpoint};
use ringlog_tools::table::human_bytes;

/// The lines of the banner; `advertised` with the port really bound, `file_systems` as the kernel names those of the log
/// directories, in order.
pub fn text(config: &Config, advertised: &[Endpoint], admin: Option<SocketAddr>, file_systems: &[String]) -> String {
    let recovery = match config.durability {
        Durability::PageCache => Some(format!(
            "after a power cut a start checks at most about {} of each directory (--unflushed-bytes-max)",
            human_bytes(i64::try_from(config.unflushed_bytes_max).unwrap_or(i64::MAX))
        )),
        Durability::Fsync => None,
    };
    let durability = match config.durability {
        Durability::PageCache => "page cache: acknowledged records survive a crash of ringlog, not of the machine",
        Durability::Fsync => "fsync: acknowledged records are on the disk",
    };
    let pinned = if config.pin { ", each on its core" } else { "" };
    let advertised: Vec<String> = advertised.iter().map(Endpoint::to_string).collect();
    let mut lines = vec![format!("ringlog {} serves {}", env!("CARGO_PKG_VERSION"), advertised.join(", "))];
    let directories = config.log_dirs.iter().zip(file_systems);
    lines.extend(directories.map(|(path, file_system)| format!("  data        {} on {file_system}", path.display())));
    lines.extend([
        format!("  mode        one node, broker.id {}, metadata embedded in the data directory", config.broker_id.0),
        format!("  shards      {}{pinned}", config.shards),
        format!("  durability  {durability}"),
    ]);
    lines.extend(recovery.map(|recovery| format!("  recovery    {recovery}")));
    lines.extend(admin.map(|address| format!("  admin       http://{address}/metrics, /healthz, /readyz")));
    let overrides = config.dynamic.overrides().iter();
    lines.extend(overrides.map(|(name, value)| format!("  override    {name}={value}, whatever clients have set")));
    lines.extend(config.warnings.iter().map(|warning| format!("  note        {warning}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServeOptions;

    #[test]
    fn it_says_where_on_what_and_with_which_promise() {
        let set = vec!["log.preallocate=true".to_owned()];
        let overrides = vec!["max.connections=9".to_owned()];
        let config =
            Config::load(&ServeOptions { set, overrides, shards: Some(2), ..ServeOptions::default() }).unwrap();
        let advertised = [Endpoint { port: 4711, ..config.advertised_listeners[0].clone() }];
        let text = text(&config, &advertised, Some(([127, 0, 0, 1], 9644).into()), &["ext4".to_owned()]);
        assert_eq!(
            text.lines().skip(1).collect::<Vec<_>>(),
            [
                "  data        ./ringlog-data on ext4",
                "  mode        one node, broker.id 1, metadata embedded in the data directory",
                "  shards      2",
                "  durability  page cache: acknowledged records survive a crash of ringlog, not of the machine",
                "  recovery    after a power cut a start checks at most about 2.0 GiB of each directory (--unflushed-bytes-max)",
                "  admin       http://127.0.0.1:9644/metrics, /healthz, /readyz",
                "  override    max.connections=9, whatever clients have set",
                "  note        not applied yet: log.preallocate",
            ]
        );
        assert!(text.lines().next().unwrap().ends_with("serves PLAINTEXT://127.0.0.1:4711"));
    }
}
