//! What one leaf of the tree says: an entry of the journal, with commitments in the place of values that
//! may have to be erased.
//!
//! Each entry (a record, an end, a settlement) is one leaf, in the order of the journal. The hash of the
//! leaf is RFC 6962's over the canonical bytes below, which are defined over [`record`](crate::record)'s
//! values and not over any format of the journal: rewriting the journal in another format changes no leaf.
//! Whoever erases a value keeps its commitment, and every proof over the leaf still holds; whoever is
//! shown a value with its salt checks it against the commitment; whoever is not cannot guess it.
//!
//! # Version 1
//!
//! Numbers are big endian. `text` is one byte of length and so many bytes of UTF-8; a text of more than
//! 254 bytes is 255 and its SHA-256. `maybe x` is the byte 0 for nothing, or 1 and x.
//!
//! ```text
//! record      01 01 | seq u64 | id 16 | time i64 (microseconds since 1970) | event text
//!             | commitment(who) 32 | maybe SHA-256(shape) | maybe commitment(sql)
//!             | maybe commitment(params) | maybe commitment(detail) | maybe end
//! completion  01 02 | seq u64 | end
//! settlement  01 03 | txn_outcome text | count u32 | first seq u64 (0 if none) | SHA-256(all seqs, each u64)
//! end         outcome text | txn_outcome text | command text | maybe rows u64 | bytes u64
//!             | duration_us u64 | sqlstate text | maybe commitment(error) | maybe commitment(notes)
//! ```
//! Events, outcomes and the like are the words that users meet. Nothing is said (0) for no parameters, an
//! empty detail, an empty error, no notes.
//!
//! ```text
//! commitment(v)  SHA-256(salt of v 16 | SHA-256(value of v))
//! salts          SHA-256(salt of the frame 16 | place of the entry in its frame u32 | k u8) is cut in two:
//!                k = 0: who, sql    k = 1: params, detail    k = 2: error, notes
//! ```
//! A frame holds the entries that were written together; its salt is random, its entries have the places
//! 0, 1, 2…. Frames of journals of format 1 have no salt: there it is zeros, so that short values can be
//! guessed from their commitments.
//!
//! Values: sql, detail and error are their bytes. In the others `string` is a u32 of length and so many
//! bytes, `list` a u32 of count and so many items.
//!
//! ```text
//! who     user, sub, iss | list of groups | login, session | list of auth (name, value)
//!         | role, db, upstream, search_path, ip, app, device              (each a string)
//! params  list of: 0 | 1 bool u8 | 2 i64 | 3 f64 | 4 string (text) | 5 string (bytes); 0 is NULL
//! notes   list of strings
//! shape   fingerprint, command | lists of class, tables, reads, filters, writes, via | analysis
//!         | lists of analysis_notes, tags                                  (each a string)
//! ```
//! Where a value was erased, its commitment is kept as it is, and the values that stay in its frame have their
//! salts written beside them: the salt of the frame, from which all of them follow, is gone.
//!
//! Two steps make a commitment (the value's digest, then the salt), so that the digest of what many records
//! share, a person or a prepared statement, is computed once.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use sha2::{Digest as _, Sha256};

use super::merkle::leaf_hash;
use crate::record::{
    Completion, Digest, Entry, Param, Record, Seal, Seals, Seq, Settlement, Shape, Sql, Template, Who,
};

/// Version of the canonical bytes.
pub const LEAF_VERSION: u8 = 1;
/// Bytes of a salt.
pub const SALT_BYTES: usize = 16;
/// Most bytes of a leaf: it fits into an entry bundle of c2sp.org/tlog-tiles (65,535).
pub const LEAF_BYTES_MAX: usize = 2048;

/// Digests of shared values remembered at one time, of each kind.
const REMEMBERED_MAX: usize = 4096;
/// The longest text that stands in a leaf as it is, bytes.
const TEXT_MAX: usize = 254;

mod kind {
    pub(super) const RECORD: u8 = 1;
    pub(super) const COMPLETION: u8 = 2;
    pub(super) const SETTLEMENT: u8 = 3;
}

/// A salt, of a frame or of a value.
pub type Salt = [u8; SALT_BYTES];

/// A value that may be erased. The order is that of the salts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Erasable {
    /// Who did it, from where.
    Who,
    /// The statement's text.
    Sql,
    /// Its parameters.
    Params,
    /// The name of a prepared statement, or a sentence.
    Detail,
    /// The server's message.
    Error,
    /// Reasons to doubt the analysis, learned from the answer.
    Notes,
}

