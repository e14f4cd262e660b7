//! Payload bytes to entries. Strict: everything is consumed, unknown kinds and codes are errors,
//! names must have been defined before.

use std::sync::Arc;

use uuid::Uuid;

use super::encode::{Carry, DEFINITIONS_MAX, SETTLEMENT_SEQS_MAX, kind, param, part};
use super::seqs::SeqSet;
use super::wire::{Input, Malformed};
use crate::record::{
    Certainty, Class, Completion, Entry, Event, Outcome, Param, Record, Seq, Settlement, Shape, Sql,
    TxnOutcome, Who,
};

/// One item of a payload that is not a definition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    Entry(Entry),
    Carry(Carry),
    End,
}

/// What a segment has defined so far, as far as it may still be named.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    who: Table<Who>,
    shape: Table<Shape>,
    sql: Table<[u8]>,
}

impl Definitions {
    /// How many of each kind were ever defined.
    pub(crate) fn defined(&self) -> [u64; 3] {
        [self.who.next(), self.shape.next(), self.sql.next()]
    }

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
                kind::CARRY => items.push(Item::Carry(carry(&mut input)?)),
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

fn code<T>(input: &mut Input<'_>, read: fn(u8) -> Option<T>, why: &'static str) -> Result<T, Malformed> {
    read(input.u8()?).ok_or(Malformed(why))
}

fn flag(input: &mut Input<'_>) -> Result<bool, Malformed> {
    match input.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("a flag is neither 0 nor 1")),
    }
}

fn who(input: &mut Input<'_>) -> Result<Who, Malformed> {
    // In the order in which they were written; struct expressions are evaluated as listed.
    Ok(Who {
        user: input.string()?,
        sub: input.string()?,
        iss: input.string()?,
        login: input.string()?,
        session: input.string()?,
        role: input.string()?,
        db: input.string()?,
        upstream: input.string()?,
        search_path: input.string()?,
        ip: input.string()?,
        app: input.string()?,
        device: input.string()?,
        groups: input.strings()?,
        auth: input.list(|input| Ok((input.string()?, input.string()?)))?,
    })
}

fn shape(input: &mut Input<'_>) -> Result<Shape, Malformed> {
    Ok(Shape {
        fingerprint: input.string()?,
        command: input.string()?,
        analysis: code(input, Certainty::from_code, "a shape has an unknown certainty")?,
        class: input.list(|input| code(input, Class::from_code, "a shape has an unknown class"))?,
        tables: input.strings()?,
        reads: input.strings()?,
        filters: input.strings()?,
        writes: input.strings()?,
        via: input.strings()?,
        analysis_notes: input.strings()?,
        tags: input.strings()?,
    })
}

fn one_param(input: &mut Input<'_>) -> Result<Param, Malformed> {
    Ok(match input.u8()? {
        param::NULL => Param::Null,
        param::FALSE => Param::Bool(false),
        param::TRUE => Param::Bool(true),
        param::INT => Param::Int(input.i64()?),
        param::FLOAT => Param::Float(f64::from_bits(u64::from_le_bytes(input.array()?))),
        param::TEXT => Param::Text(input.string()?),
        param::BYTES => Param::Bytes(input.bytes()?.to_vec()),
        _ => return Err(Malformed("a parameter is of an unknown kind")),
    })
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

fn carry(input: &mut Input<'_>) -> Result<Carry, Malformed> {
    Ok(Carry {
        frames: input.u64()?,
        last_time: if flag(input)? { Some(input.time()?) } else { None },
        open: SeqSet::get(input)?,
        unsettled: SeqSet::get(input)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::encode::Dictionary;
    use crate::record::Timestamp;

    fn payload() -> Vec<u8> {
        let (mut out, mut dictionary) = (Vec::new(), Dictionary::new());
        let done = Completion { rows: Some(300), ..Completion::new(Outcome::Ok, TxnOutcome::Open) };
        let record = Record {
            id: Uuid::from_u128(7),
            time: Timestamp(5),
            event: Event::Query,
            who: Arc::new(Who { groups: vec!["dev".into()], ..Who::default() }),
            sql: Some(Sql::Shared(Arc::from(&b"select 1"[..]))),
            shape: None,
            params: vec![Param::Int(-1), Param::Text("x".into()), Param::Float(1.5)],
            detail: "d".into(),
            done: Some(done.clone()),
        };
        dictionary.put_entry(&mut out, &Entry::Record(Box::new(record)));
        dictionary.put_entry(&mut out, &Entry::Completion(Completion { seq: Seq(900), ..done }));
        let seqs = [3, 4, 5, 9, 8].map(Seq).to_vec();
        let settlement = Settlement { seqs, txn_outcome: TxnOutcome::Committed };
        dictionary.put_entry(&mut out, &Entry::Settlement(settlement));
        out
    }

    #[test]
    fn no_cut_payload_reads_as_the_whole() {
        let whole = payload();
        let items = Definitions::default().items(&whole).unwrap();
        assert_eq!(items.len(), 3);
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
