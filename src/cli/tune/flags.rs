//! A flag file for a machine: what the defaults would come to, written down with its reason, and what is better than the
//! defaults here.

#![forbid(unsafe_code)]

use std::path::Path;

use super::machine::Machine;
use crate::config::load::COLD_BYTES_MAX_DEFAULT;
use ringlog_tools::table::human_bytes;

const MIB: u64 = 1024 * 1024;

/// However much the kernel would let gather: a disk of 1 GB/s is two seconds behind then.
const DIRTY_BYTES_MAX: u64 = 2048 * MIB;
const DIRTY_BYTES_MIN: u64 = 64 * MIB;

/// Steps of read-ahead that a shard's cold readers have room for, at least.
const COLD_STEPS_MIN: u64 = 4;

/// `--open-segments-max` is no less, and needs no more.
const OPEN_SEGMENTS_MIN: u64 = 16;
const OPEN_SEGMENTS_MAX: u64 = 1_000_000;

/// The text of the file.
pub fn text(machine: &Machine, data: Option<&Path>) -> String {
    let mut lines = vec![format!("# Flags of ringlog for this machine: {}.", describe(machine))];
    lines.push(
        "# Written by ringlog tune write-flags; read by ringlog serve --flagfile. The command line wins.".to_owned(),
    );
    let mut flag = |why: String, flag: String| {
        lines.extend([String::new(), format!("# {why}"), flag]);
    };
    if let Some(data) = data {
        flag("Where the data is.".to_owned(), format!("data {}", data.display()));
    }
    flag("One for each core that this process may use.".to_owned(), format!("shards {}", machine.cores));
    if let Some(background) = machine.dirty_bytes("dirty_background") {
        let bytes = (background / 2).clamp(DIRTY_BYTES_MIN, DIRTY_BYTES_MAX);
        let (from, most) = (human(background), human(DIRTY_BYTES_MAX));
        let why = format!("Half of where the kernel begins to write back by itself ({from}), {most} at most.");
        flag(why, format!("dirty-bytes-max {}m", bytes / MIB));
    }
    if let Some(limit) = machine.limit("Max open files") {
        let segments =
            limit.hard.map_or(OPEN_SEGMENTS_MAX, |files| files / 4).clamp(OPEN_SEGMENTS_MIN, OPEN_SEGMENTS_MAX);
        let files = limit.hard.map_or("any number".to_owned(), |files| files.to_string());
        let why = format!("A quarter of the open files that the hard limit allows ({files}).");
        flag(why, format!("open-segments-max {segments}"));
    }
    if let Some(kib) = machine.read_ahead_kib() {
        let bytes = (kib * 1024 * COLD_STEPS_MIN).max(COLD_BYTES_MAX_DEFAULT);
        let why = format!(
            "Per shard, for cold readers: at least {COLD_STEPS_MIN} steps of the disk's read-ahead ({kib} KiB)."
        );
        flag(why, format!("cold-bytes-max {}m", bytes / MIB));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn human(bytes: u64) -> String {
    human_bytes(i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn describe(machine: &Machine) -> String {
    let mut parts = vec![match machine.cores {
        1 => "1 core".to_owned(),
        cores => format!("{cores} cores"),
    }];
    parts.extend(machine.memory().map(|(total, _)| format!("{} of memory", human(total))));
    parts.extend(machine.mount().map(|mount| match machine.disk() {
        Some(disk) => format!("{} on {disk}", mount.file_system),
        None => mount.file_system,
    }));
    parts.extend(machine.release().map(|release| format!("Linux {release}")));
    parts.join(", ")
}
