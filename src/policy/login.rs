//! How a client logs in.

use std::net::IpAddr;

use crate::config::LoginRule;

/// The first rule that fits a client by the database and user that it names and the address it comes from, and the rule's
/// position, from 0. None: by link.
#[must_use]
pub fn login_rule<'a>(
    rules: &'a [LoginRule],
    user: &str,
    database: &str,
    from: IpAddr,
) -> Option<(usize, &'a LoginRule)> {
    let listed = |list: &[String], name: &str| list.is_empty() || list.iter().any(|known| known == name);
    rules.iter().enumerate().find(|(_, rule)| {
        let near = rule.addresses.is_empty() || rule.addresses.iter().any(|net| net.contains(&from));
        near && listed(&rule.databases, database) && listed(&rule.users, user)
    })
}
