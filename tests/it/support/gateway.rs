//! A gateway of the test's own: real service, real provider, real database, loopback only.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgwitness::config::{
    AppLabel, AuthMethod, Capture, CaptureParameters, CaptureSql, ChannelBinding, ClientCertificates, Config,
    Credential, Durability, Http, Index, Limits, Listen, ListenTls, Log, SslMode, TlsVersion, Upstream,
};
use pgwitness::demo::provider::{DemoProvider, Person};
use pgwitness::demo::shop;
use pgwitness::gateway::Approver;
use pgwitness::service::{Doors, Service};
use pgwitness_index::journal::Reader;
use pgwitness_index::record::{Entry, Outcome, TxnOutcome};
use pgwitness_index::storage::{DirStorage, Storage};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::postgres::server;

/// A record must be found within this.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct TestGateway {
    pub(crate) port: u16,
    pub(crate) http: String,
    provider: DemoProvider,
    token: String,
    service: Option<Service>,
    database: String,
    dir: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

/// Approves every login as whoever the client says it is.
struct Everybody(DemoProvider);

impl Approver for Everybody {
    fn approve(&self, link: &str, user_code: &str, startup_user: &str) {
        self.0.point(user_code, link);
        let (provider, code, user) = (self.0.clone(), user_code.to_owned(), startup_user.to_owned());
        #[allow(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move {
            // Who is not known stays unapproved: the test sees a login that waits.
            let _ = provider.approve_anywhere(&code, &user).await;
        });
    }
}

/// How the gateway is to be.
pub(crate) struct Settings {
    pub(crate) auto_approve: bool,
    pub(crate) durability: Durability,
    pub(crate) login_timeout: Duration,
    /// Use this folder instead of one of its own.
    pub(crate) dir: Option<PathBuf>,
    /// A copy of the shop that was made before, instead of one of its own.
    pub(crate) database: Option<String>,
    /// Where the database is, if not at the shared server.
    pub(crate) database_port: Option<u16>,
    /// Towards clients.
    pub(crate) tls: ListenTls,
    /// Towards the database: at this port of "localhost", under this root.
    pub(crate) upstream_tls: Option<(u16, SslMode, Option<PathBuf>)>,
    pub(crate) max_clients: usize,
    /// `index.paused`
    pub(crate) index_paused: bool,
    pub(crate) limits: Limits,
    /// Another database server than the shared one: its shop is used as it is.
    pub(crate) server: Option<OtherServer>,
    /// Anything else.
    pub(crate) change: Box<dyn FnOnce(&mut Config) + Send>,
    /// What the database sees.
    pub(crate) application_name: AppLabel,
}

/// How to reach a database server of the test's own.
#[derive(Clone)]
pub(crate) struct OtherServer {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) credentials: Vec<Credential>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            auto_approve: true,
            durability: Durability::Batch,
            login_timeout: Duration::from_secs(60),
            dir: None,
            database: None,
            database_port: None,
            tls: ListenTls::Off,
            upstream_tls: None,
            max_clients: 100,
            index_paused: false,
            limits: Limits {
                drain_timeout: Duration::from_secs(2),
                // All clients of a test have one address.
                max_pending_logins: (1000, 1000),
                ..Limits::default()
            },
            server: None,
            change: Box::new(|_| {}),
            application_name: AppLabel::default(),
        }
    }
}

