//! Device login (RFC 8628): a link and a code are shown, the person approves elsewhere, we ask the
//! provider until it answers or the code's life is over.
//!
//! Only the provider's clear words end the wait early. A time-out, a broken connection or an error
//! of the server does not: people approve while providers restart.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::provider::{Refusal, Tokens};
use super::transport::{Reply, checked_url};
use super::{LoginError, Mode, Principal, Provider};
use crate::config::Secret;

/// The grant's name at the token endpoint.
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Seconds between questions if the provider names none.
const DEFAULT_INTERVAL: u32 = 5;
/// Longest pause between questions, seconds; a provider that asks for more gets it in vain.
const MAX_INTERVAL: u32 = 60;
/// Seconds added whenever the provider says `slow_down`.
const SLOW_DOWN: u32 = 5;
/// Longest life of a code that we keep asking for, seconds.
const MAX_LIFE: u32 = 3600;
/// Longest code and link shown, bytes.
const MAX_CODE: usize = 64;
const MAX_LINK: usize = 2048;

/// A login that waits for approval. Clones are the same login; it counts against the limit of
/// pending logins until the last is dropped.
#[derive(Clone)]
pub struct DeviceLogin {
    /// What the person types or compares.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it, if the provider has such a link.
    pub verification_uri_complete: Option<String>,
    /// When the code ends.
    pub expires_at: SystemTime,
    /// How often the provider is asked.
    pub interval: Duration,
    deadline: Instant,
    device_code: Secret,
    _place: Arc<OwnedSemaphorePermit>,
}

impl DeviceLogin {
    /// The link to show: with the code in it if there is one.
    pub fn link(&self) -> &str {
        self.verification_uri_complete.as_deref().unwrap_or(&self.verification_uri)
    }
}

impl std::fmt::Debug for DeviceLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceLogin")
            .field("verification_uri", &self.verification_uri)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl Provider {
    /// Starts a device login.
    ///
    /// # Errors
    /// Too many logins wait, the provider does not answer, or it refuses the gateway.
    pub async fn start_device(&self) -> Result<DeviceLogin, LoginError> {
        let place = Arc::clone(&self.0.pending)
            .try_acquire_owned()
            .map_err(|_| LoginError::TooMany { what: "logins waiting for approval" })?;
        let metadata = self.metadata().await?;
        let no_endpoint = || LoginError::Refused {
            reason: "it offers no device login (no device_authorization_endpoint)".to_owned(),
        };
        let url = metadata.device.as_ref().ok_or_else(no_endpoint)?;
        let mut credentials = self.credentials(&metadata);
        if credentials.basic.is_some() {
            credentials.form.push(("client_id", &self.config().client_id));
        }
        let scope = self.scope();
        credentials.form.push(("scope", &scope));
        let contexts = self.config().require_acr.join(" ");
        if !contexts.is_empty() {
            credentials.form.push(("acr_values", &contexts));
        }
        let reply = self.0.transport.post(url, &credentials.form, credentials.basic).await?;
        let answer = read_start(&reply)?;
        self.device_login(answer, place)
    }

    /// Waits until the login is approved and its ID token verified, or until it ends otherwise.
    ///
    /// Cancel-safe: when the future is dropped the code stays unused until its life is over.
    ///
    /// # Errors
    /// Denied, expired, refused, or a token that proves nothing; [`LoginError::Unreachable`] if the
    /// code's life ended while the provider could not be reached.
    pub async fn wait_device(&self, login: &DeviceLogin) -> Result<Principal, LoginError> {
        let mut pace = Pace { interval: login.interval, step: self.0.second * SLOW_DOWN };
        let mut last = LoginError::Expired;
        loop {
            let left = login.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(last);
            }
            tokio::time::sleep(pace.interval.min(left)).await;
            last = LoginError::Expired;
            let left = login.deadline.saturating_duration_since(Instant::now());
            let turn = tokio::time::timeout(left, self.0.polling.acquire()).await;
            let Ok(Ok(turn)) = turn else { return Err(last) };
            let answer = self.poll(login).await;
            drop(turn);
            match answer {
                Ok(Step::Tokens(tokens)) => return self.identify(&tokens, login, pace.interval).await,
                Ok(Step::Wait) => {}
                Ok(Step::SlowDown) => pace.slow_down(self.0.second),
                Ok(Step::End(error)) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "could not ask for a login's approval, asking again");
                    last = error;
                }
            }
        }
    }

    /// The person is known to the provider; what is still missing may need it once more.
    async fn identify(
        &self,
        tokens: &Tokens,
        login: &DeviceLogin,
        pause: Duration,
    ) -> Result<Principal, LoginError> {
        loop {
            let result = self.principal(tokens, None, Mode::Device).await;
            let left = login.deadline.saturating_duration_since(Instant::now());
            match result {
                Err(LoginError::Unreachable { what }) if !left.is_zero() => {
                    tracing::warn!(what, "could not verify an approved login, trying again");
                    tokio::time::sleep(pause.min(left)).await;
                }
                result => return result,
            }
        }
    }

    /// All scopes to ask for.
    pub(super) fn scope(&self) -> String {
        let scopes = &self.config().scopes;
        let mut all = vec!["openid"];
        all.extend(scopes.iter().map(String::as_str).filter(|&scope| scope != "openid"));
        all.join(" ")
    }

    async fn poll(&self, login: &DeviceLogin) -> Result<Step, LoginError> {
        let metadata = self.metadata().await?;
        let mut credentials = self.credentials(&metadata);
        credentials.form.push(("grant_type", GRANT_TYPE));
        credentials.form.push(("device_code", login.device_code.reveal()));
        let reply = self.0.transport.post(metadata.token()?, &credentials.form, credentials.basic).await?;
        step(&reply)
    }

    fn device_login(&self, answer: Started, place: OwnedSemaphorePermit) -> Result<DeviceLogin, LoginError> {
        let strange = |what: &str| {
            LoginError::unreachable(format!("the device authorization answered with a strange {what}"))
        };
        let shown = |text: &str, max: usize| {
            !text.is_empty() && text.len() <= max && text.bytes().all(|b| (b' '..=b'~').contains(&b))
        };
        if !shown(&answer.user_code, MAX_CODE) {
            return Err(strange("user_code"));
        }
        let link = |text: &String| {
            shown(text, MAX_LINK) && !text.contains(' ') && checked_url(text, Some(self.issuer())).is_ok()
        };
        if !link(&answer.verification_uri) {
            return Err(strange("verification_uri"));
        }
        let life = self.0.second * answer.expires_in.min(MAX_LIFE);
        let interval = answer.interval.unwrap_or(DEFAULT_INTERVAL).clamp(1, MAX_INTERVAL);
        Ok(DeviceLogin {
            user_code: answer.user_code,
            verification_uri: answer.verification_uri,
            verification_uri_complete: answer.verification_uri_complete.filter(link),
            expires_at: SystemTime::now() + life,
            interval: self.0.second * interval,
            deadline: Instant::now() + life,
            device_code: Secret::new(answer.device_code),
            _place: Arc::new(place),
        })
    }
}

