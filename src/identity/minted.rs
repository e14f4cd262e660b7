//! Tokens of our own: `pgw_<id>_<secret>`, each bound to one login and never outliving it.
//!
//! Only a SHA-256 of the secret is kept; [`super::Keeping`] keeps it over a restart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Notify;
use uuid::Uuid;

use super::grant::MINTED_PREFIX;
use super::kept::{KeptToken, hex, seconds, unhex};
use super::opener::{Kind, Opener};
use super::seal::Seal;
use super::{About, LoginError, Mode, Principal, random_word};
use crate::config::Secret;

/// Tokens alive at once.
const MAX_TOKENS: usize = 10_000;
/// Tokens alive at once of one person, so that nobody can use up the others' share.
const MAX_TOKENS_OF_ONE: usize = 100;

/// The tokens we gave out. Clones share them.
#[derive(Clone, Default)]
pub struct MintedTokens(Arc<Inner>);

#[derive(Default)]
struct Inner {
    tokens: Mutex<Tokens>,
    changes: Arc<Notify>,
}

/// By id.
type Tokens = HashMap<String, Minted>;

pub(super) struct Minted {
    secret: [u8; 32],
    principal: Principal,
    about: About,
    seal: Seal,
}

/// A token that was just made.
#[derive(Debug)]
pub struct Issued {
    /// Its name in lists and records; no secret.
    pub id: String,
    /// The token itself.
    pub token: Secret,
    /// Whom it stands for, and for how long.
    pub principal: Principal,
}

impl MintedTokens {
    /// No tokens yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new token for the person, valid for `life` or until the login ends, whichever is first.
    ///
    /// # Errors
    /// [`LoginError::TooMany`]: this person, or all together, have too many.
    pub fn mint(&self, principal: &Principal, life: Duration) -> Result<Secret, LoginError> {
        self.issue(principal, life, About::now()).map(|issued| issued.token)
    }

    /// The same, with what is to be told of it.
    ///
    /// # Errors
    /// As [`MintedTokens::mint`].
    pub fn issue(&self, principal: &Principal, life: Duration, about: About) -> Result<Issued, LoginError> {
        let now = SystemTime::now();
        let end = now.checked_add(life).unwrap_or_else(|| principal.expires());
        let principal = principal.by(Mode::Minted).until(end);
        let id = Uuid::new_v4().simple().to_string();
        let secret = random_word::<32>();
        let token = Secret::new(format!("{MINTED_PREFIX}{id}_{secret}"));

        let mut tokens = self.lock();
        tokens.retain(|_, minted| !minted.principal.is_expired(now));
        let own = tokens.values().filter(|minted| minted.principal.is_same_person(&principal)).count();
        if tokens.len() >= MAX_TOKENS || own >= MAX_TOKENS_OF_ONE {
            return Err(LoginError::TooMany { what: "tokens" });
        }
        let seal = Seal::by(&secret);
        let minted =
            Minted { secret: Sha256::digest(secret).into(), principal: principal.clone(), about, seal };
        tokens.insert(id.clone(), minted);
        drop(tokens);
        self.0.changes.notify_one();
        Ok(Issued { id, token, principal })
    }

    /// The person a token stands for, while it lives.
    pub fn lookup(&self, token: &str) -> Option<Principal> {
        let (id, secret) = token.strip_prefix(MINTED_PREFIX)?.split_once('_')?;
        let given: [u8; 32] = Sha256::digest(secret).into();
        let now = SystemTime::now();
        let mut tokens = self.lock();
        let minted = tokens.get_mut(id)?;
        if !bool::from(minted.secret.ct_eq(&given)) || minted.principal.is_expired(now) {
            return None;
        }
        minted.about.used = seconds(now);
        minted.principal = minted.seal.open(secret, &minted.principal)?;
        Some(minted.principal.clone())
    }

    /// Ends a token at once; whether there was one.
    pub fn revoke(&self, token: &str) -> bool {
        let is_right = self.lookup(token).is_some();
        let id = token.strip_prefix(MINTED_PREFIX).and_then(|rest| rest.split_once('_'));
        match id {
            Some((id, _)) if is_right => self.revoke_one(id),
            _ => false,
        }
    }

    /// Ends the token with that id; whether there was one.
    pub fn revoke_one(&self, id: &str) -> bool {
        let was = self.lock().remove(id).is_some();
        self.0.changes.notify_one();
        was
    }

    /// The tokens that live, without their secrets.
    pub fn list(&self) -> Vec<Opener> {
        let now = SystemTime::now();
        let tokens = self.lock();
        let alive = tokens.iter().filter(|(_, minted)| !minted.principal.is_expired(now));
        let opener = |(id, minted): (&String, &Minted)| Opener {
            id: id.clone(),
            kind: Kind::Minted,
            principal: minted.principal.clone(),
            about: minted.about.clone(),
        };
        alive.map(opener).collect()
    }

