//! PostgreSQL's message loop, simple and slow: `PostgresMain`, `exec_*_message` and `CopyGetData`, one
//! message at a time. Success and failure are chosen by the caller's bytes.

use std::collections::{HashMap, VecDeque};

use pgwitness_protocol::conversation::ExecId;

use super::{Choices, Message, Stmt, Verb};

/// One message to the client.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) tag: u8,
    pub(crate) body: Vec<u8>,
}

/// What really became of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Truth {
    /// It ran to its end, or stands suspended: its statement and its rows.
    Ok(String, u64),
    /// It ran and failed.
    Failed(String),
}

#[derive(Debug, Clone)]
struct Portal {
    stmt: Stmt,
    /// The first Execute that ran it.
    exec: Option<ExecId>,
    started: bool,
    rows_left: u64,
    rows_done: u64,
    ended: bool,
    /// Its transaction has failed.
    dead: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    None,
    Open,
    Failed,
}

/// A COPY FROM STDIN that reads data.
#[derive(Debug)]
struct CopyIn {
    extended: bool,
    exec: Option<ExecId>,
    text: String,
    /// What follows it in a query string.
    rest: VecDeque<(Stmt, Option<ExecId>)>,
}

#[derive(Debug, Default)]
pub(crate) struct Server {
    statements: HashMap<String, Stmt>,
    portals: HashMap<String, Portal>,
    block: Option<Block>,
    skipping: bool,
    copy: Option<CopyIn>,
    pub(crate) dead: bool,
    pub(crate) truths: HashMap<ExecId, Truth>,
    pub(crate) out: VecDeque<Answer>,
}

/// A statement failed; in the extended protocol the rest up to Sync is ignored.
struct Failed;

impl Server {
    fn block(&self) -> Block {
        self.block.unwrap_or(Block::None)
    }

    pub(crate) fn reads_copy(&self) -> bool {
        self.copy.is_some()
    }

    fn say(&mut self, tag: u8, body: &[u8]) {
        self.out.push_back(Answer { tag, body: body.to_vec() });
    }

    fn say_error(&mut self, severity: &str, code: &str, position: Option<usize>) {
        let mut body = format!("S{severity}\0V{severity}\0C{code}\0Mno\0").into_bytes();
        if let Some(position) = position {
            body.extend(format!("P{position}\0").into_bytes());
        }
        body.push(0);
        self.say(b'E', &body);
    }

    fn say_ready(&mut self) {
        let status = match self.block() {
            Block::None => b"I",
            Block::Open => b"T",
            Block::Failed => b"E",
        };
        self.say(b'Z', status);
    }

    fn complete(&mut self, tag: &str) {
        self.say(b'C', format!("{tag}\0").as_bytes());
    }

    /// An error aborts the transaction.
    fn fail(&mut self, code: &str, position: Option<usize>) {
        self.say_error("ERROR", code, position);
        match self.block() {
            Block::None => self.portals.clear(),
            _ => {
                self.block = Some(Block::Failed);
                self.portals.values_mut().for_each(|portal| portal.dead = true);
            }
        }
    }

    /// The end of an implicit transaction.
    fn end_implicit(&mut self) {
        if self.block() == Block::None {
            self.portals.clear();
        }
    }

