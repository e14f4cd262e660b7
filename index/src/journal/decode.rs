//! Payloads of format version 2 to entries. Strict: everything is consumed, unknown kinds and codes
//! are errors, and so are names of what was not defined.
//!
//! ```text
//! payload     length of the definitions | definitions | entries
//! definition  IMPORT: bytes back to the frame that defines it | its number there
//!             or WHO, SHAPE, STATEMENT: the value
//! ```
//! Definitions are numbered within their frame, imports among them; entries name them by number. So a
//! frame is read with the help of no more than those frames that it names.

use std::sync::Arc;

use uuid::Uuid;

use super::cut;
use super::encode::{COMMANDS, Place, definition, item, part};
use super::fields::{Carry, SETTLEMENT_SEQS_MAX, code, one_param, shape, who};
use super::generations::{DEFINITIONS, Generations};
use super::wire::{Input, Malformed};
use crate::record::{
    Completion, Entry, Event, Outcome, Record, Seq, Settlement, Shape, Sql, Template, Timestamp, TxnOutcome,
    Who,
};

/// One item of a payload that is not a definition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    Entry(Entry),
    Carry(Carry),
    End,
}

/// What entries name.
#[derive(Debug, Clone)]
pub(super) enum Definition {
    Who(Arc<Who>),
    Shape(Arc<Shape>),
    Statement(Statement),
}

#[derive(Debug, Clone)]
pub(super) struct Statement {
    text: Text,
    shape: Option<Arc<Shape>>,
}

/// A text without holes is shared as it is.
#[derive(Debug, Clone)]
enum Text {
    Whole(Arc<[u8]>),
    Cut(Arc<Template>),
}

/// A definition as its frame has it: what it names elsewhere is not looked up yet.
#[derive(Debug)]
enum Raw {
    Import(Place),
    Who(Arc<Who>),
    Shape(Arc<Shape>),
    /// With the number of its shape in the frame.
    Statement(Text, Option<usize>),
}

/// The definitions of one frame.
#[derive(Debug)]
pub(super) struct RawDefinitions(Vec<(Raw, usize)>);

impl RawDefinitions {
    /// Reads the definitions at the beginning of the payload of the frame at `offset`, and what is
    /// behind them: the entries.
    pub(super) fn read(payload: &[u8], offset: u32) -> Result<(Self, Input<'_>), Malformed> {
        let mut entries = Input(payload);
        let mut input = Input(entries.bytes()?);
        let mut definitions = Vec::new();
        while !input.is_empty() {
            let before = input.0.len();
            let raw = raw(&mut input, offset)?;
            definitions.push((raw, before - input.0.len()));
        }
        Ok((Self(definitions), entries))
    }

    fn shape(&self, number: usize) -> Result<ShapeAt, Malformed> {
        match self.0.get(number) {
            Some((Raw::Shape(shape), _)) => Ok(ShapeAt::Here(shape.clone())),
            Some((Raw::Import(place), _)) => Ok(ShapeAt::There(*place)),
            _ => Err(Malformed("a statement names something that is no shape")),
        }
    }
}

enum ShapeAt {
    Here(Arc<Shape>),
    There(Place),
}

fn raw(input: &mut Input<'_>, offset: u32) -> Result<Raw, Malformed> {
    Ok(match input.u8()? {
        definition::IMPORT => {
            let back = u32::try_from(input.u64()?).ok().filter(|back| *back > 0);
            let from = back.and_then(|back| offset.checked_sub(back));
            let from = from.ok_or(Malformed("a definition is said to be outside of the segment"))?;
            let number = u32::try_from(input.u64()?).map_err(|_| Malformed("a number is too large"))?;
            Raw::Import(Place { offset: from, number })
        }
        definition::WHO => Raw::Who(Arc::new(who(input)?)),
        definition::SHAPE => Raw::Shape(Arc::new(shape(input)?)),
        definition::STATEMENT => {
            let shape = input.u64()?.checked_sub(1).map(usize::try_from);
            let shape = shape.transpose().map_err(|_| Malformed("a number is too large"))?;
            let template = cut::template(input)?;
            let text = if template.holes().is_empty() {
                Text::Whole(template.text().into())
            } else {
                Text::Cut(Arc::new(template))
            };
            Raw::Statement(text, shape)
        }
        _ => return Err(Malformed("a definition is of an unknown kind")),
    })
}

