//! How much of texts, values and errors goes into a record: `[capture]`.

use std::fmt::Write as _;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use pgwitness_index::record::{Param, Sql};
use sha2::Sha256;

use super::params;
use crate::config::{Capture, CaptureParameters, CaptureSql};

/// What stands before a keyed hash.
pub(crate) const HASHED: &str = "hmac:";
/// Bytes of the hash that are kept.
const HASH_BYTES: usize = 16;
/// SQLSTATE classes, and codes, of errors whose message repeats data: data exceptions, constraint violations, errors
/// raised by PL/pgSQL and external routines, syntax errors (the message shows the token).
const REPEATING: &[&str] = &["22", "23", "38", "39", "42601", "P0"];
/// Instead of such a message.
const WITHHELD: &str = "[withheld: it may repeat data]";

impl Capture {
    /// The text that is kept; `None` for none.
    pub(super) fn text(
        &self,
        text: Sql,
        without_constants: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Option<Sql> {
        match self.sql {
            CaptureSql::Full => Some(text),
            CaptureSql::Redacted => without_constants(text.as_bytes()).map(|text| Sql::Once(text.into())),
            CaptureSql::Fingerprint => None,
        }
    }

    /// Whether parameters are kept in any form.
    pub(super) fn keeps_parameters(&self) -> bool {
        !matches!(self.parameters, CaptureParameters::Off)
    }

    /// A parameter as it is kept.
    pub(super) fn parameter(&self, value: Param) -> Param {
        match (&self.parameters, value) {
            (CaptureParameters::Full, value) => value,
            (CaptureParameters::Off, _) | (_, Param::Null) => Param::Null,
            (CaptureParameters::Hmac(key), value) => {
                Param::Text(hashed(key.reveal().as_bytes(), &params::bytes(&value)))
            }
        }
    }

    /// The server's message as it is kept.
    pub(super) fn error(&self, sqlstate: &str, message: String) -> String {
        let repeats = REPEATING.iter().any(|class| sqlstate.starts_with(class));
        if self.sql == CaptureSql::Full || !repeats || message.is_empty() { message } else { WITHHELD.into() }
    }
}

/// Gives a value the form in which it is kept.
pub type AsKept = dyn Fn(&str) -> String + Send + Sync;

/// How a parameter's value stands in the record, where only keyed hashes are kept.
pub fn as_kept(capture: &Capture) -> Option<Arc<AsKept>> {
    let CaptureParameters::Hmac(key) = capture.parameters.clone() else { return None };
    Some(Arc::new(move |value| hashed(key.reveal().as_bytes(), value.as_bytes())))
}

/// `hmac:` and the first 16 bytes of HMAC-SHA-256 in hexadecimal digits.
pub(crate) fn hashed(key: &[u8], value: &[u8]) -> String {
    // Every length of key is one for HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(value);
    let digest = mac.finalize().into_bytes();
    digest.iter().take(HASH_BYTES).fold(HASHED.to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyed_hash_is_hmac_sha256() {
        // RFC 4231, test case 2.
        assert_eq!(hashed(b"Jefe", b"what do ya want for nothing?"), "hmac:5bdcc146bf60754e6a042426089575c7");
    }
}
