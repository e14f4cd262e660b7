//! SASL OAUTHBEARER, the server's half, as libpq 18 speaks it.
//!
//! The client sends a token, or asks where to get one; what the provider is, it is told in the answer
//! to a token that does not help. The token itself is verified by [`Provider`](super::Provider).
//!
//! Source: RFC 7628, section 3; RFC 6750, section 2.1; PostgreSQL 18, `src/backend/libpq/auth-oauth.c`.

use serde_json::json;

use super::LoginError;
use crate::config::Secret;

/// The mechanism's name.
pub const OAUTHBEARER: &str = "OAUTHBEARER";
/// What a client says to an answer that ends the exchange: a lone separator.
pub const ACKNOWLEDGED: &[u8] = &[SEPARATOR];

const SEPARATOR: u8 = 1;
const MALFORMED: LoginError = LoginError::BadPassword { reason: "the OAUTHBEARER message is malformed" };

/// The token of a client's first message; `None` if it asks where to get one.
///
/// # Errors
/// The message is not one of RFC 7628, or asks for what is not offered: channel binding, another identity.
pub fn read_bearer(message: &[u8]) -> Result<Option<Secret>, LoginError> {
    let text = std::str::from_utf8(message).map_err(|_| MALFORMED)?;
    let rest = match text.split_once(',').ok_or(MALFORMED)? {
        ("n" | "y", rest) => rest,
        (flag, _) if flag.starts_with("p=") => {
            return Err(LoginError::BadPassword { reason: "OAUTHBEARER has no channel binding" });
        }
        _ => return Err(MALFORMED),
    };
    let (identity, rest) = rest.split_once(',').ok_or(MALFORMED)?;
    if !identity.is_empty() {
        return Err(LoginError::BadPassword {
            reason: "another identity than the token's cannot be asked for",
        });
    }
    let separator = char::from(SEPARATOR);
    // Key and value pairs, each with a separator behind it, and a separator behind all.
    let pairs =
        rest.strip_prefix(separator).and_then(|rest| rest.strip_suffix(separator)).ok_or(MALFORMED)?;
    let pairs = pairs.strip_suffix(separator).ok_or(MALFORMED)?;
    let mut auth = None;
    for pair in pairs.split(separator) {
        match pair.split_once('=').ok_or(MALFORMED)? {
            ("auth", _) if auth.is_some() => return Err(MALFORMED),
            ("auth", value) => auth = Some(value),
            _ => {}
        }
    }
    let value = auth.ok_or(MALFORMED)?;
    if value.is_empty() {
        return Ok(None);
    }
    let (scheme, token) = value.split_once(' ').ok_or(MALFORMED)?;
    let token = token.trim_start_matches(' ');
    let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    let unpadded = token.trim_end_matches('=');
    if !scheme.eq_ignore_ascii_case("Bearer") || unpadded.is_empty() || !unpadded.bytes().all(of_token) {
        return Err(MALFORMED);
    }
    Ok(Some(Secret::new(token)))
}

/// The answer to a client whose token does not help, or that has none: where to get one.
pub(super) fn discovery(issuer: &str, scope: &str) -> String {
    let document = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    json!({ "status": "invalid_token", "openid-configuration": document, "scope": scope }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(message: &str) -> Result<Option<String>, LoginError> {
        let message = message.replace('|', "\u{1}");
        read_bearer(message.as_bytes()).map(|token| token.map(|token| token.reveal().to_owned()))
    }

    #[test]
    fn a_token_is_read_and_an_empty_one_asks_where_to_get_it() {
        assert_eq!(token("n,,|auth=Bearer a.b-c_d~e+f/g==||"), Ok(Some("a.b-c_d~e+f/g==".to_owned())));
        assert_eq!(token("y,,|host=db|auth=bearer  x|port=5432||"), Ok(Some("x".to_owned())));
        assert_eq!(token("n,,|auth=||"), Ok(None));
    }

    #[test]
    fn what_rfc_7628_does_not_allow_is_refused() {
        for message in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,|",
            "n,,||",
            "n,,|auth=Bearer x|",
            "n,,|auth=Bearer x",
            "n,,auth=Bearer x||",
            "n,,|auth||",
            "n,,|auth=Bearer||",
            "n,,|auth=Basic x||",
            "n,,|auth=Bearer x y||",
            "n,,|auth=Bearer ||",
            "n,,|auth=Bearer x|auth=Bearer y||",
            "n,,|host=db||",
            "n,a=bob,|auth=Bearer x||",
            "p=tls-server-end-point,,|auth=Bearer x||",
            "n,,|auth=Bearer =||",
            "n,,|auth=Bearer \u{e9}||",
        ] {
            assert!(token(message).is_err(), "{message}");
        }
        assert!(read_bearer(b"n,,\x01auth=Bearer \xff\x01\x01").is_err());
    }
}
