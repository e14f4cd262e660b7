//! An intruder at the files: verification names the first bad place.

use pgwitness_index::journal::{Head, Options};
use pgwitness_index::proof::{HeadCheck, Report, verify};
use pgwitness_index::record::{Digest, Entry, Seq, TxnOutcome};
use pgwitness_index::storage::{FaultyMemory, Storage};

use crate::records::*;

/// A journal of several segments that ended cleanly, and its head.
fn journal() -> (FaultyMemory, Head) {
    journal_of(24)
}

fn journal_of(records: u64) -> (FaultyMemory, Head) {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, small_segments()).unwrap().0;
    for number in (1..=records).step_by(2) {
        journal.append(&[started(number), over(number + 1, TxnOutcome::Open)]).unwrap();
        journal.append(&[ended(number, TxnOutcome::Open)]).unwrap();
        journal.append(&[settled(&[number, number + 1], TxnOutcome::Committed)]).unwrap();
    }
    let head = journal.head();
    journal.close().unwrap();
    (storage, head)
}

/// Bytes of a segment's header and of a frame's fields, by the version in the header.
fn lengths(content: &[u8]) -> (usize, usize) {
    match content[8] {
        1 => (56, 68),
        _ => (76, 48),
    }
}

/// Where frames begin in a segment file, and its end.
fn boundaries(content: &[u8]) -> Vec<usize> {
    let (header, fields) = lengths(content);
    let mut at = vec![header];
    while let Some(length) = content.get(at[at.len() - 1] + 4..).and_then(|rest| rest.first_chunk()) {
        let length = u32::from_le_bytes(*length) & (u32::MAX >> 1);
        at.push(at[at.len() - 1] + fields + length as usize);
    }
    at
}

fn check(storage: &FaultyMemory) -> Report {
    verify(storage, None, None).unwrap()
}

fn place(report: &Report) -> (u64, u64) {
    let broken = report.broken.as_ref().unwrap_or_else(|| panic!("nothing is broken: {report}"));
    assert!(!report.intact);
    (broken.segment, broken.offset)
}

