//! `GET /api/v1/openapi.json`: the API as OpenAPI 3.1 describes it.
//!
//! One table, [`OPERATIONS`]: paths, what they take, what they answer. What a path takes is the same
//! list that its parameters are checked against, and the fields of a record are those that queries
//! know, so the description says what the code does. A golden file shows each change of it.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use serde_json::Value;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ComponentsBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Content, InfoBuilder, OpenApi, OpenApiBuilder, PathsBuilder, Ref, RefOr, Required, Response,
    ResponseBuilder,
};

mod schemas;

use super::{access, ask, context, proof, suggest, tail};
use schemas::schemas;

/// One method of one path.
struct Told {
    method: HttpMethod,
    path: &'static str,
    summary: &'static str,
    takes: &'static [&'static str],
    /// The schema of the body, if there is one.
    body: Option<&'static str>,
    answers: Answers,
}

/// What a successful answer is.
#[derive(Clone, Copy)]
enum Answers {
    /// JSON of a named schema.
    Json(&'static str),
    /// A file of the asked format.
    File,
    /// Server-sent events.
    Events,
}

const fn get(
    path: &'static str,
    takes: &'static [&'static str],
    answers: Answers,
    summary: &'static str,
) -> Told {
    Told { method: HttpMethod::Get, path, summary, takes, body: None, answers }
}

const OPERATIONS: &[Told] = &[
    get("/api/v1/events", ask::SEARCH, Answers::Json("Page"), "Records that answer a query, newest first"),
    Told {
        method: HttpMethod::Post,
        path: "/api/v1/events/search",
        summary: "The same, with the parameters as a JSON object in the body",
        takes: &[],
        body: Some("Search"),
        answers: Answers::Json("Page"),
    },
    get(
        "/api/v1/events/histogram",
        ask::HISTOGRAM,
        Answers::Json("Histogram"),
        "How the matches spread over time",
    ),
    get(
        "/api/v1/events/facets",
        ask::FACETS,
        Answers::Json("Facets"),
        "The commonest values of fields among the matches",
    ),
    get(
        "/api/v1/events/tail",
        tail::PARAMS,
        Answers::Events,
        "Records as they come, oldest first, as server-sent events; goes on after Last-Event-ID",
    ),
    get("/api/v1/events/{id}", &[], Answers::Json("Record"), "One record"),
    get(
        "/api/v1/events/{id}/context",
        context::PARAMS,
        Answers::Json("Context"),
        "The records of the same session around one, and of its transaction",
    ),
    get("/api/v1/events/{id}/proof", &[], Answers::Json("RecordProof"), "That a record is in the signed log"),
    get(
        "/api/v1/log/consistency",
        proof::CONSISTENCY,
        Answers::Json("Consistency"),
        "That the signed log continues what it was: from and to are sizes of trees",
    ),
    get("/api/v1/suggest", suggest::PARAMS, Answers::Json("Suggestions"), "What may come next in a query"),
    get(
        "/api/v1/export",
        ask::EXPORT,
        Answers::File,
        "All matches as one file; the Link header names its manifest",
    ),
    get(
        "/api/v1/export/{id}/manifest",
        &[],
        Answers::Json("Manifest"),
        "What the file of an export that ended within the last hour is",
    ),
    get("/api/v1/sessions", &[], Answers::Json("Sessions"), "The database sessions that are open now"),
    get("/api/v1/sessions/{id}", &[], Answers::Json("Session"), "One session as the log knows it"),
    get(
        "/api/v1/sessions/{id}/events",
        ask::SEARCH,
        Answers::Json("Page"),
        "The records of one session, newest first",
    ),
    Told {
        method: HttpMethod::Post,
        path: "/api/v1/sessions/{id}/terminate",
        summary: "Ends a session, its login, or all logins of its person: your own, as administrator any",
        takes: &[],
        body: Some("Terminate"),
        answers: Answers::Json("Ended"),
    },
    Told {
        method: HttpMethod::Post,
        path: "/api/v1/events/{id}/erase",
        summary: "Erases values of a record, for administrators; proofs over the record still hold",
        takes: &[],
        body: Some("Erase"),
        answers: Answers::Json("Erased"),
    },
    get(
        "/api/v1/logins",
        &[],
        Answers::Json("Logins"),
        "What opens sessions without a prompt, paired secrets and minted tokens: your own, as administrator all",
    ),
    Told {
        method: HttpMethod::Post,
        path: "/api/v1/logins/{id}/revoke",
        summary: "Ends one of them, its login, or all logins of its person: your own, as administrator any",
        takes: &[],
        body: Some("Revoke"),
        answers: Answers::Json("Ended"),
    },
    Told {
        method: HttpMethod::Post,
        path: "/api/v1/tokens",
        summary: "Gives out a token that stands for you, as a password of PostgreSQL clients and for this API",
        takes: &[],
        body: Some("Mint"),
        answers: Answers::Json("Minted"),
    },
    get(
        "/api/v1/objects",
        access::LIST,
        Answers::Json("Objects"),
        "Tables that were touched, most often touched first",
    ),
    get(
        "/api/v1/objects/{table}/access",
        access::LIST,
        Answers::Json("Access"),
        "Who touched a table or column",
    ),
    get("/api/v1/users", access::LIST, Answers::Json("Users"), "People who did anything, busiest first"),
    get("/api/v1/users/{id}/access", access::LIST, Answers::Json("Access"), "Which tables a person touched"),
    get("/api/v1/log/head", &[], Answers::Json("Head"), "The end of the log, to be kept elsewhere"),
    get("/api/v1/me", &[], Answers::Json("Me"), "Who you are, and what you may read"),
    get("/api/v1/fields", &[], Answers::Json("Fields"), "The fields that queries know"),
    get("/api/v1/status", &[], Answers::Json("Status"), "How the gateway is doing"),
];

