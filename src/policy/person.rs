//! [`Person`]: what rules are decided by.

use crate::identity::Principal;

/// Before the provider's own id of a person, in a list of users.
const SUBJECT: &str = "sub:";

/// Whom a decision is about. Nothing is allowed by this value alone: a session needs a [`Principal`], of which it is made.
#[derive(Debug, Clone, Copy)]
pub struct Person<'a> {
    /// The name: the configured claim, or that of an account or program.
    pub user: &'a str,
    /// The provider's own id.
    pub sub: &'a str,
    /// The e-mail address, if the provider vouches for it.
    pub verified_email: Option<&'a str>,
    /// The groups.
    pub groups: &'a [String],
    /// The authentication context of the login.
    pub acr: Option<&'a str>,
    /// The name in the configuration, of an account or program.
    pub configured_name: Option<&'a str>,
}

impl<'a> From<&'a Principal> for Person<'a> {
    fn from(principal: &'a Principal) -> Self {
        Self {
            user: principal.user(),
            sub: principal.sub(),
            verified_email: principal.verified_email(),
            groups: principal.groups(),
            acr: principal.acr(),
            configured_name: principal.configured_name(),
        }
    }
}

impl Person<'_> {
    /// Whether the person is called `name`, or is the subject that `sub:` names.
    pub(super) fn is_named(&self, name: &str) -> bool {
        if let Some(sub) = name.strip_prefix(SUBJECT) {
            return self.sub == sub;
        }
        same_name(self.user, name) || self.verified_email.is_some_and(|email| same_name(email, name))
    }

    pub(super) fn is_in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

pub(super) fn same_name(own: &str, name: &str) -> bool {
    if own.contains('@') { own.eq_ignore_ascii_case(name) } else { own == name }
}
