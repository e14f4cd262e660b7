//! The routes below `/api/v1`: strict in what they take, bounded in what they give.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use pgwitness_index::record::{Event, Seq};
use pgwitness_index::search::{Field, Page, SearchError};
use pgwitness_index::view::{View, chosen, format_time};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::ask::{self, Ask, Place};
use super::audit::{self, Reading, Repeated};
use super::auth::{self, Caller};
use super::params::Params;
use super::problem::Problem;
use super::{Api, access, context, export, openapi, proof, sessions, suggest, tail, when};

/// A search waits this long for a free place.
const SEARCH_WAIT: Duration = Duration::from_secs(2);
/// Bars in a histogram when nobody says how many.
const BUCKETS_DEFAULT: u64 = 60;
/// Most bars.
const BUCKETS_MAX: u64 = 500;
/// Values of one field in an answer when nobody says how many.
const FACET_DEFAULT: u64 = 10;
/// Most values of one field.
const FACET_MAX: u64 = 1_000;

pub(super) type Answer = Result<Json<Value>, Problem>;

/// `/api/v1/…` and the description for clients that log in by themselves.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/api/v1/events", get(events))
        .route("/api/v1/events/search", post(events_search))
        .route("/api/v1/events/histogram", get(histogram))
        .route("/api/v1/events/facets", get(facets))
        .route("/api/v1/events/tail", get(tail::tail))
        .route("/api/v1/events/{id}", get(event))
        .route("/api/v1/events/{id}/context", get(context::context))
        .route("/api/v1/suggest", get(suggest::suggest))
        .route("/api/v1/openapi.json", get(openapi::openapi))
        .route("/api/v1/export", get(export::export))
        .route("/api/v1/export/{id}/manifest", get(export::manifest))
        .route("/api/v1/events/{id}/proof", get(proof::record))
        .route("/api/v1/log/head", get(proof::head))
        .route("/api/v1/log/consistency", get(proof::consistency))
        .route("/api/v1/me", get(me))
        .route("/api/v1/fields", get(fields))
        .route("/api/v1/status", get(status))
        .route("/api/v1/sessions", get(sessions::sessions))
        .route("/api/v1/sessions/{id}", get(sessions::session))
        .route("/api/v1/sessions/{id}/events", get(sessions::events))
        .route("/api/v1/objects", get(access::objects))
        .route("/api/v1/objects/{table}/access", get(access::object))
        .route("/api/v1/users", get(access::users))
        .route("/api/v1/users/{id}/access", get(access::user))
        .route("/.well-known/oauth-protected-resource", get(resource))
}

async fn events(State(api): State<Arc<Api>>, caller: Caller, RawQuery(query): RawQuery) -> Answer {
    let ask = Ask::read(&api, &Params::from_url(query.as_deref(), ask::SEARCH)?)?;
    search(api, caller, ask).await
}

async fn events_search(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    auth::require_json(&headers)?;
    let ask = Ask::read(&api, &Params::from_json(&body, ask::SEARCH)?)?;
    search(api, caller, ask).await
}

pub(super) async fn search(api: Arc<Api>, caller: Caller, ask: Ask) -> Answer {
    searching(&api, &caller.clone(), move |api| {
        // Before the search and the record about it: what the answer is complete up to.
        let log_seq = api.witness.head().get("seq").cloned().unwrap_or(Value::Null);
        let page = find(api, &caller, &ask)?;
        audit::read(
            api,
            &caller,
            Reading {
                event: Event::AuditSearch,
                asked: ask.asked(),
                repeated: ask.repeated,
                found: Some(page.items.len() as u64),
                began: ask.began,
            },
        )?;
        Ok(Json(found(log_seq, page, ask, &api.warnings)))
    })
    .await
}

/// One page of records, within the caller's scope. It is not recorded here.
pub(super) fn find(api: &Api, caller: &Caller, ask: &Ask) -> Result<Page, Problem> {
    api.search
        .page(&ask.query, &caller.scope(), &ask.window, ask.limit, ask.cursor.as_ref(), ask.count)
        .map_err(|error| failed(&error))
}

