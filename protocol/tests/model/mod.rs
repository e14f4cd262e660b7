//! A conversation led by arbitrary bytes, between a client that sends anything in any order, a strict
//! model of the server, and the [`Conversation`] between them, which must know the truth.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

mod server;

use std::collections::{BTreeMap, HashSet, VecDeque};

use pgwitness_protocol::ProtocolError;
use pgwitness_protocol::conversation::{Alters, Ask, Bounds, Conversation, End, Event, ExecId, How, Slice};
use pgwitness_protocol::frame::Frame;
use server::{Answer, Server, Truth};

const NAMES: [&str; 3] = ["", "a", "b"];
const PIPELINE_MAX: usize = 64;
/// Rounds after which the end must have come.
const LAST_ROUNDS_MAX: usize = 8;

/// Bytes that decide; zeros at their end.
pub(crate) struct Choices<'a> {
    data: &'a [u8],
}

impl Choices<'_> {
    fn next(&mut self) -> usize {
        match self.data.split_first() {
            Some((first, rest)) => {
                self.data = rest;
                usize::from(*first)
            }
            None => 0,
        }
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.next() % count
    }

    /// Never at the end of the bytes.
    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Select,
    Insert,
    Begin,
    Commit,
    Rollback,
    CopyIn,
    CopyOut,
    Empty,
}

/// A statement; its text is like no other.
#[derive(Debug, Clone)]
pub(crate) struct Stmt {
    pub(crate) verb: Verb,
    pub(crate) text: String,
}

impl Stmt {
    pub(crate) fn ends_transaction(&self) -> bool {
        matches!(self.verb, Verb::Commit | Verb::Rollback)
    }
}

/// What a client may send.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Query(Vec<Stmt>),
    Parse { name: String, stmt: Stmt },
    Bind { portal: String, statement: String },
    DescribeStatement(String),
    DescribePortal(String),
    Execute { portal: String, limit: u64 },
    CloseStatement(String),
    ClosePortal(String),
    Flush,
    Sync,
    Call,
    CopyData,
    CopyDone,
    CopyFail,
}

impl Message {
    fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Message::Query(stmts) => {
                let texts: Vec<_> = stmts.iter().map(|stmt| stmt.text.as_str()).collect();
                (b'Q', format!("{}\0", texts.join(";")).into_bytes())
            }
            Message::Parse { name, stmt } => (b'P', format!("{name}\0{}\0\0\0", stmt.text).into_bytes()),
            Message::Bind { portal, statement } => {
                (b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").into_bytes())
            }
            Message::DescribeStatement(name) => (b'D', format!("S{name}\0").into_bytes()),
            Message::DescribePortal(name) => (b'D', format!("P{name}\0").into_bytes()),
            Message::Execute { portal, limit } => {
                let mut body = format!("{portal}\0").into_bytes();
                body.extend((*limit as u32).to_be_bytes());
                (b'E', body)
            }
            Message::CloseStatement(name) => (b'C', format!("S{name}\0").into_bytes()),
            Message::ClosePortal(name) => (b'C', format!("P{name}\0").into_bytes()),
            Message::Flush => (b'H', Vec::new()),
            Message::Sync => (b'S', Vec::new()),
            Message::Call => (b'F', b"\0\0\x03\xbb\0\0\0\0\0\x01".to_vec()),
            Message::CopyData => (b'd', b"1\n".to_vec()),
            Message::CopyDone => (b'c', Vec::new()),
            Message::CopyFail => (b'f', b"no\0".to_vec()),
        }
    }
}

/// One execution as it was announced, and what was told of it.
struct Announced {
    text: Option<String>,
    told: Option<End>,
}

struct World<'a> {
    choices: Choices<'a>,
    conversation: Conversation,
    server: Server,
    /// Read by us, not yet by the server.
    to_server: VecDeque<(Message, Vec<Option<ExecId>>)>,
    /// Held back by [`Ask::Wait`].
    waiting: Option<Message>,
    announced: BTreeMap<ExecId, Announced>,
    /// Executions that were suspended once: they may end late.
    late: HashSet<ExecId>,
    last_told: Option<ExecId>,
    /// The gateway ended the session: it could not know how the server would take a message.
    given_up: bool,
    serial: u64,
    trace: bool,
}

/// Leads one conversation to its end; panics where the truth and the record differ.
pub(crate) fn run(data: &[u8]) {
    let bounds = Bounds { message: 1 << 16, names: 100, memory: 1 << 20, pipeline: PIPELINE_MAX };
    let mut world = World {
        choices: Choices { data },
        conversation: Conversation::new(bounds),
        server: Server::default(),
        to_server: VecDeque::new(),
        waiting: None,
        announced: BTreeMap::new(),
        late: HashSet::new(),
        last_told: None,
        given_up: false,
        serial: 0,
        trace: std::env::var_os("MODEL_TRACE").is_some(),
    };
    while !world.choices.data.is_empty() && !world.server.dead && !world.given_up {
        match world.choices.below(4) {
            0 | 1 => world.client_asks(),
            2 => world.server_reads(),
            _ => world.gateway_hears(),
        }
        // One end of COPY data may come beyond it.
        assert!(world.conversation.in_flight() <= PIPELINE_MAX + 1, "the pipeline grew beyond its bound");
    }
    world.end();
    world.judge();
}

