//! Shared pieces of the benchmarks: the tiny guest, the machine monitors that boot it, and devices
//! without a transport.
//!
//! `cargo bench -p benches` runs all of them; what cannot run here prints `skipped:` with the
//! reason. Not for correctness: tests do that.

use std::io;
use std::path::Path;

pub mod guest;
pub mod monitor;
pub mod race;
pub mod rig;

/// Where hosts keep files in memory, as every one with systemd keeps its run directories.
const IN_MEMORY: &str = "/dev/shm";

/// A directory for a benchmark's files, in memory where the host has such a place: sockets and locks
/// of a slot are made under `/run`, and a kernel is warm in the page cache.
///
/// # Errors
/// When it cannot be made.
pub fn place() -> io::Result<tempfile::TempDir> {
    if Path::new(IN_MEMORY).is_dir() {
        tempfile::tempdir_in(IN_MEMORY)
    } else {
        tempfile::tempdir()
    }
}
