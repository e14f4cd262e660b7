//! What the three people do with the shop on a sample day, as data, and how it is run through the
//! gateway: real connections, each after a login of its own, and every statement with the answer it must
//! get. Nothing here looks at the gateway's records.

mod ann;
mod bob;
mod carol;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, TryStreamExt, future, pin_mut};
use postgres_protocol::types as wire;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};
use tokio_postgres::{Error, SimpleQueryMessage};

use crate::config::Secret;

use super::postgres::{ConnectError, Connected, connect, told};
use super::shop::Person;

/// A login takes at most this long; somebody has to approve it.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(120);

/// A step takes at most this long.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// A bound parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// For integers of any size, sent in binary.
    Int(i64),
    /// For bool, sent in binary.
    Bool(bool),
    /// For every other type, sent as text.
    Text(&'static str),
}

/// How a step is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// One Query message, which may hold several statements.
    Simple,
    /// Prepared once and executed once for each list of parameters.
    Prepared(&'static [&'static [Value]]),
    /// Prepared, bound to a portal in a transaction of its own, and fetched so many rows at a time.
    Portal(&'static [Value], i32),
    /// COPY to us.
    CopyOut,
    /// COPY of this text to the server.
    CopyIn(&'static str),
}

/// What must come of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// It works.
    Ok,
    /// It ends in an error of this SQLSTATE.
    Error(&'static str),
}

/// Something that a person does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Its text.
    pub sql: &'static str,
    /// How it is sent.
    pub how: How,
    /// What must come of it.
    pub expect: Expect,
}

/// One connection of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sitting {
    /// Who.
    pub person: &'static Person,
    /// With which program.
    pub application_name: &'static str,
    /// What they do, in order.
    pub steps: &'static [Step],
}

/// What to say when connecting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Startup user.
    pub user: String,
    /// Password, if one is to be sent when asked.
    pub password: Option<Secret>,
}

/// What came of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seeded {
    /// Connections.
    pub sessions: usize,
    /// Statements that the server executed or failed at, BEGIN and COMMIT among them.
    pub statements: usize,
    /// How many of them failed.
    pub errors: usize,
    /// Those that did not do what the plan says.
    pub surprises: Vec<Surprise>,
}

/// A step that did not do what the plan says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{person}: expected {expected}, got {got}: {sql}")]
pub struct Surprise {
    /// Who.
    pub person: &'static str,
    /// Its text.
    pub sql: &'static str,
    /// What was to come of it.
    pub expected: String,
    /// What came of it.
    pub got: String,
}

/// Why a plan could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// Somebody could not log in.
    #[error("{person} could not log in: {source}")]
    Login {
        /// Who.
        person: &'static str,
        /// Why.
        source: ConnectError,
    },
    /// A connection broke, or a step took too long.
    #[error("{person} was cut off at `{sql}`: {why}")]
    Broken {
        /// Who.
        person: &'static str,
        /// What they were doing.
        sql: &'static str,
        /// What happened.
        why: String,
    },
}

/// Everything, in the order in which each person does it.
pub fn plan() -> Vec<Sitting> {
    [ann::SITTINGS, bob::SITTINGS, carol::SITTINGS].concat()
}

/// Logs in as a person, for a gateway that asks no password: by their e-mail address.
pub fn by_email(person: &Person) -> Login {
    Login { user: person.email.to_owned(), password: None }
}

/// Runs a plan: people side by side, each person's sittings one after the other. `host` may be the folder of
/// a unix socket. Whoever approves the logins does so meanwhile.
pub async fn run(
    host: &str,
    port: u16,
    dbname: &str,
    plan: &[Sitting],
    login: impl Fn(&Person) -> Login,
) -> Result<Seeded, SeedError> {
    let mut by_person: BTreeMap<&str, Vec<(&Sitting, tokio_postgres::Config)>> = BTreeMap::new();
    for sitting in plan {
        let login = login(sitting.person);
        let mut config = tokio_postgres::Config::new();
        config.host(host).port(port).dbname(dbname).user(login.user);
        config.application_name(sitting.application_name).connect_timeout(LOGIN_TIMEOUT);
        if let Some(password) = login.password {
            config.password(password.reveal());
        }
        by_person.entry(sitting.person.email).or_default().push((sitting, config));
    }
    let days = by_person.into_values().map(async |sittings| {
        let mut seeded = Seeded::default();
        for (sitting, config) in sittings {
            sit(sitting, &config, &mut seeded).await?;
        }
        Ok(seeded)
    });
    let days = future::try_join_all(days).await?;
    Ok(days.into_iter().fold(Seeded::default(), |mut sum, day| {
        sum.sessions += day.sessions;
        sum.statements += day.statements;
        sum.errors += day.errors;
        sum.surprises.extend(day.surprises);
        sum
    }))
}

