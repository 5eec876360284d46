//! `env`: where commands run.

use anyhow::Result;

use crate::cache::Cache;
use crate::host::Choice;

/// Prints the mode, the reason and the cache.
///
/// # Errors
/// When the mode cannot be told.
pub fn env() -> Result<u8> {
    let choice = Choice::detect()?;
    println!("mode: {}", choice.mode);
    println!("reason: {}", choice.reason);
    println!("cache: {}", Cache::open()?.root().display());
    Ok(0)
}
