//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's half, for accounts with a password.
//!
//! Only a verifier is kept, as PostgreSQL keeps it. Whoever names no account goes through the same
//! exchange with a salt that stays the same for the name, and fails at its end.
//!
//! Source: RFC 5802, RFC 7677, RFC 5929 (`tls-server-end-point`); PostgreSQL, `src/backend/libpq/auth-scram.c`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::random_word;

/// The mechanism without, and with, channel binding.
pub(super) const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// See [`SCRAM_SHA_256`].
pub(super) const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

const END_POINT: &str = "p=tls-server-end-point";
/// PostgreSQL's own number of iterations, for accounts that do not exist.
const MOCK_ITERATIONS: u32 = 4096;
const MOCK_SALT_BYTES: usize = 16;
/// Longest client nonce, bytes.
const NONCE_MAX: usize = 512;

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl Verifier {
    /// Reads `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, as in `pg_authid.rolpassword`.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |text: &str| STANDARD.decode(text).ok()?.try_into().ok();
        let iterations = iterations.parse().ok().filter(|count| *count > 0)?;
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Self { iterations, salt, stored_key: key(stored)?, server_key: key(server)? })
    }

    /// The verifier of a password, with a salt of its own.
    #[must_use]
    pub fn of(password: &str) -> Option<Self> {
        Self::read(&postgres_protocol::password::scram_sha_256(password.as_bytes()))
    }

    /// Of nobody: no proof fits it. The same for a name as long as the key is.
    fn mock(key: &[u8; 32], name: &str) -> Self {
        let salt = hmac(key, &[name.as_bytes()]).get(..MOCK_SALT_BYTES).unwrap_or_default().to_vec();
        let nobody = hmac(key, &[b"nobody", name.as_bytes()]);
        Self { iterations: MOCK_ITERATIONS, salt, stored_key: nobody, server_key: nobody }
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(…)")
    }
}

/// Why an exchange ended without proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// Not the messages of RFC 5802, or not of this exchange.
    #[error("the SCRAM message is malformed")]
    Malformed,
    /// Another channel, or somebody between who hid that binding is offered.
    #[error("the SCRAM exchange is not bound to this TLS connection")]
    Binding,
    /// The password is wrong, or there is no such account: nobody is told which.
    #[error("the password is wrong")]
    Wrong,
}

/// The server's side of a connection: what a proof may be bound to.
#[derive(Debug, Clone, Copy)]
pub struct Channel<'c> {
    /// The hash of the certificate shown to the client (RFC 5929); none without TLS.
    pub end_point: Option<&'c [u8]>,
}

impl Channel<'_> {
    /// The mechanisms to offer, the best first.
    #[must_use]
    pub fn mechanisms(&self) -> &'static [&'static str] {
        match self.end_point {
            Some(_) => &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256],
            None => &[SCRAM_SHA_256],
        }
    }
}

/// An exchange that waits for the client's proof.
pub struct Exchange {
    verifier: Verifier,
    exists: bool,
    nonce: String,
    binding: Vec<u8>,
    /// Both first messages, as they are signed.
    signed: String,
}

impl Exchange {
    /// Reads the client's first message; gives what to answer. `mock_key` is random and the same for all exchanges.
    ///
    /// # Errors
    /// See [`ScramError`].
    pub fn begin(
        account: Option<&Verifier>,
        (mock_key, name): (&[u8; 32], &str),
        mechanism: &[u8],
        channel: Channel<'_>,
        first: &[u8],
    ) -> Result<(Self, String), ScramError> {
        let text = std::str::from_utf8(first).map_err(|_| ScramError::Malformed)?;
        let (flag, rest) = text.split_once(',').ok_or(ScramError::Malformed)?;
        let (identity, bare) = rest.split_once(',').ok_or(ScramError::Malformed)?;
        let plus = mechanism == SCRAM_SHA_256_PLUS.as_bytes();
        let mut binding = format!("{flag},{identity},").into_bytes();
        match (flag, plus, channel.end_point) {
            (END_POINT, true, Some(hash)) => binding.extend_from_slice(hash),
            ("n", false, _) | ("y", false, None) => {}
            // It could bind and thinks that we cannot, or the other way round.
            ("y" | END_POINT, ..) | ("n", true, _) => return Err(ScramError::Binding),
            _ => return Err(ScramError::Malformed),
        }
        // The name inside is empty or the startup user's; PostgreSQL looks at neither.
        let mut parts = bare.split(',');
        let (user, nonce) = (parts.next(), parts.next().and_then(|part| part.strip_prefix("r=")));
        let nonce = nonce.filter(|nonce| is_nonce(nonce)).ok_or(ScramError::Malformed)?;
        if !identity.is_empty() || user.is_none_or(|user| !user.starts_with("n=")) {
            return Err(ScramError::Malformed);
        }
        let verifier = account.cloned().unwrap_or_else(|| Verifier::mock(mock_key, name));
        let nonce = format!("{nonce}{}", random_word::<18>());
        let answer = format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        let signed = format!("{bare},{answer}");
        Ok((Self { verifier, exists: account.is_some(), nonce, binding, signed }, answer))
    }

