//! Disks that fail and machines that lose power: what was acknowledged stays, nothing is half there.

use pgwitness_index::journal::{Journal, JournalError, Options};
use pgwitness_index::proof::verify;
use pgwitness_index::record::{Entry, Seq, TxnOutcome};
use pgwitness_index::storage::{Faults, FaultyMemory, Storage, WriteFault};

use crate::records::*;

/// Batches that keep their promises in any prefix, over several segments.
fn script() -> Vec<Vec<Entry>> {
    let mut batches = Vec::new();
    for number in (1..24).step_by(3) {
        batches.push(vec![started(number), over(number + 1, TxnOutcome::Open)]);
        batches.push(vec![ended(number, TxnOutcome::Open), over(number + 2, TxnOutcome::None)]);
        batches.push(vec![settled(&[number, number + 1], TxnOutcome::Committed)]);
    }
    batches
}

/// What the caller was told.
#[derive(Default)]
struct Told {
    written: Vec<Vec<Entry>>,
    /// How many of `written` were said to be durable.
    durable: usize,
    /// The batch whose fate the caller was told not to know.
    doubtful: Option<Vec<Entry>>,
    /// Frames at which each batch is durable.
    ends: Vec<u64>,
}

impl Told {
    fn covered(&mut self, frames: u64) {
        self.durable = self.ends.iter().take_while(|end| **end <= frames).count();
    }
}

/// Runs the script as the gateway would: a failed batch is tried once more unless the error is final.
fn run(storage: &FaultyMemory, told: &mut Told) -> Result<(), JournalError> {
    run_with(storage, told, |_, error| Err(error))
}

/// The same, but after a failed sync it goes on if it can.
fn run_resuming(storage: &FaultyMemory, told: &mut Told) -> Result<(), JournalError> {
    run_with(storage, told, |journal, error| match error {
        JournalError::Sync { .. } => journal.resume(),
        error => Err(error),
    })
}

/// `failed` is what to do about a failed sync: the number of frames that are durable then.
fn run_with(
    storage: &FaultyMemory,
    told: &mut Told,
    failed: impl Fn(&mut Journal, JournalError) -> Result<u64, JournalError>,
) -> Result<(), JournalError> {
    let mut journal = open(storage, small_segments())?.0;
    for (index, batch) in script().into_iter().enumerate() {
        let appended = match journal.append(&batch) {
            Err(error) if !error.is_final() => journal.append(&batch),
            Err(error @ JournalError::Sync { .. }) => match failed(&mut journal, error) {
                Ok(_) => journal.append(&batch),
                Err(error) => Err(error),
            },
            result => result,
        };
        match appended {
            Ok(appended) => {
                told.written.push(batch);
                told.ends.push(appended.end);
            }
            Err(error) => {
                told.doubtful = Some(batch);
                return Err(error);
            }
        }
        if index % 3 != 0 {
            let frames = match journal.sync_task().run() {
                Err(error) => failed(&mut journal, error)?,
                synced => synced?,
            };
            told.covered(frames);
        }
    }
    match journal.sync_task().run() {
        Err(error) => _ = failed(&mut journal, error)?,
        synced => _ = synced?,
    }
    told.durable = told.written.len();
    journal.close()
}

/// Opens what is left on `disk` and compares it with what the caller was told.
fn check(disk: &FaultyMemory, told: &Told, at_least: usize, context: &str) {
    let (mut journal, recovery) =
        open(disk, small_segments()).unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = read_all(disk);
    let mut possible: Vec<_> =
        (at_least..=told.written.len()).map(|count| numbered(&told.written[..count])).collect();
    if let Some(batch) = &told.doubtful {
        possible.push(numbered(&[told.written.clone(), vec![batch.clone()]].concat()));
    }
    assert!(possible.contains(&found), "{context}: {} entries, told {at_least}", found.len());
    let last = found.iter().filter_map(|(seq, _)| *seq).next_back().unwrap_or(Seq(0));
    assert_eq!(recovery.next_seq.0, last.0 + 1, "{context}");
    journal.append(&[over(99, TxnOutcome::None)]).unwrap();
    journal.close().unwrap();
    let report = verify(disk, None, None).unwrap();
    assert!(report.intact && report.torn.is_none(), "{context}: {report}");
    assert_eq!(report.records, last.0 + 1, "{context}");
}

fn check_all(storage: &FaultyMemory, told: &Told, context: &str) {
    for torn in [0, 100, usize::MAX] {
        check(&storage.crashed(torn), told, told.durable, &format!("{context}, power cut keeping {torn}"));
    }
    let killed = storage.copied();
    check(&killed, told, told.written.len(), &format!("{context}, killed"));
}

