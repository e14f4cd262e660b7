//! Who is there: how a client that has said who it wants to be proves it.
//!
//! The rule of the listener chooses the mode; nothing but `identity` makes a [`Principal`] of what the client shows.

use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use pgwitness_index::record::{Event, Outcome};
use pgwitness_protocol::frontend;
use pgwitness_protocol::reply::{self, Say, Severity};
use tokio::time::Instant;

use super::startup::{Accepted, Turned};
use super::wanted::{self, Pin};
use crate::config::{LoginMode, Secret};
use crate::identity::{
    ACKNOWLEDGED, Asked, Certificate, Channel, Exchange, Grant, LoginError, OAUTHBEARER, Opens, PairingEntry,
    PendingLogin, Principal, ScramError, Wanted, inert, read_bearer,
};
use crate::tls::certificate;

/// Other programs hide notices, and give up by themselves after 15 s or more: they are told by an
/// error, which every program shows.
const IMPATIENT: Duration = Duration::from_secs(12);

/// Between two reminders of the link.
const REMINDER: Duration = Duration::from_secs(30);

/// A password message may be this long: tokens are long.
const MAX_PASSWORD: usize = 70_000;

/// Bytes that a client may send before it is let in.
const MAX_EARLY: usize = 16 * 1024;

/// Told when none of the passwords that the rule takes came.
const NOT_TAKEN: &str = "login failed: this kind of password is not taken here";

impl Accepted {
    /// Identifies the client and fills in what the records say of it.
    pub(super) async fn identify(&mut self) -> Result<Principal, Turned> {
        let (rule, pin) = wanted::mode_for(self.gateway.login_rules(), &self.wanted, self.address);
        let mode = match rule {
            // Where nothing is asked for, a client may ask to be asked.
            LoginMode::Device if wanted::asks_for_password(&self.message) => LoginMode::Password,
            rule => rule,
        };
        let principal = match mode {
            LoginMode::Device => self.by_grant(Grant::Device, pin).await?,
            LoginMode::Oauth => self.by_oauth().await?,
            LoginMode::Scram => self.by_scram().await?,
            LoginMode::Password | LoginMode::Paired | LoginMode::Token | LoginMode::Minted => {
                let grant = self.ask_password().await?;
                self.check_kind(mode, &grant)?;
                self.by_grant(grant, pin).await?
            }
        };
        self.who.user = principal.user().to_owned();
        self.who.sub = principal.sub().to_owned();
        self.who.iss = principal.iss().to_owned();
        self.who.groups = principal.groups().to_vec();
        self.who.login = principal.login().to_owned();
        self.who.auth = principal.auth();
        let own = |name: &str, value| (name.to_owned(), value);
        self.who.auth.extend(self.stream.tls_version().map(|version| own("tls", version.to_owned())));
        if let Some(shown) = self.stream.peer_certificate() {
            let subject = certificate::subject(&shown).unwrap_or_default();
            self.who.auth.push(own("tls_subject", subject));
            self.who.auth.push(own("tls_sha256", certificate::fingerprint(&shown)));
        }
        self.who.device = self.asked(Opens::Connection).machine().id_for(&principal);
        Ok(principal)
    }

    /// What whoever approves is shown of the client.
    fn asked(&self, opens: Opens) -> Asked {
        let shown = self.stream.peer_certificate();
        let certificate = shown.as_deref().map(|shown| Certificate {
            subject: certificate::subject(shown).unwrap_or_default(),
            sha256: certificate::fingerprint(shown),
        });
        Asked::from(self.address)
            .saying(&self.wanted.app, &self.wanted.user, &self.wanted.database)
            .showing(certificate)
            .opening(opens)
    }

    /// Whether the rule takes this kind of password.
    fn check_kind(&self, mode: LoginMode, grant: &Grant) -> Result<(), Turned> {
        let (taken, hint) = match mode {
            LoginMode::Paired => (
                matches!(grant, Grant::Pairing(_)),
                "Give the program a secret of your own: openssl rand -hex 16",
            ),
            LoginMode::Token => {
                (matches!(grant, Grant::Token(_)), "The password must be a JWT of the identity provider.")
            }
            LoginMode::Minted => (matches!(grant, Grant::Minted(_)), "Make a password with: pgwitness token"),
            _ => (true, ""),
        };
        if taken { Ok(()) } else { Err(Turned::fatal(Event::LoginFailed, "28P01", NOT_TAKEN).hint(hint)) }
    }

