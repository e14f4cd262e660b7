//! Refusals of strangers, recorded one by one while they are few, and counted when they come in a storm:
//! whoever can reach the port must not be able to fill the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgwitness_index::record::{Event, Outcome, Who};

use super::Gateway;

/// Refusals are counted over this long.
const WINDOW: Duration = Duration::from_secs(10);

/// Records of their own that one address gets in a window, for each kind of refusal.
const MAX_EACH: u64 = 20;

/// Records of their own that all get in a window.
const MAX_ALL: u64 = 100;

/// Addresses counted apart; the rest share one count.
const MAX_ADDRESSES: usize = 64;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    written: u64,
    /// The end of the window will be looked after.
    watched: bool,
    counts: HashMap<(Event, String), Count>,
}

#[derive(Debug, Default)]
struct Count {
    written: u64,
    left_out: u64,
    /// Of the last one that was left out.
    detail: String,
    reason: String,
}

impl Window {
    /// Whether a refusal gets a record of its own; else it is counted.
    fn admit(&mut self, event: Event, ip: &str, detail: &str, reason: &str) -> bool {
        let mut key = (event, ip.to_owned());
        if self.counts.len() >= MAX_ADDRESSES && !self.counts.contains_key(&key) {
            key.1.clear();
        }
        let count = self.counts.entry(key).or_default();
        if count.written < MAX_EACH && self.written < MAX_ALL {
            count.written += 1;
            self.written += 1;
            return true;
        }
        count.left_out += 1;
        detail.clone_into(&mut count.detail);
        reason.clone_into(&mut count.reason);
        false
    }
}

impl Refusals {
    fn lock(&self) -> std::sync::MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway {
    /// Records that somebody whom nobody knows yet was refused, or counts it.
    pub(super) fn refuse(self: &Arc<Self>, event: Event, ip: String, detail: String, reason: String) {
        let (admitted, watch) = {
            let mut window = self.refusals.lock();
            let admitted = window.admit(event, &ip, &detail, &reason);
            (admitted, !std::mem::replace(&mut window.watched, true))
        };
        if admitted {
            let who = Arc::new(Who { ip, ..Who::default() });
            self.note(event, Outcome::Denied, &who, detail, reason);
        }
        if watch {
            let gateway = self.clone();
            self.tracker.spawn(async move {
                tokio::select! {
                    () = gateway.stop.cancelled() => {}
                    () = tokio::time::sleep(WINDOW) => {}
                }
                gateway.end_window();
            });
        }
    }

    /// Writes down what was only counted.
    fn end_window(&self) {
        let window = std::mem::take(&mut *self.refusals.lock());
        for ((event, ip), count) in window.counts {
            if count.left_out == 0 {
                continue;
            }
            let who = Arc::new(Who { ip, ..Who::default() });
            let seconds = WINDOW.as_secs();
            let reason = format!(
                "{} more refusals within {seconds} s have no record of their own, the last: {}",
                count.left_out, count.reason
            );
            self.note(event, Outcome::Denied, &who, count.detail, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_from_many_addresses_costs_few_records_and_is_counted_in_full() {
        let mut window = Window::default();
        let mut written = 0;
        for number in 0..10_000_u64 {
            let ip = format!("10.0.{}.{}", number % 40, number % 7);
            written += u64::from(window.admit(Event::Denied, &ip, "startup", "bad"));
        }
        assert_eq!(written, MAX_ALL);
        assert!(window.counts.len() <= MAX_ADDRESSES + 1);
        assert_eq!(window.counts.values().map(|count| count.left_out).sum::<u64>(), 10_000 - written);
    }

    #[test]
    fn one_address_does_not_use_up_what_others_have() {
        let mut window = Window::default();
        let own = (0..1000).filter(|_| window.admit(Event::Cancel, "10.0.0.1", "", "")).count();
        assert_eq!(own as u64, MAX_EACH);
        assert!(window.admit(Event::Cancel, "10.0.0.2", "", ""));
        assert!(window.admit(Event::Denied, "10.0.0.1", "", ""));
    }
}
