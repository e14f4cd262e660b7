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
use tantivy::collector::Count as CountAll;
use tantivy::query::{EnableScoring, Query as TantivyQuery};
use tantivy::{DocAddress, DocSet, TERMINATED, TantivyDocument};
use thiserror::Error;
use uuid::Uuid;

use super::draft;
use super::field::Field;
use super::lower::lower;
use super::matches::{self, Memo};
use super::moment::{Moment, Walk, is_alive};
use super::query::{Leaf, Node, Query};
use super::schema::Columns;
use super::tail::Held;
use crate::record::{Seq, Timestamp};
use crate::view::View;

/// Most records on a page.
pub const MAX_LIMIT: usize = 1000;
/// Where [`Count::Capped`] stops.
pub const COUNT_CAP: u64 = 10_000;

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
    /// The values of this field are not counted.
    #[error("the values of {} cannot be counted", .0.name())]
    NoFacet(Field),
    /// A stored record could not be read back.
    #[error("record {0} could not be read from the index. Rebuild the index")]
    Damaged(Seq),
    /// The index failed.
    #[error("the index could not answer: {0}")]
    Index(#[from] tantivy::TantivyError),
}

/// The log, as those who ask see it. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct Search {
    moment: Arc<RwLock<Arc<Moment>>>,
    columns: Arc<Columns>,
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Search").field("newest", &self.newest()).finish_non_exhaustive()
    }
}

impl Search {
    pub(crate) fn new(moment: Moment, columns: Arc<Columns>) -> Search {
        Search { moment: Arc::new(RwLock::new(Arc::new(moment))), columns }
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
        let mut hits = self.newest_first(&moment, &wanted, before)?;
        let mut found = Vec::with_capacity(limit.min(64));
        while found.len() < limit
            && let Some(hit) = hits.next()?
        {
            found.push(hit);
        }
        let more = found.len() == limit && hits.next()?.is_some();
        let last = found.last().map(|hit| hit.seq()).filter(|_| more);
        let items = found.into_iter().map(|hit| self.view(&moment, hit)).collect::<Result<_, _>>()?;
        let newest = cursor.map_or(moment.newest, |cursor| cursor.newest);
        let total = self.total(&moment, wanted, newest, count)?;
        Ok(Page {
            items,
            next_cursor: last.map(|before| Cursor { before, newest, query: hash }),
            indexed_seq: Seq(moment.newest),
            total,
            total_is_capped: count == Count::Capped && total == Some(COUNT_CAP),
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
        let mut walk = moment.walk(&*lower(&self.columns, &moment, &wanted)?, None)?;
        let found = walk.next()?;
        found.map(|(seq, at)| self.view(&moment, Hit::Indexed(seq, at))).transpose()
    }

    /// The record at a position, if it exists and the caller may see it.
    pub fn get_seq(&self, seq: Seq, scope: &Scope) -> Result<Option<View>, SearchError> {
        let moment = self.moment();
        let hit = match moment.tail.get(seq.0) {
            Some(held) => Some(Hit::Held(held)),
            None => moment.find(seq.0).map(|at| Hit::Indexed(seq.0, at)),
        };
        let view = hit.map(|hit| self.view(&moment, hit)).transpose()?;
        Ok(view.filter(|view| scope.allows(view)))
    }

    fn allowed(&self, held: &Held, scope: &Scope) -> bool {
        scope.node().is_none_or(|owner| held.matches(&owner, &mut Memo::default()))
    }

    fn newest_first<'a>(
        &self,
        moment: &'a Moment,
        wanted: &Node,
        before: Option<u64>,
    ) -> Result<Hits<'a>, SearchError> {
        let held: Box<dyn Iterator<Item = Held>> = Box::new(moment.remembered(wanted, before));
        let walk = moment.walk(&*lower(&self.columns, moment, wanted)?, before)?;
        Ok(Hits { held: held.peekable(), walk, waiting: None })
    }

    /// How many answer, of the records up to `newest`.
    fn total(
        &self,
        moment: &Moment,
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
        let lowered = || lower(&self.columns, moment, &wanted);
        Ok(match count {
            Count::None => None,
            Count::Capped => {
                let held = moment.remembered(&wanted, None).take(COUNT_CAP as usize).count() as u64;
                Some(held + count_capped(moment, &*lowered()?, COUNT_CAP - held)?)
            }
            Count::Exact => {
                let held = moment.remembered(&wanted, None).count() as u64;
                Some(held + moment.searcher.search(&*lowered()?, &CountAll)? as u64)
            }
        })
    }

    fn view(&self, moment: &Moment, hit: Hit) -> Result<View, SearchError> {
        let (seq, at) = match hit {
            Hit::Held(held) => return Ok(held.view()),
            Hit::Indexed(seq, at) => (seq, at),
        };
        let damaged = || SearchError::Damaged(Seq(seq));
        let document: TantivyDocument = moment.searcher.doc(at)?;
        let own = self.columns.stored(&document).ok_or_else(damaged)?;
        let [who, shape, text] = moment.references(at)?;
        if who == 0 {
            return Ok(own);
        }
        let definition = |number| -> Result<_, SearchError> {
            let found = moment.definition(&self.columns, number)?;
            found.ok_or_else(damaged)
        };
        let text = if text == 0 { None } else { Some(definition(text)?) };
        Ok(draft::joined(own, &*definition(who)?, text.as_deref(), &*definition(shape)?))
    }

    /// The record at a position as the index holds it.
    pub(crate) fn stored(&self, seq: u64) -> Result<Option<View>, SearchError> {
        let moment = self.moment();
        moment.find(seq).map(|at| self.view(&moment, Hit::Indexed(seq, at))).transpose()
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

    fn allows(&self, view: &View) -> bool {
        self.node().is_none_or(|owner| matches::matches(&owner, view, &mut Memo::default()))
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
    Indexed(u64, DocAddress),
}

impl Hit {
    fn seq(&self) -> u64 {
        match self {
            Hit::Held(held) => held.seq,
            Hit::Indexed(seq, _) => *seq,
        }
    }
}

/// The records that answer, newest first: those in memory and those in the index, which are others.
struct Hits<'a> {
    held: Peekable<Box<dyn Iterator<Item = Held> + 'a>>,
    walk: Walk<'a>,
    /// What the walk found last, if a newer one in memory came first.
    waiting: Option<(u64, DocAddress)>,
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
        if let Some(held) = self.held.next_if(|held| waiting.is_none_or(|(seq, _)| seq < held.seq)) {
            return Ok(Some(Hit::Held(held)));
        }
        Ok(self.waiting.take().map(|(seq, at)| Hit::Indexed(seq, at)))
    }
}

fn query_hash(query: &Query) -> u64 {
    let digest = Sha256::digest(query.source().as_bytes());
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

/// How many documents answer, newest first, up to `cap`.
fn count_capped(moment: &Moment, query: &dyn TantivyQuery, cap: u64) -> Result<u64, SearchError> {
    let weight = query.weight(EnableScoring::disabled_from_searcher(&moment.searcher))?;
    let mut count = 0;
    for ordinal in moment.ordinals() {
        let segment = moment.searcher.segment_reader(ordinal);
        let mut scorer = weight.scorer(segment, 1.0)?;
        while count < cap && scorer.doc() != TERMINATED {
            count += u64::from(is_alive(segment.alive_bitset(), scorer.doc()));
            scorer.advance();
        }
        if count >= cap {
            break;
        }
    }
    Ok(count)
}
