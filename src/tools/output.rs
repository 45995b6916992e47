//! Standard output: buffered here, written whole, and never a panic when its reader has gone.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use nix::libc::{S_IFIFO, S_IFMT};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use super::failure::Failure;
use super::interrupt::Interrupt;
use super::table::{Table, output_width};

/// What is gathered before it is written to a file or a pipe.
const BUFFER_BYTES: usize = 256 << 10;

/// A pipe that is ready takes this much without making us wait (`PIPE_BUF`).
const PIPE_BYTES: usize = 4096;

/// See the head of this file.
pub struct Output {
    stdout: File,
    is_pipe: bool,
    is_terminal: bool,
    buffer: Vec<u8>,
}

impl Output {
    pub fn new() -> Result<Output, Failure> {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let owned = stdout.as_fd().try_clone_to_owned().map_err(|error| Failure::of_output(&error))?;
        let is_pipe = nix::sys::stat::fstat(&owned).is_ok_and(|stat| stat.st_mode & S_IFMT == S_IFIFO);
        Ok(Output { stdout: File::from(owned), is_pipe, is_terminal, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Where to write; see [`Output::spill`].
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Writes if enough has gathered.
    pub fn spill(&mut self, interrupt: Option<&Interrupt>) -> Result<(), Failure> {
        match self.buffer.len() >= BUFFER_BYTES {
            true => self.flush(interrupt),
            false => Ok(()),
        }
    }

    /// Writes all that has gathered. With `interrupt`, a Ctrl-C ends the wait for a pipe's slow reader.
    pub fn flush(&mut self, interrupt: Option<&Interrupt>) -> Result<(), Failure> {
        let written = match interrupt {
            Some(interrupt) if self.is_pipe => self.write_in_steps(interrupt),
            _ => self.stdout.write_all(&self.buffer).map_err(|error| Failure::of_output(&error)),
        };
        self.buffer.clear();
        written
    }

    fn write_in_steps(&self, interrupt: &Interrupt) -> Result<(), Failure> {
        for step in self.buffer.chunks(PIPE_BYTES) {
            let mut waits = [
                PollFd::new(self.stdout.as_fd(), PollFlags::POLLOUT),
                PollFd::new(interrupt.as_fd(), PollFlags::POLLIN),
            ];
            // A failed or interrupted wait only makes the write wait.
            let _ = poll(&mut waits, PollTimeout::NONE);
            if waits[0].revents().is_none_or(|ready| ready.is_empty()) && interrupt.is_pending() {
                return Err(Failure::Interrupted);
            }
            (&self.stdout).write_all(step).map_err(|error| Failure::of_output(&error))?;
        }
        Ok(())
    }

    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.buffer.extend_from_slice(text.as_bytes());
        self.spill(None)
    }

    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.text(line)?;
        self.text("\n")
    }

    pub fn table(&mut self, table: &Table) -> Result<(), Failure> {
        self.text(&table.text(output_width()))
    }

    pub fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(&value.to_string())
    }

    /// The end of what a tool has to say.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.flush(None)
    }
}
