pub mod base;
pub mod platform;
