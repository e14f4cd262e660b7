//! What may go: full texts, records, single values. What must stay: every leaf, every head, every place.

use std::sync::Arc;

use pgwitness_index::journal::{Archive, Journal, Options, Partition, Position, ReadFrame, Values};
use pgwitness_index::proof::leaf::{Erasable, commitment};
use pgwitness_index::proof::note::{Note, SignerKey};
use pgwitness_index::proof::{
    Against, Classes, HeadCheck, Latest, Published, Report, TreeReader, TreeWriter, verify, verify_against,
};
use pgwitness_index::record::{Completion, Entry, Event, Outcome, Record, Seq, Timestamp, TxnOutcome, Who};
use pgwitness_index::retention::{
    Deed, Holds, RetentionError, Survey, drop_records, drop_texts, erase_values, find,
};
use pgwitness_index::storage::{Faults, FaultyMemory, Storage, WriteFault};
use uuid::Uuid;

use crate::records::*;

const EVERYTHING: Position = Position { segment: u64::MAX, offset: u64::MAX };

fn key() -> SignerKey {
    SignerKey::from_seed("example.com/log", &[7; 32]).unwrap()
}

fn segments() -> Options {
    Options { segment_bytes: 3000 }
}

fn disk(storage: &FaultyMemory) -> Arc<dyn Storage> {
    Arc::new(storage.clone())
}

/// A failed statement: its message is a part of its full text.
fn failed(seq: u64, txn: TxnOutcome) -> Entry {
    let mut end = Completion::new(Outcome::Error, txn);
    (end.seq, end.sqlstate, end.error) = (Seq(seq), "22012".into(), format!("secret of {seq}"));
    Entry::Completion(end)
}

/// Three entries and two records a round; ends lie in later segments now and then.
fn write(journal: &mut Journal, rounds: u64) {
    for _ in 0..rounds {
        let next = journal.head().seq.0 + 1;
        journal.append(&[started(next), over(next + 1, TxnOutcome::Open)]).unwrap();
        journal.append(&[failed(next, TxnOutcome::Open)]).unwrap();
        journal.append(&[settled(&[next, next + 1], TxnOutcome::Committed)]).unwrap();
    }
}

fn go_on(storage: &FaultyMemory, rounds: u64) {
    let mut journal = open(storage, segments()).unwrap().0;
    write(&mut journal, rounds);
    journal.close().unwrap();
}

fn publish(storage: &FaultyMemory) -> Arc<Published> {
    let latest = Latest::default();
    let mut writer = TreeWriter::open(disk(storage), key().public(), latest.clone()).unwrap();
    while !writer.step(EVERYTHING, 100).unwrap() {}
    writer.publish(&key()).unwrap();
    latest.get().unwrap()
}

fn reader(storage: &FaultyMemory) -> TreeReader {
    let latest = Latest::default();
    let mut writer = TreeWriter::open(disk(storage), key().public(), latest.clone()).unwrap();
    while !writer.step(EVERYTHING, 100).unwrap() {}
    writer.publish(&key()).unwrap();
    TreeReader::new(disk(storage), latest)
}

/// Writes what is to be done, signed.
fn announce(storage: &FaultyMemory, deed: &Deed) -> (Seq, Arc<Published>) {
    let mut journal = open(storage, segments()).unwrap().0;
    let record = Record {
        id: Uuid::from_u128(0xdeed),
        time: Timestamp(1_795_900_000_000_000),
        event: deed.event(),
        who: Arc::new(Who { user: "root@example.org".into(), ..Who::default() }),
        sql: None,
        shape: None,
        params: deed.params(),
        detail: deed.sentence(),
        done: Some(Completion::new(Outcome::Ok, TxnOutcome::None)),
    };
    let seq = journal.append(&[Entry::Record(Box::new(record))]).unwrap().first;
    journal.close().unwrap();
    (seq, publish(storage))
}

fn partition(storage: &FaultyMemory, segment: u64) -> Partition {
    *Partition::all(&disk(storage)).unwrap().iter().find(|partition| partition.segment == segment).unwrap()
}

fn holds(texts: &[&str]) -> Holds {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    Holds::parse(&texts, Timestamp(1_795_900_000_000_000), None).unwrap()
}

