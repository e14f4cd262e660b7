//! The databases behind the gateway: which server serves a name, and what its catalog says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pgwitness_protocol::startup::{Decided, StartupMessage};
use tokio_util::task::TaskTracker;

use super::upstream::{Server, Upstream, UpstreamError};
use super::wanted::LOGIN_OPTION;
use crate::catalog::{self, Part, Schema, Stamps};
use crate::config::{self, Config};
use crate::grammar::Processes;
use crate::tls::TlsError;

/// A catalog that could not be loaded is not asked for again before this; each failure doubles it.
const FIRST_RETRY_AFTER: Duration = Duration::from_secs(1);
/// At most this.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Between two looks for changes that a function may have made, at least and at most: a session that calls functions all
/// the time must not make the gateway look all the time.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Within these, this many times what the last look took.
const LOOK_AGAIN_TIMES: u32 = 20;

/// The same for a statement that names a relation which is not known: it waits for the look, unless one was just made.
const LOOK_FOR_NAME_TIMES: u32 = 4;
const LOOK_FOR_NAME: Duration = Duration::from_millis(100);

/// A catalog load may take this long; then statements are analysed without.
const LOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What came with a server is read again after this, and when the server has another version.
const SYSTEM_REFRESH: Duration = Duration::from_secs(3600);

/// After a load its connection is kept this long, for the next change may follow: far shorter than the five seconds
/// that DROP DATABASE waits for others to leave.
const KEEP_CONNECTION: Duration = Duration::from_millis(500);

/// Catalogs kept, one a database.
const MAX_CATALOGS: usize = 256;

/// A database's catalog, and where its names are looked for.
#[derive(Debug)]
pub struct Looked {
    /// The catalog.
    pub schema: Schema,
    /// As SHOW tells it.
    pub search_path: String,
    /// The role that asked.
    pub role: String,
    /// The second reader.
    pub grammar: Processes,
}

/// Reads a database's catalog once, over a connection of its own.
///
/// # Errors
/// No connection, or a catalog that cannot be read; the text is for the operator.
pub async fn look_up(upstream: config::Upstream, role: &str, database: &str) -> Result<Looked, String> {
    const PATH: &str = "SHOW search_path";
    let server = Server::new(upstream, LOAD_TIMEOUT).map_err(|error| error.to_string())?;
    let asked = async {
        let mut connection = catalog_connection(&server, role, database).await?;
        let path = connection.ask(PATH).await?;
        Ok::<_, UpstreamError>((path, connection.ask(&catalog::statement(Part::All)).await?))
    };
    let (path, rows) = tokio::time::timeout(LOAD_TIMEOUT, asked)
        .await
        .map_err(|_| "the database did not answer in time".to_owned())?
        .map_err(|error| error.to_string())?;
    let schema = catalog::read(&rows).map_err(|error| error.to_string())?;
    Ok(Looked {
        schema,
        search_path: path.into_iter().flatten().flatten().next().unwrap_or_default(),
        role: role.to_owned(),
        grammar: Processes::default(),
    })
}

async fn catalog_connection(server: &Server, role: &str, database: &str) -> Result<Upstream, UpstreamError> {
    let credential = server
        .credential(role)
        .ok_or(UpstreamError::Authentication("the gateway has no credential for the role"))?;
    let parameters = [("application_name", "pgwitness catalog"), ("client_encoding", "UTF8")]
        .map(|(name, value)| (Bytes::from(name), Bytes::from(value)))
        .to_vec();
    let decided = Decided { user: role, database, application_name: None, own_option: LOGIN_OPTION };
    let packet = StartupMessage { minor: 0, parameters }.encode_for_server(&decided);
    server.connect(&packet, credential).await
}

/// All upstreams and their catalogs.
pub(super) struct Databases {
    servers: Vec<Arc<Server>>,
    catalogs: Mutex<HashMap<(String, String), Arc<Catalog>>>,
    tracker: TaskTracker,
}

/// What is known of one database, as of the last load.
pub(super) struct Catalog {
    server: Arc<Server>,
    /// `None`: there is none, and so nothing to load.
    database: Option<String>,
    state: Mutex<Known>,
    /// Counts everything that a session should look at: a change, a load.
    news: AtomicU64,
    /// One load at a time; the others wait for it.
    loading: tokio::sync::Mutex<Loader>,
    tracker: TaskTracker,
}

/// What one load leaves for the next.
#[derive(Default)]
struct Loader {
    /// What came with the server, and that server's version: most of a load, and hardly ever changed.
    system: Option<(Instant, String, Schema)>,
    /// The last load, and the stamps of its objects.
    last: Option<(Stamps, Schema)>,
    connection: Option<Upstream>,
    /// Counts loads.
    loads: u64,
}

