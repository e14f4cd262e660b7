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
use pgwitness_protocol::startup::StartupMessage;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use uuid::Uuid;

use super::cancel::Target;
use super::greeting::{self, Greeting, GreetingError, Offer};
use super::session::Session;
use super::stream::Stream;
use super::upstream::{Server, Upstream, UpstreamError};
use super::{Gateway, event_record};
use crate::clock;
use crate::config::{ListenTls, LoginMode, LoginRule, Secret};
use crate::identity::{DeviceLogin, Grant, LoginError, PairingEntry, Principal};
use crate::policy::{self, Granted};

/// Programs that show a notice to the person at once: they may wait as long as the code lives.
const PATIENT: [&str; 9] =
    ["psql", "pg_dump", "pg_dumpall", "pg_restore", "pgbench", "vacuumdb", "reindexdb", "createdb", "dropdb"];

/// Other programs hide notices, and give up by themselves after 15 s or more: they are told by an
/// error, which every program shows.
const IMPATIENT: Duration = Duration::from_secs(12);

/// Between two reminders of the link.
const REMINDER: Duration = Duration::from_secs(30);

/// The startup option by which a client asks to be asked for a password.
const LOGIN_OPTION: &str = "pgwitness.login";

/// A password message may be this long: tokens are long.
const MAX_PASSWORD: usize = 70_000;

/// Telling a client why it is refused may take this long.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// PostgreSQL cuts names beyond (NAMEDATALEN - 1).
const MAX_NAME: usize = 63;

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
    deadline: Instant,
}

/// What the startup message asked for.
#[derive(Debug, Clone)]
struct Wanted {
    user: String,
    database: String,
    app: String,
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
    let required = matches!(gateway.config.listen.tls, ListenTls::Require(_));
    let greeting = greeting::greet(stream, Offer { tls: gateway.tls.as_ref(), required }).await;
    match greeting {
        Ok(Greeting::Start { mut stream, message, early }) => {
            let places = gateway.clone();
            match places.places.try_acquire() {
                Ok(_place) => start(gateway, stream, message, early, address).await,
                Err(_) => {
                    let say = Say::new(Severity::Fatal, "53300", "sorry, too many clients already")
                        .hint("The gateway's limit is listen.max_clients.");
                    tell(&mut stream, &say).await;
                }
            }
        }
        Ok(Greeting::Cancel { pid, key }) => cancel(&gateway, pid, &key, address).await,
        Err(GreetingError::Refused { mut stream, code, reason, hint }) => {
            let who = Arc::new(Who { ip: address.ip().to_string(), ..Who::default() });
            gateway.note(Event::Denied, Outcome::Denied, &who, "startup".into(), reason.clone());
            tell(&mut stream, &Say::new(Severity::Fatal, code, reason).hint(hint)).await;
        }
        Err(error) => tracing::debug!(%error, %address, "no session"),
    }
}

async fn tell(stream: &mut Stream, say: &Say) {
    let mut out = BytesMut::new();
    say.encode(&mut out);
    let farewell = async {
        stream.send(&out).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await;
}

async fn cancel(gateway: &Gateway, pid: u32, key: &[u8], address: SocketAddr) {
    let ip = address.ip().to_string();
    let Some(target) = gateway.cancel_keys.find(pid, key) else {
        let who = Arc::new(Who { ip, ..Who::default() });
        let reason = "no open session has this key".to_owned();
        gateway.note(Event::Cancel, Outcome::Denied, &who, format!("process {pid}"), reason);
        return;
    };
    let who = Arc::new(Who { ip, ..(*target.who).clone() });
    let detail = format!("process {pid}");
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
            let who = Arc::new(Who { ip, ..Who::default() });
            gateway.note(Event::Denied, Outcome::Denied, &who, "startup".into(), say.message.clone());
            tell(&mut stream, &say).await;
            return;
        }
    };
    let who = Who { ip, db: wanted.database.clone(), app: wanted.app.clone(), ..Who::default() };
    let deadline = Instant::now() + gateway.config.listen.login_timeout;
    let mut buffer = FrameBuffer::new();
    buffer.space(early.len()).extend_from_slice(&early);
    let mut accepted = Accepted { gateway, stream, message, early: buffer, wanted, who, deadline };
    if let Err(turned) = accepted.serve().await {
        accepted.turn_away(turned).await;
    }
}

