//! What many records share is written once, as a document of its own that defines a number; the
//! documents of records refer to it.
//!
//! A number is given once in the life of an index. A definition lies beside the record that came with
//! it. What is not remembered any more is defined again, under another number.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use rustc_hash::FxBuildHasher;
use tantivy::TantivyDocument;

use super::field::Field;
use super::schema::Columns;
use super::words::{self, Fields};
use crate::record::{Outcome, Shape, Sql, Template, TxnOutcome, Who};
use crate::view::{self, View};

/// Most shared values of one kind that are remembered; beyond, all are defined again.
const MAX_KNOWN: usize = 16_384;
/// Most texts of which it is remembered that they came before.
const MAX_SEEN: usize = 65_536;
/// Longer texts are not shared.
const MAX_TEXT: usize = 16 << 10;

/// What can be shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Who did it and from where.
    Who,
    /// What is touched, and the text of a statement that came more than once, without its literals.
    What,
    /// How it ended, and which fields have a value.
    How,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Who, Kind::What, Kind::How];

    /// The name of the column with the numbers, and the mark of definitions.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Who => "_by",
            Kind::What => "_what",
            Kind::How => "_ended",
        }
    }

    /// What a field may be shared with.
    pub(crate) fn of(field: Field) -> Option<Kind> {
        match field {
            Field::User
            | Field::Sub
            | Field::Iss
            | Field::Groups
            | Field::Login
            | Field::Session
            | Field::Role
            | Field::Db
            | Field::Upstream
            | Field::SearchPath
            | Field::Ip
            | Field::App
            | Field::Device => Some(Kind::Who),
            Field::Fingerprint
            | Field::Command
            | Field::Class
            | Field::Tables
            | Field::Columns
            | Field::Reads
            | Field::Filters
            | Field::Writes
            | Field::Via
            | Field::Analysis
            | Field::Tags
            | Field::Sql => Some(Kind::What),
            Field::Event | Field::Outcome | Field::TxnOutcome | Field::Is => Some(Kind::How),
            _ => None,
        }
    }
}

/// Something shared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared {
    pub(crate) number: u64,
    /// Which fields have a value in it.
    pub(crate) has: Fields,
}

/// How statements end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct How {
    pub(crate) outcome: Outcome,
    pub(crate) txn_outcome: TxnOutcome,
    pub(crate) is: Vec<&'static str>,
    /// All fields of the record that have a value.
    pub(crate) has: Fields,
}

/// What a statement touches, and its text, if that came before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct What {
    shape: Arc<Shape>,
    text: Option<Text>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Text {
    Whole(Arc<[u8]>),
    Cut(Arc<Template>),
}

impl Text {
    /// What can be shared of a text, if that is worth it.
    fn of(sql: &Sql) -> Option<Text> {
        Some(match sql {
            Sql::Once(_) => return None,
            Sql::Shared(text) if text.len() <= MAX_TEXT => Text::Whole(Arc::clone(text)),
            Sql::Spliced(spliced) if can_be_cut(spliced.template()) => {
                Text::Cut(Arc::clone(spliced.template()))
            }
            Sql::Shared(_) | Sql::Spliced(_) => return None,
        })
    }

    fn address(&self) -> usize {
        match self {
            Text::Whole(text) => Arc::as_ptr(text).addr(),
            Text::Cut(template) => Arc::as_ptr(template).addr(),
        }
    }

    /// The text between the literals.
    fn pieces(&self) -> impl Iterator<Item = &str> {
        let (text, holes) = match self {
            Text::Whole(text) => (&**text, &[][..]),
            Text::Cut(template) => (template.text(), template.holes()),
        };
        let ends = holes.iter().map(|hole| *hole as usize).chain([text.len()]);
        let starts = std::iter::once(0).chain(holes.iter().map(|hole| *hole as usize));
        // Cut where literals were, so at whole characters: records with other texts have them themselves.
        starts.zip(ends).filter_map(move |(start, end)| std::str::from_utf8(text.get(start..end)?).ok())
    }
}

/// Whether no word and no name can be partly in a literal: only then are words found in the parts.
fn can_be_cut(template: &Template) -> bool {
    let (text, holes) = (template.text(), template.holes());
    let joins = |byte: Option<&u8>| {
        byte.is_some_and(|byte| !byte.is_ascii() || words::continues_name(char::from(*byte)))
    };
    text.len() <= MAX_TEXT
        && std::str::from_utf8(text).is_ok()
        && holes.windows(2).all(|pair| pair[0] < pair[1])
        && holes.iter().all(|hole| {
            let at = *hole as usize;
            !joins(at.checked_sub(1).and_then(|before| text.get(before))) && !joins(text.get(at))
        })
}

/// What was defined, and the definitions still to be written.
pub(crate) struct Dictionary {
    columns: Arc<Columns>,
    next: u64,
    who: Known<usize, Who>,
    whats: Known<(usize, usize), What>,
    hows: HashMap<How, u64, FxBuildHasher>,
    seen: HashSet<u64, FxBuildHasher>,
    new: Vec<TantivyDocument>,
}

