//! Payloads of format version 2 to entries. Strict: everything is consumed, unknown kinds and codes
//! are errors, and so are names of what was not defined.
//!
//! ```text
//! payload     time | length of the definitions | definitions | entries
//! definition  IMPORT: bytes back to the frame that defines it | its byte among the definitions there
//!             or WHO, SHAPE, STATEMENT: the value (a statement says in the same way where its shape is)
//! entry       kind | length | RECORD, COMPLETION, SETTLEMENT, CARRY, END
//!             (version 3 also: SEALED_RECORD, SEALED_COMPLETION: the seals of the values, then as above)
//! ```
//! Definitions are numbered within their frame, imports among them; entries name them by number. So a
//! frame is read with the help of no more than those frames that it names, and an entry alone with the
//! help of those that it names. Times are counted from that of the frame, which is counted from that of
//! the segment.

use std::sync::Arc;

use uuid::Uuid;

use super::cut;
use super::encode::{COMMANDS, Place, definition, item as entry, part};
use super::fields::{Carry, SETTLEMENT_SEQS_MAX, code, one_param, seals, shape, who};
use super::generations::{DEFINITIONS, Generations};
use super::wire::{Input, Malformed};
use crate::proof::leaf::Erasable;
use crate::record::{
    Completion, Entry, Event, Outcome, Record, Seal, Seals, Seq, Settlement, Shape, Sql, Template, Timestamp,
    TxnOutcome, Who,
};

/// One item of a payload that is not a definition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    Entry(Entry),
    /// An entry of a rewritten segment, with the seals of its values.
    Sealed(Entry, Box<Seals>),
    Carry(Carry),
    End,
}

impl Item {
    /// The entry, if it is one.
    pub(crate) fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Entry(entry) | Self::Sealed(entry, _) => Some(entry),
            Self::Carry(_) | Self::End => None,
        }
    }

    /// The seals of its values, if it has some of its own.
    pub(crate) fn seals(&self) -> Option<&Seals> {
        match self {
            Self::Sealed(_, seals) => Some(seals),
            _ => None,
        }
    }

    /// Both.
    pub(crate) fn into_entry(self) -> Option<(Entry, Option<Box<Seals>>)> {
        match self {
            Self::Entry(entry) => Some((entry, None)),
            Self::Sealed(entry, seals) => Some((entry, Some(seals))),
            Self::Carry(_) | Self::End => None,
        }
    }
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
    Statement(Text, Option<Place>),
}

/// A payload whose definitions are read and whose entries are not.
#[derive(Debug)]
pub(super) struct Payload<'a> {
    /// Each with its byte, and its size.
    definitions: Vec<(Raw, u32, usize)>,
    entries: Input<'a>,
    origin: Origin,
    offset: u32,
}

impl<'a> Payload<'a> {
    /// Reads the payload of the frame at `offset`; `origin` is of the frame's number and the segment's time.
    pub(super) fn read(payload: &'a [u8], offset: u32, origin: Origin) -> Result<Self, Malformed> {
        let mut entries = Input(payload);
        let time = Timestamp(origin.time.0.wrapping_add(entries.i64()?));
        let mut input = Input(entries.bytes()?);
        let (whole, mut definitions) = (input.0.len(), Vec::new());
        while !input.is_empty() {
            let byte = whole - input.0.len();
            let raw = raw(&mut input, offset)?;
            definitions.push((raw, byte as u32, whole - byte - input.0.len()));
        }
        Ok(Self { definitions, entries, origin: Origin { time, ..origin }, offset })
    }

    /// The items of the payload.
    pub(super) fn items<L: Load>(
        &self,
        segment: u64,
        known: &mut Definitions,
        from: &mut L,
    ) -> Result<Vec<Item>, L::Error> {
        let mut table = Vec::with_capacity(self.definitions.len());
        for number in 0..self.definitions.len() {
            table.push(known.numbered(segment, self, number, from)?);
        }
        let (mut items, mut rest) = (Vec::new(), self.entries);
        let mut names = Table(&table);
        while let Some((kind, mut input)) = next_entry(&mut rest)? {
            items.push(item(kind, &mut input, &mut names, self.origin)?);
        }
        Ok(items)
    }

    /// One item alone, and how many records are before it; `None` if there are not so many.
    pub(super) fn item<L: Load>(
        &self,
        index: usize,
        segment: u64,
        known: &mut Definitions,
        from: &mut L,
    ) -> Result<Option<(Item, u64)>, L::Error> {
        let (mut rest, mut records) = (self.entries, 0);
        for _ in 0..index {
            match next_entry(&mut rest)? {
                None => return Ok(None),
                Some((kind, _)) => records += u64::from(is_record(kind)),
            }
        }
        let Some((kind, mut input)) = next_entry(&mut rest)? else { return Ok(None) };
        let mut names = Lazy { payload: self, segment, known, from };
        Ok(Some((item(kind, &mut input, &mut names, self.origin)?, records)))
    }

