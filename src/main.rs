//! Flags -> settings -> broker, or a tool -> exit code.

use std::process::ExitCode;

use ringlog::broker;
use ringlog::cli::{self, Command};

/// Received chunks are given away and replaced all the time, often on other threads: the system's allocator gives such
/// memory back to the kernel and faults it in again (tuning.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A shard that died alone would leave its clients hanging: a bug stops the process, in every profile.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    match cli::parse(std::env::args_os()) {
        Ok(Command::Serve(config)) => broker::run(*config, cli::reread),
        Ok(Command::Tool(tool)) => tool.run(),
        Err(stop) => stop.report(),
    }
}
