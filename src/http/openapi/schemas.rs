//! What the API's answers and bodies are made of.

use pgwitness_index::search::{Field, Kind};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

use super::super::ask;
use super::{anything, counts, flag, known, list, named, number, object, text, words};

pub(super) type Named = (&'static str, RefOr<Schema>);

pub(super) fn schemas() -> Vec<Named> {
    answers().into_iter().chain(exports_and_sessions()).chain(touched()).chain(log()).chain(about()).collect()
}

/// Records, and what is counted of them.
fn answers() -> Vec<Named> {
    let valued = || object([("value", text()), ("count", number())]);
    vec![
        ("Record", record()),
        (
            "Page",
            object([
                ("items", list(named("Record"))),
                ("next_cursor", text()),
                ("as_of", object([("log_seq", number()), ("indexed_seq", number())])),
                ("total", number()),
                ("total_is_capped", flag()),
                ("query", text()),
                ("warnings", list(text())),
            ]),
        ),
        ("Search", search()),
        (
            "Histogram",
            object([("from", text()), ("to", text()), ("step_us", number()), ("counts", list(number()))]),
        ),
        (
            "Facets",
            object([("facets", ObjectBuilder::new().additional_properties(Some(list(valued()))).into())]),
        ),
        (
            "Context",
            object([
                ("record", named("Record")),
                (
                    "session",
                    object([
                        ("id", text()),
                        ("before", list(named("Record"))),
                        ("after", list(named("Record"))),
                        ("more_before", flag()),
                        ("more_after", flag()),
                    ]),
                ),
                ("transaction", object([("events", list(named("Record"))), ("complete", flag())])),
            ]),
        ),
    ]
}

/// Suggestions, manifests, sessions.
fn exports_and_sessions() -> Vec<Named> {
    vec![
        (
            "Suggestions",
            object([
                ("span", list(number())),
                (
                    "suggestions",
                    list(object([
                        ("text", text()),
                        ("kind", words(&["field", "value"])),
                        ("count", number()),
                    ])),
                ),
            ]),
        ),
        (
            "Manifest",
            object([
                ("manifest", text()),
                ("id", text()),
                (
                    "file",
                    object([
                        ("name", text()),
                        ("format", text()),
                        ("schema", text()),
                        ("media_type", text()),
                        ("bytes", number()),
                        ("sha256", text()),
                    ]),
                ),
                ("rows", number()),
                ("seq", object([("first", number()), ("last", number())])),
                ("query", text()),
                ("asked", text()),
                ("fields", list(text())),
                ("scope", words(&["all", "own"])),
                ("head", named("Head")),
                ("indexed_seq", number()),
                ("exported_by", anything()),
                ("began", text()),
                ("ended", text()),
                ("gateway", text()),
            ]),
        ),
        ("Sessions", object([("items", list(anything()))])),
        (
            "Session",
            object([
                ("session", text()),
                ("user", text()),
                ("open", flag()),
                ("first", text()),
                ("last", text()),
                ("records", number()),
                ("counts", ObjectBuilder::new().additional_properties(Some(counts())).into()),
            ]),
        ),
    ]
}

/// Objects and people.
fn touched() -> Vec<Named> {
    let each = || object([("name", text()), ("count", number()), ("first", text()), ("last", text())]);
    vec![
        ("Terminate", object([("scope", words(&["session", "login", "device", "person"]))])),
        ("Ended", object([("ended", number())])),
        (
            "Erase",
            object([("fields", list(words(&["sql", "params", "error", "detail"]))), ("reason", text())]),
        ),
        ("Erased", object([("seq", number()), ("erased_by", number())])),
        ("Revoke", object([("scope", words(&["secret", "login", "person"]))])),
        ("Mint", object([("life", number()), ("name", text())])),
        ("Minted", object([("token", text()), ("id", text()), ("expires", text())])),
        ("Logins", object([("items", list(opener()))])),
        ("Objects", object([("items", list(object([("table", text()), ("count", number())])))])),
        ("Users", object([("items", list(object([("user", text()), ("count", number())])))])),
        (
            "Access",
            object([
                ("object", text()),
                ("user", text()),
                ("count", number()),
                ("first", text()),
                ("last", text()),
                ("users", list(each())),
                ("tables", list(each())),
                ("counts", ObjectBuilder::new().additional_properties(Some(counts())).into()),
            ]),
        ),
    ]
}

/// A paired secret or a minted token.
fn opener() -> RefOr<Schema> {
    object([
        ("id", text()),
        ("kind", words(&["paired", "minted"])),
        ("name", text()),
        ("user", text()),
        ("sub", text()),
        ("iss", text()),
        ("login", text()),
        ("role", text()),
        ("db", text()),
        ("ip", text()),
        ("app", text()),
        ("since", text()),
        ("until", text()),
        ("last_used", text()),
    ])
}

/// The log and its proofs.
fn log() -> Vec<Named> {
    vec![
        (
            "Head",
            object([
                ("seq", number()),
                ("frames", number()),
                ("digest", text()),
                ("time", text()),
                ("checkpoint", text()),
                ("key", text()),
            ]),
        ),
        (
            "RecordProof",
            object([
                ("id", text()),
                ("seq", number()),
                ("final", flag()),
                ("key", text()),
                ("checkpoint", text()),
                ("leaves", list(anything())),
            ]),
        ),
        (
            "Consistency",
            object([
                ("from", number()),
                ("from_root", text()),
                ("to", number()),
                ("to_root", text()),
                ("proof", list(text())),
                ("checkpoint", text()),
                ("key", text()),
            ]),
        ),
    ]
}

/// Who asks, and how the gateway is.
fn about() -> Vec<Named> {
    vec![
        (
            "Me",
            object([
                ("user", text()),
                ("email", text()),
                ("sub", text()),
                ("iss", text()),
                ("groups", list(text())),
                ("roles", list(words(&["self", "auditor", "admin"]))),
                ("mode", text()),
                ("expires", text()),
            ]),
        ),
        (
            "Fields",
            object([(
                "fields",
                list(object([
                    ("name", text()),
                    ("aliases", list(text())),
                    ("kind", text()),
                    ("values", list(text())),
                ])),
            )]),
        ),
        (
            "Status",
            object([
                ("version", text()),
                ("recording", flag()),
                ("log_seq", number()),
                ("indexed_seq", number()),
                ("postgres", object([("port", number()), ("tls", words(&["off", "allow", "require"]))])),
            ]),
        ),
        (
            "Problem",
            object([
                ("type", text()),
                ("title", text()),
                ("status", number()),
                ("detail", text()),
                ("span", list(number())),
                ("suggestion", text()),
            ]),
        ),
    ]
}

/// The parameters of a search, as a body.
fn search() -> RefOr<Schema> {
    let body = ObjectBuilder::new().schema_type(Type::Object);
    ask::SEARCH.iter().fold(body, |body, name| body.property(*name, known(name).0)).into()
}

/// A record: the fields that queries know, and those that are only shown.
fn record() -> RefOr<Schema> {
    let mut record = ObjectBuilder::new().schema_type(Type::Object);
    for field in Field::ALL {
        let schema = match (field, field.kind()) {
            (Field::Params, _) => list(anything()),
            (Field::Groups | Field::Class | Field::Tags | Field::Is, _) | (_, Kind::Object) => list(text()),
            (_, Kind::Count | Kind::Duration) => number(),
            (_, Kind::Keyword | Kind::Person | Kind::Text | Kind::Time | Kind::Ip) => {
                match field.vocabulary() {
                    Some(allowed) => words(&allowed),
                    None => text(),
                }
            }
        };
        record = record.property(field.name(), schema);
    }
    for name in ask::SHOWN_ONLY {
        record = record.property(
            *name,
            match *name {
                "auth" => anything(),
                "running" => flag(),
                "analysis_notes" => list(text()),
                _ => text(),
            },
        );
    }
    record.description(Some("A merged record. Fields that say nothing are null or absent.")).into()
}
