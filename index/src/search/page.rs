//! The answers: pages newest first and single records.
//!
//! Every answer is of one moment: what was read from the journal last when it was asked for. It sees
//! what its [`Scope`] allows and nothing else; a record out of scope is as if it were not there.
//!
//! Limits: [`MAX_LIMIT`] records a page, and counting stops at [`COUNT_CAP`] unless an exact count is
//! asked for.

use std::fmt;
use std::iter::Peekable;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest as _, Sha256};
use tantivy::query::EnableScoring;
use tantivy::{DocSet, TERMINATED};
use thiserror::Error;
use uuid::Uuid;

use super::deciding::Deciding;
use super::draft::Draft;
use super::field::Field;
use super::lower::{Asked, lower};
use super::matches::Memo;
use super::moment::{Found, Moment, Walk, is_alive};
use super::position::Told;
use super::query::{Leaf, Node, Query};
use super::recall::Lost;
use super::schema::Columns;
use super::summary;
use super::tail::Held;
use crate::journal::JournalError;
use crate::record::{Seq, Timestamp};
use crate::view::{self, View};

/// Most records on a page.
pub const MAX_LIMIT: usize = 1000;
/// Where [`Count::Capped`] stops.
pub const COUNT_CAP: u64 = 10_000;
/// Bytes of records that one question may read to see whether they answer.
const READS_MAX: usize = 256 << 20;

/// What the caller may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every record.
    All,
    /// The records of one person.
    Own {
        /// The provider.
        iss: String,
        /// The provider's id of the person.
        sub: String,
    },
}

/// The time asked for: from the first instant, up to and without the second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
}

/// Whether to count all that match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Not at all.
    None,
    /// Up to [`COUNT_CAP`].
    Capped,
    /// All.
    Exact,
}

/// Where a page ended, for one query: the next goes on there, and counts what was there when the
/// first was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    before: u64,
    newest: u64,
    query: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}{:016x}", self.before, self.newest, self.query)
    }
}

impl FromStr for Cursor {
    type Err = SearchError;

    fn from_str(text: &str) -> Result<Cursor, SearchError> {
        let part = |range| {
            text.get(range)
                .filter(|part: &&str| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .and_then(|part| u64::from_str_radix(part, 16).ok())
        };
        match (text.len(), part(0..16), part(16..32), part(32..48)) {
            (48, Some(before), Some(newest), Some(query)) => Ok(Cursor { before, newest, query }),
            _ => Err(SearchError::BadCursor),
        }
    }
}

/// Records that answer a query, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Merged views.
    pub items: Vec<View>,
    /// Where the next page begins, if there is one.
    pub next_cursor: Option<Cursor>,
    /// Up to which record the answer is complete.
    pub indexed_seq: Seq,
    /// How many match in all, if asked.
    pub total: Option<u64>,
    /// Whether `total` stopped counting.
    pub total_is_capped: bool,
    /// Whether older records may answer that were not looked at, because too many would have had to be
    /// read: where words alone do not tell, a bounded number of records is looked at.
    pub stopped: bool,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum SearchError {
    /// The text is not a cursor.
    #[error("the cursor is not one of ours. Start again without it")]
    BadCursor,
    /// It is a cursor of another query.
    #[error("the cursor belongs to another query. Start again without it")]
    OtherCursor,
    /// Parts of words are looked for, and in too many records.
    #[error(
        "too many records would have to be read to see whether they answer. \
         Add a person, a table, a whole word or a time"
    )]
    TooMany,
    /// The values of this field are not counted.
    #[error("the values of {} cannot be counted", .0.name())]
    NoFacet(Field),
    /// The columns of the index do not tell what they must.
    #[error("the index tells nothing of record {0}. Rebuild the index")]
    Damaged(Seq),
    /// The journal could not be read.
    #[error("the journal could not be read for an answer: {0}")]
    Journal(#[source] JournalError),
    /// The index failed.
    #[error("the index could not answer: {0}")]
    Index(#[from] tantivy::TantivyError),
}

/// The log, as those who ask see it. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct Search {
    moment: Arc<RwLock<Arc<Moment>>>,
    columns: Arc<Columns>,
    /// Bytes of records that one question may read to see whether they answer.
    reads_max: usize,
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Search").field("newest", &self.newest()).finish_non_exhaustive()
    }
}