/// Loads the definitions of the frame at an offset.
pub(super) trait Load {
    type Error: From<Malformed>;
    fn load(&mut self, offset: u32) -> Result<RawDefinitions, Self::Error>;
}

/// The definitions that were met last, by segment and place: what is missing is loaded again.
pub(super) struct Definitions(Generations<(u64, Place), Definition>);

impl Definitions {
    pub(super) fn new() -> Self {
        Self(Generations::new(DEFINITIONS))
    }

    /// The definitions of the frame at `offset`, ready for its entries.
    pub(super) fn resolve<L: Load>(
        &mut self,
        segment: u64,
        offset: u32,
        raw: &RawDefinitions,
        from: &mut L,
    ) -> Result<Vec<Definition>, L::Error> {
        let mut table = Vec::with_capacity(raw.0.len());
        for (number, (one, size)) in raw.0.iter().enumerate() {
            let place = Place { offset, number: number as u32 };
            let resolved = match one {
                Raw::Import(place) => self.at(segment, *place, from)?,
                _ => self.define(segment, place, raw, one, *size, from)?,
            };
            table.push(resolved);
        }
        Ok(table)
    }

    fn at<L: Load>(&mut self, segment: u64, place: Place, from: &mut L) -> Result<Definition, L::Error> {
        if let Some(known) = self.0.get(&(segment, place)) {
            return Ok(known.clone());
        }
        let raw = from.load(place.offset)?;
        match raw.0.get(place.number as usize) {
            None => Err(Malformed("a definition is not where it is said to be").into()),
            Some((Raw::Import(_), _)) => Err(Malformed("a definition is said to be where it is not").into()),
            Some((one, size)) => self.define(segment, place, &raw, one, *size, from),
        }
    }

    fn define<L: Load>(
        &mut self,
        segment: u64,
        place: Place,
        raw: &RawDefinitions,
        one: &Raw,
        size: usize,
        from: &mut L,
    ) -> Result<Definition, L::Error> {
        let definition = match one {
            Raw::Import(place) => return self.at(segment, *place, from),
            Raw::Who(who) => Definition::Who(who.clone()),
            Raw::Shape(shape) => Definition::Shape(shape.clone()),
            Raw::Statement(text, shape) => {
                let shape = shape.map(|number| raw.shape(number)).transpose()?;
                let shape = match shape {
                    None => None,
                    Some(ShapeAt::Here(shape)) => Some(shape),
                    Some(ShapeAt::There(place)) => Some(self.shape_at(segment, place, from)?),
                };
                Definition::Statement(Statement { text: text.clone(), shape })
            }
        };
        self.0.insert((segment, place), definition.clone(), size);
        Ok(definition)
    }

    /// A shape in another frame. It names nothing itself, so this ends here.
    fn shape_at<L: Load>(
        &mut self,
        segment: u64,
        place: Place,
        from: &mut L,
    ) -> Result<Arc<Shape>, L::Error> {
        if let Some(Definition::Shape(shape)) = self.0.get(&(segment, place)) {
            return Ok(shape.clone());
        }
        let raw = from.load(place.offset)?;
        let Some((Raw::Shape(shape), size)) = raw.0.get(place.number as usize) else {
            return Err(Malformed("a shape is not where it is said to be").into());
        };
        self.0.insert((segment, place), Definition::Shape(shape.clone()), *size);
        Ok(shape.clone())
    }
}

/// From where numbers and times in a frame are counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) first: Seq,
    pub(super) time: Timestamp,
}

