//! `GET /api/v1/export`: all records of a search, as CSV or JSON lines, page by page.
//!
//! The client pulls: nothing is read ahead of what it takes. A failure in the middle breaks the
//! connection, so that a short file never looks whole.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use pgwitness_index::export::{CSV_FIELDS, csv_header, csv_row, ndjson_row};
use pgwitness_index::view::View;

use super::api::{blocking, chosen, find};
use super::ask::{self, Ask};
use super::auth::Caller;
use super::params::Params;
use super::problem::Problem;
use super::{Api, audit};

/// Most records in one export.
const ROWS_MAX: usize = 1_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Jsonl,
}

struct Export {
    api: Arc<Api>,
    caller: Caller,
    ask: Option<Box<Ask>>,
    format: Format,
    header: Option<String>,
    rows: usize,
}

pub(super) async fn export(
    State(api): State<Arc<Api>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let params = Params::from_url(query.as_deref(), ask::EXPORT)?;
    let format = match params.get("format") {
        Some("csv") => Format::Csv,
        None | Some("jsonl") => Format::Jsonl,
        Some(other) => return Err(Problem::bad_request(format!("format={other} is not one of csv, jsonl"))),
    };
    let mut ask = Ask::read(&params)?;
    ask.limit = usize::try_from(ask::LIMIT_MAX).unwrap_or(1);
    if format == Format::Csv && ask.fields.is_empty() {
        ask.fields = CSV_FIELDS.iter().map(|&name| name.to_owned()).collect();
    }
    let (asked, recorder) = (ask.asked(), caller.clone());
    blocking(&api, move |api| audit::export(api, &recorder, asked)).await?;
    let header = (format == Format::Csv).then(|| csv_header(&names(&ask.fields)));
    let export = Export { api, caller, ask: Some(Box::new(ask)), format, header, rows: 0 };
    let (kind, name) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "pgwitness.csv"),
        Format::Jsonl => ("application/x-ndjson", "pgwitness.jsonl"),
    };
    let body = Body::from_stream(stream::try_unfold(export, next));
    let disposition = format!("attachment; filename=\"{name}\"");
    Ok(([(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, disposition)], body)
        .into_response())
}

async fn next(mut export: Export) -> io::Result<Option<(String, Export)>> {
    let Some(ask) = export.ask.take() else { return Ok(None) };
    if export.rows >= ROWS_MAX {
        tracing::warn!(ROWS_MAX, "an export was broken off at its bound");
        return Err(io::Error::other("the export is too large. Ask for a shorter time range"));
    }
    let (caller, format) = (export.caller.clone(), export.format);
    let page = blocking(&export.api, move |api| {
        let page = find(api, &caller, &ask)?;
        let rows = page.items.len();
        let text: String = page.items.into_iter().map(|item| row(item, format, &ask.fields)).collect();
        let following = page.next_cursor.map(|cursor| {
            let mut ask = ask;
            ask.cursor = Some(cursor);
            ask
        });
        Ok((text, rows, following))
    });
    let (text, rows, following) =
        page.await.map_err(|problem| io::Error::other(problem.detail().to_owned()))?;
    let text = export.header.take().unwrap_or_default() + &text;
    export.rows += rows;
    export.ask = following;
    Ok(Some((text, export)))
}

fn row(item: View, format: Format, fields: &[String]) -> String {
    match format {
        Format::Csv => csv_row(&item, &names(fields)),
        Format::Jsonl => ndjson_row(&chosen(item, fields)),
    }
}

fn names(fields: &[String]) -> Vec<&str> {
    fields.iter().map(String::as_str).collect()
}
