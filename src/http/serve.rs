//! Serving: connections in, requests answered, drained at the end.
//!
//! Bounds, and what happens at each: connections (new ones wait in the kernel's queue), size and
//! time of a request's head (the connection ends), size of a body (413), requests at work (503),
//! time of an answer (503), time to drain (what is left is cut).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::HeaderValue;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::problem::Problem;

/// Open connections, in all.
const CONNECTIONS_MAX: usize = 1_024;
/// Requests at work, in all; one more is answered 503.
const REQUESTS_MAX: usize = 128;
/// Bytes of a request's line and headers together.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Headers of one request.
const HEADERS_MAX: usize = 64;
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// A client has this long for the head of a request, and between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A client has this long for its TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// We have this long for the head of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections have this long to finish when we stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failed accept (no file descriptors left), wait this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address of the client, as an extension of each request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Tells answers without an end that they must come to one, as an extension of each request.
#[derive(Debug, Clone)]
pub(super) struct Stopping(CancellationToken);

impl Stopping {
    /// Comes back when we stop; never, if nobody would say so. Cancel safe.
    pub(super) async fn wait(stopping: Option<&Self>) {
        match stopping {
            Some(stopping) => stopping.0.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

/// Adds the bounds of a request (body, work at once, time) to a router.
pub(super) fn bounded(router: Router) -> Router {
    router
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::new(Semaphore::new(REQUESTS_MAX)), bound))
}

async fn bound(State(at_work): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(_permit) = at_work.try_acquire() else {
        return Problem::unavailable("too many requests at once. Try again in a moment").into_response();
    };
    match tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Problem::unavailable("the answer took too long. Ask for a shorter time range").into_response()
        }
    }
}

/// Serves plain HTTP until cancelled, then drains. Every connection is a task of `tracker`.
pub async fn serve(listener: TcpListener, router: Router, tracker: TaskTracker, cancel: CancellationToken) {
    accept(listener, None, router, tracker, cancel).await;
}

/// Serves HTTPS until cancelled, then drains. Every connection is a task of `tracker`.
pub async fn serve_tls(
    listener: TcpListener,
    tls: TlsAcceptor,
    router: Router,
    tracker: TaskTracker,
    cancel: CancellationToken,
) {
    accept(listener, Some(tls), router, tracker, cancel).await;
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    tracker: TaskTracker,
    cancel: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Both arms are cancel safe: a permit not taken and a connection not accepted stay where they are.
        let slot = tokio::select! {
            biased; // stopping goes before new work
            () = cancel.cancelled() => break,
            slot = Arc::clone(&slots).acquire_owned() => slot,
        };
        let Ok(slot) = slot else { break };
        let accepted = tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (router, tls, cancel) = (router.clone(), tls.clone(), cancel.clone());
        tracker.spawn(async move {
            let _slot = slot;
            let _ = stream.set_nodelay(true);
            match tls {
                None => converse(stream, peer, router, cancel).await,
                Some(tls) => match tokio::time::timeout(TLS_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => converse(stream, peer, router, cancel).await,
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "the TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
                },
            }
        });
    }
}

/// One connection's life.
async fn converse<S>(stream: S, peer: SocketAddr, router: Router, cancel: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = router.layer(axum::Extension(Peer(peer))).layer(axum::Extension(Stopping(cancel.clone())));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_TIMEOUT, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "an HTTP connection ended early");
    }
}

/// Headers that keep browsers from guessing, caching and embedding.
pub(super) async fn guard_headers(request: Request, next: Next) -> Response<Body> {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("x-frame-options", "DENY"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in [
        ("cache-control", "no-store"),
        ("content-security-policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
