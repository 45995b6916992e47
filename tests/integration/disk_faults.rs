//! Full, read-only, vanished, littered and locked log directories, on real file systems.
//!
//! Small file systems are tmpfs mounted in a mount namespace of their own, which a holder process keeps alive over the
//! broker's restarts.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use ringlog::protocol::ErrorCode;
use ringlog::protocol::message::create_topics::{CreatableTopic, CreateTopicsRequest, CreateTopicsResponse};
use ringlog::protocol::message::delete_topics::{DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};
use ringlog::record::batch::BatchBuilder;
use ringlog::record::compression::Codec;

use crate::server::{DEADLINE, Server, data_path, directory, serve};
use crate::wire::{Wire, ask};

const PRODUCE_VERSION: i16 = 9;
const VALUE_BYTES: usize = 64 * 1024;
const STORAGE_ERROR: i16 = ErrorCode::KafkaStorageError as i16;

/// A tmpfs on `path`, seen only by what is run in it.
struct SmallFileSystem {
    holder: Child,
    path: PathBuf,
}

impl SmallFileSystem {
    fn mount(path: &Path, mebibytes: u32) -> SmallFileSystem {
        fs::create_dir_all(path).expect("a mount point");
        let mut command = Command::new("unshare");
        if !is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(r#"mount -t tmpfs -o "size=$1m" tmpfs "$0" && echo mounted && exec cat"#);
        command.arg(path).arg(mebibytes.to_string());
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare of util-linux");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert_eq!(line, "mounted\n", "a mount namespace with a tmpfs");
        SmallFileSystem { holder, path: path.to_owned() }
    }

    /// A command that sees the file system.
    fn within(&self, command: &Command) -> Command {
        let mut entered = Command::new("nsenter");
        if !is_root() {
            entered.args(["--user", "--preserve-credentials"]);
        }
        entered.args(["--mount", "--target", &self.holder.id().to_string()]);
        entered.arg(command.get_program()).args(command.get_args());
        entered
    }

    fn run(&self, script: &str) {
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&self.path);
        assert!(self.within(&command).status().expect("a shell").success(), "{script}");
    }
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("the status of this process");
    status.lines().any(|line| line.strip_prefix("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0")))
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn batch(number: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    let value: Vec<u8> = (0..VALUE_BYTES).map(|at| (number as usize * 31 + at) as u8).collect();
    builder.push(1_700_000_000_000, Some(&number.to_be_bytes()), Some(&value), &[]);
    builder.build().to_vec()
}

/// Produces until an error, at most `most` batches; the error and how many were acknowledged.
fn produce_until_refused(wire: &mut Wire, topic: &str, first: i64, most: i64) -> (i16, i64) {
    for number in first..first + most {
        let answer = wire.produce(PRODUCE_VERSION, topic, 0, &batch(number));
        if answer.error_code != 0 {
            return (answer.error_code, number);
        }
        assert_eq!(answer.base_offset, number);
    }
    (0, first + most)
}

/// Every acknowledged record is there, and perhaps some that were not.
fn assert_holds(wire: &mut Wire, topic: &str, acknowledged: i64) {
    let records = wire.read_all(topic, 0);
    assert!(records.len() as i64 >= acknowledged, "{} of {acknowledged} records", records.len());
    for (record, number) in records.iter().zip(0i64..) {
        assert_eq!((record.offset, record.key.as_deref()), (number, Some(&number.to_be_bytes()[..])));
    }
}

fn delete(wire: &mut Wire, topic: &str) {
    let topics = vec![DeleteTopicState { name: Some(topic.to_owned()), ..Default::default() }];
    let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    assert_eq!(ask!(wire, 6, request, DeleteTopicsResponse).responses[0].error_code, 0);
}

/// Tries until the topic takes records again.
fn produce_when_there_is_room(wire: &mut Wire, topic: &str, number: i64) {
    let deadline = Instant::now() + DEADLINE;
    while produce_until_refused(wire, topic, number, 1).0 != 0 {
        assert!(Instant::now() < deadline, "there is room again, and produce is still refused");
    }
}

