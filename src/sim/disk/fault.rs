//! What can go wrong with a [`FakeDisk`](super::FakeDisk), and when.

#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Something to go wrong. As it stands, once, at the next operation of its kind anywhere; see [`Fault::under`],
/// [`Fault::at`] and [`Fault::lasting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An append fails with this kind after writing this many bytes (`StorageFull` is ENOSPC).
    Append { kind: ErrorKind, written: usize },
    /// A write of a small file fails; nothing is written.
    Write(ErrorKind),
    /// A write of a small file fails after this many bytes.
    ShortWrite { kind: ErrorKind, written: usize },
    /// A sync of a file fails, and what it should have made durable never will be.
    Sync(ErrorKind),
    /// An open fails.
    Open(ErrorKind),
    /// A read fails, of the page cache or of the device.
    Read(ErrorKind),
    /// A change of a file's length fails; nothing is changed.
    SetLength(ErrorKind),
    /// A replace fails in this step; what the steps before did is there.
    Replace { kind: ErrorKind, step: ReplaceStep },
    /// A sync of a directory fails; its names stay as uncertain as they were.
    SyncDirectory(ErrorKind),
    /// Any operation fails, and does nothing: a device that is gone.
    Any(ErrorKind),
}

/// The steps of [`Disk::replace`](crate::platform::Disk::replace), in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplaceStep {
    Create,
    Write,
    Sync,
    Rename,
    SyncDirectory,
}

impl ReplaceStep {
    pub const ALL: [ReplaceStep; 5] =
        [ReplaceStep::Create, ReplaceStep::Write, ReplaceStep::Sync, ReplaceStep::Rename, ReplaceStep::SyncDirectory];
}

/// A fault with its place and time.
#[derive(Clone, Debug)]
pub struct FaultRule {
    fault: Fault,
    /// Operations on what lies in this directory; everything lies in the empty path.
    directory: PathBuf,
    /// Operations of its kind that still go well.
    spared: u64,
    lasting: bool,
}

impl From<Fault> for FaultRule {
    fn from(fault: Fault) -> FaultRule {
        FaultRule { fault, directory: PathBuf::new(), spared: 0, lasting: false }
    }
}

impl Fault {
    /// Only on files in this directory, or on the one of this path.
    pub fn under(self, directory: impl Into<PathBuf>) -> FaultRule {
        FaultRule { directory: directory.into(), ..FaultRule::from(self) }
    }

    /// At the `nth` operation of its kind from now on; 1 is the next.
    pub fn at(self, nth: u64) -> FaultRule {
        FaultRule::from(self).at(nth)
    }

    /// From then on at every one, until [`FakeDisk::heal`](super::FakeDisk::heal).
    pub fn lasting(self) -> FaultRule {
        FaultRule::from(self).lasting()
    }

    fn strikes(&self, operation: Operation) -> bool {
        match self {
            Fault::Append { .. } => operation == Operation::Append,
            Fault::Write(_) | Fault::ShortWrite { .. } => operation == Operation::Write,
            Fault::Sync(_) => operation == Operation::Sync,
            Fault::Open(_) => operation == Operation::Open,
            Fault::Read(_) => matches!(
                operation,
                Operation::Read | Operation::ReadResident | Operation::MakeResident | Operation::ReadWhole
            ),
            Fault::SetLength(_) => operation == Operation::SetLength,
            Fault::Replace { .. } => operation == Operation::Replace,
            Fault::SyncDirectory(_) => operation == Operation::SyncDirectory,
            Fault::Any(_) => true,
        }
    }
}

impl FaultRule {
    pub fn at(mut self, nth: u64) -> FaultRule {
        self.spared = nth.saturating_sub(1);
        self
    }

    pub fn lasting(mut self) -> FaultRule {
        self.lasting = true;
        self
    }
}

/// What [`Disk`](crate::platform::Disk) can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    ReadResident,
    IsResident,
    Append,
    MakeResident,
    Read,
    Open,
    Write,
    SetLength,
    Preallocate,
    Sync,
    Replace,
    ReadWhole,
    List,
    CreateDirectory,
    RemoveFile,
    RemoveDirectory,
    Rename,
    Space,
    SyncDirectory,
    CacheLife,
}

impl Operation {
    /// The method's name.
    pub fn name(self) -> &'static str {
        match self {
            Operation::ReadResident => "read_resident",
            Operation::IsResident => "is_resident",
            Operation::Append => "append",
            Operation::MakeResident => "make_resident",
            Operation::Read => "read",
            Operation::Open => "open",
            Operation::Write => "write",
            Operation::SetLength => "set_length",
            Operation::Preallocate => "preallocate",
            Operation::Sync => "sync",
            Operation::Replace => "replace",
            Operation::ReadWhole => "read_whole",
            Operation::List => "list",
            Operation::CreateDirectory => "create_directory",
            Operation::RemoveFile => "remove_file",
            Operation::RemoveDirectory => "remove_directory",
            Operation::Rename => "rename",
            Operation::Space => "space",
            Operation::SyncDirectory => "sync_directory",
            Operation::CacheLife => "cache_life",
        }
    }
}

/// How long the operations of a directory take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// This much of the simulated time.
    For(Duration),
    /// Until [`FakeDisk::release`](super::FakeDisk::release).
    Hang,
}

/// The faults that wait for their operation.
#[derive(Default)]
pub(super) struct Faults(Vec<FaultRule>);

impl Faults {
    pub fn add(&mut self, rule: FaultRule) {
        self.0.push(rule);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What goes wrong with this operation: the oldest rule that it falls under.
    pub fn strike(&mut self, operation: Operation, path: &Path) -> Option<Fault> {
        let mut struck = None;
        for (at, rule) in self.0.iter_mut().enumerate() {
            if !rule.fault.strikes(operation) || !path.starts_with(&rule.directory) {
                continue;
            }
            match rule.spared.checked_sub(1) {
                Some(spared) => rule.spared = spared,
                None => {
                    struck = Some(at);
                    break;
                }
            }
        }
        let at = struck?;
        Some(if self.0[at].lasting { self.0[at].fault } else { self.0.remove(at).fault })
    }
}
