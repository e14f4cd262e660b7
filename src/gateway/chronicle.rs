//! One session's part of the log: turns what is asked into records and what is answered into ends.
//!
//! Records gather in a batch that the session admits before it forwards the bytes they came from.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgwitness_index::record::{
    Completion, Event as RecordEvent, Outcome, Param, Record, Seq, Sql, TxnOutcome, Who,
};
use pgwitness_protocol::backend::Status;
use pgwitness_protocol::conversation::{Alters, Conversation, End, Event, ExecId, Execution, How, Slice};
use pgwitness_protocol::frontend::{FunctionCall, Value};
use rustc_hash::FxBuildHasher;

use super::Gateway;
use super::databases::{Catalog, Sight};
use super::params;
use super::plans::Plans;
use super::reading::{Context, Reading, Readings, Redefines};
use super::state::{Settings, State};
use super::transaction::{Ends, Transaction};
use super::walsender;
use super::wanted::one_line;
use crate::catalog::{Schema, quoted};
use crate::clock;
use crate::recorder::Batch;
use crate::sql::{Effect, Key};

/// Text and parameters of one batch, bytes; beyond, texts are cut and marked. Below the journal's
/// own limit of one write.
const MAX_BATCH: usize = 32 << 20;

/// Parameters of one record, bytes; beyond, a value is cut and marked.
const MAX_PARAM: usize = 1 << 20;

/// Readings of prepared statements remembered by the session itself, and the longest such text, bytes.
const MAX_RECENT: usize = 1024;
const MAX_RECENT_TEXT: usize = 4096;

/// Readings that a session finds by comparing keys, and the longest such key, bytes.
const MAX_MEMO: usize = 8;
const MAX_MEMO_KEY: usize = 1024;

/// How a text ends that is not kept whole.
const CUT: &str = " bytes, cut]";

/// The catalog's age is asked for this often; what is told of it is heard at once.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// An execution between its record and its end.
#[derive(Debug)]
struct Running {
    seq: Seq,
    since: Instant,
    asked: Asked,
}

/// An execution of the batch.
#[derive(Debug)]
struct Asked {
    exec: ExecId,
    reading: Arc<Reading>,
    /// Its text held a password: the server's error may repeat it.
    secret: bool,
    /// Its text, if it is to be read again.
    unread: Option<Sql>,
}

/// A prepared text and its reading.
type Prepared = (Arc<[u8]>, Arc<Reading>);

/// Whether the server may keep a statement's plan from one execution to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Kept,
    Once,
}

/// Instead of an error that may repeat a password.
const WITHHELD: &str = "[withheld: the statement holds a password]";

/// See the module's description.
pub(super) struct Chronicle {
    gateway: Arc<Gateway>,
    who: Arc<Who>,
    /// What the database takes for the program's name, and the name it stands for.
    label: Option<(String, String)>,
    state: State,
    /// Who logged in, for loads of the catalog: the one who certainly can.
    login_role: String,
    catalog: Arc<Catalog>,
    sight: Sight,
    /// What the open transaction does to the catalog: others see it when it has ended.
    redefines: Redefines,
    /// What the catalog's news were when it was last looked at, and when that was.
    looked: Option<(u64, Instant)>,
    context: Context,
    /// Readings of prepared texts under the present context, by address; the `Arc` keeps the
    /// address from being used again.
    recent: HashMap<usize, Prepared, FxBuildHasher>,
    plans: Plans,
    /// Readings under the present context by the keys of their statements, newest last.
    memo: VecDeque<(Box<[u8]>, Arc<Reading>)>,
    batch: Batch,
    batch_bytes: usize,
    /// Executions of the batch, in order of its records.
    asked: Vec<Asked>,
    /// One of them names a relation that the catalog does not know.
    missed: bool,
    /// Executions asked since the last look that alter what later messages mean.
    altering: Vec<(ExecId, Alters)>,
    /// Admitted and not ended, in the order they were asked: most end in it.
    running: VecDeque<(ExecId, Running)>,
    next: u64,
    transaction: Transaction,
    /// Empty but while answers are written down.
    ends: Ends,
    failed: bool,
}

