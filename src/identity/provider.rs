//! [`Provider`]: one OpenID Connect provider, its endpoints and keys.
//!
//! Endpoints are found on first need and again every hour; keys as well, and once more when a
//! token names an unknown one, at most every ten seconds however many such tokens arrive.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use url::Url;

use super::bearer::discovery;
use super::cached::{Cached, Life};
use super::claims::{Claims, Origin};
use super::keys::KeySet;
use super::revoked::{Revoked, login_of};
use super::token::Unverified;
use super::transport::{Reply, Transport, checked_url, printable};
use super::workload::Workloads;
use super::{LoginError, Mode, Principal, TokenFault, Whose};
use crate::config::{Oidc, Secret, Workload};

/// How long endpoints and keys are used before they are fetched again, and how long still if that fails.
const LIFE: Life = Life { fresh: Duration::from_secs(3600), stale: Duration::from_secs(24 * 3600) };
/// Keys are not fetched again for unknown ones more often than this.
const KEYS_GAP: Duration = Duration::from_secs(10);
/// A failure that came faster than this is worth a second try, after a pause.
const QUICK: Duration = Duration::from_secs(2);
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Device logins waiting for approval at once, unless told otherwise.
const MAX_PENDING: usize = 1000;
/// Questions whether a login was approved that are under way at once; the others wait for their turn.
const MAX_POLLING: usize = 16;

/// One OpenID Connect provider. Clones share everything.
#[derive(Clone)]
pub struct Provider(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) config: Oidc,
    pub(super) transport: Transport,
    /// Places for device logins that wait.
    pub(super) pending: Arc<Semaphore>,
    /// Turns to ask whether a login was approved.
    pub(super) polling: Semaphore,
    /// A second of the provider's intervals; tests run faster.
    pub(super) second: Duration,
    issuer: Url,
    workloads: Workloads,
    revoked: Revoked,
    metadata: Cached<Metadata>,
    keys: Cached<KeySet>,
    keys_gap: Duration,
}

/// Why a [`Provider`] could not be made from its configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The issuer is no address that can be trusted.
    #[error("the issuer {0}")]
    Issuer(String),
    /// HTTP or TLS could not be set up.
    #[error("{0}")]
    Transport(String),
}

/// What the provider says about itself.
pub(super) struct Metadata {
    pub(super) authorization: Option<Url>,
    token: Option<Url>,
    pub(super) device: Option<Url>,
    userinfo: Option<Url>,
    keys: Url,
    basic: bool,
}

/// The provider's answer to a finished login.
#[derive(Deserialize)]
pub(super) struct Tokens {
    id_token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
}

impl Tokens {
    /// What the login is renewed with.
    pub(super) fn refresh(&self) -> Option<Secret> {
        self.refresh_token.clone().filter(|token| !token.is_empty()).map(Secret::new)
    }

    /// Whether there is an ID token.
    pub(super) fn says_who(&self) -> bool {
        self.id_token.is_some()
    }
}

/// The provider's answer to a request that it refuses (RFC 6749, 5.2).
#[derive(Deserialize)]
pub(super) struct Refusal {
    pub(super) error: String,
    error_description: Option<String>,
}

impl Refusal {
    pub(super) fn into_error(self) -> LoginError {
        let mut reason = printable(&self.error);
        if let Some(more) = self.error_description {
            reason = format!("{reason}: {}", printable(&more));
        }
        LoginError::Refused { reason }
    }
}

impl Metadata {
    /// Where tokens are given. Issuers of programs' tokens have no such place.
    pub(super) fn token(&self) -> Result<&Url, LoginError> {
        self.token.as_ref().ok_or_else(|| LoginError::unreachable("the provider names no token_endpoint"))
    }
}

impl Provider {
    /// A provider by its configuration. No connection is made yet.
    ///
    /// # Errors
    /// The issuer is neither `https` nor `http` on a loopback host, or TLS could not be set up.
    pub fn new(config: Oidc) -> Result<Self, SetupError> {
        let issuer = checked_url(&config.issuer, None).map_err(SetupError::Issuer)?;
        let transport = Transport::new(&issuer).map_err(SetupError::Transport)?;
        Ok(Self(Arc::new(Inner {
            config,
            transport,
            pending: Arc::new(Semaphore::new(MAX_PENDING)),
            polling: Semaphore::new(MAX_POLLING),
            second: Duration::from_secs(1),
            issuer,
            workloads: Workloads::default(),
            revoked: Revoked::default(),
            metadata: Cached::new(),
            keys: Cached::new(),
            keys_gap: KEYS_GAP,
        })))
    }

