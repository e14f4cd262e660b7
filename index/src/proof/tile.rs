//! The tiles of c2sp.org/tlog-tiles: where in files the hashes of a tree lie, 256 in each.
//!
//! Pure: names, sizes, and which tiles a tree has. A tile of level L holds the hashes of subtrees of
//! 256^L leaves; the hashes between two levels of tiles are computed from it.

use std::fmt;
use std::str::FromStr;

use super::checkpoint::decimal;
use super::merkle::node_hash;
use crate::record::Digest;

/// Levels of the tree in one tile.
pub const TILE_HEIGHT: u32 = 8;
/// Hashes of a full tile.
pub const TILE_WIDTH: u64 = 1 << TILE_HEIGHT;
/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;
/// Levels that a tree of 2^64 leaves has tiles on.
pub const TILE_LEVELS: u32 = u64::BITS / TILE_HEIGHT;

/// Which tile: its path is `tile/L/N`, with `.p/W` behind if it is partial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    level: u32,
    index: u64,
    width: u64,
}

impl Tile {
    /// The tile, if there can be one.
    pub fn new(level: u32, index: u64, width: u64) -> Option<Self> {
        (level < u64::BITS && (1..=TILE_WIDTH).contains(&width)).then_some(Self { level, index, width })
    }

    /// The level of tiles; 0 holds the hashes of leaves.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Its place among those of its level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes it holds: 1 to 256.
    pub fn width(&self) -> u64 {
        self.width
    }

    /// The rightmost tile of a level in a tree of `size` leaves, if it is partial.
    pub fn partial(level: u32, size: u64) -> Option<Self> {
        let hashes = size.checked_shr(level * TILE_HEIGHT)?;
        Self::new(level, hashes / TILE_WIDTH, hashes % TILE_WIDTH)
    }

    /// The tile of a tree of `size` leaves that holds, or from whose hashes follows, the hash of the
    /// subtree `index` of 2^`level` leaves; none if that is not complete in this tree.
    pub fn holding(level: u32, index: u64, size: u64) -> Option<Self> {
        let end = u128::from(index + 1) << level;
        if end > u128::from(size) {
            return None;
        }
        let (tile_level, within) = (level / TILE_HEIGHT, level % TILE_HEIGHT);
        let tile = (index << within) / TILE_WIDTH;
        let hashes = size >> (tile_level * TILE_HEIGHT);
        Self::new(tile_level, tile, (hashes - tile * TILE_WIDTH).min(TILE_WIDTH))
    }

    /// The hash of the subtree `index` of 2^`level` leaves, from the hashes of the tile that
    /// [`Tile::holding`] names; none if they are too few.
    pub fn subtree(hashes: &[Digest], level: u32, index: u64) -> Option<Digest> {
        let within = level % TILE_HEIGHT;
        let from = usize::try_from((index << within) % TILE_WIDTH).ok()?;
        let mut nodes = hashes.get(from..from + (1 << within))?.to_vec();
        while nodes.len() > 1 {
            nodes = nodes.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
        }
        nodes.first().copied()
    }

    /// The path of the entries that this tile's leaves are the hashes of (`tile/entries/N`); only level
    /// 0 has them.
    pub fn entries_path(&self) -> Option<String> {
        (self.level == 0).then(|| self.path("entries"))
    }

    fn path(&self, level: impl fmt::Display) -> String {
        let mut groups = Vec::new();
        let mut rest = self.index;
        loop {
            groups.push(rest % 1000);
            rest /= 1000;
            if rest == 0 {
                break;
            }
        }
        let mut path = format!("tile/{level}");
        for (left, group) in groups.iter().enumerate().rev() {
            let mark = if left == 0 { "" } else { "x" };
            path.push_str(&format!("/{mark}{group:03}"));
        }
        if self.width < TILE_WIDTH {
            path.push_str(&format!(".p/{}", self.width));
        }
        path
    }
}

/// The path.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path(self.level))
    }
}

/// A text that is not the path of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not the path of a tile, such as tile/0/x001/234.p/56")]
pub struct NotATile;

impl FromStr for Tile {
    type Err = NotATile;

