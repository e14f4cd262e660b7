//! Reading a JWT (JWS, compact form) and checking its signature. Pure: keys are an argument.
//!
//! Only asymmetric algorithms on a fixed list are taken, and the key must fit the algorithm: `none`
//! and shared-secret algorithms end before a key is looked at.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::{CoreJsonWebKey, CoreJwsSigningAlgorithm};
use openidconnect::{JsonWebKey, SignatureVerificationError};
use serde_json::{Map, Value};

use super::TokenFault;
use super::claims::Claims;

/// Longest token read, bytes.
const MAX_TOKEN: usize = 64 * 1024;
/// Of a token that does not name its key, so many keys are tried.
const MAX_TRIED: usize = 8;

/// A well-formed token about which nothing is known yet.
pub(super) struct Unverified<'a> {
    algorithm: CoreJwsSigningAlgorithm,
    kid: Option<String>,
    kind: Kind,
    signed: &'a str,
    payload: Map<String, Value>,
    signature: Vec<u8>,
}

/// What the header says the token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An ID token, or an access token that does not say so.
    Plain,
    /// An access token by RFC 9068.
    Access,
}

impl<'a> Unverified<'a> {
    pub(super) fn read(jwt: &'a str) -> Result<Self, TokenFault> {
        if jwt.len() > MAX_TOKEN {
            return Err(TokenFault::Malformed("it is too long"));
        }
        let (signed, signature) = jwt.rsplit_once('.').ok_or(TokenFault::Malformed("it has no dots"))?;
        let (header, payload) = signed.split_once('.').ok_or(TokenFault::Malformed("it has one dot"))?;
        let header = object(header)?;
        let text = |name: &str| header.get(name).and_then(Value::as_str);
        // A header member that must be understood and is not: RFC 7515, 4.1.11.
        if header.contains_key("crit") {
            return Err(TokenFault::Malformed("it needs extensions that are unknown here"));
        }
        Ok(Self {
            algorithm: text("alg").and_then(algorithm).ok_or(TokenFault::Algorithm)?,
            kid: text("kid").map(str::to_owned),
            kind: kind(text("typ"))?,
            signed,
            payload: object(payload)?,
            signature: bytes(signature)?,
        })
    }

    /// Who the token says that it is by: good for choosing whose keys must have made it, and for nothing else.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.payload.get("iss").and_then(Value::as_str)
    }

    /// When it says that it was made, Unix seconds: to be believed only once the claims were checked.
    pub(super) fn issued(&self) -> i64 {
        let issued = self.payload.get("iat");
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a float cast saturates; the claims' check bounds it"
        )]
        let cut = |issued: &Value| issued.as_f64().map(|seconds| seconds as i64);
        issued.and_then(|issued| issued.as_i64().or_else(|| cut(issued))).unwrap_or(0)
    }

    /// The claims, if one of the keys made the signature.
    pub(super) fn verify(&self, keys: &[CoreJsonWebKey]) -> Result<Claims, TokenFault> {
        let candidates = keys.iter().filter(|key| self.may_be_by(key)).take(MAX_TRIED);
        let mut fault = TokenFault::UnknownKey;
        for key in candidates {
            match key.verify_signature(&self.algorithm, self.signed.as_bytes(), &self.signature) {
                Ok(()) => return Ok(Claims::new(self.payload.clone(), self.kid.clone(), self.kind)),
                // The key is of another type: as good as not published.
                Err(SignatureVerificationError::InvalidKey(_)) => {}
                // A token that names no key may be by a newer one.
                Err(_) if self.kid.is_none() => {}
                Err(_) => fault = TokenFault::Signature,
            }
        }
        Err(fault)
    }

    fn may_be_by(&self, key: &CoreJsonWebKey) -> bool {
        self.kid.is_none() || key.key_id().map(|id| id.as_str()) == self.kid.as_deref()
    }
}

fn algorithm(name: &str) -> Option<CoreJwsSigningAlgorithm> {
    use CoreJwsSigningAlgorithm as Algorithm;
    Some(match name {
        "RS256" => Algorithm::RsaSsaPkcs1V15Sha256,
        "RS384" => Algorithm::RsaSsaPkcs1V15Sha384,
        "RS512" => Algorithm::RsaSsaPkcs1V15Sha512,
        "PS256" => Algorithm::RsaSsaPssSha256,
        "PS384" => Algorithm::RsaSsaPssSha384,
        "PS512" => Algorithm::RsaSsaPssSha512,
        "ES256" => Algorithm::EcdsaP256Sha256,
        "ES384" => Algorithm::EcdsaP384Sha384,
        "EdDSA" => Algorithm::EdDsa,
        _ => return None,
    })
}

fn kind(typ: Option<&str>) -> Result<Kind, TokenFault> {
    let Some(typ) = typ else { return Ok(Kind::Plain) };
    let typ = typ.to_ascii_lowercase();
    match typ.strip_prefix("application/").unwrap_or(&typ) {
        "jwt" => Ok(Kind::Plain),
        "at+jwt" => Ok(Kind::Access),
        _ => Err(TokenFault::Kind),
    }
}

fn object(part: &str) -> Result<Map<String, Value>, TokenFault> {
    serde_json::from_slice(&bytes(part)?).map_err(|_| TokenFault::Malformed("a part is not a JSON object"))
}

fn bytes(part: &str) -> Result<Vec<u8>, TokenFault> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Malformed("a part is not base64url"))
}
