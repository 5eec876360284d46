//! Shared pieces of the benchmarks: the tiny guest, the machine monitors that boot it, and devices
//! without a transport.
//!
//! `cargo bench -p benches` runs all of them; what cannot run here prints `skipped:` with the
//! reason. Not for correctness: tests do that.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

pub mod guest;
pub mod host;
pub mod monitor;
pub mod order;
pub mod port;
pub mod race;
pub mod rig;

/// Where hosts keep files in memory, as every one with systemd keeps its run directories.
const IN_MEMORY: &str = "/dev/shm";

/// Where a benchmark's files are: on a disk, whose page cache keeps kernels warm, but for `run`, which
/// is in memory where the host has such a place, as `/run` is.
#[derive(Debug)]
pub struct Place {
    dir: TempDir,
    _run: Option<TempDir>,
}

impl Place {
    /// Makes one; it goes with its value.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let run = Path::new(IN_MEMORY)
            .is_dir()
            .then(|| tempfile::tempdir_in(IN_MEMORY))
            .transpose()?;
        if let Some(run) = &run {
            symlink(run.path(), dir.path().join("run"))?;
        }
        Ok(Self { dir, _run: run })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}
