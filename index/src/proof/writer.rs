//! Follows the journal, grows the tree, publishes its heads.
//!
//! Nothing is published that contradicts what was published before: on opening, the tree is read up to the
//! last published checkpoint and must have its root there. Until it does, [`TreeWriter::publish`] refuses.

use std::sync::{Arc, PoisonError, RwLock};

use super::checkpoint::{Checkpoint, CheckpointError};
use super::edge::Edge;
use super::leaf::{Leaves, Place};
use super::merkle::TreeHead;
use super::note::{Note, SignerKey, VerifierKey};
use super::store::{Mark, StoreError, TileStore};
use super::waypoints::{Waypoint, Waypoints};
use crate::journal::{JournalError, Partition, Position, ReadFrame, Reader};
use crate::storage::Storage;

/// Why the tree cannot go on, or a proof cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The tree's own files could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The published checkpoint is not ours to go on from.
    #[error(
        "the published checkpoint was not made with the signing key that is configured: {0}. \
         Configure the key it was made with, or move the folder of the tree away to begin a log of another name"
    )]
    OtherKey(CheckpointError),
    /// The journal ends before what was published of it.
    #[error(
        "a checkpoint over {published} entries was published, and the journal holds {found}: its end was lost, \
         or it was replaced by an older copy. Nothing is signed until it is whole again"
    )]
    Behind {
        /// Entries of the published checkpoint.
        published: u64,
        /// Entries of the journal.
        found: u64,
    },
    /// The journal is another one than what was published of it.
    #[error(
        "the journal's first {size} entries are not those of the checkpoint that was published over them. \
         Nothing is signed. Run `pgwitness verify`"
    )]
    Contradicts {
        /// Entries of the published checkpoint.
        size: u64,
    },
    /// The first segments are gone, and what stands for them too.
    #[error(
        "the journal begins with segment {segment}, and the tiles that stand for those before it are gone"
    )]
    NoBeginning {
        /// The first segment there is.
        segment: u64,
    },
    /// What would be signed cannot be.
    #[error(transparent)]
    Sign(#[from] CheckpointError),
    /// A tile, or a part of the tree, that should be there is not.
    #[error("the tree has no {0}: its files were changed. Move the folder away to have them made again")]
    Missing(String),
}

/// How a [`TreeWriter`] began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// From the last segment's beginning.
    Resumed,
    /// From the journal's beginning, and why.
    Anew(String),
}

/// The tree at a published checkpoint, for those who make proofs.
#[derive(Debug)]
pub struct Published {
    /// The checkpoint, signed.
    pub note: Note,
    /// What it says.
    pub tree: TreeHead,
    /// The number of the first record that it does not cover.
    pub next_seq: u64,
    pub(super) edge: Edge,
    pub(super) marks: Vec<Mark>,
}

impl Published {
    /// Where segments begin in the tree.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }
}

/// The last published checkpoint, as it changes. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Latest {
    published: Arc<RwLock<Option<Arc<Published>>>>,
    pub(super) waypoints: Waypoints,
}

impl Latest {
    /// The last published checkpoint; none before the first of this process.
    pub fn get(&self) -> Option<Arc<Published>> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, published: Published) {
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(published));
    }
}

/// Follows the journal. After an error it is of no more use: open it again.
pub struct TreeWriter {
    store: TileStore,
    reader: Reader,
    /// Read, and not yet due.
    pending: Option<ReadFrame>,
    leaves: Leaves,
    edge: Edge,
    marks: Vec<Mark>,
    next_seq: u64,
    opened: Opened,
    published: Option<TreeHead>,
    /// What was published by an earlier process, until the tree is there.
    owed: Option<TreeHead>,
    latest: Latest,
}

