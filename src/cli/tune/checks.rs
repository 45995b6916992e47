//! What is looked at: what it is now, what it should be, why, and what changes it.
//!
//! A check is a problem only where a broker does not work, or may lose what it has acknowledged; all else is advice.

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use super::machine::{Limit, Machine, Mount};
use ringlog_tools::table::human_bytes;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Open files below which connections and segments are soon short of them, and above which nothing is gained.
const FILES_MIN: u64 = 4096;
const FILES_WANTED: u64 = 100_000;
/// Cold readers are served in steps of the read-ahead.
const READ_AHEAD_KIB_MIN: u64 = 1024;
const READ_AHEAD_KIB_MAX: u64 = 16 * 1024;
/// The broker's own budget of dirty bytes is half of this.
const BACKGROUND_BYTES_MIN: u64 = 256 * MIB;
const SWAPPINESS_MAX: u64 = 10;
const SOMAXCONN_MIN: u64 = 1024;
const SOCKET_BYTES_MIN: u64 = 4 * MIB;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ok,
    /// It works, and would work better.
    Advice,
    /// It does not work, or loses data.
    Problem,
    /// It can't be read here.
    Unknown,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Advice => "advice",
            State::Problem => "problem",
            State::Unknown => "unknown",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Check {
    pub name: &'static str,
    pub now: String,
    pub wanted: String,
    pub state: State,
    pub why: String,
    /// What to run as root; it lasts until the next boot, unless it says otherwise.
    pub command: Option<String>,
}

impl Check {
    fn new(name: &'static str, now: impl Into<String>, wanted: impl Into<String>, state: State) -> Check {
        Check { name, now: now.into(), wanted: wanted.into(), state, why: String::new(), command: None }
    }

    fn unknown(name: &'static str, wanted: impl Into<String>) -> Check {
        let why = "it can't be read here; in a container, look at the host".to_owned();
        Check { why, ..Check::new(name, "can't be read", wanted, State::Unknown) }
    }

    fn because(self, why: impl Into<String>, command: impl Into<String>) -> Check {
        match self.state {
            State::Ok | State::Unknown => self,
            State::Advice | State::Problem => Check { why: why.into(), command: Some(command.into()), ..self },
        }
    }

    /// Stable names for scripts; reason and command only where there is something to do.
    pub fn json(&self) -> Value {
        let why = Some(&self.why).filter(|why| !why.is_empty());
        json!({
            "check": self.name,
            "now": self.now,
            "wanted": self.wanted,
            "state": self.state.name(),
            "why": why,
            "command": self.command,
        })
    }
}

fn advice_unless(good: bool) -> State {
    if good { State::Ok } else { State::Advice }
}

fn bytes(number: u64) -> String {
    human_bytes(i64::try_from(number).unwrap_or(i64::MAX))
}

/// All of them, in the order of the table.
pub fn all(machine: &Machine) -> Vec<Check> {
    vec![
        kernel(machine),
        io_uring(machine),
        file_system(machine),
        mount_options(machine),
        scheduler(machine),
        read_ahead(machine),
        dirty_background(machine),
        dirty(machine),
        swappiness(machine),
        open_files(machine),
        locked_memory(machine),
        huge_pages(machine),
        governor(machine),
        clock_source(machine),
        backlog(machine),
        socket_memory(machine, "net.ipv4.tcp_rmem", "/proc/sys/net/ipv4/tcp_rmem"),
        socket_memory(machine, "net.ipv4.tcp_wmem", "/proc/sys/net/ipv4/tcp_wmem"),
    ]
}

fn kernel(machine: &Machine) -> Check {
    const WANTED: &str = "6.1 or newer, best 6.5";
    let (Some(release), Some(version)) = (machine.release(), machine.kernel()) else {
        return Check::unknown("kernel", WANTED);
    };
    let (state, why) = match version {
        (0..=5, _) | (6, 0) => (State::Problem, "the shards' rings need what Linux 6.1 brought (DEFER_TASKRUN)"),
        (6, 1..=4) => (
            State::Advice,
            "cachestat(2) came with 6.5; without it the broker reads to find out what is in the page cache",
        ),
        _ => (State::Ok, ""),
    };
    Check::new("kernel", release, WANTED, state)
        .because(why, "upgrade the kernel (Debian 12 has 6.1, and newer in its backports)")
}

fn io_uring(machine: &Machine) -> Check {
    const NAME: &str = "kernel.io_uring_disabled";
    let (now, state) = match machine.text("/proc/sys/kernel/io_uring_disabled") {
        // The switch came with 6.6.
        None => ("no such switch".to_owned(), State::Ok),
        Some(value) if value == "0" => (value, State::Ok),
        Some(value) => (value, State::Problem),
    };
    let command = "sysctl -w kernel.io_uring_disabled=0\n\
                   echo kernel.io_uring_disabled=0 > /etc/sysctl.d/90-ringlog.conf   # for the next boot";
    Check::new(NAME, now, "0", state)
        .because("io_uring is switched off, and all of ringlog's I/O goes through it", command)
}

