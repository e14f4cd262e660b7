//! How a login fails, in words for the log ([`std::fmt::Display`]) and in words for the client
//! ([`LoginError::client_text`]), which never hold what a provider or library said.

use std::borrow::Cow;

/// What a failed login counts as in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// `login.failed`
    Failed,
    /// `login.denied`
    Denied,
    /// `login.expired`
    Expired,
}

impl Ending {
    /// The word of the record's `event`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "login.failed",
            Self::Denied => "login.denied",
            Self::Expired => "login.expired",
        }
    }
}

/// Why nobody was identified. `Display` is for the gateway's own log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The person or the provider said no.
    #[error("the login was denied")]
    Denied,
    /// A person whose browser was verified said no, at our own page.
    #[error("the login was denied by {who}")]
    DeniedBy {
        /// Their verified name.
        who: String,
    },
    /// The code was typed wrongly too often, at our own page.
    #[error("the login was given up: its code was typed wrongly too often")]
    Guessed,
    /// Nobody approved while the code lived.
    #[error("the login was not approved in time")]
    Expired,
    /// The provider did not answer, or not in a way that can be understood.
    #[error("could not reach the identity provider: {what}")]
    Unreachable {
        /// What was tried and how it failed.
        what: String,
    },
    /// The provider refuses the gateway itself: a mistake in configuration, there or here.
    #[error("the identity provider refused the gateway: {reason}")]
    Refused {
        /// What the provider said, made printable.
        reason: String,
    },
    /// A token was presented, or given by the provider, that proves nothing.
    #[error("the token was refused: {0}")]
    BadToken(#[from] TokenFault),
    /// The password is neither a token nor fit to be a pairing secret.
    #[error("the password was refused: {reason}")]
    BadPassword {
        /// What is wrong with it; written here, so fit for the client.
        reason: &'static str,
    },
    /// A pairing secret that belongs to somebody else.
    #[error("the pairing secret already belongs to another person")]
    OtherPerson,
    /// A bound was reached.
    #[error("too many {what}")]
    TooMany {
        /// Of which there are too many.
        what: &'static str,
    },
    /// The gateway is stopping.
    #[error("the login was canceled because the gateway is stopping")]
    Canceled,
}

impl LoginError {
    pub(super) fn unreachable(what: impl Into<String>) -> Self {
        Self::Unreachable { what: what.into() }
    }

    /// What the record calls it.
    pub const fn event(&self) -> Ending {
        match self {
            Self::Denied | Self::DeniedBy { .. } => Ending::Denied,
            Self::Expired => Ending::Expired,
            _ => Ending::Failed,
        }
    }

    /// Whether it may be a guess: something was presented that proves nothing.
    pub const fn is_clients_fault(&self) -> bool {
        matches!(
            self,
            Self::BadToken(_)
                | Self::BadPassword { .. }
                | Self::OtherPerson
                | Self::Denied
                | Self::DeniedBy { .. }
        )
    }

    /// A sentence that helps the person at the client and holds no internals.
    pub fn client_text(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Denied | Self::DeniedBy { .. } => {
                "the login was denied. If it was you, connect again and choose Approve"
            }
            Self::Guessed => "the code was typed wrongly too often. Connect again for a new link and code",
            Self::Expired => "the login was not approved in time. Connect again and open the new link",
            Self::Unreachable { .. } => {
                "the identity provider could not be reached. Try again in a minute; if it stays, tell whoever runs pgwitness"
            }
            Self::Refused { .. } => {
                "the identity provider refused this gateway. Tell whoever runs pgwitness: its log says why"
            }
            Self::BadToken(fault) => return Cow::Owned(format!("the login was refused: {fault}")),
            Self::BadPassword { reason } => return Cow::Owned(format!("the password was refused: {reason}")),
            Self::OtherPerson => {
                "this password already stands for another person's login. Make your own, for example with: openssl rand -hex 16"
            }
            Self::TooMany { what } => {
                return Cow::Owned(format!("there are too many {what}. Try again in a few minutes"));
            }
            Self::Canceled => "the gateway is stopping. Connect again in a moment",
        })
    }
}

/// What is wrong with a token. Its words are ours alone and fit for whoever presented the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Not three base64url parts of JSON, JSON and signature.
    #[error("the token is not a well-formed JWT ({0})")]
    Malformed(&'static str),
    /// Its algorithm is not on our list: `none`, a shared-secret one, or unknown.
    #[error("the token is not signed in a way that is accepted here")]
    Algorithm,
    /// It is some other kind of JWT, such as a logout token.
    #[error("the token is neither an ID token nor an access token")]
    Kind,
    /// No key of the provider fits.
    #[error("the token is signed with a key that the identity provider does not publish")]
    UnknownKey,
    /// The signature is not that of the key.
    #[error("the token's signature is wrong")]
    Signature,
    /// Made by another provider.
    #[error("the token is from another issuer")]
    Issuer,
    /// Made for something else.
    #[error("the token is not meant for this gateway (audience)")]
    Audience,
    /// Made for another client.
    #[error("the token was issued to another client")]
    Party,
    /// Over.
    #[error("the token has expired. Get a new one")]
    Expired,
    /// Not yet valid, or from the future.
    #[error("the token is not valid yet. Compare this machine's clock with the identity provider's")]
    NotYet,
    /// Older than the longest session.
    #[error("the token is older than the longest session allowed here. Get a new one")]
    TooOld,
    /// A claim is missing.
    #[error("the token has no claim \"{0}\"")]
    Missing(String),
    /// A claim has a form that cannot be taken.
    #[error("the token's claim \"{0}\" cannot be used")]
    Claim(String),
    /// The claim `email` names the person, but the provider does not vouch for it.
    #[error("the identity provider has not verified this e-mail address (claim \"email_verified\")")]
    EmailNotVerified,
    /// Of a platform that programs log in from, and no rule is about this one.
    #[error("no [[workload]] rule fits the token's claims")]
    NoWorkload,
    /// Its login was ended here.
    #[error("this login was ended. Get a new token")]
    Revoked,
    /// Not the answer to our question.
    #[error("the token answers another login (nonce)")]
    Nonce,
    /// A stronger login is asked for.
    #[error("a stronger login is needed here (claim \"acr\")")]
    Context,
}
