//! A directory that is being made: `.new-<name>` beside its place, locked by its maker.
//!
//! The lock tells a directory that is being made from one whose maker died. Nothing of the second
//! kind is ever looked into, except by [`clear_leftovers`].

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::durable;
use crate::error::StoreError;
use crate::fault;
use crate::holder::Holder;
use crate::layout::{NEW, OLD};
use crate::store::Locked;

/// What becomes of a directory that is dropped.
#[derive(Debug, PartialEq, Eq)]
enum Drops {
    Remove,
    Keep,
}

/// A directory that is being made; dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Building {
    dir: PathBuf,
    place: PathBuf,
    drops: Drops,
    /// Locked as long as it is open.
    _lock: File,
}

impl Building {
    /// Begins a directory that will be at `place`. The store is locked, so nobody else begins it.
    ///
    /// # Errors
    /// When somebody else is making it, or the host refuses.
    pub(crate) fn begin(locked: &Locked<'_>, place: &Path) -> Result<Self, StoreError> {
        let dir = beside(place, NEW);
        refuse_while_alive(&dir)?;
        durable::remove_tree(&dir)?;
        Self::go_on(locked, place, dir)
    }

    /// As [`Self::begin`], in the directory `dir` with what is in it.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(crate) fn go_on(
        _locked: &Locked<'_>,
        place: &Path,
        dir: PathBuf,
    ) -> Result<Self, StoreError> {
        refuse_while_alive(&dir)?;
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.map_err(StoreError::at("create directory", &dir))?,
        }
        let lock = File::open(&dir).map_err(StoreError::at("open", &dir))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| StoreError::at("lock", &dir)(errno.into()))?;
        let building = Self {
            place: place.to_owned(),
            drops: Drops::Remove,
            _lock: lock,
            dir,
        };
        if let Some(parent) = building.dir.parent() {
            durable::inherit_owner(&building.dir, parent)?;
        }
        fault::point("a new directory is empty");
        Ok(building)
    }

    /// Where it is being made.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is in it now is nowhere else: it stays even if it does not get its name.
    pub(crate) fn keep(mut self) -> Self {
        self.drops = Drops::Keep;
        self
    }

    /// Gives the directory its name; its files are durable already.
    ///
    /// # Errors
    /// When the host refuses; then the directory is gone.
    pub(crate) fn finish(mut self) -> Result<(), StoreError> {
        durable::sync_dir(&self.dir)?;
        durable::rename_new(&self.dir, &self.place)?;
        self.drops = Drops::Keep;
        Ok(())
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        if self.drops == Drops::Remove {
            // What cannot be removed now is a leftover like that of a maker who died.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// `path` with something before its name.
pub(crate) fn beside(path: &Path, prefix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{prefix}{name}"))
}

/// Whether somebody is making the directory `dir`.
pub(crate) fn is_alive(dir: &Path) -> Result<bool, StoreError> {
    refuse_while_alive(dir).map_or_else(
        |error| match error {
            StoreError::BeingMade { .. } => Ok(true),
            error => Err(error),
        },
        |()| Ok(false),
    )
}

/// Fails when somebody is making the directory `dir`.
pub(crate) fn refuse_while_alive(dir: &Path) -> Result<(), StoreError> {
    let file = match File::open(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(StoreError::at("open", dir))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(StoreError::BeingMade {
            path: dir.to_owned(),
            holder: Holder::find(&file),
        }),
        Err(errno) => Err(StoreError::at("lock", dir)(errno.into())),
    }
}

/// What dead makers and removers left in `dir`.
pub(crate) fn leftovers(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut found = Vec::new();
    for name in durable::entries(dir)? {
        let path = dir.join(&name);
        if name.starts_with(OLD) || (name.starts_with(NEW) && !is_alive(&path)?) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Removes what dead makers and removers left in `dir`.
pub(crate) fn clear_leftovers(_locked: &Locked<'_>, dir: &Path) -> Result<(), StoreError> {
    for path in leftovers(dir)? {
        if path.is_dir() {
            durable::remove_tree(&path)?;
        } else {
            durable::remove_file(&path)?;
        }
    }
    Ok(())
}
