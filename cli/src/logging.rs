//! Logs go to stderr, so that standard output stays what was asked for.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Environment variable with a filter such as `vmm=debug,devices=trace`.
const VARIABLE: &str = "SLOTVMM_LOG";

/// Starts logging: warnings, with `verbose` 1 what happens, with 2 details, with 3 everything.
pub(crate) fn start(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // The filter of the variable is parsed, which takes time; without it a plain level does.
    match std::env::var(VARIABLE) {
        Ok(filter) => builder.with_env_filter(EnvFilter::new(filter)).init(),
        Err(_) => builder.with_max_level(level).init(),
    }
}
