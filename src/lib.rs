//! pgwitness: a PostgreSQL access gateway that knows who accessed what, and proves it.
//!
//! The map, one line a module (which way knowledge points is held by `tests/it/tidy.rs`):
//!
//! - [`cli`]: one command, one file.
//! - [`config`]: what was written, and what it means.
//! - [`gateway`]: connections: listening, login, the relay.
//! - [`identity`]: who: device flow, tokens, pairing; makes [`identity::Principal`].
//! - [`sql`]: what a statement touches; pure.
//! - [`grammar`]: PostgreSQL's own parser, in a process of its own.
//! - [`catalog`]: what names mean in a database.
//! - [`policy`]: may they.
//! - [`proving`]: signs the log, and keeps its heads elsewhere.
//! - [`recorder`]: no record, no query: hands out receipts.
//! - [`service`]: the running gateway, put together.
//! - [`http`]: the API and the page.
#![cfg_attr(feature = "demo", doc = "- [`demo`]: a private PostgreSQL, identity provider and sample shop.")]

pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod gateway;
pub mod grammar;
pub mod http;
pub mod identity;
mod indexing;
pub mod policy;
pub mod proving;
pub mod recorder;
mod retention;
pub mod service;
pub mod sql;
pub mod tls;