impl Chronicle {
    pub(super) fn new(
        gateway: &Arc<Gateway>,
        who: Who,
        label: Option<String>,
        asked: &[(String, String)],
        reported: &[(String, String)],
        catalog: Arc<Catalog>,
    ) -> Self {
        let sight = catalog.sight();
        let settings = Settings::at_login(&who.role, asked, reported, sight.schema.as_deref());
        let context = Context::new((&who.upstream, &who.db), sight.clone(), &settings);
        let mut chronicle = Self {
            gateway: gateway.clone(),
            label: label.map(|label| (label, who.app.clone())),
            login_role: who.role.clone(),
            who: Arc::new(who),
            state: State::new(settings),
            catalog,
            sight,
            redefines: Redefines::No,
            looked: None,
            context,
            recent: HashMap::default(),
            plans: Plans::default(),
            memo: VecDeque::new(),
            batch: Batch::default(),
            batch_bytes: 0,
            missed: false,
            asked: Vec::new(),
            altering: Vec::new(),
            running: VecDeque::new(),
            next: 0,
            transaction: Transaction::default(),
            ends: Ends::default(),
            failed: false,
        };
        for (name, value) in reported {
            chronicle.reported(name, value);
        }
        chronicle.settings_changed();
        chronicle
    }

    pub(super) fn who(&self) -> &Arc<Who> {
        &self.who
    }

    pub(super) fn login_role(&self) -> &str {
        &self.login_role
    }

    /// Whether there may be news of the catalog: something was told, or it is time to ask for its age.
    pub(super) fn should_look_at_catalog(&mut self, now: Instant) -> bool {
        let news = self.catalog.news();
        let looked = self.looked.filter(|(known, at)| *known == news && now - *at < LOOK_EVERY);
        if looked.is_some() {
            return false;
        }
        self.looked = Some((news, now));
        true
    }

    /// Whether the catalog should be loaded before the next statement is read.
    pub(super) fn stale_catalog(&self) -> Option<Arc<Catalog>> {
        self.catalog.is_stale().then(|| self.catalog.clone())
    }

    /// Takes up a catalog that was loaded since.
    pub(super) fn look_at_catalog(&mut self) {
        let sight = self.catalog.sight();
        if !sight.is(&self.sight) {
            self.sight = sight;
            self.settings_changed();
        }
    }

    fn settings_changed(&mut self) {
        let settings = self.state.settings();
        let place = (self.who.upstream.as_str(), self.who.db.as_str());
        self.context = Context::new(place, self.sight.clone(), settings);
        self.recent.clear();
        self.memo.clear();
        let role = settings.role.as_deref().unwrap_or("");
        let path = settings.search_path.as_deref().unwrap_or("");
        if self.who.role != role || self.who.search_path != path {
            let who = Who { role: role.into(), search_path: path.into(), ..(*self.who).clone() };
            self.who = Arc::new(who);
        }
    }

    fn reported(&mut self, name: &str, value: &str) {
        if name == "application_name" && self.who.app != value {
            let app = match &self.label {
                Some((label, own)) if label == value => own.clone(),
                _ => one_line(value),
            };
            self.who = Arc::new(Who { app, ..(*self.who).clone() });
        }
        if self.state.reported(name, value) {
            self.settings_changed();
        }
    }

    /// The statements of a query string, each with a record in the batch.
    pub(super) fn query(&mut self, text: &[u8], conversation: &Conversation) -> Vec<Slice> {
        let scan = self.context.scan(text);
        let single = scan.len() == 1;
        let (mut slices, mut characters, mut counted) = (Vec::with_capacity(scan.len()), 0, 0);
        for (range, key) in scan.iter() {
            let statement = text.get(range.clone()).unwrap_or_default();
            if !single {
                characters += count_characters(text.get(counted..range.start).unwrap_or_default());
                counted = range.start;
            }
            let reading = self.read(statement, key);
            let exec =
                self.add_sql(Sql::Once(statement.into()), reading, Vec::new(), String::new(), conversation);
            slices.push(Slice { exec, start: characters });
        }
        slices
    }

