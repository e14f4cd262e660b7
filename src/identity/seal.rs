//! A refresh token's way over a restart: written down under a key that is made of the client's own secret, which is
//! not. Whoever has the file has no refresh token; when the client comes again with its secret, we have it again, and
//! the provider can be asked about the login as before.
//!
//! ChaCha20-Poly1305 with a random nonce; what is sealed belongs to one login.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};

use super::Principal;
use crate::config::Secret;

/// What the key is for, and its version.
const PURPOSE: &[u8] = b"pgwitness sealed refresh token 1";

/// The key to one secret's refresh token, and what was sealed before the start.
#[derive(Default)]
pub(super) struct Seal {
    key: Option<[u8; 32]>,
    sealed: Option<String>,
}

impl Seal {
    /// With a client's secret at hand.
    pub(super) fn by(secret: &str) -> Self {
        Self { key: Some(key(secret)), sealed: None }
    }

    /// As it was kept.
    pub(super) fn kept(sealed: Option<String>) -> Self {
        Self { key: None, sealed }
    }

    /// What may be written down of the principal's refresh token.
    pub(super) fn close(&self, principal: &Principal) -> Option<String> {
        let (Some(key), Some(refresh)) = (&self.key, principal.refresh_token()) else {
            return self.sealed.clone();
        };
        let mut nonce = [0; NONCE_LEN];
        rand::rngs::OsRng.fill_bytes(&mut nonce);
        let mut text = refresh.reveal().as_bytes().to_vec();
        let cipher = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?);
        let login = Aad::from(principal.login());
        cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), login, &mut text).ok()?;
        Some(URL_SAFE_NO_PAD.encode([&nonce[..], &text[..]].concat()))
    }

    /// The principal with its refresh token again, now that the secret is at hand. `None`: it does not fit.
    pub(super) fn open(&mut self, secret: &str, principal: &Principal) -> Option<Principal> {
        let key = self.key.get_or_insert_with(|| key(secret));
        let Some(sealed) = &self.sealed else { return Some(principal.clone()) };
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, text) = bytes.split_at_checked(NONCE_LEN)?;
        let mut text = text.to_vec();
        let cipher = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = cipher.open_in_place(nonce, Aad::from(principal.login()), &mut text).ok()?;
        let refresh = Secret::new(std::str::from_utf8(plain).ok()?);
        self.sealed = None;
        Some(principal.with_refresh(Some(refresh)))
    }
}

fn key(secret: &str) -> [u8; 32] {
    Sha256::new().chain_update(PURPOSE).chain_update(secret).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renewable() -> Principal {
        Principal::for_test("ann", &[]).with_refresh(Some(Secret::new("refresh-me")))
    }

    #[test]
    fn a_sealed_refresh_token_is_opened_by_its_secret_alone_and_for_its_login_alone() {
        let ann = renewable();
        let sealed = Seal::by("secret").close(&ann).unwrap();
        assert!(!sealed.contains("refresh-me"));
        let bare = Principal::for_test("ann", &[]);
        let opened = Seal::kept(Some(sealed.clone())).open("secret", &ann).unwrap();
        assert_eq!(opened.refresh_token().unwrap().reveal(), "refresh-me");
        assert!(Seal::kept(Some(sealed.clone())).open("other", &ann).is_none());
        assert!(Seal::kept(Some(sealed.clone())).open("secret", &bare).is_none(), "of another login");
        for damaged in ["", "A", &sealed[..sealed.len() - 2], &format!("A{}", &sealed[1..])] {
            assert!(Seal::kept(Some(damaged.to_owned())).open("secret", &ann).is_none(), "{damaged}");
        }
    }

    #[test]
    fn what_nobody_used_since_the_start_stays_sealed_as_it_was() {
        let sealed = Seal::by("secret").close(&renewable());
        assert_eq!(Seal::kept(sealed.clone()).close(&Principal::for_test("ann", &[])), sealed);
        assert_eq!(
            Seal::by("secret").close(&Principal::for_test("ann", &[])),
            None,
            "there is nothing to seal"
        );
    }
}
