//! The store as a whole, in a directory of its own.

mod crash;
mod migrate;
mod openzfs;
mod pool;
mod race;
mod snapshot;
mod space;
mod transfer;
mod tree;
mod verbs;
mod zfs;

use std::fs;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tempfile::TempDir;

use crate::{Layout, Name, Store};

/// A child shares every lock of this process from its fork to its exec, so tests that start
/// processes and tests that try locks take turns.
static FORKS: RwLock<()> = RwLock::new(());

/// No other test starts a process meanwhile.
pub(crate) fn no_forks() -> RwLockReadGuard<'static, ()> {
    FORKS.read().unwrap_or_else(PoisonError::into_inner)
}

/// For a test that starts processes.
pub(crate) fn forks() -> RwLockWriteGuard<'static, ()> {
    FORKS.write().unwrap_or_else(PoisonError::into_inner)
}

/// A directory in memory where there is one: thousands of writes need no disk.
pub(crate) fn memory_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// A store that goes with the test.
pub(crate) struct Fixture {
    _no_forks: RwLockReadGuard<'static, ()>,
    pub(crate) dir: TempDir,
    pub(crate) store: Store,
}

impl Fixture {
    /// An empty store.
    pub(crate) fn new() -> Self {
        let dir = memory_dir();
        let store = open(dir.path());
        Self {
            _no_forks: no_forks(),
            dir,
            store,
        }
    }

    /// Makes a state with an image that holds `content`.
    pub(crate) fn state(&self, state: &str, content: &[u8]) {
        let dir = self.store.layout().state(&name(state));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("data.img"), content).unwrap();
    }

    /// The path of something below the store.
    pub(crate) fn path(&self, rest: &str) -> std::path::PathBuf {
        self.dir.path().join(rest)
    }
}

/// The store in `dir`.
pub(crate) fn open(dir: &Path) -> Store {
    Store::new(Layout {
        root: dir.to_owned(),
        assignments: dir.join("assignments.json"),
    })
}

/// A name from a literal.
pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}
