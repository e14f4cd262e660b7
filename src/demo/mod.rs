//! What `pgwitness demo` brings along: a private PostgreSQL, a sample shop, and people who use it.
//!
//! Production never reaches this module: `run` has no path to it, and packages are built without it.

pub mod postgres;
pub mod seed;
pub mod shop;
