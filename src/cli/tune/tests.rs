use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::cli::serve;

/// A tree of `/proc` and `/sys` where all is well: an NVMe disk with a partition on which /data lies.
struct Fake(tempfile::TempDir);

const QUEUE: &str = "sys/devices/pci/nvme0n1/queue";

impl Fake {
    fn new() -> Fake {
        let fake = Fake(tempfile::tempdir().unwrap());
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "6.12.3-amd64\n"),
            ("proc/sys/kernel/io_uring_disabled", "0\n"),
            ("proc/meminfo", "MemTotal:       67108864 kB\nMemFree: 1 kB\nMemAvailable:   62914560 kB\n"),
            ("proc/sys/vm/dirty_background_bytes", "0\n"),
            ("proc/sys/vm/dirty_background_ratio", "10\n"),
            ("proc/sys/vm/dirty_bytes", "0\n"),
            ("proc/sys/vm/dirty_ratio", "20\n"),
            ("proc/sys/vm/swappiness", "1\n"),
            ("proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n"),
            ("proc/self/limits", LIMITS),
            ("proc/self/mountinfo", MOUNTS),
            ("proc/sys/net/core/somaxconn", "4096\n"),
            ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
            ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n"),
            ("sys/devices/pci/nvme0n1/nvme0n1p1/partition", "1\n"),
        ] {
            fake.write(path, text);
        }
        fake.write(&format!("{QUEUE}/scheduler"), "[none] mq-deadline kyber bfq\n");
        fake.write(&format!("{QUEUE}/rotational"), "0\n");
        fake.write(&format!("{QUEUE}/read_ahead_kb"), "4096\n");
        let blocks = fake.0.path().join("sys/dev/block");
        fs::create_dir_all(&blocks).unwrap();
        symlink("../../devices/pci/nvme0n1/nvme0n1p1", blocks.join("259:1")).unwrap();
        fake
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.0.path().join(path)).unwrap();
    }

    fn machine(&self) -> Machine {
        Machine::at(self.0.path(), 8, Path::new("/data/ringlog"))
    }

    fn check(&self, name: &str) -> Check {
        let checks = checks::all(&self.machine());
        checks.into_iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check {name}"))
    }
}

const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 524288               files
Max locked memory         8388608              unlimited            bytes
";

const MOUNTS: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 27 0:40 / /data rw,relatime - tmpfs tmpfs rw
31 27 259:1 / /data rw,noatime shared:1 - xfs /dev/nvme0n1p1 rw,attr2
";

#[test]
fn a_machine_where_all_is_well_has_nothing_to_do() {
    let fake = Fake::new();
    for check in checks::all(&fake.machine()) {
        assert_eq!(check.state, State::Ok, "{check:?}");
        assert!(check.why.is_empty() && check.command.is_none(), "{check:?}");
    }
    assert_eq!(fake.check("file system").now, "xfs at /data");
    assert_eq!(fake.check("I/O scheduler").now, "none (nvme0n1)");
    assert_eq!(fake.check("open files").now, "524288");
    assert_eq!(fake.check("vm.dirty_background").now, "6.0 GiB");
}

