//! Reading by place, in any order.

use std::sync::Arc;

use pgwitness_index::journal::{Archive, JournalError, Options, Position};
use pgwitness_index::record::{Entry, Record, Seq, Sql, TxnOutcome};
use pgwitness_index::storage::FaultyMemory;

use crate::records::*;

/// Sessions, shapes and texts that come again, in frames of one and of several records.
fn journal(options: Options) -> FaultyMemory {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, options).unwrap().0;
    let whos: Vec<_> = (0..5).map(|_| Arc::new(who())).collect();
    let shapes: Vec<_> = (0..3).map(|_| Arc::new(shape())).collect();
    let prepared: Arc<[u8]> = Arc::from(&b"update t set a = $1 where b = 7"[..]);
    let mut number = 1;
    for frame in 0..200_usize {
        let mut entries = Vec::new();
        for _ in 0..=frame % 4 {
            let Entry::Record(mut record) = started(number) else { unreachable!("made above") };
            let at = number as usize;
            record.who = whos[at % 5].clone();
            record.shape = (!at.is_multiple_of(7)).then(|| shapes[at % 3].clone());
            record.sql = Some(match at % 4 {
                0 => Sql::Shared(prepared.clone()),
                at => Sql::Once(
                    format!("select {number} from t{at} where 'x' = '{number}'").into_bytes().into(),
                ),
            });
            entries.extend([Entry::Record(record), ended(number, TxnOutcome::Open)]);
            number += 1;
        }
        journal.append(&entries).unwrap();
        let seqs: Vec<_> = (number - (frame % 4) as u64 - 1..number).collect();
        journal.append(&[settled(&seqs, TxnOutcome::Committed)]).unwrap();
    }
    journal.close().unwrap();
    storage
}

fn check(storage: &FaultyMemory) {
    let frames = frames_of(Arc::new(storage.clone()), None).unwrap();
    let archive = Archive::new(Arc::new(storage.clone()));
    let mut last = 0;
    for frame in frames.iter().rev() {
        // An archive that knows nothing yet.
        for archive in [&archive, &Archive::new(Arc::new(storage.clone()))] {
            let stored = archive.frame(frame.at).unwrap();
            assert_eq!((stored.at, stored.next, stored.salt), (frame.at, frame.next, frame.salt));
            assert_eq!(stored.entries, frame.entries);
        }
        let beyond = archive.entry(frame.at, frame.entries.len());
        assert!(matches!(beyond, Err(JournalError::NoSuchPosition { .. })));
        for (index, (seq, _)) in frame.entries.iter().enumerate() {
            let alone = Archive::new(Arc::new(storage.clone())).entry(frame.at, index).unwrap();
            assert_eq!((&alone, &archive.entry(frame.at, index).unwrap()), (&frame.entries[index], &alone));
            let Some(seq) = *seq else { continue };
            assert_eq!(archive.find(seq).unwrap(), Some((frame.at, index)), "record {seq}");
            last = last.max(seq.0);
        }
    }
    assert_eq!(archive.find(Seq(0)).unwrap(), None);
    assert_eq!(archive.find(Seq(last + 1)).unwrap(), None);
    assert_eq!(archive.find(Seq(u64::MAX)).unwrap(), None);
}

#[test]
fn any_frame_and_any_record_is_read_by_its_place() {
    for options in [Options::default(), Options { segment_bytes: 3000 }] {
        check(&journal(options));
    }
}

