//! What a request asks for, read and checked: query, time range, place in the list, fields.

use std::fmt;
use std::time::Instant;

use pgwitness_index::record::{Seq, Timestamp};
use pgwitness_index::search::{Count, Cursor, Field, Query, QueryError, SearchError, Window};
use pgwitness_index::view::format_time;

use super::Api;
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
pub(super) const SHOWN_ONLY: &[&str] = &["auth", "detail", "analysis_notes", "sql_hex", "running"];

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
    /// What relative times count from.
    pub(super) now: Timestamp,
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
    pub(super) fn read(api: &Api, params: &Params) -> Result<Self, Problem> {
        let place = params.get("cursor").map(Place::read).transpose()?;
        let now = place.as_ref().map_or_else(when::now, |place| place.now);
        let text = params.get("q").unwrap_or_default().to_owned();
        let query = match &api.hashed {
            Some(hashed) => Query::parse_kept(&text, now, &|value| hashed(value)),
            None => Query::parse(&text, now),
        };
        let mut query = query.map_err(|error| refused(&error))?;
        if let Some(after) = params.number("after", 0, u64::MAX)? {
            query = query.and(Query::between(Seq(after.saturating_add(1)), Seq(u64::MAX)));
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
            cursor: place.map(|place| place.cursor),
            now,
            fields: fields(params)?,
            count: count(params)?,
            repeated: if params.get("after").is_some() { Repeated::Yes } else { Repeated::No },
            began: Instant::now(),
            asked: asked(&text, params),
            text,
        })
    }

    /// The same of one session alone.
    pub(super) fn of_session(mut self, id: &str) -> Result<Self, Problem> {
        self.query = self.query.and(exactly("session", id)?);
        self.asked = format!("session:{id} {}", self.asked);
        Ok(self)
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

/// Where a page ended, and when the first was asked for: `-15m` means the same on every page.
pub(super) struct Place {
    pub(super) cursor: Cursor,
    pub(super) now: Timestamp,
}

impl Place {
    fn read(text: &str) -> Result<Self, Problem> {
        let refused = |error: SearchError| Problem::bad_request(error.to_string());
        let (cursor, now) = text.split_once('.').ok_or_else(|| refused(SearchError::BadCursor))?;
        let now = i64::from_str_radix(now, 16).map_err(|_| refused(SearchError::BadCursor))?;
        Ok(Self { cursor: cursor.parse().map_err(refused)?, now: Timestamp(now) })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.cursor, self.now.0)
    }
}

/// The records whose field is exactly a value, whatever characters it has.
pub(super) fn exactly(field: &str, value: &str) -> Result<Query, Problem> {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    Query::parse(&format!("{field}:\"{value}\""), Timestamp(0)).map_err(|_| Problem::not_found())
}

/// The records of a time range.
pub(super) fn during(window: &Window) -> Result<Query, Problem> {
    let from = window.from.map(|from| format!("time:>={}", format_time(from)));
    let to = window.to.map(|to| format!("time:<{}", format_time(to)));
    let text: Vec<String> = from.into_iter().chain(to).collect();
    Query::parse(&text.join(" "), Timestamp(0)).map_err(|error| refused(&error))
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
