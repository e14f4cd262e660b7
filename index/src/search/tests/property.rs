//! The index and the plain reading of the syntax tree give the same answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;

use super::support::*;
use crate::record::{
    Certainty, Class, Completion, Entry, Event, Outcome, Param, Record, Seq, Settlement, Shape, Sql,
    Timestamp, TxnOutcome,
};
use crate::search::{Count, FACETS, Field, Part, Query, Scope, Search, Window, Writing};
use crate::view::{View, merged, parse_time};

const WORDS: &[&str] = &[
    "select",
    "from",
    "users",
    "order_items",
    "orderItems",
    "public.users",
    "ann@x.org",
    "a-b",
    "42",
    "'x'",
    "É",
    "$1",
    "__",
    "HTTPServer2",
];
const TABLES: &[&str] = &["public.users", "public.order_items", "sales.users", "Odd.Name.x"];
const COLUMNS: &[&str] =
    &["public.users.email", "sales.users.email", "public.order_items.unit_price", "users.a"];
const USERS: &[&str] = &["ann@x.org", "Ann@y.org", "annette", "bob@x.org", ""];

fn some(of: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(select(of).prop_map(str::to_owned), 0..=most).prop_map(|mut names| {
        names.sort();
        names.dedup();
        names
    })
}

fn text() -> impl Strategy<Value = String> {
    (prop::collection::vec(select(WORDS), 0..6), select(&[" ", ".", ", ", "_"][..]))
        .prop_map(|(words, by)| words.join(by))
}

fn shapes() -> impl Strategy<Value = Shape> {
    (some(TABLES, 2), some(COLUMNS, 2), some(COLUMNS, 1), some(COLUMNS, 1), some(TABLES, 1), any::<bool>())
        .prop_map(|(tables, reads, filters, writes, via, exact)| Shape {
            fingerprint: "00ff".to_owned(),
            command: if exact { "SELECT" } else { "" }.to_owned(),
            class: vec![if exact { Class::Read } else { Class::Ddl }],
            tables,
            reads,
            filters,
            writes,
            via,
            analysis: if exact { Certainty::Exact } else { Certainty::Unresolved },
            analysis_notes: Vec::new(),
            tags: Vec::new(),
        })
}

fn param() -> impl Strategy<Value = Param> {
    prop_oneof![
        Just(Param::Null),
        (0..50i64).prop_map(Param::Int),
        Just(Param::Float(-1.5)),
        any::<bool>().prop_map(Param::Bool),
        text().prop_map(Param::Text),
        Just(Param::Bytes(vec![0xab, 0xcd])),
    ]
}

prop_compose! {
    fn record()(
        user in select(USERS),
        sql in text(),
        shape in prop::option::of(shapes()),
        params in prop::collection::vec(param(), 0..3),
        ip in select(&["10.1.2.3", "10.9.0.1", "::1", "", "local"][..]),
        second in 0..100i64,
        event in select(&[Event::Query, Event::Query, Event::LoginOk][..]),
        done in prop::option::of((select(Outcome::ALL), select(TxnOutcome::ALL), prop::option::of(0..30_000u64), text())),
    ) -> Record {
        let done = done.map(|(outcome, txn_outcome, rows, error)| {
            let txn_outcome = if txn_outcome == TxnOutcome::Open { TxnOutcome::Committed } else { txn_outcome };
            Completion { rows, error, duration_us: rows.unwrap_or(7), ..Completion::new(outcome, txn_outcome) }
        });
        let mut record = statement(0, user, "", shape.clone().unwrap_or_else(|| super::support::shape("", &[], &[])));
        record.who = Arc::new(crate::record::Who { ip: ip.to_owned(), ..who(user) });
        record.time.0 += second * SECOND;
        record.event = event;
        record.sql = (!sql.is_empty()).then(|| Sql::Once(sql.into_bytes().into()));
        record.shape = shape.map(Arc::new);
        record.params = params;
        record.done = done;
        record
    }
}

