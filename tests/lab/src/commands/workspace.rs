//! The workspace the lab belongs to, and its programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// The workspace's root directory.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest
        .ancestors()
        .nth(2)
        .context("The lab is not in its workspace")?;
    Ok(root.to_owned())
}

/// The cargo that started the lab.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Builds slotvmm as it is meant to be used and returns the program.
pub(crate) fn build_release() -> Result<PathBuf> {
    let mut build = cargo();
    build
        .args([
            "rustc",
            "--release",
            "--package",
            "slotvmm",
            "--bin",
            "slotvmm",
        ])
        // As `cargo static`.
        .args(["--", "-C", "target-feature=+crt-static"])
        .current_dir(root()?);
    if !process::succeeds(&mut build)? {
        bail!("slotvmm does not build");
    }
    Ok(target()?.join("release/slotvmm"))
}

/// Names the program for guests in the environment of jobs.
pub(crate) const GUEST_VARIABLE: &str = "SLOTVMM_GUEST_BIN";

/// Names the program that tests run in guests.
pub(crate) const PROBE_VARIABLE: &str = "SLOTVMM_PROBE_BIN";

/// Builds the program for guests as it is meant to be used and returns it.
pub(crate) fn build_guest() -> Result<PathBuf> {
    let mut build = cargo();
    build
        .args(["rustc", "--profile", "guest", "--package", "slotvmm-guest"])
        .args(["--bin", "slotvmm-guest"])
        // As `cargo guest`.
        .args(["--", "-C", "target-feature=+crt-static"])
        .current_dir(root()?);
    if !process::succeeds(&mut build)? {
        bail!("slotvmm-guest does not build");
    }
    Ok(target()?.join("guest/slotvmm-guest"))
}

/// Where the program for guests is, when it is built so that it runs in any.
pub(super) fn guest_program() -> Result<Option<PathBuf>> {
    let program = target()?.join("guest/slotvmm-guest");
    Ok(program.exists().then_some(program))
}

/// Builds the program that measurements and tests run in guests and returns it.
pub(crate) fn build_probe() -> Result<PathBuf> {
    let mut build = cargo();
    build
        .args(["rustc", "--release", "--package", "probe", "--bin", "probe"])
        .args(["--", "-C", "target-feature=+crt-static"])
        .current_dir(root()?);
    if !process::succeeds(&mut build)? {
        bail!("probe does not build");
    }
    Ok(target()?.join("release/probe"))
}

/// Where the program called `name` is, when it is built: the newest of release and debug.
pub(super) fn program(name: &str) -> Result<Option<PathBuf>> {
    let target = target()?;
    let built = ["release", "debug"].map(|profile| target.join(profile).join(name));
    Ok(built
        .into_iter()
        .filter(|path| path.exists())
        .max_by_key(|path| modified(path)))
}

/// The directory of what cargo builds.
pub(crate) fn target() -> Result<PathBuf> {
    Ok(match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => std::path::absolute(dir)?,
        None => root()?.join("target"),
    })
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata().ok()?.modified().ok()
}
