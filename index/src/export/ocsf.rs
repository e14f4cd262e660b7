//! Merged records as events of the Open Cybersecurity Schema Framework, version [`VERSION`]
//! (<https://schema.ocsf.io/1.5.0>).
//!
//! | our `event` | OCSF class | activity |
//! | --- | --- | --- |
//! | query, cancel, denied with a statement | Datastore Activity (6005) | by command: Query, Write, Update, Delete, Create, Read, Other |
//! | session.start, session.end | Datastore Activity (6005) | Connect, Other (Disconnect) |
//! | audit.search, audit.export | Datastore Activity (6005) on the access log itself | Query, Read |
//! | login.*, role.denied, denied without a statement | Authentication (3002) | Logon; Logoff of login.revoked, Other (Unlock) of login.unlocked |
//! | all others (gap, config.reload, alert) | Base Event (0) | Other |
//!
//! What OCSF has no place for stands in `unmapped` under our own names, so that nothing is lost; OCSF
//! counts time in milliseconds, and `metadata.original_time` keeps the microseconds. Pure.

use serde_json::{Map, Value, json};

use crate::record::Event;
use crate::view::{View, parse_time};

/// The version of the schema.
pub const VERSION: &str = "1.5.0";
/// The schema as a manifest names it.
pub const SCHEMA: &str = "OCSF 1.5.0";

/// Fields that stand in `unmapped` as they are, where they say anything.
const UNMAPPED: &[&str] = &[
    "seq",
    "event",
    "txn_outcome",
    "upstream",
    "role",
    "search_path",
    "device",
    "auth",
    "fingerprint",
    "command",
    "class",
    "tables",
    "columns",
    "reads",
    "filters",
    "writes",
    "via",
    "analysis",
    "analysis_notes",
    "params",
    "sql_hex",
    "rows",
    "bytes",
    "duration_us",
    "tags",
    "is",
    "running",
];

#[derive(Clone, Copy)]
enum Class {
    Datastore,
    Authentication,
    Base,
}

impl Class {
    fn of(event: Option<Event>, statement: bool) -> Class {
        use Event::*;
        match event {
            Some(RoleDenied) => Class::Authentication,
            Some(Denied) if !statement => Class::Authentication,
            Some(
                Query | Cancel | Denied | SessionStart | SessionEnd | AuditSearch | AuditExport | AuditErase,
            ) => Class::Datastore,
            Some(event) if event.as_str().starts_with("login.") => Class::Authentication,
            _ => Class::Base,
        }
    }

    /// Class and its name, category and its name.
    const fn names(self) -> (u64, &'static str, u64, &'static str) {
        match self {
            Class::Datastore => (6005, "Datastore Activity", 6, "Application Activity"),
            Class::Authentication => (3002, "Authentication", 3, "Identity & Access Management"),
            Class::Base => (0, "Base Event", 0, "Uncategorized"),
        }
    }
}

/// One record as an OCSF event.
pub fn event(view: &View) -> View {
    let kind = Event::from_word(word(view, "event"));
    let class = Class::of(kind, view.get("sql").is_some_and(Value::is_string));
    let (class_uid, class_name, category_uid, category_name) = class.names();
    let (activity_id, activity) = activity(class, kind, view);
    let mut event = Map::new();
    event.insert("category_uid".into(), category_uid.into());
    event.insert("category_name".into(), category_name.into());
    event.insert("class_uid".into(), class_uid.into());
    event.insert("class_name".into(), class_name.into());
    event.insert("activity_id".into(), activity_id.into());
    event.insert("activity_name".into(), activity.as_str().into());
    event.insert("type_uid".into(), (class_uid * 100 + activity_id).into());
    event.insert("type_name".into(), format!("{class_name}: {activity}").into());
    put_time(&mut event, view);
    put_status(&mut event, view, kind);
    event.insert("metadata".into(), metadata(view));
    if let Some(message) = some(view, "detail") {
        event.insert("message".into(), message.into());
    }
    match class {
        Class::Datastore => put_datastore(&mut event, view, kind),
        Class::Authentication => put_authentication(&mut event, view),
        Class::Base => {}
    }
    let unmapped: View = UNMAPPED
        .iter()
        .filter_map(|&name| Some((name.to_owned(), view.get(name).filter(|value| says(value))?.clone())))
        .collect();
    event.insert("unmapped".into(), unmapped.into());
    event
}

