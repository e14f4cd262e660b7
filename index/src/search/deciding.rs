//! Which records of a document answer, where documents alone do not tell.
//!
//! A set of the records of one document is a number: bit `n` stands for its `n`th record. For each
//! document, in their order, the conditions are evaluated to two sets: the records that answer for
//! sure, and those that may. What is between is read from the journal and asked itself.

use std::sync::Arc;

use tantivy::postings::{Postings as _, SegmentPostings};
use tantivy::query::{EnableScoring, Scorer};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocId, DocSet as _, Searcher, SegmentReader};

use super::facts::Numbered;
use super::lower::Asked;
use super::matches::{self, Memo};
use super::moment::Moment;
use super::page::SearchError;
use super::plan::{Plan, Word, beginning};
use super::position::{Numbers, Range};

/// Beyond so many words of one beginning, in one segment, the records themselves are asked.
const MAX_WORDS: usize = 4_096;

/// Decides for the documents of one segment.
pub(crate) struct Deciding {
    moment: Arc<Moment>,
    asked: Arc<Asked>,
    ordinal: u32,
    /// Made when it is needed first.
    conditions: Option<Condition>,
    memo: Memo,
}

impl Deciding {
    pub(crate) fn new(moment: Arc<Moment>, asked: Arc<Asked>, ordinal: u32) -> Deciding {
        Deciding { moment, asked, ordinal, conditions: None, memo: Memo::default() }
    }

    /// The records that answer, of a document that may. Documents are asked in their order.
    pub(crate) fn records(&mut self, numbers: &Numbers, doc: DocId) -> Result<u64, SearchError> {
        let count = numbers.count(doc);
        let full = u64::MAX >> (u64::BITS - count.clamp(1, u64::BITS));
        if !self.asked.by_record || (count == 1 && !self.asked.checks) {
            return Ok(full);
        }
        let conditions = match self.conditions.take() {
            Some(conditions) => conditions,
            None => Condition::of(&self.asked.plan, &self.moment.searcher, self.ordinal)?,
        };
        let Both { mut sure, may } = self.conditions.insert(conditions).of_doc(numbers, doc, full)?;
        let mut open = may & !sure;
        while open != 0 {
            let record = open.trailing_zeros();
            open &= open - 1;
            if self.asked.is_exhausted() {
                break;
            }
            // What cannot be read any more is not known to answer.
            let Ok((seq, draft)) = self.moment.draft(self.ordinal, doc, record) else { continue };
            self.memo.forget();
            let answers = self.asked.pay(draft.weight())
                && matches::matches(&self.asked.wanted, &Numbered(seq, &draft), &mut self.memo);
            sure |= u64::from(answers) << record;
        }
        Ok(sure)
    }
}

/// The records that answer for sure, and those that may.
#[derive(Debug, Clone, Copy)]
struct Both {
    sure: u64,
    may: u64,
}

impl Both {
    fn exactly(set: u64) -> Both {
        Both { sure: set, may: set }
    }
}

/// A condition, with its place in the lists of one segment.
enum Condition {
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    Wide(Box<dyn Scorer>),
    Words { wide: Box<dyn Scorer>, lists: Option<Vec<SegmentPostings>>, positions: Vec<u32> },
    Range(Range),
    Check(Box<Condition>),
}

