//! Makes proofs: that a record is in the tree, that a tree continues an earlier one.
//!
//! Hashes of entries are not kept, so a proof reads the journal, from the last place before the entry whose place in
//! the tree is known: the beginning of its segment, or nearer. What a record became (its end, its transaction's end) are leaves of their own: they are
//! looked for behind it, up to the end of the signed tree.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::edge::{NoSubtree, Tiles};
use super::inclusion::InclusionProof;
use super::leaf::{Erasable, Leaves, Place, Salt};
use super::merkle::{self, leaf_hash};
use super::note::Note;
use super::store::{Mark, TileStore};
use super::tile::{TILE_WIDTH, Tile};
use super::waypoints::Waypoint;
use super::writer::{Latest, Published, TreeError};
use crate::journal::{Archive, JournalError, Partition, Position, Reader};
use crate::record::{Digest, Entry, Seal, Seq, TxnOutcome};
use crate::storage::Storage;

/// Makes proofs up to the last published checkpoint. Cheap to clone; every proof reads files.
#[derive(Clone)]
pub struct TreeReader {
    journal: Arc<dyn Storage>,
    archive: Arc<Archive>,
    latest: Latest,
}

/// That the tree of `to` leaves begins with that of `from` leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// Leaves of the earlier tree.
    pub from: u64,
    /// Its root.
    pub from_root: Digest,
    /// Leaves of the later tree.
    pub to: u64,
    /// Its root.
    pub to_root: Digest,
    /// RFC 6962, 2.1.2.
    pub hashes: Vec<Digest>,
    /// The last published checkpoint; it covers both.
    pub checkpoint: Note,
}

/// What a leaf says of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeafKind {
    /// That it began (and ended, if it was over at once).
    Record,
    /// How it ended.
    Completion,
    /// How its transaction ended.
    Settlement,
}

impl LeafKind {
    /// The word in a proof.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Completion => "completion",
            Self::Settlement => "settlement",
        }
    }
}

/// A value that the leaf has a commitment to, with what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// Which.
    pub value: Erasable,
    /// Its salt.
    pub salt: Salt,
    /// The value as [`leaf`](super::leaf) describes it.
    pub bytes: Vec<u8>,
}

/// One leaf about a record, and that it is in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafProof {
    /// What it says.
    pub kind: LeafKind,
    /// Its canonical bytes.
    pub entry: Vec<u8>,
    /// The values it has commitments to, as far as they are kept.
    pub openings: Vec<Opening>,
    /// The others, with the records that say why they were erased.
    pub erased: Vec<(Erasable, Seq)>,
    /// Where it is in the signed tree.
    pub inclusion: InclusionProof,
}

impl LeafProof {
    /// The hash of the leaf.
    pub fn hash(&self) -> Digest {
        leaf_hash(&self.entry)
    }
}

/// Everything that the tree holds about a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordProof {
    /// The record's number.
    pub seq: Seq,
    /// Its leaves, in the order of the tree.
    pub leaves: Vec<LeafProof>,
    /// Whether nothing more will be said of the record.
    pub is_final: bool,
}

impl TreeReader {
    /// Proofs about a journal, up to what is published in `latest`.
    pub fn new(journal: Arc<dyn Storage>, latest: Latest) -> Self {
        Self { archive: Arc::new(Archive::new(Arc::clone(&journal))), journal, latest }
    }

    /// The last published checkpoint.
    pub fn published(&self) -> Option<Arc<Published>> {
        self.latest.get()
    }

    /// The proof that the tree of `to` leaves continues that of `from`; none if they are not in this order,
    /// or not published yet.
    ///
    /// # Errors
    /// Files that cannot be read, or were changed.
    pub fn consistency(&self, from: u64, to: u64) -> Result<Option<ConsistencyProof>, TreeError> {
        let Some(published) = self.latest.get().filter(|latest| from <= to && to <= latest.tree.size) else {
            return Ok(None);
        };
        let sources = Sources::new(self, &published)?;
        let tiles = Tiles { edge: &published.edge, full: |tile| sources.full(tile) };
        let Some(hashes) = merkle::consistency_proof(&tiles, from, to)? else { return Ok(None) };
        Ok(Some(ConsistencyProof {
            from,
            from_root: merkle::root(&tiles, from)?,
            to,
            to_root: merkle::root(&tiles, to)?,
            hashes,
            checkpoint: published.note.clone(),
        }))
    }

