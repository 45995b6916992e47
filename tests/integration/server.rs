//! A broker process and its directory.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlog::record::batch::batches;
use ringlog::record::compression::Codec;

/// How long anything may take before a test gives up.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A directory on the checkout's file system, removed at the end.
pub fn directory() -> tempfile::TempDir {
    tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for the test")
}

/// A running broker. Dropped, it is killed, and what it had to say is shown if the test has failed.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    directory: PathBuf,
    /// Lines of standard output, in order.
    banner: mpsc::Receiver<String>,
}

impl Server {
    /// Starts a broker over `directory` and waits until it serves.
    pub fn start(directory: &Path) -> Server {
        Server::start_with(directory, &[])
    }

    /// The same with more settings, as `name=value`.
    pub fn start_with(directory: &Path, settings: &[&str]) -> Server {
        let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        Server::start_with_flags(directory, &settings)
    }

    /// The same with more flags.
    pub fn start_with_flags(directory: &Path, flags: &[&str]) -> Server {
        Server::run(directory, serve(directory, flags))
    }

    /// Runs a broker's command line and waits until it serves.
    pub fn run(directory: &Path, mut command: Command) -> Server {
        let stderr = File::options().create(true).append(true).open(stderr_path(directory)).expect("a file for stderr");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().expect("a process");
        let stdout = child.stdout.take().expect("piped");
        let (sender, banner) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Fails once the test has gone on.
                let _ = sender.send(line);
            }
        });
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Server { child, address, directory: directory.to_owned(), banner };
        server.address = server.banner("serves PLAINTEXT://").parse().expect("the banner's address");
        server
    }

    /// The rest of the banner's next line that has `mark`, behind the mark.
    pub fn banner(&self, mark: &str) -> String {
        loop {
            let line = self.banner.recv_timeout(DEADLINE);
            let line = line.unwrap_or_else(|error| panic!("the broker's banner has no {mark:?}: {error}"));
            if let Some((_, rest)) = line.split_once(mark) {
                return rest.trim().to_owned();
            }
        }
    }

    pub fn process(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// SIGTERM; the broker must end by itself and say that all went well.
    pub fn stop(mut self) {
        kill(self.process(), Signal::SIGTERM).expect("signalled");
        let status = self.child.wait().expect("gone");
        assert!(status.success(), "the stop was not clean: {status}");
    }

    /// What it has said on standard error.
    pub fn stderr(&self) -> String {
        fs::read_to_string(stderr_path(&self.directory)).expect("its standard error")
    }

    /// Waits until it has ended by itself; how, and all it said on standard error.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return (status, self.stderr());
            }
            assert!(Instant::now() < deadline, "the broker goes on");
            thread::yield_now();
        }
    }

    /// The codec of every batch in a partition's first segment, read from the file.
    pub fn codecs(&self, topic: &str, partition: i32) -> Vec<Codec> {
        let headers = batches_of(&self.directory, topic, partition);
        headers.into_iter().map(|batch| codec_of(&batch)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the broker's stderr");
            eprintln!("{}", fs::read_to_string(stderr_path(&self.directory)).unwrap_or_default());
        }
    }
}

/// A broker's command line over `directory`. Without an admin port: all brokers of all tests would want the same.
pub fn serve(directory: &Path, flags: &[&str]) -> Command {
    let mut command = serve_by_default(directory);
    // Many records here are decades old: retention would begin after half a minute.
    command.args(["--admin-listen", "none", "--set", "log.initial.task.delay.ms=3600000"]).args(flags);
    command
}

/// The same with the admin port where it is by default.
pub fn serve_by_default(directory: &Path) -> Command {
    // Another build of the broker can be put to the same tests.
    let program = std::env::var_os("RINGLOG_UNDER_TEST").unwrap_or_else(|| env!("CARGO_BIN_EXE_ringlog").into());
    let mut command = Command::new(program);
    command.arg("serve").args(["--shards", "2", "--set", "listeners=PLAINTEXT://127.0.0.1:0"]);
    command.arg("--set").arg(format!("log.dirs={}", data_path(directory).display()));
    command
}

fn stderr_path(directory: &Path) -> PathBuf {
    directory.join("stderr")
}

pub fn data_path(directory: &Path) -> PathBuf {
    directory.join("data")
}

pub fn first_segment(directory: &Path, topic: &str, partition: i32) -> PathBuf {
    data_path(directory).join(format!("{topic}-{partition}")).join("00000000000000000000.log")
}

/// Every batch in a partition's first segment.
pub fn batches_of(directory: &Path, topic: &str, partition: i32) -> Vec<Bytes> {
    let path = first_segment(directory, topic, partition);
    let data = Bytes::from(fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    batches(&data).map(|batch| data.slice_ref(batch.expect("a whole batch").1)).collect()
}

fn codec_of(batch: &[u8]) -> Codec {
    let header = ringlog::record::batch::BatchHeader::parse(batch).expect("a batch's header");
    header.codec().expect("a codec that Kafka knows")
}
