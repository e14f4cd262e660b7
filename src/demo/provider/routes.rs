//! The demo provider's HTTP: endpoints for programs in JSON, pages for people in HTML.

use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Form, Query, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, LOCATION, ORIGIN,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use url::{Host, Url};

use super::{ApproveError, CLIENT_ID, CODE_LIFE, Code, DEVICE_LIFE, DemoProvider, INTERVAL, pages};

/// Largest form, bytes.
const MAX_FORM: usize = 16 * 1024;
/// Pages load nothing but their style; forms go here, and from here back to a client on loopback.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self' http://127.0.0.1:* http://localhost:*; \
                      frame-ancestors 'none'; base-uri 'none'";

pub(super) fn app(provider: DemoProvider) -> Router {
    Router::new()
        .route("/", get(|| async { Html(pages::ask_code("")) }))
        .route("/style.css", get(style))
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/jwks", get(jwks))
        .route("/device_authorization", post(device_authorization))
        .route("/token", post(token))
        .route("/userinfo", get(userinfo))
        .route("/device", get(device_page).post(device_answer))
        .route("/authorize", get(authorize_page).post(authorize_answer))
        .route("/approve", post(approve))
        .route("/deny", post(deny))
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(middleware::from_fn(guard))
        .with_state(provider)
}

/// Lets only loopback names and our own pages through, and dresses every answer.
async fn guard(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    let origin = headers.get(ORIGIN).map(|origin| origin.as_bytes() == format!("http://{host}").as_bytes());
    if !is_loopback_name(&host) || origin == Some(false) {
        return (StatusCode::FORBIDDEN, "this provider answers its own pages on loopback names only")
            .into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    // Not `no-referrer`: with it, browsers send `Origin: null` with our own forms.
    headers.insert("referrer-policy", HeaderValue::from_static("same-origin"));
    response
}

fn is_loopback_name(host: &str) -> bool {
    if host.contains(['@', '/', '\\', '?', '#']) {
        return false;
    }
    let url = Url::parse(&format!("http://{host}/"));
    url.is_ok_and(|url| match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    })
}

async fn style() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/css")], pages::STYLE)
}

async fn discovery(State(provider): State<DemoProvider>) -> Json<Value> {
    let issuer = provider.issuer();
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "device_authorization_endpoint": format!("{issuer}/device_authorization"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", DEVICE_GRANT],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
        "token_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": ["openid", "email", "groups"],
        "claims_supported": ["sub", "name", "email", "email_verified", "groups"],
    }))
}

async fn jwks(State(provider): State<DemoProvider>) -> Json<Value> {
    Json(json!({ "keys": [provider.0.key.jwk()] }))
}

#[derive(Deserialize)]
struct ClientForm {
    client_id: Option<String>,
}

async fn device_authorization(
    State(provider): State<DemoProvider>,
    Form(form): Form<ClientForm>,
) -> Response {
    if form.client_id.as_deref() != Some(CLIENT_ID) {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_client", "");
    }
    let Some((device_code, user_code)) = provider.begin_device() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", "too many logins");
    };
    let link = format!("{}/device", provider.issuer());
    Json(json!({
        "device_code": device_code,
        "user_code": user_code,
        "verification_uri": link,
        "verification_uri_complete": format!("{link}?user_code={user_code}"),
        "expires_in": DEVICE_LIFE.as_secs(),
        "interval": INTERVAL,
    }))
    .into_response()
}

const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

#[derive(Deserialize)]
struct TokenForm {
    grant_type: String,
    client_id: Option<String>,
    #[serde(default)]
    device_code: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    redirect_uri: String,
    #[serde(default)]
    code_verifier: String,
    #[serde(default)]
    refresh_token: String,
}

async fn token(State(provider): State<DemoProvider>, Form(form): Form<TokenForm>) -> Response {
    if form.client_id.as_deref() != Some(CLIENT_ID) {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_client", "");
    }
    let found = match form.grant_type.as_str() {
        DEVICE_GRANT => provider.take_device(&form.device_code).map(|person| (person, None)),
        "authorization_code" => {
            provider.take_code(&form.code, &form.redirect_uri, &form.code_verifier).ok_or("invalid_grant")
        }
        "refresh_token" => {
            provider.take_refresh(&form.refresh_token).map(|person| (person, None)).ok_or("invalid_grant")
        }
        _ => Err("unsupported_grant_type"),
    };
    match found {
        Ok((person, nonce)) => Json(provider.tokens(person, nonce.as_deref())).into_response(),
        Err(error) => refuse(StatusCode::BAD_REQUEST, error, ""),
    }
}

async fn userinfo(State(provider): State<DemoProvider>, headers: HeaderMap) -> Response {
    let bearer = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.strip_prefix("Bearer "));
    let claims = bearer.and_then(|token| provider.0.key.open(token));
    let is_alive = |exp: &Value| exp.as_u64().is_some_and(|exp| exp > super::unix_now());
    let email = claims.filter(|claims| claims.get("exp").is_some_and(is_alive));
    let email = email.and_then(|mut claims| claims.remove("email"));
    let person = email.as_ref().and_then(Value::as_str).and_then(|email| provider.find(email));
    match person {
        Some((_, person)) => Json(provider.claims(person)).into_response(),
        None => refuse(StatusCode::UNAUTHORIZED, "invalid_token", ""),
    }
}

#[derive(Deserialize)]
struct CodeForm {
    #[serde(default)]
    user_code: String,
    #[serde(default)]
    user: String,
    deny: Option<String>,
}

