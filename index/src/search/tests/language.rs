//! The query language: what each query finds in one fixed log, and how wrong ones are answered.

use std::sync::{Arc, LazyLock};

use super::support::*;
use crate::record::{Certainty, Class, Completion, Entry, Event, Outcome, Param, Record, Sql, TxnOutcome};
use crate::search::{Count, Indexer, Query, Scope, Search, Window};

const JWT: &str =
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4iLCJhdWQiOiJwZ3dpdG5lc3MifQ.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg";
const UUID: &str = "018f7c2e-9b7a-7def-8123-456789abcdef";

struct Log {
    _place: Place,
    _indexer: Indexer,
    search: Search,
}

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let mut place = Place::new();
    place.append(records());
    let (indexer, search, _) = place.caught_up();
    Log { _place: place, _indexer: indexer, search }
});

fn entry(record: Record, change: impl FnOnce(&mut Completion)) -> Entry {
    let mut done = Completion::new(Outcome::Ok, TxnOutcome::Committed);
    done.rows = Some(1);
    change(&mut done);
    Entry::Record(Box::new(Record { done: Some(done), ..record }))
}

fn records() -> Vec<Entry> {
    let users = shape("SELECT", &["public.users"], &["public.users.email", "public.users.ssn"]);
    let mut items = shape("SELECT", &["public.order_items"], &["public.order_items.unit_price"]);
    items.filters = vec!["public.order_items.order_id".to_owned()];
    items.tags = vec!["pci".to_owned()];
    let mut write = shape("UPDATE", &["sales.users"], &[]);
    write.writes = vec!["sales.users.email".to_owned()];
    let mut odd = shape("", &[], &[]);
    odd.analysis = Certainty::Unresolved;
    odd.class = vec![Class::Ddl];
    let mut first = statement(1, "ann@x.org", "select email, ssn from users where id = $1", users.clone());
    first.params = vec![Param::Int(42), Param::Text("Ann O'Hara".to_owned()), Param::Null];
    let second = statement(2, "Bob@Y.org", "SELECT unitPrice FROM public.order_items", items);
    let mut third = statement(3, "ann@x.org", "update sales.users set email = $1", write);
    third.params = vec![Param::Text("new.mail@example.com".to_owned()), Param::Bytes(vec![0xde, 0xad])];
    third.who = Arc::new(crate::record::Who {
        ip: "2001:db8::7".to_owned(),
        app: "DBeaver 24".to_owned(),
        ..who("ann@x.org")
    });
    let fourth = statement(4, "carl", "frobnicate everything", odd);
    let mut fifth = statement(5, "carl", &format!("select '{UUID}', '{JWT}'"), shape("SELECT", &[], &[]));
    fifth.params = Vec::new();
    let mut sixth = statement(6, "dora@x.org", "", users);
    sixth.event = Event::LoginOk;
    (sixth.sql, sixth.shape, sixth.params) = (None, None, Vec::new());
    sixth.detail = "approved".to_owned();
    let mut seventh = statement(7, "ann@x.org", "", shape("SELECT", &["public.users"], &[]));
    seventh.sql = Some(Sql::Once(Box::from(&b"select 'caf\xe9' from users"[..])));
    vec![
        entry(first, |done| (done.rows, done.bytes, done.duration_us) = (Some(10), 2_000, 1_500_000)),
        entry(second, |done| (done.rows, done.bytes, done.duration_us) = (Some(20_000), 5 << 20, 200)),
        entry(third, |done| done.txn_outcome = TxnOutcome::RolledBack),
        entry(fourth, |done| {
            done.outcome = Outcome::Error;
            done.rows = None;
            (done.sqlstate, done.error) =
                ("42601".to_owned(), "syntax error at or near \"frobnicate\"".to_owned());
        }),
        entry(fifth, |_| {}),
        entry(sixth, |done| done.txn_outcome = TxnOutcome::None),
        entry(seventh, |_| {}),
    ]
}

#[track_caller]
fn check(text: &str, expected: &[u64]) {
    let query = query(text);
    let found = LOG.search.page(&query, &Scope::All, &Window::default(), 100, None, Count::Exact).unwrap();
    let mut seqs = seqs(&found.items);
    seqs.reverse();
    assert_eq!(seqs, expected, "{text}");
    assert_eq!(found.total, Some(expected.len() as u64), "{text}");
    for view in everything(&LOG.search) {
        let seq = view["seq"].as_u64().unwrap();
        assert_eq!(query.matches(&view), expected.contains(&seq), "{text} on record {seq}, read plainly");
    }
}

#[track_caller]
fn refuse(text: &str, at: &str, message: &str, suggestion: Option<&str>) {
    let error = Query::parse(text, NOON).expect_err(text);
    assert!(error.message.contains(message), "{text}: {}", error.message);
    assert_eq!(&text[error.span.clone()], at, "{text}: {}", error.message);
    assert_eq!(error.suggestion.as_deref(), suggestion, "{text}");
}

