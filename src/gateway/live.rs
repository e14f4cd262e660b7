//! The sessions that are open now, as the page and `pgwitness sessions` list them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgwitness_index::record::{Timestamp, Who};
use pgwitness_protocol::reply::Say;
use tokio::sync::Notify;

use crate::identity::Whose;

/// A session as others see it.
#[derive(Debug, Clone)]
pub struct LiveSession {
    /// Who and from where.
    pub who: Arc<Who>,
    /// Process id of its backend.
    pub pid: u32,
    /// When it began.
    pub since: Timestamp,
    /// Ends it.
    pub(super) order: Arc<Order>,
}

/// Whether a session is meant.
pub(super) fn is_meant(whose: &Whose, who: &Who) -> bool {
    match whose {
        Whose::Session(id) => *id == who.session,
        Whose::Login(id) => *id == who.login,
        Whose::Device { device, logins } => *device == who.device || logins.contains(&who.login),
        Whose::Person { iss, sub } => *iss == who.iss && *sub == who.sub,
    }
}

/// Tells a session to end. Given once; later ones are not heard.
#[derive(Debug, Default)]
pub(super) struct Order {
    given: AtomicBool,
    words: Mutex<Option<Say>>,
    wake: Notify,
}

impl Order {
    fn give(&self, words: Say) {
        let mut known = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.given.load(Ordering::Acquire) {
            *known = Some(words);
            self.given.store(true, Ordering::Release);
            self.wake.notify_one();
        }
    }

    /// Whether it was given: a look that costs nothing.
    pub(super) fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }

    /// Waits until it is given. Cancel safe.
    pub(super) async fn heard(&self) {
        self.wake.notified().await;
    }

    /// What to tell the client; once.
    pub(super) fn words(&self) -> Option<Say> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Sessions that are open now, by id. Bounded by the number of clients.
#[derive(Debug, Default)]
pub struct LiveSessions(Mutex<BTreeMap<String, LiveSession>>);

impl LiveSessions {
    /// All of them, oldest first (ids carry their time).
    pub fn list(&self) -> Vec<LiveSession> {
        self.lock().values().cloned().collect()
    }

    /// Ends sessions: each is told by these words, at the next moment without a transaction. Says how many.
    pub(super) fn end(&self, whose: &Whose, words: &Say) -> usize {
        let open: Vec<_> = self.lock().values().filter(|live| is_meant(whose, &live.who)).cloned().collect();
        open.iter().for_each(|live| live.order.give(words.clone()));
        open.len()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, LiveSession>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
