//! Roles with random passwords, and plain connections for the demo's own work: loading and seeding.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use base64::Engine;
use rand::RngCore;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::config::Secret;

/// Connecting takes at most this long, a login that a person approves included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Random bytes of a password.
const PASSWORD_BYTES: usize = 24;

/// A database role and its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Name in the database.
    pub name: String,
    /// Its password.
    pub password: Secret,
}

impl Role {
    /// A role with a fresh random password.
    pub fn random(name: impl Into<String>) -> Self {
        let mut bytes = [0_u8; PASSWORD_BYTES];
        rand::rngs::OsRng.fill_bytes(&mut bytes);
        let password = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        Self { name: name.into(), password: Secret::new(password) }
    }

    /// Creates the role, able to log in, or gives an existing one this password. The server is told the
    /// SCRAM verifier alone, so the password cannot turn up in its log.
    pub async fn create(&self, admin: &tokio_postgres::Client) -> Result<(), tokio_postgres::Error> {
        let known = "SELECT count(*) > 0 FROM pg_catalog.pg_roles WHERE rolname = $1";
        let known: bool = admin.query_one(known, &[&self.name]).await?.get(0);
        let verb = if known { "ALTER" } else { "CREATE" };
        let verifier = postgres_protocol::password::scram_sha_256(self.password.reveal().as_bytes());
        let name = quote_ident(&self.name);
        admin.batch_execute(&format!("{verb} ROLE {name} LOGIN PASSWORD '{verifier}'")).await
    }
}

/// An identifier as SQL text.
pub(crate) fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What the server said, or what else went wrong: the error's own text says only "db error".
pub(crate) fn told(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(said), _) => format!("{} ({})", said.message(), said.code().code()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

/// A connection, and the task that drives it. Dropping it closes both.
#[derive(Debug)]
pub struct Connected {
    client: tokio_postgres::Client,
    driver: JoinHandle<()>,
}

impl Connected {
    /// Says goodbye and waits until the server has closed.
    pub async fn close(self) {
        drop(self.client);
        // The server answers a goodbye by closing; if it does not, we do.
        let abort = self.driver.abort_handle();
        if tokio::time::timeout(CONNECT_TIMEOUT, self.driver).await.is_err() {
            abort.abort();
        }
    }
}

impl Deref for Connected {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl DerefMut for Connected {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.client
    }
}

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server or the network said no.
    #[error("could not connect to PostgreSQL: {}", told(.0))]
    Refused(#[from] tokio_postgres::Error),
    /// Nobody answered in time.
    #[error("could not connect to PostgreSQL within {} s", .0.as_secs())]
    Slow(Duration),
}

/// Connects without TLS, within a minute or the configuration's own `connect_timeout`, login included.
pub async fn connect(config: &tokio_postgres::Config) -> Result<Connected, ConnectError> {
    let limit = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
    let connecting = config.connect(tokio_postgres::NoTls);
    let (client, connection) =
        tokio::time::timeout(limit, connecting).await.map_err(|_| ConnectError::Slow(limit))??;
    let driver = TaskTracker::new().spawn(async move {
        // Whoever waits on the client gets the error of the statement that it broke.
        let _ = connection.await;
    });
    Ok(Connected { client, driver })
}
