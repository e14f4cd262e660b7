//! Ending sessions: one, all of a login, of a device, of a person. Administrators may end any, others their own.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use pgwitness_index::record::{Completion, Event, Outcome, TxnOutcome};
use serde::Deserialize;
use serde_json::json;

use super::api::Answer;
use super::auth::{Caller, json_or_nothing};
use super::problem::Problem;
use super::tokens::keep;
use super::{Api, audit};
use crate::identity::Whose;

/// `POST /api/v1/sessions/{id}/terminate`
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/api/v1/sessions/{id}/terminate", post(terminate))
}

/// The body.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    scope: Scope,
}

/// How much of what belongs to the session ends.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scope {
    /// It alone.
    #[default]
    Session,
    /// Its login: all its sessions, its paired secret, its minted tokens.
    Login,
    /// Its device: all sessions of the person from there, and the logins that are in use there.
    Device,
    /// The person's logins.
    Person,
}

async fn terminate(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Answer {
    let wanted = "the body must be {}, or {\"scope\": \"session\", \"login\", \"device\" or \"person\"}";
    let asked: Asked = json_or_nothing(&headers, &body, wanted)?;
    let open = api.witness.sessions();
    let session = open.iter().find(|session| session["session"] == id).ok_or_else(Problem::not_found)?;
    let word = |name: &str| session[name].as_str().unwrap_or_default().to_owned();
    let (iss, sub) = (word("iss"), word("sub"));
    let own = iss == caller.principal.iss() && sub == caller.principal.sub();
    // Out of scope is as if it were not there.
    if !own && !caller.access.operates() {
        return Err(Problem::not_found());
    }
    let (event, what) = match asked.scope {
        Scope::Session => (Event::Cancel, format!("session {id}")),
        Scope::Login => (Event::LoginRevoked, format!("login {} of {}", word("login"), word("user"))),
        Scope::Device if word("device").is_empty() => {
            return Err(Problem::bad_request(
                "nothing tells the device of this session: end its login or person",
            ));
        }
        Scope::Device => (Event::LoginRevoked, format!("device {} of {}", word("device"), word("user"))),
        Scope::Person => (Event::LoginRevoked, format!("all logins of {}", word("user"))),
    };
    let ends = match asked.scope {
        Scope::Session => Whose::Session(id),
        Scope::Login => Whose::Login(word("login")),
        Scope::Device => {
            let there = open.iter().filter(|other| other["device"] == session["device"]);
            let logins = there.filter_map(|other| other["login"].as_str().map(str::to_owned)).collect();
            Whose::Device { device: word("device"), logins }
        }
        Scope::Person => Whose::Person { iss, sub },
    };
    // Recorded first, as everything that has an effect.
    let done = Completion::new(Outcome::Ok, TxnOutcome::None);
    audit::write(&api, audit::deed(event, &caller, format!("ended {what}"), done)).await?;
    let ended = api.witness.end(&ends);
    if !matches!(ends, Whose::Session(_)) {
        keep(&api).await?;
    }
    Ok(Json(json!({ "ended": ended })))
}
