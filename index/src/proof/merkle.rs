//! The Merkle tree of RFC 6962, section 2.1: roots, inclusion proofs, consistency proofs, and checking them.
//!
//! Pure, over SHA-256. [`Frontier`] grows a tree and keeps one hash for each bit of its size; proofs read
//! the hashes of complete subtrees from whoever keeps them ([`Subtrees`]). Checking follows RFC 9162,
//! sections 2.1.3.2 and 2.1.4.2 (the same trees, with the checks written out).

use sha2::{Digest as _, Sha256};

use crate::record::Digest;

/// Most hashes of a proof that is read: a tree of 2^64 leaves needs no more.
pub const PROOF_HASHES_MAX: usize = 64;

/// The hash of a leaf (RFC 6962: 0x00 before the entry).
pub fn leaf_hash(entry: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(entry);
    Digest(hash.finalize().into())
}

/// The hash over two subtrees (RFC 6962: 0x01 before both).
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(&left.0);
    bytes[33..].copy_from_slice(&right.0);
    Digest(Sha256::digest(bytes).into())
}

/// The root of the tree without leaves.
pub fn empty_root() -> Digest {
    Digest(Sha256::digest([]).into())
}

/// The right edge of a growing tree: the roots of its complete subtrees, the largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Digest>,
}

impl Frontier {
    /// The tree of `size` leaves with these complete subtrees, if they are as many as the size says.
    pub fn from_nodes(size: u64, nodes: Vec<Digest>) -> Option<Self> {
        (nodes.len() == size.count_ones() as usize).then_some(Self { size, nodes })
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, the largest first.
    pub fn nodes(&self) -> &[Digest] {
        &self.nodes
    }

    /// Adds the hash of a leaf. `completed` is told of each subtree that this completes: its level (the
    /// leaf is 0), its index among those of its level, its root.
    pub fn push(&mut self, leaf: Digest, mut completed: impl FnMut(u32, u64, &Digest)) {
        let (mut node, mut index, mut level) = (leaf, self.size, 0);
        completed(level, index, &node);
        while index & 1 == 1 {
            let Some(left) = self.nodes.pop() else { break };
            node = node_hash(&left, &node);
            (index, level) = (index >> 1, level + 1);
            completed(level, index, &node);
        }
        self.nodes.push(node);
        self.size += 1;
    }

    /// The root of the tree as it is.
    pub fn root(&self) -> Digest {
        let mut nodes = self.nodes.iter().rev();
        let Some(&last) = nodes.next() else { return empty_root() };
        nodes.fold(last, |right, left| node_hash(left, &right))
    }
}

/// Where the hashes of complete subtrees are kept.
pub trait Subtrees {
    /// Why one cannot be had.
    type Error;
    /// The hash over the leaves from `index * 2^level` up to `(index + 1) * 2^level`.
    fn subtree(&self, level: u32, index: u64) -> Result<Digest, Self::Error>;
}

/// The root of the first `size` leaves.
pub fn root<S: Subtrees>(subtrees: &S, size: u64) -> Result<Digest, S::Error> {
    if size == 0 { Ok(empty_root()) } else { range(subtrees, 0, size) }
}

/// The proof that leaf `index` is in the tree of `size` leaves (RFC 6962, 2.1.1), from the leaf's sibling
/// upwards; none if there is no such leaf.
pub fn inclusion_proof<S: Subtrees>(
    subtrees: &S,
    index: u64,
    size: u64,
) -> Result<Option<Vec<Digest>>, S::Error> {
    if index >= size {
        return Ok(None);
    }
    let (mut from, mut to, mut proof) = (0, size, Vec::new());
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            proof.push(range(subtrees, middle, to)?);
            to = middle;
        } else {
            proof.push(range(subtrees, from, middle)?);
            from = middle;
        }
    }
    proof.reverse();
    Ok(Some(proof))
}

