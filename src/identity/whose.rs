//! Whose sessions, and whose secrets: what ends together.

use super::Principal;

/// Which sessions are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// The one of this id.
    Session(String),
    /// All that one approval opened.
    Login(String),
    /// All of a device, and all that the logins open which are in use there.
    Device {
        /// The record's `device`: of one person.
        device: String,
        /// Those logins.
        logins: Vec<String>,
    },
    /// All of a person.
    Person {
        /// The provider.
        iss: String,
        /// The provider's own id of them.
        sub: String,
    },
}

impl Whose {
    /// Whether what stands for this person, by this login, is meant. A session alone has no secrets.
    #[must_use]
    pub fn means(&self, principal: &Principal) -> bool {
        match self {
            Self::Session(_) => false,
            Self::Login(login) => principal.login() == login,
            Self::Device { logins, .. } => logins.iter().any(|login| principal.login() == login),
            Self::Person { iss, sub } => principal.iss() == iss && principal.sub() == sub,
        }
    }
}
