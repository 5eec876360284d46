//! The scratch disk of a job: a sparse image with XFS on it, which has reflinks.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};

use crate::process;
use crate::tools::Tools;

const BYTES: u64 = 32 << 30;

/// Makes the image at `path`.
pub(super) fn create(tools: &Tools, path: &Path) -> Result<()> {
    File::create(path)
        .and_then(|file| file.set_len(BYTES))
        .with_context(|| format!("Cannot create {}", path.display()))?;
    process::output(
        tools
            .command("mkfs.xfs")
            .args(["-q", "-m", "reflink=1"])
            .arg(path),
    )?;
    Ok(())
}