/// Reads the entries of a frame.
pub(super) fn items(
    mut input: Input<'_>,
    table: &[Definition],
    origin: Origin,
) -> Result<Vec<Item>, Malformed> {
    let (mut items, mut time) = (Vec::new(), origin.time);
    while !input.is_empty() {
        items.push(match input.u8()? {
            item::RECORD => {
                let record = record(&mut input, table, time)?;
                time = record.time;
                Item::Entry(Entry::Record(Box::new(record)))
            }
            item::COMPLETION => {
                let seq = Seq(origin.first.0.wrapping_add_signed(input.i64()?));
                Item::Entry(Entry::Completion(end(&mut input, seq)?))
            }
            item::SETTLEMENT => Item::Entry(Entry::Settlement(settlement(&mut input, origin.first)?)),
            item::CARRY => Item::Carry(Carry::get(&mut input)?),
            item::END => Item::End,
            _ => return Err(Malformed("an entry is of an unknown kind")),
        });
    }
    Ok(items)
}

fn named<'a>(input: &mut Input<'_>, table: &'a [Definition]) -> Result<&'a Definition, Malformed> {
    let number = usize::try_from(input.u64()?).ok();
    number
        .and_then(|number| table.get(number))
        .ok_or(Malformed("a record names something that was not defined"))
}

fn record(input: &mut Input<'_>, table: &[Definition], before: Timestamp) -> Result<Record, Malformed> {
    let parts = input.u8()?;
    let event = match parts & part::QUERY {
        0 => code(input, Event::from_code, "a record has an unknown event")?,
        _ => Event::Query,
    };
    let time = Timestamp(before.0.wrapping_add(input.i64()?));
    let id = match parts & part::ID_OF_TIME {
        0 => Uuid::from_bytes(input.array()?),
        _ => id_of(time, input.array()?),
    };
    let Definition::Who(who) = named(input, table)? else {
        return Err(Malformed("a record names something that is no session"));
    };
    let (sql, mut shape) = match parts & part::SQL {
        part::SQL_NONE => (None, None),
        part::SQL_RAW => (Some(Sql::Once(input.bytes()?.into())), None),
        part::SQL_STATEMENT => statement(input, table)?,
        _ => return Err(Malformed("a record has unknown parts")),
    };
    if parts & part::SHAPE != 0 {
        let Definition::Shape(named) = named(input, table)? else {
            return Err(Malformed("a record names something that is no shape"));
        };
        shape = Some(named.clone());
    }
    let params = if parts & part::PARAMS != 0 { input.list(one_param)? } else { Vec::new() };
    let detail = if parts & part::DETAIL != 0 { input.string()? } else { String::new() };
    let done = if parts & part::DONE != 0 { Some(end(input, Seq(0))?) } else { None };
    Ok(Record { id, time, event, who: who.clone(), sql, shape, params, detail, done })
}

fn statement(
    input: &mut Input<'_>,
    table: &[Definition],
) -> Result<(Option<Sql>, Option<Arc<Shape>>), Malformed> {
    let Definition::Statement(Statement { text, shape }) = named(input, table)? else {
        return Err(Malformed("a record names something that is no statement"));
    };
    let sql = match text {
        Text::Whole(text) => Sql::Shared(text.clone()),
        Text::Cut(template) => Sql::Spliced(cut::spliced(template, input)?),
    };
    Ok((Some(sql), shape.clone()))
}

/// A UUIDv7 of a moment (RFC 9562, 5.7): its first 48 bits are the milliseconds.
fn id_of(time: Timestamp, rest: [u8; 10]) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis(time)[2..]);
    bytes[6..].copy_from_slice(&rest);
    Uuid::from_bytes(bytes)
}

/// The milliseconds of a moment as they begin its ids.
pub(super) fn millis(time: Timestamp) -> [u8; 8] {
    time.0.div_euclid(1000).to_be_bytes()
}