async fn sit(
    sitting: &Sitting,
    config: &tokio_postgres::Config,
    seeded: &mut Seeded,
) -> Result<(), SeedError> {
    let person = sitting.person.name;
    let mut client = connect(config).await.map_err(|source| SeedError::Login { person, source })?;
    seeded.sessions += 1;
    for step in sitting.steps {
        let broken = |why: String| SeedError::Broken { person, sql: step.sql, why };
        let mut count = 0;
        let doing = tokio::time::timeout(STEP_TIMEOUT, take(&mut client, step, &mut count));
        let Ok(done) = doing.await else {
            return Err(broken(format!("no answer within {} s", STEP_TIMEOUT.as_secs())));
        };
        let got = match done {
            Ok(()) => "success".to_owned(),
            Err(error) => match error.code() {
                Some(code) if !client.is_closed() => code.code().to_owned(),
                _ => return Err(broken(told(&error))),
            },
        };
        seeded.statements += count;
        seeded.errors += usize::from(got != "success");
        let expected = match step.expect {
            Expect::Ok => "success",
            Expect::Error(code) => code,
        };
        if got != expected {
            seeded.surprises.push(Surprise { person, sql: step.sql, expected: expected.to_owned(), got });
        }
    }
    client.close().await;
    Ok(())
}

/// Takes one step, counting the statements that the server executed or failed at.
async fn take(client: &mut Connected, step: &Step, count: &mut usize) -> Result<(), Error> {
    match step.how {
        How::Simple => simple(client, step.sql, count).await,
        How::Prepared(runs) => {
            let statement = client.prepare(step.sql).await?;
            for params in runs {
                *count += 1;
                let rows = client.query_raw(&statement, params.iter()).await?;
                pin_mut!(rows);
                while rows.try_next().await?.is_some() {}
            }
            Ok(())
        }
        How::Portal(params, fetch) => portal(client, step.sql, params, fetch, count).await,
        How::CopyOut => {
            *count += 1;
            let data = client.copy_out(step.sql).await?;
            pin_mut!(data);
            while data.try_next().await?.is_some() {}
            Ok(())
        }
        How::CopyIn(text) => {
            *count += 1;
            let sink = client.copy_in::<_, Bytes>(step.sql).await?;
            pin_mut!(sink);
            sink.send(Bytes::from_static(text.as_bytes())).await?;
            sink.finish().await?;
            Ok(())
        }
    }
}

async fn simple(client: &Connected, sql: &str, count: &mut usize) -> Result<(), Error> {
    let messages = client.simple_query_raw(sql).await?;
    pin_mut!(messages);
    loop {
        match messages.try_next().await {
            Ok(Some(SimpleQueryMessage::CommandComplete(_))) => *count += 1,
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(error) => {
                *count += 1;
                return Err(error);
            }
        }
    }
}

async fn portal(
    client: &mut Connected,
    sql: &str,
    params: &[Value],
    fetch: i32,
    count: &mut usize,
) -> Result<(), Error> {
    *count += 1;
    let transaction = client.transaction().await?;
    let portal = transaction.bind_raw(sql, params.iter()).await?;
    *count += 1;
    loop {
        let rows = transaction.query_portal(&portal, fetch).await?;
        if i32::try_from(rows.len()).is_ok_and(|rows| rows < fetch) {
            break;
        }
    }
    *count += 1;
    transaction.commit().await
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => return Ok(IsNull::Yes),
            Value::Bool(value) => wire::bool_to_sql(*value, out),
            Value::Int(value) if *ty == Type::INT2 => wire::int2_to_sql(i16::try_from(*value)?, out),
            Value::Int(value) if *ty == Type::INT4 => wire::int4_to_sql(i32::try_from(*value)?, out),
            Value::Int(value) if *ty == Type::INT8 => wire::int8_to_sql(*value, out),
            Value::Int(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Value::Text(text) => out.extend_from_slice(text.as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, ty: &Type) -> Format {
        let int = [Type::INT2, Type::INT4, Type::INT8].contains(ty);
        match self {
            Value::Bool(_) | Value::Null => Format::Binary,
            Value::Int(_) if int => Format::Binary,
            Value::Int(_) | Value::Text(_) => Format::Text,
        }
    }

    tokio_postgres::types::to_sql_checked!();
}

/// A Query message that works.
const fn ok(sql: &'static str) -> Step {
    Step { sql, how: How::Simple, expect: Expect::Ok }
}

/// A Query message that fails.
const fn fails(sql: &'static str, code: &'static str) -> Step {
    Step { sql, how: How::Simple, expect: Expect::Error(code) }
}

/// A prepared statement that works each time.
const fn each(sql: &'static str, runs: &'static [&'static [Value]]) -> Step {
    Step { sql, how: How::Prepared(runs), expect: Expect::Ok }
}

/// A prepared statement whose last execution fails.
const fn each_fails(sql: &'static str, runs: &'static [&'static [Value]], code: &'static str) -> Step {
    Step { sql, how: How::Prepared(runs), expect: Expect::Error(code) }
}

/// A portal fetched in pieces.
const fn pieces(sql: &'static str, params: &'static [Value], fetch: i32) -> Step {
    Step { sql, how: How::Portal(params, fetch), expect: Expect::Ok }
}

/// COPY to us.
const fn copy_out(sql: &'static str) -> Step {
    Step { sql, how: How::CopyOut, expect: Expect::Ok }
}

/// COPY to the server.
const fn copy_in(sql: &'static str, text: &'static str) -> Step {
    Step { sql, how: How::CopyIn(text), expect: Expect::Ok }
}

#[cfg(test)]
mod tests;