/// How a record without one may end.
fn ends() -> impl Strategy<Value = Option<Completion>> {
    let end = (
        select(Outcome::ALL),
        select(TxnOutcome::ALL),
        prop::option::of(0..30_000u64),
        text(),
        any::<bool>(),
    );
    prop::option::of(end.prop_map(|(outcome, txn_outcome, rows, error, noted)| Completion {
        rows,
        error,
        notes: if noted { vec!["a cast failed".to_owned()] } else { Vec::new() },
        command: "MOVE".into(),
        ..Completion::new(outcome, txn_outcome)
    }))
}

/// Statements of one kind in one session, each with values of its own.
fn burst() -> impl Strategy<Value = Vec<(Record, Option<Completion>)>> {
    let value =
        || prop_oneof![text(), select(&["", "-", "a", "b", "fooBar_x", "ΑΣ.b"][..]).prop_map(str::to_owned)];
    let one = (value(), value(), 0..50u64, 0..100i64, prop::option::weighted(0.9, 0..30_000u64));
    let shape = (text(), select(USERS), 0..3u8);
    (shape, prop::collection::vec(one, 1..12)).prop_map(|((begins, user, kind), all)| {
        let shape = Arc::new(super::support::shape("SELECT", &["public.users"], &[]));
        let who = Arc::new(who(user));
        let each = all.into_iter().map(|(a, b, number, second, rows)| {
            let mut record = statement(0, user, "", Shape::clone(&shape));
            (record.who, record.shape) = (Arc::clone(&who), Some(Arc::clone(&shape)));
            record.time.0 += second * SECOND;
            record.id = uuid::Uuid::from_u128(
                ((record.time.0 / 1_000) as u128) << 80 | 0x7000_8000_0000_0000_0000 | u128::from(number),
            );
            let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
            let sql = match kind {
                0 => format!("{begins} {} from {} limit {number}-{number}", quoted(&a), quoted(&b)),
                1 => format!("{begins} $1{} {number}", quoted(&a)),
                _ => format!("{begins} users"),
            };
            record.sql = Some(Sql::Once(sql.into_bytes().into()));
            record.params = match kind {
                0 => Vec::new(),
                _ => vec![Param::Text(b), Param::Null, Param::Int(i64::try_from(number).unwrap())],
            };
            let ended = Completion { rows, ..Completion::new(Outcome::Ok, TxnOutcome::Committed) };
            (record, Some(ended))
        });
        each.collect()
    })
}

/// Records, among them many that differ in little.
fn traffic() -> impl Strategy<Value = Vec<(Record, Option<Completion>)>> {
    let one = (record(), ends()).prop_map(|one| vec![one]);
    let together = (burst(), burst()).prop_map(|(one, other)| {
        let longer = one.len().max(other.len());
        (0..longer)
            .flat_map(|at| one.get(at).into_iter().chain(other.get(at)).cloned().collect::<Vec<_>>())
            .collect()
    });
    prop::collection::vec(prop_oneof![3 => one, 1 => together], 1..30).prop_map(|all| all.concat())
}

/// All that answers, page by page.
fn pages(search: &Search, text: &str, limit: usize) -> Vec<u64> {
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let page = page(search, text, limit, cursor.as_ref());
        found.extend(seqs(&page.items));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return found;
        }
    }
}

fn commonest(views: &[View], field: Field) -> Vec<(String, u64)> {
    let mut counts = BTreeMap::new();
    for view in views {
        let value = &view.get(field.name()).cloned().unwrap_or_default();
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in values.iter().filter_map(|value| value.as_str()) {
            *counts.entry(value.to_owned()).or_insert(0) += 1;
        }
    }
    let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}

/// How many there are in each of ten times ten seconds.
fn by_time(views: &[View]) -> Vec<u64> {
    let mut counts = vec![0; 10];
    for view in views {
        let at = parse_time(view["time"].as_str().unwrap()).unwrap().0 - NOON.0;
        counts[usize::try_from(at / (10 * SECOND)).unwrap()] += 1;
    }
    counts
}

/// With the order of names, which comparing maps does not look at.
fn ordered(views: Vec<View>) -> Vec<Vec<(String, serde_json::Value)>> {
    views.into_iter().map(|view| view.into_iter().collect()).collect()
}

