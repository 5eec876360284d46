//! The lab's cache: everything downloaded or built, outside the repository.
//!
//! An entry is a directory named `<name>-<digest of its recipe>`, so a changed recipe builds a new
//! one. It is made in a temporary directory and renamed, under a lock file of its own, so that
//! concurrent labs build it once and a killed lab leaves nothing that looks finished. Entries of
//! older recipes go once nobody has used them for a week.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::progress;

/// Entries of older recipes that nobody used for this long are removed.
const KEPT_UNUSED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Names the cache directory, when the default does not suit.
pub const CACHE_VARIABLE: &str = "SLOTVMM_LAB_CACHE";

/// The open cache directory.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// What an entry is made from: a name for people and the parts whose change makes it stale.
#[derive(Clone, Debug)]
pub struct Recipe {
    name: String,
    digest: Sha256,
}

impl Recipe {
    /// A recipe without parts.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            digest: Sha256::new(),
        }
    }

    /// The recipe, also depending on `part`. Order and boundaries of parts count.
    #[must_use]
    pub fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.digest.update(part.len().to_le_bytes());
        self.digest.update(part);
        self
    }

    /// The entry's directory name.
    #[must_use]
    pub fn key(&self) -> String {
        let digest = self.digest.clone().finalize();
        let hex: String = digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{}-{hex}", self.name)
    }
}

impl Cache {
    /// Opens the cache, creating its directory: `$SLOTVMM_LAB_CACHE`, else `slotvmm-lab` in the
    /// user's cache directory.
    ///
    /// # Errors
    /// When no home directory is known or the directory cannot be made.
    pub fn open() -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = variable(CACHE_VARIABLE)
            .map(PathBuf::from)
            .or_else(|| variable("XDG_CACHE_HOME").map(|dir| Path::new(&dir).join("slotvmm-lab")))
            .or_else(|| variable("HOME").map(|dir| Path::new(&dir).join(".cache/slotvmm-lab")))
            .with_context(|| format!("No cache directory: set {CACHE_VARIABLE} or HOME"))?;
        Self::at(std::path::absolute(root)?)
    }

    /// Opens the cache in `root`, creating it.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn at(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(root.join("locks"))
            .with_context(|| format!("Cannot create the lab's cache in {}", root.display()))?;
        Ok(Self { root })
    }

    /// The cache's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the lock called `name`, waiting for its holder. Dropping the file releases it.
    ///
    /// # Errors
    /// When the lock file cannot be made or locked.
    pub fn lock(&self, name: &str) -> Result<File> {
        let path = self.root.join("locks").join(name);
        let file = File::create(&path)
            .with_context(|| format!("Cannot create lock file {}", path.display()))?;
        if file.try_lock().is_err() {
            progress::note(&format!("Waiting for another lab to finish {name}"));
            file.lock()
                .with_context(|| format!("Cannot lock {}", path.display()))?;
        }
        Ok(file)
    }

    /// Returns the entry's directory, building it by `make` (given an empty directory) when absent.
    ///
    /// # Errors
    /// What `make` returns, or a failure of the cache itself. A failed build leaves no entry.
    pub fn entry(
        &self,
        recipe: &Recipe,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let key = recipe.key();
        let path = self.root.join(&key);
        if path.exists() {
            mark_used(&path);
            return Ok(path);
        }
        let _lock = self.lock(&key)?;
        if path.exists() {
            return Ok(path);
        }
        let partial = self.root.join(format!("{key}.partial"));
        remove_tree(&partial)?;
        fs::create_dir(&partial).with_context(|| format!("Cannot create {}", partial.display()))?;
        let made = make(&partial).with_context(|| format!("Cannot build {key}"));
        if made.is_err() {
            remove_tree(&partial)?;
        }
        made?;
        fs::rename(&partial, &path)
            .with_context(|| format!("Cannot move {} into place", partial.display()))?;
        self.prune(&recipe.name, &key)?;
        Ok(path)
    }

    /// Removes entries called `name`, other than `key`, that nobody uses any more.
    fn prune(&self, name: &str, key: &str) -> Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let other = entry.file_name().to_string_lossy().into_owned();
            let digest = other
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('-'));
            let same = digest.is_some_and(|hex| hex.len() == 16 && hex.bytes().all(is_hex));
            let unused = entry
                .metadata()?
                .modified()?
                .elapsed()
                .is_ok_and(|age| age > KEPT_UNUSED);
            if same && other != key && unused {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

/// Notes that the entry is in use, by its time of modification.
fn mark_used(path: &Path) {
    // A cache that is read-only to us is still a cache.
    let _marked = File::open(path).and_then(|dir| dir.set_modified(SystemTime::now()));
}

/// Removes a directory tree, if it is there.
fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("Cannot remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache")).unwrap();
        (dir, cache)
    }

    #[test]
    fn entry_is_built_once() {
        let (_dir, cache) = cache();
        let recipe = Recipe::new("thing").with("v1");
        let first = cache
            .entry(&recipe, |dir| Ok(fs::write(dir.join("f"), "1")?))
            .unwrap();
        let second = cache
            .entry(&recipe, |_| anyhow::bail!("built twice"))
            .unwrap();
        assert_eq!(first, second);
        assert_eq!(fs::read_to_string(second.join("f")).unwrap(), "1");
    }

    #[test]
    fn failed_build_leaves_no_entry() {
        let (_dir, cache) = cache();
        let recipe = Recipe::new("thing");
        assert!(cache.entry(&recipe, |_| anyhow::bail!("no")).is_err());
        let left: Vec<_> = fs::read_dir(cache.root())
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        assert_eq!(left, [cache.root().join("locks")]);
    }

    #[test]
    fn changed_part_changes_the_key() {
        let one = Recipe::new("thing").with("ab").with("c");
        let two = Recipe::new("thing").with("a").with("bc");
        assert_ne!(one.key(), two.key());
        assert!(one.key().starts_with("thing-"));
    }

    #[test]
    fn entries_of_older_recipes_go_once_unused() {
        let (_dir, cache) = cache();
        let build = |part: &str| {
            cache
                .entry(&Recipe::new("a").with(part), |_| Ok(()))
                .unwrap()
        };
        let (unused, used) = (build("1"), build("2"));
        let other = cache.entry(&Recipe::new("a-b"), |_| Ok(())).unwrap();
        let long_ago = SystemTime::now() - 2 * KEPT_UNUSED;
        for path in [&unused, &used, &other] {
            File::open(path).unwrap().set_modified(long_ago).unwrap();
        }
        build("2");
        build("3");
        assert!(!unused.exists());
        assert!(used.exists() && other.exists());
    }

    #[test]
    fn leftovers_of_a_killed_build_are_replaced() {
        let (_dir, cache) = cache();
        let recipe = Recipe::new("thing");
        let stale = cache.root().join(format!("{}.partial", recipe.key()));
        fs::create_dir(&stale).unwrap();
        fs::write(stale.join("old"), "").unwrap();
        let entry = cache
            .entry(&recipe, |dir| Ok(fs::write(dir.join("new"), "")?))
            .unwrap();
        assert!(!entry.join("old").exists());
    }
}
