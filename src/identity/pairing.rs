//! Pairing: a client's own random secret stands for one approved login.
//!
//! The first connection with an unknown secret starts a device login; every other connection with
//! the same secret, wanted user and database joins it; once it is approved the secret opens
//! connections without a prompt until the login ends. The login goes on when all clients have
//! left, so a retry after the approval connects.
//!
//! Secrets are never kept: entries are found by a keyed hash, which [`super::Keeping`] keeps over a restart with its
//! random key.
//! A secret belongs to the first person who approved it, whatever user or database comes with it
//! later. What is remembered is bounded by `MAX_ENTRIES` and `MAX_OWNERS`; logins that wait
//! are bounded by [`Logins`].

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use hmac::{Hmac, Mac};
use rand::RngCore;
use sha2::Sha256;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::kept::{KeptOwner, KeptPairing, hex, seconds, unhex};
use super::opener::{Kind, Opener};
use super::seal::Seal;
use super::{About, Asked, LoginError, Logins, Mode, PendingLogin, Principal};
use crate::config::Secret;

/// Waiting and approved secrets at once.
const MAX_ENTRIES: usize = 20_000;
/// Secrets whose owner is remembered; beyond, the oldest is forgotten.
const MAX_OWNERS: usize = 65_536;

/// A keyed hash: of a secret with user and database, or of a secret alone.
type Key = [u8; 32];

/// The secrets known to this process. Clones share them.
#[derive(Clone)]
pub struct Pairings(Arc<Inner>);

struct Inner {
    tracker: TaskTracker,
    stop: CancellationToken,
    tables: Mutex<Tables>,
    changes: Arc<Notify>,
}

pub(super) struct Tables {
    /// Of the keyed hashes.
    key: [u8; 32],
    entries: HashMap<Key, Entered>,
    owners: HashMap<Key, Owner>,
    /// Owners in the order in which they became known.
    order: VecDeque<Key>,
}

/// What is known of one secret.
struct Entered {
    stage: watch::Receiver<Stage>,
    about: About,
    seal: Seal,
}

#[derive(PartialEq, Eq)]
struct Owner {
    iss: String,
    sub: String,
}

/// How far the login of one secret is.
#[derive(Debug, Clone)]
enum Stage {
    /// The provider is being asked for a code.
    Starting,
    /// The code is shown.
    Waiting(PendingLogin),
    /// Over, for good or bad.
    Done(Result<Principal, LoginError>),
}

/// For what a secret is entered with, exactly as the client says it.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The startup user.
    pub user: &'a str,
    /// The database.
    pub database: &'a str,
    /// The client's address, if the secret is bound to it: from elsewhere it is as good as unknown.
    pub address: Option<IpAddr>,
}

/// What a secret opens.
#[derive(Debug)]
pub enum Entry {
    /// An approved login.
    Approved(Principal),
    /// A login that somebody must approve.
    Waiting(Waiter),
}

/// A connection that waits for the approval of its secret.
#[derive(Debug)]
pub struct Waiter {
    /// Link and code.
    pub login: PendingLogin,
    /// Whether this connection started the login; the others joined it.
    pub is_first: bool,
    stage: watch::Receiver<Stage>,
}

impl Waiter {
    /// Waits for the approval. Cancel-safe; dropping the waiter does not end the login.
    ///
    /// # Errors
    /// Why the login ended without a person; all who wait get the same answer.
    pub async fn wait(&mut self) -> Result<Principal, LoginError> {
        let stage = self.stage.wait_for(|stage| matches!(stage, Stage::Done(_))).await;
        match stage.as_deref() {
            Ok(Stage::Done(result)) => result.clone(),
            _ => Err(LoginError::Canceled),
        }
    }
}