fn activity(class: Class, kind: Option<Event>, view: &View) -> (u64, String) {
    let (id, name) = match (class, kind) {
        (Class::Authentication, Some(Event::LoginRevoked)) => (2, "Logoff"),
        (Class::Authentication, Some(Event::LoginUnlocked)) => (99, "Unlock"),
        (Class::Authentication, _) => (1, "Logon"),
        (Class::Datastore, Some(Event::SessionStart)) => (3, "Connect"),
        (Class::Datastore, Some(Event::SessionEnd)) => (99, "Disconnect"),
        (Class::Datastore, Some(Event::Cancel)) => (99, "Cancel"),
        (Class::Datastore, Some(Event::AuditSearch)) => (4, "Query"),
        (Class::Datastore, Some(Event::AuditExport)) => (1, "Read"),
        (Class::Datastore, Some(Event::AuditErase)) => (7, "Delete"),
        (Class::Datastore, _) => return command(view),
        (Class::Base, _) => (99, word(view, "event")),
    };
    (id, name.to_owned())
}

/// The activity of a statement, by its command.
fn command(view: &View) -> (u64, String) {
    let command = word(view, "command");
    let first = command.split_whitespace().next().unwrap_or_default();
    let writes =
        view.get("class").and_then(Value::as_array).is_some_and(|all| all.iter().any(|one| one == "write"));
    let (id, name) = match first {
        "SELECT" | "VALUES" | "TABLE" if !writes => (4, "Query"),
        "COPY" if !writes => (1, "Read"),
        "INSERT" | "COPY" => (5, "Write"),
        "UPDATE" | "MERGE" | "ALTER" | "GRANT" | "REVOKE" | "COMMENT" => (2, "Update"),
        "DELETE" | "TRUNCATE" | "DROP" => (7, "Delete"),
        "CREATE" => (6, "Create"),
        _ if writes => (5, "Write"),
        "" => return (0, "Unknown".to_owned()),
        _ => return (99, command.to_owned()),
    };
    (id, name.to_owned())
}

fn put_time(event: &mut View, view: &View) {
    let micros = parse_time(word(view, "time")).map_or(0, |time| time.0);
    event.insert("time".into(), micros.div_euclid(1_000).into());
    if let Some(took) = view.get("duration_us").and_then(Value::as_i64) {
        event.insert("start_time".into(), micros.div_euclid(1_000).into());
        event.insert("end_time".into(), micros.saturating_add(took).div_euclid(1_000).into());
        event.insert("duration".into(), (took / 1_000).into());
    }
}

fn put_status(event: &mut View, view: &View, kind: Option<Event>) {
    use Event::*;
    let outcome = word(view, "outcome");
    let status = match (kind, outcome) {
        (Some(LoginPrompted), _) => (99, "prompted"),
        (Some(LoginFailed | LoginDenied | LoginExpired | LoginLocked | RoleDenied | Denied), _) => {
            (2, "Failure")
        }
        (_, "ok") => (1, "Success"),
        (_, "error" | "denied" | "canceled") => (2, "Failure"),
        (_, "skipped") => (99, "skipped"),
        _ => (0, "Unknown"),
    };
    event.insert("status_id".into(), status.0.into());
    event.insert("status".into(), status.1.into());
    if let Some(code) = some(view, "sqlstate") {
        event.insert("status_code".into(), code.into());
    }
    let detail = some(view, "error").or_else(|| (outcome == "canceled").then_some(outcome));
    if let Some(detail) = detail {
        event.insert("status_detail".into(), detail.into());
    }
    let severity = match (kind, outcome) {
        (Some(Alert), _) => (4, "High"),
        (Some(Denied | RoleDenied | Gap | LoginDenied | LoginFailed | LoginLocked), _) | (_, "denied") => {
            (3, "Medium")
        }
        (_, "error" | "canceled") => (2, "Low"),
        _ => (1, "Informational"),
    };
    event.insert("severity_id".into(), severity.0.into());
    event.insert("severity".into(), severity.1.into());
}

fn metadata(view: &View) -> Value {
    let mut metadata = json!({
        "version": VERSION,
        "product": { "name": "pgwitness", "vendor_name": "pgwitness", "version": env!("CARGO_PKG_VERSION") },
        "uid": word(view, "id"),
        "log_name": "pgwitness",
        "original_time": word(view, "time"),
        "event_code": word(view, "event"),
    });
    // A 32-bit integer there.
    if let Some(seq) = view.get("seq").and_then(Value::as_u64).and_then(|seq| i32::try_from(seq).ok()) {
        metadata["sequence"] = seq.into();
    }
    if let Some(session) = some(view, "session") {
        metadata["correlation_uid"] = session.into();
    }
    metadata
}

