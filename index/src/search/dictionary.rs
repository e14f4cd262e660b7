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
use super::schema::{Columns, encode};
use super::words::Fields;
use crate::record::{Shape, Who};
use crate::view::{self, View};

/// Most shared values of one kind that are remembered; beyond, all are defined again.
const MAX_KNOWN: usize = 8_192;
/// Most texts of which it is remembered that they came before.
const MAX_SEEN: usize = 65_536;
/// Longer texts are not shared.
const MAX_TEXT: usize = 16 << 10;

/// What can be shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Who did it and from where.
    Who,
    /// What is touched.
    Shape,
    /// The whole text of a statement that came more than once.
    Text,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Who, Kind::Shape, Kind::Text];

    /// The name of the column with the numbers, and the mark of definitions.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Who => "_who",
            Kind::Shape => "_shape",
            Kind::Text => "_text",
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
            | Field::Analysis => Some(Kind::Shape),
            Field::Sql => Some(Kind::Text),
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

/// What was defined, and the definitions still to be written.
pub(crate) struct Dictionary {
    columns: Arc<Columns>,
    next: u64,
    who: Known<Who>,
    shapes: Known<Shape>,
    texts: Known<[u8]>,
    seen: HashSet<u64, FxBuildHasher>,
    new: Vec<TantivyDocument>,
}

/// A definition's record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside {
    pub(crate) seq: u64,
    pub(crate) time: i64,
}

impl Dictionary {
    /// Numbers are given from `next` on.
    pub(crate) fn new(columns: Arc<Columns>, next: u64) -> Dictionary {
        Dictionary {
            columns,
            next,
            who: Known::default(),
            shapes: Known::default(),
            texts: Known::default(),
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

    pub(crate) fn who(&mut self, who: &Arc<Who>, beside: Beside) -> Shared {
        if let Some(known) = self.who.find(who) {
            return known;
        }
        let shared = self.define(Kind::Who, beside, |view| view::put_who(view, who));
        self.who.keep(Arc::clone(who), shared)
    }

    pub(crate) fn shape(&mut self, shape: &Arc<Shape>, beside: Beside) -> Shared {
        if let Some(known) = self.shapes.find(shape) {
            return known;
        }
        let shared = self.define(Kind::Shape, beside, |view| view::put_shape(view, Some(shape)));
        self.shapes.keep(Arc::clone(shape), shared)
    }

    /// `None` for a text that did not come before.
    pub(crate) fn text(&mut self, text: &str, beside: Beside) -> Option<Shared> {
        if text.is_empty() || text.len() > MAX_TEXT {
            return None;
        }
        if let Some(known) = self.texts.by_value.get(text.as_bytes()) {
            return Some(*known);
        }
        if self.seen.len() >= MAX_SEEN {
            self.seen.clear();
        }
        // Two texts of one hash only make the second a definition that nobody else refers to.
        if self.seen.insert(FxBuildHasher.hash_one(text)) {
            return None;
        }
        let shared = self.define(Kind::Text, beside, |view| {
            view.insert(Field::Sql.name().into(), text.into());
        });
        self.texts.make_room();
        self.texts.by_value.insert(Arc::from(text.as_bytes()), shared);
        Some(shared)
    }

    fn define(&mut self, kind: Kind, beside: Beside, put: impl FnOnce(&mut View)) -> Shared {
        let mut view = View::new();
        put(&mut view);
        let shared = Shared { number: self.next, has: self.columns.parts(&view).has };
        self.next += 1;
        self.new.push(self.columns.definition(kind, shared.number, beside, &view, &encode(&view)));
        shared
    }
}

/// Shared values of one kind: by address, which is quicker, and by what they are.
struct Known<T: ?Sized> {
    by_address: HashMap<usize, (Arc<T>, Shared), FxBuildHasher>,
    by_value: HashMap<Arc<T>, Shared>,
}

impl<T: ?Sized> Default for Known<T> {
    fn default() -> Self {
        Known { by_address: HashMap::default(), by_value: HashMap::new() }
    }
}

impl<T: ?Sized> Known<T> {
    fn make_room(&mut self) {
        if self.by_value.len() >= MAX_KNOWN || self.by_address.len() >= MAX_KNOWN {
            self.by_address.clear();
            self.by_value.clear();
        }
    }
}

impl<T: Eq + Hash> Known<T> {
    fn find(&mut self, value: &Arc<T>) -> Option<Shared> {
        let address = Arc::as_ptr(value).addr();
        if let Some((_, known)) = self.by_address.get(&address) {
            return Some(*known);
        }
        let known = *self.by_value.get(&**value)?;
        if self.by_address.len() < MAX_KNOWN {
            // Kept with its value, so that the address is not used again.
            self.by_address.insert(address, (Arc::clone(value), known));
        }
        Some(known)
    }

    fn keep(&mut self, value: Arc<T>, shared: Shared) -> Shared {
        self.make_room();
        self.by_address.insert(Arc::as_ptr(&value).addr(), (Arc::clone(&value), shared));
        self.by_value.insert(value, shared);
        shared
    }
}
