//! The process as Prometheus' client libraries tell of it, under their names; read from `/proc`.

#![forbid(unsafe_code)]

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

use super::text::{Kind, Text};

/// Kernels before 6.2 don't tell the number of descriptors but by listing them, which is not done for more than so many.
const LISTED_DESCRIPTORS_MAX: usize = 100_000;

/// Writes what the kernel tells; what it does not is left out.
pub fn write(out: &mut Text) {
    let rows = [
        ("process_cpu_seconds_total", Kind::Counter, "Total user and system CPU time spent in seconds.", cpu_seconds()),
        ("process_resident_memory_bytes", Kind::Gauge, "Resident memory size in bytes.", memory_bytes(1)),
        ("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory size in bytes.", memory_bytes(0)),
        ("process_open_fds", Kind::Gauge, "Number of open file descriptors.", open_descriptors()),
        ("process_max_fds", Kind::Gauge, "Maximum number of open file descriptors.", descriptors_max()),
        (
            "process_start_time_seconds",
            Kind::Gauge,
            "Start time of the process since unix epoch in seconds.",
            start_seconds(),
        ),
    ];
    for (name, kind, help, value) in rows {
        if let Some(value) = value {
            out.foreign_head(name, kind, help);
            out.foreign_sample(name, value);
        }
    }
}

/// The fields of `/proc/self/stat` behind the program's name, which may have spaces: `state` is the first.
fn stat_field(index: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(index)?.parse().ok()
}

fn ticks_per_second() -> Option<f64> {
    Some(sysconf(SysconfVar::CLK_TCK).ok()?? as f64)
}

fn cpu_seconds() -> Option<f64> {
    Some((stat_field(11)? + stat_field(12)?) / ticks_per_second()?)
}

fn start_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + stat_field(19)? / ticks_per_second()?)
}

/// By the place in `/proc/self/statm`.
fn memory_bytes(place: usize) -> Option<f64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: f64 = statm.split_whitespace().nth(place)?.parse().ok()?;
    Some(pages * sysconf(SysconfVar::PAGE_SIZE).ok()?? as f64)
}

fn open_descriptors() -> Option<f64> {
    let told = fs::metadata("/proc/self/fd").ok()?.len();
    if told > 0 {
        return Some(told as f64);
    }
    Some(fs::read_dir("/proc/self/fd").ok()?.take(LISTED_DESCRIPTORS_MAX).count() as f64)
}

fn descriptors_max() -> Option<f64> {
    let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).ok()?;
    Some(soft as f64)
}
