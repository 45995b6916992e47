//! What the cluster has agreed on: the tree that keeps it, its paths and values, the inputs by which a broker learns of
//! it, and the immutable images that shards read. No partitions, no sockets: this module publishes, shards act.

#![forbid(unsafe_code)]

pub mod behind;
pub mod config_follower;
pub mod embedded;
pub mod image;
pub mod inputs;
pub mod membership;
pub mod node;
pub mod placement;
pub mod proposal;
pub mod publisher;
pub mod requests;
pub mod shared_map;
pub mod thread;
pub mod tree;
pub mod znodes;
