//! Signing a browser in and out: authorization code with PKCE, then a session kept here.
//!
//! The browser holds one random id; who it stands for never leaves the gateway. A sign-in ends in
//! the browser that began it (a second random cookie ties the two ends), and leads back only to a
//! path of our own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore;
use url::{Url, form_urlencoded};

use super::approve;
use super::audit;
use super::auth::{self, cookie, session_cookie};
use super::expiring::Expiring;
use super::page;
use super::problem::Problem;
use super::{Api, Reach};
use crate::identity::{Authorization, Principal};

/// Signed-in browsers, in all; one more ends the oldest.
const SESSIONS_MAX: usize = 10_000;
/// A browser stays signed in this long.
const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
/// Sign-ins begun and not ended, in all.
const PENDING_MAX: usize = 10_000;
/// A sign-in must end within this time.
const PENDING_LIFE: Duration = Duration::from_secs(600);
/// Longest path to come back to, bytes.
const NEXT_BYTES_MAX: usize = 6_000;

/// Browsers signed in, and those about to be.
pub(super) struct Browsers {
    sessions: Expiring<Principal>,
    pending: Expiring<Arc<Pending>>,
}

struct Pending {
    authorization: Authorization,
    browser: String,
    after: After,
}

/// Where a sign-in leads.
#[derive(Clone)]
pub(super) enum After {
    /// To a path of our own, signed in.
    Page(String),
    /// To the request with this id, which is to be approved or denied; the browser is not signed in elsewhere.
    Approval(String),
}

impl Browsers {
    pub(super) fn new() -> Self {
        Self { sessions: Expiring::new(SESSIONS_MAX), pending: Expiring::new(PENDING_MAX) }
    }

    /// Who a browser's cookie stands for.
    pub(super) fn signed_in(&self, id: &str) -> Option<Principal> {
        self.sessions.get(id)
    }
}

/// `/auth/…`
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/auth/login", get(login))
        .route("/auth/callback", get(callback))
        .route("/auth/logout", post(logout))
        .route(
            "/auth/signed-out",
            get(async || page::message(StatusCode::OK, "Signed out", "You are signed out.")),
        )
}

async fn login(State(api): State<Arc<Api>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let next = match parameter(query.as_deref(), "next") {
        None => "/".to_owned(),
        Some(next) if is_own_path(&next) => next,
        Some(_) => {
            return page::message(
                StatusCode::BAD_REQUEST,
                "Not a path of this site",
                "The address to come back to must begin with one slash.",
            );
        }
    };
    begin(&api, &headers, After::Page(next)).await
}

/// Sends a browser to the provider.
pub(super) async fn begin(api: &Api, headers: &HeaderMap, after: After) -> Response {
    let authorization = match api.provider.authorize(&callback_url(api)).await {
        Ok(authorization) => authorization,
        Err(error) => {
            tracing::warn!(%error, "could not begin a sign-in");
            return failed(StatusCode::BAD_GATEWAY, &error.client_text());
        }
    };
    // Two tabs may sign in at once: an id the browser already has is kept.
    let browser = match cookie(headers, pending_cookie(api.reach)) {
        Some(known) if is_secret(known) => known.to_owned(),
        _ => secret(),
    };
    let mut response = Redirect::to(authorization.url.as_str()).into_response();
    set_cookie(&mut response, api.reach, pending_cookie(api.reach), &browser, PENDING_LIFE);
    let state = authorization.state.clone();
    api.browsers.pending.insert(&state, Arc::new(Pending { authorization, browser, after }), PENDING_LIFE);
    response
}

