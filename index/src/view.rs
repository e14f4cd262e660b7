//! The merged view: a record together with how it ended, as the JSON object that people and programs
//! meet. Field names are those of the interface.
//!
//! Pure: values in, values out. The object is also the state the search keeps of a record, so each
//! later entry is applied to it in place: [`complete`] and [`settle`]. Whoever needs everything at
//! once calls [`merged`].
//!
//! Statements carry every field (`null` or `[]` when there is nothing to say); other events omit
//! what only statements have. A record whose end was not seen yet says so: `outcome` is `unknown`
//! and `running` is `true`.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::record::{
    Certainty, Class, Completion, Event, Outcome, Param, Record, Seq, Settlement, Shape, Timestamp,
    TxnOutcome, Who,
};

/// A merged record: a JSON object.
pub type View = Map<String, Value>;

/// From this many rows on, an execution is `bulk`.
pub const BULK_ROWS: u64 = 10_000;

/// The merged view of a record and what is known of its end.
pub fn merged(
    record: &Record,
    seq: Seq,
    completion: Option<&Completion>,
    settlement: Option<&Settlement>,
) -> View {
    let mut view = started(record, seq);
    if let Some(completion) = completion {
        complete(&mut view, completion);
    }
    if let Some(settlement) = settlement {
        settle(&mut view, settlement.txn_outcome);
    }
    view
}

/// The view of a record as it stands at its start (or at its end, if it was over at once).
pub fn started(record: &Record, seq: Seq) -> View {
    let mut view = View::with_capacity(48);
    view.insert("id".into(), record.id.to_string().into());
    view.insert("seq".into(), seq.0.into());
    view.insert("time".into(), format_time(record.time).into());
    view.insert("event".into(), record.event.as_str().into());
    view.insert("outcome".into(), Outcome::Unknown.as_str().into());
    view.insert("txn_outcome".into(), TxnOutcome::Open.as_str().into());
    put_who(&mut view, &record.who);
    if is_statement(record) {
        put_sql(&mut view, record);
        put_shape(&mut view, record.shape.as_deref());
        view.insert("rows".into(), Value::Null);
        view.insert("bytes".into(), Value::Null);
    }
    view.insert("duration_us".into(), Value::Null);
    view.insert("sqlstate".into(), Value::Null);
    view.insert("error".into(), Value::Null);
    view.insert("detail".into(), text(&record.detail));
    if is_statement(record) {
        view.insert(
            "tags".into(),
            record.shape.as_ref().map_or_else(|| json!([]), |shape| texts(&shape.tags)),
        );
    }
    view.insert("is".into(), json!([]));
    view.insert("running".into(), true.into());
    match &record.done {
        Some(done) => complete(&mut view, done),
        None => refresh_is(&mut view),
    }
    view
}

/// Applies how the execution ended; once only.
pub fn complete(view: &mut View, completion: &Completion) {
    if view.shift_remove("running").is_none() {
        return;
    }
    view.insert("outcome".into(), completion.outcome.as_str().into());
    view.insert("txn_outcome".into(), completion.txn_outcome.as_str().into());
    if view.contains_key("command") {
        if view.get("command").is_some_and(Value::is_null) {
            view.insert("command".into(), text(&completion.command));
        }
        view.insert("rows".into(), completion.rows.map_or(Value::Null, Value::from));
        view.insert("bytes".into(), completion.bytes.into());
        doubt(view, &completion.notes);
    }
    view.insert("duration_us".into(), completion.duration_us.into());
    view.insert("sqlstate".into(), text(&completion.sqlstate));
    view.insert("error".into(), text(&completion.error));
    refresh_is(view);
}

/// Applies how the transaction ended, if it was still open.
pub fn settle(view: &mut View, txn_outcome: TxnOutcome) {
    if is_open(view) {
        view.insert("txn_outcome".into(), txn_outcome.as_str().into());
    }
}

/// Whether the end of the execution is still to come.
pub fn is_running(view: &View) -> bool {
    view.get("running").and_then(Value::as_bool).unwrap_or(false)
}

/// Whether the end of its transaction is still to come.
pub fn is_open(view: &View) -> bool {
    word(view, "txn_outcome") == TxnOutcome::Open.as_str()
}

