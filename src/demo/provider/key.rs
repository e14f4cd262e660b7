//! The demo provider's signing key: Ed25519, random at each start.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier};
use serde_json::{Map, Value, json};

/// A key and its name.
pub(crate) struct Key {
    kid: String,
    key: SigningKey,
}

impl Key {
    /// A random key with a random name.
    pub(crate) fn new() -> Self {
        let key = SigningKey::generate(&mut rand::rngs::OsRng);
        let kid = URL_SAFE_NO_PAD.encode(&key.verifying_key().as_bytes()[..9]);
        Self { kid, key }
    }

    /// Its public half, as published.
    pub(crate) fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes());
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.kid, "x": x})
    }

    /// A JWT of that type.
    pub(crate) fn sign(&self, typ: &str, claims: &Value) -> String {
        self.seal(&json!({"alg": "EdDSA", "typ": typ, "kid": self.kid}), claims)
    }

    /// A JWT with any header.
    pub(crate) fn seal(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
    }

    /// The claims of a JWT that this key signed.
    pub(crate) fn open(&self, jwt: &str) -> Option<Map<String, Value>> {
        let (signed, signature) = jwt.rsplit_once('.')?;
        let (_, claims) = signed.split_once('.')?;
        let signature = Signature::from_slice(&URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        self.key.verifying_key().verify(signed.as_bytes(), &signature).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }
}
