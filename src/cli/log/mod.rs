//! `ringlog log dump|verify`: what stands in the files of a log directory. No broker is asked, and nothing is written; a
//! broker may be running on the directory.

#![forbid(unsafe_code)]

mod dump;
pub(super) mod files;
mod verify;

use clap::{Args, Subcommand};

use ringlog_tools::failure::{EXIT_CODES, Failure};

#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct LogArguments {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Subcommand, Debug)]
enum LogCommand {
    Dump(dump::DumpArguments),
    Verify(verify::VerifyArguments),
}

pub fn run(arguments: LogArguments) -> Result<(), Failure> {
    match arguments.command {
        LogCommand::Dump(arguments) => dump::run(&arguments),
        LogCommand::Verify(arguments) => verify::run(&arguments),
    }
}
