//! Grows the tree again while the journal is verified, and compares it with everything that was published.

use std::collections::BTreeMap;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::edge::Edge;
use super::leaf::{Leaves, Place};
use super::note::{Note, VerifierKey};
use super::report::{HeadCheck, TreeReport};
use super::store::{StoreError, TileStore};
use super::tile::{TILE_HEIGHT, TILE_WIDTH, Tile};
use super::writer::TreeError;
use crate::record::{Digest, Entry, Seq};
use crate::storage::Storage;

/// What the tree is compared with.
pub(super) struct TreeCheck {
    edge: Edge,
    leaves: Leaves,
    store: Option<TileStore>,
    /// Partial and full tiles that are kept, by level and index.
    kept: BTreeMap<(u32, u64), Vec<Tile>>,
    /// Published roots that are still ahead, by size.
    ahead: BTreeMap<u64, Vec<(String, Digest)>>,
    given: Option<Given>,
    key: Option<VerifierKey>,
    /// What is wrong with a file, whatever the journal says.
    fault: Option<String>,
    /// Leaves under the largest checkpoint.
    signed: u64,
    checkpoints: u64,
    tiles: u64,
    export: Option<Export>,
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// With the first segment there is.
    WithTheJournal,
    /// Behind some that are there and are not read.
    Within,
}

/// A checkpoint that somebody kept elsewhere.
struct Given {
    size: u64,
    root: Digest,
    check: Option<HeadCheck>,
}

/// Where a whole log is written to, for tools of c2sp.org/tlog-tiles: as far as its last checkpoint, because
/// the partial tiles must be of that size.
struct Export {
    to: TileStore,
    bundle: Vec<u8>,
    /// Entries in the bundle: less than a tile has if some were dropped.
    bundled: u64,
    /// The last checkpoint, and its size; without one, everything is written.
    checkpoint: Option<(Note, u64)>,
}

impl TreeCheck {
    /// Reads what was published. `segment` is where the journal will be read from: without a mark for it
    /// there is nothing to compare with. If it is the first there is, the leaves of those before are kept.
    pub(super) fn open(
        journal: &dyn Storage,
        segment: u64,
        begins: Begins,
        given: Option<&Note>,
        key: Option<VerifierKey>,
        export: Option<TileStore>,
    ) -> Result<Option<Self>, TreeError> {
        let store = TileStore::open(journal)?;
        let edge = match begins {
            Begins::WithTheJournal => Some(Edge::default()),
            Begins::Within => beginning(store.as_ref(), segment)?,
        };
        let Some(edge) = edge else { return Ok(None) };
        let mut check = Self {
            edge,
            leaves: Leaves::new(),
            kept: BTreeMap::new(),
            ahead: BTreeMap::new(),
            given: None,
            key,
            fault: None,
            signed: 0,
            checkpoints: 0,
            tiles: 0,
            export: None,
            store,
        };
        check.read_files()?;
        if let Some(to) = export {
            let last = check.store.as_ref().map(TileStore::checkpoint).transpose()?.flatten();
            let sized = |note: Note| Ok::<_, TreeError>((Checkpoint::of(&note)?.tree.size, note));
            let checkpoint = last.map(sized).transpose()?.map(|(size, note)| (note, size));
            check.export = Some(Export { to, bundle: Vec::new(), bundled: 0, checkpoint });
        }
        if let Some(given) = given {
            check.give(given)?;
        }
        check.compare_heads();
        if begins == Begins::WithTheJournal {
            for dropped in 1..segment {
                check.dropped(dropped)?;
            }
        }
        Ok(Some(check))
    }

    /// Adds the leaves of a segment that is not there any more.
    fn dropped(&mut self, segment: u64) -> Result<(), TreeError> {
        let leaves = match &self.store {
            Some(store) => match store.leaves(segment, 0, u64::MAX) {
                Err(StoreError::Damaged { .. }) => None,
                leaves => leaves?,
            },
            None => None,
        };
        let Some(leaves) = leaves else {
            // Without them nobody knows the places of the others in the tree.
            self.signed = 0;
            self.fault
                .get_or_insert(format!("what was kept of segment {segment}, its leaves, is gone or damaged"));
            return Ok(());
        };
        for leaf in leaves {
            if self.export.as_ref().is_some_and(|export| export.ends_at(self.edge.size())) {
                self.finish_export()?;
            }
            self.leaf(leaf)?;
        }
        Ok(())
    }

