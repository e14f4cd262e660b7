//! The database behind us: dialling, TLS, its authentication, cancelling, and the gateway's own
//! small questions (the catalog).
//!
//! Source: PostgreSQL documentation, "Message Flow"; RFC 5802 and RFC 7677 for SCRAM, which
//! postgres-protocol implements.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use pgwitness_protocol::ProtocolError;
use pgwitness_protocol::backend::{self, Report};
use pgwitness_protocol::frame::FrameBuffer;
use pgwitness_protocol::startup;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::proof::{Login, Step};
use super::stream::Stream;
use crate::config::{self, Credential};
use crate::tls::{self, TlsError};

/// Largest message while logging in, and largest row of the gateway's own questions.
const MAX_MESSAGE: usize = 64 << 20;

/// All rows of one of the gateway's own questions, bytes.
const MAX_ANSWER: usize = 1 << 30;

/// Room for one read.
const READ: usize = 16 * 1024;

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("could not connect to the database: {0}")]
    Connect(#[source] io::Error),
    #[error("the database did not answer in time")]
    Timeout,
    #[error("the database does not offer TLS")]
    NoTls,
    /// What it asked for that we do not do, and what to write so that we do.
    #[error("could not log in to the database: {0}")]
    Authentication(&'static str),
    #[error("the database's answer could not be understood: {0}")]
    Protocol(#[from] ProtocolError),
    /// The database said no: its own words, to be passed on as they are.
    #[error("{}: {}", report.code, report.message)]
    Refused { report: Report, frame: Bytes },
}

/// A database server, as configured.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) config: config::Upstream,
    tls: RwLock<Tls>,
    connect_timeout: Duration,
}

/// TLS as it is spoken now: without a certificate of our own, and for roles that have one.
#[derive(Debug, Clone)]
struct Tls {
    plain: Option<Arc<ClientConfig>>,
    of_roles: HashMap<String, Arc<ClientConfig>>,
}

impl Tls {
    fn read(config: &config::Upstream) -> Result<Self, TlsError> {
        let client = |own| tls::client(config.sslmode, config.sslrootcert.as_deref(), own);
        let mut of_roles = HashMap::new();
        for credential in &config.credentials {
            if let Some(own) = &credential.certificate
                && let Some(client) = client(Some(own))?
            {
                of_roles.insert(credential.role.clone(), client);
            }
        }
        Ok(Self { plain: client(None)?, of_roles })
    }
}

/// A logged-in connection, before its first query.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) stream: Stream,
    /// ParameterStatus and notices as they came, for the client.
    pub(crate) greeting: BytesMut,
    pub(crate) parameters: Vec<(String, String)>,
    /// What holds from the start though the server does not report it, as it answered when asked.
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) pid: u32,
    pub(crate) key: Bytes,
    /// Read beyond the first ReadyForQuery (normally nothing).
    pub(crate) rest: FrameBuffer,
}

impl Server {
    pub(crate) fn new(config: config::Upstream, connect_timeout: Duration) -> Result<Self, TlsError> {
        let tls = RwLock::new(Tls::read(&config)?);
        Ok(Self { config, tls, connect_timeout })
    }

