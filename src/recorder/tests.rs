//! The gate to the journal, on a memory that fails on demand.

use pgwitness_index::journal::{Options, Reader};
use pgwitness_index::record::{Event, Outcome, TxnOutcome, Who};
use pgwitness_index::storage::{Faults, FaultyMemory, Storage, WriteFault};

use super::*;
use crate::clock;

fn start(durability: Durability) -> (Recorder, RecorderThread, FaultyMemory) {
    let disk = FaultyMemory::new();
    let (journal, _) = Journal::open(Arc::new(disk.clone()), Options::default()).unwrap();
    let (recorder, thread) = Recorder::start(journal, durability).unwrap();
    (recorder, thread, disk)
}

fn record() -> Record {
    let time = clock::now();
    Record {
        id: clock::new_id(time),
        time,
        event: Event::Query,
        who: Arc::new(Who::default()),
        sql: None,
        shape: None,
        params: Vec::new(),
        detail: String::new(),
        done: None,
    }
}

fn end(seq: Seq) -> Completion {
    Completion { seq, ..Completion::new(Outcome::Ok, TxnOutcome::Committed) }
}

/// Which records have no end, as the next start would find them.
fn open_after(thread: RecorderThread, disk: &FaultyMemory) -> Vec<Seq> {
    thread.close();
    let (_, recovery) = Journal::open(Arc::new(disk.copied()), Options::default()).unwrap();
    recovery.open
}

#[tokio::test]
async fn an_end_that_the_journal_refuses_is_dropped_alone_and_blocks_nobody() {
    let (recorder, thread, disk) = start(Durability::Batch);
    let first = recorder.admit(&mut record().into()).await.unwrap().first();
    let second = recorder.admit(&mut record().into()).await.unwrap().first();
    recorder.tell(&mut vec![end(first)], &mut Vec::new());
    recorder.tell(&mut vec![end(Seq(77))], &mut Vec::new());
    recorder.tell(
        &mut Vec::new(),
        &mut vec![Settlement { seqs: vec![first], txn_outcome: TxnOutcome::Committed }],
    );
    recorder.tell(&mut vec![end(second)], &mut Vec::new());
    let third = recorder.admit(&mut record().into()).await.unwrap().first();
    assert_eq!(third, Seq(3));
    assert_eq!(open_after(thread, &disk), [third]);
}

#[tokio::test]
async fn a_refused_end_in_an_idle_gateway_is_dropped_by_the_journal_thread() {
    let (recorder, thread, disk) = start(Durability::Batch);
    let first = recorder.admit(&mut record().into()).await.unwrap().first();
    recorder.tell(&mut vec![end(Seq(77))], &mut Vec::new());
    recorder.tell(&mut vec![end(first)], &mut Vec::new());
    assert_eq!(open_after(thread, &disk), []);
}

#[tokio::test]
async fn a_full_disk_refuses_and_with_space_all_goes_on() {
    let (recorder, thread, disk) = start(Durability::Batch);
    let first = recorder.admit(&mut record().into()).await.unwrap().first();
    disk.set_faults(Faults { capacity: Some(10), ..Faults::default() });
    recorder.tell(&mut vec![end(first)], &mut Vec::new());
    for _ in 0..3 {
        let refused = recorder.admit(&mut record().into()).await.unwrap_err();
        assert!(matches!(refused, RecordError::Write(_)), "{refused}");
    }
    assert_eq!(recorder.failure(), None);
    disk.set_faults(Faults::default());
    let second = recorder.admit(&mut record().into()).await.unwrap().first();
    assert_eq!(second, Seq(2));
    assert_eq!(open_after(thread, &disk), [second]);
}

/// What is recorded on `disk`.
fn recorded(disk: &FaultyMemory) -> Vec<Record> {
    let mut reader = Reader::open(Arc::new(disk.clone()), None).unwrap();
    let mut records = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        for (_, entry) in frame.entries {
            if let Entry::Record(record) = entry {
                records.push(*record);
            }
        }
    }
    records
}

