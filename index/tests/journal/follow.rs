//! A reader beside a writer at work.

use std::sync::Arc;
use std::time::Duration;

use pgwitness_index::journal::{Journal, JournalError, Options, Reader};
use pgwitness_index::record::{Seq, TxnOutcome};
use pgwitness_index::storage::{DirStorage, FaultyMemory, Storage};

use crate::records::*;

/// Polls of a reader before a test gives up, with a short pause after each.
const POLLS_MAX: u32 = 30_000;

#[test]
fn a_reader_follows_a_live_writer_across_segments() {
    const RECORDS: u64 = 3000;
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(DirStorage::create(dir.path()).unwrap());
    let mut reader = Reader::open(storage.clone(), None).unwrap();
    assert!(reader.next_frame().unwrap().is_none());
    let writer = std::thread::spawn(move || {
        let mut journal = Journal::open(storage, Options { segment_bytes: 20_000 }).unwrap().0;
        for number in 1..=RECORDS {
            journal.append(&[over(number, TxnOutcome::None)]).unwrap();
        }
        journal.close().unwrap();
    });
    let (mut expected, mut polls) = (1, 0);
    while expected <= RECORDS {
        match reader.next_frame().unwrap() {
            Some(frame) => {
                assert_eq!(frame.entries[0], (Some(Seq(expected)), over(expected, TxnOutcome::None)));
                expected += 1;
            }
            None => {
                polls += 1;
                assert!(polls < POLLS_MAX, "the reader waits for record {expected}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    writer.join().unwrap();
    assert!(reader.next_frame().unwrap().is_none());
    assert!(reader.position().unwrap().segment > 5);
}

#[test]
fn a_frame_that_is_only_partly_visible_is_the_end_for_now() {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, Options::default()).unwrap().0;
    journal.append(&[started(1)]).unwrap();
    let name = &segment_files(&storage)[0];
    let before = storage.content(name).unwrap().len();
    journal.append(&[started(2)]).unwrap();
    let whole = storage.content(name).unwrap();
    for visible in before..whole.len() {
        storage.tamper(name, whole[..visible].to_vec());
        let mut reader = Reader::open(Arc::new(storage.clone()), None).unwrap();
        assert_eq!(reader.next_frame().unwrap().unwrap().entries[0].0, Some(Seq(1)));
        assert!(reader.next_frame().unwrap().is_none());
        storage.tamper(name, whole.clone());
        assert_eq!(reader.next_frame().unwrap().unwrap().entries[0].0, Some(Seq(2)), "{visible}");
        assert!(reader.next_frame().unwrap().is_none());
    }
}

#[test]
fn a_partly_visible_segment_is_the_end_for_now() {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, small_segments()).unwrap().0;
    for number in 1..9 {
        journal.append(&[over(number, TxnOutcome::None)]).unwrap();
    }
    let names = segment_files(&storage);
    let last = names.last().unwrap();
    let (whole, all) = (storage.content(last).unwrap(), read_all(&storage));
    for visible in 0..whole.len() {
        storage.tamper(last, whole[..visible].to_vec());
        let mut reader = Reader::open(Arc::new(storage.clone()), None).unwrap();
        let mut seen = Vec::new();
        while let Some(frame) = reader.next_frame().unwrap() {
            seen.extend(frame.entries);
        }
        storage.tamper(last, whole.clone());
        while let Some(frame) = reader.next_frame().unwrap() {
            seen.extend(frame.entries);
        }
        assert_eq!(seen, all);
    }
}

#[test]
fn a_bad_frame_before_a_later_segment_stops_the_reader_and_is_named() {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, small_segments()).unwrap().0;
    for number in 1..30 {
        journal.append(&[over(number, TxnOutcome::None)]).unwrap();
    }
    let frame = frames_of(Arc::new(storage.clone()), None).unwrap().into_iter().nth(6).unwrap();
    let name = &segment_files(&storage)[usize::try_from(frame.at.segment).unwrap() - 1];
    let mut content = storage.content(name).unwrap();
    content[usize::try_from(frame.next.offset).unwrap() - 1] ^= 1;
    storage.tamper(name, content);
    match frames_of(Arc::new(storage), None) {
        Err(JournalError::Damaged { at, after, .. }) => assert_eq!((at, after), (frame.at, Seq(6))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn damage_in_the_live_segment_is_an_error_once_it_is_proven_to_be_none_of_a_crash() {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, Options::default()).unwrap().0;
    for number in 1..9 {
        journal.append(&[over(number, TxnOutcome::None)]).unwrap();
        journal.sync_task().run().unwrap();
    }
    drop(journal);
    let frames = frames_of(Arc::new(storage.clone()), None).unwrap();
    let name = &segment_files(&storage)[0];
    let good = storage.content(name).unwrap();
    for at in [frames[3].at.offset, frames[3].next.offset - 1] {
        let mut content = good.clone();
        content[usize::try_from(at).unwrap()] ^= 0x40;
        storage.tamper(name, content);
        let read = frames_of(Arc::new(storage.clone()), None);
        assert!(matches!(read, Err(JournalError::Damaged { at, after: Seq(3), .. }) if at == frames[3].at));
        let opened = open(&storage, Options::default()).map(|_| ());
        assert!(matches!(opened, Err(JournalError::Damaged { at, after: Seq(3), .. }) if at == frames[3].at));
    }
    assert!(storage.list().unwrap().iter().all(|name| !name.ends_with(".torn")));
}

#[test]
fn a_position_beyond_the_journal_is_refused() {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, Options::default()).unwrap().0;
    journal.append(&[started(1)]).unwrap();
    for (segment, beyond) in [(1, 1), (2, 0), (0, 0)] {
        let mut at = journal.position();
        (at.segment, at.offset) = (segment, at.offset + beyond);
        let error = Reader::open(Arc::new(storage.clone()), Some(at)).map(|_| ()).unwrap_err();
        assert!(matches!(error, JournalError::NoSuchPosition { .. }), "{error}");
    }
}
