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

/// Length of our own keys, bytes (protocol 3.0).
pub(super) const KEY: usize = 4;

/// What a key opens.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) server: Arc<Server>,
    pub(super) pid: u32,
    pub(super) server_key: Bytes,
    pub(super) who: Arc<Who>,
}

/// Keys of the sessions that are open. Bounded by the number of clients.
#[derive(Debug, Default)]
pub(super) struct CancelKeys {
    keys: Mutex<HashMap<(u32, [u8; KEY]), Target>>,
}

impl CancelKeys {
    /// Makes a key for a session.
    pub(super) fn add(&self, target: Target) -> [u8; KEY] {
        let key = rand::random();
        self.lock().insert((target.pid, key), target);
        key
    }

    pub(super) fn remove(&self, pid: u32, key: [u8; KEY]) {
        self.lock().remove(&(pid, key));
    }

    /// The session that a request means. All keys of a process id are compared in full.
    pub(super) fn find(&self, pid: u32, key: &[u8]) -> Option<Target> {
        let keys = self.lock();
        let mut found = None;
        for ((known_pid, known), target) in keys.iter() {
            if *known_pid == pid && bool::from(known.as_slice().ct_eq(key)) {
                found = Some(target.clone());
            }
        }
        found
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(u32, [u8; KEY]), Target>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
