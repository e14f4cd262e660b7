//! The tree beside the journal: published heads that are never contradicted, proofs that hold, and what
//! verification finds.

use std::sync::Arc;

use pgwitness_index::journal::{Journal, Options, Position};
use pgwitness_index::proof::checkpoint::Checkpoint;
use pgwitness_index::proof::leaf::commitment;
use pgwitness_index::proof::merkle::{TreeHead, is_consistent};
use pgwitness_index::proof::note::{Note, SignerKey};
use pgwitness_index::proof::tile::Tile;
use pgwitness_index::proof::{
    Against, HeadCheck, Latest, LeafKind, Opened, Report, TileStore, TreeError, TreeReader, TreeWriter,
    verify, verify_against,
};
use pgwitness_index::record::{Entry, Seq, TxnOutcome};
use pgwitness_index::storage::{Faults, FaultyMemory, Storage, WriteFault};

use crate::records::*;

const EVERYTHING: Position = Position { segment: u64::MAX, offset: u64::MAX };

fn key() -> SignerKey {
    SignerKey::from_seed("example.com/log", &[7; 32]).unwrap()
}

fn writer(storage: &FaultyMemory) -> Result<(TreeWriter, Latest), TreeError> {
    let latest = Latest::default();
    let writer = TreeWriter::open(Arc::new(storage.clone()), key().public(), latest.clone())?;
    Ok((writer, latest))
}

/// Takes all that is there and publishes it.
fn publish(storage: &FaultyMemory) -> Result<(TreeWriter, Latest), TreeError> {
    let (mut writer, latest) = writer(storage)?;
    while !writer.step(EVERYTHING, 100)? {}
    writer.publish(&key())?;
    Ok((writer, latest))
}

/// Three entries and two records a round; the transaction of both is settled.
fn write(journal: &mut Journal, rounds: u64) {
    for _ in 0..rounds {
        let next = journal.head().seq.0 + 1;
        journal.append(&[started(next), over(next + 1, TxnOutcome::Open)]).unwrap();
        journal.append(&[ended(next, TxnOutcome::Open)]).unwrap();
        journal.append(&[settled(&[next, next + 1], TxnOutcome::Committed)]).unwrap();
    }
}

fn journal_of(rounds: u64) -> FaultyMemory {
    let storage = FaultyMemory::new();
    go_on(&storage, rounds);
    storage
}

fn go_on(storage: &FaultyMemory, rounds: u64) {
    let mut journal = open(storage, segments()).unwrap().0;
    write(&mut journal, rounds);
    journal.close().unwrap();
}

/// A few segments in each journal.
fn segments() -> Options {
    Options { segment_bytes: 6000 }
}

fn check(storage: &FaultyMemory) -> Report {
    verify(storage, None, None).unwrap()
}

fn reason(report: &Report) -> &str {
    assert!(!report.intact);
    &report.broken.as_ref().unwrap().reason
}

#[test]
fn a_published_head_covers_every_entry_and_verifies() {
    let storage = journal_of(100);
    let (writer, latest) = publish(&storage).unwrap();
    assert!(matches!(writer.opened(), Opened::Anew(_)));
    let published = latest.get().unwrap();
    assert_eq!((published.tree.size, writer.unpublished()), (400, 0));
    let report = check(&storage);
    assert!(report.intact, "{report}");
    let tree = report.tree.as_ref().unwrap();
    assert_eq!((tree.size, tree.checkpoints), (400, 1));
    assert!(tree.tiles > 0 && tree.key.as_deref() == Some(key().public().to_string().as_str()));
    assert!(report.to_string().contains("tree         400 entries"));
}

#[test]
fn the_tree_goes_on_from_the_last_segment_and_is_the_one_made_in_one_go() {
    let storage = journal_of(60);
    for round in 0..6 {
        let (writer, latest) = publish(&storage).unwrap();
        assert_eq!(matches!(writer.opened(), Opened::Resumed), round > 0);
        let anew = storage.copied();
        for name in ["checkpoint", "marks"] {
            anew.folder("tiles").unwrap().remove(name).unwrap();
        }
        let (_, same) = publish(&anew).unwrap();
        assert_eq!(latest.get().unwrap().note, same.get().unwrap().note);
        assert!(check(&storage).intact);
        go_on(&storage, 37);
    }
}

#[test]
fn nothing_beyond_what_is_durable_is_taken() {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, segments()).unwrap().0;
    let (mut writer, _) = writer(&storage).unwrap();
    let mut ends = Vec::new();
    for number in 1..40 {
        journal.append(&[over(number, TxnOutcome::None)]).unwrap();
        ends.push(journal.position());
    }
    for (taken, end) in (1..).zip(&ends) {
        assert!(writer.step(*end, 1000).unwrap());
        assert_eq!(writer.size(), taken);
    }
}