fn survey(storage: &FaultyMemory, segment: u64, holds: &Holds) -> Survey {
    let archive = Archive::new(disk(storage));
    Survey::of(&disk(storage), &archive, &partition(storage, segment), holds).unwrap()
}

fn texts_deed(partition: &Partition, held: u64) -> Deed {
    let last = Seq(partition.end.unwrap().0 - 1);
    Deed::Texts { segment: partition.segment, first: partition.first, last, held, rule: "full = 90d".into() }
}

/// The whole of it: what to drop, the record, the head, the rewriting.
fn strip(storage: &FaultyMemory, segment: u64, holds: &Holds) -> Result<u64, RetentionError> {
    let (partition, survey) = (partition(storage, segment), survey(storage, segment, holds));
    let (by, published) = announce(storage, &texts_deed(&partition, survey.held_texts));
    drop_texts(&disk(storage), &published, &partition, &survey, by)
}

fn drop_through(storage: &FaultyMemory, through: u64) -> Result<(), RetentionError> {
    let last = Seq(partition(storage, through).end.unwrap().0 - 1);
    let (by, published) = announce(storage, &Deed::Records { through, last, rule: "metadata = 7y".into() });
    for partition in Partition::all(&disk(storage)).unwrap() {
        if partition.segment <= through {
            drop_records(&disk(storage), &published, &partition, by)?;
        }
    }
    Ok(())
}

fn journal_of(rounds: u64) -> FaultyMemory {
    let storage = FaultyMemory::new();
    go_on(&storage, rounds);
    publish(&storage);
    storage
}

fn check(storage: &FaultyMemory) -> Report {
    verify(storage, None, None).unwrap()
}

fn intact(storage: &FaultyMemory) -> Report {
    let report = check(storage);
    assert!(report.intact, "{report}");
    report
}

fn reason(report: &Report) -> &str {
    assert!(!report.intact, "{report}");
    &report.broken.as_ref().unwrap().reason
}

fn content(storage: &FaultyMemory, segment: u64) -> Vec<u8> {
    storage.content(&format!("{segment:020}.journal")).unwrap()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_segment_without_its_texts_has_the_same_places_numbers_digests_and_heads() {
    let storage = journal_of(60);
    let before = frames_of(disk(&storage), None).unwrap();
    let (old, old_head) = (publish(&storage), check(&storage).head);
    for segment in [1, 2] {
        assert!(strip(&storage, segment, &Holds::default()).unwrap() > 10);
        assert!(!contains(&content(&storage, segment), "secret of"));
    }
    let after = frames_of(disk(&storage), None).unwrap();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((before.at, before.next, before.digest), (after.at, after.next, after.digest));
        let seqs = |frame: &ReadFrame| frame.entries.iter().map(|(seq, _)| *seq).collect::<Vec<_>>();
        assert_eq!(seqs(before), seqs(after));
        for ((_, before), (_, after)) in before.entries.iter().zip(&after.entries) {
            match (before, after) {
                (Entry::Record(before), Entry::Record(stripped)) if stripped.sql.is_none() => {
                    assert!(stripped.params.is_empty());
                    assert_eq!(
                        (before.id, before.time, &before.who),
                        (stripped.id, stripped.time, &stripped.who)
                    );
                    assert_eq!((before.event, &before.shape), (stripped.event, &stripped.shape));
                }
                (Entry::Completion(before), Entry::Completion(after)) if after.error.is_empty() => {
                    assert_eq!((before.seq, &before.sqlstate), (after.seq, &after.sqlstate));
                }
                (before, after) => assert_eq!(before, after),
            }
        }
    }
    let report = intact(&storage);
    assert!(report.classes.metadata > 20 && report.classes.full > 20, "{report}");
    assert_eq!(report.classes.metadata + report.classes.full, report.records);
    // Every head of before is part of it.
    let against = Against { head: Some(old_head), ..Against::default() };
    assert_eq!(verify_against(&storage, against).unwrap().given_head, Some(HeadCheck::Found));
    let against = Against { checkpoint: Some(old.note.clone()), ..Against::default() };
    assert_eq!(verify_against(&storage, against).unwrap().given_head, Some(HeadCheck::Found));
}

