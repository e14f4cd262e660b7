//! What was appended is read back, whatever it is and wherever one begins.

use std::sync::Arc;

use pgwitness_index::journal::{Journal, JournalError, Options, Reader};
use pgwitness_index::record::{
    Certainty, Class, Completion, Entry, Event, Outcome, Param, Record, Seq, Shape, Sql, Timestamp,
    TxnOutcome, Who,
};
use pgwitness_index::storage::{DirStorage, FaultyMemory};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

use crate::records::*;

#[test]
fn entries_come_back_in_order_with_contiguous_numbers() {
    let storage = FaultyMemory::new();
    let (mut journal, recovery) = open(&storage, Options::default()).unwrap();
    assert_eq!((recovery.next_seq, recovery.clean), (Seq(1), true));
    let batches = vec![
        vec![started(1), over(2, TxnOutcome::None), started(3)],
        vec![ended(1, TxnOutcome::Open), started(4)],
        vec![settled(&[1], TxnOutcome::Committed), ended(3, TxnOutcome::Committed)],
    ];
    for (index, batch) in batches.iter().enumerate() {
        let appended = journal.append(batch).unwrap();
        assert_eq!(appended.first, Seq([1, 4, 5][index]));
        assert_eq!(appended.head, journal.head().digest);
        assert!(journal.sync_task().run().unwrap() >= appended.end);
    }
    assert_eq!(read_all(&storage), numbered(&batches));
    let head = journal.head();
    assert_eq!(head.seq, Seq(4));
    journal.close().unwrap();

    let (journal, recovery) = open(&storage, Options::default()).unwrap();
    assert_eq!((recovery.next_seq, recovery.open, recovery.unsettled), (Seq(5), vec![Seq(4)], vec![]));
    assert!(recovery.clean);
    assert_eq!(journal.head().frames, head.frames + 1);
}

#[test]
fn a_directory_holds_a_journal_and_lets_one_writer_in() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(DirStorage::create(dir.path().join("a/b")).unwrap());
    let other = Arc::new(DirStorage::open(dir.path().join("a/b")).unwrap());
    let (mut journal, _) = Journal::open(storage.clone(), small_segments()).unwrap();
    assert!(matches!(Journal::open(other.clone(), small_segments()), Err(JournalError::Locked)));
    assert!(matches!(Journal::open(storage.clone(), small_segments()), Err(JournalError::Locked)));
    let batches: Vec<_> = (1..40).map(|number| vec![over(number, TxnOutcome::None)]).collect();
    for batch in &batches {
        journal.append(batch).unwrap();
    }
    journal.close().unwrap();
    let frames = frames_of(other.clone(), None).unwrap();
    let entries: Vec<_> = frames.into_iter().flat_map(|frame| frame.entries).collect();
    assert_eq!(entries, numbered(&batches));
    assert!(Journal::open(other, small_segments()).unwrap().1.clean);
}

#[test]
fn a_reader_begins_at_any_boundary_it_was_given() {
    let storage = FaultyMemory::new();
    let (mut journal, _) = open(&storage, small_segments()).unwrap();
    let (who, shape, text) = (Arc::new(who()), Arc::new(shape()), Sql::Shared(Arc::from(&b"select $1"[..])));
    for number in 1..60 {
        let Entry::Record(mut record) = over(number, TxnOutcome::None) else { unreachable!("made above") };
        (record.who, record.shape, record.sql) = (who.clone(), Some(shape.clone()), Some(text.clone()));
        journal.append(&[Entry::Record(record)]).unwrap();
    }
    let storage = Arc::new(storage);
    let frames = frames_of(storage.clone(), None).unwrap();
    assert!(segment_files(&storage).len() > 5);
    for (index, frame) in frames.iter().enumerate() {
        assert_eq!(frames_of(storage.clone(), Some(frame.at)).unwrap(), frames[index..]);
        assert_eq!(frames_of(storage.clone(), Some(frame.next)).unwrap(), frames[index + 1..]);
        let reader = Reader::open(storage.clone(), Some(frame.next)).unwrap();
        assert_eq!(reader.digest(), Some(frame.digest));
        let mut off = frame.at;
        off.offset += 1;
        assert!(matches!(Reader::open(storage.clone(), Some(off)), Err(JournalError::NoSuchPosition { .. })));
    }
}

#[test]
fn a_shared_value_is_written_once_for_a_segment() {
    let storage = FaultyMemory::new();
    let (mut journal, _) = open(&storage, Options::default()).unwrap();
    let text: Arc<[u8]> = Arc::from(vec![b'x'; 10_000]);
    let batches: Vec<Vec<Entry>> = (1..100)
        .map(|number| {
            let Entry::Record(mut record) = started(number) else { unreachable!("made above") };
            record.sql = Some(Sql::Shared(text.clone()));
            vec![Entry::Record(record)]
        })
        .collect();
    for batch in &batches {
        journal.append(batch).unwrap();
    }
    assert!(journal.position().offset < 40_000);
    assert_eq!(read_all(&storage), numbered(&batches));
}

