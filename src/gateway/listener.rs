//! Accepts connections up to a limit. (Who is a client is known only later: cancel requests must get
//! through when all places are taken.)

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Gateway, startup};

/// Pause after an accept that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections beyond the limit of clients: cancel requests, and clients that are being told that
/// there is no place. Further ones are closed in silence.
const MAX_BEYOND: usize = 256;

/// Accepts until told to stop. Sessions go on as tasks of the tracker.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener) {
    let connections = gateway.config.listen.max_clients.saturating_add(MAX_BEYOND);
    let connections = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
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
        let Ok(connection) = connections.clone().try_acquire_owned() else { continue };
        let gateway = gateway.clone();
        gateway.tracker.clone().spawn(async move {
            serve_client(gateway, stream, address).await;
            drop(connection);
        });
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
