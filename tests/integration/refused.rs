//! Starts that the kernel refuses: one message that names the cause and the remedy, and nothing else happens.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use crate::server::{data_path, directory};

/// A seccomp filter under which `io_uring_setup` fails with `errno`, as in a container whose profile forbids it
/// (EPERM) or on a kernel that does not have it (ENOSYS).
fn without_io_uring(errno: i32) -> [libc::sock_filter; 4] {
    let statement = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    [
        // The system call's number is the first word of seccomp_data.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_io_uring_setup as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

/// Starts a broker under the filter and waits for its end.
fn start_without_io_uring(errno: i32) -> (Output, bool) {
    let directory = directory();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog"));
    command.args(["serve", "--set", "listeners=PLAINTEXT://127.0.0.1:0", "--data"]).arg(data_path(directory.path()));
    let mut filter = without_io_uring(errno);
    let forbid = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: two system calls that take memory of this closure, which they only read; nothing is allocated
        // between fork and exec.
        let refused = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
        };
        if refused { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: see above.
    unsafe { command.pre_exec(forbid) };
    let output = command.stdin(Stdio::null()).output().expect("a process");
    (output, data_path(directory.path()).exists())
}

fn assert_refused(errno: i32, cause_and_remedy: &[&str]) {
    let (output, made_directory) = start_without_io_uring(errno);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.starts_with("ringlog: "), "{message}");
    for part in cause_and_remedy {
        assert!(message.contains(part), "{message}");
    }
    assert!(output.stdout.is_empty() && !made_directory, "nothing was begun");
}

#[test]
fn a_container_that_forbids_io_uring_is_told_which_calls_to_allow() {
    assert_refused(libc::EPERM, &["seccomp", "io_uring_setup", "--security-opt"]);
}

#[test]
fn a_kernel_without_io_uring_is_told_which_one_to_run() {
    assert_refused(libc::ENOSYS, &["Linux 6.1 or newer"]);
}
