//! The packets before the first frame: no type byte, read once per connection.
//!
//! Source: PostgreSQL documentation, "Message Formats" (StartupMessage, SSLRequest, GSSENCRequest,
//! CancelRequest); `ProcessStartupPacket` in `src/backend/tcop/backend_startup.c`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{ProtocolError, options};

/// PostgreSQL's own limit (MAX_STARTUP_PACKET_LENGTH).
pub const MAX_STARTUP: usize = 10_000;

/// Newest minor version of protocol 3 that is spoken here.
pub const NEWEST_MINOR: u16 = 2;

/// First byte of a TLS handshake record: a client that negotiates TLS directly.
pub const TLS_HANDSHAKE: u8 = 0x16;

/// PostgreSQL accepts cancel keys up to this length since protocol 3.2.
const MAX_CANCEL_KEY: usize = 256;

/// The parameter that names the program.
pub const APPLICATION_NAME: &str = "application_name";

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;

/// One startup packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// The client asks for TLS.
    Ssl,
    /// The client asks for GSSAPI encryption.
    GssEnc,
    /// The client asks to cancel what a session runs.
    Cancel {
        /// Process id as given in BackendKeyData.
        pid: u32,
        /// Secret key, 4 bytes before protocol 3.2.
        key: Bytes,
    },
    /// The session's start.
    Start(StartupMessage),
}

/// Who wants what: names and values as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupMessage {
    /// Requested minor version of protocol 3.
    pub minor: u16,
    /// Names and values, in order.
    pub parameters: Vec<(Bytes, Bytes)>,
}

/// Reads one packet from the front of `bytes`; `None` if more must come. Says how long it was.
///
/// # Errors
/// What PostgreSQL refuses: lengths out of bounds, other protocols, bad termination.
pub fn read(bytes: &[u8]) -> Result<Option<(Packet, usize)>, ProtocolError> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if !(8..=MAX_STARTUP).contains(&length) {
        return Err(ProtocolError::Startup("invalid length"));
    }
    let Some(body) = rest.get(..length - 4) else { return Ok(None) };
    let (code, body) = body.split_first_chunk::<4>().ok_or(ProtocolError::Startup("invalid length"))?;
    let packet = match (u32::from_be_bytes(*code), body) {
        (SSL, []) => Packet::Ssl,
        (GSSENC, []) => Packet::GssEnc,
        (SSL | GSSENC, _) => return Err(ProtocolError::Startup("invalid encryption request")),
        (CANCEL, body) => read_cancel(body)?,
        (version, body) if version >> 16 == 3 => Packet::Start(StartupMessage {
            minor: (version & 0xffff) as u16,
            parameters: read_parameters(body)?,
        }),
        (version, _) => return Err(ProtocolError::version(version)),
    };
    Ok(Some((packet, length)))
}

fn read_cancel(body: &[u8]) -> Result<Packet, ProtocolError> {
    match body.split_first_chunk::<4>() {
        Some((pid, key)) if (4..=MAX_CANCEL_KEY).contains(&key.len()) => {
            Ok(Packet::Cancel { pid: u32::from_be_bytes(*pid), key: Bytes::copy_from_slice(key) })
        }
        _ => Err(ProtocolError::Startup("invalid cancel request")),
    }
}

fn read_parameters(mut body: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ProtocolError> {
    const BAD: ProtocolError =
        ProtocolError::Startup("invalid layout: expected a terminator as the last byte");
    let mut parameters = Vec::new();
    loop {
        let (name, rest) = string(body).ok_or(BAD)?;
        if name.is_empty() {
            return if rest.is_empty() { Ok(parameters) } else { Err(BAD) };
        }
        let (value, rest) = string(rest).ok_or(BAD)?;
        parameters.push((Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)));
        body = rest;
    }
}

fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

impl Packet {
    /// What PostgreSQL says of a second request for encryption: that it is no protocol.
    pub fn out_of_place(&self) -> ProtocolError {
        ProtocolError::version(if *self == Packet::GssEnc { GSSENC } else { SSL })
    }
}

