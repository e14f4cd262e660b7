//! Erasing values of one record: for administrators, recorded with who and why, never under a legal hold.
//!
//! Administrators see no record text, and nothing of the record is answered here.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use pgwitness_index::journal::Values;
use pgwitness_index::proof::leaf::Erasable;
use pgwitness_index::record::Seq;
use pgwitness_index::search::Scope;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::api::{Answer, failed, searching};
use super::auth::{Caller, require_json};
use super::problem::Problem;
use super::{Api, Erasure, NotErased, audit};

/// Most bytes of a reason.
const REASON_MAX: usize = 1000;
/// Who it was stays: that is what the log is for.
const FIELDS: [Erasable; 4] = [Erasable::Sql, Erasable::Params, Erasable::Error, Erasable::Detail];

/// `POST /api/v1/events/{id}/erase`
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/api/v1/events/{id}/erase", post(erase))
}

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    fields: Vec<String>,
    reason: String,
}

async fn erase(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Answer {
    require_json(&headers)?;
    // Out of scope is as if it were not there.
    if !caller.access.operates() {
        return Err(Problem::not_found());
    }
    let asked: Asked = serde_json::from_str(&body).map_err(|_| {
        Problem::bad_request("the body must be {\"fields\": [\"sql\", \"params\"], \"reason\": \"why\"}")
    })?;
    let values = values(&asked.fields)?;
    let reason = asked.reason.trim().to_owned();
    if reason.is_empty() || reason.len() > REASON_MAX {
        return Err(Problem::bad_request(format!("reason must say why, in at most {REASON_MAX} bytes")));
    }
    let (id, seq) = (Uuid::parse_str(&id).ok(), id.parse().ok().map(Seq));
    let who = audit::who_of(&caller.principal, &caller.ip, &caller.agent);
    searching(&api, &caller, move |api| {
        let seq = match (id, seq) {
            (Some(id), _) => {
                let item = api.search.get(id, &Scope::All).map_err(|error| failed(&error))?;
                item.and_then(|item| item.get("seq")?.as_u64()).map(Seq)
            }
            (None, seq) => seq,
        };
        let seq = seq.ok_or_else(Problem::not_found)?;
        let done = api.witness.erase(Erasure { seq, values, reason, who });
        let by = done.map_err(|error| match error {
            NotErased::NoRecord => Problem::not_found(),
            NotErased::Refused(why) => Problem::new(StatusCode::CONFLICT, "not-erased", why),
            NotErased::Unavailable(why) => Problem::unavailable(why),
        })?;
        Ok(Json(json!({ "seq": seq.0, "erased_by": by.0 })))
    })
    .await
}

fn values(fields: &[String]) -> Result<Values, Problem> {
    let value = |field: &String| {
        let known = FIELDS.into_iter().find(|value| value.as_str() == field);
        known.ok_or_else(|| {
            Problem::bad_request(format!("{field:?} cannot be erased: name sql, params, error or detail"))
        })
    };
    let values: Vec<Erasable> = fields.iter().map(value).collect::<Result<_, _>>()?;
    if values.is_empty() {
        return Err(Problem::bad_request(
            "fields must name what is to be erased: sql, params, error or detail",
        ));
    }
    Ok(Values::of(&values))
}
