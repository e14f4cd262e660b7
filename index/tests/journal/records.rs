//! Entries for tests, and small steps that many tests repeat.

use std::path::PathBuf;
use std::sync::Arc;

use pgwitness_index::journal::{Journal, JournalError, Options, Position, ReadFrame, Reader, Recovery};
use pgwitness_index::record::{
    Certainty, Class, Completion, Entry, Event, Outcome, Param, Record, Seq, Settlement, Shape, Sql,
    Timestamp, TxnOutcome, Who,
};
use pgwitness_index::storage::{FaultyMemory, Storage};
use uuid::Uuid;

/// A record whose end is promised.
pub(crate) fn started(number: u64) -> Entry {
    Entry::Record(Box::new(Record {
        id: Uuid::from_u128(u128::from(number)),
        time: Timestamp(1_795_000_000_000_000 + number as i64),
        event: Event::Query,
        who: Arc::new(Who { user: "ada@example.org".into(), db: "shop".into(), ..Who::default() }),
        sql: Some(Sql::Once(format!("select {number}").into_bytes().into())),
        shape: None,
        params: vec![Param::Int(number as i64), Param::Null],
        detail: String::new(),
        done: None,
    }))
}

/// A record that is over at once.
pub(crate) fn over(number: u64, txn: TxnOutcome) -> Entry {
    let Entry::Record(mut record) = started(number) else { unreachable!("made above") };
    record.done = Some(Completion::new(Outcome::Ok, txn));
    Entry::Record(record)
}

pub(crate) fn ended(seq: u64, txn: TxnOutcome) -> Entry {
    Entry::Completion(Completion { seq: Seq(seq), rows: Some(3), ..Completion::new(Outcome::Ok, txn) })
}

pub(crate) fn settled(seqs: &[u64], txn_outcome: TxnOutcome) -> Entry {
    Entry::Settlement(Settlement { seqs: seqs.iter().copied().map(Seq).collect(), txn_outcome })
}

pub(crate) fn shape() -> Shape {
    Shape {
        fingerprint: "00ff".into(),
        command: "SELECT".into(),
        class: vec![Class::Read, Class::Function],
        tables: vec!["public.customers".into()],
        reads: vec!["public.customers.email".into(), "public.customers.id".into()],
        filters: vec!["public.customers.id".into()],
        writes: vec![],
        via: vec!["public.contacts".into()],
        analysis: Certainty::Partial,
        analysis_notes: vec!["a function's body was not read".into()],
        tags: vec!["pii".into()],
    }
}

pub(crate) fn who() -> Who {
    Who {
        user: "ada@example.org".into(),
        sub: "7".into(),
        iss: "https://issuer.example.org".into(),
        groups: vec!["dev".into(), "späti".into()],
        login: "l-1".into(),
        session: "s-1".into(),
        auth: vec![("mode".into(), "device".into()), ("acr".into(), String::new())],
        role: "reader".into(),
        db: "shop".into(),
        upstream: "main".into(),
        search_path: "public".into(),
        ip: "127.0.0.1".into(),
        app: "psql\n".into(),
        device: "d-1".into(),
    }
}

pub(crate) fn small_segments() -> Options {
    Options { segment_bytes: 600 }
}

pub(crate) fn open(storage: &FaultyMemory, options: Options) -> Result<(Journal, Recovery), JournalError> {
    Journal::open(Arc::new(storage.clone()), options)
}

pub(crate) fn frames_of(
    storage: Arc<dyn Storage>,
    from: Option<Position>,
) -> Result<Vec<ReadFrame>, JournalError> {
    let mut reader = Reader::open(storage, from)?;
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame()? {
        frames.push(frame);
    }
    Ok(frames)
}

pub(crate) fn read_all(storage: &FaultyMemory) -> Vec<(Option<Seq>, Entry)> {
    let frames = frames_of(Arc::new(storage.clone()), None).unwrap();
    frames.into_iter().flat_map(|frame| frame.entries).collect()
}

/// The entries of a journal in which `batches` were appended.
pub(crate) fn numbered(batches: &[Vec<Entry>]) -> Vec<(Option<Seq>, Entry)> {
    let mut next = 1;
    let number = |entry: &Entry| {
        let seq = matches!(entry, Entry::Record(_)).then_some(Seq(next));
        next += u64::from(seq.is_some());
        (seq, entry.clone())
    };
    batches.iter().flatten().map(number).collect()
}

/// Names of the segment files.
pub(crate) fn segment_files(storage: &FaultyMemory) -> Vec<String> {
    storage.list().unwrap().into_iter().filter(|name| name.ends_with(".journal")).collect()
}

/// The folder of a journal as a released version wrote it.
pub(crate) fn folder(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/journal").join(version)
}

/// That journal, in memory.
pub(crate) fn released(version: &str) -> FaultyMemory {
    let memory = FaultyMemory::new();
    for item in std::fs::read_dir(folder(version)).unwrap() {
        let path = item.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "journal") {
            memory.tamper(path.file_name().unwrap().to_str().unwrap(), std::fs::read(&path).unwrap());
        }
    }
    memory
}
