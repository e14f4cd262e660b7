//! The right edge of a growing tree, tile by tile: what of it is not in a full tile yet.

use super::merkle::{Frontier, Subtrees, TreeHead};
use super::tile::{TILE_HEIGHT, TILE_LEVELS, TILE_WIDTH, Tile};
use crate::record::Digest;

/// The edge: at most 255 hashes of each level of tiles.
#[derive(Debug, Clone, Default)]
pub struct Edge {
    frontier: Frontier,
    /// By level of tiles, the hashes of the partial tile.
    partial: Vec<Vec<Digest>>,
}

impl Edge {
    /// The edge of the tree of `size` leaves, from its partial tiles; none if they are not as the size says.
    ///
    /// # Errors
    /// Whatever reading a tile says.
    pub fn resume<E>(
        size: u64,
        mut read: impl FnMut(Tile) -> Result<Option<Vec<Digest>>, E>,
    ) -> Result<Option<Self>, E> {
        let mut partial = Vec::new();
        for level in 0..TILE_LEVELS {
            let hashes = match Tile::partial(level, size) {
                None => Vec::new(),
                Some(tile) => match read(tile)?.filter(|hashes| hashes.len() as u64 == tile.width()) {
                    Some(hashes) => hashes,
                    None => return Ok(None),
                },
            };
            partial.push(hashes);
        }
        let edge = Self { frontier: Frontier::default(), partial };
        let bits = (0..u64::BITS).rev().filter(|bit| size >> bit & 1 == 1);
        let nodes = bits.map(|bit| edge.held(bit, (size >> bit) - 1, size)).collect::<Option<Vec<_>>>();
        let frontier = nodes.and_then(|nodes| Frontier::from_nodes(size, nodes));
        Ok(frontier.map(|frontier| Self { frontier, ..edge }))
    }

    /// The tree as it is.
    pub fn head(&self) -> TreeHead {
        TreeHead { size: self.frontier.size(), root: self.frontier.root() }
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Adds the hash of a leaf; `full` is told of each tile that this fills.
    ///
    /// # Errors
    /// Whatever `full` says; the edge is of no more use then.
    pub fn push<E>(
        &mut self,
        leaf: Digest,
        mut full: impl FnMut(Tile, &[Digest]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (partial, mut ended) = (&mut self.partial, Ok(()));
        self.frontier.push(leaf, |level, index, hash| {
            if level % TILE_HEIGHT != 0 || ended.is_err() {
                return;
            }
            let tile_level = level / TILE_HEIGHT;
            if partial.len() <= tile_level as usize {
                partial.resize_with(tile_level as usize + 1, Vec::new);
            }
            let Some(hashes) = partial.get_mut(tile_level as usize) else { return };
            hashes.push(*hash);
            if hashes.len() as u64 == TILE_WIDTH {
                if let Some(tile) = Tile::new(tile_level, index / TILE_WIDTH, TILE_WIDTH) {
                    ended = full(tile, hashes);
                }
                hashes.clear();
            }
        });
        ended
    }

    /// The partial tiles, with their hashes.
    pub fn tiles(&self) -> impl Iterator<Item = (Tile, &[Digest])> {
        let size = self.size();
        let levels = (0..TILE_LEVELS).zip(&self.partial);
        levels.filter_map(move |(level, hashes)| Some((Tile::partial(level, size)?, hashes.as_slice())))
    }

    /// The hash of a complete subtree, if it lies in one of the partial tiles.
    pub fn subtree(&self, level: u32, index: u64) -> Option<Digest> {
        self.held(level, index, self.size())
    }

    fn held(&self, level: u32, index: u64, size: u64) -> Option<Digest> {
        let tile = Tile::holding(level, index, size)?;
        let partial = Tile::partial(tile.level(), size)?;
        let hashes = self.partial.get(tile.level() as usize)?;
        if partial == tile { Tile::subtree(hashes, level, index) } else { None }
    }
}

/// Subtrees of one tree, from its edge and from wherever its full tiles are.
pub struct Tiles<'a, F> {
    /// The edge.
    pub edge: &'a Edge,
    /// Reads a full tile.
    pub full: F,
}

impl<E, F: Fn(Tile) -> Result<Vec<Digest>, E>> Subtrees for Tiles<'_, F>
where
    E: From<NoSubtree>,
{
    type Error = E;

    fn subtree(&self, level: u32, index: u64) -> Result<Digest, E> {
        if let Some(hash) = self.edge.subtree(level, index) {
            return Ok(hash);
        }
        let tile = Tile::holding(level, index, self.edge.size()).ok_or(NoSubtree)?;
        let hashes = (self.full)(tile)?;
        Tile::subtree(&hashes, level, index).ok_or_else(|| NoSubtree.into())
    }
}

/// A subtree that is not complete in the tree, or a tile that is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tree has no such part")]
pub struct NoSubtree;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::super::merkle::{self, leaf_hash};
    use super::*;

    #[test]
    fn a_tree_is_resumed_from_its_tiles_at_any_size_and_grows_on_the_same() {
        let mut edge = Edge::default();
        let mut tiles: BTreeMap<Tile, Vec<Digest>> = BTreeMap::new();
        for size in 0..70_000_u64 {
            if size % 4099 == 0 || size % 256 < 2 && size > 65_000 {
                for (tile, hashes) in edge.tiles() {
                    tiles.insert(tile, hashes.to_vec());
                }
                let again =
                    Edge::resume(size, |tile| Ok::<_, Infallible>(tiles.get(&tile).cloned())).unwrap();
                assert_eq!(again.map(|again| again.head()), Some(edge.head()), "{size}");
            }
            let stored = edge.push(leaf_hash(&size.to_be_bytes()), |tile, hashes| {
                tiles.insert(tile, hashes.to_vec());
                Ok::<_, Infallible>(())
            });
            stored.unwrap();
        }
        let read = |tile: Tile| tiles.get(&tile).cloned().ok_or(NoSubtree);
        let subtrees = Tiles { edge: &edge, full: read };
        assert_eq!(merkle::root(&subtrees, 70_000).unwrap(), edge.head().root);
        for index in [0, 255, 256, 65_535, 65_536, 69_887, 69_888, 69_999] {
            let proof = merkle::inclusion_proof(&subtrees, index, 70_000).unwrap().unwrap();
            let leaf = leaf_hash(&index.to_be_bytes());
            assert!(merkle::includes(&edge.head().root, 70_000, index, &leaf, &proof), "{index}");
        }
        assert!(Edge::resume(7, |_| Ok::<_, Infallible>(None)).unwrap().is_none());
    }
}
