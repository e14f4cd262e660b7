//! Connections: accepting them, finding out who is there, relaying, and recording.
//!
//! One task owns a client and its database connection from the first byte to the last. What it
//! never does: forward something that is executed without a [`crate::recorder::Receipt`], change a
//! byte of what it forwards, or tell a client an internal error.

mod accuracy;
mod cancel;
mod capture;
mod chronicle;
mod databases;
mod drain;
mod explaining;
mod greeting;
mod identifying;
mod listener;
mod live;
mod lockout;
mod params;
mod plans;
mod proof;
mod reading;
mod refusals;
mod relay;
mod renewing;
mod session;
mod startup;
mod state;
mod stream;
mod transaction;
mod upstream;
mod walsender;
mod wanted;
mod workers;

use std::sync::Arc;

use pgwitness_index::record::{Completion, Event, Outcome, Record, TxnOutcome, Who};
use pgwitness_protocol::reply::{Say, Severity};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::config::{Config, ListenTls, LoginRule, RoleMapping};
use crate::identity::{Logins, MintedTokens, Pairings, Principal, Provider, Services, Whose};
use crate::recorder::Recorder;
use crate::tls::{self, Door, Entrance, TlsError};
use accuracy::Accuracy;
use cancel::CancelKeys;
use databases::Databases;
use drain::Drain;
use lockout::Lockout;
use reading::Readings;
use refusals::Refusals;
use renewing::Renewing;

pub use capture::{AsKept, as_kept};
pub use databases::{Looked, look_up};
pub use explaining::Explaining;
pub use listener::serve;
pub use live::{LiveSession, LiveSessions};
pub use workers::Workers;

/// Everything that sessions share. Each part is cheap to clone or behind this one `Arc`.
pub struct Gateway {
    config: Config,
    recorder: Recorder,
    provider: Provider,
    logins: Logins,
    pairings: Pairings,
    minted: MintedTokens,
    services: Services,
    databases: Databases,
    readings: Readings,
    accuracy: Accuracy,
    cancel_keys: CancelKeys,
    refusals: Refusals,
    live: LiveSessions,
    lockout: Lockout,
    renewing: Renewing,
    tls: Option<Entrance>,
    /// One for each client that may be there at a time.
    places: Semaphore,
    approver: Option<Arc<dyn Approver>>,
    tracker: TaskTracker,
    stop: CancellationToken,
    drain: Drain,
}

/// Approves device logins in place of a person (the demo's `--auto-approve`).
pub trait Approver: Send + Sync {
    /// Approves the login with this link and code for whoever the startup message named.
    fn approve(&self, link: &str, user_code: &str, startup_user: &str);
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The parts that a gateway is made of, made by whoever starts it.
pub struct Parts {
    /// What the operator wrote.
    pub config: Config,
    /// The gate to the journal.
    pub recorder: Recorder,
    /// How logins by link and code begin.
    pub logins: Logins,
    /// Paired secrets.
    pub pairings: Pairings,
    /// Tokens minted here.
    pub minted: MintedTokens,
    /// Accounts that log in by password.
    pub services: Services,
    /// Approves logins by itself, in the demo.
    pub approver: Option<Arc<dyn Approver>>,
    /// Waits for the tasks at shutdown.
    pub tracker: TaskTracker,
    /// Tells the tasks to end.
    pub stop: CancellationToken,
}

impl Gateway {
    /// Puts the parts together; nothing is dialled yet.
    ///
    /// # Errors
    /// TLS files that cannot be used.
    pub fn new(parts: Parts) -> Result<Arc<Self>, TlsError> {
        let Parts { config, recorder, logins, pairings, minted, services, approver, tracker, stop } = parts;
        let tls = match &config.listen.tls {
            ListenTls::Off => None,
            ListenTls::Allow(files) | ListenTls::Require(files) => Some(Entrance::open(Door {
                files: files.clone(),
                alpn: &[tls::ALPN],
                least: config.listen.tls_min_version,
                clients: config.listen.tls_clients.clone(),
            })?),
        };
        let databases = Databases::new(&config, tracker.clone())?;
        Ok(Arc::new(Self {
            readings: Readings::new(config.capture.tags.clone()),
            accuracy: Accuracy::default(),
            databases,
            cancel_keys: CancelKeys::default(),
            refusals: Refusals::default(),
            live: LiveSessions::default(),
            lockout: Lockout::new(config.limits.login_failures),
            renewing: Renewing::default(),
            places: Semaphore::new(config.listen.max_clients.min(Semaphore::MAX_PERMITS)),
            config,
            recorder,
            provider: logins.provider().clone(),
            logins,
            pairings,
            minted,
            services,
            tls,
            approver,
            tracker,
            stop,
            drain: Drain::default(),
        }))
    }

    /// How our reading of statements compares with the server's word.
    pub fn accuracy(&self) -> serde_json::Value {
        self.accuracy.report()
    }

    /// Sessions that are open now.
    pub fn live_sessions(&self) -> &LiveSessions {
        &self.live
    }

    /// Ends sessions, and what could open more of them: for more than one session also paired secrets,
    /// minted tokens and the provider's own.
    /// Says how many sessions there were.
    pub fn end_sessions(&self, whose: &Whose) -> usize {
        self.revoke(whose);
        let words = Say::new(Severity::Fatal, "57P01", "this session was ended by an administrator")
            .hint("Connect again to log in, if you may.");
        self.live.end(whose, &words)
    }

    /// What could open more sessions ends.
    fn revoke(&self, whose: &Whose) {
        let meant = |principal: &Principal| whose.means(principal);
        self.pairings.revoke(meant);
        self.minted.revoke_all(meant);
        self.provider.revoke(whose);
    }

    /// Reads the certificates again, and records that, with the mistakes found here or by the caller. What
    /// cannot be used stays as it was; sessions go on.
    pub fn reload(&self, mut mistakes: Vec<String>) {
        mistakes.extend(self.tls.as_ref().and_then(|tls| Some(format!("listen: {}", tls.reload().err()?))));
        mistakes.extend(self.databases.reload());
        let outcome = if mistakes.is_empty() { Outcome::Ok } else { Outcome::Error };
        for mistake in &mistakes {
            tracing::error!(%mistake, "could not read certificates again: what was there stays");
        }
        if mistakes.is_empty() {
            tracing::info!("certificates were read again");
        }
        let who = Arc::new(Who::default());
        self.note(Event::ConfigReload, outcome, &who, "certificates".into(), mistakes.join("; "));
    }

    fn role_map(&self) -> &[RoleMapping] {
        &self.config.role_map
    }

    fn login_rules(&self) -> &[LoginRule] {
        &self.config.login
    }

    /// Records something that is over at once. A failure to record is logged here; the callers
    /// refuse whatever it was about anyway, or have nothing to refuse.
    fn note(&self, event: Event, outcome: Outcome, who: &Arc<Who>, detail: String, error: String) -> bool {
        let done = Completion { error, ..Completion::new(outcome, TxnOutcome::None) };
        let noted = self.recorder.note(event_record(event, who.clone(), detail, Some(done)));
        if let Err(error) = &noted {
            tracing::error!(event = event.as_str(), %error, "could not record");
        }
        noted.is_ok()
    }
}

/// A record of something that is not a statement.
fn event_record(event: Event, who: Arc<Who>, detail: String, done: Option<Completion>) -> Record {
    let time = clock::now();
    Record {
        id: clock::new_id(time),
        time,
        event,
        who,
        sql: None,
        shape: None,
        params: Vec::new(),
        detail,
        done,
    }
}
