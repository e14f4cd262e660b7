//! Identity against real HTTP on loopback: the demo's provider where things go well, a scripted
//! one where they do not.

mod browser;
mod claims;
mod device;
mod kept;
mod pairing;
mod script;
mod tokens;
mod workloads;

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Provider;
use crate::config::Oidc;
use crate::demo::provider::{DemoProvider, Person};

/// A second of device logins in these tests.
const TICK: Duration = Duration::from_millis(10);

/// No test waits longer than that.
async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("the test hung")
}

fn config(issuer: &str) -> Oidc {
    Oidc {
        issuer: issuer.to_owned(),
        client_id: "pgwitness".to_owned(),
        native_client_id: "pgwitness-cli".to_owned(),
        client_secret: None,
        audience: "pgwitness".to_owned(),
        scopes: vec!["openid".to_owned(), "email".to_owned(), "groups".to_owned()],
        user_claim: "email".to_owned(),
        group_claim: "groups".to_owned(),
        require_acr: Vec::new(),
        session_max_age: Duration::from_secs(12 * 3600),
        refresh_every: Duration::from_secs(300),
        outage_grace: Duration::from_secs(900),
    }
}

fn provider(issuer: &str) -> Provider {
    provider_with(config(issuer))
}

fn provider_with(config: Oidc) -> Provider {
    Provider::new(config).unwrap().hurried(TICK, Duration::from_secs(10))
}

fn person(name: &str, groups: &[&str]) -> Person {
    Person {
        name: name.to_owned(),
        email: format!("{}@example.com", name.to_lowercase()),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
    }
}

async fn demo() -> DemoProvider {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let people =
        vec![person("Alice", &["support", "dev"]), person("Bob", &[]), person("<b>Eve</b>", &["\"x'"])];
    DemoProvider::start(listener, people, &TaskTracker::new(), CancellationToken::new()).unwrap()
}
