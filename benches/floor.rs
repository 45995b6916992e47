//! The floors: what the protocol makes unavoidable, and nothing else.
//!
//! `floor produce` takes Produce frames, checks each batch's CRC-32C, stamps its base offset, appends it to a file and
//! answers. `floor fetch` takes Fetch frames and answers each with a header and `sendfile` of the range asked for. One thread, one
//! epoll; a broker's cost is measured as a multiple of these (`scripts/bench-produce`, `scripts/bench-fetch`), so what
//! is slow here flatters the broker: `tuning.md` lists the forms that were tried.
//!
//! Sockets are edge triggered in both directions, so that no call but the work's own is made: a read that leaves room in
//! the buffer has drained the socket.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use ringlog::protocol::frame::{FRAME_PREFIX_BYTES, frame_length};
use ringlog::protocol::{Reader, WireError};
use ringlog::record::batch::{BatchHeader, has_valid_crc, stamp};
use ringlog::sys;

/// The one version of each request that is understood; `load` sends it.
const PRODUCE_VERSION: i16 = 11;
const FETCH_VERSION: i16 = 11;

/// Room for what one connection has in flight: eight frames of 16 KiB, and the frame that is cut by the end.
const RECEIVE_BYTES: usize = 512 * 1024;
/// Below this much room behind the last byte, a frame cut short moves to the front.
const RECEIVE_ROOM_MIN: usize = 160 * 1024;
const CONNECTIONS_MAX: usize = 2048;
const EVENTS_MAX: usize = 256;
/// Batches written by one call; more frames in one receive take another.
const BATCHES_PER_WRITE_MAX: usize = 64;
/// Blocks are reserved in such steps, when less than this is left.
const RESERVE_STEP_BYTES: u64 = 64 << 20;
const RESERVE_AHEAD_BYTES: u64 = 2 << 20;

#[derive(Parser)]
#[command(about = "The least that a broker's produce and fetch can cost.")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check, append, answer.
    Produce {
        #[arg(long)]
        port: u16,
        /// Created anew.
        #[arg(long)]
        file: PathBuf,
        /// The file starts over once it is this long.
        #[arg(long, default_value_t = 8 << 30)]
        file_bytes_max: u64,
    },
    /// Send ranges of a log segment.
    Fetch {
        #[arg(long)]
        port: u16,
        /// A log segment; read once at the start, so that it is in the page cache.
        #[arg(long)]
        file: PathBuf,
    },
}

#[derive(Debug, thiserror::Error)]
enum FloorError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    System(#[from] nix::Error),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Peer(&'static str),
}

fn main() -> Result<(), FloorError> {
    match Options::parse().command {
        Command::Produce { port, file, file_bytes_max } => serve(port, Append::create(&file, file_bytes_max)?),
        Command::Fetch { port, file } => serve(port, Segment::open(&file)?),
    }
}

/// One of the two programs.
trait Work {
    /// Does what the frames that lie whole in `received` ask for, and answers; returns how many bytes they take.
    fn run(&mut self, received: &mut [u8], answers: &mut Answers) -> Result<usize, FloorError>;

    /// The file that ranges of answers are sent from.
    fn file(&self) -> &File;
}

/// What leaves one connection: bytes, then a range of the file.
#[derive(Default)]
struct Answers {
    bytes: Vec<u8>,
    position: u64,
    length: usize,
}

