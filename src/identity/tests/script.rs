//! A provider that says what a test tells it to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::demo::provider::Key;

pub(super) struct Script {
    pub(super) issuer: String,
    pub(super) key: Key,
    stage: Arc<Mutex<Stage>>,
}

#[derive(Default)]
struct Stage {
    /// What a path says once each, in order.
    lines: HashMap<String, Vec<Line>>,
    /// What it says when it has no line left.
    always: HashMap<String, Line>,
    hits: HashMap<String, usize>,
    /// Requests of a path that are being answered, and the most that were at once.
    at_once: HashMap<String, (usize, usize)>,
    /// The last request of a path: authorization header and body.
    heard: HashMap<String, (String, String)>,
}

#[derive(Clone)]
struct Line {
    status: u16,
    body: Vec<u8>,
    delay: Duration,
    location: Option<String>,
}

impl Script {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let stage = Arc::new(Mutex::new(Stage::default()));
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&stage));
        TaskTracker::new().spawn(async move { axum::serve(listener, app).await });
        let script = Self { issuer, key: Key::new(), stage };
        script.always("/.well-known/openid-configuration", 200, &script.discovery());
        script.publish(&script.key);
        script.always("/device", 200, &script.device());
        script.always("/token", 400, &json!({"error": "authorization_pending"}));
        script
    }

    pub(super) fn discovery(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "authorization_endpoint": format!("{}/authorize", self.issuer),
            "token_endpoint": format!("{}/token", self.issuer),
            "device_authorization_endpoint": format!("{}/device", self.issuer),
            "userinfo_endpoint": format!("{}/userinfo", self.issuer),
            "jwks_uri": format!("{}/jwks", self.issuer),
        })
    }

    pub(super) fn device(&self) -> Value {
        json!({
            "device_code": "device-code", "user_code": "ABCD-EFGH", "expires_in": 600, "interval": 1,
            "verification_uri": format!("{}/verify", self.issuer),
        })
    }

    pub(super) fn publish(&self, key: &Key) {
        self.always("/jwks", 200, &json!({"keys": [key.jwk()]}));
    }

    /// Claims with which a login succeeds.
    pub(super) fn claims(&self) -> Value {
        let now = now();
        json!({
            "iss": self.issuer, "aud": "pgwitness", "sub": "alice-1", "iat": now, "exp": now + 300,
            "email": "alice@example.com", "email_verified": true, "groups": ["support"],
        })
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.key.sign("JWT", claims)
    }

    pub(super) fn tokens(&self, claims: &Value) -> Value {
        json!({"id_token": self.sign(claims), "access_token": "access", "token_type": "Bearer"})
    }

    pub(super) fn say(&self, path: &str, status: u16, body: &Value) {
        self.say_slowly(path, status, body, Duration::ZERO);
    }

    pub(super) fn say_slowly(&self, path: &str, status: u16, body: &Value, delay: Duration) {
        let line = Line { status, body: body.to_string().into_bytes(), delay, location: None };
        self.stage.lock().unwrap().lines.entry(path.to_owned()).or_default().push(line);
    }

    pub(super) fn always(&self, path: &str, status: u16, body: &Value) {
        self.always_raw(path, status, body.to_string().into_bytes(), None);
    }

    pub(super) fn always_raw(&self, path: &str, status: u16, body: Vec<u8>, location: Option<&str>) {
        let line = Line { status, body, delay: Duration::ZERO, location: location.map(str::to_owned) };
        self.stage.lock().unwrap().always.insert(path.to_owned(), line);
    }

    /// The same always, each time after a while.
    pub(super) fn always_slowly(&self, path: &str, status: u16, body: &Value, delay: Duration) {
        let line = Line { status, body: body.to_string().into_bytes(), delay, location: None };
        self.stage.lock().unwrap().always.insert(path.to_owned(), line);
    }

    /// The most requests of a path that were answered at once.
    pub(super) fn most_at_once(&self, path: &str) -> usize {
        self.stage.lock().unwrap().at_once.get(path).map_or(0, |(_, most)| *most)
    }

    pub(super) fn hits(&self, path: &str) -> usize {
        self.stage.lock().unwrap().hits.get(path).copied().unwrap_or(0)
    }

    pub(super) fn heard(&self, path: &str) -> (String, String) {
        self.stage.lock().unwrap().heard.get(path).cloned().unwrap_or_default()
    }
}

async fn answer(State(stage): State<Arc<Mutex<Stage>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let path = head.uri.path().to_owned();
    let authorization = head.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let line = {
        let mut stage = stage.lock().unwrap();
        *stage.hits.entry(path.clone()).or_default() += 1;
        let heard = (authorization.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap());
        stage.heard.insert(path.clone(), heard);
        let (now, most) = stage.at_once.entry(path.clone()).or_default();
        *now += 1;
        *most = (*most).max(*now);
        let next = stage.lines.get_mut(&path).filter(|lines| !lines.is_empty()).map(|lines| lines.remove(0));
        next.or_else(|| stage.always.get(&path).cloned())
    };
    let line = line.unwrap_or(Line { status: 404, body: Vec::new(), delay: Duration::ZERO, location: None });
    tokio::time::sleep(line.delay).await;
    stage.lock().unwrap().at_once.entry(path).or_default().0 -= 1;
    let mut response = (StatusCode::from_u16(line.status).unwrap(), line.body).into_response();
    if let Some(location) = line.location {
        response.headers_mut().insert("location", location.parse().unwrap());
    }
    response
}

pub(super) fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}
