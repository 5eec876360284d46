//! The store as a whole, in a directory of its own.

mod snapshot;

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::{Layout, Name, Store};

/// A store that goes with the test.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) store: Store,
}

impl Fixture {
    /// An empty store.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        Self { dir, store }
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