    /// The proof of a record and what is known of its end; none if it is not in a published tree (yet).
    ///
    /// # Errors
    /// Files that cannot be read, or were changed.
    pub fn record(&self, seq: Seq) -> Result<Option<RecordProof>, TreeError> {
        let Some(published) = self.latest.get() else { return Ok(None) };
        let Some(mark) = published.marks.iter().rev().find(|mark| mark.seq <= seq.0) else { return Ok(None) };
        let dropped = TileStore::open(&*self.journal)?
            .map(|store| store.leaves(mark.segment, 0, 0))
            .transpose()?
            .flatten();
        // Its leaves are kept, and nothing else of it.
        if dropped.is_some() && !Partition::exists(&*self.journal, mark.segment)? {
            return Ok(None);
        }
        let mut found =
            Found { seq, leaves: Vec::new(), made: Leaves::new(), awaits: Some(LeafKind::Record) };
        let start = self.start(mark, self.latest.waypoints.before_record(seq.0));
        self.scan(start, published.tree.size, |index, own, entry, place| {
            found.look(index, own, entry, &place)
        })?;
        if found.leaves.is_empty() {
            return Ok(None);
        }
        let sources = Sources::new(self, &published)?;
        let tiles = Tiles { edge: &published.edge, full: |tile| sources.full(tile) };
        let mut leaves = Vec::new();
        for FoundLeaf { index, kind, entry, openings, erased } in found.leaves {
            let hashes = merkle::inclusion_proof(&tiles, index, published.tree.size)?;
            let hashes = hashes.ok_or(NoSubtree)?;
            let inclusion = InclusionProof { extra: None, index, hashes, checkpoint: published.note.clone() };
            leaves.push(LeafProof { kind, entry, openings, erased, inclusion });
        }
        Ok(Some(RecordProof { seq, leaves, is_final: found.awaits.is_none() }))
    }

    /// Where to begin: at a place whose leaf is known, or at the beginning of a segment.
    fn start(&self, mark: &Mark, known: Option<Waypoint>) -> Waypoint {
        let at = Position { segment: mark.segment, offset: 0 };
        let beginning = Waypoint { at, leaf: mark.size, seq: mark.seq };
        known.filter(|known| known.leaf > mark.size).unwrap_or(beginning)
    }