impl Wanted {
    fn read(message: &StartupMessage) -> Result<Self, Say> {
        let fatal = |code, reason: &str| Say::new(Severity::Fatal, code, reason);
        let text = |name| match message.get(name).map(std::str::from_utf8) {
            None => Ok(None),
            Some(Ok("")) => Ok(None),
            Some(Ok(text)) => Ok(Some(text.to_owned())),
            Some(Err(_)) => Err(fatal("22021", "the startup message has a name that is not UTF-8")),
        };
        let user = text("user")?
            .ok_or_else(|| fatal("28000", "no PostgreSQL user name specified in startup packet"))?;
        let database = text("database")?.unwrap_or_else(|| user.clone());
        // PostgreSQL would cut it and open another database than the one decided about here.
        if database.len() > MAX_NAME {
            return Err(fatal("42622", "the database's name is too long: PostgreSQL keeps 63 bytes"));
        }
        if text("replication")?.is_some_and(|value| !matches!(value.as_str(), "false" | "off" | "no" | "0")) {
            return Err(fatal("0A000", "replication connections are not allowed through this gateway")
                .hint("A replication stream reads whole databases without naming a table."));
        }
        // Shown to people and in records: one line, no control characters.
        let app = text("application_name").ok().flatten().unwrap_or_default();
        let app = app.chars().map(|c| if c.is_control() { '?' } else { c }).take(128).collect();
        Ok(Self { user, database, app })
    }

    fn is_patient(&self) -> bool {
        PATIENT.contains(&self.app.as_str())
    }
}

/// Whether the startup message's `options` hold `-c pgwitness.login=password`.
fn asks_for_password(message: &StartupMessage) -> bool {
    let wish = |value: &[u8]| value == b"password";
    if message.get(LOGIN_OPTION).is_some_and(wish) {
        return true;
    }
    let options = message.get("options").map(String::from_utf8_lossy).unwrap_or_default();
    options.split_ascii_whitespace().any(|word| {
        let word = word.strip_prefix("-c").or(word.strip_prefix("--")).unwrap_or(word);
        word.strip_prefix(LOGIN_OPTION) == Some("=password")
    })
}