impl Condition {
    fn of(plan: &Plan, searcher: &Searcher, ordinal: u32) -> tantivy::Result<Condition> {
        let segment = searcher.segment_reader(ordinal);
        let each = |plans: &[Plan]| -> tantivy::Result<Vec<Condition>> {
            plans.iter().map(|plan| Condition::of(plan, searcher, ordinal)).collect()
        };
        let scorer = |query: &dyn tantivy::query::Query| {
            query.weight(EnableScoring::disabled_from_searcher(searcher))?.scorer(segment, 1.0)
        };
        Ok(match plan {
            Plan::And(plans) => Condition::And(each(plans)?),
            Plan::Or(plans) => Condition::Or(each(plans)?),
            Plan::Not(plan) => Condition::Not(Box::new(Condition::of(plan, searcher, ordinal)?)),
            Plan::Wide(query) => Condition::Wide(scorer(&**query)?),
            Plan::Words { wide, words } => {
                let mut lists = Some(Vec::new());
                for word in words {
                    add_lists(segment, word, &mut lists)?;
                }
                Condition::Words { wide: scorer(&**wide)?, lists, positions: Vec::new() }
            }
            Plan::Number { field, min, max } => Condition::Range(Range::Number(*field, *min..=*max)),
            Plan::Time { min, max } => Condition::Range(Range::Time(*min..=*max)),
            Plan::Check(plan) => Condition::Check(Box::new(Condition::of(plan, searcher, ordinal)?)),
        })
    }

    fn of_doc(&mut self, numbers: &Numbers, doc: DocId, full: u64) -> tantivy::Result<Both> {
        Ok(match self {
            Condition::And(conditions) => {
                let mut both = Both::exactly(full);
                for condition in conditions {
                    let Both { sure, may } = condition.of_doc(numbers, doc, full)?;
                    both = Both { sure: both.sure & sure, may: both.may & may };
                    if both.may == 0 {
                        break;
                    }
                }
                both
            }
            Condition::Or(conditions) => {
                let mut both = Both::exactly(0);
                for condition in conditions {
                    let Both { sure, may } = condition.of_doc(numbers, doc, full)?;
                    both = Both { sure: both.sure | sure, may: both.may | may };
                }
                both
            }
            Condition::Not(condition) => {
                let Both { sure, may } = condition.of_doc(numbers, doc, full)?;
                Both { sure: full & !may, may: full & !sure }
            }
            Condition::Wide(scorer) => Both::exactly(if stands_at(scorer, doc) { full } else { 0 }),
            Condition::Words { wide, lists, positions } => match lists {
                _ if stands_at(wide, doc) => Both::exactly(full),
                Some(lists) => Both::exactly(standing(lists, positions, doc) & full),
                None => Both { sure: 0, may: full },
            },
            Condition::Range(range) => Both::exactly(numbers.within(doc, range) & full),
            Condition::Check(condition) => Both { sure: 0, may: condition.of_doc(numbers, doc, full)?.may },
        })
    }
}

/// The records at whose positions one of the words stands.
fn standing(lists: &mut [SegmentPostings], positions: &mut Vec<u32>, doc: DocId) -> u64 {
    let mut set = 0;
    for list in lists {
        if list.doc() < doc {
            list.seek(doc);
        }
        if list.doc() == doc {
            list.positions(positions);
            set |= positions.iter().fold(0, |set, record| set | 1_u64 << (record % u64::BITS));
        }
    }
    set
}

fn stands_at(scorer: &mut Box<dyn Scorer>, doc: DocId) -> bool {
    if scorer.doc() < doc {
        scorer.seek(doc);
    }
    scorer.doc() == doc
}

/// Adds the lists of the words that a word stands for; there are none of too many.
fn add_lists(
    segment: &SegmentReader,
    word: &Word,
    lists: &mut Option<Vec<SegmentPostings>>,
) -> tantivy::Result<()> {
    let inverted = segment.inverted_index(word.column)?;
    let (from, to) = beginning(word.column, &word.text);
    let options = IndexRecordOption::WithFreqsAndPositions;
    if !word.prefix {
        let list = inverted.read_postings(&from, options)?;
        lists.iter_mut().for_each(|lists| lists.extend(list.clone()));
        return Ok(());
    }
    let terms = inverted.terms();
    let mut words =
        terms.range().ge(from.serialized_value_bytes()).le(to.serialized_value_bytes()).into_stream()?;
    while words.advance() {
        let Some(some) = lists else { return Ok(()) };
        if some.len() >= MAX_WORDS {
            *lists = None;
            return Ok(());
        }
        some.push(inverted.read_postings_from_terminfo(words.value(), options)?);
    }
    Ok(())
}
