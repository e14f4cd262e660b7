//! What a startup message asks for: whom to be, where, which settings.

use std::net::IpAddr;

use pgwitness_protocol::options;
use pgwitness_protocol::reply::{Say, Severity};
use pgwitness_protocol::startup::{APPLICATION_NAME, StartupMessage};

use crate::config::{LoginMode, LoginRule};
use crate::policy;

/// Programs that show a notice to the person at once: they may wait as long as the code lives.
const PATIENT: [&str; 12] = [
    "psql",
    "pg_dump",
    "pg_dumpall",
    "pg_restore",
    "pgbench",
    "vacuumdb",
    "reindexdb",
    "createdb",
    "dropdb",
    "pg_basebackup",
    "pg_receivewal",
    "pg_recvlogical",
];

/// The startup option by which a client asks to be asked for a password.
pub(super) const LOGIN_OPTION: &str = "pgwitness.login";

/// PostgreSQL cuts names beyond (NAMEDATALEN - 1).
const MAX_NAME: usize = 63;

/// A program's name in records, characters.
const MAX_APP: usize = 128;

/// What the startup message asked for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) user: String,
    /// For physical replication, which knows no database, [`ALL_DATABASES`].
    pub(super) database: String,
    /// The database by which the server is found.
    pub(super) route: String,
    pub(super) app: String,
    pub(super) replication: Option<Replication>,
}

/// A connection on which the server is a walsender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replication {
    /// `replication=true`: of the whole server.
    Physical,
    /// `replication=database`: of one database, and SQL besides.
    Logical,
}

/// What physical replication reads, as pg_hba.conf calls it.
const ALL_DATABASES: &str = "replication";

impl Replication {
    /// The word in messages.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Physical => "physical replication",
            Self::Logical => "logical replication",
        }
    }

    /// What `replication` asks for.
    fn read(message: &StartupMessage) -> Result<Option<Self>, Say> {
        let mut values = message.parameters.iter().filter(|(name, _)| name == "replication");
        let Some((_, value)) = values.next() else { return Ok(None) };
        let invalid = |text: String| Err(Say::new(Severity::Fatal, "22023", text));
        if values.next().is_some() {
            return invalid("the startup message has \"replication\" more than once".into());
        }
        match &value[..] {
            b"database" => Ok(Some(Self::Logical)),
            value => match boolean(value) {
                Some(true) => Ok(Some(Self::Physical)),
                Some(false) => Ok(None),
                None => {
                    let value = one_line(&String::from_utf8_lossy(value));
                    invalid(format!("invalid value for parameter \"replication\": \"{value}\""))
                }
            },
        }
    }
}

/// `parse_bool`: any beginning of a word that is not that of another.
fn boolean(value: &[u8]) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let begins = |word: &[u8], least: usize| value.len() >= least && word.starts_with(&value);
    match () {
        () if begins(b"true", 1) || begins(b"yes", 1) || begins(b"on", 2) || value == b"1" => Some(true),
        () if begins(b"false", 1) || begins(b"no", 1) || begins(b"off", 2) || value == b"0" => Some(false),
        () => None,
    }
}

impl Wanted {
    pub(super) fn read(message: &StartupMessage) -> Result<Self, Say> {
        let fatal = |code, reason: &str| Say::new(Severity::Fatal, code, reason);
        let text = |name| match message.get(name).map(std::str::from_utf8) {
            None => Ok(None),
            Some(Ok("")) => Ok(None),
            Some(Ok(text)) => Ok(Some(text.to_owned())),
            Some(Err(_)) => Err(fatal("22021", "the startup message has a name that is not UTF-8")),
        };
        let user = text("user")?
            .ok_or_else(|| fatal("28000", "no PostgreSQL user name specified in startup packet"))?;
        let replication = Replication::read(message)?;
        let named = text("database")?;
        let (database, route) = match (replication, named) {
            (Some(Replication::Physical), named) => {
                (ALL_DATABASES.to_owned(), named.unwrap_or_else(|| ALL_DATABASES.to_owned()))
            }
            (_, named) => {
                let database = named.unwrap_or_else(|| user.clone());
                (database.clone(), database)
            }
        };
        // PostgreSQL would cut it and open another database than the one decided about here.
        if route.len() > MAX_NAME {
            return Err(fatal("42622", "the database's name is too long: PostgreSQL keeps 63 bytes"));
        }
        Ok(Self { user, database, route, app: one_line(&own_app(message)), replication })
    }

    pub(super) fn is_patient(&self) -> bool {
        PATIENT.contains(&self.app.as_str())
    }
}

/// A program's name as people and records see it: one line, no control characters.
pub(super) fn one_line(app: &str) -> String {
    app.chars().map(|c| if c.is_control() { '?' } else { c }).take(MAX_APP).collect()
}

/// The program's name as it would stand without us: a parameter of the packet goes before `options`.
fn own_app(message: &StartupMessage) -> String {
    let named = |name: &[u8]| name.eq_ignore_ascii_case(APPLICATION_NAME.as_bytes());
    let parameter = message.parameters.iter().rev().find(|(name, _)| named(name));
    let value = parameter.map(|(_, value)| value.to_vec()).or_else(|| {
        let options = options::settings(message.get("options")?);
        options.into_iter().rev().find(|setting| named(&setting.name)).map(|setting| setting.value)
    });
    String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()
}

