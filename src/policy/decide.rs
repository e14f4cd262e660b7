//! Whether a statement may run, and who may read the log.

use std::time::SystemTime;

use super::Person;
use crate::config::Access;
use crate::identity::Principal;

/// The answer about one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may run.
    Allow,
    /// It may not; the reason is fit for the person.
    Deny(&'static str),
}

/// Whether a person's statement may run at `now`: as long as the login lasts.
pub fn decide(principal: &Principal, now: SystemTime) -> Verdict {
    if principal.is_expired(now) {
        return Verdict::Deny("your login has ended. Connect again to log in");
    }
    Verdict::Allow
}

/// What a person may do with the log. Everybody may read their own records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogAccess {
    /// Reads their own records.
    Own,
    /// Reads all records.
    Auditor,
    /// Operates, and reads only their own records.
    Admin,
    /// Reads all records and operates.
    AuditorAndAdmin,
}

impl LogAccess {
    /// Whether all records may be read.
    pub const fn reads_all(self) -> bool {
        matches!(self, Self::Auditor | Self::AuditorAndAdmin)
    }

    /// Whether the gateway may be operated.
    pub const fn operates(self) -> bool {
        matches!(self, Self::Admin | Self::AuditorAndAdmin)
    }

    /// The words for the person: `self`, `auditor`, `admin`.
    pub const fn roles(self) -> &'static [&'static str] {
        match self {
            Self::Own => &["self"],
            Self::Auditor => &["self", "auditor"],
            Self::Admin => &["self", "admin"],
            Self::AuditorAndAdmin => &["self", "auditor", "admin"],
        }
    }
}

/// What the person may do with the log.
pub fn log_access(access: &Access, person: &Person<'_>) -> LogAccess {
    let is_in = |entries: &[String]| entries.iter().any(|entry| entry_matches(entry, person));
    match (is_in(&access.auditor), is_in(&access.admin)) {
        (false, false) => LogAccess::Own,
        (true, false) => LogAccess::Auditor,
        (false, true) => LogAccess::Admin,
        (true, true) => LogAccess::AuditorAndAdmin,
    }
}

fn entry_matches(entry: &str, person: &Person<'_>) -> bool {
    match entry.split_once(':') {
        Some(("group", group)) => person.is_in_group(group),
        Some(("user", user)) => person.is_named(user),
        _ => person.is_named(entry),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_statement_may_run_until_the_login_ends() {
        let alice = Principal::for_test("alice@example.com", &[]);
        assert_eq!(decide(&alice, SystemTime::now()), Verdict::Allow);
        let later = alice.expires() + Duration::from_secs(1);
        assert!(matches!(decide(&alice, later), Verdict::Deny(_)));
        assert!(matches!(decide(&alice, alice.expires()), Verdict::Deny(_)));
    }

    #[test]
    fn the_log_is_read_by_those_named_and_by_each_their_own() {
        let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let access = Access {
            auditor: own(&["group:security", "user:carol@example.com"]),
            admin: own(&["group:platform", "dan@example.com"]),
        };
        let check = |user, groups: &[&str], expect| {
            let principal = Principal::for_test(user, groups);
            assert_eq!(log_access(&access, &Person::from(&principal)), expect, "{user} {groups:?}");
        };
        check("alice@example.com", &["security"], LogAccess::Auditor);
        check("alice@example.com", &["platform", "security"], LogAccess::AuditorAndAdmin);
        check("Carol@example.com", &[], LogAccess::Auditor);
        check("dan@example.com", &[], LogAccess::Admin);
        check("eve@example.com", &["group:security", "carol@example.com"], LogAccess::Own);
        check("group:security", &[], LogAccess::Own);
        let stranger = Principal::for_test("x", &["security"]);
        assert_eq!(log_access(&Access::default(), &Person::from(&stranger)), LogAccess::Own);
    }
}
