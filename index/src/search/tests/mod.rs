//! The search as its callers see it, over real journals and real directories.

mod index;
mod language;
mod property;
mod support;