    /// The same provider with room for so many device logins at once. Call it before the first.
    #[must_use]
    pub fn with_pending_limit(self, limit: usize) -> Self {
        self.changed(|inner| inner.pending = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))))
    }

    /// The same provider, and beside its people the programs of these rules. Call it before the first login.
    ///
    /// # Errors
    /// As [`Provider::new`], of an issuer that a rule names.
    pub fn with_workloads(self, rules: &[Workload]) -> Result<Self, SetupError> {
        let workloads = Workloads::new(rules, self.config())?;
        Ok(self.changed(|inner| inner.workloads = workloads))
    }

    pub(super) fn issuer(&self) -> &Url {
        &self.0.issuer
    }

    /// The configuration.
    pub fn config(&self) -> &Oidc {
        &self.0.config
    }

    /// Asks the provider for its endpoints and keys now, unless both are known.
    ///
    /// # Errors
    /// It cannot be reached, or what it says is not usable.
    pub async fn check(&self) -> Result<(), LoginError> {
        self.metadata().await?;
        self.keys().await?;
        Ok(())
    }

    /// Verifies an ID token, or a JWT access token for our audience, or a token of a program by the rules for these,
    /// that a client presents.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`LoginError::BadToken`] says what is wrong with it; [`LoginError::Unreachable`]: the keys
    /// could not be fetched.
    pub async fn verify_token(&self, jwt: &str) -> Result<Principal, LoginError> {
        let token = Unverified::read(jwt)?;
        let program = self.0.workloads.find(&token, self).await?;
        let principal = match program {
            Some(program) => program,
            None => {
                let claims = self.signed(&token, Patience::None).await?;
                self.admit(&claims, Origin::Presented, Mode::Token)?
            }
        };
        let principal = principal.as_login(login_of(jwt));
        self.0.revoked.check(&principal, token.issued())?;
        Ok(principal)
    }

    /// Tokens of what is meant, of those made until now, are refused from here on.
    pub fn revoke(&self, whose: &Whose) {
        let workloads = self.0.workloads.longest_life();
        self.0.revoked.end(whose, SystemTime::now(), self.config().session_max_age.max(workloads));
    }

    /// The same, of a token that came by SASL OAUTHBEARER.
    ///
    /// # Errors
    /// As [`Provider::verify_token`].
    pub async fn verify_bearer(&self, jwt: &str) -> Result<Principal, LoginError> {
        Ok(self.verify_token(jwt).await?.by(Mode::Oauth))
    }

    /// What a client of SASL OAUTHBEARER is told that has no token which helps: where to get one.
    pub fn discovery(&self) -> String {
        discovery(&self.config().issuer, &self.scope())
    }

    /// Verifies the provider's own answer to a finished login.
    pub(super) async fn principal(
        &self,
        tokens: &Tokens,
        nonce: Option<&str>,
        mode: Mode,
    ) -> Result<Principal, LoginError> {
        let no_token = || LoginError::Refused {
            reason: "it gave no ID token; the scope \"openid\" must be allowed for this client".to_owned(),
        };
        let jwt = tokens.id_token.as_deref().ok_or_else(no_token)?;
        let token = Unverified::read(jwt)?;
        let mut claims = self.signed(&token, Patience::OneGap).await?;
        let origin = Origin::Answer { nonce };
        claims.check(self.config(), origin, unix(SystemTime::now()))?;
        if claims.lacks_person(self.config()) {
            self.complete(&mut claims, tokens.access_token.as_deref()).await?;
        }
        Ok(self.admit(&claims, origin, mode)?.with_refresh(tokens.refresh()))
    }

    fn admit(&self, claims: &Claims, origin: Origin<'_>, mode: Mode) -> Result<Principal, LoginError> {
        let now = SystemTime::now();
        claims.check(self.config(), origin, unix(now))?;
        let person = claims.person(self.config())?;
        let issued = UNIX_EPOCH + Duration::from_secs(claims.issued()?.unsigned_abs());
        let expires = issued.min(now) + self.config().session_max_age;
        Ok(Principal::new(person, mode, expires))
    }

    /// The claims of a token, if its signature is by one of the provider's keys.
    pub(super) async fn signed(
        &self,
        token: &Unverified<'_>,
        patience: Patience,
    ) -> Result<Claims, LoginError> {
        let keys = self.keys().await?;
        match token.verify(keys.keys()) {
            Err(TokenFault::UnknownKey) => {}
            result => return Ok(result?),
        }
        let mut newer = self.newer_keys(&keys).await?;
        if newer.is_none() && patience == Patience::OneGap {
            tokio::time::sleep(self.0.keys.newer_in(self.0.keys_gap)).await;
            newer = self.newer_keys(&keys).await?;
        }
        let newer = newer.ok_or(TokenFault::UnknownKey)?;
        Ok(token.verify(newer.keys())?)
    }

    /// Providers may keep name and groups out of the ID token; they then say them at userinfo.
    async fn complete(&self, claims: &mut Claims, access_token: Option<&str>) -> Result<(), LoginError> {
        let metadata = self.metadata().await?;
        let (Some(url), Some(token)) = (&metadata.userinfo, access_token) else {
            return Ok(());
        };
        let reply = self.0.transport.get(url, Some(token)).await?;
        let userinfo: Option<Map<String, Value>> = reply.json();
        match (reply.status, userinfo) {
            (200, Some(userinfo)) => Ok(claims.complete(userinfo)?),
            (status, _) => {
                Err(LoginError::unreachable(format!("userinfo answered {status} without usable JSON")))
            }
        }
    }

    /// How the gateway proves itself: form fields, and user and password.
    pub(super) fn credentials<'a>(&'a self, metadata: &Metadata) -> Credentials<'a> {
        let id = self.config().client_id.as_str();
        match self.config().client_secret.as_ref() {
            None => Credentials { form: vec![("client_id", id)], basic: None },
            Some(secret) if metadata.basic => {
                Credentials { form: Vec::new(), basic: Some((id, secret.reveal())) }
            }
            Some(secret) => {
                Credentials { form: vec![("client_id", id), ("client_secret", secret.reveal())], basic: None }
            }
        }
    }

    pub(super) async fn metadata(&self) -> Result<Arc<Metadata>, LoginError> {
        self.0.metadata.get(LIFE, || self.fetch_metadata()).await
    }

    async fn keys(&self) -> Result<Arc<KeySet>, LoginError> {
        self.0.keys.get(LIFE, || self.fetch_keys()).await
    }

    async fn newer_keys(&self, seen: &Arc<KeySet>) -> Result<Option<Arc<KeySet>>, LoginError> {
        self.0.keys.newer(seen, self.0.keys_gap, || self.fetch_keys()).await
    }

    async fn fetch_metadata(&self) -> Result<Metadata, LoginError> {
        let text = format!("{}/.well-known/openid-configuration", self.config().issuer.trim_end_matches('/'));
        let url = checked_url(&text, Some(&self.0.issuer))
            .map_err(|why| LoginError::unreachable(format!("discovery: {why}")))?;
        let reply = self.fetch(&url).await?;
        let document = match (reply.status, reply.json::<Document>()) {
            (200, Some(document)) => document,
            (status, _) => {
                return Err(LoginError::unreachable(format!(
                    "{url} answered {status} without a usable description of the provider"
                )));
            }
        };
        document.read(&self.config().issuer, &self.0.issuer)
    }

    async fn fetch_keys(&self) -> Result<KeySet, LoginError> {
        let metadata = self.metadata().await?;
        let reply = self.fetch(&metadata.keys).await?;
        match (reply.status, KeySet::read(&reply.body)) {
            (200, Some(keys)) => Ok(keys),
            (status, _) => {
                Err(LoginError::unreachable(format!("{} answered {status} without a key set", metadata.keys)))
            }
        }
    }

    /// A document of the provider, asked for twice if the first answer is a quick failure.
    async fn fetch(&self, url: &Url) -> Result<Reply, LoginError> {
        let asked = Instant::now();
        match self.0.transport.get(url, None).await {
            Ok(reply) if reply.status < 500 => return Ok(reply),
            Err(error) if asked.elapsed() > QUICK => return Err(error),
            _ => tokio::time::sleep(RETRY_PAUSE).await,
        }
        self.0.transport.get(url, None).await
    }

    fn changed(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = self.0;
        match Arc::get_mut(&mut inner) {
            Some(only) => change(only),
            None => tracing::error!("a provider that is in use cannot be changed"),
        }
        Self(inner)
    }

    /// Intervals and gaps in milliseconds instead of seconds, for tests.
    #[cfg(test)]
    pub(super) fn hurried(self, second: Duration, keys_gap: Duration) -> Self {
        self.changed(|inner| {
            inner.second = second;
            inner.keys_gap = keys_gap;
        })
    }

    /// A shorter patience with the provider, for tests.
    #[cfg(test)]
    pub(super) fn impatient(self, timeout: Duration) -> Self {
        self.changed(|inner| {
            if let Ok(transport) = Transport::with_timeout(&inner.issuer, timeout) {
                inner.transport = transport;
            }
        })
    }
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("issuer", &self.config().issuer).finish_non_exhaustive()
    }
}

