//! The one place that asks what time it is, and makes ids that carry it.

use std::time::{SystemTime, UNIX_EPOCH};

use pgwitness_index::record::Timestamp;
use uuid::Uuid;

/// Now, microseconds since the Unix epoch, UTC.
pub fn now() -> Timestamp {
    // A clock before 1970 counts as 1970: order in the log is by seq, not by time.
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
}

/// A new UUIDv7 (RFC 9562, 5.7) for a moment.
pub fn new_id(at: Timestamp) -> Uuid {
    let millis = u64::try_from(at.0 / 1000).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
}
