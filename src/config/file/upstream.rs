//! `[[upstream]]` as it was written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::Reading;
use crate::config::{AppLabel, AuthMethod, ChannelBinding, Credential, SslMode, TlsFiles, Upstream};

/// Upstream port if the URL names none.
const POSTGRES_PORT: u16 = 5432;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UpstreamTable {
    name: String,
    url: String,
    sslmode: Option<String>,
    sslrootcert: Option<PathBuf>,
    #[serde(default)]
    databases: Vec<String>,
    catalog_refresh: Option<String>,
    auth: Option<Vec<String>>,
    channel_binding: Option<String>,
    application_name: Option<String>,
    #[serde(default)]
    credentials: Vec<CredentialTable>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CredentialTable {
    role: String,
    password: Option<String>,
    password_file: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key_file: Option<PathBuf>,
}

impl Reading {
    pub(super) fn upstream(&mut self, table: UpstreamTable) -> Upstream {
        let key = format!("upstream {:?}", table.name);
        let (host, port) = upstream_address(&table.url).unwrap_or_else(|reason| {
            self.wrong(&format!("{key}.url"), reason);
            (String::new(), POSTGRES_PORT)
        });
        let sslmode = self.sslmode(&format!("{key}.sslmode"), table.sslmode.as_deref(), &host);
        let catalog_refresh = self.duration(
            &format!("{key}.catalog_refresh"),
            table.catalog_refresh.as_deref(),
            Duration::from_secs(300),
        );
        let auth = self.auth(&key, table.auth.as_deref(), sslmode, &host);
        let bindings = [
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ];
        let channel_binding = self.word(
            &format!("{key}.channel_binding"),
            table.channel_binding.as_deref(),
            &bindings,
            ChannelBinding::default(),
        );
        if channel_binding == ChannelBinding::Require && sslmode == SslMode::Disable {
            self.wrong(
                &format!("{key}.channel_binding"),
                "\"require\" binds to TLS, and sslmode is \"disable\"",
            );
        }
        let written = table.credentials.into_iter();
        let credentials: Vec<_> = written.filter_map(|c| self.credential(&key, c, sslmode)).collect();
        if credentials.is_empty() && self.mistakes.is_empty() {
            self.wrong(
                &key,
                "has no credentials: write credentials = [{ role = \"…\", password_file = \"…\" }]",
            );
        }
        let sslrootcert = table.sslrootcert.map(|path| self.path(path));
        let application_name = self.app_label(&key, table.application_name.as_deref());
        Upstream {
            name: table.name,
            host,
            port,
            sslmode,
            sslrootcert,
            databases: table.databases,
            catalog_refresh,
            auth,
            channel_binding,
            application_name,
            credentials,
        }
    }

    fn app_label(&mut self, key: &str, template: Option<&str>) -> AppLabel {
        template.map(AppLabel::read).unwrap_or_else(|| Ok(AppLabel::default())).unwrap_or_else(|reason| {
            self.wrong(&format!("{key}.application_name"), reason);
            AppLabel::default()
        })
    }

    fn sslmode(&mut self, key: &str, text: Option<&str>, host: &str) -> SslMode {
        let modes = [
            ("disable", SslMode::Disable),
            ("require", SslMode::Require),
            ("verify-ca", SslMode::VerifyCa),
            ("verify-full", SslMode::VerifyFull),
        ];
        // TLS is not spoken on unix sockets, by PostgreSQL either.
        let default = if host.starts_with('/') { SslMode::Disable } else { SslMode::VerifyFull };
        if let Some(mode @ ("allow" | "prefer")) = text {
            self.wrong(
                key,
                format_args!(
                    "{mode:?} goes on in clear text when somebody in between says so, and is not done here. Write \
                     \"verify-full\" (or \"require\" without a certificate to trust), or \"disable\" where nobody \
                     can listen in"
                ),
            );
            return default;
        }
        self.word(key, text, &modes, default)
    }

    fn auth(&mut self, key: &str, words: Option<&[String]>, mode: SslMode, host: &str) -> Vec<AuthMethod> {
        let methods = [
            ("scram-sha-256", AuthMethod::Scram),
            ("md5", AuthMethod::Md5),
            ("password", AuthMethod::Cleartext),
        ];
        let key = format!("{key}.auth");
        let Some(words) = words else { return vec![AuthMethod::Scram] };
        if words.is_empty() {
            self.wrong(&key, "is empty: write [\"scram-sha-256\"]");
        }
        let auth: Vec<_> =
            words.iter().map(|word| self.word(&key, Some(word), &methods, AuthMethod::Scram)).collect();
        if auth.contains(&AuthMethod::Cleartext) && mode == SslMode::Disable && !host.starts_with('/') {
            self.wrong(
                &key,
                "\"password\" sends passwords in clear text: it needs TLS (sslmode) or a unix socket",
            );
        }
        auth
    }

    fn credential(&mut self, key: &str, table: CredentialTable, mode: SslMode) -> Option<Credential> {
        let key = format!("{key}.credentials {:?}", table.role);
        let before = self.mistakes.len();
        let password = self.secret(&format!("{key} password"), table.password, table.password_file);
        let certificate = match (table.client_cert, table.client_key_file) {
            (Some(cert), Some(private)) => Some(TlsFiles { cert: self.path(cert), key: self.path(private) }),
            (None, None) => None,
            _ => {
                self.wrong(&key, "client_cert and client_key_file belong together, one of them is missing");
                None
            }
        };
        if certificate.is_some() && mode == SslMode::Disable {
            self.wrong(&key, "client_cert is shown over TLS only, and sslmode is \"disable\"");
        }
        if password.is_none() && certificate.is_none() && self.mistakes.len() == before {
            self.wrong(
                &format!("{key} password"),
                "write password_file (or password), or client_cert and client_key_file",
            );
        }
        (self.mistakes.len() == before).then_some(Credential { role: table.role, password, certificate })
    }
}

/// Host (or socket folder) and port of an upstream URL.
fn upstream_address(text: &str) -> Result<(String, u16), String> {
    const SHAPE: &str = "write postgres://host:5432, or postgres:///?host=/run/postgresql for a unix socket";
    let url = Url::parse(text).map_err(|error| format!("{text:?} is not a URL ({error}); {SHAPE}"))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(format!("has scheme {:?}; {SHAPE}", url.scheme()));
    }
    if url.password().is_some() || !url.username().is_empty() {
        return Err("must not hold a user or password, they belong under credentials".to_owned());
    }
    let query: BTreeMap<_, _> = url.query_pairs().collect();
    if let Some(unknown) = query.keys().find(|key| !matches!(key.as_ref(), "host" | "port")) {
        return Err(format!("has the parameter {unknown:?}, only host and port are known here; {SHAPE}"));
    }
    let host = query.get("host").map(|host| host.to_string()).or_else(|| {
        url.host_str().filter(|host| !host.is_empty()).map(|host| host.trim_matches(['[', ']']).to_owned())
    });
    let port = match query.get("port") {
        Some(port) => port.parse().map_err(|_| format!("port {port:?} is not a number"))?,
        None => url.port().unwrap_or(POSTGRES_PORT),
    };
    let host = host.ok_or_else(|| format!("names no host; {SHAPE}"))?;
    Ok((host, port))
}
