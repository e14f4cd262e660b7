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

mod names;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::backend::{self, Report, Status};
use crate::frame::Frame;
use crate::frontend::{self, Bind, FunctionCall, Target};
use crate::{ProtocolError, backend::parameter_description};
use names::{Entry, Names, Portal, Undo};

/// Of an error report this much is read; the rest only passes.
const REPORT_PREFIX: usize = 64 * 1024;

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
    /// Messages sent and not yet answered; beyond, the client waits.
    pub pipeline: usize,
}

/// A prepared statement as the client sent it.
#[derive(Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Name, empty for the unnamed one.
    pub name: Box<[u8]>,
    /// Exact text.
    pub text: Arc<[u8]>,
    /// Parameter types, as far as the client or the server named them.
    pub types: Vec<u32>,
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

/// Something that the server's answers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An execution ended.
    Finished(ExecId, End),
    /// The server completed a statement that nobody announced: its command words.
    Unannounced(End),
    /// The transaction failed outside of any execution: a Parse or Bind was turned down, or the
    /// commit at Sync (a deferred constraint).
    TransactionFailed(Report),
    /// The server is ready for the next query.
    Ready(Status),
    /// A parameter has a new value.
    Parameter {
        /// Its name.
        name: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// The server is ending the session.
    Fatal(Report),
}

/// How one execution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Outcome.
    pub how: How,
    /// Words of the command tag.
    pub command: String,
    /// Rows of the command tag, or rows seen if it names none.
    pub rows: Option<u64>,
    /// Bytes of DataRow and CopyData bodies.
    pub bytes: u64,
    /// The server's error, if there was one.
    pub report: Report,
}

/// Outcome of one execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Completed.
    Ok,
    /// The server reported an error.
    Error,
    /// It never ran, since something before it failed.
    Skipped,
    /// Its end was not seen.
    Lost,
}

