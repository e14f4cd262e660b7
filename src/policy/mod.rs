//! May they: decisions about a [`Person`], as a [`Principal`](crate::identity::Principal) was verified or as an
//! operator asks about, as pure functions of values. It sees no sockets, no clock and no services; without a rule that
//! says yes, it is no.
//!
//! Names are compared with what the provider vouches for. A `users` entry matches the person's
//! name (the configured claim), or their e-mail address if the provider says `email_verified`;
//! an unverified address matches nothing; `sub:` and the provider's own id of the person match
//! that. Addresses are compared without regard to the case of ASCII letters, everything else exactly.

mod decide;
mod login;
mod person;
mod rule;

pub use decide::{LogAccess, Verdict, decide, log_access};
pub use login::login_rule;
pub use person::Person;
pub use rule::{Granted, Misfit, Refusal, Stretch, deciding_rule, may_replicate, role_for};

/// Everybody, in a list of users or databases.
const ANY: &str = "*";