/// The proof that the tree of `new` leaves begins with that of `old` leaves (RFC 6962, 2.1.2); none if
/// `old` is larger. Two of one size, and an empty old one, need no hashes.
pub fn consistency_proof<S: Subtrees>(
    subtrees: &S,
    old: u64,
    new: u64,
) -> Result<Option<Vec<Digest>>, S::Error> {
    if old > new {
        return Ok(None);
    }
    if old == new || old == 0 {
        return Ok(Some(Vec::new()));
    }
    let (mut from, mut to, mut proof) = (0, new, Vec::new());
    while to != old {
        let middle = from + split(to - from);
        if old <= middle {
            proof.push(range(subtrees, middle, to)?);
            to = middle;
        } else {
            proof.push(range(subtrees, from, middle)?);
            from = middle;
        }
    }
    if from > 0 {
        // Not the whole old tree, whose root the other side knows.
        proof.push(range(subtrees, from, to)?);
    }
    proof.reverse();
    Ok(Some(proof))
}

/// Whether `proof` shows that `leaf` is leaf `index` of the tree of `size` leaves with this root
/// (RFC 9162, 2.1.3.2).
pub fn includes(root: &Digest, size: u64, index: u64, leaf: &Digest, proof: &[Digest]) -> bool {
    if index >= size {
        return false;
    }
    let (mut own, mut last, mut node) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if own & 1 == 1 || own == last {
            node = node_hash(sibling, &node);
            (own, last) = up_the_edge(own, last);
        } else {
            node = node_hash(&node, sibling);
        }
        (own, last) = (own >> 1, last >> 1);
    }
    last == 0 && node == *root
}

/// A tree at one time: how many leaves, and their root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeHead {
    /// Leaves.
    pub size: u64,
    /// Their root.
    pub root: Digest,
}

/// Whether `proof` shows that `new` begins with `old` (RFC 9162, 2.1.4.2).
pub fn is_consistent(old: &TreeHead, new: &TreeHead, proof: &[Digest]) -> bool {
    if old.size > new.size {
        return false;
    }
    if old.size == new.size {
        return proof.is_empty() && old.root == new.root;
    }
    if old.size == 0 {
        return proof.is_empty() && old.root == empty_root();
    }
    let mut hashes = proof.iter();
    let levels = (old.size - 1).trailing_ones();
    let (mut own, mut last) = ((old.size - 1) >> levels, (new.size - 1) >> levels);
    let first = if old.size.is_power_of_two() { Some(&old.root) } else { hashes.next() };
    let Some(&first) = first else { return false };
    let (mut old_root, mut new_root) = (first, first);
    for hash in hashes {
        if last == 0 {
            return false;
        }
        if own & 1 == 1 || own == last {
            (old_root, new_root) = (node_hash(hash, &old_root), node_hash(hash, &new_root));
            (own, last) = up_the_edge(own, last);
        } else {
            new_root = node_hash(&new_root, hash);
        }
        (own, last) = (own >> 1, last >> 1);
    }
    last == 0 && old_root == old.root && new_root == new.root
}

/// A last node without a sibling stands for itself one level up, until it has one.
fn up_the_edge(own: u64, last: u64) -> (u64, u64) {
    let levels = if own == 0 { 0 } else { own.trailing_zeros() };
    (own >> levels, last >> levels)
}

/// The root over the leaves `from..to`, a range as RFC 6962 makes them: `from` is a multiple of the
/// largest power of two that is not larger than its length.
fn range<S: Subtrees>(subtrees: &S, from: u64, to: u64) -> Result<Digest, S::Error> {
    let mut complete = Vec::new();
    let mut at = from;
    while at < to {
        let level = (to - at).ilog2();
        complete.push(subtrees.subtree(level, at >> level)?);
        at += 1 << level;
    }
    let mut nodes = complete.into_iter().rev();
    let last = nodes.next().unwrap_or_else(empty_root);
    Ok(nodes.fold(last, |right, left| node_hash(&left, &right)))
}

