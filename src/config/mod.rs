//! Configuration: what was written (`file`), and what it means ([`Config`]).
//!
//! A wrong value stops the start; it is never replaced by a default.

pub mod file;
mod label;
mod quantity;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

pub use label::AppLabel;
pub(crate) use quantity::duration;

/// A secret that never shows itself in logs or errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself: call only where it is used.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Everything the gateway was told, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The PostgreSQL side.
    pub listen: Listen,
    /// The API and page.
    pub http: Http,
    /// Health and metrics, if wanted.
    pub admin: Option<SocketAddr>,
    /// The identity provider.
    pub oidc: Oidc,
    /// The databases behind us, in order.
    pub upstreams: Vec<Upstream>,
    /// Who may become which role: in order, the first match decides, none refuses.
    pub role_map: Vec<RoleMapping>,
    /// Who may open replication connections; none: nobody.
    pub replication: Vec<ReplicationRule>,
    /// Who may read the log.
    pub access: Access,
    /// What is captured.
    pub capture: Capture,
    /// The journal.
    pub log: Log,
    /// The search index.
    pub index: Index,
    /// How long what is kept.
    pub retention: Retention,
    /// How clients log in: in order, the first match decides, none by link.
    pub login: Vec<LoginRule>,
    /// Accounts that log in by password.
    pub services: Vec<Service>,
    /// Programs that log in with a token of their platform: in order, the first that fits.
    pub workloads: Vec<Workload>,
    /// Bounds.
    pub limits: Limits,
}

/// PEM files of one TLS identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// `[listen]`
#[derive(Debug, Clone)]
pub struct Listen {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Whether clients must use TLS.
    pub tls: ListenTls,
    /// Lowest version of TLS.
    pub tls_min_version: TlsVersion,
    /// Which certificates clients show.
    pub tls_clients: ClientCertificates,
    /// At most this many clients.
    pub max_clients: usize,
    /// How long a login may take.
    pub login_timeout: Duration,
}

/// `listen.tls`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenTls {
    /// Never.
    Off,
    /// If the client asks.
    Allow(TlsFiles),
    /// Always.
    Require(TlsFiles),
}

/// `listen.tls_min_version`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// 1.2
    #[default]
    Tls12,
    /// 1.3
    Tls13,
}

/// `listen.tls_client_auth`, with the roots of `listen.tls_client_ca`. A certificate is a second lock and
/// stands in the record; who somebody is comes from the login.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// None is asked for.
    #[default]
    Off,
    /// One that is shown must be of these roots.
    Optional(PathBuf),
    /// One of these roots must be shown.
    Require(PathBuf),
}

/// `[http]`
#[derive(Debug, Clone)]
pub struct Http {
    /// Where the API and page listen.
    pub address: SocketAddr,
    /// How browsers reach us, for redirects.
    pub public_url: Option<Url>,
    /// TLS of the page.
    pub tls: Option<TlsFiles>,
}

/// `[oidc]`
#[derive(Debug, Clone)]
pub struct Oidc {
    /// Issuer, byte-identical to the provider's own spelling.
    pub issuer: String,
    /// Our client id.
    pub client_id: String,
    /// The client id of the command line, which cannot keep a secret; default [`Self::client_id`].
    pub native_client_id: String,
    /// Our client secret, for confidential clients.
    pub client_secret: Option<Secret>,
    /// Audience of tokens used as passwords; default the client id.
    pub audience: String,
    /// Scopes asked for; `openid` is always among them.
    pub scopes: Vec<String>,
    /// Claim that names the person.
    pub user_claim: String,
    /// Claim that lists the groups.
    pub group_claim: String,
    /// Authentication contexts of which one is needed; empty: any.
    pub require_acr: Vec<String>,
    /// A login ends after this.
    pub session_max_age: Duration,
    /// How often the provider is asked whether a login still stands, where it gave a refresh token.
    pub refresh_every: Duration,
    /// While the provider is away, a login's secrets open sessions for this long.
    pub outage_grace: Duration,
}

/// One `[[upstream]]`
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name in records.
    pub name: String,
    /// Host name, address or folder of the unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS towards the database.
    pub sslmode: SslMode,
    /// Trusted roots; default the system's.
    pub sslrootcert: Option<PathBuf>,
    /// Databases reached here; empty: all.
    pub databases: Vec<String>,
    /// How often the catalog is looked at for changes made elsewhere.
    pub catalog_refresh: Duration,
    /// How a password may be shown.
    pub auth: Vec<AuthMethod>,
    /// Whether SCRAM is bound to the TLS connection.
    pub channel_binding: ChannelBinding,
    /// What the database sees as application_name.
    pub application_name: AppLabel,
    /// The gateway's own passwords and certificates.
    pub credentials: Vec<Credential>,
}