impl Search {
    pub(crate) fn new(moment: Moment, columns: Arc<Columns>) -> Search {
        Search { moment: Arc::new(RwLock::new(Arc::new(moment))), columns, reads_max: READS_MAX }
    }

    /// What is asked of a moment.
    pub(crate) fn lowered(&self, moment: &Moment, wanted: Node) -> tantivy::Result<Arc<Asked>> {
        Ok(Arc::new(lower(&self.columns, moment, wanted, self.reads_max)?))
    }

    /// The same, reading no more than that for one question.
    #[cfg(test)]
    pub(crate) fn reading_at_most(&self, bytes: usize) -> Search {
        Search { reads_max: bytes, ..self.clone() }
    }

    /// From now on answers are of `moment`, here and in all clones.
    pub(crate) fn show(&self, moment: Arc<Moment>) {
        *self.moment.write().unwrap_or_else(PoisonError::into_inner) = moment;
    }

    pub(crate) fn moment(&self) -> Arc<Moment> {
        self.moment.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest record that can be found.
    pub fn newest(&self) -> Seq {
        Seq(self.moment().newest)
    }

    /// One page of the records that answer `query`. `limit` is kept within 1 and [`MAX_LIMIT`].
    pub fn page(
        &self,
        query: &Query,
        scope: &Scope,
        window: &Window,
        limit: usize,
        cursor: Option<&Cursor>,
        count: Count,
    ) -> Result<Page, SearchError> {
        let hash = query_hash(query);
        if cursor.is_some_and(|cursor| cursor.query != hash) {
            return Err(SearchError::OtherCursor);
        }
        let limit = limit.clamp(1, MAX_LIMIT);
        let moment = self.moment();
        let wanted = wanted(query, scope, window);
        let before = cursor.map(|cursor| cursor.before);
        let mut hits = self.newest_first(&moment, wanted.clone(), before)?;
        let mut found = Vec::with_capacity(limit.min(64));
        while found.len() < limit
            && let Some(hit) = hits.next()?
        {
            found.push(hit);
        }
        let more = found.len() == limit && hits.next()?.is_some();
        let stopped = hits.asked.is_exhausted();
        let last = found.last().map(|hit| hit.seq()).filter(|_| more);
        let items = found.into_iter().map(|hit| view_of(&moment, hit)).collect::<Result<_, _>>()?;
        let newest = cursor.map_or(moment.newest, |cursor| cursor.newest);
        let total = match self.total(&moment, wanted, newest, count) {
            Err(SearchError::TooMany) => None,
            total => total?,
        };
        Ok(Page {
            items,
            next_cursor: last.map(|before| Cursor { before, newest, query: hash }),
            indexed_seq: Seq(moment.newest),
            total,
            total_is_capped: count == Count::Capped && total == Some(COUNT_CAP),
            stopped,
        })
    }

    /// The record with an id, if it exists and the caller may see it.
    pub fn get(&self, id: Uuid, scope: &Scope) -> Result<Option<View>, SearchError> {
        let moment = self.moment();
        if let Some(held) = moment.tail.get_id(id) {
            return Ok(self.allowed(&held, scope).then(|| held.view()));
        }
        let leaf = Leaf::Word { field: Field::Id, value: id.to_string(), prefix: false };
        let wanted = Node::And(scope.node().into_iter().chain([Node::Leaf(leaf)]).collect());
        let asked = self.lowered(&moment, wanted)?;
        let found = moment.walk(&asked, None)?.next()?;
        found.map(|found| view_of(&moment, Hit::Indexed(found))).transpose()
    }

    /// The record at a position, if it exists and the caller may see it.
    pub fn get_seq(&self, seq: Seq, scope: &Scope) -> Result<Option<View>, SearchError> {
        let moment = self.moment();
        if let Some(held) = moment.tail.get(seq.0) {
            return Ok(self.allowed(&held, scope).then(|| held.view()));
        }
        let wanted = Node::Leaf(Leaf::Number { field: Field::Seq, min: seq.0, max: seq.0 });
        let wanted = Node::And(scope.node().into_iter().chain([wanted]).collect());
        let asked = self.lowered(&moment, wanted)?;
        let found = moment.walk(&asked, None)?.next()?;
        found.map(|found| view_of(&moment, Hit::Indexed(found))).transpose()
    }

    fn allowed(&self, held: &Held, scope: &Scope) -> bool {
        scope.node().is_none_or(|owner| held.matches(&owner, &mut Memo::default()))
    }

    fn newest_first<'a>(
        &self,
        moment: &'a Arc<Moment>,
        wanted: Node,
        before: Option<u64>,
    ) -> Result<Hits<'a>, SearchError> {
        let held: Box<dyn Iterator<Item = Held>> = Box::new(moment.remembered(&wanted, before));
        let asked = self.lowered(moment, wanted)?;
        let walk = moment.walk(&asked, before)?;
        Ok(Hits { held: held.peekable(), walk, waiting: None, asked })
    }

    /// How many answer, of the records up to `newest`.
    fn total(
        &self,
        moment: &Arc<Moment>,
        wanted: Node,
        newest: u64,
        count: Count,
    ) -> Result<Option<u64>, SearchError> {
        let wanted = match newest < moment.newest {
            true => {
                Node::And(vec![wanted, Node::Leaf(Leaf::Number { field: Field::Seq, min: 0, max: newest })])
            }
            false => wanted,
        };
        let most = match count {
            Count::None => return Ok(None),
            Count::Capped => usize::try_from(COUNT_CAP).unwrap_or(usize::MAX),
            Count::Exact => usize::MAX,
        };
        let held = moment.remembered(&wanted, None).take(most).count() as u64;
        let asked = self.lowered(moment, wanted)?;
        Ok(Some(match count {
            Count::Capped => COUNT_CAP.min(held + count_capped(moment, &asked, COUNT_CAP - held)?),
            _ => held + summary::count(moment, &asked)?,
        }))
    }

    /// A record that has a document and is still open, as it was indexed.
    pub(crate) fn open(&self, seq: u64) -> Result<Option<Draft>, SearchError> {
        let moment = self.moment();
        let Some(found) = moment.find(seq) else { return Ok(None) };
        let told = moment.told(found.at, found.record).ok_or(SearchError::Damaged(Seq(seq)))?;
        let is_open = told.ended.running || told.ended.txn_outcome == crate::record::TxnOutcome::Open;
        if !is_open {
            return Ok(None);
        }
        match moment.recalled(&told) {
            Ok(draft) => Ok(Some(draft)),
            Err(Lost::Gone) => Ok(None),
            Err(Lost::Unread(error)) => Err(SearchError::Journal(error)),
        }
    }

    pub(crate) fn columns(&self) -> &Columns {
        &self.columns
    }
}