#[derive(Deserialize)]
struct Started {
    device_code: String,
    user_code: String,
    #[serde(alias = "verification_url")]
    verification_uri: String,
    #[serde(alias = "verification_url_complete")]
    verification_uri_complete: Option<String>,
    expires_in: u32,
    interval: Option<u32>,
}

fn read_start(reply: &Reply) -> Result<Started, LoginError> {
    if reply.status == 200
        && let Some(started) = reply.json()
    {
        return Ok(started);
    }
    match (reply.status, reply.json::<Refusal>()) {
        (400..=499, Some(refusal)) => Err(refusal.into_error()),
        (status, _) => Err(LoginError::unreachable(format!(
            "the device authorization answered {status} and nothing usable"
        ))),
    }
}

/// What one answer of the token endpoint means.
enum Step {
    Tokens(Tokens),
    Wait,
    SlowDown,
    End(LoginError),
}

fn step(reply: &Reply) -> Result<Step, LoginError> {
    let unusable = || {
        LoginError::unreachable(format!("the token endpoint answered {} and nothing usable", reply.status))
    };
    match reply.status {
        200 => return reply.json().map(Step::Tokens).ok_or_else(unusable),
        429 => return Ok(Step::SlowDown),
        400..=499 => {}
        _ => return Err(unusable()),
    }
    let refusal: Refusal = reply.json().ok_or_else(unusable)?;
    Ok(match refusal.error.as_str() {
        "authorization_pending" => Step::Wait,
        "slow_down" => Step::SlowDown,
        "access_denied" => Step::End(LoginError::Denied),
        "expired_token" => Step::End(LoginError::Expired),
        "temporarily_unavailable" | "server_error" => return Err(refusal.into_error()),
        _ => Step::End(refusal.into_error()),
    })
}

/// How often to ask.
struct Pace {
    interval: Duration,
    step: Duration,
}

impl Pace {
    fn slow_down(&mut self, second: Duration) {
        let longest = second * MAX_INTERVAL;
        self.interval = (self.interval + self.step).min(longest);
    }
}
