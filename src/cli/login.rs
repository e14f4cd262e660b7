//! `pgwitness login`, `logout`, `whoami`: who we are at a gateway, and remembering it.
//!
//! The login is one at the gateway's identity provider, named by the gateway itself: in a browser on this machine, else
//! by link and code. With the provider's token the gateway gives out one of its own, which alone is kept, for this user
//! alone, and sent to that gateway only. Logging out ends it there.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Url;

use super::client::{
    Client, ClientError, Connection, Credentials, finish, http, is_private, unreachable, whole,
};
use super::loopback::{self, Brought, Loopback};
use super::table::{cell, json_pretty, printable};
use crate::config::Secret;

/// Between two polls, unless the provider says otherwise.
const INTERVAL: Duration = Duration::from_secs(5);
/// Added each time the provider asks for patience, and the most that adds up to.
const SLOWER: Duration = Duration::from_secs(5);
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// A code lives no longer than this here.
const CODE_LIFE_MAX: Duration = Duration::from_secs(1800);
/// A token that does not say when it ends is kept this long.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// Asked for of the gateway's token, which ends with the login in any case.
const LOGIN_LIFE: Duration = Duration::from_secs(12 * 3600);

/// `pgwitness login`
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Log in with a browser on this machine [default: if there seems to be one]
    #[arg(long, conflicts_with = "device")]
    pub browser: bool,
    /// Log in by link and code, with a browser anywhere
    #[arg(long)]
    pub device: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: Connection,
}

/// `pgwitness logout`
#[derive(Debug, Args)]
pub struct LogoutArgs {}

/// `pgwitness whoami`
#[derive(Debug, Args)]
pub struct WhoamiArgs {
    /// As JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: Connection,
}

/// Logs in, and remembers it.
pub async fn run(args: LoginArgs) -> anyhow::Result<ExitCode> {
    Ok(finish(login(&args).await))
}

/// Forgets the stored login.
pub async fn run_logout(_args: LogoutArgs) -> anyhow::Result<ExitCode> {
    end_stored().await;
    let forgotten = Credentials::remove().map_err(ClientError::local("remove the stored login"));
    Ok(finish(forgotten.map(|()| {
        eprintln!("logged out on this machine");
        ExitCode::SUCCESS
    })))
}

/// Prints who we are at the gateway.
pub async fn run_whoami(args: WhoamiArgs) -> anyhow::Result<ExitCode> {
    Ok(finish(whoami(&args).await))
}

async fn whoami(args: &WhoamiArgs) -> Result<ExitCode, ClientError> {
    let client = Client::find(&args.connection)?;
    let me = client.get("/api/v1/me", &[]).await?;
    let text = if args.json {
        json_pretty(&me) + "\n"
    } else {
        let field = |name: &str| cell(me.get(name));
        format!("{} ({}) at {}, until {}\n", field("user"), field("roles"), client.base(), field("expires"))
    };
    io::stdout().lock().write_all(text.as_bytes()).map_err(ClientError::local("write the output"))?;
    Ok(ExitCode::SUCCESS)
}

async fn login(args: &LoginArgs) -> Result<ExitCode, ClientError> {
    let base = Client::address(&args.connection)?;
    let credentials = if args.browser || (!args.device && loopback::is_likely()) {
        obtain_by_browser(base, |url| {
            if !loopback::show(url) {
                eprintln!("no browser could be started");
            }
            eprintln!("If no browser opens, open {url}");
        })
        .await?
    } else {
        obtain(base, |link, code| {
            eprintln!("Open {link}");
            eprintln!("and approve the code {code}");
        })
        .await?
    };
    let credentials = exchanged(credentials).await?;
    let path = credentials.write().map_err(ClientError::local("store the login"))?;
    eprintln!("Logged in to {} as {}. Stored in {}", credentials.url, credentials.user, path.display());
    Ok(ExitCode::SUCCESS)
}

/// Logs in at a gateway's provider; `show` gets the link and the code.
pub(super) async fn obtain(base: Url, show: impl FnOnce(&str, &str)) -> Result<Credentials, ClientError> {
    let gateway = Client::new(base.clone(), None)?;
    let provider = Provider::of(&gateway).await?;
    let device = provider.begin().await?;
    let link = device.verification_uri_complete.as_deref().unwrap_or(&device.verification_uri);
    show(&printable(link), &printable(&device.user_code));
    let tokens = provider.wait(&device).await?;
    known(base, tokens).await
}

