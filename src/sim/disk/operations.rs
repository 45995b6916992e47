//! [`Disk`] over files in memory: when each operation happens, and what it does to the world then.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;

use super::names::{NameChange, Node};
use super::{FakeDisk, FakeFile, Fault, Operation, SPACE_BYTES, entry, lock, not_found};
use crate::platform::{DirectoryEntry, Disk, OpenMode, Space};

impl Disk for FakeDisk {
    type File = FakeFile;

    fn read_resident(&self, file: &FakeFile, position: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        lock(&self.world).begin(Operation::ReadResident, &file.path)?;
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
        if lock(&self.world).begin(Operation::IsResident, &file.path).is_err() {
            return false;
        }
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
        self.operation(Operation::Append, file.path.clone(), move |world, fault| {
            let mut data = data.concat();
            let mut failed = Ok(());
            if let Some(Fault::Append { kind, written }) = fault {
                data.truncate(written);
                failed = Err(kind.into());
            }
            world.write(&file.inode, &file.path, position, data).and(failed)
        })
    }

    fn make_resident(
        &self,
        file: &Arc<FakeFile>,
        position: u64,
        length: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let file = file.clone();
        self.operation(Operation::MakeResident, file.path.clone(), move |_, _| {
            lock(&file.inode).make_resident(position, length);
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
        self.operation(Operation::Read, file.path.clone(), move |_, _| {
            Ok(BytesMut::from(lock(&file.inode).slice(position, length as u64)))
        })
    }

    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<(Arc<FakeFile>, u64)>> + 'static {
        let opened = path.to_owned();
        self.operation(Operation::Open, path.to_owned(), move |world, _| {
            let path = opened;
            let inode = match (world.file(&path), mode) {
                (Ok(_), OpenMode::CreateNew) => return Err(ErrorKind::AlreadyExists.into()),
                (Err(error), OpenMode::Read) => return Err(error),
                (Err(error), _) if error.kind() != ErrorKind::NotFound => return Err(error),
                (Err(_), _) => world.create_file(&path)?,
                (Ok(inode), _) => inode,
            };
            let length = lock(&inode).data.len() as u64;
            Ok((Arc::new(FakeFile { inode, path }), length))
        })
    }

    fn write(
        &self,
        file: &Arc<FakeFile>,
        position: u64,
        mut data: Vec<u8>,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let file = file.clone();
        self.operation(Operation::Write, file.path.clone(), move |world, fault| {
            let mut failed = Ok(());
            if let Some(Fault::ShortWrite { kind, written }) = fault {
                data.truncate(written);
                failed = Err(kind.into());
            }
            world.write(&file.inode, &file.path, position, data).and(failed)
        })
    }

    fn set_length(&self, file: &Arc<FakeFile>, length: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = file.clone();
        self.operation(Operation::SetLength, file.path.clone(), move |world, _| {
            world.set_length(&file.inode, &file.path, length)
        })
    }

    fn give_back(&self, file: &Arc<FakeFile>, length: u64) -> impl Future<Output = io::Result<()>> + 'static {
        self.set_length(file, length)
    }

    fn preallocate(
        &self,
        file: &Arc<FakeFile>,
        position: u64,
        length: u64,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let file = file.clone();
        self.operation(Operation::Preallocate, file.path.clone(), move |world, _| match world.room(&file.path) {
            room if room < length => Err(ErrorKind::StorageFull.into()),
            _ => {
                let mut inode = lock(&file.inode);
                inode.reserved_end = inode.reserved_end.max(position + length);
                Ok(())
            }
        })
    }