#[test]
fn a_record_is_found_in_a_segment_that_is_bisected() {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, Options::default()).unwrap().0;
    for number in 1..=6000 {
        let Entry::Record(mut record) = over(number, TxnOutcome::None) else { unreachable!("made above") };
        // Frames of all sizes: some beyond what is read at once, and too random to be compressed.
        if number % 500 == 0 {
            let text: Vec<u8> =
                (0..50_000_u64).map(|at| (at.wrapping_mul(number * 2_654_435_761) >> 13) as u8).collect();
            record.sql = Some(Sql::Once(text.into()));
        }
        journal.append(&[Entry::Record(record)]).unwrap();
    }
    let archive = Archive::new(Arc::new(storage.clone()));
    let frames = frames_of(Arc::new(storage), None).unwrap();
    for frame in
        frames.iter().filter(|frame| frame.entries[0].0.is_some_and(|seq| seq.0 % 97 < 2 || seq.0 % 500 < 2))
    {
        assert_eq!(archive.find(frame.entries[0].0.unwrap()).unwrap(), Some((frame.at, 0)));
    }
}

#[test]
fn journals_of_all_versions_are_read_by_place() {
    check(&released("v1"));
    check(&released("v2"));
    let storage = released("v1");
    let (mut journal, _) = open(&storage, Options::default()).unwrap();
    for number in 7..50 {
        journal.append(&[over(number, TxnOutcome::None)]).unwrap();
    }
    journal.close().unwrap();
    check(&storage);
}

#[test]
fn an_archive_reads_what_was_written_after_it_was_made() {
    let storage = FaultyMemory::new();
    let archive = Archive::new(Arc::new(storage.clone()));
    assert_eq!(archive.find(Seq(1)).unwrap(), None);
    let mut journal = open(&storage, small_segments()).unwrap().0;
    for number in 1..100 {
        assert_eq!(archive.find(Seq(number)).unwrap(), None);
        let at = journal.position();
        journal.append(&[over(number, TxnOutcome::None)]).unwrap();
        let (found, index) = archive.find(Seq(number)).unwrap().unwrap();
        assert!(found >= at);
        assert_eq!(
            archive.frame(found).unwrap().entries[index],
            (Some(Seq(number)), over(number, TxnOutcome::None))
        );
    }
}

#[test]
fn a_place_where_no_frame_begins_is_refused_and_a_damaged_one_is_named() {
    let storage = journal(Options::default());
    let frames = frames_of(Arc::new(storage.clone()), None).unwrap();
    let frame = &frames[20];
    let archive = || Archive::new(Arc::new(storage.clone()));
    for offset in (frame.at.offset + 1..frame.next.offset).chain([0, 10, 75, 1 << 40]) {
        let at = Position { offset, ..frame.at };
        assert!(matches!(archive().frame(at), Err(JournalError::NoSuchPosition { .. })), "{at}");
    }
    let beyond = Position { segment: 2, offset: 76 };
    assert!(matches!(archive().frame(beyond), Err(JournalError::NoSuchPosition { .. })));
    let name = &segment_files(&storage)[0];
    let mut content = storage.content(name).unwrap();
    content[usize::try_from(frame.next.offset).unwrap() - 1] ^= 1;
    storage.tamper(name, content);
    assert!(matches!(archive().frame(frame.at), Err(JournalError::Damaged { at, .. }) if at == frame.at));
    assert_eq!(archive().frame(frames[21].at).unwrap().entries, frames[21].entries);
}

#[test]
fn texts_read_from_the_journal_share_what_they_have_in_common() {
    let storage = journal(Options::default());
    let mut templates = std::collections::HashMap::new();
    for frame in frames_of(Arc::new(storage), None).unwrap() {
        for (_, entry) in frame.entries {
            let Entry::Record(record) = entry else { continue };
            let Record { sql: Some(Sql::Spliced(spliced)), .. } = *record else { continue };
            let values: Vec<_> = spliced.values().map(<[u8]>::to_vec).collect();
            if values.len() == 3 {
                assert_eq!(values[0], values[2]);
            }
            let template = spliced.template();
            *templates.entry((Arc::as_ptr(template), template.text().to_vec())).or_insert(0) += 1;
        }
    }
    // Three texts with three shapes and one without, and the prepared one likewise.
    assert_eq!(templates.len(), 16, "{templates:?}");
    assert!(templates.values().all(|count| *count > 5));
}
