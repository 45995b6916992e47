//! The command line: which subcommand, with which settings. Here are those that run the broker, know its flags or read its
//! files, one file each; `ringlog-tools` has those that ask a broker.

#![forbid(unsafe_code)]

pub mod banner;
mod completions;
mod dump_log;
mod log;
pub mod serve;
mod tune;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ringlog_tools::failure::Failure;
use ringlog_tools::{Tool, kafka};

use crate::config::{Config, ConfigError};

/// What the process is to do.
#[derive(Debug)]
pub enum Command {
    Serve(Box<Config>),
    /// A tool that asks brokers, or nobody.
    Tool(Box<Other>),
}

/// Why it does nothing. [`Stop::report`] says so.
#[derive(Debug)]
pub enum Stop {
    /// Help or version were asked for, or flags are wrong.
    Usage(clap::Error),
    /// The same of a tool that ends as Kafka's do.
    KafkaUsage(clap::Error),
    Config(ConfigError),
}

const FIRST_STEPS: &str = "\
First steps:
  ringlog serve --data ./data                  a broker at 127.0.0.1:9092
  ringlog topic create orders --partitions 3   in another terminal
  echo hello | ringlog produce orders
  ringlog consume orders

Each command has examples: 'ringlog topic --help'. Tools find a broker elsewhere by -b HOST:PORT, or by \
RINGLOG_BOOTSTRAP_SERVER.";

#[derive(Parser)]
#[command(
    name = "ringlog",
    version,
    about = "A Kafka 3.9-compatible broker for Linux.",
    disable_help_subcommand = true,
    after_help = FIRST_STEPS
)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    Serve(Box<serve::ServeArguments>),
    #[command(flatten)]
    Other(Box<Other>),
}

/// All but the broker.
#[derive(Subcommand, Debug)]
pub enum Other {
    #[command(flatten)]
    Tool(Tool),
    /// Look into the files of a log directory, without a broker
    Log(log::LogArguments),
    /// Check this machine, and write flags that fit it, without a broker
    Tune(tune::TuneArguments),
    /// Kafka's own tools, with their flags and what they print; scripts/kafka-*.sh call them
    #[command(hide = true)]
    Kafka(Box<KafkaArguments>),
    /// Print what makes a shell complete these commands
    Completions(completions::CompletionsArguments),
}

#[derive(Args, Debug)]
#[command(version = kafka::VERSION, propagate_version = true)]
pub struct KafkaArguments {
    #[command(subcommand)]
    tool: KafkaSubcommands,
}

#[derive(Subcommand, Debug)]
enum KafkaSubcommands {
    #[command(flatten)]
    Asking(Box<kafka::KafkaTool>),
    #[command(arg_required_else_help = true)]
    DumpLog(dump_log::DumpLogArguments),
}

impl Other {
    /// Does what it is to do, and tells the person who called it.
    pub fn run(self) -> ExitCode {
        let done = match self {
            Other::Tool(tool) => tool.run(),
            Other::Log(arguments) => log::run(arguments),
            Other::Tune(arguments) => tune::run(arguments),
            Other::Kafka(arguments) => match arguments.tool {
                KafkaSubcommands::Asking(tool) => tool.run(),
                KafkaSubcommands::DumpLog(arguments) => dump_log::run(&arguments).map_err(kafka::as_kafkas),
            },
            Other::Completions(arguments) => completions::run(&arguments),
        };
        done.map_or_else(|failure: Failure| failure.report(), |()| ExitCode::SUCCESS)
    }
}

/// Reads the arguments, the program's name first, and the files they name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Stop> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let is_kafkas = arguments.get(1).is_some_and(|name| name == "kafka");
    let usage = if is_kafkas { Stop::KafkaUsage } else { Stop::Usage };
    let mut command = Arguments::try_parse_from(&arguments).map_err(usage)?.command;
    if let Subcommands::Serve(serve) = &command
        && let Some(path) = &serve.flagfile
    {
        let flags = serve::read_flag_file(path)?;
        command = Arguments::try_parse_from(with_flags(&arguments, flags)).map_err(Stop::Usage)?.command;
    }
    match command {
        Subcommands::Serve(serve) => Ok(Command::Serve(Box::new(Config::load(&serve.into_options())?))),
        Subcommands::Other(tool) => Ok(Command::Tool(tool)),
    }
}

/// Reads the settings of the broker that this process runs again, from where it was told at its start.
pub fn reread() -> Result<Config, String> {
    match parse(std::env::args_os()) {
        Ok(Command::Serve(config)) => Ok(*config),
        Ok(Command::Tool(_)) => unreachable!("a process's arguments stay as they are"),
        Err(Stop::Usage(error) | Stop::KafkaUsage(error)) => Err(error.render().to_string().trim_end().to_owned()),
        Err(Stop::Config(error)) => Err(error.to_string()),
    }
}

/// The arguments with `flags` before those of the subcommand, so that the command line wins.
fn with_flags(arguments: &[OsString], flags: Vec<String>) -> Vec<OsString> {
    let (program, rest) = arguments.split_at(arguments.len().min(2));
    program.iter().cloned().chain(flags.into_iter().map(OsString::from)).chain(rest.iter().cloned()).collect()
}

impl Stop {
    /// Tells the operator; the exit code is 2 for what they wrote, 1 for what failed, 0 for help.
    pub fn report(&self) -> ExitCode {
        match self {
            Stop::Usage(error) => {
                // Nobody is left to tell if the terminal is gone.
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
            }
            Stop::KafkaUsage(error) => kafka::report_usage(error),
            Stop::Config(error) => {
                eprintln!("ringlog: {error}");
                ExitCode::from(error.exit_code())
            }
        }
    }
}

impl From<ConfigError> for Stop {
    fn from(error: ConfigError) -> Stop {
        Stop::Config(error)
    }
}

#[cfg(test)]
mod tests;