    /// Checks the client's proof; gives the server's.
    ///
    /// # Errors
    /// See [`ScramError`].
    pub fn finish(self, last: &[u8]) -> Result<String, ScramError> {
        let text = std::str::from_utf8(last).map_err(|_| ScramError::Malformed)?;
        let (without, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let proof: [u8; 32] = STANDARD
            .decode(proof)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(ScramError::Malformed)?;
        let mut parts = without.split(',');
        let bound = parts.next().and_then(|part| part.strip_prefix("c=")).ok_or(ScramError::Malformed)?;
        let nonce = parts.next().and_then(|part| part.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        if STANDARD.decode(bound).ok().as_deref() != Some(&*self.binding) {
            return Err(ScramError::Binding);
        }
        if nonce != self.nonce {
            return Err(ScramError::Malformed);
        }
        let signed = [self.signed.as_bytes(), b",", without.as_bytes()];
        let signature = hmac(&self.verifier.stored_key, &signed);
        let mut client_key = proof;
        client_key.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
        let shown: [u8; 32] = Sha256::digest(client_key).into();
        let fits = bool::from(shown.ct_eq(&self.verifier.stored_key));
        let answer = format!("v={}", STANDARD.encode(hmac(&self.verifier.server_key, &signed)));
        if fits && self.exists { Ok(answer) } else { Err(ScramError::Wrong) }
    }
}

/// Printable, and no comma.
fn is_nonce(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NONCE_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn exchange(
        verifier: Option<&Verifier>,
        password: &str,
        theirs: ChannelBinding,
        mechanism: &str,
        ours: Option<&[u8]>,
    ) -> Result<(), ScramError> {
        let mut client = ScramSha256::new(password.as_bytes(), theirs);
        let channel = Channel { end_point: ours };
        let (exchange, first) =
            Exchange::begin(verifier, (&KEY, "batch"), mechanism.as_bytes(), channel, client.message())?;
        client.update(first.as_bytes()).expect("the client takes our first message");
        let last = exchange.finish(client.message())?;
        client.finish(last.as_bytes()).expect("the client takes our proof");
        Ok(())
    }

    #[test]
    fn the_right_password_and_no_other_proves_itself_with_and_without_binding() {
        let account = Verifier::of("correct horse").unwrap();
        let (plain, plus) = (SCRAM_SHA_256, SCRAM_SHA_256_PLUS);
        let bound = || ChannelBinding::tls_server_end_point(vec![1, 2, 3]);
        let ours = Some(&[1, 2, 3][..]);
        assert_eq!(
            exchange(Some(&account), "correct horse", ChannelBinding::unsupported(), plain, None),
            Ok(())
        );
        assert_eq!(exchange(Some(&account), "correct horse", bound(), plus, ours), Ok(()));
        assert_eq!(
            exchange(Some(&account), "wrong horse", ChannelBinding::unsupported(), plain, None),
            Err(ScramError::Wrong)
        );
        assert_eq!(
            exchange(None, "correct horse", ChannelBinding::unsupported(), plain, None),
            Err(ScramError::Wrong)
        );
    }

    #[test]
    fn another_channel_and_a_hidden_offer_of_binding_are_refused() {
        let account = Verifier::of("secret").unwrap();
        let bound = || ChannelBinding::tls_server_end_point(vec![1, 2, 3]);
        let other = Some(&[9, 9, 9][..]);
        assert_eq!(
            exchange(Some(&account), "secret", bound(), SCRAM_SHA_256_PLUS, other),
            Err(ScramError::Binding)
        );
        let hidden = ChannelBinding::unrequested();
        assert_eq!(
            exchange(Some(&account), "secret", hidden, SCRAM_SHA_256, other),
            Err(ScramError::Binding),
            "the client was told that there is no binding, and there is"
        );
        assert_eq!(
            exchange(Some(&account), "secret", bound(), SCRAM_SHA_256, None),
            Err(ScramError::Binding)
        );
    }

    #[test]
    fn an_account_that_does_not_exist_has_the_same_salt_each_time() {
        let salt = |name: &str| {
            let channel = Channel { end_point: None };
            let (_, first) =
                Exchange::begin(None, (&KEY, name), SCRAM_SHA_256.as_bytes(), channel, b"n,,n=,r=abc")
                    .unwrap();
            first.split(",s=").nth(1).unwrap().to_owned()
        };
        assert_eq!(salt("nobody"), salt("nobody"));
        assert_ne!(salt("nobody"), salt("somebody"));
        assert!(salt("nobody").ends_with(",i=4096"));
    }

    #[test]
    fn messages_that_are_none_are_refused_and_never_a_panic() {
        let account = Verifier::of("secret").unwrap();
        let channel = Channel { end_point: None };
        let begin = |first: &[u8]| {
            Exchange::begin(Some(&account), (&KEY, "x"), SCRAM_SHA_256.as_bytes(), channel, first)
        };
        for first in
            ["", "n", "n,,", "n,,n=,", "n,,n=,r=", "n,a=x,n=,r=a", "x,,n=,r=a", "n,,r=a,n=", "n,,n=,r=\u{e9}"]
        {
            assert!(begin(first.as_bytes()).is_err(), "{first}");
        }
        for last in ["", "c=biws", "c=biws,r=abc,p=", "c=biws,r=abc,p=AAAA", ",p=", "p=,p=,p="] {
            let (exchange, _) = begin(b"n,,n=,r=abc").unwrap();
            assert!(exchange.finish(last.as_bytes()).is_err(), "{last}");
        }
        for text in [
            "",
            "SCRAM-SHA-256$",
            "SCRAM-SHA-256$0:QQ==$QQ==:QQ==",
            "md5abc",
            "SCRAM-SHA-256$4096:QQ==$QQ==:QQ==",
        ] {
            assert!(Verifier::read(text).is_none(), "{text}");
        }
    }
}