#[test]
fn the_archive_finds_records_of_a_rewritten_segment_at_their_old_places() {
    let storage = journal_of(60);
    let archive = Archive::new(disk(&storage));
    let places: Vec<_> = (1..=60).map(|seq| archive.find(Seq(seq)).unwrap().unwrap()).collect();
    let frames = frames_of(disk(&storage), None).unwrap();
    // It has read the text, and must not answer with it afterwards.
    let (_, Entry::Record(record)) = archive.entry(places[0].0, places[0].1).unwrap() else { panic!() };
    assert!(record.sql.is_some());
    strip(&storage, 1, &Holds::default()).unwrap();
    for archive in [&archive, &Archive::new(disk(&storage))] {
        for (seq, place) in (1..).zip(&places) {
            assert_eq!(archive.find(Seq(seq)).unwrap(), Some(*place), "{seq}");
            let (own, Entry::Record(record)) = archive.entry(place.0, place.1).unwrap() else { panic!() };
            assert_eq!((own, record.id.as_u128()), (Some(Seq(seq)), u128::from(seq)));
            assert_eq!(record.sql.is_none(), place.0.segment == 1);
        }
        for frame in frames.iter().filter(|frame| frame.at.segment == 1) {
            let stored = archive.frame(frame.at).unwrap();
            assert_eq!(
                (stored.at, stored.next, stored.entries.len()),
                (frame.at, frame.next, frame.entries.len())
            );
        }
        let within = Position { offset: frames[0].at.offset + 1, ..frames[0].at };
        assert!(archive.frame(within).is_err());
    }
    // Readers go on from any place that they kept.
    for (index, frame) in frames.iter().enumerate() {
        let rest = frames_of(disk(&storage), Some(frame.next)).unwrap();
        let places = |frames: &[ReadFrame]| frames.iter().map(|frame| frame.at).collect::<Vec<_>>();
        assert!(places(&rest).starts_with(&places(&frames)[index + 1..]), "{}", frame.next);
    }
}

#[test]
fn a_proof_of_before_and_one_of_after_are_of_the_same_leaf() {
    let storage = journal_of(60);
    let before = reader(&storage).record(Seq(5)).unwrap().unwrap();
    strip(&storage, 1, &Holds::default()).unwrap();
    let after = reader(&storage).record(Seq(5)).unwrap().unwrap();
    for (before, after) in before.leaves.iter().zip(&after.leaves) {
        assert_eq!((before.hash(), before.inclusion.index), (after.hash(), after.inclusion.index));
        after.inclusion.verify(&after.hash(), &[key().public().clone()]).unwrap();
        // Whoever kept a value can still show that it is the one.
        for opening in &before.openings {
            let commitment = commitment(&opening.salt, &opening.bytes).0;
            assert!(after.entry.windows(32).any(|window| window == commitment));
        }
        for (value, _) in &after.erased {
            assert!(before.openings.iter().any(|opening| opening.value == *value));
            assert!(after.openings.iter().all(|opening| opening.value != *value));
        }
    }
    let gone: Vec<_> = after.leaves.iter().flat_map(|leaf| &leaf.erased).map(|(value, _)| *value).collect();
    assert_eq!(gone, [Erasable::Sql, Erasable::Params, Erasable::Error]);
    // The salt of its frame would open what is gone.
    assert!(
        after.leaves.iter().flat_map(|leaf| &leaf.openings).all(|opening| opening.value == Erasable::Who)
    );
}

#[test]
fn what_a_hold_names_keeps_its_text_until_the_hold_is_lifted() {
    let storage = journal_of(60);
    let held = holds(&["seq:7", "params:3"]);
    assert_eq!(survey(&storage, 1, &held).held_records, 2);
    strip(&storage, 1, &held).unwrap();
    let texts = |storage: &FaultyMemory| {
        let with = |(seq, entry): (Option<Seq>, Entry)| match entry {
            Entry::Record(record) if record.sql.is_some() => seq,
            _ => None,
        };
        let first = partition(storage, 1).end.unwrap();
        read_all(storage).into_iter().filter_map(with).filter(|seq| *seq < first).collect::<Vec<_>>()
    };
    assert_eq!(texts(&storage), [Seq(3), Seq(7)]);
    // The message of a held statement is held.
    assert!(
        contains(&content(&storage, 1), "secret of 7") && !contains(&content(&storage, 1), "secret of 5")
    );
    assert_eq!(partition(&storage, 1).texts, Some(4));
    intact(&storage);
    strip(&storage, 1, &holds(&["seq:7"])).unwrap();
    assert_eq!(texts(&storage), [Seq(7)]);
    strip(&storage, 1, &Holds::default()).unwrap();
    assert_eq!((texts(&storage), partition(&storage, 1).texts), (Vec::new(), Some(0)));
    intact(&storage);
}