impl TreeWriter {
    /// Opens the tree of a journal for a key. What it publishes is seen in `latest`.
    ///
    /// # Errors
    /// The files cannot be used, or the published checkpoint was made with another key.
    pub fn open(journal: Arc<dyn Storage>, key: &VerifierKey, latest: Latest) -> Result<Self, TreeError> {
        let store = TileStore::create(&*journal)?;
        let note = store.checkpoint()?;
        let checkpoint = note.map(|note| Checkpoint::verified(&note, std::slice::from_ref(key)));
        let owed = checkpoint.transpose().map_err(TreeError::OtherKey)?.map(|checkpoint| checkpoint.tree);
        store.write_key(key)?;
        let (start, opened) = Start::find(&journal, &store, owed)?;
        let mut writer = Self {
            store,
            reader: start.reader,
            pending: None,
            leaves: Leaves::new(),
            edge: start.edge,
            marks: start.marks,
            next_seq: start.next_seq,
            opened,
            published: owed,
            owed,
            latest,
        };
        writer.check_owed()?;
        Ok(writer)
    }

    /// How it began.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Leaves that no published checkpoint covers.
    pub fn unpublished(&self) -> u64 {
        self.size().saturating_sub(self.published.map_or(0, |tree| tree.size))
    }

    /// Takes what the journal has before `until`, a boundary up to which it is durable, and stops after
    /// `entries_max` entries (and the rest of their frame). Whether everything was taken.
    ///
    /// # Errors
    /// The journal or the disk, or the journal is not the one that was published.
    pub fn step(&mut self, until: Position, entries_max: usize) -> Result<bool, TreeError> {
        let mut taken = 0;
        while taken < entries_max {
            if self.pending.is_none() && self.reader.position().is_some_and(|at| at >= until) {
                return Ok(true);
            }
            let frame = match self.pending.take() {
                Some(frame) => frame,
                None => match self.reader.next_frame()? {
                    Some(frame) => frame,
                    None => return Ok(true),
                },
            };
            if frame.next > until {
                self.pending = Some(frame);
                return Ok(true);
            }
            taken += frame.entries.len();
            self.frame(&frame)?;
        }
        Ok(false)
    }

    /// Signs the tree as it is and publishes it, if it is larger than what was published before.
    ///
    /// # Errors
    /// The tree has not reached what was published earlier; the disk.
    pub fn publish(&mut self, key: &SignerKey) -> Result<Option<Note>, TreeError> {
        if let Some(owed) = self.owed {
            return Err(TreeError::Behind { published: owed.size, found: self.size() });
        }
        let tree = self.edge.head();
        let known = self.latest.get().is_some_and(|latest| latest.tree == tree);
        if known {
            return Ok(None);
        }
        let note = Checkpoint::new(key, tree).sign(key)?;
        self.store.write_checkpoint(&note)?;
        self.published = Some(tree);
        self.latest.set(Published {
            note: note.clone(),
            tree,
            next_seq: self.next_seq,
            edge: self.edge.clone(),
            marks: self.marks.clone(),
        });
        Ok(Some(note))
    }

    /// Keeps the last published checkpoint beside those kept before.
    ///
    /// # Errors
    /// The disk.
    pub fn keep(&self) -> Result<(), TreeError> {
        if let Some(latest) = self.latest.get() {
            self.store.keep_checkpoint(&latest.note, latest.tree.size)?;
        }
        Ok(())
    }

    fn frame(&mut self, frame: &ReadFrame) -> Result<(), TreeError> {
        if self.marks.last().is_none_or(|mark| mark.segment < frame.at.segment) {
            self.mark(frame.at.segment)?;
        }
        let (leaf, seq) = (self.edge.size(), self.next_seq);
        self.latest.waypoints.pass(Waypoint { at: frame.at, leaf, seq });
        for (index, (seq, entry)) in (0..).zip(&frame.entries) {
            let leaf = self.leaves.hash(*seq, entry, &Place::within(frame.salt, &frame.seals, index));
            let store = &self.store;
            self.edge.push(leaf, |tile, hashes| match tile.level() {
                0 => Ok(()),
                _ => store.write_tile(tile, hashes),
            })?;
            self.next_seq = seq.map_or(self.next_seq, |seq| seq.0 + 1);
            if self.owed.is_some() {
                self.check_owed()?;
            }
        }
        Ok(())
    }

