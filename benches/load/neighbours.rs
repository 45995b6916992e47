//! Clients that do next to nothing, for others to be measured beside: idle ones, ones that send a byte a second of a frame
//! that never ends, and ones that send requests and never read an answer.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringlog::protocol::ApiKey;
use ringlog::protocol::header::{RequestHeader, begin_request, finish_frame};
use ringlog::protocol::message::api_versions::ApiVersionsRequest;

use crate::LoadError;

/// What slow clients announce: a frame of their own memory.
const SLOW_FRAME_BYTES: i32 = 1 << 20;
const TURN: Duration = Duration::from_secs(1);

#[derive(Args, Clone)]
pub struct Neighbours {
    #[arg(long)]
    address: SocketAddr,
    /// Connections on which one request is answered, and then nothing happens.
    #[arg(long, default_value_t = 0)]
    idle: usize,
    /// Connections that send a byte a second.
    #[arg(long, default_value_t = 0)]
    slow: usize,
    /// Connections that send requests as fast as they are taken, and read no answer.
    #[arg(long, default_value_t = 0)]
    deaf: usize,
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
}

/// Connects them all, says so in a line of JSON, and stays as long as it was told. A connection that the server closes is
/// made anew.
pub fn run(neighbours: &Neighbours) -> Result<String, LoadError> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let request = request()?;
    let idle: Vec<_> =
        (0..neighbours.idle).map(|_| connect_idle(neighbours.address, &request)).collect::<Result<_, _>>()?;
    let mut slow = Vec::new();
    for _ in 0..neighbours.slow {
        slow.push(connect_slow(neighbours.address)?);
    }
    let burst = request.repeat(64);
    let mut deaf = Vec::new();
    for _ in 0..neighbours.deaf {
        deaf.push(connect_deaf(neighbours.address, &burst)?);
    }
    println!("{}", serde_json::json!({ "idle": idle.len(), "slow": slow.len(), "deaf": deaf.len() }));
    let end = Instant::now() + Duration::try_from_secs_f64(neighbours.seconds).unwrap_or(Duration::MAX);
    let mut closed = 0;
    while Instant::now() < end {
        thread::sleep(TURN.min(end.saturating_duration_since(Instant::now())));
        for stream in &mut slow {
            if stream.write_all(&[0]).is_err() {
                closed += 1;
                *stream = connect_slow(neighbours.address)?;
            }
        }
        for stream in &mut deaf {
            if is_broken(stream.write(&burst)) {
                closed += 1;
                *stream = connect_deaf(neighbours.address, &burst)?;
            }
        }
    }
    Ok(serde_json::json!({ "closed": closed }).to_string())
}

/// An ApiVersions request, which any broker answers at once.
pub fn request() -> Result<Vec<u8>, LoadError> {
    let header =
        RequestHeader { api_key: ApiKey::ApiVersions.code(), api_version: 0, correlation_id: 1, client_id: None };
    let mut writer = begin_request(&header)?;
    ApiVersionsRequest::default().encode(&mut writer, 0)?;
    Ok(finish_frame(writer)?.to_vec())
}

fn connect_idle(address: SocketAddr, request: &[u8]) -> Result<TcpStream, LoadError> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request)?;
    std::io::Read::read(&mut stream, &mut [0; 4096])?;
    Ok(stream)
}

fn connect_slow(address: SocketAddr) -> Result<TcpStream, LoadError> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&SLOW_FRAME_BYTES.to_be_bytes())?;
    Ok(stream)
}

fn connect_deaf(address: SocketAddr, burst: &[u8]) -> Result<TcpStream, LoadError> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nonblocking(true)?;
    while let Ok(1..) = stream.write(burst) {}
    Ok(stream)
}

fn is_broken(written: std::io::Result<usize>) -> bool {
    written.is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
}