    /// Goes through the leaves from a place on, up to leaf `end`. What lies near is read by its place, without
    /// what is before it; the rest by following the journal.
    fn scan(
        &self,
        start: Waypoint,
        end: u64,
        mut visit: impl FnMut(u64, Option<Seq>, &Entry, Place<'_>) -> ControlFlow<()>,
    ) -> Result<(), TreeError> {
        let mut here = start;
        let mut visit = |here: &mut Waypoint, entries: &Entries, salt, seals: &Seals| {
            for (index, (seq, entry)) in (0..).zip(entries) {
                let place = Place::within(salt, seals, index);
                if here.leaf >= end || visit(here.leaf, *seq, entry, place).is_break() {
                    return ControlFlow::Break(());
                }
                here.leaf += 1;
                here.seq = seq.map_or(here.seq, |seq| seq.0 + 1);
            }
            ControlFlow::Continue(())
        };
        while here.at.offset > 0 && here.leaf - start.leaf < NEAR {
            let frame = match self.archive.frame(here.at) {
                // The segment ends here.
                Err(JournalError::NoSuchPosition { .. }) => break,
                frame => frame?,
            };
            if visit(&mut here, &frame.entries, frame.salt, &frame.seals).is_break() {
                return Ok(());
            }
            here.at = frame.next;
        }
        let mut reader = Reader::open(Arc::clone(&self.journal), Some(here.at))?;
        while let Some(frame) = reader.next_frame()? {
            self.latest.waypoints.pass(Waypoint { at: frame.at, ..here });
            if visit(&mut here, &frame.entries, frame.salt, &frame.seals).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// So many leaves are near.
const NEAR: u64 = 16_384;

/// The entries of a frame, records with their numbers.
type Entries = [(Option<Seq>, Entry)];
/// The seals of each, or none.
type Seals = [Option<Box<crate::record::Seals>>];

/// A leaf that says something of the record.
struct FoundLeaf {
    index: u64,
    kind: LeafKind,
    entry: Vec<u8>,
    openings: Vec<Opening>,
    erased: Vec<(Erasable, Seq)>,
}

/// Looks for what the journal says of one record.
struct Found {
    seq: Seq,
    leaves: Vec<FoundLeaf>,
    made: Leaves,
    /// What is still to come.
    awaits: Option<LeafKind>,
}

impl Found {
    fn look(&mut self, index: u64, own: Option<Seq>, entry: &Entry, place: &Place<'_>) -> ControlFlow<()> {
        let (kind, end) = match (self.awaits, entry) {
            (Some(LeafKind::Record), Entry::Record(record)) if own == Some(self.seq) => {
                (LeafKind::Record, record.done.as_ref())
            }
            (Some(LeafKind::Completion), Entry::Completion(end)) if end.seq == self.seq => {
                (LeafKind::Completion, Some(end))
            }
            (Some(LeafKind::Settlement), Entry::Settlement(settled)) if settled.seqs.contains(&self.seq) => {
                (LeafKind::Settlement, None)
            }
            _ => return ControlFlow::Continue(()),
        };
        let open = |value: Erasable| {
            let bytes = value.value(entry)?;
            Some(Opening { value, salt: place.salt(value)?, bytes })
        };
        let openings = Erasable::ALL.into_iter().filter_map(open).collect();
        let seals = place.seals.map(|seals| seals.0).unwrap_or_default();
        let erased = Erasable::ALL.into_iter().zip(seals).filter_map(|(value, seal)| match seal {
            Seal::Erased { by, .. } => Some((value, by)),
            _ => None,
        });
        let (entry, erased) = (self.made.bytes(own, entry, place).to_vec(), erased.collect());
        self.leaves.push(FoundLeaf { index, kind, entry, openings, erased });
        self.awaits = match (kind, end) {
            (LeafKind::Record, None) => Some(LeafKind::Completion),
            (_, Some(end)) if end.txn_outcome == TxnOutcome::Open => Some(LeafKind::Settlement),
            _ => None,
        };
        if self.awaits.is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// Full tiles of one published tree: from their files, or from the journal. Each is read once.
struct Sources<'a> {
    reader: &'a TreeReader,
    published: &'a Published,
    store: Option<TileStore>,
    read: RefCell<BTreeMap<Tile, Vec<Digest>>>,
}

impl<'a> Sources<'a> {
    fn new(reader: &'a TreeReader, published: &'a Published) -> Result<Self, TreeError> {
        let store = TileStore::open(&*reader.journal)?;
        Ok(Self { reader, published, store, read: RefCell::default() })
    }

    fn full(&self, tile: Tile) -> Result<Vec<Digest>, TreeError> {
        if let Some(known) = self.read.borrow().get(&tile) {
            return Ok(known.clone());
        }
        let hashes = match (tile.level(), &self.store) {
            (0, _) => Some(self.leaves(tile)?),
            (_, Some(store)) => store.tile(tile)?,
            (_, None) => None,
        };
        let hashes = hashes.filter(|hashes| hashes.len() as u64 == tile.width());
        let hashes = hashes.ok_or_else(|| TreeError::Missing(tile.to_string()))?;
        self.read.borrow_mut().insert(tile, hashes.clone());
        Ok(hashes)
    }

    /// A tile of level 0, from the entries themselves.
    fn leaves(&self, tile: Tile) -> Result<Vec<Digest>, TreeError> {
        let mut from = tile.index() * TILE_WIDTH;
        let end = from + tile.width();
        let (mut made, mut hashes) = (Leaves::new(), Vec::new());
        let mut mark = None;
        // Of segments whose records were dropped, the leaves are kept.
        while from < end {
            mark = self.published.marks.iter().rev().find(|mark| mark.size <= from);
            let (Some(mark), Some(store)) = (mark, &self.store) else { break };
            let Some(kept) = store.leaves(mark.segment, from - mark.size, end - from)? else { break };
            if kept.is_empty() {
                break;
            }
            from += kept.len() as u64;
            hashes.extend(kept);
        }
        let Some(mark) = mark.filter(|_| from < end) else { return Ok(hashes) };
        let start = self.reader.start(mark, self.reader.latest.waypoints.before_leaf(from));
        self.reader.scan(start, end, |index, seq, entry, place| {
            if index >= from {
                hashes.push(made.hash(seq, entry, &place));
            }
            ControlFlow::Continue(())
        })?;
        Ok(hashes)
    }
}

impl From<NoSubtree> for TreeError {
    fn from(missing: NoSubtree) -> Self {
        Self::Missing(missing.to_string())
    }
}
