//! `[[role_map]]` and `[[replication]]`: who may become which role.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Reading;
use crate::config::{ReplicationRule, RoleMapping};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleMapTable {
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    databases: Vec<String>,
    roles: Vec<String>,
    #[serde(default)]
    require_acr: Vec<String>,
    expires: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplicationTable {
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    databases: Vec<String>,
    #[serde(default)]
    roles: Vec<String>,
}

impl Reading {
    pub(super) fn role_mapping(&mut self, table: RoleMapTable) -> RoleMapping {
        if table.groups.is_empty() && table.users.is_empty() {
            self.wrong("role_map", "name groups or users (users = [\"*\"] means everybody)");
        }
        if table.roles.is_empty() {
            self.wrong("role_map", "names no roles");
        }
        let expires = self.moment("role_map.expires", table.expires.as_deref());
        let RoleMapTable { groups, users, databases, roles, require_acr, .. } = table;
        RoleMapping { groups, users, databases, roles, require_acr, expires }
    }

    pub(super) fn replication_rule(&mut self, table: ReplicationTable) -> ReplicationRule {
        let ReplicationTable { groups, users, databases, roles } = table;
        if groups.is_empty() && users.is_empty() {
            self.wrong("replication", "name groups or users (users = [\"*\"] means everybody)");
        }
        ReplicationRule { groups, users, databases, roles }
    }
}