#[derive(Default)]
struct Known {
    schema: Option<Arc<Schema>>,
    loaded: Option<Instant>,
    /// How long that took.
    took: Duration,
    /// When the last load failed, and how many have since one succeeded.
    failed: Option<(Instant, u32)>,
    /// Counts changes seen, so that a load that began before a change does not hide it.
    changes: u64,
    /// The value of `changes` that the schema includes.
    includes: u64,
    /// There may be a change that nobody saw.
    suspected: bool,
    /// A statement named a relation that is not in it.
    missed: bool,
}

/// A catalog as a session sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct Sight {
    /// As last loaded, if it was ever.
    pub(super) schema: Option<Arc<Schema>>,
    /// It has changed or grown old since, and could not be loaded.
    pub(super) outdated: bool,
}

impl Sight {
    /// Whether both show the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        let same = match (&self.schema, &other.schema) {
            (Some(one), Some(another)) => Arc::ptr_eq(one, another),
            (one, another) => one.is_none() && another.is_none(),
        };
        same && self.outdated == other.outdated
    }
}

impl Databases {
    pub(super) fn new(config: &Config, tracker: TaskTracker) -> Result<Self, TlsError> {
        let timeout = config.limits.connect_timeout;
        let servers = config
            .upstreams
            .iter()
            .map(|upstream| Server::new(upstream.clone(), timeout).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Self { servers, catalogs: Mutex::default(), tracker })
    }

    /// Reads the certificates of all upstreams again; says what could not be used.
    pub(super) fn reload(&self) -> Vec<String> {
        let reload = |server: &Arc<Server>| {
            let failed = server.reload().err()?;
            Some(format!("upstream \"{}\": {failed}", server.config.name))
        };
        self.servers.iter().filter_map(reload).collect()
    }

    /// The first upstream that serves a database.
    pub(super) fn server_for(&self, database: &str) -> Option<&Arc<Server>> {
        self.servers.iter().find(|server| server.serves(database))
    }

    pub(super) fn catalog(&self, server: &Arc<Server>, database: &str) -> Arc<Catalog> {
        let key = (server.config.name.clone(), database.to_owned());
        let mut catalogs = self.catalogs.lock().unwrap_or_else(PoisonError::into_inner);
        if catalogs.len() >= MAX_CATALOGS && !catalogs.contains_key(&key) {
            // Any that no session uses; sessions keep their own hold on theirs.
            catalogs.retain(|_, catalog| Arc::strong_count(catalog) > 1);
        }
        let tracker = || self.tracker.clone();
        catalogs
            .entry(key)
            .or_insert_with(|| Arc::new(Catalog::new(server, Some(database), tracker())))
            .clone()
    }
}

impl Catalog {
    fn new(server: &Arc<Server>, database: Option<&str>, tracker: TaskTracker) -> Self {
        Self {
            server: server.clone(),
            database: database.map(str::to_owned),
            state: Mutex::default(),
            news: AtomicU64::new(0),
            loading: tokio::sync::Mutex::default(),
            tracker,
        }
    }

    /// For a session that has no database.
    pub(super) fn none(server: &Arc<Server>) -> Arc<Self> {
        Arc::new(Self::new(server, None, TaskTracker::new()))
    }

    pub(super) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that differs when there is something to look at.
    pub(super) fn news(&self) -> u64 {
        self.news.load(Ordering::Acquire)
    }

    fn tell(&self) {
        self.news.fetch_add(1, Ordering::AcqRel);
    }

    /// What there is to see now.
    pub(super) fn sight(&self) -> Sight {
        let known = self.lock();
        let outdated = known.failed.is_some() && (self.is_aged(&known) || known.includes != known.changes);
        Sight { schema: known.schema.clone(), outdated }
    }

    fn is_aged(&self, known: &Known) -> bool {
        known.loaded.is_none_or(|at| at.elapsed() >= self.server.config.catalog_refresh)
    }

    /// Something in the database has changed, and others see it: the next statement waits for a fresh load.
    pub(super) fn changed(&self) {
        self.lock().changes += 1;
        self.tell();
    }

    /// Something in the database may have changed (a function was called): looked at, but not for
    /// each of a thousand calls a second.
    pub(super) fn may_have_changed(&self) {
        if !std::mem::replace(&mut self.lock().suspected, true) {
            self.tell();
        }
    }

    /// A statement names a relation that is not known: it may have been made past the gateway.
    pub(super) fn misses_a_name(&self) {
        self.lock().missed = true;
        self.tell();
    }

    /// Whether the schema must be loaded before the next statement is analysed.
    pub(super) fn is_stale(&self) -> bool {
        if self.database.is_none() {
            return false;
        }
        let known = self.lock();
        let wait =
            |times: u32| RETRY_AFTER.min(FIRST_RETRY_AFTER * 2u32.saturating_pow(times.saturating_sub(1)));
        if known.failed.is_some_and(|(at, times)| at.elapsed() < wait(times)) {
            return false;
        }
        let again = known.took.saturating_mul(LOOK_AGAIN_TIMES).clamp(LOOK_AGAIN.0, LOOK_AGAIN.1);
        let suspected = known.suspected && known.loaded.is_none_or(|at| at.elapsed() >= again);
        let pause = known.took.saturating_mul(LOOK_FOR_NAME_TIMES).min(LOOK_FOR_NAME);
        let missed = known.missed && known.loaded.is_none_or(|at| at.elapsed() >= pause);
        suspected || missed || self.is_aged(&known) || known.includes != known.changes
    }

