//! Client properties, `name=value`, as Kafka's performance tools take them from flags and files.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::check_property;
use crate::bench::failures;
use crate::connect::{ConnectArguments, address};
use crate::failure::{Failure, say};

/// Of `request.timeout.ms`.
const TIMEOUT_DEFAULT_MS: u64 = 30_000;

/// What is left of them: each is taken once.
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Those of a file and those of flags, which win.
    pub fn read(file: Option<&Path>, flags: &[String]) -> Result<Properties, Failure> {
        let text = match file {
            Some(path) => std::fs::read_to_string(path).map_err(|error| failures::file(path, &error))?,
            None => String::new(),
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
        let mut all = BTreeMap::new();
        for property in lines.chain(flags.iter().map(String::as_str)) {
            let (name, value) = property
                .split_once('=')
                .ok_or_else(|| Failure::Usage(format!("'{property}' is no property; write NAME=VALUE")))?;
            // A group changes nothing here: all partitions are read. Transactions are asked for by flags.
            if !matches!(name.trim(), "group.id" | "transactional.id") {
                check_property(property)?;
            }
            all.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        Ok(Properties(all))
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// A number within bounds.
    pub fn number(&mut self, name: &str, default: u64, limit: u64) -> Result<u64, Failure> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| *number <= limit);
        number.ok_or_else(|| Failure::Usage(format!("{name}={text} must be a number from 0 to {limit}")))
    }

    /// The brokers: those of the flag, or of `bootstrap.servers`.
    pub fn connect(&mut self, flag: Option<String>) -> Result<ConnectArguments, Failure> {
        let servers = self.text("bootstrap.servers");
        let servers = flag.or(servers).ok_or_else(|| {
            Failure::Usage("no broker is named; give bootstrap.servers=HOST:PORT, or --bootstrap-server".to_owned())
        })?;
        let bootstrap_server = servers.split(',').map(address).collect::<Result<_, _>>().map_err(Failure::Usage)?;
        let timeout_ms = self.number("request.timeout.ms", TIMEOUT_DEFAULT_MS, i32::MAX as u64)?;
        Ok(ConnectArguments { bootstrap_server, timeout: Duration::from_millis(timeout_ms.max(1)) })
    }

    /// Says what has no meaning here.
    pub fn finish(self) {
        // Said by every producer and consumer of Kafka, and nothing else is possible here.
        const UNDERSTOOD: [&str; 4] = ["key.serializer", "value.serializer", "key.deserializer", "value.deserializer"];
        for name in self.0.keys().filter(|name| !UNDERSTOOD.contains(&name.as_str())) {
            say(&format!("ringlog: the property {name} is ignored"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_each_property_is_taken_once() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "# a comment\nacks = 1\nbatch.size=7\nbootstrap.servers=a,b:1\n").expect("written");
        let mut properties = Properties::read(Some(file.path()), &["acks=all".to_owned()]).expect("read");
        assert_eq!(properties.text("acks").as_deref(), Some("all"));
        assert_eq!(properties.number("batch.size", 1, 10).expect("a number"), 7);
        assert_eq!(properties.connect(None).expect("brokers").bootstrap_server, ["a:9092", "b:1"]);
        assert_eq!(properties.text("acks"), None);
        assert!(Properties::read(None, &["acks".to_owned()]).is_err());
        assert!(Properties::read(None, &["security.protocol=SSL".to_owned()]).is_err());
        assert!(Properties::read(None, &["group.id=g".to_owned()]).is_ok());
        assert!(properties.connect(None).is_err());
    }
}
