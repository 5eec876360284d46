//! `fetch`: everything at once, before it is needed.

use anyhow::Result;

use crate::cache::Cache;
use crate::host::Host;
use crate::kernels::{Kernel, KernelId};
use crate::tools::Tools;

/// Fetches and builds everything the lab uses.
///
/// # Errors
/// When a download or a build fails.
pub fn fetch() -> Result<u8> {
    let cache = Cache::open()?;
    let tools = Tools::ensure(&cache)?;
    Host::open(&cache, &tools)?.prepare()?;
    for id in KernelId::ALL {
        let kernel = Kernel::ensure(&cache, &tools, id)?;
        println!("{}: {}", id.name(), kernel.bzimage().display());
    }
    Ok(0)
}
