//! One look, and one order, at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use pgwitness_index::journal::{Archive, JournalError, Partition, Rewrite};
use pgwitness_index::proof::Published;
use pgwitness_index::record::{Completion, Entry, Outcome, Record, Seq, Timestamp, TxnOutcome, Who};
use pgwitness_index::retention::{
    Ages, Deed, Distrust, Holds, RetentionError, Survey, Trust, ages, drop_records, drop_texts, erase_values,
    find, newest, proven,
};
use pgwitness_index::view;

use super::desk::{Erase, NotErased, Order};
use super::status::Shared;
use super::{Forget, Parts};
use crate::clock;
use crate::config;
use crate::proving::Proofs;
use crate::recorder::{RecordError, Recorder};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(3600);
/// After a step that left something to do.
const SOON: Duration = Duration::from_secs(1);
/// The first look waits for the first head.
const FIRST: Duration = Duration::from_secs(2);
/// A segment is begun at least so often, so that what is in it comes of age.
const SEGMENT_SPAN_MAX: Duration = Duration::from_secs(86_400);
/// The share of `full` that a segment may span.
const SEGMENT_SHARE: u32 = 30;
/// Segments rewritten in one step.
const STEP: usize = 16;
/// How long a signed head may take to cover a record.
const SIGNED_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why a look ended early.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Retention(#[from] RetentionError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("could not record what is dropped: {0}")]
    Record(#[from] RecordError),
    #[error(transparent)]
    Clock(#[from] Distrust),
    #[error("no signed head covered the record of it within 30 seconds")]
    NotSigned,
    #[error("could not note that the search index has to forget: {0}")]
    Forget(std::io::Error),
    #[error("the gateway is stopping")]
    Stopping,
}

/// What is known of a segment under the holds that stand.
#[derive(Debug, Clone, Copy)]
struct Known {
    held: bool,
    /// Nothing is left to drop of its texts.
    bare: bool,
}

/// The thread's state.
pub(super) struct Work {
    config: config::Retention,
    holds: Holds,
    parts: Inner,
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    trust: Trust,
    began: Instant,
    known: BTreeMap<u64, Known>,
    /// Announced and not done yet.
    announced: BTreeMap<u64, Seq>,
    holds_told: bool,
    told: Option<String>,
}

struct Inner {
    storage: Arc<dyn pgwitness_index::storage::Storage>,
    archive: Archive,
    recorder: Recorder,
    proofs: Proofs,
    forget: Arc<dyn Forget>,
}

impl Work {
    pub(super) fn new(parts: Parts, holds: Holds, shared: Arc<Shared>, stop: Arc<AtomicBool>) -> Self {
        let Parts { config, storage, recorder, proofs, forget, newest: last, .. } = parts;
        // What cannot be read now is found again when it is looked at.
        let partitions = Partition::all(&storage).unwrap_or_default();
        let times: Vec<Timestamp> =
            partitions.iter().filter_map(|partition| partition.last).chain(last).collect();
        let newest = newest(&times);
        let archive = Archive::new(Arc::clone(&storage));
        Self {
            config,
            holds,
            parts: Inner { storage, archive, recorder, proofs, forget },
            shared,
            stop,
            trust: Trust::new(clock::now(), Duration::ZERO, newest),
            began: Instant::now(),
            known: BTreeMap::new(),
            announced: BTreeMap::new(),
            holds_told: false,
            told: None,
        }
    }

    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        let mut wait = FIRST.min(self.config.full);
        if let Err(error) = Rewrite::clear(&*self.parts.storage) {
            tracing::warn!(%error, "what an earlier process left of a rewritten file could not be removed");
        }
        loop {
            let next = clock::now().0.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX));
            self.shared.change(|seen| seen.next_run = Some(Timestamp(next)));
            let due = Instant::now() + wait;
            loop {
                match orders.recv_timeout(due.saturating_duration_since(Instant::now())) {
                    Ok(Order::Erase(erase, answer)) => _ = answer.try_send(self.erase(&erase)),
                    Ok(Order::Wake) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                if self.stopping() {
                    return;
                }
            }
            let looked = self.look();
            if self.stopping() {
                return;
            }
            wait = match looked {
                Ok(true) => SOON,
                _ => jittered(EVERY.min(self.config.full)),
            };
            self.tell(looked.err());
        }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Tells what stands against retention, once.
    fn tell(&mut self, trouble: Option<Trouble>) {
        let trouble = trouble.map(|trouble| trouble.to_string());
        match (&trouble, &self.told) {
            (Some(new), told) if told.as_ref() != Some(new) => {
                tracing::error!(trouble = %new, "nothing is dropped from the log");
            }
            (None, Some(_)) => tracing::info!("what is due is dropped again"),
            _ => {}
        }
        self.shared.change(|seen| {
            seen.trouble.clone_from(&trouble);
            seen.last_run = Some(clock::now());
        });
        self.told = trouble;
    }

    /// One step; whether there is more to do at once.
    fn look(&mut self) -> Result<bool, Trouble> {
        self.tell_holds()?;
        let now = clock::now();
        self.trust.check(now, self.began.elapsed())?;
        self.begin_segment(now)?;
        let ages = ages(&Partition::all(&self.parts.storage)?);
        let more = self.drop_due_texts(&ages, now)?;
        self.drop_due_records(&ages, now)?;
        self.see()?;
        Ok(more)
    }

    /// The holds that stand are a record whenever they are others than before.
    fn tell_holds(&mut self) -> Result<(), Trouble> {
        let now = self.holds.texts().join("\n");
        if self.holds_told || self.recorded_holds()? == now {
            return Ok(());
        }
        self.note(&Deed::Holds(self.holds.texts().to_vec()), Who::default())?;
        self.holds_told = true;
        if let Err(error) = self.parts.storage.replace(HOLDS, now.as_bytes()) {
            tracing::warn!(%error, "the legal holds will be recorded again at the next start");
        }
        Ok(())
    }

    /// The holds that were recorded last.
    fn recorded_holds(&self) -> Result<String, Trouble> {
        let failed = |source| JournalError::Io { action: "read", file: HOLDS.into(), source };
        let file = match self.parts.storage.read(HOLDS) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
            file => file.map_err(failed)?,
        };
        let mut bytes =
            vec![0; usize::try_from(file.len().map_err(failed)?).map_or(0, |len| len.min(HOLDS_MAX))];
        let read = file.read_at(0, &mut bytes).map_err(failed)?;
        bytes.truncate(read);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Completes the last segment once its first record is old enough, so that it comes of age.
    fn begin_segment(&self, now: Timestamp) -> Result<(), Trouble> {
        let Some(last) = Partition::all(&self.parts.storage)?.pop() else { return Ok(()) };
        let span = (self.config.full / SEGMENT_SHARE).min(SEGMENT_SPAN_MAX);
        let first = self.time_of(last.first)?;
        if first.is_some_and(|first| first < before(now, span)) {
            self.parts.recorder.begin_segment()?;
        }
        Ok(())
    }

    fn time_of(&self, seq: Seq) -> Result<Option<Timestamp>, Trouble> {
        let Some((at, index)) = self.parts.archive.find(seq)? else { return Ok(None) };
        Ok(match self.parts.archive.entry(at, index)?.1 {
            Entry::Record(record) => Some(record.time),
            _ => None,
        })
    }

    /// What is known of a segment, from a look at it if that is not old.
    fn survey(&mut self, partition: &Partition) -> Result<Survey, Trouble> {
        let survey = Survey::of(&self.parts.storage, &self.parts.archive, partition, &self.holds)?;
        if survey.undecided == 0 {
            let known = Known { held: survey.held_records > 0, bare: survey.texts == survey.held_texts };
            self.known.insert(partition.segment, known);
        }
        Ok(survey)
    }

    fn drop_due_texts(&mut self, ages: &[Ages], now: Timestamp) -> Result<bool, Trouble> {
        let published = self.published()?;
        let limit = before(now, self.config.full);
        let mut due = Vec::new();
        let bare = |known: &BTreeMap<u64, Known>, partition: &Partition| {
            partition.texts == Some(0) || known.get(&partition.segment).is_some_and(|known| known.bare)
        };
        for Ages { partition, newest } in ages {
            if *newest >= limit || bare(&self.known, partition) || proven(&published, partition).is_none() {
                continue;
            }
            let survey = self.survey(partition)?;
            if survey.texts > survey.held_texts {
                due.push((*partition, survey));
            }
            if due.len() >= STEP || self.stopping() {
                break;
            }
        }
        if due.is_empty() {
            return Ok(false);
        }
        for (partition, survey) in &due {
            if !self.announced.contains_key(&partition.segment) {
                let deed = Deed::Texts {
                    segment: partition.segment,
                    first: partition.first,
                    last: last_of(partition),
                    held: survey.held_texts,
                    rule: self.config.full_rule.clone(),
                };
                let by = self.note(&deed, Who::default())?;
                self.announced.insert(partition.segment, by);
            }
        }
        self.parts.forget.announce().map_err(Trouble::Forget)?;
        let done = self.drop_texts_of(&due);
        // Also after an error: some may be gone.
        self.parts.forget.forget();
        done.map(|()| due.len() >= STEP)
    }

    fn drop_texts_of(&mut self, due: &[(Partition, Survey)]) -> Result<(), Trouble> {
        for (partition, survey) in due {
            let Some(by) = self.announced.get(&partition.segment).copied() else { continue };
            let published = self.signed(by)?;
            let erased = drop_texts(&self.parts.storage, &published, partition, survey, by)?;
            self.announced.remove(&partition.segment);
            if survey.undecided == 0 {
                self.known.insert(partition.segment, Known { held: survey.held_records > 0, bare: true });
            }
            tracing::info!(
                segment = partition.segment,
                erased,
                held = survey.held_texts,
                "full texts were dropped"
            );
            if self.stopping() {
                return Err(Trouble::Stopping);
            }
        }
        Ok(())
    }

    fn drop_due_records(&mut self, ages: &[Ages], now: Timestamp) -> Result<(), Trouble> {
        let published = self.published()?;
        let limit = before(now, self.config.metadata);
        let mut due = Vec::new();
        for Ages { partition, newest } in ages {
            if *newest >= limit || proven(&published, partition).is_none() || due.len() >= STEP {
                break;
            }
            // What was held under the same holds is held.
            let held = match self.known.get(&partition.segment) {
                Some(known) => known.held,
                None => {
                    let survey = self.survey(partition)?;
                    survey.held_records + survey.undecided > 0
                }
            };
            if held {
                break;
            }
            due.push(*partition);
        }
        let Some(through) = due.last() else { return Ok(()) };
        let deed = Deed::Records {
            through: through.segment,
            last: last_of(through),
            rule: self.config.metadata_rule.clone(),
        };
        let by = self.note(&deed, Who::default())?;
        let published = self.signed(by)?;
        self.parts.forget.announce().map_err(Trouble::Forget)?;
        for partition in &due {
            drop_records(&self.parts.storage, &published, partition, by)?;
            self.known.remove(&partition.segment);
            tracing::info!(segment = partition.segment, "records were dropped");
        }
        self.parts.forget.forget();
        Ok(())
    }

    /// Looks at what there is now, for the status.
    fn see(&mut self) -> Result<(), Trouble> {
        let all = Partition::all(&self.parts.storage)?;
        let whole = |partition: &&Partition| {
            let known = self.known.get(&partition.segment).is_some_and(|known| known.bare);
            !known && partition.texts != Some(0)
        };
        let oldest_full = all.iter().find(whole).map(|partition| partition.first);
        let oldest = all.first().map(|partition| partition.first);
        let held = self.known.values().filter(|known| known.held).count() as u64;
        let (oldest_full, oldest) = (
            oldest_full.map(|seq| self.time_of(seq)).transpose()?.flatten(),
            oldest.map(|seq| self.time_of(seq)).transpose()?.flatten(),
        );
        self.shared.change(|seen| {
            (seen.oldest_full, seen.oldest, seen.held_segments) = (oldest_full, oldest, held);
        });
        Ok(())
    }

    fn published(&self) -> Result<Arc<Published>, Trouble> {
        self.parts.proofs.reader().published().ok_or(Trouble::NotSigned)
    }

    /// Waits until a record is signed.
    fn signed(&self, by: Seq) -> Result<Arc<Published>, Trouble> {
        self.wait_for(|published| published.next_seq > by.0)
    }

    fn wait_for(&self, is_it: impl Fn(&Published) -> bool) -> Result<Arc<Published>, Trouble> {
        let until = Instant::now() + SIGNED_WITHIN;
        loop {
            if let Some(published) =
                self.parts.proofs.reader().published().filter(|published| is_it(published))
            {
                return Ok(published);
            }
            if self.stopping() {
                return Err(Trouble::Stopping);
            }
            if Instant::now() >= until {
                return Err(Trouble::NotSigned);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn note(&self, deed: &Deed, who: Who) -> Result<Seq, Trouble> {
        let time = clock::now();
        let record = Record {
            id: clock::new_id(time),
            time,
            event: deed.event(),
            who: Arc::new(who),
            sql: None,
            shape: None,
            params: deed.params(),
            detail: deed.sentence(),
            done: Some(Completion::new(Outcome::Ok, TxnOutcome::None)),
        };
        Ok(self.parts.recorder.note(record)?)
    }

    fn erase(&mut self, erase: &Erase) -> Result<Seq, NotErased> {
        self.try_erase(erase).unwrap_or_else(|trouble| {
            tracing::error!(%trouble, seq = erase.seq.0, "could not erase values of a record");
            Err(match trouble {
                Trouble::NotSigned | Trouble::Stopping => NotErased::Busy(trouble.to_string()),
                _ => NotErased::Failed,
            })
        })
    }

    /// The outer error is ours, the inner is told to whoever asks.
    fn try_erase(&mut self, erase: &Erase) -> Result<Result<Seq, NotErased>, Trouble> {
        let found = match find(&self.parts.storage, erase.seq) {
            Err(RetentionError::NoRecord(_)) => return Ok(Err(NotErased::NoRecord)),
            found => found?,
        };
        if !found.ended {
            return Ok(Err(NotErased::Running));
        }
        let view = view::merged(&found.record, erase.seq, None, None);
        if self.holds.hold(&view) {
            return Ok(Err(NotErased::Held));
        }
        let values = erase.values.in_entry(&Entry::Record(Box::new(found.record)));
        if values.is_empty() {
            return Ok(Err(NotErased::Nothing));
        }
        self.parts.recorder.begin_segment()?;
        let deed = Deed::Values { seq: erase.seq, values, reason: erase.reason.clone() };
        let by = self.note(&deed, erase.who.clone())?;
        let partitions = Partition::all(&self.parts.storage)?;
        let own: Vec<&Partition> =
            partitions.iter().filter(|partition| found.segments.contains(&partition.segment)).collect();
        let covered = |published: &Published| {
            published.next_seq > by.0 && own.iter().all(|partition| proven(published, partition).is_some())
        };
        let published = self.wait_for(covered)?;
        self.parts.forget.announce().map_err(Trouble::Forget)?;
        let erased = own.iter().try_for_each(|partition| {
            erase_values(&self.parts.storage, &published, partition, erase.seq, values, by).map(|_| ())
        });
        self.parts.forget.forget();
        erased?;
        Ok(Ok(by))
    }
}

/// Where the holds that were recorded last are remembered.
const HOLDS: &str = "holds";
/// Most bytes of that; longer ones are recorded at each start.
const HOLDS_MAX: usize = 1 << 20;

fn last_of(partition: &Partition) -> Seq {
    Seq(partition.end.map_or(0, |end| end.0.saturating_sub(1)))
}

fn before(now: Timestamp, age: Duration) -> Timestamp {
    Timestamp(now.0.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)))
}

/// A tenth more or less, so that many gateways do not work at one time.
fn jittered(every: Duration) -> Duration {
    every.mul_f64(0.9 + 0.2 * rand::random::<f64>())
}
