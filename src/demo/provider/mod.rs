//! An OpenID Connect provider for the demo and for tests: discovery, keys, device login, token,
//! authorization code with PKCE, userinfo, and pages on which one picks who one is.
//!
//! It asks nobody for a password, so it serves on loopback alone and answers only requests whose
//! `Host` is a loopback name (a foreign page could otherwise reach it by a name of its own). `run`
//! has no path to it. Its key and all its state are new at each start; every table is bounded by a
//! constant below.
//!
//! Another process approves a login with `POST {issuer}/approve`, form fields `user_code` and
//! `user` (name, e-mail address or the part before the `@`): 200 and `{"user": email}`, or 4xx and
//! `{"error", "error_description"}`. `POST {issuer}/deny` takes `user_code` alone, or with `user`. A code that
//! belongs to a page of the gateway's own ([`DemoProvider::point`]) is approved there, by a visitor who signs in here.

mod key;
mod pages;
mod routes;
mod visitor;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng;
use rand::RngCore;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Oidc;
use visitor::Word;

pub(crate) use key::Key;

/// The only client.
const CLIENT_ID: &str = "pgwitness";
/// Device logins at once.
const MAX_DEVICES: usize = 10_000;
/// Authorization codes at once.
const MAX_CODES: usize = 1_000;
/// How long a device code lives.
const DEVICE_LIFE: Duration = Duration::from_secs(600);
/// How long an authorization code lives.
const CODE_LIFE: Duration = Duration::from_secs(60);
/// How long a token lives, seconds.
const TOKEN_LIFE: u64 = 3600;
/// How often to ask for an approval, seconds.
const INTERVAL: u64 = 1;
/// Letters of a user code: no vowels, so no words; nothing that looks like something else.
const LETTERS: &[u8] = b"BCDFGHJKLMNPQRSTVWXZ";

/// Somebody one can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Name to show.
    pub name: String,
    /// E-mail address; also what the person's id is made of.
    pub email: String,
    /// Groups.
    pub groups: Vec<String>,
}

/// The running provider. Clones are the same one.
#[derive(Clone)]
pub struct DemoProvider(Arc<State>);

struct State {
    issuer: String,
    people: Vec<Person>,
    key: Key,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    /// By device code.
    devices: HashMap<String, Device>,
    /// By authorization code.
    codes: HashMap<String, Code>,
    /// By user code: the gateway's own page where it is approved.
    pages: HashMap<String, (String, Instant)>,
    /// Refresh tokens: whose they are.
    refreshes: HashMap<String, usize>,
    /// Groups that were changed.
    groups: HashMap<usize, Vec<String>>,
}

struct Device {
    user_code: String,
    ends: Instant,
    answer: Answer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Pending,
    Approved(usize),
    Denied,
}

/// A login in a browser that was approved and waits to be fetched.
struct Code {
    person: usize,
    redirect_uri: String,
    challenge: String,
    nonce: Option<String>,
    ends: Instant,
}

/// Why a code could not be approved or denied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApproveError {
    /// No such code, or its life is over.
    #[error("no login waits with this code; it may have ended. Connect again for a new one")]
    NoSuchCode,
    /// Somebody was faster.
    #[error("this code was already answered. Connect again for a new one")]
    Answered,
    /// It belongs to a page of the gateway, which did not take the answer.
    #[error("{0}")]
    Page(String),
    /// Nobody of that name.
    #[error("the demo knows nobody called \"{who}\". Choose one of: {people}")]
    NoSuchPerson {
        /// Who was asked for.
        who: String,
        /// Who there is.
        people: String,
    },
}