fn mode_for(rules: &[LoginRule], wanted: &Wanted) -> LoginMode {
    let listed = |list: &[String], name: &str| list.is_empty() || list.iter().any(|known| known == name);
    rules
        .iter()
        .find(|rule| listed(&rule.databases, &wanted.database) && listed(&rule.users, &wanted.user))
        .map_or(LoginMode::Device, |rule| rule.mode)
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
        let principal = self.identify().await?;
        let granted = self.grant(&principal)?;
        self.note(Event::LoginOk, Outcome::Ok, principal.mode().as_str().to_owned(), String::new())?;
        let (server, upstream) = self.connect(&granted).await?;
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
        if self.message.minor == 0 && self.message.protocol_options().next().is_none() {
            return Ok(());
        }
        let mut out = BytesMut::new();
        reply::negotiate_version(&mut out, self.message.protocol_options());
        self.send(&out).await
    }

    async fn identify(&mut self) -> Result<Principal, Turned> {
        let rules = mode_for(self.gateway.login_rules(), &self.wanted);
        let mode = if asks_for_password(&self.message) { LoginMode::Password } else { rules };
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

    async fn connect(&mut self, granted: &Granted) -> Result<(Arc<Server>, Upstream), Turned> {
        let database = &self.wanted.database;
        let unknown = || {
            Turned::fatal(Event::Denied, "3D000", format!("no upstream serves the database \"{database}\""))
        };
        let server = self.gateway.databases.server_for(database).ok_or_else(unknown)?.clone();
        self.who.upstream.clone_from(&server.config.name);
        let password = server.password(&granted.role).cloned().ok_or_else(|| {
            let text = format!("the gateway has no credential for role \"{}\"", granted.role);
            Turned::fatal(Event::Denied, "28000", text).hint("Add it under credentials of the upstream.")
        })?;
        match server.connect(&self.message, &granted.role, database, &password).await {
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
                    Turned::fatal(Event::SessionStart, "08001", "could not connect to the database").hint(
                        "The gateway is up, the database behind it does not answer. Ask whoever runs it.",
                    );
                turned.outcome = Outcome::Error;
                turned.reason = error.to_string();
                Err(turned)
            }
        }
    }

    async fn open_session(
        &mut self,
        server: Arc<Server>,
        upstream: Upstream,
        principal: &Principal,
        granted: Granted,
    ) -> Result<(), Turned> {
        self.who.session = Uuid::to_string(&clock::new_id(clock::now()));
        let gateway = self.gateway.clone();
        let catalog = gateway.databases.catalog(&server, &self.wanted.database);
        if catalog.is_stale() {
            catalog.refresh(&granted.role).await;
        }
        let early = std::mem::take(&mut self.early);
        let mut session = Session::open(
            &gateway,
            self.who.clone(),
            &self.message,
            upstream,
            catalog,
            early,
            principal.expires(),
        );
        let start = Completion::new(Outcome::Ok, TxnOutcome::None);
        let record = event_record(Event::SessionStart, session.who(), self.wanted.user.clone(), Some(start));
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
        let key = gateway.cancel_keys.add(target);
        session.greet(key);
        session.run(&mut self.stream).await;
        gateway.cancel_keys.remove(pid, key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(parameters: &[(&str, &str)]) -> StartupMessage {
        let parameters = parameters
            .iter()
            .map(|(name, value)| (Bytes::from(name.to_string()), Bytes::from(value.to_string())))
            .collect();
        StartupMessage { minor: 0, parameters }
    }

    #[test]
    fn a_client_may_ask_to_be_asked_for_a_password() {
        for (options, asks) in [
            ("-c pgwitness.login=password", true),
            ("-cpgwitness.login=password", true),
            ("--pgwitness.login=password", true),
            ("-c work_mem=1MB -c pgwitness.login=password", true),
            ("-c pgwitness.login=device", false),
            ("", false),
        ] {
            assert_eq!(asks_for_password(&message(&[("options", options)])), asks, "{options}");
        }
    }

    #[test]
    fn a_replication_connection_is_refused() {
        assert!(Wanted::read(&message(&[("user", "a"), ("replication", "database")])).is_err());
        assert!(Wanted::read(&message(&[("user", "a"), ("replication", "false")])).is_ok());
    }

    #[test]
    fn a_database_name_that_postgresql_would_cut_is_refused() {
        let name = |length| "d".repeat(length);
        assert!(Wanted::read(&message(&[("user", "a"), ("database", &name(63))])).is_ok());
        assert!(Wanted::read(&message(&[("user", "a"), ("database", &name(64))])).is_err());
    }

    #[test]
    fn of_two_users_and_databases_the_last_counts_as_in_postgresql_and_one_is_passed_on() {
        let message = message(&[("user", "a"), ("database", "x"), ("user", "b"), ("database", "y")]);
        let wanted = Wanted::read(&message).unwrap();
        assert_eq!((wanted.user.as_str(), wanted.database.as_str()), ("b", "y"));
        let packet = message.encode_for_server("role", "y");
        assert_eq!(packet.windows(5).filter(|w| w == b"user\0").count(), 1);
    }

    #[test]
    fn the_database_is_the_users_name_if_none_is_given_and_programs_names_are_one_clean_line() {
        let wanted =
            Wanted::read(&message(&[("user", "ann"), ("application_name", "a\n\u{1b}[31mb")])).unwrap();
        assert_eq!((wanted.database.as_str(), wanted.app.as_str()), ("ann", "a??[31mb"));
    }

    #[test]
    fn the_first_login_rule_that_fits_decides() {
        let rule = |databases: &[&str], mode| LoginRule {
            databases: databases.iter().map(|d| d.to_string()).collect(),
            users: vec![],
            mode,
        };
        let rules = [rule(&["bi"], LoginMode::Password), rule(&[], LoginMode::Device)];
        let wanted = |db: &str| Wanted { user: "ann".into(), database: db.into(), app: String::new() };
        assert_eq!(mode_for(&rules, &wanted("bi")), LoginMode::Password);
        assert_eq!(mode_for(&rules, &wanted("shop")), LoginMode::Device);
        assert_eq!(mode_for(&[], &wanted("shop")), LoginMode::Device);
    }
}