    /// Told whenever the tokens change.
    pub(super) fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.0.changes)
    }

    pub(super) fn kept(&self) -> Vec<KeptToken> {
        let now = SystemTime::now();
        let tokens = self.lock();
        let alive = tokens.iter().filter(|(_, minted)| !minted.principal.is_expired(now));
        let kept = |(id, minted): (&String, &Minted)| KeptToken {
            id: id.clone(),
            secret: hex(&minted.secret),
            about: minted.about.clone(),
            principal: minted.principal.kept(),
            refresh: minted.seal.close(&minted.principal),
        };
        alive.map(kept).collect()
    }

    /// Tokens as they were kept; `None` if one of them is none.
    pub(super) fn understand(kept: Vec<KeptToken>) -> Option<Vec<(String, Minted)>> {
        let whole = |kept: &KeptToken| !kept.principal.is_renewable() || kept.refresh.is_some();
        let read = |kept: KeptToken| {
            let KeptToken { id, secret, about, principal, refresh } = kept;
            let (principal, seal) = (principal.restored(Mode::Minted), Seal::kept(refresh));
            let minted = Minted { secret: unhex(&secret)?, principal, about, seal };
            Uuid::try_parse(&id).ok().map(|_| (id, minted))
        };
        kept.into_iter().take(MAX_TOKENS).filter(whole).map(read).collect()
    }

    pub(super) fn take(&self, tokens: Vec<(String, Minted)>) {
        let now = SystemTime::now();
        self.lock().extend(tokens.into_iter().filter(|(_, minted)| !minted.principal.is_expired(now)));
    }

    /// Whether a token stands for a login.
    pub fn knows(&self, login: &str) -> bool {
        self.lock().values().any(|minted| minted.principal.login() == login)
    }

    /// The tokens of a login stand for the person as they are told of now.
    pub fn update(&self, now: &Principal) {
        for minted in self.lock().values_mut().filter(|minted| minted.principal.login() == now.login()) {
            minted.principal = minted.principal.as_now(now);
        }
        self.0.changes.notify_one();
    }

    /// The tokens of a login are renewed with what the provider gave now.
    pub fn renewed(&self, now: &Principal) {
        for minted in self.lock().values_mut().filter(|minted| minted.principal.login() == now.login()) {
            minted.principal = minted.principal.with_refresh(now.refresh_token().cloned());
        }
        self.0.changes.notify_one();
    }

    /// Ends all tokens of those who are meant.
    pub fn revoke_all(&self, is_meant: impl Fn(&Principal) -> bool) {
        self.lock().retain(|_, minted| !is_meant(&minted.principal));
        self.0.changes.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Tokens> {
        self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for MintedTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MintedTokens").field("alive", &self.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_minted_token_stands_for_its_login_and_no_longer() {
        let tokens = MintedTokens::new();
        let alice = Principal::for_test("alice@example.com", &[]);
        let token = tokens.mint(&alice, 1000 * HOUR).unwrap();
        let found = tokens.lookup(token.reveal()).unwrap();
        assert!(found.is_same_person(&alice));
        assert_eq!(found.login(), alice.login());
        assert_eq!(found.mode(), Mode::Minted);
        assert_eq!(found.expires(), alice.expires());
        assert!(tokens.revoke(token.reveal()));
        assert!(tokens.lookup(token.reveal()).is_none());
    }

    #[test]
    fn a_wrong_secret_an_ended_life_and_garbage_find_nobody() {
        let tokens = MintedTokens::new();
        let alice = Principal::for_test("alice@example.com", &[]);
        let token = tokens.mint(&alice, HOUR).unwrap();
        let other = tokens.mint(&alice, HOUR).unwrap();
        let (id, _) = token.reveal().split_at(MINTED_PREFIX.len() + 32);
        let swapped = format!("{id}{}", &other.reveal()[id.len()..]);
        let ended = tokens.mint(&alice, Duration::ZERO).unwrap();
        for bad in [swapped.as_str(), id, ended.reveal(), "", "pgw_", "pgw__", "pgw_x_y", "é"] {
            assert!(tokens.lookup(bad).is_none(), "{bad}");
            assert!(!tokens.revoke(bad));
        }
        assert!(tokens.lookup(token.reveal()).is_some());
        assert!(!format!("{tokens:?}{token:?}").contains(token.reveal()));
    }

    #[test]
    fn one_person_cannot_use_up_all_tokens() {
        let tokens = MintedTokens::new();
        let alice = Principal::for_test("alice@example.com", &[]);
        for _ in 0..MAX_TOKENS_OF_ONE {
            tokens.mint(&alice, HOUR).unwrap();
        }
        assert_eq!(tokens.mint(&alice, HOUR), Err(LoginError::TooMany { what: "tokens" }));
        tokens.mint(&Principal::for_test("bob@example.com", &[]), HOUR).unwrap();
    }
}