    /// Reads a statement. What a session asks again and again it finds without a digest.
    fn read(&mut self, text: &[u8], key: Key<'_>) -> Arc<Reading> {
        if let Some((_, reading)) = self.memo.iter().find(|(known, _)| **known == *key.as_bytes()) {
            return reading.clone();
        }
        let reading = self.gateway.readings.read(text, key, &self.context);
        if key.as_bytes().len() <= MAX_MEMO_KEY {
            if self.memo.len() >= MAX_MEMO {
                self.memo.pop_front();
            }
            self.memo.push_back((key.as_bytes().into(), reading.clone()));
        }
        reading
    }

    /// A command of the replication protocol.
    pub(super) fn replication(&mut self, text: &[u8], command: &walsender::Command) -> ExecId {
        self.add(Some(Sql::Once(text.into())), Readings::replication(command), Vec::new(), String::new())
    }

    /// The first run of a portal: its execution, or none for an empty statement.
    pub(super) fn execution(&mut self, execution: &Execution, conversation: &Conversation) -> Option<ExecId> {
        let Some(prepared) = &execution.prepared else {
            let portal = String::from_utf8_lossy(&execution.portal).into_owned();
            // Made by SQL: a cursor has a portal of its name, PREPARE a statement.
            let statement = execution.bind().map(|bind| String::from_utf8_lossy(bind.statement).into_owned());
            let known = match &statement {
                Some(name) => self.read_named(name),
                None => self.state.cursor(&portal).cloned(),
            };
            let note = "executed by a name that was not seen being made";
            let reading = known.unwrap_or_else(|| Readings::unknown("EXECUTE", note));
            return Some(self.add(None, reading, Vec::new(), statement.unwrap_or(portal)));
        };
        let plan = if prepared.name.is_empty() { Plan::Once } else { Plan::Kept };
        let reading = self.read_prepared(&prepared.text, plan)?;
        if self.gateway.accuracy.compare(&reading, &prepared.origins, &self.context) {
            self.catalog.changed();
        }
        let params = execution.bind().map(|bind| self.params(bind.values(), &prepared.types));
        let name = String::from_utf8_lossy(&prepared.name).into_owned();
        let sql = Sql::Shared(prepared.text.clone());
        Some(self.add_sql(sql, reading, params.unwrap_or_default(), name, conversation))
    }

    /// A statement that SQL prepared, as it is read now: the server finds what its names mean when it runs.
    fn read_named(&mut self, name: &str) -> Option<Arc<Reading>> {
        let prepared = self.state.prepared(name)?.clone();
        let again = prepared.inner_text().and_then(|text| self.read_prepared(text, Plan::Kept));
        Some(again.unwrap_or_else(|| {
            Arc::new(
                prepared.inner().doubted("read when it was prepared, and too long to keep", prepared.inner()),
            )
        }))
    }

    fn read_prepared(&mut self, text: &Arc<[u8]>, plan: Plan) -> Option<Arc<Reading>> {
        if let Some((_, reading)) = self.recent.get(&text.as_ptr().addr()) {
            return Some(reading.clone());
        }
        let scan = self.context.scan(text);
        let (_, key) = scan.iter().next()?;
        let mut reading = self.read(text, key);
        if text.len() <= MAX_RECENT_TEXT {
            if plan == Plan::Kept {
                reading = self.plans.follow(text, reading, &self.context);
            }
            if self.recent.len() >= MAX_RECENT {
                self.recent.clear();
            }
            self.recent.insert(text.as_ptr().addr(), (text.clone(), reading.clone()));
        }
        Some(reading)
    }

    /// A function called by its OID.
    pub(super) fn call(&mut self, call: &FunctionCall<'_>) -> ExecId {
        let oid = call.function;
        let (name, types) = self.sight.schema.as_ref().and_then(|schema| called(schema, oid)).unzip();
        let reading = Readings::called(name.as_deref());
        let detail = match name {
            Some(name) => format!("{name} (function {oid})"),
            None => format!("function {oid}"),
        };
        let params = self.params(call.values.iter().copied(), &types.unwrap_or_default());
        self.add(None, reading, params, detail)
    }

