//! Health and metrics, for machines: no record text, no names.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

use super::Witness;

/// `/healthz`, `/readyz`, `/metrics`: to be served on an address of its own.
pub fn health(witness: Arc<dyn Witness>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(witness)
}

async fn ready(State(witness): State<Arc<dyn Witness>>) -> (StatusCode, &'static str) {
    if witness.status()["recording"] == true {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the access log has stopped, statements are refused\n")
    }
}

/// Prometheus text format.
async fn metrics(State(witness): State<Arc<dyn Witness>>) -> String {
    let status = witness.status();
    let number = |name: &str| status[name].as_u64().unwrap_or_default();
    let recording = u8::from(status["recording"] == true);
    let stuck = u8::from(status["retention"]["trouble"].is_string());
    format!(
        "# TYPE pgwitness_records_total counter\npgwitness_records_total {}\n\
         # TYPE pgwitness_sessions gauge\npgwitness_sessions {}\n\
         # TYPE pgwitness_recording gauge\npgwitness_recording {recording}\n\
         # TYPE pgwitness_failed_syncs_total counter\npgwitness_failed_syncs_total {}\n\
         # TYPE pgwitness_retention_stuck gauge\npgwitness_retention_stuck {stuck}\n",
        number("log_seq"),
        number("sessions"),
        number("failed_syncs"),
    )
}
