//! `/device/{id}`: the page on which a person approves a login that waits in a terminal.
//!
//! It shows who asks, takes the code that stands in the terminal, has the person sign in at the provider, and then
//! asks: approve or deny? It needs no script. Each step belongs to the browser that took the one before, by a random
//! cookie; forms count only from this page itself. What the client says of itself is shown as text, made inert where
//! it came in ([`crate::identity::Asked`]).
//!
//! A browser that approves is not signed in to anything else by that.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use pgwitness_index::record::{Completion, Event, Outcome, TxnOutcome};
use pgwitness_index::search::{Count, Scope, Window};
use serde_json::Value;
use url::form_urlencoded;

use super::api::blocking;
use super::ask::exactly;
use super::auth::{self, cookie, require_same_origin};
use super::browser::{self, After, is_secret, same, secret, set_cookie};
use super::expiring::Expiring;
use super::page::{self, escaped};
use super::problem::Problem;
use super::serve::Peer;
use super::{Api, Reach, audit};
use crate::identity::{
    APPROVAL_LIFE, Answer, Approvals, Asked, CodeFault, Opens, Principal, Request as Waiting, RequestState,
};

/// Browsers on their way through the page, in all; one more ends the oldest way.
const VISITS_MAX: usize = 10_000;
/// Largest form, bytes.
const FORM_BYTES_MAX: usize = 1024;

/// How far browsers are, by browser and request.
pub(super) struct Visits(Expiring<Step>);

/// How far a browser is with one request.
#[derive(Clone)]
enum Step {
    /// It knows the code.
    CodeRight,
    /// It knows the code, and its person signed in. The form must bring the token.
    SignedIn { person: Principal, token: String },
}

impl Visits {
    pub(super) fn new() -> Self {
        Self(Expiring::new(VISITS_MAX))
    }
}

/// `/device/…`
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/device/{id}", get(show).post(take_code))
        .route("/device/{id}/sign-in", get(sign_in))
        .route("/device/{id}/answer", post(answer))
}

async fn show(State(api): State<Arc<Api>>, Path(id): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    if let Some(address) = auth::proper_address(&api, &headers, &uri) {
        return Redirect::to(address.as_str()).into_response();
    }
    let Some(waiting) = approvals(&api).and_then(|approvals| approvals.look(&id)) else { return unknown() };
    if waiting.state != RequestState::Waiting {
        return ended(waiting.state);
    }
    match visit(&api, &headers, &id) {
        None => ask_code(StatusCode::OK, &id, &waiting.asked, None),
        Some(Step::CodeRight) => send_to_sign_in(&api, &id),
        Some(Step::SignedIn { person, token }) => decide(&api, &id, &waiting, person, &token).await,
    }
}

async fn take_code(State(api): State<Arc<Api>>, Path(id): Path<String>, request: Request) -> Response {
    let from = browser_address(&request);
    let headers = request.headers().clone();
    let form = match form(request).await {
        Ok(form) => form,
        Err(problem) => return refused(&problem),
    };
    let Some(approvals) = approvals(&api) else { return unknown() };
    match approvals.try_code(&id, form.get("code"), from) {
        Ok(()) => {}
        Err(CodeFault::Unknown) => return unknown(),
        Err(CodeFault::Over(state)) => return ended(state),
        Err(CodeFault::TooMany(wait)) => return too_many(wait),
        Err(CodeFault::Wrong(left)) => {
            let Some(waiting) = approvals.look(&id) else { return unknown() };
            return ask_code(StatusCode::UNPROCESSABLE_ENTITY, &id, &waiting.asked, Some(left));
        }
    }
    let browser = browser_id(&headers, api.reach);
    api.visits.0.insert(&place(&browser, &id), Step::CodeRight, APPROVAL_LIFE);
    let mut response = send_to_sign_in(&api, &id);
    set_cookie(&mut response, api.reach, visit_cookie(api.reach), &browser, APPROVAL_LIFE);
    response
}

/// To the provider. By a link, not as the answer to the form: a browser would hold the provider's address against the
/// policy for forms.
async fn sign_in(State(api): State<Arc<Api>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let is_waiting = |waiting: Waiting| waiting.state == RequestState::Waiting;
    let waits = approvals(&api).and_then(|approvals| approvals.look(&id)).is_some_and(is_waiting);
    if !waits || visit(&api, &headers, &id).is_none() {
        return Redirect::to(&format!("/device/{}", path_word(&id))).into_response();
    }
    browser::begin(&api, &headers, After::Approval(id)).await
}