impl Scope {
    /// The condition that it puts on every query.
    fn node(&self) -> Option<Node> {
        match self {
            Scope::All => None,
            Scope::Own { iss, sub } => Some(Node::Leaf(Leaf::Owner { iss: iss.clone(), sub: sub.clone() })),
        }
    }
}

/// The query, within what the caller may see and the time asked for.
pub(crate) fn wanted(query: &Query, scope: &Scope, window: &Window) -> Node {
    let time = (window.from.is_some() || window.to.is_some()).then(|| {
        let min = window.from.map_or(i64::MIN, |at| at.0);
        // The end of a window is not part of it.
        let max = window.to.map_or(i64::MAX, |at| at.0.saturating_sub(1));
        Node::Leaf(Leaf::Time { min, max })
    });
    let mut parts: Vec<Node> = scope.node().into_iter().chain(time).collect();
    if parts.is_empty() {
        return query.root().clone();
    }
    parts.push(query.root().clone());
    Node::And(parts)
}

/// A record that answers.
enum Hit {
    Held(Held),
    Indexed(Found),
}

impl Hit {
    fn seq(&self) -> u64 {
        match self {
            Hit::Held(held) => held.seq,
            Hit::Indexed(found) => found.seq,
        }
    }
}

/// The records that answer, newest first: those in memory and those in the index, which are others.
struct Hits<'a> {
    held: Peekable<Box<dyn Iterator<Item = Held> + 'a>>,
    walk: Walk,
    /// What the walk found last, if a newer one in memory came first.
    waiting: Option<Found>,
    asked: Arc<Asked>,
}