impl DemoProvider {
    /// Serves on the listener until `stop` is cancelled.
    ///
    /// # Errors
    /// The listener is not on a loopback address.
    pub fn start(
        listener: TcpListener,
        people: Vec<Person>,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            return Err(io::Error::other(format!(
                "the demo's identity provider asks nobody for a password, so it must not listen on {address}"
            )));
        }
        let issuer = format!("http://{address}");
        let provider = Self(Arc::new(State { issuer, people, key: Key::new(), tables: Mutex::default() }));
        let app = routes::app(provider.clone());
        tracker.spawn(async move {
            let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::error!(%error, "the demo's identity provider ended");
            }
        });
        Ok(provider)
    }

    /// The issuer, as tokens spell it.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// The client id to configure; it has no secret.
    pub fn client_id(&self) -> &'static str {
        CLIENT_ID
    }

    /// What a gateway has to know of this provider.
    pub fn oidc(&self, session_max_age: Duration) -> Oidc {
        Oidc {
            issuer: self.issuer().to_owned(),
            client_id: self.client_id().to_owned(),
            native_client_id: self.client_id().to_owned(),
            client_secret: None,
            audience: self.client_id().to_owned(),
            scopes: ["openid", "email", "groups"].map(str::to_owned).to_vec(),
            user_claim: "email".into(),
            group_claim: "groups".into(),
            require_acr: Vec::new(),
            session_max_age,
            refresh_every: Duration::from_secs(300),
            outage_grace: Duration::from_secs(900),
        }
    }

    /// From now on a person's logins are over, and they get no new ones renewed.
    pub fn disable(&self, who: &str) {
        if let Some((index, _)) = self.find(who) {
            self.lock().refreshes.retain(|_, person| *person != index);
        }
    }

    /// Gives a person other groups: their next tokens tell of them.
    pub fn regroup(&self, who: &str, groups: &[&str]) {
        if let Some((index, _)) = self.find(who) {
            let groups = groups.iter().map(|&group| group.to_owned()).collect();
            self.lock().groups.insert(index, groups);
        }
    }

    /// Who one can be.
    pub fn people(&self) -> &[Person] {
        &self.0.people
    }

    /// Approves the login with that code as that person: name, e-mail address or the part before
    /// the `@`. Returns who it was.
    ///
    /// # Errors
    /// No such code, no such person, or already answered.
    pub fn approve(&self, user_code: &str, who: &str) -> Result<&Person, ApproveError> {
        let (index, person) = self.find(who).ok_or_else(|| ApproveError::NoSuchPerson {
            who: who.chars().filter(|c| !c.is_control()).take(100).collect(),
            people: self.0.people.iter().map(|person| person.email.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        self.answer(user_code, Answer::Approved(index))?;
        Ok(person)
    }

    /// Denies the login with that code.
    ///
    /// # Errors
    /// No such code, or already answered.
    pub fn deny(&self, user_code: &str) -> Result<(), ApproveError> {
        self.answer(user_code, Answer::Denied)
    }

    /// Remembers at which page of a gateway a code is approved.
    pub fn point(&self, user_code: &str, link: &str) {
        let now = Instant::now();
        let mut tables = self.lock();
        if tables.pages.len() >= MAX_DEVICES {
            tables.pages.retain(|_, (_, ends)| *ends > now);
        }
        if tables.pages.len() < MAX_DEVICES {
            tables.pages.insert(plain(user_code), (link.to_owned(), now + DEVICE_LIFE));
        }
    }

    /// Approves the login with that code as that person, here or at the page where it belongs.
    ///
    /// # Errors
    /// As [`DemoProvider::approve`]; or the page does not take it.
    pub async fn approve_anywhere(&self, user_code: &str, who: &str) -> Result<&Person, ApproveError> {
        match (self.page_of(user_code), self.approve(user_code, who)) {
            (Some(link), Err(ApproveError::NoSuchCode)) => {
                let Some((_, person)) = self.find(who) else { return Err(ApproveError::NoSuchCode) };
                let visited = visitor::visit(&link, user_code, &person.email, Word::Approve).await;
                visited.map(|()| person).map_err(ApproveError::Page)
            }
            (_, approved) => approved,
        }
    }

    /// Denies it, here or there; there as that person, or the first there is.
    ///
    /// # Errors
    /// As [`DemoProvider::deny`]; or the page does not take it.
    pub async fn deny_anywhere(&self, user_code: &str, who: &str) -> Result<(), ApproveError> {
        match (self.page_of(user_code), self.deny(user_code)) {
            (Some(link), Err(ApproveError::NoSuchCode)) => {
                let person = self.find(who).map(|(_, person)| person).or(self.0.people.first());
                let person = person.ok_or(ApproveError::NoSuchCode)?;
                let visited = visitor::visit(&link, user_code, &person.email, Word::Deny).await;
                visited.map_err(ApproveError::Page)
            }
            (_, denied) => denied,
        }
    }

    fn page_of(&self, user_code: &str) -> Option<String> {
        let tables = self.lock();
        let (link, ends) = tables.pages.get(&plain(user_code))?;
        (*ends > Instant::now()).then(|| link.clone())
    }

    /// How many device logins were started and have not ended.
    pub fn pending(&self) -> usize {
        let now = Instant::now();
        let is_pending = |device: &&Device| device.answer == Answer::Pending && device.ends > now;
        self.lock().devices.values().filter(is_pending).count()
    }

    /// The provider's key, to make tokens that it would never give.
    #[cfg(test)]
    pub(crate) fn key(&self) -> &Key {
        &self.0.key
    }

    fn answer(&self, user_code: &str, answer: Answer) -> Result<(), ApproveError> {
        let user_code = plain(user_code);
        let now = Instant::now();
        let mut tables = self.lock();
        let mut alive = tables.devices.values_mut().filter(|device| device.ends > now);
        let device =
            alive.find(|device| plain(&device.user_code) == user_code).ok_or(ApproveError::NoSuchCode)?;
        if device.answer != Answer::Pending {
            return Err(ApproveError::Answered);
        }
        device.answer = answer;
        Ok(())
    }

    fn find(&self, who: &str) -> Option<(usize, &Person)> {
        let is_called = |person: &Person| {
            let local = person.email.split('@').next().unwrap_or_default();
            [person.email.as_str(), person.name.as_str(), local]
                .iter()
                .any(|name| name.eq_ignore_ascii_case(who))
        };
        self.0.people.iter().enumerate().find(|(_, person)| is_called(person))
    }

    /// A new device login: device code and user code. `None`: too many.
    fn begin_device(&self) -> Option<(String, String)> {
        let now = Instant::now();
        let mut tables = self.lock();
        if tables.devices.len() >= MAX_DEVICES {
            tables.devices.retain(|_, device| device.ends > now);
            if tables.devices.len() >= MAX_DEVICES {
                return None;
            }
        }
        let device_code = random_word();
        let mut user_code = random_user_code();
        while tables.devices.values().any(|device| device.user_code == user_code) {
            user_code = random_user_code();
        }
        let device =
            Device { user_code: user_code.clone(), ends: now + DEVICE_LIFE, answer: Answer::Pending };
        tables.devices.insert(device_code.clone(), device);
        Some((device_code, user_code))
    }

    /// Who approved a device code, once; else the error of RFC 8628.
    fn take_device(&self, device_code: &str) -> Result<&Person, &'static str> {
        let mut tables = self.lock();
        let device = tables.devices.get(device_code).ok_or("invalid_grant")?;
        let (answer, is_over) = (device.answer, device.ends <= Instant::now());
        if answer == Answer::Pending && !is_over {
            return Err("authorization_pending");
        }
        tables.devices.remove(device_code);
        match answer {
            _ if is_over => Err("expired_token"),
            Answer::Approved(index) => self.0.people.get(index).ok_or("invalid_grant"),
            Answer::Pending | Answer::Denied => Err("access_denied"),
        }
    }

    /// Whether a login waits with that code, and how it is spelled.
    fn waiting(&self, user_code: &str) -> Option<String> {
        let (user_code, now) = (plain(user_code), Instant::now());
        let tables = self.lock();
        let mut waiting =
            tables.devices.values().filter(|device| device.ends > now && device.answer == Answer::Pending);
        waiting.find(|device| plain(&device.user_code) == user_code).map(|device| device.user_code.clone())
    }

    /// Keeps an approved browser login; its authorization code. `None`: too many.
    fn begin_code(&self, code: Code) -> Option<String> {
        let now = Instant::now();
        let mut tables = self.lock();
        tables.codes.retain(|_, code| code.ends > now);
        if tables.codes.len() >= MAX_CODES {
            return None;
        }
        let word = random_word();
        tables.codes.insert(word.clone(), code);
        Some(word)
    }

    /// Who an authorization code stands for, once, with the nonce of the request.
    fn take_code(&self, code: &str, redirect_uri: &str, verifier: &str) -> Option<(&Person, Option<String>)> {
        let code = self.lock().codes.remove(code)?;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let fits =
            code.ends > Instant::now() && code.redirect_uri == redirect_uri && code.challenge == challenge;
        let person = self.0.people.get(code.person)?;
        fits.then_some((person, code.nonce))
    }

    fn tokens(&self, person: &Person, nonce: Option<&str>) -> Value {
        let now = unix_now();
        let mut claims = self.claims(person);
        claims["iss"] = json!(self.issuer());
        claims["aud"] = json!(CLIENT_ID);
        claims["iat"] = json!(now);
        claims["exp"] = json!(now + TOKEN_LIFE);
        claims["jti"] = json!(random_word());
        let access = self.0.key.sign("at+jwt", &claims);
        claims["auth_time"] = json!(now);
        claims["amr"] = json!(["demo"]);
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        json!({
            "id_token": self.0.key.sign("JWT", &claims),
            "access_token": access,
            "refresh_token": self.begin_refresh(person),
            "token_type": "Bearer",
            "expires_in": TOKEN_LIFE,
        })
    }

    fn claims(&self, person: &Person) -> Value {
        json!({
            "sub": subject(person),
            "name": person.name,
            "email": person.email,
            "email_verified": true,
            "groups": self.groups(person),
        })
    }

    fn groups(&self, person: &Person) -> Vec<String> {
        let index = self.0.people.iter().position(|known| known == person);
        let changed = index.and_then(|index| self.lock().groups.get(&index).cloned());
        changed.unwrap_or_else(|| person.groups.clone())
    }

    /// A new refresh token; none when there are too many.
    fn begin_refresh(&self, person: &Person) -> Option<String> {
        let index = self.0.people.iter().position(|known| known == person)?;
        let mut tables = self.lock();
        if tables.refreshes.len() >= MAX_DEVICES {
            return None;
        }
        let word = random_word();
        tables.refreshes.insert(word.clone(), index);
        Some(word)
    }

    /// Whose a refresh token is, once.
    fn take_refresh(&self, token: &str) -> Option<&Person> {
        let index = self.lock().refreshes.remove(token)?;
        self.0.people.get(index)
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for DemoProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DemoProvider").field("issuer", &self.issuer()).finish_non_exhaustive()
    }
}

/// The same person has the same id in every run.
fn subject(person: &Person) -> String {
    let digest = Sha256::digest(person.email.as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A user code as people may type it, reduced to what counts.
fn plain(user_code: &str) -> String {
    user_code.chars().filter(char::is_ascii_alphanumeric).take(16).map(|c| c.to_ascii_uppercase()).collect()
}

fn random_user_code() -> String {
    let mut random = rand::rngs::OsRng;
    let mut half =
        || (0..4).map(|_| char::from(LETTERS[random.gen_range(0..LETTERS.len())])).collect::<String>();
    format!("{}-{}", half(), half())
}

fn random_word() -> String {
    let mut bytes = [0_u8; 32];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
