//! The running gateway: `run` and `demo` start the same parts in the same order.
//!
//! Journal first (what was open when the last process ended becomes `unknown`, a `gap` record says
//! that we were away), then its proof, then search, then identity, then the doors. At the end the other way round.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::OptionFuture;
use pgwitness_index::journal::{self, Journal, Recovery};
use pgwitness_index::record::{
    Completion, Entry, Event, Outcome, Record, Seq, Settlement, Timestamp, TxnOutcome, Who,
};
use pgwitness_index::storage::{DirStorage, Storage};
use pgwitness_index::view::format_time;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::clock;
use crate::config::{ClientCertificates, Config, ListenTls, TlsFiles, TlsVersion};
use crate::gateway::{self, Approver, Gateway, Workers};
use crate::http::{self, Api, Reach, Witness};
use crate::identity::{Keeping, KeptFault, Logins, MintedTokens, Pairings, Provider, Services, Whose};
use crate::indexing::{Forgetting, Indexing};
use crate::proving::{Anchors, Proofs, Proving};
use crate::recorder::{Recorder, RecorderThread};
use crate::retention::{self, Desk, Erase, Forget, NotErased, Retaining};
use crate::tls::{Door, Entrance, TlsError};

/// Beyond the drain of sessions, everything else gets this long.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

/// In the journal's folder: paired secrets and minted tokens, as hashes.
const LOGINS_FILE: &str = "logins";

/// Settlements of one entry.
const SETTLE_CHUNK: usize = 100_000;

/// Sockets, bound before anything else so that a busy port is told at once.
#[derive(Debug)]
pub struct Doors {
    /// For PostgreSQL clients.
    pub postgres: TcpListener,
    /// For the API and the page.
    pub http: TcpListener,
    /// For health and metrics.
    pub admin: Option<TcpListener>,
}

impl Doors {
    /// Binds the configured addresses.
    ///
    /// # Errors
    /// An address that is in use or not ours.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let bind = async |address: SocketAddr| {
            TcpListener::bind(address).await.with_context(|| format!("could not listen on {address}"))
        };
        Ok(Self {
            postgres: bind(config.listen.address).await?,
            http: bind(config.http.address).await?,
            admin: match config.admin {
                Some(address) => Some(bind(address).await?),
                None => None,
            },
        })
    }
}

/// A gateway that serves.
pub struct Service {
    gateway: Arc<Gateway>,
    page_tls: Option<Entrance>,
    recorder: Recorder,
    recorder_thread: RecorderThread,
    indexing: Indexing,
    proving: Proving,
    retaining: Retaining,
    anchoring: Option<JoinHandle<Anchors>>,
    minted: MintedTokens,
    provider: Provider,
    tracker: TaskTracker,
    stop: CancellationToken,
    drain_timeout: Duration,
    /// Last of all: sessions run on them.
    _workers: Arc<Workers>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("recorder", &self.recorder).finish_non_exhaustive()
    }
}

impl Service {
    /// Starts everything; serves when this returns.
    ///
    /// # Errors
    /// A journal that cannot be opened, TLS files, an index directory in use.
    pub async fn start(
        config: Config,
        doors: Doors,
        approver: Option<Arc<dyn Approver>>,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let tracker = TaskTracker::new();
        let (journal, storage, newest) = open_journal(&config.log.dir)?;
        let (recorder, recorder_thread) = Recorder::start(journal, config.log.durability)?;
        let (proving, proofs) =
            Proving::start(&config.log, log_host(&config), storage.clone(), recorder.clone())?;
        let anchoring = anchoring(&config, &proofs, &tracker, &stop)?;
        let (indexing, search) = Indexing::start(&config.index, storage.clone())?;
        let (retaining, desk) = retaining(&config, (storage, newest), &recorder, &proofs, &indexing)?;
        let Ways { logins, pairings, minted, services, keeping } = ways(&config, &recorder, &tracker, &stop)?;
        let provider = logins.provider().clone();
        let drain_timeout = config.limits.drain_timeout;
        let gateway = Gateway::new(gateway::Parts {
            config: config.clone(),
            recorder: recorder.clone(),
            logins: logins.clone(),
            pairings: pairings.clone(),
            minted: minted.clone(),
            services,
            approver,
            tracker: tracker.clone(),
            stop: stop.clone(),
        })?;
        let postgres = postgres_door(&config, &doors.postgres)?;
        let witness = Arc::new(House::of(&recorder, &gateway, &proofs, (keeping, postgres, desk)));
        let public_url = public_url(&config, &doors.http)?;
        let reach = if is_plain_loopback(&public_url) { Reach::PlainLoopback } else { Reach::Https };
        let api = Api::new(http::Parts {
            search,
            provider: provider.clone(),
            approvals: logins.page().cloned(),
            minted: minted.clone(),
            pairings,
            access: config.access.clone(),
            public_url,
            reach,
            warnings: indexing.warnings(),
            witness: witness.clone(),
            proofs,
            hashed: gateway::as_kept(&config.capture),
        });
        let router = http::router(api);
        let page_tls = config.http.tls.clone().map(page_entrance).transpose()?;
        serve_page(doors.http, page_tls.as_ref(), router, &tracker, &stop);
        if let Some(admin) = doors.admin {
            tracker.spawn(http::serve(admin, http::health(witness), tracker.clone(), stop.clone()));
        }
        let workers = Arc::new(Workers::start(config.limits.relay_threads)?);
        tracker.spawn(gateway::serve(gateway.clone(), doors.postgres, workers.clone()));
        Ok(Self {
            gateway,
            page_tls,
            recorder,
            recorder_thread,
            indexing,
            proving,
            retaining,
            anchoring,
            minted,
            provider,
            tracker,
            stop,
            drain_timeout,
            _workers: workers,
        })
    }

