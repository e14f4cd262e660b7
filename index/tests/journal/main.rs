//! The journal from outside: written, torn, failed, followed, tampered with, read again.
#![expect(clippy::unwrap_used, reason = "tests")]

mod archive;
mod faults;
mod follow;
mod golden;
mod records;
mod round_trip;
mod tamper;
mod tree;
