//! The key that signs the log's heads: read from its file, or made at the first start.
//!
//! The file is one line, a signer key as golang.org/x/mod/sumdb/note writes it; its owner alone may read it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pgwitness_index::proof::note::{NoteError, SignerKey};
use pgwitness_index::proof::{FOLDER, StoreError, TileStore};
use pgwitness_index::storage::Storage;
use rand::RngCore as _;
use sha2::{Digest as _, Sha256};

/// Most bytes of a key file.
const FILE_BYTES_MAX: u64 = 4096;

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read, or written.
    #[error("could not {action} the signing key {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file holds no key.
    #[error("{} cannot be used as log.sign_key_file: {source}", path.display())]
    NotAKey {
        /// Where.
        path: PathBuf,
        /// What it is.
        source: NoteError,
    },
    /// The log was signed before, and the key is gone.
    #[error(
        "the signing key {} is missing, and the log was signed before. Restore the key; or move {} away, which begins \
         a log of another name that does not continue the heads signed so far", path.display(), tree.display()
    )]
    Lost {
        /// Where it should be.
        path: PathBuf,
        /// The folder of the tree.
        tree: PathBuf,
    },
    /// What was signed before could not be looked at.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads the key; if there is no file, and nothing was signed before, makes one for the log of `host`.
pub(super) fn open(
    path: &Path,
    dir: &Path,
    journal: &dyn Storage,
    host: &str,
) -> Result<SignerKey, KeyError> {
    let failed = |action| move |source| KeyError::Io { action, path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(file) => {
            if file.mode() & 0o077 != 0 {
                tracing::warn!(path = %path.display(), "others than its owner may read the signing key: chmod 600");
            }
            if !file.is_file() || file.len() > FILE_BYTES_MAX {
                return Err(failed("read")(io::Error::other("it is not a file of one line")));
            }
            let text = fs::read_to_string(path).map_err(failed("read"))?;
            SignerKey::from_private(text.trim_end())
                .map_err(|source| KeyError::NotAKey { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(store) = TileStore::open(journal)?
                && store.checkpoint()?.is_some()
            {
                return Err(KeyError::Lost { path: path.to_owned(), tree: dir.join(FOLDER) });
            }
            let key = make(host).map_err(|source| KeyError::NotAKey { path: path.to_owned(), source })?;
            write(path, &key).map_err(failed("write"))?;
            tracing::info!(path = %path.display(), key = %key.public(), "a signing key was made for the log");
            Ok(key)
        }
        Err(error) => Err(failed("read")(error)),
    }
}

/// A new key. Its name, which is the log's, is of the host and of the key itself, so that no two logs share
/// one.
fn make(host: &str) -> Result<SignerKey, NoteError> {
    let mut seed = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut seed);
    let own = Sha256::digest(Sha256::digest(seed));
    let tail: String = own.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(*c)).collect();
    SignerKey::from_seed(&format!("{host}/pgwitness-{tail}"), &seed)
}

fn write(path: &Path, key: &SignerKey) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", key.private())?;
    file.sync_all()?;
    folder.map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use pgwitness_index::proof::note::Note;
    use pgwitness_index::storage::DirStorage;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_read_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let journal = DirStorage::create(dir.path()).unwrap();
        let path = dir.path().join("keys/sign.key");
        let made = open(&path, dir.path(), &journal, "db.example.com").unwrap();
        assert!(made.public().name().starts_with("db.example.com/pgwitness-"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let read = open(&path, dir.path(), &journal, "other").unwrap();
        assert_eq!(read.public(), made.public());
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(open(&path, dir.path(), &journal, "x"), Err(KeyError::NotAKey { .. })));
    }

    #[test]
    fn a_lost_key_is_not_replaced_in_silence() {
        let dir = tempfile::tempdir().unwrap();
        let journal = DirStorage::create(dir.path()).unwrap();
        let path = dir.path().join("sign.key");
        let key = open(&path, dir.path(), &journal, "db.example.com").unwrap();
        let note = Note::sign("a text\n".into(), &key).unwrap();
        TileStore::create(&journal).unwrap().write_checkpoint(&note).unwrap();
        fs::remove_file(&path).unwrap();
        let refused = open(&path, dir.path(), &journal, "db.example.com");
        assert!(matches!(refused, Err(KeyError::Lost { .. })));
        assert!(!path.exists());
    }
}
