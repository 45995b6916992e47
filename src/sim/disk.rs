//! `FakeDisk`: see the next commit.
#![forbid(unsafe_code)]
