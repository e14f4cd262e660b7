//! Who touched what, counted: `/objects`, `/objects/{table}/access`, `/users`, `/users/{id}/access`.
//!
//! Counts are exact; people stand under the name that the records hold. First and last times are
//! worked out for at most [`ITEMS_MAX`] values.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use pgwitness_index::record::{Event, Timestamp};
use pgwitness_index::search::{Field, Query, Scope, Window};
use pgwitness_index::view::format_time;
use serde_json::{Map, Value, json};

use super::Api;
use super::api::{Answer, failed, searching};
use super::ask::{self, Ask};
use super::audit::{self, Reading, Repeated};
use super::auth::Caller;
use super::params::Params;
use super::problem::Problem;

/// Parameters of a list.
pub(super) const LIST: &[&str] = &["q", "from", "to", "tz", "limit"];
/// Values in an answer when nobody says how many.
const LIST_DEFAULT: u64 = 100;
/// Most values in a list.
const LIST_MAX: u64 = 1_000;
/// Values with first and last times when nobody says how many.
const ITEMS_DEFAULT: u64 = 20;
/// Most values with first and last times.
const ITEMS_MAX: u64 = 100;
/// Values of each count beside them.
const BESIDE: usize = 20;

/// Tables that were touched, most often touched first.
pub(super) async fn objects(
    State(api): State<Arc<Api>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Answer {
    list(api, caller, query.as_deref(), Field::Tables, "table").await
}

/// People who did anything, busiest first.
pub(super) async fn users(State(api): State<Arc<Api>>, caller: Caller, RawQuery(query): RawQuery) -> Answer {
    list(api, caller, query.as_deref(), Field::User, "user").await
}

/// Who touched a table (`customers`, `public.customers`) or column (`customers.email`).
pub(super) async fn object(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let touching = match name.matches('.').count() {
        0 => ask::exactly("table", &name)?,
        // Two parts are schema and table, or table and column.
        1 => ask::exactly("table", &name)?.or(ask::exactly("column", &name)?),
        _ => ask::exactly("column", &name)?,
    };
    summary(api, caller, query.as_deref(), ("object", name), touching, (Field::User, "users")).await
}

/// Which tables a person touched.
pub(super) async fn user(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let theirs = ask::exactly("user", &name)?;
    summary(api, caller, query.as_deref(), ("user", name), theirs, (Field::Tables, "tables")).await
}

async fn list(api: Arc<Api>, caller: Caller, query: Option<&str>, by: Field, name: &'static str) -> Answer {
    let params = Params::from_url(query, LIST)?;
    let limit = limit(&params, LIST_MAX, LIST_DEFAULT)?;
    let ask = Ask::read(&api, &params.without("limit"))?;
    searching(&api, &caller.clone(), move |api| {
        let counted = api.search.facets(&ask.query, &caller.scope(), &ask.window, &[by], limit);
        let counted = counted.map_err(|error| failed(&error))?;
        read(api, &caller, format!("{} [list of {}]", ask.asked(), by.name()), &ask)?;
        let one = |(value, count): (String, u64)| json!({ name: value, "count": count });
        let items: Vec<Value> = counted.into_iter().flat_map(|facet| facet.values).map(one).collect();
        Ok(Json(json!({ "items": items })))
    })
    .await
}

async fn summary(
    api: Arc<Api>,
    caller: Caller,
    query: Option<&str>,
    (kind, name): (&'static str, String),
    about: Query,
    (by, items): (Field, &'static str),
) -> Answer {
    let params = Params::from_url(query, LIST)?;
    let limit = limit(&params, ITEMS_MAX, ITEMS_DEFAULT)?;
    let ask = Ask::read(&api, &params.without("limit"))?;
    searching(&api, &caller.clone(), move |api| {
        let asked = about.and(ask.query.clone()).and(ask::during(&ask.window)?);
        let told = Told { api, query: asked, scope: caller.scope() };
        let answer = told.about(by, limit, items)?;
        read(api, &caller, format!("{} [access of {kind} {name}]", ask.asked()), &ask)?;
        let mut answer = answer.ok_or_else(Problem::not_found)?;
        answer.insert(kind.to_owned(), name.into());
        Ok(Json(Value::Object(answer)))
    })
    .await
}

struct Told<'a> {
    api: &'a Api,
    query: Query,
    scope: Scope,
}

impl Told<'_> {
    /// The counts by one field; none if no record matches.
    fn about(&self, by: Field, limit: usize, items: &str) -> Result<Option<Map<String, Value>>, Problem> {
        let Some(times) = self.times(&self.query)? else { return Ok(None) };
        let (mut answer, mut counts) = (times, Map::new());
        let fields = [by, Field::Outcome, Field::Command, Field::Role];
        let counted =
            self.api.search.facets(&self.query, &self.scope, &Window::default(), &fields, limit.max(BESIDE));
        for facet in counted.map_err(|error| failed(&error))? {
            if facet.field == by {
                let each = facet.values.into_iter().take(limit).map(|(value, _)| self.one(by, value));
                answer.insert(items.to_owned(), each.collect::<Result<Vec<Value>, Problem>>()?.into());
            } else {
                let values = facet.values.into_iter().take(BESIDE);
                let values: Map<String, Value> = values.map(|(value, count)| (value, count.into())).collect();
                counts.insert(facet.field.name().to_owned(), values.into());
            }
        }
        answer.insert("counts".to_owned(), counts.into());
        Ok(Some(answer))
    }

    fn one(&self, by: Field, value: String) -> Result<Value, Problem> {
        let own = self.query.clone().and(ask::exactly(by.name(), &value)?);
        let mut one = Map::new();
        one.insert("name".to_owned(), value.into());
        one.extend(self.times(&own)?.unwrap_or_default());
        Ok(Value::Object(one))
    }

    /// How many records, and the times of the first and last of them.
    fn times(&self, query: &Query) -> Result<Option<Map<String, Value>>, Problem> {
        // Without a window, the matches themselves set the ends of the only bar.
        let bar = self.api.search.histogram(query, &self.scope, &Window::default(), 1);
        let bar = bar.map_err(|error| failed(&error))?;
        let count: u64 = bar.counts.iter().sum();
        if count == 0 {
            return Ok(None);
        }
        let last = Timestamp(bar.to.0.saturating_sub(1));
        let told = [
            ("count", json!(count)),
            ("first", json!(format_time(bar.from))),
            ("last", json!(format_time(last))),
        ];
        Ok(Some(told.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()))
    }
}

fn limit(params: &Params, max: u64, default: u64) -> Result<usize, Problem> {
    Ok(usize::try_from(params.number("limit", 1, max)?.unwrap_or(default)).unwrap_or(1))
}

fn read(api: &Api, caller: &Caller, asked: String, ask: &Ask) -> Result<(), Problem> {
    let reading =
        Reading { event: Event::AuditSearch, asked, repeated: Repeated::No, found: None, began: ask.began };
    audit::read(api, caller, reading)
}