/// How the gateway proves itself to the provider.
pub(super) struct Credentials<'a> {
    pub(super) form: Vec<(&'a str, &'a str)>,
    pub(super) basic: Option<(&'a str, &'a str)>,
}

/// What to do when a key is unknown and keys were fetched only just now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Refuse: anybody can present anything.
    None,
    /// Wait out the gap once: the token is the provider's own answer.
    OneGap,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    userinfo_endpoint: Option<String>,
    jwks_uri: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Document {
    fn read(self, issuer: &str, issuer_url: &Url) -> Result<Metadata, LoginError> {
        if self.issuer != issuer {
            return Err(LoginError::unreachable(format!(
                "the provider calls itself \"{}\", not \"{issuer}\"; set oidc.issuer to its own spelling",
                printable(&self.issuer)
            )));
        }
        let url = |text: String| checked_url(&text, Some(issuer_url)).map_err(LoginError::unreachable);
        let maybe = |text: Option<String>| text.map(url).transpose();
        // RFC 8414: where nothing is said, it is basic.
        let methods = self.token_endpoint_auth_methods_supported;
        let basic =
            methods.is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic"));
        Ok(Metadata {
            authorization: maybe(self.authorization_endpoint)?,
            token: maybe(self.token_endpoint)?,
            device: maybe(self.device_authorization_endpoint)?,
            userinfo: maybe(self.userinfo_endpoint)?,
            keys: url(self.jwks_uri)?,
            basic,
        })
    }
}

/// Unix seconds.
pub(super) fn unix(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