/// Logs in at a gateway's provider by a browser on this machine; `open` gets where it must go.
pub(super) async fn obtain_by_browser(
    base: Url,
    open: impl FnOnce(&Url),
) -> Result<Credentials, ClientError> {
    let gateway = Client::new(base.clone(), None)?;
    let provider = Provider::of(&gateway).await?;
    let endpoint = provider.authorize.clone().ok_or_else(|| {
        ClientError::Unreachable(
            "the identity provider offers no login in a browser. Try: pgwitness login --device".into(),
        )
    })?;
    let loopback = Loopback::open().await?;
    open(&loopback.address(&endpoint, &provider.client_id, &provider.scope));
    let brought = loopback.wait(&provider.issuer).await?;
    let tokens = provider.exchange(&brought).await?;
    known(base, tokens).await
}

/// A token of the gateway's own in place of the provider's.
async fn exchanged(credentials: Credentials) -> Result<Credentials, ClientError> {
    let client = Client::new(credentials.url.clone(), Some(Secret::new(credentials.token)))?;
    let wish = json!({ "life": LOGIN_LIFE.as_secs(), "name": "pgwitness login" });
    let given = client.post("/api/v1/tokens", &wish).await?;
    let token = given["token"]
        .as_str()
        .ok_or_else(|| ClientError::Unreachable(format!("{} gave out no token", credentials.url)))?;
    let expires = moment(&given["expires"]).unwrap_or(credentials.expires);
    Ok(Credentials { token: token.to_owned(), expires, ..credentials })
}

/// Ends the stored token at its gateway, if that can be reached: it would end by itself.
async fn end_stored() {
    let Ok(Some(stored)) = Credentials::read() else { return };
    let Some(id) = stored.token.strip_prefix("pgw_").and_then(|rest| rest.split('_').next()) else { return };
    let path = format!("/api/v1/logins/{id}/revoke");
    let Ok(client) = Client::new(stored.url.clone(), Some(Secret::new(stored.token.clone()))) else { return };
    if let Err(error) = client.post(&path, &json!({})).await {
        eprintln!("the token could not be ended at {}: {error}", stored.url);
    }
}

/// Seconds since 1970 of a time as the API writes it.
pub(super) fn moment(value: &Value) -> Option<u64> {
    let time = OffsetDateTime::parse(value.as_str()?, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp()).ok()
}

