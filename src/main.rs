//! Arguments, command, exit code; installs the crypto provider and the log.

use std::process::ExitCode;

/// Each statement takes and returns some dozen small pieces of memory, and idle sessions return theirs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("pgwitness: the crypto provider was installed twice");
        return ExitCode::FAILURE;
    }
    pgwitness::cli::main()
}