#[test]
fn a_journal_that_lost_its_end_is_not_signed_until_it_is_whole_again() {
    let storage = journal_of(20);
    let early = storage.copied();
    go_on(&storage, 20);
    let (_, latest) = publish(&storage).unwrap();
    let note = latest.get().unwrap().note.clone();
    // Somebody restores an old copy of the journal beside the published checkpoint.
    let store = TileStore::create(&early).unwrap();
    store.write_checkpoint(&note).unwrap();
    let (mut writer, late) = writer(&early).unwrap();
    while !writer.step(EVERYTHING, 100).unwrap() {}
    let refused = writer.publish(&key());
    assert!(matches!(refused, Err(TreeError::Behind { published: 160, found: 80 })), "{refused:?}");
    assert!(late.get().is_none());
    assert_eq!(store.checkpoint().unwrap(), Some(note));
    assert!(reason(&check(&early)).contains("was signed over 160 entries, and the journal has 80"));
    drop(writer);
    for name in segment_files(&storage) {
        early.tamper(&name, storage.content(&name).unwrap());
    }
    publish(&early).unwrap();
    assert!(check(&early).intact, "the journal is whole again");
}

#[test]
fn a_journal_that_was_written_anew_is_not_signed_and_does_not_verify() {
    let (storage, other) = (journal_of(20), FaultyMemory::new());
    publish(&storage).unwrap();
    let mut journal = open(&other, segments()).unwrap().0;
    for number in 1..200 {
        journal.append(&[over(number + 1000, TxnOutcome::None)]).unwrap();
    }
    journal.close().unwrap();
    assert!(check(&other).intact);
    for name in segment_files(&storage) {
        storage.remove(&name).unwrap();
    }
    for name in segment_files(&other) {
        storage.tamper(&name, other.content(&name).unwrap());
    }
    let refused = publish(&storage).map(|_| ());
    assert!(matches!(refused, Err(TreeError::Contradicts { size: 80 })), "{refused:?}");
    let report = check(&storage);
    assert!(reason(&report).contains("first 80 entries are not those that tiles/checkpoint was signed over"));
    assert!(report.broken.unwrap().after_seq > 0);
}

#[test]
fn another_key_is_refused_while_the_published_checkpoint_is_of_the_first() {
    let storage = journal_of(3);
    publish(&storage).unwrap();
    let other = SignerKey::from_seed("example.com/log", &[8; 32]).unwrap();
    let refused = TreeWriter::open(Arc::new(storage.clone()), other.public(), Latest::default()).map(|_| ());
    assert!(matches!(refused, Err(TreeError::OtherKey(_))));
    let report =
        verify_against(&storage, Against { key: Some(other.public().clone()), ..Against::default() });
    assert!(reason(&report.unwrap()).contains("not signed by a known key"));
}

#[test]
fn every_record_is_proven_with_its_end_and_its_values() {
    let storage = journal_of(150);
    let (_, latest) = publish(&storage).unwrap();
    let reader = TreeReader::new(Arc::new(storage.clone()), latest.clone());
    let keys = [key().public().clone()];
    for seq in [1, 2, 3, 128, 129, 299, 300] {
        let proof = reader.record(Seq(seq)).unwrap().unwrap();
        assert!(proof.is_final);
        let kinds: Vec<LeafKind> = proof.leaves.iter().map(|leaf| leaf.kind).collect();
        let expected: &[LeafKind] = match seq % 2 {
            1 => &[LeafKind::Record, LeafKind::Completion, LeafKind::Settlement],
            _ => &[LeafKind::Record, LeafKind::Settlement],
        };
        assert_eq!(kinds, expected, "{seq}");
        for leaf in &proof.leaves {
            assert_eq!(leaf.inclusion.verify(&leaf.hash(), &keys).unwrap().tree.size, 600);
            for opening in &leaf.openings {
                let commitment = commitment(&opening.salt, &opening.bytes).0;
                assert!(leaf.entry.windows(32).any(|window| window == commitment));
            }
        }
        let sql = proof.leaves[0].openings.iter().find(|opening| opening.value.as_str() == "sql").unwrap();
        assert_eq!(sql.bytes, format!("select {seq}").into_bytes());
    }
    assert_eq!(reader.record(Seq(301)).unwrap(), None);
}