#[test]
fn a_hold_that_asks_for_the_end_finds_it_in_a_later_segment_and_an_open_record_counts_as_held() {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, segments()).unwrap().0;
    journal.append(&[started(1), started(2), started(3)]).unwrap();
    write(&mut journal, 40);
    journal.append(&[failed(1, TxnOutcome::None), ended(2, TxnOutcome::None)]).unwrap();
    journal.begin_segment().unwrap();
    journal.close().unwrap();
    publish(&storage);
    let survey = survey(&storage, 1, &holds(&["seq:1..3 outcome:error"]));
    assert_eq!((survey.held_records, survey.undecided), (2, 1));
}

#[test]
fn records_are_dropped_from_the_beginning_and_everything_else_still_holds() {
    let storage = journal_of(120);
    let (old, early) = (publish(&storage), check(&storage).head);
    go_on(&storage, 60);
    let count = check(&storage).records;
    strip(&storage, 2, &Holds::default()).unwrap();
    drop_through(&storage, 3).unwrap();
    assert_eq!(segment_files(&storage)[0], "00000000000000000004.journal");
    let report = intact(&storage);
    assert_eq!(report.classes.dropped, partition(&storage, 4).first.0 - 1);
    assert_eq!(report.records + report.classes.dropped, count + 2);
    // The rest is proven as before, and so is that the tree continues every earlier one.
    let proofs = reader(&storage);
    let kept = Seq(report.first_seq.unwrap());
    let proof = proofs.record(kept).unwrap().unwrap();
    for leaf in &proof.leaves {
        leaf.inclusion.verify(&leaf.hash(), &[key().public().clone()]).unwrap();
    }
    assert_eq!(proofs.record(Seq(1)).unwrap(), None);
    let size = proofs.published().unwrap().tree.size;
    for from in [1, 2, 5, 90, 100, 256, old.tree.size, size] {
        assert!(proofs.consistency(from, size).unwrap().is_some(), "{from}");
    }
    assert_eq!(proofs.consistency(old.tree.size, size).unwrap().unwrap().from_root, old.tree.root);
    let against = Against { checkpoint: Some(old.note.clone()), ..Against::default() };
    assert_eq!(verify_against(&storage, against).unwrap().given_head, Some(HeadCheck::Found));
    let against = Against { head: Some(early), ..Against::default() };
    assert_eq!(verify_against(&storage, against).unwrap().given_head, Some(HeadCheck::Found));
    // A part of what remains can be verified alone.
    let part = verify(&storage, Some((kept, Seq(kept.0 + 3))), None).unwrap();
    assert!(part.intact && part.records == 4, "{part}");
    // And the journal goes on, also after its next records are dropped.
    go_on(&storage, 60);
    publish(&storage);
    drop_through(&storage, 5).unwrap();
    intact(&storage);
}

#[test]
fn a_head_before_what_is_left_is_checked_by_its_checkpoint_alone() {
    let storage = FaultyMemory::new();
    go_on(&storage, 10);
    let (early, note) = (check(&storage).head, publish(&storage).note.clone());
    go_on(&storage, 90);
    publish(&storage);
    drop_through(&storage, 3).unwrap();
    let given = |head, checkpoint: Option<Note>| {
        let report = verify_against(&storage, Against { head, checkpoint, ..Against::default() }).unwrap();
        (report.given_head.unwrap(), report.intact)
    };
    assert_eq!(given(Some(early), None), (HeadCheck::Dropped, false));
    assert_eq!(given(Some(early), Some(note.clone())), (HeadCheck::Found, true));
    assert_eq!(given(None, Some(note)), (HeadCheck::Found, true));
}

