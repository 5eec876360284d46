//! Does the flake parse? More needs nixpkgs, which a mirror of packages does not have.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// Directory of what the flake imports.
const DIRECTORY: &str = "nix";

/// Nix files of `repository` that do not parse, or nothing when there is no Nix on this machine.
///
/// # Errors
/// When the files cannot be listed or `nix-instantiate` cannot be run.
pub(super) fn unparsable(repository: &Path) -> Result<Option<Vec<PathBuf>>> {
    let mut broken = Vec::new();
    for path in files(repository)? {
        let mut command = Command::new("nix-instantiate");
        command.arg("--parse").arg(&path).stdout(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(_) => broken.push(path),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("Cannot start nix-instantiate"),
        }
    }
    Ok(Some(broken))
}

fn files(repository: &Path) -> Result<Vec<PathBuf>> {
    let dir = repository.join(DIRECTORY);
    let mut files = vec![repository.join("flake.nix")];
    for entry in dir
        .read_dir()
        .with_context(|| format!("Cannot list {}", dir.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "nix") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flake_and_what_it_imports_are_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("nix")).unwrap();
        for name in ["flake.nix", "nix/package.nix", "nix/example.toml"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let expected = ["flake.nix", "nix/package.nix"].map(|name| dir.path().join(name));
        assert_eq!(files(dir.path()).unwrap(), expected);
    }
}
