//! Files in memory that know written from synced, cached from cold, and fail when they are told to.
//!
//! Two ways to end a process: [`FakeDisk::restart`] keeps what was written (a kill), [`FakeDisk::power_cut`] keeps what was
//! synced and, by its seed, any part of the rest: a write may be there, missing, torn or zeroed; of a directory's
//! changes a prefix, in order, since file systems journal them. Both give a new disk, so that whatever the old process
//! left running can touch nothing.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

use crate::platform::{DirectoryEntry, Disk, DiskFile, OpenMode, Space};

const PAGE_BYTES: u64 = 4096;
/// Room on the disk; nothing uses it up.
const SPACE_BYTES: u64 = 1 << 40;
/// What a device writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Something to go wrong, once, at the next operation of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next append fails with this kind after writing this many bytes (`StorageFull` is ENOSPC).
    Append { kind: ErrorKind, written: usize },
    /// The next write of a small file fails; nothing is written.
    Write(ErrorKind),
    /// The next sync of a file fails, and what it should have made durable never will be.
    Sync(ErrorKind),
    /// The next open fails.
    Open(ErrorKind),
}

/// Awaited before every operation that need not complete at once: the simulator orders completions with it.
pub type Pause = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = ()>>>>;

/// A disk of one simulated machine. Clones share it.
#[derive(Clone)]
pub struct FakeDisk {
    world: Arc<Mutex<World>>,
    pause: Option<Pause>,
}

/// An open file. It stays readable when its name is gone.
pub struct FakeFile {
    inode: SharedInode,
}

impl DiskFile for FakeFile {}

impl fmt::Debug for FakeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FakeFile({} bytes)", lock(&self.inode).data.len())
    }
}

impl FakeFile {
    /// The bytes a sendfile of this range would send; fewer at the end of the file.
    pub fn bytes_at(&self, position: u64, length: u64) -> Vec<u8> {
        lock(&self.inode).slice(position, length).to_vec()
    }
}

#[derive(Clone)]
enum Node {
    Directory,
    File(SharedInode),
}

type SharedInode = Arc<Mutex<Inode>>;
type Names = BTreeMap<PathBuf, Node>;

#[derive(Default)]
struct World {
    names: Names,
    /// The names that a power cut leaves, whatever its seed.
    durable_names: Names,
    /// Changes of names since, oldest first.
    name_changes: Vec<NameChange>,
    faults: VecDeque<Fault>,
    counts: BTreeMap<&'static str, u64>,
}

/// A change in one directory.
#[derive(Clone)]
enum NameChange {
    Put { path: PathBuf, node: Node },
    Remove { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
}

#[derive(Clone, Default)]
struct Inode {
    data: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
    evicted_pages: BTreeSet<u64>,
}

#[derive(Clone)]
struct Change {
    kind: ChangeKind,
    /// A sync failed over it: no later sync makes it durable.
    sync_failed: bool,
}

#[derive(Clone)]
enum ChangeKind {
    Write { position: usize, data: Vec<u8> },
    SetLength(usize),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

/// Seeded numbers (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

impl Inode {
    fn slice(&self, position: u64, length: u64) -> &[u8] {
        let end = position.saturating_add(length).min(self.data.len() as u64) as usize;
        &self.data[(position as usize).min(end)..end]
    }

    fn change(&mut self, kind: ChangeKind) {
        if let ChangeKind::Write { position, data } = &kind {
            let pages = *position as u64 / PAGE_BYTES..=(position + data.len()) as u64 / PAGE_BYTES;
            self.evicted_pages.retain(|page| !pages.contains(page));
        }
        kind.apply(&mut self.data);
        self.changes.push(Change { kind, sync_failed: false });
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            match change.sync_failed {
                true => self.changes.push(change),
                false => change.kind.apply(&mut self.durable),
            }
        }
    }

    /// Bytes from `position` that are in the page cache, at most `length`, and not past the end.
    fn resident_bytes(&self, position: u64, length: u64) -> u64 {
        let end = position.saturating_add(length).min(self.data.len() as u64);
        let cold = self.evicted_pages.range(position / PAGE_BYTES..).next();
        let warm_end = cold.map_or(end, |page| (page * PAGE_BYTES).max(position)).min(end);
        warm_end.saturating_sub(position)
    }

