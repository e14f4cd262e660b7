//! Documents with a word in which some letters stand.
//!
//! The words of each segment are looked through once; that is less than the records, and enough: a
//! record in which the letters stand has such a word.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tantivy::index::SegmentId;
use tantivy::postings::SegmentPostings;
use tantivy::query::{BitSetDocSet, ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::schema::{Field as Column, IndexRecordOption};
use tantivy::{BitSet, DocId, DocSet as _, Score, SegmentReader, TERMINATED};

/// The documents with a word in one of some columns in which letters stand.
#[derive(Clone)]
pub(crate) struct Containing {
    columns: Vec<Column>,
    /// Lower-case, and a part of one word.
    letters: String,
    /// What was found in segments that were looked at, by clones of this, too.
    found: Arc<Mutex<HashMap<SegmentId, BitSet>>>,
}

impl Containing {
    pub(crate) fn new(columns: Vec<Column>, letters: String) -> Containing {
        Containing { columns, letters, found: Arc::default() }
    }

    fn look(&self, segment: &SegmentReader) -> tantivy::Result<BitSet> {
        let mut found = BitSet::with_max_value(segment.max_doc());
        for column in &self.columns {
            let inverted = segment.inverted_index(*column)?;
            let mut words = inverted.terms().stream()?;
            while words.advance() {
                if contains(words.key(), self.letters.as_bytes()) {
                    let options = IndexRecordOption::Basic;
                    add(inverted.read_postings_from_terminfo(words.value(), options)?, &mut found);
                }
            }
        }
        Ok(found)
    }
}

impl fmt::Debug for Containing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Containing").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl Query for Containing {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for Containing {
    fn scorer(&self, segment: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let known = || self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known().get(&segment.segment_id()).cloned();
        let found = match before {
            Some(found) => found,
            None => {
                let found = self.look(segment)?;
                known().insert(segment.segment_id(), found.clone());
                found
            }
        };
        Ok(Box::new(ConstScorer::new(BitSetDocSet::from(found), boost)))
    }

    fn explain(&self, _: &SegmentReader, _: DocId) -> tantivy::Result<Explanation> {
        Ok(Explanation::new("with letters in a word", 1.0))
    }
}

fn add(mut documents: SegmentPostings, found: &mut BitSet) {
    while documents.doc() != TERMINATED {
        found.insert(documents.doc());
        documents.advance();
    }
}

/// Whether bytes stand among others.
fn contains(word: &[u8], letters: &[u8]) -> bool {
    let Some((first, rest)) = letters.split_first() else { return true };
    let starts = word.len().saturating_sub(rest.len());
    let may = word.get(..starts).unwrap_or_default().iter().enumerate();
    may.filter(|(_, byte)| *byte == first)
        .any(|(at, _)| word.get(at + 1..).is_some_and(|word| word.starts_with(rest)))
}
