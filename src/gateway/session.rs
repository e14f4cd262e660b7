//! One client's life after login: the only task of its connection, owner of both sockets.
//!
//! Each direction reads, looks, then writes what it read before it reads again: a slow peer slows
//! the other down and costs no memory. Partial messages live in the buffers, never in a future, so
//! every wait here may be dropped.
//!
//! There is no timer for idleness: who is idle costs little, and PostgreSQL has `idle_session_timeout`. A
//! peer that is no longer there is found by TCP's keepalive.

use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use pgwitness_index::record::{Event as RecordEvent, Outcome, Who};
use pgwitness_protocol::ProtocolError;
use pgwitness_protocol::backend::Status;
use pgwitness_protocol::conversation::{Ask, Bounds, Conversation, Event};
use pgwitness_protocol::frame::FrameBuffer;
use pgwitness_protocol::reply::{self, Say, Severity};
use pgwitness_protocol::startup::StartupMessage;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep};
use tokio_util::io::poll_read_buf;

use super::Gateway;
use super::chronicle::Chronicle;
use super::databases::Catalog;
use super::live::{LiveSession, Order};
use super::relay::{Gate, Harmless};
use super::stream::Stream;
use super::upstream::{Server, Upstream};
use super::walsender;
use super::wanted::{self, Replication};
use crate::clock;
use crate::recorder::{Receipt, RecordError};
use ending::{Ending, undecided};

mod ending;
mod spare;

/// Room for a first read; doubled while reads fill it.
const READ_MIN: usize = 8 * 1024;
const READ_MAX: usize = 128 * 1024;

/// A message that must wait for an answer that may never come is not kept longer. The server's next
/// message takes no work, so one that comes is here long before.
const UNDECIDED_TIMEOUT: Duration = Duration::from_secs(10);

/// After its login has ended, a transaction may go on this long.
const OVERTIME: Duration = Duration::from_secs(60);

/// What happened next.
#[derive(Debug)]
enum Turn {
    FromClient,
    FromServer,
    ClientGone,
    ClientSilent,
    ServerGone,
    /// The gateway is shutting down.
    Stop,
    /// Somebody ordered it to end.
    Ordered,
    /// The login has ended, or what was granted after.
    Deadline,
}

/// A client that has closed its side may still be reading: what it has asked gets this long.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(2);

/// A full pipeline must not be shorter than the answers that PostgreSQL gathers in its buffer of 8 kB
/// before it speaks, 5 bytes each.
const PIPELINE_MIN: usize = 4096;

/// On what terms a session begins.
pub(super) struct Terms<'a> {
    /// What the client asked for.
    pub(super) message: &'a StartupMessage,
    /// What the database was told in place of the program's name.
    pub(super) label: Option<String>,
    /// The server is a walsender.
    pub(super) replication: Option<Replication>,
}

/// See the module's description.
pub(super) struct Session {
    gateway: Arc<Gateway>,
    server: Stream,
    upstream: Arc<Server>,
    pid: u32,
    server_key: Bytes,
    greeting: BytesMut,
    gate: Gate,
    results: FrameBuffer,
    conversation: Conversation,
    replication: Option<Replication>,
    chronicle: Chronicle,
    status: Status,
    /// Results must wait until these records are durable.
    hold: Option<Receipt>,
    /// The next message of the client waits for answers of the server.
    waiting: bool,
    /// What waited may be looked at again though the server has said nothing.
    again: bool,
    /// The timer runs for a message that waits for an answer that may never come.
    undecided: bool,
    terminated: bool,
    /// The client sends no more, and may still read.
    silent: bool,
    /// Nothing more can have come since a socket was last found empty: it will wake us.
    empty: Both,
    flush: Both,
    room: Room,
    /// The last read of results went on in the middle of a message.
    mid_result: bool,
    /// Results were kept from the client.
    withheld: bool,
    /// When the session must end at the latest.
    deadline: Instant,
    parting: Option<Say>,
    /// Somebody may order it to end.
    order: Arc<Order>,
    events: Vec<Event>,
}