impl End {
    fn new(how: How, tally: Tally) -> Self {
        Self { how, command: String::new(), rows: None, bytes: tally.bytes, report: Report::default() }
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
    /// The client ended COPY data before we saw the server ask for it.
    CopyEnd,
    Sync,
}

#[derive(Debug)]
struct Op {
    id: OpId,
    kind: Kind,
    statement: Option<Undo<Arc<Prepared>>>,
    portal: Option<Undo<Portal>>,
}

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
    /// The server is reading COPY data.
    copy_in: bool,
    copy_bytes: u64,
    tally: Tally,
    suspended: HashMap<ExecId, Tally>,
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
            copy_in: false,
            copy_bytes: 0,
            tally: Tally::default(),
            suspended: HashMap::new(),
            altering: VecDeque::new(),
            altered_segment: None,
            closing: HashMap::new(),
        }
    }

    /// Whether nothing is unanswered.
    pub fn is_idle(&self) -> bool {
        self.ops.is_empty() && !self.copy_in
    }

    /// Whether the server says no more before the client does: it reads COPY data, or a pipeline has
    /// no end yet.
    pub fn awaits_client(&self) -> bool {
        let ends =
            |op: &Op| matches!(op.kind, Kind::Sync | Kind::Query { .. } | Kind::Call { .. } | Kind::CopyEnd);
        self.copy_in || self.skipping || self.ops.back().is_some_and(|op| !ends(op))
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
            b'E' => length.min(REPORT_PREFIX),
            _ => 0,
        }
    }

    /// Reads the client's next message, before it is forwarded.
    ///
    /// # Errors
    /// A message that PostgreSQL would refuse, or one beyond the bounds. The session must end.
    pub fn ask<'f>(&mut self, frame: &Frame<'f>) -> Result<Ask<'f>, ProtocolError> {
        let leans = !matches!(frame.tag, b'd' | b'c' | b'f' | b'H' | b'X');
        if leans && (self.is_altering() || self.ops.len() >= self.bounds.pipeline) {
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
                self.copy_bytes += frame.length as u64;
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

    fn end_copy(&mut self) {
        if self.copy_in {
            self.copy_in = false;
        } else if !self.ops.is_empty() {
            self.push(Kind::CopyEnd);
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
    fn is_closing(&self, target: Closed) -> bool {
        let unknown = match &target {
            Closed::Statement(name) => self.statements.get(name).is_none(),
            Closed::Portal(name) => self.portals.get(name).is_none(),
        };
        let front = self.ops.front().map_or(OpId::MAX, |op| op.id);
        unknown
            && !self.closing.is_empty()
            && self.closing.get(&target).is_some_and(|(op, segment)| *op >= front && *segment != self.segment)
    }

    /// Whether a statement of an earlier segment, which may yet fail without stopping what follows,
    /// alters what the next message means. It is settled when all is answered.
    fn is_altering(&mut self) -> bool {
        if self.ops.is_empty() {
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
        self.statements.drain_matching(|name, entry| entry.by < *op && alters.statement(name));
        for portal in self.portals.drain_matching(|name, entry| entry.by < *op && alters.portal(name)) {
            self.end_suspended(portal.exec, events);
        }
    }

    /// Whether SQL of the present segment has altered a name since `by` defined it.
    fn is_altered(&self, by: Option<OpId>, alters: impl Fn(&Alters) -> bool) -> bool {
        self.altering.iter().any(|known| by.is_none_or(|by| known.op > by) && alters(&known.alters))
    }

    fn ask_parse<'f>(&mut self, body: &[u8]) -> Result<Ask<'f>, ProtocolError> {
        let parse = frontend::parse(body)?;
        if self.statements.len() >= self.bounds.names && self.statements.get(parse.name).is_none() {
            return Err(ProtocolError::TooMany { what: "prepared statements", limit: self.bounds.names });
        }
        let prepared =
            Arc::new(Prepared { name: parse.name.into(), text: parse.text.into(), types: parse.types });
        let entry = Entry { value: prepared, by: self.next_op, segment: self.segment };
        let undo = self.statements.set(parse.name, entry);
        self.push(Kind::Parse).statement = Some(undo);
        Ok(Ask::Pass)
    }

    fn ask_bind<'f>(&mut self, body: &[u8]) -> Result<Ask<'f>, ProtocolError> {
        let bind = frontend::bind(body)?;
        let statement = self.statements.get(bind.statement);
        if statement.is_some_and(|entry| self.is_open(entry))
            || self.is_closing(Closed::Statement(bind.statement.into()))
        {
            return Ok(Ask::Wait);
        }
        if self.portals.len() >= self.bounds.names && self.portals.get(bind.portal).is_none() {
            return Err(ProtocolError::TooMany { what: "portals", limit: self.bounds.names });
        }
        let altered =
            self.is_altered(statement.map(|entry| entry.by), |alters| alters.statement(bind.statement));
        let statement = statement.filter(|_| !altered);
        let portal = Portal {
            prepared: statement.map(|entry| entry.value.clone()),
            parsed_by: statement.map(|entry| entry.by),
            bind: body.into(),
            exec: None,
        };
        let entry = Entry { value: portal, by: self.next_op, segment: self.segment };
        let undo = self.portals.set(bind.portal, entry);
        let replaced = undo.previous().and_then(|portal| portal.exec);
        self.push(Kind::Bind { replaced }).portal = Some(undo);
        Ok(Ask::Pass)
    }

    fn ask_execute<'f>(&mut self, body: &[u8]) -> Result<Ask<'f>, ProtocolError> {
        let (name, _limit) = frontend::execute(body)?;
        let entry = self.portals.get(name);
        if entry.is_some_and(|entry| self.is_open(entry)) || self.is_closing(Closed::Portal(name.into())) {
            return Ok(Ask::Wait);
        }
        let altered = self.is_altered(entry.map(|entry| entry.by), |alters| alters.portal(name));
        match entry.filter(|_| !altered).map(|entry| &entry.value) {
            Some(Portal { exec: Some(exec), .. }) => {
                let exec = Some(*exec);
                self.push(Kind::Execute { exec, first: false, leans: Leans::default() });
                Ok(Ask::Pass)
            }
            Some(portal) => Ok(Ask::Execute(Execution {
                prepared: portal.prepared.clone(),
                portal: name.into(),
                bind: Some(portal.bind.clone()),
            })),
            None => Ok(Ask::Execute(Execution { prepared: None, portal: name.into(), bind: None })),
        }
    }

    fn ask_describe<'f>(&mut self, body: &[u8]) -> Result<Ask<'f>, ProtocolError> {
        let statement = match frontend::target(b'D', body)? {
            Target::Statement(name) => Some(name.into()),
            Target::Portal(_) => None,
        };
        self.push(Kind::Describe { statement });
        Ok(Ask::Pass)
    }

    fn ask_close<'f>(&mut self, body: &[u8]) -> Result<Ask<'f>, ProtocolError> {
        match frontend::target(b'C', body)? {
            Target::Statement(name) => {
                let undo = self.statements.remove(name);
                if undo.is_some() {
                    self.closing.insert(Closed::Statement(name.into()), (self.next_op, self.segment));
                }
                self.push(Kind::Close { closed: None }).statement = undo;
            }
            Target::Portal(name) => {
                let undo = self.portals.remove(name);
                if undo.is_some() {
                    self.closing.insert(Closed::Portal(name.into()), (self.next_op, self.segment));
                }
                let closed = undo.as_ref().and_then(Undo::previous).and_then(|portal| portal.exec);
                self.push(Kind::Close { closed }).portal = undo;
            }
        }
        Ok(Ask::Pass)
    }

    fn ask_sync(&mut self) {
        if self.copy_in {
            // The server ignores it while it reads COPY data.
            return;
        }
        self.push(Kind::Sync);
        self.segment += 1;
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
        // A simple query destroys the unnamed statement and portal.
        let statement = self.statements.remove(b"");
        let portal = self.portals.remove(b"");
        let slices = slices.into_iter().collect();
        let op = self.push(Kind::Query { slices, completed: false });
        op.statement = statement;
        op.portal = portal;
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

    fn hear(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Result<(), ProtocolError> {
        match frame.tag {
            b'D' => {
                self.tally.rows += 1;
                self.tally.bytes += frame.length as u64;
            }
            b'd' => self.tally.bytes += frame.length as u64,
            b'C' => self.answer_complete(frame.body, events)?,
            b'Z' => self.answer_ready(frame.body, events)?,
            b'E' => self.answer_error(backend::report(frame.body), events),
            b'1' => self.answer_simple(|kind| matches!(kind, Kind::Parse)),
            b'2' | b'3' => self.answer_names(events),
            b't' => self.answer_types(frame.body)?,
            b'T' | b'n' => self.answer_simple(|kind| matches!(kind, Kind::Describe { .. })),
            b'I' => self.answer_empty(events),
            b's' => self.answer_suspended(events),
            b'V' => self.answer_call(frame.length, events),
            b'G' => self.answer_copy_in(),
            b'S' => {
                let (name, value) = backend::parameter_status(frame.body)?;
                events.push(Event::Parameter { name: name.into(), value: value.into() });
            }
            _ => {}
        }
        Ok(())
    }

    /// The oldest unanswered operation, past ends of COPY data that the server ignored.
    fn front(&mut self) -> Option<&mut Op> {
        while matches!(self.ops.front(), Some(Op { kind: Kind::CopyEnd, .. })) {
            self.ops.pop_front();
        }
        self.ops.front_mut()
    }

    fn answer_simple(&mut self, expected: impl Fn(&Kind) -> bool) {
        if self.front().is_some_and(|op| expected(&op.kind)) {
            self.ops.pop_front();
        }
    }

    /// BindComplete and CloseComplete: a portal that was replaced or closed ends its execution.
    fn answer_names(&mut self, events: &mut Vec<Event>) {
        let ended = match self.front().map(|op| &op.kind) {
            Some(Kind::Bind { replaced }) => *replaced,
            Some(Kind::Close { closed }) => *closed,
            _ => return,
        };
        self.ops.pop_front();
        self.end_suspended(ended, events);
    }

    fn end_suspended(&mut self, exec: Option<ExecId>, events: &mut Vec<Event>) {
        if let Some((exec, tally)) = exec.and_then(|exec| self.suspended.remove_entry(&exec)) {
            let end = End { rows: Some(tally.rows), command: "SELECT".into(), ..End::new(How::Ok, tally) };
            events.push(Event::Finished(exec, end));
        }
    }

    fn answer_types(&mut self, body: &[u8]) -> Result<(), ProtocolError> {
        let types = parameter_description(body)?;
        let Some(Op { id, kind: Kind::Describe { statement: Some(name) }, .. }) = self.front() else {
            return Ok(());
        };
        let (id, name) = (*id, name.clone());
        // Not one that was made under the same name since.
        if let Some(entry) = self.statements.get_mut(&name).filter(|entry| entry.by < id) {
            let known = &entry.value;
            entry.value = Arc::new(Prepared { name, text: known.text.clone(), types });
        }
        Ok(())
    }

    fn take_tally(&mut self) -> Tally {
        let mut tally = std::mem::take(&mut self.tally);
        tally.bytes += std::mem::take(&mut self.copy_bytes);
        tally
    }

    fn answer_complete(&mut self, body: &[u8], events: &mut Vec<Event>) -> Result<(), ProtocolError> {
        let (command, rows) = backend::command_complete(body)?;
        let mut tally = self.take_tally();
        let mut resumed = false;
        self.copy_in = false;
        let exec = match self.front().map(|op| &mut op.kind) {
            Some(Kind::Query { slices, completed }) => {
                *completed = true;
                slices.pop_front().map(|slice| slice.exec)
            }
            Some(Kind::Execute { exec, first, .. }) => {
                let (exec, first) = (*exec, *first);
                self.ops.pop_front();
                match exec.and_then(|exec| self.suspended.remove(&exec)) {
                    Some(before) => {
                        resumed = true;
                        tally.rows += before.rows;
                        tally.bytes += before.bytes;
                    }
                    // A portal that had ended answers again with nothing; if not, it is another one.
                    None if !first && tally.rows == 0 && rows.is_none_or(|rows| rows == 0) => return Ok(()),
                    None => {}
                }
                exec.filter(|_| first || resumed)
            }
            _ => None,
        };
        // The tag of a resumed portal counts the last stretch only.
        let rows = if resumed { Some(tally.rows) } else { rows };
        let end = End { command: command.to_owned(), rows, ..End::new(How::Ok, tally) };
        events.push(match exec {
            Some(exec) => Event::Finished(exec, end),
            None => Event::Unannounced(end),
        });
        Ok(())
    }

    fn answer_empty(&mut self, events: &mut Vec<Event>) {
        if let Some(Kind::Execute { exec, .. }) = self.front().map(|op| &op.kind) {
            let exec = *exec;
            self.ops.pop_front();
            if let Some(exec) = exec {
                events.push(Event::Finished(exec, End::new(How::Ok, Tally::default())));
            }
        }
    }

    fn answer_suspended(&mut self, events: &mut Vec<Event>) {
        let tally = self.take_tally();
        if let Some(Kind::Execute { exec, first, .. }) = self.front().map(|op| &op.kind) {
            let (exec, first) = (*exec, *first);
            let known = exec.filter(|exec| first || self.suspended.contains_key(exec));
            self.ops.pop_front();
            if known.is_none() && tally.rows > 0 {
                // A portal that had ended has rows again: it is another one.
                let end = End { rows: Some(tally.rows), ..End::new(How::Ok, tally) };
                events.push(Event::Unannounced(End { command: "SELECT".into(), ..end }));
            }
            if let Some(exec) = known {
                let sum = self.suspended.entry(exec).or_default();
                sum.rows += tally.rows;
                sum.bytes += tally.bytes;
            }
        }
    }

    fn answer_call(&mut self, length: usize, events: &mut Vec<Event>) {
        if let Some(Kind::Call { exec }) = self.front().map(|op| &mut op.kind)
            && let Some(exec) = exec.take()
        {
            let tally = Tally { rows: 1, bytes: length as u64 };
            events.push(Event::Finished(exec, End { rows: Some(1), ..End::new(How::Ok, tally) }));
        }
    }

    /// CopyInResponse: from here the server reads COPY data, and ignores Syncs among it.
    fn answer_copy_in(&mut self) {
        self.copy_in = true;
        if !matches!(self.front().map(|op| &op.kind), Some(Kind::Execute { .. })) {
            // A simple query: its CopyEnd, if already asked, is next.
            if matches!(self.ops.get(1), Some(Op { kind: Kind::CopyEnd, .. })) {
                self.ops.remove(1);
                self.copy_in = false;
            }
            return;
        }
        while matches!(self.ops.get(1), Some(Op { kind: Kind::Sync, .. })) {
            self.ops.remove(1);
        }
        if matches!(self.ops.get(1), Some(Op { kind: Kind::CopyEnd, .. })) {
            self.ops.remove(1);
            self.copy_in = false;
        }
    }

    fn answer_error(&mut self, report: Report, events: &mut Vec<Event>) {
        let tally = self.take_tally();
        self.copy_in = false;
        let fatal = report.is_fatal();
        match self.front().map(|op| &mut op.kind) {
            Some(Kind::Query { slices, completed }) => {
                fail_query(slices, *completed, &report, tally, events);
            }
            Some(Kind::Call { exec }) => {
                if let Some(exec) = exec.take() {
                    events.push(failed(exec, &report, tally));
                }
            }
            Some(Kind::Sync) => events.push(Event::TransactionFailed(report.clone())),
            None => {}
            Some(_) => self.fail_segment(&report, tally, events),
        }
        if fatal {
            events.push(Event::Fatal(report));
        }
    }

    /// An operation of the extended protocol failed: the server ignores the rest up to Sync.
    fn fail_segment(&mut self, report: &Report, tally: Tally, events: &mut Vec<Event>) {
        let end = self.ops.iter().position(|op| matches!(op.kind, Kind::Sync));
        self.skipping = end.is_none();
        let end = end.unwrap_or(self.ops.len());
        let mut told = false;
        if let Some(Kind::Execute { exec, first, .. }) = self.ops.front().map(|op| &op.kind) {
            let (exec, first) = (*exec, *first);
            let before = exec.and_then(|exec| self.suspended.remove(&exec));
            if let Some(exec) = exec.filter(|_| first || before.is_some()) {
                told = true;
                let before = before.unwrap_or_default();
                let sum = Tally { rows: tally.rows + before.rows, bytes: tally.bytes + before.bytes };
                events.push(failed(exec, report, sum));
            }
            // Its end is told: what follows must not tell it again.
            if let Some(Op { kind: Kind::Execute { exec, .. }, .. }) = self.ops.front_mut() {
                *exec = None;
            }
        }
        let mut culprit = None;
        if !told {
            events.push(Event::TransactionFailed(report.clone()));
            culprit = self.ops.front().map(|op| Culprit {
                op: op.id,
                any: matches!(op.kind, Kind::Describe { .. } | Kind::Close { .. }),
                report,
            });
        }
        let later = self.ops.split_off(end);
        let mut ignored = std::mem::replace(&mut self.ops, later);
        self.take_back(&mut ignored, culprit, events);
    }

    /// Takes back the first `count` operations, which the server turned down or ignored.
    fn skip(&mut self, count: usize, events: &mut Vec<Event>) {
        let later = self.ops.split_off(count);
        let mut ignored = std::mem::replace(&mut self.ops, later);
        self.take_back(&mut ignored, None, events);
    }

    /// The first execution that leans on the culprit failed; the others never ran.
    fn take_back(
        &mut self,
        ignored: &mut VecDeque<Op>,
        mut culprit: Option<Culprit<'_>>,
        events: &mut Vec<Event>,
    ) {
        let skipped = |exec| Event::Finished(exec, End::new(How::Skipped, Tally::default()));
        for op in ignored.iter_mut() {
            match &mut op.kind {
                Kind::Execute { exec: Some(exec), first: true, leans } => {
                    // The portal, if it survives, has not run.
                    self.portals.for_each(|portal| portal.exec = portal.exec.filter(|ran| ran != exec));
                    let at_fault = |culprit: &mut Culprit<'_>| {
                        culprit.any || [leans.parse, leans.bind].contains(&Some(culprit.op))
                    };
                    events.push(match culprit.take_if(at_fault) {
                        Some(culprit) => failed(*exec, culprit.report, Tally::default()),
                        None => skipped(*exec),
                    });
                }
                Kind::Call { exec: Some(exec) } => events.push(skipped(*exec)),
                Kind::Query { slices, .. } => {
                    events.extend(slices.drain(..).map(|slice| skipped(slice.exec)))
                }
                _ => {}
            }
        }
        while let Some(op) = ignored.pop_back() {
            if let Some(undo) = op.statement {
                let later = self.ops.iter_mut().filter_map(|later| later.statement.as_mut());
                self.statements.undo(undo, op.id, later);
            }
            if let Some(undo) = op.portal {
                let later = self.ops.iter_mut().filter_map(|later| later.portal.as_mut());
                self.portals.undo(undo, op.id, later);
            }
        }
    }

    fn answer_ready(&mut self, body: &[u8], events: &mut Vec<Event>) -> Result<(), ProtocolError> {
        let status = backend::ready(body)?;
        self.copy_in = false;
        self.take_tally();
        let end = self
            .ops
            .iter()
            .position(|op| matches!(op.kind, Kind::Sync | Kind::Query { .. } | Kind::Call { .. }));
        if self.skipping {
            // The Sync that ends the stretch was asked after the error came.
            let end = self.ops.iter().position(|op| matches!(op.kind, Kind::Sync)).unwrap_or(self.ops.len());
            self.skipping = false;
            self.skip(end, events);
            self.ops.pop_front();
        } else if let Some(end) = end {
            for op in self.ops.drain(..=end) {
                lost(op.kind, &mut self.suspended, events);
            }
        }
        // Ends of COPY data that nobody asked for are ignored by the server.
        self.front();
        if status == Status::Idle {
            self.end_portals(events);
        }
        events.push(Event::Ready(status));
        Ok(())
    }

    /// The transaction is over and with it its portals.
    fn end_portals(&mut self, events: &mut Vec<Event>) {
        let front = self.ops.front().map_or(OpId::MAX, |op| op.id);
        let ended = self.portals.drain_matching(|_, entry| entry.by < front);
        for portal in ended {
            self.end_suspended(portal.exec, events);
        }
    }

    /// Where the conversation stands, for [`Conversation::retract`].
    pub fn mark(&self) -> u64 {
        self.next_op
    }

    /// Takes back what was asked since `mark`, none of which was forwarded. Says how many
    /// ReadyForQuery the client waits for on its account; `None` if it has not come to a Sync.
    pub fn retract(&mut self, mark: u64) -> Option<usize> {
        let ends = |op: &Op| matches!(op.kind, Kind::Sync | Kind::Query { .. } | Kind::Call { .. });
        let first = self.ops.iter().position(|op| op.id >= mark).unwrap_or(self.ops.len());
        let mut taken = self.ops.split_off(first);
        let rest = !self.skipping && !self.copy_in && taken.back().is_some_and(ends);
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
        let tally = self.take_tally();
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

fn failed(exec: ExecId, report: &Report, tally: Tally) -> Event {
    let rows = (tally.rows > 0).then_some(tally.rows);
    Event::Finished(exec, End { rows, report: report.clone(), ..End::new(How::Error, tally) })
}

/// One statement of a query string failed; those after it never ran. An error of the grammar stops
/// the whole string before its first statement, wherever it stands: the position tells.
fn fail_query(
    slices: &mut VecDeque<Slice>,
    completed: bool,
    report: &Report,
    tally: Tally,
    events: &mut Vec<Event>,
) {
    let culprit = match report.position {
        Some(position) if !completed && report.code == "42601" => {
            slices.iter().rposition(|slice| slice.start < position).unwrap_or(0)
        }
        _ => 0,
    };
    for (index, slice) in slices.drain(..).enumerate() {
        events.push(if index == culprit {
            failed(slice.exec, report, tally)
        } else {
            Event::Finished(slice.exec, End::new(How::Skipped, Tally::default()))
        });
    }
}

/// An operation that was passed over by an answer to a later one.
fn lost(kind: Kind, suspended: &mut HashMap<ExecId, Tally>, events: &mut Vec<Event>) {
    let mut tell = |exec| events.push(Event::Finished(exec, End::new(How::Lost, Tally::default())));
    match kind {
        Kind::Execute { exec: Some(exec), first: true, .. } => tell(exec),
        Kind::Execute { exec: Some(exec), first: false, .. } if suspended.remove(&exec).is_some() => {
            tell(exec)
        }
        Kind::Call { exec: Some(exec) } => tell(exec),
        Kind::Query { slices, .. } => slices.into_iter().for_each(|slice| tell(slice.exec)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
