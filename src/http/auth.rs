//! From a request to a [`Caller`]: a bearer token, or the cookie of a signed-in browser.
//!
//! Roles are worked out anew for each request from verified claims. A cookie counts only for
//! requests that our own page or the address bar made.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use pgwitness_index::search::Scope;
use serde::de::DeserializeOwned;
use url::Url;

use super::limits::Share;
use super::problem::Problem;
use super::serve::Peer;
use super::{Api, Reach};
use crate::identity::Principal;
use crate::policy::{self, LogAccess};

/// A client's program name is kept up to this many characters.
const AGENT_CHARS_MAX: usize = 120;

/// Somebody who proved who they are, and what they may read.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) principal: Principal,
    pub(super) access: LogAccess,
    pub(super) ip: String,
    pub(super) agent: String,
    /// What of our work is theirs.
    pub(super) share: Arc<Share>,
}

impl Caller {
    /// Which records exist for this caller.
    pub(super) fn scope(&self) -> Scope {
        if self.access.reads_all() {
            Scope::All
        } else {
            Scope::Own { iss: self.principal.iss().to_owned(), sub: self.principal.sub().to_owned() }
        }
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let principal = match bearer(&parts.headers)? {
            Some(token) => by_token(api, token).await?,
            None => by_cookie(api, parts)?,
        };
        let share = api.limits.admit(&principal, Instant::now())?;
        let access = policy::log_access(&api.access, &(&principal).into());
        Ok(Self { principal, access, ip: ip(parts), agent: agent(&parts.headers), share })
    }
}

/// The caller's address, without the port.
pub(super) fn ip(parts: &Parts) -> String {
    parts.extensions.get::<Peer>().map(|peer| peer.0.ip().to_canonical().to_string()).unwrap_or_default()
}

/// What the client calls itself; for people, proves nothing.
pub(super) fn agent(headers: &HeaderMap) -> String {
    let text = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.chars().take(AGENT_CHARS_MAX).collect()
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let value =
        value.to_str().map_err(|_| Problem::unauthenticated("the Authorization header is not text"))?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(Problem::unauthenticated("the Authorization header must be: Bearer, a space, a token")),
    }
}

async fn by_token(api: &Api, token: &str) -> Result<Principal, Problem> {
    if token.starts_with("pgw_") {
        return api.minted.lookup(token).ok_or_else(|| {
            Problem::unauthenticated("this token is unknown or has ended. Log in again with: pgwitness login")
        });
    }
    api.provider.verify_token(token).await.map_err(|error| {
        tracing::info!(%error, "a bearer token was refused");
        Problem::unauthenticated(error.client_text())
    })
}

fn by_cookie(api: &Api, parts: &Parts) -> Result<Principal, Problem> {
    let Some(id) = cookie(&parts.headers, session_cookie(api.reach)) else {
        return Err(Problem::unauthenticated("sign in, or send a bearer token"));
    };
    let Some(principal) = api.browsers.signed_in(id) else {
        return Err(Problem::unauthenticated("the session has ended. Sign in again"));
    };
    let site = parts.headers.get("sec-fetch-site").map(|value| value.as_bytes());
    let ours = match site {
        Some(site) => site == b"same-origin" || site == b"none" || is_navigation(parts),
        None => parts.method == Method::GET,
    };
    if !ours {
        return Err(Problem::forbidden("another site sent this request with your cookie"));
    }
    Ok(principal)
}

/// Following a link from elsewhere to the page; never to the API.
fn is_navigation(parts: &Parts) -> bool {
    let mode = parts.headers.get("sec-fetch-mode").map(|value| value.as_bytes());
    parts.method == Method::GET && mode == Some(b"navigate") && !parts.uri.path().starts_with("/api/")
}

/// Requests that change something must be JSON, which other sites' forms cannot send.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "media-type",
        "the body must be JSON, with content-type application/json",
    ))
}

