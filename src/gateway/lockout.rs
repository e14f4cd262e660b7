//! Too many failed logins: a startup user from an address is locked out, and an address that tries many users.
//!
//! Nobody can lock somebody else out by their name alone: a lock holds for where the failures came from. What
//! fails through no fault of the client (the provider is away, a bound is reached) does not count.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures are counted for this long.
const WINDOW: Duration = Duration::from_secs(15 * 60);
/// The first lock; each further one within the window is twice as long, up to [`WINDOW`].
const FIRST_LOCK: Duration = Duration::from_secs(30);
/// Users and addresses that are remembered; beyond, the half that was quiet the longest is forgotten.
const MAX_REMEMBERED: usize = 20_000;

/// A startup user from an address; or the address alone.
type Key = (Option<String>, IpAddr);

/// Failed logins, as far as they are remembered.
#[derive(Debug)]
pub(super) struct Lockout {
    tallies: Mutex<HashMap<Key, Tally>>,
    /// Failures of one user from one address that lock it, and of one address with whatever users.
    most: (u32, u32),
}

#[derive(Debug, Clone, Copy)]
struct Tally {
    failures: u32,
    locks: u32,
    last: Instant,
    until: Option<Instant>,
}

impl Lockout {
    pub(super) fn new(most: (u32, u32)) -> Self {
        Self { tallies: Mutex::default(), most }
    }

    /// How long a user from an address is still locked out.
    pub(super) fn left(&self, user: &str, from: IpAddr, now: Instant) -> Option<Duration> {
        let tallies = self.lock();
        let until = keys(user, from).iter().filter_map(|key| tallies.get(key)?.until).max()?;
        Some(until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// A login failed. For how long that locks the user out, if it does.
    pub(super) fn failed(&self, user: &str, from: IpAddr, now: Instant) -> Option<Duration> {
        let mut tallies = self.lock();
        let [one, all] = keys(user, from);
        let locks =
            [(one, self.most.0), (all, self.most.1)].map(|(key, most)| count(&mut tallies, key, most, now));
        locks.into_iter().flatten().max()
    }

    /// A login succeeded: the user's failures from there are forgotten. Says whether there had been a lock.
    pub(super) fn succeeded(&self, user: &str, from: IpAddr) -> bool {
        let [one, _] = keys(user, from);
        self.lock().remove(&one).is_some_and(|tally| tally.locks > 0)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keys(user: &str, from: IpAddr) -> [Key; 2] {
    [(Some(user.to_owned()), from), (None, from)]
}

fn count(tallies: &mut HashMap<Key, Tally>, key: Key, most: u32, now: Instant) -> Option<Duration> {
    if tallies.len() >= MAX_REMEMBERED && !tallies.contains_key(&key) {
        // In bulk, so that a flood of addresses does not cost a look at all of them each time.
        let mut lasts: Vec<Instant> = tallies.values().map(|tally| tally.last).collect();
        let half = lasts.len() / 2;
        let (_, middle, _) = lasts.select_nth_unstable(half);
        let middle = *middle;
        let mut room = half;
        tallies.retain(|_, tally| {
            let goes = tally.last <= middle && room > 0;
            room -= usize::from(goes);
            !goes
        });
    }
    let fresh = Tally { failures: 0, locks: 0, last: now, until: None };
    let tally = tallies.entry(key).or_insert(fresh);
    if now.saturating_duration_since(tally.last) >= WINDOW {
        *tally = fresh;
    }
    tally.failures += 1;
    tally.last = now;
    if tally.failures < most {
        return None;
    }
    let lock = FIRST_LOCK.saturating_mul(1 << tally.locks.min(10)).min(WINDOW);
    (tally.failures, tally.locks, tally.until) = (0, tally.locks + 1, Some(now + lock));
    Some(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn fail(lockout: &Lockout, user: &str, from: IpAddr, times: u32, now: Instant) -> Vec<Option<u64>> {
        (0..times).map(|_| lockout.failed(user, from, now).map(|lock| lock.as_secs())).collect()
    }

    #[test]
    fn the_fifth_failure_locks_and_each_further_lock_is_twice_as_long() {
        let (lockout, now) = (Lockout::new((5, 100)), Instant::now());
        assert_eq!(fail(&lockout, "ann", HERE, 5, now), [None, None, None, None, Some(30)]);
        assert_eq!(lockout.left("ann", HERE, now), Some(FIRST_LOCK));
        assert_eq!(lockout.left("ann", HERE, now + FIRST_LOCK), None);
        assert_eq!(fail(&lockout, "ann", HERE, 5, now + FIRST_LOCK).pop(), Some(Some(60)));
        for _ in 0..20 {
            fail(&lockout, "ann", HERE, 5, now);
        }
        assert_eq!(fail(&lockout, "ann", HERE, 5, now).pop(), Some(Some(WINDOW.as_secs())));
    }

    #[test]
    fn nobody_is_locked_out_by_their_name_from_elsewhere() {
        let (lockout, now) = (Lockout::new((5, 100)), Instant::now());
        fail(&lockout, "ann", HERE, 50, now);
        assert!(lockout.left("ann", HERE, now).is_some());
        assert_eq!(lockout.left("ann", THERE, now), None);
        assert_eq!(lockout.left("bob", HERE, now), None);
    }

    #[test]
    fn an_address_that_tries_many_users_is_locked_out_as_a_whole() {
        let (lockout, now) = (Lockout::new((5, 100)), Instant::now());
        for at in 0..100 {
            fail(&lockout, &format!("user{at}"), HERE, 1, now);
        }
        assert!(lockout.left("anybody", HERE, now).is_some());
        assert_eq!(lockout.left("anybody", THERE, now), None);
    }

    #[test]
    fn success_and_time_make_failures_forgotten() {
        let (lockout, now) = (Lockout::new((5, 100)), Instant::now());
        fail(&lockout, "ann", HERE, 4, now);
        assert!(!lockout.succeeded("ann", HERE));
        assert_eq!(fail(&lockout, "ann", HERE, 4, now), [None; 4]);
        assert_eq!(fail(&lockout, "ann", HERE, 4, now + WINDOW), [None; 4]);
        assert_eq!(fail(&lockout, "ann", HERE, 1, now + WINDOW), [Some(30)]);
        assert!(lockout.succeeded("ann", HERE), "there had been a lock");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (lockout, now) = (Lockout::new((5, 100)), Instant::now());
        for at in 0..30_000_u32 {
            lockout.failed("x", IpAddr::from(at.to_be_bytes()), now);
        }
        assert!(lockout.lock().len() <= MAX_REMEMBERED);
    }
}
