//! [`Principal`]: a person whose identity was verified. Only this folder can make one.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::kept::seconds;
use crate::config::Secret;

/// How a person logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// By link and code, in the connection.
    Device,
    /// With a token of the provider as password or bearer.
    Token,
    /// With a token of ours.
    Minted,
    /// With the client's own secret, after an approval.
    Pairing,
    /// In the browser.
    Browser,
    /// With a token of the provider, by SASL OAUTHBEARER.
    Oauth,
    /// With the password of an account of the configuration.
    Scram,
}

/// The issuer of accounts of the configuration, in place of a provider's URL.
pub(super) const SERVICE_ISSUER: &str = "pgwitness";
/// How their names begin; no person's may.
pub(super) const SERVICE_PREFIX: &str = "service:";
/// How the names of programs begin that show a token of their platform; no person's may.
pub(super) const WORKLOAD_PREFIX: &str = "workload:";

impl Mode {
    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Token => "token",
            Self::Minted => "minted",
            Self::Pairing => "pairing",
            Self::Browser => "browser",
            Self::Oauth => "oauth",
            Self::Scram => "scram",
        }
    }
}

/// What was verified about a person, before it becomes a [`Principal`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Verified {
    pub(super) iss: String,
    pub(super) sub: String,
    pub(super) user: String,
    pub(super) email: Option<String>,
    pub(super) email_verified: bool,
    pub(super) groups: Vec<String>,
    pub(super) auth: Vec<(String, String)>,
}

/// A verified person and the login that verified them. The key of a person is `(iss, sub)`; names
/// and addresses may change.
///
/// It has no public constructor: whoever holds one got it from a verified signature.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal(Arc<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    who: Verified,
    mode: Mode,
    login: String,
    expires: SystemTime,
    /// What the provider can be asked with whether the login still stands.
    refresh: Option<Secret>,
    /// What we know ourselves of how it was verified, in the record's words.
    ours: Vec<(String, String)>,
}

impl Principal {
    pub(super) fn new(who: Verified, mode: Mode, expires: SystemTime) -> Self {
        let login = Uuid::now_v7().to_string();
        Self(Arc::new(Inner { who, mode, login, expires, refresh: None, ours: Vec::new() }))
    }

    /// A token's login: the same each time it is shown.
    pub(super) fn as_login(&self, login: String) -> Self {
        Self(Arc::new(Inner { login, ..(*self.0).clone() }))
    }

    /// The same login, reached in another way.
    pub(super) fn by(&self, mode: Mode) -> Self {
        Self(Arc::new(Inner { mode, ..(*self.0).clone() }))
    }

    /// The same login, ending no later than that.
    pub(super) fn until(&self, end: SystemTime) -> Self {
        let expires = self.0.expires.min(end);
        Self(Arc::new(Inner { expires, ..(*self.0).clone() }))
    }

    /// The same login, to be renewed with that; nothing keeps what there was.
    pub(super) fn with_refresh(&self, refresh: Option<Secret>) -> Self {
        let refresh = refresh.or_else(|| self.0.refresh.clone());
        Self(Arc::new(Inner { refresh, ..(*self.0).clone() }))
    }

    /// The same login, of the person as the provider tells of them now.
    pub(super) fn as_now(&self, now: &Self) -> Self {
        Self(Arc::new(Inner { who: now.0.who.clone(), ..(*self.0).clone() }))
    }

    /// The same login, with a fact of ours about how it was verified.
    pub(super) fn knowing(&self, fact: &str, value: &str) -> Self {
        let mut ours = self.0.ours.clone();
        ours.push((fact.to_owned(), value.to_owned()));
        Self(Arc::new(Inner { ours, ..(*self.0).clone() }))
    }

    /// What may be written down of it: no secret.
    pub(super) fn kept(&self) -> KeptPrincipal {
        KeptPrincipal {
            who: self.0.who.clone(),
            ours: self.0.ours.clone(),
            login: self.0.login.clone(),
            expires: seconds(self.0.expires),
            renewable: self.is_renewable(),
        }
    }

    pub(super) fn refresh_token(&self) -> Option<&Secret> {
        self.0.refresh.as_ref()
    }

    /// Whether the provider can be asked about the login again.
    pub fn is_renewable(&self) -> bool {
        self.0.refresh.is_some()
    }

    /// The provider.
    pub fn iss(&self) -> &str {
        &self.0.who.iss
    }

    /// The provider's own id of the person.
    pub fn sub(&self) -> &str {
        &self.0.who.sub
    }

    /// The person's name: the configured claim.
    pub fn user(&self) -> &str {
        &self.0.who.user
    }

