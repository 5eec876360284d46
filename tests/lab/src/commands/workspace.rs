//! The workspace the lab belongs to, and its programs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The workspace's root directory.
pub(super) fn root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest
        .ancestors()
        .nth(2)
        .context("The lab is not in its workspace")?;
    Ok(root.to_owned())
}

/// Where the program called `name` is, when it is built: the newest of release and debug.
pub(super) fn program(name: &str) -> Result<Option<PathBuf>> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root()?.join("target"), PathBuf::from);
    let built = ["release", "debug"].map(|profile| target.join(profile).join(name));
    Ok(built
        .into_iter()
        .filter(|path| path.exists())
        .max_by_key(|path| modified(path)))
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata().ok()?.modified().ok()
}
