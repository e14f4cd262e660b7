//! From a new connection to a session: who is there, which role may they have, is the database there.
//!
//! Nothing is sent to a database before somebody is identified, and no byte of the client is
//! interpreted while it waits for an approval.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use pgwitness_index::record::{Completion, Event, Outcome, TxnOutcome, Who};
use pgwitness_protocol::frame::FrameBuffer;
use pgwitness_protocol::reply::{self, Say, Severity};
use pgwitness_protocol::startup::{Decided, MAX_STARTUP, StartupMessage};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use uuid::Uuid;

use super::cancel::Target;
use super::databases::Catalog;
use super::greeting::{self, Greeting, GreetingError, Offer};
use super::session::{Session, Terms};
use super::stream::Stream;
use super::upstream::{Server, Upstream, UpstreamError};
use super::wanted::{self, Replication, Wanted};
use super::{Gateway, event_record};
use crate::clock;
use crate::config::ListenTls;
use crate::identity::{LoginError, Principal};
use crate::policy::{self, Granted, Stretch};
use crate::tls::Entrance;

/// Before it is clear what a client wants, it gets at most this long, and no longer than a login.
const GREETING_TIMEOUT: Duration = Duration::from_secs(30);

/// Telling a client why it is refused may take this long.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// A client that has said who it wants to be.
pub(super) struct Accepted {
    pub(super) gateway: Arc<Gateway>,
    pub(super) stream: Stream,
    pub(super) message: StartupMessage,
    pub(super) early: FrameBuffer,
    pub(super) wanted: Wanted,
    pub(super) address: IpAddr,
    /// What the records of the login say; becomes the session's.
    pub(super) who: Who,
    /// What the database was told in place of the program's name.
    label: Option<String>,
    pub(super) deadline: Instant,
}

/// Why there is no session: what to tell the client and the record.
pub(super) struct Turned {
    say: Option<Box<Say>>,
    event: Event,
    pub(super) outcome: Outcome,
    reason: String,
    kind: Kind,
}

/// How a refusal is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Not at all.
    Plain,
    /// As a failed login of this user from this address.
    Guess,
    /// As that, and as an alarm: somebody uses another person's secret, or has theirs approved by them.
    Alarm,
    /// With others of its kind, in few records: a bound was reached, and goes on being reached.
    Storm,
}

/// Serves a connection from its first byte to its last.
pub(super) async fn welcome(gateway: Arc<Gateway>, stream: tokio::net::TcpStream, address: SocketAddr) {
    let listen = &gateway.config.listen;
    let required = matches!(listen.tls, ListenTls::Require(_));
    let within = GREETING_TIMEOUT.min(listen.login_timeout);
    let tls = gateway.tls.as_ref().map(Entrance::now);
    let greeting = greeting::greet(stream, Offer { tls, required, within }).await;
    let refuse = |reason: &str| {
        gateway.refuse(Event::Denied, address.ip().to_string(), "startup".into(), reason.to_owned());
    };
    match greeting {
        Ok(Greeting::Start { mut stream, message, early }) => {
            let places = gateway.clone();
            match places.places.try_acquire() {
                Ok(_place) => start(gateway, stream, message, early, address).await,
                Err(_) => {
                    let say = Say::new(Severity::Fatal, "53300", "sorry, too many clients already")
                        .hint("The gateway's limit is listen.max_clients.");
                    refuse(&say.message);
                    tell(&mut stream, &say).await;
                }
            }
        }
        Ok(Greeting::Cancel { mut stream, pid, key }) => {
            cancel(&gateway, pid, &key, address).await;
            let _ = tokio::time::timeout(FAREWELL_TIMEOUT, stream.shutdown()).await;
        }
        Err(GreetingError::Refused { mut stream, code, reason, hint }) => {
            refuse(&reason);
            tell(&mut stream, &Say::new(Severity::Fatal, code, reason).hint(hint)).await;
        }
        Err(GreetingError::Old { mut stream, reason }) => {
            refuse(&reason);
            let mut out = BytesMut::new();
            reply::fatal_of_old(&mut out, &reason);
            part(&mut stream, &out).await;
        }
        Err(error @ (GreetingError::Alpn | GreetingError::Certificate(_))) => refuse(&error.to_string()),
        Err(error @ (GreetingError::Left(_) | GreetingError::Silent)) => {
            tracing::debug!(%error, %address, "no session");
        }
    }
}

async fn tell(stream: &mut Stream, say: &Say) {
    let mut out = BytesMut::new();
    say.encode(&mut out);
    part(stream, &out).await;
}

