//! Who a request comes from.

use std::fmt;

/// Whom a connection speaks for. Until a listener authenticates its clients that is nobody in particular.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Kafka's `KafkaPrincipal.ANONYMOUS`.
    Anonymous,
}

impl fmt::Display for Principal {
    /// As Kafka's logs and ACLs have it: type and name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Anonymous => f.write_str("User:ANONYMOUS"),
        }
    }
}