    /// Reads certificates again; what cannot be used stays as it was, and is told in log and record.
    pub fn reload(&self) {
        let page = self.page_tls.as_ref().and_then(|tls| Some(format!("http: {}", tls.reload().err()?)));
        self.gateway.reload(page.into_iter().collect());
    }

    /// Tokens minted here.
    pub fn minted(&self) -> &MintedTokens {
        &self.minted
    }

    /// The identity provider as the gateway knows it.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    /// The gate to the journal.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Refuses new clients, lets sessions come to an end, writes everything down.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tracker.close();
        let deadline = self.drain_timeout + LAST_MOMENTS;
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_err() {
            tracing::warn!(left = self.tracker.len(), "sessions did not end in time");
        }
        let Self { recorder_thread, indexing, proving, retaining, anchoring, .. } = self;
        let closed = tokio::task::spawn_blocking(move || {
            retaining.stop();
            recorder_thread.close();
            proving.stop();
            indexing.stop();
        });
        if closed.await.is_err() {
            tracing::error!("could not close the journal in order");
        }
        if let Some(Ok(mut anchors)) = OptionFuture::from(anchoring).await
            && tokio::time::timeout(LAST_MOMENTS, anchors.keep()).await.is_err()
        {
            tracing::warn!("the log's last head was not anchored everywhere in time");
        }
    }
}

fn serve_page(
    door: TcpListener,
    tls: Option<&Entrance>,
    router: axum::Router,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    match tls {
        None => {
            tracker.spawn(http::serve(door, router, tracker.clone(), stop.clone()));
        }
        Some(entrance) => {
            let acceptor = tokio_rustls::TlsAcceptor::from(entrance.now());
            tracker.spawn(http::serve_tls(door, acceptor, router, tracker.clone(), stop.clone()));
        }
    }
}

fn provider_of(config: &Config) -> anyhow::Result<Provider> {
    Ok(Provider::new(config.oidc.clone())?
        .with_pending_limit(config.limits.max_pending_logins.0)
        .with_workloads(&config.workloads)?)
}

/// Drops what is due.
fn retaining(
    config: &Config,
    (storage, newest): (Arc<dyn Storage>, Option<Timestamp>),
    recorder: &Recorder,
    proofs: &Proofs,
    indexing: &Indexing,
) -> anyhow::Result<(Retaining, Desk)> {
    Ok(Retaining::start(retention::Parts {
        config: config.retention.clone(),
        kept_as: gateway::as_kept(&config.capture),
        storage,
        recorder: recorder.clone(),
        proofs: proofs.clone(),
        forget: Arc::new(IndexForgets(indexing.forgetting())),
        newest,
    })?)
}