/// Who the provider's tokens make us at the gateway.
async fn known(base: Url, tokens: Tokens) -> Result<Credentials, ClientError> {
    // Which of the two the gateway takes depends on the audience it is set up for.
    let mut refusal = None;
    for token in [tokens.id_token, tokens.access_token].into_iter().flatten() {
        let me = Client::new(base.clone(), Some(Secret::new(token.clone())))?.get("/api/v1/me", &[]).await;
        match me {
            Ok(me) => return Ok(remembered(base, token, &me)),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    Err(refusal.unwrap_or_else(|| ClientError::Unreachable("the identity provider gave no token".into())))
}

fn remembered(url: Url, token: String, me: &Value) -> Credentials {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires = expiry(&token).unwrap_or_else(|| (now + TOKEN_LIFE).as_secs());
    Credentials { url, token, user: cell(me.get("user")), expires }
}

/// When a token says it ends. Only to know when to ask for a new one: it is not verified here.
fn expiry(token: &str) -> Option<u64> {
    claims(token)?.get("exp")?.as_u64()
}

/// What a token says, not verified.
fn claims(token: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?).ok()
}

/// The gateway's identity provider, as this client sees it.
struct Provider {
    http: reqwest::Client,
    issuer: String,
    device: Option<Url>,
    authorize: Option<Url>,
    token: Url,
    client_id: String,
    scope: String,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    device_authorization_endpoint: Option<Url>,
    authorization_endpoint: Option<Url>,
    token_endpoint: Url,
}

#[derive(Deserialize)]
struct Device {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct Tokens {
    id_token: Option<String>,
    access_token: Option<String>,
}

impl Provider {
    /// Finds the provider by what the gateway says of itself.
    async fn of(gateway: &Client) -> Result<Self, ClientError> {
        let resource = gateway.get("/.well-known/oauth-protected-resource", &[]).await?;
        let not_ours =
            || ClientError::Unreachable(format!("{} does not say where to log in", gateway.base()));
        let issuer = resource["authorization_servers"][0].as_str().ok_or_else(not_ours)?;
        let client_id = resource["pgwitness_client_id"].as_str().ok_or_else(not_ours)?.to_owned();
        let scopes: Vec<&str> =
            resource["scopes_supported"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let scope = if scopes.is_empty() { "openid email".to_owned() } else { scopes.join(" ") };
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let address = safe(Url::parse(&address).map_err(|_| not_ours())?)?;
        let http = http(&address)?;
        let answer = http.get(address.clone()).send().await.map_err(|error| unreachable(&address, &error))?;
        let metadata: Metadata = serde_json::from_slice(&whole(answer).await?).map_err(|_| {
            ClientError::Unreachable(format!("what answers at {address} is not an identity provider"))
        })?;
        if metadata.issuer != issuer {
            return Err(ClientError::Unreachable(format!(
                "the provider at {address} calls itself by another name"
            )));
        }
        let Metadata { issuer, device_authorization_endpoint, authorization_endpoint, token_endpoint } =
            metadata;
        let device = device_authorization_endpoint.map(safe).transpose()?;
        let authorize = authorization_endpoint.map(safe).transpose()?;
        Ok(Self { http, issuer, device, authorize, token: safe(token_endpoint)?, client_id, scope })
    }

    async fn begin(&self) -> Result<Device, ClientError> {
        let form = [("client_id", self.client_id.as_str()), ("scope", self.scope.as_str())];
        let device = self.device.as_ref().ok_or_else(|| {
            ClientError::Unreachable(
                "the identity provider offers no device login. Try --browser, or set PGWITNESS_TOKEN".into(),
            )
        })?;
        let answer = self.http.post(device.clone()).form(&form).send().await;
        let answer = answer.map_err(|error| unreachable(device, &error))?;
        let body: Value = serde_json::from_slice(&whole(answer).await?).unwrap_or(Value::Null);
        let said = reason(&body);
        serde_json::from_value(body).map_err(|_| {
            ClientError::Unreachable(format!("the identity provider did not begin a login: {said}"))
        })
    }

    /// Turns what the browser brought into tokens.
    async fn exchange(&self, brought: &Brought) -> Result<Tokens, ClientError> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", brought.code.as_str()),
            ("redirect_uri", brought.redirect.as_str()),
            ("code_verifier", brought.verifier.as_str()),
            ("client_id", self.client_id.as_str()),
        ];
        let answer = self.http.post(self.token.clone()).form(&form).send().await;
        let answer = answer.map_err(|error| unreachable(&self.token, &error))?;
        let status = answer.status();
        let body: Value = serde_json::from_slice(&whole(answer).await?).unwrap_or(Value::Null);
        if !status.is_success() {
            let why = reason(&body);
            return Err(ClientError::Unauthenticated(format!(
                "the identity provider ended the login: {why}"
            )));
        }
        let tokens: Tokens = serde_json::from_value(body)
            .map_err(|_| ClientError::Unreachable("the identity provider gave no token".into()))?;
        // The signature is the gateway's to check; that it is the answer to our question, only we can.
        let ours =
            |token: &String| claims(token).is_some_and(|claims| claims["nonce"] == brought.nonce.as_str());
        if !tokens.id_token.as_ref().is_some_and(ours) {
            let why = "the identity provider answered another login (nonce)".to_owned();
            return Err(ClientError::Unauthenticated(why));
        }
        Ok(tokens)
    }

    /// Polls until the login ends in one way or another.
    async fn wait(&self, device: &Device) -> Result<Tokens, ClientError> {
        let end = Instant::now() + Duration::from_secs(device.expires_in).min(CODE_LIFE_MAX);
        let mut interval = device.interval.map_or(INTERVAL, Duration::from_secs).min(INTERVAL_MAX);
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", device.device_code.as_str()),
            ("client_id", self.client_id.as_str()),
        ];
        let over = |why: &str| Err(ClientError::Unauthenticated(why.to_owned()));
        while Instant::now() < end {
            tokio::time::sleep(interval).await;
            // A provider that is away for a moment is asked again.
            let Ok(answer) = self.http.post(self.token.clone()).form(&form).send().await else { continue };
            let status = answer.status();
            let body: Value = serde_json::from_slice(&whole(answer).await?).unwrap_or(Value::Null);
            if status.is_success() {
                return serde_json::from_value(body)
                    .map_err(|_| ClientError::Unreachable("the identity provider gave no token".into()));
            }
            match body["error"].as_str() {
                Some("authorization_pending") => {}
                Some("slow_down") => interval = (interval + SLOWER).min(INTERVAL_MAX),
                Some("access_denied") => return over("the login was denied"),
                Some("expired_token") => break,
                _ if status.is_server_error() => {}
                _ => return over(&format!("the identity provider ended the login: {}", reason(&body))),
            }
        }
        over("the login was not approved in time")
    }
}

/// Codes and tokens travel encrypted, or inside this machine.
fn safe(url: Url) -> Result<Url, ClientError> {
    if is_private(&url) {
        return Ok(url);
    }
    Err(ClientError::Unreachable(format!("the identity provider's address {url} is not HTTPS")))
}

fn reason(body: &Value) -> String {
    let said = body["error_description"].as_str().or(body["error"].as_str());
    said.map_or_else(|| "it did not say why".to_owned(), printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokens_end_is_read_and_nonsense_has_none() {
        let claims = URL_SAFE_NO_PAD.encode(br#"{"exp":1795251600}"#);
        assert_eq!(expiry(&format!("h.{claims}.s")), Some(1_795_251_600));
        for bad in ["", "a.b", "a.!!.c", "pgw_x"] {
            assert_eq!(expiry(bad), None, "{bad}");
        }
    }
}
