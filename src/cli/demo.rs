//! `pgwitness demo`: everything in one command, on loopback, thrown away at the end.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use pgwitness_index::record::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use super::client::{Client, DemoFile};
use super::database::Database;
use super::run::stop_signals;
use crate::config::{
    Access, AppLabel, AuthMethod, Capture, CaptureParameters, CaptureSql, ChannelBinding, ClientCertificates,
    Config, Durability, Http, Index, Limits, Listen, ListenTls, Log, RoleMapping, Secret, SslMode,
    TlsVersion, Upstream,
};
use crate::demo::postgres::{self, PrivatePostgres};
use crate::demo::provider::{ApproveError, DemoProvider, Person};
use crate::demo::seed;
use crate::demo::shop::{self, Shop};
use crate::gateway::Approver;
use crate::service::{Doors, Service};

/// The gateway's port; the page and the provider are this far above it.
const PORT: u16 = 6432;
const HTTP_OFFSET: u16 = 1000;
const ISSUER_OFFSET: u16 = 1001;

/// Ports tried, one after another, if one is busy.
const PORTS_TRIED: u16 = 100;

/// A login lasts this long.
const SESSION_MAX_AGE: Duration = Duration::from_secs(12 * 3600);

/// Life of the token in the demo's file.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// A record must be found within this.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

/// What the printed search looks for.
const SAMPLE_QUERY: &str = "column:customers.email";

/// `pgwitness demo`
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Run this SQL through the gateway, print its rows and its record, and end
    #[arg(long, value_name = "SQL")]
    exec: Option<String>,
    /// Approve every login at once, as the person that the client names
    #[arg(long)]
    auto_approve: bool,
    /// Use this database instead of a private one: postgres://ROLE:PASSWORD@HOST:PORT/DATABASE
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Keep journal and index in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Run no sample queries
    #[arg(long)]
    no_seed: bool,
    /// The gateway's port; page and identity provider take N+1000 and N+1001
    #[arg(long, value_name = "N", default_value_t = PORT)]
    port_base: u16,
    /// Write where everything is to this file, once everything serves
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// The database behind the demo.
struct Behind {
    upstream: Upstream,
    database: String,
    role_map: Vec<RoleMapping>,
    access: Access,
    tags: Vec<(String, Vec<String>)>,
    /// Stops when dropped.
    server: Option<PrivatePostgres>,
}

/// Where the journal lives, and whether it goes away.
enum Place {
    Kept(PathBuf),
    Temporary(PathBuf),
}

/// Approves logins by itself.
struct Host {
    provider: DemoProvider,
    always: bool,
    /// While the sample queries run, their logins are approved.
    seeding: AtomicBool,
    tracker: TaskTracker,
}

impl Approver for Host {
    fn approve(&self, link: &str, user_code: &str, startup_user: &str) {
        // So that whoever has the code alone (`pgwitness approve`) finds the page.
        self.provider.point(user_code, link);
        if !self.always && !self.seeding.load(Ordering::Acquire) {
            return;
        }
        // A role's name stands for the first person who has it.
        let person = shop::people()
            .iter()
            .find(|person| person.roles.contains(&startup_user))
            .map_or(startup_user, |person| person.email);
        let (provider, code, person) = (self.provider.clone(), user_code.to_owned(), person.to_owned());
        self.tracker.spawn(async move {
            let mut approved = provider.approve_anywhere(&code, &person).await.map(|_| ());
            if let (Err(ApproveError::NoSuchPerson { .. }), Some(first)) = (&approved, shop::people().first())
            {
                approved = provider.approve_anywhere(&code, first.email).await.map(|_| ());
            }
            if let Err(error) = approved {
                tracing::warn!(%error, "could not approve a login of the demo");
            }
        });
    }
}

pub(super) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let stopped = stop_signals()?;
    let (serves, starting) = oneshot::channel();
    let mut demo = std::pin::pin!(demo(args, serves));
    tokio::select! {
        ended = &mut demo => return ended,
        // A demo that is stopped while it starts takes its private server with it.
        () = stopped => return Ok(ExitCode::SUCCESS),
        _ = starting => {}
    }
    // From here on it ends in order: whoever still wrote into its folder could keep that from being removed.
    demo.await
}

