//! The conversation of one session: what was asked, in order, and what each answer belongs to.
//!
//! The client side is read before it is forwarded ([`Conversation::ask`]), the server side as it
//! passes ([`Conversation::answer`]). Statements and portals are known as the *server* will know
//! them when it comes to the message: a definition that the server turned down is taken back, and
//! a message that leans on a definition whose fate is still open waits ([`Ask::Wait`]).
//!
//! What it never does: keep rows, guess an outcome. An answer that was not seen is
//! [`How::Lost`].
//!
//! Source: PostgreSQL documentation, "Message Flow"; `PostgresMain` and `exec_*_message` in
//! `src/backend/tcop/postgres.c`; `CopyGetData` in `src/backend/commands/copyfromparse.c`.

mod answer;
mod ask;
mod event;
mod names;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

pub use crate::backend::Origin;
use crate::backend::{self, Report, Status};
use crate::frame::Frame;
use crate::frontend::{self, Bind, FunctionCall, Target};
use crate::{ProtocolError, backend::parameter_description};
use answer::{end_suspended, lost};
pub use event::{End, Event, How};
use names::{Entry, Names, Portal, Undo};

/// Of an error report this much is read; the rest only passes.
const REPORT_PREFIX: usize = 64 * 1024;
/// The longest description of result columns that is read: about a thousand columns.
const DESCRIPTION_MAX: usize = 64 * 1024;

/// The gateway's own number for one execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecId(pub u64);

type OpId = u64;

/// Bounds of one conversation.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Largest message that must be read whole, bytes.
    pub message: usize,
    /// Prepared statements, and portals, each.
    pub names: usize,
    /// Texts of all prepared statements, and bound values of all portals, each, bytes; one alone may be larger.
    pub memory: usize,
    /// Messages sent and not yet answered; beyond, the client waits.
    pub pipeline: usize,
}

/// A prepared statement as the client sent it.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Prepared {
    /// Name, empty for the unnamed one.
    pub name: Box<[u8]>,
    /// Exact text.
    pub text: Arc<[u8]>,
    /// Parameter types, as far as the client or the server named them.
    pub types: Vec<u32>,
    /// Where its result columns come from, once the server has described them.
    pub origins: Vec<Origin>,
}

/// What the client's next message means for the record.
#[derive(Debug)]
pub enum Ask<'a> {
    /// Nothing is executed: pass it on.
    Pass,
    /// Statements in one string; follow with [`Conversation::started_query`].
    Query(&'a [u8]),
    /// A portal runs for the first time; follow with [`Conversation::started`].
    Execute(Execution),
    /// A function is called by its OID; follow with [`Conversation::started`].
    Call(FunctionCall<'a>),
    /// The session ends in order.
    Terminate,
    /// Pass nothing yet: offer the same message again after the server's next answers.
    Wait,
}

/// The first run of a portal.
#[derive(Debug, Clone)]
pub struct Execution {
    /// The statement; `None` if it was made by means that this module does not see (SQL PREPARE,
    /// DECLARE CURSOR).
    pub prepared: Option<Arc<Prepared>>,
    /// Name of the portal.
    pub portal: Box<[u8]>,
    bind: Option<Arc<[u8]>>,
}

impl Execution {
    /// The bound values.
    pub fn bind(&self) -> Option<Bind<'_>> {
        self.bind.as_ref().and_then(|body| frontend::bind(body).ok())
    }
}

/// One statement of a query string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Its execution.
    pub exec: ExecId,
    /// Where it begins, in characters from the start of the string (0 for the first).
    pub start: usize,
}

/// What a statement does, by SQL, to the ground that later messages stand on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alters {
    /// Settings, objects or the transaction: later statements may mean something else.
    Meaning,
    /// A prepared statement of this name is made or forgotten.
    Statement(Vec<u8>),
    /// A cursor of this name, which is a portal, is made or closed.
    Portal(Vec<u8>),
    /// All cursors are closed.
    Portals,
    /// All prepared statements are forgotten.
    Statements,
    /// Both.
    Everything,
}

impl Alters {
    fn statement(&self, name: &[u8]) -> bool {
        match self {
            Alters::Statement(altered) => altered == name,
            // The unnamed statement is no business of SQL.
            Alters::Statements | Alters::Everything => !name.is_empty(),
            _ => false,
        }
    }

