//! Tokens of the provider that open nothing any more, though their signature and times are right: their login, or
//! their person's logins, were ended here.
//!
//! A token is the same login each time it is shown. What is remembered is remembered until the tokens that are meant
//! are too old in any case, in this process alone: after a restart a token that was revoked opens sessions again while
//! it lives, as with every gateway that the provider does not tell. Bounded by [`MOST`]; beyond, everything that is
//! older than the newest entry is refused, so that nothing is let in by having been forgotten.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::provider::unix;
use super::{Principal, TokenFault, Whose};

/// Logins and persons remembered, each.
const MOST: usize = 10_000;

/// What was ended. Times are Unix seconds.
#[derive(Debug, Default)]
pub(super) struct Revoked(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    /// Until when a login is remembered.
    logins: HashMap<String, i64>,
    /// Tokens of a person that were made until then are meant; and until when that is remembered.
    persons: HashMap<(String, String), (i64, i64)>,
    /// Tokens of anybody that were made until then.
    everybody: i64,
}

/// The login that a token stands for: the same each time it is shown.
pub(super) fn login_of(jwt: &str) -> String {
    let digest = Sha256::new().chain_update(b"pgwitness login\0").chain_update(jwt).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    // RFC 9562, 5.8: version 8, bits of our own making.
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

impl Revoked {
    /// Ends what is meant; no token lives longer than `life`.
    pub(super) fn end(&self, whose: &Whose, now: SystemTime, life: Duration) {
        let until = unix(now + life);
        let now = unix(now);
        let mut tables = self.lock();
        match whose {
            Whose::Session(_) => return,
            Whose::Login(login) => {
                tables.logins.insert(login.clone(), until);
            }
            Whose::Device { logins, .. } => tables.logins.extend(logins.iter().map(|it| (it.clone(), until))),
            Whose::Person { iss, sub } => {
                tables.persons.insert((iss.clone(), sub.clone()), (now, until));
            }
        }
        tables.tidy(now);
    }

    /// Whether a token of this person, made at `issued`, may still be used.
    pub(super) fn check(&self, principal: &Principal, issued: i64) -> Result<(), TokenFault> {
        let tables = self.lock();
        let person = (principal.iss().to_owned(), principal.sub().to_owned());
        let ended = tables.logins.contains_key(principal.login())
            || tables.persons.get(&person).is_some_and(|(until, _)| issued <= *until)
            || issued <= tables.everybody;
        if ended { Err(TokenFault::Revoked) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn tidy(&mut self, now: i64) {
        if self.logins.len() <= MOST && self.persons.len() <= MOST {
            return;
        }
        self.logins.retain(|_, until| *until > now);
        self.persons.retain(|_, (_, until)| *until > now);
        if self.logins.len() > MOST || self.persons.len() > MOST {
            tracing::warn!("so many logins were ended that all tokens made until now are refused");
            (self.everybody, self.logins, self.persons) = (now, HashMap::new(), HashMap::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_login_and_two_are_two() {
        assert_eq!(login_of("a.b.c"), login_of("a.b.c"));
        assert_ne!(login_of("a.b.c"), login_of("a.b.d"));
        assert_eq!(uuid::Uuid::parse_str(&login_of("a")).unwrap().get_version_num(), 8);
    }

    #[test]
    fn an_ended_person_is_let_in_by_a_newer_token_alone() {
        let (ann, bob) = (Principal::for_test("ann", &[]), Principal::for_test("bob", &[]));
        let (revoked, now) = (Revoked::default(), SystemTime::now());
        let person = Whose::Person { iss: ann.iss().to_owned(), sub: ann.sub().to_owned() };
        revoked.end(&person, now, Duration::from_secs(60));
        assert_eq!(revoked.check(&ann, unix(now) - 5), Err(TokenFault::Revoked));
        assert_eq!(revoked.check(&ann, unix(now)), Err(TokenFault::Revoked));
        assert_eq!(revoked.check(&ann, unix(now) + 1), Ok(()));
        assert_eq!(revoked.check(&bob, unix(now) - 5), Ok(()));
    }

    #[test]
    fn nothing_is_let_in_by_being_forgotten() {
        let ann = Principal::for_test("ann", &[]);
        let (revoked, now) = (Revoked::default(), SystemTime::now());
        revoked.end(&Whose::Login(ann.login().to_owned()), now, Duration::from_secs(60));
        for other in 0..MOST {
            revoked.end(&Whose::Login(other.to_string()), now, Duration::from_secs(60));
        }
        assert!(revoked.lock().logins.len() <= MOST);
        assert_eq!(revoked.check(&ann, unix(now) - 5), Err(TokenFault::Revoked));
    }
}
