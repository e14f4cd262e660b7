//! What a request asks for, read and checked: query, time range, place in the list, fields.

use std::time::Instant;

use pgwitness_index::record::Timestamp;
use pgwitness_index::search::{Count, Cursor, Field, Query, QueryError, SearchError, Window};

use super::audit::Repeated;
use super::params::Params;
use super::problem::Problem;
use super::when;

/// Records in an answer when nobody says how many.
const LIMIT_DEFAULT: u64 = 100;
/// Most records in an answer.
pub(super) const LIMIT_MAX: u64 = 1_000;
/// Names in `fields`.
const FIELDS_MAX: usize = 64;

/// Fields of the record that a query cannot name.
const SHOWN_ONLY: &[&str] = &["auth", "detail", "analysis_notes", "sql_hex", "running"];

/// Parameters of every search.
pub(super) const SEARCH: &[&str] =
    &["q", "from", "to", "tz", "order", "limit", "cursor", "fields", "count", "after"];
/// Parameters of a summary.
pub(super) const HISTOGRAM: &[&str] = &["q", "from", "to", "tz", "buckets"];
/// Parameters of a count by value.
pub(super) const FACETS: &[&str] = &["q", "from", "to", "tz", "fields", "limit"];
/// Parameters of an export.
pub(super) const EXPORT: &[&str] = &["q", "from", "to", "tz", "fields", "format"];

/// A search, checked.
pub(super) struct Ask {
    /// The query's text, as the caller wrote it.
    pub(super) text: String,
    /// The same, understood.
    pub(super) query: Query,
    /// The time range.
    pub(super) window: Window,
    /// How many records.
    pub(super) limit: usize,
    /// Where to go on.
    pub(super) cursor: Option<Cursor>,
    /// Which fields of each record; empty: all.
    pub(super) fields: Vec<String>,
    /// Whether to count all matches.
    pub(super) count: Count,
    /// Whether a program repeats this search.
    pub(super) repeated: Repeated,
    /// When we began.
    pub(super) began: Instant,
    asked: String,
}

impl Ask {
    /// Reads the parameters.
    pub(super) fn read(params: &Params) -> Result<Self, Problem> {
        let now = when::now();
        let text = params.get("q").unwrap_or_default().to_owned();
        let mut query = Query::parse(&text, now).map_err(|error| refused(&error))?;
        if let Some(after) = params.number("after", 0, u64::MAX)? {
            // The text stands by itself, so brackets keep it together.
            let later =
                if text.trim().is_empty() { format!("seq>{after}") } else { format!("({text}) seq>{after}") };
            query = Query::parse(&later, now).map_err(|error| refused(&error))?;
        }
        only(params, "order", &["desc", "newest"], "the order is always newest first")?;
        only(params, "tz", &["UTC", "Z"], "days begin at midnight UTC here")?;
        let window = Window { from: moment(params, "from", now)?, to: moment(params, "to", now)? };
        if let (Some(from), Some(to)) = (window.from, window.to)
            && from > to
        {
            return Err(Problem::bad_request("from lies after to"));
        }
        Ok(Self {
            query,
            window,
            limit: usize::try_from(params.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT))
                .unwrap_or(1),
            cursor: params.get("cursor").map(cursor).transpose()?,
            fields: fields(params)?,
            count: count(params)?,
            repeated: if params.get("after").is_some() { Repeated::Yes } else { Repeated::No },
            began: Instant::now(),
            asked: asked(&text, params),
            text,
        })
    }

    /// What was asked, in words for the record about it.
    pub(super) fn asked(&self) -> String {
        self.asked.clone()
    }
}

/// The problem for a query that cannot be read.
pub(super) fn refused(error: &QueryError) -> Problem {
    Problem::query(error.message.clone(), (error.span.start, error.span.end), error.suggestion.clone())
}

fn asked(text: &str, params: &Params) -> String {
    let mut asked = if text.trim().is_empty() { "everything".to_owned() } else { text.to_owned() };
    for name in ["from", "to", "cursor"] {
        if let Some(value) = params.get(name) {
            asked.push_str(&format!(" [{name} {value}]"));
        }
    }
    asked
}

fn moment(params: &Params, name: &str, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = params.get(name) else { return Ok(None) };
    when::read(text, now).map(Some).map_err(|error| Problem::bad_request(format!("{name}: {error}")))
}

fn only(params: &Params, name: &str, allowed: &[&str], why: &str) -> Result<(), Problem> {
    match params.get(name) {
        Some(value) if !allowed.contains(&value) => {
            Err(Problem::bad_request(format!("{name}={value} cannot be had: {why}")))
        }
        _ => Ok(()),
    }
}

fn cursor(text: &str) -> Result<Cursor, Problem> {
    text.parse().map_err(|error: SearchError| Problem::bad_request(error.to_string()))
}

fn count(params: &Params) -> Result<Count, Problem> {
    match params.get("count") {
        None | Some("none") => Ok(Count::None),
        Some("capped") => Ok(Count::Capped),
        Some("exact") => Ok(Count::Exact),
        Some(other) => Err(Problem::bad_request(format!("count={other} is not one of none, capped, exact"))),
    }
}

/// The comma-separated names in `fields`, each a known field of the record, by its own name.
fn fields(params: &Params) -> Result<Vec<String>, Problem> {
    let names = params.get("fields").into_iter().flat_map(|list| list.split(',')).map(str::trim);
    let names: Vec<String> = names.filter(|name| !name.is_empty()).map(field).collect::<Result<_, _>>()?;
    if names.len() > FIELDS_MAX {
        return Err(Problem::bad_request(format!("fields holds more than {FIELDS_MAX} names")));
    }
    Ok(names)
}

fn field(name: &str) -> Result<String, Problem> {
    if let Some(field) = Field::from_name(name) {
        return Ok(field.name().to_owned());
    }
    if SHOWN_ONLY.contains(&name) {
        return Ok(name.to_owned());
    }
    let hint = Field::nearest(name).map(|near| format!(". Did you mean {near}?")).unwrap_or_default();
    Err(Problem::bad_request(format!("fields: a record has no field {name:?}{hint}")))
}
