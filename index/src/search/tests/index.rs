//! The index follows the journal: whatever happens in between, it ends up true.

use std::fs;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::support::*;
use crate::record::{Completion, Entry, Outcome, Seq, Shape, Timestamp, TxnOutcome};
use crate::search::{
    Count, Cursor, Field, IndexError, Indexer, Opened, Options, Part, Scope, Search, SearchError, Window,
};
use crate::view::{self, View};

fn simple(number: u64) -> Entry {
    let shape = shape("SELECT", &["public.users"], &["public.users.email"]);
    started(&statement(number, "ann@x.org", "select email from users", shape))
}

#[test]
fn a_record_is_found_at_each_stage_of_its_life_and_never_twice() {
    let mut place = Place::new();
    let seq = place.append([simple(1)]);
    let (mut indexer, search) = place.open();
    let mut look = |place: &mut Place, entry: Option<Entry>| {
        place.append(entry);
        indexer.step(100).unwrap();
        indexer.commit().unwrap();
        let all = everything(&search);
        assert_eq!(all.len(), 1);
        let view = &all[0];
        json!([view["outcome"], view["txn_outcome"], view.get("running"), view["rows"]])
    };
    assert_eq!(look(&mut place, None), json!(["unknown", "open", true, null]));
    assert_eq!(look(&mut place, Some(ended(seq, TxnOutcome::Open))), json!(["ok", "open", null, 3]));
    let end = settled(vec![seq], TxnOutcome::RolledBack);
    assert_eq!(look(&mut place, Some(end)), json!(["ok", "rolled_back", null, 3]));
    assert_eq!(page(&search, "txn_outcome:open", 10, None).total, Some(0));
    assert_eq!(page(&search, "txn_outcome:rolled_back", 10, None).total, Some(1));
}

#[test]
fn an_index_that_is_missing_is_built_from_the_journal() {
    let mut place = Place::new();
    place.append((1..=20).map(simple));
    let (indexer, _, opened) = place.caught_up();
    assert_eq!(opened, Opened::Created);
    drop(indexer);
    fs::remove_dir_all(place.index_dir()).unwrap();
    let (_, search, opened) = place.caught_up();
    assert_eq!(opened, Opened::Created);
    assert_eq!(everything(&search).len(), 20);
}

#[test]
fn an_index_left_in_order_is_taken_up_where_it_was_left() {
    let mut place = Place::new();
    place.append((1..=5).map(simple));
    drop(place.caught_up());
    place.append((6..=7).map(simple));
    let (mut indexer, search) = place.open();
    assert_eq!(indexer.opened(), &Opened::Resumed(Seq(5)));
    assert_eq!(search.newest(), Seq(5));
    let progress = indexer.step(100).unwrap();
    assert_eq!((progress.records, progress.caught_up), (2, true));
    indexer.commit().unwrap();
    assert_eq!(seqs(&everything(&search)), [7, 6, 5, 4, 3, 2, 1]);
}