    fn evict(&mut self) {
        self.evicted_pages = (0..=self.data.len() as u64 / PAGE_BYTES).collect();
    }

    /// What a power cut leaves of the file.
    fn after_power_cut(&self, dice: &mut Dice) -> Inode {
        let mut data = self.durable.clone();
        for change in &self.changes {
            match (dice.below(4), &change.kind) {
                (0, _) => {}
                (1, ChangeKind::Write { position, data: written }) => {
                    let sectors = dice.below((written.len() / SECTOR_BYTES + 1) as u64) as usize;
                    write_at(&mut data, *position, &written[..sectors * SECTOR_BYTES]);
                }
                (2, ChangeKind::Write { position, data: written }) => {
                    write_at(&mut data, *position, &vec![0; written.len()]);
                }
                (_, kind) => kind.apply(&mut data),
            }
        }
        let mut inode = Inode { durable: data.clone(), data, ..Inode::default() };
        inode.evict();
        inode
    }
}

impl ChangeKind {
    fn apply(&self, data: &mut Vec<u8>) {
        match self {
            ChangeKind::Write { position, data: written } => write_at(data, *position, written),
            ChangeKind::SetLength(length) => data.resize(*length, 0),
        }
    }
}

fn write_at(data: &mut Vec<u8>, position: usize, written: &[u8]) {
    let end = position + written.len();
    if data.len() < end {
        data.resize(end, 0);
    }
    data[position..end].copy_from_slice(written);
}

impl NameChange {
    fn directory(&self) -> PathBuf {
        match self {
            NameChange::Put { path, .. } | NameChange::Remove { path } => parent(path),
            NameChange::Rename { to, .. } => parent(to),
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            NameChange::Put { path, node } => {
                let has_parent = matches!(names.get(&parent(path)), Some(Node::Directory));
                if has_parent || path.parent().is_none_or(|parent| parent.parent().is_none()) {
                    names.insert(path.clone(), node.clone());
                }
            }
            NameChange::Remove { path } => names.retain(|name, _| !name.starts_with(path)),
            NameChange::Rename { from, to } => {
                let moved: Vec<_> = names.keys().filter(|name| name.starts_with(from)).cloned().collect();
                if !moved.is_empty() {
                    names.retain(|name, _| !name.starts_with(to));
                }
                for name in moved {
                    if let (Some(node), Ok(rest)) = (names.remove(&name), name.strip_prefix(from)) {
                        let target = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                        names.insert(target, node);
                    }
                }
            }
        }
    }
}

impl World {
    fn count(&mut self, operation: &'static str) {
        *self.counts.entry(operation).or_default() += 1;
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn sync_directory(&mut self, path: &Path) {
        for change in std::mem::take(&mut self.name_changes) {
            match change.directory() == path {
                true => change.apply(&mut self.durable_names),
                false => self.name_changes.push(change),
            }
        }
    }

    fn file(&self, path: &Path) -> io::Result<SharedInode> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(inode.clone()),
            Some(Node::Directory) => Err(io::Error::new(ErrorKind::IsADirectory, path.display().to_string())),
            None => Err(not_found(path)),
        }
    }

    fn create_file(&mut self, path: &Path) -> io::Result<SharedInode> {
        if !matches!(self.names.get(&parent(path)), Some(Node::Directory)) {
            return Err(not_found(&parent(path)));
        }
        let inode = Arc::new(Mutex::new(Inode::default()));
        self.change_names(NameChange::Put { path: path.to_owned(), node: Node::File(inode.clone()) });
        Ok(inode)
    }

    fn create_directories(&mut self, path: &Path) {
        let missing: Vec<_> = path.ancestors().filter(|ancestor| !self.names.contains_key(*ancestor)).collect();
        for ancestor in missing.into_iter().rev() {
            self.change_names(NameChange::Put { path: ancestor.to_owned(), node: Node::Directory });
            self.sync_directory(&parent(ancestor));
        }
    }

    /// The fault that `matches` wants, taken out of the queue.
    fn take_fault(&mut self, matches: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let at = self.faults.iter().position(matches)?;
        self.faults.remove(at)
    }
}

impl Default for FakeDisk {
    fn default() -> FakeDisk {
        FakeDisk::new()
    }
}

