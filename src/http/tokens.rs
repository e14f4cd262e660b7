//! What opens sessions without a prompt: minting tokens, listing them and paired secrets, ending them. Administrators
//! see and end all, others their own. No secret is shown but a new token, once.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use pgwitness_index::record::{Completion, Event, Outcome, TxnOutcome};
use pgwitness_index::view::format_time;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::Answer;
use super::auth::{Caller, json_or_nothing};
use super::params::Params;
use super::problem::Problem;
use super::{Api, audit, when};
use crate::identity::{About, Opener, Whose, inert};

/// Life of a token when nobody says how long.
const LIFE_DEFAULT: u64 = 8 * 3600;
/// Longest life asked for, seconds; it ends with its login in any case.
const LIFE_MAX: u64 = 30 * 24 * 3600;

/// `/api/v1/tokens`, `/api/v1/logins…`
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/api/v1/tokens", post(mint))
        .route("/api/v1/logins", get(list))
        .route("/api/v1/logins/{id}/revoke", post(revoke))
}

/// The body of a minting.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// Seconds.
    #[serde(default = "life_default")]
    life: u64,
    #[serde(default)]
    name: String,
}

fn life_default() -> u64 {
    LIFE_DEFAULT
}

/// The body of a revocation.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    scope: Scope,
}

/// How much ends with a secret.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scope {
    /// It alone: it opens nothing any more; what it opened goes on.
    #[default]
    Secret,
    /// Its login: all its secrets, and its sessions.
    Login,
    /// All logins of its person.
    Person,
}

async fn mint(State(api): State<Arc<Api>>, caller: Caller, headers: HeaderMap, body: String) -> Answer {
    let wanted = "the body must be {\"life\": seconds, \"name\": \"what it is for\"}, both optional";
    let wish: Wish = json_or_nothing(&headers, &body, wanted)?;
    if !(1..=LIFE_MAX).contains(&wish.life) {
        return Err(Problem::bad_request(format!("life must be from 1 to {LIFE_MAX} seconds")));
    }
    let about = About {
        name: inert(&wish.name),
        address: caller.ip.clone(),
        program: inert(&caller.agent),
        ..About::now()
    };
    let issued = api.minted.issue(&caller.principal, Duration::from_secs(wish.life), about);
    let issued = issued.map_err(|error| {
        Problem::new(StatusCode::CONFLICT, "too-many-tokens", format!("{}, or end some", error.client_text()))
    })?;
    let until = format_time(when::at(issued.principal.expires()));
    let done = Completion::new(Outcome::Ok, TxnOutcome::None);
    let detail = format!("gave out token {} until {until}", issued.id);
    let recorded = audit::write(&api, audit::deed(Event::LoginOk, &caller, detail, done)).await;
    let kept = match recorded {
        Ok(()) => keep(&api).await,
        Err(problem) => Err(problem),
    };
    // What is not recorded, or would be forgotten, is not given out.
    if let Err(problem) = kept {
        api.minted.revoke_one(&issued.id);
        return Err(problem);
    }
    Ok(Json(json!({ "token": issued.token.reveal(), "id": issued.id, "expires": until })))
}

async fn list(State(api): State<Arc<Api>>, caller: Caller, RawQuery(query): RawQuery) -> Answer {
    Params::from_url(query.as_deref(), &[])?;
    let mut all = openers(&api);
    all.retain(|opener| may_see(&caller, opener));
    all.sort_by_key(|opener| (std::cmp::Reverse(opener.about.since), opener.id.clone()));
    Ok(Json(json!({ "items": all.iter().map(shown).collect::<Vec<_>>() })))
}

async fn revoke(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Answer {
    let wanted = "the body must be {}, or {\"scope\": \"secret\", \"login\" or \"person\"}";
    let asked: Asked = json_or_nothing(&headers, &body, wanted)?;
    // Out of scope is as if it were not there.
    let opener = openers(&api).into_iter().find(|opener| opener.id == id && may_see(&caller, opener));
    let opener = opener.ok_or_else(Problem::not_found)?;
    let who = &opener.principal;
    let what = match asked.scope {
        Scope::Secret => format!("{} secret {id} of {}", opener.kind.as_str(), who.user()),
        Scope::Login => format!("login {} of {}", who.login(), who.user()),
        Scope::Person => format!("all logins of {}", who.user()),
    };
    // Recorded first, as everything that has an effect.
    let done = Completion::new(Outcome::Ok, TxnOutcome::None);
    audit::write(&api, audit::deed(Event::LoginRevoked, &caller, format!("ended {what}"), done)).await?;
    let ended = match asked.scope {
        Scope::Secret => {
            let _ = api.pairings.revoke_one(&id) || api.minted.revoke_one(&id);
            0
        }
        Scope::Login => api.witness.end(&Whose::Login(who.login().to_owned())),
        Scope::Person => {
            api.witness.end(&Whose::Person { iss: who.iss().to_owned(), sub: who.sub().to_owned() })
        }
    };
    keep(&api).await?;
    Ok(Json(json!({ "ended": ended })))
}

/// Writes down what opens sessions, off the runtime's threads: a restart must not bring back what was ended.
pub(super) async fn keep(api: &Arc<Api>) -> Result<(), Problem> {
    let api = Arc::clone(api);
    let kept = tokio::task::spawn_blocking(move || api.witness.keep()).await;
    kept.map_err(|_| Problem::internal())?.map_err(|error| {
        tracing::error!(%error, "could not keep paired secrets and tokens");
        Problem::unavailable("it could not be written down. The gateway's log says why")
    })
}

fn openers(api: &Api) -> Vec<Opener> {
    let mut all = api.pairings.list();
    all.extend(api.minted.list());
    all
}

fn may_see(caller: &Caller, opener: &Opener) -> bool {
    caller.access.operates() || opener.principal.is_same_person(&caller.principal)
}

fn shown(opener: &Opener) -> Value {
    let (who, about) = (&opener.principal, &opener.about);
    let moment = |seconds: u64| format_time(when::at(UNIX_EPOCH + Duration::from_secs(seconds)));
    json!({
        "id": opener.id,
        "kind": opener.kind.as_str(),
        "name": about.name,
        "user": who.user(), "sub": who.sub(), "iss": who.iss(), "login": who.login(),
        "role": about.role, "db": about.database,
        "ip": about.address, "app": about.program,
        "since": moment(about.since),
        "until": format_time(when::at(who.expires().max(SystemTime::UNIX_EPOCH))),
        "last_used": (about.used > 0).then(|| moment(about.used)),
    })
}
