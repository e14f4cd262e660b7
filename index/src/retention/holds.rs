//! Legal holds: queries over the log. What one of them names stays as it is for as long as the hold stands.

use crate::record::Timestamp;
use crate::search::{Query, QueryError};
use crate::view::View;

/// Another moment, to see whether a query means something else then.
const LATER_US: i64 = 400 * 86_400_000_000;

/// The holds that stand.
#[derive(Debug, Clone, Default)]
pub struct Holds {
    texts: Vec<String>,
    queries: Vec<Query>,
}

/// Why a hold cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// It is no query.
    #[error("{hold:?} is not a query: {}", source.message)]
    Query {
        /// The hold.
        hold: String,
        /// What is wrong.
        source: QueryError,
    },
    /// It names other records each day.
    #[error("{hold:?} names times by today's date. Write dates, such as time:2026-01-01..2026-06-30")]
    Moves {
        /// The hold.
        hold: String,
    },
    /// It names nothing.
    #[error("a legal hold is empty. Name what it holds, such as user:ann@example.com, or * for everything")]
    Empty,
}

impl Holds {
    /// Reads the holds. `kept_as` makes of a parameter's value what is kept of it, where that is not itself.
    ///
    /// # Errors
    /// One of them cannot be kept.
    pub fn parse(
        texts: &[String],
        now: Timestamp,
        kept_as: Option<&dyn Fn(&str) -> String>,
    ) -> Result<Self, HoldError> {
        let queries = texts.iter().map(|hold| query(hold, now, kept_as)).collect::<Result<_, _>>()?;
        Ok(Self { texts: texts.to_vec(), queries })
    }

    /// Whether one of them names a record.
    pub fn hold(&self, view: &View) -> bool {
        self.queries.iter().any(|query| query.matches(view))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// As they were written.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }
}

fn query(hold: &str, now: Timestamp, kept_as: Option<&dyn Fn(&str) -> String>) -> Result<Query, HoldError> {
    if hold.trim().is_empty() {
        return Err(HoldError::Empty);
    }
    if hold.trim() == "*" {
        return Ok(Query::all());
    }
    let parse = |now| match kept_as {
        Some(kept_as) => Query::parse_kept(hold, now, kept_as),
        None => Query::parse(hold, now),
    };
    let failed = |source| HoldError::Query { hold: hold.to_owned(), source };
    let read = parse(now).map_err(failed)?;
    let later = parse(Timestamp(now.0.saturating_add(LATER_US))).map_err(failed)?;
    if read != later {
        return Err(HoldError::Moves { hold: hold.to_owned() });
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_262_400_000_000);

    fn parse(holds: &[&str]) -> Result<Holds, HoldError> {
        Holds::parse(&holds.iter().map(|hold| (*hold).to_owned()).collect::<Vec<_>>(), NOW, None)
    }

    #[test]
    fn holds_are_queries_that_mean_the_same_every_day() {
        let holds =
            parse(&["user:ann@x.org", "table:billing.cards", "time:2026-01-01..2026-06-30", "*"]).unwrap();
        assert_eq!(holds.texts().len(), 4);
        for moving in ["time:today", "time:>-15m", "time:>now-1h"] {
            assert!(matches!(parse(&[moving]), Err(HoldError::Moves { .. })), "{moving}");
        }
        for wrong in ["nofield:x", "user:(", "user:\""] {
            assert!(matches!(parse(&[wrong]), Err(HoldError::Query { .. })), "{wrong}");
        }
        assert_eq!(parse(&[" "]).unwrap_err(), HoldError::Empty);
        assert!(parse(&[]).unwrap().is_empty());
    }
}