/// `upstream.sslmode`, as libpq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS, any certificate.
    Require,
    /// TLS, certificate of a trusted root.
    VerifyCa,
    /// TLS, certificate of a trusted root for this host.
    VerifyFull,
}

/// What the gateway shows to become one role.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Database role.
    pub role: String,
    /// Its password.
    pub password: Option<Secret>,
    /// Its certificate.
    pub certificate: Option<TlsFiles>,
}

impl Credential {
    /// A role with its password.
    pub fn password(role: impl Into<String>, password: Secret) -> Self {
        Self { role: role.into(), password: Some(password), certificate: None }
    }
}

/// `upstream.auth`: how a password may be shown, with pg_hba.conf's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// `scram-sha-256`: the password is proven, not shown.
    Scram,
    /// `md5`: a hash that is as good as the password is shown.
    Md5,
    /// `password`: it is shown as it is.
    Cleartext,
}

/// `upstream.channel_binding`, as libpq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Whenever the server offers it over TLS.
    #[default]
    Prefer,
    /// Always: the password is proven to no server that does not.
    Require,
}

/// One `[[role_map]]`. Empty lists match all, but `groups` and `users` cannot both be empty: name
/// `users = ["*"]` to mean everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleMapping {
    /// Any of these groups...
    pub groups: Vec<String>,
    /// ...or any of these users.
    pub users: Vec<String>,
    /// In these databases.
    pub databases: Vec<String>,
    /// May be these roles, the first by default.
    pub roles: Vec<String>,
    /// After a login in one of these authentication contexts (`acr`); empty: any.
    pub require_acr: Vec<String>,
    /// Until then (Unix seconds).
    pub expires: Option<i64>,
}

/// One `[[replication]]`: whoever any of them names may replicate, in the role that `role_map` gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationRule {
    /// Any of these groups...
    pub groups: Vec<String>,
    /// ...or any of these users.
    pub users: Vec<String>,
    /// These databases; empty: all. Physical replication reads every database of the server: it must be
    /// named, `replication`, as in pg_hba.conf.
    pub databases: Vec<String>,
    /// In these roles; empty: all.
    pub roles: Vec<String>,
}

/// `[access]`: entries are `group:NAME`, `user:NAME`, or a bare user name.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// May read all records.
    pub auditor: Vec<String>,
    /// May operate.
    pub admin: Vec<String>,
}

/// `[capture]`
#[derive(Debug, Clone)]
pub struct Capture {
    /// How much of a statement's text is kept.
    pub sql: CaptureSql,
    /// How bound parameters are kept.
    pub parameters: CaptureParameters,
    /// At most this many bytes of a statement are kept as text; more is cut and marked.
    pub max_sql: usize,
    /// Tag name and the `schema.table.column` patterns (with `*`) that carry it.
    pub tags: Vec<(String, Vec<String>)>,
}

/// `capture.sql`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureSql {
    /// The exact text, passwords excepted.
    Full,
    /// The text without constants and comments.
    Redacted,
    /// No text; the fingerprint tells statements of one shape.
    Fingerprint,
}

/// `capture.parameters`
#[derive(Debug, Clone)]
pub enum CaptureParameters {
    /// As they are.
    Full,
    /// As keyed hashes (HMAC-SHA-256, `capture.hmac_key`): equal values are found, and nothing else is told of them.
    Hmac(Secret),
    /// Not at all.
    Off,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// Folder of the journal.
    pub dir: PathBuf,
    /// When a statement passes, and when its result does.
    pub durability: Durability,
    /// The key that signs heads; made if it is missing and nothing was signed before.
    pub sign_key_file: PathBuf,
    /// Where else heads are kept.
    pub anchor: Option<Anchor>,
}

/// `log.anchor`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// How often.
    pub every: Duration,
    /// Where.
    pub to: Vec<AnchorTo>,
}

/// A place for signed heads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnchorTo {
    /// Appended to a file.
    File(PathBuf),
    /// Sent by POST. The address may be a secret.
    Webhook(Secret),
}

impl std::fmt::Display for AnchorTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Webhook(url) => {
                let url = Url::parse(url.reveal()).ok();
                write!(f, "the webhook at {}", url.as_ref().and_then(Url::host_str).unwrap_or("?"))
            }
        }
    }
}

/// `log.durability`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Synced before the statement is forwarded.
    Strict,
    /// Written before it is forwarded, synced before its result is released.
    Held,
    /// Written before it is forwarded, synced every 5 ms.
    Batch,
}

/// `[index]`
#[derive(Debug, Clone)]
pub struct Index {
    /// Folder of the index.
    pub dir: PathBuf,
    /// Commits at least this often while there is something to commit.
    pub commit_every: Duration,
    /// Memory of the index writer, bytes.
    pub memory: usize,
    /// Whether the index stays as it is; the journal goes on, and the index catches up when it is on again.
    pub paused: bool,
}

