//! Accepts connections up to a limit. (Who is a client is known only later: cancel requests must get
//! through when all places are taken.)

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Gateway, Workers, startup, stream};

/// Pause after an accept that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections beyond the limit of clients: cancel requests, and clients that are being told that
/// there is no place. Further ones are closed in silence.
const MAX_BEYOND: usize = 256;

/// Accepts until told to stop. Sessions go on as tasks of the tracker, each on one of the workers.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener, workers: Arc<Workers>) {
    let connections = gateway.config.listen.max_clients.saturating_add(MAX_BEYOND);
    let connections = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
    loop {
        let accepted = tokio::select! {
            // Stopping comes first: a busy port must not keep us.
            biased;
            () = gateway.stop.cancelled() => break,
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
        // From here on its sockets are watched by the worker.
        let Ok(stream) = stream.into_std() else { continue };
        let (gateway, seat) = (gateway.clone(), workers.seat());
        let handle = seat.handle.clone();
        gateway.tracker.clone().spawn_on(
            async move {
                serve_client(gateway, stream, address).await;
                drop((connection, seat));
            },
            &handle,
        );
    }
    gateway.drain.begin();
}

async fn serve_client(gateway: Arc<Gateway>, stream: std::net::TcpStream, address: SocketAddr) {
    match prepare(stream) {
        Ok(stream) => startup::welcome(gateway, stream, address).await,
        Err(error) => tracing::debug!(%error, %address, "could not set up the connection"),
    }
}

fn prepare(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    let stream = TcpStream::from_std(stream)?;
    stream::prepare(&stream)?;
    Ok(stream)
}
