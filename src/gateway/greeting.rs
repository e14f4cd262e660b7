//! The first packets of a connection: TLS or not, cancel, or the startup message.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pgwitness_protocol::ProtocolError;
use pgwitness_protocol::startup::{self, MAX_STARTUP, Packet, StartupMessage, TLS_HANDSHAKE};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::stream::{Replay, Stream};
use crate::tls::ALPN;

/// What a new connection is for.
#[derive(Debug)]
pub(super) enum Greeting {
    /// A session, with what was read beyond the startup message.
    Start { stream: Stream, message: StartupMessage, early: BytesMut },
    /// A cancel request. Nothing is answered, but the end of the stream says that it was passed on.
    Cancel { stream: Stream, pid: u32, key: Bytes },
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum GreetingError {
    #[error("the client left: {0}")]
    Left(#[from] io::Error),
    #[error("the client was silent")]
    Silent,
    /// To be told to the client.
    #[error("{reason}")]
    Refused { stream: Box<Stream>, code: &'static str, reason: String, hint: &'static str },
    /// To be told to a client of a protocol before ours.
    #[error("{reason}")]
    Old { stream: Box<Stream>, reason: String },
    /// TLS itself has told the client.
    #[error("{0}")]
    Certificate(String),
    #[error("direct TLS without the ALPN name \"postgresql\"")]
    Alpn,
}

/// Which TLS the listener speaks.
pub(super) struct Offer {
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) required: bool,
    /// All of it must be done within this.
    pub(super) within: Duration,
}

/// Reads until it is clear what the client wants.
///
/// # Errors
/// Bad packets, silence, plain text where TLS is required.
pub(super) async fn greet(stream: TcpStream, offer: Offer) -> Result<Greeting, GreetingError> {
    tokio::time::timeout(offer.within, negotiate(stream, offer)).await.map_err(|_| GreetingError::Silent)?
}

async fn negotiate(mut tcp: TcpStream, offer: Offer) -> Result<Greeting, GreetingError> {
    let mut buffer = BytesMut::new();
    // Each may be asked for once, as in PostgreSQL.
    let (mut ssl_left, mut gss_left) = (1, 1);
    loop {
        if buffer.is_empty() {
            read_more(&mut tcp, &mut buffer).await?;
        }
        if let (Some(&TLS_HANDSHAKE), Some(tls)) = (buffer.first(), &offer.tls) {
            let stream = accept_tls(tcp, buffer, tls).await?;
            if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
                return Err(GreetingError::Alpn);
            }
            return read_start(Stream::TlsServer(Box::new(stream)), BytesMut::new()).await;
        }
        match read_packet(&mut tcp, &mut buffer).await {
            Ok(Packet::Ssl) if ssl_left > 0 => {
                ssl_left -= 1;
                let Some(tls) = &offer.tls else {
                    tcp.write_all(b"N").await?;
                    continue;
                };
                tcp.write_all(b"S").await?;
                // Bytes that came with the request can only be a ClientHello: TLS reads them, nobody else.
                let stream = accept_tls(tcp, buffer, tls).await?;
                return read_start(Stream::TlsServer(Box::new(stream)), BytesMut::new()).await;
            }
            Ok(Packet::GssEnc) if gss_left > 0 => {
                gss_left -= 1;
                tcp.write_all(b"N").await?;
            }
            Ok(Packet::Start(_)) if offer.required => {
                return Err(refused(
                    Stream::Tcp(tcp),
                    "28000",
                    "this gateway accepts only encrypted connections".into(),
                    "Connect with sslmode=require or better.",
                ));
            }
            Ok(packet) => return finish(Stream::Tcp(tcp), packet, buffer),
            Err(error) => return Err(error.with(Stream::Tcp(tcp))),
        }
    }
}

async fn accept_tls(
    stream: TcpStream,
    first: BytesMut,
    tls: &Arc<ServerConfig>,
) -> Result<tokio_rustls::server::TlsStream<Replay>, GreetingError> {
    let accepted = TlsAcceptor::from(tls.clone()).accept(Replay { first, stream }).await;
    accepted.map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::NoCertificatesPresented) => {
            GreetingError::Certificate("the client showed no certificate".into())
        }
        Some(rustls::Error::InvalidCertificate(reason)) => {
            GreetingError::Certificate(format!("the client's certificate was refused: {reason}"))
        }
        _ => GreetingError::Left(error),
    })
}

/// Inside TLS only a startup message or a cancel request may follow.
async fn read_start(mut stream: Stream, mut buffer: BytesMut) -> Result<Greeting, GreetingError> {
    match read_packet(&mut stream, &mut buffer).await {
        Ok(packet) => finish(stream, packet, buffer),
        Err(error) => Err(error.with(stream)),
    }
}

fn finish(stream: Stream, packet: Packet, early: BytesMut) -> Result<Greeting, GreetingError> {
    match packet {
        Packet::Start(message) => Ok(Greeting::Start { stream, message, early }),
        Packet::Cancel { pid, key } => Ok(Greeting::Cancel { stream, pid, key }),
        Packet::Ssl | Packet::GssEnc => Err(PacketError::Bad(packet.out_of_place()).with(stream)),
    }
}

fn refused(stream: Stream, code: &'static str, reason: String, hint: &'static str) -> GreetingError {
    GreetingError::Refused { stream: Box::new(stream), code, reason, hint }
}

#[derive(Debug, thiserror::Error)]
enum PacketError {
    #[error("{0}")]
    Io(io::Error),
    #[error("{0}")]
    Bad(ProtocolError),
}

impl PacketError {
    fn with(self, stream: Stream) -> GreetingError {
        match self {
            PacketError::Io(error) => GreetingError::Left(error),
            PacketError::Bad(ProtocolError::Version { major, .. }) if major < 3 => {
                GreetingError::Old { stream: Box::new(stream), reason: self.to_string() }
            }
            PacketError::Bad(error @ ProtocolError::Version { .. }) => {
                refused(stream, "0A000", error.to_string(), "")
            }
            PacketError::Bad(error) => refused(stream, "08P01", error.to_string(), ""),
        }
    }
}

async fn read_packet(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<Packet, PacketError> {
    loop {
        match startup::read(buffer).map_err(PacketError::Bad)? {
            Some((packet, length)) => {
                let _ = buffer.split_to(length);
                return Ok(packet);
            }
            None => read_more(stream, buffer).await.map_err(PacketError::Io)?,
        }
    }
}

async fn read_more(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<()> {
    buffer.reserve(MAX_STARTUP.min(1024));
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