#[test]
fn before_a_file_system_is_full_produce_is_refused_and_reads_deletes_and_restarts_go_on() {
    let directory = directory();
    let small = SmallFileSystem::mount(&data_path(directory.path()), 64);
    let broker = || Server::run(directory.path(), small.within(&serve(directory.path(), &["--disk-reserve", "16m"])));
    let server = broker();
    let mut wire = Wire::connect(server.address);
    assert_eq!((wire.create_topic("kept", 1), wire.create_topic("given-up", 1)), (0, 0));
    let (_, kept) = produce_until_refused(&mut wire, "kept", 0, 200);
    let deadline = Instant::now() + DEADLINE;
    let mut given_up = 0;
    // Between two looks at the file system the broker reckons, and reckons with too little room.
    while !server.stderr().contains("nearly full") {
        (_, given_up) = produce_until_refused(&mut wire, "given-up", given_up, 10_000);
        assert!(Instant::now() < deadline, "the reserve is used up");
    }
    assert_eq!(produce_until_refused(&mut wire, "kept", kept, 1), (STORAGE_ERROR, kept));
    assert!(server.stderr().contains("--disk-reserve"));
    assert_holds(&mut wire, "kept", kept);
    assert_holds(&mut wire, "given-up", given_up);
    server.kill();

    let server = broker();
    let mut wire = Wire::connect(server.address);
    assert_holds(&mut wire, "kept", kept);
    delete(&mut wire, "given-up");
    produce_when_there_is_room(&mut wire, "kept", kept);
    assert_holds(&mut wire, "kept", kept + 1);
    server.stop();
}