    /// The index of record `seq` among the entries.
    pub(super) fn index_of(&self, seq: Seq) -> Result<Option<usize>, Malformed> {
        let (mut rest, mut next, mut index) = (self.entries, self.origin.first, 0);
        while let Some((kind, _)) = next_entry(&mut rest)? {
            if is_record(kind) {
                if next == seq {
                    return Ok(Some(index));
                }
                next.0 = next.0.wrapping_add(1);
            }
            index += 1;
        }
        Ok(None)
    }
}

fn is_record(kind: u8) -> bool {
    kind == entry::RECORD || kind == entry::SEALED_RECORD
}

/// The kind and the bytes of the next entry.
fn next_entry<'a>(rest: &mut Input<'a>) -> Result<Option<(u8, Input<'a>)>, Malformed> {
    if rest.is_empty() {
        return Ok(None);
    }
    Ok(Some((rest.u8()?, Input(rest.bytes()?))))
}

fn raw(input: &mut Input<'_>, offset: u32) -> Result<Raw, Malformed> {
    Ok(match input.u8()? {
        definition::IMPORT => match place(input, offset)? {
            place if place.offset < offset => Raw::Import(place),
            _ => return Err(Malformed("a frame imports from itself")),
        },
        definition::WHO => Raw::Who(Arc::new(who(input)?)),
        definition::SHAPE => Raw::Shape(Arc::new(shape(input)?)),
        definition::STATEMENT => {
            let shape = match input.u64()? {
                0 => None,
                back => Some(place_back(back - 1, input, offset)?),
            };
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

fn place(input: &mut Input<'_>, offset: u32) -> Result<Place, Malformed> {
    let back = input.u64()?;
    place_back(back, input, offset)
}

fn place_back(back: u64, input: &mut Input<'_>, offset: u32) -> Result<Place, Malformed> {
    let from = u32::try_from(back).ok().and_then(|back| offset.checked_sub(back));
    let offset = from.ok_or(Malformed("a definition is said to be outside of the segment"))?;
    let byte = u32::try_from(input.u64()?).map_err(|_| Malformed("a number is too large"))?;
    Ok(Place { offset, byte })
}

/// Loads the plain payload of the frame at an offset.
pub(super) trait Load {
    type Error: From<Malformed>;
    fn load(&mut self, offset: u32) -> Result<Vec<u8>, Self::Error>;
}

/// The definitions that were met last, by segment and place: what is missing is loaded again.
pub(super) struct Definitions(Generations<(u64, Place), Definition>);

impl Definitions {
    pub(super) fn new() -> Self {
        Self(Generations::new(DEFINITIONS))
    }

    /// What has a number in a frame.
    fn numbered<L: Load>(
        &mut self,
        segment: u64,
        payload: &Payload<'_>,
        number: usize,
        from: &mut L,
    ) -> Result<Definition, L::Error> {
        match payload.definitions.get(number) {
            None => Err(Malformed("a record names something that was not defined").into()),
            Some((Raw::Import(place), ..)) => self.at(segment, *place, from),
            Some((raw, byte, size)) => {
                let place = Place { offset: payload.offset, byte: *byte };
                self.define(segment, place, raw, *size, from)
            }
        }
    }

    fn at<L: Load>(&mut self, segment: u64, place: Place, from: &mut L) -> Result<Definition, L::Error> {
        if let Some(known) = self.0.get(&(segment, place)) {
            return Ok(known.clone());
        }
        let (raw, size) = load(place, from)?;
        self.define(segment, place, &raw, size, from)
    }

    fn define<L: Load>(
        &mut self,
        segment: u64,
        place: Place,
        raw: &Raw,
        size: usize,
        from: &mut L,
    ) -> Result<Definition, L::Error> {
        let definition = match raw {
            Raw::Import(_) => return Err(Malformed("a definition is said to be where it is not").into()),
            Raw::Who(who) => Definition::Who(who.clone()),
            Raw::Shape(shape) => Definition::Shape(shape.clone()),
            Raw::Statement(text, shape) => {
                let shape = shape.map(|place| self.shape(segment, place, from)).transpose()?;
                Definition::Statement(Statement { text: text.clone(), shape })
            }
        };
        self.0.insert((segment, place), definition.clone(), size);
        Ok(definition)
    }

    /// The shape of a statement. It names nothing itself, so this ends here.
    fn shape<L: Load>(&mut self, segment: u64, place: Place, from: &mut L) -> Result<Arc<Shape>, L::Error> {
        if let Some(Definition::Shape(shape)) = self.0.get(&(segment, place)) {
            return Ok(shape.clone());
        }
        let (Raw::Shape(shape), size) = load(place, from)? else {
            return Err(Malformed("a shape is not where it is said to be").into());
        };
        self.0.insert((segment, place), Definition::Shape(shape.clone()), size);
        Ok(shape)
    }
}

/// Loads one definition.
fn load<L: Load>(place: Place, from: &mut L) -> Result<(Raw, usize), L::Error> {
    let payload = from.load(place.offset)?;
    let mut input = Input(&payload);
    input.i64()?;
    let definitions = input.bytes()?;
    let rest = definitions.get(place.byte as usize..).unwrap_or_default();
    let mut input = Input(rest);
    let raw = raw(&mut input, place.offset)?;
    Ok((raw, rest.len() - input.0.len()))
}

/// What numbers mean.
trait Names {
    type Error: From<Malformed>;
    fn named(&mut self, number: usize) -> Result<Definition, Self::Error>;
}

/// Everything that the frame defines.
struct Table<'a>(&'a [Definition]);

impl Names for Table<'_> {
    type Error = Malformed;

    fn named(&mut self, number: usize) -> Result<Definition, Malformed> {
        self.0.get(number).cloned().ok_or(Malformed("a record names something that was not defined"))
    }
}

/// Only what is asked for.
struct Lazy<'a, L> {
    payload: &'a Payload<'a>,
    segment: u64,
    known: &'a mut Definitions,
    from: &'a mut L,
}

impl<L: Load> Names for Lazy<'_, L> {
    type Error = L::Error;

    fn named(&mut self, number: usize) -> Result<Definition, L::Error> {
        self.known.numbered(self.segment, self.payload, number, self.from)
    }
}