    /// Leaves so far.
    pub(super) fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Leaves under the largest checkpoint whose signature is right.
    pub(super) fn signed(&self) -> u64 {
        self.signed
    }

    fn read_files(&mut self) -> Result<(), TreeError> {
        let Some(store) = &self.store else { return Ok(()) };
        if self.key.is_none() {
            self.key = store.key()?;
        }
        let begun = self.edge.size();
        for tile in store.tiles()? {
            let end = (tile.index() * TILE_WIDTH + tile.width()) << (tile.level() * TILE_HEIGHT);
            if end > begun {
                self.kept.entry((tile.level(), tile.index())).or_default().push(tile);
            }
        }
        let checkpoints = match store.checkpoints() {
            Ok(checkpoints) => checkpoints,
            Err(error @ (StoreError::Note { .. } | StoreError::Damaged { .. })) => {
                self.fault = Some(error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        for (file, note) in checkpoints {
            match checked(&note, self.key.as_ref()) {
                Ok(Checkpoint { tree, .. }) if tree.size >= begun => {
                    self.signed = self.signed.max(tree.size);
                    self.ahead.entry(tree.size).or_default().push((file, tree.root));
                }
                Ok(_) => {}
                Err(error) => self.fault = Some(format!("tiles/{file}: {error}")),
            }
        }
        Ok(())
    }

    fn give(&mut self, note: &Note) -> Result<(), TreeError> {
        let tree = Checkpoint::of(note)?.tree;
        let check = checked(note, self.key.as_ref()).is_err().then_some(HeadCheck::Forged);
        self.given = Some(Given { size: tree.size, root: tree.root, check });
        Ok(())
    }

    /// Adds an entry; an error says what it contradicts.
    pub(super) fn entry(
        &mut self,
        seq: Option<Seq>,
        entry: &Entry,
        place: &Place<'_>,
    ) -> Result<(), TreeError> {
        if self.export.as_ref().is_some_and(|export| export.ends_at(self.edge.size())) {
            self.finish_export()?;
        }
        let bytes = self.leaves.bytes(seq, entry, place);
        if let Some(export) = &mut self.export {
            // Bounded by the leaf's own limit.
            export.bundle.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
            export.bundle.extend_from_slice(bytes);
            export.bundled += 1;
        }
        let leaf = super::merkle::leaf_hash(bytes);
        self.leaf(leaf)
    }

    fn leaf(&mut self, leaf: Digest) -> Result<(), TreeError> {
        let (store, kept, export) = (&self.store, &mut self.kept, &mut self.export);
        let (tiles, fault) = (&mut self.tiles, &mut self.fault);
        self.edge.push(leaf, |tile, hashes| {
            if let Some(export) = export {
                export.write(tile, hashes)?;
            }
            for tile in kept.remove(&(tile.level(), tile.index())).unwrap_or_default() {
                compare(store.as_ref(), tile, hashes, tiles, fault)?;
            }
            Ok::<_, TreeError>(())
        })?;
        self.compare_heads();
        Ok(())
    }

    /// What of the published was found to be otherwise so far.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    fn compare_heads(&mut self) {
        let size = self.edge.size();
        if let Some(given) = self.given.as_mut().filter(|given| given.size == size && given.check.is_none()) {
            let same = given.root == self.edge.head().root;
            given.check = Some(if same { HeadCheck::Found } else { HeadCheck::Differs });
        }
        if self.ahead.first_key_value().is_none_or(|(next, _)| *next != size) {
            return;
        }
        let root = self.edge.head().root;
        for (file, published) in self.ahead.remove(&size).unwrap_or_default() {
            self.checkpoints += 1;
            if published != root {
                self.fault.get_or_insert(format!(
                    "the first {size} entries are not those that tiles/{file} was signed over: the journal was \
                     written anew or replaced"
                ));
            }
        }
    }

    /// Everything was read (`whole`), or something is broken before its end.
    pub(super) fn finish(&mut self, whole: bool) -> Result<(), TreeError> {
        self.finish_export()?;
        if let Some(given) = self.given.as_mut().filter(|given| given.check.is_none()) {
            given.check = Some(if whole { HeadCheck::EndsBefore } else { HeadCheck::NotReached });
        }
        if !whole {
            return Ok(());
        }
        let own: Vec<(Tile, Vec<Digest>)> =
            self.edge.tiles().map(|(tile, hashes)| (tile, hashes.to_vec())).collect();
        for (tile, hashes) in own {
            for kept in self.kept.remove(&(tile.level(), tile.index())).unwrap_or_default() {
                compare(self.store.as_ref(), kept, &hashes, &mut self.tiles, &mut self.fault)?;
            }
        }
        let size = self.edge.size();
        if let Some((published, files)) = self.ahead.first_key_value() {
            let file = files.first().map_or("", |(file, _)| file);
            self.fault.get_or_insert(format!(
                "tiles/{file} was signed over {published} entries, and the journal has {size}: its end was cut \
                 off, or it was replaced by an older copy"
            ));
        }
        if let Some(tile) = self.kept.values().flatten().next() {
            self.fault
                .get_or_insert(format!("tiles/{tile} is of a larger tree than the journal's {size} entries"));
        }
        Ok(())
    }

    /// Writes the partial tiles and the checkpoint; nothing is exported from then on.
    fn finish_export(&mut self) -> Result<(), TreeError> {
        let Some(mut export) = self.export.take() else { return Ok(()) };
        for (tile, hashes) in self.edge.tiles() {
            export.write(tile, hashes)?;
        }
        if let Some((checkpoint, _)) = &export.checkpoint {
            export.to.write_checkpoint(checkpoint)?;
        }
        Ok(())
    }

    /// Whether the given checkpoint is part of the journal.
    pub(super) fn given(&self) -> Option<HeadCheck> {
        self.given.as_ref().and_then(|given| given.check)
    }

    pub(super) fn report(&self) -> TreeReport {
        let head = self.edge.head();
        TreeReport {
            size: head.size,
            root: super::checkpoint::encoded(&head.root),
            key: self.key.as_ref().map(ToString::to_string),
            checkpoints: self.checkpoints,
            tiles: self.tiles,
        }
    }
}

impl Export {
    fn ends_at(&self, size: u64) -> bool {
        self.checkpoint.as_ref().is_some_and(|(_, end)| *end == size)
    }

    fn write(&mut self, tile: Tile, hashes: &[Digest]) -> Result<(), StoreError> {
        self.to.write_tile(tile, hashes)?;
        if let Some(path) = tile.entries_path() {
            // Of entries that were dropped nobody has the bytes.
            if self.bundled == tile.width() {
                self.to.write_path(&path, &self.bundle)?;
            }
            self.bundle.clear();
            self.bundled = 0;
        }
        Ok(())
    }
}

/// The tree before a segment; none if that is not known.
fn beginning(store: Option<&TileStore>, segment: u64) -> Result<Option<Edge>, TreeError> {
    if segment == 1 {
        return Ok(Some(Edge::default()));
    }
    let Some(store) = store else { return Ok(None) };
    let marks = store.marks()?;
    let Some(mark) = marks.iter().find(|mark| mark.segment == segment) else { return Ok(None) };
    Ok(Edge::resume(mark.size, |tile| store.tile(tile))?)
}

/// The checkpoint of a note, with its signature checked if a key is known.
fn checked(note: &Note, key: Option<&VerifierKey>) -> Result<Checkpoint, CheckpointError> {
    match key {
        Some(key) => Checkpoint::verified(note, std::slice::from_ref(key)),
        None => Checkpoint::of(note),
    }
}

/// Compares a kept tile, full or partial, with the hashes of the full one.
fn compare(
    store: Option<&TileStore>,
    tile: Tile,
    hashes: &[Digest],
    tiles: &mut u64,
    fault: &mut Option<String>,
) -> Result<(), StoreError> {
    let Some(store) = store else { return Ok(()) };
    let kept = match store.tile(tile) {
        Err(StoreError::Damaged { .. }) => None,
        kept => kept?,
    };
    *tiles += 1;
    let kept = kept.unwrap_or_default();
    let same = kept.iter().zip(hashes).take_while(|(kept, own)| kept == own).count() as u64;
    if same < tile.width() {
        let from = (tile.index() * TILE_WIDTH + same) << (tile.level() * TILE_HEIGHT);
        let to = from + (1 << (tile.level() * TILE_HEIGHT)) - 1;
        fault.get_or_insert(format!(
            "tiles/{tile} is not what follows from the journal: entries {from} to {to} (counted from 0) are the \
             first that differ"
        ));
    }
    Ok(())
}
