//! One file per kernel operation: each builds its entry and says what it owns meanwhile.

pub mod accept;
pub mod poll;
pub mod read;
pub mod receive;
pub mod send;
pub mod write;