/// From where numbers and times in a frame are counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) first: Seq,
    pub(super) time: Timestamp,
}

fn item<N: Names>(kind: u8, input: &mut Input<'_>, names: &mut N, origin: Origin) -> Result<Item, N::Error> {
    let item = match kind {
        entry::RECORD => Item::Entry(Entry::Record(Box::new(record(input, names, origin.time)?))),
        entry::COMPLETION => {
            let seq = Seq(origin.first.0.wrapping_add_signed(input.i64()?));
            Item::Entry(Entry::Completion(end(input, seq)?))
        }
        entry::SETTLEMENT => Item::Entry(Entry::Settlement(settlement(input, origin.first)?)),
        entry::SEALED_RECORD => {
            let seals = Box::new(seals(input)?);
            sealed(Entry::Record(Box::new(record(input, names, origin.time)?)), seals)?
        }
        entry::SEALED_COMPLETION => {
            let seals = Box::new(seals(input)?);
            let seq = Seq(origin.first.0.wrapping_add_signed(input.i64()?));
            sealed(Entry::Completion(end(input, seq)?), seals)?
        }
        entry::CARRY => Item::Carry(Carry::get(input)?),
        entry::END => Item::End,
        _ => return Err(Malformed("an entry is of an unknown kind").into()),
    };
    if input.is_empty() { Ok(item) } else { Err(Malformed("an entry has bytes left over").into()) }
}

/// What is kept must be there, and nothing else.
fn sealed(entry: Entry, seals: Box<Seals>) -> Result<Item, Malformed> {
    let fits = Erasable::ALL
        .into_iter()
        .zip(&seals.0)
        .all(|(value, seal)| value.is_in(&entry) == matches!(seal, Seal::Kept(_)));
    if fits { Ok(Item::Sealed(entry, seals)) } else { Err(Malformed("an entry is not as it was sealed")) }
}

fn named<N: Names>(input: &mut Input<'_>, names: &mut N) -> Result<Definition, N::Error> {
    let number = usize::try_from(input.u64()?).map_err(|_| Malformed("a number is too large"))?;
    names.named(number)
}

fn record<N: Names>(input: &mut Input<'_>, names: &mut N, first: Timestamp) -> Result<Record, N::Error> {
    let parts = input.u8()?;
    let event = match parts & part::QUERY {
        0 => code(input, Event::from_code, "a record has an unknown event")?,
        _ => Event::Query,
    };
    let time = Timestamp(first.0.wrapping_add(input.i64()?));
    let id = match parts & part::ID_OF_TIME {
        0 => Uuid::from_bytes(input.array()?),
        _ => id_of(time, input.array()?),
    };
    let Definition::Who(who) = named(input, names)? else {
        return Err(Malformed("a record names something that is no session").into());
    };
    let (sql, mut shape) = match parts & part::SQL {
        part::SQL_NONE => (None, None),
        part::SQL_RAW => (Some(Sql::Once(input.bytes()?.into())), None),
        part::SQL_STATEMENT => statement(input, names)?,
        _ => return Err(Malformed("a record has unknown parts").into()),
    };
    if parts & part::SHAPE != 0 {
        let Definition::Shape(named) = named(input, names)? else {
            return Err(Malformed("a record names something that is no shape").into());
        };
        shape = Some(named);
    }
    let params = if parts & part::PARAMS != 0 { input.list(one_param)? } else { Vec::new() };
    let detail = if parts & part::DETAIL != 0 { input.string()? } else { String::new() };
    let done = if parts & part::DONE != 0 { Some(end(input, Seq(0))?) } else { None };
    Ok(Record { id, time, event, who, sql, shape, params, detail, done })
}

type Said = (Option<Sql>, Option<Arc<Shape>>);

fn statement<N: Names>(input: &mut Input<'_>, names: &mut N) -> Result<Said, N::Error> {
    let Definition::Statement(Statement { text, shape }) = named(input, names)? else {
        return Err(Malformed("a record names something that is no statement").into());
    };
    let sql = match text {
        Text::Whole(text) => Sql::Shared(text),
        Text::Cut(template) => Sql::Spliced(cut::spliced(&template, input)?),
    };
    Ok((Some(sql), shape))
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
mod tests;