    fn portal(&self, name: &[u8]) -> bool {
        match self {
            Alters::Portal(altered) => altered == name,
            Alters::Portals | Alters::Everything => true,
            _ => false,
        }
    }
}

/// What a Close has taken away.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Closed {
    Statement(Box<[u8]>),
    Portal(Box<[u8]>),
}

/// An execution that alters something, and has not been answered.
#[derive(Debug)]
struct Altering {
    exec: ExecId,
    op: OpId,
    alters: Alters,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    rows: u64,
    bytes: u64,
}

/// The operations that an execution leans on: if one of them fails, it is the execution that failed.
#[derive(Debug, Clone, Copy, Default)]
struct Leans {
    parse: Option<OpId>,
    bind: Option<OpId>,
}

/// The operation that made the server ignore what follows.
#[derive(Debug)]
struct Culprit<'a> {
    op: OpId,
    /// It may stand for any execution that follows (Describe, Close).
    any: bool,
    report: &'a Report,
}

#[derive(Debug)]
enum Kind {
    Query {
        slices: VecDeque<Slice>,
        completed: bool,
    },
    Parse,
    Bind {
        replaced: Option<ExecId>,
    },
    Describe {
        statement: Option<Box<[u8]>>,
    },
    Execute {
        exec: Option<ExecId>,
        first: bool,
        leans: Leans,
    },
    Close {
        closed: Option<ExecId>,
    },
    Call {
        exec: Option<ExecId>,
    },
    /// A command of the replication protocol: everything up to ReadyForQuery is its answer.
    Replication {
        exec: Option<ExecId>,
        command: Cow<'static, str>,
    },
    /// The client ended COPY data of so many bytes.
    CopyEnd {
        bytes: u64,
    },
    Sync,
}

impl Kind {
    /// Whether the server answers it with ReadyForQuery.
    fn ends(&self) -> bool {
        matches!(self, Kind::Sync | Kind::Query { .. } | Kind::Call { .. } | Kind::Replication { .. })
    }
}

#[derive(Debug)]
struct Op {
    id: OpId,
    kind: Kind,
    statement: Option<Undo<Arc<Prepared>>>,
    portal: Option<Undo<Portal>>,
}

/// Executions that stand in the middle of their portal, with what has passed.
type Suspended = HashMap<ExecId, Tally, FxBuildHasher>;

/// See the module's description.
#[derive(Debug)]
pub struct Conversation {
    bounds: Bounds,
    statements: Names<Arc<Prepared>>,
    portals: Names<Portal>,
    /// Asked and not yet answered, oldest first.
    ops: VecDeque<Op>,
    next_op: OpId,
    /// Number of Syncs, Queries and FunctionCalls asked so far.
    segment: u64,
    /// The server ignores everything up to the next Sync, which has not been asked yet.
    skipping: bool,
    /// The server has asked for COPY data, and has not said how that ended.
    copying: bool,
    /// COPY data since the last end of such data: of the present COPY, or sent ahead of the next.
    copy_bytes: u64,
    /// So many of the oldest Syncs may have been read among the data of a COPY that failed: then they
    /// have no answer.
    doubtful: usize,
    /// What the server has described last, for the execution that follows.
    origins: Vec<Origin>,
    tally: Tally,
    suspended: Suspended,
    /// Asked and not yet answered, oldest first.
    altering: VecDeque<Altering>,
    /// The segment of the last of them, until all is answered.
    altered_segment: Option<u64>,
    /// Names taken away by a Close that is unanswered: its operation and segment.
    closing: HashMap<Closed, (OpId, u64)>,
}

