//! Which database role a person may become.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ANY;
use super::person::{Person, same_name};
use crate::config::{ReplicationRule, RoleMapping};

/// A role, and the rule that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The database role.
    pub role: String,
    /// Position of the rule in the configuration, from 0.
    pub rule: usize,
    /// The rule ends then.
    pub until: Option<SystemTime>,
}

/// No role, with a reason fit for the person: it names only what is theirs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// What was refused, why, and what to do.
    pub reason: String,
    /// What the person can do, without saying anything of the rules.
    pub hint: String,
}

impl Refusal {
    fn new(reason: String) -> Self {
        Self { reason, hint: "Ask whoever runs the gateway for a role_map entry.".to_owned() }
    }
}

/// The role that a person gets who asked for `wanted` in `database`.
///
/// The first rule that matches person and database decides, and no later one is looked at. The
/// wanted role must be in its list; or, if `wanted` is the person's own name, e-mail address or the
/// part before the `@`, it is the first of the list. A rule without roles refuses, and so does one that asks for another
/// authentication context than the login's.
///
/// # Errors
/// No rule matches, or the deciding rule does not give that role.
pub fn role_for(
    map: &[RoleMapping],
    person: &Person<'_>,
    wanted: &str,
    database: &str,
    now: SystemTime,
) -> Result<Granted, Refusal> {
    let refuse = |reason| Err(Refusal::new(reason));
    let user = person.user;
    let Ok((position, rule)) = deciding_rule(map, person, database, now) else {
        return refuse(format!(
            "no rule lets {user} into database \"{database}\". Ask whoever runs pgwitness for a role_map entry"
        ));
    };
    if !rule.require_acr.is_empty() && !rule.require_acr.iter().any(|acr| Some(acr.as_str()) == person.acr) {
        let needed = rule.require_acr.join(" or ");
        let reason = format!("{user} needs a stronger login for database \"{database}\": acr {needed}");
        return Err(Refusal { reason, hint: format!("A stronger login is needed there (acr {needed}).") });
    }
    let until = rule.expires.map(|end| UNIX_EPOCH + Duration::from_secs(u64::try_from(end).unwrap_or(0)));
    let granted = |role: &str| Ok(Granted { role: role.to_owned(), rule: position, until });
    if rule.roles.iter().any(|role| role == wanted) {
        return granted(wanted);
    }
    match rule.roles.first() {
        Some(first) if is_own_name(person, wanted) => granted(first),
        Some(_) => refuse(format!(
            "{user} may not be role \"{wanted}\" in database \"{database}\". Connect as one of: {}",
            rule.roles.join(", ")
        )),
        None => refuse(format!("{user} may not enter database \"{database}\"")),
    }
}

/// How much a replication connection can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch<'a> {
    /// One database.
    Database(&'a str),
    /// Every database of the server.
    Server,
}

/// What pg_hba.conf calls replication of the whole server: a rule must name it.
const SERVER: &str = "replication";

/// Whether a person in a role may open a replication connection: if any rule says so.
///
/// # Errors
/// No rule does.
pub fn may_replicate(
    rules: &[ReplicationRule],
    person: &Person<'_>,
    role: &str,
    stretch: Stretch<'_>,
) -> Result<(), Refusal> {
    let listed = |list: &[String], name: &str| list.iter().any(|known| known == name || known == ANY);
    let allows = |rule: &&ReplicationRule| {
        let there = match stretch {
            Stretch::Database(name) => rule.databases.is_empty() || listed(&rule.databases, name),
            Stretch::Server => rule.databases.iter().any(|name| name == SERVER),
        };
        let by_group = rule.groups.iter().any(|group| person.is_in_group(group));
        let by_name = rule.users.iter().any(|name| name == ANY || person.is_named(name));
        there && (rule.roles.is_empty() || listed(&rule.roles, role)) && (by_group || by_name)
    };
    if rules.iter().any(|rule| allows(&rule)) {
        return Ok(());
    }
    let user = person.user;
    let reason = match stretch {
        Stretch::Database(name) => {
            format!("{user} may not open a replication connection as role \"{role}\" to database \"{name}\"")
        }
        Stretch::Server => {
            format!("{user} may not open a connection for physical replication as role \"{role}\"")
        }
    };
    Err(Refusal::new(reason))
}

/// Why a rule does not decide about somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// It is over.
    Expired,
    /// It is about other databases.
    Database,
    /// It names neither the person nor a group of theirs.
    Person,
}

/// The first rule that matches person and database, and its position, from 0.
///
/// # Errors
/// None does: why, of each in order.
pub fn deciding_rule<'a>(
    map: &'a [RoleMapping],
    person: &Person<'_>,
    database: &str,
    now: SystemTime,
) -> Result<(usize, &'a RoleMapping), Vec<Misfit>> {
    let mut misfits = Vec::new();
    for (position, rule) in map.iter().enumerate() {
        match misfit(rule, person, database, now) {
            None => return Ok((position, rule)),
            Some(why) => misfits.push(why),
        }
    }
    Err(misfits)
}

fn misfit(rule: &RoleMapping, person: &Person<'_>, database: &str, now: SystemTime) -> Option<Misfit> {
    let now =
        now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    if rule.expires.is_some_and(|end| end <= now) {
        return Some(Misfit::Expired);
    }
    let in_database =
        rule.databases.is_empty() || rule.databases.iter().any(|name| name == database || name == ANY);
    if !in_database {
        return Some(Misfit::Database);
    }
    let by_group = rule.groups.iter().any(|group| person.is_in_group(group));
    let by_name = rule.users.iter().any(|name| name == ANY || person.is_named(name));
    (!by_group && !by_name).then_some(Misfit::Person)
}