fn condition() -> impl Strategy<Value = String> {
    let words = || select(WORDS).prop_map(|word| word.replace('\'', ""));
    let cut = |name: String, length: usize| name.chars().take(length.max(1)).collect::<String>();
    prop_oneof![
        words(),
        words().prop_map(|word| format!("{word}*")),
        (
            select(&["", "sql:", "params:", "error:"][..]),
            select(&["e", "er", "us", "r_i", "b", "2", "-b", "oba", "σ", "É", "x.o", "limit 1"][..])
        )
            .prop_map(|(field, part)| format!("{field}*{}*", part.replace(' ', "_"))),
        (words(), words()).prop_map(|(a, b)| format!("\"{a} {b}\"")),
        (words(), words()).prop_map(|(a, b)| format!("\"{a} {b}\"*")),
        (select(&["sql", "params", "error"][..]), text())
            .prop_filter("has words", |(_, text)| text.contains(char::is_alphanumeric))
            .prop_map(|(field, text)| format!("{field}:\"{text}\"")),
        (select(
            &[
                "user", "table", "column", "reads", "filters", "writes", "via", "error", "sql", "params",
                "rows", "ip", "shape"
            ][..]
        ))
        .prop_map(|field| if field == "shape" {
            "analysis:*".to_owned()
        } else {
            format!("{field}:*")
        }),
        select(&["ann", "ann@x.org", "an*", "bob", "x.org", "ann@*"][..])
            .prop_map(|user| format!("user:{user}")),
        (select(TABLES), 1..20usize)
            .prop_map(move |(name, length)| format!("table:{}*", cut(name.to_owned(), length))),
        select(&["users", "public.users", "name.x", "x", "*.users"][..])
            .prop_map(|name| format!("table:{name}")),
        (select(COLUMNS), 1..26usize)
            .prop_map(move |(name, length)| format!("column:{}*", cut(name.to_owned(), length))),
        select(&["email", "users.email", "*.email", "users.*", "public.users.email"][..])
            .prop_map(|name| format!("column:{name}")),
        (select(&["rows", "duration_us", "seq"][..]), select(&[":", ">", ">=", "<", "<="][..]), 0..30_000u64)
            .prop_map(|(field, by, value)| format!("{field}{by}{value}")),
        (0..60u64, 0..60u64).prop_map(|(a, b)| format!("seq:{a}..{b}")),
        (select(&[":", ">", ">=", "<", "<="][..]), 0..59u64)
            .prop_map(|(by, at)| format!("time{by}2026-11-21T12:00:{at:02}Z")),
        select(&["10.0.0.0/8", "10.1.*", "::/0", "10.1.2.3", "::1"][..]).prop_map(|ip| format!("ip:{ip}")),
        select(
            &[
                "outcome:ok,error",
                "event:login.*",
                "is:failed",
                "is:bulk",
                "class:ddl",
                "analysis:exact",
                "txn_outcome:open",
                "command:move",
                "command:*",
                "params:*",
                "analysis:partial",
                "*"
            ][..]
        )
        .prop_map(str::to_owned),
    ]
}