impl Pairings {
    /// No secrets yet. Logins run on `tracker` and end when `stop` is cancelled.
    pub fn new(tracker: TaskTracker, stop: CancellationToken) -> Self {
        let mut key = [0_u8; 32];
        rand::rngs::OsRng.fill_bytes(&mut key);
        let tables = Tables { key, entries: HashMap::new(), owners: HashMap::new(), order: VecDeque::new() };
        Self(Arc::new(Inner { tracker, stop, tables: Mutex::new(tables), changes: Arc::default() }))
    }

    /// Enters with a secret for a wanted user and database; if it is the first, `asked` is what is shown of it.
    /// Cancel-safe.
    ///
    /// # Errors
    /// The login could not be started, or a bound is reached.
    pub async fn enter(
        &self,
        secret: &Secret,
        wanted: Wanted<'_>,
        asked: Asked,
        logins: &Logins,
    ) -> Result<Entry, LoginError> {
        let (mut stage, is_first) = self.join(secret, wanted, asked, logins)?;
        let reached = {
            let reached = stage.wait_for(|stage| !matches!(stage, Stage::Starting)).await;
            reached.map_err(|_| LoginError::Canceled)?.clone()
        };
        match reached {
            Stage::Waiting(login) => Ok(Entry::Waiting(Waiter { login, is_first, stage })),
            Stage::Done(result) => result.map(Entry::Approved),
            Stage::Starting => Err(LoginError::Canceled),
        }
    }

    /// Whether an approved secret stands for a login.
    pub fn knows(&self, login: &str) -> bool {
        self.0.lock().entries.values().any(|entered| stands_for(&entered.stage, login).is_some())
    }

    /// The secrets of a login stand for the person as they are told of now.
    pub fn update(&self, now: &Principal) {
        for entered in self.0.lock().entries.values_mut() {
            if let Some(principal) = stands_for(&entered.stage, now.login()) {
                entered.stage = done(principal.as_now(now));
            }
        }
        self.0.changes.notify_one();
    }

    /// The secrets of a login are renewed with what the provider gave now.
    pub fn renewed(&self, now: &Principal) {
        for entered in self.0.lock().entries.values_mut() {
            if let Some(principal) = stands_for(&entered.stage, now.login()) {
                entered.stage = done(principal.with_refresh(now.refresh_token().cloned()));
            }
        }
        self.0.changes.notify_one();
    }

    /// Forgets the approved secrets of those who are meant: they start a login anew.
    pub fn revoke(&self, is_meant: impl Fn(&Principal) -> bool) {
        self.0.lock().entries.retain(|_, entered| !entered.principal().is_some_and(|who| is_meant(&who)));
        self.0.changes.notify_one();
    }

    /// Forgets the approved secret with that id; whether there was one.
    pub fn revoke_one(&self, id: &str) -> bool {
        let mut tables = self.0.lock();
        let key =
            tables.entries.iter().find(|(key, entered)| id_of(key) == id && entered.principal().is_some());
        let key = key.map(|(key, _)| *key);
        let was = key.is_some_and(|key| tables.entries.remove(&key).is_some());
        drop(tables);
        self.0.changes.notify_one();
        was
    }

    /// The approved secrets that live.
    pub fn list(&self) -> Vec<Opener> {
        let now = SystemTime::now();
        let tables = self.0.lock();
        let opener = |(key, entered): (&Key, &Entered)| {
            let principal = entered.principal().filter(|who| !who.is_expired(now))?;
            Some(Opener { id: id_of(key), kind: Kind::Paired, principal, about: entered.about.clone() })
        };
        tables.entries.iter().filter_map(opener).collect()
    }

