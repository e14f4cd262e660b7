//! `GET /api/v1/suggest`: what may come next in a query that is being written: names of fields, and
//! the values of a field, commonest first, as far as the caller may see them.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{RawQuery, State};
use pgwitness_index::record::Event;
use pgwitness_index::search::{FACETS, Field, MAX_TOP, Query, Window};
use serde_json::{Value, json};

use super::Api;
use super::api::{Answer, failed, searching};
use super::audit::{self, Reading, Repeated};
use super::auth::Caller;
use super::params::Params;
use super::problem::Problem;

/// Parameters: the query up to the caret.
pub(super) const PARAMS: &[&str] = &["q", "limit"];
/// Suggestions when nobody says how many.
const LIMIT_DEFAULT: u64 = 10;
/// Most suggestions.
const LIMIT_MAX: u64 = 100;
/// Longest query, bytes.
const BYTES_MAX: usize = 4_096;

pub(super) async fn suggest(
    State(api): State<Arc<Api>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Answer {
    let params = Params::from_url(query.as_deref(), PARAMS)?;
    let limit = params.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
    let limit = usize::try_from(limit).unwrap_or(1);
    let text = params.get("q").unwrap_or_default().to_owned();
    if text.len() > BYTES_MAX {
        return Err(Problem::bad_request("q is too long"));
    }
    let last = Last::of(&text);
    let span = [text.len() - last.typed.len(), text.len()];
    let suggestions = match last.field {
        None => names(last.typed, limit),
        Some(field) => match field.vocabulary() {
            Some(words) => {
                let typed = last.typed.to_lowercase();
                words
                    .into_iter()
                    .filter(|word| word.starts_with(&typed))
                    .take(limit)
                    .map(|word| json!({ "text": word, "kind": "value" }))
                    .collect()
            }
            None if FACETS.contains(&field) => {
                let typed = last.typed.to_owned();
                searching(&api, &caller.clone(), move |api| values(api, &caller, field, &typed, limit))
                    .await?
            }
            None => Vec::new(),
        },
    };
    Ok(Json(json!({ "span": span, "suggestions": suggestions })))
}

/// The end of a query: a field before its colon, if there is one, and what was typed of a word.
#[derive(Debug, PartialEq, Eq)]
struct Last<'a> {
    field: Option<Field>,
    typed: &'a str,
}

impl<'a> Last<'a> {
    fn of(text: &'a str) -> Self {
        let start = text
            .rfind(|c: char| c.is_whitespace() || matches!(c, '(' | ')'))
            .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
        let word = text[start..].trim_start_matches('-');
        match word.split_once(':') {
            Some((name, values)) => {
                let typed = values.rsplit(',').next().unwrap_or_default().trim_start_matches('"');
                match Field::from_name(name) {
                    Some(field) => Self { field: Some(field), typed },
                    None => Self { field: None, typed: "" },
                }
            }
            None => Self { field: None, typed: word },
        }
    }
}

fn names(typed: &str, limit: usize) -> Vec<Value> {
    let typed = typed.to_lowercase();
    let all = Field::ALL.iter().flat_map(|field| field.aliases().iter().copied().chain([field.name()]));
    let fitting = all.filter(|name| name.starts_with(&typed)).take(limit);
    fitting.map(|name| json!({ "text": format!("{name}:"), "kind": "field" })).collect()
}

/// The commonest values that begin with what was typed, as a whole or in one of their parts.
fn values(
    api: &Api,
    caller: &Caller,
    field: Field,
    typed: &str,
    limit: usize,
) -> Result<Vec<Value>, Problem> {
    let began = Instant::now();
    let counted = api.search.facets(&Query::all(), &caller.scope(), &Window::default(), &[field], MAX_TOP);
    let counted = counted.map_err(|error| failed(&error))?;
    let typed = typed.to_lowercase();
    let fits = |value: &str| {
        let value = value.to_lowercase();
        value.starts_with(&typed) || value.split('.').any(|part| part.starts_with(&typed))
    };
    let values =
        counted.into_iter().flat_map(|facet| facet.values).filter(|(value, _)| fits(value)).take(limit);
    let found: Vec<Value> =
        values.map(|(value, count)| json!({ "text": value, "kind": "value", "count": count })).collect();
    // Each key that is pressed asks again: one record covers them for a while.
    let reading = Reading {
        event: Event::AuditSearch,
        asked: format!("suggestions for {}", field.name()),
        repeated: Repeated::Yes,
        found: None,
        began,
    };
    audit::read(api, caller, reading)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_query_is_what_is_being_written() {
        let check = |text, field, typed| assert_eq!(Last::of(text), Last { field, typed }, "{text}");
        check("", None, "");
        check("ta", None, "ta");
        check("outcome:ok ta", None, "ta");
        check("table:", Some(Field::Tables), "");
        check("-(user:ann OR table:cus", Some(Field::Tables), "cus");
        check("user:ann,bo", Some(Field::User), "bo");
        check("user:\"ann", Some(Field::User), "ann");
        check("tabel:cus", None, "");
        check("a\u{3000}us", None, "us");
    }
}