    /// Reads one message.
    pub(crate) fn read(&mut self, message: &Message, execs: &[Option<ExecId>], choices: &mut Choices<'_>) {
        if self.dead {
            return;
        }
        if self.copy.is_some() {
            return self.read_copy(message, choices);
        }
        if self.skipping && !matches!(message, Message::Sync) {
            return;
        }
        let done = match message {
            Message::Query(stmts) => {
                self.query(stmts, execs, choices);
                Ok(())
            }
            Message::Parse { name, stmt } => self.parse(name, stmt, choices),
            Message::Bind { portal, statement } => self.bind(portal, statement, choices),
            Message::DescribeStatement(name) => self.describe_statement(name),
            Message::DescribePortal(name) => self.describe_portal(name),
            Message::Execute { portal, limit } => {
                self.execute(portal, *limit, execs.first().copied().flatten(), choices)
            }
            Message::CloseStatement(name) => {
                self.statements.remove(name);
                self.say(b'3', b"");
                Ok(())
            }
            Message::ClosePortal(name) => {
                self.portals.remove(name);
                self.say(b'3', b"");
                Ok(())
            }
            Message::Call => {
                self.call(execs.first().copied().flatten(), choices);
                Ok(())
            }
            Message::Sync => {
                self.sync(choices);
                Ok(())
            }
            // Data of a COPY that is over is ignored.
            Message::Flush | Message::CopyData | Message::CopyDone | Message::CopyFail => Ok(()),
        };
        self.skipping |= done.is_err();
    }

    fn sync(&mut self, choices: &mut Choices<'_>) {
        self.skipping = false;
        if self.block() == Block::None && !self.portals.is_empty() && choices.one_in(16) {
            self.fail("23503", None); // a deferred constraint
        }
        self.end_implicit();
        self.say_ready();
    }

    fn call(&mut self, exec: Option<ExecId>, choices: &mut Choices<'_>) {
        if self.block() == Block::Failed || choices.one_in(4) {
            self.fail("42883", None);
            self.note(exec, Truth::Failed("call".into()));
        } else {
            self.say(b'V', b"\0\0\0\0");
            self.note(exec, Truth::Ok("call".into(), 1));
        }
        self.end_implicit();
        self.say_ready();
    }

    fn note(&mut self, exec: Option<ExecId>, truth: Truth) {
        let exec = exec.unwrap_or_else(|| panic!("nobody announced what ran: {truth:?}"));
        self.truths.insert(exec, truth);
    }

    // Simple query

    fn query(&mut self, stmts: &[Stmt], execs: &[Option<ExecId>], choices: &mut Choices<'_>) {
        self.statements.remove("");
        if choices.one_in(12) && !stmts.is_empty() {
            // An error of the grammar: nothing has run.
            let at = choices.below(stmts.len());
            let before: usize = stmts.iter().take(at).map(|stmt| stmt.text.len() + 1).sum();
            self.fail("42601", Some(before + 1));
            self.end_implicit();
            return self.say_ready();
        }
        let work: VecDeque<_> = stmts.iter().cloned().zip(execs.iter().copied()).collect();
        if work.is_empty() {
            self.say(b'I', b"");
        }
        self.run_string(work, choices);
    }

    fn run_string(&mut self, mut work: VecDeque<(Stmt, Option<ExecId>)>, choices: &mut Choices<'_>) {
        while let Some((stmt, exec)) = work.pop_front() {
            self.portals.remove("");
            if stmt.verb == Verb::CopyIn && self.may_run(&stmt) && !choices.one_in(5) {
                self.say(b'G', b"\0\0\0");
                if choices.one_in(5) {
                    self.note(exec, Truth::Failed(stmt.text));
                    self.fail("42809", None); // found only now, with nothing read yet
                    break;
                }
                self.copy = Some(CopyIn { extended: false, exec, text: stmt.text, rest: work });
                return;
            }
            if self.run(&stmt, exec, choices).is_err() {
                break;
            }
        }
        self.end_implicit();
        self.say_ready();
    }

    fn may_run(&self, stmt: &Stmt) -> bool {
        self.block() != Block::Failed || stmt.ends_transaction()
    }

