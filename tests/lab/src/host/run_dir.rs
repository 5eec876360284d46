//! The directory of one run. Directories of labs that were killed are removed by the next.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::cache::Cache;

/// Makes the directory of this run. Only its owner can look inside: the job's environment is there.
pub(super) fn create(cache: &Cache) -> Result<TempDir> {
    let runs = cache.root().join("runs");
    fs::create_dir_all(&runs).with_context(|| format!("Cannot create {}", runs.display()))?;
    let _lock = cache.lock("runs")?;
    for entry in fs::read_dir(&runs)? {
        let entry = entry?;
        if !owner_lives(&entry.file_name().to_string_lossy()) {
            let _gone = fs::remove_dir_all(entry.path());
        }
    }
    tempfile::Builder::new()
        .prefix(&format!("{}-", std::process::id()))
        .tempdir_in(&runs)
        .context("Cannot create a directory for the run")
}

/// True when the process that a run's directory is named after is there.
fn owner_lives(name: &str) -> bool {
    let owner = name.split('-').next().unwrap_or_default();
    Path::new("/proc").join(owner).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_of_a_dead_lab_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().to_owned()).unwrap();
        let dead = dir.path().join("runs/4294967295-x");
        fs::create_dir_all(&dead).unwrap();
        let ours = create(&cache).unwrap();
        let other = create(&cache).unwrap();
        assert!(!dead.exists());
        assert!(ours.path().exists() && other.path().exists());
    }
}
