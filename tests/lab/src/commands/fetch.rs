//! `fetch`: everything at once, before it is needed.

use anyhow::Result;

use crate::cache::Cache;
use crate::guest::Images;
use crate::host::Host;
use crate::tools::Tools;

/// Fetches and builds everything the lab uses, and prints where the images are.
///
/// # Errors
/// When a download or a build fails.
pub fn fetch() -> Result<u8> {
    let cache = Cache::open()?;
    let tools = Tools::ensure(&cache)?;
    Host::open(&cache, &tools)?.prepare()?;
    println!(
        "images: {}",
        Images::ensure(&cache, &tools)?.dir().display()
    );
    Ok(0)
}