/// Something about each of the sockets.
#[derive(Debug, Default)]
struct Both {
    client: bool,
    server: bool,
}

#[derive(Debug)]
struct Room {
    client: usize,
    server: usize,
}

impl Session {
    /// Puts a session together; nothing is sent yet.
    pub(super) fn open(
        gateway: &Arc<Gateway>,
        who: Who,
        terms: Terms<'_>,
        upstream: Upstream,
        catalog: Arc<Catalog>,
        early: FrameBuffer,
        expires: SystemTime,
    ) -> Self {
        let limits = &gateway.config.limits;
        let bounds = Bounds {
            message: limits.max_message,
            names: limits.max_statements,
            memory: limits.max_statement_memory,
            pipeline: limits.max_pipeline.max(PIPELINE_MIN),
        };
        // What the server said of them comes last: it counts.
        let asked = [wanted::settings(terms.message), upstream.settings].concat();
        let server = catalog.server().clone();
        let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
        Self {
            chronicle: Chronicle::new(gateway, who, terms.label, &asked, &upstream.parameters, catalog),
            gateway: gateway.clone(),
            server: upstream.stream,
            upstream: server,
            pid: upstream.pid,
            server_key: upstream.key,
            greeting: upstream.greeting,
            gate: Gate::new(early),
            results: upstream.rest,
            conversation: Conversation::new(bounds),
            replication: terms.replication,
            status: Status::Idle,
            hold: None,
            waiting: false,
            again: false,
            undecided: false,
            terminated: false,
            silent: false,
            empty: Both::default(),
            flush: Both::default(),
            room: Room { client: READ_MIN, server: READ_MIN },
            mid_result: false,
            withheld: false,
            deadline: Instant::now() + left,
            parting: None,
            order: Arc::default(),
            events: Vec::new(),
        }
    }