    /// A segment begins here.
    fn mark(&mut self, segment: u64) -> Result<(), TreeError> {
        for (tile, hashes) in self.edge.tiles() {
            self.store.write_tile(tile, hashes)?;
        }
        self.marks.push(Mark { segment, seq: self.next_seq, size: self.edge.size() });
        Ok(self.store.write_marks(&self.marks)?)
    }

    fn check_owed(&mut self) -> Result<(), TreeError> {
        if let Some(owed) = self.owed.filter(|owed| owed.size == self.edge.size()) {
            if owed.root != self.edge.head().root {
                return Err(TreeError::Contradicts { size: owed.size });
            }
            self.owed = None;
        }
        Ok(())
    }
}

/// Where to begin.
struct Start {
    reader: Reader,
    edge: Edge,
    marks: Vec<Mark>,
    next_seq: u64,
}

impl Start {
    /// At the last segment whose beginning is known and not beyond what was published; else, anew.
    fn find(
        journal: &Arc<dyn Storage>,
        store: &TileStore,
        owed: Option<TreeHead>,
    ) -> Result<(Self, Opened), TreeError> {
        let mut why = "there is no tree yet".to_owned();
        let marks = store.marks().unwrap_or_else(|error| {
            why = error.to_string();
            Vec::new()
        });
        let reach = owed.map_or(u64::MAX, |owed| owed.size);
        for count in (1..=marks.len()).rev() {
            let known = marks.get(..count).unwrap_or_default();
            match known
                .last()
                .filter(|mark| mark.size <= reach)
                .map(|mark| Self::at(journal, store, mark, known))
            {
                None => {}
                Some(Ok(start)) => return Ok((start, Opened::Resumed)),
                Some(Err(error)) => why = error.to_string(),
            }
        }
        let mut reader = Reader::open(Arc::clone(journal), None)?;
        // The first frame's segment is known once it is read, so read it from a second reader.
        let first = reader.next_frame()?.map_or(1, |frame| frame.at.segment);
        let mut start = Self {
            reader: Reader::open(Arc::clone(journal), None)?,
            edge: Edge::default(),
            marks: Vec::new(),
            next_seq: 1,
        };
        for segment in 1..first {
            start.dropped(store, segment).map_err(|_| TreeError::NoBeginning { segment: first })?;
        }
        if let Some(first) = Partition::all(journal)?.first().filter(|_| first > 1) {
            start.next_seq = first.first.0;
        }
        Ok((start, Opened::Anew(why)))
    }

    /// Adds a segment of which nothing but the leaves is kept.
    fn dropped(&mut self, store: &TileStore, segment: u64) -> Result<(), TreeError> {
        let missing = || TreeError::Missing(format!("leaves of segment {segment}"));
        let leaves = store.leaves(segment, 0, u64::MAX)?.ok_or_else(missing)?;
        for (tile, hashes) in self.edge.tiles() {
            store.write_tile(tile, hashes)?;
        }
        let seq = store.dropped()?.iter().find(|(mark, _)| mark.segment == segment).map(|(mark, _)| mark.seq);
        self.marks.push(Mark { segment, seq: seq.ok_or_else(missing)?, size: self.edge.size() });
        for leaf in leaves {
            self.edge.push(leaf, |tile, hashes| match tile.level() {
                0 => Ok(()),
                _ => store.write_tile(tile, hashes),
            })?;
        }
        Ok(())
    }

    fn at(
        journal: &Arc<dyn Storage>,
        store: &TileStore,
        mark: &Mark,
        marks: &[Mark],
    ) -> Result<Self, TreeError> {
        let position = Position { segment: mark.segment, offset: 0 };
        let reader = Reader::open(Arc::clone(journal), Some(position))?;
        let edge = Edge::resume(mark.size, |tile| store.tile(tile))?;
        let edge = edge.ok_or_else(|| TreeError::Missing(format!("tiles of {} entries", mark.size)))?;
        Ok(Self { reader, edge, marks: marks.to_vec(), next_seq: mark.seq })
    }
}