impl World<'_> {
    fn trace(&self, what: &str, detail: &dyn std::fmt::Debug) {
        if self.trace {
            eprintln!("{what} {detail:?}");
        }
    }

    // The client

    fn client_asks(&mut self) {
        if self.waiting.is_none() {
            let message = self.choose();
            self.ask(message);
        }
    }

    fn name(&mut self) -> String {
        NAMES[self.choices.below(NAMES.len())].to_owned()
    }

    fn stmt(&mut self, empty: bool) -> Stmt {
        use Verb::*;
        let verbs = [Select, Select, Select, Insert, Begin, Commit, Rollback, CopyIn, CopyOut, Empty];
        let count = if empty { verbs.len() } else { verbs.len() - 1 };
        let verb = verbs[self.choices.below(count)];
        self.serial += 1;
        let text = if verb == Empty { String::new() } else { format!("{verb:?} {}", self.serial) };
        Stmt { verb, text }
    }

    fn choose(&mut self) -> Message {
        match self.choices.below(18) {
            0 => {
                let count = self.choices.below(4);
                Message::Query((0..count).map(|_| self.stmt(false)).collect())
            }
            1..=3 => Message::Parse { name: self.name(), stmt: self.stmt(true) },
            4..=6 => Message::Bind { portal: self.name(), statement: self.name() },
            7..=9 => Message::Execute { portal: self.name(), limit: self.choices.below(3) as u64 },
            10 => Message::DescribeStatement(self.name()),
            11 => Message::DescribePortal(self.name()),
            12 => Message::CloseStatement(self.name()),
            13 => Message::ClosePortal(self.name()),
            14 => match self.choices.below(4) {
                0 => Message::Flush,
                1 => Message::Call,
                2 => Message::CopyFail,
                _ => Message::CopyDone,
            },
            15 => [Message::CopyData, Message::CopyDone][self.choices.below(2)].clone(),
            _ => Message::Sync,
        }
    }

    /// The gateway reads the client's message, as `gateway::session` does.
    fn ask(&mut self, message: Message) {
        let (tag, body) = message.encode();
        let wanted = self.conversation.want_from_client(tag, body.len()).unwrap();
        let frame = Frame { tag, length: body.len(), body: &body[..wanted.min(body.len())] };
        let asked = match self.conversation.ask(&frame) {
            Ok(asked) => asked,
            Err(ProtocolError::TooMany { what: "Syncs among COPY data", .. }) => {
                self.given_up = true;
                return;
            }
            Err(error) => panic!("{message:?} was refused: {error}"),
        };
        let execs = match asked {
            Ask::Wait => {
                self.trace("waits", &message);
                self.waiting = Some(message);
                return;
            }
            Ask::Pass => vec![None],
            Ask::Terminate => unreachable!("nobody ended the session"),
            Ask::Query(text) => {
                let text = String::from_utf8(text.to_vec()).unwrap();
                let mut slices = Vec::new();
                let mut start = 0;
                for statement in text.split(';').filter(|statement| !statement.is_empty()) {
                    slices.push(Slice {
                        exec: announce(&mut self.announced, Some(statement.to_owned())),
                        start,
                    });
                    start += statement.len() + 1;
                }
                self.conversation.started_query(slices.iter().copied());
                slices.iter().map(|slice| Some(slice.exec)).collect()
            }
            Ask::Execute(execution) => {
                let text =
                    execution.prepared.as_ref().map(|known| String::from_utf8(known.text.to_vec()).unwrap());
                // An empty statement leaves no record.
                let exec = (text.as_deref() != Some("")).then(|| announce(&mut self.announced, text));
                self.conversation.started(tag, &execution.portal, exec);
                vec![exec]
            }
            Ask::Call(_) => {
                let exec = announce(&mut self.announced, Some("call".to_owned()));
                self.conversation.started(tag, b"", Some(exec));
                vec![Some(exec)]
            }
        };
        self.trace("asks", &(&message, &execs));
        self.alter(&execs);
        self.to_server.push_back((message, execs));
        let mut events = Vec::new();
        self.conversation.skip_ahead(&mut events);
        self.tell(events);
    }

    /// As the gateway does: what follows a COPY FROM STDIN must not be read without knowing its end.
    fn alter(&mut self, execs: &[Option<ExecId>]) {
        for exec in execs.iter().flatten() {
            let text = self.announced.get(exec).and_then(|one| one.text.as_deref());
            if text.is_some_and(|text| text.starts_with("CopyIn")) {
                self.conversation.alters(*exec, Alters::Meaning);
            }
        }
    }

    // The server, and what we hear of it

    fn server_reads(&mut self) {
        if let Some((message, execs)) = self.to_server.pop_front() {
            self.trace("server reads", &message);
            self.server.read(&message, &execs, &mut self.choices);
        }
    }

    fn gateway_hears(&mut self) {
        let Some(Answer { tag, body }) = self.server.out.pop_front() else { return };
        self.trace("hears", &(char::from(tag), String::from_utf8_lossy(&body)));
        let wanted = Conversation::want_from_server(tag, body.len());
        let frame = Frame { tag, length: body.len(), body: &body[..wanted.min(body.len())] };
        let mut events = Vec::new();
        self.conversation.answer(&frame, &mut events).unwrap();
        if tag == b's' {
            self.late
                .extend(self.announced.iter().filter(|(_, one)| one.told.is_none()).map(|(exec, _)| *exec));
        }
        self.tell(events);
        if let Some(message) = self.waiting.take() {
            self.ask(message);
        }
    }

    fn tell(&mut self, events: Vec<Event>) {
        for event in events {
            self.trace("tells", &event);
            match event {
                Event::Finished(exec, end) => {
                    let announced = self.announced.get_mut(&exec).unwrap();
                    assert!(announced.told.is_none(), "{exec:?} ended twice: {:?}, {end:?}", announced.told);
                    announced.told = Some(end);
                    if !self.late.contains(&exec) {
                        assert!(self.last_told < Some(exec), "{exec:?} ended after {:?}", self.last_told);
                        self.last_told = Some(exec);
                    }
                }
                Event::Unannounced(end) => panic!("something ran that nobody announced: {end:?}"),
                _ => {}
            }
        }
    }

    // The end

    fn settle(&mut self) {
        while !self.to_server.is_empty() || !self.server.out.is_empty() {
            self.server_reads();
            while !self.server.out.is_empty() {
                self.gateway_hears();
            }
        }
    }

    fn end(&mut self) {
        self.choices.data = &[];
        self.settle();
        for _ in 0..LAST_ROUNDS_MAX {
            if self.server.dead || self.given_up {
                break;
            }
            if self.server.reads_copy() {
                // A client that sent something else meanwhile must not wait for its answer.
                self.waiting = None;
                self.ask(Message::CopyDone);
                self.settle();
            }
            if self.waiting.is_some() && self.conversation.is_undecided() {
                self.given_up = true;
                break;
            }
            assert!(self.waiting.is_none(), "a message waits though nothing is in flight");
            self.ask(Message::Sync);
            self.settle();
        }
        if !self.server.dead && !self.given_up {
            assert!(
                self.conversation.is_idle(),
                "all was answered and yet something is awaited: {:?}",
                self.conversation
            );
        }
        let mut events = Vec::new();
        self.late.extend(self.announced.keys());
        self.conversation.abandon(&mut events);
        self.tell(events);
    }

    fn judge(&self) {
        for (exec, Announced { text, told }) in &self.announced {
            let Some(end) = told else { panic!("{exec:?} {text:?} has no end") };
            let truth = self.server.truths.get(exec);
            let wrong = || panic!("{exec:?} {text:?}: told {end:?}, but in truth {truth:?}");
            match truth {
                // Its answer was not awaited.
                _ if end.how == How::Lost && self.given_up => {}
                Some(Truth::Ok(ran, rows)) => {
                    // It stood suspended, its transaction ended within a query string, and it was asked to go on.
                    let gone = end.how == How::Error
                        && end.report.as_ref().is_some_and(|report| report.code == "34000")
                        && self.late.contains(exec);
                    if gone && text.as_ref() == Some(ran) && end.rows.unwrap_or(0) == *rows {
                        continue;
                    }
                    if end.how != How::Ok || text.as_ref() != Some(ran) || end.rows.unwrap_or(0) != *rows {
                        wrong();
                    }
                }
                Some(Truth::Failed(ran)) => {
                    if end.how != How::Error || text.as_ref() != Some(ran) {
                        wrong();
                    }
                }
                // It never ran: skipped, or blamed for a Parse or Bind that it leans on.
                None if matches!(end.how, How::Skipped | How::Error) => {}
                None if end.how == How::Lost && (self.server.dead || self.given_up) => {}
                None => wrong(),
            }
        }
    }
}

fn announce(announced: &mut BTreeMap<ExecId, Announced>, text: Option<String>) -> ExecId {
    let exec = ExecId(announced.len() as u64);
    announced.insert(exec, Announced { text, told: None });
    exec
}
