//! Why a tool did not do what it was asked: one sentence with what to do, and an exit code.

#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::protocol::ErrorCode;

/// What the exit codes of all tools are, for their help.
pub const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 no broker, or no answer; 130 Ctrl-C.";

/// See the head of this file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Usage(String),
    /// No broker, or no answer in time.
    #[error("{0}")]
    Unreachable(String),
    /// Whoever read our output has enough of it.
    #[error("nobody reads the output any more")]
    BrokenPipe,
    #[error("interrupted")]
    Interrupted,
    /// Refused or failed, and told already, as Kafka's tools tell it.
    #[error("told already")]
    Told,
}

impl Failure {
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::BrokenPipe => 0,
            Failure::Refused(_) | Failure::Told => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
            Failure::Interrupted => 130,
        })
    }

    /// Tells the person, unless that would be no news.
    pub fn report(&self) -> ExitCode {
        if !matches!(self, Failure::BrokenPipe | Failure::Interrupted | Failure::Told) {
            say(&format!("ringlog: {self}"));
        }
        self.exit_code()
    }

    /// What an error code says about `what`, with the broker's own words where it has some.
    pub fn of_code(what: &str, code: i16, message: Option<&str>) -> Failure {
        Failure::Refused(format!("{what}: {}", describe(code, message)))
    }

    /// Output that can't be written.
    pub fn of_output(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
            _ => Failure::Refused(format!("the output can't be written: {}", reason(error))),
        }
    }
}

/// A line on standard error. Nobody is left to tell if that is gone.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// What an error code means, its name behind it.
pub fn describe(code: i16, message: Option<&str>) -> String {
    let Some(error) = ErrorCode::from_code(code) else {
        return format!("the broker answers with error code {code}, which this client does not know");
    };
    let text = match message {
        Some(message) if !message.is_empty() => message.trim_end_matches('.'),
        _ => meaning(error),
    };
    format!("{text} ({error})")
}

fn meaning(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::OffsetOutOfRange => "the offset is before the first or past the last record",
        ErrorCode::UnknownTopicOrPartition => "there is no such topic or partition",
        ErrorCode::LeaderNotAvailable => "the partition has no leader now; try again",
        ErrorCode::NotLeaderOrFollower => "the broker does not lead the partition; try again",
        ErrorCode::RequestTimedOut => "the broker could not do it in time; give it more with --timeout",
        ErrorCode::MessageTooLarge => "larger than the topic's max.message.bytes",
        ErrorCode::NotEnoughReplicas => "fewer replicas in sync than min.insync.replicas asks for",
        ErrorCode::NotEnoughReplicasAfterAppend => "written, but to fewer replicas than min.insync.replicas asks for",
        ErrorCode::InvalidTopicException => {
            "not a name for a topic; letters, digits, '.', '_' and '-' are allowed, 249 of them at most"
        }
        ErrorCode::TopicAuthorizationFailed
        | ErrorCode::ClusterAuthorizationFailed
        | ErrorCode::GroupAuthorizationFailed => "the broker does not allow it",
        ErrorCode::TopicAlreadyExists => "there is such a topic already",
        ErrorCode::InvalidPartitions => "not a possible number of partitions",
        ErrorCode::InvalidReplicationFactor => "more replicas than there are brokers, or none",
        ErrorCode::InvalidConfig => "not a possible setting",
        ErrorCode::UnsupportedVersion => "the broker is too old for it",
        ErrorCode::TopicDeletionDisabled => "the broker has delete.topic.enable=false",
        ErrorCode::KafkaStorageError => "the broker can't write to its disk; its log says why",
        ErrorCode::CorruptMessage => "the records were damaged on their way",
        ErrorCode::InvalidRecord => "the broker refuses a record; a compacted topic wants a key",
        ErrorCode::InvalidTimestamp => "a record's timestamp is too far from the broker's clock, or negative",
        ErrorCode::PolicyViolation => "the broker's policy forbids it",
        ErrorCode::SecurityDisabled => "the broker has no security set up",
        _ => "the broker refuses",
    }
}

/// The reason of an I/O error in a person's words.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "the connection was reset".to_owned(),
        io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer in time".to_owned(),
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or_default().to_lowercase()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_words_go_before_ours_and_the_name_is_always_there() {
        assert_eq!(describe(36, None), "there is such a topic already (TOPIC_ALREADY_EXISTS)");
        assert_eq!(describe(36, Some("Topic 'x' already exists.")), "Topic 'x' already exists (TOPIC_ALREADY_EXISTS)");
        assert!(describe(999, None).contains("999"));
    }

    #[test]
    fn the_codes_are_those_of_the_help() {
        let of = |failure: Failure| format!("{:?}", failure.exit_code());
        assert_eq!(of(Failure::BrokenPipe), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(of(Failure::Unreachable(String::new())), format!("{:?}", ExitCode::from(3)));
        assert_eq!(of(Failure::Interrupted), format!("{:?}", ExitCode::from(130)));
    }
}
