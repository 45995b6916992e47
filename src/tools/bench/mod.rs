//! `ringlog bench`: load a broker, measure it, and check what it gives back.
//!
//! ```text
//! arguments ─> settings ─> load: topic, threads ─> produce, consume: a client each, on driver (tokio-uring)
//!                            │                        │ pace: when records are due    payload: what they hold
//!                            │ <── interval a second ──┘ measure: what is counted      check: what is read
//!                            └─> live, hdr while it runs; figures, report at the end
//! ```
//! Beside a producer stand its `transaction`s, which all clients of a thread share, and on each connection a `throttle`.
//! Works against any broker from Kafka 0.11 on: each connection takes the versions that the broker lists.

#![forbid(unsafe_code)]

pub(crate) mod arguments;
mod check;
pub(crate) mod civil;
mod compare;
mod consume;
mod driver;
pub(crate) mod failures;
mod figures;
mod hdr;
mod live;
pub(crate) mod load;
pub(crate) mod measure;
mod pace;
pub(crate) mod payload;
mod process;
mod produce;
mod report;
pub(crate) mod settings;
mod shared;
mod throttle;
mod topic;
mod transaction;

use std::path::Path;

pub use arguments::BenchArguments;
use arguments::OutputArguments;
use figures::{Row, Summary};
use hdr::HdrLog;
use live::Live;
use load::{Event, Outcome};
use process::Machine;

use crate::failure::Failure;
use crate::output::Output;
use crate::table::output_width;

/// Runs, shows, writes.
pub fn run(arguments: BenchArguments) -> Result<(), Failure> {
    let (settings, output) = arguments.mode.into_settings()?;
    let mode = settings.mode;
    let mut live = Live::new(output.quiet, mode);
    let mut log = output.hdr.as_deref().map(HdrLog::create).transpose()?;
    let earlier = output.compare.iter().map(|path| compare::read(path)).collect::<Result<Vec<_>, _>>()?;
    // A name that can't be written is to be known before the run, not after.
    if let Some(path) = &output.report {
        let opened = std::fs::File::options().append(true).create(true).open(path);
        opened.map_err(|error| failures::file(path, &error))?;
    }
    let (mut rows, mut start_wall_ns, mut warm_up_ns) = (Vec::new(), 0, 0);
    let ran = load::run(&settings, &mut |event| {
        match event {
            Event::Begins { run, clock } => (start_wall_ns, warm_up_ns) = (clock.start_wall_ns, run.warm_up_ns()),
            Event::Second(interval) => {
                live.second(interval);
                rows.extend(Row::new(mode, interval, warm_up_ns));
                if let Some(log) = &mut log {
                    log.add(mode, start_wall_ns, interval)?;
                }
            }
        }
        Ok(())
    });
    live.end();
    let outcome = ran?;
    log.map_or(Ok(()), HdrLog::finish)?;
    let rows = rows.into_iter().filter_map(|row| row.until(outcome.seconds)).collect();
    let summary = Summary { settings: &settings, outcome: &outcome, machine: Machine::this(), rows, earlier };
    show(&summary, &output)?;
    conclude(&outcome)
}

fn show(summary: &Summary<'_>, output: &OutputArguments) -> Result<(), Failure> {
    if let Some(path) = &output.report {
        write(path, &report::page(summary).map_err(Failure::Refused)?)?;
    }
    let mut out = Output::new()?;
    match output.json {
        true => out.json(&summary.json())?,
        false => out.text(&summary.text(output_width()))?,
    }
    out.finish()
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| failures::file(path, &error))
}

/// How the process ends.
fn conclude(outcome: &Outcome) -> Result<(), Failure> {
    if outcome.missing > 0 || outcome.findings.as_ref().is_some_and(|findings| !findings.is_sound()) {
        return Err(Failure::Refused("what was read is not what was written; see the summary".to_owned()));
    }
    if outcome.interrupted { Err(Failure::Interrupted) } else { Ok(()) }
}

#[cfg(test)]
pub(crate) mod tests;
