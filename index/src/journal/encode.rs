//! Entries to payload bytes. What is shared (`Who`, `Shape`, prepared texts) is written once per
//! segment and named by a number afterwards.

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use super::seqs::SeqSet;
use super::wire::{put_bytes, put_i64, put_strings, put_time, put_u64};
use crate::record::{Completion, Entry, Param, Record, Seq, Settlement, Shape, Sql, Timestamp, Who};

/// Most definitions of one kind that are remembered at one time, by the writer and by each reader.
pub(crate) const DEFINITIONS_MAX: usize = 4096;
/// Bytes of definitions of one kind after which the writer forgets them and starts anew.
pub(crate) const DEFINITIONS_BYTES_MAX: usize = 16 << 20;
/// Most records one settlement may name.
pub(crate) const SETTLEMENT_SEQS_MAX: usize = 1 << 22;

/// What stands at the beginning of each item of a payload.
pub(crate) mod kind {
    pub(crate) const DEFINE_WHO: u8 = 1;
    pub(crate) const DEFINE_SHAPE: u8 = 2;
    pub(crate) const DEFINE_SQL: u8 = 3;
    pub(crate) const RECORD: u8 = 4;
    pub(crate) const COMPLETION: u8 = 5;
    pub(crate) const SETTLEMENT: u8 = 6;
    pub(crate) const CARRY: u8 = 7;
    pub(crate) const END: u8 = 8;
    /// All definitions of the kind that follows are forgotten.
    pub(crate) const FORGET: u8 = 9;
}

/// The bits that say which optional parts a record has.
pub(crate) mod part {
    pub(crate) const SQL_ONCE: u8 = 1;
    pub(crate) const SQL_SHARED: u8 = 2;
    pub(crate) const SHAPE: u8 = 4;
    pub(crate) const DONE: u8 = 8;
    pub(crate) const ALL: u8 = SQL_ONCE | SQL_SHARED | SHAPE | DONE;
}

/// The tags of parameters.
pub(crate) mod param {
    pub(crate) const NULL: u8 = 0;
    pub(crate) const FALSE: u8 = 1;
    pub(crate) const TRUE: u8 = 2;
    pub(crate) const INT: u8 = 3;
    pub(crate) const FLOAT: u8 = 4;
    pub(crate) const TEXT: u8 = 5;
    pub(crate) const BYTES: u8 = 6;
}

/// What the writer has defined in the current segment.
#[derive(Debug)]
pub(crate) struct Dictionary {
    who: Known<Who>,
    shape: Known<Shape>,
    sql: Known<[u8]>,
}

/// The numbers given so far: where to return if a frame could not be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark([u64; 3]);

impl Dictionary {
    /// The dictionary of a new segment.
    pub(crate) fn new() -> Self {
        Self {
            who: Known::new(kind::DEFINE_WHO, 0),
            shape: Known::new(kind::DEFINE_SHAPE, 0),
            sql: Known::new(kind::DEFINE_SQL, 0),
        }
    }

    /// The dictionary for going on in a segment where so many were defined by an earlier process.
    pub(crate) fn resumed(defined: [u64; 3]) -> Self {
        let [who, shape, sql] = defined;
        Self {
            who: Known::new(kind::DEFINE_WHO, who),
            shape: Known::new(kind::DEFINE_SHAPE, shape),
            sql: Known::new(kind::DEFINE_SQL, sql),
        }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark([self.who.next, self.shape.next, self.sql.next])
    }

    /// Takes back the definitions since `mark`: their frame was not written.
    pub(crate) fn revert(&mut self, Mark([who, shape, sql]): Mark) {
        self.who.revert(who);
        self.shape.revert(shape);
        self.sql.revert(sql);
    }

    pub(crate) fn put_entry(&mut self, out: &mut Vec<u8>, entry: &Entry) {
        match entry {
            Entry::Record(record) => self.put_record(out, record),
            Entry::Completion(completion) => {
                out.push(kind::COMPLETION);
                put_u64(out, completion.seq.0);
                put_end(out, completion);
            }
            Entry::Settlement(settlement) => put_settlement(out, settlement),
        }
    }

