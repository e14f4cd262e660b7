//! [`Storage`] in a directory of the file system. Files and directory are private to their owner.

use std::fs::{DirBuilder, File, FileType, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{AppendFile, Lock, ReadFile, Storage, check_name};

/// Name of the file whose lock makes its holder the only writer.
const LOCK_NAME: &str = "journal.lock";
/// Ending of a file on its way to replace another.
const ASIDE_SUFFIX: &str = ".new";

/// A directory.
#[derive(Debug)]
pub struct DirStorage {
    dir: PathBuf,
    renames: AtomicU64,
}

impl DirStorage {
    /// Uses `dir`, creating it (and its parents) if missing.
    pub fn create(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        if !dir.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { dir, renames: AtomicU64::new(0) })
    }

    /// Uses `dir`, which must exist: for those who only read.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        if !std::fs::metadata(&dir)?.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                format!("{} is not a directory", dir.display()),
            ));
        }
        Ok(Self { dir, renames: AtomicU64::new(0) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    fn at(&self, name: &str) -> io::Result<PathBuf> {
        check_name(name)?;
        Ok(self.dir.join(name))
    }

    fn names(&self, wanted: fn(&FileType) -> bool) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for item in std::fs::read_dir(&self.dir)? {
            let item = item?;
            if let (true, Ok(name)) = (wanted(&item.file_type()?), item.file_name().into_string()) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

impl Storage for DirStorage {
    fn list(&self) -> io::Result<Vec<String>> {
        self.names(FileType::is_file)
    }

    fn append(&self, name: &str) -> io::Result<Arc<dyn AppendFile>> {
        let file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(self.at(name)?)?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn read(&self, name: &str) -> io::Result<Arc<dyn ReadFile>> {
        Ok(Arc::new(DiskFile(File::open(self.at(name)?)?)))
    }

    fn read_back(&self, name: &str) -> io::Result<Arc<dyn ReadFile>> {
        let file = File::open(self.at(name)?)?;
        // After a failed sync Linux takes the pages for clean, so that they can be dropped.
        #[cfg(target_os = "linux")]
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let (target, aside) = (self.at(name)?, self.at(&format!("{name}{ASIDE_SUFFIX}"))?);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&aside, &target)?;
        self.sync_names()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.at(from)?, self.at(to)?)?;
        self.renames.fetch_add(1, Ordering::AcqRel);
        self.sync_names()
    }

    fn renames(&self) -> u64 {
        self.renames.load(Ordering::Acquire)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.at(name)?)
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Storage>> {
        Ok(Arc::new(Self::open(self.at(name)?)?))
    }

    fn make_folder(&self, name: &str) -> io::Result<Arc<dyn Storage>> {
        Ok(Arc::new(Self::create(self.at(name)?)?))
    }

    fn folders(&self) -> io::Result<Vec<String>> {
        self.names(FileType::is_dir)
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn lock(&self) -> io::Result<Box<dyn Lock>> {
        let path = self.at(LOCK_NAME)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(DiskLock(file))),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// An open lock file; closing it gives the lock back, also when the process dies.
struct DiskLock(#[expect(dead_code, reason = "held for its lock, never read")] File);

impl Lock for DiskLock {}

struct DiskFile(File);

impl AppendFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.0).write_all(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

impl ReadFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}