/// Whether the startup message, or its `options`, hold `pgwitness.login=password`.
pub(super) fn asks_for_password(message: &StartupMessage) -> bool {
    let wish = |name: &[u8], value: &[u8]| {
        name.eq_ignore_ascii_case(LOGIN_OPTION.as_bytes()) && value == b"password"
    };
    message.parameters.iter().any(|(name, value)| wish(name, value))
        || options::settings(message.get("options").unwrap_or_default())
            .iter()
            .any(|setting| wish(&setting.name, &setting.value))
}

/// Settings that the startup message asks for: `-c name=value` in `options`, then its parameters, as the
/// server applies them.
pub(super) fn settings(message: &StartupMessage) -> Vec<(String, String)> {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut asked: Vec<_> = options::settings(message.get("options").unwrap_or_default())
        .iter()
        .map(|setting| (lossy(&setting.name), lossy(&setting.value)))
        .collect();
    for (name, value) in &message.parameters {
        if !matches!(&name[..], b"user" | b"database" | b"options" | b"replication") {
            asked.push((lossy(name), lossy(value)));
        }
    }
    asked
}

/// How this client logs in, and whether a paired secret is bound to its address: the first rule that fits decides.
pub(super) fn mode_for(rules: &[LoginRule], wanted: &Wanted, from: IpAddr) -> (LoginMode, Pin) {
    match policy::login_rule(rules, &wanted.user, &wanted.database, from) {
        Some((_, rule)) if rule.pin_address => (rule.mode, Pin::Address),
        Some((_, rule)) => (rule.mode, Pin::None),
        None => (LoginMode::Device, Pin::None),
    }
}

/// What a paired secret is bound to, besides user and database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pin {
    /// Nothing.
    None,
    /// The client's address.
    Address,
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
    fn replication_is_read_as_postgresql_reads_it() {
        let of = |value: &str| Wanted::read(&message(&[("user", "a"), ("replication", value)]));
        for (value, expected) in [
            ("database", Some(Replication::Logical)),
            ("true", Some(Replication::Physical)),
            ("T", Some(Replication::Physical)),
            ("on", Some(Replication::Physical)),
            ("1", Some(Replication::Physical)),
            ("of", None),
            ("n", None),
            ("0", None),
        ] {
            assert_eq!(of(value).unwrap().replication, expected, "{value}");
        }
        for value in ["", "o", "Database", "2", "truely"] {
            assert!(of(value).is_err(), "{value}");
        }
        let twice = [("user", "a"), ("replication", "off"), ("replication", "database")];
        assert!(Wanted::read(&message(&twice)).is_err());
    }

    #[test]
    fn physical_replication_is_of_all_databases_whatever_one_is_named() {
        let wanted = Wanted::read(&message(&[("user", "a"), ("database", "shop"), ("replication", "yes")]));
        let wanted = wanted.unwrap();
        assert_eq!((wanted.database.as_str(), wanted.route.as_str()), ("replication", "shop"));
    }

    #[test]
    fn a_database_name_that_postgresql_would_cut_is_refused() {
        let name = |length| "d".repeat(length);
        assert!(Wanted::read(&message(&[("user", "a"), ("database", &name(63))])).is_ok());
        assert!(Wanted::read(&message(&[("user", "a"), ("database", &name(64))])).is_err());
    }

    #[test]
    fn of_two_users_and_databases_the_last_counts_as_in_postgresql() {
        let message = message(&[("user", "a"), ("database", "x"), ("user", "b"), ("database", "y")]);
        let wanted = Wanted::read(&message).unwrap();
        assert_eq!((wanted.user.as_str(), wanted.database.as_str()), ("b", "y"));
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
            addresses: vec!["10.0.0.0/8".parse().unwrap()],
            mode,
            pin_address: mode == LoginMode::Password,
        };
        let (near, far) = (IpAddr::from([10, 1, 2, 3]), IpAddr::from([11, 1, 2, 3]));
        let rules = [rule(&["bi"], LoginMode::Password), rule(&[], LoginMode::Token)];
        let wanted = |db: &str| Wanted::read(&message(&[("user", "ann"), ("database", db)])).unwrap();
        assert_eq!(mode_for(&rules, &wanted("bi"), near), (LoginMode::Password, Pin::Address));
        assert_eq!(mode_for(&rules, &wanted("shop"), near), (LoginMode::Token, Pin::None));
        assert_eq!(mode_for(&rules, &wanted("bi"), far), (LoginMode::Device, Pin::None));
        assert_eq!(mode_for(&[], &wanted("shop"), near), (LoginMode::Device, Pin::None));
    }

    #[test]
    fn settings_are_those_of_the_options_and_then_the_parameters() {
        let asked = settings(&message(&[("user", "ann"), ("TimeZone", "UTC"), ("options", "-c role=x")]));
        let expected = [("role", "x"), ("TimeZone", "UTC")];
        assert_eq!(asked, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn the_programs_name_may_stand_in_the_options_and_the_parameter_goes_first() {
        let app = |parameters: &[(&str, &str)]| Wanted::read(&message(parameters)).unwrap().app;
        let options = ("options", "-c application_name=inside");
        assert_eq!(app(&[("user", "a"), options]), "inside");
        assert_eq!(app(&[("user", "a"), ("application_name", "outside"), options]), "outside");
        assert_eq!(app(&[("user", "a"), ("APPLICATION_NAME", "loud")]), "loud");
    }
}