fn end(input: &mut Input<'_>, seq: Seq) -> Result<Completion, Malformed> {
    let outcomes = input.u8()?;
    let outcome = Outcome::from_code(outcomes >> 4).ok_or(Malformed("an end has an unknown outcome"))?;
    let txn_outcome =
        TxnOutcome::from_code(outcomes & 15).ok_or(Malformed("an end has an unknown transaction outcome"))?;
    let command = input.u8()?;
    let says = command & !part::COMMAND;
    if says & !(part::ROWS | part::TROUBLE) != 0 {
        return Err(Malformed("an end has unknown parts"));
    }
    let command = match usize::from(command & part::COMMAND) {
        number if number == usize::from(part::COMMAND) => input.string()?.into(),
        number => (*COMMANDS.get(number).ok_or(Malformed("an end has an unknown command"))?).into(),
    };
    let rows = if says & part::ROWS != 0 { Some(input.u64()?) } else { None };
    let (bytes, duration_us) = (input.u64()?, input.u64()?);
    let (sqlstate, error, notes) = match says & part::TROUBLE {
        0 => Default::default(),
        _ => (input.string()?, input.string()?, input.strings()?),
    };
    Ok(Completion { seq, outcome, txn_outcome, command, rows, bytes, duration_us, sqlstate, error, notes })
}

