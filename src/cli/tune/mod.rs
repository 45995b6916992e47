//! `ringlog tune check|write-flags`: whether this machine is set up for a broker, and flags that fit it. No broker is
//! asked, nothing of the machine is changed, and no special rights are needed.

#![forbid(unsafe_code)]

mod checks;
mod flags;
mod machine;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use checks::{Check, State};
use machine::Machine;
use ringlog_tools::failure::{EXIT_CODES, Failure, reason};
use ringlog_tools::output::Output;
use ringlog_tools::table::{Column, Table};

const CHECK_EXAMPLES: &str = "\
Examples:
  ringlog tune check
  ringlog tune check --data /var/lib/ringlog
  ringlog tune check --json | jq '.checks[] | select(.state != \"ok\")'

ok: nothing to do. advice: it works, and would work better. problem: it does not work, or loses data; the exit code
is 1 then.";

const WRITE_FLAGS_EXAMPLES: &str = "\
Examples:
  ringlog tune write-flags --data /var/lib/ringlog -o /etc/ringlog/ringlog.flags
  ringlog serve --flagfile /etc/ringlog/ringlog.flags";

#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct TuneArguments {
    #[command(subcommand)]
    command: TuneCommand,
}

#[derive(Subcommand, Debug)]
enum TuneCommand {
    Check(CheckArguments),
    WriteFlags(WriteFlagsArguments),
}

/// Look at kernel, disk, memory and limits: what is, what should be, why, and the command
#[derive(Args, Debug)]
#[command(after_help = CHECK_EXAMPLES)]
struct CheckArguments {
    /// The data directory, or where it is to be
    #[arg(long, value_name = "DIR", default_value = "./ringlog-data")]
    data: PathBuf,

    /// Print JSON, with stable names, for scripts
    #[arg(long)]
    json: bool,
}

/// Write a flag file that fits this machine, with the reason beside each flag
#[derive(Args, Debug)]
#[command(after_help = WRITE_FLAGS_EXAMPLES)]
struct WriteFlagsArguments {
    /// The data directory, or where it is to be
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Where to write; a file that is there already stays as it is [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(arguments: TuneArguments) -> Result<(), Failure> {
    match arguments.command {
        TuneCommand::Check(arguments) => check(&arguments),
        TuneCommand::WriteFlags(arguments) => write_flags(&arguments),
    }
}

fn check(arguments: &CheckArguments) -> Result<(), Failure> {
    let checks = checks::all(&Machine::this(&arguments.data));
    let mut out = Output::new()?;
    match arguments.json {
        true => out.json(&json!({ "checks": checks.iter().map(Check::json).collect::<Vec<_>>() }))?,
        false => print(&mut out, &checks)?,
    }
    out.finish()?;
    match checks.iter().filter(|check| check.state == State::Problem).count() {
        0 => Ok(()),
        1 => Err(Failure::Refused("one problem keeps a broker from working here".to_owned())),
        count => Err(Failure::Refused(format!("{count} problems keep a broker from working here"))),
    }
}

fn print(out: &mut Output, checks: &[Check]) -> Result<(), Failure> {
    let columns = [Column::Text("CHECK"), Column::Text("NOW"), Column::Text("WANTED"), Column::Text("STATE")];
    let mut table = Table::new(&columns);
    for check in checks {
        let Check { name, now, wanted, state, .. } = check;
        table.row(vec![(*name).to_owned(), now.clone(), wanted.clone(), state.name().to_owned()]);
    }
    out.table(&table)?;
    for check in checks.iter().filter(|check| check.state != State::Ok) {
        out.line("")?;
        out.line(&format!("{}: {}", check.name, check.why))?;
        for line in check.command.iter().flat_map(|command| command.lines()) {
            out.line(&format!("    {line}"))?;
        }
    }
    Ok(())
}

fn write_flags(arguments: &WriteFlagsArguments) -> Result<(), Failure> {
    let machine = Machine::this(arguments.data.as_deref().unwrap_or(Path::new("./ringlog-data")));
    let text = flags::text(&machine, arguments.data.as_deref());
    let Some(path) = &arguments.output else {
        let mut out = Output::new()?;
        out.text(&text)?;
        return out.finish();
    };
    let written = File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        Failure::Refused(match error.kind() {
            io::ErrorKind::AlreadyExists => {
                format!("{} is there already; remove it, or choose another name", path.display())
            }
            _ => format!("{} can't be written: {}", path.display(), reason(&error)),
        })
    })
}

#[cfg(test)]
mod tests;
