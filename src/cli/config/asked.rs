//! Which rules of a configuration decide about a person, without asking anybody: the answer is about whom the options
//! describe, and gives nothing to nobody.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use serde_json::{Value, json};

use crate::config::{Config, LoginMode};
use crate::policy::{self, Misfit, Person};

/// Whom a configuration is asked about.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// Say which rules decide about this person (name or verified e-mail address)
    #[arg(long = "as", value_name = "USER", requires = "database")]
    person: Option<String>,
    /// One of their groups (may be repeated)
    #[arg(long = "group", value_name = "GROUP", requires = "person")]
    groups: Vec<String>,
    /// The provider's own id of them (claim "sub")
    #[arg(long, default_value = "", requires = "person")]
    sub: String,
    /// The authentication context of their login (claim "acr")
    #[arg(long, requires = "person")]
    acr: Option<String>,
    /// The database they open
    #[arg(long, requires = "person")]
    database: Option<String>,
    /// The role they ask for (default: their own name, which gives the first one)
    #[arg(long, requires = "person")]
    role: Option<String>,
    /// Where they come from
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    from: IpAddr,
    /// Print JSON
    #[arg(long, requires = "person")]
    json: bool,
}

/// What the rules say.
struct Answer {
    login: String,
    passed_over: Vec<String>,
    role: Result<String, String>,
    upstream: Result<String, String>,
    log: String,
}

impl Asked {
    pub(super) fn is_about_somebody(&self) -> bool {
        self.person.is_some()
    }

    /// Prints what decides; success if the person gets in.
    pub(super) fn answer(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let user = self.person.as_deref().unwrap_or_default();
        let database = self.database.as_deref().unwrap_or_default();
        let wanted = self.role.as_deref().unwrap_or(user);
        let person = Person {
            user,
            sub: &self.sub,
            verified_email: user.contains('@').then_some(user),
            groups: &self.groups,
            acr: self.acr.as_deref(),
            configured_name: user.split_once(':').map(|(_, name)| name),
        };
        let answer = Answer::of(config, &person, wanted, database, self.from);
        if self.json {
            println!("{:#}", answer.json());
        } else {
            println!("{user} as \"{wanted}\" in database \"{database}\" from {}:", self.from);
            answer.print();
        }
        let is_let_in = answer.role.is_ok() && answer.upstream.is_ok();
        Ok(if is_let_in { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Answer {
    fn of(config: &Config, person: &Person<'_>, wanted: &str, database: &str, from: IpAddr) -> Self {
        let now = SystemTime::now();
        let login = match policy::login_rule(&config.login, wanted, database, from) {
            Some((at, rule)) => format!("[[login]] {} decides: {}", at + 1, mode_word(rule.mode)),
            None => format!("no [[login]] rule fits: {}", mode_word(LoginMode::Device)),
        };
        let granted = policy::role_for(&config.role_map, person, wanted, database, now);
        let misfits = passed_over(config, person, database, now);
        let role = granted.as_ref().map_err(ToString::to_string).map(|granted| {
            let until = config.role_map.get(granted.rule).and_then(|rule| rule.expires).and_then(|end| {
                let end = time::OffsetDateTime::from_unix_timestamp(end).ok()?;
                end.format(&time::format_description::well_known::Rfc3339).ok()
            });
            let until = until.map(|end| format!(", until {end}")).unwrap_or_default();
            format!("[[role_map]] {} decides: {}{until}", granted.rule + 1, granted.role)
        });
        let role_name = granted.map(|granted| granted.role).unwrap_or_default();
        let upstream = upstream(config, &role_name, database);
        let log = policy::log_access(&config.access, person).roles().join(", ");
        Self { login, passed_over: misfits, role, upstream, log }
    }

    fn print(&self) {
        let plain = |result: &Result<String, String>| match result {
            Ok(text) => text.clone(),
            Err(reason) => format!("refused: {reason}"),
        };
        println!("  login     {}", self.login);
        for rule in &self.passed_over {
            println!("  role      {rule}");
        }
        println!("  role      {}", plain(&self.role));
        if self.role.is_ok() {
            println!("  upstream  {}", plain(&self.upstream));
        }
        println!("  log       {}", self.log);
    }

    fn json(&self) -> Value {
        let both = |result: &Result<String, String>| match result {
            Ok(text) => json!({ "allowed": true, "why": text }),
            Err(reason) => json!({ "allowed": false, "why": reason }),
        };
        json!({
            "login": self.login, "passed_over": self.passed_over, "role": both(&self.role),
            "upstream": both(&self.upstream), "log": self.log,
        })
    }
}

/// Why the rules before the one that decides do not.
fn passed_over(config: &Config, person: &Person<'_>, database: &str, now: SystemTime) -> Vec<String> {
    let deciding = policy::deciding_rule(&config.role_map, person, database, now);
    let end = deciding.map_or(config.role_map.len(), |(at, _)| at);
    let before = config.role_map.get(..end).unwrap_or_default();
    let why = |rule| match policy::deciding_rule(std::slice::from_ref(rule), person, database, now) {
        Ok(_) => "it decides",
        Err(misfits) => match misfits.first() {
            Some(Misfit::Expired) => "it is over",
            Some(Misfit::Database) => "it is about other databases",
            Some(Misfit::Person) | None => "it names neither them nor a group of theirs",
        },
    };
    before
        .iter()
        .enumerate()
        .map(|(at, rule)| format!("[[role_map]] {} does not: {}", at + 1, why(rule)))
        .collect()
}

/// Where the connection goes, if the gateway can log in there.
fn upstream(config: &Config, role: &str, database: &str) -> Result<String, String> {
    let serves = |listed: &[String]| listed.is_empty() || listed.iter().any(|name| name == database);
    let found = config.upstreams.iter().find(|upstream| serves(&upstream.databases));
    let upstream = found.ok_or_else(|| format!("no [[upstream]] serves the database \"{database}\""))?;
    if upstream.credentials.iter().any(|credential| credential.role == role) {
        return Ok(format!("\"{}\", with a credential for {role}", upstream.name));
    }
    Err(format!("upstream \"{}\" has no credential for role \"{role}\"", upstream.name))
}

fn mode_word(mode: LoginMode) -> &'static str {
    match mode {
        LoginMode::Device => "by link and code (\"device\")",
        LoginMode::Password => "a token, or the client's own pairing secret (\"password\")",
        LoginMode::Paired => "the client's own pairing secret (\"paired\")",
        LoginMode::Token => "a JWT as password (\"token\")",
        LoginMode::Minted => "a token of pgwitness as password (\"minted\")",
        LoginMode::Oauth => "SASL OAUTHBEARER (\"oauth\")",
        LoginMode::Scram => "the password of a [[service]] (\"scram\")",
    }
}
