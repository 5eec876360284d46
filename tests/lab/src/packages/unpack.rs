//! Unpacking packages into a directory, without running their scripts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::apt::deb_files;
use crate::process;

/// Top-level directories that a merged-/usr system has as links.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Unpacks every package file in `archives` into `root`, as a system with merged /usr.
///
/// # Errors
/// When a package is broken or the disk is full.
pub fn unpack(archives: &Path, root: &Path) -> Result<()> {
    for name in MERGED {
        fs::create_dir_all(root.join("usr").join(name))?;
        let link = root.join(name);
        if link.symlink_metadata().is_err() {
            symlink(format!("usr/{name}"), &link)
                .with_context(|| format!("Cannot link {}", link.display()))?;
        }
    }
    deb_files(archives)?
        .iter()
        .try_for_each(|deb| unpack_one(deb, root))
}

fn unpack_one(deb: &Path, root: &Path) -> Result<()> {
    let mut reader = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .context("Cannot start dpkg-deb")?;
    let Some(tar) = reader.stdout.take() else {
        bail!("dpkg-deb has no output")
    };
    let mut extract = Command::new("tar");
    // Links of the merged /usr stay links when a package brings a directory of that name.
    extract.args([
        "--extract",
        "--preserve-permissions",
        "--keep-directory-symlink",
        "-C",
    ]);
    let shown = process::describe(&extract);
    let extracted = extract
        .arg(root)
        .stdin(tar)
        .status()
        .with_context(|| format!("Cannot start {shown}"))?;
    let read = reader.wait()?;
    if !extracted.success() || !read.success() {
        bail!("Cannot unpack {} into {}", deb.display(), root.display());
    }
    Ok(())
}
