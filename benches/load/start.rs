//! How long a broker takes from exec to its first answer on an empty directory, and what is resident then.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::LoadError;
use crate::neighbours::request;

/// What a broker does behind its first answer is over then.
const REST: Duration = Duration::from_secs(2);

#[derive(Args, Clone)]
pub struct Start {
    /// The ringlog to start.
    #[arg(long)]
    program: PathBuf,
    /// A directory in which each start gets one of its own.
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, default_value_t = 15)]
    runs: usize,
    #[arg(long, default_value_t = 2)]
    shards: usize,
}

/// A line of JSON for each start.
pub fn run(start: &Start) -> Result<String, LoadError> {
    let request = request()?;
    let mut lines = Vec::new();
    for number in 0..start.runs {
        lines.push(one(start, &start.dir.join(number.to_string()), &request)?);
    }
    Ok(lines.join("\n"))
}

fn one(start: &Start, directory: &std::path::Path, request: &[u8]) -> Result<String, LoadError> {
    let begun = Instant::now();
    let mut child = Command::new(&start.program)
        .args(["serve", "--set", "listeners=PLAINTEXT://127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--shards", &start.shards.to_string()])
        .arg("--data")
        .arg(directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let measured = first_answer(&mut child, request).and_then(|_output| {
        let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
        std::thread::sleep(REST);
        Ok((milliseconds, resident_kb(child.id())?))
    });
    let pid = i32::try_from(child.id()).map(Pid::from_raw).map_err(|_| LoadError::Answer("a process id"))?;
    kill(pid, Signal::SIGTERM)?;
    child.wait()?;
    let (milliseconds, resident_kb) = measured?;
    Ok(serde_json::json!({ "milliseconds": milliseconds, "resident_kb": resident_kb }).to_string())
}

/// The banner says the address; a request on it is answered. Gives the output back: it must stay open.
fn first_answer(child: &mut Child, request: &[u8]) -> Result<impl Read + use<>, LoadError> {
    let output = child.stdout.take().ok_or(LoadError::Answer("no output of the broker"))?;
    let mut output = BufReader::new(output);
    let mut line = String::new();
    while output.read_line(&mut line)? > 0 {
        if let Some((_, address)) = line.split_once("PLAINTEXT://") {
            let no_address = |_| LoadError::Answer("an address that is none");
            let mut stream = TcpStream::connect(address.trim().parse::<SocketAddr>().map_err(no_address)?)?;
            stream.write_all(request)?;
            stream.read_exact(&mut [0; 8])?;
            return Ok(output);
        }
        line.clear();
    }
    Err(LoadError::Answer("the broker ended without saying its address"))
}

fn resident_kb(process: u32) -> Result<u64, LoadError> {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|kb| kb.parse().ok());
    number.ok_or(LoadError::Answer("/proc/PID/smaps_rollup is not as proc(5) says"))
}
