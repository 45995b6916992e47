//! The small text files of a log directory, replaced atomically.
#![forbid(unsafe_code)]
