//! HTTP to the provider: TLS by the system's roots, no redirects, every answer capped and timed.

use std::error::Error as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use reqwest::{RequestBuilder, Response};
use serde::de::DeserializeOwned;
use url::{Host, Url};

use super::LoginError;

/// One request, from connecting to the last byte of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Connecting alone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer read, bytes.
const MAX_BODY: usize = 256 * 1024;
/// Idle connections kept.
const MAX_IDLE: usize = 4;

/// A way to one provider.
pub(super) struct Transport {
    client: reqwest::Client,
}

/// An answer, read whole.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: BytesMut,
}

impl Reply {
    pub(super) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }
}

impl Transport {
    /// A client for an issuer; it makes no connection yet.
    pub(super) fn new(issuer: &Url) -> Result<Self, String> {
        Self::with_timeout(issuer, REQUEST_TIMEOUT)
    }

    pub(super) fn with_timeout(issuer: &Url, timeout: Duration) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .pool_max_idle_per_host(MAX_IDLE)
            .user_agent(concat!("pgwitness/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(tls()?);
        if is_loopback(issuer) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| format!("could not set up HTTP: {}", chain(error)))?;
        Ok(Self { client })
    }

    pub(super) async fn get(&self, url: &Url, bearer: Option<&str>) -> Result<Reply, LoginError> {
        let mut request = self.client.get(url.clone()).header("accept", "application/json");
        if let Some(token) = bearer {
            request = request.bearer_auth(token);
        }
        send(url, request).await
    }

    pub(super) async fn post(
        &self,
        url: &Url,
        form: &[(&str, &str)],
        basic: Option<(&str, &str)>,
    ) -> Result<Reply, LoginError> {
        let mut request = self.client.post(url.clone()).header("accept", "application/json").form(form);
        if let Some((id, secret)) = basic {
            request = request.basic_auth(form_encoded(id), Some(form_encoded(secret)));
        }
        send(url, request).await
    }
}

async fn send(url: &Url, request: RequestBuilder) -> Result<Reply, LoginError> {
    let failed = |error: reqwest::Error| LoginError::unreachable(format!("{}: {}", place(url), chain(error)));
    let response = request.send().await.map_err(failed)?;
    let status = response.status().as_u16();
    let body = read(response).await.map_err(failed)?;
    let body = body.ok_or_else(|| {
        LoginError::unreachable(format!("{}: the answer is larger than {MAX_BODY} bytes", place(url)))
    })?;
    Ok(Reply { status, body })
}

async fn read(mut response: Response) -> Result<Option<BytesMut>, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_BODY {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// Reads an address that the provider gave, or that was configured as the provider: `https`, or
/// `http` on a loopback host, and with an `https` issuer always `https`.
pub(super) fn checked_url(text: &str, issuer: Option<&Url>) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("\"{}\" is not a URL: {error}", printable(text)))?;
    let plain_allowed = issuer.is_none_or(|issuer| issuer.scheme() == "http");
    match url.scheme() {
        "https" => Ok(url),
        "http" if plain_allowed && is_loopback(&url) => Ok(url),
        _ => {
            Err(format!("\"{}\" must begin with https:// (http:// only on a loopback host)", printable(text)))
        }
    }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

/// Text of the provider for our log: cut, and without control characters.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Address without query: that may hold secrets.
fn place(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// RFC 6749, 2.3.1: id and secret are form-encoded before they become user and password.
fn form_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn tls() -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    // Unreadable single roots are common and harmless: without a root the handshake fails and says so.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("could not set up TLS: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_alone() {
        for good in
            ["https://id.example.com", "http://127.0.0.1:7433", "http://localhost", "http://[::1]:1/x"]
        {
            assert!(checked_url(good, None).is_ok(), "{good}");
        }
        for bad in [
            "http://id.example.com",
            "http://127.0.0.1.evil.com",
            "http://10.0.0.1",
            "ftp://x",
            "file:///x",
            "x",
        ] {
            assert!(checked_url(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secure_issuer_cannot_point_at_a_plain_endpoint() {
        let issuer = Url::parse("https://id.example.com").unwrap();
        assert!(checked_url("http://127.0.0.1/token", Some(&issuer)).is_err());
        assert!(checked_url("https://other.example.com/token", Some(&issuer)).is_ok());
    }

    #[test]
    fn words_of_the_provider_reach_the_log_on_one_line() {
        assert_eq!(printable("a\nb\u{1b}[0m"), "a\u{fffd}b\u{fffd}[0m");
        assert_eq!(printable(&"x".repeat(5000)).len(), 200);
    }
}
