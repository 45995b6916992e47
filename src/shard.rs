//! A shard: one thread, one ring, its connections and its partitions.

pub mod run;
