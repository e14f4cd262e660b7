//! The journal from outside: written, torn, failed, followed, tampered with, read again.
#![expect(clippy::unwrap_used, reason = "tests")]

mod archive;
mod disk;
mod faults;
mod follow;
mod golden;
mod kill;
mod records;
mod retention;
mod round_trip;
mod tamper;
mod tree;