#[test]
fn a_record_that_has_not_ended_is_proven_as_far_as_it_is_known() {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, segments()).unwrap().0;
    journal.append(&[started(1)]).unwrap();
    let (mut writer, latest) = publish(&storage).unwrap();
    let reader = TreeReader::new(Arc::new(storage.clone()), latest);
    let proof = reader.record(Seq(1)).unwrap().unwrap();
    assert_eq!((proof.leaves.len(), proof.is_final), (1, false));
    journal.append(&[ended(1, TxnOutcome::None)]).unwrap();
    assert!(!reader.record(Seq(1)).unwrap().unwrap().is_final, "what is not signed is not proven");
    writer.step(EVERYTHING, 10).unwrap();
    writer.publish(&key()).unwrap().unwrap();
    let proof = reader.record(Seq(1)).unwrap().unwrap();
    assert_eq!((proof.leaves.len(), proof.is_final), (2, true));
    assert_eq!(writer.publish(&key()).unwrap(), None, "nothing new, nothing signed");
}

#[test]
fn every_published_tree_continues_every_earlier_one() {
    let storage = journal_of(1);
    let mut heads: Vec<TreeHead> = Vec::new();
    for rounds in [1, 5, 63, 1, 64, 100] {
        let (_, latest) = publish(&storage).unwrap();
        heads.push(latest.get().unwrap().tree);
        let reader = TreeReader::new(Arc::new(storage.clone()), latest);
        let new = *heads.last().unwrap();
        for old in &heads {
            let proof = reader.consistency(old.size, new.size).unwrap().unwrap();
            assert_eq!((proof.from_root, proof.to_root), (old.root, new.root));
            assert!(is_consistent(old, &new, &proof.hashes));
        }
        assert_eq!(reader.consistency(new.size, new.size + 1).unwrap(), None);
        assert_eq!(reader.consistency(2, 1).unwrap(), None);
        go_on(&storage, rounds);
    }
}

#[test]
fn a_kept_checkpoint_shows_whether_the_journal_continues_it() {
    let storage = journal_of(30);
    let (writer, latest) = publish(&storage).unwrap();
    writer.keep().unwrap();
    let note = latest.get().unwrap().note.clone();
    drop(writer);
    go_on(&storage, 30);
    publish(&storage).unwrap();
    let given = |note: &Note| {
        let against = Against { checkpoint: Some(note.clone()), ..Against::default() };
        verify_against(&storage, against).unwrap()
    };
    let report = given(&note);
    assert_eq!((report.given_head, report.intact), (Some(HeadCheck::Found), true), "{report}");
    assert_eq!(report.tree.unwrap().checkpoints, 2);
    let forged = Note::parse(note.to_string().replacen("120", "121", 1).as_bytes()).unwrap();
    assert_eq!(given(&forged).given_head, Some(HeadCheck::Forged));
    let checkpoint = Checkpoint::of(&note).unwrap();
    let later = TreeHead { size: 1000, ..checkpoint.tree };
    let later = Checkpoint { tree: later, ..checkpoint.clone() }.sign(&key()).unwrap();
    assert_eq!(given(&later).given_head, Some(HeadCheck::EndsBefore));
    let other = TreeHead { size: 119, ..checkpoint.tree };
    let other = Checkpoint { tree: other, ..checkpoint }.sign(&key()).unwrap();
    let report = given(&other);
    assert_eq!((report.given_head, report.intact), (Some(HeadCheck::Differs), false));
}

#[test]
fn a_changed_tile_or_checkpoint_is_found() {
    let storage = journal_of(200);
    let (writer, _) = publish(&storage).unwrap();
    writer.keep().unwrap();
    assert!(check(&storage).intact);
    let store = TileStore::open(&storage).unwrap().unwrap();
    for tile in store.tiles().unwrap() {
        let name = format!("tiles/{tile}");
        let good = storage.content(&name).unwrap();
        for at in [0, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            storage.tamper(&name, bad);
            assert!(reason(&check(&storage)).contains(&format!("{name} is not what follows")), "{name}");
        }
        storage.tamper(&name, good[..good.len() - 1].to_vec());
        assert!(!check(&storage).intact);
        storage.tamper(&name, good);
    }
    for name in ["tiles/checkpoint", "tiles/checkpoints/00000000000000000800"] {
        let good = storage.content(name).unwrap();
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            storage.tamper(name, bad);
            assert!(!check(&storage).intact, "byte {at} of {name}");
        }
        storage.tamper(name, good);
    }
    assert!(check(&storage).intact);
}

#[test]
fn a_range_is_checked_from_the_tiles_at_its_segment() {
    let storage = journal_of(100);
    publish(&storage).unwrap();
    let report = verify(&storage, Some((Seq(150), Seq(160))), None).unwrap();
    assert!(report.intact && report.segments < segment_files(&storage).len() as u64, "{report}");
    let tree = report.tree.unwrap();
    assert_eq!((tree.size, tree.checkpoints), (400, 1));
    storage.folder("tiles").unwrap().remove("marks").unwrap();
    let report = verify(&storage, Some((Seq(150), Seq(160))), None).unwrap();
    assert!(report.intact && report.tree.is_none());
}