#[test]
fn each_thing_that_is_not_as_it_should_be_is_named_with_reason_and_command() {
    use State::{Advice, Problem};
    let cases: &[(&str, &str, &str, State, &str)] = &[
        ("kernel", "proc/sys/kernel/osrelease", "5.15.0-91", Problem, "kernel"),
        ("kernel", "proc/sys/kernel/osrelease", "6.1.0-18", Advice, "kernel"),
        ("kernel.io_uring_disabled", "proc/sys/kernel/io_uring_disabled", "2", Problem, "io_uring_disabled=0"),
        ("file system", "proc/self/mountinfo", "1 0 0:3 / / rw - tmpfs x rw", Problem, "mkfs"),
        ("file system", "proc/self/mountinfo", "1 0 0:3 / / rw - nfs4 x rw", Problem, "mkfs"),
        ("file system", "proc/self/mountinfo", "1 0 0:3 / / rw - btrfs x rw", Advice, "mkfs"),
        ("mount options", "proc/self/mountinfo", "1 0 8:1 / / rw,relatime - ext4 x rw", Advice, "remount,noatime /"),
        ("mount options", "proc/self/mountinfo", "1 0 8:1 / / ro,noatime - ext4 x ro", Problem, "remount,rw"),
        ("mount options", "proc/self/mountinfo", "1 0 8:1 / / rw,noatime - ext4 x rw,nobarrier", Problem, "barrier"),
        (
            "I/O scheduler",
            "sys/devices/pci/nvme0n1/queue/scheduler",
            "none [bfq]",
            Advice,
            "echo none > /sys/block/nvme0n1",
        ),
        (
            "read-ahead",
            "sys/devices/pci/nvme0n1/queue/read_ahead_kb",
            "128",
            Advice,
            "/sys/block/nvme0n1/queue/read_ahead_kb",
        ),
        ("vm.dirty_background", "proc/sys/vm/dirty_background_bytes", "16777216", Advice, "dirty_background"),
        ("vm.dirty", "proc/sys/vm/dirty_ratio", "12", Advice, "vm.dirty_ratio"),
        ("vm.swappiness", "proc/sys/vm/swappiness", "60", Advice, "vm.swappiness=1"),
        ("open files", "proc/self/limits", "Max open files 1024 1024 files", Problem, "LimitNOFILE"),
        ("open files", "proc/self/limits", "Max open files 1024 20000 files", Advice, "LimitNOFILE"),
        ("CPU governor", "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave", Advice, "cpupower"),
        ("clock source", "sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet", Advice, "echo tsc"),
        ("net.core.somaxconn", "proc/sys/net/core/somaxconn", "128", Advice, "net.core.somaxconn"),
        ("net.ipv4.tcp_rmem", "proc/sys/net/ipv4/tcp_rmem", "4096 87380 212992", Advice, "net.ipv4.tcp_rmem="),
    ];
    for (name, path, text, state, command) in cases {
        let fake = Fake::new();
        fake.write(path, text);
        let check = fake.check(name);
        assert_eq!(check.state, *state, "{check:?}");
        assert!(
            !check.why.is_empty() && check.command.as_ref().is_some_and(|text| text.contains(command)),
            "{check:?}"
        );
        let told = check.json();
        assert_eq!((told["check"].as_str(), told["state"].as_str()), (Some(*name), Some(state.name())));
    }
}

#[test]
fn what_cannot_be_read_is_said_and_is_no_problem() {
    let fake = Fake::new();
    let empty = tempfile::tempdir().unwrap();
    let unread = Machine::at(empty.path(), 8, Path::new("/data"));
    for check in checks::all(&unread) {
        assert!(matches!(check.state, State::Unknown | State::Ok), "{check:?}");
    }
    assert!(flags::text(&unread, None).contains("\nshards 8\n"));
    // Older kernels do not have the switch; a machine without frequencies to choose has no governor.
    fake.remove("proc/sys/kernel/io_uring_disabled");
    assert_eq!(fake.check("kernel.io_uring_disabled").state, State::Ok);
    fake.write("proc/self/mountinfo", "1 0 0:3 / / rw,noatime - overlay x rw");
    assert_eq!((fake.check("I/O scheduler").state, fake.check("read-ahead").state), (State::Unknown, State::Unknown));
}

#[test]
fn written_flags_fit_the_machine_and_serve_takes_them() {
    let fake = Fake::new();
    let text = flags::text(&fake.machine(), Some(Path::new("/data/ringlog")));
    let flags: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let expected =
        ["data /data/ringlog", "shards 8", "dirty-bytes-max 2048m", "open-segments-max 131072", "cold-bytes-max 16m"];
    assert_eq!(flags, expected);
    let head = text.lines().next().unwrap();
    assert!(head.contains("8 cores, 64.0 GiB of memory, xfs on nvme0n1, Linux 6.12.3-amd64"), "{head}");
    for (line, next) in text.lines().zip(text.lines().skip(1)) {
        assert!(flags.contains(&line) || !flags.contains(&next) || line.starts_with("# "), "{next} has no reason");
    }

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ringlog.flags");
    let this = flags::text(&Machine::this(directory.path()), Some(directory.path()));
    for text in [&text, &this] {
        fs::write(&path, text).unwrap();
        let read = serve::read_flag_file(&path).unwrap();
        let arguments = ["ringlog", "serve"].map(Into::into).into_iter().chain(read.into_iter().map(Into::into));
        assert!(matches!(crate::cli::parse(arguments), Ok(crate::cli::Command::Serve(_))), "{text}");
    }
}

#[test]
fn a_file_that_is_there_is_not_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("flags");
    let arguments = WriteFlagsArguments { data: None, output: Some(output.clone()) };
    write_flags(&arguments).unwrap();
    let written = fs::read_to_string(&output).unwrap();
    assert!(matches!(write_flags(&arguments), Err(Failure::Refused(_))));
    assert_eq!(fs::read_to_string(&output).unwrap(), written);
}