#[test]
fn operators_bind_as_promised() {
    check("", &[1, 2, 3, 4, 5, 6, 7]);
    check("*", &[1, 2, 3, 4, 5, 6, 7]);
    check("user:ann command:update", &[3]);
    check("user:ann AND command:update", &[3]);
    check("user:carl or user:ann command:update", &[3, 4, 5]);
    check("(user:carl OR user:ann) and is:failed", &[4]);
    check("user:ann not command:update", &[1, 7]);
    check("user:ann -command:update", &[1, 7]);
    check("-user:ann", &[2, 4, 5, 6]);
    check("NOT (user:ann or user:carl)", &[2, 6]);
    check("- -user:ann", &[1, 3, 7]);
    check("user:(ann or carl) -user:ann", &[4, 5]);
    check("user:(ann carl)", &[]);
    check("user:ann,bob", &[1, 2, 3, 7]);
    check("command:(not update) event:query", &[1, 2, 4, 5, 7]);
}

#[test]
fn people_are_found_by_address_or_its_first_part_in_any_case() {
    check("user:ann@x.org", &[1, 3, 7]);
    check("user:ANN", &[1, 3, 7]);
    check("actor:bob", &[2]);
    check("email:bob@y.org", &[2]);
    check("user:x.org", &[]);
    check("user:an*", &[1, 3, 7]);
    check("user:bob@*", &[2]);
    check("user:\"Bob@Y.org\"", &[2]);
    check("user:*", &[1, 2, 3, 4, 5, 6, 7]);
    check("sub:sub-carl", &[4, 5]);
    check("session:session-carl group:staff", &[4, 5]);
}

#[test]
fn tables_and_columns_are_found_by_their_last_parts() {
    check("table:users", &[1, 3, 7]);
    check("table:public.users", &[1, 7]);
    check("table:sales.*", &[3]);
    check("table:order*", &[2]);
    check("tables:*", &[1, 2, 3, 7]);
    check("column:email", &[1, 3]);
    check("column:users.email", &[1, 3]);
    check("column:public.users.email", &[1]);
    check("column:*.ssn", &[1]);
    check("column:users.*", &[1, 3]);
    check("column:sales.users.*", &[3]);
    check("column:order_items.order_id", &[2]);
    check("column:*", &[1, 2, 3]);
    check("reads:email", &[1]);
    check("writes:email", &[3]);
    check("filters:*", &[2]);
    check("column:users", &[]);
}

#[test]
fn words_are_found_in_text_parameters_errors_and_names() {
    check("email", &[1, 3]);
    check("frobnicate", &[4]);
    check("\"syntax error\"", &[4]);
    check("\"error syntax\"", &[]);
    check("error:near", &[4]);
    check("sql:near", &[]);
    check("order_items", &[2]);
    check("items", &[2]);
    check("unitprice", &[2]);
    check("price", &[2]);
    check("public.order_items", &[2]);
    check("order_items.unit_price", &[2]);
    check("sales.users", &[3]);
    check("users.ema*", &[1, 3]);
    check("frob*", &[4]);
    check("\"select email\"", &[1]);
    check("\"from us\"*", &[1, 7]);
    check("params:42", &[1, 2, 4, 7]);
    check("params:\"ann o'hara\"", &[1]);
    check("new.mail@example.com", &[3]);
    check("mail@example.com", &[3]);
    check("new.mail@ex*", &[3]);
    check("params:dead", &[3]);
    check(UUID, &[5]);
    check("018f7c2e-9b7*", &[5]);
    check(JWT, &[5]);
    check("sql:\"caf\"", &[7]);
    check("select * from users = ;", &[1, 7]);
}

#[test]
fn letters_between_stars_are_found_anywhere_in_a_text() {
    check("sql:*mai*", &[1, 3]);
    check("*ail,*", &[1]);
    check("*w.mail@exam*", &[3]);
    check("params:*o'h*", &[1]);
    check("params:*ea*", &[3]);
    check("error:*obnic*", &[4]);
    check("*robnicat*", &[4]);
    check("sql:*tpri*", &[2]);
    check("*456789abc*", &[5]);
    check("*eyJzdWIiOiJhbm4iLCJhdWQ*", &[5]);
    check("-*e*", &[6]);
    check("(*mail* or *obnic*) user:ann", &[1, 3]);
    refuse("sql:*mail", "*mail", "needs one at the end", None);
    refuse("params:*--*", "*--*", "no letter or digit", None);
    refuse("*a*b*", "*a*b*", "none between", None);
}

