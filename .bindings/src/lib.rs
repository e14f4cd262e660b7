//! Stands in for `bindgen` when `pg_query` is built, and answers with the bindings that bindgen 0.66.1 made for it, kept
//! beside this file: so the gateway needs a C compiler but no libclang, and builds a minute faster.
//!
//! For `pg_query` 18.1.0 only (the workspace pins it): its functions and structures are of C integers, pointers and
//! sizes, the same on every platform that Rust and PostgreSQL share. To make them again: bindgen 0.66 on its
//! `libpg_query/pg_query.h` with `allowlist_function("pg_query.*")`, `allowlist_var("PG_.*")`, without layout tests,
//! comments, and constants of tokens.

use std::io;
use std::path::Path;

/// As much of bindgen's builder as the build script uses.
#[derive(Debug, Default)]
pub struct Builder {
    header: String,
}

impl Builder {
    /// The header to bind.
    #[must_use]
    pub fn header(self, header: impl Into<String>) -> Self {
        Self { header: header.into() }
    }

    /// The bindings of that header.
    ///
    /// # Errors
    /// Any header but `pg_query.h`.
    pub fn generate(self) -> Result<Bindings, String> {
        if self.header.ends_with("pg_query.h") { Ok(Bindings) } else { Err(format!("no bindings for {}", self.header)) }
    }
}

/// The bindings.
#[derive(Debug)]
pub struct Bindings;

impl Bindings {
    /// Writes them to a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_to_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        std::fs::write(path, include_str!("pg_query.rs"))
    }
}
