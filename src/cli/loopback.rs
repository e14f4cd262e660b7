//! Logging in by a browser on this machine: authorization code with PKCE, and a listener on loopback for the answer
//! (RFC 8252, 7.3). The listener serves one answer, to whoever brings the right state, and only for a while.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use super::client::ClientError;
use super::table::printable;

/// The person has this long.
const PATIENCE: Duration = Duration::from_secs(300);
/// One request may take this long, and this many bytes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Requests looked at; a browser makes two or three.
const REQUESTS_MAX: usize = 100;
/// The path that is registered with the provider, for the gateway's page as for this.
const PATH: &str = "/auth/callback";

/// A login that a browser is sent to.
pub(super) struct Loopback {
    listener: TcpListener,
    redirect: Url,
    state: String,
    nonce: String,
    verifier: String,
}

/// What the browser brought.
pub(super) struct Brought {
    pub(super) code: String,
    pub(super) redirect: Url,
    pub(super) nonce: String,
    pub(super) verifier: String,
}

impl Loopback {
    /// Listens.
    pub(super) async fn open() -> Result<Self, ClientError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.map_err(ClientError::local("listen on 127.0.0.1"))?;
        let port = listener.local_addr().map_err(ClientError::local("listen on 127.0.0.1"))?.port();
        let redirect = Url::parse(&format!("http://127.0.0.1:{port}{PATH}"));
        let redirect = redirect.map_err(|_| ClientError::Unreachable("no address to come back to".into()))?;
        Ok(Self { listener, redirect, state: random(), nonce: random(), verifier: random() })
    }

    /// Where to send the browser.
    pub(super) fn address(&self, endpoint: &Url, client_id: &str, scope: &str) -> Url {
        let mut url = endpoint.clone();
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.as_bytes()));
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", client_id)
            .append_pair("redirect_uri", self.redirect.as_str())
            .append_pair("scope", scope)
            .append_pair("state", &self.state)
            .append_pair("nonce", &self.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        url
    }

    /// Waits until the browser comes back.
    pub(super) async fn wait(self, issuer: &str) -> Result<Brought, ClientError> {
        let over = || ClientError::Unauthenticated("the browser did not come back in time".to_owned());
        tokio::time::timeout(PATIENCE, self.answered(issuer)).await.map_err(|_| over())?
    }

    async fn answered(self, issuer: &str) -> Result<Brought, ClientError> {
        for _ in 0..REQUESTS_MAX {
            let (mut stream, _) = self.listener.accept().await.map_err(ClientError::local("listen"))?;
            let asked = tokio::time::timeout(REQUEST_TIMEOUT, requested(&mut stream)).await;
            let Ok(Some(asked)) = asked else { continue };
            let Ok(url) = self.redirect.join(&asked) else { continue };
            let said = |name: &str| {
                url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
            };
            let is_ours =
                said("state").is_some_and(|state| state.as_bytes().ct_eq(self.state.as_bytes()).into());
            if url.path() != PATH || !is_ours {
                answer(&mut stream, "404 Not Found", "There is nothing here.").await;
                continue;
            }
            let foreign = said("iss").is_some_and(|iss| iss != issuer);
            let error = said("error").map(|error| printable(&said("error_description").unwrap_or(error)));
            return match (foreign, error, said("code")) {
                (false, None, Some(code)) => {
                    answer(&mut stream, "200 OK", "You are logged in. Go back to the terminal.").await;
                    let Self { redirect, nonce, verifier, .. } = self;
                    Ok(Brought { code, redirect, nonce, verifier })
                }
                (_, error, _) => {
                    answer(&mut stream, "200 OK", "The login did not work. The terminal says why.").await;
                    let why = error.unwrap_or_else(|| "it brought no code for us".to_owned());
                    Err(ClientError::Unauthenticated(format!("the identity provider ended the login: {why}")))
                }
            };
        }
        Err(ClientError::Unauthenticated("too many requests came that were not the browser's".to_owned()))
    }
}

/// The target of a request, once its head is there.
async fn requested(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 2048];
        let count = stream.read(&mut part).await.ok().filter(|count| *count > 0)?;
        head.extend_from_slice(part.get(..count)?);
        if head.len() > REQUEST_BYTES_MAX {
            return None;
        }
    }
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let target = words.next().filter(|method| *method == "GET").and(words.next())?;
    // A path of this listener, and nothing that would lead elsewhere.
    (target.starts_with('/') && !target.starts_with("//")).then(|| target.to_owned())
}

async fn answer(stream: &mut TcpStream, status: &str, text: &str) {
    let body = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>pgwitness</title><p>{text}</p></html>"
    );
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         content-security-policy: default-src 'none'; frame-ancestors 'none'\r\nreferrer-policy: no-referrer\r\n\
         x-content-type-options: nosniff\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // The person has read the terminal by then, should it not arrive.
    let told = async { stream.write_all(format!("{head}{body}").as_bytes()).await };
    let _ = tokio::time::timeout(REQUEST_TIMEOUT, told).await;
}

/// 256 random bits.
fn random() -> String {
    let mut bytes = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Whether a browser can be expected here: a desktop, and not a terminal from elsewhere.
pub(super) fn is_likely() -> bool {
    let has = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let desktop = cfg!(target_os = "macos") || has("DISPLAY") || has("WAYLAND_DISPLAY");
    desktop && !has("SSH_CONNECTION") && rustix::termios::isatty(std::io::stderr())
}

/// Opens the address in the person's browser; whether something was started that should do so.
pub(super) fn show(url: &Url) -> bool {
    let own = std::env::var("BROWSER").ok().filter(|name| !name.is_empty());
    let program =
        own.unwrap_or_else(|| if cfg!(target_os = "macos") { "open" } else { "xdg-open" }.to_owned());
    let mut browser = Command::new(program);
    browser.arg(url.as_str()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    browser.spawn().is_ok()
}