#[tokio::test]
async fn on_a_full_disk_statements_are_refused_and_recorded_as_refused() {
    let (recorder, thread, disk) = start(Durability::Held);
    let first = recorder.admit(&mut record().into()).await.unwrap().first();
    let used = disk.list().unwrap().iter().map(|name| disk.content(name).unwrap().len() as u64).sum();
    disk.set_faults(Faults { capacity: Some(used), ..Faults::default() });
    let asked = record();
    let refused = recorder.admit(&mut asked.clone().into()).await.unwrap_err();
    assert!(matches!(refused, RecordError::Write(_)), "{refused}");
    assert_eq!((recorder.last_seq(), recorder.failure()), (Seq(2), None));
    disk.set_faults(Faults::default());
    let third = recorder.admit(&mut record().into()).await.unwrap().first();
    let records = recorded(&disk);
    assert_eq!(open_after(thread, &disk), [first, third]);
    assert_eq!((records.len(), records[1].id), (3, asked.id));
    let end = records[1].done.as_ref().unwrap();
    assert_eq!((end.outcome, end.sqlstate.as_str()), (Outcome::Denied, "58030"));
}

#[tokio::test]
async fn a_failed_sync_is_survived_where_the_disk_has_everything() {
    for durability in [Durability::Strict, Durability::Held, Durability::Batch] {
        let (recorder, thread, disk) = start(durability);
        disk.set_faults(Faults { sync: Some(1), sync_works: true, ..Faults::default() });
        let first = recorder.admit(&mut record().into()).await.unwrap();
        recorder.released(&first).await.unwrap();
        let second = recorder.admit(&mut record().into()).await.unwrap();
        recorder.released(&second).await.unwrap();
        assert_eq!((recorder.failure(), recorder.failed_syncs()), (None, 1));
        assert_eq!(open_after(thread, &disk), [first.first(), second.first()]);
        // That it failed is a record, durable like the others.
        let records = recorded(&disk.crashed(0));
        let alerts: Vec<_> = records.iter().filter(|record| record.event == Event::Alert).collect();
        assert_eq!((records.len(), alerts.len()), (3, 1));
        assert!(alerts[0].detail.contains("a sync of the log failed"), "{}", alerts[0].detail);
        assert_eq!(recorder.last_seq(), Seq(3));
    }
}

#[tokio::test]
async fn a_failed_sync_refuses_everything_from_then_on() {
    for durability in [Durability::Strict, Durability::Held, Durability::Batch] {
        let (recorder, thread, disk) = start(durability);
        disk.set_faults(Faults { sync: Some(1), ..Faults::default() });
        match recorder.admit(&mut record().into()).await {
            Ok(receipt) => {
                let held = recorder.released(&receipt).await.unwrap_err();
                assert!(matches!(held, RecordError::Stopped(_)), "{held}");
            }
            Err(error) => assert!(matches!(error, RecordError::Stopped(_)), "{error}"),
        }
        assert!(recorder.failure().is_some());
        assert!(matches!(recorder.admit(&mut record().into()).await, Err(RecordError::Stopped(_))));
        thread.close();
    }
}

#[tokio::test]
async fn a_write_that_cannot_be_taken_back_stops_the_log_for_all_to_see() {
    let (recorder, thread, disk) = start(Durability::Batch);
    let faults = Faults { write: Some((1, WriteFault::Short(3))), truncate: Some(1), ..Faults::default() };
    disk.set_faults(faults);
    recorder.admit(&mut record().into()).await.unwrap_err();
    let refused = recorder.admit(&mut record().into()).await.unwrap_err();
    assert!(matches!(refused, RecordError::Stopped(_)), "{refused}");
    assert!(recorder.failure().is_some());
    thread.close();
}