/// The body of a request that changes something, which may be empty where all of it has defaults. `wanted` says what
/// is wrong with another one.
pub(super) fn json_or_nothing<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: &str,
    wanted: &str,
) -> Result<T, Problem> {
    require_json(headers)?;
    let text = if body.trim().is_empty() { "{}" } else { body };
    serde_json::from_str(text).map_err(|_| Problem::bad_request(wanted))
}

/// Requests that change something for a browser must come from our own page.
pub(super) fn require_same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get("sec-fetch-site").map(|value| value.as_bytes()) {
        Some(b"same-origin" | b"none") => Ok(()),
        _ => Err(Problem::forbidden("this request must come from the page itself")),
    }
}

/// The value of a cookie.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(known, value)| (known == name).then_some(value))
}

/// Name of the cookie of a signed-in browser.
pub(super) fn session_cookie(reach: Reach) -> &'static str {
    match reach {
        Reach::Https => "__Host-pgwitness",
        Reach::PlainLoopback => "pgwitness_demo",
    }
}

/// Tells who is not known where to log in (RFC 9728, 5.1; RFC 6750, 3).
pub(super) async fn challenge(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let had_token = request.headers().contains_key(header::AUTHORIZATION);
    let mut response = next.run(request).await;
    if response.status() == StatusCode::UNAUTHORIZED {
        let base = api.public_url.as_str().trim_end_matches('/');
        let error = if had_token { "error=\"invalid_token\", " } else { "" };
        let text = format!("Bearer {error}resource_metadata=\"{base}/.well-known/oauth-protected-resource\"");
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
    }
    response
}

/// On plain loopback, answers only to loopback names: a foreign name that resolves to us is
/// somebody's web page trying to talk to us.
pub(super) async fn guard_host(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if api.reach == Reach::PlainLoopback && !is_loopback_host(request.headers()) {
        return Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "host",
            "this gateway answers to localhost and 127.0.0.1 only",
        )
        .into_response();
    }
    next.run(request).await
}

/// Where the page is, if it was asked for by another loopback name: a sign-in ends at the public
/// address, and a cookie of one name is not sent to another.
pub(super) fn proper_address(api: &Api, headers: &HeaderMap, uri: &Uri) -> Option<Url> {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok())?;
    if api.reach != Reach::PlainLoopback || host == api.public_url.authority() {
        return None;
    }
    let mut address = api.public_url.clone();
    address.set_path(uri.path());
    address.set_query(uri.query());
    Some(address)
}

fn is_loopback_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|value| value.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "127.0.0.1" | "[::1]") || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn only_loopback_names_are_our_host_on_the_demo() {
        for good in ["localhost", "localhost:7432", "127.0.0.1:7432", "[::1]:7432", "[::1]", "LOCALHOST:1"] {
            assert!(is_loopback_host(&with("host", good)), "{good}");
        }
        for bad in ["evil.example", "evil.example:7432", "127.0.0.1.evil.example", "localhost.evil:80", ""] {
            assert!(!is_loopback_host(&with("host", bad)), "{bad}");
        }
        assert!(!is_loopback_host(&HeaderMap::new()));
    }

    #[test]
    fn a_cookie_is_found_among_others_by_its_whole_name() {
        let headers = with("cookie", "a=1; x__Host-pgwitness=no; __Host-pgwitness=yes; b=2");
        assert_eq!(cookie(&headers, "__Host-pgwitness"), Some("yes"));
        assert_eq!(cookie(&headers, "pgwitness"), None);
    }

    #[test]
    fn a_body_that_a_form_could_send_is_not_json() {
        assert!(require_json(&with("content-type", "application/json; charset=utf-8")).is_ok());
        for bad in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
            assert!(require_json(&with("content-type", bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bearer_token_needs_its_scheme() {
        assert_eq!(bearer(&with("authorization", "Bearer abc")).unwrap(), Some("abc"));
        assert_eq!(bearer(&with("authorization", "bearer abc")).unwrap(), Some("abc"));
        assert!(bearer(&with("authorization", "Basic abc")).is_err());
        assert!(bearer(&with("authorization", "abc")).is_err());
    }
}
