//! Payloads of format version 1, which is only read any more. What is shared was written once per
//! segment and named by a number afterwards. Strict: everything is consumed, unknown kinds and codes
//! are errors, names must have been defined before.

use std::sync::Arc;

use uuid::Uuid;

use super::decode::Item;
use super::fields::{Carry, SETTLEMENT_SEQS_MAX, code, flag, one_param, shape, who};
use super::wire::{Input, Malformed};
use crate::record::{
    Completion, Entry, Event, Outcome, Record, Seq, Settlement, Shape, Sql, TxnOutcome, Who,
};

/// Most definitions of one kind that are remembered at one time.
const DEFINITIONS_MAX: usize = 4096;

/// What stands at the beginning of each item of a payload.
mod kind {
    pub(super) const DEFINE_WHO: u8 = 1;
    pub(super) const DEFINE_SHAPE: u8 = 2;
    pub(super) const DEFINE_SQL: u8 = 3;
    pub(super) const RECORD: u8 = 4;
    pub(super) const COMPLETION: u8 = 5;
    pub(super) const SETTLEMENT: u8 = 6;
    pub(super) const CARRY: u8 = 7;
    pub(super) const END: u8 = 8;
    /// All definitions of the kind that follows are forgotten.
    pub(super) const FORGET: u8 = 9;
}

/// The bits that say which optional parts a record has.
mod part {
    pub(super) const SQL_ONCE: u8 = 1;
    pub(super) const SQL_SHARED: u8 = 2;
    pub(super) const SHAPE: u8 = 4;
    pub(super) const DONE: u8 = 8;
    pub(super) const ALL: u8 = SQL_ONCE | SQL_SHARED | SHAPE | DONE;
}

/// What a segment has defined so far, as far as it may still be named.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    who: Table<Who>,
    shape: Table<Shape>,
    sql: Table<[u8]>,
}

impl Definitions {
    /// Reads a whole payload.
    pub(crate) fn items(&mut self, payload: &[u8]) -> Result<Vec<Item>, Malformed> {
        let mut input = Input(payload);
        let mut items = Vec::new();
        while !input.is_empty() {
            match input.u8()? {
                kind::DEFINE_WHO => self.who.define(&mut input, |input| who(input).map(Arc::new))?,
                kind::DEFINE_SHAPE => self.shape.define(&mut input, |input| shape(input).map(Arc::new))?,
                kind::DEFINE_SQL => self.sql.define(&mut input, |input| input.bytes().map(Arc::from))?,
                kind::FORGET => self.forget(input.u8()?)?,
                kind::RECORD => items.push(Item::Entry(Entry::Record(Box::new(self.record(&mut input)?)))),
                kind::COMPLETION => {
                    let seq = Seq(input.u64()?);
                    items.push(Item::Entry(Entry::Completion(end(&mut input, seq)?)));
                }
                kind::SETTLEMENT => items.push(Item::Entry(Entry::Settlement(settlement(&mut input)?))),
                kind::CARRY => items.push(Item::Carry(Carry::get(&mut input)?)),
                kind::END => items.push(Item::End),
                _ => return Err(Malformed("an entry is of an unknown kind")),
            }
        }
        Ok(items)
    }

    fn forget(&mut self, kind: u8) -> Result<(), Malformed> {
        match kind {
            kind::DEFINE_WHO => self.who.forget(),
            kind::DEFINE_SHAPE => self.shape.forget(),
            kind::DEFINE_SQL => self.sql.forget(),
            _ => return Err(Malformed("definitions of an unknown kind are to be forgotten")),
        }
        Ok(())
    }

    fn record(&self, input: &mut Input<'_>) -> Result<Record, Malformed> {
        let parts = input.u8()?;
        if parts & !part::ALL != 0 || parts & (part::SQL_ONCE | part::SQL_SHARED) == 3 {
            return Err(Malformed("a record has unknown parts"));
        }
        let event = code(input, Event::from_code, "a record has an unknown event")?;
        let id = Uuid::from_bytes(input.array()?);
        let time = input.time()?;
        let who = self.who.get(input)?;
        let sql = match parts & (part::SQL_ONCE | part::SQL_SHARED) {
            part::SQL_ONCE => Some(Sql::Once(input.bytes()?.into())),
            part::SQL_SHARED => Some(Sql::Shared(self.sql.get(input)?)),
            _ => None,
        };
        let shape = if parts & part::SHAPE != 0 { Some(self.shape.get(input)?) } else { None };
        let params = input.list(one_param)?;
        let detail = input.string()?;
        let done = if parts & part::DONE != 0 { Some(end(input, Seq(0))?) } else { None };
        Ok(Record { id, time, event, who, sql, shape, params, detail, done })
    }
}

