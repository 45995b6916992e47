//! Many partitions that nobody uses: no data blocks, few descriptors, little memory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::Pid;

use crate::server::{Server, data_path, directory, serve};
use crate::wire::Wire;

const TOPICS: i32 = 20;
const PARTITIONS: i32 = 1000;
/// What an idle partition may cost, unoptimised and with what the process keeps to itself; a release build takes about 2.5 KiB.
const BYTES_PER_PARTITION_MAX: u64 = 8 * 1024;
const OPEN_SEGMENTS_MAX: usize = 500;
/// Rings, eventfds, the tree, directories, connections.
const OTHER_DESCRIPTORS: usize = 60;

fn resident_bytes(process: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the status of a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its resident memory");
    line.trim().strip_suffix("kB").and_then(|kib| kib.trim().parse::<u64>().ok()).expect("KiB") * 1024
}

fn descriptors(process: Pid) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).expect("the descriptors of a process").count()
}

/// Data blocks of all files of segments, and how many partitions there are.
fn blocks_of_segments(data: &Path) -> (u64, usize) {
    let (mut blocks, mut partitions) = (0, 0);
    for partition in fs::read_dir(data).expect("the data directory").map(|entry| entry.expect("an entry").path()) {
        if !partition.is_dir() {
            continue;
        }
        partitions += 1;
        for file in fs::read_dir(&partition).expect("a partition").map(|entry| entry.expect("an entry")) {
            if file.file_name().to_string_lossy().starts_with("0000") {
                blocks += file.metadata().expect("a file").blocks();
            }
        }
    }
    (blocks, partitions)
}

#[test]
fn twenty_thousand_idle_partitions_take_no_data_blocks_few_descriptors_and_some_kilobytes_each() {
    // Making them syncs many small files, which is not what is looked at.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| directory());
    let open_segments_max = OPEN_SEGMENTS_MAX.to_string();
    let flags = ["--open-segments-max", &open_segments_max];
    let server = Server::run(directory.path(), serve(directory.path(), &flags));
    let empty = resident_bytes(server.process());
    let mut wire = Wire::connect(server.address);
    for topic in 0..TOPICS {
        assert_eq!(wire.create_topic(&format!("idle-{topic}"), PARTITIONS), 0);
    }
    let count = (TOPICS * PARTITIONS) as u64;
    let check = |server: &Server| {
        assert_eq!(blocks_of_segments(&data_path(directory.path())), (0, count as usize));
        let open = descriptors(server.process());
        assert!(open <= OPEN_SEGMENTS_MAX + OTHER_DESCRIPTORS, "{open} descriptors");
        let each = resident_bytes(server.process()).saturating_sub(empty) / count;
        eprintln!("{each} bytes for each idle partition, {open} descriptors");
        assert!(each <= BYTES_PER_PARTITION_MAX, "{each} bytes for each idle partition");
    };
    check(&server);
    server.stop();

    let server = Server::run(directory.path(), serve(directory.path(), &flags));
    check(&server);
    server.kill();
    let server = Server::run(directory.path(), serve(directory.path(), &flags));
    check(&server);
    // Any of them is there at once.
    let mut wire = Wire::connect(server.address);
    for topic in 0..TOPICS {
        let partition = topic * 37 % PARTITIONS;
        assert_eq!(wire.fetch(&format!("idle-{topic}"), partition, 0, 1).0.error_code, 0);
    }
}