impl Erasable {
    /// All, in the order of their salts.
    pub const ALL: [Self; 6] = [Self::Who, Self::Sql, Self::Params, Self::Detail, Self::Error, Self::Notes];

    /// The word in a proof.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Who => "who",
            Self::Sql => "sql",
            Self::Params => "params",
            Self::Detail => "detail",
            Self::Error => "error",
            Self::Notes => "notes",
        }
    }

    /// The value for a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.as_str() == word)
    }

    /// Whether an entry has this value.
    pub fn is_in(self, entry: &Entry) -> bool {
        let (record, end) = match entry {
            Entry::Record(record) => (Some(&**record), record.done.as_ref()),
            Entry::Completion(end) => (None, Some(end)),
            Entry::Settlement(_) => (None, None),
        };
        match self {
            Self::Who => record.is_some(),
            Self::Sql => record.is_some_and(|record| record.sql.is_some()),
            Self::Params => record.is_some_and(|record| !record.params.is_empty()),
            Self::Detail => record.is_some_and(|record| !record.detail.is_empty()),
            Self::Error => end.is_some_and(|end| !end.error.is_empty()),
            Self::Notes => end.is_some_and(|end| !end.notes.is_empty()),
        }
    }

    /// The value of an entry as its commitment has it; none if the leaf says nothing of it.
    pub fn value(self, entry: &Entry) -> Option<Vec<u8>> {
        let (record, end) = match entry {
            Entry::Record(record) => (Some(&**record), record.done.as_ref()),
            Entry::Completion(end) => (None, Some(end)),
            Entry::Settlement(_) => (None, None),
        };
        let mut out = Vec::new();
        match self {
            Self::Who => put_who(&mut out, &record?.who),
            Self::Sql => out.extend_from_slice(record?.sql.as_ref()?.as_bytes()),
            Self::Params if !record?.params.is_empty() => put_params(&mut out, &record?.params),
            Self::Detail if !record?.detail.is_empty() => out.extend_from_slice(record?.detail.as_bytes()),
            Self::Error if !end?.error.is_empty() => out.extend_from_slice(end?.error.as_bytes()),
            Self::Notes if !end?.notes.is_empty() => put_strings(&mut out, &end?.notes),
            _ => return None,
        }
        Some(out)
    }
}

/// Where an entry lies: what the salts of its values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The salt of the frame; none in journals of format 1.
    pub salt: Option<Salt>,
    /// Its place among the entries of the frame.
    pub index: u32,
    /// The entry's own seals: they stand in the place of the frame's salt.
    pub seals: Option<&'a Seals>,
}

impl<'a> Place<'a> {
    /// The place of an entry in a frame; `seals` are those of all its entries, or empty.
    pub fn within(salt: Option<Salt>, seals: &'a [Option<Box<Seals>>], index: u32) -> Self {
        let own = usize::try_from(index).ok().and_then(|index| seals.get(index)).and_then(Option::as_deref);
        Self { salt, index, seals: own }
    }

    /// The salt of a value of this entry; none if the value was erased.
    pub fn salt(&self, value: Erasable) -> Option<Salt> {
        if let Some(seals) = self.seals {
            return match seals.0.get(value as usize) {
                Some(Seal::Kept(salt)) => Some(*salt),
                _ => None,
            };
        }
        let (first, second) = self.salts(value as u8 / 2);
        Some(match value {
            Erasable::Who | Erasable::Params | Erasable::Error => first,
            Erasable::Sql | Erasable::Detail | Erasable::Notes => second,
        })
    }

    /// The commitments to two values that share a block of salts, from their digests.
    fn commit(
        &self,
        first: (Erasable, Option<Digest>),
        second: (Erasable, Option<Digest>),
    ) -> [Option<Digest>; 2] {
        if let Some(seals) = self.seals {
            return [first, second].map(|(value, digest)| match seals.0.get(value as usize) {
                Some(Seal::Kept(salt)) => digest.map(|digest| salted(salt, &digest)),
                Some(Seal::Erased { commitment, .. }) => Some(*commitment),
                Some(Seal::Nothing) | None => None,
            });
        }
        if first.1.is_none() && second.1.is_none() {
            return [None, None];
        }
        let salts = self.salts(first.0 as u8 / 2);
        [first.1.map(|digest| salted(&salts.0, &digest)), second.1.map(|digest| salted(&salts.1, &digest))]
    }