#[test]
fn a_full_file_system_fails_appends_loses_nothing_and_does_not_block_a_start() {
    let directory = directory();
    let small = SmallFileSystem::mount(&data_path(directory.path()), 48);
    let broker = || Server::run(directory.path(), small.within(&serve(directory.path(), &["--disk-reserve", "1"])));
    let server = broker();
    let mut wire = Wire::connect(server.address);
    assert_eq!((wire.create_topic("kept", 1), wire.create_topic("given-up", 1)), (0, 0));
    let (_, kept) = produce_until_refused(&mut wire, "kept", 0, 100);
    let (_, given_up) = produce_until_refused(&mut wire, "given-up", 0, 100);
    // Somebody else takes the rest, to the last byte.
    small.run(r#"dd if=/dev/zero of="$0/filler" bs=1k 2>/dev/null || true"#);
    let (error, kept) = produce_until_refused(&mut wire, "kept", kept, 1000);
    assert_eq!(error, STORAGE_ERROR);
    assert_holds(&mut wire, "kept", kept);
    server.kill();

    let server = broker();
    let mut wire = Wire::connect(server.address);
    assert_holds(&mut wire, "kept", kept);
    assert_holds(&mut wire, "given-up", given_up);
    // What was held back for the start is little.
    let (error, kept) = produce_until_refused(&mut wire, "kept", kept, 1000);
    assert_eq!(error, STORAGE_ERROR);
    small.run(r#"rm "$0/filler""#);
    produce_when_there_is_room(&mut wire, "kept", kept);
    server.stop();
    let server = broker();
    assert_holds(&mut Wire::connect(server.address), "kept", kept + 1);
    server.stop();
}

/// Root may write anywhere, unless it gives that up: so a directory without write permission is one for root too.
fn without_override(mut command: Command) -> Command {
    const CAP_DAC_OVERRIDE: libc::c_int = 1;
    // SAFETY: one system call between fork and exec that takes no memory.
    unsafe {
        command.pre_exec(|| {
            // Fails for an ordinary user, who has no such capability to give up.
            libc::prctl(libc::PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0);
            Ok(())
        });
    }
    command
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
}

/// A broker over two log directories.
fn over_two(directory: &Path, second: &Path) -> Command {
    let dirs = format!("log.dirs={},{}", data_path(directory).display(), second.display());
    without_override(serve(directory, &["--set", &dirs, "--set", "log.segment.bytes=300000"]))
}

#[test]
fn a_directory_made_read_only_goes_offline_with_its_partitions_and_the_other_serves_on() {
    let directory = directory();
    let second = directory.path().join("second");
    let server = Server::run(directory.path(), over_two(directory.path(), &second));
    let mut wire = Wire::connect(server.address);
    assert_eq!((wire.create_topic("one", 1), wire.create_topic("two", 1)), (0, 0));
    let lies_in = |topic: &str| if second.join(format!("{topic}-0")).is_dir() { "second" } else { "data" };
    assert_eq!((lies_in("one"), lies_in("two")), ("data", "second"), "partitions are spread over the directories");
    let (_, before) = produce_until_refused(&mut wire, "two", 0, 3);
    // The next segment can't be made.
    set_mode(&second.join("two-0"), 0o555);
    let (error, acknowledged) = produce_until_refused(&mut wire, "two", before, 100);
    assert_eq!(error, STORAGE_ERROR);
    assert_eq!(wire.fetch("two", 0, 0, 1).0.error_code, STORAGE_ERROR, "all of the directory is offline");
    assert_eq!(produce_until_refused(&mut wire, "one", 0, 20), (0, 20));
    assert_eq!(wire.create_topic("three", 1), 0);
    assert_eq!(lies_in("three"), "data", "nothing new is put where nothing can be written");
    let told = server.stderr();
    assert!(told.contains("goes offline") && told.contains(&second.display().to_string()), "{told}");
    server.stop();

    set_mode(&second.join("two-0"), 0o755);
    let server = Server::run(directory.path(), over_two(directory.path(), &second));
    let mut wire = Wire::connect(server.address);
    assert_holds(&mut wire, "two", acknowledged);
    assert_holds(&mut wire, "one", 20);
    produce_when_there_is_room(&mut wire, "two", wire_end(server.address, "two"));
    server.stop();
}

fn wire_end(address: std::net::SocketAddr, topic: &str) -> i64 {
    Wire::connect(address).read_all(topic, 0).len() as i64
}

#[test]
fn when_no_directory_is_left_the_broker_ends() {
    let directory = directory();
    let command = without_override(serve(directory.path(), &["--set", "log.segment.bytes=300000"]));
    let server = Server::run(directory.path(), command);
    let mut wire = Wire::connect(server.address);
    assert_eq!(wire.create_topic("only", 1), 0);
    let (_, before) = produce_until_refused(&mut wire, "only", 0, 3);
    let partition = data_path(directory.path()).join("only-0");
    set_mode(&partition, 0o555);
    for number in before..before + 10 {
        // The broker may be gone before it answers.
        if wire.send_produce(PRODUCE_VERSION, 1, "only", 0, &batch(number)).is_err() {
            break;
        }
    }
    let (status, told) = server.ended();
    set_mode(&partition, 0o755);
    assert_eq!(status.code(), Some(1));
    assert!(told.contains("no log directory is left"), "{told}");
}

#[test]
fn a_directory_that_can_not_be_used_at_the_start_is_offline_unless_it_is_the_only_one() {
    let directory = directory();
    let second = directory.path().join("second");
    fs::write(&second, "not a directory").expect("a file");
    let server = Server::run(directory.path(), over_two(directory.path(), &second));
    let offline = server.banner("OFFLINE");
    assert!(offline.contains(&second.display().to_string()), "{offline}");
    let mut wire = Wire::connect(server.address);
    assert_eq!((wire.create_topic("one", 1), produce_until_refused(&mut wire, "one", 0, 3)), (0, (0, 3)));
    server.stop();

    let only = directory.path().join("only");
    fs::create_dir(&only).expect("a directory");
    set_mode(&only, 0o555);
    let data = format!("log.dirs={}", only.display());
    let output = without_override(serve(directory.path(), &["--set", &data])).output().expect("a process");
    set_mode(&only, 0o755);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(&only.display().to_string()) && told.contains("log.dirs"), "{told}");
}

#[test]
fn a_directory_that_vanishes_goes_offline_and_the_other_serves_on() {
    let directory = directory();
    let second = directory.path().join("second");
    let server = Server::run(directory.path(), over_two(directory.path(), &second));
    let mut wire = Wire::connect(server.address);
    assert_eq!((wire.create_topic("one", 1), wire.create_topic("two", 1)), (0, 0));
    assert_eq!(produce_until_refused(&mut wire, "two", 0, 3), (0, 3));
    fs::rename(&second, directory.path().join("elsewhere")).expect("renamed");
    let (error, acknowledged) = produce_until_refused(&mut wire, "two", 3, 100);
    assert_eq!(error, STORAGE_ERROR);
    assert_eq!(produce_until_refused(&mut wire, "one", 0, 20), (0, 20));
    server.stop();

    fs::rename(directory.path().join("elsewhere"), &second).expect("renamed");
    let server = Server::run(directory.path(), over_two(directory.path(), &second));
    assert_holds(&mut Wire::connect(server.address), "two", acknowledged);
    server.stop();
}

/// Starts a broker that must refuse; what it says.
fn refused(command: &mut Command) -> String {
    let output = command.output().expect("a process");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(output.stdout.is_empty(), "{told}");
    told
}

#[test]
fn stray_files_are_left_alone_and_a_stray_directory_refuses_the_start_and_is_named() {
    let directory = directory();
    let data = data_path(directory.path());
    let server = Server::start(directory.path());
    let mut wire = Wire::connect(server.address);
    assert_eq!((wire.create_topic("one", 1), produce_until_refused(&mut wire, "one", 0, 3)), (0, (0, 3)));
    server.stop();
    let strays = ["notes.txt", "one-0/notes.txt", "one-0/00000000000000000000.log.bak", "one-0/7.log"];
    for stray in strays {
        fs::write(data.join(stray), "mine").expect("written");
    }
    let server = Server::start(directory.path());
    assert_holds(&mut Wire::connect(server.address), "one", 3);
    server.stop();
    for stray in strays {
        assert_eq!(fs::read(data.join(stray)).expect("still there"), b"mine", "{stray}");
    }

    fs::create_dir(data.join("lost+found")).expect("a directory");
    let told = refused(&mut serve(directory.path(), &[]));
    assert!(told.contains("lost+found") && told.contains("move it out"), "{told}");
    assert!(data.join(".kafka_cleanshutdown").exists(), "a refused start leaves the directory as it was");
    fs::remove_dir(data.join("lost+found")).expect("removed");
    let server = Server::start(directory.path());
    assert_holds(&mut Wire::connect(server.address), "one", 3);
}

#[test]
fn a_directory_that_another_broker_uses_refuses_the_start() {
    let directory = directory();
    let _server = Server::start(directory.path());
    let told = refused(&mut serve(directory.path(), &[]));
    assert!(told.contains("in use by another process") && told.contains("log.dirs"), "{told}");
    // One of two is enough.
    let other = directory.path().join("other");
    let dirs = format!("log.dirs={},{}", other.display(), data_path(directory.path()).display());
    let told = refused(&mut serve(directory.path(), &["--set", &dirs]));
    assert!(told.contains("in use by another process"), "{told}");
}

/// What a JVM's `FileChannel.tryLock` asks the kernel for.
fn lock_as_a_jvm(path: &Path) -> nix::Result<fs::File> {
    let file = fs::File::options().read(true).write(true).create(true).truncate(false).open(path).expect("a lock file");
    let whole = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: i64::MAX,
        l_pid: 0,
    };
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETLK(&whole)).map(|_| file)
}

