//! Logins that the provider can be asked about are asked about: who was disabled loses their sessions, who has other
//! groups has other roles.
//!
//! A provider that is away changes nothing for open sessions; after [`outage_grace`](crate::config::Oidc::outage_grace) paired secrets and minted
//! tokens open no more of them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use pgwitness_index::record::{Event, Outcome, Who};
use pgwitness_protocol::reply::{Say, Severity};
use rand::Rng;
use tokio::time::Instant;

use super::Gateway;
use super::live::is_meant;
use crate::identity::{LoginError, Principal, Whose};
use crate::policy;

/// Logins that are followed at one time; those beyond end when their life is over.
const MAX_FOLLOWED: usize = 20_000;
/// A session that a login opens may be on its way for this long.
const STARTING: Duration = Duration::from_secs(60);
/// How far, of itself, an interval is stretched or shortened: logins of one morning must not ask all at once.
const JITTER: f64 = 0.2;

/// The logins that are followed, by id.
#[derive(Debug, Default)]
pub(super) struct Renewing(Mutex<HashSet<String>>);

impl Renewing {
    /// Whether it was not followed, and is now.
    fn begin(&self, login: &str) -> bool {
        let mut followed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        followed.len() < MAX_FOLLOWED && followed.insert(login.to_owned())
    }

    fn end(&self, login: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(login);
    }
}

impl Gateway {
    /// Follows a login, if the provider can be asked about it and nobody does yet.
    pub(super) fn follow(self: &Arc<Self>, principal: &Principal) {
        if !principal.is_renewable() || !self.renewing.begin(principal.login()) {
            return;
        }
        let (gateway, principal, stop) = (Arc::downgrade(self), principal.clone(), self.stop.clone());
        self.tracker.spawn(async move {
            let login = principal.login().to_owned();
            tokio::select! {
                () = stop.cancelled() => {}
                () = ask(&gateway, principal) => {}
            }
            if let Some(gateway) = gateway.upgrade() {
                gateway.renewing.end(&login);
            }
        });
    }

    /// Whether a login has an open session, or something that opens one.
    fn is_used(&self, login: &str) -> bool {
        let whose = Whose::Login(login.to_owned());
        let open = self.live.lock().values().any(|live| is_meant(&whose, &live.who));
        open || self.pairings.knows(login) || self.minted.knows(login)
    }

    /// What the provider tells now holds for what the login opens from here on, and for what it has open.
    fn changed(&self, now: &Principal) {
        self.pairings.update(now);
        self.minted.update(now);
        let whose = Whose::Login(now.login().to_owned());
        let open: Vec<_> =
            self.live.lock().values().filter(|live| is_meant(&whose, &live.who)).cloned().collect();
        for live in open {
            let who = &live.who;
            if policy::role_for(self.role_map(), &now.into(), &who.role, &who.db, SystemTime::now()).is_err()
            {
                let words = Say::new(Severity::Fatal, "57P01", "your access to this role was withdrawn")
                    .hint("Ask whoever runs the gateway.");
                self.live.end(&Whose::Session(who.session.clone()), &words);
            }
        }
        self.tell(Event::LoginRefreshed, now, "the provider tells of other groups".to_owned());
    }

    /// The provider says that the login is over.
    fn over(&self, principal: &Principal) {
        let login = principal.login();
        self.revoke(&Whose::Login(login.to_owned()));
        let words = Say::new(Severity::Fatal, "57P01", "your login was ended by the identity provider")
            .hint("Connect again to log in, if you may.");
        let ended = self.live.end(&Whose::Login(login.to_owned()), &words);
        self.tell(
            Event::LoginRevoked,
            principal,
            format!("by the identity provider; sessions ended: {ended}"),
        );
    }

    fn tell(&self, event: Event, principal: &Principal, detail: String) {
        let who = Who {
            user: principal.user().to_owned(),
            sub: principal.sub().to_owned(),
            iss: principal.iss().to_owned(),
            groups: principal.groups().to_vec(),
            login: principal.login().to_owned(),
            auth: principal.auth(),
            ..Who::default()
        };
        self.note(event, Outcome::Ok, &Arc::new(who), detail, String::new());
    }
}

/// Asks again and again, until the login is over or of no use.
async fn ask(gateway: &Weak<Gateway>, mut principal: Principal) {
    let mut away_since: Option<Instant> = None;
    let begun = Instant::now();
    loop {
        let Some((every, grace)) = gateway.upgrade().map(|gateway| {
            let oidc = &gateway.config.oidc;
            (oidc.refresh_every, oidc.outage_grace)
        }) else {
            return;
        };
        // Sooner again while it is away.
        let pause = if away_since.is_some() { every / 5 } else { every };
        tokio::time::sleep(around(pause).min(principal.time_left(SystemTime::now()))).await;
        let Some(gateway) = gateway.upgrade() else { return };
        let unused = begun.elapsed() > STARTING && !gateway.is_used(principal.login());
        if unused || principal.is_expired(SystemTime::now()) {
            return;
        }
        match gateway.provider.renew(&principal).await {
            None => return,
            Some(Ok(now)) => {
                away_since = None;
                gateway.pairings.renewed(&now);
                gateway.minted.renewed(&now);
                if now.groups() != principal.groups() || now.user() != principal.user() {
                    gateway.changed(&now);
                }
                principal = now;
            }
            Some(Err(LoginError::Denied)) => return gateway.over(&principal),
            Some(Err(error)) => {
                tracing::warn!(%error, login = principal.login(), "could not ask the provider about a login");
                let since = *away_since.get_or_insert_with(Instant::now);
                if since.elapsed() > grace {
                    gateway.revoke(&Whose::Login(principal.login().to_owned()));
                }
            }
        }
    }
}

fn around(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + rand::thread_rng().gen_range(-JITTER..JITTER))
}