#[tokio::test]
async fn a_panic_in_the_middle_of_a_write_stops_the_log() {
    let (recorder, thread, _) = start(Durability::Held);
    let receipt = recorder.admit(&mut record().into()).await.unwrap();
    let shared = recorder.shared.clone();
    let panicked = std::thread::spawn(move || {
        let _journal = shared.journal.lock().unwrap();
        panic!("as a defect would");
    });
    assert!(panicked.join().is_err());
    assert!(matches!(recorder.admit(&mut record().into()).await, Err(RecordError::Stopped(_))));
    let _ = recorder.released(&receipt).await;
    assert!(recorder.failure().is_some());
    thread.close();
}

/// Lets several sessions ask at one moment, while another statement runs.
async fn at_once(recorder: &Recorder, sessions: usize) -> Vec<Result<Receipt, RecordError>> {
    let admits = (0..sessions).map(async |number| {
        let mut batch = Batch::default();
        (0..=number).for_each(|_| batch.push(record()));
        recorder.admit(&mut batch).await
    });
    futures_util::future::join_all(admits).await
}

#[tokio::test]
async fn sessions_that_ask_at_one_moment_share_a_write_and_keep_their_numbers() {
    let (recorder, thread, disk) = start(Durability::Batch);
    let running = recorder.admit(&mut record().into()).await.unwrap();
    // Fails from the second write on: one is enough for all.
    disk.set_faults(Faults { write: Some((2, WriteFault::Short(0))), ..Faults::default() });
    let receipts = at_once(&recorder, 3).await;
    let firsts: Vec<_> = receipts.iter().map(|receipt| receipt.as_ref().unwrap().first()).collect();
    assert_eq!(running.first(), Seq(1));
    assert_eq!(firsts, [Seq(2), Seq(3), Seq(5)]);
    assert_eq!(recorder.last_seq(), Seq(7));
    disk.set_faults(Faults::default());
    assert_eq!(open_after(thread, &disk), (1..=7).map(Seq).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_shared_write_that_fails_refuses_every_session_and_none_is_recorded() {
    let (recorder, thread, disk) = start(Durability::Batch);
    let running = recorder.admit(&mut record().into()).await.unwrap().first();
    disk.set_faults(Faults { write: Some((1, WriteFault::Short(7))), ..Faults::default() });
    for refused in at_once(&recorder, 3).await {
        assert!(matches!(refused, Err(RecordError::Write(_))), "{refused:?}");
    }
    disk.set_faults(Faults::default());
    let next = recorder.admit(&mut record().into()).await.unwrap().first();
    assert_eq!((running, next), (Seq(1), Seq(2)));
    assert_eq!(open_after(thread, &disk), [running, next]);
}

#[tokio::test]
async fn an_end_that_the_journal_refuses_stands_in_no_sessions_way() {
    let (recorder, thread, disk) = start(Durability::Batch);
    let running = recorder.admit(&mut record().into()).await.unwrap().first();
    recorder.tell(&mut vec![end(Seq(77))], &mut Vec::new());
    let receipts = at_once(&recorder, 2).await;
    let firsts: Vec<_> = receipts.iter().map(|receipt| receipt.as_ref().unwrap().first()).collect();
    assert_eq!(firsts, [Seq(2), Seq(3)]);
    assert_eq!(open_after(thread, &disk), [running, Seq(2), Seq(3), Seq(4)]);
}

#[tokio::test]
async fn a_session_that_gives_up_before_its_turn_leaves_no_record() {
    let (recorder, thread, disk) = start(Durability::Batch);
    let running = recorder.admit(&mut record().into()).await.unwrap().first();
    let mut batch = record().into();
    let mut given_up = Box::pin(recorder.admit(&mut batch));
    assert!(futures_util::poll!(given_up.as_mut()).is_pending());
    drop(given_up);
    let next = recorder.admit(&mut record().into()).await.unwrap().first();
    assert_eq!((running, next), (Seq(1), Seq(2)));
    assert_eq!(open_after(thread, &disk), [running, next]);
}