/// The asked fields of a record, in the asked order; all, if none were asked.
pub fn chosen(mut view: View, fields: &[String]) -> View {
    if fields.is_empty() {
        return view;
    }
    fields.iter().filter_map(|name| Some((name.clone(), view.remove(name)?))).collect()
}

/// RFC 3339 in UTC with microseconds. Times outside the years 0 to 9999 are clamped to them.
pub fn format_time(at: Timestamp) -> String {
    let Ok(when) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(clamped(at).0) * 1_000) else {
        return String::new();
    };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        when.year(),
        u8::from(when.month()),
        when.day(),
        when.hour(),
        when.minute(),
        when.second(),
        when.microsecond()
    )
}

/// The nearest time within the years 0 to 9999.
pub(crate) fn clamped(at: Timestamp) -> Timestamp {
    const FIRST: i64 = -62_167_219_200_000_000;
    const LAST: i64 = 253_402_300_799_999_999;
    Timestamp(at.0.clamp(FIRST, LAST))
}

/// Reads an RFC 3339 time; fractions below the microsecond are dropped.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let when = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(when.unix_timestamp_nanos().div_euclid(1_000)).ok().map(Timestamp)
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

pub(crate) fn is_statement(record: &Record) -> bool {
    record.event == Event::Query || record.sql.is_some() || record.shape.is_some()
}

/// The part that tells who.
pub(crate) fn put_who(view: &mut View, who: &Who) {
    view.insert("user".into(), text(&who.user));
    view.insert("sub".into(), text(&who.sub));
    view.insert("iss".into(), text(&who.iss));
    view.insert("groups".into(), texts(&who.groups));
    view.insert("login".into(), text(&who.login));
    view.insert("session".into(), text(&who.session));
    let auth: View =
        who.auth.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    view.insert("auth".into(), Value::Object(auth));
    view.insert("role".into(), text(&who.role));
    view.insert("db".into(), text(&who.db));
    view.insert("upstream".into(), text(&who.upstream));
    view.insert("search_path".into(), text(&who.search_path));
    view.insert("ip".into(), text(&who.ip));
    view.insert("app".into(), text(&who.app));
    view.insert("device".into(), text(&who.device));
}

fn put_sql(view: &mut View, record: &Record) {
    let bytes = record.sql.as_ref().map(|sql| sql.as_bytes());
    match bytes.map(std::str::from_utf8) {
        None => {
            view.insert("sql".into(), Value::Null);
        }
        Some(Ok(valid)) => {
            view.insert("sql".into(), valid.into());
        }
        Some(Err(_)) => {
            let bytes = bytes.unwrap_or_default();
            view.insert("sql".into(), String::from_utf8_lossy(bytes).into());
            view.insert("sql_hex".into(), hex(bytes).into());
        }
    }
    // A function called by its OID has arguments and no text.
    view.insert("params".into(), Value::Array(record.params.iter().map(param).collect()));
}

/// The part that tells what is touched.
pub(crate) fn put_shape(view: &mut View, shape: Option<&Shape>) {
    let lists = |of: fn(&Shape) -> &Vec<String>| shape.map_or_else(|| json!([]), |shape| texts(of(shape)));
    view.insert("fingerprint".into(), shape.map_or(Value::Null, |shape| text(&shape.fingerprint)));
    view.insert("command".into(), shape.map_or(Value::Null, |shape| text(&shape.command)));
    let class = shape.map_or(&[][..], |shape| &shape.class);
    view.insert("class".into(), class.iter().map(|class| Value::from(class.as_str())).collect());
    view.insert("tables".into(), lists(|shape| &shape.tables));
    view.insert("columns".into(), shape.map_or_else(|| json!([]), columns));
    view.insert("reads".into(), lists(|shape| &shape.reads));
    view.insert("filters".into(), lists(|shape| &shape.filters));
    view.insert("writes".into(), lists(|shape| &shape.writes));
    view.insert("via".into(), lists(|shape| &shape.via));
    let analysis = shape.map_or(Certainty::Unresolved, |shape| shape.analysis);
    view.insert("analysis".into(), analysis.as_str().into());
    view.insert("analysis_notes".into(), lists(|shape| &shape.analysis_notes));
}