    fn put_record(&mut self, out: &mut Vec<u8>, record: &Record) {
        let who = self.who.id(out, &record.who, put_who);
        let shape = record.shape.as_ref().map(|shape| self.shape.id(out, shape, put_shape));
        let sql = match &record.sql {
            Some(Sql::Shared(text)) => self.sql.id(out, text, put_bytes),
            _ => 0,
        };
        let parts = match &record.sql {
            None => 0,
            Some(Sql::Once(_)) => part::SQL_ONCE,
            Some(Sql::Shared(_)) => part::SQL_SHARED,
        };
        let parts = parts | if shape.is_some() { part::SHAPE } else { 0 };
        let parts = parts | if record.done.is_some() { part::DONE } else { 0 };

        out.push(kind::RECORD);
        out.push(parts);
        out.push(record.event.code());
        out.extend_from_slice(record.id.as_bytes());
        put_time(out, record.time);
        put_u64(out, who);
        match &record.sql {
            None => {}
            Some(Sql::Once(text)) => put_bytes(out, text),
            Some(Sql::Shared(_)) => put_u64(out, sql),
        }
        if let Some(shape) = shape {
            put_u64(out, shape);
        }
        put_u64(out, record.params.len() as u64);
        for param in &record.params {
            put_param(out, param);
        }
        put_bytes(out, record.detail.as_bytes());
        if let Some(done) = &record.done {
            put_end(out, done);
        }
    }
}

/// The definitions of one kind. Holding each `Arc` keeps its address from being used again.
#[derive(Debug)]
struct Known<T: ?Sized> {
    kind: u8,
    /// By address: a number that nobody outside chooses.
    ids: HashMap<usize, (Arc<T>, u64), FxBuildHasher>,
    bytes: usize,
    next: u64,
    /// Readers remember definitions that we do not: tell them before the next one.
    stale: bool,
}

impl<T: ?Sized> Known<T> {
    fn new(kind: u8, next: u64) -> Self {
        Self { kind, ids: HashMap::default(), bytes: 0, next, stale: next > 0 }
    }

    fn id(&mut self, out: &mut Vec<u8>, value: &Arc<T>, put: impl FnOnce(&mut Vec<u8>, &T)) -> u64 {
        let address = Arc::as_ptr(value).addr();
        if let Some((_, id)) = self.ids.get(&address) {
            return *id;
        }
        if self.stale || self.ids.len() >= DEFINITIONS_MAX || self.bytes >= DEFINITIONS_BYTES_MAX {
            self.ids.clear();
            (self.bytes, self.stale) = (0, false);
            out.extend_from_slice(&[kind::FORGET, self.kind]);
        }
        let (id, start) = (self.next, out.len());
        out.push(self.kind);
        put_u64(out, id);
        put(out, value);
        self.next += 1;
        self.bytes += out.len() - start;
        self.ids.insert(address, (Arc::clone(value), id));
        id
    }

    fn revert(&mut self, next: u64) {
        if self.next != next {
            self.ids.clear();
            (self.bytes, self.next, self.stale) = (0, next, true);
        }
    }
}

