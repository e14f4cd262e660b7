//! Whether a login still stands, by the provider's word: its refresh token is used again and again.
//!
//! The provider says no (`invalid_grant`) when the person was disabled, the login was revoked or its own
//! limits were reached; else it may tell of other groups. A refresh token never leaves this folder in clear.
//!
//! Source: RFC 6749, section 6; OpenID Connect Core, section 12.

use super::provider::{Refusal, Tokens};
use super::{LoginError, Mode, Principal, Provider};

impl Provider {
    /// Asks the provider for a login anew. `None` if it cannot be asked: it gave no refresh token.
    ///
    /// # Errors
    /// [`LoginError::Denied`]: the login is over. [`LoginError::Unreachable`] and others: nothing is known of it.
    pub async fn renew(&self, principal: &Principal) -> Option<Result<Principal, LoginError>> {
        let refresh = principal.refresh_token()?;
        Some(self.renewed(principal, refresh.reveal()).await)
    }

    async fn renewed(&self, principal: &Principal, refresh: &str) -> Result<Principal, LoginError> {
        let metadata = self.metadata().await?;
        let mut credentials = self.credentials(&metadata);
        credentials.form.push(("grant_type", "refresh_token"));
        credentials.form.push(("refresh_token", refresh));
        let reply = self.0.transport.post(metadata.token()?, &credentials.form, credentials.basic).await?;
        let unusable = || {
            LoginError::unreachable(format!(
                "the token endpoint answered {} and nothing usable",
                reply.status
            ))
        };
        let tokens: Tokens = match reply.status {
            200 => reply.json().ok_or_else(unusable)?,
            400..=499 => {
                let refusal: Refusal = reply.json().ok_or_else(unusable)?;
                let over = refusal.error == "invalid_grant";
                return Err(if over { LoginError::Denied } else { refusal.into_error() });
            }
            _ => return Err(unusable()),
        };
        // With rotation the old one is of no use any more: the new one must not be lost.
        let renewed = principal.with_refresh(tokens.refresh());
        if !tokens.says_who() {
            return Ok(renewed);
        }
        let now = self.principal(&tokens, None, Mode::Device).await;
        match now {
            Ok(now) if now.is_same_person(principal) => Ok(renewed.as_now(&now)),
            // The refresh token of somebody else: whatever this is, it is not this login.
            Ok(_) => Err(LoginError::Denied),
            Err(error) => {
                tracing::warn!(%error, "a renewed login could not be verified: it stays as it was");
                Ok(renewed)
            }
        }
    }
}