    async fn by_grant(&mut self, grant: Grant, pin: Pin) -> Result<Principal, Turned> {
        match grant {
            Grant::Device => {
                self.let_in().await?;
                self.device_login().await
            }
            Grant::Token(token) => {
                let principal = self.gateway.provider.verify_token(token.reveal()).await?;
                self.let_in().await?;
                Ok(principal)
            }
            Grant::Minted(token) => {
                let principal = self.gateway.minted.lookup(token.reveal()).ok_or_else(|| {
                    Turned::fatal(
                        Event::LoginFailed,
                        "28P01",
                        "login failed: this token is not known, or its life is over",
                    )
                    .hint("Make a new one with: pgwitness token")
                    .counted()
                })?;
                self.let_in().await?;
                Ok(principal)
            }
            Grant::Pairing(secret) => {
                self.let_in().await?;
                self.paired_login(&secret, pin).await
            }
        }
    }

    /// From here on every client takes notices.
    async fn let_in(&mut self) -> Result<(), Turned> {
        let mut out = BytesMut::new();
        reply::authentication_ok(&mut out);
        self.send(&out).await
    }

    /// OAUTHBEARER: a token, or the question where to get one. RFC 7628, 3.2.3: a failure is told by a message
    /// that the client acknowledges, then by the error.
    async fn by_oauth(&mut self) -> Result<Principal, Turned> {
        let first = self.begin_sasl(&[OAUTHBEARER]).await?.1;
        let refused = match read_bearer(&first)? {
            Some(token) => match self.gateway.provider.verify_bearer(token.reveal()).await {
                Ok(principal) => {
                    self.let_in().await?;
                    return Ok(principal);
                }
                Err(error @ LoginError::BadToken(_)) => Turned::from(error),
                Err(error) => return Err(error.into()),
            },
            None => {
                let mut prompted = Turned::fatal(
                    Event::LoginPrompted,
                    "28000",
                    "a login is needed: the client is told where to get a token",
                );
                prompted.outcome = Outcome::Ok;
                prompted
            }
        };
        let answer = self.gateway.provider.discovery();
        let mut out = BytesMut::new();
        reply::sasl_continue(&mut out, answer.as_bytes());
        self.send(&out).await?;
        if self.response().await? != ACKNOWLEDGED {
            return Err(Turned::fatal(Event::LoginFailed, "08P01", "the OAUTHBEARER message is malformed"));
        }
        Err(refused)
    }

    /// SCRAM-SHA-256 for the accounts of the configuration.
    async fn by_scram(&mut self) -> Result<Principal, Turned> {
        let end_point = if self.stream.is_tls() {
            self.gateway.tls.as_ref().and_then(|tls| certificate::end_point(&tls.certificate()?))
        } else {
            None
        };
        let channel = Channel { end_point: end_point.as_deref() };
        let (mechanism, first) = self.begin_sasl(channel.mechanisms()).await?;
        let name = self.wanted.user.clone();
        let (services, now) = (self.gateway.services.clone(), SystemTime::now());
        let account = services.verifier(&name, &self.wanted.database, self.address, now);
        let begun = Exchange::begin(account, (services.mock_key(), &name), &mechanism, channel, &first);
        let (exchange, answer) = begun.map_err(|error| scram_failed(error, &name))?;
        let mut out = BytesMut::new();
        reply::sasl_continue(&mut out, answer.as_bytes());
        self.send(&out).await?;
        let last = self.response().await?;
        let proof = exchange.finish(&last).map_err(|error| scram_failed(error, &name))?;
        let principal =
            services.principal(&name, now).ok_or_else(|| scram_failed(ScramError::Wrong, &name))?;
        if principal.auth().iter().any(|(fact, _)| fact == "break_glass") {
            tracing::warn!(service = %name, ip = %self.who.ip, database = %self.wanted.database,
                "somebody broke the glass: an emergency account logs in");
        }
        out.clear();
        reply::sasl_final(&mut out, proof.as_bytes());
        reply::authentication_ok(&mut out);
        self.send(&out).await?;
        Ok(principal)
    }