/// A browser came back from the provider: its person may answer the request whose code it knows.
pub(super) fn signed_in(api: &Api, headers: &HeaderMap, id: &str, person: Principal) -> Response {
    let back = Redirect::to(&format!("/device/{}", path_word(id))).into_response();
    let Some(browser) = cookie(headers, visit_cookie(api.reach)) else { return back };
    let place = place(browser, id);
    if api.visits.0.take(&place).is_some() {
        let life = person.time_left(SystemTime::now()).min(APPROVAL_LIFE);
        api.visits.0.insert(&place, Step::SignedIn { person, token: secret() }, life);
    }
    back
}

async fn answer(State(api): State<Arc<Api>>, Path(id): Path<String>, request: Request) -> Response {
    let from = browser_address(&request);
    let headers = request.headers().clone();
    let form = match form(request).await {
        Ok(form) => form,
        Err(problem) => return refused(&problem),
    };
    let Some(approvals) = approvals(&api) else { return unknown() };
    let Some(waiting) = approvals.look(&id) else { return unknown() };
    if waiting.state != RequestState::Waiting {
        return ended(waiting.state);
    }
    let step = visit(&api, &headers, &id);
    let Some(Step::SignedIn { person, token }) = step.filter(|_| !form.get("token").is_empty()) else {
        return refused(&Problem::forbidden("this browser did not sign in for this request"));
    };
    if !same(&token, form.get("token")) {
        return refused(&Problem::forbidden("this form is not the last one that was shown"));
    }
    let word = match form.get("answer") {
        "approve" => Answer::Approve,
        "deny" => Answer::Deny,
        _ => return refused(&Problem::bad_request("the answer is neither approve nor deny")),
    };
    if word == Answer::Deny
        && let Err(problem) = audit::write(&api, denial(&waiting.asked, &person, from, &headers)).await
    {
        return refused(&problem);
    }
    match approvals.answer(&id, word, &person, from) {
        Ok(()) => Redirect::to(&format!("/device/{}", path_word(&id))).into_response(),
        Err(Some(state)) => ended(state),
        Err(None) => unknown(),
    }
}

/// The record of a person's no. That of a yes is the login's own.
fn denial(
    asked: &Asked,
    person: &Principal,
    from: IpAddr,
    headers: &HeaderMap,
) -> pgwitness_index::record::Record {
    let detail = format!(
        "denied {} from {} for {} in database {}",
        program(asked),
        asked.address,
        asked.role,
        asked.database
    );
    let mut done = Completion::new(Outcome::Denied, TxnOutcome::None);
    done.error = "denied at the gateway's page".to_owned();
    let ip = from.to_canonical().to_string();
    audit::of_browser(Event::LoginDenied, person, (&ip, &auth::agent(headers)), detail, done)
}

// What is shown

fn ask_code(status: StatusCode, id: &str, asked: &Asked, left: Option<u8>) -> Response {
    let mut body = String::from(
        "<p>A program asks to log in to a database in your name. Did you start it yourself, just now?</p>",
    );
    facts(&mut body, asked, None);
    let fault = left.map(|left| {
        let tries = if left == 1 { "one try is left".to_owned() } else { format!("{left} tries are left") };
        format!("<p class=\"fault\" id=\"fault\" role=\"alert\">That is not the code that your terminal shows; {tries}.</p>")
    });
    let described = if fault.is_some() { " aria-invalid=\"true\" aria-describedby=\"fault\"" } else { "" };
    let _ = write!(
        body,
        "<form method=\"post\" action=\"/device/{id}\">{fault}\
         <label for=\"code\">The code that your own terminal shows</label>\
         <input id=\"code\" name=\"code\" required autofocus autocomplete=\"off\" autocapitalize=\"characters\" \
         spellcheck=\"false\" maxlength=\"16\" placeholder=\"XXXX-XXXX\"{described}>\
         <button class=\"button primary\">Continue</button></form>\
         <p class=\"warn\">Did somebody send you this link or the code? Then close this page: whoever approves lets \
         the program in as themselves.</p>",
        id = path_word(id),
        fault = fault.unwrap_or_default(),
    );
    shown(status, "A login waits for you", &body, None)
}

fn send_to_sign_in(api: &Api, id: &str) -> Response {
    let link = format!("/device/{}/sign-in", path_word(id));
    let body = format!(
        "<p>The code is right. Now sign in as yourself at {issuer}; you are asked once more after that.</p>\
         <p><a class=\"button primary\" href=\"{link}\">Sign in</a></p>",
        issuer = escaped(&provider_name(api)),
    );
    shown(StatusCode::OK, "Sign in", &body, Some(&link))
}