/// Whether the startup `user` is just the person's own name, which many clients send by default.
fn is_own_name(person: &Person<'_>, wanted: &str) -> bool {
    let own = [Some(person.user), person.verified_email, person.configured_name];
    own.into_iter().flatten().any(|name| {
        let local = name.split_once('@').map(|(local, _)| local);
        same_name(name, wanted) || local.is_some_and(|local| local.eq_ignore_ascii_case(wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Principal;

    fn rule(groups: &[&str], users: &[&str], databases: &[&str], roles: &[&str]) -> RoleMapping {
        let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        RoleMapping {
            groups: own(groups),
            users: own(users),
            databases: own(databases),
            roles: own(roles),
            ..RoleMapping::default()
        }
    }

    fn rules() -> Vec<RoleMapping> {
        vec![
            rule(&[], &["mallory@example.com"], &[], &[]),
            rule(&["support"], &[], &["shop"], &["support", "readonly"]),
            rule(&["support", "dba"], &[], &[], &["readonly"]),
            rule(&[], &["Alice@Example.com"], &["*"], &["alice_rw", "alice"]),
        ]
    }

    #[track_caller]
    fn check(user: &str, groups: &[&str], wanted: &str, database: &str, expect: Result<(&str, usize), &str>) {
        let principal = Principal::for_test(user, groups);
        let got = role_for(&rules(), &Person::from(&principal), wanted, database, SystemTime::now());
        match expect {
            Ok((role, rule)) => assert_eq!(got, Ok(Granted { role: role.to_owned(), rule, until: None })),
            Err(words) => {
                let reason = got.unwrap_err().reason;
                assert!(reason.contains(words), "{reason}");
            }
        }
    }

    #[test]
    fn the_first_matching_rule_decides_and_no_later_one() {
        check("bob@example.com", &["support"], "support", "shop", Ok(("support", 1)));
        check("bob@example.com", &["support"], "readonly", "shop", Ok(("readonly", 1)));
        check("bob@example.com", &["support"], "readonly", "billing", Ok(("readonly", 2)));
        check("bob@example.com", &["support"], "support", "billing", Err("Connect as one of: readonly"));
        check(
            "alice@example.com",
            &["support"],
            "alice_rw",
            "shop",
            Err("Connect as one of: support, readonly"),
        );
        check("mallory@example.com", &["support", "dba"], "readonly", "shop", Err("may not enter"));
    }

    #[test]
    fn without_a_rule_nobody_gets_in() {
        check("eve@example.com", &[], "readonly", "shop", Err("no rule lets eve@example.com"));
        check("eve@example.com", &["Support", "supportx", "*"], "readonly", "shop", Err("no rule"));
        let eve = Principal::for_test("eve", &["support"]);
        assert!(role_for(&[], &Person::from(&eve), "eve", "shop", SystemTime::now()).is_err());
        let nobody = rule(&[], &[], &[], &["readonly"]);
        assert!(
            role_for(&[nobody], &Person::from(&eve), "readonly", "shop", SystemTime::now()).is_err(),
            "an empty rule matched"
        );
    }

    #[test]
    fn the_own_name_gives_the_first_role_and_an_exact_role_goes_first() {
        check("bob@example.com", &["support"], "bob", "shop", Ok(("support", 1)));
        check("bob@example.com", &["support"], "BOB@example.com", "shop", Ok(("support", 1)));
        check("alice@example.com", &[], "alice", "x", Ok(("alice", 3)));
        check("alice@example.com", &[], "alice@example.com", "x", Ok(("alice_rw", 3)));
        check("bob@example.com", &["support"], "alice", "shop", Err("may not be role \"alice\""));
        check("bob@example.com", &["support"], "", "shop", Err("may not be role"));
    }

    #[test]
    fn replication_is_allowed_by_a_rule_alone_and_of_the_whole_server_only_by_its_name() {
        let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let rule = |users: &[&str], databases: &[&str], roles: &[&str]| ReplicationRule {
            users: own(users),
            groups: own(&["dba"]),
            databases: own(databases),
            roles: own(roles),
        };
        let may = |rules: &[ReplicationRule], user, groups: &[&str], stretch| {
            may_replicate(rules, &Person::from(&Principal::for_test(user, groups)), "repl", stretch).is_ok()
        };
        let (shop, server) = (Stretch::Database("shop"), Stretch::Server);
        assert!(!may(&[], "ann", &["dba"], shop));
        let any = [rule(&["ann"], &[], &[])];
        assert!(may(&any, "ann", &[], shop) && may(&any, "bob", &["dba"], shop));
        assert!(!may(&any, "bob", &[], shop) && !may(&any, "ann", &[], server));
        assert!(!may(&[rule(&["*"], &["*"], &[])], "ann", &[], server));
        assert!(may(&[rule(&["*"], &["replication"], &["repl"])], "ann", &[], server));
        assert!(!may(&[rule(&["*"], &["replication"], &["other"])], "ann", &[], server));
        assert!(!may(&[rule(&["*"], &["billing"], &[])], "ann", &[], shop));
    }

    #[test]
    fn an_expired_rule_is_as_if_it_were_not_there() {
        let mut rules = rules();
        rules[1].expires = Some(1000);
        let bob = Principal::for_test("bob@example.com", &["support"]);
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(role_for(&rules, &Person::from(&bob), "bob", "shop", at(999)).unwrap().rule, 1);
        assert_eq!(role_for(&rules, &Person::from(&bob), "bob", "shop", at(1000)).unwrap().rule, 2);
    }
}
