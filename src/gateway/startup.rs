//! From a new connection to a session: who is there, which role may they have, is the database there.
//!
//! Nothing is sent to a database before somebody is identified, and no byte of the client is
//! interpreted while it waits for an approval.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use pgwitness_index::record::{Completion, Event, Outcome, TxnOutcome, Who};
use pgwitness_protocol::frame::FrameBuffer;
use pgwitness_protocol::frontend;
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
use crate::config::{ListenTls, LoginMode, Secret};
use crate::identity::{DeviceLogin, Grant, LoginError, PairingEntry, Principal};
use crate::policy::{self, Granted, Stretch};
use crate::tls::{Entrance, certificate};

/// Other programs hide notices, and give up by themselves after 15 s or more: they are told by an
/// error, which every program shows.
const IMPATIENT: Duration = Duration::from_secs(12);

/// Between two reminders of the link.
const REMINDER: Duration = Duration::from_secs(30);

/// A password message may be this long: tokens are long.
const MAX_PASSWORD: usize = 70_000;

/// Before it is clear what a client wants, it gets at most this long, and no longer than a login.
const GREETING_TIMEOUT: Duration = Duration::from_secs(30);

/// Telling a client why it is refused may take this long.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that a client may send before it is let in.
const MAX_EARLY: usize = 16 * 1024;

/// A client that has said who it wants to be.
struct Accepted {
    gateway: Arc<Gateway>,
    stream: Stream,
    message: StartupMessage,
    early: FrameBuffer,
    wanted: Wanted,
    /// What the records of the login say; becomes the session's.
    who: Who,
    /// What the database was told in place of the program's name.
    label: Option<String>,
    deadline: Instant,
}

/// Why there is no session: what to tell the client and the record.
struct Turned {
    say: Option<Box<Say>>,
    event: Event,
    outcome: Outcome,
    reason: String,
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
    let mut accepted =
        Accepted { gateway, stream, message, early: buffer, wanted, who, label: None, deadline };
    if let Err(turned) = accepted.serve().await {
        accepted.turn_away(turned).await;
    }
}

impl Turned {
    fn fatal(event: Event, code: &'static str, message: impl Into<String>) -> Self {
        let say = Say::new(Severity::Fatal, code, message);
        Self { event, outcome: Outcome::Denied, reason: say.message.clone(), say: Some(Box::new(say)) }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.say = self.say.map(|say| Box::new(say.hint(hint)));
        self
    }

    fn left() -> Self {
        Self {
            say: None,
            event: Event::LoginFailed,
            outcome: Outcome::Canceled,
            reason: "the client left before the login was done".into(),
        }
    }
}

impl From<LoginError> for Turned {
    fn from(error: LoginError) -> Self {
        tracing::info!(%error, "login failed");
        let event = Event::from_word(error.event().as_str()).unwrap_or(Event::LoginFailed);
        let mut turned = Self::fatal(event, "28000", format!("login failed: {}", error.client_text()));
        turned.reason = error.to_string();
        turned
    }
}

impl Accepted {
    async fn serve(&mut self) -> Result<(), Turned> {
        self.negotiate_version().await?;
        // Boxed, here and below: what a login needs is given back when it is over, and a session waits for
        // hours in the memory of this future.
        let principal = Box::pin(self.identify()).await?;
        let granted = self.grant(&principal)?;
        self.may_replicate(&principal, &granted)?;
        self.note(Event::LoginOk, Outcome::Ok, principal.mode().as_str().to_owned(), String::new())?;
        self.who.session = Uuid::to_string(&clock::new_id(clock::now()));
        let (server, upstream) = Box::pin(self.connect(&granted)).await?;
        self.open_session(server, upstream, &principal, granted).await
    }

    async fn turn_away(&mut self, turned: Turned) {
        let who = Arc::new(self.who.clone());
        self.gateway.note(turned.event, turned.outcome, &who, self.wanted.user.clone(), turned.reason);
        if let Some(say) = turned.say {
            tell(&mut self.stream, &say).await;
        }
    }

    /// Records a step of the login. Who cannot be recorded is not let in.
    fn note(&self, event: Event, outcome: Outcome, detail: String, error: String) -> Result<(), Turned> {
        let who = Arc::new(self.who.clone());
        if self.gateway.note(event, outcome, &who, detail, error) {
            return Ok(());
        }
        Err(Turned::fatal(Event::LoginFailed, "58030", "the gateway could not write to its access log")
            .hint("Nobody is let in while access cannot be recorded. Try again later."))
    }