async fn part(stream: &mut Stream, last: &[u8]) {
    let farewell = async {
        stream.send(last).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await;
}

async fn cancel(gateway: &Arc<Gateway>, pid: u32, key: &[u8], address: SocketAddr) {
    let ip = address.ip().to_string();
    let detail = format!("process {pid}");
    let Some(target) = gateway.cancel_keys.find(pid, key) else {
        gateway.refuse(Event::Cancel, ip, detail, "no open session has this key".to_owned());
        return;
    };
    let who = Arc::new(Who { ip, ..(*target.who).clone() });
    // Recorded first, as everything that has an effect.
    if !gateway.note(Event::Cancel, Outcome::Ok, &who, detail, String::new()) {
        return;
    }
    if let Err(error) = target.server.cancel(target.pid, &target.server_key).await {
        tracing::warn!(%error, "could not pass on a cancel request");
    }
}

async fn start(
    gateway: Arc<Gateway>,
    mut stream: Stream,
    message: StartupMessage,
    early: BytesMut,
    address: SocketAddr,
) {
    let ip = address.ip().to_string();
    let wanted = match Wanted::read(&message) {
        Ok(wanted) => wanted,
        Err(say) => {
            gateway.refuse(Event::Denied, ip, "startup".into(), say.message.clone());
            tell(&mut stream, &say).await;
            return;
        }
    };
    if wanted.replication.is_some() && gateway.config.replication.is_empty() {
        let say = Say::new(
            Severity::Fatal,
            "0A000",
            "replication connections are not allowed through this gateway",
        )
        .hint("A replication stream reads whole databases without naming a table. A [[replication]] rule allows it.");
        gateway.refuse(Event::Denied, ip, "startup".into(), say.message.clone());
        tell(&mut stream, &say).await;
        return;
    }
    let who = Who { ip, db: wanted.database.clone(), app: wanted.app.clone(), ..Who::default() };
    let deadline = Instant::now() + gateway.config.listen.login_timeout;
    let mut buffer = FrameBuffer::new();
    buffer.space(early.len()).extend_from_slice(&early);
    let mut accepted = Accepted {
        gateway,
        stream,
        message,
        early: buffer,
        wanted,
        address: address.ip(),
        who,
        label: None,
        deadline,
    };
    if let Err(turned) = accepted.serve().await {
        accepted.turn_away(turned).await;
    }
}

impl Turned {
    pub(super) fn fatal(event: Event, code: &'static str, message: impl Into<String>) -> Self {
        let say = Say::new(Severity::Fatal, code, message);
        let reason = say.message.clone();
        Self { event, outcome: Outcome::Denied, reason, say: Some(Box::new(say)), kind: Kind::Plain }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.say = self.say.map(|say| Box::new(say.hint(hint)));
        self
    }

    /// A failure that may be a guess.
    pub(super) fn counted(mut self) -> Self {
        self.kind = Kind::Guess;
        self
    }

    pub(super) fn left() -> Self {
        Self {
            say: None,
            event: Event::LoginFailed,
            outcome: Outcome::Canceled,
            reason: "the client left before the login was done".into(),
            kind: Kind::Plain,
        }
    }
}

impl From<LoginError> for Turned {
    fn from(error: LoginError) -> Self {
        tracing::info!(%error, "login failed");
        let event = Event::from_word(error.event().as_str()).unwrap_or(Event::LoginFailed);
        let code = if matches!(error, LoginError::TooMany { .. }) { "53300" } else { "28000" };
        let mut turned = Self::fatal(event, code, format!("login failed: {}", error.client_text()));
        turned.reason = error.to_string();
        turned.kind = match error {
            LoginError::TooMany { .. } => Kind::Storm,
            LoginError::OtherPerson => Kind::Alarm,
            _ if error.is_clients_fault() => Kind::Guess,
            _ => Kind::Plain,
        };
        turned
    }
}

impl Accepted {
    async fn serve(&mut self) -> Result<(), Turned> {
        self.negotiate_version().await?;
        // Boxed, here and below: what a login needs is given back when it is over, and a session waits for
        // hours in the memory of this future.
        self.may_try()?;
        let principal = Box::pin(self.identify()).await?;
        if self.gateway.lockout.succeeded(&self.wanted.user, self.address) {
            self.note(Event::LoginUnlocked, Outcome::Ok, self.wanted.user.clone(), String::new())?;
        }
        let granted = self.grant(&principal)?;
        self.gateway.follow(&principal);
        self.may_replicate(&principal, &granted)?;
        self.note(Event::LoginOk, Outcome::Ok, principal.mode().as_str().to_owned(), String::new())?;
        self.who.session = Uuid::to_string(&clock::new_id(clock::now()));
        let (server, upstream) = Box::pin(self.connect(&granted)).await?;
        self.open_session(server, upstream, &principal, granted).await
    }

    /// Whoever failed too often waits.
    fn may_try(&self) -> Result<(), Turned> {
        let Some(left) = self.gateway.lockout.left(&self.wanted.user, self.address, Instant::now()) else {
            return Ok(());
        };
        let text = format!("too many failed logins. Try again in {} s", left.as_secs().max(1));
        Err(Turned::fatal(Event::LoginFailed, "28000", text))
    }

    async fn turn_away(&mut self, turned: Turned) {
        let who = Arc::new(self.who.clone());
        if turned.kind == Kind::Alarm {
            tracing::warn!(user = %self.wanted.user, ip = %self.who.ip, "a pairing secret was claimed by two persons");
            let why = "a pairing secret was claimed by two persons: both should make a new one".to_owned();
            self.gateway.note(Event::Alert, Outcome::Denied, &who, self.wanted.user.clone(), why);
        }
        if matches!(turned.kind, Kind::Guess | Kind::Alarm) {
            let locked = self.gateway.lockout.failed(&self.wanted.user, self.address, Instant::now());
            if let Some(lock) = locked {
                let why = format!("too many failed logins: locked for {} s", lock.as_secs());
                tracing::warn!(user = %self.wanted.user, ip = %self.who.ip, "{why}");
                self.gateway.note(Event::LoginLocked, Outcome::Denied, &who, self.wanted.user.clone(), why);
            }
        }
        if turned.kind == Kind::Storm {
            let ip = self.who.ip.clone();
            self.gateway.refuse(turned.event, ip, self.wanted.user.clone(), turned.reason);
        } else {
            self.gateway.note(turned.event, turned.outcome, &who, self.wanted.user.clone(), turned.reason);
        }
        if let Some(say) = turned.say {
            tell(&mut self.stream, &say).await;
        }
    }

    /// Records a step of the login. Who cannot be recorded is not let in.
    pub(super) fn note(
        &self,
        event: Event,
        outcome: Outcome,
        detail: String,
        error: String,
    ) -> Result<(), Turned> {
        let who = Arc::new(self.who.clone());
        if self.gateway.note(event, outcome, &who, detail, error) {
            return Ok(());
        }
        Err(Turned::fatal(Event::LoginFailed, "58030", "the gateway could not write to its access log")
            .hint("Nobody is let in while access cannot be recorded. Try again later."))
    }

    pub(super) async fn send(&mut self, out: &[u8]) -> Result<(), Turned> {
        self.stream.send(out).await.map_err(|_| Turned::left())
    }

    async fn negotiate_version(&mut self) -> Result<(), Turned> {
        if !self.message.asks_too_much() {
            return Ok(());
        }
        let mut out = BytesMut::new();
        reply::negotiate_version(&mut out, self.message.spoken_minor(), self.message.protocol_options());
        self.send(&out).await
    }

    fn grant(&mut self, principal: &Principal) -> Result<Granted, Turned> {
        if let policy::Verdict::Deny(reason) = policy::decide(principal, SystemTime::now()) {
            return Err(Turned::fatal(Event::Denied, "28000", reason));
        }
        let (user, database) = (&self.wanted.user, &self.wanted.database);
        policy::role_for(self.gateway.role_map(), &principal.into(), user, database, SystemTime::now())
            .map_err(|refusal| {
                let text =
                    format!("{} may not use role \"{user}\" in database \"{database}\"", principal.user());
                let mut turned = Turned::fatal(Event::RoleDenied, "28000", text).hint(refusal.hint);
                turned.reason = refusal.reason;
                turned
            })
            .inspect(|granted| {
                self.who.role.clone_from(&granted.role);
                // Counted as people count, from 1.
                self.who.auth.push(("rule".to_owned(), format!("role_map {}", granted.rule + 1)));
            })
    }

    fn may_replicate(&self, principal: &Principal, granted: &Granted) -> Result<(), Turned> {
        let Some(replication) = self.wanted.replication else { return Ok(()) };
        let stretch = match replication {
            Replication::Physical => Stretch::Server,
            Replication::Logical => Stretch::Database(&self.wanted.database),
        };
        policy::may_replicate(&self.gateway.config.replication, &principal.into(), &granted.role, stretch)
            .map_err(|refusal| {
                Turned::fatal(Event::RoleDenied, "28000", refusal.reason)
                    .hint("A replication stream reads whole databases without naming a table.")
            })
    }

    async fn connect(&mut self, granted: &Granted) -> Result<(Arc<Server>, Upstream), Turned> {
        let database = &self.wanted.route;
        let unknown = || {
            Turned::fatal(Event::Denied, "3D000", format!("no upstream serves the database \"{database}\""))
        };
        let server = self.gateway.databases.server_for(database).ok_or_else(unknown)?.clone();
        self.who.upstream.clone_from(&server.config.name);
        let credential = server.credential(&granted.role).ok_or_else(|| {
            let text = format!("the gateway has no credential for role \"{}\"", granted.role);
            Turned::fatal(Event::Denied, "28000", text).hint("Add it under credentials of the upstream.")
        })?;
        let packet = self.packet(&server, granted)?;
        let connected = match self.wanted.replication {
            Some(_) => server.connect(&packet, credential).await,
            None => server.connect_for_session(&packet, credential).await,
        };
        match connected {
            Ok(upstream) => Ok((server, upstream)),
            Err(UpstreamError::Refused { report, frame }) => {
                // The database's own words, as it said them.
                let _ = self.send(&frame).await;
                let reason = format!("{}: {}", report.code, report.message);
                Err(Turned {
                    say: None,
                    event: Event::SessionStart,
                    outcome: Outcome::Error,
                    reason,
                    kind: Kind::Plain,
                })
            }
            Err(error) => {
                tracing::warn!(%error, upstream = %server.config.name, "no connection to the database");
                let mut turned =
                    Turned::fatal(Event::SessionStart, "08001", "could not connect to the database").hint(match error {
                        UpstreamError::Connect(_) | UpstreamError::Timeout => {
                            "The gateway is up, the database behind it does not answer. Ask whoever runs it."
                        }
                        _ => "The gateway could not log in to the database behind it. Whoever runs it sees why in its log.",
                    });
                turned.outcome = Outcome::Error;
                turned.reason = error.to_string();
                Err(turned)
            }
        }
    }

    /// The startup message as the server gets it, with a name by which it knows who is there.
    fn packet(&mut self, server: &Server, granted: &Granted) -> Result<BytesMut, Turned> {
        let label =
            server.config.application_name.compose(&self.wanted.app, &self.who.user, &self.who.session);
        let encode = |application_name: Option<&str>| {
            self.message.encode_for_server(&Decided {
                user: &granted.role,
                database: &self.wanted.route,
                application_name,
                own_option: wanted::LOGIN_OPTION,
            })
        };
        let packet = encode(label.as_deref());
        if packet.len() <= MAX_STARTUP {
            self.label = label;
            return Ok(packet);
        }
        // A client that fills the packet to its limit keeps its own name.
        let packet = encode(None);
        if packet.len() <= MAX_STARTUP {
            return Ok(packet);
        }
        let text = format!("the startup packet does not fit with the name of role \"{}\"", granted.role);
        Err(Turned::fatal(Event::Denied, "08P01", text))
    }

    async fn open_session(
        &mut self,
        server: Arc<Server>,
        upstream: Upstream,
        principal: &Principal,
        granted: Granted,
    ) -> Result<(), Turned> {
        let gateway = self.gateway.clone();
        let catalog = match self.wanted.replication {
            Some(Replication::Physical) => Catalog::none(&server),
            _ => gateway.databases.catalog(&server, &self.wanted.database),
        };
        if catalog.is_stale() {
            catalog.refresh(&granted.role).await;
        }
        let early = std::mem::take(&mut self.early);
        let ends = granted.until.map_or(principal.expires(), |end| end.min(principal.expires()));
        let replication = self.wanted.replication;
        let terms = Terms { message: &self.message, label: self.label.take(), replication };
        let mut session = Session::open(&gateway, self.who.clone(), terms, upstream, catalog, early, ends);
        let start = Completion::new(Outcome::Ok, TxnOutcome::None);
        let detail = match replication {
            Some(replication) => format!("{}, {}", self.wanted.user, replication.as_str()),
            None => self.wanted.user.clone(),
        };
        let record = event_record(Event::SessionStart, session.who(), detail, Some(start));
        if let Err(error) = gateway.recorder.note(record) {
            tracing::error!(%error, "could not record a session's start");
            return Err(Turned::fatal(
                Event::LoginFailed,
                "58030",
                "the gateway could not write to its access log",
            )
            .hint("Nobody is let in while access cannot be recorded. Try again later."));
        }
        let pid = session.pid();
        let target = Target { server, pid, server_key: session.server_key(), who: session.who() };
        let key = gateway.cancel_keys.add(target, self.message.spoken_minor());
        session.greet(&key);
        session.run(&mut self.stream).await;
        gateway.cancel_keys.remove(pid, &key);
        Ok(())
    }
}
