//! The tools for people, one file per subcommand, and Kafka's own under their names: all that asks a broker, or nobody, and
//! reads none of its files. `ringlog`'s command line (`cli`) puts those that do beside them.
//!
//! A crate of its own, so that a change of the broker builds none of it again.

#![forbid(unsafe_code)]

mod admin;
pub mod arguments;
mod bench;
mod cluster;
mod config;
mod connect;
mod consume;
pub mod failure;
pub mod format;
mod interrupt;
pub mod kafka;
mod offsets;
pub mod output;
mod produce;
mod records;
pub mod table;
mod topic;
mod when;

use clap::{Args, Subcommand};

pub(crate) use ringlog_core::{base, client, protocol, record};

use connect::ConnectArguments;
use failure::Failure;

/// One tool and what it is to do.
#[derive(Subcommand, Debug)]
pub enum Tool {
    /// Create, list, describe, change and delete topics
    Topic(topic::TopicArguments),
    Produce(produce::ProduceArguments),
    Consume(consume::ConsumeArguments),
    /// Show and change settings
    Config(config::ConfigArguments),
    Offsets(offsets::OffsetsArguments),
    /// Delete the oldest records
    Records(records::RecordsArguments),
    /// Show the cluster and its brokers
    Cluster(cluster::ClusterArguments),
    /// Load a broker and measure it
    Bench(Box<bench::BenchArguments>),
}

/// Flags of every tool that asks a broker.
#[derive(Args, Clone, Debug)]
pub struct Common {
    #[command(flatten)]
    pub connect: ConnectArguments,

    /// Print JSON, with exact numbers and stable names, for scripts
    #[arg(long)]
    pub json: bool,
}

impl Tool {
    /// Does what it is to do.
    ///
    /// # Errors
    /// What to tell the person who called it, and the exit code.
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Tool::Topic(arguments) => topic::run(arguments),
            Tool::Produce(arguments) => produce::run(arguments),
            Tool::Consume(arguments) => consume::run(arguments),
            Tool::Config(arguments) => config::run(arguments),
            Tool::Offsets(arguments) => offsets::run(arguments),
            Tool::Records(arguments) => records::run(arguments),
            Tool::Cluster(arguments) => cluster::run(arguments),
            Tool::Bench(arguments) => bench::run(*arguments),
        }
    }
}
