//! How old a segment is, by times that can be believed.
//!
//! Clocks jump. One that ran ahead for a moment must not empty the log, and times from a clock that had not
//! been set yet must not make new records old. So a segment is as old as the newest record before its end, not
//! as the last; times before this program existed say nothing; and nothing at all is dropped while the clock
//! is further ahead of the newest record than a pause can explain ([`Trust`]).

use std::time::Duration;

use crate::journal::Partition;
use crate::record::Timestamp;

/// 2026-01-01: no record is older.
const EARLIEST_US: i64 = 1_767_225_600_000_000;

/// A clock that is this far ahead of the newest record is not believed at once.
const AHEAD_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Nor is one that moved by this much against the time that passed.
const DRIFT_MAX: Duration = Duration::from_secs(3_600);
/// After so long it is: whoever set it wrong had a day to see the warning.
const PROBATION: Duration = Duration::from_secs(86_400);

/// A complete segment and when its newest record was written, as far as that can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// The segment.
    pub partition: Partition,
    /// No record in it or before it is newer.
    pub newest: Timestamp,
}

/// The complete segments, as far as their age is known, in order.
pub fn ages(partitions: &[Partition]) -> Vec<Ages> {
    let (mut newest, mut all, mut unknown) = (None::<Timestamp>, Vec::new(), Vec::new());
    for partition in partitions.iter().filter(|partition| partition.end.is_some()) {
        newest = newest.max(partition.last.filter(|last| last.0 >= EARLIEST_US));
        let Some(newest) = newest else {
            unknown.push(*partition);
            continue;
        };
        // Those before were written before: they cannot be newer.
        all.extend(unknown.drain(..).map(|partition| Ages { partition, newest }));
        all.push(Ages { partition: *partition, newest });
    }
    all
}

/// Why the clock is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It is far ahead of the newest record.
    #[error(
        "the clock is {days} days ahead of the newest record. Nothing is dropped for a day, or until it is set right"
    )]
    Ahead {
        /// By so much.
        days: u64,
    },
    /// It jumped while we ran.
    #[error(
        "the clock moved by {seconds} seconds against the time that passed. Nothing is dropped for a day, or until it is set right"
    )]
    Jumped {
        /// By so much.
        seconds: u64,
    },
}

/// The newest time that the journal itself makes believable, of those in it in their order. Records written
/// under a clock that had just jumped prove nothing: only once they span a day is that clock believed.
pub fn newest(times: &[Timestamp]) -> Option<Timestamp> {
    let (mut newest, mut before_jump, mut after_jump) = (None::<Timestamp>, None, None::<Timestamp>);
    for time in times.iter().copied().filter(|time| time.0 >= EARLIEST_US) {
        if let Some(last) = newest.filter(|last| *last < time)
            && span(last, time) > AHEAD_MAX
        {
            // One jump upon another: what was believed before both still is.
            let doubted = after_jump.is_some_and(|after| span(after, last) < PROBATION);
            before_jump = before_jump.filter(|_| doubted).or(Some(last));
            after_jump = Some(time);
        }
        newest = newest.max(Some(time));
    }
    match (after_jump, newest) {
        (Some(after), Some(last)) if span(after, last) < PROBATION => before_jump,
        _ => newest,
    }
}

fn span(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0))
}

/// A time by the clock, and by another that nobody sets.
#[derive(Debug, Clone, Copy)]
struct Both {
    clock: Timestamp,
    up: Duration,
}

/// What is believed of the clock.
#[derive(Debug, Clone, Copy)]
pub struct Trust {
    began: Both,
    /// When it was last found to go right.
    good: Both,
    /// Since when it does not.
    jumped: Option<Duration>,
    /// The newest record when the process began.
    newest: Option<Timestamp>,
}

impl Trust {
    /// At the beginning of the process, when the clock that nobody sets stood at `up`.
    pub fn new(now: Timestamp, up: Duration, newest: Option<Timestamp>) -> Self {
        let began = Both { clock: now, up };
        Self { began, good: began, jumped: None, newest }
    }

    /// Whether the clock may be gone by.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&mut self, now: Timestamp, up: Duration) -> Result<(), Distrust> {
        let expected = self.good.clock.0.saturating_add(micros(up.saturating_sub(self.good.up)));
        let drift = Duration::from_micros(now.0.abs_diff(expected));
        if drift > DRIFT_MAX {
            let since = *self.jumped.get_or_insert(up);
            if up.saturating_sub(since) < PROBATION {
                return Err(Distrust::Jumped { seconds: drift.as_secs() });
            }
        }
        (self.good, self.jumped) = (Both { clock: now, up }, None);
        let Some(newest) = self.newest else { return Ok(()) };
        let ahead = self.began.clock.0.saturating_sub(newest.0);
        let ahead = Duration::from_micros(u64::try_from(ahead).unwrap_or(0));
        if ahead > AHEAD_MAX && up.saturating_sub(self.began.up) < PROBATION {
            return Err(Distrust::Ahead { days: ahead.as_secs() / 86_400 });
        }
        Ok(())
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Seq;

