//! Where files live: a directory on disk, or a faulty memory for tests.
//!
//! The journal reaches the disk only through [`Storage`]; Tantivy has its own `Directory`.
//! [`DirStorage`] is the disk. [`FaultyMemory`] remembers what was synced, fails when told to, and
//! can lose power. Nothing here knows what the files mean.

mod dir;
mod memory;

use std::io;
use std::sync::Arc;

pub use dir::DirStorage;
pub use memory::{Faults, FaultyMemory, WriteFault};

/// A folder of append-only files.
///
/// Names have no path separators; a folder inside is a storage of its own. Every method may fail as the
/// disk may.
pub trait Storage: Send + Sync {
    /// Names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file for appending at its end, creating it if missing.
    fn append(&self, name: &str) -> io::Result<Arc<dyn AppendFile>>;
    /// Opens a file for reading.
    fn read(&self, name: &str) -> io::Result<Arc<dyn ReadFile>>;
    /// Opens a file for reading what the disk holds of it, not what the system remembers: after a
    /// failed sync these may differ.
    fn read_back(&self, name: &str) -> io::Result<Arc<dyn ReadFile>>;
    /// Creates or replaces a small file atomically (write aside, sync, rename, sync the folder).
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()>;
    /// Puts a file in the place of another of this folder, or gives it another name; the change of names is
    /// durable when this returns. The caller has synced the file.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// How often [`Storage::rename`] was called on this storage: whoever remembers what files hold looks
    /// again when it changes.
    fn renames(&self) -> u64;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The folder of this name inside; fails with [`io::ErrorKind::NotFound`] if there is none.
    fn folder(&self, name: &str) -> io::Result<Arc<dyn Storage>>;
    /// The folder of this name inside, made if missing.
    fn make_folder(&self, name: &str) -> io::Result<Arc<dyn Storage>>;
    /// Names of the folders inside, sorted.
    fn folders(&self) -> io::Result<Vec<String>>;
    /// Makes created names durable (sync of the folder).
    fn sync_names(&self) -> io::Result<()>;
    /// Takes the folder's only writer's lock, held until the value is dropped; fails with
    /// [`io::ErrorKind::WouldBlock`] if somebody else has it. Readers need no lock.
    fn lock(&self) -> io::Result<Box<dyn Lock>>;
}

/// The right to write to a [`Storage`]; given back when dropped.
pub trait Lock: Send + Sync {}

/// A file that grows at its end.
pub trait AppendFile: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Appends all of `bytes`, or fails; after a failure the length is undefined until `truncate`.
    fn write(&self, bytes: &[u8]) -> io::Result<()>;
    /// Makes written bytes durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;
}

/// A file read at positions.
pub trait ReadFile: Send + Sync {
    /// Length in bytes, as of now.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes, as of now.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills as much of `buffer` as there is at `offset`; returns the count.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// Refuses names that could leave the folder.
fn check_name(name: &str) -> io::Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a file name")));
    }
    Ok(())
}