/// `[retention]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Statements, parameters and messages are kept for so long.
    pub full: Duration,
    /// Records are kept for so long.
    pub metadata: Duration,
    /// The first rule as it was written.
    pub full_rule: String,
    /// The second.
    pub metadata_rule: String,
    /// Queries: what they name is kept whole for as long as they stand.
    pub legal_hold: Vec<String>,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            full: Duration::from_secs(90 * DAY),
            metadata: Duration::from_secs(7 * 365 * DAY),
            full_rule: "retention.full = 90d".into(),
            metadata_rule: "retention.metadata = 7y".into(),
            legal_hold: Vec::new(),
        }
    }
}

/// One `[[login]]`: in order, the first match decides; none: by link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRule {
    /// For these databases; empty: all.
    pub databases: Vec<String>,
    /// For these startup users; empty: all.
    pub users: Vec<String>,
    /// For clients from here; empty: from anywhere.
    pub addresses: Vec<IpNet>,
    /// How.
    pub mode: LoginMode,
    /// A paired secret opens connections from the address alone at which it was approved.
    pub pin_address: bool,
}

/// `login.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginMode {
    /// In the connection: link and code in a notice, no password asked.
    Device,
    /// A password is asked for: a JWT, a minted token, or the client's own pairing secret.
    Password,
    /// Only the client's own pairing secret is taken.
    Paired,
    /// Only a JWT is taken.
    Token,
    /// Only a minted token is taken.
    Minted,
    /// SASL OAUTHBEARER (libpq 18).
    Oauth,
    /// SCRAM-SHA-256, for the accounts under `[[service]]`.
    Scram,
}

/// One `[[service]]`: an account that logs in by password (`login.mode = "scram"`).
#[derive(Debug, Clone)]
pub struct Service {
    /// The startup user that means it. Records and `role_map` call it `service:` and this name.
    pub name: String,
    /// What its password is compared with.
    pub proof: Proof,
    /// For these databases; empty: all.
    pub databases: Vec<String>,
    /// From here; empty: from anywhere.
    pub addresses: Vec<IpNet>,
    /// Not after that, seconds since the Unix epoch.
    pub expires: Option<i64>,
    /// For emergencies: each use is a warning in the gateway's log, and stands in `auth`.
    pub break_glass: bool,
}

/// One `[[workload]]`: a program that shows a JWT of the platform it runs on (CI, Kubernetes) as its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Records and `role_map` call it `workload:` and this name; the startup user may be the name alone.
    pub name: String,
    /// Who made the token, byte-identical to its `iss`. The keys are found from it by OpenID Connect Discovery.
    pub issuer: String,
    /// Whom the token must be for.
    pub audience: String,
    /// All of these must hold.
    pub claims: Vec<ClaimRule>,
    /// Its groups, for `role_map` and `access`; what the token says of groups does not count.
    pub groups: Vec<String>,
    /// A token is taken until it is this old, and the login ends then.
    pub max_life: Duration,
}

/// What a claim of a workload's token must say: one of the values, which may end in `*`. Of a list, one entry must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRule {
    /// The claim, or a path of names joined by dots.
    pub claim: String,
    /// Any of these.
    pub values: Vec<String>,
}

/// What a service's password is compared with.
#[derive(Debug, Clone)]
pub enum Proof {
    /// The password.
    Password(Secret),
    /// Its verifier, as PostgreSQL keeps it in `pg_authid.rolpassword`.
    Verifier(Secret),
}

/// `[limits]`: every bound that an operator may need to move.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest message of a client that must be read whole (Query, Parse, Bind…), bytes.
    pub max_message: usize,
    /// Prepared statements and portals of one session.
    pub max_statements: usize,
    /// Texts of the prepared statements of one session, and bound values of its portals, each, bytes.
    pub max_statement_memory: usize,
    /// Executions in flight in one session.
    pub max_pipeline: usize,
    /// Logins waiting for approval, in all and of one address.
    pub max_pending_logins: (usize, usize),
    /// So many failed logins of one user from one address within 15 minutes lock it out, and so many of one address.
    pub login_failures: (u32, u32),
    /// Threads that carry sessions.
    pub relay_threads: NonZeroUsize,
    /// Connecting to a database.
    pub connect_timeout: Duration,
    /// Draining at shutdown.
    pub drain_timeout: Duration,
}

/// The other half is for the journal, the index and the API, and for a database on the same machine.
fn half_of_the_processors() -> NonZeroUsize {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(processors / 2).unwrap_or(NonZeroUsize::MIN)
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message: 256 << 20,
            max_statements: 100_000,
            max_statement_memory: 256 << 20,
            max_pipeline: 100_000,
            max_pending_logins: (1000, 50),
            login_failures: (5, 100),
            relay_threads: half_of_the_processors(),
            connect_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
        }
    }
}