#[test]
fn whichever_write_fails_nothing_acknowledged_is_lost_and_nothing_is_half_there() {
    for fault in [WriteFault::Nothing, WriteFault::Short(1), WriteFault::Short(100), WriteFault::All] {
        for nth in 1.. {
            let (storage, mut told) = (FaultyMemory::new(), Told::default());
            storage.set_faults(Faults { write: Some((nth, fault)), ..Faults::default() });
            let result = run(&storage, &mut told);
            if storage.counts().0 < nth {
                result.unwrap();
                break;
            }
            if nth > 1 && nth < storage.counts().0 {
                result.unwrap();
                assert_eq!(told.written.len(), script().len());
            }
            check_all(&storage, &told, &format!("write {nth} fails with {fault:?}"));
        }
    }
}

#[test]
fn whichever_sync_fails_nothing_acknowledged_is_lost_and_the_writer_stops() {
    for nth in 1.. {
        let (storage, mut told) = (FaultyMemory::new(), Told::default());
        storage.set_faults(Faults { sync: Some(nth), ..Faults::default() });
        let result = run(&storage, &mut told);
        if storage.counts().1 < nth {
            result.unwrap();
            break;
        }
        assert!(matches!(result, Err(JournalError::Sync { .. })), "sync {nth}");
        check_all(&storage, &told, &format!("sync {nth} fails"));
    }
}

#[test]
fn whichever_sync_fails_the_writer_goes_on_if_and_only_if_all_is_on_the_disk() {
    for sync_works in [true, false] {
        let (mut resumed, mut stopped) = (0, 0);
        for nth in 4.. {
            let (storage, mut told) = (FaultyMemory::new(), Told::default());
            storage.set_faults(Faults { sync: Some(nth), sync_works, ..Faults::default() });
            let result = run_resuming(&storage, &mut told);
            if storage.counts().1 < nth {
                result.unwrap();
                break;
            }
            match result {
                Ok(()) => resumed += 1,
                Err(JournalError::Lost { .. }) if !sync_works => stopped += 1,
                // The last one, at the close: nothing comes behind it.
                Err(JournalError::Sync { .. }) if storage.counts().1 == nth => {}
                Err(error) => panic!("sync {nth}: {error}"),
            }
            check_all(&storage, &told, &format!("sync {nth} fails, works: {sync_works}"));
        }
        assert!(resumed > 0 && (sync_works == (stopped == 0)), "{resumed} {stopped}");
    }
}

#[test]
fn after_a_failed_sync_the_old_file_is_not_written_any_more() {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, Options::default()).unwrap().0;
    journal.append(&[started(1)]).unwrap();
    let old = journal.sync_task();
    storage.set_faults(Faults { sync: Some(1), sync_works: true, ..Faults::default() });
    assert!(matches!(journal.sync_task().run(), Err(JournalError::Sync { segment: 1, .. })));
    assert_eq!(journal.resume().unwrap(), 3);
    let names = segment_files(&storage);
    let before = storage.content(&names[0]).unwrap();
    journal.append(&[started(2)]).unwrap();
    assert!(matches!(old.run(), Err(JournalError::Finished { .. })));
    journal.close().unwrap();
    assert_eq!((names.len(), storage.content(&names[0]).unwrap()), (2, before));
    assert_eq!(read_all(&storage), numbered(&[vec![started(1)], vec![started(2)]]));
    assert!(verify(&storage.crashed(0), None, None).unwrap().intact);
}

#[test]
fn on_a_full_disk_the_reserve_takes_the_last_words() {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, Options::default()).unwrap().0;
    assert!(journal.refill_reserve().unwrap());
    let used =
        || storage.list().unwrap().iter().map(|name| storage.content(name).unwrap().len()).sum::<usize>();
    storage.set_faults(Faults { capacity: Some(used() as u64 + 10), ..Faults::default() });
    let (mut batches, mut refused) = (Vec::new(), 0);
    for number in 1.. {
        let batch = vec![over(number, TxnOutcome::None)];
        if let Err(error) = journal.append(&batch) {
            assert!(error.is_disk_full(), "{error}");
            refused += 1;
            if let Err(error) = journal.append_reserved(&batch) {
                assert!(error.is_disk_full(), "{error}");
                break;
            }
        }
        batches.push(batch);
    }
    // What is left of a piece is smaller than a block.
    assert!(refused > 200 && batches.len() > 5000, "{refused} of {}", batches.len());
    assert!(!journal.refill_reserve().unwrap());
    storage.set_faults(Faults::default());
    assert!(journal.refill_reserve().unwrap());
    batches.push(vec![over(1, TxnOutcome::None)]);
    journal.append(batches.last().unwrap()).unwrap();
    journal.close().unwrap();
    assert_eq!(read_all(&storage), numbered(&batches));
    assert!(verify(&storage, None, None).unwrap().intact);
}

#[test]
fn a_reserve_is_found_again_at_the_next_start() {
    let storage = FaultyMemory::new();
    for _ in 0..2 {
        let mut journal = open(&storage, Options::default()).unwrap().0;
        assert!(journal.refill_reserve().unwrap());
        assert_eq!(storage.content("journal.reserve").unwrap().len(), 1 << 20);
        journal.close().unwrap();
    }
}