    /// The account's name in the configuration, if this is one.
    pub fn service(&self) -> Option<&str> {
        self.user().strip_prefix(SERVICE_PREFIX).filter(|_| self.mode() == Mode::Scram)
    }

    /// The name in the configuration, if this is an account of it or a program with a rule there.
    pub fn configured_name(&self) -> Option<&str> {
        self.service().or_else(|| self.user().strip_prefix(WORKLOAD_PREFIX))
    }

    /// The authentication context in which the provider verified the person (claim `acr`).
    pub fn acr(&self) -> Option<&str> {
        self.0.who.auth.iter().find(|(name, _)| name == "acr").map(|(_, value)| value.as_str())
    }

    /// The e-mail address the provider states, verified or not: for showing only.
    pub fn email(&self) -> Option<&str> {
        self.0.who.email.as_deref()
    }

    /// Whether the provider vouches for the address.
    pub fn email_verified(&self) -> bool {
        self.0.who.email_verified
    }

    /// The e-mail address, if the provider vouches for it: for decisions.
    pub fn verified_email(&self) -> Option<&str> {
        if self.email_verified() { self.email() } else { None }
    }

    /// The groups the provider states.
    pub fn groups(&self) -> &[String] {
        &self.0.who.groups
    }

    /// The id of the approval; connections opened by one approval share it.
    pub fn login(&self) -> &str {
        &self.0.login
    }

    /// How the person logged in.
    pub fn mode(&self) -> Mode {
        self.0.mode
    }

    /// How the login was verified, as pairs in the order to show them: mode, amr, acr, auth_time,
    /// iat, exp, jti, kid, email, email_verified, groups_sha256; what the provider did not say is left out. At the
    /// end what we know ourselves: approved_from, the address of the browser at our page.
    pub fn auth(&self) -> Vec<(String, String)> {
        let mode = ("mode".to_owned(), self.0.mode.as_str().to_owned());
        let groups = groups_digest(self.groups()).map(|digest| ("groups_sha256".to_owned(), digest));
        let told = self.0.who.auth.iter().cloned();
        std::iter::once(mode).chain(told).chain(groups).chain(self.0.ours.iter().cloned()).collect()
    }

    /// When the login ends.
    pub fn expires(&self) -> SystemTime {
        self.0.expires
    }

    /// Whether the login has ended at `now`.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.0.expires <= now
    }

    /// How long the login still lasts at `now`.
    pub fn time_left(&self, now: SystemTime) -> Duration {
        self.0.expires.duration_since(now).unwrap_or_default()
    }

    /// Whether both are the same person, by `(iss, sub)`.
    pub fn is_same_person(&self, other: &Self) -> bool {
        self.iss() == other.iss() && self.sub() == other.sub()
    }

    /// A person for unit tests of modules that only read one.
    #[cfg(test)]
    pub(crate) fn for_test(user: &str, groups: &[&str]) -> Self {
        let who = Verified {
            iss: "https://issuer.test".to_owned(),
            sub: format!("sub-{user}"),
            user: user.to_owned(),
            email: user.contains('@').then(|| user.to_owned()),
            email_verified: true,
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            auth: Vec::new(),
        };
        Self::new(who, Mode::Device, SystemTime::now() + Duration::from_secs(3600))
    }
}

/// SHA-256, as hex, over the groups in byte order, a newline behind each: two records with the same one were made under
/// the same groups, whatever order the provider told them in.
fn groups_digest(groups: &[String]) -> Option<String> {
    let mut sorted: Vec<&str> = groups.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let mut hash = Sha256::new();
    for group in &sorted {
        hash.update(group.as_bytes());
        hash.update(b"\n");
    }
    let hex = || hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    (!sorted.is_empty()).then(hex)
}

/// A login as it is written down.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptPrincipal {
    who: Verified,
    ours: Vec<(String, String)>,
    login: String,
    expires: u64,
    renewable: bool,
}

impl KeptPrincipal {
    /// Whether it has a refresh token, which is kept apart.
    pub(super) fn is_renewable(&self) -> bool {
        self.renewable
    }

    /// The login, in the way in which it is reached; without its refresh token yet.
    pub(super) fn restored(self, mode: Mode) -> Principal {
        let Self { who, ours, login, expires, .. } = self;
        let expires = UNIX_EPOCH.checked_add(Duration::from_secs(expires)).unwrap_or(UNIX_EPOCH);
        Principal(Arc::new(Inner { who, mode, login, expires, refresh: None, ours }))
    }
}

impl std::fmt::Debug for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Principal")
            .field("iss", &self.iss())
            .field("sub", &self.sub())
            .field("user", &self.user())
            .field("mode", &self.mode())
            .field("login", &self.login())
            .finish_non_exhaustive()
    }
}