#[test]
fn a_missing_segment_that_no_signed_record_explains_is_a_broken_journal() {
    let storage = journal_of(120);
    let lost = storage.copied();
    lost.remove("00000000000000000001.journal").unwrap();
    assert!(reason(&check(&lost)).contains("no signed record says that it was dropped"));
    // A record that nobody signed explains nothing.
    let forged = storage.copied();
    let last = Seq(partition(&forged, 1).end.unwrap().0 - 1);
    let deed = Deed::Records { through: 1, last, rule: "none".into() };
    let mut journal = open(&forged, segments()).unwrap().0;
    let mut record = match over(1, TxnOutcome::None) {
        Entry::Record(record) => record,
        _ => panic!(),
    };
    (record.event, record.params) = (Event::Retention, deed.params());
    journal.append(&[Entry::Record(record)]).unwrap();
    journal.close().unwrap();
    forged.remove("00000000000000000001.journal").unwrap();
    assert!(reason(&check(&forged)).contains("leaves"), "{}", check(&forged));
    drop_through(&storage, 1).unwrap();
    intact(&storage);
    let leaves = "tiles/leaves/00000000000000000001";
    forged.tamper(leaves, storage.content(leaves).unwrap());
    assert!(reason(&check(&forged)).contains("no signed record"), "{}", check(&forged));
    // Nor does one that speaks of less than is missing.
    storage.remove("00000000000000000002.journal").unwrap();
    assert!(reason(&check(&storage)).contains("no signed record"));
}

#[test]
fn what_is_kept_of_a_dropped_segment_must_be_what_was_signed() {
    let storage = journal_of(120);
    drop_through(&storage, 2).unwrap();
    let kept = "tiles/leaves/00000000000000000001";
    let bytes = storage.content(kept).unwrap();
    for at in [bytes.len() - 1, 50, 3] {
        let changed = storage.copied();
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        changed.tamper(kept, bytes);
        assert!(!check(&changed).intact, "{at}");
    }
    storage.remove(kept).unwrap();
    assert!(reason(&check(&storage)).contains("leaves"));
}

#[test]
fn a_text_that_is_gone_without_a_signed_record_is_a_broken_journal() {
    let storage = journal_of(60);
    let (partition, survey) = (partition(&storage, 1), survey(&storage, 1, &Holds::default()));
    // The record speaks of another segment.
    let deed = Deed::Texts { segment: 2, first: Seq(1), last: Seq(2), held: 0, rule: "full = 90d".into() };
    let (by, published) = announce(&storage, &deed);
    drop_texts(&disk(&storage), &published, &partition, &survey, by).unwrap();
    assert!(reason(&check(&storage)).contains("does not say so"), "{}", check(&storage));
}

#[test]
fn nothing_is_dropped_that_no_signed_head_covers() {
    let storage = journal_of(60);
    let published = publish(&storage);
    go_on(&storage, 60);
    let last =
        Partition::all(&disk(&storage)).unwrap().into_iter().rev().find(|last| last.end.is_some()).unwrap();
    let survey = survey(&storage, last.segment, &Holds::default());
    let refused = drop_texts(&disk(&storage), &published, &last, &survey, Seq(1));
    assert!(matches!(refused, Err(RetentionError::Unproven { .. })), "{refused:?}");
    // Nor on the word of a record that is not signed.
    let first = partition(&storage, 1);
    let refused = drop_records(&disk(&storage), &published, &first, Seq(published.next_seq));
    assert!(matches!(refused, Err(RetentionError::Unproven { .. })), "{refused:?}");
    intact(&storage);
}

#[test]
fn a_segment_that_was_changed_is_not_dropped() {
    let storage = journal_of(120);
    let other = FaultyMemory::new();
    let mut journal = open(&other, segments()).unwrap().0;
    write(&mut journal, 120);
    journal.close().unwrap();
    let (partition, survey) = (partition(&storage, 1), survey(&storage, 1, &Holds::default()));
    let (by, published) = announce(&storage, &texts_deed(&partition, 0));
    // Of the same numbers, and other salts.
    storage.tamper("00000000000000000001.journal", content(&other, 1));
    let refused = drop_texts(&disk(&storage), &published, &partition, &survey, by);
    assert!(matches!(refused, Err(RetentionError::Contradicts { segment: 1 })), "{refused:?}");
    let refused = drop_records(&disk(&storage), &published, &partition, by);
    assert!(matches!(refused, Err(RetentionError::Contradicts { segment: 1 })), "{refused:?}");
}