#[test]
fn a_damaged_index_is_built_again_and_other_files_are_left_alone() {
    for damage in ["meta.json", "store", "version"] {
        let mut place = Place::new();
        place.append((1..=5).map(simple));
        drop(place.caught_up());
        let dir = place.index_dir();
        fs::write(dir.join("mine.txt"), "keep me").unwrap();
        let file = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).find(|path| {
            path.ends_with("meta.json") && damage != "store"
                || path.extension().is_some_and(|end| end == damage)
        });
        let file = file.unwrap();
        let content = fs::read(&file).unwrap();
        match damage {
            "version" => {
                let text = String::from_utf8(content).unwrap();
                assert!(text.contains(r#"\"version\":5"#), "{text}");
                fs::write(&file, text.replace(r#"\"version\":5"#, r#"\"version\":0"#)).unwrap();
            }
            _ => fs::write(&file, &content[..content.len() / 2]).unwrap(),
        }
        let (_, search, opened) = place.caught_up();
        assert!(matches!(opened, Opened::Rebuilt(_)), "{damage}: {opened:?}");
        assert_eq!(everything(&search).len(), 5, "{damage}");
        assert_eq!(fs::read_to_string(dir.join("mine.txt")).unwrap(), "keep me");
    }
}

#[test]
fn an_index_of_another_journal_is_built_again() {
    let mut place = Place::new();
    place.append((1..=5).map(simple));
    drop(place.caught_up());
    let mut other = Place::new();
    other.append((11..=17).map(simple));
    let (mut indexer, search) =
        Indexer::open(&place.index_dir(), other.storage(), Options { memory_bytes: 0 }).unwrap();
    assert!(matches!(indexer.opened(), Opened::Rebuilt(_)), "{:?}", indexer.opened());
    indexer.step(100).unwrap();
    indexer.commit().unwrap();
    assert_eq!(everything(&search).len(), 7);
}

#[test]
fn an_index_of_other_fields_is_built_again() {
    let mut place = Place::new();
    place.append((1..=5).map(simple));
    fs::create_dir_all(place.index_dir()).unwrap();
    let mut schema = tantivy::schema::Schema::builder();
    schema.add_u64_field("seq", tantivy::schema::FAST);
    drop(tantivy::Index::create_in_dir(place.index_dir(), schema.build()).unwrap());
    let (_, search, opened) = place.caught_up();
    assert!(matches!(opened, Opened::Rebuilt(_)), "{opened:?}");
    assert_eq!(everything(&search).len(), 5);
}

/// A statement with one literal in its text, that ended at once.
fn one_of_many(number: u64, user: &str, literal: &str) -> [Entry; 2] {
    let shape = shape("SELECT", &["public.users"], &[]);
    let sql = format!("select email from users where name = '{literal}'");
    let mut record = statement(number, user, &sql, shape);
    record.id = uuid::Uuid::from_u128(
        u128::try_from(record.time.0 / 1_000).unwrap() << 80
            | 0x7000_8000_0000_0000_0000
            | u128::from(number),
    );
    [started(&record), ended(Seq(number), TxnOutcome::Committed)]
}

#[test]
fn statements_of_one_kind_are_one_document_and_answer_each_for_itself() {
    let mut place = Place::new();
    let user = |number: u64| if number.is_multiple_of(2) { "ann@x.org" } else { "bob@x.org" };
    let literal = |number: u64| match number {
        10 => "a".to_owned(),
        12 => "b".to_owned(),
        13 => "a b".to_owned(),
        number => format!("name{number}"),
    };
    place.append((1..=100).flat_map(|number| one_of_many(number, user(number), &literal(number))));
    let (_indexer, search, _) = place.caught_up();
    let documents = search.moment().searcher.num_docs();
    assert!(documents < 20, "{documents}");
    let find = |text: &str| {
        let found = page(&search, text, 100, None);
        assert_eq!(found.total, Some(found.items.len() as u64), "{text}");
        seqs(&found.items)
    };
    assert_eq!(find("a"), [13, 10]);
    assert_eq!(find("b"), [13, 12]);
    assert_eq!(find("a b"), [13]);
    assert_eq!(find("sql:\"a b\""), [13]);
    assert_eq!(find("a -b"), [10]);
    assert_eq!(find("name5*"), [59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 5]);
    assert_eq!(find("user:ann seq:3..8"), [8, 6, 4]);
    assert_eq!(find("sql:*me10*"), [100]);
    assert_eq!(find("-*me*"), [0_u64; 0]);
    let tenth = search.get_seq(Seq(10), &Scope::All).unwrap().unwrap();
    assert_eq!(tenth["sql"], "select email from users where name = 'a'");
    let id = tenth["id"].as_str().unwrap();
    assert_eq!(search.get(id.parse().unwrap(), &Scope::All).unwrap().unwrap(), tenth);
    assert_eq!(find(&format!("id:{id}")), [10]);
    assert_eq!(find(&format!("id:{}*", &id[..13])), [10]);
}

#[test]
fn of_a_record_that_the_journal_has_lost_what_is_left_is_shown() {
    let mut place = Place::new();
    for round in 0..40 {
        place.append((1..=10).flat_map(|number| {
            let number = round * 10 + number;
            one_of_many(number, "ann@x.org", &format!("name{number} {}", "x".repeat(500)))
        }));
    }
    let (indexer, search, _) = place.caught_up();
    assert!(search.get_seq(Seq(1), &Scope::All).unwrap().unwrap().contains_key("sql"));
    drop((indexer, search));
    let first = fs::read_dir(place.journal_dir()).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    fs::remove_file(first).unwrap();
    let (_indexer, search) = place.open();
    let lost = search.get_seq(Seq(1), &Scope::All).unwrap().unwrap();
    assert_eq!((&lost["seq"], &lost["outcome"], &lost["rows"]), (&json!(1), &json!("ok"), &json!(3)));
    assert_eq!(lost["detail"], "the record is not in the journal any more");
    let all = everything(&search);
    assert_eq!(seqs(&all), (1..=400).rev().collect::<Vec<_>>());
    assert!(all[0].contains_key("sql"));
}

#[test]
fn two_writers_are_refused() {
    let mut place = Place::new();
    place.append([simple(1)]);
    let (_indexer, ..) = place.caught_up();
    let second = Indexer::open(&place.index_dir(), place.storage(), Options::default());
    assert!(matches!(second, Err(IndexError::Locked(_))));
}

#[test]
fn a_transaction_of_many_statements_is_settled_across_commits() {
    let mut place = Place::new();
    let mut all = Vec::new();
    let (mut indexer, search) = place.open();
    for round in 0..4 {
        let first = place.append((1..=250).map(|number| simple(round * 250 + number)));
        let these: Vec<Seq> = (first.0..first.0 + 250).map(Seq).collect();
        place.append(these.iter().map(|seq| ended(*seq, TxnOutcome::Open)));
        all.extend(these);
        indexer.step(10_000).unwrap();
        indexer.commit().unwrap();
    }
    assert_eq!(page(&search, "txn_outcome:open", 1, None).total, Some(1000));
    place.append([settled(all, TxnOutcome::Committed)]);
    indexer.step(10_000).unwrap();
    indexer.commit().unwrap();
    assert_eq!(page(&search, "txn_outcome:committed", 1, None).total, Some(1000));
    assert_eq!(page(&search, "", 1, None).total, Some(1000));
}

#[test]
fn pages_follow_each_other_without_gap_or_double_while_records_arrive() {
    let mut place = Place::new();
    place.append((1..=25).map(simple));
    let (mut indexer, search, _) = place.caught_up();
    let first = page(&search, "user:ann", 10, None);
    assert_eq!(seqs(&first.items), (16..=25).rev().collect::<Vec<_>>());
    assert_eq!((first.total, first.indexed_seq), (Some(25), Seq(25)));
    place.append((26..=30).map(simple));
    indexer.step(100).unwrap();
    indexer.commit().unwrap();
    let cursor: Cursor = first.next_cursor.unwrap().to_string().parse().unwrap();
    let second = page(&search, "user:ann", 10, Some(&cursor));
    assert_eq!(seqs(&second.items), (6..=15).rev().collect::<Vec<_>>());
    let last = page(&search, "user:ann", 10, second.next_cursor.as_ref());
    assert_eq!((seqs(&last.items), last.next_cursor), ((1..=5).rev().collect(), None));
    let scope = Scope::All;
    let other = search.page(&query("user:bob"), &scope, &Window::default(), 10, Some(&cursor), Count::None);
    assert!(matches!(other, Err(SearchError::OtherCursor)));
    for bad in [
        "",
        "zz",
        "+00000000000000100000000000000ff",
        "00000000000000100000000000000f",
        "é0000000000000100000000000000ff",
    ] {
        assert!(bad.parse::<Cursor>().is_err(), "{bad}");
    }
}

#[test]
fn a_scope_hides_the_records_of_others_from_every_answer() {
    let mut place = Place::new();
    let of = |number, user: &str| {
        started(&statement(number, user, "select 1", shape("SELECT", &["public.users"], &[])))
    };
    place.append([of(1, "ann@x.org"), of(2, "bob@x.org"), of(3, "ann@x.org"), of(4, "ANN@x.org")]);
    let (_indexer, search, _) = place.caught_up();
    let own = |sub: &str| Scope::Own { iss: "https://id.example".to_owned(), sub: sub.to_owned() };
    let ann = own("sub-ann@x.org");
    let all = Window::default();
    for text in ["", "user:bob or user:ann", "-user:ann", "seq:2 or seq:4 or seq:1"] {
        let page = search.page(&query(text), &ann, &all, 10, None, Count::Exact).unwrap();
        assert!(page.items.iter().all(|view| view["sub"] == "sub-ann@x.org"), "{text}");
        assert_eq!(page.total, Some(page.items.len() as u64), "{text}");
    }
    let bobs = everything(&search)[2]["id"].as_str().unwrap().parse().unwrap();
    assert!(search.get(bobs, &Scope::All).unwrap().is_some());
    assert!(search.get(bobs, &ann).unwrap().is_none());
    assert!(search.get_seq(Seq(2), &ann).unwrap().is_none());
    assert_eq!(search.get_seq(Seq(3), &ann).unwrap().unwrap()["seq"], 3);
    let facets = search.facets(&query(""), &ann, &all, &[Field::User], 10).unwrap();
    assert_eq!(facets[0].values, [("ann@x.org".to_owned(), 2)]);
    assert_eq!(search.histogram(&query(""), &ann, &all, 1).unwrap().counts, [2]);
    for nobody in
        [own(""), own("sub-ann@x.or"), Scope::Own { iss: String::new(), sub: "sub-ann@x.org".to_owned() }]
    {
        let page = search.page(&query(""), &nobody, &all, 10, None, Count::Exact).unwrap();
        assert_eq!(page.total, Some(0));
    }
}

#[test]
fn histograms_and_facets_count_what_matches() {
    let mut place = Place::new();
    place.append((1..=10).map(simple));
    let update = shape("UPDATE", &["public.orders", "public.users"], &[]);
    place.append([started(&statement(11, "Bob@x.org", "update orders", update))]);
    let (_indexer, search, _) = place.caught_up();
    let window = Window { from: Some(NOON), to: Some(Timestamp(NOON.0 + 12 * SECOND)) };
    let bars = search.histogram(&query(""), &Scope::All, &window, 4).unwrap();
    assert_eq!((bars.step_us, bars.counts), (3_000_000, vec![2, 3, 3, 3]));
    let open = search.histogram(&query("user:ann"), &Scope::All, &Window::default(), 3).unwrap();
    assert_eq!((open.from.0, open.counts.iter().sum::<u64>()), (NOON.0 + SECOND, 10));
    let none = search.histogram(&query("user:carl"), &Scope::All, &Window::default(), 3).unwrap();
    assert_eq!(none.counts.iter().sum::<u64>(), 0);
    let fields = [Field::Tables, Field::User, Field::Command];
    let facets = search.facets(&query(""), &Scope::All, &Window::default(), &fields, 1).unwrap();
    let values: Vec<_> = facets.iter().map(|facet| (facet.values[0].0.as_str(), facet.values[0].1)).collect();
    assert_eq!(values, [("public.users", 11), ("ann@x.org", 10), ("SELECT", 10)]);
    let refused = search.facets(&query(""), &Scope::All, &Window::default(), &[Field::Sql], 1);
    assert!(matches!(refused, Err(SearchError::NoFacet(Field::Sql))));
    let before = Window { from: None, to: Some(Timestamp(NOON.0 + 3 * SECOND)) };
    let page = search.page(&query(""), &Scope::All, &before, 10, None, Count::Capped).unwrap();
    assert_eq!((seqs(&page.items), page.total, page.total_is_capped), (vec![2, 1], Some(2), false));
}

/// What happens to a journal and its index.
#[derive(Debug, Clone)]
enum Act {
    Start(usize),
    End(usize, bool),
    Settle(usize),
    Step(usize),
    Commit,
    /// Begins to write what has ended.
    Begin,
    /// Ends what was begun.
    Finish,
    /// Reads to the end and looks at everything.
    Look,
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1..6usize).prop_map(Act::Start),
        4 => (0..50usize, any::<bool>()).prop_map(|(which, open)| Act::End(which, open)),
        2 => (1..9usize).prop_map(Act::Settle),
        3 => (1..9usize).prop_map(Act::Step),
        2 => Just(Act::Commit),
        2 => Just(Act::Begin),
        2 => Just(Act::Finish),
        2 => Just(Act::Look),
        1 => Just(Act::Crash),
    ]
}

/// What the index must say in the end.
#[derive(Default)]
struct Model {
    views: Vec<View>,
    running: Vec<usize>,
    open: Vec<usize>,
}

impl Model {
    fn apply(&mut self, place: &mut Place, act: &Act) {
        match act {
            Act::Start(count) => {
                let first = self.views.len() as u64 + 1;
                let shape = shape("SELECT", &["public.users"], &[]);
                let records = (first..first + *count as u64)
                    .map(|number| statement(number, "ann@x.org", "select 1", shape.clone()));
                let records: Vec<_> = records.collect();
                place.append(records.iter().map(started));
                for record in &records {
                    self.running.push(self.views.len());
                    self.views.push(view::started(record, Seq(self.views.len() as u64 + 1)));
                }
            }
            Act::End(which, open) if !self.running.is_empty() => {
                let index = self.running.remove(which % self.running.len());
                let txn = if *open { TxnOutcome::Open } else { TxnOutcome::Committed };
                let entry = ended(Seq(index as u64 + 1), txn);
                let Entry::Completion(completion) = &entry else { unreachable!() };
                view::complete(&mut self.views[index], completion);
                self.open.extend(open.then_some(index));
                place.append([entry]);
            }
            Act::Settle(count) if !self.open.is_empty() => {
                let mut these: Vec<usize> = self.open.drain(..(*count).min(self.open.len())).collect();
                these.sort_unstable();
                these.iter().for_each(|index| view::settle(&mut self.views[*index], TxnOutcome::RolledBack));
                let seqs = these.iter().map(|index| Seq(*index as u64 + 1)).collect();
                place.append([settled(seqs, TxnOutcome::RolledBack)]);
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_index_killed_at_any_moment_ends_up_true_to_the_journal(acts in prop::collection::vec(act(), 1..60)) {
        let mut place = Place::new();
        let mut model = Model::default();
        let (mut indexer, mut search) = place.open();
        let mut writing = None;
        for act in &acts {
            model.apply(&mut place, act);
            match act {
                Act::Step(records) => { indexer.step(*records).unwrap(); }
                Act::Commit if writing.is_none() => indexer.commit().unwrap(),
                Act::Begin if writing.is_none() => writing = indexer.begin(Part::Ended),
                Act::Finish => {
                    if let Some(writing) = writing.take() {
                        indexer.finish(writing.run().unwrap()).unwrap();
                    }
                }
                Act::Look => {
                    while !indexer.step(1000).unwrap().caught_up {}
                    prop_assert_eq!(&oldest_first(&search), &model.views);
                }
                Act::Crash => {
                    drop((indexer, writing.take()));
                    (indexer, search) = place.open();
                    prop_assert!(!matches!(indexer.opened(), Opened::Rebuilt(_)));
                }
                _ => {}
            }
        }
        drop((indexer, writing));
        let (_indexer, search, opened) = place.caught_up();
        prop_assert!(!matches!(opened, Opened::Rebuilt(_)));
        prop_assert_eq!(oldest_first(&search), model.views);
    }
}

fn oldest_first(search: &Search) -> Vec<View> {
    everything(search).into_iter().rev().collect()
}

#[test]
fn a_record_is_found_before_anything_is_written_and_once_while_it_is() {
    let mut place = Place::new();
    let (mut indexer, search) = place.open();
    let look = |total: u64| {
        assert_eq!(page(&search, "email user:ann table:users", 10, None).total, Some(total));
        assert_eq!(everything(&search).len() as u64, total);
        let facets = search.facets(&query(""), &Scope::All, &Window::default(), &[Field::User], 1).unwrap();
        assert_eq!(facets[0].values, [("ann@x.org".to_owned(), total)]);
        let bars = search.histogram(&query(""), &Scope::All, &Window::default(), 3).unwrap();
        assert_eq!(bars.counts.iter().sum::<u64>(), total);
    };
    let first = place.append((1..=5).map(simple));
    indexer.step(100).unwrap();
    look(5);
    assert!(indexer.begin(Part::Ended).is_none(), "none has ended");
    place.append([ended(first, TxnOutcome::Open), ended(Seq(2), TxnOutcome::Committed)]);
    indexer.step(100).unwrap();
    assert!(indexer.begin(Part::Ended).is_none(), "the first is still in its transaction");
    place.append([settled(vec![first], TxnOutcome::Committed)]);
    indexer.step(100).unwrap();
    let writing = indexer.begin(Part::Ended).unwrap();
    assert!(indexer.begin(Part::All).is_none(), "one at a time");
    place.append((6..=7).map(simple).chain([ended(Seq(3), TxnOutcome::Committed)]));
    indexer.step(100).unwrap();
    look(7);
    let written = writing.run().unwrap();
    look(7);
    indexer.finish(written).unwrap();
    look(7);
    drop(indexer);
    let (indexer, search, opened) = place.caught_up();
    assert_eq!(opened, Opened::Resumed(Seq(2)));
    assert_eq!(seqs(&everything(&search)), [7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(page(&search, "txn_outcome:committed", 10, None).total, Some(3));
    drop(indexer);
}

#[test]
fn a_record_that_stays_open_for_long_is_replaced_where_it_was() {
    let mut place = Place::new();
    let (mut indexer, search) = place.open();
    place.append((1..=9).map(simple));
    indexer.step(100).unwrap();
    indexer.commit().unwrap();
    for seq in [7, 2] {
        place.append([ended(Seq(seq), TxnOutcome::Committed), simple(20 + seq)]);
        indexer.step(100).unwrap();
        assert_eq!(page(&search, "rows:3", 10, None).items[0]["seq"], 7);
        indexer.commit().unwrap();
    }
    assert_eq!(seqs(&everything(&search)), (1..=11).rev().collect::<Vec<_>>());
    let first = page(&search, "rows:3", 1, None);
    assert_eq!((seqs(&first.items), first.total), (vec![7], Some(2)));
    let second = page(&search, "rows:3", 1, first.next_cursor.as_ref());
    assert_eq!((seqs(&second.items), second.next_cursor), (vec![2], None));
}

#[test]
fn a_cursor_counts_what_was_there_at_the_first_page() {
    let mut place = Place::new();
    place.append((1..=5).map(simple));
    let (mut indexer, search, _) = place.caught_up();
    let first = page(&search, "user:ann", 2, None);
    place.append((6..=9).map(simple));
    indexer.step(100).unwrap();
    let second = page(&search, "user:ann", 2, first.next_cursor.as_ref());
    assert_eq!((seqs(&second.items), second.total), (vec![3, 2], Some(5)));
    assert_eq!(page(&search, "user:ann", 2, None).total, Some(9));
}

#[test]
fn small_commits_are_joined_and_the_order_stays() {
    let mut place = Place::new();
    let (mut indexer, search) = place.open();
    for round in 0..40 {
        let seq = place.append((1..=3).map(|number| simple(round * 3 + number)));
        // Some end at once, some four commits later.
        let end = if round % 2 == 0 { seq.0 } else { seq.0.saturating_sub(11) };
        place.append((end > 0).then(|| ended(Seq(end), TxnOutcome::Committed)));
        indexer.step(100).unwrap();
        indexer.commit().unwrap();
    }
    assert_eq!(seqs(&everything(&search)), (1..=120).rev().collect::<Vec<_>>());
}

#[test]
fn the_indexer_may_live_on_its_own_thread_and_the_search_on_all() {
    fn send<T: Send + 'static>() {}
    fn share<T: Clone + Send + Sync + 'static>() {}
    send::<Indexer>();
    share::<crate::search::Search>();
}

#[test]
fn who_holds_the_search_sees_what_is_found_after_the_index_was_opened_again() {
    let mut place = Place::new();
    place.append((1..=5).map(simple));
    let (indexer, search, _) = place.caught_up();
    drop(indexer);
    fs::remove_dir_all(place.index_dir()).unwrap();
    place.append((6..=7).map(simple));
    let mut indexer =
        Indexer::reopen(&place.index_dir(), place.storage(), Options::default(), &search).unwrap();
    while !indexer.step(100).unwrap().caught_up {}
    indexer.commit().unwrap();
    assert_eq!(seqs(&everything(&search)), [7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(search.newest(), Seq(7));
}

#[test]
fn the_beginning_of_a_name_before_its_first_letter_is_found_in_values_too() {
    let mut place = Place::new();
    let (mut indexer, search) = place.open();
    let shape = Arc::new(shape("SELECT", &["public.users"], &[]));
    let mut ends = Vec::new();
    for (number, value) in (0..).zip(["__.public.users", "a__b", "x.__", "-"]) {
        let sql = format!("select '{value}' from users");
        let mut record = statement(number, "ann@x.org", &sql, Shape::clone(&shape));
        record.shape = Some(Arc::clone(&shape));
        let seq = place.append([Entry::Record(Box::new(record))]);
        ends.push(Entry::Completion(Completion {
            seq,
            ..Completion::new(Outcome::Ok, TxnOutcome::Committed)
        }));
    }
    place.append(ends);
    while !indexer.step(1000).unwrap().caught_up {}
    let found = || {
        ["__*", "sql:__*", "__", "sql:__.p*", "-__*"].map(|text| seqs(&page(&search, text, 10, None).items))
    };
    let expected = [vec![1], vec![1], vec![], vec![1], vec![4, 3, 2]];
    assert_eq!(found(), expected, "from memory");
    indexer.commit().unwrap();
    assert_eq!(found(), expected, "from the index");
}

#[test]
fn a_question_that_would_read_too_many_records_says_so_and_gives_no_total() {
    let mut place = Place::new();
    place.append((0..100).map(|number| {
        let sql = format!("select '{number}@x.org a b' from users");
        started(&statement(number, "ann@x.org", &sql, shape("SELECT", &["public.users"], &[])))
    }));
    let (mut indexer, search) = place.open();
    while !indexer.step(1000).unwrap().caught_up {}
    indexer.commit().unwrap();
    let ask = |search: &Search, text: &str| {
        search.page(&query(text), &Scope::All, &Window::default(), 100, None, Count::Exact).unwrap()
    };
    for text in ["sql:*x.or*", "sql:*x.or* user:ann", "params:*x.or* OR error:*y.or* OR sql:*x.or*"] {
        let whole = ask(&search, text);
        assert_eq!((whole.stopped, whole.total), (false, Some(whole.items.len() as u64)), "{text}");
        let few = search.reading_at_most(200);
        let some = ask(&few, text);
        assert!(some.stopped && some.total.is_none() && some.items.len() < 100, "{text}: {:?}", some.total);
        let facets = few.facets(&query(text), &Scope::All, &Window::default(), &[Field::User], 10);
        assert!(matches!(facets, Err(SearchError::TooMany)), "{text}");
    }
    let plain = ask(&search.reading_at_most(0), "user:ann@x.org sql:select");
    assert_eq!((plain.stopped, plain.total), (false, Some(100)));
}