fn file_system(machine: &Machine) -> Check {
    const WANTED: &str = "ext4 or xfs";
    let Some(Mount { file_system, point, .. }) = machine.mount() else { return Check::unknown("file system", WANTED) };
    let (state, why) = match file_system.as_str() {
        "ext4" | "xfs" => (State::Ok, ""),
        "tmpfs" | "ramfs" => (State::Problem, "it is kept in memory: records are gone with the next boot"),
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "ceph" | "fuse" | "fuse.sshfs" => {
            (State::Problem, "a file system over a network promises less of locks, fsync and sendfile than a log needs")
        }
        "btrfs" | "zfs" | "bcachefs" => {
            (State::Advice, "it copies what is written over; appends are slower, and ringlog is not measured on it")
        }
        _ => (State::Advice, "ringlog is not tested on it"),
    };
    let command = "mkfs.xfs /dev/DISK && mount -o noatime /dev/DISK /var/lib/ringlog   # an empty disk of its own";
    Check::new("file system", format!("{file_system} at {point}"), WANTED, state).because(why, command)
}

fn mount_options(machine: &Machine) -> Check {
    const WANTED: &str = "noatime";
    let Some(mount) = machine.mount() else { return Check::unknown("mount options", WANTED) };
    let has = |option: &str| mount.options.iter().any(|have| have == option);
    let telling = ["ro", "noatime", "relatime", "sync", "data=journal", "nobarrier", "barrier=0"];
    let now: Vec<&str> = telling.into_iter().filter(|option| has(option)).collect();
    let (state, why, add) = if has("ro") {
        (State::Problem, "nothing can be written", "rw")
    } else if has("nobarrier") || has("barrier=0") {
        (State::Problem, "without barriers a power cut takes what fsync has promised", "barrier")
    } else if has("sync") || has("data=journal") {
        (State::Advice, "every append waits for the disk, or is written twice; use --durability fsync instead", "async")
    } else if !has("noatime") {
        (State::Advice, "reading a segment writes its inode now and then, which cold readers pay for", "noatime")
    } else {
        (State::Ok, "", "")
    };
    let now = if now.is_empty() { "strictatime".to_owned() } else { now.join(",") };
    let command = format!("mount -o remount,{add} {}   # and in /etc/fstab", mount.point);
    Check::new("mount options", now, WANTED, state).because(why, command)
}

fn scheduler(machine: &Machine) -> Check {
    const NAME: &str = "I/O scheduler";
    const WANTED: &str = "none or mq-deadline";
    let (Some(scheduler), Some(disk)) = (machine.scheduler(), machine.disk()) else {
        return Check::unknown(NAME, WANTED);
    };
    let good = ["none", "mq-deadline"].contains(&scheduler.as_str());
    let choice = if machine.is_rotational() == Some(true) { "mq-deadline" } else { "none" };
    let why = "the others spend CPU on fairness between processes, and delay fsync behind reads";
    Check::new(NAME, format!("{scheduler} ({disk})"), WANTED, advice_unless(good))
        .because(why, format!("echo {choice} > /sys/block/{disk}/queue/scheduler   # for ever: a udev rule"))
}

fn read_ahead(machine: &Machine) -> Check {
    let wanted = format!("{READ_AHEAD_KIB_MIN} to {READ_AHEAD_KIB_MAX} KiB");
    let (Some(kib), Some(disk)) = (machine.read_ahead_kib(), machine.disk()) else {
        return Check::unknown("read-ahead", wanted);
    };
    let good = (READ_AHEAD_KIB_MIN..=READ_AHEAD_KIB_MAX).contains(&kib);
    let why = "the kernel brings in no more than this at once for a cold reader: with less, each megabyte is several \
               waits; with more, readers push each other's pages out";
    Check::new("read-ahead", format!("{kib} KiB ({disk})"), wanted, advice_unless(good))
        .because(why, format!("echo 4096 > /sys/block/{disk}/queue/read_ahead_kb   # for ever: a udev rule"))
}

fn dirty_background(machine: &Machine) -> Check {
    const NAME: &str = "vm.dirty_background";
    let wanted = format!("{} or more", bytes(BACKGROUND_BYTES_MIN));
    let Some(background) = machine.dirty_bytes("dirty_background") else { return Check::unknown(NAME, wanted) };
    let why = "the broker lets half of it be dirty before its appends wait; with so little a burst waits for the disk";
    Check::new(NAME, bytes(background), wanted, advice_unless(background >= BACKGROUND_BYTES_MIN))
        .because(why, "sysctl -w vm.dirty_background_ratio=10")
}

fn dirty(machine: &Machine) -> Check {
    const NAME: &str = "vm.dirty";
    const WANTED: &str = "2 x vm.dirty_background or more";
    let limits = (machine.dirty_bytes("dirty"), machine.dirty_bytes("dirty_background"));
    let (Some(most), Some(background)) = limits else { return Check::unknown(NAME, WANTED) };
    let why = "here the kernel makes writers wait, a shard among them (p99.9 of an append: 30 ms); it must lie well \
               above where write-back begins";
    Check::new(NAME, bytes(most), WANTED, advice_unless(most / 2 >= background))
        .because(why, "sysctl -w vm.dirty_ratio=40")
}

