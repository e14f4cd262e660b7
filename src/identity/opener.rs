//! [`Opener`]: something that opens sessions without a prompt, as its owner and administrators see it. No secret.

use super::{About, Principal};

/// See the module.
#[derive(Debug, Clone)]
pub struct Opener {
    /// Its id.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Whom it lets in, and until when.
    pub principal: Principal,
    /// For what, since when, from where.
    pub about: About,
}

/// What opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A client's own secret, after an approval.
    Paired,
    /// A token of ours.
    Minted,
}

impl Kind {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paired => "paired",
            Self::Minted => "minted",
        }
    }
}
