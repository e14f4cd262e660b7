//! `GET /api/v1/export`: all records of a search as one file, page by page, and its manifest.
//!
//! The client pulls: nothing is read ahead of what it takes, and memory holds one page (of Parquet:
//! one row group). A failure in the middle breaks the connection, so that a short file never looks
//! whole.
//!
//! Two records tell about an export: one before its first byte, and one with its rows and SHA-256
//! before its last, so that the log says of a file whether it came from here and is whole. Then the
//! manifest can be fetched at the address that the answer's `Link` header names, for
//! [`MANIFEST_LIFE`], by who exported and by auditors.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use pgwitness_index::export::{Export, ExportError, Format, Summary};
use pgwitness_index::record::Timestamp;
use pgwitness_index::view::format_time;
use serde_json::{Value, json};
use uuid::Uuid;

use super::api::{Answer, find, searching};
use super::ask::{self, Ask};
use super::auth::Caller;
use super::expiring::Expiring;
use super::limits::Place;
use super::params::Params;
use super::problem::Problem;
use super::{Api, audit, proof, when};

/// Most records in one export.
const ROWS_MAX: u64 = 1_000_000;
/// Manifests kept; one more ends the oldest.
const MANIFESTS_MAX: usize = 1_000;
/// A manifest can be fetched this long after its export.
const MANIFEST_LIFE: Duration = Duration::from_secs(3600);

/// The manifests of exports that ended a moment ago.
pub(super) struct Manifests(Expiring<Arc<Manifest>>);

struct Manifest {
    iss: String,
    sub: String,
    text: Value,
}

impl Manifests {
    pub(super) fn new() -> Self {
        Self(Expiring::new(MANIFESTS_MAX))
    }
}

/// An export on its way to the client.
struct Download {
    api: Arc<Api>,
    caller: Caller,
    /// The next page; none after the last.
    ask: Option<Box<Ask>>,
    export: Option<Export>,
    rows: u64,
    indexed_seq: Option<u64>,
    about: Arc<About>,
    _place: Place,
}

/// What a manifest says besides the file.
struct About {
    id: Uuid,
    format: Format,
    query: String,
    asked: String,
    fields: Vec<String>,
    began: Timestamp,
    head: Value,
}

