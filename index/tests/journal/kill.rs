//! A writer that is killed in the middle of its work, again and again on one journal.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use pgwitness_index::journal::{Journal, Options};
use pgwitness_index::proof::verify;
use pgwitness_index::record::{Entry, Seq, TxnOutcome};
use pgwitness_index::storage::DirStorage;

use crate::records::*;

/// Says to a second process of this test where to write.
const DIR: &str = "PGWITNESS_TEST_KILLED_WRITER";
/// Kills; with `PGWITNESS_SLOW` ten times as many.
const ROUNDS: u64 = 15;
/// Segments end often, so that some kills meet their beginnings.
const OPTIONS: Options = Options { segment_bytes: 8_000 };
const WORD: &str = "written ";

/// The batch that begins with record `number`: one that is over, and one whose end comes in a second
/// batch, with two more records.
fn batches(number: u64) -> [Vec<Entry>; 2] {
    [
        vec![over(number, TxnOutcome::Committed), started(number + 1)],
        vec![ended(number + 1, TxnOutcome::None), over(number + 2, TxnOutcome::None)],
    ]
}

/// Appends until it is killed, and says on its output what was written.
fn write(dir: &std::ffi::OsStr) {
    let storage = Arc::new(DirStorage::open(dir).unwrap());
    let (mut journal, recovery) = Journal::open(storage, OPTIONS).unwrap();
    let mut next = recovery.next_seq.0;
    loop {
        for batch in batches(next) {
            let appended = journal.append(&batch).unwrap();
            if appended.first.0 % 5 == 0 {
                assert!(journal.sync_task().run().unwrap() >= appended.end);
            }
            let mut out = std::io::stdout().lock();
            // One write: a line is there or not.
            out.write_all(format!("{WORD}{}\n", journal.head().seq).as_bytes()).unwrap();
            out.flush().unwrap();
        }
        next += 3;
    }
}

#[test]
fn a_writer_killed_at_any_moment_loses_nothing_that_it_said_was_written() {
    if let Some(dir) = std::env::var_os(DIR) {
        return write(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let rounds = if std::env::var_os("PGWITNESS_SLOW").is_some() { ROUNDS * 10 } else { ROUNDS };
    let (mut last, mut torn) = (0, 0);
    for round in 1..=rounds {
        let name = "kill::a_writer_killed_at_any_moment_loses_nothing_that_it_said_was_written";
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let mut said =
            (&mut lines).map_while(Result::ok).filter_map(|line| line.strip_prefix(WORD)?.parse().ok());
        // Another moment each time.
        for _ in 0..=round * 7919 % 250 {
            last = said.next().unwrap();
        }
        writer.kill().unwrap();
        last = said.last().unwrap_or(last);
        writer.wait().unwrap();

        let storage = Arc::new(DirStorage::open(dir.path()).unwrap());
        let (journal, recovery) = Journal::open(storage.clone(), OPTIONS).unwrap();
        torn += u64::from(recovery.torn_bytes > 0);
        drop(journal);
        assert!(
            recovery.next_seq.0 > last,
            "round {round}: {last} was written, {} comes next",
            recovery.next_seq
        );
        let mut expected = 1;
        for (seq, entry) in
            frames_of(storage.clone(), None).unwrap().into_iter().flat_map(|frame| frame.entries)
        {
            let (Some(seq), Entry::Record(record)) = (seq, entry) else { continue };
            assert_eq!((seq, record.id.as_u128()), (Seq(expected), u128::from(expected)));
            expected += 1;
        }
        assert_eq!(expected, recovery.next_seq.0);
        assert!(verify(&*storage, None, None).unwrap().intact);
    }
    println!("{rounds} kills, {last} records, {torn} torn ends");
}
