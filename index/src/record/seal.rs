//! What stands for the values of an entry whose frame was rewritten: a frame's salt opens all of its values,
//! so it goes with the first of them, and each value that stays has its own salt from then on.

use super::{Digest, Seq};

/// How many values of an entry can be erased.
pub const ERASABLE_VALUES: usize = 6;

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Seal {
    /// The entry never had it.
    #[default]
    Nothing,
    /// It is there; its salt.
    Kept([u8; 16]),
    /// It was erased.
    Erased {
        /// What the leaf has in its place.
        commitment: Digest,
        /// The record that says when, why and by whom.
        by: Seq,
    },
}

/// The values of one entry, in the order of [`Erasable`](crate::proof::leaf::Erasable).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seals(pub [Seal; ERASABLE_VALUES]);

impl Seals {
    /// The records that say why values were erased, ascending, without doubles.
    pub fn reasons(&self) -> Vec<Seq> {
        let by = |seal: &Seal| match seal {
            Seal::Erased { by, .. } => Some(*by),
            _ => None,
        };
        let mut all: Vec<Seq> = self.0.iter().filter_map(by).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}