    /// Reads certificates again. If anything is wrong with them, all stays as it was.
    ///
    /// # Errors
    /// Files that cannot be used.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let tls = Tls::read(&self.config)?;
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
        Ok(())
    }

    /// TLS for a role; without one, to cancel.
    fn tls(&self, role: Option<&str>) -> Option<Arc<ClientConfig>> {
        let tls = self.tls.read().unwrap_or_else(PoisonError::into_inner);
        role.and_then(|role| tls.of_roles.get(role)).or(tls.plain.as_ref()).cloned()
    }

    pub(crate) fn serves(&self, database: &str) -> bool {
        self.config.databases.is_empty() || self.config.databases.iter().any(|name| name == database)
    }

    pub(crate) fn credential(&self, role: &str) -> Option<&Credential> {
        self.config.credentials.iter().find(|credential| credential.role == role)
    }

    /// Connects and logs in by a startup packet.
    ///
    /// # Errors
    /// No connection within the time limit, or the database's refusal.
    pub(crate) async fn connect(
        &self,
        packet: &[u8],
        credential: &Credential,
    ) -> Result<Upstream, UpstreamError> {
        tokio::time::timeout(self.connect_timeout, async {
            let mut stream = self.dial(Some(&credential.role)).await?;
            stream.send(packet).await.map_err(UpstreamError::Connect)?;
            let login = Login::new(&self.config, credential, &stream);
            log_in(stream, login).await
        })
        .await
        .map_err(|_| UpstreamError::Timeout)?
    }

    /// Connects for a session whose statements will be read: asks for the settings that decide what
    /// they mean. (A replication connection does not answer that.)
    ///
    /// # Errors
    /// As [`Server::connect`].
    pub(crate) async fn connect_for_session(
        &self,
        packet: &[u8],
        credential: &Credential,
    ) -> Result<Upstream, UpstreamError> {
        let mut upstream = self.connect(packet, credential).await?;
        tokio::time::timeout(self.connect_timeout, upstream.ask_settings())
            .await
            .map_err(|_| UpstreamError::Timeout)??;
        Ok(upstream)
    }

    /// Asks the server to cancel what a backend runs.
    ///
    /// # Errors
    /// The request could not be delivered.
    pub(crate) async fn cancel(&self, pid: u32, key: &[u8]) -> Result<(), UpstreamError> {
        let request = startup::cancel_request(pid, key);
        tokio::time::timeout(self.connect_timeout, async {
            let mut stream = self.dial(None).await?;
            stream.send(&request).await.map_err(UpstreamError::Connect)?;
            // The server closes when it has signalled the backend: then the client may go on.
            let mut nothing = [0; 1];
            let _ = stream.read(&mut nothing).await;
            Ok(())
        })
        .await
        .map_err(|_| UpstreamError::Timeout)?
    }

    async fn dial(&self, role: Option<&str>) -> Result<Stream, UpstreamError> {
        let config::Upstream { host, port, .. } = &self.config;
        if host.starts_with('/') {
            let path = format!("{host}/.s.PGSQL.{port}");
            return Ok(Stream::Unix(UnixStream::connect(path).await.map_err(UpstreamError::Connect)?));
        }
        let mut stream = TcpStream::connect((host.as_str(), *port)).await.map_err(UpstreamError::Connect)?;
        super::stream::prepare(&stream).map_err(UpstreamError::Connect)?;
        let Some(tls) = self.tls(role) else { return Ok(Stream::Tcp(stream)) };
        stream.write_all(&startup::ssl_request()).await.map_err(UpstreamError::Connect)?;
        // Exactly one byte is read in clear: anything after it would be an injection (CVE-2021-23222).
        if stream.read_u8().await.map_err(UpstreamError::Connect)? != b'S' {
            return Err(UpstreamError::NoTls);
        }
        let name = ServerName::try_from(host.clone())
            .map_err(|_| UpstreamError::Connect(io::Error::other("the host is no name for a certificate")))?;
        let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(UpstreamError::Connect)?;
        Ok(Stream::TlsClient(Box::new(stream)))
    }
}

async fn log_in(mut stream: Stream, mut login: Login<'_>) -> Result<Upstream, UpstreamError> {
    let mut buffer = FrameBuffer::new();
    let mut greeting = BytesMut::new();
    let (mut pid, mut key) = (0, Bytes::new());
    let mut parameters = Vec::new();
    loop {
        let Some(frame) = buffer.next(cap)? else {
            stream.read_more(buffer.space(READ)).await.map_err(UpstreamError::Connect)?;
            continue;
        };
        let size = frame.length + pgwitness_protocol::frame::HEADER;
        let step = login.step(frame.tag, frame.body)?;
        if frame.tag == b'S' {
            let (name, value) = backend::parameter_status(frame.body)?;
            parameters.push((lossy(name), lossy(value)));
        }
        let cleared = buffer.cleared();
        let raw = cleared.get(cleared.len() - size..).unwrap_or_default();
        match step {
            Step::Keep => greeting.extend_from_slice(raw),
            Step::Key(p, k) => (pid, key) = (p, k),
            Step::Send(bytes) => stream.send(&bytes).await.map_err(UpstreamError::Connect)?,
            Step::Drop => {}
            Step::Ready => {
                let count = buffer.cleared().len();
                buffer.passed(count);
                let settings = Vec::new();
                return Ok(Upstream { stream, greeting, parameters, settings, pid, key, rest: buffer });
            }
        }
    }
}

