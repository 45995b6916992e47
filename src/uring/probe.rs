//! The start-up look at the kernel: can this process have the ring that shards need, and if not, why and what to do.

use std::io;

use io_uring::{IoUring, Probe, opcode};

/// Why shards cannot run here. Each message names the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(
        "io_uring is switched off on this machine (kernel.io_uring_disabled = {0}); allow it with: sysctl -w kernel.io_uring_disabled=0"
    )]
    Disabled(String),
    #[error(
        "the kernel refuses io_uring to this process (EPERM): a seccomp profile forbids io_uring_setup, io_uring_enter and io_uring_register; in a container run with a profile that allows them (docker: --security-opt seccomp=unconfined)"
    )]
    Forbidden,
    #[error("this kernel ({0}) has no io_uring, or one without what ringlog needs; run Linux 6.1 or newer")]
    TooOld(String),
    #[error(
        "no memory may be locked for io_uring (RLIMIT_MEMLOCK is {limit} bytes); raise it with: ulimit -l unlimited, or LimitMEMLOCK=infinity in the systemd unit"
    )]
    Memlock { limit: u64 },
    #[error("io_uring could not be set up: {0}")]
    Other(#[source] io::Error),
}

/// Makes a ring like a shard's, and throws it away.
///
/// # Errors
/// One [`Refused`] that says what stands in the way.
pub fn check() -> Result<(), Refused> {
    let ring = super::Ring::new(8).map_err(explain)?;
    drop(ring);
    let plain = IoUring::new(2).map_err(explain)?;
    let mut probe = Probe::new();
    plain.submitter().register_probe(&mut probe).map_err(explain)?;
    let needed = [
        opcode::AcceptMulti::CODE,
        opcode::RecvMulti::CODE,
        opcode::Send::CODE,
        opcode::Connect::CODE,
        opcode::Fadvise::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
        opcode::Read::CODE,
        opcode::Write::CODE,
    ];
    if needed.iter().all(|&code| probe.is_supported(code)) { Ok(()) } else { Err(Refused::TooOld(kernel_release())) }
}

/// Turns what the kernel said at set-up into a cause and a remedy.
pub fn explain(error: io::Error) -> Refused {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => match disabled_setting() {
            Some(value) if value != "0" => Refused::Disabled(value),
            _ => Refused::Forbidden,
        },
        Some(libc::ENOSYS | libc::EINVAL) => Refused::TooOld(kernel_release()),
        Some(libc::ENOMEM) => Refused::Memlock { limit: memlock_limit() },
        _ => Refused::Other(error),
    }
}

fn disabled_setting() -> Option<String> {
    Some(std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().to_owned())
}

fn kernel_release() -> String {
    nix::sys::utsname::uname().map_or_else(|_| "unknown".to_owned(), |name| name.release().to_string_lossy().into())
}

fn memlock_limit() -> u64 {
    nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_the_kernel_names_its_cause_and_a_remedy() {
        let seen = |errno| explain(io::Error::from_raw_os_error(errno)).to_string();
        assert!(seen(libc::EPERM).contains("seccomp") || seen(libc::EPERM).contains("sysctl"));
        assert!(seen(libc::EINVAL).contains("6.1"));
        assert!(seen(libc::ENOSYS).contains("6.1"));
        assert!(seen(libc::ENOMEM).contains("ulimit -l"));
        assert!(Refused::Disabled("2".into()).to_string().contains("sysctl -w kernel.io_uring_disabled=0"));
    }
}
