//! How many logins may wait for somebody, in all and of one address, and how many one address may begin.
//!
//! Each login that waits costs the provider questions, us memory and a person attention: whoever can reach the port
//! must not be able to take all of it, or the places of everybody else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::LoginError;

/// Beginnings of one address are counted over this long.
const WINDOW: Duration = Duration::from_secs(60);
/// So many times the logins that may wait of one address it may begin in that time.
const BEGUN_PER_PLACE: usize = 6;
/// Addresses remembered; beyond, those without a waiting login whose window is over are forgotten.
const MAX_ADDRESSES: usize = 10_000;

/// The places. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    in_all: usize,
    of_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    of: HashMap<IpAddr, Share>,
}

/// What one address has.
#[derive(Debug)]
struct Share {
    waiting: usize,
    begun: usize,
    since: Instant,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    address: IpAddr,
}

impl Places {
    /// So many in all, and of one address.
    pub(super) fn new(in_all: usize, of_address: usize) -> Self {
        Self(Arc::new(Inner { in_all, of_address, taken: Mutex::default() }))
    }

    /// A place for a login that an address asks for.
    pub(super) fn take(&self, address: IpAddr, now: Instant) -> Result<Place, LoginError> {
        let mut taken = self.lock();
        if taken.in_all >= self.0.in_all {
            return Err(LoginError::TooMany { what: "logins waiting for approval" });
        }
        if taken.of.len() >= MAX_ADDRESSES && !taken.of.contains_key(&address) {
            taken
                .of
                .retain(|_, share| share.waiting > 0 || now.saturating_duration_since(share.since) < WINDOW);
            if taken.of.len() >= MAX_ADDRESSES {
                return Err(LoginError::TooMany { what: "logins waiting for approval" });
            }
        }
        let share = taken.of.entry(address).or_insert(Share { waiting: 0, begun: 0, since: now });
        if now.saturating_duration_since(share.since) >= WINDOW {
            (share.begun, share.since) = (0, now);
        }
        if share.waiting >= self.0.of_address
            || share.begun >= self.0.of_address.saturating_mul(BEGUN_PER_PLACE)
        {
            return Err(LoginError::TooMany { what: "logins waiting for approval from this address" });
        }
        share.waiting += 1;
        share.begun += 1;
        taken.in_all += 1;
        Ok(Place { places: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.in_all = taken.in_all.saturating_sub(1);
        if let Some(share) = taken.of.get_mut(&self.address) {
            share.waiting = share.waiting.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn one_address_does_not_take_the_places_of_others_and_gives_its_own_back() {
        let (places, now) = (Places::new(5, 2), Instant::now());
        let mut own = vec![places.take(HERE, now).unwrap(), places.take(HERE, now).unwrap()];
        let refused = places.take(HERE, now).unwrap_err();
        assert_eq!(refused, LoginError::TooMany { what: "logins waiting for approval from this address" });
        let other = places.take(THERE, now).unwrap();
        own.pop();
        own.push(places.take(HERE, now).unwrap());
        drop((own, other));
        assert_eq!(places.lock().in_all, 0);
    }

    #[test]
    fn all_together_have_no_more_than_there_are() {
        let (places, now) = (Places::new(3, 2), Instant::now());
        let _taken = [HERE, THERE, HERE].map(|address| places.take(address, now).unwrap());
        assert_eq!(
            places.take(THERE, now).unwrap_err(),
            LoginError::TooMany { what: "logins waiting for approval" }
        );
    }

    #[test]
    fn whoever_begins_and_leaves_again_and_again_is_stopped_for_a_minute() {
        let (places, now) = (Places::new(100, 2), Instant::now());
        assert_eq!((0..100).filter(|_| places.take(HERE, now).is_ok()).count(), 2 * BEGUN_PER_PLACE);
        assert!(places.take(THERE, now).is_ok());
        assert!(places.take(HERE, now + WINDOW).is_ok());
    }

    #[test]
    fn addresses_remembered_are_bounded_and_the_idle_make_room() {
        let (places, now) = (Places::new(100_000, 2), Instant::now());
        let address = |at: usize| IpAddr::from(u32::try_from(at).unwrap().to_be_bytes());
        for at in 0..MAX_ADDRESSES {
            places.take(address(at), now).unwrap();
        }
        assert!(places.take(address(MAX_ADDRESSES), now).is_err());
        assert!(places.take(address(MAX_ADDRESSES), now + WINDOW).is_ok());
        assert_eq!(places.lock().of.len(), 1);
    }
}
