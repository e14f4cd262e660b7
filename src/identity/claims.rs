//! What a verified signature says, checked against what we expect, then read as a person. Pure:
//! the time is an argument.
//!
//! A name is only as good as its claim. If `email` is the claim that names people, the provider
//! must state `email_verified: true`; an unverified or unmarked address is refused, because with
//! many providers anybody can write any address into their own account. Whoever runs a provider
//! that does not mark addresses names people by another claim (`oidc.user_claim`). The verified
//! address also counts in rules when another claim names the person; an unmarked one never does.

use std::time::Duration;

use serde_json::{Map, Value};

use super::TokenFault;
use super::principal::{SERVICE_PREFIX, Verified, WORKLOAD_PREFIX};
use super::token::Kind;
use crate::config::{ClaimRule, Oidc};

/// Clocks may differ by this much, seconds.
const LEEWAY: i64 = 30;
/// Longest name, subject or group, bytes.
const MAX_TEXT: usize = 256;
/// Most groups of one person.
const MAX_GROUPS: usize = 1000;

/// The claims of a token whose signature was right, or of the provider's userinfo.
#[derive(Debug)]
pub(super) struct Claims {
    map: Map<String, Value>,
    kid: Option<String>,
    kind: Kind,
}

/// Whose token it must be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    /// The provider's answer to our own request, with the nonce we sent.
    Answer {
        /// Sent with the request, if any.
        nonce: Option<&'a str>,
    },
    /// Presented by a client.
    Presented,
}

impl Claims {
    pub(super) fn new(map: Map<String, Value>, kid: Option<String>, kind: Kind) -> Self {
        Self { map, kid, kind }
    }

    /// Checks everything but the person, at `now` in Unix seconds.
    pub(super) fn check(&self, config: &Oidc, origin: Origin<'_>, now: i64) -> Result<(), TokenFault> {
        if self.text("iss") != Some(config.issuer.as_str()) {
            return Err(TokenFault::Issuer);
        }
        self.check_audience(config, origin)?;
        self.check_times(config.session_max_age, now)?;
        if let Origin::Answer { nonce: Some(nonce) } = origin
            && self.text("nonce") != Some(nonce)
        {
            return Err(TokenFault::Nonce);
        }
        // A logout token looks like an ID token but for this claim.
        if self.map.contains_key("events") {
            return Err(TokenFault::Kind);
        }
        if !config.require_acr.is_empty() {
            let acr = self.text("acr").ok_or(TokenFault::Context)?;
            if !config.require_acr.iter().any(|wanted| wanted == acr) {
                return Err(TokenFault::Context);
            }
        }
        Ok(())
    }

    /// Checks a token of a program's platform: for whom it is, and when, at `now` in Unix seconds.
    pub(super) fn check_workload(
        &self,
        audience: &str,
        max_life: Duration,
        now: i64,
    ) -> Result<(), TokenFault> {
        if !self.is_for(audience) {
            return Err(TokenFault::Audience);
        }
        if self.map.contains_key("events") {
            return Err(TokenFault::Kind);
        }
        self.check_times(max_life, now)
    }

    /// What the claim says, if that is what the rule wants; of a list, the entry that is.
    pub(super) fn holds(&self, rule: &ClaimRule) -> Option<String> {
        let fits = |text: &str| {
            rule.values.iter().any(|wanted| match wanted.strip_suffix('*') {
                Some(beginning) => text.starts_with(beginning),
                None => text == wanted,
            })
        };
        let text = |value: &Value| match value {
            Value::String(text) => name(text),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
            _ => None,
        };
        match self.find(&rule.claim)? {
            Value::Array(many) => many.iter().filter_map(text).find(|text| fits(text)),
            one => text(one).filter(|text| fits(text)),
        }
    }

