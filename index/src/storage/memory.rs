//! [`Storage`] in memory that fails on purpose: a disk for tests.
//!
//! Strict where real disks are kind: a file whose name was not synced is gone after a crash, bytes
//! that were not synced are gone or torn.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{AppendFile, Lock, ReadFile, Storage, check_name};

/// How one write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFault {
    /// Nothing arrives.
    Nothing,
    /// Only so many bytes arrive.
    Short(usize),
    /// All bytes arrive, and yet an error is reported.
    All,
}

/// What shall go wrong. Counters start at 1 and count calls since the faults were set.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The N-th write fails so.
    pub write: Option<(u64, WriteFault)>,
    /// The N-th sync (of a file or of the names) fails.
    pub sync: Option<u64>,
    /// The failing sync does its work all the same: the disk has the bytes.
    pub sync_works: bool,
    /// The N-th truncate fails.
    pub truncate: Option<u64>,
    /// All files together hold at most so many bytes; a write beyond is short and fails with
    /// [`io::ErrorKind::StorageFull`].
    pub capacity: Option<u64>,
}

/// A disk in memory. Clones share it, and so do folders inside.
#[derive(Debug, Clone, Default)]
pub struct FaultyMemory {
    disk: Arc<Mutex<Disk>>,
    /// What stands before the names of a folder inside.
    prefix: String,
}

#[derive(Debug, Default)]
struct Disk {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    faults: Faults,
    writes: u64,
    syncs: u64,
    truncates: u64,
    renames: u64,
    locked: bool,
}

#[derive(Debug, Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
}

impl FaultyMemory {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what shall go wrong from now on, and starts counting anew.
    pub fn set_faults(&self, faults: Faults) {
        let mut disk = self.disk();
        disk.faults = faults;
        (disk.writes, disk.syncs, disk.truncates) = (0, 0, 0);
    }

    /// Writes and syncs since the faults were set.
    pub fn counts(&self) -> (u64, u64) {
        let disk = self.disk();
        (disk.writes, disk.syncs)
    }

    /// The disk after a power cut: what was synced, and of each file's bytes beyond that at most
    /// `torn` more. Faults and the lock are gone; the original goes on untouched.
    pub fn crashed(&self, torn: usize) -> Self {
        let disk = self.disk();
        let files = disk.files.iter().map(|content| content.crashed(torn)).collect();
        let names = disk.durable_names.clone();
        let after = Disk { files, durable_names: names.clone(), names, ..Disk::default() };
        Self { disk: Arc::new(Mutex::new(after)), prefix: self.prefix.clone() }
    }

    /// The same bytes on a second disk, as after a killed process (the operating system lives on).
    pub fn copied(&self) -> Self {
        let disk = self.disk();
        let files = disk.files.iter().map(|c| Content { now: c.now.clone(), durable: c.now.clone() });
        let after = Disk {
            files: files.collect(),
            names: disk.names.clone(),
            durable_names: disk.names.clone(),
            ..Disk::default()
        };
        Self { disk: Arc::new(Mutex::new(after)), prefix: self.prefix.clone() }
    }

