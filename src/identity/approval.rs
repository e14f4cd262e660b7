//! Approval at our own page: who waits, what they ask for, and who says yes.
//!
//! With the provider's own device login a person approves a code and sees nothing of who asked for it: whoever
//! sends them link and code gets in as them (RFC 8628, 5.4). Here the page shows what waits, the person types the
//! code that stands in their terminal, signs in, and then says yes or no. The identity is that of the browser; the
//! waiting side says nothing of it.
//!
//! A request lives for [`LIFE`], as long as whoever asked still waits, and for [`MAX_TRIES`] wrong codes; it is
//! answered once. How it ended is remembered for the rest of its life, so that the page can say so. Requests are
//! bounded by [`MAX_REQUESTS`], those that wait by the places of [`super::Logins`] besides.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rand::Rng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use url::Url;

use super::asked::Asked;
use super::{LoginError, Mode, Principal, random_word};

/// A request may be approved for this long.
pub const LIFE: Duration = Duration::from_secs(600);
/// Wrong codes of one request.
const MAX_TRIES: u8 = 5;
/// Wrong codes of one browser's address within [`LIFE`], for whatever requests.
const MAX_TRIES_OF_ADDRESS: u32 = 20;
/// Requests remembered, the ended among them; beyond, the oldest is forgotten.
const MAX_REQUESTS: usize = 20_000;
/// Addresses with wrong codes remembered; beyond, all are forgotten that have no more than one.
const MAX_ADDRESSES: usize = 10_000;
/// Letters of a code: no vowels, so no words; nothing that looks like something else.
const LETTERS: &[u8] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters in a code.
const CODE_LETTERS: usize = 8;

type Key = [u8; 32];

/// The requests of one gateway. Clones share them.
#[derive(Clone)]
pub struct Approvals(Arc<Inner>);

struct Inner {
    base: Url,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    requests: HashMap<Key, Entry>,
    /// Oldest first.
    order: VecDeque<Key>,
    wrong: HashMap<IpAddr, (u32, Instant)>,
}

struct Entry {
    asked: Arc<Asked>,
    code: [u8; CODE_LETTERS],
    tries: u8,
    ends: Instant,
    stage: watch::Sender<Stage>,
}

/// How far a request is.
#[derive(Debug, Clone)]
enum Stage {
    Waiting,
    Approved(Principal),
    Denied(Principal),
    Left,
    Spent,
}

/// How far a request is, for the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Somebody waits for an answer.
    Waiting,
    /// Somebody said yes.
    Approved,
    /// Somebody said no.
    Denied,
    /// Whoever asked waits no longer.
    Left,
    /// The code was typed wrongly too often.
    Spent,
    /// It was not answered in time.
    Expired,
}

/// A request as the page shows it.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is asked for, by whom.
    pub asked: Arc<Asked>,
    /// How far it is.
    pub state: State,
}

/// Why a code was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeFault {
    /// There is no such request.
    Unknown,
    /// It has ended.
    Over(State),
    /// It is another one; so many tries are left.
    Wrong(u8),
    /// This address typed too many wrong ones; it may try again after this.
    TooMany(Duration),
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Approve,
    /// No.
    Deny,
}

impl Approvals {
    /// Nothing waits. Links begin with `base`.
    pub fn new(base: &Url) -> Self {
        Self(Arc::new(Inner { base: base.clone(), table: Mutex::default() }))
    }

    /// A new request. It ends when what is returned is dropped.
    pub(super) fn begin(&self, asked: Asked) -> AtPage {
        let id = random_word::<16>();
        let code = random_code();
        let (stage, seen) = watch::channel(Stage::Waiting);
        let ends = Instant::now() + LIFE;
        let (key, asked) = (key(&id), Arc::new(asked));
        let mut table = self.lock();
        if table.requests.len() >= MAX_REQUESTS
            && let Some(oldest) = table.order.pop_front()
        {
            table.requests.remove(&oldest);
        }
        table.order.push_back(key);
        table.requests.insert(key, Entry { asked, code, tries: 0, ends, stage });
        drop(table);
        let mut link = self.0.base.clone();
        link.set_path(&format!("{}/device/{id}", self.0.base.path().trim_end_matches('/')));
        link.set_query(None);
        link.set_fragment(None);
        AtPage {
            link: link.to_string(),
            code: shown(code),
            expires_at: SystemTime::now() + LIFE,
            ends,
            stage: seen,
            held: Held { approvals: self.clone(), key },
        }
    }

    /// What waits under an id.
    pub fn look(&self, id: &str) -> Option<Request> {
        let table = self.lock();
        let entry = table.requests.get(&key(id))?;
        Some(Request { asked: Arc::clone(&entry.asked), state: entry.state(Instant::now()) })
    }

