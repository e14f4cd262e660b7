//! What the journal says of what was dropped: records of the events `retention` and `audit.erase`. The sentence
//! is for people; what programs go by stands in the parameters.

use crate::journal::Values;
use crate::proof::leaf::Erasable;
use crate::record::{Event, Param, Record, Seq};

/// What was done, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// The full text of a segment is dropped.
    Texts {
        /// Which segment.
        segment: u64,
        /// Its first record.
        first: Seq,
        /// Its last record.
        last: Seq,
        /// Entries that keep theirs, by a legal hold.
        held: u64,
        /// The rule.
        rule: String,
    },
    /// The records up to one are dropped.
    Records {
        /// The last segment that goes.
        through: u64,
        /// The last record that goes.
        last: Seq,
        /// The rule.
        rule: String,
    },
    /// These legal holds stand from now on.
    Holds(Vec<String>),
    /// Values of one record are erased.
    Values {
        /// Which record.
        seq: Seq,
        /// Which values.
        values: Values,
        /// Why.
        reason: String,
    },
}

/// A record that should say what was dropped and does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record does not say what was dropped")]
pub struct NotADeed;

impl Deed {
    /// What kind of record says it.
    pub fn event(&self) -> Event {
        match self {
            Self::Values { .. } => Event::AuditErase,
            _ => Event::Retention,
        }
    }

    /// The sentence for people.
    pub fn sentence(&self) -> String {
        match self {
            Self::Texts { segment, first, last, held, rule } => format!(
                "the full text of records {first} to {last} (segment {segment}) is dropped: {rule}. \
                 {held} entries keep theirs by legal hold"
            ),
            Self::Records { through, last, rule } => {
                format!("the records up to {last} (segments up to {through}) are dropped: {rule}")
            }
            Self::Holds(holds) if holds.is_empty() => "no legal hold stands".to_owned(),
            Self::Holds(holds) => format!("legal holds: {}", holds.join("; ")),
            Self::Values { seq, values, reason } => {
                format!("{values} of record {seq} erased: {reason}")
            }
        }
    }

    /// What programs go by.
    pub fn params(&self) -> Vec<Param> {
        let text = |text: &str| Param::Text(text.to_owned());
        // Numbers of records and segments are far from this bound.
        let number = |number: u64| Param::Int(i64::try_from(number).unwrap_or(i64::MAX));
        match self {
            Self::Texts { segment, first, last, held, rule } => vec![
                text("texts"),
                number(*segment),
                number(first.0),
                number(last.0),
                number(*held),
                text(rule),
            ],
            Self::Records { through, last, rule } => {
                vec![text("records"), number(*through), number(last.0), text(rule)]
            }
            Self::Holds(holds) => {
                std::iter::once(text("holds")).chain(holds.iter().map(|hold| text(hold))).collect()
            }
            Self::Values { seq, values, reason } => {
                vec![text("values"), number(seq.0), text(&values.to_string()), text(reason)]
            }
        }
    }

    /// What a record says; none if it is of another kind.
    ///
    /// # Errors
    /// It is of this kind, and cannot be read.
    pub fn of(record: &Record) -> Result<Option<Self>, NotADeed> {
        if !matches!(record.event, Event::Retention | Event::AuditErase) {
            return Ok(None);
        }
        let deed = Self::read(&record.params).filter(|deed| deed.event() == record.event);
        deed.map(Some).ok_or(NotADeed)
    }

    fn read(params: &[Param]) -> Option<Self> {
        let (kind, rest) = params.split_first()?;
        match (text(kind)?, rest) {
            ("texts", [segment, first, last, held, rule]) => Some(Self::Texts {
                segment: number(segment)?,
                first: Seq(number(first)?),
                last: Seq(number(last)?),
                held: number(held)?,
                rule: text(rule)?.to_owned(),
            }),
            ("records", [through, last, rule]) => Some(Self::Records {
                through: number(through)?,
                last: Seq(number(last)?),
                rule: text(rule)?.to_owned(),
            }),
            ("holds", holds) => {
                holds.iter().map(|hold| text(hold).map(str::to_owned)).collect::<Option<_>>().map(Self::Holds)
            }
            ("values", [seq, values, reason]) => Some(Self::Values {
                seq: Seq(number(seq)?),
                values: values_of(text(values)?)?,
                reason: text(reason)?.to_owned(),
            }),
            _ => None,
        }
    }
}

fn text(param: &Param) -> Option<&str> {
    match param {
        Param::Text(text) => Some(text),
        _ => None,
    }
}

fn number(param: &Param) -> Option<u64> {
    match param {
        Param::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn values_of(text: &str) -> Option<Values> {
    let values: Option<Vec<Erasable>> = text.split(", ").map(Erasable::from_word).collect();
    Some(Values::of(&values?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::record::{Timestamp, Who};

    fn record(event: Event, params: Vec<Param>) -> Record {
        Record {
            id: Uuid::from_u128(1),
            time: Timestamp(1),
            event,
            who: Arc::new(Who::default()),
            sql: None,
            shape: None,
            params,
            detail: String::new(),
            done: None,
        }
    }

    #[test]
    fn every_deed_is_read_back_from_its_record() {
        let values = Values::of(&[Erasable::Sql, Erasable::Params]);
        for deed in [
            Deed::Texts { segment: 3, first: Seq(10), last: Seq(20), held: 1, rule: "full = 90d".into() },
            Deed::Records { through: 4, last: Seq(30), rule: "metadata = 7y".into() },
            Deed::Holds(Vec::new()),
            Deed::Holds(vec!["user:ann@x.org".into(), "table:billing.cards".into()]),
            Deed::Values { seq: Seq(7), values, reason: "art. 17".into() },
        ] {
            assert_eq!(Deed::of(&record(deed.event(), deed.params())), Ok(Some(deed.clone())));
            assert!(!deed.sentence().is_empty());
        }
    }

    #[test]
    fn a_record_of_another_kind_is_no_deed_and_one_that_says_nothing_is_a_fault() {
        let deed = Deed::Records { through: 4, last: Seq(30), rule: String::new() };
        assert_eq!(Deed::of(&record(Event::Query, deed.params())), Ok(None));
        assert_eq!(Deed::of(&record(Event::AuditErase, deed.params())), Err(NotADeed));
        assert_eq!(Deed::of(&record(Event::Retention, Vec::new())), Err(NotADeed));
        assert_eq!(Deed::of(&record(Event::Retention, vec![Param::Null; 4])), Err(NotADeed));
    }
}