impl FakeDisk {
    pub fn new() -> FakeDisk {
        FakeDisk { world: Arc::default(), pause: None }
    }

    /// The same disk for a shard whose operations wait for `pause` first.
    pub fn with_pause(&self, pause: Pause) -> FakeDisk {
        FakeDisk { world: self.world.clone(), pause: Some(pause) }
    }

    /// Queues a fault; each is reported once.
    pub fn inject(&self, fault: Fault) {
        lock(&self.world).faults.push_back(fault);
    }

    /// How often each operation was asked for.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.world).counts.clone()
    }

    /// Throws a file's pages out of the cache.
    pub fn evict(&self, path: &Path) -> io::Result<()> {
        let inode = lock(&self.world).file(path)?;
        lock(&inode).evict();
        Ok(())
    }

    /// A file's bytes as a reader of the page cache sees them.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let inode = lock(&self.world).file(path)?;
        let inode = lock(&inode);
        Ok(inode.data.clone())
    }

    /// Puts a durable file there, with the directories above it.
    pub fn put(&self, path: &Path, data: &[u8]) {
        let mut world = lock(&self.world);
        let directory = parent(path);
        world.create_directories(&directory);
        let inode = Inode { data: data.to_vec(), durable: data.to_vec(), ..Inode::default() };
        world.change_names(NameChange::Put { path: path.to_owned(), node: Node::File(Arc::new(Mutex::new(inode))) });
        world.sync_directory(&directory);
    }

    /// All files, sorted by path.
    pub fn paths(&self) -> Vec<PathBuf> {
        let world = lock(&self.world);
        world.names.iter().filter(|(_, node)| matches!(node, Node::File(_))).map(|(path, _)| path.clone()).collect()
    }

    /// The machine as the next process finds it after this one was killed.
    pub fn restart(&self) -> FakeDisk {
        self.reborn(|_, inode| inode.clone(), |world| (world.names.clone(), world.name_changes.clone()))
    }

    /// The machine as it comes up after the power went: see the module's head.
    pub fn power_cut(&self, seed: u64) -> FakeDisk {
        let mut dice = Dice(seed);
        let mut survived = Dice(seed ^ 0x5bd1_e995);
        self.reborn(
            move |_, inode| inode.after_power_cut(&mut dice),
            move |world| {
                let mut names = world.durable_names.clone();
                let mut lost = BTreeSet::new();
                for change in &world.name_changes {
                    if survived.below(2) == 0 {
                        lost.insert(change.directory());
                    }
                    if !lost.contains(&change.directory()) {
                        change.apply(&mut names);
                    }
                }
                (names, Vec::new())
            },
        )
    }

    /// A new world with copies of this one's files.
    fn reborn(
        &self,
        mut copy: impl FnMut(&Path, &Inode) -> Inode,
        names: impl FnOnce(&World) -> (Names, Vec<NameChange>),
    ) -> FakeDisk {
        let old = lock(&self.world);
        let (names, name_changes) = names(&old);
        let mut copies: Vec<(SharedInode, SharedInode)> = Vec::new();
        let mut renew = |path: &Path, node: &Node| match node {
            Node::Directory => Node::Directory,
            Node::File(inode) => match copies.iter().find(|(from, _)| Arc::ptr_eq(from, inode)) {
                Some((_, to)) => Node::File(to.clone()),
                None => {
                    let to = Arc::new(Mutex::new(copy(path, &lock(inode))));
                    copies.push((inode.clone(), to.clone()));
                    Node::File(to)
                }
            },
        };
        let new_names: Names = names.iter().map(|(path, node)| (path.clone(), renew(path, node))).collect();
        let durable_names = match name_changes.is_empty() {
            true => new_names.clone(),
            false => old.durable_names.iter().map(|(path, node)| (path.clone(), renew(path, node))).collect(),
        };
        let name_changes = name_changes
            .into_iter()
            .map(|change| match change {
                NameChange::Put { path, node } => NameChange::Put { node: renew(&path, &node), path },
                other => other,
            })
            .collect();
        let world = World { names: new_names, durable_names, name_changes, ..World::default() };
        FakeDisk { world: Arc::new(Mutex::new(world)), pause: None }
    }

    /// An operation that waits for the pause, is counted, and then happens at once.
    fn operation<T: 'static>(
        &self,
        name: &'static str,
        act: impl FnOnce(&mut World) -> io::Result<T> + 'static,
    ) -> impl Future<Output = io::Result<T>> + 'static {
        let (world, pause) = (self.world.clone(), self.pause.clone());
        async move {
            if let Some(pause) = pause {
                pause().await;
            }
            let mut world = lock(&world);
            world.count(name);
            act(&mut world)
        }
    }
}