/// The largest power of two that is smaller than `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// The definitions of RFC 6962, word by word.
    mod naive {
        use super::*;

        pub(super) fn root(leaves: &[Digest]) -> Digest {
            match leaves {
                [] => empty_root(),
                [leaf] => *leaf,
                _ => {
                    let (left, right) = leaves.split_at(k(leaves.len()));
                    node_hash(&root(left), &root(right))
                }
            }
        }

        pub(super) fn path(m: usize, leaves: &[Digest]) -> Vec<Digest> {
            if leaves.len() == 1 {
                return Vec::new();
            }
            let (left, right) = leaves.split_at(k(leaves.len()));
            let (mut proof, other) =
                if m < left.len() { (path(m, left), right) } else { (path(m - left.len(), right), left) };
            proof.push(root(other));
            proof
        }

        pub(super) fn subproof(m: usize, leaves: &[Digest], whole: bool) -> Vec<Digest> {
            if m == leaves.len() {
                return if whole { Vec::new() } else { vec![root(leaves)] };
            }
            let (left, right) = leaves.split_at(k(leaves.len()));
            let (mut proof, other) = if m <= left.len() {
                (subproof(m, left, whole), right)
            } else {
                (subproof(m - left.len(), right, false), left)
            };
            proof.push(root(other));
            proof
        }

        fn k(n: usize) -> usize {
            let mut k = 1;
            while k * 2 < n {
                k *= 2;
            }
            k
        }
    }

    struct Leaves<'a>(&'a [Digest]);

    impl Subtrees for Leaves<'_> {
        type Error = Infallible;
        fn subtree(&self, level: u32, index: u64) -> Result<Digest, Infallible> {
            let from = (index as usize) << level;
            Ok(naive::root(&self.0[from..from + (1 << level)]))
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn digests(texts: &[&str]) -> Vec<Digest> {
        texts.iter().map(|text| Digest(hex(text).try_into().unwrap())).collect()
    }

    /// The tree of Certificate Transparency's reference implementation (merkle_tree_test).
    fn reference() -> Vec<Digest> {
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
            .iter()
            .map(|entry| leaf_hash(&hex(entry)))
            .collect()
    }

    const REFERENCE_ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn the_reference_trees_have_their_roots() {
        let leaves = reference();
        for (size, expected) in digests(&REFERENCE_ROOTS).iter().enumerate() {
            let mut frontier = Frontier::default();
            leaves[..size].iter().for_each(|leaf| frontier.push(*leaf, |_, _, _| {}));
            assert_eq!(frontier.root(), *expected, "{size}");
            assert_eq!(root(&Leaves(&leaves), size as u64).unwrap(), *expected, "{size}");
        }
    }

    #[test]
    fn the_reference_trees_have_their_inclusion_proofs() {
        let leaves = reference();
        let cases: &[(u64, u64, &[&str])] = &[
            (0, 1, &[]),
            (
                0,
                8,
                &[
                    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
                ],
            ),
            (
                5,
                8,
                &[
                    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                ],
            ),
            (2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
            (
                1,
                5,
                &[
                    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                ],
            ),
        ];
        for &(index, size, expected) in cases {
            let proof = inclusion_proof(&Leaves(&leaves), index, size).unwrap().unwrap();
            assert_eq!(proof, digests(expected), "{index} of {size}");
        }
    }

    #[test]
    fn the_reference_trees_have_their_consistency_proofs() {
        let leaves = reference();
        let cases: &[(u64, u64, &[&str])] = &[
            (1, 1, &[]),
            (
                1,
                8,
                &[
                    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
                ],
            ),
            (
                6,
                8,
                &[
                    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                ],
            ),
            (
                2,
                5,
                &[
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                ],
            ),
        ];
        for &(old, new, expected) in cases {
            let proof = consistency_proof(&Leaves(&leaves), old, new).unwrap().unwrap();
            assert_eq!(proof, digests(expected), "{old} to {new}");
        }
    }

    fn numbered(count: u64) -> Vec<Digest> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    #[test]
    fn every_small_tree_proves_every_leaf_and_every_earlier_tree() {
        let leaves = numbered(40);
        for size in 0..=leaves.len() {
            let tree = &leaves[..size];
            let head = TreeHead { size: size as u64, root: naive::root(tree) };
            for index in 0..size {
                let proof = inclusion_proof(&Leaves(tree), index as u64, head.size).unwrap().unwrap();
                assert_eq!(proof, naive::path(index, tree), "{index} of {size}");
                assert!(includes(&head.root, head.size, index as u64, &tree[index], &proof));
                for other in (0..=size).filter(|&other| other != index) {
                    assert!(!includes(&head.root, head.size, other as u64, &tree[index], &proof));
                }
            }
            assert_eq!(inclusion_proof(&Leaves(tree), head.size, head.size).unwrap(), None);
            for old in 0..=size {
                let before = TreeHead { size: old as u64, root: naive::root(&tree[..old]) };
                let proof = consistency_proof(&Leaves(tree), before.size, head.size).unwrap().unwrap();
                if old > 0 {
                    assert_eq!(proof, naive::subproof(old, tree, true), "{old} to {size}");
                }
                assert!(is_consistent(&before, &head, &proof), "{old} to {size}");
                let other = TreeHead { root: leaf_hash(b"another"), ..before };
                assert!(!is_consistent(&other, &head, &proof), "{old} to {size}");
                // Every tree begins with the empty one.
                let replaced = TreeHead { root: other.root, ..head };
                assert_eq!(is_consistent(&before, &replaced, &proof), old == 0 && size > 0);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_proof_with_any_hash_changed_added_or_left_out_shows_nothing(
            size in 1_u64..300, pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
        ) {
            let leaves = numbered(size);
            let head = TreeHead { size, root: naive::root(&leaves) };
            let index = pick.index(leaves.len());
            let old = TreeHead { size: index as u64 + 1, root: naive::root(&leaves[..=index]) };
            let path = naive::path(index, &leaves);
            let link = naive::subproof(index + 1, &leaves, true);
            prop_assert!(includes(&head.root, size, index as u64, &leaves[index], &path));
            prop_assert!(is_consistent(&old, &head, &link));
            for change in 0..3 {
                let changed = |proof: &[Digest]| {
                    let mut proof = proof.to_vec();
                    match change {
                        0 => proof.push(Digest([7; 32])),
                        _ if proof.is_empty() => proof.push(Digest([7; 32])),
                        1 => _ = proof.remove(at.index(proof.len())),
                        _ => { let at = at.index(proof.len()); proof[at].0[0] ^= 1; }
                    }
                    proof
                };
                prop_assert!(!includes(&head.root, size, index as u64, &leaves[index], &changed(&path)));
                prop_assert!(!is_consistent(&old, &head, &changed(&link)));
            }
        }

        #[test]
        fn a_growing_tree_tells_every_subtree_it_completes(size in 0_u64..200) {
            let leaves = numbered(size);
            let mut frontier = Frontier::default();
            let mut seen = std::collections::BTreeMap::new();
            for leaf in &leaves {
                frontier.push(*leaf, |level, index, hash| { seen.insert((level, index), *hash); });
            }
            prop_assert_eq!(frontier.root(), naive::root(&leaves));
            let again = Frontier::from_nodes(size, frontier.nodes().to_vec());
            prop_assert_eq!(again.as_ref(), Some(&frontier));
            let mut expected = 0;
            for level in 0..u64::BITS {
                for index in 0..size >> level {
                    let from = (index << level) as usize;
                    prop_assert_eq!(seen.get(&(level, index)), Some(&naive::root(&leaves[from..from + (1 << level)])));
                    expected += 1;
                }
            }
            prop_assert_eq!(seen.len(), expected);
        }
    }
}