    fn salts(&self, block: u8) -> (Salt, Salt) {
        let mut bytes = [0; SALT_BYTES + 5];
        bytes[..SALT_BYTES].copy_from_slice(&self.salt.unwrap_or_default());
        bytes[SALT_BYTES..SALT_BYTES + 4].copy_from_slice(&self.index.to_be_bytes());
        bytes[SALT_BYTES + 4] = block;
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        let (mut first, mut second) = (Salt::default(), Salt::default());
        first.copy_from_slice(&hash[..SALT_BYTES]);
        second.copy_from_slice(&hash[SALT_BYTES..]);
        (first, second)
    }
}

/// The commitment to a value.
pub fn commitment(salt: &Salt, value: &[u8]) -> Digest {
    salted(salt, &sha256(value))
}

/// Makes leaves, and remembers the digests of what entries share.
#[derive(Debug, Default)]
pub struct Leaves {
    who: Remembered<Who>,
    shape: Remembered<Shape>,
    sql: Remembered<[u8]>,
    template: Remembered<Template>,
    bytes: Vec<u8>,
}

impl Leaves {
    /// Nothing is remembered yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The canonical bytes of an entry; `seq` is a record's number.
    pub fn bytes(&mut self, seq: Option<Seq>, entry: &Entry, place: &Place<'_>) -> &[u8] {
        self.bytes.clear();
        match entry {
            Entry::Record(record) => self.record(seq.unwrap_or_default(), record, place),
            Entry::Completion(end) => {
                self.bytes.extend_from_slice(&[LEAF_VERSION, kind::COMPLETION]);
                put_u64(&mut self.bytes, end.seq.0);
                put_end(&mut self.bytes, end, place);
            }
            Entry::Settlement(settlement) => put_settlement(&mut self.bytes, settlement),
        }
        debug_assert!(self.bytes.len() <= LEAF_BYTES_MAX, "all parts of a leaf are bounded");
        &self.bytes
    }

    /// The hash of an entry's leaf.
    pub fn hash(&mut self, seq: Option<Seq>, entry: &Entry, place: &Place<'_>) -> Digest {
        leaf_hash(self.bytes(seq, entry, place))
    }

    fn record(&mut self, seq: Seq, record: &Record, place: &Place<'_>) {
        let who = self.who.digest(&record.who, |who| digest_of(|out| put_who(out, who)));
        let shape = record.shape.as_ref();
        let shape =
            shape.map(|shape| self.shape.digest(shape, |shape| digest_of(|out| put_shape(out, shape))));
        let sql = record.sql.as_ref().map(|sql| match sql {
            Sql::Once(bytes) => sha256(bytes),
            Sql::Shared(bytes) => self.sql.digest(bytes, sha256),
            Sql::Spliced(spliced) if spliced.values().len() == 0 => {
                self.template.digest(spliced.template(), |template| sha256(template.text()))
            }
            Sql::Spliced(spliced) => sha256(spliced.as_bytes()),
        });
        let out = &mut self.bytes;
        out.extend_from_slice(&[LEAF_VERSION, kind::RECORD]);
        put_u64(out, seq.0);
        out.extend_from_slice(record.id.as_bytes());
        out.extend_from_slice(&record.time.0.to_be_bytes());
        put_text(out, record.event.as_str());
        let [who, sql] = place.commit((Erasable::Who, Some(who)), (Erasable::Sql, sql));
        out.extend_from_slice(&who.unwrap_or_default().0);
        put_maybe(out, shape);
        put_maybe(out, sql);
        let params = (!record.params.is_empty()).then(|| digest_of(|out| put_params(out, &record.params)));
        let detail = (!record.detail.is_empty()).then(|| sha256(record.detail.as_bytes()));
        let [params, detail] = place.commit((Erasable::Params, params), (Erasable::Detail, detail));
        put_maybe(out, params);
        put_maybe(out, detail);
        out.push(u8::from(record.done.is_some()));
        if let Some(done) = &record.done {
            put_end(out, done, place);
        }
    }
}

/// Digests of shared values, by the address of what is shared; each is held, so that no address is used
/// again for another.
#[derive(Debug)]
struct Remembered<T: ?Sized>(FxHashMap<usize, (Arc<T>, Digest)>);

impl<T: ?Sized> Default for Remembered<T> {
    fn default() -> Self {
        Self(FxHashMap::default())
    }
}