async fn callback(State(api): State<Arc<Api>>, RawQuery(query): RawQuery, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let state = parameter(query.as_deref(), "state").unwrap_or_default();
    let browser = cookie(&parts.headers, pending_cookie(api.reach)).unwrap_or_default();
    let pending = api.browsers.pending.take(&state).filter(|pending| same(&pending.browser, browser));
    let Some(pending) = pending else {
        return failed(
            StatusCode::BAD_REQUEST,
            "this sign-in was not begun in this browser, took too long, or was used already",
        );
    };
    if let Some(error) = parameter(query.as_deref(), "error") {
        let reason = parameter(query.as_deref(), "error_description").unwrap_or(error);
        return failed(StatusCode::FORBIDDEN, &format!("the identity provider said: {reason}"));
    }
    let foreign = parameter(query.as_deref(), "iss").is_some_and(|iss| iss != api.provider.config().issuer);
    let (false, Some(code)) = (foreign, parameter(query.as_deref(), "code")) else {
        return failed(StatusCode::BAD_REQUEST, "the identity provider's answer holds no code for us");
    };
    let principal = match api.provider.exchange(&pending.authorization, &callback_url(&api), &code).await {
        Ok(principal) => principal,
        Err(error) => {
            tracing::info!(%error, "a sign-in failed");
            return failed(StatusCode::FORBIDDEN, &error.client_text());
        }
    };
    let next = match &pending.after {
        After::Page(next) => next,
        After::Approval(id) => {
            let mut response = approve::signed_in(&api, &parts.headers, id, principal);
            set_cookie(&mut response, api.reach, pending_cookie(api.reach), "", Duration::ZERO);
            return response;
        }
    };
    let record = audit::signed_in(&principal, &auth::ip(&parts), &auth::agent(&parts.headers));
    if let Err(problem) = audit::write(&api, record).await {
        return failed(problem.status(), problem.detail());
    }
    let id = secret();
    let mut response = Redirect::to(next).into_response();
    let life = principal.time_left(SystemTime::now()).min(SESSION_LIFE);
    api.browsers.sessions.insert(&id, principal, life);
    set_cookie(&mut response, api.reach, session_cookie(api.reach), &id, life);
    set_cookie(&mut response, api.reach, pending_cookie(api.reach), "", Duration::ZERO);
    response
}

async fn logout(State(api): State<Arc<Api>>, headers: HeaderMap) -> Result<Response, Problem> {
    auth::require_same_origin(&headers)?;
    auth::require_json(&headers)?;
    if let Some(id) = cookie(&headers, session_cookie(api.reach)) {
        api.browsers.sessions.take(id);
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    set_cookie(&mut response, api.reach, session_cookie(api.reach), "", Duration::ZERO);
    Ok(response)
}

fn failed(status: StatusCode, reason: &str) -> Response {
    page::message(status, "Could not sign in", reason)
}

fn callback_url(api: &Api) -> Url {
    let mut url = api.public_url.clone();
    url.set_path("/auth/callback");
    url.set_query(None);
    url
}

fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    form_urlencoded::parse(query?.as_bytes())
        .find(|(known, value)| known == name && !value.is_empty())
        .map(|(_, value)| value.into_owned())
}

/// A path of our own: one leading slash, nothing a browser would read as another site.
fn is_own_path(next: &str) -> bool {
    next.len() <= NEXT_BYTES_MAX
        && next.starts_with('/')
        && !next.starts_with("//")
        && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

fn pending_cookie(reach: Reach) -> &'static str {
    match reach {
        Reach::Https => "__Host-pgwitness-login",
        Reach::PlainLoopback => "pgwitness_demo_login",
    }
}

pub(super) fn set_cookie(response: &mut Response, reach: Reach, name: &str, value: &str, life: Duration) {
    let secure = if reach == Reach::Https { "; Secure" } else { "" };
    let line = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={}{secure}", life.as_secs());
    match HeaderValue::from_str(&line) {
        Ok(line) => {
            response.headers_mut().append(header::SET_COOKIE, line);
        }
        Err(error) => tracing::error!(%error, "could not write a cookie"),
    }
}

/// 256 random bits.
pub(super) fn secret() -> String {
    let mut bytes = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn is_secret(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

pub(super) fn same(a: &str, b: &str) -> bool {
    use subtle::ConstantTimeEq;
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_paths_are_come_back_to() {
        for good in ["/", "/?q=table%3Ausers", "/a/b?c=//d"] {
            assert!(is_own_path(good), "{good}");
        }
        for bad in [
            "",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/a\nb",
            "/\t/evil",
            "javascript:1",
        ] {
            assert!(!is_own_path(bad), "{bad}");
        }
    }

    #[test]
    fn secrets_are_long_and_differ() {
        let (a, b) = (secret(), secret());
        assert!(is_secret(&a) && is_secret(&b) && a != b);
        assert!(!is_secret("short"));
    }
}
