//! Accounts of the configuration: programs that cannot log in as somebody, and the way in for emergencies.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::RngCore;

use super::principal::{SERVICE_ISSUER, SERVICE_PREFIX, Verified};
use super::scram::Verifier;
use super::{Mode, Principal};
use crate::config::{Proof, Service};

/// A `[[service]]` whose verifier is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "service {0:?}: the password or verifier cannot be used (a verifier is SCRAM-SHA-256$<iterations>:<salt>$…)"
)]
pub struct BadVerifier(String);

/// The accounts. Clones share them.
#[derive(Clone)]
pub struct Services(Arc<Inner>);

struct Inner {
    accounts: HashMap<String, (Service, Verifier)>,
    mock_key: [u8; 32],
    life: Duration,
}

impl Services {
    /// The accounts of a configuration; a login lasts for `life` at most.
    ///
    /// # Errors
    /// A verifier that is none.
    pub fn new(services: &[Service], life: Duration) -> Result<Self, BadVerifier> {
        let mut accounts = HashMap::with_capacity(services.len());
        for service in services {
            let verifier = match &service.proof {
                Proof::Password(password) => Verifier::of(password.reveal()),
                Proof::Verifier(verifier) => Verifier::read(verifier.reveal()),
            };
            let verifier = verifier.ok_or_else(|| BadVerifier(service.name.clone()))?;
            accounts.insert(service.name.clone(), (service.clone(), verifier));
        }
        let mut mock_key = [0; 32];
        rand::rngs::OsRng.fill_bytes(&mut mock_key);
        Ok(Self(Arc::new(Inner { accounts, mock_key, life })))
    }

    /// What proves that somebody is an account, if it may come from there to this database now.
    #[must_use]
    pub fn verifier(&self, name: &str, database: &str, from: IpAddr, now: SystemTime) -> Option<&Verifier> {
        let (service, verifier) = self.0.accounts.get(name)?;
        let listed = service.databases.is_empty() || service.databases.iter().any(|known| known == database);
        let near = service.addresses.is_empty() || service.addresses.iter().any(|net| net.contains(&from));
        let over = service.expires.is_some_and(|end| moment(end) <= now);
        (listed && near && !over).then_some(verifier)
    }

    /// For whoever names no account: see [`super::scram::Exchange::begin`].
    #[must_use]
    pub fn mock_key(&self) -> &[u8; 32] {
        &self.0.mock_key
    }

    /// The account, once it is proven.
    pub(crate) fn principal(&self, name: &str, now: SystemTime) -> Option<Principal> {
        let (service, _) = self.0.accounts.get(name)?;
        let who = Verified {
            iss: SERVICE_ISSUER.to_owned(),
            sub: name.to_owned(),
            user: format!("{SERVICE_PREFIX}{name}"),
            email: None,
            email_verified: false,
            groups: Vec::new(),
            auth: service
                .break_glass
                .then(|| ("break_glass".to_owned(), "true".to_owned()))
                .into_iter()
                .collect(),
        };
        let ends = service.expires.map_or(now + self.0.life, moment);
        Some(Principal::new(who, Mode::Scram, ends.min(now + self.0.life)))
    }
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("accounts", &self.0.accounts.len()).finish_non_exhaustive()
    }
}

fn moment(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
