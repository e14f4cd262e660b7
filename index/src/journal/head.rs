//! Places in the journal: a boundary between frames, and its end as it was at one time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::record::{Digest, Seq, Timestamp};

/// A boundary between two frames. As text: `segment-offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Byte in its file.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.segment, self.offset)
    }
}

/// Text that is not a position, a digest or a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct NotReadable {
    text: String,
    what: &'static str,
}

impl NotReadable {
    fn new(text: &str, what: &'static str) -> Self {
        Self { text: text.chars().take(100).collect(), what }
    }
}

impl FromStr for Position {
    type Err = NotReadable;

    fn from_str(text: &str) -> Result<Self, NotReadable> {
        let parse = |(segment, offset): (&str, &str)| {
            Some(Position { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
        };
        let position = text.split_once('-').and_then(parse);
        position
            .filter(|position| position.to_string() == text)
            .ok_or_else(|| NotReadable::new(text, "a journal position, such as 1-4096"))
    }
}

impl TryFrom<String> for Position {
    type Error = NotReadable;

    fn try_from(text: String) -> Result<Self, NotReadable> {
        text.parse()
    }
}

impl From<Position> for String {
    fn from(position: Position) -> Self {
        position.to_string()
    }
}

/// The end of the journal at one time: who keeps it can later prove that nothing before it was
/// changed. As JSON: `{"seq","frames","digest","time"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "HeadText", into = "HeadText")]
pub struct Head {
    /// The last record; 0 if there is none.
    pub seq: Seq,
    /// Frames in all segments.
    pub frames: u64,
    /// Digest of the last frame.
    pub digest: Digest,
    /// Time of the last record.
    pub time: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadText {
    seq: u64,
    frames: u64,
    digest: String,
    time: Option<String>,
}

impl From<Head> for HeadText {
    fn from(head: Head) -> Self {
        Self {
            seq: head.seq.0,
            frames: head.frames,
            digest: head.digest.to_string(),
            time: head.time.map(time_text),
        }
    }
}

impl TryFrom<HeadText> for Head {
    type Error = NotReadable;

    fn try_from(text: HeadText) -> Result<Self, NotReadable> {
        Ok(Self {
            seq: Seq(text.seq),
            frames: text.frames,
            digest: digest_of(&text.digest)
                .ok_or_else(|| NotReadable::new(&text.digest, "a digest of 64 hexadecimal digits"))?,
            time: text.time.as_deref().map(time_of).transpose()?,
        })
    }
}

fn digest_of(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    let hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for (byte, pair) in digest.0.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    hex.then_some(digest)
}

/// RFC 3339 with microseconds; a number of microseconds if the year has more than four digits.
pub(crate) fn time_text(time: Timestamp) -> String {
    let date = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.0) * 1000);
    date.ok().and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| time.0.to_string())
}

fn time_of(text: &str) -> Result<Timestamp, NotReadable> {
    if let Ok(micros) = text.parse() {
        return Ok(Timestamp(micros));
    }
    let date = OffsetDateTime::parse(text, &Rfc3339).ok();
    let micros = date.and_then(|date| i64::try_from(date.unix_timestamp_nanos() / 1000).ok());
    micros.map(Timestamp).ok_or_else(|| NotReadable::new(text, "a time, such as 2026-11-21T10:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_json() {
        for time in
            [None, Some(Timestamp(0)), Some(Timestamp(1_795_000_000_123_456)), Some(Timestamp(-1_500_000))]
        {
            let head = Head { seq: Seq(7), frames: 9, digest: Digest([0xa5; 32]), time };
            let text = serde_json::to_string(&head).unwrap();
            assert_eq!(serde_json::from_str::<Head>(&text).unwrap(), head, "{text}");
        }
    }

    #[test]
    fn a_head_with_a_short_or_strange_digest_is_refused() {
        for digest in ["", "00", &"g0".repeat(32), &"+1".repeat(32), &"é".repeat(32)] {
            let text = format!(r#"{{"seq":1,"frames":1,"digest":"{digest}","time":null}}"#);
            assert!(serde_json::from_str::<Head>(&text).is_err(), "{digest}");
        }
    }

    #[test]
    fn a_position_survives_text_and_sorts_by_segment_first() {
        let position = Position { segment: 3, offset: 56 };
        assert_eq!(position.to_string().parse(), Ok(position));
        assert!(position < Position { segment: 4, offset: 1 });
        for text in ["", "3", "3-", "-3", "3-4-5", "03-4", "+3-4"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