    /// A program, of which the token says the subject alone; the rest is the configuration's.
    pub(super) fn program(
        &self,
        user: String,
        iss: &str,
        groups: Vec<String>,
    ) -> Result<Verified, TokenFault> {
        let sub = self.map.get("sub").ok_or_else(|| missing("sub"))?;
        let sub = sub.as_str().and_then(name).ok_or_else(|| TokenFault::Claim("sub".to_owned()))?;
        let iss = iss.to_owned();
        let auth = self.auth();
        Ok(Verified { iss, sub, user, email: None, email_verified: false, groups, auth })
    }

    fn check_audience(&self, config: &Oidc, origin: Origin<'_>) -> Result<(), TokenFault> {
        let presented = matches!(origin, Origin::Presented);
        if !presented && self.kind == Kind::Access {
            return Err(TokenFault::Kind);
        }
        if presented && config.audience != config.client_id && self.is_for(&config.audience) {
            return Ok(());
        }
        // Ours is the gateway, and for tokens that are presented the command line too.
        let native = Some(&config.native_client_id).filter(|_| presented);
        let is_ours =
            |client: &str| client == config.client_id || native.is_some_and(|native| client == native);
        if !self.is_for(&config.client_id) && !native.is_some_and(|native| self.is_for(native)) {
            return Err(TokenFault::Audience);
        }
        // An ID token that another client asked for must not log in here; an access token may.
        let party = self.text("azp");
        if self.kind == Kind::Plain && party.is_some_and(|party| !is_ours(party)) {
            return Err(TokenFault::Party);
        }
        Ok(())
    }

