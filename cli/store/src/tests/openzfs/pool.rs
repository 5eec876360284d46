//! A pool of a real OpenZFS, in a file.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::Store;
use crate::tests::pool::BASE;
use crate::tests::tree::furnish_store;
use crate::tests::zfs::Victim;

/// The pool that [`BASE`] is in.
const POOL: &str = "microvms";

/// Size of the pool's file, which is sparse.
const BYTES: u64 = 2 << 30;

/// A pool with the data set for states, which goes with this value.
pub(super) struct RealPool {
    _dir: TempDir,
    root: PathBuf,
}

impl RealPool {
    pub(super) fn new() -> Self {
        let scratch = env::var_os("LAB_SCRATCH").map_or_else(env::temp_dir, PathBuf::from);
        let dir = tempfile::tempdir_in(scratch).unwrap();
        let (file, root) = (dir.path().join("pool"), dir.path().join("store"));
        File::create(&file).unwrap().set_len(BYTES).unwrap();
        let mut create = Command::new("zpool");
        create.args(["create", "-O", "mountpoint=none", "-o", "cachefile=none"]);
        done(create.arg(POOL).arg(&file));
        Self { _dir: dir, root }
    }

    /// Makes the store and its data sets in the new pool.
    pub(super) fn empty(&self) {
        fs::create_dir(&self.root).unwrap();
        let states = format!("mountpoint={}", self.root.join("states").display());
        done(Command::new("zfs").args(["create", "-p", "-o", &states, BASE]));
    }

    /// Where the pool's file and the store are.
    fn dir(&self) -> &Path {
        self.root.parent().unwrap()
    }

    /// Keeps a copy of all that there is.
    fn keep_in(&self, template: &Path) {
        done(Command::new("zpool").args(["export", POOL]));
        fs::create_dir(template).unwrap();
        let all = ["pool", "store"].map(|name| self.dir().join(name));
        done(Command::new("cp").arg("-a").args(all).arg(template));
        self.import();
    }

    /// Has such a copy in place of what there is.
    fn replace_by(&self, template: &Path) {
        done(Command::new("zpool").args(["destroy", "-f", POOL]));
        fs::remove_dir_all(&self.root).unwrap();
        let all = template.join(".");
        done(Command::new("cp").arg("-a").arg(all).arg(self.dir()));
        self.import();
    }

    fn import(&self) {
        let mut import = Command::new("zpool");
        import.args(["import", "-o", "cachefile=none", "-d"]);
        done(import.arg(self.dir()).arg(POOL));
    }
}

impl Drop for RealPool {
    fn drop(&mut self) {
        // A test that fails leaves it to the emulated host's end.
        let _ = Command::new("zpool").args(["destroy", "-f", POOL]).status();
    }
}

impl Victim for RealPool {
    fn root(&self) -> &Path {
        &self.root
    }

    fn open(&self) -> Store {
        super::open(&self.root)
    }

    /// ZFS imports a copy much quicker than it does again what that takes.
    fn furnish(&self) {
        let template = self.dir().join("template");
        if template.exists() {
            return self.replace_by(&template);
        }
        self.empty();
        furnish_store(&self.open());
        self.keep_in(&template);
    }

    fn kind(&self) -> &'static str {
        "openzfs"
    }
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
