//! Payloads read whole, alone, cut and changed.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::journal::encode::Dictionary;
use crate::record::{Certainty, Param};

const ORIGIN: Origin = Origin { first: Seq(900), time: Timestamp(7) };

/// Frames by their offset: what a segment would hold.
#[derive(Default)]
struct Frames(Vec<(u32, Vec<u8>)>);

impl Load for Frames {
    type Error = Malformed;

    fn load(&mut self, offset: u32) -> Result<Vec<u8>, Malformed> {
        let frame = self.0.iter().find(|(at, _)| *at == offset);
        frame.map(|(_, payload)| payload.clone()).ok_or(Malformed("there is no such frame"))
    }
}

fn read(payload: &[u8], offset: u32, from: &mut Frames) -> Result<Vec<Item>, Malformed> {
    let read = Payload::read(payload, offset, ORIGIN)?;
    let items = read.items(1, &mut Definitions::new(), from)?;
    for (index, item) in items.iter().enumerate() {
        let alone = read.item(index, 1, &mut Definitions::new(), from)?;
        assert_eq!(alone.map(|(item, _)| item).as_ref(), Some(item));
    }
    assert_eq!(read.item(items.len(), 1, &mut Definitions::new(), from)?, None);
    Ok(items)
}

fn shape() -> Shape {
    Shape {
        fingerprint: "f".into(),
        command: "SELECT".into(),
        class: Vec::new(),
        tables: vec!["public.t".into()],
        reads: Vec::new(),
        filters: Vec::new(),
        writes: Vec::new(),
        via: Vec::new(),
        analysis: Certainty::Exact,
        analysis_notes: Vec::new(),
        tags: Vec::new(),
    }
}

/// A frame that defines, and one that imports all it needs, with its entries.
fn frames() -> (Frames, Vec<u8>, Vec<Item>) {
    let done = Completion { rows: Some(300), ..Completion::new(Outcome::Ok, TxnOutcome::Open) };
    let record = Record {
        id: Uuid::from_u128(7),
        time: Timestamp(5),
        event: Event::Query,
        who: Arc::new(Who { groups: vec!["dev".into()], ..Who::default() }),
        sql: Some(Sql::Once(b"select 'a', 17"[..].into())),
        shape: Some(Arc::new(shape())),
        params: vec![Param::Int(-1), Param::Text("x".into()), Param::Float(1.5)],
        detail: "d".into(),
        done: Some(done.clone()),
    };
    let shapeless = Record { sql: Some(Sql::Shared(b"select $1"[..].into())), ..record.clone() };
    let entries = [
        Entry::Record(Box::new(record)),
        Entry::Record(Box::new(shapeless)),
        Entry::Completion(Completion { seq: Seq(899), error: "e".into(), ..done }),
        Entry::Settlement(Settlement {
            seqs: [3, 4, 5, 9, 8].map(Seq).to_vec(),
            txn_outcome: TxnOutcome::Committed,
        }),
    ];
    let mut dictionary = Dictionary::new();
    let mut payload = |offset| {
        dictionary.begin(offset);
        entries.iter().for_each(|entry| dictionary.put_entry(entry, ORIGIN));
        let mut payload = Vec::new();
        dictionary.finish(&mut payload, ORIGIN);
        payload
    };
    let (first, second) = (payload(100), payload(1000));
    assert!(second.len() < first.len() && !second.windows(3).any(|three| three == b"dev"));
    (Frames(vec![(100, first)]), second, entries.map(Item::Entry).to_vec())
}

#[test]
fn a_frame_is_read_with_the_frames_it_names_and_no_cut_of_it_reads_as_the_whole() {
    let (mut from, whole, items) = frames();
    assert_eq!(read(&whole, 1000, &mut from).as_ref(), Ok(&items));
    let first = from.0[0].1.clone();
    assert_eq!(read(&first, 100, &mut from).as_ref(), Ok(&items));
    for end in 0..whole.len() {
        assert_ne!(read(&whole[..end], 1000, &mut from).as_ref(), Ok(&items), "{end}");
    }
    assert!(read(&whole, 1001, &mut from).is_err());
    assert!(read(&whole, 1000, &mut Frames::default()).is_err());
}

#[test]
fn imports_of_imports_and_of_later_frames_are_refused() {
    let (mut from, whole, _) = frames();
    from.0.push((1000, whole));
    // What is at byte 0 of the frame at 1000 is an import itself.
    let import = |back: u8| vec![0, 3, definition::IMPORT, back, 0];
    assert!(read(&import(100), 1100, &mut from).is_err());
    for back in [0, 101] {
        assert!(read(&import(back), 100, &mut from).is_err());
    }
}

#[test]
fn lying_lengths_are_refused_without_being_believed() {
    for kind in 0..=u8::MAX {
        for head in [&[0, 0, kind][..], &[0, 40, kind]] {
            let mut lie = head.to_vec();
            lie.extend_from_slice(&[0xff; 9]);
            lie.push(0x01);
            lie.extend_from_slice(&[0xff; 40]);
            assert!(read(&lie, 100, &mut Frames::default()).is_err(), "{kind}");
        }
    }
}

proptest! {
    #[test]
    fn outside_bytes_never_panic(bytes in prop::collection::vec(prop_oneof![0_u8..12, any::<u8>()], 0..200)) {
        let (mut from, ..) = frames();
        let _ = read(&bytes, 1000, &mut from);
    }

    #[test]
    fn changed_payloads_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), first in any::<bool>()) {
        let (mut from, mut whole, _) = frames();
        let changed = if first { &mut from.0[0].1 } else { &mut whole };
        let at = at.index(changed.len());
        changed[at] = byte;
        let _ = read(&whole, 1000, &mut from);
    }
}
