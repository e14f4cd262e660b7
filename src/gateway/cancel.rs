//! Cancel requests: which key belongs to which session.
//!
//! A client gets the real process id of its backend and a key of ours; the database's own key
//! never leaves the gateway. A key is gone with its session, so a request that is replayed later
//! finds nobody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use pgwitness_index::record::Who;
use subtle::ConstantTimeEq;

use super::upstream::Server;

/// Length of our own keys, bytes: what PostgreSQL gives since protocol 3.2, and before.
const KEY: usize = 32;
const OLD_KEY: usize = 4;

/// First minor version with long keys.
const LONG_KEYS: u16 = 2;

/// What opens a session's cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(Box<[u8]>);

impl Key {
    fn new(minor: u16) -> Self {
        if minor >= LONG_KEYS {
            Self(rand::random::<[u8; KEY]>().into())
        } else {
            Self(rand::random::<[u8; OLD_KEY]>().into())
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a key opens.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) server: Arc<Server>,
    pub(super) pid: u32,
    pub(super) server_key: Bytes,
    pub(super) who: Arc<Who>,
}

/// Keys of the sessions that are open, by process id (which two upstreams may share). Bounded by the
/// number of clients.
#[derive(Debug, Default)]
pub(super) struct CancelKeys {
    keys: Mutex<HashMap<u32, Vec<(Key, Target)>>>,
}

impl CancelKeys {
    /// Makes a key for a session that speaks this minor version of the protocol.
    pub(super) fn add(&self, target: Target, minor: u16) -> Key {
        let key = Key::new(minor);
        self.lock().entry(target.pid).or_default().push((key.clone(), target));
        key
    }

    pub(super) fn remove(&self, pid: u32, key: &Key) {
        let mut keys = self.lock();
        if let Some(known) = keys.get_mut(&pid) {
            known.retain(|(known, _)| known != key);
            if known.is_empty() {
                keys.remove(&pid);
            }
        }
    }

    /// The session that a request means. All keys of a process id are compared in full.
    pub(super) fn find(&self, pid: u32, key: &[u8]) -> Option<Target> {
        let keys = self.lock();
        let mut found = None;
        for (known, target) in keys.get(&pid).into_iter().flatten() {
            if bool::from(known.as_bytes().ct_eq(key)) {
                found = Some(target.clone());
            }
        }
        found
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Vec<(Key, Target)>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
