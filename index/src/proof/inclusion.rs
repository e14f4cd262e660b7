//! Proofs that one leaf is in the log, as files that need nothing else (c2sp.org/tlog-proof, version 1).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::checkpoint::{Checkpoint, CheckpointError, decimal, digest, encoded};
use super::merkle::{self, PROOF_HASHES_MAX};
use super::note::{NOTE_BYTES_MAX, Note, VerifierKey};
use crate::record::Digest;

/// Most bytes of a proof that is read: half for what its writer adds.
pub const PROOF_BYTES_MAX: usize = 2 * NOTE_BYTES_MAX;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// Where a leaf is in a tree, how its hash leads to the root, and who signed that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InclusionProof {
    /// What the writer adds; nobody has signed it.
    pub extra: Option<Vec<u8>>,
    /// The leaf's place, from 0.
    pub index: u64,
    /// From the leaf's sibling upwards.
    pub hashes: Vec<Digest>,
    /// The tree, signed.
    pub checkpoint: Note,
}

/// Why a proof does not show what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Not a proof.
    #[error("this is not a proof of c2sp.org/tlog-proof: {0}")]
    Malformed(&'static str),
    /// Its checkpoint is not one that can be believed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The hashes lead elsewhere.
    #[error("the leaf is not at place {index} of the signed tree")]
    NotIncluded {
        /// The place in the proof.
        index: u64,
    },
}

impl InclusionProof {
    /// Reads a proof, and believes nothing of it.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofError> {
        let wrong = ProofError::Malformed;
        if bytes.len() > PROOF_BYTES_MAX {
            return Err(wrong("it is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(wrong("it has no checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(FIRST_LINE) {
            return Err(wrong("its first line is another one"));
        }
        let extra = lines.next_if(|line| line.starts_with("extra "));
        let extra = extra.map(|line| BASE64.decode(&line[6..]).map_err(|_| wrong("extra is not base64")));
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(decimal);
        let hashes: Option<Vec<Digest>> = lines.map(digest).collect();
        let hashes = hashes.filter(|hashes| hashes.len() <= PROOF_HASHES_MAX);
        Ok(Self {
            extra: extra.transpose()?,
            index: index.ok_or(wrong("it has no index"))?,
            hashes: hashes.ok_or(wrong("its hashes are not hashes"))?,
            checkpoint: Note::parse(checkpoint.as_bytes()).map_err(CheckpointError::from)?,
        })
    }

    /// Whether it shows that this leaf is in a log that one of `keys` signed; the signed checkpoint.
    ///
    /// # Errors
    /// It does not.
    pub fn verify(&self, leaf: &Digest, keys: &[VerifierKey]) -> Result<Checkpoint, ProofError> {
        let checkpoint = Checkpoint::verified(&self.checkpoint, keys)?;
        let tree = checkpoint.tree;
        if merkle::includes(&tree.root, tree.size, self.index, leaf, &self.hashes) {
            Ok(checkpoint)
        } else {
            Err(ProofError::NotIncluded { index: self.index })
        }
    }
}

/// The file.
impl fmt::Display for InclusionProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", BASE64.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", encoded(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::super::merkle::{TreeHead, leaf_hash, node_hash};
    use super::super::note::SignerKey;
    use super::*;

    fn proof(extra: Option<Vec<u8>>) -> (InclusionProof, VerifierKey) {
        let key = SignerKey::from_seed("example.com/log", &[1; 32]).unwrap();
        let (left, right) = (leaf_hash(b"left"), leaf_hash(b"right"));
        let tree = TreeHead { size: 2, root: node_hash(&left, &right) };
        let checkpoint = Checkpoint::new(&key, tree).sign(&key).unwrap();
        (InclusionProof { extra, index: 1, hashes: vec![left], checkpoint }, key.public().clone())
    }

    #[test]
    fn a_proof_survives_its_file_and_shows_its_own_leaf_alone() {
        for extra in [None, Some(b"{}".to_vec())] {
            let (proof, key) = proof(extra);
            let read = InclusionProof::parse(proof.to_string().as_bytes()).unwrap();
            assert_eq!(read, proof);
            let keys = [key];
            assert_eq!(read.verify(&leaf_hash(b"right"), &keys).unwrap().tree.size, 2);
            assert_eq!(read.verify(&leaf_hash(b"left"), &keys), Err(ProofError::NotIncluded { index: 1 }));
            assert!(read.verify(&leaf_hash(b"right"), &[]).is_err());
            let moved = InclusionProof { index: 0, ..read };
            assert!(moved.verify(&leaf_hash(b"right"), &keys).is_err());
        }
    }

    #[test]
    fn the_file_is_that_of_the_specification() {
        let (proof, _) = proof(Some(b"more".to_vec()));
        let text = proof.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["c2sp.org/tlog-proof@v1", "extra bW9yZQ==", "index 1"]);
        assert_eq!(lines[4..7], ["", "example.com/log", "2"]);
        assert!(lines[9].starts_with("— example.com/log "));
    }

    #[test]
    fn what_is_no_proof_is_refused() {
        let (proof, _) = proof(None);
        let text = proof.to_string();
        for changed in [
            text.replacen("@v1", "@v2", 1),
            text.replacen("index 1", "index 01", 1),
            text.replacen("index 1\n", "", 1),
            text.replacen("index 1", "extra !\nindex 1", 1),
            text.replacen("index 1", "index 1\nAAAA", 1),
            text.replacen("\n\n", "\n", 1),
            text.replacen(
                "index 1",
                &format!("index 1{}", format!("\n{}", encoded(&Digest([1; 32]))).repeat(65)),
                1,
            ),
        ] {
            assert!(InclusionProof::parse(changed.as_bytes()).is_err(), "{changed}");
        }
    }
}