    /// Runs a statement whole.
    fn run(&mut self, stmt: &Stmt, exec: Option<ExecId>, choices: &mut Choices<'_>) -> Result<(), Failed> {
        let rows = choices.below(4) as u64;
        if !self.may_run(stmt) || choices.one_in(5) {
            if stmt.verb == Verb::Select && self.may_run(stmt) {
                self.rows(rows);
            }
            self.note(exec, Truth::Failed(stmt.text.clone()));
            self.fail("22012", None);
            if stmt.ends_transaction() {
                self.block = None;
                self.portals.clear();
            }
            return Err(Failed);
        }
        let rows = match stmt.verb {
            Verb::Select => {
                self.rows(rows);
                self.complete(&format!("SELECT {rows}"));
                rows
            }
            Verb::Insert | Verb::CopyIn => {
                self.complete(&format!("INSERT 0 {rows}"));
                rows
            }
            Verb::CopyOut => {
                self.say(b'H', b"\0\0\0");
                (0..rows).for_each(|_| self.say(b'd', b"1\n"));
                self.say(b'c', b"");
                self.complete(&format!("COPY {rows}"));
                rows
            }
            Verb::Begin => {
                self.block = Some(Block::Open);
                self.complete("BEGIN");
                0
            }
            Verb::Commit | Verb::Rollback => {
                let kept = stmt.verb == Verb::Commit && self.block() != Block::Failed;
                self.block = None;
                self.portals.clear();
                self.complete(if kept { "COMMIT" } else { "ROLLBACK" });
                0
            }
            Verb::Empty => unreachable!("an empty statement does not run"),
        };
        self.note(exec, Truth::Ok(stmt.text.clone(), rows));
        Ok(())
    }

    fn rows(&mut self, rows: u64) {
        (0..rows).for_each(|_| self.say(b'D', b"\0\0"));
    }

    // COPY FROM STDIN

    fn read_copy(&mut self, message: &Message, choices: &mut Choices<'_>) {
        match message {
            Message::CopyData if choices.one_in(6) => self.fail_copy("22P02"),
            Message::CopyData | Message::Flush | Message::Sync => {}
            Message::CopyFail => self.fail_copy("57014"),
            Message::CopyDone if choices.one_in(6) => self.fail_copy("23505"),
            Message::CopyDone => self.end_copy(choices),
            _ => {
                self.fail_copy("08P01");
                self.say_error("FATAL", "08P01", None);
                self.dead = true;
            }
        }
    }

    fn end_copy(&mut self, choices: &mut Choices<'_>) {
        let Some(copy) = self.copy.take() else { return };
        let rows = choices.below(3) as u64;
        self.complete(&format!("COPY {rows}"));
        self.note(copy.exec, Truth::Ok(copy.text, rows));
        if !copy.extended {
            self.run_string(copy.rest, choices);
        }
    }

    fn fail_copy(&mut self, code: &str) {
        let Some(copy) = self.copy.take() else { return };
        self.note(copy.exec, Truth::Failed(copy.text));
        self.fail(code, None);
        if copy.extended {
            self.skipping = true;
        } else {
            self.end_implicit();
            self.say_ready();
        }
    }

    // Extended protocol

    fn parse(&mut self, name: &str, stmt: &Stmt, choices: &mut Choices<'_>) -> Result<(), Failed> {
        if name.is_empty() {
            self.statements.remove("");
        }
        let known = !name.is_empty() && self.statements.contains_key(name);
        if known || !self.may_run(stmt) || choices.one_in(8) {
            self.fail(if known { "42P05" } else { "42601" }, None);
            return Err(Failed);
        }
        self.statements.insert(name.into(), stmt.clone());
        self.say(b'1', b"");
        Ok(())
    }

    fn bind(&mut self, portal: &str, statement: &str, choices: &mut Choices<'_>) -> Result<(), Failed> {
        let Some(stmt) = self.statements.get(statement).cloned() else {
            self.fail("26000", None);
            return Err(Failed);
        };
        let known = !portal.is_empty() && self.portals.contains_key(portal);
        if known || !self.may_run(&stmt) || choices.one_in(8) {
            self.fail(if known { "42P03" } else { "22P02" }, None);
            return Err(Failed);
        }
        let rows_left = choices.below(4) as u64;
        let bound =
            Portal { stmt, exec: None, started: false, rows_left, rows_done: 0, ended: false, dead: false };
        self.portals.insert(portal.into(), bound);
        self.say(b'2', b"");
        Ok(())
    }