    const DAY_US: i64 = 86_400_000_000;
    const NOW: Timestamp = Timestamp(EARLIEST_US + 330 * DAY_US);

    fn hours(hours: u64) -> Duration {
        Duration::from_secs(hours * 3_600)
    }

    fn later(hours: i64) -> Timestamp {
        Timestamp(NOW.0 + hours * DAY_US / 24)
    }

    fn segments(lasts: &[i64]) -> Vec<Partition> {
        let partition = |(segment, last): (u64, &i64)| Partition {
            segment,
            first: Seq(segment * 10),
            end: Some(Seq(segment * 10 + 10)),
            after: None,
            last: Some(Timestamp(*last)),
            texts: None,
        };
        (1..).zip(lasts).map(partition).collect()
    }

    #[test]
    fn a_segment_is_as_old_as_the_newest_record_before_its_end() {
        let day = |day: i64| EARLIEST_US + day * DAY_US;
        let newest = |lasts: &[i64]| {
            ages(&segments(lasts))
                .iter()
                .map(|ages| (ages.newest.0 - EARLIEST_US) / DAY_US)
                .collect::<Vec<_>>()
        };
        assert_eq!(newest(&[day(1), day(2), day(3)]), [1, 2, 3]);
        // The clock ran ahead for a while, then was set back.
        assert_eq!(newest(&[day(1), day(900), day(3)]), [1, 900, 900]);
        // It was not set at all at first.
        assert_eq!(newest(&[0, 60_000_000, day(5)]), [5, 5, 5]);
        assert_eq!(newest(&[day(4), 7, day(5)]), [4, 4, 5]);
        // Nothing is known yet.
        assert_eq!(newest(&[0, 7]), [] as [i64; 0]);
    }

    #[test]
    fn the_segment_that_is_written_has_no_age() {
        let mut all = segments(&[EARLIEST_US, EARLIEST_US]);
        all[1].end = None;
        assert_eq!(ages(&all).len(), 1);
    }

    #[test]
    fn a_clock_far_ahead_of_the_newest_record_is_believed_after_a_day() {
        let mut trust = Trust::new(NOW, hours(5), Some(Timestamp(NOW.0 - 90 * DAY_US)));
        assert_eq!(trust.check(NOW, hours(5)), Err(Distrust::Ahead { days: 90 }));
        assert_eq!(trust.check(later(23), hours(28)), Err(Distrust::Ahead { days: 90 }));
        assert_eq!(trust.check(later(24), hours(29)), Ok(()));
    }

    #[test]
    fn a_weekend_without_records_is_no_reason_for_distrust_nor_is_an_empty_journal() {
        assert_eq!(
            Trust::new(NOW, hours(0), Some(Timestamp(NOW.0 - 3 * DAY_US))).check(NOW, hours(0)),
            Ok(())
        );
        assert_eq!(Trust::new(NOW, hours(0), Some(later(48))).check(NOW, hours(0)), Ok(()));
        assert_eq!(Trust::new(NOW, hours(0), None).check(NOW, hours(0)), Ok(()));
    }

    #[test]
    fn what_was_written_just_after_a_jump_of_the_clock_does_not_make_it_believable() {
        let day = |days: i64| Timestamp(EARLIEST_US + days * DAY_US);
        let hour = |days: i64, hours: i64| Timestamp(day(days).0 + hours * DAY_US / 24);
        for (times, expected) in [
            (vec![], None),
            (vec![day(1), day(2), day(5)], Some(day(5))),
            // The clock went ahead, and a restart comes after an hour of records.
            (vec![day(1), day(2), day(900), hour(900, 1)], Some(day(2))),
            (vec![day(1), day(2), day(900), hour(900, 1), day(2000)], Some(day(2))),
            // After a day it was right: nobody was there for so long.
            (vec![day(1), day(2), day(900), hour(900, 25)], Some(hour(900, 25))),
            (vec![day(1), day(900), hour(900, 25), day(2000)], Some(hour(900, 25))),
            // It was set back.
            (vec![day(1), day(900), day(2), day(3)], Some(day(1))),
            // It was not set at first.
            (vec![Timestamp(7), day(1)], Some(day(1))),
        ] {
            assert_eq!(newest(&times), expected, "{times:?}");
        }
    }

    #[test]
    fn a_clock_that_jumps_is_believed_once_it_is_back_or_after_a_day() {
        let mut trust = Trust::new(NOW, hours(0), None);
        assert_eq!(trust.check(later(1), hours(1)), Ok(()));
        for jump in [24 * 365, -24 * 365] {
            assert!(matches!(trust.check(later(2 + jump), hours(2)), Err(Distrust::Jumped { .. })));
        }
        assert_eq!(trust.check(later(3), hours(3)), Ok(()));
        assert!(trust.check(later(1_000), hours(4)).is_err());
        assert!(trust.check(later(1_023), hours(27)).is_err());
        assert_eq!(trust.check(later(1_024), hours(28)), Ok(()));
        assert_eq!(trust.check(later(1_025), hours(29)), Ok(()));
    }
}