impl StartupMessage {
    /// The minor version that will be spoken: as PostgreSQL 18, the one asked for if it is known.
    pub fn spoken_minor(&self) -> u16 {
        self.minor.min(NEWEST_MINOR)
    }

    /// Whether something was asked for that is not known here, which the client must be told.
    pub fn asks_too_much(&self) -> bool {
        self.minor > NEWEST_MINOR || self.protocol_options().next().is_some()
    }

    /// The last value given for a name (PostgreSQL lets the last one win).
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.parameters
            .iter()
            .rev()
            .find(|(given, _)| given == name.as_bytes())
            .map(|(_, value)| value.as_ref())
    }

    /// Names of `_pq_.` protocol options, none of which is known here.
    pub fn protocol_options(&self) -> impl Iterator<Item = &Bytes> {
        self.parameters.iter().map(|(name, _)| name).filter(|name| name.starts_with(b"_pq_."))
    }

    /// The packet for the server, in protocol 3.0: parameters as the client sent them, in its order,
    /// except what was decided here, `_pq_.` options, which were refused, and options of our own.
    pub fn encode_for_server(&self, decided: &Decided<'_>) -> BytesMut {
        let mut packet = BytesMut::with_capacity(256);
        packet.put_u32(0);
        packet.put_u32(3 << 16);
        put_parameter(&mut packet, b"user", decided.user.as_bytes());
        put_parameter(&mut packet, b"database", decided.database.as_bytes());
        for (name, value) in &self.parameters {
            if !decided.replaces(name) {
                match &name[..] {
                    b"options" => put_options(&mut packet, value, decided.own_option),
                    name => put_parameter(&mut packet, name, value),
                }
            }
        }
        if let Some(name) = decided.application_name {
            put_parameter(&mut packet, APPLICATION_NAME.as_bytes(), name.as_bytes());
        }
        packet.put_u8(0);
        let length = packet.len() as u32;
        if let Some(head) = packet.first_chunk_mut::<4>() {
            *head = length.to_be_bytes();
        }
        packet
    }
}

/// What the gateway puts in place of the client's own words.
#[derive(Debug, Clone, Copy)]
pub struct Decided<'a> {
    /// The role.
    pub user: &'a str,
    /// The database.
    pub database: &'a str,
    /// `None` leaves the client's own.
    pub application_name: Option<&'a str>,
    /// A parameter meant for us: the server does not see it.
    pub own_option: &'a str,
}

impl Decided<'_> {
    fn replaces(&self, name: &[u8]) -> bool {
        // Names of settings have no case; those of the packet itself have.
        name.starts_with(b"_pq_.")
            || name == b"user"
            || name == b"database"
            || name.eq_ignore_ascii_case(self.own_option.as_bytes())
            || (self.application_name.is_some() && name.eq_ignore_ascii_case(APPLICATION_NAME.as_bytes()))
    }
}

fn put_parameter(packet: &mut BytesMut, name: &[u8], value: &[u8]) {
    packet.put_slice(name);
    packet.put_u8(0);
    packet.put_slice(value);
    packet.put_u8(0);
}

fn put_options(packet: &mut BytesMut, value: &[u8], own_option: &str) {
    let kept = options::without(value, own_option);
    // Options that held nothing else are as if they were never given.
    if kept.len() == value.len() || !kept.iter().all(u8::is_ascii_whitespace) {
        put_parameter(packet, b"options", &kept);
    }
}

/// `SSLRequest` as we send it to a database.
pub fn ssl_request() -> [u8; 8] {
    let mut packet = [0, 0, 0, 8, 0, 0, 0, 0];
    packet[4..].copy_from_slice(&SSL.to_be_bytes());
    packet
}

