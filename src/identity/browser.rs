//! Logging in to the page: authorization code with PKCE, state and nonce.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use url::Url;

use super::provider::{Refusal, Tokens};
use super::{LoginError, Mode, Principal, Provider, random_word};
use crate::config::Secret;

/// Longest authorization code taken, bytes.
const MAX_CODE: usize = 4096;

/// A login begun in a browser: kept on our side until the browser comes back.
#[derive(Debug, Clone)]
pub struct Authorization {
    /// Where to send the browser.
    pub url: Url,
    /// Must come back unchanged; the caller compares it before [`Provider::exchange`].
    pub state: String,
    nonce: Secret,
    verifier: Secret,
}

impl Provider {
    /// Whether a browser could log in now: the provider is there, and has such a login.
    pub(super) async fn can_authorize(&self) -> Result<(), LoginError> {
        self.metadata().await?.authorization.as_ref().map(|_| ()).ok_or_else(no_endpoint)
    }

    /// Begins a login in a browser that will come back to `redirect`.
    ///
    /// # Errors
    /// The provider cannot be reached or has no such login.
    pub async fn authorize(&self, redirect: &Url) -> Result<Authorization, LoginError> {
        let metadata = self.metadata().await?;
        let mut url = metadata.authorization.clone().ok_or_else(no_endpoint)?;
        let state = random_word::<32>();
        let nonce = random_word::<32>();
        let verifier = random_word::<32>();
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.config().client_id)
            .append_pair("redirect_uri", redirect.as_str())
            .append_pair("scope", &self.scope())
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if !self.config().require_acr.is_empty() {
            url.query_pairs_mut().append_pair("acr_values", &self.config().require_acr.join(" "));
        }
        Ok(Authorization { url, state, nonce: Secret::new(nonce), verifier: Secret::new(verifier) })
    }

    /// Turns the code that the browser brought back into a person.
    ///
    /// # Errors
    /// The code is wrong, used or too old, the provider cannot be reached, or the token proves nothing.
    pub async fn exchange(
        &self,
        authorization: &Authorization,
        redirect: &Url,
        code: &str,
    ) -> Result<Principal, LoginError> {
        if code.len() > MAX_CODE {
            return Err(LoginError::Refused { reason: "the browser brought an overlong code".to_owned() });
        }
        let metadata = self.metadata().await?;
        let mut credentials = self.credentials(&metadata);
        credentials.form.extend([
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect.as_str()),
            ("code_verifier", authorization.verifier.reveal()),
        ]);
        let reply = self.0.transport.post(metadata.token()?, &credentials.form, credentials.basic).await?;
        if reply.status == 200
            && let Some(tokens) = reply.json::<Tokens>()
        {
            return self.principal(&tokens, Some(authorization.nonce.reveal()), Mode::Browser).await;
        }
        match (reply.status, reply.json::<Refusal>()) {
            (400..=499, Some(refusal)) => Err(refusal.into_error()),
            (status, _) => Err(LoginError::unreachable(format!(
                "the token endpoint answered {status} and nothing usable"
            ))),
        }
    }
}

fn no_endpoint() -> LoginError {
    LoginError::Refused { reason: "it offers no login in the browser (no authorization_endpoint)".to_owned() }
}