    fn sync(&self, file: &Arc<FakeFile>) -> impl Future<Output = io::Result<()>> + 'static {
        let file = file.clone();
        self.operation(Operation::Sync, file.path.clone(), move |world, fault| match fault {
            Some(Fault::Sync(kind)) => {
                lock(&file.inode).fail_sync();
                Err(kind.into())
            }
            _ => {
                world.sync(&file.inode);
                Ok(())
            }
        })
    }

    fn replace(&self, path: &Path, data: Vec<u8>) -> impl Future<Output = io::Result<()>> + 'static {
        let (this, path) = (self.clone(), path.to_owned());
        async move {
            this.wait(&path).await;
            let fault = lock(&this.world).begin(Operation::Replace, &path)?;
            this.replace_now(&path, data, fault)
        }
    }

    fn read_whole(&self, path: &Path, length_max: usize) -> impl Future<Output = io::Result<Vec<u8>>> + 'static {
        let read = path.to_owned();
        self.operation(Operation::ReadWhole, path.to_owned(), move |world, _| {
            let inode = world.file(&read)?;
            let inode = lock(&inode);
            match inode.data.len() > length_max {
                true => Err(io::Error::new(ErrorKind::InvalidData, format!("longer than {length_max} bytes"))),
                false => Ok(inode.data.clone()),
            }
        })
    }

    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirectoryEntry>>> + 'static {
        let listed = path.to_owned();
        self.operation(Operation::List, path.to_owned(), move |world, _| {
            if !matches!(world.names.get(&listed), Some(Node::Directory)) {
                return Err(not_found(&listed));
            }
            let inside = world.names.iter().filter(|(name, _)| name.parent() == Some(&listed));
            let mut entries: Vec<_> = inside
                .filter_map(|(name, node)| {
                    let name = name.file_name()?.to_string_lossy().into_owned();
                    Some(match node {
                        Node::Directory => entry(name, true),
                        Node::File(inode) => {
                            let inode = lock(inode);
                            let (length, modified) = (inode.data.len() as u64, inode.modified);
                            let allocated_bytes = length.max(inode.reserved_end);
                            DirectoryEntry { length, modified, allocated_bytes, ..entry(name, false) }
                        }
                    })
                })
                .collect();
            entries.sort_by(|left, right| left.name.cmp(&right.name));
            Ok(entries)
        })
    }

    fn create_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let created = path.to_owned();
        self.operation(Operation::CreateDirectory, path.to_owned(), move |world, _| world.create_directories(&created))
    }

    fn remove_file(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let removed = path.to_owned();
        self.operation(Operation::RemoveFile, path.to_owned(), move |world, _| {
            world.file(&removed)?;
            world.change_names(NameChange::Remove { path: removed });
            Ok(())
        })
    }

    fn remove_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let removed = path.to_owned();
        self.operation(Operation::RemoveDirectory, path.to_owned(), move |world, _| {
            if !matches!(world.names.get(&removed), Some(Node::Directory)) {
                return Err(not_found(&removed));
            }
            world.change_names(NameChange::Remove { path: removed });
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let (renamed, to) = (from.to_owned(), to.to_owned());
        self.operation(Operation::Rename, from.to_owned(), move |world, _| {
            if !world.names.contains_key(&renamed) {
                return Err(not_found(&renamed));
            }
            world.change_names(NameChange::Rename { from: renamed, to });
            Ok(())
        })
    }

    fn space(&self, path: &Path) -> impl Future<Output = io::Result<Space>> + 'static {
        let place = path.to_owned();
        self.operation(Operation::Space, path.to_owned(), move |world, _| {
            let total_bytes = world.capacities.get(&place).copied().unwrap_or(SPACE_BYTES);
            Ok(Space { free_bytes: world.room(&place).min(total_bytes), total_bytes })
        })
    }

    fn sync_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let synced = path.to_owned();
        self.operation(Operation::SyncDirectory, path.to_owned(), move |world, _| {
            world.sync_directory(&synced);
            Ok(())
        })
    }

    fn cache_life(&self, path: &Path) -> impl Future<Output = io::Result<Option<String>>> + 'static {
        self.operation(Operation::CacheLife, path.to_owned(), |world, _| Ok(Some(world.cache_life.to_string())))
    }
}
