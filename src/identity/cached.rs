//! [`Cached`]: one value fetched from elsewhere, by one caller at a time.
//!
//! Callers who wait while a fetch fails share its failure: a provider that hangs costs each of
//! them one time-out, never one after the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::LoginError;

/// After a failure, this long everybody gets the same answer.
const FAILURE_LIFE: Duration = Duration::from_secs(1);

pub(super) struct Cached<T> {
    /// The turn to fetch.
    turn: Semaphore,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Option<(Arc<T>, Instant)>,
    tried: Option<Instant>,
    failed: Option<(LoginError, Instant)>,
}

/// How long a value may be used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    /// After this it is fetched again.
    pub(super) fresh: Duration,
    /// If that fails, it is used until then.
    pub(super) stale: Duration,
}

impl<T> Cached<T> {
    pub(super) fn new() -> Self {
        Self { turn: Semaphore::new(1), state: Mutex::new(State { value: None, tried: None, failed: None }) }
    }

    /// The value, fetched if there is none or it is old. Cancel-safe: a dropped caller gives the
    /// turn to the next.
    pub(super) async fn get<F>(&self, life: Life, fetch: impl FnOnce() -> F) -> Result<Arc<T>, LoginError>
    where
        F: Future<Output = Result<T, LoginError>>,
    {
        let asked = Instant::now();
        if let Some(value) = self.lock().younger_than(life.fresh) {
            return Ok(value);
        }
        let _turn = match self.turn.try_acquire() {
            Ok(turn) => turn,
            Err(_) => {
                // Somebody is fetching: an old value now is better than a new one later.
                if let Some(value) = self.lock().younger_than(life.stale) {
                    return Ok(value);
                }
                self.turn().await?
            }
        };
        {
            let state = self.lock();
            if let Some(value) = state.younger_than(life.fresh) {
                return Ok(value);
            }
            if let Some(error) = state.failed_since(asked) {
                return state.younger_than(life.stale).ok_or(error);
            }
        }
        match self.fetch(fetch).await {
            Ok(value) => Ok(value),
            Err(error) => self.lock().younger_than(life.stale).ok_or(error),
        }
    }

    /// A value newer than `seen`, fetched unless something was tried less than `gap` ago. `None`:
    /// there is no newer one, ask again later.
    pub(super) async fn newer<F>(
        &self,
        seen: &Arc<T>,
        gap: Duration,
        fetch: impl FnOnce() -> F,
    ) -> Result<Option<Arc<T>>, LoginError>
    where
        F: Future<Output = Result<T, LoginError>>,
    {
        let _turn = self.turn().await?;
        {
            let state = self.lock();
            if let Some((value, _)) = &state.value
                && !Arc::ptr_eq(value, seen)
            {
                return Ok(Some(Arc::clone(value)));
            }
            if state.tried.is_some_and(|tried| tried.elapsed() < gap) {
                return Ok(None);
            }
        }
        self.fetch(fetch).await.map(Some)
    }

    /// How long until [`Cached::newer`] would fetch again.
    pub(super) fn newer_in(&self, gap: Duration) -> Duration {
        self.lock().tried.map_or(Duration::ZERO, |tried| gap.saturating_sub(tried.elapsed()))
    }

    async fn fetch<F>(&self, fetch: impl FnOnce() -> F) -> Result<Arc<T>, LoginError>
    where
        F: Future<Output = Result<T, LoginError>>,
    {
        self.lock().tried = Some(Instant::now());
        let fetched = fetch().await;
        let mut state = self.lock();
        match fetched {
            Ok(value) => {
                let value = Arc::new(value);
                state.value = Some((Arc::clone(&value), Instant::now()));
                state.failed = None;
                Ok(value)
            }
            Err(error) => {
                state.failed = Some((error.clone(), Instant::now()));
                Err(error)
            }
        }
    }

    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, LoginError> {
        self.turn.acquire().await.map_err(|_| LoginError::Canceled)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn younger_than(&self, age: Duration) -> Option<Arc<T>> {
        self.value.as_ref().filter(|(_, at)| at.elapsed() < age).map(|(value, _)| Arc::clone(value))
    }

    fn failed_since(&self, asked: Instant) -> Option<LoginError> {
        self.failed
            .as_ref()
            .filter(|(_, at)| *at >= asked || at.elapsed() < FAILURE_LIFE)
            .map(|(error, _)| error.clone())
    }
}
