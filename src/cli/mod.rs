//! One command, one file.

pub mod client;
pub mod export;
pub mod login;
pub mod search;
pub mod show;
mod table;
pub mod tail;
pub mod who;

#[cfg(all(test, feature = "demo"))]
mod tests;