    fn params<'v>(&mut self, values: impl Iterator<Item = Value<'v>>, types: &[u32]) -> Vec<Param> {
        let capture = &self.gateway.config.capture;
        if !capture.keeps_parameters() {
            return Vec::new();
        }
        let decode = |(index, value): (usize, Value<'_>)| {
            let length = value.bytes.map_or(0, <[u8]>::len);
            if length > MAX_PARAM || self.batch_bytes + length > MAX_BATCH {
                return Param::Text(format!("[{length} bytes, not kept]"));
            }
            self.batch_bytes += length;
            capture.parameter(params::decode(value, types.get(index).copied().unwrap_or(0)))
        };
        values.enumerate().map(decode).collect()
    }

    /// An execution of which the text is known. What it names may have been made by SQL or, of
    /// statements, by the protocol: they share their names.
    fn add_sql(
        &mut self,
        sql: Sql,
        reading: Arc<Reading>,
        params: Vec<Param>,
        detail: String,
        conversation: &Conversation,
    ) -> ExecId {
        let reading = match &reading.effect {
            Effect::ExecutePrepared { name } => {
                let prepared = conversation.statement(name.as_bytes()).map(|prepared| prepared.text.clone());
                let known = prepared.and_then(|text| self.read_prepared(&text, Plan::Kept));
                Readings::leaning(&reading, known.or_else(|| self.read_named(name)).as_ref())
            }
            Effect::Fetch { cursor } => Readings::leaning(&reading, self.state.cursor(cursor)),
            _ => reading,
        };
        self.add(Some(sql), reading, params, detail)
    }

    fn add(&mut self, sql: Option<Sql>, reading: Arc<Reading>, params: Vec<Param>, detail: String) -> ExecId {
        self.missed |= reading.misses_a_name();
        let redacted = sql.as_ref().and_then(|sql| self.context.redact(sql.as_bytes()));
        let secret = redacted.is_some();
        let sql = redacted.map(|bytes| Sql::Once(bytes.into())).or(sql);
        let unread = sql.clone().filter(|_| reading.misses_a_name());
        let sql = sql.and_then(|sql| {
            self.gateway.config.capture.text(sql, |text| self.context.without_constants(text))
        });
        let time = clock::now();
        let record = Record {
            id: clock::new_id(time),
            time,
            event: RecordEvent::Query,
            who: self.who.clone(),
            sql: sql.map(|sql| self.cut(sql)),
            shape: Some(reading.shape.clone()),
            params,
            detail,
            done: None,
        };
        self.batch.push(record);
        let exec = ExecId(self.next);
        self.next += 1;
        self.altering.extend(reading.alters().map(|alters| (exec, alters)));
        let changed = self.state.asked(&reading);
        self.asked.push(Asked { exec, reading, secret, unread });
        if changed {
            self.settings_changed();
        }
        exec
    }

    fn cut(&mut self, sql: Sql) -> Sql {
        let length = sql.as_bytes().len();
        let limit = self.gateway.config.capture.max_sql.min(MAX_BATCH.saturating_sub(self.batch_bytes));
        if length <= limit {
            self.batch_bytes += length;
            return sql;
        }
        let mut kept = sql.as_bytes().get(..limit).unwrap_or_default().to_vec();
        // Never half a character.
        while std::str::from_utf8(&kept).is_err_and(|e| e.error_len().is_none()) {
            kept.pop();
        }
        self.batch_bytes += kept.len();
        kept.extend_from_slice(format!(" …[{length}{CUT}").as_bytes());
        Sql::Once(kept.into())
    }

    /// Whether a statement of the batch names a relation that the catalog does not know; it is told of it.
    pub(super) fn has_missed(&mut self) -> bool {
        let missed = std::mem::take(&mut self.missed);
        if missed {
            self.catalog.misses_a_name();
        }
        missed
    }

    /// Reads those statements of the batch again, by a catalog that was loaded since.
    pub(super) fn read_again(&mut self) {
        for at in 0..self.asked.len() {
            let again =
                |asked: &&Asked| !asked.secret && asked.reading.misses_a_name() && asked.reading.is_plain();
            let Some(text) = self.asked.get(at).filter(again).and_then(|asked| asked.unread.clone()) else {
                continue;
            };
            let scan = self.context.scan(text.as_bytes());
            let Some((_, key)) = scan.iter().next() else { continue };
            let reading = self.read(text.as_bytes(), key);
            if let (Some(record), Some(asked)) = (self.batch.get_mut(at), self.asked.get_mut(at)) {
                record.shape = Some(reading.shape.clone());
                asked.reading = reading;
            }
        }
    }

    /// What the conversation must know of the executions just added.
    pub(super) fn take_altering(&mut self) -> std::vec::Drain<'_, (ExecId, Alters)> {
        self.altering.drain(..)
    }

    /// The records that must be admitted before anything is forwarded.
    pub(super) fn batch(&mut self) -> &mut Batch {
        self.batch_bytes = 0;
        &mut self.batch
    }

    /// The batch stands in the journal from `first` on: its executions run from now.
    pub(super) fn admitted(&mut self, first: Seq) {
        let since = Instant::now();
        for (offset, asked) in self.asked.drain(..).enumerate() {
            let seq = Seq(first.0 + offset as u64);
            self.running.push_back((asked.exec, Running { seq, since, asked }));
        }
    }

    /// The batch will not be forwarded.
    pub(super) fn refused(&mut self) {
        self.batch.clear();
        self.batch_bytes = 0;
        self.asked.clear();
        if self.state.retracted() {
            self.settings_changed();
        }
    }

    /// Writes down what the server's answers say.
    pub(super) fn answered(&mut self, events: &mut Vec<Event>, idle: bool) {
        let mut ends = std::mem::take(&mut self.ends);
        let mut ready = false;
        // Nothing is unanswered after the last of them only: what was asked meanwhile is confirmed in between.
        let mut readies = events.iter().filter(|event| matches!(event, Event::Ready(_))).count();
        for event in events.drain(..) {
            match event {
                Event::Finished(exec, end) => self.finished(exec, end, &mut ends),
                Event::Unannounced(end) => self.unannounced(end),
                Event::TransactionFailed(_) => {
                    self.failed = true;
                    self.transaction.fail();
                }
                Event::Ready(status) => {
                    ready = true;
                    self.transaction.ready(status, &mut ends);
                    readies -= 1;
                    if self.state.ready(status, self.failed, idle && readies == 0) {
                        self.settings_changed();
                    }
                    if status != Status::Failed {
                        self.failed = false;
                    }
                    if status == Status::Idle {
                        self.redefined();
                    }
                }
                Event::Parameter { name, value } => {
                    self.reported(&String::from_utf8_lossy(&name), &String::from_utf8_lossy(&value));
                }
                Event::Fatal(_) => {}
            }
        }
        if !ready {
            // The server speaks without having come to an end: a pipeline. What has ended is told
            // now, what became of its transaction later.
            self.transaction.flush(&mut ends);
        }
        self.write(&mut ends);
        self.ends = ends;
    }

    fn finished(&mut self, exec: ExecId, end: End, ends: &mut Ends) {
        // Numbers only grow, so the order is theirs.
        let Ok(at) = self.running.binary_search_by_key(&exec, |(exec, _)| *exec) else { return };
        let Some((_, running)) = self.running.remove(at) else { return };
        let Asked { reading, secret, .. } = running.asked;
        let accuracy = &self.gateway.accuracy;
        if accuracy.compare(&reading, &end.origins, &self.context) || accuracy.refused(&reading, &end) {
            self.catalog.changed();
        }
        let outcome = match end.how {
            How::Ok => Outcome::Ok,
            How::Error if end.report.as_ref().is_some_and(|report| report.code == "57014") => {
                Outcome::Canceled
            }
            How::Error => Outcome::Error,
            How::Skipped => Outcome::Skipped,
            How::Lost => Outcome::Unknown,
        };
        if outcome != Outcome::Skipped {
            // Some do part of their work in transactions of their own, and then fail.
            self.redefines = self.redefines.max(reading.redefines);
        }
        if outcome == Outcome::Ok {
            self.took_effect(&reading, &end);
        } else {
            self.failed = true;
        }
        let report = end.report.map(|report| *report).unwrap_or_default();
        let elapsed = running.since.elapsed().as_micros();
        let completion = Completion {
            seq: running.seq,
            outcome,
            txn_outcome: TxnOutcome::Open,
            command: end.command,
            rows: end.rows,
            bytes: end.bytes,
            duration_us: if outcome == Outcome::Skipped {
                0
            } else {
                u64::try_from(elapsed).unwrap_or(u64::MAX)
            },
            error: if secret && !report.message.is_empty() {
                WITHHELD.into()
            } else {
                self.gateway.config.capture.error(&report.code, report.message)
            },
            sqlstate: report.code,
            notes: reading.check.differs().into_iter().map(str::to_owned).collect(),
        };
        self.transaction.finished(completion, reading.control.clone(), ends);
    }

    fn took_effect(&mut self, reading: &Arc<Reading>, end: &End) {
        if matches!(
            reading.effect,
            Effect::Commit { .. } | Effect::Rollback { .. } | Effect::PrepareTransaction
        ) {
            // Another transaction may follow at once. The server says so when it is done.
            self.redefined();
        }
        self.state.succeeded(reading, end.command == "ROLLBACK");
    }

    /// Others see now what was done to the catalog.
    fn redefined(&mut self) {
        match std::mem::take(&mut self.redefines) {
            Redefines::No => {}
            Redefines::Perhaps => self.catalog.may_have_changed(),
            Redefines::Names => self.catalog.changed(),
        }
    }

    /// The server completed more statements than were seen in the text.
    fn unannounced(&mut self, end: End) {
        tracing::warn!(session = %self.who.session, command = %end.command, "the server completed a statement that was not seen");
        let reading = Readings::unknown(
            &end.command,
            "the server completed more statements than were seen in the text",
        );
        let time = clock::now();
        let done = Completion {
            command: end.command,
            rows: end.rows,
            bytes: end.bytes,
            ..Completion::new(Outcome::Ok, TxnOutcome::Unknown)
        };
        let record = Record {
            id: clock::new_id(time),
            time,
            event: RecordEvent::Query,
            who: self.who.clone(),
            sql: None,
            shape: Some(reading.shape.clone()),
            params: Vec::new(),
            detail: String::new(),
            done: Some(done),
        };
        if let Err(error) = self.gateway.recorder.note(record) {
            tracing::error!(%error, "could not record a statement that was not seen");
        }
        self.catalog.changed();
    }

    fn write(&self, ends: &mut Ends) {
        self.gateway.recorder.tell(&mut ends.completions, &mut ends.settlements);
    }

    /// The session is over. `clean`: nothing was unanswered, so the server rolls back what is open.
    pub(super) fn end(&mut self, clean: bool, reason: &str) {
        let mut ends = Ends::default();
        self.transaction.end(clean, &mut ends);
        // A record without an answer of any kind (the batch was never forwarded).
        for running in self.running.drain(..).map(|(_, running)| running) {
            ends.completions.push(Completion {
                seq: running.seq,
                ..Completion::new(Outcome::Unknown, TxnOutcome::Unknown)
            });
            self.redefines = self.redefines.max(running.asked.reading.redefines);
        }
        self.redefined();
        self.write(&mut ends);
        let done = Completion::new(Outcome::Ok, TxnOutcome::None);
        let record =
            super::event_record(RecordEvent::SessionEnd, self.who.clone(), reason.to_owned(), Some(done));
        if let Err(error) = self.gateway.recorder.note(record) {
            tracing::error!(%error, "could not record a session's end");
        }
    }
}

/// Name of a function by its OID, and the types of its arguments if they are known.
fn called(schema: &Schema, oid: u32) -> Option<(String, Vec<u32>)> {
    if let Some(function) = schema.function_by_oid(oid) {
        return Some((format!("{}.{}", quoted(&function.schema), quoted(&function.name)), Vec::new()));
    }
    schema.builtin_by_oid(oid).map(|(name, types)| (format!("pg_catalog.{}", quoted(name)), types))
}

/// Characters of UTF-8 text: bytes that do not continue another.
fn count_characters(text: &[u8]) -> usize {
    text.iter().filter(|byte| (**byte & 0xc0) != 0x80).count()
}