impl TestGateway {
    /// With a copy of the shop of its own.
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        pgwitness::grammar::start_by(env!("CARGO_BIN_EXE_pgwitness").into());
        // Several gateways share this process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let database = match (&settings.server, &settings.database) {
            (Some(_), _) => shop::DATABASE.to_owned(),
            (None, Some(known)) => known.clone(),
            (None, None) => server().shop_copy().await,
        };
        let folder = settings.dir.is_none().then(|| tempfile::tempdir().unwrap());
        let dir = settings.dir.clone().unwrap_or_else(|| folder.as_ref().unwrap().path().to_owned());
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let provider = DemoProvider::start(local().await, people(), &tracker, stop.clone()).unwrap();
        let doors = Doors { postgres: local().await, http: local().await, admin: None };
        let port = doors.postgres.local_addr().unwrap().port();
        let http = format!("http://{}", doors.http.local_addr().unwrap());
        let mut config = config(&settings, &provider, &doors, &dir);
        (settings.change)(&mut config);
        let approver: Option<Arc<dyn Approver>> =
            settings.auto_approve.then(|| Arc::new(Everybody(provider.clone())) as Arc<dyn Approver>);
        let service = Service::start(config, doors, approver, stop).await.unwrap();
        let token = auditor_token(&service, &provider).await;
        Self { port, http, token, provider, service: Some(service), database, dir, _folder: folder }
    }

    /// A JWT of Carol's, as the provider gives it to a program that runs the device flow by itself.
    pub(crate) async fn jwt(&self) -> String {
        let client = reqwest::Client::new();
        let post = async |path: &str, form: &[(&str, &str)]| -> Value {
            let answer = client.post(path).form(form).send().await.unwrap();
            serde_json::from_str(&answer.text().await.unwrap()).unwrap()
        };
        let issuer = self.provider.issuer().trim_end_matches('/');
        let found = client.get(format!("{issuer}/.well-known/openid-configuration")).send().await.unwrap();
        let found: Value = serde_json::from_str(&found.text().await.unwrap()).unwrap();
        let id = ("client_id", self.provider.client_id());
        let device = found["device_authorization_endpoint"].as_str().unwrap();
        let started = post(device, &[id, ("scope", "openid email groups")]).await;
        self.provider.approve(started["user_code"].as_str().unwrap(), shop::CAROL.email).unwrap();
        let grant = ("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
        let code = ("device_code", started["device_code"].as_str().unwrap());
        let tokens = post(found["token_endpoint"].as_str().unwrap(), &[id, grant, code]).await;
        tokens["id_token"].as_str().unwrap_or_else(|| panic!("{tokens}")).to_owned()
    }

    /// The identity provider.
    pub(crate) fn provider(&self) -> &DemoProvider {
        &self.provider
    }

    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// A token of Carol, the auditor.
    pub(crate) fn auditor_token(&self) -> &str {
        &self.token
    }

    /// A connection through the gateway.
    pub(crate) async fn connect(&self, user: &str) -> tokio_postgres::Client {
        self.try_connect(user, "").await.unwrap()
    }

    pub(crate) async fn try_connect(
        &self,
        user: &str,
        password: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).dbname(&self.database).user(user);
        config.application_name("psql").connect_timeout(Duration::from_secs(60));
        if !password.is_empty() {
            config.password(password).options("-c pgwitness.login=password");
        }
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        #[allow(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(connection);
        Ok(client)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let client = reqwest::Client::new();
        let answer =
            client.get(format!("{}{path}", self.http)).bearer_auth(&self.token).send().await.unwrap();
        let status = answer.status();
        let body = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Asks for a change, as Carol.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let asked = reqwest::Client::new().post(format!("{}{path}", self.http)).bearer_auth(&self.token);
        let answer = asked.json(body).send().await.unwrap();
        let status = answer.status();
        let body = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Records that a query finds, oldest first, as soon as there are `count` and all have ended.
    pub(crate) async fn records(&self, query: &str, count: usize) -> Vec<Value> {
        let started = Instant::now();
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        loop {
            let found = self.get(&format!("/api/v1/events?limit=1000&q={query}")).await;
            let mut items = found["items"].as_array().unwrap().clone();
            items.reverse();
            let ended = items.iter().all(|item| item["running"] != true && item["txn_outcome"] != "open");
            if (items.len() >= count && ended) || started.elapsed() > PATIENCE {
                assert_eq!(items.len(), count, "{query}: {items:#?}");
                return items;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the journal says of the statements with a word in their text, by their order: read as it lies on
    /// disk when the gateway has stopped. For more records than the index can be waited for.
    pub(crate) async fn stop_and_read(mut self, word: &str) -> Vec<(String, Outcome, TxnOutcome)> {
        let (dir, folder) = (self.dir.join("journal"), self._folder.take());
        self.stop().await;
        let storage: Arc<dyn Storage> = Arc::new(DirStorage::open(dir).unwrap());
        let mut reader = Reader::open(storage, None).unwrap();
        let mut found = BTreeMap::new();
        while let Some(frame) = reader.next_frame().unwrap() {
            for (seq, entry) in frame.entries {
                match entry {
                    Entry::Record(record) => {
                        let text = record
                            .sql
                            .as_ref()
                            .map(|sql| String::from_utf8_lossy(sql.as_bytes()).into_owned());
                        if let Some(text) = text.filter(|text| text.contains(word)) {
                            found.insert(seq.unwrap(), (text, Outcome::Unknown, TxnOutcome::Open));
                        }
                    }
                    Entry::Completion(end) => {
                        if let Some(known) = found.get_mut(&end.seq) {
                            (known.1, known.2) = (end.outcome, end.txn_outcome);
                        }
                    }
                    Entry::Settlement(settled) => {
                        for seq in &settled.seqs {
                            if let Some(known) = found.get_mut(seq) {
                                known.2 = settled.txn_outcome;
                            }
                        }
                    }
                }
            }
        }
        drop(folder);
        found.into_values().collect()
    }

    /// Sessions that are open now, as the API tells them.
    pub(crate) async fn sessions(&self) -> Vec<Value> {
        self.get("/api/v1/sessions").await["items"].as_array().unwrap().clone()
    }

    /// Where the journal and the index are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Records that a query finds now, newest first.
    pub(crate) async fn found(&self, query: &str) -> Vec<Value> {
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let found = self.get(&format!("/api/v1/events?limit=1000&q={query}")).await;
        found["items"].as_array().unwrap().clone()
    }

    /// Waits until a query finds `count` records, whether or not they have ended.
    pub(crate) async fn seen(&self, query: &str, count: usize) {
        let started = Instant::now();
        loop {
            let found = self.found(query).await;
            if found.len() >= count {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{query}: {found:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the refusals that a query finds, those only counted included, are `total`. Says how
    /// many records that took.
    pub(crate) async fn counted(&self, query: &str, total: u64) -> usize {
        let started = Instant::now();
        loop {
            let found = self.found(query).await;
            let count = |record: &Value| match record["error"].as_str().unwrap().split_once(" more refusals")
            {
                Some((count, _)) => count.parse().unwrap(),
                None => 1,
            };
            let sum: u64 = found.iter().map(count).sum();
            if sum == total {
                return found.len();
            }
            assert!(sum < total && started.elapsed() < PATIENCE, "{sum}: {found:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Reads certificates again, as SIGHUP does.
    pub(crate) fn reload(&self) {
        self.service.as_ref().unwrap().reload();
    }

    pub(crate) async fn stop(mut self) {
        if let Some(service) = self.service.take() {
            service.stop().await;
        }
    }
}

async fn local() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn people() -> Vec<Person> {
    let person = |person: &shop::Person| Person {
        name: person.name.into(),
        email: person.email.into(),
        groups: person.groups.iter().map(|group| (*group).to_owned()).collect(),
    };
    shop::people().iter().map(person).collect()
}

fn config(settings: &Settings, provider: &DemoProvider, doors: &Doors, dir: &Path) -> Config {
    Config {
        listen: Listen {
            address: doors.postgres.local_addr().unwrap(),
            tls: settings.tls.clone(),
            tls_min_version: TlsVersion::default(),
            tls_clients: ClientCertificates::Off,
            max_clients: settings.max_clients,
            login_timeout: settings.login_timeout,
        },
        http: Http { address: doors.http.local_addr().unwrap(), public_url: None, tls: None },
        admin: None,
        oidc: provider.oidc(Duration::from_secs(3600)),
        upstreams: vec![upstream(settings)],
        role_map: shop::role_map()
            .into_iter()
            .map(|mapping| pgwitness::config::RoleMapping { databases: Vec::new(), ..mapping })
            .collect(),
        replication: Vec::new(),
        access: shop::access(),
        capture: Capture {
            sql: CaptureSql::Full,
            parameters: CaptureParameters::Full,
            max_sql: 1 << 20,
            tags: shop::tags(),
        },
        log: Log {
            dir: dir.join("journal"),
            durability: settings.durability,
            sign_key_file: dir.join("sign.key"),
            anchor: None,
        },
        index: Index {
            dir: dir.join("index"),
            commit_every: Duration::from_millis(50),
            memory: 32 << 20,
            paused: settings.index_paused,
        },
        retention: pgwitness::config::Retention::default(),
        login: Vec::new(),
        services: Vec::new(),
        workloads: Vec::new(),
        limits: settings.limits.clone(),
    }
}

async fn auditor_token(service: &Service, provider: &DemoProvider) -> String {
    let login = service.provider().start_device().await.unwrap();
    provider.approve(&login.user_code, shop::CAROL.email).unwrap();
    let principal = service.provider().wait_device(&login).await.unwrap();
    service.minted().mint(&principal, Duration::from_secs(3600)).unwrap().reveal().to_owned()
}

fn upstream(settings: &Settings) -> Upstream {
    let credentials = settings.server.as_ref().map(|other| other.credentials.clone());
    let (host, port, sslmode, sslrootcert) = match (&settings.server, &settings.upstream_tls) {
        (Some(other), _) => (other.host.clone(), other.port, SslMode::Disable, None),
        (None, Some((port, mode, root))) => ("localhost".into(), *port, *mode, root.clone()),
        (None, None) => {
            let port = settings.database_port.unwrap_or(server().port());
            (server().socket_dir().display().to_string(), port, SslMode::Disable, None)
        }
    };
    Upstream {
        name: "main".into(),
        host,
        port,
        sslmode,
        sslrootcert,
        databases: Vec::new(),
        catalog_refresh: Duration::from_secs(60),
        auth: vec![AuthMethod::Scram],
        channel_binding: ChannelBinding::default(),
        application_name: settings.application_name.clone(),
        credentials: credentials.unwrap_or_else(|| server().shop().credentials()),
    }
}

/// The way to the shared server, for what a test does not care about.
pub(crate) fn any_upstream() -> Upstream {
    upstream(&Settings::default())
}