    /// Told whenever the approved secrets change.
    pub(super) fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.0.changes)
    }

    /// What may be written down: the key of the hashes, secrets, owners.
    pub(super) fn kept(&self) -> (String, Vec<KeptPairing>, Vec<KeptOwner>) {
        let now = SystemTime::now();
        let tables = self.0.lock();
        let pairing = |(key, entered): (&Key, &Entered)| {
            let principal = entered.principal().filter(|who| !who.is_expired(now))?;
            let (about, refresh) = (entered.about.clone(), entered.seal.close(&principal));
            Some(KeptPairing { key: hex(key), about, principal: principal.kept(), refresh })
        };
        let owner = |key: &Key| {
            let Owner { iss, sub } = tables.owners.get(key)?;
            Some(KeptOwner { key: hex(key), iss: iss.clone(), sub: sub.clone() })
        };
        let pairings = tables.entries.iter().filter_map(pairing).collect();
        (hex(&tables.key), pairings, tables.order.iter().filter_map(owner).collect())
    }

    /// Secrets and owners as they were kept; `None` if one of them is none.
    pub(super) fn understand(
        key: &str,
        pairings: Vec<KeptPairing>,
        owners: Vec<KeptOwner>,
        now: SystemTime,
    ) -> Option<Tables> {
        let mut tables = Tables {
            key: unhex(key)?,
            entries: HashMap::new(),
            owners: HashMap::new(),
            order: VecDeque::new(),
        };
        for kept in pairings.into_iter().take(MAX_ENTRIES) {
            let KeptPairing { key, about, principal, refresh } = kept;
            let key = unhex(&key)?;
            let is_whole = !principal.is_renewable() || refresh.is_some();
            let principal = principal.restored(Mode::Pairing);
            if is_whole && !principal.is_expired(now) {
                tables
                    .entries
                    .insert(key, Entered { stage: done(principal), about, seal: Seal::kept(refresh) });
            }
        }
        for kept in owners.into_iter().take(MAX_OWNERS) {
            let key = unhex(&kept.key)?;
            tables.order.push_back(key);
            tables.owners.insert(key, Owner { iss: kept.iss, sub: kept.sub });
        }
        Some(tables)
    }

    /// In place of what there is. Nobody may have entered yet.
    pub(super) fn take(&self, tables: Tables) {
        *self.0.lock() = tables;
    }

    /// Finds the login of a secret, or starts one.
    fn join(
        &self,
        secret: &Secret,
        wanted: Wanted<'_>,
        asked: Asked,
        logins: &Logins,
    ) -> Result<(watch::Receiver<Stage>, bool), LoginError> {
        let now = SystemTime::now();
        let mut tables = self.0.lock();
        let address = wanted.address.map(|address| address.to_string());
        let mut parts = vec![secret.reveal(), wanted.user, wanted.database];
        parts.extend(address.as_deref());
        let key = tables.hash(&parts);
        let owner = tables.hash(&[secret.reveal()]);
        if let Some(entered) = tables.entries.get_mut(&key)
            && is_alive(&entered.stage, now)
        {
            entered.about.used = seconds(now);
            // From before the start, it comes with its refresh token or not at all.
            if entered.unseal(secret.reveal()) {
                return Ok((entered.stage.clone(), false));
            }
        }
        if self.0.stop.is_cancelled() {
            return Err(LoginError::Canceled);
        }
        if tables.entries.len() >= MAX_ENTRIES {
            tables.entries.retain(|_, entered| is_alive(&entered.stage, now));
            if tables.entries.len() >= MAX_ENTRIES {
                return Err(LoginError::TooMany { what: "logins in use" });
            }
        }
        let (sender, stage) = watch::channel(Stage::Starting);
        let about = About {
            role: asked.role.clone(),
            database: asked.database.clone(),
            address: asked.address.to_string(),
            program: asked.program.clone(),
            ..About::now()
        };
        let seal = Seal::by(secret.reveal());
        tables.entries.insert(key, Entered { stage: stage.clone(), about, seal });
        drop(tables);
        let attempt = Attempt { pairings: self.clone(), key, owner, stage: sender };
        let (logins, stop) = (logins.clone(), self.0.stop.clone());
        self.0.tracker.spawn(async move {
            // `biased`: a stopping gateway lets nobody in any more.
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => Err(LoginError::Canceled),
                result = attempt.log_in(&logins, asked) => result,
            };
            attempt.finish(result);
        });
        Ok((stage, true))
    }
}