    pub(super) fn who(&self) -> Arc<Who> {
        self.chronicle.who().clone()
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn server_key(&self) -> Bytes {
        self.server_key.clone()
    }

    /// Prepares what the client hears first: the server's parameters, the real process id with our
    /// own key, and that it may begin.
    pub(super) fn greet(&mut self, key: &super::cancel::Key) {
        reply::key_data(&mut self.greeting, self.pid, key.as_bytes());
        reply::ready(&mut self.greeting, Status::Idle);
    }

    /// Relays and records until either side or the gateway ends it.
    pub(super) async fn run(mut self, client: &mut Stream) {
        let who = self.who();
        let order = self.order.clone();
        let live = LiveSession { who: who.clone(), pid: self.pid, since: clock::now(), order };
        self.gateway.live.lock().insert(who.session.clone(), live);
        let life = async {
            let ending = self.relay(client).await;
            Box::pin(self.end(client, ending)).await;
        };
        // What a defect leaves behind is not looked at again, but for the records and the backend.
        if AssertUnwindSafe(life).catch_unwind().await.is_err() {
            self.give_up().await;
        }
        self.gateway.live.lock().remove(&who.session);
    }

    async fn relay(&mut self, client: &mut Stream) -> Ending {
        if client.send(&std::mem::take(&mut self.greeting)).await.is_err() {
            return Ending::Client("the client left before it was let in");
        }
        let gateway = self.gateway.clone();
        let mut stop = pin!(gateway.drain.begun());
        let mut timer = pin!(tokio::time::sleep_until(self.deadline));
        let order = self.order.clone();
        let mut ordered = pin!(order.heard());
        let (mut stopping, mut obeys) = (false, false);
        // Both know our waker once they were polled: from then on a look at their flags is enough.
        let mut waits = false;
        // Since we last looked, what was waited for may have come.
        let mut asleep = false;
        // Bytes that came before the client was let in.
        let mut turn = if self.gate.buffer.is_empty() { None } else { Some(Turn::FromClient) };
        loop {
            let now = match turn.take() {
                Some(turn) => turn,
                None => {
                    std::future::poll_fn(|cx| {
                        if std::mem::take(&mut asleep) {
                            self.empty = Both::default();
                        }
                        if let Poll::Ready(turn) = self.poll_io(client, cx) {
                            return Poll::Ready(turn);
                        }
                        if (!waits || gateway.drain.has_begun())
                            && !stopping
                            && stop.as_mut().poll(cx).is_ready()
                        {
                            stopping = true;
                            return Poll::Ready(Turn::Stop);
                        }
                        if (!waits || order.is_given()) && !obeys && ordered.as_mut().poll(cx).is_ready() {
                            obeys = true;
                            return Poll::Ready(Turn::Ordered);
                        }
                        if (!waits || timer.is_elapsed()) && timer.as_mut().poll(cx).is_ready() {
                            return Poll::Ready(Turn::Deadline);
                        }
                        (waits, asleep) = (true, true);
                        Poll::Pending
                    })
                    .await
                }
            };
            // The others may set the timer anew.
            waits &= matches!(now, Turn::FromClient | Turn::FromServer);
            let taken = if matches!(now, Turn::FromServer) && !self.waiting && self.hold.is_none() {
                // Most turns: there is nothing to wait for.
                self.hear_whole().and_then(|()| self.leave_if_parting())
            } else {
                if matches!(now, Turn::Ordered) {
                    self.warn(client).await;
                }
                self.take_turn(now, timer.as_mut()).await
            };
            if let Err(ending) = taken {
                return ending;
            }
        }
    }

    async fn take_turn(&mut self, turn: Turn, timer: Pin<&mut Sleep>) -> Result<(), Ending> {
        // What is awaited meanwhile may swallow a socket's wake.
        self.empty = Both::default();
        match turn {
            Turn::FromClient => {
                self.hear_client().await?;
                self.bound_wait(timer);
            }
            Turn::FromServer => {
                self.hear_server().await?;
                self.bound_wait(timer);
            }
            Turn::ClientSilent => {
                self.silent = true;
                timer.reset(Instant::now() + HALF_CLOSED_TIMEOUT);
            }
            Turn::Deadline if self.silent => return Err(Ending::ClientSilent),
            Turn::Deadline if self.undecided => return Err(Ending::Us(undecided())),
            Turn::ClientGone if self.terminated => return Err(Ending::Client("")),
            Turn::ClientGone => return Err(Ending::Client("the client left without saying so")),
            Turn::ServerGone => return Err(Ending::Server),
            Turn::Stop => {
                let say = Say::new(Severity::Fatal, "57P01", "the gateway is shutting down");
                self.part(say, self.gateway.config.limits.drain_timeout, timer)?;
            }
            Turn::Ordered => {
                if let Some(say) = self.order.words() {
                    self.part(say, OVERTIME, timer)?;
                }
            }
            Turn::Deadline => match self.parting.take() {
                Some(say) => return Err(Ending::Us(say)),
                None => {
                    let say = Say::new(Severity::Fatal, "57P01", "your login has ended")
                        .hint("Connect again to log in.");
                    self.part(say, OVERTIME, timer)?;
                }
            },
        }
        self.leave_if_parting()
    }

    /// A message that waits for an answer that may never come waits for a while only.
    fn bound_wait(&mut self, mut timer: Pin<&mut Sleep>) {
        let undecided = self.waiting && self.conversation.is_undecided();
        if undecided == self.undecided || self.silent || self.parting.is_some() {
            return;
        }
        self.undecided = undecided;
        timer.as_mut().reset(if undecided { Instant::now() + UNDECIDED_TIMEOUT } else { self.deadline });
    }

    /// Ends the session at the next moment without a transaction, at the latest after `grace`.
    fn part(&mut self, say: Say, grace: Duration, timer: Pin<&mut Sleep>) -> Result<(), Ending> {
        self.parting = Some(say);
        self.undecided = false;
        timer.reset(Instant::now() + grace);
        self.leave_if_parting()
    }

    fn leave_if_parting(&mut self) -> Result<(), Ending> {
        if self.silent && !self.waiting && (self.conversation.is_idle() || self.conversation.awaits_client())
        {
            return Err(Ending::ClientSilent);
        }
        // Results that are still here go out before the farewell.
        let at_rest = self.status == Status::Idle && self.conversation.is_idle();
        match self.parting.take_if(|_| at_rest) {
            Some(say) => Err(Ending::Us(say)),
            None => Ok(()),
        }
    }

    /// Moves bytes both ways until something needs a look.
    fn poll_io(&mut self, client: &mut Stream, cx: &mut Context<'_>) -> Poll<Turn> {
        loop {
            let mut progress = false;
            match self.poll_write_server(cx) {
                Poll::Ready(Ok(())) => progress = true,
                Poll::Ready(Err(_)) => return Poll::Ready(Turn::ServerGone),
                Poll::Pending => {}
            }
            match self.poll_write_client(client, cx) {
                Poll::Ready(Ok(())) => progress = true,
                Poll::Ready(Err(_)) => return Poll::Ready(Turn::ClientGone),
                Poll::Pending => {}
            }
            if self.again && self.gate.permitted().is_empty() {
                self.again = false;
                return Poll::Ready(Turn::FromClient);
            }
            let listens = !self.waiting && !self.terminated && !self.silent;
            if listens && !self.empty.client && self.gate.permitted().is_empty() {
                let space = spare::space(&mut self.gate.buffer, self.room.client);
                let read = poll_read_buf(Pin::new(client), cx, space);
                self.empty.client = read.is_pending();
                if let Poll::Ready(read) = read {
                    return Poll::Ready(match read {
                        Ok(0) => Turn::ClientSilent,
                        Err(_) => Turn::ClientGone,
                        Ok(count) => {
                            adapt(&mut self.room.client, count);
                            Turn::FromClient
                        }
                    });
                }
            }
            if !self.empty.server && self.results.cleared().is_empty() {
                let space = spare::space(&mut self.results, self.room.server);
                let read = poll_read_buf(Pin::new(&mut self.server), cx, space);
                self.empty.server = read.is_pending();
                if let Poll::Ready(read) = read {
                    return Poll::Ready(match read {
                        Ok(0) | Err(_) => Turn::ServerGone,
                        Ok(count) => {
                            adapt(&mut self.room.server, count);
                            Turn::FromServer
                        }
                    });
                }
            }
            if !progress {
                self.rest();
                return Poll::Pending;
            }
        }
    }

    /// An idle connection holds no buffers.
    fn rest(&mut self) {
        if self.conversation.is_idle() {
            spare::give(self.gate.buffer.rest());
            spare::give(self.results.rest());
        }
    }

    /// Ready: something was written. Pending: nothing could be, or nothing had to be.
    fn poll_write_server(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { gate, server, flush, .. } = self;
        let written = poll_write_some(server, gate.permitted(), &mut flush.server, cx);
        written.map_ok(|count| gate.passed(count))
    }

    fn poll_write_client(&mut self, client: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { results, flush, .. } = self;
        let written = poll_write_some(client, results.cleared(), &mut flush.client, cx);
        written.map_ok(|count| results.passed(count))
    }

    /// Takes up the catalog, loaded anew if it is stale: then true.
    async fn look_at_catalog(&mut self) -> bool {
        let stale = self.chronicle.stale_catalog();
        if let Some(catalog) = &stale {
            // Boxed: a load is rare and large, and would be moved about with every turn.
            Box::pin(catalog.refresh(self.chronicle.login_role())).await;
        }
        self.chronicle.look_at_catalog();
        stale.is_some()
    }

    async fn hear_client(&mut self) -> Result<(), Ending> {
        if self.chronicle.should_look_at_catalog(std::time::Instant::now()) {
            self.look_at_catalog().await;
        }
        let mark = self.conversation.mark();
        if let Err(error) = self.look() {
            // What came before it in the same read was not forwarded either.
            self.chronicle.refused();
            self.conversation.retract(mark);
            return Err(self.turn_down(&error));
        }
        // It may have been made past the gateway.
        if self.chronicle.has_missed() && self.look_at_catalog().await {
            self.chronicle.read_again();
        }
        let batch = self.chronicle.batch();
        if let Some(harmless) = Harmless::no_records(batch) {
            self.gate.pass(&harmless);
            self.skip_ahead();
            return Ok(());
        }
        match self.gateway.recorder.admit(batch).await {
            Ok(receipt) => {
                self.chronicle.admitted(receipt.first());
                self.gate.forward(&receipt);
                self.hold = self.gateway.recorder.holds_results().then_some(receipt);
                self.skip_ahead();
                Ok(())
            }
            Err(error) => self.refuse(&error, mark),
        }
    }

    /// What the server ignores without a word is told at once, and stands in nobody's way.
    fn skip_ahead(&mut self) {
        self.conversation.skip_ahead(&mut self.events);
        self.again = self.waiting && self.conversation.is_idle();
        self.write_down();
    }

    /// Looks at every whole message that is here.
    fn look(&mut self) -> Result<(), ProtocolError> {
        let Self { gate, conversation, chronicle, replication, .. } = self;
        self.waiting = false;
        loop {
            let Some(frame) = gate.buffer.next(|tag, length| conversation.want_from_client(tag, length))?
            else {
                return Ok(());
            };
            let (tag, length) = (frame.tag, frame.length);
            match conversation.ask(&frame)? {
                Ask::Pass if tag == b'd' => {
                    let (_, bytes) = gate.buffer.next_run(tag)?;
                    conversation.ask_run(bytes);
                }
                Ask::Pass => {}
                Ask::Query(text)
                    if replication.is_some()
                        && let Some(command) = walsender::command(text) =>
                {
                    let exec = chronicle.replication(text, command);
                    conversation.started_replication(exec);
                }
                Ask::Query(text) => {
                    let slices = chronicle.query(text, conversation);
                    conversation.started_query(slices);
                }
                Ask::Execute(execution) => {
                    let exec = chronicle.execution(&execution, conversation);
                    conversation.started(tag, &execution.portal, exec);
                }
                Ask::Call(call) => {
                    let exec = chronicle.call(&call);
                    conversation.started(tag, b"", Some(exec));
                }
                Ask::Terminate => {
                    self.terminated = true;
                    return Ok(());
                }
                Ask::Wait => {
                    gate.buffer.hold_back(length);
                    self.waiting = true;
                    return Ok(());
                }
            }
            for (exec, alters) in chronicle.take_altering() {
                conversation.alters(exec, alters);
            }
        }
    }

    /// A message that PostgreSQL would refuse, or one beyond the limits.
    fn turn_down(&self, error: &ProtocolError) -> Ending {
        let reason = error.to_string();
        let who = self.chronicle.who();
        self.gateway.note(RecordEvent::Denied, Outcome::Denied, who, "message".into(), reason.clone());
        let key = match error {
            ProtocolError::TooLarge { .. } => "limits.max_message",
            ProtocolError::TooMany { what: "Syncs among COPY data", .. } => "limits.max_pipeline",
            ProtocolError::TooMany { .. } => "limits.max_statements",
            ProtocolError::TooMuch { .. } => "limits.max_statement_memory",
            _ => return Ending::Us(Say::new(Severity::Fatal, "08P01", reason)),
        };
        let hint = format!("Whoever runs the gateway can raise it: {key}.");
        Ending::Us(Say::new(Severity::Fatal, "54000", reason).hint(hint))
    }

    /// Nothing could be recorded, so nothing passes. Where the session is at rest it may go on: the
    /// next statement may find space again.
    fn refuse(&mut self, error: &RecordError, mark: u64) -> Result<(), Ending> {
        let text = format!("the gateway {error}, so the statement was not run");
        let say = |severity| {
            Say::new(severity, "58030", text.clone())
                .hint("No statement passes while access cannot be recorded. Whoever runs the gateway sees the cause in its log.")
        };
        let owed = self.conversation.retract(mark);
        let at_rest = self.conversation.is_idle() && self.status == Status::Idle && self.results.is_empty();
        self.chronicle.refused();
        let Some(owed) = owed.filter(|_| at_rest) else { return Err(Ending::Us(say(Severity::Fatal))) };
        self.again = self.waiting;
        self.gate.discard();
        self.terminated = false;
        let mut out = BytesMut::new();
        for _ in 0..owed {
            say(Severity::Error).encode(&mut out);
            reply::ready(&mut out, Status::Idle);
        }
        // Our own messages take the way of the server's: in order, with backpressure.
        self.results.space(out.len()).extend_from_slice(&out);
        while self.results.next(|_, length| Ok(length)).ok().flatten().is_some() {}
        Ok(())
    }

    async fn hear_server(&mut self) -> Result<(), Ending> {
        self.hear_and_hold().await?;
        if self.waiting {
            self.hear_client().await?;
        }
        Ok(())
    }

    /// Hears what the server said; results pass once the records they belong to may be relied on.
    async fn hear_and_hold(&mut self) -> Result<(), Ending> {
        let heard = self.hear_whole();
        if let Some(receipt) = self.hold.take()
            && let Err(error) = self.gateway.recorder.released(&receipt).await
        {
            // What is here must not be shown.
            let count = self.results.cleared().len();
            self.results.passed(count);
            self.withheld = true;
            let text = format!("the gateway {error}, so the result is not shown");
            return Err(Ending::Us(Say::new(Severity::Fatal, "58030", text)));
        }
        heard
    }

    /// Hears and writes down all that the server said.
    fn hear_whole(&mut self) -> Result<(), Ending> {
        self.mid_result = self.results.is_mid_message();
        let heard = self.hear();
        self.write_down();
        heard.map_err(|error| {
            tracing::error!(%error, "the database's answer could not be understood");
            let say =
                Say::new(Severity::Fatal, "08P01", "the gateway could not understand the database's answer");
            Ending::Us(say)
        })
    }

    /// Hears every message of the server that is here.
    fn hear(&mut self) -> Result<(), ProtocolError> {
        let Self { results, conversation, events, .. } = self;
        while let Some(frame) = results.next(|tag, length| Ok(Conversation::want_from_server(tag, length)))? {
            let tag = frame.tag;
            conversation.answer(&frame, events)?;
            if matches!(tag, b'D' | b'd') {
                // Of what mostly comes in thousands only number and length matter.
                let (count, bytes) = results.next_run(tag)?;
                conversation.answer_run(tag, count, bytes);
            }
        }
        Ok(())
    }

    fn write_down(&mut self) {
        for event in &self.events {
            if let Event::Ready(status) = event {
                self.status = *status;
            }
        }
        if self.events.is_empty() {
            return;
        }
        self.chronicle.answered(&mut self.events, self.conversation.is_idle());
    }
}

fn adapt(room: &mut usize, count: usize) {
    if count >= *room {
        *room = (*room * 2).min(READ_MAX);
    } else if count * 4 < *room {
        *room = (*room / 2).max(READ_MIN);
    }
}

/// Writes what it can. Ready with a count if anything moved.
fn poll_write_some(
    stream: &mut Stream,
    bytes: &[u8],
    flush: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if !bytes.is_empty() {
        return match Pin::new(&mut *stream).poll_write(cx, bytes) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(count)) => {
                *flush = stream.buffers();
                Poll::Ready(Ok(count))
            }
            other => other,
        };
    }
    if *flush {
        return match Pin::new(stream).poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                *flush = false;
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
    }
    Poll::Pending
}