fn swappiness(machine: &Machine) -> Check {
    const NAME: &str = "vm.swappiness";
    let wanted = format!("{SWAPPINESS_MAX} or less");
    let Some(now) = machine.number("/proc/sys/vm/swappiness") else { return Check::unknown(NAME, wanted) };
    let has_swap = machine.text("/proc/swaps").is_some_and(|text| text.lines().count() > 1);
    let now_text = if has_swap { now.to_string() } else { format!("{now}, without swap") };
    let why =
        "a full page cache is a broker's normal state; the kernel must drop cached pages before it swaps out a shard";
    Check::new(NAME, now_text, wanted, advice_unless(now <= SWAPPINESS_MAX || !has_swap))
        .because(why, "sysctl -w vm.swappiness=1")
}

fn open_files(machine: &Machine) -> Check {
    let wanted = format!("{FILES_WANTED} or more");
    let Some(Limit { hard, .. }) = machine.limit("Max open files") else { return Check::unknown("open files", wanted) };
    let state = match hard {
        Some(0..FILES_MIN) => State::Problem,
        Some(FILES_MIN..FILES_WANTED) => State::Advice,
        _ => State::Ok,
    };
    let hard = hard.map_or("unlimited".to_owned(), |files| files.to_string());
    let why = "a quarter is for open segments, the rest for connections (the broker takes the hard limit by itself)";
    Check::new("open files", hard, wanted, state)
        .because(why, "ulimit -Hn 1000000; in the systemd unit: LimitNOFILE=1000000")
}

fn locked_memory(machine: &Machine) -> Check {
    const WANTED: &str = "any: rings are not counted since 5.12";
    let Some(Limit { soft, .. }) = machine.limit("Max locked memory") else {
        return Check::unknown("locked memory", WANTED);
    };
    Check::new("locked memory", soft.map_or("unlimited".to_owned(), bytes), WANTED, State::Ok)
}

fn huge_pages(machine: &Machine) -> Check {
    const WANTED: &str = "any: the broker does without";
    match machine.choice("/sys/kernel/mm/transparent_hugepage/enabled") {
        Some(now) => Check::new("transparent huge pages", now, WANTED, State::Ok),
        None => Check::new("transparent huge pages", "none", WANTED, State::Ok),
    }
}

fn governor(machine: &Machine) -> Check {
    const WANTED: &str = "performance";
    let governors = machine.governors();
    let now = match governors.as_slice() {
        // The hypervisor or the firmware decides.
        [] => "none here".to_owned(),
        some => some.join(", "),
    };
    let why = "a core that has slowed down answers its first requests late: seen in p99 where load comes in bursts";
    let good = governors.iter().all(|governor| governor == "performance");
    Check::new("CPU governor", now, WANTED, advice_unless(good)).because(why, "cpupower frequency-set -g performance")
}

fn clock_source(machine: &Machine) -> Check {
    const PATH: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    const FAST: [&str; 4] = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"];
    let wanted = FAST[..2].join(" or ");
    let Some(now) = machine.text(PATH) else { return Check::unknown("clock source", wanted) };
    let good = FAST.contains(&now.as_str());
    let why = "the broker looks at the clock several times a request; this source needs the kernel for it, each time";
    Check::new("clock source", now, wanted, advice_unless(good)).because(why, format!("echo tsc > {PATH}"))
}

fn backlog(machine: &Machine) -> Check {
    const NAME: &str = "net.core.somaxconn";
    let wanted = format!("{SOMAXCONN_MIN} or more");
    let Some(now) = machine.number("/proc/sys/net/core/somaxconn") else { return Check::unknown(NAME, wanted) };
    let why = "it bounds socket.listen.backlog.size: when all clients come back at once, the rest wait seconds";
    Check::new(NAME, now.to_string(), wanted, advice_unless(now >= SOMAXCONN_MIN))
        .because(why, "sysctl -w net.core.somaxconn=4096")
}

/// The last of the three numbers: how far the kernel lets a socket's buffer grow.
fn socket_memory(machine: &Machine, name: &'static str, path: &str) -> Check {
    let wanted = format!("up to {} or more", bytes(SOCKET_BYTES_MIN));
    let Some([_, _, most]) = machine.numbers(path).and_then(|numbers| <[u64; 3]>::try_from(numbers).ok()) else {
        return Check::unknown(name, wanted);
    };
    let why = "the broker leaves socket buffers to the kernel; over a long way this bounds the rate of one connection";
    let key = name.rsplit('.').next().unwrap_or(name);
    Check::new(name, format!("up to {}", bytes(most)), wanted, advice_unless(most >= SOCKET_BYTES_MIN))
        .because(why, format!("sysctl -w net.ipv4.{key}=\"4096 131072 {}\"", 6 * MIB))
}
