//! Entries to payload bytes of format version 2 (its shape is told in [`super::decode`]). What many
//! records share (sessions, shapes, texts without their literals) is written once per segment; a
//! frame that needs it says where it is.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::cut::Cut;
use super::decode::{Origin, millis};
use super::fields::{SETTLEMENT_SEQS_MAX, put_param, put_seals, put_shape, put_who};
use super::generations::{DEFINITIONS, Generations};
use super::wire::{put_bytes, put_i64, put_strings, put_u64};
use crate::record::{Completion, Entry, Event, Record, Seals, Seq, Settlement, Shape, Sql, Timestamp, Who};

/// What stands at the beginning of each entry.
pub(super) mod item {
    pub(in super::super) const RECORD: u8 = 1;
    pub(in super::super) const COMPLETION: u8 = 2;
    pub(in super::super) const SETTLEMENT: u8 = 3;
    pub(in super::super) const CARRY: u8 = 4;
    pub(in super::super) const END: u8 = 5;
    /// Like the two above, but after the seals of its values; only in rewritten segments.
    pub(in super::super) const SEALED_RECORD: u8 = 6;
    pub(in super::super) const SEALED_COMPLETION: u8 = 7;
}

/// What stands at the beginning of each definition.
pub(super) mod definition {
    pub(in super::super) const IMPORT: u8 = 1;
    pub(in super::super) const WHO: u8 = 2;
    pub(in super::super) const SHAPE: u8 = 3;
    pub(in super::super) const STATEMENT: u8 = 4;
}

/// The bits that say what a record, or an end, is made of.
pub(super) mod part {
    /// Two bits for the text.
    pub(in super::super) const SQL: u8 = 3;
    pub(in super::super) const SQL_NONE: u8 = 0;
    pub(in super::super) const SQL_RAW: u8 = 1;
    /// The number of a statement, which has a shape, and values for its holes.
    pub(in super::super) const SQL_STATEMENT: u8 = 2;
    /// The number of a shape.
    pub(in super::super) const SHAPE: u8 = 4;
    pub(in super::super) const PARAMS: u8 = 8;
    pub(in super::super) const DETAIL: u8 = 16;
    pub(in super::super) const DONE: u8 = 32;
    /// The id is a UUIDv7 of the record's time: only the rest of it is written.
    pub(in super::super) const ID_OF_TIME: u8 = 64;
    /// The event is a query: it is not written.
    pub(in super::super) const QUERY: u8 = 128;

    /// In an end, five bits for the command: its place in the list, or all of them if it is not in it.
    pub(in super::super) const COMMAND: u8 = 31;
    pub(in super::super) const ROWS: u8 = 32;
    /// SQLSTATE, message, notes.
    pub(in super::super) const TROUBLE: u8 = 64;
}

/// Commands that are written as a number, their place in the list: only ever append, up to 31.
pub(super) const COMMANDS: &[&str] = &[
    "",
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SET",
    "COPY",
    "FETCH",
    "MERGE",
    "SHOW",
    "DISCARD ALL",
    "DEALLOCATE",
    "SAVEPOINT",
    "RELEASE",
    "CREATE TABLE",
    "TRUNCATE TABLE",
];

/// Buffers larger than this are given back after use.
const KEEP_MAX: usize = 1 << 20;
/// Literals of a prepared text beyond this many bytes are not repeated with each execution.
const SHARED_LITERALS_MAX: usize = 64;

/// Where a definition is: its frame in the segment, and its byte among the frame's definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) offset: u32,
    pub(super) byte: u32,
}

/// What the writer has defined in the current segment. It may forget: then it defines again.
pub(super) struct Dictionary {
    /// By address: a number that nobody outside chooses. Holding each `Arc` keeps its address from
    /// being used again.
    whos: Generations<usize, Shared<Who>>,
    shapes: Generations<usize, Shared<Shape>>,
    /// By a keyed hash of the template and the shape: clients choose what they send.
    statements: Generations<u64, Known>,
    /// Prepared texts, by the addresses of text and shape.
    prepared: Generations<(usize, usize), Prepared>,
    keys: RandomState,
    frame: Building,
    cut: Cut,
    /// The template of the text at hand, as it is written.
    template: Vec<u8>,
    /// Its values.
    values: Vec<u8>,
}

/// How the text of a record is written.
enum Text {
    None,
    Raw,
    /// The number of a statement. Its values are in [`Dictionary::values`].
    Statement(u32),
}

#[derive(Debug)]
struct Shared<T> {
    _value: Arc<T>,
    known: Definition,
}