async fn demo(args: DemoArgs, serves: oneshot::Sender<()>) -> anyhow::Result<ExitCode> {
    let mut stopped = std::pin::pin!(stop_signals()?);
    let behind = match &args.upstream {
        Some(url) => given_upstream(url)?,
        None => private_postgres().await?,
    };
    let place = Place::make(args.keep.as_deref())?;
    let stop = CancellationToken::new();
    let tracker = TaskTracker::new();
    let doors = Doors {
        postgres: bind(args.port_base).await?,
        http: bind(args.port_base.saturating_add(HTTP_OFFSET)).await?,
        admin: None,
    };
    let issuer_door = bind(args.port_base.saturating_add(ISSUER_OFFSET)).await?;
    let provider = DemoProvider::start(issuer_door, people(), &tracker, stop.clone())?;
    let host = Arc::new(Host {
        provider: provider.clone(),
        always: args.auto_approve || args.exec.is_some(),
        seeding: AtomicBool::new(false),
        tracker: tracker.clone(),
    });
    let running = Running::start(&args, behind, place, doors, &provider, host, stop.clone()).await?;
    // Nobody listens any more if it was stopped at this moment.
    let _ = serves.send(());
    let used = async {
        running.seed(&args).await?;
        match &args.exec {
            Some(sql) => running.exec(sql).await,
            None => {
                running.announce(&args)?;
                std::future::pending().await
            }
        }
    };
    let code = tokio::select! {
        code = used => code,
        () = &mut stopped => Ok(ExitCode::SUCCESS),
    };
    running.stop().await;
    tracker.close();
    code
}

struct Running {
    service: Service,
    host: Arc<Host>,
    postgres: SocketAddr,
    http: Url,
    issuer: String,
    database: String,
    journal: PathBuf,
    place: Place,
    server: Option<PrivatePostgres>,
    /// Has a shop to play with.
    shop: bool,
}

impl Running {
    async fn start(
        args: &DemoArgs,
        behind: Behind,
        place: Place,
        doors: Doors,
        provider: &DemoProvider,
        host: Arc<Host>,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let postgres = doors.postgres.local_addr()?;
        let http = Url::parse(&format!("http://{}", doors.http.local_addr()?))?;
        let Behind { upstream, database, role_map, access, tags, server } = behind;
        let config = Config {
            listen: Listen {
                address: postgres,
                tls: ListenTls::Off,
                tls_min_version: TlsVersion::default(),
                tls_clients: ClientCertificates::Off,
                max_clients: 500,
                login_timeout: Duration::from_secs(180),
            },
            http: Http { address: doors.http.local_addr()?, public_url: Some(http.clone()), tls: None },
            admin: None,
            oidc: provider.oidc(SESSION_MAX_AGE),
            upstreams: vec![upstream],
            role_map,
            replication: Vec::new(),
            access,
            capture: Capture {
                sql: CaptureSql::Full,
                parameters: CaptureParameters::Full,
                max_sql: 1 << 20,
                tags,
            },
            log: Log {
                dir: place.path().join("journal"),
                durability: Durability::Held,
                sign_key_file: place.path().join("sign.key"),
                anchor: None,
            },
            index: Index {
                dir: place.path().join("index"),
                commit_every: Duration::from_millis(250),
                memory: 64 << 20,
                paused: false,
            },
            retention: crate::config::Retention::default(),
            login: Vec::new(),
            services: Vec::new(),
            workloads: Vec::new(),
            limits: Limits {
                drain_timeout: Duration::from_secs(3),
                // All clients of the demo have one address.
                max_pending_logins: (1000, 1000),
                ..Limits::default()
            },
        };
        let journal = config.log.dir.clone();
        let service = Service::start(config, doors, Some(host.clone()), stop).await?;
        let shop = args.upstream.is_none();
        let issuer = provider.issuer().to_owned();
        Ok(Self { service, host, postgres, http, issuer, database, journal, place, server, shop })
    }