impl Dictionary {
    /// Numbers are given from `next` on.
    pub(crate) fn new(columns: Arc<Columns>, next: u64) -> Dictionary {
        Dictionary {
            columns,
            next,
            who: Known::default(),
            whats: Known::default(),
            hows: HashMap::default(),
            seen: HashSet::default(),
            new: Vec::new(),
        }
    }

    /// The number that is given next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The definitions made since the last call.
    pub(crate) fn take(&mut self) -> Vec<TantivyDocument> {
        std::mem::take(&mut self.new)
    }

    pub(crate) fn who(&mut self, who: &Arc<Who>, beside: u64) -> Shared {
        let address = Arc::as_ptr(who).addr();
        if let Some(known) = self.who.find(address, || Arc::clone(who)) {
            return known;
        }
        let mut view = View::new();
        view::put_who(&mut view, who);
        let shared = self.define(Kind::Who, beside, &view, None);
        self.who.keep(address, Arc::clone(who), shared)
    }

    /// What is touched by a statement, and whether its text is a part of that.
    pub(crate) fn what(&mut self, shape: &Arc<Shape>, sql: &Sql, beside: u64) -> (Shared, bool) {
        let text = Text::of(sql);
        let address = |text: Option<&Text>| (Arc::as_ptr(shape).addr(), text.map_or(0, Text::address));
        let what = |text: Option<&Text>| Arc::new(What { shape: Arc::clone(shape), text: text.cloned() });
        if let Some(known) = self.whats.find(address(text.as_ref()), || what(text.as_ref())) {
            return (known, text.is_some());
        }
        // A text that comes for the first time may be the only one of its kind.
        let text = text.filter(|text| self.came_before(text));
        let (address, what) = (address(text.as_ref()), what(text.as_ref()));
        if let Some(known) = self.whats.find(address, || Arc::clone(&what)) {
            return (known, text.is_some());
        }
        let mut view = View::new();
        view::put_shape(&mut view, Some(shape));
        view.insert(Field::Tags.name().into(), shape.tags.clone().into());
        let shared = self.define(Kind::What, beside, &view, text.as_ref());
        (self.whats.keep(address, what, shared), text.is_some())
    }

    /// How statements ended that end like this one.
    pub(crate) fn how(&mut self, how: How, beside: u64) -> u64 {
        if let Some(known) = self.hows.get(&how) {
            return *known;
        }
        if self.hows.len() >= MAX_KNOWN {
            self.hows.clear();
        }
        let mut view = View::new();
        view.insert(Field::Event.name().into(), crate::record::Event::Query.as_str().into());
        view.insert(Field::Outcome.name().into(), how.outcome.as_str().into());
        view.insert(Field::TxnOutcome.name().into(), how.txn_outcome.as_str().into());
        view.insert(Field::Is.name().into(), how.is.clone().into());
        let number = self.next;
        self.next += 1;
        let mut definition = self.columns.definition(Kind::How, number, beside, &view);
        definition.add_text(self.columns.has, how.has.text());
        self.new.push(definition);
        self.hows.insert(how, number);
        number
    }

    fn came_before(&mut self, text: &Text) -> bool {
        if self.seen.len() >= MAX_SEEN {
            self.seen.clear();
        }
        // Two texts of one hash only make the second a definition that nobody else refers to.
        !self.seen.insert(FxBuildHasher.hash_one(text))
    }

    fn define(&mut self, kind: Kind, beside: u64, view: &View, text: Option<&Text>) -> Shared {
        let has = self.columns.parts(view).has;
        let number = self.next;
        self.next += 1;
        let mut definition = self.columns.definition(kind, number, beside, view);
        if let Some((text, sql)) = text.zip(self.columns.of(Field::Sql)) {
            let mut tokens = String::new();
            for piece in text.pieces() {
                definition.add_text(sql, piece);
                words::push_values(&mut tokens, piece);
            }
            definition.add_text(self.columns.pieces, tokens);
        }
        self.new.push(definition);
        Shared { number, has }
    }
}

/// Shared values of one kind: by address, which is quicker, and by what they are.
struct Known<A, T> {
    by_address: HashMap<A, (Arc<T>, Shared), FxBuildHasher>,
    by_value: HashMap<Arc<T>, Shared>,
}

impl<A, T> Default for Known<A, T> {
    fn default() -> Self {
        Known { by_address: HashMap::default(), by_value: HashMap::new() }
    }
}

impl<A: Eq + Hash, T: Eq + Hash> Known<A, T> {
    fn find(&mut self, address: A, value: impl FnOnce() -> Arc<T>) -> Option<Shared> {
        if let Some((_, known)) = self.by_address.get(&address) {
            return Some(*known);
        }
        let value = value();
        let known = *self.by_value.get(&value)?;
        if self.by_address.len() >= MAX_KNOWN {
            self.by_address.clear();
        }
        // Kept with its value, so that the address is not used again.
        self.by_address.insert(address, (value, known));
        Some(known)
    }

    fn keep(&mut self, address: A, value: Arc<T>, shared: Shared) -> Shared {
        if self.by_value.len() >= MAX_KNOWN || self.by_address.len() >= MAX_KNOWN {
            self.by_address.clear();
            self.by_value.clear();
        }
        self.by_address.insert(address, (Arc::clone(&value), shared));
        self.by_value.insert(value, shared);
        shared
    }
}
