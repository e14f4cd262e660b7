//! `GET /api/v1/events/tail`: records as they come, oldest first, as server-sent events (WHATWG HTML,
//! section 9.2).
//!
//! An `event: record` carries one record. A statement that still runs is held back until it ended or
//! [`HOLD`] has passed; then it is sent as it stands, and once more when it ended. `id` is how far the
//! log was sent completely: who comes again with it as `Last-Event-ID` misses nothing, and may see
//! records once more that ended out of order (they have the same `id` of their own).
//!
//! Bounds: the client pulls, so a slow one lags behind the log and nothing piles up; one look reads at
//! most [`PAGE`] records; at most [`HELD_MAX`] running statements are watched, more are sent as they
//! stand. A comment line each [`HEARTBEAT`] keeps the connection. It ends with the caller's login,
//! and when the gateway stops.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use pgwitness_index::record::{Event, Seq};
use pgwitness_index::search::{Count, Query, Scope, Window};
use pgwitness_index::view::{View, chosen, is_running};
use serde_json::{Value, json};

use super::Api;
use super::api::{failed, searching};
use super::ask::{self, Ask};
use super::audit::{self, Reading, Repeated};
use super::auth::Caller;
use super::limits::Place;
use super::params::Params;
use super::problem::Problem;
use super::serve::Stopping;

/// Parameters.
pub(super) const PARAMS: &[&str] = &["q", "fields", "after"];
/// Between two looks at a log that has nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two looks at statements that run.
const HELD_EVERY: Duration = Duration::from_millis(500);
/// A running statement is sent after this time, ended or not.
const HOLD: Duration = Duration::from_secs(5);
/// A quiet connection carries a comment this often.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Records of one look.
const PAGE: usize = 500;
/// Running statements watched for their end.
const HELD_MAX: usize = 1_000;

pub(super) async fn tail(
    State(api): State<Arc<Api>>,
    caller: Caller,
    stopping: Option<Extension<Stopping>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let params = Params::from_url(query.as_deref(), PARAMS)?;
    let resumed = last_event_id(&headers)?;
    let after = resumed.or(params.number("after", 0, u64::MAX)?);
    let ask = Ask::read(&api, &params.without("after"))?;
    let place = api.limits.tail(&caller.share)?;
    let reading = Reading {
        event: Event::AuditSearch,
        asked: format!("{} [tail]", ask.asked()),
        repeated: if resumed.is_some() { Repeated::Yes } else { Repeated::No },
        found: None,
        began: ask.began,
    };
    let recorder = caller.clone();
    let newest = searching(&api, &caller, move |api| {
        audit::read(api, &recorder, reading)?;
        Ok(api.search.newest())
    })
    .await?;
    let tail = Tail {
        watch: Some(Watch::after(after.map_or(newest, |after| Seq(after).min(newest)))),
        scope: caller.scope(),
        query: Arc::new(ask.query),
        fields: ask.fields,
        api,
        caller,
        said: Instant::now(),
        stopping: stopping.map(|Extension(stopping)| stopping),
        _place: place,
    };
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((kind, Body::from_stream(stream::try_unfold(Step::Open(Box::new(tail)), next))).into_response())
}

/// The position in `Last-Event-ID`.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id").filter(|value| !value.is_empty()) else { return Ok(None) };
    let position = value.to_str().ok().and_then(|text| text.parse().ok());
    position
        .map(Some)
        .ok_or_else(|| Problem::bad_request("Last-Event-ID is not one of ours. Start again without it"))
}

/// One client's tail.
struct Tail {
    api: Arc<Api>,
    caller: Caller,
    scope: Scope,
    query: Arc<Query>,
    fields: Vec<String>,
    /// Away while a look is at work.
    watch: Option<Watch>,
    said: Instant,
    stopping: Option<Stopping>,
    _place: Place,
}

enum Step {
    Open(Box<Tail>),
    Over,
}