    fn is_for(&self, audience: &str) -> bool {
        match self.map.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        }
    }

    fn check_times(&self, max_age: Duration, now: i64) -> Result<(), TokenFault> {
        if self.time("exp")?.ok_or_else(|| missing("exp"))?.saturating_add(LEEWAY) <= now {
            return Err(TokenFault::Expired);
        }
        let issued = self.issued()?;
        let begins = self.time("nbf")?.unwrap_or(issued).max(issued);
        if begins > now.saturating_add(LEEWAY) {
            return Err(TokenFault::NotYet);
        }
        let longest = i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX);
        if issued.saturating_add(longest) <= now {
            return Err(TokenFault::TooOld);
        }
        Ok(())
    }

    /// When the token was made, Unix seconds.
    pub(super) fn issued(&self) -> Result<i64, TokenFault> {
        self.time("iat")?.ok_or_else(|| missing("iat"))
    }

    /// Whether userinfo should be asked for what the token does not say.
    pub(super) fn lacks_person(&self, config: &Oidc) -> bool {
        let no_name = self.find(&config.user_claim).is_none();
        let no_vouch = config.user_claim == "email" && !self.map.contains_key("email_verified");
        no_name || no_vouch || self.find(&config.group_claim).is_none()
    }

    /// Adds what userinfo says and the token does not; it must be about the same person.
    pub(super) fn complete(&mut self, mut userinfo: Map<String, Value>) -> Result<(), TokenFault> {
        if userinfo.get("sub").and_then(Value::as_str) != self.text("sub") || self.text("sub").is_none() {
            return Err(TokenFault::Claim("sub".to_owned()));
        }
        // An address and the word that it is verified belong together.
        match self.map.get("email") {
            None => {
                self.map.remove("email_verified");
            }
            Some(own) if userinfo.get("email") == Some(own) => {}
            Some(_) => {
                userinfo.remove("email_verified");
            }
        }
        for (name, value) in userinfo {
            self.map.entry(name).or_insert(value);
        }
        Ok(())
    }

    /// The person.
    pub(super) fn person(&self, config: &Oidc) -> Result<Verified, TokenFault> {
        let email_verified = match self.map.get("email_verified") {
            Some(Value::Bool(verified)) => *verified,
            // Amazon Cognito writes it as text.
            Some(Value::String(text)) => text == "true",
            _ => false,
        };
        let user = self.find(&config.user_claim).ok_or_else(|| missing(&config.user_claim))?;
        let user = user
            .as_str()
            .and_then(name)
            .filter(|name| !name.starts_with(SERVICE_PREFIX) && !name.starts_with(WORKLOAD_PREFIX))
            .ok_or_else(|| TokenFault::Claim(config.user_claim.clone()))?;
        if config.user_claim == "email" && !email_verified {
            return Err(TokenFault::EmailNotVerified);
        }
        let sub = self.map.get("sub").ok_or_else(|| missing("sub"))?;
        Ok(Verified {
            iss: config.issuer.clone(),
            sub: sub.as_str().and_then(name).ok_or_else(|| TokenFault::Claim("sub".to_owned()))?,
            user,
            email: self.text("email").and_then(name),
            email_verified,
            groups: self.groups(&config.group_claim)?,
            auth: self.auth(),
        })
    }

    /// No claim: no groups. A claim that cannot be read whole: no login, for the first matching
    /// rule decides and a lost group could make a later one match.
    fn groups(&self, claim: &str) -> Result<Vec<String>, TokenFault> {
        let fault = || TokenFault::Claim(claim.to_owned());
        match self.find(claim) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::String(one)) => Ok(vec![name(one).ok_or_else(fault)?]),
            Some(Value::Array(many)) if many.len() <= MAX_GROUPS => {
                many.iter().map(|one| one.as_str().and_then(name).ok_or_else(fault)).collect()
            }
            Some(_) => Err(fault()),
        }
    }

    fn auth(&self) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for claim in ["amr", "acr", "auth_time", "iat", "exp", "jti"] {
            let text = match self.map.get(claim) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) => number.to_string(),
                Some(Value::Array(many)) => {
                    many.iter().filter_map(Value::as_str).take(16).collect::<Vec<_>>().join(" ")
                }
                _ => continue,
            };
            pairs.extend(name(&text).map(|text| (claim.to_owned(), text)));
        }
        let kid = self.kid.as_deref().and_then(name);
        pairs.extend(kid.map(|kid| ("kid".to_owned(), kid)));
        let email = self.text("email").and_then(name);
        pairs.extend(email.map(|email| ("email".to_owned(), email)));
        if let Some(Value::Bool(verified)) = self.map.get("email_verified") {
            pairs.push(("email_verified".to_owned(), verified.to_string()));
        }
        pairs
    }

    /// A claim by its name, or by a path of names joined by dots (`realm_access.roles`).
    fn find(&self, claim: &str) -> Option<&Value> {
        if let Some(value) = self.map.get(claim) {
            return Some(value);
        }
        let mut names = claim.split('.');
        let first = self.map.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name)).filter(|_| claim.contains('.'))
    }

    fn text(&self, claim: &str) -> Option<&str> {
        self.map.get(claim).and_then(Value::as_str)
    }

    /// A NumericDate; fractions are allowed and cut.
    fn time(&self, claim: &str) -> Result<Option<i64>, TokenFault> {
        let fault = || TokenFault::Claim(claim.to_owned());
        match self.map.get(claim) {
            None => Ok(None),
            Some(Value::Number(number)) => {
                let whole = number.as_i64();
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "a float cast saturates, and the range is checked next"
                )]
                let cut = || number.as_f64().map(|seconds| seconds as i64);
                let seconds = whole.or_else(cut).ok_or_else(fault)?;
                if (0..=MAX_TIME).contains(&seconds) { Ok(Some(seconds)) } else { Err(fault()) }
            }
            Some(_) => Err(fault()),
        }
    }
}

/// The year 9999: later times are a mistake.
const MAX_TIME: i64 = 253_402_300_799;

/// A text fit to be shown and compared: not empty, not long, nothing hidden in it.
fn name(text: &str) -> Option<String> {
    let fits = !text.trim().is_empty() && text.len() <= MAX_TEXT && !text.chars().any(is_hidden);
    fits.then(|| text.to_owned())
}

/// Control characters, and those that hide or reorder text.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn missing(claim: &str) -> TokenFault {
    TokenFault::Missing(claim.to_owned())
}