impl Answers {
    /// Sends until all is sent or the socket is full.
    fn send(&mut self, socket: &TcpStream, file: &File) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.bytes.len() {
            match sys::send_now(socket.as_fd(), &self.bytes[sent..], self.length > 0) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.bytes.drain(..sent);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        while self.length > 0 {
            match sys::sendfile(socket.as_fd(), file.as_fd(), self.position, self.length) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.position += count as u64;
                    self.length -= count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.length == 0
    }
}

struct Connection {
    socket: TcpStream,
    received: Vec<u8>,
    start: usize,
    end: usize,
    answers: Answers,
}

impl Connection {
    fn new(socket: TcpStream) -> io::Result<Connection> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Connection { socket, received: vec![0; RECEIVE_BYTES], start: 0, end: 0, answers: Answers::default() })
    }

    /// Goes on until there is nothing to read or no room to send; false at the end of the stream.
    fn turn(&mut self, work: &mut impl Work) -> Result<bool, FloorError> {
        self.answers.send(&self.socket, work.file())?;
        loop {
            // A full socket: what the peer asks next can wait until it takes its answers.
            if !self.answers.is_empty() {
                return Ok(true);
            }
            let drained = match self.socket.read(&mut self.received[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.end += count;
                    self.end < self.received.len()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error.into()),
            };
            loop {
                let taken = work.run(&mut self.received[self.start..self.end], &mut self.answers)?;
                self.answers.send(&self.socket, work.file())?;
                self.start += taken;
                if taken == 0 || !self.answers.is_empty() {
                    break;
                }
            }
            self.make_room();
            if drained && self.answers.is_empty() {
                return Ok(true);
            }
        }
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.received.len() - self.end < RECEIVE_ROOM_MIN {
            self.received.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }
}

fn serve(port: u16, mut work: impl Work) -> Result<(), FloorError> {
    const LISTENER: u64 = u64::MAX;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("listening on {}", listener.local_addr()?);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = [EpollEvent::empty(); EVENTS_MAX];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::Error::EINTR) => continue,
            other => other?,
        };
        for event in &events[..count] {
            if event.data() == LISTENER {
                let (socket, _) = listener.accept()?;
                accept(&epoll, socket, &mut connections)?;
                continue;
            }
            let place = &mut connections[event.data() as usize];
            let Some(connection) = place else { continue };
            match connection.turn(&mut work) {
                Ok(true) => {}
                Ok(false) => *place = None,
                Err(error) => {
                    eprintln!("connection closed: {error}");
                    *place = None;
                }
            }
        }
    }
}

fn accept(epoll: &Epoll, socket: TcpStream, connections: &mut Vec<Option<Connection>>) -> Result<(), FloorError> {
    let free = connections.iter().position(Option::is_none).unwrap_or(connections.len());
    if free == CONNECTIONS_MAX {
        return Ok(());
    }
    let connection = Connection::new(socket)?;
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    epoll.add(&connection.socket, EpollEvent::new(flags, free as u64))?;
    if free == connections.len() {
        connections.push(None);
    }
    connections[free] = Some(connection);
    Ok(())
}

/// Bytes of the frame at the front, its size among them; `None`: not whole yet.
fn whole_frame(bytes: &[u8]) -> Result<Option<usize>, FloorError> {
    let Some(prefix) = bytes.first_chunk::<FRAME_PREFIX_BYTES>() else { return Ok(None) };
    let limit = RECEIVE_ROOM_MIN - FRAME_PREFIX_BYTES;
    let length = frame_length(*prefix, limit).map_err(|_| FloorError::Peer("a frame larger than the buffer"))?;
    let end = FRAME_PREFIX_BYTES + length;
    Ok((end <= bytes.len()).then_some(end))
}

/// Leaves the reader behind the request's header, and gives the correlation id.
fn read_header(reader: &mut Reader<'_>, version: i16, flexible: bool) -> Result<i32, FloorError> {
    reader.i16()?;
    if reader.i16()? != version {
        return Err(FloorError::Peer("a version that the floor does not speak"));
    }
    let correlation_id = reader.i32()?;
    reader.nullable_string(false)?;
    if flexible {
        reader.skip_tagged_fields()?;
    }
    Ok(correlation_id)
}

/// The file that batches are appended to.
struct Append {
    file: File,
    position: u64,
    file_bytes_max: u64,
    next_offset: i64,
    /// Blocks are reserved up to here.
    reserved: u64,
}

