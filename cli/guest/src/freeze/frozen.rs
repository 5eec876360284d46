//! File systems that are frozen, for as long as a value lives.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::guard::Guard;
use super::mounts::Mount;
use super::{FreezeError, sys};

/// Frozen file systems. Dropped, they are thawed.
#[derive(Debug)]
pub(super) struct Frozen {
    /// In the order in which they were frozen.
    places: Vec<File>,
    /// How many could not be frozen.
    pub(super) skipped: usize,
    guard: Option<Guard>,
}

impl Frozen {
    /// Freezes all of `mounts`, for `seconds` at most even if this process is killed. Those that cannot
    /// be frozen by their kind are synced.
    ///
    /// # Errors
    /// When one that can be frozen was not; all are thawed then.
    pub(super) fn freeze(mounts: &[Mount], seconds: u64) -> Result<Self, FreezeError> {
        let mut opened = Vec::new();
        for Mount { place } in mounts {
            let file = open(place).map_err(|source| FreezeError::Host {
                action: "open the root of a file system",
                source,
            })?;
            opened.push((place.clone(), file));
        }
        let places: Vec<PathBuf> = mounts.iter().map(|mount| mount.place.clone()).collect();
        // Before anything is frozen: it could not be started from a file system that is.
        let guard = Guard::start(&places, seconds).map_err(FreezeError::Guard)?;
        let mut frozen = Self {
            places: Vec::new(),
            skipped: 0,
            guard: Some(guard),
        };
        for (place, file) in opened {
            match sys::freeze(&file) {
                Ok(()) => frozen.places.push(file),
                Err(Errno::EOPNOTSUPP) => {
                    nix::unistd::syncfs(&file)
                        .map_err(|source| FreezeError::Freeze { place, source })?;
                    frozen.skipped = frozen.skipped.saturating_add(1);
                }
                Err(source) => return Err(FreezeError::Freeze { place, source }),
            }
        }
        if frozen.places.is_empty() {
            return Err(FreezeError::Nothing);
        }
        Ok(frozen)
    }

    /// How many are frozen.
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// Thaws everything. False when something was not frozen any more: somebody else thawed it.
    pub(super) fn thaw(mut self) -> bool {
        self.thaw_all()
    }

    fn thaw_all(&mut self) -> bool {
        let mut frozen = true;
        for place in std::mem::take(&mut self.places).iter().rev() {
            frozen &= sys::thaw(place).is_ok();
        }
        if let Some(guard) = self.guard.take() {
            guard.release();
        }
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw_all();
    }
}

/// Opens the root of a file system.
pub(super) fn open(place: &Path) -> io::Result<File> {
    File::open(place)
}