impl std::fmt::Debug for Pairings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pairings").field("entries", &self.0.lock().entries.len()).finish_non_exhaustive()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entered {
    /// Whether what stands in it is whole, now that the secret is at hand.
    fn unseal(&mut self, secret: &str) -> bool {
        let Some(principal) = self.principal() else { return true };
        let whole = self.seal.open(secret, &principal);
        if let Some(whole) = whole.as_ref().filter(|whole| **whole != principal) {
            self.stage = done(whole.clone());
        }
        whole.is_some()
    }

    /// Who approved it.
    fn principal(&self) -> Option<Principal> {
        match &*self.stage.borrow() {
            Stage::Done(Ok(principal)) => Some(principal.clone()),
            _ => None,
        }
    }
}

impl Tables {
    fn hash(&self, parts: &[&str]) -> Key {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of every length");
        for part in parts {
            // Lengths keep ("ab", "c") and ("a", "bc") apart.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }

    /// Makes the person the owner of the secret, unless it has another.
    fn claim(&mut self, secret: Key, principal: &Principal) -> bool {
        let person = Owner { iss: principal.iss().to_owned(), sub: principal.sub().to_owned() };
        if let Some(owner) = self.owners.get(&secret) {
            return *owner == person;
        }
        if self.order.len() >= MAX_OWNERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.owners.remove(&oldest);
        }
        self.order.push_back(secret);
        self.owners.insert(secret, person);
        true
    }
}

/// One login on behalf of a secret. However it ends, [`Drop`] takes a failed entry away.
struct Attempt {
    pairings: Pairings,
    key: Key,
    owner: Key,
    stage: watch::Sender<Stage>,
}

impl Attempt {
    async fn log_in(&self, logins: &Logins, asked: Asked) -> Result<Principal, LoginError> {
        let login = logins.begin(asked).await?;
        self.stage.send_replace(Stage::Waiting(login.clone()));
        Ok(login.wait().await?.by(Mode::Pairing))
    }

    fn finish(self, result: Result<Principal, LoginError>) {
        let result = result.and_then(|principal| {
            let is_owner = self.pairings.0.lock().claim(self.owner, &principal);
            if is_owner { Ok(principal) } else { Err(LoginError::OtherPerson) }
        });
        if result.is_err() {
            // First gone, then told: whoever retries on the answer starts anew.
            self.pairings.0.lock().entries.remove(&self.key);
        }
        self.stage.send_replace(Stage::Done(result));
        self.pairings.0.changes.notify_one();
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let is_approved = matches!(&*self.stage.borrow(), Stage::Done(_));
        if !is_approved {
            self.pairings.0.lock().entries.remove(&self.key);
        }
    }
}

/// The stage of a secret that is approved.
fn done(principal: Principal) -> watch::Receiver<Stage> {
    watch::channel(Stage::Done(Ok(principal))).1
}

/// What people call a secret: enough of its hash.
fn id_of(key: &Key) -> String {
    hex(&key[..8])
}

/// The principal of an approved secret, if it is of that login.
fn stands_for(stage: &watch::Receiver<Stage>, login: &str) -> Option<Principal> {
    match &*stage.borrow() {
        Stage::Done(Ok(principal)) if principal.login() == login => Some(principal.clone()),
        _ => None,
    }
}

/// Whether an entry may still be joined. One whose task is gone without a word may not.
fn is_alive(stage: &watch::Receiver<Stage>, now: SystemTime) -> bool {
    match &*stage.borrow() {
        Stage::Done(Ok(principal)) => !principal.is_expired(now),
        Stage::Done(Err(_)) => false,
        Stage::Starting | Stage::Waiting(_) => stage.has_changed().is_ok(),
    }
}
