//! What one caller may take: so many requests over time, so many searches, exports and tails at once.
//! One caller's program in a loop slows that caller down and nobody else.
//!
//! A caller is a person (iss, sub), whatever tokens they use. Beyond a bound the answer is 429 with
//! `Retry-After`. The shares of [`CALLERS_MAX`] callers are remembered; one more takes the place of
//! the one that was away longest.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::identity::Principal;

/// Requests a second, over time.
const RATE: f64 = 50.0;
/// Requests at once after a pause.
const BURST: f64 = 500.0;
/// Searches of one caller at work; more wait for a moment, then are refused.
const SEARCHES: usize = 4;
/// Exports of one caller at work.
const EXPORTS: usize = 2;
/// Tails of one caller.
const TAILS: usize = 4;
/// Exports at work, in all.
const EXPORTS_ALL: usize = 8;
/// Tails, in all.
const TAILS_ALL: usize = 128;
/// Callers remembered.
const CALLERS_MAX: u64 = 10_000;
/// A caller is forgotten after this time; by then the share is whole again.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// A search waits this long for the caller's other searches.
const SEARCH_WAIT: Duration = Duration::from_secs(2);
/// What a caller is told to wait when all places are taken.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// The shares of all callers.
pub(super) struct Limits {
    callers: Cache<(String, String), Arc<Share>>,
    exports: Arc<Semaphore>,
    tails: Arc<Semaphore>,
}

/// One caller's share.
pub(super) struct Share {
    bucket: Mutex<Bucket>,
    searches: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    tails: Arc<Semaphore>,
}

/// The places of something that goes on for long: given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Limits {
    pub(super) fn new() -> Self {
        Self {
            callers: Cache::builder().max_capacity(CALLERS_MAX).time_to_idle(FORGET_AFTER).build(),
            exports: Arc::new(Semaphore::new(EXPORTS_ALL)),
            tails: Arc::new(Semaphore::new(TAILS_ALL)),
        }
    }

    /// Counts a request of a caller, or refuses it.
    pub(super) fn admit(&self, who: &Principal, now: Instant) -> Result<Arc<Share>, Problem> {
        let key = (who.iss().to_owned(), who.sub().to_owned());
        let share = self.callers.get_with(key, || Arc::new(Share::new(now)));
        let taken = share.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now);
        match taken {
            Ok(()) => Ok(share),
            Err(wait) => Err(Problem::too_many("you ask too often. Wait, then ask again", wait)),
        }
    }

    /// A place for an export.
    pub(super) fn export(&self, share: &Share) -> Result<Place, Problem> {
        place(&share.exports, &self.exports, "exports")
    }

    /// A place for a tail.
    pub(super) fn tail(&self, share: &Share) -> Result<Place, Problem> {
        place(&share.tails, &self.tails, "tails")
    }
}

impl Share {
    fn new(now: Instant) -> Self {
        Self {
            bucket: Mutex::new(Bucket { level: BURST, at: now }),
            searches: Arc::new(Semaphore::new(SEARCHES)),
            exports: Arc::new(Semaphore::new(EXPORTS)),
            tails: Arc::new(Semaphore::new(TAILS)),
        }
    }

    /// A place for a search, as soon as one of the caller's is free. Cancel safe.
    pub(super) async fn search(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let busy =
            || Problem::too_many("your other searches are still at work. Try again in a moment", BUSY_WAIT);
        let place = Arc::clone(&self.searches).acquire_owned();
        tokio::time::timeout(SEARCH_WAIT, place).await.map_err(|_| busy())?.map_err(|_| busy())
    }
}

fn place(own: &Arc<Semaphore>, all: &Arc<Semaphore>, what: &str) -> Result<Place, Problem> {
    let own = Arc::clone(own).try_acquire_owned().map_err(|_| {
        Problem::too_many(format!("you have as many {what} open as you may. End one first"), BUSY_WAIT)
    })?;
    let all = Arc::clone(all)
        .try_acquire_owned()
        .map_err(|_| Problem::unavailable(format!("too many {what} at once. Try again in a moment")))?;
    Ok(Place { _own: own, _all: all })
}

/// A token bucket.
struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + since * RATE).min(BURST);
        self.at = now;
        if self.level >= 1.0 {
            self.level -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.level) / RATE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_and_what_is_beyond_is_told_when_to_come_again() {
        let start = Instant::now();
        let mut bucket = Bucket { level: BURST, at: start };
        assert_eq!((0..1_000).filter(|_| bucket.take(start).is_ok()).count(), 500);
        let wait = bucket.take(start).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(20), "{wait:?}");
        assert!(bucket.take(start + Duration::from_millis(20)).is_ok());
        let later = start + Duration::from_secs(2);
        assert_eq!((0..1_000).filter(|_| bucket.take(later).is_ok()).count(), 99);
        assert!(bucket.take(start).is_err(), "a clock that steps back gives nothing");
    }

    #[test]
    fn each_person_has_a_share_of_their_own() {
        let (limits, now) = (Limits::new(), Instant::now());
        let (ann, bob) = (Principal::for_test("ann", &[]), Principal::for_test("bob", &[]));
        while limits.admit(&ann, now).is_ok() {}
        let share = limits.admit(&bob, now).unwrap();
        let tails: Vec<Place> = (0..TAILS).map(|_| limits.tail(&share).unwrap()).collect();
        assert_eq!(limits.tail(&share).unwrap_err().status().as_u16(), 429);
        drop(tails);
        assert!(limits.tail(&share).is_ok());
    }
}