impl Append {
    fn create(path: &PathBuf, file_bytes_max: u64) -> io::Result<Append> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Append { file, position: 0, file_bytes_max, next_offset: 0, reserved: 0 })
    }

    fn write(&mut self, mut batches: &mut [IoSlice<'_>]) -> io::Result<()> {
        if self.position >= self.file_bytes_max {
            self.position = 0;
        }
        if self.position + RESERVE_AHEAD_BYTES > self.reserved {
            // A file system without it writes all the same.
            let _ = sys::preallocate(self.file.as_fd(), self.reserved, RESERVE_STEP_BYTES);
            self.reserved += RESERVE_STEP_BYTES;
        }
        while !batches.is_empty() {
            let count = sys::pwritev(self.file.as_fd(), batches, self.position)?;
            self.position += count as u64;
            IoSlice::advance_slices(&mut batches, count);
        }
        Ok(())
    }
}

impl Work for Append {
    fn run(&mut self, received: &mut [u8], answers: &mut Answers) -> Result<usize, FloorError> {
        let mut batches = [IoSlice::new(&[]); BATCHES_PER_WRITE_MAX];
        let (mut count, mut taken) = (0, 0);
        let mut rest = received;
        while count < BATCHES_PER_WRITE_MAX
            && let Some(length) = whole_frame(rest)?
        {
            let (frame, after) = rest.split_at_mut(length);
            rest = after;
            batches[count] = IoSlice::new(self.take_batch(&mut frame[FRAME_PREFIX_BYTES..], &mut answers.bytes)?);
            count += 1;
            taken += length;
        }
        if count > 0 {
            self.write(&mut batches[..count])?;
        }
        Ok(taken)
    }

    fn file(&self) -> &File {
        &self.file
    }
}

impl Append {
    /// Reads a Produce request of one batch, checks and stamps that, and writes the answer.
    fn take_batch<'a>(&mut self, frame: &'a mut [u8], answer: &mut Vec<u8>) -> Result<&'a [u8], FloorError> {
        let mut reader = Reader::new(frame);
        let correlation_id = read_header(&mut reader, PRODUCE_VERSION, true)?;
        reader.nullable_string(true)?;
        let _acks = reader.i16()?;
        let _timeout_ms = reader.i32()?;
        let topics = reader.array_count::<[u8; 3]>(true, 3)?;
        let topic = reader.string(true)?;
        let partitions = reader.array_count::<[u8; 6]>(true, 6)?;
        let partition = reader.i32()?;
        let batch = reader.nullable_bytes(true)?.unwrap_or_default();
        let range = reader.position() - batch.len()..reader.position();
        if (topics, partitions) != (1, 1) {
            return Err(FloorError::Peer("not one partition"));
        }
        let header = BatchHeader::parse(batch).map_err(|_| FloorError::Peer("not a batch"))?;
        if !has_valid_crc(batch) {
            return Err(FloorError::Peer("a wrong CRC"));
        }
        let base_offset = self.next_offset;
        self.next_offset += i64::from(header.last_offset_delta) + 1;
        put_produce_answer(answer, correlation_id, &topic, partition, base_offset);
        stamp(&mut frame[range.clone()], base_offset, 0);
        Ok(&frame[range])
    }
}