async fn decide(api: &Arc<Api>, id: &str, waiting: &Waiting, person: Principal, token: &str) -> Response {
    let device = device(api, &waiting.asked, person.clone()).await;
    let mut body = format!(
        "<p>You are <b>{}</b>, signed in at {}.</p>",
        escaped(person.user()),
        escaped(&provider_name(api))
    );
    facts(&mut body, &waiting.asked, Some(&device));
    let _ = write!(
        body,
        "<form method=\"post\" action=\"/device/{id}/answer\">\
         <input type=\"hidden\" name=\"token\" value=\"{token}\">\
         <p class=\"choice\"><button class=\"button primary\" name=\"answer\" value=\"approve\">Approve</button>\
         <button class=\"button\" name=\"answer\" value=\"deny\">Deny</button></p></form>\
         <p class=\"warn\">Approve lets this program work in the database as you, and everything it does is recorded \
         under your name.</p>",
        id = path_word(id),
        token = escaped(token),
    );
    shown(StatusCode::OK, "Let this program in as you?", &body, None)
}

/// A record's time as people say it: `2026-11-27 19:09 UTC`.
fn to_the_minute(time: &str) -> String {
    match time.get(..16).and_then(|minute| minute.split_once('T')) {
        Some((day, minute)) => format!("{day} {minute} UTC"),
        None => time.to_owned(),
    }
}

fn facts(body: &mut String, asked: &Asked, device: Option<&Device>) {
    let ago = SystemTime::now().duration_since(asked.at).unwrap_or_default();
    let opens = match asked.opens {
        Opens::Connection => "this one connection",
        Opens::Secret => "every connection with the same password, until the login ends",
    };
    let mut rows = vec![
        ("Program", code(program(asked)), ""),
        ("From", code(&asked.address.to_string()), ""),
        ("Role", code(&asked.role), ""),
        ("Database", code(&asked.database), ""),
        ("Opens", opens.to_owned(), ""),
        ("Asked", since(ago), ""),
    ];
    if let Some(certificate) = &asked.certificate {
        rows.insert(2, ("Certificate", code(&certificate.subject), ""));
    }
    match device {
        None => {}
        Some(Device::New) => {
            rows.push(("Device", "new: you never logged in from there with this program".to_owned(), "new"));
        }
        Some(Device::Known(last)) => {
            rows.push((
                "Device",
                format!("known: your last login from it was at {}", escaped(&to_the_minute(last))),
                "",
            ));
        }
        Some(Device::Unknown) => {
            rows.push(("Device", "whether it is new cannot be said now".to_owned(), "new"));
        }
    }
    body.push_str("<dl>");
    for (name, value, class) in rows {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        let _ = write!(body, "<dt>{name}</dt><dd{class}>{value}</dd>");
    }
    body.push_str("</dl>");
}

fn ended(state: RequestState) -> Response {
    let (status, title, text) = match state {
        RequestState::Approved => {
            (StatusCode::OK, "Approved", "The program goes on. You can close this page.")
        }
        RequestState::Denied => (
            StatusCode::OK,
            "Denied",
            "The program was told so, and it is recorded. If you did not start it, tell whoever runs the gateway.",
        ),
        RequestState::Left => (
            StatusCode::GONE,
            "The client left",
            "Whatever asked for this login does not wait any longer: nothing can be approved. Connect again for a new link.",
        ),
        RequestState::Spent => (
            StatusCode::GONE,
            "Too many wrong codes",
            "This request is dead. Connect again for a new link and a new code.",
        ),
        // One that waits is not shown here.
        RequestState::Expired | RequestState::Waiting => (
            StatusCode::GONE,
            "Too late",
            "This request was not answered in time. Connect again for a new link.",
        ),
    };
    shown(status, title, &format!("<p>{text}</p>"), None)
}

fn unknown() -> Response {
    let text = "<p>No login waits here. It may have ended a while ago, or the link is not complete: it has to be \
                opened exactly as the terminal shows it.</p>";
    shown(StatusCode::NOT_FOUND, "No such request", text, None)
}

fn too_many(wait: Duration) -> Response {
    let minutes = wait.as_secs().div_ceil(60).max(1);
    let text = format!("<p>Too many wrong codes came from your address. Try again in {minutes} min.</p>");
    let mut response = shown(StatusCode::TOO_MANY_REQUESTS, "Wait a little", &text, None);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    response
}

fn refused(problem: &Problem) -> Response {
    let text = format!("<p>{}.</p>", escaped(problem.detail()));
    shown(problem.status(), "Not done", &text, None)
}