pub(super) async fn export(
    State(api): State<Arc<Api>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let params = Params::from_url(query.as_deref(), ask::EXPORT)?;
    let format = format(params.get("format"))?;
    let mut ask = Ask::read(&api, &params)?;
    ask.limit = usize::try_from(ask::LIMIT_MAX).unwrap_or(1);
    let export = Export::begin(format, &ask.fields).map_err(|error| match error {
        ExportError::NoChoice => Problem::bad_request(error.to_string()),
        error => failed(&error),
    })?;
    let place = api.limits.export(&caller.share)?;
    let (asked, query, fields) = (ask.asked(), ask.text.clone(), ask.fields.clone());
    let recorder = caller.clone();
    let about = searching(&api, &caller, move |api| {
        // Before the first page: the file holds nothing that this head does not cover.
        let (head, began) = (proof::whole_head(api), when::now());
        let detail = format!("exported {asked} [format {}]", format.as_str());
        let id = audit::export(api, &recorder, detail, None)?;
        Ok(Arc::new(About { id, format, query, asked, fields, began, head }))
    })
    .await?;
    let id = about.id;
    let download = Download {
        api,
        caller,
        ask: Some(Box::new(ask)),
        export: Some(export),
        rows: 0,
        indexed_seq: None,
        about,
        _place: place,
    };
    let headers = [
        (header::CONTENT_TYPE, format.media_type().to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", file_name(format))),
        (
            header::LINK,
            format!("</api/v1/export/{id}/manifest>; rel=\"describedby\"; type=\"application/json\""),
        ),
    ];
    Ok((headers, Body::from_stream(stream::try_unfold(download, next))).into_response())
}

/// The manifest of an export that ended: for who exported, and for auditors.
pub(super) async fn manifest(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    Params::from_url(query.as_deref(), &[])?;
    let found = api.manifests.0.get(&id).filter(|found| {
        let own = found.iss == caller.principal.iss() && found.sub == caller.principal.sub();
        own || caller.access.reads_all()
    });
    found.map(|found| Json(found.text.clone())).ok_or_else(Problem::not_found)
}

fn format(word: Option<&str>) -> Result<Format, Problem> {
    let word = word.unwrap_or(Format::Jsonl.as_str());
    Format::from_word(word).ok_or_else(|| {
        let known: Vec<&str> = Format::ALL.iter().map(|format| format.as_str()).collect();
        Problem::bad_request(format!("format={word} is not one of {}", known.join(", ")))
    })
}

fn file_name(format: Format) -> String {
    format!("pgwitness.{}", format.extension())
}

/// The next bytes: of a page, or of several while a row group fills.
async fn next(mut download: Download) -> io::Result<Option<(Vec<u8>, Download)>> {
    while let Some(ask) = download.ask.take() {
        let Some(export) = download.export.take() else { break };
        if download.rows >= ROWS_MAX {
            tracing::warn!(ROWS_MAX, "an export was broken off at its bound");
            return Err(io::Error::other("the export is too large. Ask for a shorter time range"));
        }
        let caller = download.caller.clone();
        let page = searching(&download.api, &download.caller, move |api| page(api, &caller, ask, export));
        let page = page.await.map_err(|problem| io::Error::other(problem.detail().to_owned()))?;
        let indexed_seq = *download.indexed_seq.get_or_insert(page.indexed_seq);
        download.rows += page.rows;
        download.ask = page.following;
        let bytes = if download.ask.is_none() {
            let (about, caller) = (Arc::clone(&download.about), download.caller.clone());
            let ending = searching(&download.api, &download.caller, move |api| {
                end(api, &caller, page.export, &about, indexed_seq)
            });
            let rest = ending.await.map_err(|problem| io::Error::other(problem.detail().to_owned()))?;
            [page.bytes, rest].concat()
        } else {
            download.export = Some(page.export);
            page.bytes
        };
        if !bytes.is_empty() {
            return Ok(Some((bytes, download)));
        }
    }
    Ok(None)
}

struct Step {
    export: Export,
    bytes: Vec<u8>,
    rows: u64,
    indexed_seq: u64,
    following: Option<Box<Ask>>,
}

fn page(api: &Api, caller: &Caller, mut ask: Box<Ask>, mut export: Export) -> Result<Step, Problem> {
    let page = find(api, caller, &ask)?;
    let rows = page.items.len() as u64;
    for item in page.items {
        export.push(item).map_err(|error| failed(&error))?;
    }
    let following = page.next_cursor.map(|cursor| {
        ask.cursor = Some(cursor);
        ask
    });
    Ok(Step { bytes: export.take(), export, rows, indexed_seq: page.indexed_seq.0, following })
}

/// Ends the file: records what it is, and keeps its manifest. What cannot be recorded is not ended.
fn end(
    api: &Api,
    caller: &Caller,
    export: Export,
    about: &About,
    indexed_seq: u64,
) -> Result<Vec<u8>, Problem> {
    let (rest, summary) = export.finish().map_err(|error| failed(&error))?;
    let seqs = summary.seqs.map(|(first, last)| format!(", seq {first}..{last}")).unwrap_or_default();
    let detail = format!(
        "finished the export {}: {} rows, {} bytes{seqs}, sha256 {}",
        about.id, summary.rows, summary.bytes, summary.sha256
    );
    audit::export(api, caller, detail, Some(&summary))?;
    let who = &caller.principal;
    let manifest = Manifest {
        iss: who.iss().to_owned(),
        sub: who.sub().to_owned(),
        text: manifest_text(caller, about, &summary, indexed_seq),
    };
    api.manifests.0.insert(&about.id.to_string(), Arc::new(manifest), MANIFEST_LIFE);
    Ok(rest)
}

fn manifest_text(caller: &Caller, about: &About, summary: &Summary, indexed_seq: u64) -> Value {
    let who = &caller.principal;
    json!({
        "manifest": "pgwitness.export/1",
        "id": about.id.to_string(),
        "file": {
            "name": file_name(about.format),
            "format": about.format.as_str(),
            "schema": about.format.schema(),
            "media_type": about.format.media_type(),
            "bytes": summary.bytes,
            "sha256": summary.sha256.to_string(),
        },
        "rows": summary.rows,
        "seq": summary.seqs.map(|(first, last)| json!({ "first": first.0, "last": last.0 })),
        "query": about.query,
        "asked": about.asked,
        "fields": about.fields,
        "scope": if caller.access.reads_all() { "all" } else { "own" },
        "head": about.head,
        "indexed_seq": indexed_seq,
        "exported_by": { "user": who.user(), "sub": who.sub(), "iss": who.iss(), "login": who.login() },
        "began": format_time(about.began),
        "ended": format_time(when::now()),
        "gateway": concat!("pgwitness ", env!("CARGO_PKG_VERSION")),
    })
}

fn failed(error: &ExportError) -> Problem {
    tracing::error!(%error, "an export failed");
    Problem::internal()
}