fn put_datastore(event: &mut View, view: &View, kind: Option<Event>) {
    event.insert("actor".into(), actor(view));
    event.insert("src_endpoint".into(), source(view));
    event.insert("dst_endpoint".into(), destination(view));
    let own = matches!(kind, Some(Event::AuditSearch | Event::AuditExport | Event::AuditErase));
    let database = match some(view, "db") {
        _ if own => json!({ "name": "pgwitness", "type_id": 99, "type": "Access log" }),
        name => json!({ "name": name.unwrap_or("unknown"), "type_id": 1, "type": "Relational" }),
    };
    event.insert("database".into(), database);
    let table = view.get("tables").and_then(Value::as_array).and_then(|tables| tables.first());
    // One place for one table; all of them are in `unmapped`.
    match table {
        Some(table) => {
            event.insert("table".into(), json!({ "name": table }));
            event.insert("type_id".into(), 3.into());
            event.insert("type".into(), "Table".into());
        }
        None => {
            event.insert("type_id".into(), 1.into());
            event.insert("type".into(), "Database".into());
        }
    }
    let query = if own { some(view, "detail") } else { some(view, "sql") };
    if let Some(query) = query {
        let mut info = json!({ "query_string": query });
        if let Some(fingerprint) = some(view, "fingerprint") {
            info["uid"] = fingerprint.into();
        } else {
            info["name"] = word(view, "event").into();
        }
        if let Some(bytes) = view.get("bytes").and_then(Value::as_u64) {
            info["bytes"] = bytes.into();
        }
        event.insert("query_info".into(), info);
    }
}

fn put_authentication(event: &mut View, view: &View) {
    event.insert("user".into(), user(view));
    event.insert("actor".into(), actor(view));
    event.insert("src_endpoint".into(), source(view));
    event.insert("dst_endpoint".into(), destination(view));
    event.insert("service".into(), json!({ "name": "pgwitness" }));
    event.insert("auth_protocol_id".into(), 4.into());
    event.insert("auth_protocol".into(), "OpenID".into());
    event.insert("logon_type_id".into(), 3.into());
    event.insert("logon_type".into(), "Network".into());
    event.insert("is_remote".into(), true.into());
    if let Some(session) = session(view) {
        event.insert("session".into(), session);
    }
}

fn actor(view: &View) -> Value {
    let mut actor = json!({ "user": user(view) });
    if let Some(session) = session(view) {
        actor["session"] = session;
    }
    if let Some(app) = some(view, "app") {
        actor["app_name"] = app.into();
    }
    if let Some(issuer) = some(view, "iss") {
        actor["idp"] = json!({ "name": issuer, "issuer": issuer });
    }
    actor
}

fn user(view: &View) -> Value {
    let Some(name) = some(view, "user").or_else(|| some(view, "sub")) else {
        return json!({ "name": "unknown", "type_id": 0, "type": "Unknown" });
    };
    let mut user = json!({ "name": name, "type_id": 1, "type": "User" });
    if let Some(sub) = some(view, "sub") {
        user["uid"] = sub.into();
    }
    if is_address(name) {
        user["email_addr"] = name.into();
    }
    let groups = view.get("groups").and_then(Value::as_array).into_iter().flatten();
    let groups: Vec<Value> = groups.map(|group| json!({ "name": group })).collect();
    if !groups.is_empty() {
        user["groups"] = groups.into();
    }
    user
}

fn is_address(name: &str) -> bool {
    let plain = |part: &str, more: &[char]| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
    };
    name.split_once('@').is_some_and(|(local, host)| {
        plain(local, &['.', '_', '%', '+', '-']) && plain(host, &['.', '-']) && host.contains('.')
    })
}

fn session(view: &View) -> Option<Value> {
    let uid = some(view, "session").or_else(|| some(view, "login"))?;
    let mut session = json!({ "uid": uid, "is_remote": true });
    if let Some(issuer) = some(view, "iss") {
        session["issuer"] = issuer.into();
    }
    if let Some(login) = some(view, "login") {
        session["credential_uid"] = login.into();
    }
    Some(session)
}

fn source(view: &View) -> Value {
    match some(view, "ip") {
        Some(ip) => json!({ "ip": ip }),
        None => json!({ "name": "unknown" }),
    }
}

fn destination(view: &View) -> Value {
    json!({ "name": some(view, "upstream").unwrap_or("pgwitness"), "svc_name": "postgresql" })
}

fn word<'a>(view: &'a View, name: &str) -> &'a str {
    view.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn some<'a>(view: &'a View, name: &str) -> Option<&'a str> {
    Some(word(view, name)).filter(|text| !text.is_empty())
}