    async fn seed(&self, args: &DemoArgs) -> anyhow::Result<()> {
        self.write_demo_file().await?;
        if args.no_seed || args.exec.is_some() || !self.shop {
            return Ok(());
        }
        eprintln!("three people use the sample shop for a moment …");
        self.host.seeding.store(true, Ordering::Release);
        let plan = seed::plan();
        let (ip, port) = (self.postgres.ip().to_string(), self.postgres.port());
        let seeded = seed::run(&ip, port, &self.database, &plan, seed::by_email).await;
        self.host.seeding.store(false, Ordering::Release);
        let seeded = seeded.context("the sample queries did not run")?;
        for surprise in &seeded.surprises {
            eprintln!("pgwitness: {surprise}");
        }
        eprintln!(
            "{} statements in {} sessions, {} of them refused or failed, as planned",
            seeded.statements, seeded.sessions, seeded.errors
        );
        Ok(())
    }

    /// Lets the other verbs find this demo: with a token of the auditor, got by a real login.
    async fn write_demo_file(&self) -> anyhow::Result<()> {
        let auditor = shop::CAROL.email;
        let login = self.service.provider().start_device().await?;
        self.host.provider.approve(&login.user_code, auditor).context("the auditor is not known")?;
        let principal = self.service.provider().wait_device(&login).await?;
        let token = self.service.minted().mint(&principal, TOKEN_LIFE)?;
        let file =
            DemoFile { url: self.http.clone(), token: token.reveal().to_owned(), dir: self.journal.clone() };
        file.write().with_context(|| format!("could not write {}", DemoFile::path().display()))
    }

    fn announce(&self, args: &DemoArgs) -> anyhow::Result<()> {
        let (ip, port, database) = (self.postgres.ip(), self.postgres.port(), &self.database);
        let own = std::env::current_exe().map_or("pgwitness".into(), |path| path.display().to_string());
        let user = if self.shop { shop::ANN.email } else { "ann" };
        let mut page = self.http.clone();
        page.query_pairs_mut().append_pair("q", SAMPLE_QUERY);
        let mut out = String::new();
        out += "\nconnect (open the link that it shows, type its code, and be Ann):\n";
        out += &format!("  psql \"host={ip} port={port} dbname={database} user={user}\"\n");
        out += "search (sign in as Carol, the auditor; or as anybody, to see one's own):\n";
        out += &format!("  {page}\n  {own} search '{SAMPLE_QUERY}'\n");
        out += "verify:\n";
        out += &format!("  {own} verify --dir {}\n", self.journal.display());
        out += "\nCtrl-C ends the demo";
        out += match &self.place {
            Place::Kept(_) => " and keeps its log.\n",
            Place::Temporary(_) => " and removes everything.\n",
        };
        {
            use std::io::Write;
            std::io::stdout().write_all(out.as_bytes()).context("could not print")?;
        }
        match &args.ready_file {
            Some(file) => self.write_ready_file(file),
            None => Ok(()),
        }
    }

    fn write_ready_file(&self, file: &Path) -> anyhow::Result<()> {
        let users: Vec<_> = shop::people()
            .iter()
            .map(|person| json!({"name": person.name, "email": person.email, "roles": person.roles}))
            .collect();
        let ready = json!({
            "postgres": {"host": self.postgres.ip(), "port": self.postgres.port(), "dbname": self.database},
            "http": {"url": self.http.as_str().trim_end_matches('/')},
            "issuer": {"url": self.issuer},
            "users": users,
            "dir": self.journal,
            "pid": std::process::id(),
        });
        // Aside and renamed: whoever waits for it never sees half of it.
        let aside = file.with_extension("part");
        std::fs::write(&aside, ready.to_string())
            .and_then(|()| std::fs::rename(&aside, file))
            .with_context(|| format!("could not write {}", file.display()))
    }