/// Said of a page that is not all there is.
const STOPPED: &str = "the search stopped before the oldest records: it had read as many as it may to see whether \
     they answer. Add a person, a table, a whole word or a time";

fn found(log_seq: Value, page: Page, ask: Ask, warnings: &[String]) -> Value {
    let mut answer = Map::new();
    let items = page.items.into_iter().map(|item| Value::Object(chosen(item, &ask.fields))).collect();
    answer.insert("items".into(), Value::Array(items));
    let next = page.next_cursor.map(|cursor| Place { cursor, now: ask.now }.to_string());
    answer.insert("next_cursor".into(), next.into());
    answer.insert("as_of".into(), json!({ "log_seq": log_seq, "indexed_seq": page.indexed_seq.0 }));
    if let Some(total) = page.total {
        answer.insert("total".into(), total.into());
        answer.insert("total_is_capped".into(), page.total_is_capped.into());
    }
    answer.insert("query".into(), ask.text.into());
    let stopped = page.stopped.then_some(STOPPED);
    let warnings: Vec<&str> = warnings.iter().map(String::as_str).chain(stopped).collect();
    answer.insert("warnings".into(), json!(warnings));
    Value::Object(answer)
}

async fn event(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    Params::from_url(query.as_deref(), &[])?;
    let id = Uuid::parse_str(&id).map_err(|_| Problem::not_found())?;
    let began = Instant::now();
    searching(&api, &caller.clone(), move |api| {
        let item = api.search.get(id, &caller.scope()).map_err(|error| failed(&error))?;
        let mut item = item.ok_or_else(Problem::not_found)?;
        audit::read(
            api,
            &caller,
            Reading {
                event: Event::AuditSearch,
                asked: format!("id:{id}"),
                repeated: Repeated::No,
                found: Some(1),
                began,
            },
        )?;
        tell_erased(api, &mut item)?;
        Ok(Json(Value::Object(item)))
    })
    .await
}

/// Adds what was erased of a record, and why, if something was.
fn tell_erased(api: &Api, item: &mut View) -> Result<(), Problem> {
    let Some(seq) = item.get("seq").and_then(Value::as_u64) else { return Ok(()) };
    let erased = api.witness.erased(Seq(seq)).map_err(|error| {
        tracing::error!(%error, seq, "could not read what was erased of a record");
        Problem::internal()
    })?;
    if !erased.is_empty() {
        item.insert("erased".into(), erased.into());
    }
    Ok(())
}

async fn histogram(State(api): State<Arc<Api>>, caller: Caller, RawQuery(query): RawQuery) -> Answer {
    let params = Params::from_url(query.as_deref(), ask::HISTOGRAM)?;
    let buckets = params.number("buckets", 1, BUCKETS_MAX)?.unwrap_or(BUCKETS_DEFAULT);
    let mut ask = Ask::read(&api, &params)?;
    if ask.window.from.is_some() && ask.window.to.is_none() {
        // The bars of the last hour end now, not with the last record.
        ask.window.to = Some(when::now());
    }
    searching(&api, &caller.clone(), move |api| {
        let buckets = usize::try_from(buckets).unwrap_or(1);
        let bars = api
            .search
            .histogram(&ask.query, &caller.scope(), &ask.window, buckets)
            .map_err(|error| failed(&error))?;
        summary_read(api, &caller, &ask)?;
        Ok(Json(json!({
            "from": format_time(bars.from),
            "to": format_time(bars.to),
            "step_us": bars.step_us,
            "counts": bars.counts,
        })))
    })
    .await
}

async fn facets(State(api): State<Arc<Api>>, caller: Caller, RawQuery(query): RawQuery) -> Answer {
    let params = Params::from_url(query.as_deref(), ask::FACETS)?;
    let limit = params.number("limit", 1, FACET_MAX)?.unwrap_or(FACET_DEFAULT);
    let ask = Ask::read(&api, &params)?;
    let fields: Vec<Field> = ask.fields.iter().filter_map(|name| Field::from_name(name)).collect();
    if fields.is_empty() {
        return Err(Problem::bad_request(
            "fields must name at least one field to count by, such as user,table",
        ));
    }
    searching(&api, &caller.clone(), move |api| {
        let limit = usize::try_from(limit).unwrap_or(1);
        let counted = api
            .search
            .facets(&ask.query, &caller.scope(), &ask.window, &fields, limit)
            .map_err(|error| failed(&error))?;
        summary_read(api, &caller, &ask)?;
        let mut facets = Map::new();
        for facet in counted {
            let one = |(value, count): (String, u64)| json!({ "value": value, "count": count });
            facets.insert(facet.field.name().into(), facet.values.into_iter().map(one).collect());
        }
        Ok(Json(json!({ "facets": facets })))
    })
    .await
}