fn cap(tag: u8, length: usize) -> Result<usize, ProtocolError> {
    if length > MAX_MESSAGE {
        return Err(ProtocolError::TooLarge { tag, length, limit: MAX_MESSAGE });
    }
    Ok(length)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn refusal(body: &[u8]) -> UpstreamError {
    let mut frame = BytesMut::with_capacity(body.len() + 5);
    frame.extend_from_slice(b"E");
    frame.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    frame.extend_from_slice(body);
    UpstreamError::Refused { report: backend::report(body), frame: frame.freeze() }
}

/// `current_setting(text)`, called by its OID: nothing is parsed, and no statement shows in the server's statistics.
fn current_setting(name: &str, out: &mut BytesMut) {
    const CURRENT_SETTING: u32 = 2077;
    out.put_u8(b'F');
    out.put_u32((4 + 4 + 2 + 2 + 4 + name.len() + 2) as u32);
    out.put_u32(CURRENT_SETTING);
    out.put_u16(0);
    out.put_u16(1);
    out.put_u32(name.len() as u32);
    out.put_slice(name.as_bytes());
    out.put_u16(0);
}

/// Settings that the record depends on, of which most servers do not report the one or the other.
const ASKED_AT_LOGIN: [&str; 2] = ["search_path", "role"];

impl Upstream {
    /// Asks what holds at the start of a session: by the server's configuration, by role and database, by the
    /// startup message. What the server does not tell is left out.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) async fn ask_settings(&mut self) -> Result<(), UpstreamError> {
        let unreported = |name: &&str| !self.parameters.iter().any(|(known, _)| known == name);
        let asked: Vec<&str> = ASKED_AT_LOGIN.into_iter().filter(unreported).collect();
        let mut question = BytesMut::new();
        asked.iter().for_each(|name| current_setting(name, &mut question));
        self.stream.send(&question).await.map_err(UpstreamError::Connect)?;
        let mut open = asked.into_iter().peekable();
        while let Some(name) = open.peek() {
            let Some(frame) = self.rest.next(cap)? else {
                self.stream.read_more(self.rest.space(READ)).await.map_err(UpstreamError::Connect)?;
                continue;
            };
            match (frame.tag, frame.body) {
                // A length of -1 is NULL.
                (b'V', [0..=0x7f, _, _, _, value @ ..]) => {
                    self.settings.push(((*name).to_owned(), lossy(value)));
                }
                (b'Z', _) => {
                    open.next();
                }
                // What comes by itself is the client's: a session that begins with a message of its own.
                (tag @ (b'S' | b'N' | b'A'), body) => {
                    self.greeting.put_u8(tag);
                    self.greeting.put_u32(body.len() as u32 + 4);
                    self.greeting.put_slice(body);
                }
                _ => {}
            }
            let count = self.rest.cleared().len();
            self.rest.passed(count);
        }
        Ok(())
    }

    /// One of the gateway's own questions: a simple query, its rows as text.
    ///
    /// # Errors
    /// The database's error, or an answer beyond the limits.
    pub(crate) async fn ask(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, UpstreamError> {
        let mut query = BytesMut::new();
        frontend::query(sql, &mut query).map_err(UpstreamError::Connect)?;
        self.stream.send(&query).await.map_err(UpstreamError::Connect)?;
        let (mut rows, mut size, mut refused) = (Vec::new(), 0, None);
        loop {
            let Some(frame) = self.rest.next(cap)? else {
                self.stream.read_more(self.rest.space(READ)).await.map_err(UpstreamError::Connect)?;
                continue;
            };
            match frame.tag {
                b'D' => {
                    size += frame.length;
                    if size > MAX_ANSWER {
                        return Err(UpstreamError::Protocol(ProtocolError::TooLarge {
                            tag: b'D',
                            length: size,
                            limit: MAX_ANSWER,
                        }));
                    }
                    rows.push(backend::data_row(frame.body)?.iter().map(|v| v.map(lossy)).collect());
                }
                b'E' => refused = Some(refusal(frame.body)),
                b'Z' => break,
                _ => {}
            }
            let count = self.rest.cleared().len();
            self.rest.passed(count);
        }
        refused.map_or(Ok(rows), Err)
    }
}