impl Hits<'_> {
    fn next(&mut self) -> Result<Option<Hit>, SearchError> {
        // What only memory holds comes before anything in the index.
        let last = self.walk.newest();
        if let Some(held) = self.held.next_if(|held| self.waiting.is_none() && held.seq > last) {
            return Ok(Some(Hit::Held(held)));
        }
        if self.waiting.is_none() {
            self.waiting = self.walk.next()?;
        }
        let waiting = self.waiting;
        if let Some(held) = self.held.next_if(|held| waiting.is_none_or(|found| found.seq < held.seq)) {
            return Ok(Some(Hit::Held(held)));
        }
        Ok(self.waiting.take().map(Hit::Indexed))
    }
}

fn query_hash(query: &Query) -> u64 {
    let digest = Sha256::digest(query.source().as_bytes());
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

/// The merged view of a record, read from the journal.
fn view_of(moment: &Moment, hit: Hit) -> Result<View, SearchError> {
    let found = match hit {
        Hit::Held(held) => return Ok(held.view()),
        Hit::Indexed(found) => found,
    };
    let told = moment.told(found.at, found.record).ok_or(SearchError::Damaged(Seq(found.seq)))?;
    Ok(match moment.recalled(&told) {
        Ok(draft) => draft.view(told.seq),
        Err(lost) => left(&told, &lost),
    })
}

/// What is left of a record that the journal does not give.
fn left(told: &Told, lost: &Lost) -> View {
    let mut view = View::new();
    view.insert("seq".into(), told.seq.into());
    view.insert("time".into(), view::format_time(Timestamp(told.time)).into());
    view.insert("outcome".into(), told.ended.outcome.as_str().into());
    view.insert("txn_outcome".into(), told.ended.txn_outcome.as_str().into());
    view.insert("rows".into(), told.rows.into());
    view.insert("bytes".into(), told.bytes.into());
    view.insert("duration_us".into(), told.duration_us.into());
    view.insert("detail".into(), lost.to_string().into());
    view
}

/// How many records answer, newest first, up to about `cap`.
fn count_capped(moment: &Arc<Moment>, asked: &Arc<Asked>, cap: u64) -> Result<u64, SearchError> {
    let weight = asked.query.weight(EnableScoring::disabled_from_searcher(&moment.searcher))?;
    let mut count = 0;
    for ordinal in moment.ordinals() {
        let segment = moment.searcher.segment_reader(ordinal);
        let Some(numbers) = moment.numbers(ordinal) else { continue };
        let mut deciding = Deciding::new(Arc::clone(moment), Arc::clone(asked), ordinal);
        let mut scorer = weight.scorer(segment, 1.0)?;
        while count < cap && scorer.doc() != TERMINATED {
            if is_alive(segment.alive_bitset(), scorer.doc()) {
                count += u64::from(deciding.records(numbers, scorer.doc())?.count_ones());
            }
            scorer.advance();
        }
        if count >= cap {
            break;
        }
    }
    if asked.is_exhausted() {
        return Err(SearchError::TooMany);
    }
    Ok(count)
}
