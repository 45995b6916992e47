//! Why bytes are not a message, or a message can not be bytes.

/// A value that could not be read or written: what was wrong, in which field, at which byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} (field {field}, byte {position})")]
pub struct WireError {
    pub kind: WireErrorKind,
    /// `Struct.field`, the innermost one; empty outside of a message.
    pub field: &'static str,
    /// Counted from the start of the slice that is read, or of the buffer that is written.
    pub position: usize,
}

/// What was wrong. All but the last three are the peer's doing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireErrorKind {
    #[error("{needed} bytes needed, {remaining} left")]
    Truncated { needed: usize, remaining: usize },
    /// As `Truncated`, of a number and not of what a length announced.
    #[error("{needed} bytes needed, {remaining} left")]
    Ended { needed: usize, remaining: usize },
    #[error("length or count {length} is out of range")]
    Length { length: i64 },
    #[error("an array of {count} elements is more than is left or allowed")]
    ArrayCount { count: usize },
    #[error("a varint does not end within its type")]
    Varint,
    #[error("null where null is not allowed")]
    Null,
    #[error("{count} tagged fields are more than allowed")]
    TaggedFieldCount { count: u32 },
    #[error("tagged field {tag} of {length} bytes holds a shorter value")]
    TaggedFieldLength { tag: u32, length: usize },
    #[error("{api} has no version {version} here")]
    Version { api: &'static str, version: i16 },
    /// Writing only: a value that is neither the default nor ignorable, in a version without that field.
    #[error("version {version} can not carry this value")]
    CannotCarry { version: i16 },
    /// Writing only.
    #[error("{length} bytes or elements are too many to write")]
    TooLong { length: usize },
}

impl WireError {
    pub(crate) fn new(kind: WireErrorKind, position: usize) -> WireError {
        WireError { kind, field: "", position }
    }

    /// Names the field, unless a field inside of it is named already.
    pub(crate) fn in_field(mut self, field: &'static str) -> WireError {
        if self.field.is_empty() {
            self.field = field;
        }
        self
    }
}
