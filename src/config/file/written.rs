//! What a configuration says, key by key, and where each stands.

use std::collections::BTreeMap;

/// Keys whose value is a secret.
const SECRETS: [&str; 5] = ["password", "client_secret", "verifier", "hmac_key", "webhook_url"];
/// The key whose URLs are secrets from the path on.
const WEBHOOKS: &str = "to";
/// Shown in a secret's place.
const HIDDEN: &str = "\"(not shown)\"";

/// One key that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its path: names joined by dots, of a list's tables the position from 1 (`role_map[2].roles`).
    pub key: String,
    /// The value as TOML.
    pub value: String,
    /// Where it stands.
    pub origin: Origin,
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the file.
    File,
    /// In this variable of the environment.
    Variable(String),
}

pub(super) fn list(
    value: &toml::Value,
    key: String,
    variables: &BTreeMap<String, String>,
    into: &mut Vec<Written>,
) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let below = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                list(value, below, variables, into);
            }
        }
        toml::Value::Array(many) if many.iter().any(toml::Value::is_table) => {
            for (at, value) in many.iter().enumerate() {
                list(value, format!("{key}[{}]", at + 1), variables, into);
            }
        }
        one => {
            let origin = variables.get(&key).cloned().map_or(Origin::File, Origin::Variable);
            let name = key.rsplit('.').next().unwrap_or_default();
            let value =
                if SECRETS.contains(&name) { HIDDEN.to_owned() } else { without_credentials(name, one) };
            into.push(Written { key, value, origin });
        }
    }
}

/// As TOML, of which JSON's strings are part; of a URL neither user and password nor, where it is a webhook, what follows the host.
fn without_credentials(key: &str, value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => serde_json::Value::from(shown(key, text)).to_string(),
        toml::Value::Array(many) => {
            let many: Vec<String> = many.iter().map(|one| without_credentials(key, one)).collect();
            format!("[{}]", many.join(", "))
        }
        // A number, a truth value or a time: JSON writes them as TOML does.
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

fn shown(key: &str, text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (before, after) = rest.split_at(end);
    let host = before.rsplit_once('@').map_or(before, |(_, host)| host);
    let after = if key == WEBHOOKS { "/…" } else { after };
    format!("{scheme}://{host}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown_and_each_key_says_where_it_stands() {
        let text = r#"
            [log]
            dir = "journal"
            anchor = { to = ["heads", "https://w.example/s3cret"] }
            [oidc]
            client_secret = "s3cret"
            [[upstream]]
            url = "postgres://me:s3cret@db.example.com:5432/x"
            credentials = [{ role = "r", password = "s3cret" }]
        "#;
        let variables = BTreeMap::from([("log.dir".to_owned(), "PGWITNESS__LOG__DIR".to_owned())]);
        let mut found = Vec::new();
        list(&toml::Value::Table(text.parse().unwrap()), String::new(), &variables, &mut found);
        let shown: Vec<_> = found.iter().map(|key| format!("{} = {}", key.key, key.value)).collect();
        let expected = [
            "log.anchor.to = [\"heads\", \"https://w.example/…\"]",
            "log.dir = \"journal\"",
            "oidc.client_secret = \"(not shown)\"",
            "upstream[1].credentials[1].password = \"(not shown)\"",
            "upstream[1].credentials[1].role = \"r\"",
            "upstream[1].url = \"postgres://db.example.com:5432/x\"",
        ];
        let mut sorted = shown.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
        let dir = found.iter().find(|key| key.key == "log.dir").unwrap();
        assert_eq!(dir.origin, Origin::Variable("PGWITNESS__LOG__DIR".to_owned()));
    }
}
