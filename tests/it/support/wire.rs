//! A client that speaks the protocol itself, message by message, and badly where that matters.
#![allow(dead_code, reason = "not every way to speak is in use at all times")]
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::gateway::TestGateway;
use super::postgres::server;

/// An answer must come within this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
pub(crate) const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

/// One message: type, length, body.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend((body.len() as u32 + 4).to_be_bytes());
    out.extend(body);
    out
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

pub(crate) fn bind(portal: &str, statement: &str, values: &[&str]) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0\0\0").into_bytes();
    body.extend((values.len() as u16).to_be_bytes());
    for value in values {
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    body.extend([0, 0]);
    message(b'B', &body)
}

pub(crate) fn execute(portal: &str) -> Vec<u8> {
    message(b'E', format!("{portal}\0\0\0\0\0").as_bytes())
}

pub(crate) fn close(kind: char, name: &str) -> Vec<u8> {
    message(b'C', format!("{kind}{name}\0").as_bytes())
}

pub(crate) fn sync() -> Vec<u8> {
    message(b'S', b"")
}

pub(crate) fn error_code(body: &[u8]) -> String {
    let field = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&b'C')).unwrap();
    String::from_utf8(field[1..].to_vec()).unwrap()
}

/// The fields of a DataRow, as text.
pub(crate) fn fields(body: &[u8]) -> Vec<Option<String>> {
    let mut rest = &body[2..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (length, more) = rest.split_at(4);
        let length = i32::from_be_bytes(length.try_into().unwrap());
        let (value, more) = more.split_at(usize::try_from(length).unwrap_or(0));
        found.push((length >= 0).then(|| String::from_utf8_lossy(value).into_owned()));
        rest = more;
    }
    found
}

/// Whether no error is in an answer.
pub(crate) fn succeeded(answer: &Messages) -> bool {
    !answer.iter().any(|(tag, _)| *tag == b'E')
}

/// Rows of an answer.
pub(crate) fn rows(answer: &Messages) -> Vec<Vec<Option<String>>> {
    answer.iter().filter(|(tag, _)| *tag == b'D').map(|(_, body)| fields(body)).collect()
}

/// `Describe`, of a statement (`S`) or a portal (`P`).
pub(crate) fn describe(kind: char, name: &str) -> Vec<u8> {
    message(b'D', format!("{kind}{name}\0").as_bytes())
}

/// `FunctionCall` with all arguments and the result in binary.
pub(crate) fn call(function: u32, values: &[&[u8]]) -> Vec<u8> {
    let mut body = function.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 1]);
    body.extend((values.len() as u16).to_be_bytes());
    for value in values {
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(*value);
    }
    body.extend([0, 1]);
    message(b'F', &body)
}

pub(crate) trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

pub(crate) struct Wire {
    pub(crate) stream: Box<dyn Bytes>,
}

pub(crate) type Messages = Vec<(u8, Vec<u8>)>;

impl Wire {
    /// Logged in, past the first ReadyForQuery.
    pub(crate) async fn open(gateway: &TestGateway) -> Self {
        let mut wire = Self { stream: Box::new(connect(gateway).await) };
        wire.log_in(gateway).await;
        wire
    }

    /// The same, with more startup parameters.
    pub(crate) async fn open_with(gateway: &TestGateway, more: &[(&str, &str)]) -> Self {
        let mut wire = Self { stream: Box::new(connect(gateway).await) };
        wire.ask_with(gateway, more).await;
        wire.ready().await;
        wire
    }

    pub(crate) async fn log_in(&mut self, gateway: &TestGateway) {
        self.ask_in(gateway).await;
        self.ready().await;
    }

    /// Sends the startup message.
    pub(crate) async fn ask_in(&mut self, gateway: &TestGateway) {
        self.ask_with(gateway, &[]).await;
    }

    async fn ask_with(&mut self, gateway: &TestGateway, more: &[(&str, &str)]) {
        let mut body = (3u32 << 16).to_be_bytes().to_vec();
        let own =
            [("user", "ann@example.com"), ("database", gateway.database()), ("application_name", "psql")];
        for (name, value) in own.iter().chain(more) {
            body.extend(format!("{name}\0{value}\0").as_bytes());
        }
        body.push(0);
        self.send(&[&(body.len() as u32 + 4).to_be_bytes(), body.as_slice()].concat()).await;
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next message; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = async {
            let tag = self.stream.read_u8().await.ok()?;
            let length = self.stream.read_u32().await.ok()? as usize - 4;
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.ok()?;
            Some((tag, body))
        };
        tokio::time::timeout(PATIENCE, read).await.expect("the gateway answers in time")
    }

    /// Everything up to ReadyForQuery.
    pub(crate) async fn ready(&mut self) -> Messages {
        let mut seen = Vec::new();
        loop {
            let (tag, body) = self.next().await.unwrap_or_else(|| panic!("cut off after {seen:?}"));
            seen.push((tag, body));
            if tag == b'Z' {
                return seen;
            }
        }
    }

    /// Everything up to the end of the connection.
    pub(crate) async fn rest(&mut self) -> Messages {
        let mut seen = Vec::new();
        while let Some(message) = self.next().await {
            seen.push(message);
        }
        seen
    }

    /// Sends a query string and hears it out.
    pub(crate) async fn run(&mut self, sql: &str) -> Messages {
        self.send(&query(sql)).await;
        self.ready().await
    }

    pub(crate) async fn tags(&mut self) -> String {
        self.ready().await.iter().map(|(tag, _)| char::from(*tag)).collect()
    }
}

pub(crate) async fn connect(gateway: &TestGateway) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Another session ends the backend that runs a statement like this.
pub(crate) async fn terminate(gateway: &TestGateway, like: &str) {
    let admin = server().connect(server().superuser(), "postgres").await;
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE datname = '{}' AND query LIKE '%{like}%' AND backend_type = 'client backend'",
        gateway.database()
    );
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if admin.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    admin.close().await;
}

/// A startup packet of protocol 3.
pub(crate) fn startup(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = (3u32 << 16 | u32::from(minor)).to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    [&(body.len() as u32 + 4).to_be_bytes(), body.as_slice()].concat()
}

/// The message of an error.
pub(crate) fn error_text(body: &[u8]) -> String {
    let field = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&b'M')).unwrap();
    String::from_utf8(field[1..].to_vec()).unwrap()
}

impl Wire {
    /// Connected, and nothing said.
    pub(crate) async fn silent(gateway: &TestGateway) -> Self {
        Self { stream: Box::new(connect(gateway).await) }
    }

    /// Logged in with these parameters besides user and database.
    pub(crate) async fn with(gateway: &TestGateway, parameters: &[(&str, &str)]) -> Self {
        let mut wire = Self::silent(gateway).await;
        let own = [("user", "ann@example.com"), ("database", gateway.database())];
        wire.send(&startup(0, &[&own, parameters].concat())).await;
        wire.ready().await;
        wire
    }

    /// The only value of a query.
    pub(crate) async fn value(&mut self, sql: &str) -> String {
        self.send(&query(sql)).await;
        let answer = self.ready().await;
        let row = answer.iter().find(|(tag, _)| *tag == b'D').unwrap_or_else(|| panic!("{sql}: {answer:?}"));
        String::from_utf8(row.1.get(6..).unwrap_or_default().to_vec()).unwrap()
    }
}
