//! `GET /api/v1/events/{id}/context`: what the same session did around a record, and the transaction
//! block that it stood in.
//!
//! A record does not name its transaction; the block is read from the session's own BEGIN, COMMIT and
//! ROLLBACK. Where these lie further away than [`BLOCK_MAX`] records, the answer says that it is not
//! complete.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use pgwitness_index::record::{Event, Seq};
use pgwitness_index::search::{Count, Query, Window};
use pgwitness_index::view::View;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Api;
use super::api::{Answer, failed, searching};
use super::ask;
use super::audit::{self, Reading, Repeated};
use super::auth::Caller;
use super::forward::forward;
use super::params::Params;
use super::problem::Problem;

/// Parameters.
pub(super) const PARAMS: &[&str] = &["before", "after"];
/// Records of the session on either side when nobody says how many.
const AROUND_DEFAULT: u64 = 10;
/// Most of them.
const AROUND_MAX: u64 = 100;
/// How far a transaction block is followed on either side, in records of its session.
const BLOCK_MAX: usize = 500;

pub(super) async fn context(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let params = Params::from_url(query.as_deref(), PARAMS)?;
    let around = |name| {
        let count = params.number(name, 0, AROUND_MAX)?.unwrap_or(AROUND_DEFAULT);
        Ok::<usize, Problem>(usize::try_from(count).unwrap_or(0))
    };
    let (before, after) = (around("before")?, around("after")?);
    let id = Uuid::parse_str(&id).map_err(|_| Problem::not_found())?;
    let began = Instant::now();
    searching(&api, &caller.clone(), move |api| {
        let record = api.search.get(id, &caller.scope()).map_err(|error| failed(&error))?;
        let record = record.ok_or_else(Problem::not_found)?;
        let around = Around::of(api, &caller, &record)?;
        let mut answer = json!({ "session": null, "transaction": null });
        let mut shown = 1;
        if let Some(around) = around {
            answer["transaction"] = around.block(&record).unwrap_or(Value::Null);
            answer["session"] = around.neighbours(before, after);
            shown += before.min(around.before.len()) + after.min(around.after.len());
        }
        answer["record"] = record.into();
        let reading = Reading {
            event: Event::AuditSearch,
            asked: format!("id:{id} and what its session did around it"),
            repeated: Repeated::No,
            found: Some(shown as u64),
            began,
        };
        audit::read(api, &caller, reading)?;
        Ok(Json(answer))
    })
    .await
}

/// The records of one session around one of them.
struct Around {
    session: String,
    /// Newest first: the nearest comes first.
    before: Vec<View>,
    more_before: bool,
    /// Oldest first: the nearest comes first.
    after: Vec<View>,
    more_after: bool,
}

impl Around {
    fn of(api: &Api, caller: &Caller, record: &View) -> Result<Option<Self>, Problem> {
        let (session, seq) =
            (word(record, "session"), record.get("seq").and_then(Value::as_u64).unwrap_or(0));
        if session.is_empty() {
            return Ok(None);
        }
        let own = ask::exactly("session", session)?;
        let earlier = own.clone().and(Query::between(Seq(0), Seq(seq.saturating_sub(1))));
        let page = api
            .search
            .page(&earlier, &caller.scope(), &Window::default(), BLOCK_MAX, None, Count::None)
            .map_err(|error| failed(&error))?;
        let (after, more_after) = forward(api, &own, &caller.scope(), Seq(seq), BLOCK_MAX)?;
        Ok(Some(Self {
            session: session.to_owned(),
            before: page.items,
            more_before: page.next_cursor.is_some(),
            after,
            more_after,
        }))
    }

    fn neighbours(&self, before: usize, after: usize) -> Value {
        let earlier: Vec<&View> = self.before.iter().take(before).rev().collect();
        let later: Vec<&View> = self.after.iter().take(after).collect();
        json!({
            "id": self.session,
            "before": earlier,
            "after": later,
            "more_before": self.more_before || self.before.len() > before,
            "more_after": self.more_after || self.after.len() > after,
        })
    }

    /// The transaction block around the record, oldest first; none if it ran outside of one.
    fn block(&self, record: &View) -> Option<Value> {
        if word(record, "event") != Event::Query.as_str() {
            return None;
        }
        let (earlier, begun) = self.begin(record)?;
        let mut events: Vec<&View> =
            self.before.iter().take(earlier).filter(|view| is_statement(view)).collect();
        events.reverse();
        events.push(record);
        let mut ended = step(record) == Step::End;
        for view in self.after.iter().filter(|view| is_statement(view)) {
            if ended {
                break;
            }
            events.push(view);
            ended = step(view) == Step::End;
        }
        // The end of a session ends its transaction too.
        let over = ended || (!self.more_after && word(record, "txn_outcome") != "open");
        Some(json!({ "events": events, "complete": begun && over }))
    }

