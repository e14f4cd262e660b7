//! The API and the page: who may read the log, and what they read of it.
//!
//! It answers from the search index and from [`Witness`]; it never writes the journal itself and
//! never reaches a database. Everybody reads their own records; an auditor reads all, and each such
//! read is recorded before it is answered: what cannot be recorded is not shown.
//!
//! - `api`: the routes below `/api/v1`.
//! - `auth`: from a request to a [`auth::Caller`]; sign-in of browsers is in `browser`.
//! - `approve`: the page on which a waiting login is approved.
//! - `audit`: the records about reading.
//! - `proof`: the signed head, and proofs.
//! - `page`: the embedded page and its content security policy.
//! - `serve`: connections and their bounds.

mod access;
mod api;
mod approve;
mod ask;
mod audit;
mod auth;
mod browser;
mod context;
mod erase;
mod expiring;
mod export;
mod forward;
mod health;
mod limits;
mod openapi;
mod page;
mod params;
mod problem;
mod proof;
mod serve;
mod sessions;
mod suggest;
mod tail;
mod terminate;
mod tokens;
mod when;

#[cfg(all(test, feature = "demo"))]
pub(crate) mod tests;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use pgwitness_index::journal::Values;
use pgwitness_index::record::{Record, Seq, Who};
use pgwitness_index::search::Search;
use serde_json::Value;
use tokio::sync::Semaphore;
use url::Url;

use crate::config::Access;
use crate::identity::{Approvals, MintedTokens, Pairings, Provider, Whose};
use crate::proving::Proofs;

pub use health::health;
pub use problem::Problem;
pub use serve::{serve, serve_tls};

/// Searches at work; more wait for a moment, then are refused.
const SEARCHES_MAX: usize = 8;

/// What the API needs of the gateway around it.
pub trait Witness: Send + Sync {
    /// Writes a record about reading (searches, exports, sign-ins). It may block; an error means
    /// that nothing is shown.
    fn record(&self, record: Record) -> Result<(), String>;
    /// The journal's head: `{"seq","frames","digest"}`.
    fn head(&self) -> Value;
    /// How the gateway is doing; holds no text of any record.
    fn status(&self) -> Value;
    /// The open database sessions, one object each.
    fn sessions(&self) -> Vec<Value>;
    /// What was erased of a record, when, by whom and why. It may block.
    fn erased(&self, seq: Seq) -> Result<Vec<Value>, String>;
    /// Erases values of a record; the record that says so. It blocks.
    fn erase(&self, erasure: Erasure) -> Result<Seq, NotErased>;
    /// Ends sessions at their next moment without a transaction, and what could open more of them. Says how many.
    fn end(&self, whose: &Whose) -> usize;
    /// Writes down which secrets open sessions, so that a restart knows. It may block.
    fn keep(&self) -> Result<(), String>;
}

/// What an administrator wants erased.
#[derive(Debug, Clone)]
pub struct Erasure {
    /// Of which record.
    pub seq: Seq,
    /// Which values.
    pub values: Values,
    /// Why.
    pub reason: String,
    /// Who wants it.
    pub who: Who,
}

/// Why it was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotErased {
    /// There is no such record any more.
    NoRecord,
    /// It may not, or cannot be; why.
    Refused(String),
    /// Not now; why.
    Unavailable(String),
}

/// How browsers reach us; decides the cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// By HTTPS, here or at a proxy in front: a `__Host-` cookie.
    Https,
    /// The demo's plain loopback: a cookie without `Secure`, and only loopback names in `Host`.
    PlainLoopback,
}

/// Everything the routes share.
pub struct Api {
    search: Search,
    provider: Provider,
    approvals: Option<Approvals>,
    minted: MintedTokens,
    pairings: Pairings,
    access: Access,
    public_url: Url,
    reach: Reach,
    warnings: Vec<String>,
    witness: Arc<dyn Witness>,
    proofs: Proofs,
    browsers: browser::Browsers,
    visits: approve::Visits,
    searching: Arc<Semaphore>,
    recent: audit::Recent,
    manifests: export::Manifests,
    limits: limits::Limits,
    hashed: Option<Hashed>,
}

/// How a parameter's value is written where only keyed hashes are kept.
pub type Hashed = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// What [`Api::new`] is made of.
pub struct Parts {
    /// The index.
    pub search: Search,
    /// The identity provider.
    pub provider: Provider,
    /// Logins that are approved at our page, if they are.
    pub approvals: Option<Approvals>,
    /// Minted tokens.
    pub minted: MintedTokens,
    /// Paired secrets.
    pub pairings: Pairings,
    /// Who may read all, and who operates.
    pub access: Access,
    /// How browsers reach us.
    pub public_url: Url,
    /// Which cookie.
    pub reach: Reach,
    /// What every search answer must say about itself.
    pub warnings: Vec<String>,
    /// The gateway around us.
    pub witness: Arc<dyn Witness>,
    /// The signed log.
    pub proofs: Proofs,
    /// How parameters are kept, if not as they are.
    pub hashed: Option<Hashed>,
}

impl Api {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            search: parts.search,
            provider: parts.provider,
            approvals: parts.approvals,
            minted: parts.minted,
            pairings: parts.pairings,
            access: parts.access,
            public_url: parts.public_url,
            reach: parts.reach,
            warnings: parts.warnings,
            witness: parts.witness,
            proofs: parts.proofs,
            browsers: browser::Browsers::new(),
            visits: approve::Visits::new(),
            searching: Arc::new(Semaphore::new(SEARCHES_MAX)),
            recent: audit::Recent::new(),
            manifests: export::Manifests::new(),
            limits: limits::Limits::new(),
            hashed: parts.hashed,
        })
    }
}

/// All routes, bounded and guarded.
pub fn router(api: Arc<Api>) -> Router {
    let routes = Router::new()
        .merge(api::routes())
        .merge(approve::routes())
        .merge(browser::routes())
        .merge(terminate::routes())
        .merge(tokens::routes())
        .merge(erase::routes())
        .merge(page::routes())
        .with_state(Arc::clone(&api))
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                axum::http::StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "this address has another method",
            )
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&api), auth::challenge))
        .layer(middleware::from_fn_with_state(api, auth::guard_host));
    serve::bounded(routes).layer(middleware::from_fn(serve::guard_headers))
}