fn settlement(input: &mut Input<'_>, first: Seq) -> Result<Settlement, Malformed> {
    let txn_outcome = code(input, TxnOutcome::from_code, "a settlement has an unknown transaction outcome")?;
    let wrong = Malformed("a settlement's record numbers are out of range");
    let count =
        usize::try_from(input.u64()?).ok().filter(|count| *count <= SETTLEMENT_SEQS_MAX).ok_or(wrong)?;
    let (mut seqs, mut end) = (Vec::new(), first.0);
    while seqs.len() < count {
        let from = end.wrapping_add_signed(input.i64()?);
        let more = input.u64()?;
        if more >= (count - seqs.len()) as u64 {
            return Err(wrong);
        }
        end = from.checked_add(more).ok_or(wrong)?;
        seqs.extend((from..=end).map(Seq));
    }
    Ok(Settlement { seqs, txn_outcome })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::encode::Dictionary;
    use crate::record::{Certainty, Param};

    const ORIGIN: Origin = Origin { first: Seq(900), time: Timestamp(7) };

    /// Frames by their offset: what a segment would hold.
    #[derive(Default)]
    struct Frames(Vec<(u32, Vec<u8>)>);

    impl Load for Frames {
        type Error = Malformed;

        fn load(&mut self, offset: u32) -> Result<RawDefinitions, Malformed> {
            let frame =
                self.0.iter().find(|(at, _)| *at == offset).ok_or(Malformed("there is no such frame"))?;
            Ok(RawDefinitions::read(&frame.1, offset)?.0)
        }
    }

    fn read(payload: &[u8], offset: u32, from: &mut Frames) -> Result<Vec<Item>, Malformed> {
        let (raw, entries) = RawDefinitions::read(payload, offset)?;
        let table = Definitions::new().resolve(1, offset, &raw, from)?;
        items(entries, &table, ORIGIN)
    }

    fn shape() -> Shape {
        Shape {
            fingerprint: "f".into(),
            command: "SELECT".into(),
            class: Vec::new(),
            tables: vec!["public.t".into()],
            reads: Vec::new(),
            filters: Vec::new(),
            writes: Vec::new(),
            via: Vec::new(),
            analysis: Certainty::Exact,
            analysis_notes: Vec::new(),
            tags: Vec::new(),
        }
    }

    /// A frame that defines, and one that imports all it needs, with its entries.
    fn frames() -> (Frames, Vec<u8>, Vec<Item>) {
        let done = Completion { rows: Some(300), ..Completion::new(Outcome::Ok, TxnOutcome::Open) };
        let record = Record {
            id: Uuid::from_u128(7),
            time: Timestamp(5),
            event: Event::Query,
            who: Arc::new(Who { groups: vec!["dev".into()], ..Who::default() }),
            sql: Some(Sql::Once(b"select 'a', 17"[..].into())),
            shape: Some(Arc::new(shape())),
            params: vec![Param::Int(-1), Param::Text("x".into()), Param::Float(1.5)],
            detail: "d".into(),
            done: Some(done.clone()),
        };
        let shapeless = Record { sql: Some(Sql::Shared(b"select $1"[..].into())), ..record.clone() };
        let entries = [
            Entry::Record(Box::new(record)),
            Entry::Record(Box::new(shapeless)),
            Entry::Completion(Completion { seq: Seq(899), error: "e".into(), ..done }),
            Entry::Settlement(Settlement {
                seqs: [3, 4, 5, 9, 8].map(Seq).to_vec(),
                txn_outcome: TxnOutcome::Committed,
            }),
        ];
        let mut dictionary = Dictionary::new();
        let mut payload = |offset| {
            dictionary.begin(offset);
            let mut time = ORIGIN.time;
            entries.iter().for_each(|entry| dictionary.put_entry(entry, ORIGIN.first, &mut time));
            let mut payload = Vec::new();
            dictionary.finish(&mut payload);
            payload
        };
        let (first, second) = (payload(100), payload(1000));
        assert!(second.len() < first.len() && !second.windows(3).any(|three| three == b"dev"));
        (Frames(vec![(100, first)]), second, entries.map(Item::Entry).to_vec())
    }

    #[test]
    fn a_frame_is_read_with_the_frames_it_names_and_no_cut_of_it_reads_as_the_whole() {
        let (mut from, whole, items) = frames();
        assert_eq!(read(&whole, 1000, &mut from).as_ref(), Ok(&items));
        let first = from.0[0].1.clone();
        assert_eq!(read(&first, 100, &mut Frames::default()).as_ref(), Ok(&items));
        for end in 0..whole.len() {
            assert_ne!(read(&whole[..end], 1000, &mut from).as_ref(), Ok(&items), "{end}");
        }
        assert!(read(&whole, 1001, &mut from).is_err());
        assert!(read(&whole, 1000, &mut Frames::default()).is_err());
    }

    #[test]
    fn imports_of_imports_and_of_later_frames_are_refused() {
        let (mut from, whole, _) = frames();
        from.0.push((1000, whole));
        // Who, as number 0 of the frame at 1000, where it is an import itself.
        let import = |back: u8| vec![3, definition::IMPORT, back, 0, item::RECORD, part::QUERY, 0];
        assert!(read(&import(100), 1100, &mut from).is_err());
        for back in [0, 101] {
            assert!(read(&import(back), 100, &mut from).is_err());
        }
    }

    #[test]
    fn lying_lengths_are_refused_without_being_believed() {
        for kind in 0..=u8::MAX {
            for head in [&[0, kind][..], &[40, kind]] {
                let mut lie = head.to_vec();
                lie.extend_from_slice(&[0xff; 9]);
                lie.push(0x01);
                lie.extend_from_slice(&[0xff; 40]);
                assert!(read(&lie, 100, &mut Frames::default()).is_err(), "{kind}");
            }
        }
    }

    proptest! {
        #[test]
        fn outside_bytes_never_panic(bytes in prop::collection::vec(prop_oneof![0_u8..12, any::<u8>()], 0..200)) {
            let (mut from, ..) = frames();
            let _ = read(&bytes, 1000, &mut from);
        }

        #[test]
        fn changed_payloads_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), first in any::<bool>()) {
            let (mut from, mut whole, _) = frames();
            let changed = if first { &mut from.0[0].1 } else { &mut whole };
            let at = at.index(changed.len());
            changed[at] = byte;
            let _ = read(&whole, 1000, &mut from);
        }
    }
}
