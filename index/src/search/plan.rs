//! What is asked, as conditions on documents.
//!
//! A document is of one record or of several, and some conditions are met by each record for itself.
//! So a [`Plan`] says two things of a document: whether one of its records may answer
//! ([`Plan::may`]), and whether all do for sure ([`Plan::sure`]). What is between is decided record by
//! record, see [`deciding`](super::deciding).

use std::ops::Bound;

use tantivy::Term;
use tantivy::query::{
    AllQuery, BooleanQuery, EmptyQuery, InvertedIndexRangeQuery, Occur, Query, RangeQuery, TermQuery,
};
use tantivy::schema::{Field as Column, IndexRecordOption};

use super::any::Any;
use super::complement::Complement;
use super::document::SPAN;
use super::field::Field;
use super::position::Between;
use super::schema::Columns;

/// Of more conditions it is quicker to look ahead.
const FEW: usize = 12;

pub(crate) type Built = Box<dyn Query>;

/// Conditions on documents, and on their records where a document has several.
pub(crate) enum Plan {
    And(Vec<Plan>),
    Or(Vec<Plan>),
    Not(Box<Plan>),
    /// Met by all records of a document, or by none.
    Wide(Built),
    /// Words of values: `wide` as above, or by the records at whose positions one of the words stands.
    Words {
        wide: Built,
        words: Vec<Word>,
    },
    /// A number of a record, both ends included.
    Number {
        field: Field,
        min: u64,
        max: u64,
    },
    /// The time of a record, both ends included.
    Time {
        min: i64,
        max: i64,
    },
    /// What meets the inner plan may answer, and the record itself decides.
    Check(Box<Plan>),
}

/// A word among the values of records in runs.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    pub(crate) column: Column,
    pub(crate) text: String,
    pub(crate) prefix: bool,
}

impl Plan {
    pub(crate) fn nothing() -> Plan {
        Plan::Wide(Box::new(EmptyQuery))
    }

    pub(crate) fn all() -> Plan {
        Plan::Wide(Box::new(AllQuery))
    }

    /// Whether records of one document can answer differently.
    pub(crate) fn is_by_record(&self) -> bool {
        match self {
            Plan::And(plans) | Plan::Or(plans) => plans.iter().any(Plan::is_by_record),
            Plan::Not(plan) => plan.is_by_record(),
            Plan::Wide(_) => false,
            Plan::Words { .. } | Plan::Number { .. } | Plan::Time { .. } | Plan::Check(_) => true,
        }
    }

    /// Whether records must be looked at.
    pub(crate) fn checks(&self) -> bool {
        match self {
            Plan::And(plans) | Plan::Or(plans) => plans.iter().any(Plan::checks),
            Plan::Not(plan) => plan.checks(),
            Plan::Check(_) => true,
            Plan::Wide(_) | Plan::Words { .. } | Plan::Number { .. } | Plan::Time { .. } => false,
        }
    }

    /// The documents of which a record may answer.
    pub(crate) fn may(&self, columns: &Columns) -> Built {
        let each = |plans: &[Plan]| plans.iter().map(|plan| plan.may(columns)).collect();
        match self {
            Plan::And(plans) => all(each(plans)),
            Plan::Or(plans) => any(each(plans)),
            Plan::Not(plan) => Box::new(Complement(plan.sure(columns))),
            Plan::Wide(query) => query.box_clone(),
            Plan::Words { wide, words } => {
                let words = words.iter().map(|word| self::word(word.column, &word.text, word.prefix));
                any([wide.box_clone()].into_iter().chain(words).collect())
            }
            // The numbers of documents are those of their newest records.
            Plan::Number { field: Field::Seq, min, max } if min <= max => {
                let wider = Box::new(Between { min: *min, max: max.saturating_add(SPAN) });
                let runs = all(vec![wider, term(columns.runs())]);
                any(vec![Box::new(Between { min: *min, max: *max }), runs])
            }
            Plan::Number { .. } | Plan::Time { .. } => self.range(columns),
            Plan::Check(plan) => plan.may(columns),
        }
    }

    /// The documents of which all records answer for sure; there may be more of that kind.
    fn sure(&self, columns: &Columns) -> Built {
        let each = |plans: &[Plan]| plans.iter().map(|plan| plan.sure(columns)).collect();
        let alone = |query: Built| -> Built { all(vec![query, Box::new(Complement(term(columns.runs())))]) };
        match self {
            Plan::And(plans) => all(each(plans)),
            Plan::Or(plans) => any(each(plans)),
            Plan::Not(plan) => Box::new(Complement(plan.may(columns))),
            Plan::Wide(query) => query.box_clone(),
            Plan::Words { wide, .. } => wide.box_clone(),
            Plan::Number { field: Field::Seq, min, max } if min <= max => {
                alone(Box::new(Between { min: *min, max: *max }))
            }
            Plan::Number { .. } | Plan::Time { .. } => alone(self.range(columns)),
            Plan::Check(_) => Box::new(EmptyQuery),
        }
    }

    /// The documents that have a value in the range.
    fn range(&self, columns: &Columns) -> Built {
        match self {
            Plan::Number { field, min, max } if min <= max && *field != Field::Seq => {
                on(columns, *field, |column| {
                    range(Term::from_field_u64(column, *min), Term::from_field_u64(column, *max))
                })
            }
            Plan::Time { min, max } if min <= max => on(columns, Field::Time, |column| {
                range(Term::from_field_i64(column, *min), Term::from_field_i64(column, *max))
            }),
            _ => Box::new(EmptyQuery),
        }
    }
}

pub(crate) fn on(columns: &Columns, field: Field, build: impl Fn(Column) -> Built) -> Built {
    columns.of(field).map_or_else(|| Box::new(EmptyQuery) as Built, build)
}

/// The documents with a word in a column, or with one that begins so.
pub(crate) fn word(column: Column, value: &str, prefix: bool) -> Built {
    if !prefix {
        return term(Term::from_field_text(column, value));
    }
    let (from, to) = beginning(column, value);
    Box::new(InvertedIndexRangeQuery::new(Bound::Included(from), Bound::Included(to)))
}

/// The first and the last word that can begin so.
pub(crate) fn beginning(column: Column, value: &str) -> (Term, Term) {
    let end = format!("{value}{}", char::MAX);
    (Term::from_field_text(column, value), Term::from_field_text(column, &end))
}

pub(crate) fn term(term: Term) -> Built {
    Box::new(TermQuery::new(term, IndexRecordOption::Basic))
}

pub(crate) fn range(min: Term, max: Term) -> Built {
    Box::new(RangeQuery::new(Bound::Included(min), Bound::Included(max)))
}

pub(crate) fn all(mut parts: Vec<Built>) -> Built {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return only;
    }
    Box::new(BooleanQuery::new(parts.into_iter().map(|part| (Occur::Must, part)).collect()))
}

pub(crate) fn any(mut parts: Vec<Built>) -> Built {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return only;
    }
    if parts.len() <= FEW {
        return Box::new(Any(parts));
    }
    Box::new(BooleanQuery::new(parts.into_iter().map(|part| (Occur::Should, part)).collect()))
}