    /// Compares the code that somebody at `from` typed.
    ///
    /// # Errors
    /// The request is over, or the code another one; the last wrong one ends the request.
    pub fn try_code(&self, id: &str, typed: &str, from: IpAddr) -> Result<(), CodeFault> {
        let now = Instant::now();
        let mut table = self.lock();
        if let Some(wait) = table.too_many(from, now) {
            return Err(CodeFault::TooMany(wait));
        }
        // Not counted: ids are not guessed at, and who shares an address with us must not lock us out for nothing.
        let Some(entry) = table.requests.get_mut(&key(id)) else { return Err(CodeFault::Unknown) };
        let state = entry.state(now);
        if state != State::Waiting {
            return Err(CodeFault::Over(state));
        }
        let typed: Vec<u8> = letters(typed);
        if bool::from(typed.as_slice().ct_eq(&entry.code)) {
            return Ok(());
        }
        entry.tries += 1;
        let left = MAX_TRIES.saturating_sub(entry.tries);
        if left == 0 {
            entry.stage.send_replace(Stage::Spent);
        }
        table.count_wrong(from, now);
        Err(if left == 0 { CodeFault::Over(State::Spent) } else { CodeFault::Wrong(left) })
    }

    /// Answers a request, once, as a person whose browser at `from` was verified just now. The caller has compared
    /// the code.
    ///
    /// # Errors
    /// How the request ended before; `None` if there is none.
    pub fn answer(
        &self,
        id: &str,
        answer: Answer,
        person: &Principal,
        from: IpAddr,
    ) -> Result<(), Option<State>> {
        let table = self.lock();
        let entry = table.requests.get(&key(id)).ok_or(None)?;
        match entry.state(Instant::now()) {
            State::Waiting => {}
            over => return Err(Some(over)),
        }
        let person = person.by(Mode::Device).knowing("approved_from", &from.to_canonical().to_string());
        entry.stage.send_replace(match answer {
            Answer::Approve => Stage::Approved(person),
            Answer::Deny => Stage::Denied(person),
        });
        Ok(())
    }

    fn leave(&self, key: &Key) {
        if let Some(entry) = self.lock().requests.get(key) {
            entry.stage.send_if_modified(|stage| {
                let waits = matches!(stage, Stage::Waiting);
                if waits {
                    *stage = Stage::Left;
                }
                waits
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Approvals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Approvals").field("requests", &self.lock().requests.len()).finish_non_exhaustive()
    }
}

impl Entry {
    fn state(&self, now: Instant) -> State {
        match &*self.stage.borrow() {
            Stage::Waiting if self.ends <= now => State::Expired,
            Stage::Waiting => State::Waiting,
            Stage::Approved(_) => State::Approved,
            Stage::Denied(_) => State::Denied,
            Stage::Left => State::Left,
            Stage::Spent => State::Spent,
        }
    }
}

impl Table {
    fn too_many(&self, from: IpAddr, now: Instant) -> Option<Duration> {
        let (count, since) = self.wrong.get(&from)?;
        let left = LIFE.saturating_sub(now.saturating_duration_since(*since));
        (*count >= MAX_TRIES_OF_ADDRESS && !left.is_zero()).then_some(left)
    }

    fn count_wrong(&mut self, from: IpAddr, now: Instant) {
        if self.wrong.len() >= MAX_ADDRESSES {
            self.wrong.retain(|_, (count, since)| *count > 1 && now.saturating_duration_since(*since) < LIFE);
            if self.wrong.len() >= MAX_ADDRESSES {
                self.wrong.clear();
            }
        }
        let tally = self.wrong.entry(from).or_insert((0, now));
        if now.saturating_duration_since(tally.1) >= LIFE {
            *tally = (0, now);
        }
        tally.0 += 1;
    }
}

/// A request, held by whoever waits.
pub(super) struct AtPage {
    pub(super) link: String,
    pub(super) code: String,
    pub(super) expires_at: SystemTime,
    ends: Instant,
    stage: watch::Receiver<Stage>,
    held: Held,
}

/// Nobody waits any more when it is dropped.
struct Held {
    approvals: Approvals,
    key: Key,
}

impl AtPage {
    /// Waits for an answer. Cancel-safe.
    pub(super) async fn wait(&self) -> Result<Principal, LoginError> {
        let mut stage = self.stage.clone();
        let answered = stage.wait_for(|stage| !matches!(stage, Stage::Waiting));
        match tokio::time::timeout_at(self.ends.into(), answered).await {
            Ok(Ok(stage)) => match &*stage {
                Stage::Approved(person) => Ok(person.clone()),
                Stage::Denied(person) => Err(LoginError::DeniedBy { who: person.user().to_owned() }),
                Stage::Spent => Err(LoginError::Guessed),
                Stage::Waiting | Stage::Left => Err(LoginError::Expired),
            },
            // The request was forgotten for newer ones.
            Ok(Err(_)) | Err(_) => Err(LoginError::Expired),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.approvals.leave(&self.key);
    }
}

impl std::fmt::Debug for AtPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = &self.held;
        f.debug_struct("AtPage").finish_non_exhaustive()
    }
}

fn key(id: &str) -> Key {
    Sha256::digest(id.as_bytes()).into()
}

fn random_code() -> [u8; CODE_LETTERS] {
    let mut random = rand::rngs::OsRng;
    std::array::from_fn(|_| LETTERS[random.gen_range(0..LETTERS.len())])
}

/// `XXXX-XXXX`
fn shown(code: [u8; CODE_LETTERS]) -> String {
    let (first, second) = code.split_at(CODE_LETTERS / 2);
    format!("{}-{}", String::from_utf8_lossy(first), String::from_utf8_lossy(second))
}

/// A code as people may type it, reduced to what counts; one letter more than a code has is enough to be wrong.
fn letters(typed: &str) -> Vec<u8> {
    let letters = typed.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_uppercase());
    letters.take(CODE_LETTERS + 1).collect()
}
