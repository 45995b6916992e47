//! What the tools for people have in common: which there are, what all of them take, how they end.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::connect::ConnectArguments;
use super::failure::Failure;
use super::{bench, cluster, completions, config, consume, kafka, log, offsets, produce, records, topic, tune};

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
    /// Look into the files of a log directory, without a broker
    Log(log::LogArguments),
    /// Check this machine, and write flags that fit it, without a broker
    Tune(tune::TuneArguments),
    /// Kafka's own tools, with their flags and what they print; scripts/kafka-*.sh call them
    #[command(hide = true)]
    Kafka(Box<kafka::KafkaArguments>),
    /// Print what makes a shell complete these commands
    Completions(completions::CompletionsArguments),
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
    pub fn run(self) -> ExitCode {
        let done = match self {
            Tool::Topic(arguments) => topic::run(arguments),
            Tool::Produce(arguments) => produce::run(arguments),
            Tool::Consume(arguments) => consume::run(arguments),
            Tool::Config(arguments) => config::run(arguments),
            Tool::Offsets(arguments) => offsets::run(arguments),
            Tool::Records(arguments) => records::run(arguments),
            Tool::Cluster(arguments) => cluster::run(arguments),
            Tool::Bench(arguments) => bench::run(*arguments),
            Tool::Log(arguments) => log::run(arguments),
            Tool::Tune(arguments) => tune::run(arguments),
            Tool::Kafka(arguments) => kafka::run(*arguments),
            Tool::Completions(arguments) => completions::run(&arguments),
        };
        done.map_or_else(|failure: Failure| failure.report(), |()| ExitCode::SUCCESS)
    }
}