    fn from_str(text: &str) -> Result<Self, NotATile> {
        let read = || {
            let (level, rest) = text.strip_prefix("tile/")?.split_once('/')?;
            let (groups, width) = match rest.split_once(".p/") {
                Some((groups, width)) => (groups, decimal(width)?),
                None => (rest, TILE_WIDTH),
            };
            let mut index = 0_u64;
            for group in groups.split('/') {
                let group: u64 = group.strip_prefix('x').unwrap_or(group).parse().ok()?;
                index = index.checked_mul(1000)?.checked_add(group)?;
            }
            Self::new(u32::try_from(decimal(level)?).ok()?, index, width)
        };
        // Everything else is checked by writing it again.
        read().filter(|tile| tile.to_string() == text).ok_or(NotATile)
    }
}

/// The hashes in a tile's bytes, if they are as many as its width says.
pub fn read_hashes(bytes: &[u8], width: u64) -> Option<Vec<Digest>> {
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    let whole = rest.is_empty() && hashes.len() as u64 == width;
    whole.then(|| hashes.iter().map(|hash| Digest(*hash)).collect())
}

/// The bytes of a tile.
pub fn hash_bytes(hashes: &[Digest]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::merkle::{Frontier, leaf_hash};
    use super::*;

    fn tile(level: u32, index: u64, width: u64) -> Tile {
        Tile::new(level, index, width).unwrap()
    }

    #[test]
    fn paths_are_those_of_the_specification() {
        for (tile, path) in [
            (tile(0, 0, 256), "tile/0/000"),
            (tile(1, 1_234_067, 256), "tile/1/x001/x234/067"),
            (tile(0, 273, 112), "tile/0/273.p/112"),
            (tile(63, 1000, 255), "tile/63/x001/000.p/255"),
        ] {
            assert_eq!(tile.to_string(), path);
            assert_eq!(path.parse(), Ok(tile));
        }
        assert_eq!(tile(0, 1000, 1).entries_path().unwrap(), "tile/entries/x001/000.p/1");
        assert_eq!(tile(1, 0, 1).entries_path(), None);
    }

    #[test]
    fn other_paths_are_refused() {
        for path in [
            "",
            "tile/0",
            "tile/0/0",
            "tile/00/000",
            "tile/64/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/001/000",
            "tile/0/x000/000",
            "tile/0/x001",
            "tile/0/1000",
            "tile/0/+01",
            "/tile/0/000",
            "tile/0/000/",
            "tile/entries/000",
            "tile/0/x99999999/999/999",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
        ] {
            assert!(path.parse::<Tile>().is_err(), "{path}");
        }
    }

    #[test]
    fn a_tree_of_70_000_leaves_has_the_partial_tiles_of_the_specification() {
        assert_eq!(Tile::partial(0, 70_000), Some(tile(0, 273, 112)));
        assert_eq!(Tile::partial(1, 70_000), Some(tile(1, 1, 17)));
        assert_eq!(Tile::partial(2, 70_000), Some(tile(2, 0, 1)));
        assert_eq!(Tile::partial(3, 70_000), None);
        assert_eq!(Tile::partial(0, 256), None);
        assert_eq!(Tile::partial(1, 256), Some(tile(1, 0, 1)));
        assert_eq!(Tile::partial(63, u64::MAX), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn every_complete_subtree_follows_from_the_tile_that_is_said_to_hold_it(size in 1_u64..1000) {
            let mut frontier = Frontier::default();
            let mut subtrees = BTreeMap::new();
            for number in 0..size {
                frontier.push(leaf_hash(&number.to_be_bytes()), |level, index, hash| {
                    subtrees.insert((level, index), *hash);
                });
            }
            let tile_hashes = |tile: Tile| -> Vec<Digest> {
                let first = tile.index() * TILE_WIDTH;
                let own = first..first + tile.width();
                own.map(|index| subtrees[&(tile.level() * TILE_HEIGHT, index)]).collect()
            };
            for ((level, index), hash) in &subtrees {
                let holding = Tile::holding(*level, *index, size).unwrap();
                let bytes = hash_bytes(&tile_hashes(holding));
                let hashes = read_hashes(&bytes, holding.width()).unwrap();
                prop_assert_eq!(Tile::subtree(&hashes, *level, *index), Some(*hash));
            }
            prop_assert_eq!(Tile::holding(0, size, size), None);
        }
    }
}