impl Disk for FakeDisk {
    type File = FakeFile;

    fn read_resident(&self, file: &FakeFile, position: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        lock(&self.world).count("read_resident");
        let inode = lock(&file.inode);
        let at_end = position >= inode.data.len() as u64;
        let count = inode.resident_bytes(position, buffer.len() as u64);
        if count == 0 && !at_end && !buffer.is_empty() {
            return Ok(None);
        }
        let bytes = inode.slice(position, count);
        buffer[..bytes.len()].copy_from_slice(bytes);
        Ok(Some(bytes.len()))
    }

    fn is_resident(&self, file: &FakeFile, position: u64, length: u64) -> bool {
        lock(&self.world).count("is_resident");
        let inode = lock(&file.inode);
        inode.resident_bytes(position, length) == inode.slice(position, length).len() as u64
    }

    fn append(
        &self,
        file: &Arc<FakeFile>,
        position: u64,
        data: Vec<BytesMut>,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let file = file.clone();
        self.operation("append", move |world| {
            let fault = world.take_fault(|fault| matches!(fault, Fault::Append { .. }));
            let mut data = data.concat();
            if let Some(Fault::Append { written, .. }) = fault {
                data.truncate(written);
            }
            lock(&file.inode).change(ChangeKind::Write { position: position as usize, data });
            match fault {
                Some(Fault::Append { kind, .. }) => Err(kind.into()),
                _ => Ok(()),
            }
        })
    }

    fn make_resident(
        &self,
        file: &Arc<FakeFile>,
        position: u64,
        length: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let file = file.clone();
        self.operation("make_resident", move |_| {
            let pages = position / PAGE_BYTES..=position.saturating_add(length) / PAGE_BYTES;
            lock(&file.inode).evicted_pages.retain(|page| !pages.contains(page));
            Ok(())
        })
    }

