//! What the API answers when it cannot answer: RFC 9457 problem documents.
//!
//! A problem carries only text meant for the caller; never an internal error's own words.

use std::num::NonZeroU16;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// How long who is told that we cannot answer now should wait.
const UNAVAILABLE_FOR: Duration = Duration::from_secs(1);

/// One RFC 9457 problem: `type`, `title`, `status`, `detail`, and for queries `span`, `suggestion`.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    more: Map<String, Value>,
    /// Seconds; small, because each answer carries the place of a problem.
    retry_after: Option<NonZeroU16>,
}

impl Problem {
    /// A problem of a kind (the last part of its `type`), with a sentence for the caller.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), more: Map::new(), retry_after: None }
    }

    /// The request itself is wrong.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// A query that cannot be read, with the place in its text (bytes, end exclusive).
    pub fn query(detail: impl Into<String>, span: (usize, usize), suggestion: Option<String>) -> Self {
        let mut problem = Self::new(StatusCode::BAD_REQUEST, "query", detail);
        problem.more.insert("span".into(), json!([span.0, span.1]));
        if let Some(suggestion) = suggestion {
            problem.more.insert("suggestion".into(), suggestion.into());
        }
        problem
    }

    /// Nobody proved who they are.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
    }

    /// Known, but not allowed.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// Not there, or not for this caller: the answer is the same.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "there is nothing here that you may see")
    }

    /// The caller has taken their share and may come again after `wait`.
    pub fn too_many(detail: impl Into<String>, wait: Duration) -> Self {
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail);
        problem.retry_after = whole_seconds(wait);
        problem
    }

    /// Our side cannot answer now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        problem.retry_after = whole_seconds(UNAVAILABLE_FOR);
        problem
    }

    /// Our side failed; the log says more.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the gateway could not answer. Its log says why",
        )
    }

    /// The sentence for the caller.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

/// Never too few, and at least one.
fn whole_seconds(wait: Duration) -> Option<NonZeroU16> {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    NonZeroU16::new(u16::try_from(seconds.max(1)).unwrap_or(u16::MAX))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = Map::new();
        body.insert("type".into(), format!("urn:pgwitness:problem:{}", self.kind).into());
        body.insert("title".into(), self.status.canonical_reason().unwrap_or("Problem").into());
        body.insert("status".into(), self.status.as_u16().into());
        body.insert("detail".into(), self.detail.into());
        body.extend(self.more);
        let mut response = (self.status, Value::Object(body).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.get()));
        }
        response
    }
}
