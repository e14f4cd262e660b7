//! [`Grant`]: what a PostgreSQL client sent as its password, told apart by form alone.
//!
//! Nothing is verified here.

use std::collections::HashSet;

use super::LoginError;
use crate::config::Secret;

/// Longest password read, bytes. Tokens with many groups reach 10 KiB.
pub(crate) const MAX_PASSWORD: usize = 64 * 1024;
/// Shortest pairing secret, characters: 22 of base64 hold 128 bits.
pub(crate) const MIN_PAIRING: usize = 22;
/// Longest pairing secret, bytes.
pub(crate) const MAX_PAIRING: usize = 1024;
/// Fewest different characters in a pairing secret.
pub(crate) const MIN_DISTINCT: usize = 8;
/// How every token of ours begins.
pub(super) const MINTED_PREFIX: &str = "pgw_";

/// What a password turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Empty: log in by link.
    Device,
    /// A JWT of the provider.
    Token(Secret),
    /// A `pgw_…` token of ours.
    Minted(Secret),
    /// The client's own random secret.
    Pairing(Secret),
}

impl Grant {
    /// Reads a password.
    ///
    /// A JWT is three base64url parts joined by dots; `pgw_…` is ours; anything else of at least
    /// 22 characters, 8 of them different, is a pairing secret.
    ///
    /// # Errors
    /// [`LoginError::BadPassword`] says what to do instead.
    pub fn read(password: &[u8]) -> Result<Self, LoginError> {
        let refuse = |reason| Err(LoginError::BadPassword { reason });
        if password.is_empty() {
            return Ok(Self::Device);
        }
        if password.len() > MAX_PASSWORD {
            return refuse("it is longer than 64 KiB. Send a token or a shorter secret");
        }
        let Ok(text) = std::str::from_utf8(password) else {
            return refuse("it is not UTF-8. Make a secret with: openssl rand -hex 16");
        };
        if text.starts_with(MINTED_PREFIX) {
            return Ok(Self::Minted(Secret::new(text)));
        }
        if is_jwt(text) {
            return Ok(Self::Token(Secret::new(text)));
        }
        if text.chars().count() < MIN_PAIRING {
            return refuse(
                "it is too short. Here the password is a token, or a random secret of at least 22 characters that you make once with: openssl rand -hex 16",
            );
        }
        if text.len() > MAX_PAIRING {
            return refuse(
                "it is longer than 1 KiB and not a token. Make a secret with: openssl rand -hex 16",
            );
        }
        if text.chars().collect::<HashSet<_>>().len() < MIN_DISTINCT {
            return refuse("it is too easy to guess. Make a secret with: openssl rand -hex 16");
        }
        Ok(Self::Pairing(Secret::new(text)))
    }
}

/// Three parts of base64url. The third may be empty: a token without a signature is still meant as
/// a token, and refused as one.
fn is_jwt(text: &str) -> bool {
    let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let parts: Vec<_> = text.split('.').take(4).collect();
    let [header, claims, signature] = parts[..] else { return false };
    let is_part = |part: &str| part.bytes().all(base64url);
    !header.is_empty() && !claims.is_empty() && [header, claims, signature].into_iter().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(password: &str, words: &str) {
        let error = Grant::read(password.as_bytes()).unwrap_err();
        assert!(error.client_text().contains(words), "{}", error.client_text());
        assert!(!error.to_string().contains(password), "the password shows in the error");
    }

    #[test]
    fn a_password_is_told_apart_by_its_form() {
        assert_eq!(Grant::read(b"").unwrap(), Grant::Device);
        assert!(matches!(Grant::read(b"eyJh.eyJp.c2ln").unwrap(), Grant::Token(_)));
        assert!(matches!(Grant::read(b"pgw_00ff_secret").unwrap(), Grant::Minted(_)));
        let hex = "0123456789abcdef0123456789abcdef";
        assert!(matches!(Grant::read(hex.as_bytes()).unwrap(), Grant::Pairing(_)));
        assert!(matches!(Grant::read("ünïcödé-sécrét-with-22".as_bytes()).unwrap(), Grant::Pairing(_)));
    }

    #[test]
    fn a_weak_or_odd_password_is_refused_with_what_to_do() {
        refused("hunter2", "openssl rand -hex 16");
        refused("aaaaaaaaaaaaaaaaaaaaaaaaaaaa", "too easy to guess");
        refused("abcabcabcabcabcabcabcabcabc", "too easy to guess");
        refused(&"0123456789".repeat(103), "longer than 1 KiB");
        refused(&"0123456789".repeat(6600), "longer than 64 KiB");
        assert!(Grant::read(&[0xff; 40]).is_err());
    }

    #[test]
    fn almost_a_jwt_is_a_pairing_secret_and_never_a_panic() {
        for text in ["a.b.c.d0123456789abcdefgh", "0123456789..abcdefghijkl", "ab.cd.ef+0123456789abcdef"] {
            assert!(matches!(Grant::read(text.as_bytes()).unwrap(), Grant::Pairing(_)), "{text}");
        }
    }

    #[test]
    fn a_grant_never_shows_its_secret() {
        let grant = Grant::read(b"0123456789abcdef0123456789abcdef").unwrap();
        assert!(!format!("{grant:?}").contains("0123"));
    }
}