/// `CancelRequest` as we send it to a database.
pub fn cancel_request(pid: u32, key: &[u8]) -> BytesMut {
    let mut packet = BytesMut::with_capacity(12 + key.len());
    packet.put_u32(12 + key.len() as u32);
    packet.put_u32(CANCEL);
    packet.put_u32(pid);
    packet.put_slice(key);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32 + 8).to_be_bytes().to_vec();
        bytes.extend(code.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_startup_message_is_read_and_rewritten_with_the_decided_role_only() {
        let sent = packet(3 << 16, b"user\0ann\0database\0shop\0options\0-c a=b\0_pq_.x\0y\0\0");
        let (Packet::Start(message), length) = read(&sent).unwrap().unwrap() else { panic!("not a start") };
        assert_eq!(length, sent.len());
        let decided =
            Decided { user: "app_read", database: "shop", application_name: None, own_option: "own.x" };
        let forwarded = message.encode_for_server(&decided);
        assert_eq!(forwarded, packet(3 << 16, b"user\0app_read\0database\0shop\0options\0-c a=b\0\0"));
    }

    #[test]
    fn the_programs_name_is_replaced_and_our_own_option_left_out_however_they_are_spelled() {
        let sent = packet(
            3 << 16,
            b"user\0ann\0Application_Name\0a\0client_encoding\0'utf-8'\0application_name\0b\0\
              OWN.x\0y\0options\0--own.x=y\0options\0-c q=r -c own.x=y\0USER\0z\0\0",
        );
        let (Packet::Start(message), _) = read(&sent).unwrap().unwrap() else { panic!("not a start") };
        let decided = Decided { user: "r", database: "d", application_name: Some("c"), own_option: "own.x" };
        let expected = b"user\0r\0database\0d\0client_encoding\0'utf-8'\0options\0-c q=r \0USER\0z\0application_name\0c\0\0";
        assert_eq!(message.encode_for_server(&decided), packet(3 << 16, expected));
    }

    #[test]
    fn the_last_of_two_users_wins_as_in_postgresql() {
        let (Packet::Start(message), _) = read(&packet(3 << 16, b"user\0a\0user\0b\0\0")).unwrap().unwrap()
        else {
            panic!("not a start")
        };
        assert_eq!(message.get("user"), Some(&b"b"[..]));
    }

    #[test]
    fn every_prefix_of_a_packet_asks_for_more() {
        let sent = packet(3 << 16, b"user\0ann\0\0");
        for end in 0..sent.len() {
            assert_eq!(read(&sent[..end]), Ok(None), "prefix of {end} bytes");
        }
    }

    #[test]
    fn packets_of_bad_shape_are_refused() {
        for bad in [
            &b"\0\0\0\0"[..],
            b"\0\0\0\x07aaa",
            b"\0\0\x27\x11aaaa",
            b"GET / HTTP/1.1\r\n",
            &packet(3 << 16, b"user\0a\0"),
            &packet(3 << 16, b"user\0a\0\0x"),
            &packet(3 << 16, b"user"),
            &packet(SSL, b"x"),
            &packet(CANCEL, b"\0\0\0\x01"),
        ] {
            assert!(matches!(read(bad), Err(ProtocolError::Startup(_))), "{bad:?}");
        }
    }

    #[test]
    fn other_protocols_are_told_which_are_spoken() {
        for (code, words) in [
            (2 << 16, "unsupported frontend protocol 2.0: server supports 3.0 to 3.2"),
            (4 << 16, "unsupported frontend protocol 4.0: server supports 3.0 to 3.2"),
        ] {
            let error = read(&packet(code, b"user\0a\0\0")).unwrap_err();
            assert_eq!(error.to_string(), words);
        }
        let again = Packet::Ssl.out_of_place().to_string();
        assert!(again.starts_with("unsupported frontend protocol 1234.5679:"), "{again}");
    }

    #[test]
    fn versions_are_agreed_upon_as_postgresql_18_does() {
        let start = |minor: u32, body: &[u8]| match read(&packet(3 << 16 | minor, body)).unwrap().unwrap().0 {
            Packet::Start(message) => (message.spoken_minor(), message.asks_too_much()),
            other => panic!("{other:?}"),
        };
        assert_eq!(start(0, b"user\0a\0\0"), (0, false));
        assert_eq!(start(1, b"user\0a\0\0"), (1, false));
        assert_eq!(start(2, b"user\0a\0\0"), (2, false));
        assert_eq!(start(9, b"user\0a\0\0"), (2, true));
        assert_eq!(start(0, b"user\0a\0_pq_.x\0y\0\0"), (0, true));
    }
}