#[test]
fn a_kafka_that_has_its_lock_refuses_the_start_and_is_named_and_the_broker_keeps_kafka_out() {
    let directory = directory();
    let lock_file = data_path(directory.path()).join(".lock");
    fs::create_dir(data_path(directory.path())).expect("made");
    let lock = lock_as_a_jvm(&lock_file).expect("nobody has it");
    let told = refused(&mut serve(directory.path(), &[]));
    let holder = format!("in use by process {} (", std::process::id());
    assert!(told.contains(&holder) && told.contains("Kafka") && told.contains("log.dirs"), "{told}");
    // A lock of that kind goes with the first close of its file by the process.
    drop(lock);
    let server = Server::start(directory.path());
    assert_eq!(lock_as_a_jvm(&lock_file).err(), Some(nix::errno::Errno::EAGAIN));
    server.stop();
    lock_as_a_jvm(&lock_file).expect("it is free again");
}

#[test]
fn a_partition_in_two_directories_refuses_the_start_and_names_both() {
    let directory = directory();
    let server = Server::start(directory.path());
    assert_eq!(Wire::connect(server.address).create_topic("one", 1), 0);
    server.stop();
    let second = directory.path().join("second");
    fs::create_dir_all(second.join("one-0")).expect("a directory");
    let told = refused(&mut over_two(directory.path(), &second));
    assert!(told.contains("one-0") && told.contains(&second.display().to_string()), "{told}");
}

/// The code and the text.
fn create(wire: &mut Wire, name: &str) -> (i16, String) {
    let topic =
        CreatableTopic { name: name.to_owned(), num_partitions: 1, replication_factor: 1, ..Default::default() };
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let result = ask!(wire, 7, request, CreateTopicsResponse).topics.remove(0);
    (result.error_code, result.error_message.unwrap_or_default())
}

#[test]
fn a_metadata_tree_without_room_refuses_changes_with_the_remedy_and_takes_them_when_there_is_room() {
    const TOPICS_MAX: usize = 2_000;
    let directory = directory();
    let small = SmallFileSystem::mount(&data_path(directory.path()), 48);
    let broker = || Server::run(directory.path(), small.within(&serve(directory.path(), &[])));
    let server = broker();
    let mut wire = Wire::connect(server.address);
    assert_eq!(create(&mut wire, "before").0, 0);
    // To the last byte; dd fails when it is done.
    small.run(
        "dd if=/dev/zero of=$0/filling bs=64k 2>/dev/null; dd if=/dev/zero of=$0/rest bs=1 count=1 2>/dev/null; true",
    );
    let (code, text) = (0..TOPICS_MAX)
        .map(|number| create(&mut wire, &format!("topic-{number}")))
        .find(|(code, _)| *code != 0)
        .expect("the tree grows until there is no room");
    assert_eq!(code, ErrorCode::UnknownServerError as i16, "{text}");
    let data = data_path(directory.path());
    assert!(text.contains(data.to_str().expect("plain")) && text.contains("free space"), "{text}");
    // Again, and it still serves.
    let (_, again) = create(&mut wire, "another");
    assert!(again.contains("free space"), "{again}");
    assert_eq!(wire.metadata("before").topics[0].error_code, 0);

    small.run("rm $0/filling");
    assert_eq!(create(&mut wire, "after"), (0, String::new()));
    produce_when_there_is_room(&mut wire, "after", 0);
    server.stop();
    let server = broker();
    let mut wire = Wire::connect(server.address);
    for topic in ["before", "after"] {
        assert_eq!(wire.metadata(topic).topics[0].partitions.len(), 1);
    }
    assert_holds(&mut wire, "after", 1);
}