#[test]
fn more_shared_values_than_are_remembered_still_come_back() {
    let storage = FaultyMemory::new();
    let (mut journal, _) = open(&storage, Options::default()).unwrap();
    let kept = Arc::new(who());
    let mut batches = Vec::new();
    for number in 1..=5000 {
        let Entry::Record(mut record) = started(number) else { unreachable!("made above") };
        if number % 2 == 0 {
            record.who = kept.clone();
        }
        record.shape = Some(Arc::new(Shape { fingerprint: number.to_string(), ..shape() }));
        batches.push(vec![Entry::Record(record)]);
        journal.append(&batches[batches.len() - 1]).unwrap();
    }
    assert_eq!(read_all(&storage), numbered(&batches));
}

#[test]
fn entries_that_break_a_promise_are_refused_and_leave_no_trace() {
    let storage = FaultyMemory::new();
    let (mut journal, _) = open(&storage, Options::default()).unwrap();
    let good = [vec![started(1), over(2, TxnOutcome::Open)]];
    journal.append(&good[0]).unwrap();
    let (head, length) = (journal.head(), journal.position());
    for bad in [
        vec![ended(2, TxnOutcome::None)],
        vec![ended(3, TxnOutcome::None)],
        vec![ended(0, TxnOutcome::None)],
        vec![settled(&[1], TxnOutcome::Committed)],
        vec![settled(&[2, 2], TxnOutcome::Committed)],
        vec![settled(&[2], TxnOutcome::Open)],
        vec![
            started(9),
            ended(1, TxnOutcome::Open),
            settled(&[1, 2], TxnOutcome::Committed),
            ended(1, TxnOutcome::None),
        ],
    ] {
        let error = journal.append(&bad).unwrap_err();
        assert!(error.is_callers_fault() && !error.is_final(), "{error}");
        assert_eq!((journal.head(), journal.position()), (head, length));
    }
    let more = vec![ended(1, TxnOutcome::Open), settled(&[2, 1], TxnOutcome::RolledBack), started(3)];
    assert_eq!(journal.append(&more).unwrap().first, Seq(3));
    assert_eq!(read_all(&storage), numbered(&[good[0].clone(), more]));
}

#[test]
fn what_is_open_survives_many_segments_and_a_new_start() {
    let storage = FaultyMemory::new();
    let (mut journal, _) = open(&storage, small_segments()).unwrap();
    journal.append(&[started(1), over(2, TxnOutcome::Open), started(3)]).unwrap();
    for number in 4..40 {
        journal.append(&[over(number, TxnOutcome::None)]).unwrap();
    }
    drop(journal);
    assert!(segment_files(&storage).len() > 3);
    let (mut journal, recovery) = open(&storage, small_segments()).unwrap();
    assert_eq!(recovery.open, [Seq(1), Seq(3)]);
    assert_eq!(recovery.unsettled, [Seq(2)]);
    assert_eq!((recovery.next_seq, recovery.clean, recovery.torn_bytes), (Seq(40), false, 0));
    assert_eq!(recovery.last_time, Some(Timestamp(1_795_000_000_000_039)));
    journal.append(&[ended(1, TxnOutcome::Unknown), settled(&[2], TxnOutcome::Unknown)]).unwrap();
    journal.append(&[ended(3, TxnOutcome::Unknown)]).unwrap();
    assert!(journal.append(&[ended(3, TxnOutcome::Unknown)]).is_err());
}

#[test]
fn a_missing_segment_stops_the_opening_and_is_named() {
    let storage = FaultyMemory::new();
    let (mut journal, _) = open(&storage, small_segments()).unwrap();
    for number in 1..40 {
        journal.append(&[over(number, TxnOutcome::None)]).unwrap();
    }
    drop(journal);
    let names = segment_files(&storage);
    pgwitness_index::storage::Storage::remove(&storage, &names[1]).unwrap();
    let error = open(&storage, small_segments()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("segment 2"), "{error}");
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z.]{1,12}", any::<String>()]
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..3)
}

fn any_who() -> impl Strategy<Value = Who> {
    (vec(text(), 12), texts(), vec((text(), text()), 0..3)).prop_map(|(texts, groups, auth)| {
        let mut texts = texts.into_iter();
        let mut text = || texts.next().unwrap();
        Who {
            user: text(),
            sub: text(),
            iss: text(),
            groups,
            login: text(),
            session: text(),
            auth,
            role: text(),
            db: text(),
            upstream: text(),
            search_path: text(),
            ip: text(),
            app: text(),
            device: text(),
        }
    })
}