/// Definitions of one kind, in the order of their numbers.
#[derive(Debug)]
struct Table<T: ?Sized> {
    forgotten: u64,
    values: Vec<Arc<T>>,
}

impl<T: ?Sized> Default for Table<T> {
    fn default() -> Self {
        Self { forgotten: 0, values: Vec::new() }
    }
}

impl<T: ?Sized> Table<T> {
    fn next(&self) -> u64 {
        self.forgotten + self.values.len() as u64
    }

    fn define(
        &mut self,
        input: &mut Input<'_>,
        read: impl FnOnce(&mut Input<'_>) -> Result<Arc<T>, Malformed>,
    ) -> Result<(), Malformed> {
        if input.u64()? != self.next() {
            return Err(Malformed("a definition has the wrong number"));
        }
        if self.values.len() >= DEFINITIONS_MAX {
            return Err(Malformed("there are too many definitions"));
        }
        self.values.push(read(input)?);
        Ok(())
    }

    fn forget(&mut self) {
        self.forgotten = self.next();
        self.values.clear();
    }

    fn get(&self, input: &mut Input<'_>) -> Result<Arc<T>, Malformed> {
        let index = input.u64()?.checked_sub(self.forgotten).and_then(|index| usize::try_from(index).ok());
        let value = index.and_then(|index| self.values.get(index));
        value.cloned().ok_or(Malformed("a record names something that was not defined"))
    }
}

fn end(input: &mut Input<'_>, seq: Seq) -> Result<Completion, Malformed> {
    Ok(Completion {
        seq,
        outcome: code(input, Outcome::from_code, "an end has an unknown outcome")?,
        txn_outcome: code(input, TxnOutcome::from_code, "an end has an unknown transaction outcome")?,
        command: input.string()?.into(),
        rows: if flag(input)? { Some(input.u64()?) } else { None },
        bytes: input.u64()?,
        duration_us: input.u64()?,
        sqlstate: input.string()?,
        error: input.string()?,
        notes: input.strings()?,
    })
}

fn settlement(input: &mut Input<'_>) -> Result<Settlement, Malformed> {
    let txn_outcome = code(input, TxnOutcome::from_code, "a settlement has an unknown transaction outcome")?;
    let wrong = Malformed("a settlement's record numbers are out of range");
    let count =
        usize::try_from(input.u64()?).ok().filter(|count| *count <= SETTLEMENT_SEQS_MAX).ok_or(wrong)?;
    let mut seqs = Vec::new();
    let mut end = 0_u64;
    while seqs.len() < count {
        let first = end.checked_add_signed(input.i64()?).ok_or(wrong)?;
        let more = input.u64()?;
        if more >= (count - seqs.len()) as u64 {
            return Err(wrong);
        }
        end = first.checked_add(more).ok_or(wrong)?;
        seqs.extend((first..=end).map(Seq));
    }
    Ok(Settlement { seqs, txn_outcome })
}
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The payloads of a segment that version 1 wrote, one after the other.
    fn payload() -> Vec<u8> {
        let bytes = include_bytes!("../../tests/data/journal/v1/00000000000000000001.journal");
        let (mut rest, mut payload) = (&bytes[56..], Vec::new());
        while let Some((fields, behind)) = rest.split_at_checked(68) {
            let length = u32::from_le_bytes(*fields[4..].first_chunk().unwrap()) as usize;
            payload.extend_from_slice(&behind[..length]);
            rest = &behind[length..];
        }
        payload
    }

    #[test]
    fn no_cut_payload_reads_as_the_whole() {
        let whole = payload();
        let items = Definitions::default().items(&whole).unwrap();
        assert!(items.len() > 3);
        for end in 0..whole.len() {
            assert_ne!(Definitions::default().items(&whole[..end]).as_ref(), Ok(&items), "{end}");
        }
    }

    #[test]
    fn lying_lengths_are_refused_without_being_believed() {
        for kind in 0..=u8::MAX {
            let mut lie = vec![kind];
            lie.extend_from_slice(&[0xff; 9]);
            lie.push(0x01);
            lie.extend_from_slice(&[0xff; 40]);
            assert!(Definitions::default().items(&lie).is_err(), "{kind}");
        }
        // A settlement of 2^62 records in a few bytes.
        let mut lie = vec![kind::SETTLEMENT, 0];
        crate::journal::wire::put_u64(&mut lie, 1 << 62);
        lie.extend_from_slice(&[2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        assert!(Definitions::default().items(&lie).is_err());
    }

    proptest! {
        #[test]
        fn outside_bytes_never_panic(bytes in prop::collection::vec(prop_oneof![0_u8..12, any::<u8>()], 0..200)) {
            let _ = Definitions::default().items(&bytes);
        }

        #[test]
        fn changed_payloads_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = payload();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Definitions::default().items(&bytes);
        }
    }
}
