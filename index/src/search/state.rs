//! What a commit carries beside its documents.

use serde_json::{Value, json};

use super::schema::VERSION;
use crate::journal::{Position, ReadFrame};
use crate::record::Digest;

/// A boundary between two frames of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) next: Position,
    pub(crate) digest: Digest,
}

impl Place {
    pub(crate) fn of(frame: &ReadFrame) -> Place {
        Place { next: frame.next, digest: frame.digest }
    }
}

/// Written with the documents, so that both are true or neither is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    /// From where the journal is read on: what comes after is not in the documents, or is again.
    pub(crate) place: Option<Place>,
    /// The documents are of the records up to here.
    pub(crate) seq: u64,
    /// The number that the dictionary gives next.
    pub(crate) number: u64,
}

impl Default for State {
    fn default() -> State {
        // 0 stands for none.
        State { place: None, seq: 0, number: 1 }
    }
}

impl State {
    pub(crate) fn to_text(self) -> String {
        let position = |at: Position| json!([at.segment, at.offset]);
        let place = self
            .place
            .map(|place| json!({ "next": position(place.next), "digest": place.digest.to_string() }));
        json!({ "version": VERSION, "seq": self.seq, "number": self.number, "place": place }).to_string()
    }

    pub(crate) fn from_text(text: &str) -> Option<State> {
        let value: Value = serde_json::from_str(text).ok()?;
        if value.get("version")?.as_u64()? != u64::from(VERSION) {
            return None;
        }
        let position = |value: &Value| {
            let pair = value.as_array().filter(|pair| pair.len() == 2)?;
            Some(Position { segment: pair[0].as_u64()?, offset: pair[1].as_u64()? })
        };
        let place = match value.get("place")? {
            Value::Null => None,
            place => Some(Place {
                next: position(place.get("next")?)?,
                digest: digest(place.get("digest")?.as_str()?)?,
            }),
        };
        Some(State { place, seq: value.get("seq")?.as_u64()?, number: value.get("number")?.as_u64()? })
    }
}

fn digest(hex: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    if hex.len() != digest.len() * 2 {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(Digest(digest))
}