impl Conversation {
    /// A conversation that begins after the server's first ReadyForQuery.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            statements: Names::default(),
            portals: Names::default(),
            ops: VecDeque::new(),
            next_op: 1,
            segment: 0,
            skipping: false,
            copying: false,
            copy_bytes: 0,
            doubtful: 0,
            origins: Vec::new(),
            tally: Tally::default(),
            suspended: Suspended::default(),
            altering: VecDeque::new(),
            altered_segment: None,
            closing: HashMap::new(),
        }
    }

    /// Whether nothing is unanswered.
    pub fn is_idle(&self) -> bool {
        self.is_settled() && !self.copying && !self.skips_to_an_unknown_sync()
    }

    /// Whether the server says no more before the client does: it reads COPY data, or a pipeline has
    /// no end yet.
    pub fn awaits_client(&self) -> bool {
        let ends = |op: &Op| op.kind.ends() || matches!(op.kind, Kind::CopyEnd { .. });
        self.reads_copy() || self.skipping || self.ops.back().is_some_and(|op| !ends(op))
    }

    /// Whether a message that waits ([`Ask::Wait`]) may wait for ever.
    ///
    /// Either the server reads COPY data, and would end the connection for anything else. Or a COPY failed
    /// that had Syncs among its data: had the server read one of them after the failure, it would say so
    /// at once; if not, it is silent until the next Sync, and ignores what stands before that.
    pub fn is_undecided(&self) -> bool {
        self.reads_copy() || self.skips_to_an_unknown_sync()
    }

    /// Messages asked and not yet answered.
    pub fn in_flight(&self) -> usize {
        self.ops.len()
    }

    /// How much of a client's message must be read.
    ///
    /// # Errors
    /// A message that may not be sent, or is too large.
    pub fn want_from_client(&self, tag: u8, length: usize) -> Result<usize, ProtocolError> {
        match tag {
            b'd' | b'f' => Ok(0),
            b'Q' | b'P' | b'B' | b'E' | b'D' | b'C' | b'F' if length <= self.bounds.message => Ok(length),
            b'Q' | b'P' | b'B' | b'E' | b'D' | b'C' | b'F' => {
                Err(ProtocolError::TooLarge { tag, length, limit: self.bounds.message })
            }
            b'H' | b'S' | b'X' | b'c' if length == 0 => Ok(0),
            b'H' | b'S' | b'X' | b'c' => Err(ProtocolError::Leftover { tag }),
            _ => Err(ProtocolError::UnknownType(tag)),
        }
    }

    /// How much of a server's message must be read.
    pub fn want_from_server(tag: u8, length: usize) -> usize {
        match tag {
            b'C' | b'Z' | b'S' | b't' => length,
            b'T' if length <= DESCRIPTION_MAX => length,
            b'E' => length.min(REPORT_PREFIX),
            _ => 0,
        }
    }

    /// Reads the client's next message, before it is forwarded.
    ///
    /// # Errors
    /// A message that PostgreSQL would refuse, or one beyond the bounds. The session must end.
    pub fn ask<'f>(&mut self, frame: &Frame<'f>) -> Result<Ask<'f>, ProtocolError> {
        if frame.tag == b'S' && self.reads_copy() && self.ops.len() >= self.bounds.pipeline {
            // They have no answer: it would wait for ever.
            return Err(ProtocolError::TooMany {
                what: "Syncs among COPY data",
                limit: self.bounds.pipeline,
            });
        }
        if self.must_wait(frame.tag) {
            return Ok(Ask::Wait);
        }
        match frame.tag {
            b'Q' => frontend::query(frame.body).map(Ask::Query),
            b'P' => self.ask_parse(frame.body),
            b'B' => self.ask_bind(frame.body),
            b'E' => self.ask_execute(frame.body),
            b'D' => self.ask_describe(frame.body),
            b'C' => self.ask_close(frame.body),
            b'F' => frontend::function_call(frame.body).map(Ask::Call),
            b'S' => {
                self.ask_sync();
                Ok(Ask::Pass)
            }
            b'd' => {
                self.ask_run(frame.length as u64);
                Ok(Ask::Pass)
            }
            b'c' | b'f' => {
                self.end_copy();
                Ok(Ask::Pass)
            }
            b'X' => Ok(Ask::Terminate),
            _ => Ok(Ask::Pass),
        }
    }

    fn push(&mut self, kind: Kind) -> &mut Op {
        let id = self.next_op;
        self.next_op += 1;
        self.ops.push_back(Op { id, kind, statement: None, portal: None });
        self.ops.back_mut().expect("an operation was pushed just now")
    }

    /// Whether an entry's definition is still unanswered and belongs to an earlier segment: the
    /// server may turn it down and yet go on to the present message.
    fn is_open<T>(&self, entry: &Entry<T>) -> bool {
        entry.segment != self.segment && self.ops.front().is_some_and(|front| entry.by >= front.id)
    }

    /// Whether a Close of an earlier segment, which the server may yet ignore, has taken a name away.
    fn is_closing(&self, target: impl FnOnce() -> Closed) -> bool {
        if self.closing.is_empty() {
            return false;
        }
        let target = target();
        let unknown = match &target {
            Closed::Statement(name) => self.statements.get(name).is_none(),
            Closed::Portal(name) => self.portals.get(name).is_none(),
        };
        let front = self.ops.front().map_or(OpId::MAX, |op| op.id);
        unknown
            && self.closing.get(&target).is_some_and(|(op, segment)| *op >= front && *segment != self.segment)
    }

    /// Whether a statement of an earlier segment, which may yet fail without stopping what follows,
    /// alters what the next message means. It is settled when all is answered.
    fn is_altering(&mut self) -> bool {
        if self.is_settled() {
            self.altered_segment = None;
            self.closing.clear();
        }
        self.altered_segment.is_some_and(|segment| segment != self.segment)
    }

    fn is_unanswered(&self, altering: &Altering) -> bool {
        self.ops.front().is_some_and(|front| altering.op >= front.id)
    }

    /// Says that an execution just started alters something. Within a segment it is taken to succeed:
    /// else the server ignores what follows.
    pub fn alters(&mut self, exec: ExecId, alters: Alters) {
        let Some(op) = self.ops.back().map(|op| op.id) else { return };
        // A query has ended its segment already.
        let ended = matches!(self.ops.back(), Some(Op { kind: Kind::Query { .. }, .. }));
        let segment = self.segment - u64::from(ended);
        self.altered_segment = Some(segment);
        self.altering.push_back(Altering { exec, op, alters });
    }

    /// The statement of this name, if the protocol has made it.
    pub fn statement(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        self.statements.get(name).map(|entry| &entry.value)
    }

    /// Applies what executions have altered that ended in the events from `from` on.
    fn settle_altering(&mut self, from: usize, events: &mut Vec<Event>) {
        if self.altering.is_empty() {
            return;
        }
        let told = events.get(from..).unwrap_or_default();
        let ended: Vec<_> = told
            .iter()
            .filter_map(|event| match event {
                Event::Finished(exec, end) => Some((*exec, end.how)),
                _ => None,
            })
            .collect();
        for (exec, how) in ended {
            while let Some(at) = self.altering.iter().position(|known| known.exec == exec) {
                let Some(done) = self.altering.remove(at) else { break };
                if how == How::Ok {
                    self.forget(&done, events);
                }
            }
        }
        while self.altering.front().is_some_and(|first| !self.is_unanswered(first)) {
            // It was answered, and goes on (a suspended portal): its work is taken as done.
            if let Some(done) = self.altering.pop_front() {
                self.forget(&done, events);
            }
        }
    }

    fn forget(&mut self, done: &Altering, events: &mut Vec<Event>) {
        let Altering { op, alters, .. } = done;
        if *alters == Alters::Meaning {
            return;
        }
        self.statements.drain_matching(|name, entry| entry.by < *op && alters.statement(name), drop);
        let suspended = &mut self.suspended;
        self.portals.drain_matching(
            |name, entry| entry.by < *op && alters.portal(name),
            |portal| end_suspended(suspended, portal.exec, events),
        );
    }

    /// Whether SQL of the present segment has altered a name since `by` defined it.
    fn is_altered(&self, by: Option<OpId>, alters: impl Fn(&Alters) -> bool) -> bool {
        self.altering.iter().any(|known| by.is_none_or(|by| known.op > by) && alters(&known.alters))
    }

    /// Says which execution the [`Ask::Execute`] or [`Ask::Call`] just returned has become. `None`
    /// for an execution that leaves no record (an empty statement).
    pub fn started(&mut self, tag: u8, portal: &[u8], exec: Option<ExecId>) {
        if tag == b'F' {
            self.push(Kind::Call { exec });
            self.segment += 1;
            return;
        }
        let mut leans = Leans::default();
        if let Some(entry) = self.portals.get_mut(portal) {
            entry.value.exec = exec;
            leans = Leans { parse: entry.value.parsed_by, bind: Some(entry.by) };
        }
        self.push(Kind::Execute { exec, first: true, leans });
    }

    /// Says which executions the [`Ask::Query`] just returned has become, in order.
    pub fn started_query(&mut self, slices: impl IntoIterator<Item = Slice>) {
        let slices: VecDeque<_> = slices.into_iter().collect();
        // A simple query destroys the unnamed statement; each statement in it, the unnamed portal.
        let statement = self.statements.remove(b"");
        let portal = if slices.is_empty() { None } else { self.portals.remove(b"") };
        // Unless it is ignored, since something before it failed.
        let taken = (self.next_op, self.segment);
        if statement.is_some() {
            self.closing.insert(Closed::Statement(Box::default()), taken);
        }
        if portal.is_some() {
            self.closing.insert(Closed::Portal(Box::default()), taken);
        }
        let op = self.push(Kind::Query { slices, completed: false });
        op.statement = statement;
        op.portal = portal;
        self.segment += 1;
    }

    /// Says that the [`Ask::Query`] just returned is a command of the replication protocol, which a
    /// walsender answers with several results, or streams both ways.
    pub fn started_replication(&mut self, exec: ExecId) {
        self.push(Kind::Replication { exec: Some(exec), command: Cow::default() });
        self.segment += 1;
    }

    /// Reads the server's next message.
    ///
    /// # Errors
    /// A message that PostgreSQL does not send. The session must end.
    pub fn answer(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Result<(), ProtocolError> {
        let before = events.len();
        self.hear(frame, events)?;
        self.settle_altering(before, events);
        Ok(())
    }

    /// Messages like the one just answered, a DataRow or CopyData, followed it: so many, with bodies of so
    /// many bytes.
    pub fn answer_run(&mut self, tag: u8, count: u64, bytes: u64) {
        self.tally.rows += if tag == b'D' { count } else { 0 };
        self.tally.bytes += bytes;
    }

    /// CopyData of so many bytes, as one message or as several.
    pub fn ask_run(&mut self, bytes: u64) {
        // What comes when all is answered was sent for a COPY that failed, and is ignored.
        if !self.is_idle() {
            self.copy_bytes += bytes;
        }
    }

    /// Where the conversation stands, for [`Conversation::retract`].
    pub fn mark(&self) -> u64 {
        self.next_op
    }

    /// Takes back what was asked since `mark`, none of which was forwarded. Says how many
    /// ReadyForQuery the client waits for on its account; `None` if it has not come to a Sync.
    pub fn retract(&mut self, mark: u64) -> Option<usize> {
        let ends = |op: &Op| op.kind.ends();
        let first = self.ops.iter().position(|op| op.id >= mark).unwrap_or(self.ops.len());
        let mut taken = self.ops.split_off(first);
        let rest = !self.skipping && !self.copying && taken.back().is_some_and(ends);
        let owed = taken.iter().filter(|op| ends(op)).count();
        self.altering.retain(|altering| altering.op < mark);
        self.take_back(&mut taken, None, &mut Vec::new());
        rest.then_some(owed)
    }

    /// While the server ignores everything up to a Sync that has not come: tells at once what is
    /// skipped, for no answer will ever speak of it. Only for what was forwarded.
    pub fn skip_ahead(&mut self, events: &mut Vec<Event>) {
        if self.skipping && !self.ops.iter().any(|op| matches!(op.kind, Kind::Sync)) {
            let before = events.len();
            self.skip(self.ops.len(), events);
            self.settle_altering(before, events);
        }
    }

    /// The connection is gone: what was unanswered is lost.
    pub fn abandon(&mut self, events: &mut Vec<Event>) {
        let mut tally = self.take_tally();
        tally.bytes += self.copied();
        let mut first = Some(tally);
        for op in self.ops.drain(..) {
            let from = events.len();
            lost(op.kind, &mut self.suspended, events);
            if let (Some(Event::Finished(_, end)), Some(tally)) = (events.get_mut(from), first.take()) {
                end.bytes += tally.bytes;
                end.rows = (tally.rows > 0).then_some(tally.rows);
            }
        }
        for (exec, tally) in self.suspended.drain() {
            let end = End { rows: Some(tally.rows), ..End::new(How::Ok, tally) };
            events.push(Event::Finished(exec, end));
        }
    }
}

#[cfg(test)]
mod tests;