#[test]
fn numbers_durations_times_and_networks_have_ranges() {
    check("rows:10", &[1]);
    check("rows>=10k", &[2]);
    check("rows:>10", &[2]);
    check("rows:10..20k", &[1, 2]);
    check("rows:..1 event:query", &[3, 5, 7]);
    check("rows<0", &[]);
    check("bytes>=5MiB", &[2]);
    check("bytes:2k", &[1]);
    check("duration>1s", &[1]);
    check("duration:1.5s", &[1]);
    check("duration_us:200", &[2]);
    check("duration:100us..1ms", &[2]);
    check("seq:2,4", &[2, 4]);
    check("seq:3..5", &[3, 4, 5]);
    check("time:2026-11-21", &[1, 2, 3, 4, 5, 6, 7]);
    check("time:2026-11-20", &[]);
    check("time:today", &[1, 2, 3, 4, 5, 6, 7]);
    check("time:yesterday", &[]);
    check("time>now+5s", &[6, 7]);
    check("time>=2026-11-21T12:00:05Z", &[5, 6, 7]);
    check("time>2026-11-21T12:00:05Z", &[6, 7]);
    check("created:2026-11-21T14:00:02+02:00", &[2]);
    check("time:2026-11-21T12:00:02..2026-11-21T12:00:03", &[2, 3]);
    check("time:-15m", &[1, 2, 3, 4, 5, 6, 7]);
    check("time:\"2026-11-21 12:00\"", &[1, 2, 3, 4, 5, 6, 7]);
    check("time:2026-11 time<2027", &[1, 2, 3, 4, 5, 6, 7]);
    check("ip:10.0.0.0/8", &[1, 2, 4, 5, 6, 7]);
    check("ip:10.1.*", &[1, 2, 4, 5, 6, 7]);
    check("ip:10.1.2.3 seq:1", &[1]);
    check("ip:2001:db8::/32", &[3]);
    check("ip:10.1.2.4", &[]);
    check("-ip:0.0.0.0/0", &[3]);
}

#[test]
fn keywords_are_whole_and_in_any_case() {
    check("event:login.ok", &[6]);
    check("event:LOGIN.*", &[6]);
    check("outcome:error", &[4]);
    check("txn_outcome:rolled_back,none", &[3, 6]);
    check("app:\"dbeaver 24\"", &[3]);
    check("app:dbeaver", &[]);
    check("app:dbea*", &[3]);
    check("is:failed", &[4]);
    check("is:unparsed,bulk", &[2, 4]);
    check("is:sensitive tags:pci", &[2]);
    check("is:ddl", &[4]);
    check("is:write", &[3]);
    check("class:read", &[1, 2, 5, 7]);
    check("analysis:unresolved", &[4]);
    check("sqlstate:42601", &[4]);
    check("sqlstate:42*", &[4]);
    check("error:*", &[4]);
    check("dbuser:reader db:shop upstream:main fingerprint:0123* login:login-1", &[1, 2, 3, 4, 5, 7]);
    check("device:*", &[]);
    check("-rows:* event:query", &[4]);
    check("id:01900000-0000-7000-8000-000000000003", &[3]);
}

#[test]
fn wrong_queries_are_answered_with_the_place_and_a_suggestion() {
    refuse("usr:ann", "usr", "no field \"usr\"", Some("user"));
    refuse("ok tabel:users", "tabel", "Did you mean table?", Some("table"));
    refuse("http://x", "http", "Quote the text", None);
    refuse("outcome:denid", "denid", "outcome is one of ok, error", Some("denied"));
    refuse("is:wrte", "wrte", "is is one of", Some("write"));
    refuse("user>ann", "ann", "has no order", None);
    refuse("rows:many", "many", "not a count", None);
    refuse("rows:10x", "10x", "not a count", None);
    refuse("rows:1*", "1*", "takes no *", None);
    refuse("duration:1.5", "1.5", "not a duration", None);
    refuse("time:soon", "soon", "not a time", None);
    refuse("time:2026-13-01", "2026-13-01", "not a time", None);
    refuse("ip:10.0.0.0/40", "10.0.0.0/40", "not an address", None);
    refuse("ip:10.0.0.300", "10.0.0.300", "not an address", None);
    refuse("user:", "", "no value follows user", None);
    refuse("user:ann,", "", "no value follows user", None);
    refuse("user:a*n", "a*n", "only stand at the end", None);
    refuse("column:a.*.b", "a.*.b", "only stand for the beginning", None);
    refuse("(a or b", "(", "never closed", None);
    refuse("a)", ")", "no opening one", None);
    refuse("\"abc", "\"abc", "never closed", None);
    refuse("a or", "or", "nothing follows OR", None);
    refuse("or a", "or", "nothing stands before OR", None);
    refuse("a not", "not", "nothing follows NOT", None);
    refuse("sql:\"--\"", "\"--\"", "no letter or digit", None);
}

#[test]
fn queries_are_bounded() {
    let many = vec!["a"; 65].join(" ");
    assert!(Query::parse(&many, NOON).unwrap_err().message.contains("more than 64"));
    assert!(Query::parse(&vec!["a"; 64].join(" "), NOON).is_ok());
    assert!(Query::parse(&"a".repeat(4097), NOON).unwrap_err().message.contains("4097 bytes"));
    assert!(Query::parse(&"(".repeat(4000), NOON).unwrap_err().message.contains("nested deeper"));
    assert!(Query::parse(&"-".repeat(4000), NOON).is_err());
    assert!(Query::parse(&"not ".repeat(1000), NOON).is_err());
    let phrase = format!("\"{}\"", "a ".repeat(33));
    assert!(Query::parse(&phrase, NOON).unwrap_err().message.contains("at most 32 words"));
}