    /// Loads the schema over a connection of the gateway's own, as `role`. A failure is logged and
    /// remembered: what was known stays, statements go on, marked as partly analysed.
    pub(super) async fn refresh(self: &Arc<Self>, role: &str) {
        let mut loader = self.loading.lock().await;
        if !self.is_stale() {
            return;
        }
        let (changes, suspected) = {
            let mut known = self.lock();
            known.missed = false;
            (known.changes, std::mem::take(&mut known.suspected))
        };
        let begun = Instant::now();
        let loaded = tokio::time::timeout(LOAD_TIMEOUT, self.load(role, &mut loader)).await;
        let mut known = self.lock();
        match loaded {
            Ok(Ok(schema)) => {
                let unchanged = known.schema.as_ref().is_some_and(|old| old.digest() == schema.digest());
                if !unchanged {
                    known.schema = Some(Arc::new(schema));
                }
                known.includes = changes;
                known.loaded = Some(Instant::now());
                known.took = begun.elapsed();
                known.failed = None;
            }
            failed => {
                let reason = match failed {
                    Ok(Err(reason)) => reason,
                    _ => "it took too long".to_owned(),
                };
                tracing::warn!(database = self.database, %reason, "could not load the catalog");
                let times = known.failed.map_or(0, |(_, times)| times);
                known.failed = Some((Instant::now(), times.saturating_add(1)));
                known.suspected |= suspected;
            }
        }
        drop(known);
        self.tell();
        if loader.connection.is_some() {
            self.leave(loader.loads);
        }
    }

    /// Closes the connection of a load if no other load has followed.
    fn leave(self: &Arc<Self>, load: u64) {
        let catalog = Arc::downgrade(self);
        self.tracker.spawn(async move {
            tokio::time::sleep(KEEP_CONNECTION).await;
            let Some(catalog) = catalog.upgrade() else { return };
            let mut loader = catalog.loading.lock().await;
            if loader.loads == load {
                loader.connection = None;
            }
        });
    }

    async fn load(&self, role: &str, loader: &mut Loader) -> Result<Schema, String> {
        let Some(database) = &self.database else { return Ok(Schema::default()) };
        loader.loads += 1;
        if let Some(mut kept) = loader.connection.take()
            && let Ok(schema) = loader.load(&mut kept).await
        {
            loader.connection = Some(kept);
            return Ok(schema);
        }
        let mut upstream =
            catalog_connection(&self.server, role, database).await.map_err(|error| error.to_string())?;
        let schema = loader.load(&mut upstream).await?;
        loader.connection = Some(upstream);
        Ok(schema)
    }
}

impl Loader {
    /// Loads what has changed, or all of it.
    async fn load(&mut self, upstream: &mut Upstream) -> Result<Schema, String> {
        let stamps = upstream.ask(Stamps::statement()).await.map_err(|error| error.to_string())?;
        let stamps = Stamps::read(&stamps).map_err(|error| error.to_string())?;
        let version = upstream.parameters.iter().find(|(name, _)| name == "server_version");
        let version = version.map(|(_, version)| version.clone()).unwrap_or_default();
        let fresh = |(at, of, _): &(Instant, String, Schema)| at.elapsed() < SYSTEM_REFRESH && *of == version;
        if !self.system.as_ref().is_some_and(fresh) {
            let known = part(upstream, Part::System, &Schema::default()).await?;
            self.system = Some((Instant::now(), version, known));
            self.last = None;
        }
        let since =
            |(older, schema): &(Stamps, Schema)| stamps.since(older).map(|changes| (changes, schema.clone()));
        let schema = match self.last.as_ref().and_then(since) {
            Some((changes, schema)) if changes.is_empty() => schema,
            Some((changes, schema)) => {
                part(upstream, Part::Changed(&changes), &schema.without(&changes)).await?
            }
            None => {
                let base = self.system.as_ref().map(|(_, _, schema)| schema.clone());
                part(upstream, Part::User, &base.unwrap_or_default()).await?
            }
        };
        self.last = Some((stamps, schema.clone()));
        Ok(schema)
    }
}

/// Asks for a part of the catalog, and reads it onto another.
async fn part(upstream: &mut Upstream, part: Part<'_>, base: &Schema) -> Result<Schema, String> {
    let rows = upstream.ask(&catalog::statement(part)).await.map_err(|error| error.to_string())?;
    // Reading ten thousand tables takes longer than a task may.
    tokio::task::block_in_place(|| catalog::read_onto(base, &rows)).map_err(|error| error.to_string())
}