async fn device_page(State(provider): State<DemoProvider>, Query(form): Query<CodeForm>) -> Html<String> {
    if form.user_code.is_empty() {
        return Html(pages::ask_code(""));
    }
    Html(match provider.waiting(&form.user_code) {
        Some(user_code) => pages::ask_approval(&user_code, provider.people()),
        None => {
            pages::ask_code("No login waits with this code. It may have ended; connect again for a new one.")
        }
    })
}

async fn device_answer(State(provider): State<DemoProvider>, Form(form): Form<CodeForm>) -> Response {
    let answered = if form.deny.is_some() {
        provider
            .deny(&form.user_code)
            .map(|()| ("Denied", "The login was denied. You can close this page.".to_owned()))
    } else {
        let approved = provider.approve(&form.user_code, &form.user);
        approved.map(|person| {
            ("Approved", format!("You are logged in as {}. Go back to your client.", person.email))
        })
    };
    match answered {
        Ok((title, text)) => Html(pages::message(title, &text)).into_response(),
        Err(error) => {
            (StatusCode::BAD_REQUEST, Html(pages::message("Not approved", &sentence(&error)))).into_response()
        }
    }
}

async fn approve(State(provider): State<DemoProvider>, Form(form): Form<CodeForm>) -> Response {
    match provider.approve_anywhere(&form.user_code, &form.user).await {
        Ok(person) => Json(json!({ "user": person.email })).into_response(),
        Err(error) => api_refusal(&error),
    }
}

async fn deny(State(provider): State<DemoProvider>, Form(form): Form<CodeForm>) -> Response {
    match provider.deny_anywhere(&form.user_code, &form.user).await {
        Ok(()) => Json(json!({ "denied": true })).into_response(),
        Err(error) => api_refusal(&error),
    }
}

fn api_refusal(error: &ApproveError) -> Response {
    let (status, word) = match error {
        ApproveError::NoSuchCode => (StatusCode::NOT_FOUND, "no_such_code"),
        ApproveError::Answered => (StatusCode::CONFLICT, "answered"),
        ApproveError::Page(_) => (StatusCode::CONFLICT, "page"),
        ApproveError::NoSuchPerson { .. } => (StatusCode::BAD_REQUEST, "no_such_person"),
    };
    refuse(status, word, &error.to_string())
}

/// An error as a sentence of its own.
fn sentence(error: &ApproveError) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).chain(['.']).collect()
}

/// A browser's login request, and the same again with the person's choice.
#[derive(Deserialize)]
struct AuthorizeForm {
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    response_type: String,
    #[serde(default)]
    redirect_uri: String,
    #[serde(default)]
    code_challenge: String,
    #[serde(default)]
    code_challenge_method: String,
    state: Option<String>,
    nonce: Option<String>,
    #[serde(default)]
    user: String,
    deny: Option<String>,
}

impl AuthorizeForm {
    /// Where to go back to, if the request is one we serve.
    fn check(&self) -> Result<Url, &'static str> {
        if self.client_id != CLIENT_ID {
            return Err("Unknown client.");
        }
        let url = Url::parse(&self.redirect_uri).map_err(|_| "The redirect address is not a URL.")?;
        let host = url.host_str().unwrap_or_default();
        if !matches!(url.scheme(), "http" | "https") || !is_loopback_name(host) || url.fragment().is_some() {
            return Err("The demo sends browsers back to loopback addresses only.");
        }
        if self.response_type != "code"
            || self.code_challenge_method != "S256"
            || self.code_challenge.len() != 43
        {
            return Err("Only the code flow with PKCE (S256) is served.");
        }
        Ok(url)
    }

    fn fields(self) -> Vec<(String, String)> {
        let fixed = [
            ("client_id", Some(self.client_id)),
            ("response_type", Some(self.response_type)),
            ("redirect_uri", Some(self.redirect_uri)),
            ("code_challenge", Some(self.code_challenge)),
            ("code_challenge_method", Some(self.code_challenge_method)),
            ("state", self.state),
            ("nonce", self.nonce),
        ];
        fixed.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

async fn authorize_page(State(provider): State<DemoProvider>, Query(form): Query<AuthorizeForm>) -> Response {
    match form.check() {
        Ok(_) => Html(pages::ask_person(&form.fields(), provider.people())).into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, Html(pages::message("Cannot sign in", why))).into_response(),
    }
}

async fn authorize_answer(State(provider): State<DemoProvider>, Form(form): Form<AuthorizeForm>) -> Response {
    let mut back = match form.check() {
        Ok(url) => url,
        Err(why) => {
            return (StatusCode::BAD_REQUEST, Html(pages::message("Cannot sign in", why))).into_response();
        }
    };
    let code = match provider.find(&form.user) {
        Some((person, _)) if form.deny.is_none() => provider.begin_code(Code {
            person,
            redirect_uri: form.redirect_uri,
            challenge: form.code_challenge,
            nonce: form.nonce,
            ends: Instant::now() + CODE_LIFE,
        }),
        _ => None,
    };
    match code {
        Some(code) => back.query_pairs_mut().append_pair("code", &code),
        None => back.query_pairs_mut().append_pair("error", "access_denied"),
    };
    if let Some(state) = &form.state {
        back.query_pairs_mut().append_pair("state", state);
    }
    (StatusCode::SEE_OTHER, [(LOCATION, back.to_string())]).into_response()
}

fn refuse(status: StatusCode, error: &str, description: &str) -> Response {
    let body = if description.is_empty() {
        json!({ "error": error })
    } else {
        json!({ "error": error, "error_description": description })
    };
    (status, Json(body)).into_response()
}
