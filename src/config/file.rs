//! What was written: TOML, with `PGWITNESS__SECTION__KEY` overrides and secrets in files.
//!
//! Unknown keys are refused. [`read`] tells every mistake it finds, not only the first.

mod capture;
mod listen;
mod log;
mod login;
mod retention;
mod roles;
mod upstream;
mod workload;
mod written;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use capture::CaptureTable;
use listen::ListenTable;
use log::LogTable;
use login::{LoginTable, ServiceTable};
use retention::RetentionTable;
use roles::{ReplicationTable, RoleMapTable};
use schemars::JsonSchema;
use serde::Deserialize;
use upstream::UpstreamTable;
use url::Url;
use workload::WorkloadTable;
pub use written::{Origin, Written};

use super::{Access, Config, Http, Index, Limits, Oidc, Secret, TlsFiles, quantity};

/// Why a configuration cannot be used: every mistake, one line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// Prefix of environment overrides.
const ENV_PREFIX: &str = "PGWITNESS__";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct File {
    listen: ListenTable,
    #[serde(default)]
    http: HttpTable,
    oidc: OidcTable,
    #[serde(default)]
    upstream: Vec<UpstreamTable>,
    #[serde(default)]
    role_map: Vec<RoleMapTable>,
    #[serde(default)]
    replication: Vec<ReplicationTable>,
    #[serde(default)]
    login: Vec<LoginTable>,
    #[serde(default)]
    service: Vec<ServiceTable>,
    #[serde(default)]
    workload: Vec<WorkloadTable>,
    #[serde(default)]
    access: AccessTable,
    #[serde(default)]
    capture: CaptureTable,
    log: LogTable,
    #[serde(default)]
    index: IndexTable,
    #[serde(default)]
    retention: RetentionTable,
    #[serde(default)]
    limits: LimitsTable,
    #[serde(default)]
    telemetry: TelemetryTable,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HttpTable {
    address: Option<String>,
    public_url: Option<String>,
    tls_cert: Option<PathBuf>,
    tls_key_file: Option<PathBuf>,
    admin: Option<AdminTable>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AdminTable {
    address: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OidcTable {
    issuer: String,
    client_id: String,
    native_client_id: Option<String>,
    client_secret: Option<String>,
    client_secret_file: Option<PathBuf>,
    audience: Option<String>,
    scopes: Option<Vec<String>>,
    user_claim: Option<String>,
    group_claim: Option<String>,
    #[serde(default)]
    require_acr: Vec<String>,
    session_max_age: Option<String>,
    refresh_every: Option<String>,
    outage_grace: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AccessTable {
    #[serde(default)]
    auditor: Vec<String>,
    #[serde(default)]
    admin: Vec<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct IndexTable {
    dir: Option<PathBuf>,
    commit_every: Option<String>,
    memory: Option<String>,
    #[serde(default)]
    paused: bool,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    max_message: Option<String>,
    max_statements: Option<usize>,
    max_statement_memory: Option<String>,
    max_pipeline: Option<usize>,
    relay_threads: Option<NonZeroUsize>,
    max_pending_logins: Option<usize>,
    max_pending_logins_of_address: Option<usize>,
    login_failures: Option<u32>,
    login_failures_of_address: Option<u32>,
    connect_timeout: Option<String>,
    drain_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TelemetryTable {
    log: Option<String>,
    log_format: Option<String>,
}

/// Reads a configuration file. Relative paths in it are relative to its folder.
///
/// # Errors
/// Every mistake found, each naming its key and what to write instead.
pub fn read(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError(vec![format!("could not read {}: {error}", path.display())]))?;
    let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
    parse(&text, &folder, env)
}

/// The form of a configuration file, as JSON Schema: for editors that complete and check TOML.
#[must_use]
pub fn schema() -> String {
    let schema = schemars::schema_for!(File);
    format!("{:#}", schema.as_value())
}

/// What is written in the file, and by which variable of the environment it is overridden: each key with its value, in
/// the order of the file; secrets are not shown.
///
/// # Errors
/// As [`read`].
pub fn written(
    path: &Path,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Vec<Written>, ConfigError> {
    let one = |message: String| ConfigError(vec![message]);
    let text = std::fs::read_to_string(path)
        .map_err(|error| one(format!("could not read {}: {error}", path.display())))?;
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| one(error.to_string()))?;
    let names = overridden(&mut table, env)?;
    let mut found = Vec::new();
    written::list(&toml::Value::Table(table), String::new(), &names, &mut found);
    Ok(found)
}

/// Reads configuration text; see [`read`].
///
/// # Errors
/// As [`read`].
pub fn parse(
    text: &str,
    folder: &Path,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let one = |message: String| ConfigError(vec![message]);
    let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| one(e.to_string()))?;
    overridden(&mut table, env)?;
    let file: File = table.try_into().map_err(|e: toml::de::Error| one(e.to_string()))?;
    Reading { folder: folder.to_owned(), mistakes: Vec::new() }.config(file)
}

/// Overrides keys by the environment: which variables did, by the key's path.
fn overridden(
    table: &mut toml::Table,
    env: impl Iterator<Item = (String, String)>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut names = BTreeMap::new();
    for (name, value) in env {
        if let Some(key) = name.strip_prefix(ENV_PREFIX) {
            override_key(table, key, &value).map_err(|e| ConfigError(vec![format!("{name}: {e}")]))?;
            names.insert(key.to_lowercase().replace("__", "."), name);
        }
    }
    Ok(names)
}

fn override_key(table: &mut toml::Table, key: &str, value: &str) -> Result<(), &'static str> {
    let path: Vec<String> = key.split("__").map(str::to_lowercase).collect();
    let (last, sections) = path.split_last().ok_or("names no key")?;
    let mut at = table;
    for section in sections {
        at = at
            .entry(section.clone())
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or("does not name a table (lists cannot be overridden)")?;
    }
    // A value that reads as TOML keeps its type (numbers, lists); anything else is a string.
    let typed = format!("v = {value}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
    at.insert(last.clone(), typed.unwrap_or_else(|| toml::Value::String(value.to_owned())));
    Ok(())
}

struct Reading {
    folder: PathBuf,
    mistakes: Vec<String>,
}

impl Reading {
    fn config(mut self, file: File) -> Result<Config, ConfigError> {
        let listen = self.listen(file.listen);
        let (http, admin) = self.http(file.http);
        let oidc = self.oidc(file.oidc);
        let upstreams: Vec<_> = file.upstream.into_iter().map(|u| self.upstream(u)).collect();
        let role_map = file.role_map.into_iter().map(|r| self.role_mapping(r)).collect();
        let replication = file.replication.into_iter().map(|r| self.replication_rule(r)).collect();
        let login: Vec<_> = file.login.into_iter().map(|rule| self.login_rule(rule)).collect();
        let services: Vec<_> = file.service.into_iter().map(|table| self.service(table)).collect();
        self.check_services(&services, &login);
        let workloads = self.workloads(file.workload, &oidc);
        let capture = self.capture(file.capture);
        let log = self.log(file.log);
        let index = self.index(file.index, &log.dir);
        let retention = self.retention(file.retention);
        let limits = self.limits(file.limits);
        self.telemetry(&file.telemetry);
        if upstreams.is_empty() {
            self.wrong("upstream", "at least one [[upstream]] with name, url and credentials is needed");
        }
        if !self.mistakes.is_empty() {
            return Err(ConfigError(self.mistakes));
        }
        let access = Access { auditor: file.access.auditor, admin: file.access.admin };
        Ok(Config {
            listen,
            http,
            admin,
            oidc,
            upstreams,
            role_map,
            replication,
            access,
            capture,
            log,
            index,
            retention,
            login,
            services,
            workloads,
            limits,
        })
    }

    fn wrong(&mut self, key: &str, message: impl std::fmt::Display) {
        self.mistakes.push(format!("{key}: {message}"));
    }

    fn address(&mut self, key: &str, text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| {
            self.wrong(
                key,
                format_args!("{text:?} is not an address and port, write for example 0.0.0.0:6432"),
            );
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    /// Seconds since the Unix epoch.
    fn moment(&mut self, key: &str, text: Option<&str>) -> Option<i64> {
        let text = text?;
        let parsed = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339);
        parsed.map(time::OffsetDateTime::unix_timestamp).ok().or_else(|| {
            self.wrong(key, format_args!("{text:?} is not a time, write for example 2026-12-31T18:00:00Z"));
            None
        })
    }

    fn duration(&mut self, key: &str, text: Option<&str>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        quantity::duration(text).unwrap_or_else(|| {
            self.wrong(
                key,
                format_args!("{text:?} is not a duration, write for example \"90s\", \"3m\", \"12h\""),
            );
            default
        })
    }

    fn size(&mut self, key: &str, text: Option<&str>, default: usize) -> usize {
        let Some(text) = text else { return default };
        quantity::size(text).unwrap_or_else(|| {
            self.wrong(key, format_args!("{text:?} is not a size, write for example \"64KiB\" or \"1MiB\""));
            default
        })
    }

    fn word<T: Copy>(&mut self, key: &str, text: Option<&str>, words: &[(&str, T)], default: T) -> T {
        let Some(text) = text else { return default };
        words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).unwrap_or_else(|| {
            let known = words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ");
            self.wrong(key, format_args!("{text:?} is not one of {known}"));
            default
        })
    }

    fn path(&self, path: PathBuf) -> PathBuf {
        self.folder.join(path)
    }

    fn secret(&mut self, key: &str, plain: Option<String>, file: Option<PathBuf>) -> Option<Secret> {
        match (plain, file) {
            (Some(_), Some(_)) => {
                self.wrong(key, format_args!("write either {key} or {key}_file, not both"));
                None
            }
            (Some(text), None) => Some(Secret::new(text)),
            (None, Some(file)) => {
                let file = self.path(file);
                match std::fs::read_to_string(&file) {
                    Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
                    Err(error) => {
                        self.wrong(key, format_args!("could not read {}: {error}", file.display()));
                        None
                    }
                }
            }
            (None, None) => None,
        }
    }

    fn tls_files(&mut self, key: &str, cert: Option<PathBuf>, private: Option<PathBuf>) -> Option<TlsFiles> {
        match (cert, private) {
            (Some(cert), Some(private)) => {
                let (cert, key) = (self.path(cert), self.path(private));
                Some(TlsFiles { cert, key })
            }
            (None, None) => None,
            _ => {
                self.wrong(key, "tls_cert and tls_key_file belong together, one of them is missing");
                None
            }
        }
    }

    fn http(&mut self, table: HttpTable) -> (Http, Option<SocketAddr>) {
        let address = self.address("http.address", table.address.as_deref().unwrap_or("0.0.0.0:7432"));
        let public_url = table.public_url.and_then(|text| {
            Url::parse(&text)
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
                .or_else(|| {
                    self.wrong(
                        "http.public_url",
                        format_args!("{text:?} is not a URL, write for example https://witness.example.com"),
                    );
                    None
                })
        });
        let tls = self.tls_files("http", table.tls_cert, table.tls_key_file);
        let admin = table.admin.map(|admin| self.address("http.admin.address", &admin.address));
        (Http { address, public_url, tls }, admin)
    }

    fn oidc(&mut self, table: OidcTable) -> Oidc {
        if Url::parse(&table.issuer).is_err() {
            self.wrong("oidc.issuer", format_args!("{:?} is not a URL", table.issuer));
        }
        let client_secret = self.secret("oidc.client_secret", table.client_secret, table.client_secret_file);
        const MINUTE: Duration = Duration::from_secs(60);
        let refresh_every = self.duration("oidc.refresh_every", table.refresh_every.as_deref(), 5 * MINUTE);
        if refresh_every < Duration::from_secs(1) {
            self.wrong("oidc.refresh_every", "the provider is asked once a second at most");
        }
        let outage_grace = self.duration("oidc.outage_grace", table.outage_grace.as_deref(), 15 * MINUTE);
        let session_max_age = self.duration(
            "oidc.session_max_age",
            table.session_max_age.as_deref(),
            Duration::from_secs(12 * 3600),
        );
        let default_scopes = || ["openid", "email", "groups"].map(str::to_owned).to_vec();
        Oidc {
            audience: table.audience.unwrap_or_else(|| table.client_id.clone()),
            native_client_id: table.native_client_id.unwrap_or_else(|| table.client_id.clone()),
            issuer: table.issuer,
            client_id: table.client_id,
            client_secret,
            scopes: table.scopes.unwrap_or_else(default_scopes),
            user_claim: table.user_claim.unwrap_or_else(|| "email".into()),
            group_claim: table.group_claim.unwrap_or_else(|| "groups".into()),
            require_acr: table.require_acr,
            session_max_age,
            refresh_every,
            outage_grace,
        }
    }

    fn index(&mut self, table: IndexTable, log: &Path) -> Index {
        let dir = table.dir.map_or_else(|| log.join("index"), |dir| self.path(dir));
        if dir == log {
            self.wrong("index.dir", "must not be the folder of the journal");
        }
        let commit_every =
            self.duration("index.commit_every", table.commit_every.as_deref(), Duration::from_millis(500));
        let memory = self.size("index.memory", table.memory.as_deref(), 128 << 20);
        Index { dir, commit_every, memory, paused: table.paused }
    }

    fn limits(&mut self, table: LimitsTable) -> Limits {
        let default = Limits::default();
        Limits {
            max_message: self.size("limits.max_message", table.max_message.as_deref(), default.max_message),
            max_statements: table.max_statements.unwrap_or(default.max_statements),
            max_statement_memory: self.size(
                "limits.max_statement_memory",
                table.max_statement_memory.as_deref(),
                default.max_statement_memory,
            ),
            max_pipeline: table.max_pipeline.unwrap_or(default.max_pipeline),
            relay_threads: table.relay_threads.unwrap_or(default.relay_threads),
            max_pending_logins: (
                table.max_pending_logins.unwrap_or(default.max_pending_logins.0),
                table.max_pending_logins_of_address.unwrap_or(default.max_pending_logins.1),
            ),
            login_failures: (
                table.login_failures.unwrap_or(default.login_failures.0).max(1),
                table.login_failures_of_address.unwrap_or(default.login_failures.1).max(1),
            ),
            connect_timeout: self.duration(
                "limits.connect_timeout",
                table.connect_timeout.as_deref(),
                default.connect_timeout,
            ),
            drain_timeout: self.duration(
                "limits.drain_timeout",
                table.drain_timeout.as_deref(),
                default.drain_timeout,
            ),
        }
    }

    fn telemetry(&mut self, table: &TelemetryTable) {
        // Logging starts before the file is read; here only the spelling is checked.
        if let Some(format) = &table.log_format {
            self.word("telemetry.log_format", Some(format), &[("text", ()), ("json", ())], ());
        }
        let _ = &table.log;
    }
}

#[cfg(test)]
pub(super) mod tests;
