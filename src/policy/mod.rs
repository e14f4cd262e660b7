//! May they: decisions about a [`Principal`](crate::identity::Principal), as pure functions of
//! values. It sees no sockets, no clock and no services; without a rule that says yes, it is no.
//!
//! Names are compared with what the provider vouches for. A `users` entry matches the person's
//! name (the configured claim), or their e-mail address if the provider says `email_verified`;
//! an unverified address matches nothing; `sub:` and the provider's own id of the person match that. Addresses are compared without regard to the case of
//! ASCII letters, everything else exactly.

mod decide;
mod rule;

pub use decide::{LogAccess, Verdict, decide, log_access};
pub use rule::{Granted, Refusal, Stretch, may_replicate, role_for};

use crate::identity::Principal;

/// Everybody, in a list of users or databases.
const ANY: &str = "*";
/// Before the provider's own id of a person, in a list of users.
const SUBJECT: &str = "sub:";

/// Whether the person is called `name`, or is the subject that `sub:` names.
fn is_named(principal: &Principal, name: &str) -> bool {
    if let Some(sub) = name.strip_prefix(SUBJECT) {
        return principal.sub() == sub;
    }
    same_name(principal.user(), name)
        || principal.verified_email().is_some_and(|email| same_name(email, name))
}

fn is_in_group(principal: &Principal, group: &str) -> bool {
    principal.groups().iter().any(|own| own == group)
}

fn same_name(own: &str, name: &str) -> bool {
    if own.contains('@') { own.eq_ignore_ascii_case(name) } else { own == name }
}
