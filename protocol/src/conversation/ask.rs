//! The client's side of the extended protocol: what each message will mean to the server.

use super::*;

impl Conversation {
    /// Whether a message cannot be understood before the server has said more.
    pub(super) fn must_wait(&mut self, tag: u8) -> bool {
        match tag {
            b'd' | b'H' | b'X' => false,
            // The server waits for it: it must not wait for the server.
            b'c' | b'f' if self.reads_copy() => false,
            _ if self.ops.len() >= self.bounds.pipeline => true,
            b'c' | b'f' => false,
            // The server ignores it, or waits for it.
            b'S' if self.copying || self.doubtful > 0 => false,
            _ => self.skips_to_an_unknown_sync() || self.is_altering(),
        }
    }

    /// Whether nothing is unanswered but Syncs in doubt, and ends of COPY data, which have no answer.
    pub(super) fn is_settled(&self) -> bool {
        let syncs = |op: &Op| usize::from(matches!(op.kind, Kind::Sync));
        let silent = |op: &Op| matches!(op.kind, Kind::Sync | Kind::CopyEnd { .. });
        self.ops.is_empty()
            || (self.ops.iter().all(silent) && self.ops.iter().map(syncs).sum::<usize>() <= self.doubtful)
    }

    /// The client has sent no end of the COPY data that the server reads.
    pub(super) fn reads_copy(&self) -> bool {
        self.copying && !self.ops.iter().any(|op| matches!(op.kind, Kind::CopyEnd { .. }))
    }

    /// The server may have taken a Sync for a part of COPY data, and ignore everything until another;
    /// or it stands behind that Sync, and will say so.
    pub(super) fn skips_to_an_unknown_sync(&self) -> bool {
        self.skipping && self.doubtful > 0
    }

    pub(super) fn end_copy(&mut self) {
        let bytes = std::mem::take(&mut self.copy_bytes);
        if self.copying || !self.ops.is_empty() {
            self.push(Kind::CopyEnd { bytes });
        }
    }

    pub(super) fn ask_parse<'f>(&mut self, body: &[u8]) -> Result<Ask<'f>, ProtocolError> {
        let parse = frontend::parse(body)?;
        if self.statements.len() >= self.bounds.names && self.statements.get(parse.name).is_none() {
            return Err(ProtocolError::TooMany { what: "prepared statements", limit: self.bounds.names });
        }
        self.has_room(self.statements.size_with(parse.name, parse.text.len()))?;
        let size = parse.text.len();
        // A client that parses the same text again and again under one name shares it: whoever
        // remembers what the text means finds it by its address.
        let same = self.statements.get(parse.name).map(|entry| &entry.value.text);
        let text = match same.filter(|text| ***text == *parse.text) {
            Some(text) => text.clone(),
            None => parse.text.into(),
        };
        let prepared =
            Arc::new(Prepared { name: parse.name.into(), text, types: parse.types, origins: Vec::new() });
        let entry = Entry { value: prepared, by: self.next_op, segment: self.segment, size };
        let undo = self.statements.set(parse.name, entry);
        self.push(Kind::Parse).statement = Some(undo);
        Ok(Ask::Pass)
    }

    pub(super) fn ask_bind<'f>(&mut self, body: &[u8]) -> Result<Ask<'f>, ProtocolError> {
        let bind = frontend::bind(body)?;
        let statement = self.statements.get(bind.statement);
        if statement.is_some_and(|entry| self.is_open(entry))
            || self.is_closing(|| Closed::Statement(bind.statement.into()))
        {
            return Ok(Ask::Wait);
        }
        if self.portals.len() >= self.bounds.names && self.portals.get(bind.portal).is_none() {
            return Err(ProtocolError::TooMany { what: "portals", limit: self.bounds.names });
        }
        self.has_room(self.portals.size_with(bind.portal, body.len()))?;
        let altered =
            self.is_altered(statement.map(|entry| entry.by), |alters| alters.statement(bind.statement));
        let statement = statement.filter(|_| !altered);
        let portal = Portal {
            prepared: statement.map(|entry| entry.value.clone()),
            parsed_by: statement.map(|entry| entry.by),
            bind: body.into(),
            exec: None,
        };
        let entry = Entry { value: portal, by: self.next_op, segment: self.segment, size: body.len() };
        let mut undo = self.portals.set(bind.portal, entry);
        undo.lighten();
        let replaced = undo.previous().and_then(|portal| portal.exec);
        self.push(Kind::Bind { replaced }).portal = Some(undo);
        Ok(Ask::Pass)
    }

    fn has_room(&self, size: Option<usize>) -> Result<(), ProtocolError> {
        match size.filter(|size| *size > self.bounds.memory) {
            Some(_) => Err(ProtocolError::TooMuch { limit: self.bounds.memory }),
            None => Ok(()),
        }
    }

    /// Notes that a Close has taken a name away; what was answered since is forgotten before it piles up.
    fn note_closing(&mut self, closed: Closed) {
        if self.closing.len() >= self.bounds.pipeline {
            let front = self.ops.front().map_or(OpId::MAX, |op| op.id);
            self.closing.retain(|_, (op, _)| *op >= front);
        }
        self.closing.insert(closed, (self.next_op, self.segment));
    }

    pub(super) fn ask_execute<'f>(&mut self, body: &[u8]) -> Result<Ask<'f>, ProtocolError> {
        let (name, _limit) = frontend::execute(body)?;
        let entry = self.portals.get(name);
        if entry.is_some_and(|entry| self.is_open(entry)) || self.is_closing(|| Closed::Portal(name.into())) {
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

    pub(super) fn ask_describe<'f>(&mut self, body: &[u8]) -> Result<Ask<'f>, ProtocolError> {
        let statement = match frontend::target(b'D', body)? {
            Target::Statement(name) => Some(name.into()),
            Target::Portal(_) => None,
        };
        self.push(Kind::Describe { statement });
        Ok(Ask::Pass)
    }

    pub(super) fn ask_close<'f>(&mut self, body: &[u8]) -> Result<Ask<'f>, ProtocolError> {
        match frontend::target(b'C', body)? {
            Target::Statement(name) => {
                let undo = self.statements.remove(name);
                if undo.is_some() {
                    self.note_closing(Closed::Statement(name.into()));
                }
                self.push(Kind::Close { closed: None }).statement = undo;
            }
            Target::Portal(name) => {
                let undo = self.portals.remove(name);
                if undo.is_some() {
                    self.note_closing(Closed::Portal(name.into()));
                }
                let closed = undo.as_ref().and_then(Undo::previous).and_then(|portal| portal.exec);
                self.push(Kind::Close { closed }).portal = undo;
            }
        }
        Ok(Ask::Pass)
    }

    pub(super) fn ask_sync(&mut self) {
        if self.doubtful > 0 {
            // One that the server will surely heed.
            self.skipping = false;
        }
        self.push(Kind::Sync);
        self.segment += 1;
    }
}
