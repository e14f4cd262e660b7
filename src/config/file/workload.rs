//! `[[workload]]`: programs that log in with a token of the platform they run on.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::Reading;
use crate::config::{ClaimRule, Oidc, Workload};

/// A token may be this old, unless the rule says otherwise.
const MAX_LIFE: Duration = Duration::from_secs(3600);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkloadTable {
    name: String,
    issuer: Option<String>,
    audience: Option<String>,
    claims: BTreeMap<String, Values>,
    #[serde(default)]
    groups: Vec<String>,
    max_life: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Values {
    One(String),
    Any(Vec<String>),
}

impl Reading {
    pub(super) fn workloads(&mut self, tables: Vec<WorkloadTable>, oidc: &Oidc) -> Vec<Workload> {
        let mut workloads: Vec<Workload> = Vec::with_capacity(tables.len());
        for table in tables {
            let workload = self.workload(table, oidc);
            if workload.name.is_empty() || workloads.iter().any(|other| other.name == workload.name) {
                self.wrong("workload.name", format_args!("{:?} is empty or there twice", workload.name));
            }
            workloads.push(workload);
        }
        workloads
    }

    fn workload(&mut self, table: WorkloadTable, oidc: &Oidc) -> Workload {
        if table.claims.is_empty() {
            self.wrong(
                "workload.claims",
                format_args!(
                    "{:?} names no claims: every token of the issuer would be it, write for example \
                     claims = {{ sub = \"system:serviceaccount:shop:nightly\" }}",
                    table.name
                ),
            );
        }
        let issuer = table.issuer.unwrap_or_else(|| oidc.issuer.clone());
        if Url::parse(&issuer).is_err() {
            self.wrong("workload.issuer", format_args!("{issuer:?} is not a URL"));
        }
        let mut claims = Vec::with_capacity(table.claims.len());
        for (claim, values) in table.claims {
            let values = match values {
                Values::One(value) => vec![value],
                Values::Any(values) => values,
            };
            if values.is_empty() || values.iter().any(|value| value.trim_end_matches('*').is_empty()) {
                self.wrong(
                    "workload.claims",
                    format_args!("{claim:?} has an empty value: it would match all"),
                );
            }
            claims.push(ClaimRule { claim, values });
        }
        let max_life = self.duration("workload.max_life", table.max_life.as_deref(), MAX_LIFE);
        let audience = table.audience.unwrap_or_else(|| oidc.audience.clone());
        Workload { name: table.name, issuer, audience, claims, groups: table.groups, max_life }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::MINIMAL;
    use super::*;

    fn read(rules: &str) -> Result<Vec<Workload>, String> {
        let text = format!("{MINIMAL}{rules}");
        let config = super::super::parse(&text, Path::new("/etc"), std::iter::empty());
        config.map(|config| config.workloads).map_err(|error| error.to_string())
    }

    #[test]
    fn a_workload_has_the_providers_issuer_and_audience_unless_it_says_otherwise() {
        let rules = read("[[workload]]\nname = \"ci\"\nclaims = { sub = \"ci\", ref = [\"a\", \"b/*\"] }\n");
        let [rule] = &rules.unwrap()[..] else { panic!("one rule") };
        assert_eq!((rule.issuer.as_str(), rule.audience.as_str()), ("https://id.example.com", "pgwitness"));
        assert_eq!(rule.claims.len(), 2);
        assert_eq!(rule.max_life, MAX_LIFE);
    }

    #[test]
    fn a_rule_that_would_match_every_token_is_refused() {
        for (rule, told) in [
            ("claims = {}", "names no claims"),
            ("claims = { sub = \"*\" }", "would match all"),
            ("claims = { sub = [] }", "would match all"),
            ("claims = { sub = \"x\" }\nissuer = \"github\"", "is not a URL"),
            (
                "claims = { sub = \"x\" }\n[[workload]]\nname = \"ci\"\nclaims = { sub = \"y\" }",
                "there twice",
            ),
        ] {
            let error = read(&format!("[[workload]]\nname = \"ci\"\n{rule}\n")).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