/// The text, made once.
static TEXT: LazyLock<String> = LazyLock::new(|| {
    // Maps of text and numbers always have a text form.
    serde_json::to_string_pretty(&description()).unwrap_or_default() + "\n"
});

/// Answers with the description.
pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}

fn description() -> OpenApi {
    let info = InfoBuilder::new()
        .title("pgwitness")
        .version("1")
        .description(Some("The read API of the access log. People read their own records; auditors read all, and each of their reads is itself recorded. What is out of scope answers 404."));
    let mut paths = PathsBuilder::new();
    for told in OPERATIONS {
        paths = paths.path(told.path, PathItem::new(told.method.clone(), operation(told)));
    }
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let components = schemas()
        .into_iter()
        .fold(ComponentsBuilder::new(), |components, (name, schema)| components.schema(name, schema))
        .security_scheme("bearer", bearer);
    OpenApiBuilder::new()
        .info(info.build())
        .paths(paths.build())
        .components(Some(components.build()))
        .security(Some([SecurityRequirement::new("bearer", Vec::<String>::new())]))
        .build()
}

fn operation(told: &Told) -> Operation {
    let in_path = told.path.split(['{', '}']).skip(1).step_by(2).map(|name| {
        let path =
            ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
        path.schema(Some(text())).build()
    });
    let parameters: Vec<Parameter> = in_path.chain(told.takes.iter().map(|name| parameter(name))).collect();
    let mut operation =
        OperationBuilder::new().summary(Some(told.summary)).response("200", answer(told.answers));
    if !parameters.is_empty() {
        operation = operation.parameters(Some(parameters));
    }
    if let Some(name) = told.body {
        let content = Content::new(Some(Ref::from_schema_name(name)));
        let body = RequestBodyBuilder::new().content("application/json", content);
        operation = operation.request_body(Some(body.required(Some(Required::True)).build()));
    }
    let problems = [
        ("400", "The request is wrong; a query's problem names the place in its text"),
        ("401", "Nobody proved who they are"),
        ("404", "Not there, or not for the caller"),
        ("429", "The caller's share is taken; Retry-After says when to come again"),
        ("503", "It cannot be answered or recorded now"),
    ];
    problems
        .into_iter()
        .fold(operation, |operation, (status, why)| operation.response(status, problem(why)))
        .build()
}

fn answer(answers: Answers) -> Response {
    let (kinds, schema): (&[&str], RefOr<Schema>) = match answers {
        Answers::Json(name) => (&["application/json"], Ref::from_schema_name(name).into()),
        Answers::File => (&["text/csv", "application/x-ndjson", "application/vnd.apache.parquet"], text()),
        Answers::Events => (&["text/event-stream"], text()),
    };
    let described = ResponseBuilder::new().description("The answer");
    kinds
        .iter()
        .fold(described, |response, kind| response.content(*kind, Content::new(Some(schema.clone()))))
        .build()
}

fn problem(why: &str) -> Response {
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    ResponseBuilder::new().description(why).content("application/problem+json", content).build()
}

fn parameter(name: &str) -> Parameter {
    let (schema, about) = known(name);
    let built = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query).required(Required::False);
    built.description(Some(about)).schema(Some(schema)).build()
}

/// Type and meaning of a parameter.
fn known(name: &str) -> (RefOr<Schema>, &'static str) {
    match name {
        "q" => (text(), "The query; empty asks for everything"),
        "from" => (text(), "Not before: 2026-11-21T08:00:00Z, 2026-11-21, today, now-1h, -15m"),
        "to" => (text(), "Before this time"),
        "tz" => (words(&["UTC", "Z"]), "Days begin at midnight UTC"),
        "order" => (words(&["desc", "newest"]), "Newest first"),
        "limit" => (number(), "At most this many"),
        "cursor" => (text(), "next_cursor of the page before"),
        "fields" => (text(), "Names of fields, separated by commas, in the order to show them"),
        "count" => (words(&["none", "capped", "exact"]), "Whether to count all matches"),
        "after" => (number(), "Only records after this position"),
        "buckets" => (number(), "How many parts the time is cut into"),
        "format" => (words(&["csv", "jsonl", "parquet", "ocsf"]), "How the file is written"),
        "before" => (number(), "Records of the session before"),
        _ => (text(), ""),
    }
}

fn text() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).into()
}

fn number() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0_u32)).into()
}

fn flag() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::Boolean).into()
}

fn anything() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).into()
}

fn words(allowed: &[&str]) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(allowed.iter().map(|&word| Value::from(word))))
        .into()
}

fn list(of: RefOr<Schema>) -> RefOr<Schema> {
    ArrayBuilder::new().items(of).into()
}

fn named(name: &str) -> RefOr<Schema> {
    Ref::from_schema_name(name).into()
}

fn object<const N: usize>(properties: [(&str, RefOr<Schema>); N]) -> RefOr<Schema> {
    let open = ObjectBuilder::new().schema_type(Type::Object);
    properties.into_iter().fold(open, |object, (name, schema)| object.property(name, schema)).into()
}

/// An object with names that are not known beforehand.
fn counts() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::Object).additional_properties(Some(number())).into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_parameter_is_described() {
        for told in OPERATIONS {
            for name in told.takes {
                assert!(!known(name).1.is_empty(), "{}: {name}", told.path);
            }
        }
    }

    #[test]
    fn every_named_schema_is_there() {
        let text = json!(description()).to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            assert!(schemas().iter().any(|(known, _)| *known == name), "{name}");
        }
    }
}
