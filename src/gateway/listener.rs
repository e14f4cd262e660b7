//! Accepts clients, counts them, refuses beyond the limit, and drains at the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pgwitness_protocol::reply::{Say, Severity};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Gateway, startup};

/// Pause after an accept that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections beyond the limit that are being told so; further ones are closed in silence.
const MAX_REFUSALS: usize = 64;

/// How long a refused client may take to read why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Accepts until told to stop. Sessions go on as tasks of the tracker.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(gateway.config.listen.max_clients));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    loop {
        let accepted = tokio::select! {
            // Stopping comes first: a busy port must not keep us.
            biased;
            () = gateway.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Ok(place) = places.clone().try_acquire_owned() {
            let gateway = gateway.clone();
            gateway.tracker.clone().spawn(async move {
                serve_client(gateway, stream, address).await;
                drop(place);
            });
        } else if let Ok(refusal) = refusals.clone().try_acquire_owned() {
            gateway.tracker.spawn(async move {
                let _ = tokio::time::timeout(REFUSAL_TIMEOUT, refuse(stream)).await;
                drop(refusal);
            });
        }
    }
}

async fn serve_client(gateway: Arc<Gateway>, stream: TcpStream, address: SocketAddr) {
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%error, %address, "could not set up the connection");
        return;
    }
    startup::welcome(gateway, stream, address).await;
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)
}

async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let mut out = BytesMut::new();
    Say::new(Severity::Fatal, "53300", "sorry, too many clients already")
        .hint("The gateway's limit is listen.max_clients.")
        .encode(&mut out);
    stream.write_all(&out).await?;
    stream.shutdown().await
}
