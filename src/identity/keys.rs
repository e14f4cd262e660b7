//! The provider's published keys (JWKS), reduced to those that may verify a signature.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::CoreJsonWebKey;
use serde::Deserialize;
use serde_json::Value;

/// Keys kept of one set.
const MAX_KEYS: usize = 64;
/// Smallest RSA modulus, bytes (2048 bits).
const MIN_RSA_BYTES: usize = 256;

/// The keys of a provider.
#[derive(Debug)]
pub(super) struct KeySet(Vec<CoreJsonWebKey>);

impl KeySet {
    /// Reads a set. Keys of unknown kinds, shared secrets, private keys and short RSA keys are left
    /// out; `None` if it is no key set at all.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document = serde_json::from_slice(body).ok()?;
        let usable = document.keys.into_iter().filter(is_usable);
        Some(Self(usable.filter_map(|key| serde_json::from_value(key).ok()).take(MAX_KEYS).collect()))
    }

    pub(super) fn keys(&self) -> &[CoreJsonWebKey] {
        &self.0
    }
}

fn is_usable(key: &Value) -> bool {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|purpose| purpose != "sig") || key.get("d").is_some() {
        return false;
    }
    match text("kty") {
        Some("RSA") => text("n").is_some_and(|n| modulus_bytes(n) >= MIN_RSA_BYTES),
        Some("EC" | "OKP") => true,
        _ => false,
    }
}

fn modulus_bytes(n: &str) -> usize {
    URL_SAFE_NO_PAD
        .decode(n.trim_end_matches('='))
        .map_or(0, |bytes| bytes.len() - bytes.iter().take_while(|&&byte| byte == 0).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_may_verify_are_kept() {
        let long = "A".repeat(10) + &"_".repeat(342);
        let set = serde_json::json!({"keys": [
            {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
            {"kty": "RSA", "n": "_____", "e": "AQAB", "kid": "short"},
            {"kty": "RSA", "n": long, "e": "AQAB", "kid": "good"},
            {"kty": "RSA", "n": long, "e": "AQAB", "use": "enc", "kid": "enc"},
            {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "d": "AAAA", "kid": "private"},
            {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA", "kid": "ec"},
            {"kty": "new"}, 7, null,
        ]});
        let set = KeySet::read(set.to_string().as_bytes()).unwrap();
        let names: Vec<_> =
            set.keys().iter().filter_map(openidconnect::JsonWebKey::key_id).map(|id| id.as_str()).collect();
        assert_eq!(names, ["good", "ec"]);
        assert!(KeySet::read(b"[]").is_none());
        assert!(KeySet::read(b"{}").is_none());
        assert!(KeySet::read(b"\xff").is_none());
    }

    #[test]
    fn a_huge_set_is_cut() {
        let keys: Vec<_> =
            (0..500).map(|_| serde_json::json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"})).collect();
        let set = KeySet::read(serde_json::json!({ "keys": keys }).to_string().as_bytes()).unwrap();
        assert_eq!(set.keys().len(), MAX_KEYS);
    }
}
