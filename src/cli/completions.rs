//! `ringlog completions`: what a shell needs to complete our command lines.

#![forbid(unsafe_code)]

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use ringlog_tools::failure::Failure;
use ringlog_tools::output::Output;

const EXAMPLES: &str = "\
Examples:
  ringlog completions bash > ~/.local/share/bash-completion/completions/ringlog
  ringlog completions zsh > ~/.zfunc/_ringlog
  ringlog completions fish > ~/.config/fish/completions/ringlog.fish";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArguments {
    shell: Shell,
}

pub fn run(arguments: &CompletionsArguments) -> Result<(), Failure> {
    let mut out = Output::new()?;
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "ringlog", out.buffer());
    out.finish()
}
