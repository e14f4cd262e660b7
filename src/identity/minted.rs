//! Tokens of our own: `pgw_<id>_<secret>`, each bound to one login and never outliving it.
//!
//! They live in memory alone and end with the process. Only a SHA-256 of the secret is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::grant::MINTED_PREFIX;
use super::{LoginError, Mode, Principal, random_word};
use crate::config::Secret;

/// Tokens alive at once.
const MAX_TOKENS: usize = 10_000;
/// Tokens alive at once of one person, so that nobody can use up the others' share.
const MAX_TOKENS_OF_ONE: usize = 100;

/// The tokens we gave out. Clones share them.
#[derive(Clone, Default)]
pub struct MintedTokens(Arc<Mutex<HashMap<String, Minted>>>);

struct Minted {
    secret: [u8; 32],
    principal: Principal,
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
        tokens.insert(id, Minted { secret: Sha256::digest(secret).into(), principal });
        Ok(token)
    }

    /// The person a token stands for, while it lives.
    pub fn lookup(&self, token: &str) -> Option<Principal> {
        let (id, secret) = token.strip_prefix(MINTED_PREFIX)?.split_once('_')?;
        let given: [u8; 32] = Sha256::digest(secret).into();
        let tokens = self.lock();
        let minted = tokens.get(id)?;
        let is_right = bool::from(minted.secret.ct_eq(&given));
        (is_right && !minted.principal.is_expired(SystemTime::now())).then(|| minted.principal.clone())
    }

    /// Ends a token at once; whether there was one.
    pub fn revoke(&self, token: &str) -> bool {
        let is_right = self.lookup(token).is_some();
        let id = token.strip_prefix(MINTED_PREFIX).and_then(|rest| rest.split_once('_'));
        match id {
            Some((id, _)) if is_right => self.lock().remove(id).is_some(),
            _ => false,
        }
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
    }

    /// Ends all tokens of those who are meant.
    pub fn revoke_all(&self, is_meant: impl Fn(&Principal) -> bool) {
        self.lock().retain(|_, minted| !is_meant(&minted.principal));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Minted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
