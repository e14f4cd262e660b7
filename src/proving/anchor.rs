//! Heads kept where the log's owner cannot change them: appended to files, sent to webhooks.
//!
//! Every interval, and at the end, the last signed head goes to each place that does not have it yet. A
//! place that cannot be reached is tried again at the next interval; nothing waits for it.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use tokio_util::sync::CancellationToken;

use super::Proofs;
use crate::config::{Anchor, AnchorTo};

/// A webhook answers within this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What is sent: a checkpoint is plain text (c2sp.org/tlog-tiles).
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// The places, and what each of them has.
pub(crate) struct Anchors {
    proofs: Proofs,
    every: Duration,
    places: Vec<Place>,
    http: reqwest::Client,
}

struct Place {
    to: AnchorTo,
    /// Entries of the last head it has.
    has: Option<u64>,
}

impl Anchors {
    /// Places that have nothing yet.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub(crate) fn new(config: &Anchor, proofs: Proofs) -> reqwest::Result<Self> {
        let http =
            reqwest::Client::builder().timeout(ANSWER_TIMEOUT).redirect(reqwest::redirect::Policy::none());
        let places = config.to.iter().map(|to| Place { to: to.clone(), has: None }).collect();
        Ok(Self { proofs, every: config.every, places, http: http.build()? })
    }

    /// Keeps heads until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Self {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first tick comes at once, before anything is signed.
        ticks.tick().await;
        loop {
            tokio::select! {
                // The end comes first.
                biased;
                () = stop.cancelled() => return self,
                _ = ticks.tick() => self.keep().await,
            }
        }
    }

    /// Gives the last signed head to the places that do not have it.
    pub(crate) async fn keep(&mut self) {
        let Some(published) = self.proofs.reader().published() else { return };
        let (size, note) = (published.tree.size, published.note.to_string());
        for place in &mut self.places {
            if place.has == Some(size) {
                continue;
            }
            match deliver(&self.http, &place.to, note.clone()).await {
                Ok(()) => place.has = Some(size),
                Err(error) => tracing::error!(to = %place.to, %error, "could not anchor the log's head"),
            }
        }
    }
}

/// Why a place did not take a head. It never holds the address, which may be a secret.
#[derive(Debug, thiserror::Error)]
enum AnchorError {
    #[error("{0}")]
    File(#[from] io::Error),
    #[error("{0}")]
    Http(reqwest::Error),
    #[error("it answered {0}")]
    Status(u16),
    #[error("the writing thread ended")]
    Thread,
}

async fn deliver(http: &reqwest::Client, to: &AnchorTo, note: String) -> Result<(), AnchorError> {
    match to {
        AnchorTo::File(path) => {
            let path = path.clone();
            tokio::task::spawn_blocking(move || append(&path, &note))
                .await
                .map_err(|_| AnchorError::Thread)??;
            Ok(())
        }
        AnchorTo::Webhook(url) => {
            let request = http.post(url.reveal()).header(CONTENT_TYPE, PLAIN_TEXT).body(note);
            let answer =
                request.send().await.map_err(|error| AnchorError::Http(error.without_url()))?.status();
            if answer.is_success() { Ok(()) } else { Err(AnchorError::Status(answer.as_u16())) }
        }
    }
}

/// Appends a head, with an empty line behind it: heads have one inside, and end with a signature.
fn append(path: &Path, note: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.write_all(format!("{note}\n").as_bytes())?;
    file.sync_data()
}