/// A statement that was defined, and what it is, for comparing.
#[derive(Debug)]
struct Known {
    template: Box<[u8]>,
    shape: Option<Arc<Shape>>,
    definition: Definition,
}

#[derive(Debug)]
struct Prepared {
    _text: Arc<[u8]>,
    _shape: Option<Arc<Shape>>,
    values: Box<[u8]>,
    definition: Definition,
}

/// Where a definition is, and its number in the frame that used it last.
#[derive(Debug, Clone, Copy)]
struct Definition {
    place: Place,
    frame: u64,
    number: u32,
}

/// The frame that is being made.
#[derive(Debug, Default)]
struct Building {
    /// Counts frames, also those that could not be written.
    frame: u64,
    offset: u32,
    /// Times are counted from that of the frame's first record.
    time: Option<Timestamp>,
    definitions: Vec<u8>,
    numbers: u32,
    /// It defines something, rather than import.
    defines: bool,
    entries: Vec<u8>,
}

impl Building {
    /// A new definition; its kind and value are to be put behind those before it.
    fn define(&mut self, kind: u8) -> Definition {
        let place = Place { offset: self.offset, byte: self.definitions.len() as u32 };
        self.definitions.push(kind);
        self.defines = true;
        self.numbers += 1;
        Definition { place, frame: self.frame, number: self.numbers - 1 }
    }

