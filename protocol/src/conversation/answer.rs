//! The server's side: what each answer belongs to, and how each execution ended.

use super::*;

impl Conversation {
    pub(super) fn hear(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Result<(), ProtocolError> {
        if self.doubtful > 0 && !matches!(frame.tag, b'Z' | b'S' | b'N' | b'A') {
            self.drop_doubtful();
        }
        if matches!(frame.tag, b'E' | b'Z') {
            // What was described has not been executed.
            self.origins = Vec::new();
        }
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
            b'T' => self.answer_rows(frame.body),
            b'n' => self.answer_simple(|kind| matches!(kind, Kind::Describe { .. })),
            b'I' => self.answer_empty(events),
            b's' => self.answer_suspended(events),
            b'V' => self.answer_call(frame.length, events),
            b'G' => self.answer_copy_in(),
            // The server reads what a standby says of itself, until either side ends the stream.
            b'W' => self.answer_copy_in(),
            b'S' => {
                let (name, value) = backend::parameter_status(frame.body)?;
                events.push(Event::Parameter { name: name.into(), value: value.into() });
            }
            _ => {}
        }
        Ok(())
    }

    /// The oldest unanswered operation, past ends of COPY data that the server ignored.
    pub(super) fn front(&mut self) -> Option<&mut Op> {
        while matches!(self.ops.front(), Some(Op { kind: Kind::CopyEnd { .. }, .. })) {
            self.ops.pop_front();
        }
        self.ops.front_mut()
    }

    pub(super) fn answer_simple(&mut self, expected: impl Fn(&Kind) -> bool) {
        if self.front().is_some_and(|op| expected(&op.kind)) {
            self.ops.pop_front();
        }
    }

    /// BindComplete and CloseComplete: a portal that was replaced or closed ends its execution.
    pub(super) fn answer_names(&mut self, events: &mut Vec<Event>) {
        let ended = match self.front().map(|op| &op.kind) {
            Some(Kind::Bind { replaced }) => *replaced,
            Some(Kind::Close { closed }) => *closed,
            _ => return,
        };
        self.ops.pop_front();
        end_suspended(&mut self.suspended, ended, events);
    }

    pub(super) fn answer_types(&mut self, body: &[u8]) -> Result<(), ProtocolError> {
        let types = parameter_description(body)?;
        let Some(Op { id, kind: Kind::Describe { statement: Some(name) }, .. }) = self.front() else {
            return Ok(());
        };
        let (id, name) = (*id, name.clone());
        // Not one that was made under the same name since.
        if let Some(entry) = self.statements.get_mut(&name).filter(|entry| entry.by < id) {
            let known = &entry.value;
            entry.value = Arc::new(Prepared { name, text: known.text.clone(), types, origins: Vec::new() });
        }
        Ok(())
    }

    /// RowDescription: of a prepared statement, or of the execution that follows.
    fn answer_rows(&mut self, body: &[u8]) {
        // It decides nothing that is forwarded: one that is not understood says nothing.
        let origins = backend::row_description(body).unwrap_or_default();
        match self.front() {
            Some(Op { kind: Kind::Describe { statement: Some(name) }, id, .. }) => {
                let (id, name) = (*id, name.clone());
                if let Some(entry) = self.statements.get_mut(&name).filter(|entry| entry.by < id) {
                    Arc::make_mut(&mut entry.value).origins = origins;
                }
            }
            Some(_) => self.origins = origins,
            None => {}
        }
        self.answer_simple(|kind| matches!(kind, Kind::Describe { .. }));
    }

    pub(super) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Bytes of the COPY that the server reads: up to their end, if it has been asked. What was sent ahead of
    /// another COPY is not of this one.
    pub(super) fn copied(&mut self) -> u64 {
        if !self.copying {
            return 0;
        }
        let end = self.ops.iter().find_map(|op| match op.kind {
            Kind::CopyEnd { bytes } => Some(bytes),
            _ => None,
        });
        end.unwrap_or_else(|| std::mem::take(&mut self.copy_bytes))
    }

