//! Records about reading the log: who looked for what, written before the answer is given.
//!
//! A page that refreshes itself and the bars above a table repeat one search; they are covered by
//! its record for [`REPEAT_LIFE`]. A search that a person starts is always recorded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;
use pgwitness_index::export::Summary;
use pgwitness_index::record::{Completion, Event, Outcome, Record, TxnOutcome, Who};
use uuid::Uuid;

use super::auth::Caller;
use super::problem::Problem;
use super::{Api, when};
use crate::identity::Principal;

/// A search's repetitions are covered by its record for this long.
const REPEAT_LIFE: Duration = Duration::from_secs(60);
/// Searches remembered for that.
const REPEAT_MAX: u64 = 10_000;

/// Searches recorded a moment ago.
pub(super) struct Recent(Cache<String, ()>);

impl Recent {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(REPEAT_MAX).time_to_live(REPEAT_LIFE).build())
    }
}

/// One reading of the log.
pub(super) struct Reading {
    /// Search or export.
    pub(super) event: Event,
    /// What was asked, as the caller wrote it: query, from, to, place in the list.
    pub(super) asked: String,
    /// Whether the caller's program repeats a search by itself.
    pub(super) repeated: Repeated,
    /// How many records the answer holds, if known before it is sent.
    pub(super) found: Option<u64>,
    /// When the work began.
    pub(super) began: Instant,
}

/// Who started a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeated {
    /// A person.
    No,
    /// A program, after a person did.
    Yes,
}

/// Records a reading of other people's records. It may block. What cannot be recorded is not shown.
pub(super) fn read(api: &Api, caller: &Caller, reading: Reading) -> Result<(), Problem> {
    if !caller.access.reads_all() {
        return Ok(());
    }
    let who = &caller.principal;
    let key = format!("{}\n{}\n{}\n{}", who.iss(), who.sub(), reading.event, reading.asked);
    if reading.repeated == Repeated::Yes && api.recent.0.contains_key(&key) {
        return Ok(());
    }
    let mut done = Completion::new(Outcome::Ok, TxnOutcome::None);
    done.rows = reading.found;
    done.duration_us = u64::try_from(reading.began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let who = who_of(who, &caller.ip, &caller.agent);
    record(api, entry(reading.event, who, format!("read {}", reading.asked), done))?;
    api.recent.0.insert(key, ());
    Ok(())
}

/// Records the beginning of an export, or with a summary its end, whoever's records it holds: they
/// leave the house. It may block. Returns the record's id.
pub(super) fn export(
    api: &Api,
    caller: &Caller,
    detail: String,
    summary: Option<&Summary>,
) -> Result<Uuid, Problem> {
    let who = who_of(&caller.principal, &caller.ip, &caller.agent);
    let mut done = Completion::new(Outcome::Ok, TxnOutcome::None);
    if let Some(summary) = summary {
        (done.rows, done.bytes) = (Some(summary.rows), summary.bytes);
    }
    let entry = entry(Event::AuditExport, who, detail, done);
    let id = entry.id;
    record(api, entry)?;
    Ok(id)
}

/// The record of something that a caller did.
pub(super) fn deed(event: Event, caller: &Caller, detail: String, done: Completion) -> Record {
    entry(event, who_of(&caller.principal, &caller.ip, &caller.agent), detail, done)
}

/// The record of what a person did in a browser without being signed in to the page; `from` is its address and name.
pub(super) fn of_browser(
    event: Event,
    principal: &Principal,
    from: (&str, &str),
    detail: String,
    done: Completion,
) -> Record {
    entry(event, who_of(principal, from.0, from.1), detail, done)
}

/// The record of a browser's sign-in.
pub(super) fn signed_in(principal: &Principal, ip: &str, agent: &str) -> Record {
    let done = Completion::new(Outcome::Ok, TxnOutcome::None);
    entry(Event::LoginOk, who_of(principal, ip, agent), "signed in to the page".to_owned(), done)
}

/// Writes a record off the runtime's threads.
pub(super) async fn write(api: &Arc<Api>, entry: Record) -> Result<(), Problem> {
    let api = Arc::clone(api);
    tokio::task::spawn_blocking(move || record(&api, entry)).await.map_err(|_| Problem::internal())?
}

fn record(api: &Api, entry: Record) -> Result<(), Problem> {
    api.witness.record(entry).map_err(|error| {
        tracing::error!(%error, "could not record a reading of the log; the answer was withheld");
        Problem::unavailable(
            "reading the log could not be recorded, so nothing is shown. The gateway's log says why",
        )
    })
}

fn entry(event: Event, who: Who, detail: String, done: Completion) -> Record {
    Record {
        id: Uuid::now_v7(),
        time: when::now(),
        event,
        who: Arc::new(who),
        sql: None,
        shape: None,
        params: Vec::new(),
        detail,
        done: Some(done),
    }
}

/// Who a caller is, in a record.
pub(super) fn who_of(principal: &Principal, ip: &str, agent: &str) -> Who {
    Who {
        user: principal.user().to_owned(),
        sub: principal.sub().to_owned(),
        iss: principal.iss().to_owned(),
        groups: principal.groups().to_vec(),
        login: principal.login().to_owned(),
        auth: principal.auth(),
        ip: ip.to_owned(),
        app: agent.to_owned(),
        ..Who::default()
    }
}