fn shown(status: StatusCode, title: &str, body: &str, leads_to: Option<&str>) -> Response {
    let refresh = leads_to.map(|link| format!("\n<meta http-equiv=\"refresh\" content=\"0;url={link}\">"));
    // The body last: nothing in it is taken for a placeholder.
    let html = page::APPROVE.replace("{refresh}", &refresh.unwrap_or_default());
    let html = html.replace("{title}", &escaped(title)).replacen("{body}", body, 1);
    page::with_policy((status, Html(html)).into_response())
}

fn code(text: &str) -> String {
    format!("<code><bdi>{}</bdi></code>", escaped(text))
}

fn program(asked: &Asked) -> &str {
    if asked.program.is_empty() { "a program without a name" } else { &asked.program }
}

fn since(ago: Duration) -> String {
    match ago.as_secs() {
        0..=1 => "just now".to_owned(),
        seconds @ 2..=119 => format!("{seconds} seconds ago"),
        seconds => format!("{} minutes ago", seconds / 60),
    }
}

fn provider_name(api: &Api) -> String {
    let issuer = &api.provider.config().issuer;
    let name = url::Url::parse(issuer).ok().and_then(|url| url.host_str().map(str::to_owned));
    name.unwrap_or_else(|| issuer.clone())
}

// What is known

/// Whether the person's device is new.
enum Device {
    New,
    /// When they last logged in from it.
    Known(String),
    /// The log cannot be searched now.
    Unknown,
}

/// The log is the memory: a device is known from which its person logged in.
async fn device(api: &Arc<Api>, asked: &Asked, person: Principal) -> Device {
    if !api.warnings.is_empty() {
        return Device::Unknown;
    }
    let id = asked.machine().id_for(&person);
    let found = blocking(api, move |api| {
        let query = exactly("device", &id)?.and(exactly("event", Event::LoginOk.as_str())?);
        let scope = Scope::Own { iss: person.iss().to_owned(), sub: person.sub().to_owned() };
        let page = api.search.page(&query, &scope, &Window::default(), 1, None, Count::None);
        page.map_err(|error| super::api::failed(&error))
    });
    match found.await {
        Ok(page) => match page.items.first().and_then(|item| item.get("time")).and_then(Value::as_str) {
            Some(last) => Device::Known(last.to_owned()),
            None => Device::New,
        },
        Err(_) => Device::Unknown,
    }
}

fn approvals(api: &Api) -> Option<&Approvals> {
    api.approvals.as_ref()
}

fn visit(api: &Api, headers: &HeaderMap, id: &str) -> Option<Step> {
    api.visits.0.get(&place(cookie(headers, visit_cookie(api.reach))?, id))
}

/// The browser's own random id: what it has, or a new one.
fn browser_id(headers: &HeaderMap, reach: Reach) -> String {
    match cookie(headers, visit_cookie(reach)) {
        Some(known) if is_secret(known) => known.to_owned(),
        _ => secret(),
    }
}

fn place(browser: &str, id: &str) -> String {
    format!("{browser} {id}")
}

fn visit_cookie(reach: Reach) -> &'static str {
    match reach {
        Reach::Https => "__Host-pgwitness-device",
        Reach::PlainLoopback => "pgwitness_demo_device",
    }
}

/// An id as it may stand in a path or an attribute: ours have no other characters.
fn path_word(id: &str) -> String {
    id.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(64).collect()
}

fn browser_address(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical()
}

/// The fields of a form.
struct Form(Vec<(String, String)>);

impl Form {
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// A form that this page itself sent.
async fn form(request: Request) -> Result<Form, Problem> {
    require_same_origin(request.headers())?;
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let text = "this address takes the form of its own page only";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", text));
    }
    let body = axum::body::to_bytes(request.into_body(), FORM_BYTES_MAX).await;
    let body = body.map_err(|_| Problem::bad_request("the form is too long"))?;
    Ok(Form(form_urlencoded::parse(&body).into_owned().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_login_is_told_to_the_minute() {
        assert_eq!(to_the_minute("2026-11-27T19:09:14.017379Z"), "2026-11-27 19:09 UTC");
        assert_eq!(to_the_minute("soon"), "soon");
    }

    #[test]
    fn an_id_in_a_page_is_an_id_and_nothing_else() {
        assert_eq!(path_word("aZ-_09"), "aZ-_09");
        assert_eq!(path_word("\"><script>../x?y#z"), "scriptxyz");
    }

    #[test]
    fn the_age_of_a_request_is_said_in_words() {
        for (seconds, words) in
            [(0, "just now"), (2, "2 seconds ago"), (119, "119 seconds ago"), (120, "2 minutes ago")]
        {
            assert_eq!(since(Duration::from_secs(seconds)), words);
        }
    }
}