#[test]
fn an_untouched_journal_is_intact_and_counted() {
    let (storage, head) = journal();
    let report = verify(&storage, None, Some(head)).unwrap();
    assert!(report.intact && report.clean_end, "{report}");
    assert_eq!(report.given_head, Some(HeadCheck::Found));
    assert_eq!((report.records, report.executions, report.open, report.unsettled), (24, 24, 0, 0));
    assert_eq!(report.outcomes.get("ok"), Some(&24));
    assert_eq!(report.transactions.get("committed"), Some(&24));
    assert_eq!((report.first_seq, report.last_seq), (Some(1), Some(24)));
    assert_eq!(report.segments, segment_files(&storage).len() as u64);
    let size: usize = segment_files(&storage).iter().map(|name| storage.content(name).unwrap().len()).sum();
    assert_eq!(report.bytes, size as u64);
    assert!(serde_json::to_string(&report).unwrap().contains(r#""given_head":"found""#));
    assert!(report.to_string().starts_with("the journal is intact"));
}

#[test]
fn a_range_counts_its_records_only() {
    let (storage, head) = journal();
    for given in [None, Some(head)] {
        let report = verify(&storage, Some((Seq(10), Seq(14))), given).unwrap();
        assert!(report.intact, "{report}");
        assert_eq!((report.records, report.first_seq, report.last_seq), (5, Some(10), Some(14)));
        assert_eq!((report.outcomes.get("ok"), report.transactions.get("committed")), (Some(&5), Some(&5)));
        assert_eq!(report.segments < segment_files(&storage).len() as u64, given.is_none());
        assert_eq!(report.head.frames, check(&storage).head.frames);
    }
}

/// Flips one bit of each byte in turn; verification must name the frame in which it lies.
fn flip_everywhere(storage: &FaultyMemory) {
    assert!(segment_files(storage).len() > 1);
    for (index, name) in segment_files(storage).iter().enumerate() {
        let good = storage.content(name).unwrap();
        let (frames, (header, _)) = (boundaries(&good), lengths(&good));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            storage.tamper(name, bad);
            let frame = frames.iter().rev().find(|frame| **frame <= at).copied().unwrap_or(0);
            // The opening of a segment (its header and first frame) is one place.
            let frame = if frame == header { 0 } else { frame };
            assert_eq!(place(&check(storage)), (index as u64 + 1, frame as u64), "byte {at} of {name}");
        }
        storage.tamper(name, good);
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found_in_its_frame() {
    flip_everywhere(&journal_of(6).0);
}

#[test]
fn a_flipped_bit_in_a_compressed_frame_is_found() {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, Options { segment_bytes: 400 }).unwrap().0;
    for number in 1..=3 {
        let Entry::Record(mut record) = over(number, TxnOutcome::None) else { unreachable!("made above") };
        record.detail = "a long text that says the same again and again, ".repeat(40);
        journal.append(&[Entry::Record(record)]).unwrap();
    }
    journal.close().unwrap();
    let size: usize = segment_files(&storage).iter().map(|name| storage.content(name).unwrap().len()).sum();
    assert!(size < 1500, "{size} bytes: nothing is compressed");
    flip_everywhere(&storage);
}

#[test]
fn a_flipped_bit_anywhere_in_a_journal_of_version_1_is_found_in_its_frame() {
    flip_everywhere(&released("v1"));
}

#[test]
fn an_edit_with_repaired_checksums_breaks_the_chain_behind_it() {
    for (storage, fields) in [(journal().0, 48), (released("v1"), 68)] {
        let name = segment_files(&storage)[0].clone();
        let good = storage.content(&name).unwrap();
        let frames = boundaries(&good);
        let mut edits = 0;
        for index in 1..frames.len() - 1 {
            let (start, end) = (frames[index], frames[index + 1]);
            let mut bad = good.clone();
            let Some(digit) = bad[start + fields..end].iter().position(|byte| *byte == b's') else {
                continue;
            };
            bad[start + fields + digit] = b'S';
            let crc = crc32fast::hash(&bad[start + fields..end]);
            bad[start + fields - 8..start + fields - 4].copy_from_slice(&crc.to_le_bytes());
            let crc = crc32fast::hash(&bad[start..start + fields - 4]);
            bad[start + fields - 4..start + fields].copy_from_slice(&crc.to_le_bytes());
            storage.tamper(&name, bad);
            let next = if end == good.len() { (2, 0) } else { (1, end as u64) };
            assert_eq!(place(&check(&storage)), next);
            edits += 1;
        }
        assert!(edits > 0);
    }
}

#[test]
fn a_changed_segment_header_with_a_repaired_checksum_breaks_the_chain() {
    let (storage, _) = journal();
    let name = &segment_files(&storage)[1];
    let good = storage.content(name).unwrap();
    // The time from which all times of the segment are counted.
    let mut bad = good.clone();
    bad[64] ^= 1;
    let crc = crc32fast::hash(&bad[..72]);
    bad[72..76].copy_from_slice(&crc.to_le_bytes());
    storage.tamper(name, bad);
    let (segment, offset) = place(&check(&storage));
    assert_eq!((segment, offset), (2, boundaries(&good)[1] as u64));
}

#[test]
fn removed_frames_reordered_frames_and_repeated_frames_are_found() {
    let (storage, _) = journal();
    let name = &segment_files(&storage)[1];
    let good = storage.content(name).unwrap();
    let frames = boundaries(&good);
    let (a, b, c) = (frames[1], frames[2], frames[3]);
    let removed = [&good[..a], &good[b..]].concat();
    let swapped = [&good[..a], &good[b..c], &good[a..b], &good[c..]].concat();
    for bad in [removed, swapped] {
        storage.tamper(name, bad);
        assert_eq!(place(&check(&storage)), (2, a as u64));
    }
    storage.tamper(name, [&good[..b], &good[a..]].concat());
    assert_eq!(place(&check(&storage)), (2, b as u64));
}

#[test]
fn a_sealed_segment_cut_short_is_found_even_at_a_boundary() {
    let (storage, _) = journal();
    let name = &segment_files(&storage)[1];
    let good = storage.content(name).unwrap();
    let frames = boundaries(&good);
    for &at in &frames[1..frames.len() - 1] {
        storage.tamper(name, good[..at].to_vec());
        assert_eq!(place(&check(&storage)), (3, 0));
        storage.tamper(name, good[..at + 5].to_vec());
        assert_eq!(place(&check(&storage)), (2, at as u64));
    }
    storage.tamper(name, Vec::new());
    assert_eq!(place(&check(&storage)), (2, 0));
}

#[test]
fn missing_exchanged_and_foreign_segments_are_named() {
    let (storage, _) = journal();
    let names = segment_files(&storage);
    let contents: Vec<_> = names.iter().map(|name| storage.content(name).unwrap()).collect();
    for index in 0..names.len() - 1 {
        let disk = storage.copied();
        disk.remove(&names[index]).unwrap();
        let report = check(&disk);
        assert_eq!(place(&report), (index as u64 + 1, 0));
        assert!(report.broken.unwrap().reason.contains("missing"));

        let disk = storage.copied();
        disk.tamper(&names[index], contents[index + 1].clone());
        disk.tamper(&names[index + 1], contents[index].clone());
        assert_eq!(place(&check(&disk)), (index as u64 + 1, 0));
    }
    // A segment of the same number from another journal.
    let other = FaultyMemory::new();
    let mut journal = open(&other, small_segments()).unwrap().0;
    for number in 1..25 {
        journal.append(&[over(number, TxnOutcome::None)]).unwrap();
    }
    for index in [1, 2] {
        let disk = storage.copied();
        disk.tamper(&names[index], other.content(&names[index]).unwrap());
        assert_eq!(place(&check(&disk)), (index as u64 + 1, 0));
    }
}

#[test]
fn only_a_kept_head_shows_a_cut_end_or_an_older_copy() {
    let (storage, head) = journal();
    let names = segment_files(&storage);
    let last = names.last().unwrap();
    let good = storage.content(last).unwrap();
    let frames = boundaries(&good);
    storage.tamper(last, good[..frames[1]].to_vec());
    assert!(check(&storage).intact);
    let report = verify(&storage, None, Some(head)).unwrap();
    assert!(!report.intact && report.broken.is_none());
    assert_eq!(report.given_head, Some(HeadCheck::EndsBefore));

    storage.remove(last).unwrap();
    let report = verify(&storage, None, Some(head)).unwrap();
    assert_eq!((report.intact, report.given_head), (false, Some(HeadCheck::EndsBefore)));

    storage.remove(&names[0]).unwrap();
    let report = verify(&storage, None, Some(head)).unwrap();
    assert_eq!((report.intact, report.given_head), (false, Some(HeadCheck::NotReached)));
}

#[test]
fn a_journal_written_anew_differs_from_a_kept_head() {
    let (storage, head) = journal();
    for given in [
        Head { digest: Digest([7; 32]), ..head },
        Head { seq: Seq(head.seq.0 - 1), ..head },
        Head { frames: head.frames - 1, ..head },
        Head { time: None, ..head },
    ] {
        let report = verify(&storage, None, Some(given)).unwrap();
        assert_eq!((report.intact, report.given_head), (false, Some(HeadCheck::Differs)));
    }
}

#[test]
fn an_earlier_head_stays_part_of_a_growing_journal() {
    let storage = FaultyMemory::new();
    let mut heads = Vec::new();
    for number in 1..20 {
        let mut journal = open(&storage, small_segments()).unwrap().0;
        heads.push(journal.head());
        journal.append(&[over(number, TxnOutcome::None)]).unwrap();
        heads.push(journal.head());
    }
    for head in heads {
        let report = verify(&storage, None, Some(head)).unwrap();
        assert!(report.intact, "{head:?}: {report}");
    }
}

#[test]
fn an_unfinished_write_at_the_end_is_told_but_no_fault() {
    let storage = FaultyMemory::new();
    let mut journal = open(&storage, Options::default()).unwrap().0;
    journal.append(&[started(1)]).unwrap();
    journal.sync_task().run().unwrap();
    let end = journal.position().offset;
    journal.append(&[started(2)]).unwrap();
    let report = check(&storage.crashed(70));
    assert!(report.intact && !report.clean_end, "{report}");
    let torn = report.torn.unwrap();
    assert_eq!((torn.segment, torn.offset, torn.bytes), (1, end, 70));
    assert_eq!((report.records, report.open), (1, 1));
    assert!(report.to_string().contains("unfinished   70 bytes"), "{report}");
}

#[test]
fn an_empty_directory_verifies_as_an_empty_journal() {
    let report = check(&FaultyMemory::new());
    assert!(report.intact);
    assert_eq!((report.records, report.segments), (0, 0));
}