    /// Runs SQL as Ann and shows what was recorded.
    async fn exec(&self, sql: &str) -> anyhow::Result<ExitCode> {
        let mut config = tokio_postgres::Config::new();
        config.host(self.postgres.ip().to_string()).port(self.postgres.port()).dbname(&self.database);
        config.user(shop::ANN.email).application_name("pgwitness demo --exec");
        let client = postgres::connect(&config).await.context("could not connect through the gateway")?;
        let since = crate::clock::now();
        let answer = client.simple_query(sql).await;
        match &answer {
            Ok(messages) => messages.iter().for_each(print_message),
            Err(error) => eprintln!("pgwitness: {}", postgres::told(error)),
        }
        client.close().await;
        let record = self.find_record(since).await?;
        println!("{record:#}");
        Ok(if answer.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn find_record(&self, since: Timestamp) -> anyhow::Result<serde_json::Value> {
        let file = DemoFile::read()?.context("the demo's own file is gone")?;
        let client = Client::new(self.http.clone(), Some(Secret::new(file.token)))?;
        let query = format!("event:query user:{}", shop::ANN.email);
        let from = pgwitness_index::view::format_time(since);
        let deadline = tokio::time::Instant::now() + FOUND_WITHIN;
        while tokio::time::Instant::now() < deadline {
            let found = client
                .get("/api/v1/events", &[("q", Some(&query)), ("from", Some(&from)), ("limit", Some("100"))])
                .await?;
            let items = found["items"].as_array().map_or(&[][..], Vec::as_slice);
            if !items.is_empty() && items.iter().all(|item| item["running"] != true) {
                return Ok(found["items"].clone());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the record was not found within {} s", FOUND_WITHIN.as_secs())
    }

    async fn stop(self) {
        let Self { service, server, place, .. } = self;
        service.stop().await;
        if let Err(error) = DemoFile::remove() {
            tracing::debug!(%error, "could not remove the demo's file");
        }
        let stopped = tokio::task::spawn_blocking(move || server.map(PrivatePostgres::stop)).await;
        if let Ok(Some(Err(error))) = stopped {
            eprintln!("pgwitness: {error}");
        }
        drop(place);
    }
}

fn print_message(message: &tokio_postgres::SimpleQueryMessage) {
    if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
        let values: Vec<_> = (0..row.len()).map(|at| row.get(at).unwrap_or("")).collect();
        println!("{}", values.join("\t"));
    }
}

impl Place {
    fn make(keep: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(dir) = keep {
            std::fs::create_dir_all(dir).with_context(|| format!("could not make {}", dir.display()))?;
            return Ok(Self::Kept(dir.to_owned()));
        }
        let name = format!("pgwitness-demo-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).with_context(|| format!("could not make {}", dir.display()))?;
        Ok(Self::Temporary(dir))
    }

    fn path(&self) -> &Path {
        match self {
            Place::Kept(dir) | Place::Temporary(dir) => dir,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Place::Temporary(dir) = self {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// The port, or the next free one.
async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    for candidate in port..=port.saturating_add(PORTS_TRIED) {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, candidate)).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).context(format!("could not listen on 127.0.0.1:{candidate}")),
        }
    }
    bail!("no free port from {port} on, choose another with --port-base")
}

fn people() -> Vec<Person> {
    let person = |person: &shop::Person| Person {
        name: person.name.to_owned(),
        email: person.email.to_owned(),
        groups: person.groups.iter().map(|group| (*group).to_owned()).collect(),
    };
    shop::people().iter().map(person).collect()
}

async fn private_postgres() -> anyhow::Result<Behind> {
    let bin = postgres::find(None)?;
    eprintln!("starting a private PostgreSQL from {} …", bin.dir().display());
    let settings = postgres::Settings::default();
    let server = tokio::task::spawn_blocking(move || PrivatePostgres::start(&bin, settings)).await??;
    let shop = Shop::load(&server.config(server.superuser(), "postgres")).await?;
    let upstream = Upstream {
        name: "shop".into(),
        host: server.socket_dir().display().to_string(),
        port: server.port(),
        sslmode: SslMode::Disable,
        sslrootcert: None,
        databases: Vec::new(),
        catalog_refresh: Duration::from_secs(60),
        auth: vec![AuthMethod::Scram],
        channel_binding: ChannelBinding::default(),
        application_name: AppLabel::default(),
        credentials: shop.credentials(),
    };
    Ok(Behind {
        upstream,
        database: shop::DATABASE.into(),
        role_map: shop::role_map(),
        access: shop::access(),
        tags: shop::tags(),
        server: Some(server),
    })
}

/// Everybody becomes the role of the URL.
fn given_upstream(text: &str) -> anyhow::Result<Behind> {
    let Database { upstream, role, name } = Database::read(text, "--upstream")?;
    let everybody = RoleMapping {
        groups: Vec::new(),
        users: vec!["*".into()],
        databases: Vec::new(),
        roles: vec![role],
        ..RoleMapping::default()
    };
    let (role_map, access, tags) = (vec![everybody], shop::access(), shop::tags());
    Ok(Behind { upstream, database: name, role_map, access, tags, server: None })
}