    /// How many of the records before belong to the block, and whether its begin was seen; none if
    /// the record stands outside of any block.
    fn begin(&self, record: &View) -> Option<(usize, bool)> {
        let mut first = (step(record) == Step::Begin).then_some(0);
        for (index, view) in self.before.iter().enumerate().filter(|(_, view)| is_statement(view)) {
            match step(view) {
                Step::Begin => first = Some(index + 1),
                // COMMIT AND CHAIN ends one block and begins the next.
                Step::End if chains(view) => return Some((index, true)),
                Step::End => return first.map(|count| (count, true)),
                Step::Inside => {}
            }
        }
        match first {
            Some(count) => Some((count, true)),
            None if self.more_before => Some((self.before.len(), false)),
            None => None,
        }
    }
}

/// What a statement does to the transaction block.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Begin,
    Inside,
    End,
}

fn step(view: &View) -> Step {
    let ran = matches!(word(view, "outcome"), "ok" | "error");
    match word(view, "command") {
        "BEGIN" | "START TRANSACTION" if word(view, "outcome") == "ok" => Step::Begin,
        "COMMIT" | "PREPARE TRANSACTION" if ran => Step::End,
        "ROLLBACK" if ran && !says(view, "to") => Step::End,
        _ => Step::Inside,
    }
}

fn chains(view: &View) -> bool {
    says(view, "chain") && !says(view, "no") && word(view, "outcome") == "ok"
}

/// Whether a word stands in the statement's text, outside of any name that holds it.
fn says(view: &View, wanted: &str) -> bool {
    let words = word(view, "sql").split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.into_iter().any(|word| word.eq_ignore_ascii_case(wanted))
}

fn is_statement(view: &View) -> bool {
    word(view, "event") == Event::Query.as_str()
}

fn word<'a>(view: &'a View, name: &str) -> &'a str {
    view.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(seq: usize, sql: &str) -> View {
        let command = match sql.split_whitespace().next().unwrap_or_default() {
            first if first.eq_ignore_ascii_case("start") => "START TRANSACTION".to_owned(),
            first => first.to_uppercase(),
        };
        let view = json!({ "seq": seq, "event": "query", "sql": sql, "command": command, "outcome": "ok" });
        view.as_object().cloned().unwrap_or_default()
    }

    /// The block around the `at`-th of some statements, by their positions.
    #[track_caller]
    fn check(statements: &[&str], at: usize, expected: Option<&[u64]>) {
        let mut before: Vec<View> = statements.iter().enumerate().map(|(seq, sql)| view(seq, sql)).collect();
        let after = before.split_off(at + 1);
        let record = before.pop().unwrap_or_default();
        before.reverse();
        let around = Around { session: "s".into(), before, more_before: false, after, more_after: false };
        let block = around.block(&record);
        let seqs = block.as_ref().map(|block| {
            assert_eq!(block["complete"], true);
            let events = block["events"].as_array().into_iter().flatten();
            events.filter_map(|event| event["seq"].as_u64()).collect::<Vec<_>>()
        });
        assert_eq!(seqs.as_deref(), expected, "{statements:?} at {at}");
    }

    #[test]
    fn a_block_reaches_from_begin_to_its_end() {
        let session = ["select 1", "begin", "select 2", "rollback to a", "commit", "select 3"];
        check(&session, 0, None);
        for at in 1..=4 {
            check(&session, at, Some(&[1, 2, 3, 4]));
        }
        check(&session, 5, None);
        check(&["start transaction", "select 1"], 1, Some(&[0, 1]));
        check(&["begin", "select 1", "begin", "select 2", "rollback"], 3, Some(&[0, 1, 2, 3, 4]));
    }

    #[test]
    fn a_chained_block_begins_where_the_one_before_ended() {
        let session =
            ["begin", "select 1", "commit and chain", "select 2", "commit and no chain", "select 3"];
        check(&session, 1, Some(&[0, 1, 2]));
        check(&session, 3, Some(&[3, 4]));
        check(&session, 5, None);
    }

    #[test]
    fn a_block_whose_begin_is_too_far_away_is_not_complete() {
        let around = Around {
            session: "s".into(),
            before: vec![view(1, "select 1")],
            more_before: true,
            after: Vec::new(),
            more_after: false,
        };
        assert_eq!(
            around.block(&view(2, "select 2")).map(|block| block["complete"].clone()),
            Some(json!(false))
        );
    }
}
