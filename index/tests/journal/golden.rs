//! Journals of every format that was ever released are still read.

use std::path::PathBuf;
use std::sync::Arc;

use pgwitness_index::journal::{Head, Options};
use pgwitness_index::proof::verify;
use pgwitness_index::record::{Completion, Entry, Outcome, Param, Record, Seq, Sql, Timestamp, TxnOutcome};
use pgwitness_index::storage::{DirStorage, FaultyMemory};

use crate::records::*;

/// Set it to write the files anew, when a format is added.
const BLESS: &str = "PGWITNESS_BLESS";

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

#[test]
fn a_journal_of_version_1_is_read_and_verified() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/journal/v1");
    if std::env::var_os(BLESS).is_some() {
        let memory = FaultyMemory::new();
        let mut journal = open(&memory, Options { segment_bytes: 1000 }).unwrap().0;
        for batch in batches() {
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
    let storage = Arc::new(DirStorage::open(&dir).unwrap());
    let frames = frames_of(storage.clone(), None).unwrap();
    let entries: Vec<_> = frames.into_iter().flat_map(|frame| frame.entries).collect();
    assert_eq!(entries, numbered(&batches()));
    let head: Head = serde_json::from_slice(&std::fs::read(dir.join("head.json")).unwrap()).unwrap();
    assert_eq!((head.seq, head.time), (Seq(6), Some(Timestamp(1_795_000_000_000_006))));
    let report = verify(&*storage, None, Some(head)).unwrap();
    assert!(report.intact && report.clean_end && report.segments == 2, "{report}");
    assert_eq!((report.records, report.open, report.unsettled), (6, 2, 0));
}