fn columns(shape: &Shape) -> Value {
    let mut all: Vec<&String> = shape.reads.iter().chain(&shape.filters).chain(&shape.writes).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(|name| Value::from(name.as_str())).collect()
}

/// A parameter as the view shows it.
pub(crate) fn param(param: &Param) -> Value {
    match param {
        Param::Null => Value::Null,
        Param::Bool(value) => Value::Bool(*value),
        Param::Int(value) => Value::from(*value),
        Param::Float(value) => {
            Number::from_f64(*value).map_or_else(|| value.to_string().into(), Value::Number)
        }
        Param::Text(value) => Value::from(value.as_str()),
        Param::Bytes(bytes) => json!({ "hex": hex(bytes) }),
    }
}

fn doubt(view: &mut View, notes: &[String]) {
    if notes.is_empty() {
        return;
    }
    if word(view, "analysis") == Certainty::Exact.as_str() {
        view.insert("analysis".into(), Certainty::Partial.as_str().into());
    }
    if let Some(Value::Array(all)) = view.get_mut("analysis_notes") {
        all.extend(notes.iter().map(|note| Value::from(note.as_str())));
    }
}

fn refresh_is(view: &mut View) {
    let has = |name: &str, wanted: &str| {
        view.get(name).and_then(Value::as_array).is_some_and(|all| all.iter().any(|word| word == wanted))
    };
    let outcome = word(view, "outcome");
    let facts = Facts {
        failed: outcome == Outcome::Error.as_str(),
        denied: outcome == Outcome::Denied.as_str() || word(view, "event") == Event::Denied.as_str(),
        ddl: has("class", Class::Ddl.as_str()),
        write: has("class", Class::Write.as_str()),
        rows: view.get("rows").and_then(Value::as_u64).unwrap_or(0),
        tagged: view.get("tags").and_then(Value::as_array).is_some_and(|tags| !tags.is_empty()),
        unparsed: word(view, "analysis") == Certainty::Unresolved.as_str(),
    };
    view.insert("is".into(), facts.is().map(Value::from).collect());
}

/// What `is` is computed from.
pub(crate) struct Facts {
    pub(crate) failed: bool,
    pub(crate) denied: bool,
    pub(crate) ddl: bool,
    pub(crate) write: bool,
    pub(crate) rows: u64,
    pub(crate) tagged: bool,
    pub(crate) unparsed: bool,
}

impl Facts {
    /// The words of `is`.
    pub(crate) fn is(&self) -> impl Iterator<Item = &'static str> {
        let words = [
            ("failed", self.failed),
            ("denied", self.denied),
            ("ddl", self.ddl),
            ("write", self.write),
            ("bulk", self.rows >= BULK_ROWS),
            ("sensitive", self.tagged),
            ("unparsed", self.unparsed),
        ];
        words.into_iter().filter(|(_, holds)| *holds).map(|(word, _)| word)
    }
}

fn word<'a>(view: &'a View, name: &str) -> &'a str {
    view.get(name).and_then(Value::as_str).unwrap_or("")
}

fn text(value: &str) -> Value {
    if value.is_empty() { Value::Null } else { Value::from(value) }
}