#[test]
fn values_of_one_record_are_erased_wherever_they_are_and_nothing_else() {
    let storage = journal_of(60);
    let values = Values::of(&[Erasable::Params, Erasable::Error]);
    let found = find(&disk(&storage), Seq(9)).unwrap();
    assert_eq!((found.record.id.as_u128(), found.ended), (9, true));
    let deed = Deed::Values { seq: Seq(9), values, reason: "art. 17".into() };
    let (by, published) = announce(&storage, &deed);
    let before = read_all(&storage);
    let mut erased = 0;
    for segment in &found.segments {
        erased +=
            erase_values(&disk(&storage), &published, &partition(&storage, *segment), Seq(9), values, by)
                .unwrap();
    }
    assert_eq!(erased, 2);
    let changed: Vec<_> = before
        .iter()
        .zip(&read_all(&storage))
        .filter(|(one, two)| one != two)
        .map(|(one, _)| one.clone())
        .collect();
    assert_eq!(changed.len(), 2);
    let report = intact(&storage);
    assert_eq!(report.classes, Classes { full: report.records - 1, erased: 1, ..Classes::default() });
    let proof = reader(&storage).record(Seq(9)).unwrap().unwrap();
    assert!(proof.leaves[0].openings.iter().any(|opening| opening.value == Erasable::Sql));
    assert_eq!(proof.leaves[0].erased, [(Erasable::Params, by)]);
    // The rest goes by the rule, later.
    strip(&storage, 1, &Holds::default()).unwrap();
    intact(&storage);
    assert!(matches!(find(&disk(&storage), Seq(100_000)), Err(RetentionError::NoRecord(_))));
}

#[test]
fn a_segment_of_format_1_is_rewritten_too() {
    let storage = released("v1");
    let before = frames_of(disk(&storage), None).unwrap();
    go_on(&storage, 10);
    publish(&storage);
    for partition in Partition::all(&disk(&storage)).unwrap().iter().filter(|partition| partition.segment < 3)
    {
        strip(&storage, partition.segment, &Holds::default()).unwrap();
    }
    let after = frames_of(disk(&storage), None).unwrap();
    assert!(before.iter().zip(&after).all(|(one, two)| (one.at, one.digest) == (two.at, two.digest)));
    assert!(intact(&storage).classes.metadata > 0);
}

/// Whatever fails, the journal is intact, nothing of it is half there, and the next try succeeds.
fn whichever(
    deed: impl Fn(&FaultyMemory) -> Result<(), RetentionError>,
    storage: &FaultyMemory,
    faults: impl Fn(u64) -> Faults,
    count: impl Fn((u64, u64)) -> u64,
) {
    for nth in 1.. {
        let tried = storage.copied();
        tried.set_faults(faults(nth));
        let result = deed(&tried);
        let done = count(tried.counts()) < nth;
        tried.set_faults(Faults::default());
        if done {
            result.unwrap();
            assert!(nth > 1);
            break;
        }
        for after in [tried.crashed(0), tried.crashed(10), tried.crashed(usize::MAX), tried.copied()] {
            let report = check(&after);
            assert!(report.intact, "{nth}: {report}");
            open(&after, segments()).unwrap();
            deed(&after).unwrap_or_else(|error| panic!("{nth}: {error}"));
            assert!(check(&after).intact, "{nth}");
        }
    }
}

