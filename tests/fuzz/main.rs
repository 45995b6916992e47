//! Fuzz bodies of every decoder, fed with mutations of a saved corpus: bytes of a peer or of a disk may be refused, never
//! cause a panic, a loop without an end or memory out of proportion.
//!
//! Each target gets `INPUTS` inputs, or as many as fit into `SECONDS_MAX`. `RINGLOG_SEED=N` begins at another seed and
//! `RINGLOG_FUZZ_SECONDS=N` goes on for so long (`scripts/fuzz`). A finding prints the line that repeats it.
//!
//! The corpus is what Kafka itself wrote (`tests/golden`) and, where there is nothing of that, `tests/corpus/<target>/`.

mod corpus;
mod files;
mod harness;
mod memory;
mod messages;
mod records;
mod recovery;