#[test]
fn the_whole_log_is_exported_as_tiles_that_hold_its_entries() {
    let storage = journal_of(200);
    let (_, latest) = publish(&storage).unwrap();
    // What is not signed yet is not exported: the partial tiles are those of the checkpoint.
    go_on(&storage, 3);
    let exported = FaultyMemory::new();
    let export = Some(TileStore::in_folder(Arc::new(exported.clone())));
    assert!(verify_against(&storage, Against { export, ..Against::default() }).unwrap().intact);
    let store = TileStore::in_folder(Arc::new(exported.clone()));
    assert_eq!(store.checkpoint().unwrap().as_ref(), Some(&latest.get().unwrap().note));
    let paths: Vec<String> = store.tiles().unwrap().iter().map(Tile::to_string).collect();
    assert_eq!(paths, ["tile/0/000", "tile/0/001", "tile/0/002", "tile/0/003.p/32", "tile/1/000.p/3"]);
    for (tile, entries) in [("tile/0/001", "tile/entries/001"), ("tile/0/003.p/32", "tile/entries/003.p/32")]
    {
        let hashes = store.tile(tile.parse().unwrap()).unwrap().unwrap();
        let bundle = exported.content(entries).unwrap();
        let (mut rest, mut leaves) = (bundle.as_slice(), Vec::new());
        while let Some((length, after)) = rest.split_first_chunk() {
            let (entry, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
            leaves.push(pgwitness_index::proof::merkle::leaf_hash(entry));
            rest = after;
        }
        assert_eq!(leaves, hashes, "{tile}");
    }
}

#[test]
fn whatever_write_or_sync_of_the_tree_fails_the_next_start_goes_on() {
    let prepared = journal_of(30);
    publish(&prepared).unwrap();
    go_on(&prepared, 40);
    let counted = prepared.copied();
    counted.set_faults(Faults::default());
    let (_, expected) = publish(&counted).unwrap();
    let (writes, syncs) = counted.counts();
    let faults = (1..=writes).flat_map(|nth| {
        [WriteFault::Nothing, WriteFault::Short(3), WriteFault::All]
            .map(|fault| Faults { write: Some((nth, fault)), ..Faults::default() })
    });
    let faults = faults.chain((1..=syncs).map(|nth| Faults { sync: Some(nth), ..Faults::default() }));
    for faults in faults {
        let storage = prepared.copied();
        storage.set_faults(faults);
        let failed = publish(&storage).map(|_| ());
        assert!(matches!(failed, Err(TreeError::Store(_))), "{faults:?}: {failed:?}");
        for disk in [storage.crashed(0), storage.crashed(7), storage.copied()] {
            assert!(check(&disk).intact, "{faults:?}");
            let (_, latest) = publish(&disk).unwrap();
            assert_eq!(latest.get().unwrap().note, expected.get().unwrap().note, "{faults:?}");
            assert!(check(&disk).intact, "{faults:?}");
        }
    }
}

#[test]
fn an_entry_that_was_changed_with_everything_repaired_is_still_found() {
    let storage = journal_of(300);
    publish(&storage).unwrap();
    // The same journal with one other value, written by the same program: chain and checksums are right.
    let other = FaultyMemory::new();
    let mut journal = open(&other, segments()).unwrap().0;
    let entries = read_all(&storage);
    for (seq, entry) in entries {
        let entry = match entry {
            Entry::Record(_) if seq == Some(Seq(201)) => started(9999),
            entry => entry,
        };
        journal.append(&[entry]).unwrap();
    }
    journal.close().unwrap();
    for name in segment_files(&storage) {
        storage.remove(&name).unwrap();
    }
    for name in segment_files(&other) {
        storage.tamper(&name, other.content(&name).unwrap());
    }
    assert!(!check(&storage).intact);
}

#[test]
fn a_proof_is_the_same_whether_its_place_in_the_tree_was_passed_or_must_be_looked_for() {
    let storage = journal_of(900);
    let reader = |storage: &FaultyMemory| {
        let (writer, latest) = publish(storage).unwrap();
        (writer.opened().clone(), TreeReader::new(Arc::new(storage.clone()), latest))
    };
    let (first, passed) = reader(&storage);
    let (second, looking) = reader(&storage);
    assert!(matches!(first, Opened::Anew(_)) && second == Opened::Resumed);
    for seq in (1..=1800).step_by(131) {
        let proof = passed.record(Seq(seq)).unwrap().unwrap();
        assert_eq!(Some(&proof), looking.record(Seq(seq)).unwrap().as_ref(), "{seq}");
        // By now it was passed there, too.
        assert_eq!(Some(&proof), looking.record(Seq(seq)).unwrap().as_ref(), "{seq}");
        for leaf in &proof.leaves {
            leaf.inclusion.verify(&leaf.hash(), &[key().public().clone()]).unwrap();
        }
    }
}
