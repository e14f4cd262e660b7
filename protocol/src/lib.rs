//! PostgreSQL's wire language as the gateway needs it: bytes in, events out.
//!
//! What it is: [`frame`] cuts the stream by declared length, [`startup`] reads the packets before
//! the first frame, [`options`] what a startup message sets besides, [`frontend`] and [`backend`] read strictly the few messages that carry
//! evidence, [`conversation`] follows statements, portals and pipelines and says how each
//! execution ended, [`reply`] writes what the gateway itself says.
//!
//! What it never does: open a socket, read a clock, re-encode a message that is only passed on,
//! or guess. A message that PostgreSQL would refuse is an error here.
//!
//! Limits: each message that must be read whole is capped by the caller; bodies that carry no
//! evidence (rows, COPY data) are never held, only counted as they pass.

pub mod backend;
pub mod conversation;
pub mod frame;
pub mod frontend;
pub mod options;
pub mod reply;
pub mod startup;

mod read;

/// Why bytes could not be understood. The text is fit for a PostgreSQL error message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A declared length below the minimum.
    #[error("invalid message length {length} for message type {tag:?}", tag = *tag as char)]
    Length {
        /// Message type.
        tag: u8,
        /// The declared length.
        length: u32,
    },
    /// A message that must be read whole is larger than allowed.
    #[error(
        "message of type {tag:?} has {length} bytes, more than the gateway's limit of {limit}",
        tag = *tag as char
    )]
    TooLarge {
        /// Message type.
        tag: u8,
        /// The declared length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A message type that clients may not send.
    #[error("invalid frontend message type {0}")]
    UnknownType(u8),
    /// The message ends inside a field, or a string has no terminator.
    #[error("message of type {tag:?} ends inside {what}", tag = *tag as char)]
    Truncated {
        /// Message type.
        tag: u8,
        /// Which field.
        what: &'static str,
    },
    /// The message has more bytes than its fields.
    #[error("message of type {tag:?} has bytes after its last field", tag = *tag as char)]
    Leftover {
        /// Message type.
        tag: u8,
    },
    /// A field with a value that PostgreSQL refuses.
    #[error("message of type {tag:?} has an invalid {what}", tag = *tag as char)]
    Invalid {
        /// Message type.
        tag: u8,
        /// Which field.
        what: &'static str,
    },
    /// A startup packet that PostgreSQL refuses.
    #[error("invalid startup packet: {0}")]
    Startup(&'static str),
    /// Another protocol than ours.
    #[error(
        "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{newest}",
        newest = startup::NEWEST_MINOR
    )]
    Version {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// More prepared statements, portals or executions in flight than allowed.
    #[error("too many {what} in one session, the gateway's limit is {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Texts of prepared statements, or bound values of portals, take more bytes than allowed.
    #[error(
        "prepared statements or portals of one session hold more bytes than the gateway's limit of {limit}"
    )]
    TooMuch {
        /// The limit.
        limit: usize,
    },
    /// The server answered something that cannot follow from what was asked.
    #[error("unexpected message of type {tag:?} from the server", tag = *tag as char)]
    Unexpected {
        /// Message type.
        tag: u8,
    },
}

impl ProtocolError {
    fn version(code: u32) -> Self {
        Self::Version { major: (code >> 16) as u16, minor: (code & 0xffff) as u16 }
    }
}