/// Keeps heads elsewhere, if the configuration says where.
fn anchoring(
    config: &Config,
    proofs: &Proofs,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Option<JoinHandle<Anchors>>> {
    let Some(anchor) = &config.log.anchor else { return Ok(None) };
    let anchors = Anchors::new(anchor, proofs.clone())?;
    Ok(Some(tracker.spawn(anchors.run(stop.clone()))))
}

/// What a new log is called after.
fn log_host(config: &Config) -> &str {
    config.http.public_url.as_ref().and_then(Url::host_str).unwrap_or("pgwitness.local")
}

fn page_entrance(files: TlsFiles) -> Result<Entrance, TlsError> {
    Entrance::open(Door {
        files,
        alpn: &[b"http/1.1"],
        least: TlsVersion::default(),
        clients: ClientCertificates::Off,
    })
}

/// The journal, where it is, and its newest record as it was found.
type OpenedJournal = (Journal, Arc<dyn Storage>, Option<Timestamp>);

/// Opens the journal and settles what the last process left open.
fn open_journal(dir: &Path) -> anyhow::Result<OpenedJournal> {
    let storage: Arc<dyn Storage> = Arc::new(
        DirStorage::create(dir)
            .with_context(|| format!("could not open the journal in {}", dir.display()))?,
    );
    let (mut journal, recovery) = Journal::open(storage.clone(), journal::Options::default())
        .with_context(|| format!("could not open the journal in {}", dir.display()))?;
    // Sessions that did not end in time leave records open even in an orderly end.
    if !recovery.clean || !recovery.open.is_empty() || !recovery.unsettled.is_empty() {
        settle_gap(&mut journal, &recovery).context("could not write what was left open to the journal")?;
    }
    Ok((journal, storage, recovery.last_time))
}

fn settle_gap(journal: &mut Journal, recovery: &Recovery) -> Result<(), journal::JournalError> {
    for chunk in recovery.open.chunks(SETTLE_CHUNK) {
        let ends = chunk.iter().map(|seq| {
            let lost = Completion::new(Outcome::Unknown, TxnOutcome::Unknown);
            Entry::Completion(Completion {
                seq: *seq,
                error: "the gateway ended before the database answered".into(),
                ..lost
            })
        });
        journal.append(&ends.collect::<Vec<_>>())?;
    }
    for chunk in recovery.unsettled.chunks(SETTLE_CHUNK) {
        let settlement = Settlement { seqs: chunk.to_vec(), txn_outcome: TxnOutcome::Unknown };
        journal.append(&[Entry::Settlement(settlement)])?;
    }
    let time = clock::now();
    let detail = format!(
        "the gateway was away; {} statements had no end, {} transactions' ends were not seen, {} bytes were torn",
        recovery.open.len(),
        recovery.unsettled.len(),
        recovery.torn_bytes
    );
    let gap = Record {
        id: clock::new_id(time),
        time,
        event: Event::Gap,
        who: Arc::new(Who::default()),
        sql: None,
        shape: None,
        params: Vec::new(),
        detail,
        done: Some(Completion::new(Outcome::Unknown, TxnOutcome::None)),
    };
    journal.append(&[Entry::Record(Box::new(gap))])?;
    journal.sync_task().run().map(|_| ())
}

fn public_url(config: &Config, http: &TcpListener) -> anyhow::Result<Url> {
    match &config.http.public_url {
        Some(url) => Ok(url.clone()),
        None => {
            let scheme = if config.http.tls.is_some() { "https" } else { "http" };
            let address = http.local_addr()?;
            Ok(Url::parse(&format!("{scheme}://{address}"))?)
        }
    }
}

fn is_plain_loopback(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "http" && loopback
}

/// The ways in.
struct Ways {
    logins: Logins,
    pairings: Pairings,
    minted: MintedTokens,
    services: Services,
    keeping: Arc<Keeping>,
}

/// Opens the ways in: what the provider, the configuration and the last process know.
fn ways(
    config: &Config,
    recorder: &Recorder,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Ways> {
    let logins =
        Logins::new(provider_of(config)?, config.http.public_url.as_ref(), config.limits.max_pending_logins);
    let minted = MintedTokens::new();
    let pairings = Pairings::new(tracker.clone(), stop.clone());
    let keeping = keeping(config, &pairings, &minted, recorder)?;
    tracker.spawn(keeping.clone().run(stop.clone()));
    let services = Services::new(&config.services, config.oidc.session_max_age)?;
    Ok(Ways { logins, pairings, minted, services, keeping })
}

/// What opens sessions after a restart. What cannot be trusted is told in log and record, and opens nothing.
fn keeping(
    config: &Config,
    pairings: &Pairings,
    minted: &MintedTokens,
    recorder: &Recorder,
) -> anyhow::Result<Arc<Keeping>> {
    let file = config.log.dir.join(LOGINS_FILE);
    let (keeping, read) = Keeping::open(file, pairings, minted);
    if let Err(fault) = read {
        let file = keeping.file().display();
        tracing::error!(%fault, %file, "kept logins cannot be trusted: they are over, everybody approves anew");
        recorder.note(kept_refused(&fault)).context("could not record that kept logins are over")?;
    }
    keeping.save().with_context(|| format!("could not write {}", keeping.file().display()))?;
    Ok(Arc::new(keeping))
}

fn kept_refused(fault: &KeptFault) -> Record {
    let time = clock::now();
    let mut done = Completion::new(Outcome::Error, TxnOutcome::None);
    done.error = format!("the file that kept them cannot be trusted: {fault}");
    Record {
        id: clock::new_id(time),
        time,
        event: Event::LoginRevoked,
        who: Arc::new(Who::default()),
        sql: None,
        shape: None,
        params: Vec::new(),
        detail: "ended all paired secrets and minted tokens from before the start".into(),
        done: Some(done),
    }
}

/// How a PostgreSQL client reaches us: the port, and whether with TLS.
fn postgres_door(config: &Config, door: &TcpListener) -> anyhow::Result<Value> {
    let tls = match config.listen.tls {
        ListenTls::Off => "off",
        ListenTls::Allow(_) => "allow",
        ListenTls::Require(_) => "require",
    };
    Ok(json!({ "port": door.local_addr()?.port(), "tls": tls }))
}

/// What the API sees of the gateway.
struct House {
    recorder: Recorder,
    gateway: Arc<Gateway>,
    proofs: Proofs,
    keeping: Arc<Keeping>,
    postgres: Value,
    desk: Desk,
}

impl House {
    fn of(
        recorder: &Recorder,
        gateway: &Arc<Gateway>,
        proofs: &Proofs,
        (keeping, postgres, desk): (Arc<Keeping>, Value, Desk),
    ) -> Self {
        let (recorder, gateway, proofs) = (recorder.clone(), Arc::clone(gateway), proofs.clone());
        Self { recorder, gateway, proofs, keeping, postgres, desk }
    }
}

/// Retention tells the index what to forget.
struct IndexForgets(Arc<Forgetting>);

impl Forget for IndexForgets {
    fn announce(&self) -> std::io::Result<()> {
        self.0.announce()
    }

    fn forget(&self) {
        self.0.forget();
    }
}

impl Witness for House {
    fn record(&self, record: Record) -> Result<(), String> {
        self.recorder.note(record).map(|_| ()).map_err(|error| error.to_string())
    }

    fn head(&self) -> Value {
        self.recorder.head().and_then(|head| serde_json::to_value(head).ok()).unwrap_or(Value::Null)
    }

    fn status(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "recording": self.recorder.failure().is_none(),
            "failed_syncs": self.recorder.failed_syncs(),
            "log_seq": self.recorder.last_seq().0,
            "sessions": self.gateway.live_sessions().list().len(),
            "accuracy": self.gateway.accuracy(),
            "proof": self.proofs.status(),
            "postgres": self.postgres,
            "retention": self.desk.status(),
        })
    }

    fn erased(&self, seq: Seq) -> Result<Vec<Value>, String> {
        self.desk.erased(seq).map_err(|error| error.to_string())
    }

    fn erase(&self, erasure: http::Erasure) -> Result<Seq, http::NotErased> {
        let http::Erasure { seq, values, reason, who } = erasure;
        self.desk.erase(Erase { seq, values, reason, who }).map_err(|error| {
            let message = error.to_string();
            match error {
                NotErased::NoRecord => http::NotErased::NoRecord,
                NotErased::Held | NotErased::Running | NotErased::Nothing => {
                    http::NotErased::Refused(message)
                }
                NotErased::Busy(_) | NotErased::Failed => http::NotErased::Unavailable(message),
            }
        })
    }

    fn sessions(&self) -> Vec<Value> {
        let session = |live: &gateway::LiveSession| {
            let who = &live.who;
            json!({
                "session": who.session, "user": who.user, "role": who.role, "db": who.db,
                "upstream": who.upstream, "ip": who.ip, "app": who.app, "device": who.device, "pid": live.pid,
                "sub": who.sub, "iss": who.iss, "login": who.login,
                "since": format_time(live.since), "since_us": live.since.0,
            })
        };
        self.gateway.live_sessions().list().iter().map(session).collect()
    }

    fn end(&self, whose: &Whose) -> usize {
        self.gateway.end_sessions(whose)
    }

    fn keep(&self) -> Result<(), String> {
        self.keeping.save().map_err(|error| error.to_string())
    }
}
