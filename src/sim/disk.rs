//! Files in memory that know written from synced, cached from cold, and fail when they are told to.
//!
//! Two ways to end a process: [`FakeDisk::restart`] keeps what was written (a kill), and with it the life of the page
//! cache; [`FakeDisk::power_cut`] keeps what was synced and, by its seed, any part of the rest: a write may be there,
//! missing, torn, zeroed or there in some of its sectors; of a directory's changes a prefix, in order, since file systems
//! journal them. Both give a new disk, so that whatever the old process left running can touch nothing.
//!
//! ```text
//!  operation -> pause, delay of its directory -> fault or full? -> it happens at once -> the watch sees the disk
//! ```

#![forbid(unsafe_code)]

pub mod fault;
mod inode;
mod names;
mod operations;
pub mod power_cut;

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::base::time::WallMs;
use crate::platform::{DirectoryEntry, DiskFile};
use fault::Faults;
pub use fault::{Delay, Fault, FaultRule, Operation, ReplaceStep};
use inode::Inode;
use names::{NameChange, Names, Node, SharedInode, parent};

/// Room in a directory whose capacity nobody set; nothing uses it up.
const SPACE_BYTES: u64 = 1 << 40;

/// Awaited before every operation that need not complete at once, with the time it takes on top: the simulator orders
/// completions with it.
pub type Pause = Rc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()>>>>;

/// Called after every change of what a power cut could leave, with the operation that made it; a replace makes several.
pub type Watch = Rc<dyn Fn(&FakeDisk, Operation)>;

/// A disk of one simulated machine. Clones share it.
#[derive(Clone)]
pub struct FakeDisk {
    world: Arc<Mutex<World>>,
    pause: Option<Pause>,
    watch: Option<Watch>,
}

/// An open file. It stays readable when its name is gone.
pub struct FakeFile {
    inode: SharedInode,
    /// Under which it was opened.
    path: PathBuf,
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

#[derive(Default)]
struct World {
    names: Names,
    /// The names that a power cut leaves, whatever its seed.
    durable_names: Names,
    /// Changes of names since, oldest first.
    name_changes: Vec<NameChange>,
    /// A power cut could leave something else than before the operation.
    changed: bool,
    faults: Faults,
    /// Bytes that the files in a directory may have together.
    capacities: BTreeMap<PathBuf, u64>,
    delays: BTreeMap<PathBuf, Delay>,
    hanging: Vec<Waker>,
    counts: BTreeMap<&'static str, u64>,
    /// The time of changes.
    wall: WallMs,
    /// Power cuts that went before.
    cache_life: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn entry(name: String, is_directory: bool) -> DirectoryEntry {
    DirectoryEntry { name, is_directory, is_broken_link: false, length: 0, allocated_bytes: 0, modified: 0 }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

/// Where [`Disk::replace`](crate::platform::Disk::replace) writes first.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".tmp");
    PathBuf::from(name)
}

impl World {
    /// Counts an operation, and says what goes wrong with it. What fails any operation is an error here already.
    fn begin(&mut self, operation: Operation, path: &Path) -> io::Result<Option<Fault>> {
        *self.counts.entry(operation.name()).or_default() += 1;
        match self.faults.strike(operation, path) {
            Some(
                Fault::Any(kind)
                | Fault::Write(kind)
                | Fault::Open(kind)
                | Fault::Read(kind)
                | Fault::SetLength(kind)
                | Fault::SyncDirectory(kind),
            ) => Err(kind.into()),
            fault => Ok(fault),
        }
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
        self.changed = true;
    }

