//! What outlives the process: paired secrets and minted tokens, as hashes, in one file for the gateway's user alone.
//!
//! The file is replaced as a whole, synced before and after; it holds a digest of itself. One that is damaged, is
//! readable for others or not ours is not trusted at all: it is put aside, and everybody approves anew. What has
//! ended is left out. No secret of anybody is in it: refresh tokens are sealed by the clients' own secrets
//! ([`super::seal`]), and a login that could be renewed comes back only as one that can.
//!
//! Whoever can write the file can let people in, as whoever can write the configuration can.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::principal::KeptPrincipal;
use super::{MintedTokens, Pairings};

/// The first line. Another one is another format.
const HEADER: &str = "pgwitness logins 1";
/// Largest file read, bytes: more than the bounds of both tables come to.
const MAX_BYTES: u64 = 64 << 20;
/// Changes that come together are written together.
const PAUSE: Duration = Duration::from_millis(300);

/// What is told of a secret besides whose it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// What its owner calls it, for tokens.
    pub name: String,
    /// The startup user it is for; empty: any.
    pub role: String,
    /// The database it is for; empty: any.
    pub database: String,
    /// Where it was first shown, or asked for.
    pub address: String,
    /// By which program.
    pub program: String,
    /// Since when, seconds since the Unix epoch.
    pub since: u64,
    /// When it last opened something; 0: never.
    pub used: u64,
}

impl About {
    /// Made now.
    pub fn now() -> Self {
        Self { since: seconds(SystemTime::now()), ..Self::default() }
    }
}

/// A paired secret.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptPairing {
    /// The keyed hash of secret, user and database.
    pub(super) key: String,
    pub(super) about: About,
    pub(super) principal: KeptPrincipal,
    pub(super) refresh: Option<String>,
}

/// Who approved a secret first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptOwner {
    /// The keyed hash of the secret.
    pub(super) key: String,
    pub(super) iss: String,
    pub(super) sub: String,
}

/// A minted token.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptToken {
    pub(super) id: String,
    /// The hash of its secret.
    pub(super) secret: String,
    pub(super) about: About,
    pub(super) principal: KeptPrincipal,
    pub(super) refresh: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// Of the keyed hashes.
    key: String,
    pairings: Vec<KeptPairing>,
    owners: Vec<KeptOwner>,
    tokens: Vec<KeptToken>,
}

/// Why a file is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum KeptFault {
    /// Not there to be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It could have been written or read by somebody else.
    #[error("it {0}")]
    Strange(&'static str),
    /// Its bytes are not those that were written.
    #[error("it is damaged ({0})")]
    Damaged(&'static str),
}

/// Keeps both tables in a file.
#[derive(Debug)]
pub struct Keeping {
    file: PathBuf,
    pairings: Pairings,
    minted: MintedTokens,
    writing: Mutex<()>,
}

impl Keeping {
    /// Tables with what the file holds; without one they are empty. The caller starts [`Keeping::run`].
    ///
    /// # Errors
    /// The file cannot be trusted: it was put aside, the tables are as they were.
    pub fn open(file: PathBuf, pairings: &Pairings, minted: &MintedTokens) -> (Self, Result<(), KeptFault>) {
        let keeping =
            Self { file, pairings: pairings.clone(), minted: minted.clone(), writing: Mutex::default() };
        let read = keeping.read();
        if read.is_err() {
            // Should even that fail, the next writing replaces it.
            let _ = fs::rename(&keeping.file, keeping.file.with_extension("refused"));
        }
        (keeping, read)
    }

    /// Where.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Writes whenever something changes, and once more at the end.
    pub async fn run(self: std::sync::Arc<Self>, stop: CancellationToken) {
        let (of_pairings, of_minted) = (self.pairings.changes(), self.minted.changes());
        loop {
            // All arms are cancel safe: a change not heard here is heard next time.
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                () = of_pairings.notified() => false,
                () = of_minted.notified() => false,
            };
            if !stopped {
                tokio::time::sleep(PAUSE).await;
            }
            let keeping = std::sync::Arc::clone(&self);
            let saved = tokio::task::spawn_blocking(move || keeping.save()).await;
            if let Ok(Err(error)) = saved {
                tracing::error!(%error, "could not keep paired secrets and tokens: they end with this process");
            }
            if stopped {
                return;
            }
        }
    }

    /// Writes now. It blocks.
    ///
    /// # Errors
    /// The disk's.
    pub fn save(&self) -> io::Result<()> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, pairings, owners) = self.pairings.kept();
        let content = Content { key, pairings, owners, tokens: self.minted.kept() };
        let body = serde_json::to_string(&content).map_err(io::Error::other)?;
        let text = format!("{HEADER}\n{body}\n{}\n", digest(&body));
        let draft = self.file.with_extension("new");
        let mut out = fs::OpenOptions::new();
        let mut out = out.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&draft, &self.file)?;
        match self.file.parent() {
            Some(folder) => fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    fn read(&self) -> Result<(), KeptFault> {
        let found = match fs::symlink_metadata(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        if !found.is_file() || found.uid() != rustix::process::getuid().as_raw() {
            return Err(KeptFault::Strange("is not a file of the gateway's own user"));
        }
        if found.mode() & 0o077 != 0 {
            return Err(KeptFault::Strange("can be read or written by others"));
        }
        let mut bytes = Vec::new();
        fs::File::open(&self.file)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(KeptFault::Damaged("it is too large"));
        }
        let content = parse(&bytes)?;
        let now = SystemTime::now();
        let damaged = || KeptFault::Damaged("a hash or an id in it is none");
        // All or nothing: first understood, then taken.
        let tables = Pairings::understand(&content.key, content.pairings, content.owners, now);
        let tokens = MintedTokens::understand(content.tokens);
        let (tables, tokens) = (tables.ok_or_else(damaged)?, tokens.ok_or_else(damaged)?);
        self.pairings.take(tables);
        self.minted.take(tokens);
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Result<Content, KeptFault> {
    let text = std::str::from_utf8(bytes).map_err(|_| KeptFault::Damaged("it is not text"))?;
    let rest = text.strip_prefix(HEADER).and_then(|rest| rest.strip_prefix('\n'));
    let rest = rest.ok_or(KeptFault::Damaged("its first line is another"))?;
    let (body, sum) = rest.split_once('\n').ok_or(KeptFault::Damaged("it is cut"))?;
    if sum != format!("{}\n", digest(body)) {
        return Err(KeptFault::Damaged("its digest is another"));
    }
    serde_json::from_str(body).map_err(|_| KeptFault::Damaged("its content has another form"))
}

fn digest(body: &str) -> String {
    hex(&Sha256::digest(body.as_bytes()))
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// 32 bytes of hex.
pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Seconds since the Unix epoch.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