    /// Puts the value of the definition that was made last; how many bytes that took.
    fn put(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> usize {
        let before = self.definitions.len();
        put(&mut self.definitions);
        self.definitions.len() - before
    }

    /// The number in this frame of something that was defined before.
    fn number(&mut self, known: &mut Definition) -> u32 {
        if known.frame != self.frame {
            self.definitions.push(definition::IMPORT);
            put_u64(&mut self.definitions, u64::from(self.offset - known.place.offset));
            put_u64(&mut self.definitions, u64::from(known.place.byte));
            (known.frame, known.number) = (self.frame, self.numbers);
            self.numbers += 1;
        }
        known.number
    }
}

impl Dictionary {
    /// The dictionary of a new segment, or of one that an earlier process wrote.
    pub(super) fn new() -> Self {
        Self {
            whos: Generations::new(DEFINITIONS),
            shapes: Generations::new(DEFINITIONS),
            statements: Generations::new(DEFINITIONS),
            prepared: Generations::new(DEFINITIONS),
            keys: RandomState::new(),
            frame: Building::default(),
            cut: Cut::default(),
            template: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Forgets everything: another segment begins.
    pub(super) fn clear(&mut self) {
        self.whos.clear();
        self.shapes.clear();
        self.statements.clear();
        self.prepared.clear();
    }

    /// The frame that was begun last was not written.
    pub(super) fn revert(&mut self) {
        if std::mem::take(&mut self.frame.defines) {
            self.clear();
        }
    }

    /// Begins a frame at an offset of the segment.
    pub(super) fn begin(&mut self, offset: u32) {
        let Building { frame, definitions, numbers, defines, entries, .. } = &mut self.frame;
        definitions.clear();
        entries.clear();
        (*frame, *numbers, *defines) = (*frame + 1, 0, false);
        (self.frame.offset, self.frame.time) = (offset, None);
    }

    /// Puts the frame's payload behind `out`.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>, origin: Origin) {
        let time = self.frame.time.unwrap_or(origin.time);
        put_i64(out, time.0.wrapping_sub(origin.time.0));
        put_bytes(out, &self.frame.definitions);
        out.extend_from_slice(&self.frame.entries);
        self.frame.definitions.shrink_to(KEEP_MAX);
        self.frame.entries.shrink_to(KEEP_MAX);
    }

    /// Adds an entry.
    pub(super) fn put_entry(&mut self, entry: &Entry, origin: Origin) {
        self.put_sealed(entry, None, origin);
    }

    /// Adds an entry, with the seals of its values if it has some of its own.
    pub(super) fn put_sealed(&mut self, entry: &Entry, seals: Option<&Seals>, origin: Origin) {
        let (kind, seals) = match (entry, seals) {
            (Entry::Record(_), None) => (item::RECORD, None),
            (Entry::Completion(_), None) => (item::COMPLETION, None),
            (Entry::Record(_), seals) => (item::SEALED_RECORD, seals),
            (Entry::Completion(_), seals) => (item::SEALED_COMPLETION, seals),
            // It has nothing that could be erased.
            (Entry::Settlement(_), _) => (item::SETTLEMENT, None),
        };
        self.frame.entries.extend_from_slice(&[kind, 0]);
        let start = self.frame.entries.len();
        let out = &mut self.frame.entries;
        if let Some(seals) = seals {
            put_seals(out, seals);
        }
        match entry {
            Entry::Record(record) => self.put_record(record),
            Entry::Completion(completion) => {
                put_i64(out, completion.seq.0.wrapping_sub(origin.first.0) as i64);
                put_end(out, completion);
            }
            Entry::Settlement(settlement) => put_settlement(out, settlement, origin.first),
        }
        put_length(&mut self.frame.entries, start);
    }

    fn put_record(&mut self, record: &Record) {
        let time = *self.frame.time.get_or_insert(record.time);
        let who = self.who(&record.who);
        let sql = self.sql(record);
        let shape = match (&sql, &record.shape) {
            (Text::None | Text::Raw, Some(shape)) => Some(self.shape(shape)),
            _ => None,
        };
        let id = record.id.as_bytes();
        let id_of_time = id[..6] == millis(record.time)[2..];
        let parts = match sql {
            Text::None => part::SQL_NONE,
            Text::Raw => part::SQL_RAW,
            Text::Statement(_) => part::SQL_STATEMENT,
        };
        let bit = |is: bool, bit: u8| if is { bit } else { 0 };
        let parts = parts
            | bit(shape.is_some(), part::SHAPE)
            | bit(!record.params.is_empty(), part::PARAMS)
            | bit(!record.detail.is_empty(), part::DETAIL)
            | bit(record.done.is_some(), part::DONE)
            | bit(id_of_time, part::ID_OF_TIME)
            | bit(record.event == Event::Query, part::QUERY);

        let out = &mut self.frame.entries;
        out.push(parts);
        if record.event != Event::Query {
            out.push(record.event.code());
        }
        put_i64(out, record.time.0.wrapping_sub(time.0));
        out.extend_from_slice(if id_of_time { &id[6..] } else { id });
        put_u64(out, u64::from(who));
        match sql {
            Text::None => {}
            Text::Raw => put_bytes(out, record.sql.as_ref().map_or(&[], Sql::as_bytes)),
            Text::Statement(number) => {
                put_u64(out, u64::from(number));
                out.extend_from_slice(&self.values);
            }
        }
        if let Some(shape) = shape {
            put_u64(out, u64::from(shape));
        }
        if !record.params.is_empty() {
            put_u64(out, record.params.len() as u64);
            record.params.iter().for_each(|param| put_param(out, param));
        }
        if !record.detail.is_empty() {
            put_bytes(out, record.detail.as_bytes());
        }
        if let Some(done) = &record.done {
            put_end(out, done);
        }
    }

    fn who(&mut self, who: &Arc<Who>) -> u32 {
        let address = Arc::as_ptr(who).addr();
        if let Some(shared) = self.whos.get(&address) {
            return self.frame.number(&mut shared.known);
        }
        let known = self.frame.define(definition::WHO);
        let size = self.frame.put(|out| put_who(out, who));
        self.whos.insert(address, Shared { _value: who.clone(), known }, size);
        known.number
    }

    fn shape(&mut self, shape: &Arc<Shape>) -> u32 {
        self.define_shape(shape);
        let known = self.shapes.get(&Arc::as_ptr(shape).addr());
        known.map_or(0, |shared| self.frame.number(&mut shared.known))
    }

    /// Where the shape is defined: in this frame, if it was not yet.
    fn define_shape(&mut self, shape: &Arc<Shape>) -> Place {
        let address = Arc::as_ptr(shape).addr();
        if let Some(shared) = self.shapes.get(&address) {
            return shared.known.place;
        }
        let known = self.frame.define(definition::SHAPE);
        let size = self.frame.put(|out| put_shape(out, shape));
        self.shapes.insert(address, Shared { _value: shape.clone(), known }, size);
        known.place
    }

    fn sql(&mut self, record: &Record) -> Text {
        match &record.sql {
            None => Text::None,
            Some(Sql::Shared(text)) => Text::Statement(self.prepared(text, record.shape.as_ref())),
            Some(sql) if self.cut.take(sql.as_bytes()) => {
                self.values.clear();
                self.values.extend_from_slice(self.cut.values());
                Text::Statement(self.statement(record.shape.as_ref()).number)
            }
            Some(_) => Text::Raw,
        }
    }

    fn prepared(&mut self, text: &Arc<[u8]>, shape: Option<&Arc<Shape>>) -> u32 {
        let addresses = (Arc::as_ptr(text).addr(), shape.map_or(0, |shape| Arc::as_ptr(shape).addr()));
        self.values.clear();
        if let Some(prepared) = self.prepared.get(&addresses) {
            self.values.extend_from_slice(&prepared.values);
            return self.frame.number(&mut prepared.definition);
        }
        if !self.cut.take(text) || self.cut.literals() > SHARED_LITERALS_MAX {
            self.cut.whole(text);
        }
        self.values.extend_from_slice(self.cut.values());
        let definition = self.statement(shape);
        let values = self.values.as_slice().into();
        let prepared = Prepared { _text: text.clone(), _shape: shape.cloned(), values, definition };
        self.prepared.insert(addresses, prepared, text.len());
        definition.number
    }

    /// The statement of the text that was cut last.
    fn statement(&mut self, shape: Option<&Arc<Shape>>) -> Definition {
        self.template.clear();
        self.cut.put_template(&mut self.template);
        let address = shape.map_or(0, |shape| Arc::as_ptr(shape).addr());
        let key = self.keys.hash_one((address, &self.template));
        if let Some(known) = self.statements.get(&key)
            && *known.template == *self.template
            && known.shape.as_ref().map_or(0, |shape| Arc::as_ptr(shape).addr()) == address
        {
            self.frame.number(&mut known.definition);
            return known.definition;
        }
        let shape_at = shape.map(|shape| self.define_shape(shape));
        let back = shape_at.map_or(0, |place| u64::from(self.frame.offset - place.offset) + 1);
        let definition = self.frame.define(definition::STATEMENT);
        let size = self.frame.put(|out| {
            put_u64(out, back);
            if let Some(place) = shape_at {
                put_u64(out, u64::from(place.byte));
            }
            out.extend_from_slice(&self.template);
        });
        let template = self.template.as_slice().into();
        self.statements.insert(key, Known { template, shape: shape.cloned(), definition }, size * 2);
        definition
    }
}

/// The payload of a frame that holds no entries, but one item. (A rewritten one has more before it.)
pub(super) fn put_single(out: &mut Vec<u8>, kind: u8, put: impl FnOnce(&mut Vec<u8>)) {
    // No time, no definitions.
    out.extend_from_slice(&[0, 0, kind, 0]);
    let start = out.len();
    put(out);
    put_length(out, start);
}

/// Puts the length of what stands from `start` on before it, where one byte was left for it.
fn put_length(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    if length < 0x80 {
        if let Some(byte) = out.get_mut(start - 1) {
            *byte = length as u8;
        }
    } else {
        let mut bytes = Vec::new();
        put_u64(&mut bytes, length as u64);
        out.splice(start - 1..start, bytes);
    }
}

/// An end without its number.
fn put_end(out: &mut Vec<u8>, end: &Completion) {
    out.push(end.outcome.code() << 4 | end.txn_outcome.code());
    let known = COMMANDS.iter().position(|command| *command == end.command);
    let command = known.map_or(part::COMMAND, |known| known as u8);
    let trouble = !end.sqlstate.is_empty() || !end.error.is_empty() || !end.notes.is_empty();
    let says = if end.rows.is_some() { part::ROWS } else { 0 } | if trouble { part::TROUBLE } else { 0 };
    out.push(command | says);
    if known.is_none() {
        put_bytes(out, end.command.as_bytes());
    }
    if let Some(rows) = end.rows {
        put_u64(out, rows);
    }
    put_u64(out, end.bytes);
    put_u64(out, end.duration_us);
    if trouble {
        put_bytes(out, end.sqlstate.as_bytes());
        put_bytes(out, end.error.as_bytes());
        put_strings(out, &end.notes);
    }
}

/// Numbers as runs: how far from the end of the last run, and how many more follow.
fn put_settlement(out: &mut Vec<u8>, settlement: &Settlement, first: Seq) {
    out.push(settlement.txn_outcome.code());
    put_u64(out, settlement.seqs.len() as u64);
    let mut end = first.0;
    let mut rest = settlement.seqs.as_slice();
    while let Some(first) = rest.first() {
        let run = rest.iter().zip(first.0..).take_while(|(seq, expected)| seq.0 == *expected).count();
        put_i64(out, first.0.wrapping_sub(end) as i64);
        put_u64(out, run as u64 - 1);
        end = first.0 + run as u64 - 1;
        rest = rest.get(run..).unwrap_or_default();
    }
}

/// The first settlement that names too many records, by how many.
pub(super) fn oversized_settlement(entries: &[Entry]) -> Option<usize> {
    entries.iter().find_map(|entry| match entry {
        Entry::Settlement(settlement) if settlement.seqs.len() > SETTLEMENT_SEQS_MAX => {
            Some(settlement.seqs.len())
        }
        _ => None,
    })
}

/// The time of the last record among `entries`.
pub(super) fn last_time(entries: &[Entry]) -> Option<Timestamp> {
    entries.iter().rev().find_map(|entry| match entry {
        Entry::Record(record) => Some(record.time),
        _ => None,
    })
}
