//! Followers: what they make of their leaders' answers.

#![forbid(unsafe_code)]

pub mod truncation;