    fn read(
        &self,
        file: &Arc<FakeFile>,
        position: u64,
        length: usize,
    ) -> impl Future<Output = io::Result<BytesMut>> + 'static {
        let file = file.clone();
        self.operation("read", move |_| Ok(BytesMut::from(lock(&file.inode).slice(position, length as u64))))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<(Arc<FakeFile>, u64)>> + 'static {
        let path = path.to_owned();
        self.operation("open", move |world| {
            if let Some(Fault::Open(kind)) = world.take_fault(|fault| matches!(fault, Fault::Open(_))) {
                return Err(kind.into());
            }
            let inode = match (world.file(&path), mode) {
                (Ok(_), OpenMode::CreateNew) => return Err(ErrorKind::AlreadyExists.into()),
                (Err(error), OpenMode::Read) => return Err(error),
                (Err(error), _) if error.kind() != ErrorKind::NotFound => return Err(error),
                (Err(_), _) => world.create_file(&path)?,
                (Ok(inode), _) => inode,
            };
            let length = lock(&inode).data.len() as u64;
            Ok((Arc::new(FakeFile { inode }), length))
        })
    }

    fn write(
        &self,
        file: &Arc<FakeFile>,
        position: u64,
        data: Vec<u8>,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let file = file.clone();
        self.operation("write", move |world| {
            if let Some(Fault::Write(kind)) = world.take_fault(|fault| matches!(fault, Fault::Write(_))) {
                return Err(kind.into());
            }
            lock(&file.inode).change(ChangeKind::Write { position: position as usize, data });
            Ok(())
        })
    }

    fn set_length(&self, file: &Arc<FakeFile>, length: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = file.clone();
        self.operation("set_length", move |_| {
            lock(&file.inode).change(ChangeKind::SetLength(length as usize));
            Ok(())
        })
    }

    fn preallocate(
        &self,
        _file: &Arc<FakeFile>,
        _position: u64,
        _length: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        self.operation("preallocate", |_| Ok(()))
    }

    fn sync(&self, file: &Arc<FakeFile>) -> impl Future<Output = io::Result<()>> + 'static {
        let file = file.clone();
        self.operation("sync", move |world| {
            let mut inode = lock(&file.inode);
            if let Some(Fault::Sync(kind)) = world.take_fault(|fault| matches!(fault, Fault::Sync(_))) {
                inode.changes.iter_mut().for_each(|change| change.sync_failed = true);
                return Err(kind.into());
            }
            inode.sync();
            Ok(())
        })
    }

    fn replace(&self, path: &Path, data: Vec<u8>) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.operation("replace", move |world| {
            let directory = parent(&path);
            if !matches!(world.names.get(&directory), Some(Node::Directory)) {
                return Err(not_found(&directory));
            }
            let inode = Inode { data: data.clone(), durable: data, ..Inode::default() };
            world.change_names(NameChange::Put { path, node: Node::File(Arc::new(Mutex::new(inode))) });
            world.sync_directory(&directory);
            Ok(())
        })
    }

    fn read_whole(&self, path: &Path, length_max: usize) -> impl Future<Output = io::Result<Vec<u8>>> + 'static {
        let path = path.to_owned();
        self.operation("read_whole", move |world| {
            let inode = world.file(&path)?;
            let inode = lock(&inode);
            match inode.data.len() > length_max {
                true => Err(io::Error::new(ErrorKind::InvalidData, format!("longer than {length_max} bytes"))),
                false => Ok(inode.data.clone()),
            }
        })
    }

    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirectoryEntry>>> + 'static {
        let path = path.to_owned();
        self.operation("list", move |world| {
            if !matches!(world.names.get(&path), Some(Node::Directory)) {
                return Err(not_found(&path));
            }
            let inside = world.names.iter().filter(|(name, _)| name.parent() == Some(&path));
            let mut entries: Vec<_> = inside
                .filter_map(|(name, node)| {
                    let name = name.file_name()?.to_string_lossy().into_owned();
                    Some(match node {
                        Node::Directory => DirectoryEntry { name, is_directory: true, length: 0 },
                        Node::File(inode) => {
                            DirectoryEntry { name, is_directory: false, length: lock(inode).data.len() as u64 }
                        }
                    })
                })
                .collect();
            entries.sort_by(|left, right| left.name.cmp(&right.name));
            Ok(entries)
        })
    }

    fn create_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.operation("create_directory", move |world| {
            world.create_directories(&path);
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.operation("remove_file", move |world| {
            world.file(&path)?;
            world.change_names(NameChange::Remove { path });
            Ok(())
        })
    }

    fn remove_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.operation("remove_directory", move |world| {
            if !matches!(world.names.get(&path), Some(Node::Directory)) {
                return Err(not_found(&path));
            }
            world.change_names(NameChange::Remove { path });
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.operation("rename", move |world| {
            if !world.names.contains_key(&from) {
                return Err(not_found(&from));
            }
            world.change_names(NameChange::Rename { from, to });
            Ok(())
        })
    }

    fn space(&self, _path: &Path) -> impl Future<Output = io::Result<Space>> + 'static {
        self.operation("space", |_| Ok(Space { free_bytes: SPACE_BYTES, total_bytes: SPACE_BYTES }))
    }

    fn sync_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.operation("sync_directory", move |world| {
            world.sync_directory(&path);
            Ok(())
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Runs a future that nothing outside wakes.
    pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
        let mut future = Box::pin(future);
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return value;
            }
        }
    }

    fn disk_with_file(data: &[u8]) -> (FakeDisk, Arc<FakeFile>, PathBuf) {
        let disk = FakeDisk::new();
        let path = PathBuf::from("/d/file");
        disk.put(&path, data);
        let (file, length) = run(disk.open(&path, OpenMode::ReadWrite)).unwrap();
        assert_eq!(length, data.len() as u64);
        (disk, file, path)
    }

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_a_restart_what_was_written() {
        let (disk, file, path) = disk_with_file(b"old");
        run(disk.append(&file, 3, vec![BytesMut::from("synced")])).unwrap();
        run(disk.sync(&file)).unwrap();
        run(disk.append(&file, 9, vec![BytesMut::from("not")])).unwrap();
        assert_eq!(disk.restart().contents(&path).unwrap(), b"oldsyncednot");
        let mut seen = BTreeSet::new();
        for seed in 0..64 {
            let contents = disk.power_cut(seed).contents(&path).unwrap();
            assert!(contents.starts_with(b"oldsynced"));
            seen.insert(contents);
        }
        assert!(seen.len() >= 3, "kept, lost and zeroed were all seen");
    }

    #[test]
    fn an_unsynced_name_may_vanish_and_a_synced_one_may_not() {
        let (disk, _, _) = disk_with_file(b"");
        let path = PathBuf::from("/d/new");
        run(disk.open(&path, OpenMode::CreateNew)).unwrap();
        let there = |disk: &FakeDisk| (0..32).filter(|seed| disk.power_cut(*seed).contents(&path).is_ok()).count();
        assert!((1..32).contains(&there(&disk)));
        run(disk.sync_directory(Path::new("/d"))).unwrap();
        assert_eq!(there(&disk), 32);
    }

    #[test]
    fn data_that_a_sync_failed_over_never_becomes_durable() {
        let (disk, file, path) = disk_with_file(b"");
        run(disk.append(&file, 0, vec![BytesMut::from("lost")])).unwrap();
        disk.inject(Fault::Sync(ErrorKind::Other));
        assert!(run(disk.sync(&file)).is_err());
        run(disk.sync(&file)).unwrap();
        assert!((0..32).any(|seed| disk.power_cut(seed).contents(&path).unwrap().is_empty()));
    }

    #[test]
    fn an_evicted_page_is_not_read_until_it_is_made_resident() {
        let (disk, file, path) = disk_with_file(&[7; 10_000]);
        let mut buffer = [0; 100];
        assert_eq!(disk.read_resident(&file, 9_950, &mut buffer).unwrap(), Some(50));
        disk.evict(&path).unwrap();
        assert_eq!(disk.read_resident(&file, 4_090, &mut buffer).unwrap(), None);
        run(disk.make_resident(&file, 0, 4096 - 1)).unwrap();
        assert_eq!(disk.read_resident(&file, 4_090, &mut buffer).unwrap(), Some(6));
        assert!(!disk.is_resident(&file, 4_090, 7) && disk.is_resident(&file, 4_090, 6));
    }

    #[test]
    fn an_operation_waits_for_the_pause_and_a_read_of_the_cache_does_not() {
        let (disk, file, path) = disk_with_file(b"");
        let gate = Rc::new(std::cell::Cell::new(false));
        let seen = gate.clone();
        let pause: Pause = Rc::new(move || {
            let gate = seen.clone();
            Box::pin(std::future::poll_fn(move |_| if gate.get() { Poll::Ready(()) } else { Poll::Pending }))
        });
        let paused = disk.with_pause(pause);
        let mut append = Box::pin(paused.append(&file, 0, vec![BytesMut::from("x")]));
        assert!(append.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(paused.read_resident(&file, 0, &mut [0; 4]).unwrap(), Some(0));
        gate.set(true);
        run(append).unwrap();
        assert_eq!(disk.contents(&path).unwrap(), b"x");
    }

    #[test]
    fn a_fault_is_reported_once() {
        let (disk, file, path) = disk_with_file(b"");
        disk.inject(Fault::Append { kind: ErrorKind::StorageFull, written: 2 });
        let error = run(disk.append(&file, 0, vec![BytesMut::from("abcd")])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert_eq!(disk.contents(&path).unwrap(), b"ab");
        run(disk.append(&file, 0, vec![BytesMut::from("abcd")])).unwrap();
        assert_eq!(disk.contents(&path).unwrap(), b"abcd");
    }

    #[test]
    fn a_directory_is_listed_renamed_and_removed_with_all_in_it() {
        let (disk, file, _) = disk_with_file(b"x");
        run(disk.rename(Path::new("/d"), Path::new("/e"))).unwrap();
        let entries = run(disk.list(Path::new("/e"))).unwrap();
        assert_eq!(entries, [DirectoryEntry { name: "file".into(), is_directory: false, length: 1 }]);
        run(disk.remove_directory(Path::new("/e"))).unwrap();
        assert!(run(disk.list(Path::new("/e"))).is_err());
        assert_eq!(file.bytes_at(0, 10), b"x", "an open file stays readable");
    }
}