/// Whether a value is more than an absence.
fn says(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(object) => !object.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(value: Value) -> View {
        value.as_object().cloned().unwrap()
    }

    #[track_caller]
    fn check(record: Value, class: u64, activity: u64, status: u64) {
        let event = event(&view(record));
        assert_eq!(
            (&event["class_uid"], &event["activity_id"]),
            (&json!(class), &json!(activity)),
            "{event:?}"
        );
        assert_eq!(event["type_uid"], json!(class * 100 + activity));
        assert_eq!(event["status_id"], json!(status), "{event:?}");
    }

    #[test]
    fn statements_are_datastore_activity_by_their_command() {
        let statement = |command: &str, class: &str, outcome: &str| json!({ "event": "query", "outcome": outcome, "command": command, "class": [class], "sql": "x" });
        check(statement("SELECT", "read", "ok"), 6005, 4, 1);
        check(statement("SELECT", "write", "ok"), 6005, 5, 1);
        check(statement("INSERT", "write", "error"), 6005, 5, 2);
        check(statement("UPDATE", "write", "denied"), 6005, 2, 2);
        check(statement("DELETE", "write", "unknown"), 6005, 7, 0);
        check(statement("CREATE TABLE", "ddl", "skipped"), 6005, 6, 99);
        check(statement("COPY", "read", "canceled"), 6005, 1, 2);
        check(statement("COPY", "write", "ok"), 6005, 5, 1);
        check(statement("VACUUM", "misc", "ok"), 6005, 99, 1);
        check(json!({ "event": "query", "outcome": "error", "command": null, "sql": "selec" }), 6005, 0, 2);
    }

    #[test]
    fn every_kind_of_event_has_its_class() {
        for kind in Event::ALL {
            let event = event(&view(json!({ "event": kind.as_str(), "outcome": "ok" })));
            let class = event["class_uid"].as_u64().unwrap();
            let expected = match kind {
                Event::Gap | Event::ConfigReload | Event::Alert | Event::Retention => 0,
                kind if kind.as_str().starts_with("login.")
                    || matches!(kind, Event::Denied | Event::RoleDenied) =>
                {
                    3002
                }
                _ => 6005,
            };
            assert_eq!(class, expected, "{kind}");
            for name in ["category_uid", "time", "severity_id", "metadata"] {
                assert!(event.contains_key(name), "{kind}: {name}");
            }
            if class != 0 {
                assert!(event.contains_key("actor") && event.contains_key("src_endpoint"), "{kind}");
            }
        }
        check(json!({ "event": "login.prompted", "outcome": "ok" }), 3002, 1, 99);
        check(json!({ "event": "login.failed", "outcome": "error" }), 3002, 1, 2);
        check(json!({ "event": "login.revoked", "outcome": "ok" }), 3002, 2, 1);
        check(
            json!({ "event": "denied", "outcome": "denied", "sql": "drop table t", "command": "DROP TABLE" }),
            6005,
            7,
            2,
        );
    }

    #[test]
    fn nothing_of_a_record_is_lost() {
        let record: View = serde_json::from_str(
            r#"{
            "id": "0197", "seq": 7, "time": "2026-11-21T12:00:00.123456Z", "event": "query", "outcome": "ok",
            "txn_outcome": "committed", "user": "ann@example.com", "sub": "s1", "iss": "https://id", "groups": ["g"],
            "login": "l1", "session": "c1", "auth": { "mode": "device" }, "role": "app", "db": "shop", "upstream": "u",
            "search_path": "public", "ip": "10.0.0.1", "app": "psql", "device": "d1", "sql": "select 1", "sql_hex": "00",
            "params": [1], "fingerprint": "ab", "command": "SELECT", "class": ["read"], "tables": ["public.a", "public.b"],
            "columns": ["public.a.x"], "reads": ["public.a.x"], "filters": ["public.a.y"], "writes": ["public.a.z"],
            "via": ["public.v"], "analysis": "exact", "analysis_notes": ["n"], "rows": 3, "bytes": 30,
            "duration_us": 2500, "sqlstate": "00000", "error": "none", "detail": "d", "tags": ["pii"], "is": ["bulk"],
            "running": true
            }"#,
        )
        .unwrap();
        let text = serde_json::to_string(&event(&record)).unwrap();
        for (name, value) in &record {
            let said = match value {
                Value::Array(items) => items.iter().all(|item| text.contains(&item.to_string())),
                value => text.contains(&value.to_string()),
            };
            // The words of an outcome are OCSF's.
            assert!(said || name == "outcome", "{name}");
        }
        let event = event(&record);
        assert_eq!(
            (&event["time"], &event["end_time"], &event["duration"]),
            (&json!(1_795_262_400_123_u64), &json!(1_795_262_400_125_u64), &json!(2))
        );
        assert_eq!(event["actor"]["user"]["email_addr"], "ann@example.com");
        assert_eq!(event["table"]["name"], "public.a");
    }
}