    fn sync_directory(&mut self, path: &Path) {
        for change in std::mem::take(&mut self.name_changes) {
            if change.directory() != path {
                self.name_changes.push(change);
                continue;
            }
            change.apply(&mut self.durable_names);
            // What was changed in a directory before goes where the directory goes.
            self.name_changes.retain_mut(|earlier| earlier.follow(&change));
            self.changed = true;
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
        self.needs_room(path)?;
        let inode = SharedInode::default();
        self.change_names(NameChange::Put { path: path.to_owned(), node: Node::File(inode.clone()) });
        Ok(inode)
    }

    fn create_directories(&mut self, path: &Path) -> io::Result<()> {
        let missing: Vec<_> = path.ancestors().filter(|ancestor| !self.names.contains_key(*ancestor)).collect();
        if !missing.is_empty() {
            self.needs_room(path)?;
        }
        for ancestor in missing.into_iter().rev() {
            self.change_names(NameChange::Put { path: ancestor.to_owned(), node: Node::Directory });
            self.sync_directory(&parent(ancestor));
        }
        Ok(())
    }

    /// Bytes that files in the directories of `path` may still grow by. Files without a name do not count.
    fn room(&self, path: &Path) -> u64 {
        let directories = self.capacities.iter().filter(|(directory, _)| path.starts_with(directory));
        let free = directories.map(|(directory, capacity)| {
            let files = self.names.range(directory.clone()..).take_while(|(name, _)| name.starts_with(directory));
            let used = files.map(|(_, node)| match node {
                Node::Directory => 0,
                Node::File(inode) => lock(inode).data.len() as u64,
            });
            capacity.saturating_sub(used.sum())
        });
        free.min().unwrap_or(u64::MAX)
    }

    /// A new name takes a little too.
    fn needs_room(&self, path: &Path) -> io::Result<()> {
        match self.room(path) {
            0 => Err(ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// Writes what there is room for; an error if that is not all.
    fn write(&mut self, inode: &SharedInode, path: &Path, position: u64, mut data: Vec<u8>) -> io::Result<()> {
        let (end, length) = (position + data.len() as u64, lock(inode).data.len() as u64);
        let missing = end.saturating_sub(length.max(position)).saturating_sub(self.room(path));
        data.truncate(data.len() - missing as usize);
        let mut inode = lock(inode);
        inode.write(position as usize, data);
        inode.modified = self.wall;
        drop(inode);
        self.changed = true;
        match missing {
            0 => Ok(()),
            _ => Err(ErrorKind::StorageFull.into()),
        }
    }

    fn set_length(&mut self, inode: &SharedInode, path: &Path, length: u64) -> io::Result<()> {
        let growth = length.saturating_sub(lock(inode).data.len() as u64);
        if growth > self.room(path) {
            return Err(ErrorKind::StorageFull.into());
        }
        lock(inode).set_length(length as usize);
        self.changed = true;
        Ok(())
    }

    fn sync(&mut self, inode: &SharedInode) {
        let mut inode = lock(inode);
        self.changed |= inode.is_dirty();
        inode.sync();
    }

    fn delay(&self, path: &Path) -> Option<Delay> {
        self.delays.iter().find(|(directory, _)| path.starts_with(directory)).map(|(_, delay)| *delay)
    }
}

impl Default for FakeDisk {
    fn default() -> FakeDisk {
        FakeDisk::new()
    }
}

impl FakeDisk {
    pub fn new() -> FakeDisk {
        FakeDisk { world: Arc::default(), pause: None, watch: None }
    }

    /// The same disk for a shard whose operations wait for `pause` first.
    pub fn with_pause(&self, pause: Pause) -> FakeDisk {
        FakeDisk { pause: Some(pause), ..self.clone() }
    }

    /// The same disk for somebody whose changes are watched.
    pub fn with_watch(&self, watch: Watch) -> FakeDisk {
        FakeDisk { watch: Some(watch), ..self.clone() }
    }

    /// Queues a fault. Of several that an operation falls under, the oldest strikes.
    pub fn inject(&self, fault: impl Into<FaultRule>) {
        lock(&self.world).faults.add(fault.into());
    }

    /// Takes back every fault that did not strike yet, and those that last.
    pub fn heal(&self) {
        lock(&self.world).faults.clear();
    }

    /// Bytes that the files in this directory may have together from now on; `None`: any number.
    pub fn set_capacity(&self, directory: &Path, capacity: Option<u64>) {
        let mut world = lock(&self.world);
        match capacity {
            Some(capacity) => world.capacities.insert(directory.to_owned(), capacity),
            None => world.capacities.remove(directory),
        };
    }

    /// Makes every operation in this directory but look-ups in the page cache take as long.
    pub fn delay(&self, directory: &Path, delay: Delay) {
        lock(&self.world).delays.insert(directory.to_owned(), delay);
    }

    /// Ends the directory's delay, and lets go of what hangs in it.
    pub fn release(&self, directory: &Path) {
        let mut world = lock(&self.world);
        world.delays.remove(directory);
        std::mem::take(&mut world.hanging).into_iter().for_each(Waker::wake);
    }

    /// Turns over one bit of a file at rest: in the cache and on the device.
    pub fn flip(&self, path: &Path, position: usize, bit: u8) -> io::Result<()> {
        let inode = lock(&self.world).file(path)?;
        lock(&inode).flip(position, bit);
        Ok(())
    }

    /// Files changed from now on were changed at this time.
    pub fn set_wall(&self, wall: WallMs) {
        lock(&self.world).wall = wall;
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

    /// Memory is so short from now on that no page of the file stays in the cache until somebody has looked.
    pub fn thrash(&self, path: &Path) -> io::Result<()> {
        let inode = lock(&self.world).file(path)?;
        lock(&inode).keep_no_page();
        Ok(())
    }

    /// A file's bytes as a reader of the page cache sees them.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let inode = lock(&self.world).file(path)?;
        let inode = lock(&inode);
        Ok(inode.data.clone())
    }

    /// Bytes reserved behind the end of an open file, which may have no name any more.
    pub fn reserved_bytes(&self, file: &FakeFile) -> u64 {
        let inode = lock(&file.inode);
        inode.reserved_end.saturating_sub(inode.data.len() as u64)
    }

    /// Puts a durable file there, with the directories above it.
    pub fn put(&self, path: &Path, data: &[u8]) {
        let mut world = lock(&self.world);
        let directory = parent(path);
        // What a test puts there is there, whatever the capacity.
        let capacities = std::mem::take(&mut world.capacities);
        let _ = world.create_directories(&directory);
        world.capacities = capacities;
        let inode = Arc::new(Mutex::new(Inode::durable(data.to_vec())));
        world.change_names(NameChange::Put { path: path.to_owned(), node: Node::File(inode) });
        world.sync_directory(&directory);
    }

    /// What takes a file's name away, if there is one, from any thread.
    pub fn remover(&self) -> impl Fn(&Path) + Send + Sync + use<> {
        let world = Arc::clone(&self.world);
        move |path| {
            let mut world = lock(&world);
            if world.file(path).is_ok() {
                world.change_names(NameChange::Remove { path: path.to_owned() });
            }
        }
    }

    /// All files, sorted by path.
    pub fn paths(&self) -> Vec<PathBuf> {
        let world = lock(&self.world);
        world.names.iter().filter(|(_, node)| matches!(node, Node::File(_))).map(|(path, _)| path.clone()).collect()
    }

    /// Waits as long as an operation in this place takes.
    async fn wait(&self, path: &Path) {
        let delay = lock(&self.world).delay(path);
        if let Some(pause) = &self.pause {
            let takes = match delay {
                Some(Delay::For(takes)) => takes,
                Some(Delay::Hang) | None => Duration::ZERO,
            };
            pause(takes).await;
        }
        poll_fn(|context| {
            let mut world = lock(&self.world);
            match world.delay(path) {
                Some(Delay::Hang) => {
                    world.hanging.push(context.waker().clone());
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
        .await;
    }

    /// An operation that waits for its turn, is counted, and then happens at once, unless it fails.
    fn operation<T: 'static>(
        &self,
        operation: Operation,
        path: PathBuf,
        act: impl FnOnce(&mut World, Option<Fault>) -> io::Result<T> + 'static,
    ) -> impl Future<Output = io::Result<T>> + 'static {
        let this = self.clone();
        async move {
            this.wait(&path).await;
            let fault = lock(&this.world).begin(operation, &path)?;
            this.step(operation, |world| act(world, fault))
        }
    }

    /// Something that happens at once, and is shown to the watch.
    fn step<T>(&self, operation: Operation, act: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = lock(&self.world);
        let result = act(&mut world);
        let changed = std::mem::take(&mut world.changed);
        drop(world);
        if let Some(watch) = self.watch.as_ref().filter(|_| changed) {
            watch(self, operation);
        }
        result
    }

    /// The steps of a replace, as the real disk does them.
    fn replace_now(&self, path: &Path, data: Vec<u8>, fault: Option<Fault>) -> io::Result<()> {
        let fails = |at: ReplaceStep| match fault {
            Some(Fault::Replace { kind, step }) if step == at => Err(io::Error::from(kind)),
            _ => Ok(()),
        };
        let temporary = temporary(path);
        let inode = self.step(Operation::Replace, |world| {
            fails(ReplaceStep::Create)?;
            match world.file(&temporary) {
                Ok(inode) => world.set_length(&inode, &temporary, 0).map(|()| inode),
                Err(_) => world.create_file(&temporary),
            }
        })?;
        self.step(Operation::Replace, |world| {
            let failed = fails(ReplaceStep::Write);
            let written = if failed.is_err() { data[..data.len() / 2].to_vec() } else { data };
            world.write(&inode, &temporary, 0, written).and(failed)
        })?;
        self.step(Operation::Replace, |world| match fails(ReplaceStep::Sync) {
            Ok(()) => {
                world.sync(&inode);
                Ok(())
            }
            Err(error) => {
                lock(&inode).fail_sync();
                Err(error)
            }
        })?;
        self.step(Operation::Replace, |world| {
            fails(ReplaceStep::Rename)?;
            world.change_names(NameChange::Rename { from: temporary.clone(), to: path.to_owned() });
            Ok(())
        })?;
        self.step(Operation::Replace, |world| {
            fails(ReplaceStep::SyncDirectory)?;
            world.sync_directory(&parent(path));
            Ok(())
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
