//! One byte stream, whatever carries it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A silent peer is asked after this long whether it is still there,
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// then this often,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// and is given up after as many questions without an answer: two minutes in all. What was sent and not
/// acknowledged is the kernel's business (`tcp_retries2`): a limit of ours would end a client that is only slow.
const KEEPALIVE_COUNT: u32 = 6;

/// Sets a connection up: no waiting for more to send, and a dead peer is found.
///
/// # Errors
/// The system refused an option.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?;
    Ok(())
}

/// A connection to a client or to a database.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    TlsServer(Box<tokio_rustls::server::TlsStream<Replay>>),
    TlsClient(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// A TCP stream of which some bytes were already read (a ClientHello that came with the request
/// for TLS): they are read again first.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) first: BytesMut,
    pub(crate) stream: TcpStream,
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::TlsServer($stream) => $call,
            Stream::TlsClient($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl AsyncRead for Replay {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let count = this.first.len().min(buf.remaining());
        buf.put_slice(&this.first.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Stream {
    /// Whether it is encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        self.buffers()
    }

    /// The version of TLS, with the word of `pg_stat_ssl.version`.
    pub(crate) fn tls_version(&self) -> Option<&'static str> {
        let version = match self {
            Stream::TlsServer(stream) => stream.get_ref().1.protocol_version(),
            Stream::TlsClient(stream) => stream.get_ref().1.protocol_version(),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        };
        version.map(|version| match version {
            rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3",
            rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2",
            _ => "TLS",
        })
    }

    /// The certificate that the other side has shown, DER.
    pub(crate) fn peer_certificate(&self) -> Option<Vec<u8>> {
        let shown = match self {
            Stream::TlsServer(stream) => stream.get_ref().1.peer_certificates(),
            Stream::TlsClient(stream) => stream.get_ref().1.peer_certificates(),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        };
        shown?.first().map(|certificate| certificate.to_vec())
    }

    /// Writes all and flushes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes).await?;
        self.flush().await
    }

    /// Whether bytes wait inside (TLS), which `poll_flush` must push out.
    pub(crate) fn buffers(&self) -> bool {
        matches!(self, Stream::TlsServer(_) | Stream::TlsClient(_))
    }

    /// Reads more into `buffer`; an end of the stream is an error.
    ///
    /// Cancel safe: what was read is in the buffer.
    pub(crate) async fn read_more(&mut self, buffer: &mut BytesMut) -> io::Result<()> {
        match self.read_buf(buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_is_set_up_finds_a_dead_peer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        prepare(&stream).unwrap();
        assert!(stream.nodelay().unwrap() && sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), KEEPALIVE_IDLE);
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), KEEPALIVE_COUNT);
    }
}