    pub(super) fn answer_complete(
        &mut self,
        body: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), ProtocolError> {
        let (command, rows) = backend::command_complete(body)?;
        if let Some(Kind::Replication { command: told, .. }) = self.front().map(|op| &mut op.kind) {
            *told = backend::shared_words(command);
            self.settle_copy();
            return Ok(());
        }
        let mut tally = self.take_tally();
        let origins = std::mem::take(&mut self.origins);
        tally.bytes += self.copied();
        let mut resumed = false;
        self.settle_copy();
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
        let end = End { command: backend::shared_words(command), rows, origins, ..End::new(How::Ok, tally) };
        events.push(match exec {
            Some(exec) => Event::Finished(exec, end),
            None => Event::Unannounced(end),
        });
        Ok(())
    }

    pub(super) fn answer_empty(&mut self, events: &mut Vec<Event>) {
        if let Some(Kind::Execute { exec, .. }) = self.front().map(|op| &op.kind) {
            let exec = *exec;
            self.ops.pop_front();
            if let Some(exec) = exec {
                events.push(Event::Finished(exec, End::new(How::Ok, Tally::default())));
            }
        }
    }

    pub(super) fn answer_suspended(&mut self, events: &mut Vec<Event>) {
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

    pub(super) fn answer_call(&mut self, length: usize, events: &mut Vec<Event>) {
        if let Some(Kind::Call { exec }) = self.front().map(|op| &mut op.kind)
            && let Some(exec) = exec.take()
        {
            let tally = Tally { rows: 1, bytes: length as u64 };
            events.push(Event::Finished(exec, End { rows: Some(1), ..End::new(How::Ok, tally) }));
        }
    }

    /// CopyInResponse: from here the server reads COPY data, and ignores Syncs among it.
    pub(super) fn answer_copy_in(&mut self) {
        // Ends of data that nobody wanted do not stand before it.
        self.front();
        self.copying = true;
    }

    /// The COPY has read its data to the end: the Syncs among them have no answer.
    fn settle_copy(&mut self) {
        if !std::mem::take(&mut self.copying) {
            return;
        }
        while let Some(Op { kind: Kind::Sync | Kind::CopyEnd { .. }, .. }) = self.ops.get(1) {
            if matches!(self.ops.remove(1), Some(Op { kind: Kind::CopyEnd { .. }, .. })) {
                return;
            }
        }
    }

    /// The COPY failed: how far it had read is not known, and so whether the Syncs among its data were
    /// taken for such.
    fn doubt_copy(&mut self) {
        if !std::mem::take(&mut self.copying) {
            return;
        }
        let among = self.ops.iter().skip(1).take_while(|op| matches!(op.kind, Kind::Sync)).count();
        self.doubtful = among;
        self.ops.retain(|op| !matches!(op.kind, Kind::CopyEnd { .. }));
    }

    /// What was answered just now comes after the Syncs in doubt: they had been read as COPY data.
    fn drop_doubtful(&mut self) {
        while self.doubtful > 0 && matches!(self.front(), Some(Op { kind: Kind::Sync, .. })) {
            self.ops.pop_front();
            self.doubtful -= 1;
        }
    }

    pub(super) fn answer_error(&mut self, report: Report, events: &mut Vec<Event>) {
        let mut tally = self.take_tally();
        tally.bytes += self.copied();
        self.copy_bytes = 0;
        self.doubt_copy();
        let fatal = report.is_fatal();
        match self.front().map(|op| &mut op.kind) {
            Some(Kind::Query { slices, completed }) => {
                fail_query(slices, *completed, &report, tally, events);
            }
            Some(Kind::Call { exec } | Kind::Replication { exec, .. }) => {
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
    pub(super) fn fail_segment(&mut self, report: &Report, tally: Tally, events: &mut Vec<Event>) {
        let syncs = self.ops.iter().filter(|op| matches!(op.kind, Kind::Sync)).count();
        self.skipping = syncs <= self.doubtful;
        let end = self.ops.iter().position(|op| matches!(op.kind, Kind::Sync)).unwrap_or(self.ops.len());
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
            // Whoever asks the portal to go on makes an attempt of its own.
            self.portals.for_each(|portal| portal.exec = portal.exec.filter(|ran| Some(*ran) != exec));
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
    pub(super) fn skip(&mut self, count: usize, events: &mut Vec<Event>) {
        let later = self.ops.split_off(count);
        let mut ignored = std::mem::replace(&mut self.ops, later);
        self.take_back(&mut ignored, None, events);
    }

    /// The first execution that leans on the culprit failed; the others never ran.
    pub(super) fn take_back(
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
                Kind::Call { exec: Some(exec) } | Kind::Replication { exec: Some(exec), .. } => {
                    events.push(skipped(*exec));
                }
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

    pub(super) fn answer_ready(&mut self, body: &[u8], events: &mut Vec<Event>) -> Result<(), ProtocolError> {
        let status = backend::ready(body)?;
        self.copying = false;
        let tally = self.take_tally();
        let end = self.ops.iter().position(|op| op.kind.ends());
        if self.skipping {
            // The Sync that ends the stretch was asked after the error came.
            let end = self.ops.iter().position(|op| matches!(op.kind, Kind::Sync)).unwrap_or(self.ops.len());
            self.skipping = false;
            self.skip(end, events);
            self.ops.pop_front();
        } else if let Some(end) = end {
            for op in self.ops.drain(..=end) {
                if let Kind::Replication { exec: Some(exec), command } = op.kind {
                    let rows = (tally.rows > 0).then_some(tally.rows);
                    events.push(Event::Finished(exec, End { command, rows, ..End::new(How::Ok, tally) }));
                    continue;
                }
                lost(op.kind, &mut self.suspended, events);
            }
        }
        // Ends of COPY data that nobody asked for are ignored by the server.
        self.front();
        // If it answered a later Sync than the one in doubt, that one's answer is now in doubt.
        let silent = self.ops.iter().take_while(|op| matches!(op.kind, Kind::Sync | Kind::CopyEnd { .. }));
        let left = silent.filter(|op| matches!(op.kind, Kind::Sync)).count();
        self.doubtful = self.doubtful.min(left);
        if status == Status::Idle {
            self.end_portals(events);
        }
        events.push(Event::Ready(status));
        Ok(())
    }

    /// The transaction is over and with it its portals.
    pub(super) fn end_portals(&mut self, events: &mut Vec<Event>) {
        let front = self.ops.front().map_or(OpId::MAX, |op| op.id);
        let suspended = &mut self.suspended;
        self.portals.drain_matching(
            |_, entry| entry.by < front,
            |portal| end_suspended(suspended, portal.exec, events),
        );
    }
}

/// A portal is gone that stood in its middle: what has passed was all.
pub(super) fn end_suspended(suspended: &mut Suspended, exec: Option<ExecId>, events: &mut Vec<Event>) {
    if suspended.is_empty() {
        return;
    }
    if let Some((exec, tally)) = exec.and_then(|exec| suspended.remove_entry(&exec)) {
        let end = End { rows: Some(tally.rows), command: "SELECT".into(), ..End::new(How::Ok, tally) };
        events.push(Event::Finished(exec, end));
    }
}

pub(super) fn failed(exec: ExecId, report: &Report, tally: Tally) -> Event {
    let rows = (tally.rows > 0).then_some(tally.rows);
    Event::Finished(exec, End { rows, report: Some(Box::new(report.clone())), ..End::new(How::Error, tally) })
}

/// What the grammar and its lexer turn a string down with (`gram.y`, `scan.l`): syntax, not
/// supported, a parameter out of range, reserved names, doubled triggers' events, windows, escapes.
const OF_THE_GRAMMAR: [&str; 8] = ["42601", "0A000", "22023", "42939", "42710", "42P20", "22025", "22P06"];

/// One statement of a query string failed; those after it never ran. An error of the grammar stops
/// the whole string before its first statement, wherever it stands: the position tells. (Of other
/// errors the position may be one in another text: that of a statement prepared earlier.)
fn fail_query(
    slices: &mut VecDeque<Slice>,
    completed: bool,
    report: &Report,
    tally: Tally,
    events: &mut Vec<Event>,
) {
    let culprit = match report.position {
        Some(position) if !completed && OF_THE_GRAMMAR.contains(&&*report.code) => {
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
pub(super) fn lost(kind: Kind, suspended: &mut Suspended, events: &mut Vec<Event>) {
    let mut tell = |exec| events.push(Event::Finished(exec, End::new(How::Lost, Tally::default())));
    match kind {
        Kind::Execute { exec: Some(exec), first: true, .. } => tell(exec),
        Kind::Execute { exec: Some(exec), first: false, .. } if suspended.remove(&exec).is_some() => {
            tell(exec)
        }
        Kind::Call { exec: Some(exec) } | Kind::Replication { exec: Some(exec), .. } => tell(exec),
        Kind::Query { slices, .. } => slices.into_iter().for_each(|slice| tell(slice.exec)),
        _ => {}
    }
}
