//! What the gateway itself says, built with pgwire's types.

use bytes::{BufMut, Bytes, BytesMut};
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::response::{ErrorResponse, NoticeResponse, ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::{Authentication, BackendKeyData, NegotiateProtocolVersion, SecretKey};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// A notice that psql shows by default.
    Warning,
    /// The statement failed.
    Error,
    /// The connection ends.
    Fatal,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Severity::Warning => "WARNING",
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        }
    }
}

/// Something to say to a person behind a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Say {
    /// How bad it is.
    pub severity: Severity,
    /// SQLSTATE, five letters.
    pub code: &'static str,
    /// Primary message: the only part that every client shows.
    pub message: String,
    /// More about it.
    pub detail: String,
    /// What to do.
    pub hint: String,
}

impl Say {
    /// A message without detail and hint.
    pub fn new(severity: Severity, code: &'static str, message: impl Into<String>) -> Self {
        Self { severity, code, message: message.into(), detail: String::new(), hint: String::new() }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Adds more about it.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The message as NoticeResponse (warnings) or ErrorResponse (the rest).
    pub fn encode(&self, out: &mut BytesMut) {
        let word = self.severity.word();
        let fields = [
            (b'S', word),
            (b'V', word),
            (b'C', self.code),
            (b'M', &self.message),
            (b'D', &self.detail),
            (b'H', &self.hint),
        ]
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        // A NUL would end the field early on the wire.
        .map(|(kind, text)| (kind, text.replace('\0', "\u{fffd}")))
        .collect();
        put(
            out,
            match self.severity {
                Severity::Warning => Backend::NoticeResponse(NoticeResponse::new(fields)),
                Severity::Error | Severity::Fatal => Backend::ErrorResponse(ErrorResponse::new(fields)),
            },
        );
    }
}

fn put(out: &mut BytesMut, message: Backend) {
    message.encode(out).expect("encoding one of our own messages into memory cannot fail");
}

/// `AuthenticationOk`
pub fn authentication_ok(out: &mut BytesMut) {
    put(out, Backend::Authentication(Authentication::Ok));
}

/// `AuthenticationCleartextPassword`
pub fn ask_password(out: &mut BytesMut) {
    put(out, Backend::Authentication(Authentication::CleartextPassword));
}

/// `AuthenticationSASL`: the mechanisms to choose from, the best first.
pub fn ask_sasl(out: &mut BytesMut, mechanisms: &[&str]) {
    let names = mechanisms.iter().map(|name| (*name).to_owned()).collect();
    put(out, Backend::Authentication(Authentication::SASL(names)));
}

/// `AuthenticationSASLContinue`
pub fn sasl_continue(out: &mut BytesMut, data: &[u8]) {
    put(out, Backend::Authentication(Authentication::SASLContinue(Bytes::copy_from_slice(data))));
}

/// `AuthenticationSASLFinal`
pub fn sasl_final(out: &mut BytesMut, data: &[u8]) {
    put(out, Backend::Authentication(Authentication::SASLFinal(Bytes::copy_from_slice(data))));
}

/// `BackendKeyData`, with a key of the length that the protocol's version has.
pub fn key_data(out: &mut BytesMut, pid: u32, key: &[u8]) {
    let pid = i32::from_be_bytes(pid.to_be_bytes());
    let key = SecretKey::Bytes(Bytes::copy_from_slice(key));
    put(out, Backend::BackendKeyData(BackendKeyData::new(pid, key)));
}

/// `ReadyForQuery`, inside a failed transaction or outside of any.
pub fn ready(out: &mut BytesMut, status: crate::backend::Status) {
    use crate::backend::Status;
    let status = match status {
        Status::Idle => TransactionStatus::Idle,
        Status::Transaction => TransactionStatus::Transaction,
        Status::Failed => TransactionStatus::Error,
    };
    put(out, Backend::ReadyForQuery(ReadyForQuery::new(status)));
}

/// `NegotiateProtocolVersion`: we speak this minor version of protocol 3, and none of these options.
pub fn negotiate_version<'a>(out: &mut BytesMut, minor: u16, refused: impl Iterator<Item = &'a Bytes>) {
    let refused = refused.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    // The whole version number, as PostgreSQL sends it: libpq 18 refuses a bare minor number.
    let version = 3 << 16 | i32::from(minor);
    put(out, Backend::NegotiateProtocolVersion(NegotiateProtocolVersion::new(version, refused)));
}

/// An error as clients of protocol 2 and older read it: a line of text.
pub fn fatal_of_old(out: &mut BytesMut, message: &str) {
    out.put_slice(b"EFATAL:  ");
    out.put_slice(message.as_bytes());
    out.put_slice(b"\n\0");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_a_notice_and_never_ends_a_field_early() {
        let mut out = BytesMut::new();
        Say::new(Severity::Warning, "01000", "open \0 link").hint("as ann").encode(&mut out);
        assert_eq!(out.first(), Some(&b'N'));
        let read = crate::backend::report(&out[5..]);
        assert_eq!(read.message, "open \u{fffd} link");
        assert_eq!(out.len(), 1 + u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize);
    }

    #[test]
    fn keys_are_as_long_as_they_are() {
        for key in [&[7; 4][..], &[7; 32]] {
            let mut out = BytesMut::new();
            key_data(&mut out, 258, key);
            assert_eq!(&out[..9], [b'K', 0, 0, 0, 8 + key.len() as u8, 0, 0, 1, 2]);
            assert_eq!(&out[9..], key);
        }
    }

    #[test]
    fn sasl_mechanisms_are_a_list_that_ends_with_an_empty_name() {
        let mut out = BytesMut::new();
        ask_sasl(&mut out, &["OAUTHBEARER"]);
        assert_eq!(&out[..], b"R\0\0\0\x15\0\0\0\x0aOAUTHBEARER\0\0");
        out.clear();
        sasl_continue(&mut out, b"{}");
        assert_eq!(&out[..], b"R\0\0\0\x0a\0\0\0\x0b{}");
        out.clear();
        sasl_final(&mut out, b"v=");
        assert_eq!(&out[..], b"R\0\0\0\x0a\0\0\0\x0cv=");
    }

    #[test]
    fn version_negotiation_names_the_refused_options() {
        let mut out = BytesMut::new();
        negotiate_version(&mut out, 2, [Bytes::from_static(b"_pq_.x")].iter());
        assert_eq!(&out[..], b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0");
    }
}
