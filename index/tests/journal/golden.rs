//! Journals of every format that was ever released are still read.

use std::sync::Arc;

use pgwitness_index::journal::{Head, Options};
use pgwitness_index::proof::verify;
use pgwitness_index::record::{Completion, Entry, Outcome, Param, Record, Seq, Sql, TxnOutcome};
use pgwitness_index::storage::FaultyMemory;

use crate::records::*;

/// Set it to write the files anew, when a format is added.
const BLESS: &str = "PGWITNESS_BLESS";

/// What only version 2 keeps apart: templates, ids of their time, compressed frames.
fn batches_of_version_2() -> Vec<Vec<Entry>> {
    let (who, shape) = (Arc::new(who()), Arc::new(shape()));
    let record = |number: u64, text: String| {
        let Entry::Record(record) = over(number, TxnOutcome::Committed) else { unreachable!("made above") };
        let id = uuid::Builder::from_unix_timestamp_millis(record.time.0 as u64 / 1000, &[7; 10]).into_uuid();
        let (who, shape) = (Arc::clone(&who), Some(Arc::clone(&shape)));
        Entry::Record(Box::new(Record {
            id,
            who,
            shape,
            sql: Some(Sql::Once(text.into_bytes().into())),
            ..*record
        }))
    };
    let text =
        |number: u64| format!("select 'it''s {number}', 1.50, 007 from t2 where id = {number} -- \u{fc}");
    let long = (0..40).map(|number| record(60 + number, format!("{} and a{number}", text(number)))).collect();
    vec![(10..20).map(|number| record(number, text(number))).collect(), vec![record(50, text(50))], long]
}

fn batches() -> Vec<Vec<Entry>> {
    let (who, shape, text) =
        (Arc::new(who()), Arc::new(shape()), Arc::from(&b"select email from customers"[..]));
    let full = |number: u64, done: Option<Completion>| {
        let Entry::Record(record) = started(number) else { unreachable!("made above") };
        let params = vec![
            Param::Null,
            Param::Bool(true),
            Param::Bool(false),
            Param::Int(i64::MIN),
            Param::Float(-0.5),
            Param::Text("grün".into()),
            Param::Bytes(vec![0, 255]),
        ];
        let (who, shape, sql) =
            (Arc::clone(&who), Some(Arc::clone(&shape)), Some(Sql::Shared(Arc::clone(&text))));
        Entry::Record(Box::new(Record { who, shape, sql, params, detail: "s1".into(), done, ..*record }))
    };
    let end = Completion {
        command: "SELECT".into(),
        rows: Some(3),
        bytes: 300,
        duration_us: 1500,
        sqlstate: "22012".into(),
        error: "division by zero".into(),
        notes: vec!["a row said so".into()],
        ..Completion::new(Outcome::Error, TxnOutcome::Open)
    };
    vec![
        vec![full(1, None), full(2, Some(end.clone())), started(3)],
        vec![Entry::Completion(Completion { seq: Seq(1), ..end }), over(4, TxnOutcome::None)],
        vec![settled(&[1, 2], TxnOutcome::RolledBack), full(5, None), full(6, None)],
        vec![ended(6, TxnOutcome::Committed)],
    ]
}

/// Writes the files of the newest version anew, if asked to.
fn bless(version: &str) {
    if std::env::var_os(BLESS).is_none() {
        return;
    }
    let dir = folder(version);
    let memory = FaultyMemory::new();
    let mut journal = open(&memory, Options { segment_bytes: 1800 }).unwrap().0;
    for batch in [batches(), batches_of_version_2()].concat() {
        journal.append(&batch).unwrap();
        journal.sync_task().run().unwrap();
    }
    let head = serde_json::to_string_pretty(&journal.head()).unwrap();
    journal.close().unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("head.json"), head + "\n").unwrap();
    for name in segment_files(&memory) {
        std::fs::write(dir.join(&name), memory.content(&name).unwrap()).unwrap();
    }
}

/// The end of the journal as it was before it was closed.
fn head(version: &str) -> Head {
    serde_json::from_slice(&std::fs::read(folder(version).join("head.json")).unwrap()).unwrap()
}

fn check(version: &str, batches: &[Vec<Entry>], segments: u64) {
    let storage = Arc::new(released(version));
    let frames = frames_of(storage.clone(), None).unwrap();
    assert!(frames.iter().all(|frame| frame.salt.is_some() == (version != "v1")));
    let entries: Vec<_> = frames.into_iter().flat_map(|frame| frame.entries).collect();
    assert_eq!(entries, numbered(batches));
    let head: Head =
        serde_json::from_slice(&std::fs::read(folder(version).join("head.json")).unwrap()).unwrap();
    let last = numbered(batches).iter().filter_map(|(seq, _)| *seq).next_back().unwrap();
    assert_eq!(head.seq, last);
    let report = verify(&*storage, None, Some(head)).unwrap();
    assert!(report.intact && report.clean_end && report.segments == segments, "{report}");
    assert_eq!((report.records, report.open, report.unsettled), (last.0, 2, 0));
}

#[test]
fn a_journal_of_version_1_is_read_and_verified() {
    check("v1", &batches(), 2);
}

#[test]
fn a_journal_of_version_2_is_read_and_verified() {
    bless("v2");
    check("v2", &[batches(), batches_of_version_2()].concat(), 2);
}

#[test]
fn a_journal_of_version_1_is_gone_on_with_in_a_segment_of_the_newest_version() {
    let storage = released("v1");
    let head = head("v1");
    let (mut journal, recovery) = open(&storage, Options::default()).unwrap();
    assert_eq!((recovery.next_seq, recovery.open, recovery.clean), (Seq(7), vec![Seq(3), Seq(5)], true));
    let more = vec![ended(3, TxnOutcome::None), over(9, TxnOutcome::None)];
    journal.append(&more).unwrap();
    journal.close().unwrap();
    assert_eq!(read_all(&storage), numbered(&[batches(), vec![more]].concat()));
    let names = segment_files(&storage);
    assert_eq!((names.len(), storage.content(&names[2]).unwrap()[8]), (3, 2));
    let report = verify(&storage, None, Some(head)).unwrap();
    assert!(report.intact && report.clean_end && report.records == 7, "{report}");
}
