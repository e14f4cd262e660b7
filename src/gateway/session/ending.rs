//! How a session ends: what is still said, what still runs is cancelled, and all records get their ends.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use pgwitness_protocol::backend::Status;
use pgwitness_protocol::reply::{Say, Severity};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::super::stream::Stream;
use super::{READ_MIN, Session};

/// After the client has gone, a cancelled statement gets this long to end.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// A cancel request that had no effect is made again after this long.
const CANCEL_AGAIN: Duration = Duration::from_secs(1);

/// Parting words may take this long.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a session ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// The client said so, or cannot be written to.
    Client(&'static str),
    /// The client sends no more: it has left, or waits for its answers.
    ClientSilent,
    /// The server closed the connection.
    Server,
    /// We end it, and tell the client.
    Us(Say),
}

impl Session {
    /// A defect of ours ended the session: its records are settled, and nothing goes on running.
    pub(super) async fn give_up(&mut self) {
        tracing::error!(session = %self.who().session, "a defect of the gateway ended a session");
        self.chronicle.end(false, "a defect of the gateway ended the session");
        if let Err(error) = self.upstream.cancel(self.pid, &self.server_key).await {
            tracing::debug!(%error, "could not cancel what a session left behind");
        }
    }

    pub(super) async fn end(&mut self, client: &mut Stream, ending: Ending) {
        let (reason, say) = match ending {
            Ending::Client(reason) => (reason.to_owned(), None),
            Ending::ClientSilent => ("the client left without saying so".to_owned(), None),
            Ending::Server => ("the database closed the connection".to_owned(), None),
            Ending::Us(ref say) => (say.message.clone(), Some(say)),
        };
        match ending {
            Ending::Client(_) => {}
            // A database that hears no more may have spoken.
            Ending::Server => self.last_words(client).await,
            Ending::ClientSilent | Ending::Us(_) => {
                let _ = tokio::time::timeout(FAREWELL_TIMEOUT, self.farewell(client, say)).await;
            }
        }
        if !matches!(ending, Ending::Server) {
            self.stop_backend().await;
        }
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, async {
            let _ = client.shutdown().await;
            // Terminate, in case the client did not say it.
            let _ = self.server.send(b"X\0\0\0\x04").await;
            let _ = self.server.shutdown().await;
        })
        .await;
        let clean = self.conversation.is_idle();
        self.conversation.abandon(&mut self.events);
        self.write_down();
        self.chronicle.end(clean, &reason);
    }

    /// Passes on what the database said before it closed.
    async fn last_words(&mut self, client: &mut Stream) {
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, async {
            loop {
                client.send(self.results.cleared()).await?;
                let count = self.results.cleared().len();
                self.results.passed(count);
                self.server.read_more(self.results.space(READ_MIN)).await?;
                if self.hear_and_hold().await.is_err() {
                    return io::Result::Ok(());
                }
            }
        })
        .await;
    }

    /// Nobody waits for the answer any more: what still runs is cancelled, and its end heard.
    async fn stop_backend(&mut self) {
        if self.conversation.is_idle() {
            return;
        }
        let until = Instant::now() + CANCEL_TIMEOUT;
        let mut told = false;
        while Instant::now() < until {
            if let Err(error) = self.upstream.cancel(self.pid, &self.server_key).await {
                tracing::debug!(%error, "could not cancel what a client left behind");
            }
            if !std::mem::replace(&mut told, true) {
                // A server that waits for more of a pipeline or of COPY data hears that none will come.
                let _ = self.server.shutdown().await;
            }
            // A request that comes before the statement has begun is lost: it is made again.
            if tokio::time::timeout(CANCEL_AGAIN, self.hear_out()).await.is_ok() {
                return;
            }
        }
    }

    /// Hears the server until nothing is unanswered, or it is gone.
    ///
    /// Cancel safe: what was read is in the buffer.
    async fn hear_out(&mut self) -> io::Result<()> {
        while !self.conversation.is_idle() {
            let count = self.results.cleared().len();
            self.results.passed(count);
            self.server.read_more(self.results.space(READ_MIN)).await?;
            let heard = self.hear();
            self.write_down();
            heard.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Tells a client in a transaction that its session will end, where that can be said between two messages.
    pub(super) async fn warn(&mut self, client: &mut Stream) {
        let at_rest = self.status == Status::Idle && self.conversation.is_idle();
        let between = !self.withheld && !self.results.is_mid_message() && self.results.cleared().is_empty();
        if at_rest || !between {
            return;
        }
        let mut out = BytesMut::new();
        Say::new(Severity::Warning, "01000", "this session will be ended: finish your transaction")
            .encode(&mut out);
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, client.send(&out)).await;
    }

    /// What the database said last belongs to the client; then our own words, between messages only.
    async fn farewell(&mut self, client: &mut Stream, say: Option<&Say>) {
        if client.send(self.results.cleared()).await.is_err() {
            return;
        }
        let count = self.results.cleared().len();
        self.results.passed(count);
        let mid_message = if self.withheld { self.mid_result } else { self.results.is_mid_message() };
        if let Some(say) = say.filter(|_| !mid_message) {
            let mut out = BytesMut::new();
            say.encode(&mut out);
            let _ = client.send(&out).await;
        }
    }
}

/// What a client hears whose message may wait for ever.
pub(super) fn undecided() -> Say {
    Say::new(Severity::Fatal, "08P01", "a message came in the middle of COPY data")
        .hint("The gateway cannot know whether the database would heed it, so it does not pass it on. End the data with CopyDone or CopyFail first, then send Sync.")
}