fn queries() -> impl Strategy<Value = String> {
    condition().prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} or {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} OR {b}")),
            inner.prop_map(|a| format!("-{a}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_answers_are_those_of_the_plain_reading_wherever_the_records_are(
        records in traffic(),
        acts in prop::collection::vec(select(&["", "step", "begin", "finish", "commit"][..]), 10),
        together in select(&[7, 64][..]),
        texts in prop::collection::vec(queries(), 60),
        limit in 1..20usize,
    ) {
        let mut place = Place::new();
        let (mut indexer, search) = place.open();
        let mut writing = None;
        let mut running: Vec<Entry> = Vec::new();
        for (some, act) in records.chunks(together).zip(acts.iter().cycle()) {
            let first = place.append(some.iter().map(|(record, _)| started(record)).collect::<Vec<Entry>>());
            let ends = some.iter().zip(first.0..).filter(|((record, _), _)| record.done.is_none());
            running.extend(ends.filter_map(|((_, end), seq)| {
                end.clone().map(|end| Entry::Completion(Completion { seq: Seq(seq), ..end }))
            }));
            let now = running.len().saturating_sub(5);
            place.append(running.drain(..now).collect::<Vec<Entry>>());
            match *act {
                "step" => _ = indexer.step(100).unwrap(),
                "begin" if writing.is_none() => writing = indexer.begin(Part::Ended),
                "finish" => if let Some(writing) = writing.take() {
                    indexer.finish(Writing::run(writing).unwrap()).unwrap();
                },
                "commit" if writing.is_none() => indexer.commit().unwrap(),
                _ => {}
            }
        }
        while !indexer.step(1000).unwrap().caught_up {}
        let views = everything(&search);
        prop_assert_eq!(views.len(), records.len());
        for text in texts {
            let query = Query::parse(&text, NOON);
            prop_assert!(query.is_ok(), "{}: {:?}", text, query);
            let query = query.unwrap();
            let plain: Vec<View> = views.iter().filter(|view| query.matches(view)).cloned().collect();
            prop_assert_eq!(pages(&search, &text, limit), seqs(&plain), "{}", text);
            let found = page(&search, &text, 1, None);
            prop_assert_eq!(found.total, Some(plain.len() as u64), "{}", text);
            let capped = search.page(&query, &Scope::All, &Window::default(), 1, None, Count::Capped).unwrap();
            prop_assert_eq!(capped.total, found.total, "{}", text);
            let facets = search.facets(&query, &Scope::All, &Window::default(), FACETS, 1000).unwrap();
            for facet in facets {
                prop_assert_eq!(facet.values, commonest(&plain, facet.field), "{} by {}", text, facet.field.name());
            }
            let window = Window { from: Some(NOON), to: Some(Timestamp(NOON.0 + 100 * SECOND)) };
            let bars = search.histogram(&query, &Scope::All, &window, 10).unwrap();
            prop_assert_eq!(bars.counts, by_time(&plain), "{}", text);
        }
    }

    #[test]
    fn a_record_comes_back_from_the_index_as_its_merged_view(
        records in prop::collection::vec((record(), 0..3usize), 1..30),
        tags in some(&["pii", "Pci"], 2),
        ends in prop::collection::vec((select(Outcome::ALL), select(TxnOutcome::ALL), prop::option::of(0..30_000u64), text(), any::<bool>()), 30),
        settled in select(&[TxnOutcome::Committed, TxnOutcome::RolledBack][..]),
    ) {
        let mut place = Place::new();
        let (mut indexer, search) = place.open();
        let mut expected = Vec::new();
        let records = records.into_iter().zip(ends).flat_map(|((record, again), end)| vec![(record, end); again + 1]);
        for (mut record, (outcome, txn_outcome, rows, error, noted)) in records {
            if let Some(shape) = record.shape.as_mut().map(Arc::make_mut) {
                shape.tags.clone_from(&tags);
            }
            let notes = if noted { vec!["a cast failed".to_owned()] } else { Vec::new() };
            let sqlstate = if rows.is_none() { "22012".to_owned() } else { String::new() };
            let seq = place.append([started(&record)]);
            let mut end = Completion { rows, error, notes, sqlstate, ..Completion::new(outcome, txn_outcome) };
            end.seq = seq;
            let settlement = Settlement { seqs: vec![seq], txn_outcome: settled };
            let done = record.done.is_some();
            expected.push(merged(&record, seq, (!done).then_some(&end), Some(&settlement)));
            if !done {
                let open = txn_outcome == TxnOutcome::Open;
                place.append([Entry::Completion(end)].into_iter().chain(open.then_some(Entry::Settlement(settlement))));
            }
        }
        expected.reverse();
        while !indexer.step(1000).unwrap().caught_up {}
        prop_assert_eq!(&ordered(everything(&search)), &ordered(expected.clone()));
        indexer.commit().unwrap();
        prop_assert_eq!(ordered(everything(&search)), ordered(expected));
    }

    #[test]
    fn no_text_breaks_the_parser(text in "[ -~éß\"()*:.,<>-]{0,80}", rest in "\\PC{0,40}") {
        for text in [text.clone(), format!("{text}{rest}"), format!("user:{rest}"), format!("time:{text}"), format!("ip:{text}")] {
            if let Err(error) = Query::parse(&text, NOON) {
                prop_assert!(text.get(error.span.clone()).is_some(), "{:?} {:?}", text, error);
            }
        }
    }
}