fn texts(values: &[String]) -> Value {
    values.iter().map(|value| Value::from(value.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::record::Sql;

    fn record(event: Event) -> Record {
        let statement = event == Event::Query;
        let shape = Shape {
            fingerprint: "ab".to_owned(),
            command: "SELECT".to_owned(),
            class: vec![Class::Write],
            tables: vec!["public.t".to_owned()],
            reads: vec!["public.t.b".to_owned(), "public.t.c".to_owned()],
            filters: vec!["public.t.a".to_owned()],
            writes: vec!["public.t.b".to_owned()],
            via: Vec::new(),
            analysis: Certainty::Exact,
            analysis_notes: Vec::new(),
            tags: vec!["pii".to_owned()],
        };
        Record {
            id: Uuid::from_u128(7),
            time: Timestamp(1_795_262_400_000_001),
            event,
            who: Who { user: "ann".to_owned(), ..Who::default() }.into(),
            sql: statement.then(|| Sql::Once(Box::from(&b"select"[..]))),
            shape: statement.then(|| shape.into()),
            params: Vec::new(),
            detail: String::new(),
            done: None,
        }
    }

    #[test]
    fn a_running_statement_says_that_its_end_is_not_known() {
        let view = started(&record(Event::Query), Seq(9));
        assert_eq!(view["outcome"], "unknown");
        assert_eq!(view["txn_outcome"], "open");
        assert_eq!(view["running"], true);
        assert_eq!(view["seq"], 9);
        assert_eq!(view["time"], "2026-11-21T12:00:00.000001Z");
        for name in ["rows", "bytes", "duration_us", "sqlstate", "error", "sub", "device"] {
            assert_eq!(view[name], Value::Null, "{name}");
        }
        assert_eq!(view["columns"], json!(["public.t.a", "public.t.b", "public.t.c"]));
        assert_eq!(view["is"], json!(["write", "sensitive"]));
    }

    #[test]
    fn an_end_and_a_settlement_complete_the_view() {
        let mut completion = Completion::new(Outcome::Error, TxnOutcome::Open);
        completion.rows = Some(BULK_ROWS);
        completion.sqlstate = "22012".to_owned();
        completion.notes = vec!["a cast failed".to_owned()];
        let settlement = Settlement { seqs: vec![Seq(9)], txn_outcome: TxnOutcome::RolledBack };
        let view = merged(&record(Event::Query), Seq(9), Some(&completion), Some(&settlement));
        assert_eq!(view.get("running"), None);
        assert_eq!(view["outcome"], "error");
        assert_eq!(view["txn_outcome"], "rolled_back");
        assert_eq!(view["analysis"], "partial");
        assert_eq!(view["analysis_notes"], json!(["a cast failed"]));
        assert_eq!(view["command"], "SELECT");
        assert_eq!(view["is"], json!(["failed", "write", "bulk", "sensitive"]));
    }

    #[test]
    fn events_without_a_statement_omit_what_only_statements_have() {
        let mut record = record(Event::Denied);
        record.done = Some(Completion::new(Outcome::Denied, TxnOutcome::None));
        let view = started(&record, Seq(1));
        for name in ["sql", "params", "tables", "columns", "analysis", "rows", "tags", "command", "running"] {
            assert!(!view.contains_key(name), "{name}");
        }
        assert_eq!(view["is"], json!(["denied"]));
    }

    #[test]
    fn every_statement_has_the_same_keys_in_the_same_order() {
        let names = |view: &View| view.keys().cloned().collect::<Vec<_>>();
        let full = started(&record(Event::Query), Seq(1));
        let mut bare = record(Event::Query);
        (bare.sql, bare.shape) = (None, None);
        assert_eq!(names(&started(&bare, Seq(2))), names(&full));
        let done = merged(&bare, Seq(2), Some(&Completion::new(Outcome::Ok, TxnOutcome::Committed)), None);
        assert_eq!(
            names(&done),
            names(&full).into_iter().filter(|name| name != "running").collect::<Vec<_>>()
        );
    }

    #[test]
    fn text_and_parameters_keep_their_exact_values() {
        let mut record = record(Event::Query);
        record.sql = Some(Sql::Once(Box::from(&b"caf\xe9"[..])));
        record.params = vec![
            Param::Null,
            Param::Bool(true),
            Param::Int(i64::MIN),
            Param::Float(0.5),
            Param::Text(String::new()),
            Param::Bytes(vec![0, 255]),
        ];
        let view = started(&record, Seq(1));
        assert_eq!(view["sql"], "caf\u{fffd}");
        assert_eq!(view["sql_hex"], "636166e9");
        assert_eq!(view["params"], json!([null, true, i64::MIN, 0.5, "", { "hex": "00ff" }]));
    }

    #[test]
    fn times_are_written_and_read_back_to_the_microsecond() {
        for micros in [0, -1, 1_795_262_400_123_456, 253_402_300_799_999_999, -62_135_596_800_000_000] {
            assert_eq!(parse_time(&format_time(Timestamp(micros))), Some(Timestamp(micros)));
        }
        assert_eq!(format_time(Timestamp(i64::MAX)), "9999-12-31T23:59:59.999999Z");
        assert_eq!(format_time(Timestamp(i64::MIN)), "0000-01-01T00:00:00.000000Z");
    }
}