fn any_shape() -> impl Strategy<Value = Shape> {
    (vec(texts(), 7), vec(select(Class::ALL), 0..3), select(Certainty::ALL), text(), text()).prop_map(
        |(lists, class, analysis, fingerprint, command)| {
            let mut lists = lists.into_iter();
            let mut list = || lists.next().unwrap();
            Shape {
                fingerprint,
                command,
                class,
                tables: list(),
                reads: list(),
                filters: list(),
                writes: list(),
                via: list(),
                analysis,
                analysis_notes: list(),
                tags: list(),
            }
        },
    )
}

fn any_param() -> impl Strategy<Value = Param> {
    prop_oneof![
        Just(Param::Null),
        any::<bool>().prop_map(Param::Bool),
        any::<i64>().prop_map(Param::Int),
        proptest::num::f64::NORMAL.prop_map(Param::Float),
        text().prop_map(Param::Text),
        vec(any::<u8>(), 0..20).prop_map(Param::Bytes),
    ]
}

fn any_end() -> impl Strategy<Value = Completion> {
    let txn =
        select(vec![TxnOutcome::Committed, TxnOutcome::RolledBack, TxnOutcome::None, TxnOutcome::Unknown]);
    let numbers = (option::of(any::<u64>()), any::<u64>(), any::<u64>());
    (select(Outcome::ALL), txn, vec(text(), 3), numbers, texts()).prop_map(
        |(outcome, txn_outcome, texts, (rows, bytes, duration_us), notes)| {
            let [command, sqlstate, error] = <[String; 3]>::try_from(texts).unwrap();
            let seq = Seq(0);
            Completion {
                seq,
                outcome,
                txn_outcome,
                command: command.into(),
                rows,
                bytes,
                duration_us,
                sqlstate,
                error,
                notes,
            }
        },
    )
}

/// Everything but what is shared: that is chosen from a small pool, as in life.
fn any_record() -> impl Strategy<Value = Record> {
    let bytes = prop_oneof![select(b"select '0123456789".to_vec()), any::<u8>()];
    let once = option::of(vec(bytes, 0..40));
    let head = (any::<u128>(), any::<i64>(), select(Event::ALL));
    (head, once, vec(any_param(), 0..4), text(), any_end()).prop_map(
        |((id, time, event), once, params, detail, done)| Record {
            id: Uuid::from_u128(id),
            time: Timestamp(time),
            event,
            who: Arc::new(Who::default()),
            sql: once.map(|text| Sql::Once(text.into())),
            shape: None,
            params,
            detail,
            done: Some(done),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_records_survive_segments_and_restarts(
        whos in vec(any_who(), 1..4),
        shapes in vec(any_shape(), 1..4),
        shared in vec(vec(any::<u8>(), 0..30), 1..4),
        records in vec((any_record(), any::<[u8; 4]>()), 1..30),
        segment_bytes in 1_u64..4000,
    ) {
        let whos: Vec<_> = whos.into_iter().map(Arc::new).collect();
        let shapes: Vec<_> = shapes.into_iter().map(Arc::new).collect();
        let shared: Vec<Arc<[u8]>> = shared.into_iter().map(Arc::from).collect();
        let pick = |byte: u8, len: usize| usize::from(byte) % len;
        let storage = FaultyMemory::new();
        let options = Options { segment_bytes };
        let (mut journal, _) = open(&storage, options).unwrap();
        let (mut batches, mut batch) = (Vec::new(), Vec::new());
        for (mut record, [a, b, c, d]) in records {
            record.who = whos[pick(a, whos.len())].clone();
            if a % 2 == 0 {
                let millis = record.time.0.rem_euclid(1 << 47) as u64;
                record.time = Timestamp((millis * 1000).cast_signed());
                record.id = uuid::Builder::from_unix_timestamp_millis(millis, &[a; 10]).into_uuid();
            }
            record.shape = (b % 3 > 0).then(|| shapes[pick(b / 3, shapes.len())].clone());
            if c % 3 == 0 {
                record.sql = Some(Sql::Shared(shared[pick(c / 3, shared.len())].clone()));
            }
            batch.push(Entry::Record(Box::new(record)));
            if d % 2 == 0 {
                journal.append(&batch).unwrap();
                batches.push(std::mem::take(&mut batch));
            }
            if d % 5 == 0 {
                drop(journal);
                journal = open(&storage, options).unwrap().0;
            }
        }
        prop_assert_eq!(read_all(&storage), numbered(&batches));
    }
}
