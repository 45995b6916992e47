//! Levels of the log, and changing them while the process runs (KIP-412).
//!
//! There is a logger for each module of the crate that has something to say, and the root, whose level the others have
//! unless they have one of their own. Levels last as long as the process.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The logger of all that has no level of its own.
pub const ROOT: &str = "root";

/// Names of levels, as Kafka 3.9's `LogLevelConfig` has them, sorted.
pub const LEVELS: [&str; 6] = ["DEBUG", "ERROR", "FATAL", "INFO", "TRACE", "WARN"];

/// Modules that log, and the lines about requests.
const MODULES: [&str; 14] = [
    "ringlog::admin",
    "ringlog::base",
    "ringlog::broker",
    "ringlog::config",
    "ringlog::controller",
    "ringlog::handlers",
    "ringlog::metadata",
    "ringlog::net",
    "ringlog::partition",
    "ringlog::platform",
    super::log_request::TARGET,
    "ringlog::shard",
    "ringlog::storage",
    "ringlog::uring",
];

const NO_LOG: &str = "this process has no log";

/// One of [`LEVELS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(&'static str);

impl Level {
    /// Only in capitals, as Kafka wants it.
    pub fn parse(text: &str) -> Option<Level> {
        LEVELS.iter().find(|level| **level == text).map(|level| Level(level))
    }

    pub fn name(self) -> &'static str {
        self.0
    }

    /// As `RINGLOG_LOG` has it; nothing here is worse than an error.
    fn directive(self) -> String {
        if self.0 == "FATAL" { "error".to_owned() } else { self.0.to_lowercase() }
    }
}

/// What takes a new filter, in the words of `RINGLOG_LOG`.
type Apply = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Of the process: the log is the process's own.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    apply: Apply,
    levels: Mutex<Levels>,
}

#[derive(Clone, Default)]
struct Levels {
    /// The filter that files, flags and the environment say.
    first: String,
    /// By logger: what clients have set since.
    set: BTreeMap<&'static str, Level>,
}

/// Tells how the filter is changed that was `first` at the start.
pub fn install(first: String, apply: Apply) {
    // A test that starts several brokers in one process has one log.
    let levels = Mutex::new(Levels { first, set: BTreeMap::new() });
    let _ = LOG.set(Log { apply, levels });
}

/// Another filter than at the start, below what clients have set.
pub fn start_from(first: &str) -> Result<(), String> {
    let Some(log) = LOG.get() else { return Err(NO_LOG.to_owned()) };
    let mut levels = log.levels.lock().unwrap_or_else(PoisonError::into_inner);
    (log.apply)(&filter(first, &levels.set))?;
    first.clone_into(&mut levels.first);
    Ok(())
}

fn logger(name: &str) -> Option<&'static str> {
    MODULES.into_iter().chain([ROOT]).find(|known| *known == name)
}

pub fn exists(name: &str) -> bool {
    logger(name).is_some()
}

/// All loggers with their levels, by name.
pub fn all() -> Vec<(&'static str, Level)> {
    let levels = LOG.get().map(|log| log.levels.lock().unwrap_or_else(PoisonError::into_inner).clone());
    let Levels { first, set } = levels.unwrap_or_default();
    let at_start = |name: &str| {
        let mut directives = first.split(',').map(str::trim);
        let level = match name {
            ROOT => directives.rfind(|directive| !directive.is_empty() && !directive.contains(['=', '[', ':'])),
            _ => directives.find_map(|directive| directive.strip_prefix(name)?.strip_prefix('=')),
        };
        level.and_then(|level| Level::parse(&level.to_uppercase()))
    };
    let root = set.get(ROOT).copied().or_else(|| at_start(ROOT)).unwrap_or(Level("INFO"));
    let level = |name: &'static str| (name, set.get(name).copied().or_else(|| at_start(name)).unwrap_or(root));
    MODULES.into_iter().map(level).chain([(ROOT, root)]).collect()
}

/// Sets levels; `None`: the root's from now on. All of them or none.
pub fn set(levels: &[(&str, Option<Level>)]) -> Result<(), String> {
    let Some(log) = LOG.get() else { return Err(NO_LOG.to_owned()) };
    let mut all = log.levels.lock().unwrap_or_else(PoisonError::into_inner);
    let mut next = all.set.clone();
    for (name, level) in levels {
        let name = logger(name).ok_or_else(|| format!("Logger {name} does not exist!"))?;
        match level {
            Some(level) => drop(next.insert(name, *level)),
            None => drop(next.remove(name)),
        }
    }
    (log.apply)(&filter(&all.first, &next))?;
    all.set = next;
    Ok(())
}

/// Later directives win over earlier ones for the same logger.
fn filter(first: &str, set: &BTreeMap<&'static str, Level>) -> String {
    let directive = |(name, level): (&&str, &Level)| match *name {
        ROOT => level.directive(),
        module => format!("{module}={}", level.directive()),
    };
    let first = Some(first.to_owned()).filter(|first| !first.is_empty());
    first.into_iter().chain(set.iter().map(directive)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_the_first_one_and_what_was_set_since() {
        let set = BTreeMap::from([(ROOT, Level("WARN")), ("ringlog::storage", Level("FATAL"))]);
        assert_eq!(filter("info,hyper=debug", &set), "info,hyper=debug,ringlog::storage=error,warn");
        assert_eq!(filter("", &BTreeMap::new()), "");
        assert!(Level::parse("warn").is_none() && Level::parse("WARN").is_some());
        assert!(exists(ROOT) && exists("ringlog::net") && !exists("kafka.server"));
    }
}