#[test]
fn a_write_that_cannot_be_taken_back_stops_the_writer_and_is_cut_at_the_next_start() {
    for nth in 2.. {
        let (storage, mut told) = (FaultyMemory::new(), Told::default());
        let faults =
            Faults { write: Some((nth, WriteFault::Short(90))), truncate: Some(1), ..Faults::default() };
        storage.set_faults(faults);
        let result = run(&storage, &mut told);
        if storage.counts().0 < nth {
            break;
        }
        if let Err(error) = &result {
            assert!(matches!(error, JournalError::Finished { .. } | JournalError::Write { .. }), "{error}");
        }
        check_all(&storage, &told, &format!("write {nth} fails for good"));
    }
}

#[test]
fn power_may_fail_after_any_step() {
    let (storage, mut told) = (FaultyMemory::new(), Told::default());
    let mut journal = open(&storage, small_segments()).unwrap().0;
    for (index, batch) in script().into_iter().enumerate() {
        let appended = journal.append(&batch).unwrap();
        told.written.push(batch);
        told.ends.push(appended.end);
        check_all(&storage, &told, &format!("after append {index}"));
        if index % 4 == 0 {
            told.covered(journal.sync_task().run().unwrap());
            check_all(&storage, &told, &format!("after sync {index}"));
        }
    }
}

#[test]
fn a_crash_at_every_byte_of_the_last_frame_leaves_all_of_it_or_none() {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, Options::default()).unwrap().0;
    let first = vec![started(1), over(2, TxnOutcome::Open)];
    journal.append(&first).unwrap();
    journal.sync_task().run().unwrap();
    let before = journal.position().offset;
    let last = vec![started(3), ended(1, TxnOutcome::None)];
    journal.append(&last).unwrap();
    let length = usize::try_from(journal.position().offset - before).unwrap();
    for torn in 0..=length {
        let disk = storage.crashed(torn);
        let whole = torn == length;
        let (journal, recovery) = open(&disk, Options::default()).unwrap();
        assert_eq!(recovery.torn_bytes, if whole { 0 } else { torn as u64 });
        assert_eq!(recovery.open, [if whole { Seq(3) } else { Seq(1) }]);
        assert_eq!(recovery.next_seq, if whole { Seq(4) } else { Seq(3) });
        let kept = disk.list().unwrap().iter().filter(|name| name.ends_with(".torn")).count();
        assert_eq!(kept, usize::from(torn > 0 && !whole));
        journal.close().unwrap();
        let report = verify(&disk, None, None).unwrap();
        assert!(report.intact && report.clean_end && report.set_aside.len() == kept, "{torn}: {report}");
    }
}

#[test]
fn what_was_torn_twice_at_one_place_is_kept_twice() {
    let mut storage = FaultyMemory::new();
    for _ in 0..2 {
        let mut journal = open(&storage, Options::default()).unwrap().0;
        journal.sync_task().run().unwrap();
        journal.append(&[started(1)]).unwrap();
        storage = storage.crashed(80);
    }
    open(&storage, Options::default()).unwrap();
    assert_eq!(verify(&storage, None, None).unwrap().set_aside.len(), 2);
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room_again() {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, small_segments()).unwrap().0;
    let (mut batches, mut refused) = (Vec::new(), 0);
    for (index, batch) in script().into_iter().enumerate() {
        let used: usize =
            segment_files(&storage).iter().map(|name| storage.content(name).unwrap().len()).sum();
        let capacity = Some((used + index * 9) as u64);
        storage.set_faults(Faults { capacity, ..Faults::default() });
        let seq = journal.head().seq;
        if let Err(error) = journal.append(&batch) {
            assert!(error.is_disk_full() && !error.is_final(), "{error}");
            assert_eq!(journal.head().seq, seq);
            refused += 1;
            storage.set_faults(Faults::default());
            journal.append(&batch).unwrap();
        }
        batches.push(batch);
    }
    assert!(refused > 10);
    journal.sync_task().run().unwrap();
    assert_eq!(read_all(&storage), numbered(&batches));
    assert!(verify(&storage.crashed(0), None, None).unwrap().intact);
}

#[test]
fn after_a_failed_sync_nothing_is_written_or_synced_any_more() {
    let storage = FaultyMemory::new();
    let mut journal: Journal = open(&storage, Options::default()).unwrap().0;
    journal.append(&[started(1)]).unwrap();
    let (first, second) = (journal.sync_task(), journal.sync_task());
    storage.set_faults(Faults { sync: Some(1), ..Faults::default() });
    assert!(matches!(first.run(), Err(JournalError::Sync { segment: 1, .. })));
    assert!(matches!(second.run(), Err(JournalError::Finished { .. })));
    assert!(matches!(journal.append(&[started(2)]), Err(JournalError::Finished { .. })));
    assert!(journal.close().unwrap_err().is_final());
}