    fn describe_statement(&mut self, name: &str) -> Result<(), Failed> {
        let returns = self.statements.get(name).map(|stmt| stmt.verb == Verb::Select);
        let Some(returns) = returns.filter(|returns| !returns || self.block() != Block::Failed) else {
            self.fail("26000", None);
            return Err(Failed);
        };
        self.say(b't', b"\0\0");
        self.describe_rows(returns);
        Ok(())
    }

    fn describe_portal(&mut self, name: &str) -> Result<(), Failed> {
        let returns = self.portals.get(name).map(|portal| portal.stmt.verb == Verb::Select);
        let Some(returns) = returns.filter(|returns| !returns || self.block() != Block::Failed) else {
            self.fail("34000", None);
            return Err(Failed);
        };
        self.describe_rows(returns);
        Ok(())
    }

    fn describe_rows(&mut self, returns: bool) {
        self.say(if returns { b'T' } else { b'n' }, if returns { b"\0\0" } else { b"" });
    }

    fn execute(
        &mut self,
        name: &str,
        limit: u64,
        exec: Option<ExecId>,
        choices: &mut Choices<'_>,
    ) -> Result<(), Failed> {
        let Some(mut portal) = self.portals.get(name).cloned() else {
            self.fail("34000", None);
            return Err(Failed);
        };
        if portal.stmt.verb == Verb::Empty {
            self.say(b'I', b"");
            return Ok(());
        }
        if portal.dead || !self.may_run(&portal.stmt) {
            if portal.started && !portal.ended {
                self.note(portal.exec, Truth::Failed(portal.stmt.text)); // it cannot go on
            }
            self.fail("25P02", None);
            return Err(Failed);
        }
        if portal.ended && portal.stmt.verb == Verb::Select {
            self.complete("SELECT 0");
            return Ok(());
        }
        if portal.ended {
            self.fail("55000", None);
            return Err(Failed);
        }
        if !portal.started {
            portal.exec = exec;
            portal.started = true;
        }
        self.run_portal(name, portal, limit, choices)
    }

    fn run_portal(
        &mut self,
        name: &str,
        mut portal: Portal,
        limit: u64,
        choices: &mut Choices<'_>,
    ) -> Result<(), Failed> {
        let exec = portal.exec;
        let stmt = portal.stmt.clone();
        match stmt.verb {
            Verb::Select if !choices.one_in(6) => {
                let all = limit == 0 || portal.rows_left < limit;
                let rows = if all { portal.rows_left } else { limit };
                portal.rows_left -= rows;
                portal.rows_done += rows;
                portal.ended = all;
                self.rows(rows);
                self.note(exec, Truth::Ok(stmt.text, portal.rows_done));
                match all {
                    true => self.complete(&format!("SELECT {rows}")),
                    false => self.say(b's', b""),
                }
                self.portals.insert(name.into(), portal);
                Ok(())
            }
            Verb::Select => {
                self.rows(portal.rows_left.min(1));
                self.note(exec, Truth::Failed(stmt.text));
                self.fail("22012", None);
                Err(Failed)
            }
            Verb::CopyIn if !choices.one_in(5) => {
                portal.ended = true;
                self.portals.insert(name.into(), portal);
                self.say(b'G', b"\0\0\0");
                if choices.one_in(5) {
                    self.note(exec, Truth::Failed(stmt.text));
                    self.fail("42809", None); // found only now, with nothing read yet
                    return Err(Failed);
                }
                self.copy = Some(CopyIn { extended: true, exec, text: stmt.text, rest: VecDeque::new() });
                Ok(())
            }
            _ => {
                portal.ended = true;
                self.portals.insert(name.into(), portal);
                self.run(&stmt, exec, choices)
            }
        }
    }
}