/// A summary tells about the same records as the search beside it, and is covered by its record.
fn summary_read(api: &Api, caller: &Caller, ask: &Ask) -> Result<(), Problem> {
    let reading = Reading {
        event: Event::AuditSearch,
        asked: ask.asked(),
        repeated: Repeated::Yes,
        found: None,
        began: ask.began,
    };
    audit::read(api, caller, reading)
}

async fn me(caller: Caller, RawQuery(query): RawQuery) -> Answer {
    Params::from_url(query.as_deref(), &[])?;
    let who = &caller.principal;
    Ok(Json(json!({
        "user": who.user(),
        "email": who.email(),
        "sub": who.sub(),
        "iss": who.iss(),
        "groups": who.groups(),
        "roles": caller.access.roles(),
        "mode": who.mode().as_str(),
        "expires": format_time(when::at(who.expires())),
    })))
}

async fn fields(_caller: Caller, RawQuery(query): RawQuery) -> Answer {
    Params::from_url(query.as_deref(), &[])?;
    let field = |field: &Field| {
        json!({
            "name": field.name(),
            "aliases": field.aliases(),
            "kind": format!("{:?}", field.kind()).to_lowercase(),
            "values": field.vocabulary(),
        })
    };
    let fields: Vec<Value> = Field::ALL.iter().map(field).collect();
    Ok(Json(json!({ "fields": fields })))
}

async fn status(State(api): State<Arc<Api>>, _caller: Caller, RawQuery(query): RawQuery) -> Answer {
    Params::from_url(query.as_deref(), &[])?;
    let mut status = api.witness.status();
    status["indexed_seq"] = api.search.newest().0.into();
    Ok(Json(status))
}

/// RFC 9728, so that a client finds the provider; the client id is ours to add.
async fn resource(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(json!({
        // As its owner writes it: without a slash that says nothing.
        "resource": api.public_url.as_str().trim_end_matches('/'),
        "authorization_servers": [api.provider.config().issuer],
        "bearer_methods_supported": ["header"],
        "scopes_supported": api.provider.config().scopes,
        "pgwitness_client_id": api.provider.config().native_client_id,
    }))
}

/// Runs a search of one caller, who has no more than a share of the places.
pub(super) async fn searching<T: Send + 'static>(
    api: &Arc<Api>,
    caller: &Caller,
    work: impl FnOnce(&Api) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let own = caller.share.search().await?;
    blocking(api, move |api| {
        let _own = own;
        work(api)
    })
    .await
}

/// Runs a search off the runtime's threads; its place is free again when the work has ended, not
/// when the client has gone.
pub(super) async fn blocking<T: Send + 'static>(
    api: &Arc<Api>,
    work: impl FnOnce(&Api) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let busy = || Problem::unavailable("too many searches at once. Try again in a moment");
    let place = Arc::clone(&api.searching).acquire_owned();
    let place = tokio::time::timeout(SEARCH_WAIT, place).await.map_err(|_| busy())?.map_err(|_| busy())?;
    let api = Arc::clone(api);
    tokio::task::spawn_blocking(move || {
        let _place = place;
        work(&api)
    })
    .await
    .map_err(|error| {
        tracing::error!(%error, "a search ended without an answer");
        Problem::internal()
    })?
}

/// The problem for a search that failed: the caller's mistakes by name, ours only in the log.
pub(super) fn failed(error: &SearchError) -> Problem {
    if let SearchError::BadCursor
    | SearchError::OtherCursor
    | SearchError::NoFacet(_)
    | SearchError::TooMany = error
    {
        return Problem::bad_request(error.to_string());
    }
    tracing::error!(%error, "a search failed");
    Problem::internal()
}
