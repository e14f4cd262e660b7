//! What `pgwitness demo` brings along: a private PostgreSQL, a sample shop, people who use it, and
//! an identity provider that knows them.
//!
//! Production never reaches this module: `run` has no path to it, and packages are built without it.

pub mod postgres;
pub mod provider;
pub mod seed;
pub mod shop;
