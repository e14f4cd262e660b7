//! Sessions: those that are open now, and what the log knows of any.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use pgwitness_index::record::Event;
use pgwitness_index::search::{Count, Field, Window};
use pgwitness_index::view::format_time;
use serde_json::{Map, Value, json};

use super::Api;
use super::api::{Answer, failed, search, searching};
use super::ask::{self, Ask};
use super::audit::{self, Reading, Repeated};
use super::auth::Caller;
use super::params::Params;
use super::problem::Problem;

/// What of an open session everybody may know of their own, and an administrator of all: no text.
const SESSION_FIELDS: &[&str] = &[
    "session",
    "id",
    "login",
    "user",
    "sub",
    "iss",
    "role",
    "db",
    "upstream",
    "ip",
    "app",
    "device",
    "started",
    "since",
    "state",
    "time",
    "statements",
    "pid",
    "idle_us",
];
/// What all records of a session say alike.
const ALIKE: &[&str] =
    &["session", "user", "sub", "iss", "groups", "login", "role", "db", "upstream", "ip", "app", "device"];
/// Values of each count.
const COUNTS_MAX: usize = 100;

/// Open sessions: an auditor sees all of each, an administrator all without text, others their own.
pub(super) async fn sessions(
    State(api): State<Arc<Api>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Answer {
    Params::from_url(query.as_deref(), &[])?;
    let (iss, sub) = (caller.principal.iss(), caller.principal.sub());
    let mut items = api.witness.sessions();
    if !caller.access.reads_all() {
        let own = |item: &Value| item["iss"] == iss && item["sub"] == sub;
        items.retain(|item| caller.access.operates() || own(item));
        for item in &mut items {
            if let Some(object) = item.as_object_mut() {
                object.retain(|name, _| SESSION_FIELDS.contains(&name.as_str()));
            }
        }
    }
    Ok(Json(json!({ "items": items })))
}

/// One session as the log knows it: who, when, how much; open or not.
pub(super) async fn session(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    Params::from_url(query.as_deref(), &[])?;
    let own = ask::exactly("session", &id)?;
    let began = Instant::now();
    searching(&api, &caller.clone(), move |api| {
        let (scope, always) = (caller.scope(), Window::default());
        let page = api.search.page(&own, &scope, &always, 1, None, Count::Exact);
        let page = page.map_err(|error| failed(&error))?;
        let newest = page.items.into_iter().next().ok_or_else(Problem::not_found)?;
        let times = api.search.histogram(&own, &scope, &always, 1).map_err(|error| failed(&error))?;
        let fields = [Field::Event, Field::Outcome, Field::Command, Field::Tables, Field::Role];
        let counted = api.search.facets(&own, &scope, &always, &fields, COUNTS_MAX);
        let counted = counted.map_err(|error| failed(&error))?;
        let alike = ALIKE.iter().filter_map(|&name| Some((name.to_owned(), newest.get(name)?.clone())));
        let mut answer: Map<String, Value> = alike.collect();
        answer.insert("open".into(), is_open(api, &id).into());
        answer.insert("first".into(), format_time(times.from).into());
        answer.insert("last".into(), newest.get("time").cloned().unwrap_or_default());
        answer.insert("records".into(), page.total.into());
        let mut counts = Map::new();
        for facet in counted {
            let values: Map<String, Value> =
                facet.values.into_iter().map(|(value, count)| (value, count.into())).collect();
            counts.insert(facet.field.name().to_owned(), values.into());
        }
        answer.insert("counts".into(), counts.into());
        let reading = Reading {
            event: Event::AuditSearch,
            asked: format!("session:{id}"),
            repeated: Repeated::No,
            found: page.total,
            began,
        };
        audit::read(api, &caller, reading)?;
        Ok(Json(Value::Object(answer)))
    })
    .await
}

/// The records of one session: as any search, newest first.
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let params = Params::from_url(query.as_deref(), ask::SEARCH)?;
    let ask = Ask::read(&api, &params)?.of_session(&id)?;
    search(api, caller, ask).await
}

fn is_open(api: &Api, id: &str) -> bool {
    api.witness.sessions().iter().any(|session| session["session"] == id)
}