async fn next(step: Step) -> io::Result<Option<(String, Step)>> {
    let Step::Open(mut tail) = step else { return Ok(None) };
    loop {
        if tail.caller.principal.expires() <= SystemTime::now() {
            return Ok(Some((ending("the login has ended"), Step::Over)));
        }
        let text = tail.look().await?;
        if !text.is_empty() {
            tail.said = Instant::now();
            return Ok(Some((text, Step::Open(tail))));
        }
        if tail.said.elapsed() >= HEARTBEAT {
            tail.said = Instant::now();
            return Ok(Some((":\n\n".to_owned(), Step::Open(tail))));
        }
        // Both arms are cancel safe.
        tokio::select! {
            () = Stopping::wait(tail.stopping.as_ref()) => {
                return Ok(Some((ending("the gateway stops"), Step::Over)));
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn ending(why: &str) -> String {
    format!("event: end\ndata: {}\n\n", json!({ "reason": why }))
}

impl Tail {
    /// What is to be sent now; empty if there is nothing.
    async fn look(&mut self) -> io::Result<String> {
        let Some(mut watch) = self.watch.take() else { return Ok(String::new()) };
        if !watch.is_due(self.api.search.newest(), Instant::now()) {
            self.watch = Some(watch);
            return Ok(String::new());
        }
        let (query, scope) = (Arc::clone(&self.query), self.scope.clone());
        let looked = searching(&self.api, &self.caller, move |api| {
            let views = watch.look(api, &query, &scope, Instant::now())?;
            Ok((watch, views))
        });
        let (watch, views) = looked.await.map_err(|problem| io::Error::other(problem.detail().to_owned()))?;
        let low = watch.low();
        self.watch = Some(watch);
        let one = |view| {
            format!("id: {low}\nevent: record\ndata: {}\n\n", Value::Object(chosen(view, &self.fields)))
        };
        Ok(views.into_iter().map(one).collect())
    }
}

/// How far the log was read, and what of it still runs.
struct Watch {
    seen: Seq,
    held: BTreeMap<u64, Held>,
    held_looked: Option<Instant>,
}

/// A statement that runs.
struct Held {
    since: Instant,
    sent: bool,
}

impl Watch {
    fn after(seen: Seq) -> Self {
        Self { seen, held: BTreeMap::new(), held_looked: None }
    }

    /// Everything up to here was sent as it ended, or did not match.
    fn low(&self) -> u64 {
        self.held.keys().next().map_or(self.seen.0, |first| first - 1)
    }

    fn is_due(&self, newest: Seq, now: Instant) -> bool {
        newest > self.seen || self.held_are_due(now)
    }

    fn held_are_due(&self, now: Instant) -> bool {
        !self.held.is_empty() && self.held_looked.is_none_or(|at| now.duration_since(at) >= HELD_EVERY)
    }

    /// The records to send now, in the order to send them.
    fn look(&mut self, api: &Api, query: &Query, scope: &Scope, now: Instant) -> Result<Vec<View>, Problem> {
        let mut ready = Vec::new();
        if self.held_are_due(now) {
            self.held_looked = Some(now);
            self.look_at_held(api, query, scope, now, &mut ready)?;
        }
        let newest = api.search.newest();
        if newest > self.seen {
            self.look_at_new(api, query, scope, now, newest, &mut ready)?;
        }
        Ok(ready)
    }

    fn look_at_held(
        &mut self,
        api: &Api,
        query: &Query,
        scope: &Scope,
        now: Instant,
        ready: &mut Vec<View>,
    ) -> Result<(), Problem> {
        let seqs: Vec<u64> = self.held.keys().copied().collect();
        for seq in seqs {
            let view = api.search.get_seq(Seq(seq), scope).map_err(|error| failed(&error))?;
            let Some((view, held)) = view.zip(self.held.get_mut(&seq)) else {
                self.held.remove(&seq);
                continue;
            };
            if !is_running(&view) {
                self.held.remove(&seq);
                ready.extend(query.matches(&view).then_some(view));
            } else if !held.sent && now.duration_since(held.since) >= HOLD {
                held.sent = true;
                ready.extend(query.matches(&view).then_some(view));
            }
        }
        Ok(())
    }

    fn look_at_new(
        &mut self,
        api: &Api,
        query: &Query,
        scope: &Scope,
        now: Instant,
        newest: Seq,
        ready: &mut Vec<View>,
    ) -> Result<(), Problem> {
        let mut to = newest;
        let (found, running) = loop {
            let range = Query::between(Seq(self.seen.0 + 1), to);
            let page = |query: Query| {
                let page = api.search.page(&query, scope, &Window::default(), PAGE, None, Count::None);
                page.map_err(|error| failed(&error))
            };
            // What runs may match when it has ended.
            let running = page(ask::exactly("outcome", "unknown")?.and(range.clone()))?;
            let found = page(query.clone().and(range))?;
            if found.next_cursor.is_none() && running.next_cursor.is_none() {
                break (found, running);
            }
            to = Seq(self.seen.0 + PAGE as u64).min(newest);
        };
        for view in running.items.iter().filter(|view| is_running(view)) {
            if let Some(seq) = view.get("seq").and_then(Value::as_u64).filter(|_| self.held.len() < HELD_MAX)
            {
                self.held.insert(seq, Held { since: now, sent: false });
            }
        }
        let is_held = |view: &View| {
            view.get("seq").and_then(Value::as_u64).is_some_and(|seq| self.held.contains_key(&seq))
        };
        ready.extend(found.items.into_iter().rev().filter(|view| !is_held(view)));
        self.seen = to;
        Ok(())
    }
}
