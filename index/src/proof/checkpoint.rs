//! Checkpoints (c2sp.org/tlog-checkpoint): the head of a Merkle tree, signed as a note.
//!
//! Reading is strict. Lines below the root are kept and mean nothing to us; we write none.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::merkle::TreeHead;
use super::note::{Note, NoteError, SignerKey, VerifierKey};
use crate::record::Digest;

/// What a log says of itself at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: the name of its key.
    pub origin: String,
    /// Its tree.
    pub tree: TreeHead,
    /// Lines that others may add.
    pub extensions: Vec<String>,
}

/// Why a text is not a checkpoint that can be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Not a signed note, or not signed by whom it must be.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// A note of something else.
    #[error("this is not a checkpoint: {0}")]
    Malformed(&'static str),
    /// Another log's.
    #[error("this is a checkpoint of {found:?}, not of {expected:?}")]
    OtherLog {
        /// Whose it is.
        found: String,
        /// Whose it must be.
        expected: String,
    },
}

impl Checkpoint {
    /// The checkpoint of a tree in the log that is called as the key is.
    pub fn new(key: &SignerKey, tree: TreeHead) -> Self {
        Self { origin: key.public().name().to_owned(), tree, extensions: Vec::new() }
    }

    /// Signs it.
    ///
    /// # Errors
    /// An origin or an extension that is not one line.
    pub fn sign(&self, key: &SignerKey) -> Result<Note, CheckpointError> {
        let text = self.to_string();
        if Self::read(&text)? != *self {
            return Err(CheckpointError::Malformed("its lines are not lines"));
        }
        Ok(Note::sign(text, key)?)
    }

    /// The checkpoint in a note. It says nothing of the signatures.
    ///
    /// # Errors
    /// The note's text is another one.
    pub fn of(note: &Note) -> Result<Self, CheckpointError> {
        Self::read(note.text())
    }

    /// The checkpoint in a note that one of `keys` signed for the log of its own name: the first of them.
    ///
    /// # Errors
    /// It is none, another log's, or not signed by any of them.
    pub fn verified(note: &Note, keys: &[VerifierKey]) -> Result<Self, CheckpointError> {
        let signed = note.check(keys)?;
        let checkpoint = Self::of(note)?;
        let names = || signed.iter().filter_map(|&place| keys.get(place)).map(VerifierKey::name);
        if names().any(|name| name == checkpoint.origin) {
            return Ok(checkpoint);
        }
        let expected = names().next().unwrap_or_default().to_owned();
        Err(CheckpointError::OtherLog { found: checkpoint.origin, expected })
    }

    fn read(text: &str) -> Result<Self, CheckpointError> {
        let wrong = CheckpointError::Malformed;
        let body = text.strip_suffix('\n').ok_or(wrong("its last line does not end"))?;
        let mut lines = body.split('\n');
        let origin = lines.next().filter(|line| !line.is_empty()).ok_or(wrong("it has no origin"))?;
        let size = lines.next().and_then(decimal).ok_or(wrong("it has no size"))?;
        let root = lines.next().and_then(digest).ok_or(wrong("it has no root"))?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(wrong("one of its lines is empty"));
        }
        Ok(Self { origin: origin.to_owned(), tree: TreeHead { size, root }, extensions })
    }
}

/// The text that is signed.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.tree.size, encoded(&self.tree.root))?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A digest as checkpoints and proofs have it.
pub(super) fn encoded(digest: &Digest) -> String {
    BASE64.encode(digest.0)
}

/// Reads what [`encoded`] wrote.
pub(super) fn digest(text: &str) -> Option<Digest> {
    BASE64.decode(text).ok()?.try_into().ok().map(Digest)
}

/// A number without sign or leading zeros.
pub(super) fn decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of c2sp.org/tlog-checkpoint.
    const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

    fn key(name: &str, seed: u8) -> SignerKey {
        SignerKey::from_seed(name, &[seed; 32]).unwrap()
    }

    fn head() -> TreeHead {
        TreeHead { size: 70_000, root: Digest([0xa5; 32]) }
    }

    #[test]
    fn the_example_of_the_specification_is_read() {
        let note = Note::parse(EXAMPLE.as_bytes()).unwrap();
        let checkpoint = Checkpoint::of(&note).unwrap();
        assert_eq!(
            (checkpoint.origin.as_str(), checkpoint.tree.size),
            ("example.com/behind-the-sofa", 20_852_163)
        );
        assert_eq!(checkpoint.to_string(), note.text());
    }

    #[test]
    fn a_checkpoint_is_believed_for_its_own_log_alone() {
        let (own, other) = (key("example.com/a", 1), key("example.com/b", 2));
        let checkpoint = Checkpoint::new(&own, head());
        let note = checkpoint.sign(&own).unwrap();
        let read = Note::parse(note.to_string().as_bytes()).unwrap();
        assert_eq!(Checkpoint::verified(&read, &[own.public().clone()]).unwrap(), checkpoint);
        assert!(Checkpoint::verified(&read, &[other.public().clone()]).is_err());
        let by_other = checkpoint.sign(&other).unwrap();
        assert_eq!(
            Checkpoint::verified(&by_other, &[other.public().clone()]),
            Err(CheckpointError::OtherLog {
                found: "example.com/a".into(),
                expected: "example.com/b".into()
            })
        );
    }

    #[test]
    fn a_witness_adds_its_line_and_both_are_checked() {
        let (own, witness) = (key("example.com/a", 1), key("witness.example/w", 2));
        let mut note = Checkpoint::new(&own, head()).sign(&own).unwrap();
        note.cosign(&witness).unwrap();
        let keys = [own.public().clone(), witness.public().clone()];
        assert_eq!(note.check(&keys).unwrap(), [0, 1]);
        assert!(Checkpoint::verified(&note, &keys).is_ok());
        let changed = note.to_string().replacen("70000", "70001", 1);
        assert!(Checkpoint::verified(&Note::parse(changed.as_bytes()).unwrap(), &keys).is_err());
    }

    #[test]
    fn other_texts_are_no_checkpoints() {
        let root = encoded(&Digest([1; 32]));
        let good = format!("log\n7\n{root}\nmore\n");
        assert_eq!(Checkpoint::read(&good).unwrap().extensions, ["more"]);
        for text in [
            String::new(),
            "log\n7\n".into(),
            format!("\n7\n{root}\n"),
            format!("log\n07\n{root}\n"),
            format!("log\n+7\n{root}\n"),
            format!("log\n7\n{root}"),
            format!("log\n7\n{}\n", &root[1..]),
            format!("log\n7\n{root}\n\nmore\n"),
        ] {
            assert!(Checkpoint::read(&text).is_err(), "{text:?}");
        }
        let own = key("log", 1);
        let broken = Checkpoint { extensions: vec!["a\n\nb".into()], ..Checkpoint::new(&own, head()) };
        assert!(broken.sign(&own).is_err());
    }
}