impl<T: ?Sized> Remembered<T> {
    fn digest(&mut self, value: &Arc<T>, digest: impl FnOnce(&T) -> Digest) -> Digest {
        let address = Arc::as_ptr(value).cast::<u8>().addr();
        if let Some((_, digest)) = self.0.get(&address) {
            return *digest;
        }
        if self.0.len() >= REMEMBERED_MAX {
            self.0.clear();
        }
        let digest = digest(value);
        self.0.insert(address, (Arc::clone(value), digest));
        digest
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

fn digest_of(put: impl FnOnce(&mut Vec<u8>)) -> Digest {
    let mut bytes = Vec::new();
    put(&mut bytes);
    sha256(&bytes)
}

fn salted(salt: &Salt, value: &Digest) -> Digest {
    let mut bytes = [0; SALT_BYTES + 32];
    bytes[..SALT_BYTES].copy_from_slice(salt);
    bytes[SALT_BYTES..].copy_from_slice(&value.0);
    sha256(&bytes)
}

fn put_end(out: &mut Vec<u8>, end: &Completion, place: &Place<'_>) {
    put_text(out, end.outcome.as_str());
    put_text(out, end.txn_outcome.as_str());
    put_text(out, &end.command);
    out.push(u8::from(end.rows.is_some()));
    if let Some(rows) = end.rows {
        put_u64(out, rows);
    }
    put_u64(out, end.bytes);
    put_u64(out, end.duration_us);
    put_text(out, &end.sqlstate);
    let error = (!end.error.is_empty()).then(|| sha256(end.error.as_bytes()));
    let notes = (!end.notes.is_empty()).then(|| digest_of(|out| put_strings(out, &end.notes)));
    let [error, notes] = place.commit((Erasable::Error, error), (Erasable::Notes, notes));
    put_maybe(out, error);
    put_maybe(out, notes);
}

fn put_settlement(out: &mut Vec<u8>, settlement: &Settlement) {
    out.extend_from_slice(&[LEAF_VERSION, kind::SETTLEMENT]);
    put_text(out, settlement.txn_outcome.as_str());
    put_count(out, settlement.seqs.len());
    put_u64(out, settlement.seqs.first().map_or(0, |seq| seq.0));
    let mut hash = Sha256::new();
    settlement.seqs.iter().for_each(|seq| hash.update(seq.0.to_be_bytes()));
    out.extend_from_slice(&hash.finalize());
}

fn put_who(out: &mut Vec<u8>, who: &Who) {
    for text in [&who.user, &who.sub, &who.iss] {
        put_string(out, text.as_bytes());
    }
    put_strings(out, &who.groups);
    put_string(out, who.login.as_bytes());
    put_string(out, who.session.as_bytes());
    put_count(out, who.auth.len());
    for (name, value) in &who.auth {
        put_string(out, name.as_bytes());
        put_string(out, value.as_bytes());
    }
    for text in [&who.role, &who.db, &who.upstream, &who.search_path, &who.ip, &who.app, &who.device] {
        put_string(out, text.as_bytes());
    }
}

fn put_shape(out: &mut Vec<u8>, shape: &Shape) {
    put_string(out, shape.fingerprint.as_bytes());
    put_string(out, shape.command.as_bytes());
    put_count(out, shape.class.len());
    shape.class.iter().for_each(|class| put_string(out, class.as_str().as_bytes()));
    for list in [&shape.tables, &shape.reads, &shape.filters, &shape.writes, &shape.via] {
        put_strings(out, list);
    }
    put_string(out, shape.analysis.as_str().as_bytes());
    put_strings(out, &shape.analysis_notes);
    put_strings(out, &shape.tags);
}

fn put_params(out: &mut Vec<u8>, params: &[Param]) {
    put_count(out, params.len());
    for param in params {
        match param {
            Param::Null => out.push(0),
            Param::Bool(value) => out.extend_from_slice(&[1, u8::from(*value)]),
            Param::Int(value) => {
                out.push(2);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Param::Float(value) => {
                out.push(3);
                put_u64(out, value.to_bits());
            }
            Param::Text(text) => {
                out.push(4);
                put_string(out, text.as_bytes());
            }
            Param::Bytes(bytes) => {
                out.push(5);
                put_string(out, bytes);
            }
        }
    }
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// A frame holds at most 64 MiB, so nothing in it is as long, or as many, as a u32 can say.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_strings(out: &mut Vec<u8>, strings: &[String]) {
    put_count(out, strings.len());
    strings.iter().for_each(|string| put_string(out, string.as_bytes()));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    if text.len() <= TEXT_MAX {
        out.push(text.len() as u8);
        out.extend_from_slice(text.as_bytes());
    } else {
        out.push(u8::MAX);
        out.extend_from_slice(&sha256(text.as_bytes()).0);
    }
}

fn put_maybe(out: &mut Vec<u8>, digest: Option<Digest>) {
    out.push(u8::from(digest.is_some()));
    if let Some(digest) = digest {
        out.extend_from_slice(&digest.0);
    }
}

#[cfg(test)]
mod tests;
