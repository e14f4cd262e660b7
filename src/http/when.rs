//! Moments: now, and those that people write in `from` and `to`.

use std::time::{SystemTime, UNIX_EPOCH};

use pgwitness_index::record::Timestamp;
use pgwitness_index::search::parse_instant;

/// Reads a moment as the query language does: `2026-11-21T08:00:00Z`, `2026-11-21`, `today`,
/// `now-1h`, `-15m`.
pub(super) fn read(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    parse_instant(text.trim(), now).ok_or_else(|| {
        format!("{text:?} is not a time. Write 2026-11-21T08:00:00Z, 2026-11-21, today, now-1h or -15m")
    })
}

/// The wall clock.
pub(super) fn now() -> Timestamp {
    at(SystemTime::now())
}

/// A system time as the log counts it; times before 1970 are 1970.
pub(super) fn at(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use pgwitness_index::view::format_time;

    use super::*;

    #[test]
    fn the_time_range_is_written_as_in_a_query_and_nonsense_is_refused() {
        let now = Timestamp(1_795_251_600_000_000);
        for (text, expected) in [
            ("-15m", "2026-11-21T08:45:00.000000Z"),
            ("now-1h", "2026-11-21T08:00:00.000000Z"),
            ("today", "2026-11-21T00:00:00.000000Z"),
            ("2026-11-21T10:00:00.5+01:00", "2026-11-21T09:00:00.500000Z"),
        ] {
            assert_eq!(read(text, now).map(format_time), Ok(expected.to_owned()), "{text}");
        }
        for text in ["", "-", "-5y", "tomorrow", "2026-13-01", "-99999999999999999999d"] {
            assert!(read(text, now).is_err(), "{text}");
        }
    }
}
