//! Programs that log in with a JWT of the platform they run on: a CI job, a service account of Kubernetes.
//!
//! The token's `iss` chooses whose keys must have made it; the rules then go by what the signature covers. The first
//! rule whose claims all hold decides, and no claim of the token but those named there gives anything: the name and
//! the groups are the rule's.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::claims::Claims;
use super::principal::WORKLOAD_PREFIX;
use super::provider::{Patience, unix};
use super::token::Unverified;
use super::{LoginError, Mode, Principal, Provider, SetupError, TokenFault};
use crate::config::{Oidc, Workload};

/// The rules, and the issuers that are not the provider of people.
#[derive(Clone, Default)]
pub(super) struct Workloads(Arc<Vec<Rule>>);

struct Rule {
    rule: Workload,
    /// Whose keys; `None`: those of the provider of people.
    issuer: Option<Provider>,
}

impl Workloads {
    /// The rules of a configuration, beside the provider of people.
    ///
    /// # Errors
    /// An issuer is neither `https` nor `http` on a loopback host, or TLS could not be set up.
    pub(super) fn new(rules: &[Workload], people: &Oidc) -> Result<Self, SetupError> {
        let mut found: Vec<Rule> = Vec::with_capacity(rules.len());
        for rule in rules {
            let known = found.iter().find(|other| other.rule.issuer == rule.issuer);
            let issuer = match known {
                _ if rule.issuer == people.issuer => None,
                Some(other) => other.issuer.clone(),
                None => Some(Provider::new(keys_alone(rule, people))?),
            };
            found.push(Rule { rule: rule.clone(), issuer });
        }
        Ok(Self(Arc::new(found)))
    }

    /// No token of a program is taken for longer.
    pub(super) fn longest_life(&self) -> Duration {
        self.0.iter().map(|rule| rule.rule.max_life).max().unwrap_or_default()
    }

    /// The program that a token stands for; `None`: no rule is about tokens like this, so it is a person's or nobody's.
    ///
    /// # Errors
    /// The signature is not the issuer's, the rule that fits does not take the token, or the issuer is not that of
    /// people and no rule fits.
    pub(super) async fn find(
        &self,
        token: &Unverified<'_>,
        people: &Provider,
    ) -> Result<Option<Principal>, LoginError> {
        let Some(named) = token.issuer() else { return Ok(None) };
        let rules = || self.0.iter().filter(|rule| rule.rule.issuer == named);
        let Some(first) = rules().next() else { return Ok(None) };
        let claims = first.issuer.as_ref().unwrap_or(people).signed(token, Patience::None).await?;
        match rules().find(|rule| rule.fits(&claims)) {
            Some(rule) => Ok(Some(rule.admit(&claims, SystemTime::now())?)),
            None if first.issuer.is_some() => Err(TokenFault::NoWorkload.into()),
            None => Ok(None),
        }
    }
}

impl Rule {
    fn fits(&self, claims: &Claims) -> bool {
        self.rule.claims.iter().all(|rule| claims.holds(rule).is_some())
    }

    fn admit(&self, claims: &Claims, now: SystemTime) -> Result<Principal, TokenFault> {
        let Workload { name, audience, groups, max_life, .. } = &self.rule;
        claims.check_workload(audience, *max_life, unix(now))?;
        let issued = UNIX_EPOCH + Duration::from_secs(claims.issued()?.unsigned_abs());
        let mut who =
            claims.program(format!("{WORKLOAD_PREFIX}{name}"), &self.rule.issuer, groups.clone())?;
        for rule in &self.rule.claims {
            who.auth.extend(claims.holds(rule).map(|value| (format!("claim.{}", rule.claim), value)));
        }
        Ok(Principal::new(who, Mode::Token, issued.min(now) + *max_life))
    }
}

/// A provider of which only the keys are used.
fn keys_alone(rule: &Workload, people: &Oidc) -> Oidc {
    Oidc {
        issuer: rule.issuer.clone(),
        client_id: rule.audience.clone(),
        client_secret: None,
        audience: rule.audience.clone(),
        scopes: Vec::new(),
        require_acr: Vec::new(),
        ..people.clone()
    }
}
