//! The journal from outside: written, torn, failed, followed, tampered with, read again.
#![expect(clippy::unwrap_used, reason = "tests")]

mod records;
mod round_trip;
