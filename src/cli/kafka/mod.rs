//! Kafka's tools under Kafka's names: their flags, what they print, their exit codes, as in Kafka 3.9. `scripts/kafka-*.sh`
//! call them, so that what an operator has written for Kafka goes on working. One file per tool.

#![forbid(unsafe_code)]

mod dump_log;

use clap::{Args, Subcommand};

use super::failure::Failure;

#[derive(Args, Debug)]
pub struct KafkaArguments {
    #[command(subcommand)]
    tool: KafkaTool,
}

#[derive(Subcommand, Debug)]
enum KafkaTool {
    DumpLog(dump_log::DumpLogArguments),
}

pub fn run(arguments: KafkaArguments) -> Result<(), Failure> {
    match arguments.tool {
        KafkaTool::DumpLog(arguments) => dump_log::run(&arguments),
    }
}
