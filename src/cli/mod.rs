//! The command line: which subcommand, with which settings. One file per subcommand.

#![forbid(unsafe_code)]

pub mod banner;
pub mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError};

/// What the process is to do.
#[derive(Debug)]
pub enum Command {
    Serve(Box<Config>),
}

/// Why it does nothing. [`Stop::report`] says so.
#[derive(Debug)]
pub enum Stop {
    /// Help or version were asked for, or flags are wrong.
    Usage(clap::Error),
    Config(ConfigError),
}

#[derive(Parser)]
#[command(
    name = "ringlog",
    version,
    about = "A Kafka 3.9-compatible broker for Linux.",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    Serve(serve::ServeArguments),
}

/// Reads the arguments, the program's name first, and the files they name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Stop> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let Subcommands::Serve(serve) = Arguments::try_parse_from(&arguments).map_err(Stop::Usage)?.command;
    let serve = match &serve.flagfile {
        None => serve,
        Some(path) => {
            let flags = serve::read_flag_file(path)?;
            let Subcommands::Serve(merged) =
                Arguments::try_parse_from(with_flags(&arguments, flags)).map_err(Stop::Usage)?.command;
            merged
        }
    };
    Ok(Command::Serve(Box::new(Config::load(&serve.into_options())?)))
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
