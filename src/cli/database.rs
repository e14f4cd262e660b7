//! A database named on the command line: `postgres://ROLE:PASSWORD@HOST:PORT/DATABASE`.

use std::time::Duration;

use anyhow::{Context, bail};
use url::Url;

use crate::config::{AppLabel, AuthMethod, ChannelBinding, Credential, Secret, SslMode, Upstream};

/// How to write one.
const SHAPE: &str = "write postgres://ROLE:PASSWORD@HOST:PORT/DATABASE (?host=/folder for a unix socket)";

const PORT: u16 = 5432;

/// Stands for a host that was left out; no host has such a name (RFC 6761).
const NO_HOST: &str = "none.invalid";

/// What the URL names.
pub(super) struct Database {
    /// The server, with the role's password as its only credential.
    pub(super) upstream: Upstream,
    pub(super) role: String,
    pub(super) name: String,
}

impl Database {
    /// Reads the URL; `flag` is named in errors.
    ///
    /// # Errors
    /// Another scheme, or no role, host or database.
    pub(super) fn read(text: &str, flag: &str) -> anyhow::Result<Self> {
        // libpq lets the host be empty behind a user, the URL standard does not.
        let text = text.replacen("@/", &format!("@{NO_HOST}/"), 1);
        let url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "postgres" | "postgresql"));
        let Some(url) = url else { bail!("{flag} is not a PostgreSQL URL; {SHAPE}") };
        let (role, password) = (decode(url.username()), decode(url.password().unwrap_or("")));
        let name = decode(url.path().trim_start_matches('/'));
        let given = |wanted: &str| {
            url.query_pairs().find(|(key, _)| key == wanted).map(|(_, value)| value.into_owned())
        };
        let role = Some(role).filter(|role| !role.is_empty()).or_else(|| given("user"));
        let role = role.with_context(|| format!("{flag} names no role; {SHAPE}"))?;
        if name.is_empty() {
            bail!("{flag} names no database; {SHAPE}");
        }
        let host = given("host").or_else(|| url.host_str().map(str::to_owned));
        let host = host.filter(|host| !host.is_empty() && host != NO_HOST);
        let port = given("port").and_then(|port| port.parse().ok()).or(url.port()).unwrap_or(PORT);
        let sslmode = match given("sslmode").as_deref() {
            Some("require") => SslMode::Require,
            Some("verify-ca") => SslMode::VerifyCa,
            Some("verify-full") => SslMode::VerifyFull,
            Some("disable" | "allow" | "prefer") | None => SslMode::Disable,
            Some(other) => bail!("{flag} has an unknown sslmode {other:?}"),
        };
        let upstream = Upstream {
            name: "upstream".into(),
            host: host.with_context(|| format!("{flag} names no host; {SHAPE}"))?,
            port,
            sslmode,
            sslrootcert: None,
            databases: Vec::new(),
            catalog_refresh: Duration::from_secs(60),
            auth: vec![AuthMethod::Scram],
            channel_binding: ChannelBinding::default(),
            application_name: AppLabel::default(),
            credentials: vec![Credential::password(role.clone(), Secret::new(password))],
        };
        Ok(Self { upstream, role, name })
    }
}

/// Undoes percent-encoding.
fn decode(part: &str) -> String {
    let form = format!("v={}", part.replace('+', "%2B"));
    url::form_urlencoded::parse(form.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_role_password_host_port_and_database() {
        let database = Database::read("postgres://a%40b:p%2Bw+@h:6000/shop", "--database").unwrap();
        assert_eq!((database.role.as_str(), database.name.as_str()), ("a@b", "shop"));
        assert_eq!((database.upstream.host.as_str(), database.upstream.port), ("h", 6000));
        assert_eq!(database.upstream.credentials[0].password.as_ref().unwrap().reveal(), "p+w+");
    }

    #[test]
    fn a_unix_socket_is_named_by_its_folder() {
        let database = Database::read("postgresql://ann@/shop?host=/run/pg", "--database").unwrap();
        assert_eq!((database.upstream.host.as_str(), database.upstream.port), ("/run/pg", 5432));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (text, missing) in
            [("mysql://a/b", "URL"), ("postgres://h/d", "role"), ("postgres://a@h", "database")]
        {
            let error = Database::read(text, "--database").err().map(|error| error.to_string());
            assert!(error.as_ref().is_some_and(|error| error.contains(missing)), "{text}: {error:?}");
        }
    }
}