fn put_produce_answer(answer: &mut Vec<u8>, correlation_id: i32, topic: &str, partition: i32, base_offset: i64) {
    let start = answer.len();
    answer.extend_from_slice(&[0; FRAME_PREFIX_BYTES]);
    answer.extend_from_slice(&correlation_id.to_be_bytes());
    // No tags; one topic, its name (shorter than 127 bytes, or the client fails to read this), one partition.
    answer.extend_from_slice(&[0, 2, topic.len() as u8 + 1]);
    answer.extend_from_slice(topic.as_bytes());
    answer.push(2);
    answer.extend_from_slice(&partition.to_be_bytes());
    answer.extend_from_slice(&0_i16.to_be_bytes());
    answer.extend_from_slice(&base_offset.to_be_bytes());
    answer.extend_from_slice(&(-1_i64).to_be_bytes());
    answer.extend_from_slice(&0_i64.to_be_bytes());
    // No record errors, a null message, no tags of partition and topic; throttle time; no tags.
    answer.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let length = (answer.len() - start - FRAME_PREFIX_BYTES) as i32;
    answer[start..start + FRAME_PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// A segment's file and where its batches begin.
struct Segment {
    file: File,
    length: u64,
    /// Base offset and position of every batch, ascending.
    batches: Vec<(i64, u64)>,
    log_end_offset: i64,
}

impl Segment {
    /// Reads the file through, which also warms it.
    fn open(path: &PathBuf) -> Result<Segment, FloorError> {
        let mut file = File::open(path)?;
        let mut data = Vec::new();
        file.read_to_end(&mut data)?;
        let (mut batches, mut position, mut log_end_offset) = (Vec::new(), 0, 0);
        while let Ok(header) = BatchHeader::parse(&data[position..])
            && position + header.batch_bytes() <= data.len()
        {
            batches.push((header.base_offset, position as u64));
            position += header.batch_bytes();
            log_end_offset = header.last_offset() + 1;
        }
        if batches.is_empty() {
            return Err(FloorError::Peer("the file holds no batches"));
        }
        Ok(Segment { file, length: position as u64, batches, log_end_offset })
    }

    fn position(&self, offset: i64) -> u64 {
        let index = self.batches.partition_point(|batch| batch.0 <= offset);
        self.batches[index.saturating_sub(1)].1
    }
}

impl Work for Segment {
    fn run(&mut self, received: &mut [u8], answers: &mut Answers) -> Result<usize, FloorError> {
        let Some(taken) = whole_frame(received)? else { return Ok(0) };
        let mut reader = Reader::new(&received[FRAME_PREFIX_BYTES..taken]);
        let correlation_id = read_header(&mut reader, FETCH_VERSION, false)?;
        // Replica id, longest wait, least and most bytes, isolation level, session id and epoch.
        reader.bytes(4 * 4 + 1 + 2 * 4)?;
        let topics = reader.array_count::<[u8; 6]>(false, 6)?;
        let topic = reader.string(false)?;
        let partitions = reader.array_count::<[u8; 28]>(false, 28)?;
        if (topics, partitions) != (1, 1) {
            return Err(FloorError::Peer("not one partition"));
        }
        let partition = reader.i32()?;
        let _leader_epoch = reader.i32()?;
        let offset = reader.i64()?;
        let _log_start_offset = reader.i64()?;
        let bytes_max = u64::try_from(reader.i32()?).unwrap_or(0);

        answers.position = self.position(offset);
        answers.length = bytes_max.min(self.length - answers.position) as usize;
        put_fetch_answer(answers, correlation_id, &topic, partition, self.log_end_offset);
        Ok(taken)
    }

    fn file(&self) -> &File {
        &self.file
    }
}

fn put_fetch_answer(answers: &mut Answers, correlation_id: i32, topic: &str, partition: i32, high_watermark: i64) {
    let records_bytes = answers.length;
    let answer = &mut answers.bytes;
    answer.extend_from_slice(&[0; FRAME_PREFIX_BYTES]);
    answer.extend_from_slice(&correlation_id.to_be_bytes());
    // Throttle time, error, session id; one topic, its name, one partition.
    answer.extend_from_slice(&[0; 4 + 2 + 4]);
    answer.extend_from_slice(&1_i32.to_be_bytes());
    answer.extend_from_slice(&(topic.len() as i16).to_be_bytes());
    answer.extend_from_slice(topic.as_bytes());
    answer.extend_from_slice(&1_i32.to_be_bytes());
    answer.extend_from_slice(&partition.to_be_bytes());
    answer.extend_from_slice(&0_i16.to_be_bytes());
    answer.extend_from_slice(&high_watermark.to_be_bytes());
    answer.extend_from_slice(&high_watermark.to_be_bytes());
    answer.extend_from_slice(&0_i64.to_be_bytes());
    // Aborted transactions are null, and no other replica is preferred.
    answer.extend_from_slice(&(-1_i32).to_be_bytes());
    answer.extend_from_slice(&(-1_i32).to_be_bytes());
    answer.extend_from_slice(&(records_bytes as i32).to_be_bytes());
    let length = (answer.len() - FRAME_PREFIX_BYTES + records_bytes) as i32;
    answer[..FRAME_PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
}