    /// Offers mechanisms; gives the chosen one and what the client says first.
    async fn begin_sasl(&mut self, mechanisms: &[&str]) -> Result<(Vec<u8>, Vec<u8>), Turned> {
        let mut out = BytesMut::new();
        reply::ask_sasl(&mut out, mechanisms);
        self.send(&out).await?;
        let bad = |reason: String| Turned::fatal(Event::LoginFailed, "08P01", reason);
        let body = self.response().await?;
        let (chosen, first) = frontend::sasl_initial(&body).map_err(|error| bad(error.to_string()))?;
        if !mechanisms.iter().any(|name| name.as_bytes() == chosen) {
            return Err(bad("the client chose a SASL mechanism that was not offered".to_owned()));
        }
        Ok((chosen.to_vec(), first.unwrap_or_default().to_vec()))
    }

    /// The body of the client's next answer.
    async fn response(&mut self) -> Result<Vec<u8>, Turned> {
        tokio::time::timeout_at(self.deadline, self.read_password())
            .await
            .map_err(|_| Turned::fatal(Event::LoginFailed, "28000", "login failed: no answer came in time"))?
    }

    async fn ask_password(&mut self) -> Result<Grant, Turned> {
        let mut out = BytesMut::new();
        reply::ask_password(&mut out);
        self.send(&out).await?;
        let body = self.response().await?;
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
        let login = self.gateway.logins.begin(self.asked(Opens::Connection)).await?;
        self.prompt(&login, true).await?;
        let patience = self.patience(&login);
        match self.wait_for(&login, patience, login.wait()).await? {
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

    async fn paired_login(&mut self, secret: &Secret, pin: Pin) -> Result<Principal, Turned> {
        let gateway = self.gateway.clone();
        let address = (pin == Pin::Address).then(|| self.address.to_canonical());
        let wanted = Wanted { user: &self.wanted.user, database: &self.wanted.database, address };
        let asked = self.asked(Opens::Secret);
        let entry = gateway.pairings.enter(secret, wanted, asked, &gateway.logins).await?;
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
                    "to log in, open {} and {} the code {}, then connect again with the same password",
                    login.link(),
                    if login.link_holds_code() { "approve" } else { "enter" },
                    login.user_code()
                ),
            )),
        }
    }

    fn patience(&self, login: &PendingLogin) -> Instant {
        let life = login.expires_at().duration_since(SystemTime::now()).unwrap_or_default();
        let code_ends = Instant::now() + life;
        if self.wanted.is_patient() {
            self.deadline.min(code_ends)
        } else {
            self.deadline.min(code_ends).min(Instant::now() + IMPATIENT)
        }
    }

    /// Shows link and code, records that they were shown, and lets the demo approve by itself.
    async fn prompt(&mut self, login: &PendingLogin, is_first: bool) -> Result<(), Turned> {
        if is_first {
            self.note(Event::LoginPrompted, Outcome::Ok, self.wanted.user.clone(), String::new())?;
        }
        self.show(login).await?;
        if let (true, Some(approver)) = (is_first, &self.gateway.approver) {
            approver.approve(login.link(), login.user_code(), &self.wanted.user);
        }
        Ok(())
    }

    async fn show(&mut self, login: &PendingLogin) -> Result<(), Turned> {
        let app = if self.wanted.app.is_empty() { "a program" } else { &self.wanted.app };
        let hint = format!(
            "Asked by {app} from {} for {} in database {}. Approve only if that is you.",
            self.who.ip,
            inert(&self.wanted.user),
            inert(&self.wanted.database)
        );
        let (link, code) = (login.link(), login.user_code());
        let text = if login.link_holds_code() {
            format!("to log in, open {link} and check that it shows the code {code}")
        } else {
            format!("to log in, open {link} and enter the code {code}")
        };
        let mut out = BytesMut::new();
        Say::new(Severity::Warning, "01000", text).hint(hint).encode(&mut out);
        self.send(&out).await
    }

    /// Waits for the approval, the client's leaving, or the end of patience (`None`); reminds.
    async fn wait_for(
        &mut self,
        login: &PendingLogin,
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
}

/// The same words whether there is such an account or not.
fn scram_failed(error: ScramError, name: &str) -> Turned {
    let (code, text) = match error {
        ScramError::Wrong => ("28P01", format!("password authentication failed for user \"{name}\"")),
        ScramError::Malformed => ("08P01", error.to_string()),
        ScramError::Binding => ("28000", error.to_string()),
    };
    let turned = Turned::fatal(Event::LoginFailed, code, text);
    if error == ScramError::Wrong { turned.counted() } else { turned }
}