fn put_who(out: &mut Vec<u8>, who: &Who) {
    let Who {
        user,
        sub,
        iss,
        groups,
        login,
        session,
        auth,
        role,
        db,
        upstream,
        search_path,
        ip,
        app,
        device,
    } = who;
    for text in [user, sub, iss, login, session, role, db, upstream, search_path, ip, app, device] {
        put_bytes(out, text.as_bytes());
    }
    put_strings(out, groups);
    put_u64(out, auth.len() as u64);
    for (key, value) in auth {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

fn put_shape(out: &mut Vec<u8>, shape: &Shape) {
    put_bytes(out, shape.fingerprint.as_bytes());
    put_bytes(out, shape.command.as_bytes());
    out.push(shape.analysis.code());
    put_u64(out, shape.class.len() as u64);
    out.extend(shape.class.iter().map(|class| class.code()));
    let Shape { tables, reads, filters, writes, via, analysis_notes, tags, .. } = shape;
    for list in [tables, reads, filters, writes, via, analysis_notes, tags] {
        put_strings(out, list);
    }
}

fn put_param(out: &mut Vec<u8>, value: &Param) {
    match value {
        Param::Null => out.push(param::NULL),
        Param::Bool(false) => out.push(param::FALSE),
        Param::Bool(true) => out.push(param::TRUE),
        Param::Int(number) => {
            out.push(param::INT);
            put_i64(out, *number);
        }
        Param::Float(number) => {
            out.push(param::FLOAT);
            out.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        Param::Text(text) => {
            out.push(param::TEXT);
            put_bytes(out, text.as_bytes());
        }
        Param::Bytes(bytes) => {
            out.push(param::BYTES);
            put_bytes(out, bytes);
        }
    }
}

/// A completion without its number.
fn put_end(out: &mut Vec<u8>, end: &Completion) {
    out.push(end.outcome.code());
    out.push(end.txn_outcome.code());
    put_bytes(out, end.command.as_bytes());
    match end.rows {
        None => out.push(0),
        Some(rows) => {
            out.push(1);
            put_u64(out, rows);
        }
    }
    put_u64(out, end.bytes);
    put_u64(out, end.duration_us);
    put_bytes(out, end.sqlstate.as_bytes());
    put_bytes(out, end.error.as_bytes());
    put_strings(out, &end.notes);
}

/// Numbers as runs: how far from the end of the last run, and how many more follow.
fn put_settlement(out: &mut Vec<u8>, settlement: &Settlement) {
    out.push(kind::SETTLEMENT);
    out.push(settlement.txn_outcome.code());
    put_u64(out, settlement.seqs.len() as u64);
    let mut end = 0_u64;
    let mut rest = settlement.seqs.as_slice();
    while let Some(first) = rest.first() {
        let run = rest.iter().zip(first.0..).take_while(|(seq, expected)| seq.0 == *expected).count();
        put_i64(out, first.0.wrapping_sub(end) as i64);
        put_u64(out, run as u64 - 1);
        end = first.0 + run as u64 - 1;
        rest = rest.get(run..).unwrap_or_default();
    }
}

/// What a segment needs to know of those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Carry {
    /// Frames before this one, in all segments.
    pub(crate) frames: u64,
    /// Time of the last record.
    pub(crate) last_time: Option<Timestamp>,
    /// Records without an end.
    pub(crate) open: SeqSet,
    /// Records whose transaction has not ended.
    pub(crate) unsettled: SeqSet,
}

impl Carry {
    /// Whether all that is open lies before record `next`.
    pub(crate) fn fits(&self, next: Seq) -> bool {
        next > Seq(0)
            && [&self.open, &self.unsettled].iter().all(|set| set.last().is_none_or(|last| last < next))
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.push(kind::CARRY);
        put_u64(out, self.frames);
        match self.last_time {
            None => out.push(0),
            Some(time) => {
                out.push(1);
                put_time(out, time);
            }
        }
        self.open.put(out);
        self.unsettled.put(out);
    }
}

/// Marks a clean end.
pub(crate) fn put_end_mark(out: &mut Vec<u8>) {
    out.push(kind::END);
}

/// The first settlement that names too many records, by how many.
pub(crate) fn oversized_settlement(entries: &[Entry]) -> Option<usize> {
    entries.iter().find_map(|entry| match entry {
        Entry::Settlement(settlement) if settlement.seqs.len() > SETTLEMENT_SEQS_MAX => {
            Some(settlement.seqs.len())
        }
        _ => None,
    })
}

/// The time of the last record among `entries`.
pub(crate) fn last_time(entries: &[Entry]) -> Option<Timestamp> {
    entries.iter().rev().find_map(|entry| match entry {
        Entry::Record(record) => Some(record.time),
        _ => None,
    })
}

/// How many records are among `entries`.
pub(crate) fn record_count(entries: &[Entry]) -> usize {
    entries.iter().filter(|entry| matches!(entry, Entry::Record(_))).count()
}