#[test]
fn whichever_write_or_sync_fails_while_texts_are_dropped_the_segment_is_one_or_the_other() {
    let storage = journal_of(60);
    let (partition, survey) = (partition(&storage, 1), survey(&storage, 1, &Holds::default()));
    let (by, published) = announce(&storage, &texts_deed(&partition, 0));
    let deed =
        |storage: &FaultyMemory| drop_texts(&disk(storage), &published, &partition, &survey, by).map(|_| ());
    for fault in [WriteFault::Nothing, WriteFault::Short(100), WriteFault::All] {
        whichever(
            deed,
            &storage,
            |nth| Faults { write: Some((nth, fault)), ..Faults::default() },
            |counts| counts.0,
        );
    }
    whichever(deed, &storage, |nth| Faults { sync: Some(nth), ..Faults::default() }, |counts| counts.1);
}

#[test]
fn whichever_write_or_sync_fails_while_records_are_dropped_their_leaves_are_there_before_they_go() {
    let storage = journal_of(120);
    let last = Seq(partition(&storage, 2).end.unwrap().0 - 1);
    let (by, published) =
        announce(&storage, &Deed::Records { through: 2, last, rule: "metadata = 7y".into() });
    let deed = |storage: &FaultyMemory| {
        for partition in
            Partition::all(&disk(storage)).unwrap().iter().filter(|partition| partition.segment <= 2)
        {
            drop_records(&disk(storage), &published, partition, by)?;
        }
        Ok(())
    };
    for fault in [WriteFault::Nothing, WriteFault::Short(100), WriteFault::All] {
        whichever(
            deed,
            &storage,
            |nth| Faults { write: Some((nth, fault)), ..Faults::default() },
            |counts| counts.0,
        );
    }
    whichever(deed, &storage, |nth| Faults { sync: Some(nth), ..Faults::default() }, |counts| counts.1);
}

#[test]
fn no_changed_byte_of_a_rewritten_segment_goes_unnoticed() {
    let storage = journal_of(30);
    strip(&storage, 1, &holds(&["seq:7"])).unwrap();
    let bytes = content(&storage, 1);
    let unnoticed: Vec<usize> = (0..bytes.len())
        .step_by(7)
        .filter(|at| {
            let changed = storage.copied();
            let mut bytes = bytes.clone();
            bytes[*at] ^= 0x20;
            changed.tamper("00000000000000000001.journal", bytes);
            check(&changed).intact
        })
        .collect();
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}

#[test]
fn a_tree_whose_files_are_lost_is_made_again_over_dropped_segments() {
    let storage = journal_of(120);
    drop_through(&storage, 2).unwrap();
    let tree = publish(&storage).tree;
    storage.remove("tiles/marks").unwrap();
    assert_eq!(publish(&storage).tree, tree);
    intact(&storage);
}

/// Every file below a storage, with its path.
fn files(storage: &dyn Storage, path: &str) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for name in storage.list().unwrap() {
        let file = storage.read(&name).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        all.push((format!("{path}{name}"), bytes));
    }
    for name in storage.folders().unwrap() {
        all.extend(files(&*storage.folder(&name).unwrap(), &format!("{path}{name}/")));
    }
    all
}

/// Writes the files of the newest version of a rewritten journal anew, if asked to.
fn bless(version: &str) {
    if std::env::var_os("PGWITNESS_BLESS").is_none() {
        return;
    }
    let storage = journal_of(60);
    strip(&storage, 2, &holds(&["seq:30"])).unwrap();
    drop_through(&storage, 1).unwrap();
    for (path, bytes) in files(&storage, "") {
        let path = folder(version).join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_journal_with_a_rewritten_and_a_dropped_segment_is_read_and_verified_as_it_was_released() {
    bless("v3");
    let kept = pgwitness_index::storage::DirStorage::open(folder("v3")).unwrap();
    let storage = FaultyMemory::new();
    for (path, bytes) in files(&kept, "") {
        storage.tamper(&path, bytes);
    }
    assert_eq!(content(&storage, 2)[8], 3, "the version in its header");
    let report = intact(&storage);
    let Classes { full, metadata, erased, dropped } = report.classes;
    assert_eq!((full + metadata, erased), (report.records, 0));
    assert!(metadata > 10 && full > 10 && dropped > 10, "{report}");
    assert_eq!((partition(&storage, 2).texts, survey(&storage, 2, &Holds::default()).texts), (Some(1), 1));
    // What is left of it goes, too.
    strip(&storage, 2, &Holds::default()).unwrap();
    drop_through(&storage, 3).unwrap();
    intact(&storage);
}
