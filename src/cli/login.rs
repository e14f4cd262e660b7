//! `pgwitness login`, `logout`, `whoami`: who we are at a gateway, and remembering it.
//!
//! The login is a device login at the gateway's identity provider, named by the gateway itself; the
//! provider's token is kept for this user alone and sent to that gateway only.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::client::{
    Client, ClientError, Connection, Credentials, finish, http, is_private, unreachable, whole,
};
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

/// `pgwitness login`
#[derive(Debug, Args)]
pub struct LoginArgs {
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

/// Logs in by link and code, and remembers it.
pub async fn run(args: LoginArgs) -> anyhow::Result<ExitCode> {
    Ok(finish(login(&args).await))
}

/// Forgets the stored login.
pub async fn run_logout(_args: LogoutArgs) -> anyhow::Result<ExitCode> {
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
    let credentials = obtain(base, |link, code| {
        eprintln!("Open {link}");
        eprintln!("and approve the code {code}");
    })
    .await?;
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
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Value>(&claims).ok()?.get("exp")?.as_u64()
}

/// The gateway's identity provider, as this client sees it.
struct Provider {
    http: reqwest::Client,
    device: Url,
    token: Url,
    client_id: String,
    scope: String,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    device_authorization_endpoint: Option<Url>,
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
        let device = metadata.device_authorization_endpoint.ok_or_else(|| {
            ClientError::Unreachable(
                "the identity provider offers no device login. Set PGWITNESS_TOKEN".into(),
            )
        })?;
        Ok(Self { http, device: safe(device)?, token: safe(metadata.token_endpoint)?, client_id, scope })
    }

    async fn begin(&self) -> Result<Device, ClientError> {
        let form = [("client_id", self.client_id.as_str()), ("scope", self.scope.as_str())];
        let answer = self.http.post(self.device.clone()).form(&form).send().await;
        let answer = answer.map_err(|error| unreachable(&self.device, &error))?;
        let body: Value = serde_json::from_slice(&whole(answer).await?).unwrap_or(Value::Null);
        let said = reason(&body);
        serde_json::from_value(body).map_err(|_| {
            ClientError::Unreachable(format!("the identity provider did not begin a login: {said}"))
        })
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
