//! A journal and an index in one temporary directory, and records to fill them with.

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use uuid::Uuid;

use crate::journal::{self, Journal};
use crate::record::{
    Certainty, Class, Completion, Entry, Event, Outcome, Param, Record, Seq, Settlement, Shape, Sql,
    Timestamp, TxnOutcome, Who,
};
use crate::search::{Count, Cursor, Indexer, Opened, Options, Page, Query, Scope, Search, Window};
use crate::storage::{DirStorage, Storage};
use crate::view::View;

/// 2026-11-21T12:00:00Z.
pub(super) const NOON: Timestamp = Timestamp(1_795_262_400_000_000);
pub(super) const SECOND: i64 = 1_000_000;

pub(super) struct Place {
    root: TempDir,
    pub(super) journal: Journal,
}

impl Place {
    pub(super) fn new() -> Place {
        let root = tempfile::tempdir().unwrap();
        let storage = Arc::new(DirStorage::create(root.path().join("journal")).unwrap());
        let (journal, _) = Journal::open(storage, journal::Options { segment_bytes: 16 << 10 }).unwrap();
        Place { root, journal }
    }

    pub(super) fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(DirStorage::open(self.root.path().join("journal")).unwrap())
    }

    pub(super) fn journal_dir(&self) -> PathBuf {
        self.root.path().join("journal")
    }

    pub(super) fn index_dir(&self) -> PathBuf {
        self.root.path().join("index")
    }

    pub(super) fn append(&mut self, entries: impl IntoIterator<Item = Entry>) -> Seq {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.journal.append(&entries).unwrap().first
    }

    pub(super) fn open(&self) -> (Indexer, Search) {
        Indexer::open(&self.index_dir(), self.storage(), Options { memory_bytes: 0 }).unwrap()
    }

    /// The index, true to the whole journal.
    pub(super) fn caught_up(&self) -> (Indexer, Search, Opened) {
        let (mut indexer, search) = self.open();
        while !indexer.step(1000).unwrap().caught_up {}
        indexer.commit().unwrap();
        let opened = indexer.opened().clone();
        (indexer, search, opened)
    }
}

pub(super) fn query(text: &str) -> Query {
    Query::parse(text, NOON).unwrap_or_else(|error| panic!("{text}: {error} at {:?}", error.span))
}

pub(super) fn page(search: &Search, text: &str, limit: usize, cursor: Option<&Cursor>) -> Page {
    search.page(&query(text), &Scope::All, &Window::default(), limit, cursor, Count::Exact).unwrap()
}

pub(super) fn seqs(views: &[View]) -> Vec<u64> {
    views.iter().map(|view| view["seq"].as_u64().unwrap()).collect()
}

/// Everything in the index, newest first.
pub(super) fn everything(search: &Search) -> Vec<View> {
    let mut views = Vec::new();
    let mut cursor = None;
    loop {
        let page = page(search, "", 1000, cursor.as_ref());
        views.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return views;
        }
    }
}

pub(super) fn who(user: &str) -> Who {
    Who {
        user: user.to_owned(),
        sub: format!("sub-{user}"),
        iss: "https://id.example".to_owned(),
        groups: vec!["staff".to_owned()],
        login: "login-1".to_owned(),
        session: format!("session-{user}"),
        auth: vec![("mode".to_owned(), "device".to_owned())],
        role: "reader".to_owned(),
        db: "shop".to_owned(),
        upstream: "main".to_owned(),
        search_path: "\"$user\", public".to_owned(),
        ip: "10.1.2.3".to_owned(),
        app: "psql".to_owned(),
        device: String::new(),
    }
}

pub(super) fn shape(command: &str, tables: &[&str], reads: &[&str]) -> Shape {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Shape {
        fingerprint: "0123abcd".to_owned(),
        command: command.to_owned(),
        class: vec![if command == "SELECT" { Class::Read } else { Class::Write }],
        tables: own(tables),
        reads: own(reads),
        filters: Vec::new(),
        writes: Vec::new(),
        via: Vec::new(),
        analysis: Certainty::Exact,
        analysis_notes: Vec::new(),
        tags: Vec::new(),
    }
}

/// A running statement.
pub(super) fn statement(number: u64, user: &str, sql: &str, shape: Shape) -> Record {
    Record {
        id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(number)),
        time: Timestamp(NOON.0 + i64::try_from(number).unwrap() * SECOND),
        event: Event::Query,
        who: Arc::new(who(user)),
        sql: Some(Sql::Once(sql.as_bytes().into())),
        shape: Some(Arc::new(shape)),
        params: vec![Param::Int(42), Param::Null],
        detail: String::new(),
        done: None,
    }
}

pub(super) fn started(record: &Record) -> Entry {
    Entry::Record(Box::new(record.clone()))
}

pub(super) fn ended(seq: Seq, txn_outcome: TxnOutcome) -> Entry {
    let mut completion = Completion::new(Outcome::Ok, txn_outcome);
    completion.seq = seq;
    completion.rows = Some(3);
    completion.bytes = 300;
    completion.duration_us = 1_500;
    Entry::Completion(completion)
}

pub(super) fn settled(seqs: Vec<Seq>, txn_outcome: TxnOutcome) -> Entry {
    Entry::Settlement(Settlement { seqs, txn_outcome })
}