    async fn send(&mut self, out: &[u8]) -> Result<(), Turned> {
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

    async fn identify(&mut self) -> Result<Principal, Turned> {
        let rules = wanted::mode_for(self.gateway.login_rules(), &self.wanted);
        let mode = if wanted::asks_for_password(&self.message) { LoginMode::Password } else { rules };
        let grant = match mode {
            LoginMode::Device => Grant::Device,
            LoginMode::Password => self.ask_password().await?,
        };
        let mut out = BytesMut::new();
        reply::authentication_ok(&mut out);
        let principal = match grant {
            Grant::Device => {
                self.send(&out).await?;
                self.device_login().await?
            }
            Grant::Token(token) => {
                let principal = self.gateway.provider.verify_token(token.reveal()).await?;
                self.send(&out).await?;
                principal
            }
            Grant::Minted(token) => {
                let principal = self.gateway.minted.lookup(token.reveal()).ok_or_else(|| {
                    Turned::fatal(
                        Event::LoginFailed,
                        "28P01",
                        "login failed: this token is not known, or its life is over",
                    )
                    .hint("Make a new one with: pgwitness token")
                })?;
                self.send(&out).await?;
                principal
            }
            Grant::Pairing(secret) => {
                self.send(&out).await?;
                self.paired_login(&secret).await?
            }
        };
        self.who.user = principal.user().to_owned();
        self.who.sub = principal.sub().to_owned();
        self.who.iss = principal.iss().to_owned();
        self.who.groups = principal.groups().to_vec();
        self.who.login = principal.login().to_owned();
        self.who.auth = principal.auth();
        if let Some(shown) = self.stream.peer_certificate() {
            let own = |name: &str, value| (name.to_owned(), value);
            let subject = certificate::subject(&shown).unwrap_or_default();
            self.who.auth.push(own("tls_subject", subject));
            self.who.auth.push(own("tls_sha256", certificate::fingerprint(&shown)));
        }
        Ok(principal)
    }

    async fn ask_password(&mut self) -> Result<Grant, Turned> {
        let mut out = BytesMut::new();
        reply::ask_password(&mut out);
        self.send(&out).await?;
        let body = tokio::time::timeout_at(self.deadline, self.read_password()).await.map_err(|_| {
            Turned::fatal(Event::LoginFailed, "28000", "login failed: no password came in time")
        })??;
        let grant = frontend::password(&body)
            .map_err(|error| Turned::fatal(Event::LoginFailed, "08P01", error.to_string()))
            .and_then(|password| Grant::read(password).map_err(Turned::from))?;
        Ok(grant)
    }

    async fn read_password(&mut self) -> Result<Vec<u8>, Turned> {
        let bad = |error: pgwitness_protocol::ProtocolError| {
            Turned::fatal(Event::LoginFailed, "08P01", error.to_string())
        };
        loop {
            let want = |tag, length| match (tag, length) {
                (b'p', 0..=MAX_PASSWORD) => Ok(length),
                (b'p', _) => {
                    Err(pgwitness_protocol::ProtocolError::TooLarge { tag, length, limit: MAX_PASSWORD })
                }
                _ => Err(pgwitness_protocol::ProtocolError::UnknownType(tag)),
            };
            if let Some(frame) = self.early.next(want).map_err(bad)? {
                let body = frame.body.to_vec();
                let count = self.early.cleared().len();
                self.early.passed(count);
                return Ok(body);
            }
            self.stream.read_more(self.early.space(1024)).await.map_err(|_| Turned::left())?;
        }
    }

    async fn device_login(&mut self) -> Result<Principal, Turned> {
        let login = self.gateway.provider.start_device().await?;
        self.prompt(&login, true).await?;
        let provider = self.gateway.provider.clone();
        let patience = self.patience(&login);
        match self.wait_for(&login, patience, provider.wait_device(&login)).await? {
            Some(principal) => Ok(principal),
            None if self.wanted.is_patient() => {
                Err(Turned::fatal(Event::LoginExpired, "28000", "login failed: it was not approved in time"))
            }
            None => Err(Turned::fatal(
                Event::LoginExpired,
                "28000",
                "a login is needed, and this program cannot show its link. Give it a password of your own making \
                 (openssl rand -hex 16) and the option -c pgwitness.login=password, then connect again",
            )
            .hint("One approval then covers every connection with that password.")),
        }
    }

    async fn paired_login(&mut self, secret: &Secret) -> Result<Principal, Turned> {
        let gateway = self.gateway.clone();
        let (user, database) = (&self.wanted.user, &self.wanted.database);
        let entry = gateway.pairings.enter(secret, user, database, &gateway.provider).await?;
        let mut waiter = match entry {
            PairingEntry::Approved(principal) => return Ok(principal),
            PairingEntry::Waiting(waiter) => waiter,
        };
        let login = waiter.login.clone();
        self.prompt(&login, waiter.is_first).await?;
        let patience = self.patience(&login);
        match self.wait_for(&login, patience, waiter.wait()).await? {
            Some(principal) => Ok(principal),
            None => Err(Turned::fatal(
                Event::LoginExpired,
                "28000",
                format!(
                    "to log in, open {} and approve the code {}, then connect again with the same password",
                    login.link(),
                    login.user_code
                ),
            )),
        }
    }

    fn patience(&self, login: &DeviceLogin) -> Instant {
        let life = login.expires_at.duration_since(SystemTime::now()).unwrap_or_default();
        let code_ends = Instant::now() + life;
        if self.wanted.is_patient() {
            self.deadline.min(code_ends)
        } else {
            self.deadline.min(code_ends).min(Instant::now() + IMPATIENT)
        }
    }

    /// Shows link and code, records that they were shown, and lets the demo approve by itself.
    async fn prompt(&mut self, login: &DeviceLogin, is_first: bool) -> Result<(), Turned> {
        if is_first {
            self.note(Event::LoginPrompted, Outcome::Ok, self.wanted.user.clone(), String::new())?;
        }
        self.show(login).await?;
        if let (true, Some(approver)) = (is_first, &self.gateway.approver) {
            approver.approve(&login.user_code, &self.wanted.user);
        }
        Ok(())
    }

    async fn show(&mut self, login: &DeviceLogin) -> Result<(), Turned> {
        let app = if self.wanted.app.is_empty() { "a program" } else { &self.wanted.app };
        let hint = format!(
            "Asked by {app} from {} for {} in database {}. Approve only if that is you.",
            self.who.ip, self.wanted.user, self.wanted.database
        );
        let link = login.link();
        let text = if login.verification_uri_complete.is_some() {
            format!("to log in, open {link} and check that it shows the code {}", login.user_code)
        } else {
            format!("to log in, open {link} and enter the code {}", login.user_code)
        };
        let mut out = BytesMut::new();
        Say::new(Severity::Warning, "01000", text).hint(hint).encode(&mut out);
        self.send(&out).await
    }

    /// Waits for the approval, the client's leaving, or the end of patience (`None`); reminds.
    async fn wait_for(
        &mut self,
        login: &DeviceLogin,
        until: Instant,
        approval: impl Future<Output = Result<Principal, LoginError>>,
    ) -> Result<Option<Principal>, Turned> {
        tokio::pin!(approval);
        let stop = self.gateway.stop.clone();
        let mut remind = Instant::now() + REMINDER;
        loop {
            let listening = self.early.len() < MAX_EARLY;
            tokio::select! {
                // An approval that is there counts, whatever else happened.
                biased;
                approved = &mut approval => return approved.map(Some).map_err(Turned::from),
                () = stop.cancelled() => {
                    return Err(Turned::fatal(Event::LoginFailed, "57P01", "the gateway is shutting down"));
                }
                read = self.stream.read_more(self.early.space(1024)), if listening => {
                    if read.is_err() {
                        return Err(Turned::left());
                    }
                }
                () = tokio::time::sleep_until(remind) => {
                    remind += REMINDER;
                    self.show(login).await?;
                }
                () = tokio::time::sleep_until(until) => return Ok(None),
            }
        }
    }

    fn grant(&mut self, principal: &Principal) -> Result<Granted, Turned> {
        if let policy::Verdict::Deny(reason) = policy::decide(principal, SystemTime::now()) {
            return Err(Turned::fatal(Event::Denied, "28000", reason));
        }
        let (user, database) = (&self.wanted.user, &self.wanted.database);
        policy::role_for(self.gateway.role_map(), principal, user, database, SystemTime::now())
            .map_err(|refusal| {
                let text =
                    format!("{} may not use role \"{user}\" in database \"{database}\"", principal.user());
                let mut turned = Turned::fatal(Event::Denied, "28000", text)
                    .hint("Ask whoever runs the gateway for a role_map entry.");
                turned.reason = refusal.reason;
                turned
            })
            .inspect(|granted| self.who.role.clone_from(&granted.role))
    }

    fn may_replicate(&self, principal: &Principal, granted: &Granted) -> Result<(), Turned> {
        let Some(replication) = self.wanted.replication else { return Ok(()) };
        let stretch = match replication {
            Replication::Physical => Stretch::Server,
            Replication::Logical => Stretch::Database(&self.wanted.database),
        };
        policy::may_replicate(&self.gateway.config.replication, principal, &granted.role, stretch).map_err(
            |refusal| {
                Turned::fatal(Event::Denied, "28000", refusal.reason)
                    .hint("A replication stream reads whole databases without naming a table.")
            },
        )
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
                Err(Turned { say: None, event: Event::SessionStart, outcome: Outcome::Error, reason })
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
        let replication = self.wanted.replication;
        let terms = Terms { message: &self.message, label: self.label.take(), replication };
        let mut session =
            Session::open(&gateway, self.who.clone(), terms, upstream, catalog, early, principal.expires());
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