    /// The content of a file, if it exists.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.names.get(&self.full(name)).map(|&index| disk.files[index].now.clone())
    }

    /// Replaces the content of a file as an intruder would.
    pub fn tamper(&self, name: &str, content: Vec<u8>) {
        let mut disk = self.disk();
        let index = disk.create(&self.full(name));
        disk.files[index] = Content { durable: content.clone(), now: content };
        disk.durable_names = disk.names.clone();
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn inside(&self, name: &str) -> Self {
        Self { disk: Arc::clone(&self.disk), prefix: format!("{}{name}/", self.prefix) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn crashed(&self, torn: usize) -> Self {
        let mut durable = self.durable.clone();
        if self.now.starts_with(&durable) {
            durable.extend(self.now[durable.len()..].iter().take(torn));
        }
        Self { now: durable.clone(), durable }
    }
}

impl Disk {
    fn create(&mut self, name: &str) -> usize {
        if let Some(&index) = self.names.get(name) {
            return index;
        }
        self.files.push(Content::default());
        let index = self.files.len() - 1;
        self.names.insert(name.to_owned(), index);
        index
    }

    fn write(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
        self.writes += 1;
        let used: u64 = self.names.values().map(|&i| self.files[i].now.len() as u64).sum();
        let room = self.faults.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(used));
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let fault = self.faults.write.filter(|(nth, _)| *nth == self.writes).map(|(_, fault)| fault);
        let (take, error) = match fault {
            Some(WriteFault::Nothing) => (0, Some(io::ErrorKind::Other)),
            Some(WriteFault::Short(count)) => (count.min(bytes.len()), Some(io::ErrorKind::Other)),
            Some(WriteFault::All) => (bytes.len(), Some(io::ErrorKind::Other)),
            None if room < bytes.len() => (room, Some(io::ErrorKind::StorageFull)),
            None => (bytes.len(), None),
        };
        self.files[index].now.extend_from_slice(&bytes[..take]);
        error.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn count_sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        if self.faults.sync == Some(self.syncs) { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    }
}

impl Storage for FaultyMemory {
    fn list(&self) -> io::Result<Vec<String>> {
        let disk = self.disk();
        let own = disk.names.keys().filter_map(|name| name.strip_prefix(&self.prefix));
        Ok(own.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn append(&self, name: &str) -> io::Result<Arc<dyn AppendFile>> {
        check_name(name)?;
        let index = self.disk().create(&self.full(name));
        Ok(Arc::new(MemoryFile { memory: self.clone(), index }))
    }

    fn read(&self, name: &str) -> io::Result<Arc<dyn ReadFile>> {
        let index = self.disk().names.get(&self.full(name)).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryFile { memory: self.clone(), index }))
    }

    fn read_back(&self, name: &str) -> io::Result<Arc<dyn ReadFile>> {
        let disk = self.disk();
        let index = disk.names.get(&self.full(name)).copied().ok_or(io::ErrorKind::NotFound)?;
        let durable = disk.files[index].durable.clone();
        let after = Disk { files: vec![Content { now: durable.clone(), durable }], ..Disk::default() };
        let memory = Self { disk: Arc::new(Mutex::new(after)), prefix: String::new() };
        Ok(Arc::new(MemoryFile { memory, index: 0 }))
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        check_name(name)?;
        let mut disk = self.disk();
        disk.files.push(Content::default());
        let index = disk.files.len() - 1;
        disk.write(index, content)?;
        disk.count_sync()?;
        disk.files[index].durable = content.to_vec();
        disk.names.insert(self.full(name), index);
        disk.durable_names.insert(self.full(name), index);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        let mut disk = self.disk();
        let index = disk.names.remove(&self.full(from)).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(self.full(to), index);
        disk.renames += 1;
        disk.count_sync()?;
        disk.durable_names = disk.names.clone();
        Ok(())
    }

    fn renames(&self) -> u64 {
        self.disk().renames
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk().names.remove(&self.full(name)).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Storage>> {
        check_name(name)?;
        let folder = self.inside(name);
        let exists = self.disk().names.keys().any(|name| name.starts_with(&folder.prefix));
        if exists { Ok(Arc::new(folder)) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn make_folder(&self, name: &str) -> io::Result<Arc<dyn Storage>> {
        check_name(name)?;
        Ok(Arc::new(self.inside(name)))
    }

    fn folders(&self) -> io::Result<Vec<String>> {
        let disk = self.disk();
        let own = disk.names.keys().filter_map(|name| name.strip_prefix(&self.prefix)?.split_once('/'));
        let mut folders: Vec<String> = own.map(|(folder, _)| folder.to_owned()).collect();
        folders.dedup();
        Ok(folders)
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.count_sync()?;
        disk.durable_names = disk.names.clone();
        Ok(())
    }

    fn lock(&self) -> io::Result<Box<dyn Lock>> {
        if std::mem::replace(&mut self.disk().locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryLock(self.clone())))
    }
}

struct MemoryLock(FaultyMemory);

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.disk().locked = false;
    }
}

struct MemoryFile {
    memory: FaultyMemory,
    index: usize,
}

impl AppendFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.memory.disk().files[self.index].now.len() as u64)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.memory.disk().write(self.index, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.memory.disk();
        let synced = disk.count_sync();
        if synced.is_err() && !disk.faults.sync_works {
            return synced;
        }
        let content = &mut disk.files[self.index];
        if content.now.starts_with(&content.durable) {
            let from = content.durable.len();
            content.durable.extend_from_slice(&content.now[from..]);
        } else {
            content.durable.clone_from(&content.now);
        }
        synced
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.memory.disk();
        disk.truncates += 1;
        if disk.faults.truncate == Some(disk.truncates) {
            return Err(io::ErrorKind::Other.into());
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        disk.files[self.index].now.resize(len, 0);
        Ok(())
    }
}

impl ReadFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.memory.disk().files[self.index].now.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let disk = self.memory.disk();
        let content = &disk.files[self.index].now;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let count = buffer.len().min(content.len() - start);
        buffer[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }
}
